"""Texts: both languages whole, nothing missing, nothing left over, and the language that each person gets."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.kit import RAISABLE, RAISING, Reason, SignalKind
from gateway.collect.listening import FAULT, NOBODY, NOISE, NOTHING, SILENCE, STRANGER, UNREAD
from gateway.config.schema import TABLES, settings_of
from gateway.config.settings import (
    Ble,
    Destination,
    DestinationPath,
    DeviceTable,
    Gateway,
    Mqtt,
    Outbox,
    Receiver,
    Room,
    Serial,
)
from gateway.problems import SEVERITIES
from gateway.texts import language, placeholders, table, text

SOURCE = Path(__file__).parents[2] / "gateway"


def constants() -> Iterator[str]:
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_both_languages_have_the_same_keys_and_placeholders() -> None:
    zh, en = table("zh"), table("en")
    assert zh.keys() == en.keys()
    assert {key for key in zh if placeholders(zh[key]) != placeholders(en[key])} == set()


def test_the_chinese_texts_are_chinese() -> None:
    assert {key for key, value in table("zh").items() if not any("一" <= c <= "鿿" for c in value)} <= {
        "expect.port",
        "expect.url",
        "problem.GW-CFG-30.remedy",
        "diagnose.port-names",
        *(f"diagnose.rung-{word}" for word in ("dns", "tcp", "tls")),
    }  # the last is all placeholder


def test_no_text_is_left_over_and_none_is_missing() -> None:
    words = set(constants())
    needed = {f"problem.{key.split('.')[1]}.{part}" for key in table("zh") if key.startswith("problem.")
              for part in ("title", "meaning", "remedy")}  # fmt: skip
    needed |= {word[1:] for word in words if word.startswith("@") and "." in word[:-1] and " " not in word}
    for kind in (Gateway, Room, Serial, Ble, Mqtt, Receiver, DeviceTable, Destination, DestinationPath, Outbox):
        needed |= {f"expect.{item.description}" for item in getattr(kind, "__pydantic_fields__").values()}  # noqa: B009 - typed as unknown
    needed |= {f"severity.{one}" for one in SEVERITIES} | {f"effect.{one}" for one in ("fatal", "set-aside", "kept")}
    needed |= {"effect.follows", "effect.runs"}
    needed |= {f"setting.{name}.{key}" for name in TABLES for key in ("about", *(key for key, *_ in settings_of(name)))}
    needed |= {f"alarm.{word}" for word in ("ACTIVE", "ACKED", "ATTENDED", "CLOSED")}
    needed |= {f"alarm.{kind.value}" for kind in RAISING | RAISABLE}
    needed |= {f"delivery.{word}" for word in ("QUEUED", "SENT", "L1", "L2", "UNDELIVERED", "DEAD_LETTER")}
    needed |= {f"signal.{kind.value}" for kind in SignalKind} | {f"reason.{reason.value}" for reason in Reason}
    needed |= {f"reason.{one}" for one in (STRANGER, NOBODY, NOISE, SILENCE, NOTHING, UNREAD, FAULT, "queue-full")}
    needed |= {f"profile-lacks.{one}" for one in ("batch", "ack", "birth", "state")}
    needed |= {"cli.help-alarm-ack", "cli.help-alarm-close"}  # made of their command's name
    needed |= {f"cli.meters-day-{kind}" for kind in ("read", "freeze", "missing", "future", "shared")}
    available = table("zh").keys()
    assert needed - available == set()
    spoken = {
        key
        for key in available
        if key.partition(".")[0] in ("cli", "column", "age", "service", "diagnose", "section", "verdict")
    }
    unused = {key for key in spoken - needed if not {key, key.partition(".")[2]} & words}
    assert unused == set()
    assert available - spoken - needed == set()


def test_a_text_is_filled_in() -> None:
    assert text("age.hours", "zh", n=3, minutes=12) == "3 小时 12 分"
    assert text("age.hours", "en", n=3, minutes=12) == "3 h 12 min"


def test_a_value_that_is_missing_shows_as_a_question_mark() -> None:
    assert text("age.hours", "en", n=3) == "3 h ? min"


@pytest.mark.parametrize("nothing", [{}, {"reason": None}, {"reason": ""}])
def test_a_part_whose_value_is_not_known_is_left_out(nothing: dict[str, object]) -> None:
    assert text("problem.GW-CFG-02.title", "en", file="/f", **nothing) == "the configuration file cannot be read: /f"


def test_a_value_that_names_a_text_is_replaced_by_it() -> None:
    title = text("problem.GW-CFG-02.title", "zh", file="/f", reason="@hint.too-large")
    assert title == "配置文件读不了：/f（文件太大）"


def test_a_value_that_only_looks_like_the_name_of_a_text_stays_as_it_is() -> None:
    assert text("problem.GW-CFG-02.title", "en", file="@hint.none", reason="{file} <<x>>") == (
        "the configuration file cannot be read: @hint.none ({file} <<x>>)"
    )


def test_literal_brackets_of_the_configuration_language_survive() -> None:
    assert text("problem.GW-CFG-31.title", "en") == "there is no [[destination]]"
    assert text("expect.map", "en") == "a table, written [device.map] or map = { ... }"


@pytest.mark.parametrize(("key", "lang"), [("no.such.key", "zh"), ("age.hours", "fr")])
def test_an_unknown_key_or_language_is_an_error(key: str, lang: str) -> None:
    with pytest.raises(KeyError):
        text(key, lang)


@pytest.mark.parametrize(
    ("asked", "configured", "environ", "expected"),
    [
        ("en", "zh", {"LANG": "zh_CN.UTF-8"}, "en"),
        (None, "en", {"LANG": "zh_CN.UTF-8"}, "en"),
        ("fr", "xx", {"LANG": "en_GB.UTF-8"}, "en"),
        (None, None, {"LANG": "zh_CN.UTF-8"}, "zh"),
        (None, None, {"LANG": "zh_CN.UTF-8", "LC_ALL": "de_DE.UTF-8"}, "en"),
        (None, None, {"LC_ALL": "", "LANG": "en_US.UTF-8"}, "en"),
        (None, None, {"LC_ALL": "C", "LANG": "en_US.UTF-8"}, "zh"),
        (None, None, {"LANG": "C.UTF-8"}, "zh"),
        (None, None, {"LANG": "POSIX"}, "zh"),
        (None, None, {}, "zh"),
    ],
)
def test_who_gets_which_language(
    asked: str | None, configured: str | None, environ: dict[str, str], expected: str
) -> None:
    assert language(asked, configured, environ) == expected

"""A catalogue of pretended drivers, one of each form, and a way to load a text as a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import Advertises, Answers, BadOption, Decoded, Driver, LineSettings, Poll, Streams, Title
from gateway.config import Settings, inspect, load
from gateway.errors import Finding

TITLE = Title(zh="样机", en="sample")


class _Framer:
    limit = 16
    skipped = 0

    def __init__(self) -> None:
        self.rejects: dict[Any, int] = {}

    def feed(self, data: bytes) -> list[bytes]:
        return [data]

    def reset(self) -> None:
        """Nothing is held."""


class _OtherFramer(_Framer):
    pass


def _stream_options(raw: Mapping[str, object]) -> object:
    if raw.get("kind", "fall") != "fall":
        raise BadOption("map.kind", raw["kind"], "fall")
    return ("stream", dict(raw))


def _broken_options(raw: Mapping[str, object]) -> object:
    raise ZeroDivisionError(len(raw))


def _tag_options(raw: Mapping[str, object]) -> Advertises:
    slot = raw.get("slot")
    if not isinstance(slot, str):
        raise BadOption("map.slot", slot, "a slot", zh="一个帧")
    return _advertises("tag", identities=frozenset({slot}), options=_tag_options, identify=lambda _: (), may_call=True)


def _answer_options(address: str, raw: Mapping[str, object]) -> object:
    if len(address) != 12:
        raise BadOption("address", address, "12 digits")
    for index, item in enumerate(raw.get("rows", ())):  # type: ignore[arg-type,var-annotated]  # rows is a list in tests
        if item.get("is") != "kwh":
            raise BadOption(f"map.rows[{index}].is", item.get("is"), "kwh", zh="电能")
    return ("answer", address)


def _talk(target: object) -> Any:
    yield from ()
    raise AssertionError(target)


def _advertises(model: str, **more: Any) -> Advertises:
    return Advertises(model=model, title=TITLE, decode=lambda *_: Decoded(), vectors=(), **more)


def _streams(model: str, **more: Any) -> Streams:
    settings: dict[str, Any] = {"framer": _Framer, "address_of": lambda *_: "", "line": LineSettings(115200)}
    settings |= {"options": _stream_options, **more}
    return Streams(model=model, title=TITLE, decode=lambda *_: Decoded(), vectors=(), **settings)


def _answers(model: str, line: LineSettings, **more: Any) -> Answers:
    settings: dict[str, Any] = {"framer": _Framer, "options": _answer_options, "talk": _talk, "line": line, **more}
    return Answers(model=model, title=TITLE, vectors=(), **settings)


_DRIVERS: tuple[Driver, ...] = (
    _advertises("button", key_bytes=16, may_call=True),
    _advertises("locked-button", key_bytes=16, plain=False, may_call=True),
    _advertises("beacon", may_call=True),
    _advertises("thermometer"),
    _advertises("tag", options=_tag_options, identify=lambda _: (), may_call=True),
    _advertises("labelled-button", key_bytes=16, may_call=True, read_key=lambda text: bytes.fromhex(text.lstrip("Z"))),
    _streams("radar"),
    _streams("bridge", framer=_OtherFramer),
    _streams("loner", address_of=None),
    _streams("broken", options=_broken_options),
    _streams("card-reader", poll=Poll(b"?", 1.0)),
    _streams("receiver", radio=True),
    _streams("sealed-port", keyed=lambda options, key: (options, key), key_bytes=16),
    _streams("asked-receiver", radio=True, poll=Poll(b"?", 1.0)),
    _answers("meter", LineSettings(2400, 8, "E", 1)),
    _answers("fast-meter", LineSettings(9600, 8, "N", 1)),
    _answers("sealed-meter", LineSettings(2400, 8, "E", 1), keyed=lambda target, key: (target, key), key_bytes=16),
)


class PretendedCatalogue:
    """The form of `drivers.kit.catalogue`."""

    def driver(self, model: str) -> Driver:
        return next(driver for driver in _DRIVERS if driver.model == model)

    def models(self) -> tuple[str, ...]:
        return tuple(driver.model for driver in _DRIVERS)


# Everything that must be there, so that a test adds only what it is about. Its last line is line 8.
START = """\
[gateway]
id = "gw-1"
org = "org"
site = "site"
[[destination]]
id = "district"
[[destination.path]]
url = "mqtts://platform.example.org"
"""

Check = Callable[[str], tuple[Settings | None, tuple[Finding, ...]]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Load a whole configuration text."""

    def load_text(text: str) -> tuple[Settings | None, tuple[Finding, ...]]:
        file = tmp_path / "gateway.toml"
        file.write_text(text, encoding="utf-8")
        return inspect(file, catalogue=PretendedCatalogue())

    return load_text


@pytest.fixture
def as_service(tmp_path: Path) -> Callable[[], Settings]:
    """Load what `check` checked as the daemon does that is about to run on it."""
    return lambda: load(tmp_path / "gateway.toml", catalogue=PretendedCatalogue())


@pytest.fixture
def added(check: Check) -> Callable[[str], tuple[Settings, list[tuple[str, str, int | None, str]]]]:
    """Load START with tables added; what is wrong comes as (code, where, line, effect)."""

    def load_added(text: str) -> tuple[Settings, list[tuple[str, str, int | None, str]]]:
        settings, findings = check(START + text)
        assert settings is not None, findings
        assert settings.findings == findings
        return settings, [(one.code, one.where, one.line, one.effect) for one in findings]

    return load_added

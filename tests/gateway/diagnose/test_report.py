"""What follows from the lines together: one line a cause, what to do first, the code for the telephone, the schema."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from gateway.cli.diagnosis import _folded
from gateway.cli.layout import width
from gateway.diagnose import run
from gateway.diagnose.merge import merged
from gateway.diagnose.report import (
    SECTIONS,
    Line,
    Report,
    Section,
    Verdict,
    as_document,
    bad,
    ok,
    phone_code,
    skipped,
    unknown,
)
from gateway.diagnose.site import Probe, Site
from gateway.problems import PROBLEMS
from gateway.texts.amounts import Age, Size

if TYPE_CHECKING:
    from tests.gateway.diagnose.conftest import Centre
else:
    Centre = Any


def report(*sections: Section) -> Report:
    at = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
    return Report(at, 0.5, "0.1.0", "gw-01 kz/hanfeng-01", "running", sections)


def flat(sections: tuple[Section, ...]) -> list[tuple[str, str, str, str, str]]:
    return [
        (section.name, line.code, line.subject, line.verdict.value, line.hidden_by)
        for section in sections
        for line in section.lines
    ]


# -- merging -----------------------------------------------------------------------------------------------------


def test_what_the_daemon_and_a_probe_both_say_is_one_line_with_its_age() -> None:
    found = [("serial", bad("GW-SER-01", "line", subject="rs485", port="/dev/x"))]
    told = [{"code": "GW-SER-01", "subject": "rs485", "since_s": 61.0, "facts": {"port": "/dev/x"}}]
    (section,) = merged(found, told)
    assert flat((section,)) == [("serial", "GW-SER-01", "rs485", "problem", "")]
    assert section.lines[0].since_s == 61.0


def test_what_only_the_daemon_knows_joins_its_section() -> None:
    found = [("service", ok("GW-CTL-01", "daemon")), ("platform", ok("GW-PLT-01", "platform", subject="district"))]
    told = [{"code": "GW-PLT-02", "subject": "district", "since_s": 5.0, "facts": {"count": 3, "reason": "bad-time"}}]
    assert flat(merged(found, told)) == [
        ("service", "GW-CTL-01", "", "ok", ""),
        ("platform", "GW-PLT-01", "district", "ok", ""),
        ("platform", "GW-PLT-02", "district", "problem", ""),
    ]


def test_each_family_of_problems_has_a_section_of_its_choice() -> None:
    families = {name.split("-")[1] for name in PROBLEMS}
    told = [{"code": next(one for one in PROBLEMS if one.startswith(f"GW-{family}-"))} for family in sorted(families)]
    shown = {line.code.split("-")[1]: section.name for section in merged([], told) for line in section.lines}
    assert {family for family, name in shown.items() if name == "service"} == {"CFG", "CTL", "RUN"}
    assert (shown["RCV"], shown["MQS"]) == ("bluetooth", "devices")


def test_the_daemon_is_right_where_a_probe_met_nothing_bad() -> None:
    found = [("platform", ok("GW-PLT-01", "platform", subject="district"))]
    told = [{"code": "GW-PLT-01", "subject": "district", "since_s": 40.0, "facts": {}}]
    assert flat(merged(found, told)) == [("platform", "GW-PLT-01", "district", "problem", "")]


def test_a_line_that_covers_what_the_daemon_says_stands_for_it() -> None:
    line = Line("GW-NET-01", "way", Verdict.PROBLEM, "district", covers=frozenset({("GW-NET-02", "district")}))
    told = [
        {"code": "GW-NET-02", "subject": "district", "since_s": 9.0, "facts": {}},
        {"code": "GW-NET-02", "subject": "province", "since_s": 9.0, "facts": {}},
    ]
    assert flat(merged([("network", line)], told)) == [
        ("network", "GW-NET-01", "district", "problem", ""),
        ("network", "GW-NET-02", "province", "problem", ""),
    ]


def test_what_follows_from_something_else_names_it_and_is_no_cause() -> None:
    found = [
        ("serial", bad("GW-SER-01", "line", subject="rs485")),
        ("devices", bad("GW-DEV-20", "device", subject="radar", link="rs485")),
        ("devices", bad("GW-DEV-20", "device", subject="call-1", link="radio")),
        ("storage", bad("GW-STO-15", "set-aside")),
    ]
    made = report(*merged(found, []))
    assert flat(made.sections) == [
        ("storage", "GW-STO-15", "", "warning", ""),
        ("serial", "GW-SER-01", "rs485", "problem", ""),
        ("devices", "GW-DEV-20", "radar", "warning", "GW-SER-01 rs485"),
        ("devices", "GW-DEV-20", "call-1", "warning", ""),
    ]
    assert [(line.code, line.subject) for line in made.causes] == [
        ("GW-SER-01", "rs485"), ("GW-STO-15", ""), ("GW-DEV-20", "call-1"),
    ]  # fmt: skip


def test_a_line_may_stand_in_another_section_than_its_probe() -> None:
    line = Line("GW-SEC-10", "certificate-platform", Verdict.OK, section="security")
    assert flat(merged([("network", line)], [])) == [("security", "GW-SEC-10", "", "ok", "")]


def test_what_a_daemon_of_another_version_says_is_shown_itself() -> None:
    (section,) = merged([], [{"code": "GW-XXX-99", "subject": "x", "facts": "no table"}])
    assert flat((section,)) == [("service", "GW-XXX-99", "x", "problem", "")]


# -- what follows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "verdict", "status"),
    [
        ([ok("GW-CTL-01", "daemon")], "ok", 0),
        ([ok("GW-CTL-01", "daemon"), skipped("GW-PWR-01", "voltage", "")], "ok", 0),
        ([skipped("GW-PWR-01", "voltage", "")], "skipped", 0),
        ([ok("GW-CTL-01", "daemon"), unknown("GW-DEV-20", "device", "")], "unknown", 1),
        ([unknown("GW-DEV-20", "device", ""), bad("GW-CLK-01", "clock-set")], "warning", 1),
        ([bad("GW-CLK-01", "clock-set"), bad("GW-SER-01", "line")], "problem", 2),
    ],
)
def test_the_worst_line_is_the_mark_and_the_exit_status(lines: list[Line], verdict: str, status: int) -> None:
    section = Section("service", tuple(lines))
    assert (section.verdict, report(section).exit_status) == (verdict, status)


def test_somebody_who_waits_for_help_comes_before_every_repair() -> None:
    made = report(
        Section("service", (bad("GW-CTL-01", "daemon"),)),
        Section("alarm", (bad("GW-ANN-02", "open-alarms", subject="call-1"),)),
    )
    assert made.first is not None
    assert made.first.code == "GW-ANN-02"
    assert made.phone_code.startswith("ANN02 CTL01 ")


def test_what_keeps_the_daemon_down_comes_before_what_is_only_wrong() -> None:
    found = [
        ("service", Line("GW-CTL-01", "daemon", Verdict.PROBLEM, follows=("GW-RUN-02",))),
        ("service", bad("GW-CFG-38", "configuration")),
        ("service", bad("GW-RUN-02", "data-dir", subject="/var/lib/daycare-gateway")),
    ]
    assert [line.code for line in report(*merged(found, [])).causes] == ["GW-RUN-02", "GW-CFG-38"]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], "OK *16"),
        (["GW-CTL-01"], "CTL01 *91"),
        (["GW-NET-03", "GW-NET-03"], "NET03 *12"),
        (["GW-SER-01", "GW-BLE-04", "GW-NET-03", "GW-STO-06", "GW-CLK-01"], "SER01 BLE04 NET03 +2 *69"),
    ],
)
def test_the_code_for_the_telephone(codes: list[str], expected: str) -> None:
    assert phone_code(codes) == expected


def test_the_check_of_the_telephone_code_finds_one_wrong_character_and_two_exchanged() -> None:
    def holds(code: str) -> bool:
        digits = "".join(str(int(one, 36)) for one in code.replace(" ", "").replace("+", "").replace("*", ""))
        return int(digits) % 97 == 1

    code = phone_code(["GW-SER-01", "GW-BLE-04", "GW-NET-03", "GW-STO-06"])
    assert holds(code)
    assert not holds(code.replace("SER01", "SER02"))
    assert not holds(code.replace("BLE04", "BLE40"))
    assert not holds(code.replace("+1", "+2"))


# -- probes ------------------------------------------------------------------------------------------------------


def _throws(_site: Site) -> list[Line]:
    raise ValueError("a sensor of a kind that nobody has seen")


def test_a_probe_that_throws_or_hangs_is_a_line_that_says_so(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def hangs(_site: Site) -> list[Line]:
        gate.wait(60)
        return []

    probes = [
        Probe("power", "voltage", "GW-PWR-01", _throws),
        Probe("storage", "space", "GW-STO-06", hangs, "disk", 0.2),
        Probe("version", "gateway-version", "GW-VER-01", lambda _site: [ok("GW-VER-01", "gateway-version", "1")]),
    ]
    monkeypatch.setattr(run, "probes", lambda _site: probes)
    centre.configure()
    made = centre.diagnose()
    gate.set()
    assert [(line.code, line.subject, line.verdict.value) for line in made.lines] == [
        ("GW-PWR-01", "", "unknown"), ("GW-STO-06", "disk", "unknown"), ("GW-VER-01", "", "ok"),
    ]  # fmt: skip
    assert made.lines[0].words(made.lines[0].why, "zh") == (
        "检查本身出错：ValueError: a sensor of a kind that nobody has seen"
    )
    assert made.lines[1].words(made.lines[1].why, "en") == "no result within 0 s"


def test_everything_that_can_hang_together_is_over_within_ten_seconds(
    centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits, not a stopwatch: what every probe waits for first, then the longest probe."""
    from gateway.diagnose.checks import network, probes
    from gateway.diagnose.daemon import ASK_S
    from gateway.diagnose.ladder import DNS_S, HEAD_S, TCP_S, TLS_S
    from gateway.diagnose.site import PROBE_S

    longest = max(probe.limit_s for probe in probes(centre.site()))
    assert longest == max(PROBE_S, network.CLIMB_S)
    assert run.FIRST_S + longest < 10
    assert run.FIGURES_S + run.CHECK_S < run.FIRST_S
    assert ASK_S * 1.5 < run.FIRST_S
    assert DNS_S + TCP_S + TLS_S + HEAD_S < network.CLIMB_S - 0.5


def test_only_the_sections_that_were_asked_for_are_told(centre: Centre) -> None:
    centre.configure()
    made = centre.diagnose(sections=("power", "clock"))
    assert [one.name for one in made.sections] == ["power", "clock"]
    assert made.exit_status == 0


# -- JSON --------------------------------------------------------------------------------------------------------


def schema() -> Any:
    return json.loads(resources.files("gateway.diagnose").joinpath("report.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_json_is_what_its_schema_says(centre: Centre, lang: str) -> None:
    centre.configure('[[serial]]\nid = "rs485"\nport = "/dev/none"\n')
    document = as_document(centre.diagnose(), lang)
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(document, schema(), format_checker=jsonschema.FormatChecker())
    assert json.loads(json.dumps(document)) == document
    assert [one["id"] for one in document["sections"]] == list(SECTIONS)
    assert document["exit_status"] == 2


def test_the_schema_refuses_what_is_no_report() -> None:
    made = as_document(report(Section("service", (bad("GW-CTL-01", "daemon"),))), "en")
    jsonschema.validate(made, schema())
    line = made["sections"][0]["lines"][0]
    for name in ("remedy", "verdict"):
        kept = line.pop(name)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(made, schema())
        line[name] = kept


def test_amounts_are_numbers_in_json_and_words_for_people() -> None:
    line = ok(
        "GW-STO-06", "space", "@diagnose.space-free", free=Size(3 * 1024**3), whole=Size(4 * 1024**3), age=Age(61)
    )
    document = as_document(report(Section("storage", (line,))), "zh")["sections"][0]["lines"][0]
    assert document["value"] == "还剩 3.0 GiB（共 4.0 GiB）"
    assert document["measured"] == {"free": 3 * 1024**3, "whole": 4 * 1024**3, "age": 61}


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("code", sorted(PROBLEMS))
def test_every_code_can_be_shown_in_json(code: str, lang: str) -> None:
    line = Line(code, "daemon", Verdict.PROBLEM, "thing")
    document = as_document(report(Section("service", (line,))), lang)
    jsonschema.validate(document, schema())


# -- paper -------------------------------------------------------------------------------------------------------


def test_a_long_value_is_folded_at_spaces_for_a_terminal_where_chinese_is_wide() -> None:
    put: list[str] = []
    _folded("、".join(["呼叫器"] * 20), put.append, first="  正常  GW-DEV-20  ")
    assert put == ["  正常  GW-DEV-20  " + "、".join(["呼叫器"] * 20)], "there is no space to fold it at"
    put.clear()
    _folded(" ".join(["呼叫器"] * 20), put.append, first="  正常  GW-DEV-20  ")
    assert len(put) == 2
    assert max(width(one) for one in put) <= 120


def test_looking_takes_no_longer_because_the_wall_clock_jumps(centre: Centre) -> None:
    centre.configure()
    began = time.monotonic()
    made = centre.diagnose(sections=("version",))
    assert 0 <= made.took_s <= time.monotonic() - began


Paper = Callable[[Report, str], str]


def test_the_marks_read_without_colour_and_nothing_plays_with_the_terminal(on_paper: Paper) -> None:
    line = bad("GW-SER-01", "line", subject="rs485\x1b[2J", port="/dev/\x07x")
    text = on_paper(report(Section("serial", (line,))), "zh")
    assert "[问题] 串口" in text
    assert "\x1b" not in text
    assert "\x07" not in text

"""Ways into a platform, and what alarms may take while one is broken: ledgers written by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from simulator.audit import audit, reasons
from simulator.ledgers import Decision, Emission, Fault, Ledgers
from simulator.ways import Spell, healed, ways_of

T0 = 1_700_000_000.0
NOTHING = {"p50": None, "p99": None, "max": None}
SCENARIO: dict[str, Any] = {
    "name": "by-hand",
    "seed": 1,
    "seconds": 40.0,
    "platforms": [{"id": "district", "types": ["*"], "also": [{"speaks": "https"}]}],
    "devices": [{"id": "button", "role": "button", "link": "air"}],
}


def press(n: int, *, at: float) -> Emission:
    return Emission(T0 + at, T0 + at + 1.0, "button", "press", counter=n)


def accepted(n: int, *, at: float, way: int = 1, status: str = "accepted") -> Decision:
    happened = datetime.fromtimestamp(T0 + at - 0.001, UTC).isoformat(timespec="milliseconds")
    return Decision(
        t=T0 + at,
        id=f"id-{n}",
        type="cn.eldercare.alarm.raised.v1",
        device="button",
        status=status,
        lane="alarm",
        sequence=n,
        deliveryseq=n,
        streamid="s",
        way=way,
        event={"time": happened, "data": {"kind": "call", "counter": n}},
    )


def fault(name: str, at: float, way: int = 0) -> Fault:
    return Fault(T0 + at, name, "district", way)


def run(*pairs: tuple[float, float], faults: tuple[Fault, ...], more: tuple[Decision, ...] = ()) -> dict[str, Any]:
    """Audit a run in which each press, made at the first time, was accepted at the second."""
    emissions = tuple(press(n, at=at) for n, (at, _) in enumerate(pairs, start=1))
    taken = tuple(accepted(n, at=at) for n, (_, at) in enumerate(pairs, start=1))
    status = {
        "outbox": {"stream": "s", "sequence": len(pairs), "unstored": 0},
        "destinations": [{"pending": {"A": 0}, "dead_letters": 0}],
    }
    return audit(Ledgers(SCENARIO, emissions, (), {"district": (*taken, *more)}, faults, status=status))


def latencies(report: dict[str, Any]) -> tuple[float | None, int, float | None]:
    """What the longest took when all was well, how many met one broken way, and what the longest of these took."""
    row = report["destinations"]["district"]
    return row["latency_ms"]["max"], row["one_way"]["alarms"], row["one_way"]["latency_ms"]["max"]


CUT = (fault("cut", 5, 1), fault("heal", 15, 1))
HANG = (fault("hang", 5, 1), fault("heal", 15, 1))


# -- when which way was broken ----------------------------------------------------------------------------------------


def ways(*faults: Fault) -> Any:
    return ways_of(Ledgers(SCENARIO, faults=faults), "district")


def test_a_broken_way_beside_a_whole_one_is_narrow_and_all_broken_is_shut() -> None:
    found = ways(fault("cut", 1, 1), fault("hang", 3, 2), fault("heal", 5, 1), fault("heal", 8, 2))
    assert found.count == 2
    assert found.spells == (Spell(1, "cut", T0 + 1, T0 + 5), Spell(2, "hang", T0 + 3, T0 + 8))
    assert found.narrow == ((T0 + 1, T0 + 3), (T0 + 5, T0 + 8))
    assert found.shut == ((T0 + 3, T0 + 5),)


def test_a_way_is_healed_by_itself_or_with_the_whole_platform() -> None:
    faults = (fault("cut", 1, 1), fault("heal", 2, 2), fault("heal", 4), fault("heal", 6, 1))
    assert healed(faults, faults[0]) == T0 + 4
    assert healed(faults[:2], faults[0]) == float("inf")
    assert healed((fault("mute", 1), fault("heal", 2, 1), fault("heal", 3)), fault("mute", 1)) == T0 + 3


def test_a_way_that_is_mute_and_then_cut_is_silent_only_until_the_cut() -> None:
    found = ways(fault("mute", 1, 1), fault("cut", 2, 1), fault("heal", 6, 1))
    assert found.spells == (Spell(1, "mute", T0 + 1, T0 + 2), Spell(1, "cut", T0 + 2, T0 + 6))
    assert found.limit_s(T0 + 1.5, T0 + 1.6) == 5.0
    assert found.limit_s(T0 + 2.5, T0 + 9.0) == 2.0


def test_the_whole_platform_and_another_one_are_not_looked_at() -> None:
    other = Fault(T0 + 3, "cut", "family", 1)
    found = ways(fault("cut", 1), fault("heal", 2), other)
    assert (found.spells, found.narrow, found.shut) == ((), (), ())
    assert found.limit_s(T0, T0 + 10) is None


# -- what the audit makes of it -----------------------------------------------------------------------------------------


def test_alarms_that_met_one_broken_way_are_timed_apart() -> None:
    report = run((1.0, 1.25), (7.0, 7.5), (20.0, 20.125), faults=CUT)
    assert latencies(report) == (250.0, 1, 500.0)
    assert (report["late"], reasons(report)) == (0, [])
    assert report["faults"][0] == {"t": T0 + 5, "fault": "cut", "platform": "district", "way": 1}


@pytest.mark.parametrize(
    ("faults", "took", "late"),
    [(CUT, 1.9, 0), (CUT, 2.1, 1), (HANG, 2.1, 0), (HANG, 4.9, 0), (HANG, 5.1, 1)],
)
def test_an_alarm_that_waited_although_a_way_stood_is_late(faults: tuple[Fault, ...], took: float, late: int) -> None:
    report = run((6.0, 6.0 + took), faults=faults)
    assert report["late"] == late
    assert reasons(report) == ["1 alarms that waited although a way to the platform stood"] * late


def test_an_alarm_that_waited_for_the_heal_is_late() -> None:
    report = run((6.0, 15.2), faults=CUT)
    assert report["late"] == 1
    assert report["offences"][0]["offence"] == "late"
    assert (report["offences"][0]["took_s"], report["offences"][0]["limit_s"]) == (9.2, 2.0)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param((fault("cut", 6, 2), fault("heal", 14, 2)), id="the other way, too"),
        pytest.param((fault("cut", 6), fault("heal", 14)), id="the whole platform, too"),
        pytest.param((Fault(T0 + 6, "kill"), Fault(T0 + 13.9, "start")), id="no gateway"),
    ],
)
def test_without_a_road_nothing_is_late_and_nothing_is_timed(more: tuple[Fault, ...]) -> None:
    report = run((7.0, 14.3), faults=(CUT[0], *more, CUT[1]))
    assert report["late"] == 0
    assert latencies(report) == (None, 0, None)


def test_the_cut_of_one_way_excuses_no_loss() -> None:
    emissions = (press(1, at=6.0), press(2, at=8.0))
    status = {"outbox": {"stream": "s", "sequence": 1}, "destinations": [{"pending": {"A": 0}, "dead_letters": 0}]}
    decisions = {"district": (accepted(1, at=6.1, way=2),)}
    report = audit(Ledgers(SCENARIO, emissions, (), decisions, CUT, status=status))
    assert report["lost"] == 1


def test_a_platform_without_several_ways_is_timed_as_before() -> None:
    scenario = {**SCENARIO, "platforms": [{"id": "district", "types": ["*"]}]}
    ledgers = Ledgers(scenario, (press(1, at=1.0),), (), {"district": (accepted(1, at=1.5),)}, ())
    row = audit(ledgers)["destinations"]["district"]
    assert (row["ways"], row["latency_ms"]["max"]) == (1, 500.0)
    assert row["one_way"] == {"alarms": 0, "latency_ms": NOTHING}


def test_what_came_over_a_mute_way_must_come_again_and_what_came_over_the_other_need_not() -> None:
    faults = (fault("mute", 5, 1), fault("heal", 15, 1))
    again = replace(accepted(1, at=9.0, way=2), status="duplicate")
    assert run((6.0, 6.1), faults=faults)["unconfirmed"] == 1
    assert run((6.0, 6.1), faults=faults, more=(again,))["unconfirmed"] == 0
    elsewhere = (fault("mute", 5, 2), fault("heal", 15, 2))
    assert run((6.0, 6.1), faults=elsewhere)["unconfirmed"] == 0

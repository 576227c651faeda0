"""The verdict on presses, from ledgers written by hand: each offence is named, and nothing else is one."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.presses.judge import OFFENCES, Raised, Said, judge

T = 1_700_000_000.0


def press(at: float = 0.0, *, counter: int | None = 7, told: tuple[float, ...] = (0.0,), **facts: Any) -> Said:
    proves = facts.pop("proves", True)
    deaf = [T + at + one for one in facts.pop("deaf", ())]
    times = [T + at + one for one in told]
    return Said("b", "BTHome", "call", counter, proves, T + at, told=times, deaf=deaf, **facts)


def raised(at: float = 0.01, *, counter: int | None = 7, verified: bool = True, kind: str = "call") -> Raised:
    return Raised("b", kind, counter, verified, f"alarm-{at}", T + at, T + at + 0.1, T + at + 0.2)


def offences(report: dict[str, Any]) -> dict[str, int]:
    return {name: report[name] for name in OFFENCES if report[name]}


def test_a_press_that_was_heard_is_raised_once_and_timed() -> None:
    report = judge([press(told=(0.0, 0.1, 0.2)), press(5.0, counter=8)], [raised(), raised(5.03, counter=8)], [])
    assert offences(report) == {}
    assert (report["presses"], report["heard"], report["once"]) == (2, 2, 2)
    assert report["latency_ms"]["heard"] == {"p50": 30.0, "p99": 30.0, "max": 30.0}
    assert report["latency_ms"]["accepted"]["max"] == 230.0


@pytest.mark.parametrize(
    ("said", "alarms", "gaps", "found"),
    [
        ([press()], [], [], {"lost": 1}),
        ([press(told=(0.0, 3.0))], [], [(T - 1, T + 1)], {"lost": 1}),
        ([press()], [raised(), raised(0.5)], [], {"doubled": 1}),
        ([press()], [raised(), raised(0.5, counter=8)], [], {"phantom": 1}),
        ([press(told=())], [raised()], [], {"phantom": 1}),
        ([press()], [raised(-1.0)], [], {"phantom": 1, "lost": 1}),
        ([press()], [raised(kind="fall")], [], {"wrong": 1}),
        ([press()], [raised(verified=False)], [], {"wrong": 1}),
        ([press(told=(), deaf=(0.0,))], [], [(T + 1, T + 2)], {"deaf_untold": 1}),
        ([press(), press(4.0, of=T)], [raised(), raised(4.01)], [], {"replay_verified": 1}),
        ([press(proves=False), press(4.0, of=T, proves=False)],
         [raised(verified=False), raised(4.01, verified=False), raised(4.4, verified=False)], [], {"doubled": 1}),
    ],
    ids=["silence", "half in a gap", "two for one", "a stranger counter", "unheard", "before it", "another kind",
         "not proven", "deafness untold", "a replay taken for proven", "a replay twice"],
)  # fmt: skip
def test_what_must_not_be_is_named(
    said: list[Said], alarms: list[Raised], gaps: list[tuple[float, float]], found: dict[str, int]
) -> None:
    report = judge(said, alarms, gaps)
    assert offences(report) == found
    assert set(report["facts"]) == set(found)


def test_what_lies_in_a_gap_or_was_lost_by_the_radio_is_no_offence() -> None:
    said = [press(), press(5.0, counter=8, told=()), press(9.0, counter=9, told=(), deaf=(0.1,))]
    report = judge(said, [], [(T - 0.1, T + 0.2), (T + 8.9, T + 9.5)])
    assert offences(report) == {}
    assert (report["in_a_gap"], report["unheard"], report["radio_loss"], report["met_deaf"]) == (1, 2, 1, 1)


def test_what_was_on_its_way_when_the_bus_died_lies_in_the_gap_that_begins_with_what_was_read_last() -> None:
    said = [press(), press(1.0, counter=8), press(1.5, counter=9)]
    alarms = [raised(2.0)]  # two seconds on its way
    assert offences(judge(said, alarms, [(T + 2.1, T + 3.0)])) == {}
    assert offences(judge(said, alarms, [(T + 4.0, T + 5.0)])) == {"lost": 2}


def test_an_attacker_is_a_repeat_or_raised_unverified() -> None:
    said = [press(), press(4.0, of=T), press(9.0, of=T)]
    report = judge(said, [raised(), raised(9.01, verified=False)], [])
    assert offences(report) == {}
    assert (report["replays"], report["replays_repeat"], report["replays_raised"]) == (2, 1, 1)


def test_a_press_that_only_an_attacker_made_heard_is_no_phantom() -> None:
    report = judge([press(told=()), press(4.0, of=T)], [raised(4.01)], [])
    assert offences(report) == {}
    assert (report["by_echo"], report["once"], report["replays_raised"]) == (1, 0, 0)


@pytest.mark.parametrize(("after_s", "masked", "lost"), [(40.0, 1, 0), (70.0, 0, 1)])
def test_a_number_that_nobody_proves_can_be_used_up_by_an_attacker(after_s: float, masked: int, lost: int) -> None:
    old, replay = press(-900.0, proves=False), press(0.0, of=T - 900.0, proves=False)
    alarms = [raised(-899.9, verified=False), raised(0.01, verified=False)]
    report = judge([old, replay, press(after_s, proves=False)], alarms, [])
    assert (report["masked"], report["lost"], report["replays_raised"]) == (masked, lost, 1)


def test_a_tag_without_a_counter_is_known_by_the_moment() -> None:
    said = [press(at, counter=None, proves=False) for at in (0.0, 30.0)]
    report = judge(said, [raised(at, counter=None, verified=False) for at in (0.02, 30.02)], [])
    assert offences(report) == {}
    assert report["once"] == 2

"""Troubles: each turn told once, facts kept fresh, followers hidden behind their cause, and a bound on the list."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from gateway.clock import Stamp
from gateway.health import LIMIT, Health, Trouble


class HandClock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def stamp(self) -> Stamp:
        return Stamp(1_000_000 + int(self.seconds * 1000), int(self.seconds * 1000), "boot-1")

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def told() -> list[Trouble]:
    return []


@pytest.fixture
def health(clock: HandClock, told: list[Trouble]) -> Health:
    return Health(clock, told.append)


def on_now(health: Health) -> list[tuple[str, str, bool]]:
    return [(one.code, one.subject, one.hidden) for one in health.current()]


def test_a_trouble_tells_what_since_when_and_how_bad(health: Health, clock: HandClock, told: list[Trouble]) -> None:
    health.on("GW-SER-01", "radar", port="/dev/radar")
    clock.seconds = 107.5
    (one,) = health.current()
    assert one == Trouble(
        "GW-SER-01", "radar", "problem", Stamp(1_100_000, 100_000, "boot-1"), 100.0, {"port": "/dev/radar"}
    )
    assert told == [one]


def test_saying_it_again_changes_the_facts_and_nothing_else(
    health: Health, clock: HandClock, told: list[Trouble]
) -> None:
    health.on("GW-DEV-01", "meter", failures=3)
    clock.seconds = 200.0
    health.on("GW-DEV-01", "meter", failures=4)
    (one,) = health.current()
    assert (one.since_monotonic, one.facts) == (100.0, {"failures": 4})
    assert len(told) == 1


def test_the_end_is_told_once_with_its_time(health: Health, clock: HandClock, told: list[Trouble]) -> None:
    health.on("GW-SER-01", "radar")
    clock.seconds = 130.0
    health.off("GW-SER-01", "radar")
    health.off("GW-SER-01", "radar")
    assert health.current() == ()
    assert [one.until for one in told] == [None, Stamp(1_130_000, 130_000, "boot-1")]
    assert told[1].since == Stamp(1_100_000, 100_000, "boot-1")


def test_what_was_never_on_does_not_end(health: Health, told: list[Trouble]) -> None:
    health.off("GW-SER-01", "radar")
    assert told == []


def test_equal_codes_of_different_subjects_are_different_troubles(health: Health) -> None:
    health.on("GW-DEV-01", "a")
    health.on("GW-DEV-01", "b")
    health.off("GW-DEV-01", "a")
    assert on_now(health) == [("GW-DEV-01", "b", False)]


def test_each_turn_is_logged_once_with_code_title_and_facts(health: Health, clock: HandClock) -> None:
    with structlog.testing.capture_logs() as logs:
        health.on("GW-CFG-30", "serial[1] (radar).port", value="/dev/ttyUSB0", event="a fact with a word of the log")
        health.on("GW-CFG-30", "serial[1] (radar).port", value="/dev/ttyUSB0")
        clock.seconds = 112.34
        health.off("GW-CFG-30", "serial[1] (radar).port")
    title = "the name /dev/ttyUSB0 does not last: it may mean another device after a restart"
    common: dict[str, Any] = {"event": title, "code": "GW-CFG-30", "subject": "serial[1] (radar).port"}
    assert logs == [
        {
            **common, "turn": "on", "log_level": "warning",
            "facts": {"value": "/dev/ttyUSB0", "event": "a fact with a word of the log"},
        },
        {**common, "turn": "off", "log_level": "info", "facts": {"value": "/dev/ttyUSB0"}, "lasted_s": 12.3},
    ]  # fmt: skip


# -- hidden ------------------------------------------------------------------------------------------------------


def test_what_follows_from_a_trouble_of_the_same_subject_is_hidden(health: Health) -> None:
    health.on("GW-PLT-01", "district")
    assert on_now(health) == [("GW-PLT-01", "district", False)]
    health.on("GW-NET-02", "district")
    assert on_now(health) == [("GW-PLT-01", "district", True), ("GW-NET-02", "district", False)]
    health.off("GW-NET-02", "district")
    assert on_now(health) == [("GW-PLT-01", "district", False)]


def test_a_trouble_of_another_subject_hides_nothing(health: Health) -> None:
    health.on("GW-NET-02", "province")
    health.on("GW-PLT-01", "district")
    assert ("GW-PLT-01", "district", False) in on_now(health)


def test_devices_hide_behind_the_link_that_their_facts_name(health: Health) -> None:
    health.on("GW-SER-04", "bus")
    health.on("GW-DEV-01", "meter-1", link="bus")
    health.on("GW-DEV-01", "meter-2", link="other-bus")
    assert on_now(health) == [
        ("GW-SER-04", "bus", False),
        ("GW-DEV-01", "meter-1", True),
        ("GW-DEV-01", "meter-2", False),
    ]


def test_a_trouble_of_the_whole_gateway_hides_its_followers_everywhere(health: Health) -> None:
    health.on("GW-STO-01", "outbox")
    health.on("GW-STO-03")
    assert on_now(health) == [("GW-STO-01", "outbox", True), ("GW-STO-03", "", False)]


# -- order and bounds --------------------------------------------------------------------------------------------


def test_the_worst_comes_first_then_the_oldest(health: Health, clock: HandClock) -> None:
    for code in ("GW-CFG-30", "GW-SER-01", "GW-BLE-06"):
        health.on(code, "x")
        clock.seconds += 1
    assert [one.code for one in health.current()] == ["GW-SER-01", "GW-BLE-06", "GW-CFG-30"]


def test_a_full_list_makes_room_for_something_worse_and_counts_what_it_lost(health: Health, clock: HandClock) -> None:
    health.on("GW-SER-01", "radar")
    for number in range(LIMIT - 1):
        clock.seconds += 1
        health.on("GW-CFG-30", f"port-{number}")
    with structlog.testing.capture_logs() as logs:
        health.on("GW-CFG-30", "one-more")
        health.on("GW-CFG-30", "one-more")
        health.on("GW-BLE-06", "radio")
    codes = {(one.code, one.subject) for one in health.current()}
    assert len(codes) == 1000
    assert ("GW-BLE-06", "radio") in codes
    assert ("GW-CFG-30", "port-998") not in codes
    assert ("GW-CFG-30", "port-997") in codes
    assert health.uncounted == 3
    assert [entry["event"] for entry in logs if "limit" in entry] == ["too many troubles at once"]


def test_a_code_that_nobody_declared_is_a_problem_all_the_same(health: Health) -> None:
    health.on("GW-XXX-99", "radar")
    assert [(one.code, one.severity) for one in health.current()] == [("GW-XXX-99", "problem")]


def test_nobody_needs_to_be_told(clock: HandClock) -> None:
    health = Health(clock)
    health.on("GW-SER-01", "radar")
    health.off("GW-SER-01", "radar")
    assert health.current() == ()


# -- what only happens -------------------------------------------------------------------------------------------


def test_what_only_happens_ends_a_day_after_it_happened_last(
    health: Health, clock: HandClock, told: list[Trouble]
) -> None:
    health.on("GW-SEC-02", "call-1", old=7, new=3)
    clock.seconds += 80_000
    health.on("GW-SEC-02", "call-1", old=9, new=2)
    clock.seconds += 86_400
    assert on_now(health) == [("GW-SEC-02", "call-1", False)]
    clock.seconds += 1
    assert on_now(health) == []
    assert [one.until is None for one in told] == [True, False]
    health.on("GW-SEC-02", "call-1", old=9, new=2)
    assert on_now(health) == [("GW-SEC-02", "call-1", False)]


def test_any_trouble_that_comes_ends_those_whose_time_is_over(health: Health, clock: HandClock) -> None:
    health.on("GW-SEC-01", "call-1")
    clock.seconds += 86_401
    health.on("GW-SER-01", "radar")
    assert on_now(health) == [("GW-SER-01", "radar", False)]


def test_what_lasts_until_somebody_sees_it_gone_does_not_age(health: Health, clock: HandClock) -> None:
    health.on("GW-SER-01", "radar")
    clock.seconds += 10 * 86_400
    assert on_now(health) == [("GW-SER-01", "radar", False)]

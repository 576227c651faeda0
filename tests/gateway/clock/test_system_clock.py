"""Whether the wall clock is kept by somebody: who says so, and what is believed when it is set."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from gateway.clock import Doubt, Stamp, iso
from gateway.clock import system as system_module

if TYPE_CHECKING:
    from tests.gateway.clock.conftest import Machine

YEARS_10_MS = 10 * 365 * 86_400_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


# -- who vouches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error_us", "state"),
    [
        pytest.param(500, "synced", id="just set"),
        pytest.param(15_999_999, "synced", id="hours ago"),
        pytest.param(16_000_000, "unsynced", id="never, or too long ago"),
        pytest.param(None, "unsynced", id="the kernel may not be asked"),
    ],
)
def test_without_the_mark_of_timesyncd_the_kernel_is_asked(machine: Machine, error_us: int | None, state: str) -> None:
    """chrony leaves no such file."""
    machine.kernel_error_us = error_us
    assert machine.clock().stamp().clock == state


def test_the_mark_of_timesyncd_suffices_where_the_kernel_may_not_be_asked(machine: Machine) -> None:
    machine.timesyncd()
    assert machine.clock().stamp().clock == "synced"


def test_timedated_is_wanted_only_where_nobody_else_can_tell(machine: Machine) -> None:
    clock = machine.clock()
    assert clock.wants_bus
    clock.bus_says(synced=False)
    assert clock.stamp().clock == "unsynced"
    assert clock.wants_bus
    clock.bus_says(synced=True)
    assert clock.stamp().clock == "synced"
    assert not clock.wants_bus  # it has said so: asking on would only keep it in memory
    machine.set_clock(machine.wall_ms + HOUR_MS)
    clock.stamp()
    assert clock.wants_bus  # what it said before the clock was set counts no more
    machine.kernel_error_us = 500
    machine.wait(11)
    clock.stamp()
    assert not clock.wants_bus


def test_it_is_looked_at_again_after_a_while_and_not_for_each_stamp(machine: Machine) -> None:
    clock = machine.clock()
    machine.timesyncd()
    states = []
    for _ in range(4):
        states.append(clock.stamp().clock)
        machine.wait(4.0)
    assert states == ["unsynced", "unsynced", "unsynced", "synced"]


def test_this_machine_s_kernel_gives_an_answer_that_can_be_one() -> None:
    error_us = system_module._kernel_error_us()
    assert error_us is None or 0 <= error_us <= 16_000_000


def test_times_are_written_with_milliseconds() -> None:
    assert iso(1_800_000_000_007) == "2027-01-15T08:00:00.007Z"


# -- jumps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_ms", [YEARS_10_MS, -YEARS_10_MS, HOUR_MS, -HOUR_MS])
def test_a_trusted_clock_that_somebody_sets_is_not_followed(machine: Machine, jump_ms: int) -> None:
    machine.timesyncd()
    clock = machine.clock()
    machine.wait(1)
    machine.set_clock(machine.wall_ms + jump_ms)
    assert clock.stamp() == Stamp(1_800_000_001_000, 6_000, "boot-1", "synced")
    assert clock.trust.doubt is not Doubt.NONE
    assert clock.steps == 1
    machine.wait(86_400 * 3)
    assert clock.stamp().wall_ms == 1_800_000_001_000 + 86_400_000 * 3


def test_a_correction_by_the_synchronisation_is_followed_and_one_by_hand_only_when_it_stands_by_it(
    machine: Machine,
) -> None:
    machine.timesyncd()
    clock = machine.clock()
    machine.wait(60)
    machine.set_clock(machine.wall_ms + HOUR_MS)
    assert clock.stamp().wall_ms == 1_800_000_060_000
    machine.timesyncd()
    machine.wait(11)
    assert clock.stamp() == Stamp(1_800_000_071_000 + HOUR_MS, 76_000, "boot-1", "synced")
    assert clock.trust.doubt is Doubt.NONE


def test_a_step_that_came_with_the_synchronisation_is_seen_as_vouched_for(machine: Machine) -> None:
    """timesyncd sets the clock and touches its mark between two of our looks."""
    clock = machine.clock()
    machine.wait(3)
    machine.set_clock(ms("2027-06-01T00:00:00"))
    machine.timesyncd()
    assert clock.stamp() == Stamp(ms("2027-06-01T00:00:00"), 8_000, "boot-1", "synced")


@pytest.mark.parametrize("jump_ms", [YEARS_10_MS, -YEARS_10_MS // 10 * 2])
def test_years_are_believed_of_the_synchronisation_only_after_a_day(machine: Machine, jump_ms: int) -> None:
    machine.timesyncd()
    clock = machine.clock()
    clock.know(floor_ms=machine.offset_ms, least_ms=machine.offset_ms, trusted_ms=None)
    machine.wait(60)
    machine.set_clock(machine.wall_ms + jump_ms)
    machine.kernel_error_us = 500
    clock.stamp()
    machine.wait(86_000)
    assert clock.stamp().wall_ms == 1_800_000_060_000 + 86_000_000
    machine.wait(500)
    assert clock.stamp().wall_ms == machine.wall_ms
    assert clock.trust.doubt is Doubt.NONE


def test_years_are_believed_at_once_when_a_platform_agrees(machine: Machine) -> None:
    machine.timesyncd()
    clock = machine.clock()
    machine.wait(60)
    machine.set_clock(machine.wall_ms + YEARS_10_MS)
    machine.kernel_error_us = 500
    assert clock.stamp().wall_ms == 1_800_000_060_000
    clock.platform_says(machine.wall_ms + 30_000, at_ms=machine.boot_ms)
    machine.wait(11)
    assert clock.stamp().wall_ms == machine.wall_ms


def test_a_jump_disturbs_no_timer(machine: Machine) -> None:
    clock = machine.clock()
    before = clock.monotonic()
    machine.set_clock(machine.wall_ms + YEARS_10_MS)
    clock.stamp()
    assert 0 <= clock.monotonic() - before < 60


# -- at boot ---------------------------------------------------------------------------------------------------------


def test_a_clock_at_1970_is_never_taken_for_the_time(machine: Machine) -> None:
    machine.reboot("boot-2", wall_ms=7_000)
    clock = machine.clock()
    assert clock.stamp() == Stamp(ms("2026-01-01T00:00:05"), 5_000, "boot-2", "floored")
    assert clock.state() == "unsynced"
    clock.know(floor_ms=1_800_000_000_000, least_ms=1_800_000_500_000, trusted_ms=None)
    machine.wait(2)
    assert clock.stamp() == Stamp(1_800_000_507_000, 7_000, "boot-2", "floored")
    assert clock.trust.doubt is Doubt.BEFORE


def test_a_clock_chip_that_is_ten_years_ahead_is_not_taken_for_the_time(machine: Machine) -> None:
    machine.reboot("boot-2", wall_ms=1_800_000_000_000 + YEARS_10_MS)
    clock = machine.clock()
    clock.know(floor_ms=1_800_000_000_000, least_ms=0, trusted_ms=None)
    assert clock.stamp() == Stamp(1_800_000_005_000, 5_000, "boot-2", "floored")
    assert clock.trust.doubt is Doubt.AHEAD


def test_the_synchronisation_after_three_hours_is_taken_over_at_once(machine: Machine) -> None:
    machine.reboot("boot-2", wall_ms=1_800_000_010_000)
    clock = machine.clock()
    clock.know(floor_ms=1_800_000_000_000, least_ms=0, trusted_ms=None)
    assert clock.stamp() == Stamp(1_800_000_010_000, 5_000, "boot-2", "unsynced")
    machine.wait(3 * 3600)
    machine.set_clock(ms("2027-04-01T12:00:00"))
    machine.timesyncd()
    assert clock.stamp() == Stamp(ms("2027-04-01T12:00:00"), 10_805_000, "boot-2", "synced")


def test_what_was_synchronised_stays_so_when_the_synchronisation_is_lost(machine: Machine) -> None:
    machine.kernel_error_us = 500
    clock = machine.clock()
    assert clock.stamp().clock == "synced"
    machine.kernel_error_us = 16_000_000
    machine.wait(86_400)
    assert clock.stamp() == Stamp(1_800_086_400_000, 86_405_000, "boot-1", "synced")


def test_a_restart_of_the_gateway_in_the_same_boot_keeps_its_offset_although_the_clock_was_set_meanwhile(
    machine: Machine,
) -> None:
    machine.timesyncd()
    machine.clock()
    offset_ms = machine.offset_ms
    machine.wait(60)
    machine.set_clock(machine.wall_ms - YEARS_10_MS)
    machine.timesyncd()
    clock = machine.clock()
    clock.know(floor_ms=offset_ms, least_ms=offset_ms, trusted_ms=offset_ms)
    assert clock.stamp() == Stamp(1_800_000_060_000, 65_000, "boot-1", "synced")


def test_what_a_torn_file_says_of_another_century_is_left_out(machine: Machine) -> None:
    clock = machine.clock()
    clock.know(floor_ms=253_402_300_799_000, least_ms=253_402_300_799_000, trusted_ms=253_402_300_799_000)
    assert clock.stamp() == Stamp(1_800_000_000_000, 5_000, "boot-1", "unsynced")
    clock.know(floor_ms=0, least_ms=0, trusted_ms=7)
    assert clock.stamp() == Stamp(1_800_000_000_000, 5_000, "boot-1", "unsynced")


# -- a platform's time -----------------------------------------------------------------------------------------------


def test_a_platform_s_time_serves_where_there_is_no_synchronisation(machine: Machine) -> None:
    machine.reboot("boot-2", wall_ms=7_000)
    clock = machine.clock()
    clock.platform_says(1_800_000_000_000, at_ms=4_900)
    assert clock.stamp() == Stamp(1_800_000_000_100, 5_000, "boot-2", "synced")
    assert clock.trust.by == "platform"


@pytest.mark.parametrize("said", ["2025-12-31T23:00:00", "2036-01-01T00:00:00"])
def test_a_platform_that_says_what_cannot_be_is_not_believed(machine: Machine, said: str) -> None:
    clock = machine.clock()
    clock.platform_says(ms(said), at_ms=machine.boot_ms)
    assert clock.stamp() == Stamp(1_800_000_000_000, 5_000, "boot-1", "unsynced")


def test_a_platform_does_not_move_a_clock_that_is_synchronised(machine: Machine) -> None:
    machine.timesyncd()
    clock = machine.clock()
    clock.platform_says(machine.wall_ms + HOUR_MS, at_ms=machine.boot_ms)
    assert clock.stamp().wall_ms == 1_800_000_000_000


def test_the_synchronisation_is_worth_more_than_a_platform_s_time(machine: Machine) -> None:
    clock = machine.clock()
    clock.platform_says(machine.wall_ms + 40_000, at_ms=machine.boot_ms)
    assert clock.stamp().wall_ms == 1_800_000_040_000
    machine.timesyncd()
    machine.wait(11)
    assert clock.stamp().wall_ms == 1_800_000_011_000
    assert clock.trust.by == "ntp"


@pytest.mark.parametrize("wrong_ms", [200 * DAY_MS, -200 * DAY_MS])
def test_a_platform_that_errs_is_put_right_by_the_next_one(machine: Machine, wrong_ms: int) -> None:
    clock = machine.clock()
    clock.platform_says(machine.wall_ms + wrong_ms, at_ms=machine.boot_ms)
    assert clock.stamp().wall_ms == 1_800_000_000_000 + wrong_ms
    clock.platform_says(machine.wall_ms, at_ms=machine.boot_ms)
    assert clock.stamp() == Stamp(1_800_000_000_000, 5_000, "boot-1", "synced")


@pytest.mark.parametrize(("by", "wall_ms"), [("stored", 1_800_000_000_000), ("platform", 1_817_280_000_000)])
def test_what_an_earlier_run_trusted_yields_to_a_platform_only_where_a_platform_told_it(
    machine: Machine, by: str, wall_ms: int
) -> None:
    clock = machine.clock()
    clock.know(floor_ms=0, least_ms=0, trusted_ms=machine.offset_ms)  # by the sign of life
    clock.know(floor_ms=0, least_ms=0, trusted_ms=machine.offset_ms, by=by)  # by the database
    clock.platform_says(machine.wall_ms + 200 * DAY_MS, at_ms=machine.boot_ms)
    assert clock.stamp().wall_ms == wall_ms


def test_a_step_that_several_threads_see_at_once_is_one_step(machine: Machine) -> None:
    """The loop and the thread that writes make stamps: a second one that looked amid the first counted the step twice."""
    clock = machine.clock()
    threads, rounds = 4, 60
    begin, end = threading.Barrier(threads + 1), threading.Barrier(threads + 1)
    stamps: list[Stamp] = []

    def look() -> None:
        for _ in range(rounds):
            begin.wait(10)
            stamps.append(clock.stamp())
            end.wait(10)

    workers = [threading.Thread(target=look) for _ in range(threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for worker in workers:
            worker.start()
        for _ in range(rounds):
            machine.set_clock(machine.wall_ms + 3_600_000)
            begin.wait(10)
            end.wait(10)
    finally:
        sys.setswitchinterval(interval)
        for worker in workers:
            worker.join(10)
    assert clock.steps == rounds
    assert len(stamps) == threads * rounds

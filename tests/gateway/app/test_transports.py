"""By which time a platform's certificate is judged: one wrong clock must not shut out every platform."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.app.transports import moment_of
from gateway.clock import BUILT_MS, SystemClock
from gateway.tls import Moment, Tls
from tests.gateway.test_tls import DAY, pair, shake_hands

NOON = 1_800_000_000_000  # 2027-01-15T08:00:00Z
DAY_MS = 86_400_000


class Machine:
    """A clock in our hands: `wall_ms` is what the machine's says, five seconds after it was started."""

    def __init__(self, folder: Path, wall_ms: int = NOON, *, ntp: bool = False) -> None:
        self.wall_ms, self.boot_ms, self.ntp = wall_ms, 5_000, ntp
        (folder / "boot_id").write_text("boot-1", encoding="ascii")
        self.clock = SystemClock(
            timesync=folder / "none", boot_id=folder / "boot_id",
            kernel_error_us=lambda: 500 if self.ntp else 16_000_000,
            wall_ns=lambda: self.wall_ms * 1_000_000, boot_ns=lambda: self.boot_ms * 1_000_000,
        )  # fmt: skip

    def platform_says(self, wall_ms: int) -> None:
        self.clock.platform_says(wall_ms, at_ms=self.boot_ms)


def unsure(wall_ms: int) -> Moment:
    return Moment(wall_ms / 1000, is_sure=False)


def test_a_clock_that_ntp_stands_by_judges_alone(tmp_path: Path) -> None:
    assert moment_of(Machine(tmp_path, ntp=True).clock) is None


@pytest.mark.parametrize("ahead_ms", [0, 200 * DAY_MS, -200 * DAY_MS])
def test_a_platform_s_time_is_never_sure_and_the_earlier_of_it_and_the_machine_s_counts(
    tmp_path: Path, ahead_ms: int
) -> None:
    machine = Machine(tmp_path)
    machine.platform_says(NOON + ahead_ms)
    assert machine.clock.trust.by == "platform"
    assert moment_of(machine.clock) == unsure(min(NOON, NOON + ahead_ms))


def test_a_clock_in_1970_is_the_build(tmp_path: Path) -> None:
    assert moment_of(Machine(tmp_path, 7_000).clock) == unsure(BUILT_MS)


def test_of_a_clock_that_nobody_stands_by_only_the_floor_counts_for_it_may_run_ahead(tmp_path: Path) -> None:
    machine = Machine(tmp_path, NOON + 400 * DAY_MS)
    machine.clock.know(floor_ms=NOON, least_ms=0, trusted_ms=None)
    assert moment_of(machine.clock) == unsure(NOON + 5_000)


def test_a_clock_that_was_moved_away_from_what_ntp_said_is_no_longer_sure(tmp_path: Path) -> None:
    machine = Machine(tmp_path, ntp=True)
    machine.ntp, machine.wall_ms = False, NOON + 200 * DAY_MS
    assert moment_of(machine.clock) == unsure(NOON)


def test_what_an_earlier_run_trusted_is_not_sure(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.clock.know(floor_ms=0, least_ms=0, trusted_ms=NOON - 5_000)
    assert moment_of(machine.clock) == unsure(NOON)


@pytest.mark.parametrize("over", ["socket", "memory"])
@pytest.mark.parametrize("ahead", ["the platform", "the machine"])
def test_one_time_beyond_every_certificate_does_not_end_all_connections(tmp_path: Path, over: str, ahead: str) -> None:
    server = pair(tmp_path, -DAY, 90 * DAY)
    now_ms = time.time_ns() // 1_000_000
    machine = Machine(tmp_path, now_ms + (200 * DAY_MS if ahead == "the machine" else 0))
    if ahead == "the platform":
        machine.platform_says(now_ms + 200 * DAY_MS)
        assert machine.clock.stamp().wall_ms == now_ms + 200 * DAY_MS
    assert shake_hands(Tls(ca_file=server, moment=lambda: moment_of(machine.clock)), server, over=over) == ""


def test_an_expired_certificate_is_refused_by_ntp_and_where_platform_and_machine_agree(tmp_path: Path) -> None:
    server = pair(tmp_path, -30 * DAY, -5 * DAY)
    now_ms = time.time_ns() // 1_000_000
    machine = Machine(tmp_path, now_ms)
    tls = Tls(ca_file=server, moment=lambda: moment_of(machine.clock))
    machine.platform_says(now_ms)
    assert shake_hands(tls, server).startswith("certificate has expired on")
    machine.ntp = True
    machine.boot_ms, machine.wall_ms = 16_000, now_ms + 11_000
    machine.clock.stamp()
    assert shake_hands(tls, server) == "certificate has expired"

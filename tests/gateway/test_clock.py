"""Whether the wall clock is kept by somebody: who says so, and what is believed where nobody may be asked."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway import clock as clock_module
from gateway.clock import SystemClock, iso


def a_clock(folder: Path, error_us: int | None) -> SystemClock:
    return SystemClock(timesync=folder / "synchronized", kernel_error_us=lambda: error_us)


@pytest.mark.parametrize(
    ("error_us", "state"),
    [
        pytest.param(500, "synced", id="just set"),
        pytest.param(15_999_999, "synced", id="hours ago"),
        pytest.param(16_000_000, "unsynced", id="never, or too long ago"),
        pytest.param(None, "unsynced", id="the kernel may not be asked"),
    ],
)
def test_without_the_mark_of_timesyncd_the_kernel_is_asked(tmp_path: Path, error_us: int | None, state: str) -> None:
    """chrony leaves no such file."""
    assert a_clock(tmp_path, error_us).stamp().clock == state


def test_the_mark_of_timesyncd_suffices_where_the_kernel_may_not_be_asked(tmp_path: Path) -> None:
    (tmp_path / "synchronized").touch()
    assert a_clock(tmp_path, None).stamp().clock == "synced"


def test_it_is_looked_at_again_after_a_while_and_not_for_each_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    asked: list[int] = []

    def error_us() -> int:
        asked.append(1)
        return 16_000_000 if len(asked) == 1 else 500

    clock = SystemClock(timesync=tmp_path / "synchronized", kernel_error_us=error_us)
    states = []
    for _ in range(5):
        states.append(clock.state())
        now[0] += 4.0
    assert states == ["unsynced", "unsynced", "unsynced", "synced", "synced"]
    assert len(asked) == 2


def test_this_machine_s_kernel_gives_an_answer_that_can_be_one() -> None:
    error_us = clock_module._kernel_error_us()
    assert error_us is None or 0 <= error_us <= 16_000_000


def test_times_are_written_with_milliseconds() -> None:
    assert iso(1_800_000_000_007) == "2027-01-15T08:00:00.007Z"

"""A machine whose clocks are moved by hand: no RTC, boots that can share wall-clock minutes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.clock import SystemClock


class Machine:
    """One machine. `wall_ms` and `boot_ms` pass together in `wait`; `set_clock` is what a person or NTP does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wall_ms = 1_800_000_000_000  # 2027-01-15T08:00:00Z
        self.boot_ms = 5_000
        self.kernel_error_us: int | None = None
        (folder / "boot_id").write_text("boot-1\n", encoding="ascii")

    @property
    def offset_ms(self) -> int:
        return self.wall_ms - self.boot_ms

    def clock(self) -> SystemClock:
        return SystemClock(
            timesync=self.folder / "synchronized", boot_id=self.folder / "boot_id",
            kernel_error_us=lambda: self.kernel_error_us, wall_ns=lambda: self.wall_ms * 1_000_000,
            boot_ns=lambda: self.boot_ms * 1_000_000,
        )  # fmt: skip

    def reboot(self, boot: str, *, wall_ms: int) -> None:
        (self.folder / "boot_id").write_text(boot + "\n", encoding="ascii")
        (self.folder / "synchronized").unlink(missing_ok=True)
        self.wall_ms, self.boot_ms, self.kernel_error_us = wall_ms, 5_000, None

    def wait(self, seconds: float) -> None:
        self.wall_ms += int(1000 * seconds)
        self.boot_ms += int(1000 * seconds)

    def set_clock(self, wall_ms: int) -> None:
        self.wall_ms = wall_ms

    def timesyncd(self) -> None:
        """What systemd-timesyncd does at each synchronisation: a new time of its mark."""
        mark = self.folder / "synchronized"
        mark.touch()
        at = self.boot_ms * 1_000_000
        os.utime(mark, ns=(at, at))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)

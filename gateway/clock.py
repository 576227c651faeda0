"""Wall, boot-time and monotonic clocks, injected; and whether the wall clock can be trusted.

Most gateways have no clock chip: after a power cut two boots can share the same wall-clock minutes. Only
(boot id, CLOCK_BOOTTIME) orders what happened, so every stamp carries both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

# systemd-timesyncd creates it at the first synchronisation of a boot and leaves it there.
_TIMESYNC = Path("/run/systemd/timesync/synchronized")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Stamp:
    """When something happened: `wall_ms` since 1970 UTC, and `mono_ms` of CLOCK_BOOTTIME within the boot `boot`."""

    wall_ms: int
    mono_ms: int
    boot: str
    clock: str = "unsynced"


class Clock(Protocol):
    """What the gateway may know of time."""

    def stamp(self) -> Stamp:
        """Return now, by both clocks."""

    def monotonic(self) -> float:
        """Return seconds that never jump; for time-outs and ages."""


class SystemClock:
    """The machine's clocks. The synchronisation mark is looked at once in 10 s: a stamp costs no system call for it."""

    def __init__(self, *, timesync: Path = _TIMESYNC, boot_id: Path = _BOOT_ID) -> None:
        self._timesync = timesync
        self._boot = boot_id.read_text(encoding="ascii").strip()
        self._state = "unsynced"
        self._looked_at = -1e9

    def stamp(self) -> Stamp:
        """Return now, by both clocks."""
        return Stamp(
            time.time_ns() // 1_000_000,
            time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000,
            self._boot,
            self.state(),
        )

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()

    def state(self) -> str:
        """Return "synced" or "unsynced"."""
        now = time.monotonic()
        if now - self._looked_at > 10.0:
            self._looked_at = now
            self._state = "synced" if self._timesync.exists() else "unsynced"
        return self._state


def iso(wall_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds, as CloudEvents `time` wants it."""
    moment = datetime.fromtimestamp(wall_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{wall_ms % 1000:03d}Z"

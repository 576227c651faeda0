"""Wall, boot-time and monotonic clocks, injected; and whether the wall clock can be trusted.

Most gateways have no clock chip: after a power cut two boots can share the same wall-clock minutes. Only
(boot id, CLOCK_BOOTTIME) orders what happened, so every stamp carries both.

Whoever sets the clock says so in one of two places: systemd-timesyncd in a file, which stays for the whole boot; chrony,
ntpd and timesyncd in the kernel, which forgets it when nobody has renewed it for some hours. A unit with ProtectClock=yes
may not even read the latter (adjtimex(2) fails with EPERM); there a clock that chrony keeps counts as not synchronised.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

# systemd-timesyncd creates it at the first synchronisation of a boot and leaves it there.
_TIMESYNC = Path("/run/systemd/timesync/synchronized")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# The kernel's own limit of the error (linux/timex.h, NTP_PHASE_LIMIT). STA_UNSYNC says less: chrony leaves it set so that
# the kernel does not write to the clock chip.
_UNKNOWN_ERROR_US: Final = 16_000_000
_LOOK_S: Final = 10.0


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
    """The machine's clocks. The synchronisation is looked at once in `_LOOK_S`: a stamp costs no system call for it."""

    def __init__(
        self,
        *,
        timesync: Path = _TIMESYNC,
        boot_id: Path = _BOOT_ID,
        kernel_error_us: Callable[[], int | None] | None = None,
    ) -> None:
        self._timesync = timesync
        self._kernel_error_us = kernel_error_us or _kernel_error_us
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
        if now - self._looked_at > _LOOK_S:
            self._looked_at = now
            self._state = "synced" if self._timesync.exists() or self._is_kept() else "unsynced"
        return self._state

    def _is_kept(self) -> bool:
        error_us = self._kernel_error_us()
        return error_us is not None and error_us < _UNKNOWN_ERROR_US


class _Timex(ctypes.Structure):
    """The beginning of struct timex (adjtimex(2)); the rest is room that the kernel fills."""

    _fields_ = (
        ("modes", ctypes.c_int), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_byte * 256),
    )  # fmt: skip


def _kernel_error_us() -> int | None:
    """Return the largest error that the kernel holds for possible, in microseconds; None where it may not be asked."""
    timex = _Timex()  # modes = 0: nothing is set
    try:
        state = int(ctypes.CDLL(None).adjtimex(ctypes.byref(timex)))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else int(timex.maxerror)


def iso(wall_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds, as CloudEvents `time` wants it."""
    return f"{_iso_second(wall_ms // 1000)}.{wall_ms % 1000:03d}Z"


@lru_cache(maxsize=16)
def _iso_second(wall_s: int) -> str:
    """Events come close together: most of them share their second with the one before."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")

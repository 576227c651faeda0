"""The machine's clocks, and who vouches for the wall clock.

Whoever sets the clock says so in one of three places: systemd-timesyncd in a file, which stays for the whole boot; chrony,
ntpd and timesyncd in the kernel, which forgets it when nobody has renewed it for some hours, and at once when somebody
sets the clock by hand. A unit with ProtectClock=yes may not read the latter (adjtimex(2) fails with EPERM); there
systemd-timedated, asked over D-Bus, reads it for us (`bus_says`). What was said before a step of the clock does not
count for the time after it.

Several threads make stamps (the event loop, the one that writes, those that make connections): one of them looks at a time,
and what a stamp is made with is taken as one piece.
Limits: a stamp costs two readings of a clock; the witnesses are asked once in `LOOK_S`, and at each step of the clock.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.clock.stamp import FLOORED, UNSYNCED, Stamp
from gateway.clock.trust import STEP_MS, Trust

# systemd-timesyncd touches it at each synchronisation and leaves it there.
_TIMESYNC = Path("/run/systemd/timesync/synchronized")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# The kernel's own limit of the error (linux/timex.h, NTP_PHASE_LIMIT). STA_UNSYNC says less: chrony leaves it set so that
# the kernel does not write to the clock chip.
_UNKNOWN_ERROR_US: Final = 16_000_000
LOOK_S: Final = 10.0
_READINGS: Final = 5


def _boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class SystemClock:
    """The machine's clocks. `trust` is what is believed of them; `wants_bus`: nobody else can tell, so ask timedated."""

    def __init__(
        self,
        *,
        timesync: Path = _TIMESYNC,
        boot_id: Path = _BOOT_ID,
        kernel_error_us: Callable[[], int | None] | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        boot_ns: Callable[[], int] = _boot_ns,
    ) -> None:
        self._timesync = timesync
        self._kernel_error_us = kernel_error_us or _kernel_error_us
        self._wall_ns = wall_ns
        self._boot_ns = boot_ns
        self.boot = boot_id.read_text(encoding="ascii").strip()
        self._lock = threading.Lock()
        self._mark: int | None = None
        self._void_mark: int | None = None
        self._bus_vouches = False
        self._next_look_ms = 0
        self.wants_bus = False
        self.steps = 0
        self.trust = Trust(self._offset_ms())
        self._believed = (0, 0, UNSYNCED)  # the machine's offset, ours, and what a stamp says of its clock
        with self._lock:
            self._look(boot_ns() // 1_000_000)

    def stamp(self) -> Stamp:
        """Return now, by both clocks."""
        boot_ns = self._boot_ns()
        now_ms = boot_ns // 1_000_000
        raw_ms, own_ms, state = self._believed
        step_ms = (self._wall_ns() - boot_ns) // 1_000_000 - raw_ms
        if now_ms >= self._next_look_ms or step_ms > STEP_MS or step_ms < -STEP_MS:
            with self._lock:
                if self._believed[0] == raw_ms:  # else another thread has looked meanwhile
                    self._look(now_ms)
                _, own_ms, state = self._believed
        return Stamp(now_ms + own_ms, now_ms, self.boot, state)

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()

    def state(self) -> str:
        """Return "synced" or "unsynced"."""
        state = self.stamp().clock
        return UNSYNCED if state == FLOORED else state

    def know(self, *, floor_ms: int, least_ms: int, trusted_ms: int | None, by: str = "stored") -> None:
        """Take over what was stored, as `Trust.know` does."""
        with self._lock:
            self.trust.know(floor_ms=floor_ms, least_ms=least_ms, trusted_ms=trusted_ms, by=by)
            self._look(self._boot_ns() // 1_000_000)

    def bus_says(self, *, synced: bool) -> None:
        """What systemd-timedated has answered."""
        with self._lock:
            self._bus_vouches = synced
            self._look(self._boot_ns() // 1_000_000)

    def platform_says(self, wall_ms: int, *, at_ms: int) -> None:
        """A platform that has proved who it is has said its time; `at_ms` is the boot time in the middle of its round trip."""
        with self._lock:
            self.trust.told(wall_ms - at_ms)
            self._take_over()

    # -- looking ------------------------------------------------------------------------------------------------

    def _offset_ms(self) -> int:
        """Return the offset from the tightest of some readings: between two of them the process may have waited."""
        best, found = 1 << 62, 0
        for _ in range(_READINGS):
            before = self._boot_ns()
            wall = self._wall_ns()
            took = self._boot_ns() - before
            if took < best:
                best, found = took, wall - before - took // 2
        return found // 1_000_000

    def _look(self, now_ms: int) -> None:
        """Ask the witnesses. Whoever calls it holds the lock."""
        self._next_look_ms = now_ms + int(LOOK_S * 1000)
        raw_ms = self._offset_ms()
        if abs(raw_ms - self.trust.raw_ms) > STEP_MS:
            self.steps += 1
            # The mark of the last look: one that is newer may have come with this very step.
            self._void_mark, self._bus_vouches = self._mark, False
        self._mark = self._timesync_mark()
        self.trust.look(raw_ms, vouched=self._is_vouched(), now_ms=now_ms)
        self._take_over()

    def _take_over(self) -> None:
        trust = self.trust
        self._believed = (trust.raw_ms, trust.offset_ms, trust.state)

    def _is_vouched(self) -> bool:
        error_us = self._kernel_error_us()
        by_file = self._mark is not None and self._mark != self._void_mark
        # Once it has said yes it is left alone, until the clock is set: asking every half minute would keep it in memory.
        self.wants_bus = error_us is None and not by_file and not self._bus_vouches
        return by_file or (error_us is not None and error_us < _UNKNOWN_ERROR_US) or self._bus_vouches

    def _timesync_mark(self) -> int | None:
        try:
            return self._timesync.stat().st_mtime_ns
        except OSError:
            return None


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

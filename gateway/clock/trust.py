"""Is the machine's wall clock to be believed? Pure: offsets and what vouches for them come in, one offset comes out.

An offset is CLOCK_REALTIME minus CLOCK_BOOTTIME in milliseconds. Slewing moves both clocks, so an offset changes only
when somebody sets the clock; what is trusted once in a boot is therefore kept, and serves on when the synchronisation is
lost (the free-running oscillator of a Pi then errs by some seconds a day; nobody has to be asked for that).

The floor is a moment that has surely passed: the build of this version, or the last time that a synchronisation stood
by. A platform's time is none: one that errs must be put right by the next that answers, in this boot and later. What a
synchronised clock says is believed at once unless it lies before the floor, `MOST_AHEAD_MS` beyond it, or `MOST_STEP_MS`
from what was trusted in this boot. Such an offset is believed only when a platform's own clock agrees within
`AGREEMENT_MS`, or when the synchronisation has stood by it for `PATIENCE_MS`. Until then, and whenever the clock is set
by somebody for whom no synchronisation stands, the gateway goes on by its own offset.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from gateway.clock.stamp import FLOORED, SYNCED, UNSYNCED

BUILT_MS: Final = 1_767_225_600_000  # 2026-01-01T00:00:00Z, raised with each release
_DAY_MS: Final = 86_400_000
_LAST_MS: Final = BUILT_MS + 30 * 365 * _DAY_MS
MOST_AHEAD_MS: Final = 5 * 365 * _DAY_MS
MOST_STEP_MS: Final = _DAY_MS
TOLERANCE_MS: Final = 60_000
AGREEMENT_MS: Final = 60_000
PATIENCE_MS: Final = _DAY_MS
STEP_MS: Final = 200
PLATFORM_STEP_MS: Final = 5_000


class Doubt(StrEnum):
    """Why the machine's clock is not followed."""

    NONE = ""
    BEFORE = "before"
    AHEAD = "ahead"
    JUMPED = "jumped"


class Trust:
    """The judgement of one boot. `raw_ms` is the machine's offset, `by` who made the trusted one.

    "ntp", "platform", or "stored": an earlier run of this boot trusted it, and who stood by it then is not known.
    """

    def __init__(self, raw_ms: int, *, floor_ms: int = BUILT_MS) -> None:
        self.raw_ms = raw_ms
        self.by = ""
        self._floor_ms = floor_ms
        self._least_ms = floor_ms
        self._trusted_ms: int | None = None
        self._platform_ms: int | None = None
        self._vouched_from: int | None = None

    def know(self, *, floor_ms: int, least_ms: int, trusted_ms: int | None = None, by: str = "stored") -> None:
        """Take over what was stored, as offsets: the last trusted time, the last time of any kind, this boot's own offset.

        They only raise what is known already; what a torn file says of another century is left out.
        """
        if floor_ms <= _LAST_MS:
            self._floor_ms = max(self._floor_ms, floor_ms)
        self._least_ms = max(self._floor_ms, least_ms if least_ms <= self._floor_ms + MOST_AHEAD_MS else 0)
        if self._trusted_ms is None and trusted_ms is not None and BUILT_MS - TOLERANCE_MS <= trusted_ms <= _LAST_MS:
            self._trusted_ms, self.by = trusted_ms, by
        elif self.by == "stored":
            self.by = by  # the sign of life gave the offset, the database knows whose it was

    def look(self, raw_ms: int, *, vouched: bool, now_ms: int) -> None:
        """Take the machine's offset at boot time `now_ms`; `vouched`: a synchronisation stands by it now."""
        if not vouched:
            self._vouched_from = None
        elif self._vouched_from is None or abs(raw_ms - self.raw_ms) > STEP_MS:
            self._vouched_from = now_ms
        self.raw_ms = raw_ms
        if self._vouched_from is None:
            return
        if not self._doubt() or self._platform_agrees() or now_ms - self._vouched_from >= PATIENCE_MS:
            self._believe(raw_ms, "ntp")

    def told(self, platform_ms: int) -> None:
        """A platform has said its time, over a connection that proves who it is: as an offset.

        It is believed where nothing better is: no synchronisation in this boot, and a time that can be. What a platform
        told before is not better: either may be the one that errs.
        """
        self._platform_ms = platform_ms
        can_be = self._floor_ms - TOLERANCE_MS <= platform_ms <= self._floor_ms + MOST_AHEAD_MS
        is_near = self._trusted_ms is None or abs(platform_ms - self._trusted_ms) <= MOST_STEP_MS
        if self.by != "ntp" and can_be and (is_near or self.by == "platform"):
            self._believe(platform_ms, "platform")

    def _believe(self, offset_ms: int, by: str) -> None:
        # Below a noticeable step the offset stays: two readings of the same clock differ by how long they took, two
        # answers of a platform by their round trips.
        least = STEP_MS if by == "ntp" else PLATFORM_STEP_MS
        if self._trusted_ms is None or abs(offset_ms - self._trusted_ms) > least:
            self._trusted_ms = offset_ms
        self.by = by
        self._floor_ms = min(self._floor_ms, offset_ms)  # it was believed against the floor

    def _platform_agrees(self) -> bool:
        return self._platform_ms is not None and abs(self._platform_ms - self.raw_ms) <= AGREEMENT_MS

    def _doubt(self) -> Doubt:
        if self.raw_ms < self._floor_ms - TOLERANCE_MS:
            return Doubt.BEFORE
        if self.raw_ms > self._floor_ms + MOST_AHEAD_MS:
            return Doubt.AHEAD
        if self._trusted_ms is not None and abs(self.raw_ms - self._trusted_ms) > MOST_STEP_MS:
            return Doubt.JUMPED
        return Doubt.NONE

    # -- what follows -------------------------------------------------------------------------------------------

    @property
    def trusted_ms(self) -> int | None:
        """The offset that is trusted; None until there is one."""
        return self._trusted_ms

    @property
    def floor_ms(self) -> int:
        """The offset of the floor: at boot time m no time before `floor_ms` + m can be true."""
        return self._floor_ms

    @property
    def offset_ms(self) -> int:
        """The offset that stamps are made with."""
        if self._trusted_ms is not None:
            return self._trusted_ms
        return self.raw_ms if self.state == UNSYNCED else self._least_ms

    @property
    def state(self) -> str:
        """What a stamp says of its clock."""
        if self._trusted_ms is not None:
            return SYNCED
        return FLOORED if self._doubt() or self.raw_ms < self._least_ms - TOLERANCE_MS else UNSYNCED

    @property
    def doubt(self) -> Doubt:
        """Why stamps are not made with the machine's clock; nothing where they are, or differ from it by a minute at most."""
        if self._trusted_ms is not None:
            if abs(self.raw_ms - self._trusted_ms) <= TOLERANCE_MS:
                return Doubt.NONE
            return self._doubt() or Doubt.JUMPED
        return self._doubt()

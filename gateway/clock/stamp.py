"""When something happened, by both clocks.

Most gateways have no clock chip: after a power cut two boots can share the same wall-clock minutes. Only
(boot id, CLOCK_BOOTTIME) orders what happened, so every stamp carries both.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol

SYNCED: Final = "synced"
UNSYNCED: Final = "unsynced"
FLOORED: Final = "floored"


@dataclass(frozen=True, slots=True)
class Stamp:
    """When something happened: `wall_ms` since 1970 UTC, and `mono_ms` of CLOCK_BOOTTIME within the boot `boot`.

    `clock`: "synced", then `wall_ms` - `mono_ms` is the trusted offset of the boot; "unsynced"; or "floored": unsynced, and
    the machine's clock said what cannot be, so `wall_ms` is counted from the last time that was known.
    """

    wall_ms: int
    mono_ms: int
    boot: str
    clock: str = UNSYNCED


@dataclass(frozen=True, slots=True)
class PlatformTime:
    """What a platform said of its clock, ms since 1970, and between which boot times of ours it said so."""

    wall_ms: int
    asked_ms: int
    answered_ms: int


class Clock(Protocol):
    """What the gateway may know of time."""

    def stamp(self) -> Stamp:
        """Return now, by both clocks."""

    def monotonic(self) -> float:
        """Return seconds that never jump; for time-outs and ages."""


def iso(wall_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds, as CloudEvents `time` wants it."""
    return f"{_iso_second(wall_ms // 1000)}.{wall_ms % 1000:03d}Z"


@lru_cache(maxsize=64)
def _iso_second(wall_s: int) -> str:
    """Events come close together: most of them share their second with the one before."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")

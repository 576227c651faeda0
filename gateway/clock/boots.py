"""What is known of each boot: from when it surely was, and its offset, once the clock was synchronised in it.

With it the time of an event that was stored before the synchronisation is told right when it is sent; the time of a boot
that never was synchronised can only be bounded. Pure: no IO, no clock. Limits: the last `KEPT` boots; events of earlier
ones keep their time as it was stored, marked unsynced.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import index
from typing import Final

from gateway.clock.stamp import SYNCED, UNSYNCED, Stamp

KEPT: Final = 256
CORRECTED: Final = "corrected"


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot. `floor_ms`: a time, ms since 1970, that had surely passed when it began. `offset_ms` + boot time is the time.

    `is_told`: a platform said so, and nobody else. It may be wrong, so it is no floor for what comes later.
    """

    id: str
    floor_ms: int
    offset_ms: int | None = None
    is_told: bool = False

    @property
    def is_floor(self) -> bool:
        """Had a time of this boot that was called synced surely passed?"""
        return self.offset_ms is not None and not self.is_told


@dataclass(frozen=True, slots=True)
class Told:
    """A time as it is known now: `state` synced, corrected or unsynced; where unsynced, between which times it lies."""

    wall_ms: int
    state: str
    offset_ms: int | None = None
    not_before_ms: int | None = None
    not_after_ms: int | None = None

    @property
    def is_trusted(self) -> bool:
        """Is it a time that may be compared with another one?"""
        return self.state != UNSYNCED


class Boots:
    """The boots in the order in which they were, the present one last."""

    def __init__(self, known: Iterable[Boot] = ()) -> None:
        self._boots = {one.id: one for one in known}

    def load(self, text: str) -> None:
        """Take back what `text()` wrote. What cannot be read is left out: events of these boots stay as they are."""
        try:
            found = [
                Boot(str(one["boot"]), index(one["floor_ms"]), _offset(one), one.get("is_told") is True)
                for one in json.loads(text or "[]")
            ]
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        self._boots = {one.id: one for one in found}

    def recall(self, text: str) -> None:
        """Take back what could not be read before: those boots were before the ones that are known, or are the same."""
        known = self._boots
        self.load(text)
        if self._boots is known:
            return
        for name, one in known.items():
            stored = self._boots.pop(name, one)
            told = stored if one.offset_ms is None else one
            floor_ms = max(one.floor_ms, stored.floor_ms)
            self._boots[name] = Boot(name, floor_ms, told.offset_ms, told.is_told)

    def text(self) -> str:
        """Return all of it as JSON."""
        boots = [
            {"boot": one.id, "floor_ms": one.floor_ms, "offset_ms": one.offset_ms}
            | ({"is_told": True} if one.is_told else {})
            for one in self._boots.values()
        ]
        return json.dumps(boots, separators=(",", ":"))

    def __getitem__(self, boot: str) -> Boot | None:
        """Return what is known of a boot."""
        return self._boots.get(boot)

    def begin(self, boot: str, *, floor_ms: int) -> bool:
        """Note that a boot has begun; False where that is known."""
        if boot in self._boots:
            return False
        self._boots[boot] = Boot(boot, floor_ms)
        while len(self._boots) > KEPT:
            del self._boots[next(iter(self._boots))]
        return True

    def synced(self, boot: str, *, offset_ms: int, is_told: bool = False) -> None:
        """Note the offset of a boot that has begun. It may be believed against the floor, which then was wrong."""
        known = self._boots[boot]
        floor_ms = min(known.floor_ms, offset_ms)
        self._boots[boot] = replace(known, offset_ms=offset_ms, floor_ms=floor_ms, is_told=is_told)

    def floor_of(self, boot: str) -> int:
        """Return the latest time, ms since 1970, that had surely passed when a boot began, the last of them or a new one.

        What the last synchronised boot knew counts, and nothing before it: its time may have been believed against them.
        What only a platform told is passed over.
        """
        floor_ms = 0
        for one in reversed(self._boots.values()):
            if one.id != boot and one.is_floor and one.offset_ms is not None:
                return max(floor_ms, one.offset_ms)
            floor_ms = max(floor_ms, one.floor_ms)
        return floor_ms

    # -- times --------------------------------------------------------------------------------------------------

    def told(self, at: Stamp) -> Told:
        """Return when something happened, as it is known now."""
        if at.clock == SYNCED:
            return Told(at.wall_ms, SYNCED, at.wall_ms - at.mono_ms)
        boot = self._boots.get(at.boot)
        if boot is None:
            return Told(at.wall_ms, UNSYNCED)
        if boot.offset_ms is not None:
            return Told(at.mono_ms + boot.offset_ms, CORRECTED, boot.offset_ms)
        return Told(at.wall_ms, UNSYNCED, None, boot.floor_ms + at.mono_ms, self._next_start(at.boot))

    def moment_ms(self, boot: str, mono_ms: int) -> int | None:
        """Return the time of a boot time; None where the boot's offset is not known."""
        known = self._boots.get(boot)
        return None if known is None or known.offset_ms is None else known.offset_ms + mono_ms

    def later(self, one: str, other: str) -> str | None:
        """Return which of two boots was the later one; None where that is not known."""
        if one not in self._boots or other not in self._boots:
            return None
        order = list(self._boots)
        return one if order.index(one) > order.index(other) else other

    def _next_start(self, boot: str) -> int | None:
        """Return when the first later boot began whose time is known."""
        order = list(self._boots)
        later = (self._boots[one].offset_ms for one in order[order.index(boot) + 1 :])
        return next((one for one in later if one is not None), None)

    def age_ms(self, at: Stamp, now: Stamp) -> int | None:
        """Return how old something is: by boot time within a boot, else by wall clock; None where one end is not trusted."""
        if at.boot == now.boot:
            return max(0, now.mono_ms - at.mono_ms)
        then, present = self.told(at), self.told(now)
        if not (then.is_trusted and present.is_trusted):
            return None
        return max(0, present.wall_ms - then.wall_ms)

    def least_age_ms(self, at: Stamp, now: Stamp) -> int:
        """Return how old something is at least: what happened before this boot is no younger than the boot."""
        age_ms = self.age_ms(at, now)
        return now.mono_ms if age_ms is None else age_ms


def _offset(one: dict[str, object]) -> int | None:
    offset = one.get("offset_ms")
    return index(offset) if isinstance(offset, int) else None

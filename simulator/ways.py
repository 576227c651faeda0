"""When which way into a platform was broken, by the ledger of faults, and what an alarm may take while another stood.

The cut of one way is no excuse: nothing may be lost, doubled or out of order for it. Only the time that an alarm took is
judged apart: over a way that is refused another one must take over at once, over one that is silent after 3 s.
Limits: an alarm that meets a cut way may take 2 s, one that meets a silent way 5 s (a loaded machine is slow to look).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from simulator.ledgers import Fault, Ledgers

MUTED: Final = "muted"  # a platform's word that it is mute: from here on no answer gets through
LIMIT_S: Final = {"cut": 2.0, "mute": 5.0, "hang": 5.0}

Window = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Spell:
    """One way into a platform, broken like this from `first` to `last` (wall-clock seconds; inf: never healed)."""

    way: int
    fault: str
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways into one platform: `shut` is when all were broken, `narrow` when some were and another stood."""

    count: int
    spells: tuple[Spell, ...] = ()
    narrow: tuple[Window, ...] = ()
    shut: tuple[Window, ...] = ()

    def limit_s(self, first: float, last: float) -> float | None:
        """How long an alarm may take that was on its way meanwhile; None when no way was broken, or none stood."""
        if meets(self.shut, first, last) or not meets(self.narrow, first, last):
            return None
        return max(LIMIT_S[one.fault] for one in self.spells if one.first <= last and first <= one.last)


def ways_of(ledgers: Ledgers, platform: str) -> Ways:
    """Return how the ways into a platform stood. Faults of the whole platform are not looked at."""
    score: Mapping[str, Any] = next((one for one in ledgers.scenario.get("platforms", ()) if one["id"] == platform), {})
    count = 1 + len(score.get("also", ()))
    faults = [fault for fault in ledgers.faults if fault.platform in ("", platform)]
    spells = tuple(
        Spell(fault.way, fault.fault, fault.t, _changed(faults, fault))
        for fault in faults
        if fault.way and fault.fault in LIMIT_S
    )
    narrow: list[Window] = []
    shut: list[Window] = []
    for first, last in pairwise(sorted({edge for one in spells for edge in (one.first, one.last)})):
        broken = len({one.way for one in spells if one.first <= first and last <= one.last})
        if broken:
            (shut if broken == count else narrow).append((first, last))
    return Ways(count, spells, tuple(narrow), tuple(shut))


def healed(faults: Sequence[Fault], broken: Fault) -> float:
    """When what a fault broke was healed: the same way by itself, or all of the platform; inf when it was not."""
    ends = [one.t for one in faults if one.fault == "heal" and one.t > broken.t and one.way in (0, broken.way)]
    return min(ends, default=float("inf"))


def _changed(faults: Sequence[Fault], broken: Fault) -> float:
    """When a way was healed, or broken in another manner: who is refused waits no longer, for it knows."""
    others = [one.t for one in faults if one.way == broken.way and one.t > broken.t and one.fault != MUTED]
    return min([healed(faults, broken), *others])


def meets(windows: Sequence[Window], first: float, last: float) -> bool:
    """Does the time from `first` to `last` touch one of the windows?"""
    return any(begin <= last and first <= end for begin, end in windows)

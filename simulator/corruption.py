"""What a corrupt database may cost, and what it may not: an input may be lost to it, but never silently.

Only in a run in which pages of the database were destroyed, and only like this:

- An input is *lost to corruption* when a `gateway.gap` of the link "outbox" with the reason "corrupt", which the same destination
  accepted, has a window that covers it, and says how many events it stands for: each excuses that many inputs and no more.
- One of these events may have been a gap itself, and stand for many inputs: those that came while the gateway was dead (see
  `promises.dead_times`) are excused by a window that covers them and names an event at all.
- Numbers that are missing in a stream are excused when that stream ended, or when such a gap was received, and counted.
- An input may come a second time when a database went between the two: what knew its number was lost with it. It is counted
  apart. The first of the two may be brought back, in the same new stream.
- What staff did with an alarm may be missing at a destination when such a gap names the number of that event, which another
  destination had got, or says of that event's stream that it is not sure of its last numbers, and this is one of those; when
  nobody had it, any such gap that names a number will do.
- There may be one new stream for each destruction, and no more.

Whatever else is missing, doubled or out of order is an offence, as in any run. Limit: a window is widened by 2 s at both
ends, for the stamps of what was destroyed are gone with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from simulator.ledgers import Emission, Ledgers

LINK: Final = "outbox"
SLACK_S: Final = 2.0
REASON: Final = "corrupt"


def corruptions(ledgers: Ledgers) -> list[float]:
    """When pages of the database were destroyed."""
    return [fault.t for fault in ledgers.faults if fault.fault.startswith("corrupt")]


def count_corruptions(ledgers: Ledgers) -> int:
    """How often pages of the database were destroyed."""
    return len(corruptions(ledgers))


@dataclass(slots=True)
class _Announcement:
    first: float
    last: float
    left: int
    names_any: bool

    def covers(self, first: float, last: float) -> bool:
        """Did all of it come within the window?"""
        return self.first - SLACK_S <= first and last <= self.last + SLACK_S


@dataclass(slots=True)
class Announced:
    """What one destination was told of events that were lost with a database."""

    announcements: list[_Announcement] = field(default_factory=list)
    numbers: list[tuple[int, int]] = field(default_factory=list)
    unsure_above: dict[str, int] = field(default_factory=dict)
    """Of streams whose last number nobody knew any more: the highest that was found. What came after it may be gone."""

    def names(self, stream: str, sequence: int) -> bool:
        """Is this one of the numbers that were announced as lost, or as perhaps lost?"""
        named = any(first <= sequence <= last for first, last in self.numbers)
        return named or sequence > self.unsure_above.get(stream, sequence)

    def excuses(self, emission: Emission, recorded: float | None = None) -> bool:
        """Is this one of the inputs that were announced as lost? Each announcement is used up by as many as it names.

        `recorded`: when it was acknowledged, where it is: a line is held for as long as nobody takes it.
        """
        first, last = (emission.t, emission.t_last) if recorded is None else (recorded, recorded)
        for one in self.announcements:
            if one.left and one.covers(first, last):
                one.left -= 1
                return True
        return False

    def may_tell_of(self, emission: Emission) -> bool:
        """May one of the events that were lost have been the gap in which this input came?"""
        return any(one.names_any and one.covers(emission.t, emission.t_last) for one in self.announcements)


def announced(ledgers: Ledgers, gaps: Sequence[Mapping[str, Any]]) -> Announced:
    """Return what the gaps that a destination accepted announce; nothing in a run without destruction."""
    if not count_corruptions(ledgers):
        return Announced()
    told = [
        gap for gap in gaps if gap["link"] == LINK and gap["reason"] == REASON and None not in (gap["from"], gap["to"])
    ]
    counted = [(gap, int(gap["dropped"] or 0)) for gap in told]
    return Announced(
        [_Announcement(gap["from"], gap["to"], left, left > 0) for gap, left in counted],
        [(int(first), int(last)) for gap in told for first, last in gap["sequences"]],
        {str(gap["stream"]): int(gap["highest"]) for gap in told if gap["highest_is_sure"] is False},
    )

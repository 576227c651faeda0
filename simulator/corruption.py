"""What a corrupt database may cost, and what it may not: an input may be lost to it, but never silently.

Only in a run in which pages of the database were destroyed, and only like this:

- An input is *lost to corruption* when a `gateway.gap` of the link "outbox" with the reason "corrupt", which the same destination
  accepted, has a window that covers it, and says how many events it stands for: each excuses that many inputs and no more.
- Numbers that are missing in a stream are excused when that stream ended, or when such a gap was received, and counted.
- An input may come a second time in another stream: what knew its number was lost with the database. It is counted apart.
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


def count_corruptions(ledgers: Ledgers) -> int:
    """How often pages of the database were destroyed."""
    return sum(fault.fault.startswith("corrupt") for fault in ledgers.faults)


@dataclass(slots=True)
class _Announcement:
    first: float
    last: float
    left: int


@dataclass(slots=True)
class Announced:
    """What one destination was told of events that were lost with a database."""

    announcements: list[_Announcement] = field(default_factory=list)

    def excuses(self, emission: Emission) -> bool:
        """Is this one of the inputs that were announced as lost? Each announcement is used up by as many as it names."""
        for one in self.announcements:
            if one.left and one.first - SLACK_S <= emission.t and emission.t_last <= one.last + SLACK_S:
                one.left -= 1
                return True
        return False


def announced(ledgers: Ledgers, gaps: Sequence[Mapping[str, Any]]) -> Announced:
    """Return what the gaps that a destination accepted announce; nothing in a run without destruction."""
    if not count_corruptions(ledgers):
        return Announced()
    return Announced(
        [
            _Announcement(gap["from"], gap["to"], int(gap["dropped"] or 0))
            for gap in gaps
            if gap["link"] == LINK and gap["reason"] == REASON and None not in (gap["from"], gap["to"])
        ]
    )

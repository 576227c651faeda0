"""What goes into the database and comes out of it, as values. No SQL here, no IO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.events import Event, Lane, Stored


@dataclass(frozen=True, slots=True)
class Route:
    """A destination and the types that it wants."""

    destination: str
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """What was judged last of a device, as JSON text, to be committed with the event that it admitted.

    Writes of different lanes may overtake each other: only the highest `version` of a key is kept.
    """

    device: str
    key: str
    value: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class Number:
    """The identity of an acknowledged input, and a digest of what it says (0: not known).

    `settled`: up to which number its source has surely received the acknowledgements. `anew`: it was durable before and is
    used again, so the source counts anew, and what was known of its numbers is void.
    """

    device: str
    session: str
    n: int
    digest: int = 0
    settled: int = -1
    anew: bool = False


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """An alarm's state as JSON text."""

    id: str
    is_open: bool
    raised_ms: int
    doc: str


@dataclass(frozen=True, slots=True)
class MeterDay:
    """What a meter showed on a day, or what happened to it, as JSON text. The first of a day, kind and `n` stays.

    `wins`: it is known to be the true first, and what stands in its place was written under a clock that was wrong.
    """

    device: str
    day: str
    kind: str
    doc: str
    n: int = 0
    wins: bool = False


OF_ANOTHER_STREAM: Final = 0
"""The sequence of a row whose stream has ended before its letter was stored."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a destination refused for good."""

    destination: str
    row: Stored
    code: str
    reason: str
    at_ms: int


# A letter by its destination and the sequence that the event had there.
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it is kept."""

    destination: str
    seq: int
    id: str
    noun: str
    device: str
    code: str
    reason: str
    at_ms: int
    body: str

    @property
    def key(self) -> Key:
        """What it is kept under."""
        return self.destination, self.seq


@dataclass(frozen=True, slots=True)
class CursorRow:
    """How far a destination has confirmed a lane."""

    destination: str
    lane: Lane
    seq: int
    ahead: str = "[]"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A raised alarm that a platform has accepted, so many seconds after it was raised."""

    destination: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted of a lane, up to a sequence: rows, those that each destination waits for, the last of each device."""

    upto: int
    rows: int
    pending: Mapping[str, int]
    devices: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Drop:
    """Rows of a lane that must give way to the quota, in the transaction that announces it."""

    lane: Lane
    rows: tuple[Stored, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """What must become durable together.

    One of the two is called, in the event loop: `on_commit` with the stored rows, or `on_failed` when its content cannot
    be stored. `only`: the events go to this destination alone; `letters`: these dead letters leave.
    """

    events: tuple[Event, ...] = ()
    marks: tuple[Mark, ...] = ()
    numbers: tuple[Number, ...] = ()
    alarms: tuple[AlarmRow, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    drops: tuple[Drop, ...] = ()
    only: str = ""
    letters: tuple[Key, ...] = ()
    days: tuple[MeterDay, ...] = ()
    on_commit: Callable[[list[Stored]], None] | None = None
    on_failed: Callable[[], None] | None = None

    def bare(self) -> Write | None:
        """Return less of a write that cannot be stored: an event must not be lost for what comes with it. None: no less."""
        if not self.events or self.drops or self.letters:
            return None
        if self.marks or self.numbers or self.facts or self.dead or self.days or self.on_commit:
            return Write(self.events, alarms=self.alarms)
        return Write(self.events) if self.alarms else None

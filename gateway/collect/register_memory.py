"""What is remembered of one meter between its readings, and how that is stored as a mark.

Limits: `MAX_OWED` things that happened while nobody knew the time, `MAX_REFUSED` rows that a full queue refused; registers
are bounded by who watches them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from gateway.clock import UNSYNCED, Stamp
from gateway.collect.course import KEPT, Course, Shown
from gateway.outbox import MeterDay

MAX_OWED: Final = 16
MAX_REFUSED: Final = 96

Values = dict[str, Decimal]
"""Registers by "quantity" or "quantity channel"."""


@dataclass(slots=True)
class Memory:
    """What is remembered of one device: its own number, its registers, the day of the last row.

    `absent`: registers that are not in the row of that day. `since_ms`: when it took the place of another meter; 0: never.
    `owed`: what happened while nobody knew the time. `missing`: so many of its own midnights are
    wanted. `refused`: rows that found the queue full, they go with the next. `marked_at`, `told`, `clock_off_s` and `refused`
    are of this process: what is not stored is judged anew by the next.
    """

    number: str = ""
    courses: dict[str, Course] = field(default_factory=dict)
    last_ms: int = 0
    day: str = ""
    ratio: str = ""
    since_ms: int = 0
    absent: set[str] = field(default_factory=set)
    owed: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    marked_at: float | None = None
    missing: int = 0
    told: dict[tuple[str, str], int] = field(default_factory=dict)
    clock_off_s: int = 0
    refused: list[MeterDay] = field(default_factory=list)

    @property
    def last(self) -> Values:
        """What each register showed that was believed last."""
        return {name: one.last.value for name, one in self.courses.items()}

    def joined(self, older: Memory) -> None:
        """Take up what was remembered before, where it is found only now. The next reading is judged by it."""
        if older.number and self.number and older.number != self.number:
            self.number, self.courses = older.number, older.courses
        for name, course in older.courses.items():
            mine = self.courses.get(name)
            if mine is None or mine.last.value < course.last.value:
                self.courses[name] = course
        self.number = self.number or older.number
        self.day = max(self.day, older.day)
        self.ratio = older.ratio or self.ratio
        self.missing = max(self.missing, older.missing)
        self.since_ms = max(self.since_ms, older.since_ms)
        self.owed = [*older.owed, *self.owed][:MAX_OWED]

    def fields(self) -> dict[str, object]:
        """Return what a mark holds of it. What waits, too: where a meter is read once between two restarts it would for ever."""
        at = max((one.last.at for one in self.courses.values()), key=lambda one: one.wall_ms, default=None)
        of_their_own = {name: one for name, one in self.courses.items() if at is not None and one.last.at != at}
        believed = {name: one.before for name, one in self.courses.items() if one.before is not None}
        rates = {name: one.rate for name, one in self.courses.items() if one.rate is not None}
        waiting = {
            name: [[format(shown.value, "f"), _stamped(shown.at)] for shown in one.waiting]
            for name, one in self.courses.items()
            if one.waiting
        }
        return {
            "number": self.number, "ms": self.last_ms, "day": self.day, "last": texts(self.last), "ratio": self.ratio,
            "since": self.since_ms, "absent": sorted(self.absent & self.courses.keys()), "owed": self.owed,
            "missing": self.missing, "at": None if at is None else _stamped(at), "before": texts(believed), "rates": texts(rates),
            "own": {name: _stamped(one.last.at) for name, one in of_their_own.items()}, "waiting": waiting,
        }  # fmt: skip


def texts(values: Values) -> dict[str, str]:
    """Return registers as they are stored."""
    return {name: format(value, "f") for name, value in values.items()}


def _stamped(at: Stamp) -> list[object]:
    return [at.wall_ms, at.mono_ms, at.boot, at.clock]


def _stamp_of(fields: Any) -> Stamp:
    wall_ms, mono_ms, boot, clock = fields
    return Stamp(int(wall_ms), int(mono_ms), str(boot), str(clock))


def memory_of(fields: Any) -> Memory:
    """Take a mark apart; older ones know less. Raises what a bad one leads to."""
    ms = int(fields["ms"])
    at = _stamp_of(fields.get("at") or (ms, 0, "", UNSYNCED))
    own, before, rates, waiting = (fields.get(key, {}) for key in ("own", "before", "rates", "waiting"))
    courses = {
        str(name): Course(
            Shown(Decimal(value), _stamp_of(own[name]) if name in own else at),
            Decimal(before[name]) if name in before else None if "before" in fields else Decimal(value),
            Decimal(rates[name]) if name in rates else None,
            [Shown(Decimal(shown), _stamp_of(at)) for shown, at in waiting.get(name, ())][-KEPT:],
        )
        for name, value in fields["last"].items()
    }
    owed = [(str(kind), dict(doc)) for kind, doc in fields.get("owed", ())]
    return Memory(
        str(fields["number"]), courses, ms, str(fields["day"]), str(fields.get("ratio", "")), int(fields.get("since", 0)),
        {str(name) for name in fields.get("absent", ())}, owed[:MAX_OWED], missing=int(fields.get("missing", 0)),
    )  # fmt: skip

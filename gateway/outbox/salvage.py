"""Takes from a database that cannot be used what people hang on: alarms, marks, numbers, epochs, cursors and dead letters.

Nothing is changed. Limits: `SALVAGE_S`; what cannot be read until then is left out; `KEPT_LETTERS` dead letters, those of
alarms first.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.errors import StoreError
from gateway.events import Lane
from gateway.outbox.inspect import readable
from gateway.outbox.numbers import NumberSet, Ranges, parse_ranges
from gateway.outbox.rows import AlarmRow, Letter, Mark

SALVAGE_S: Final = 3.0
KEPT_LETTERS: Final = 1_000
TORN: Final = "torn"
"""The fact that names the broken commits that were told."""
UNTOLD: Final = "torn_untold"
"""The fact that a broken commit is still to be told; empty ever after it was."""
_STEPS_BETWEEN_LOOKS: Final = 20_000
_LETTERS: Final = (
    "SELECT destination, seq, id, noun, device, code, reason, at_ms, body FROM dead_letter "
    "ORDER BY noun LIKE 'alarm.%' DESC, seq DESC"
)

T = TypeVar("T")
NumberKey = tuple[str, str]


@dataclass(slots=True)
class Salvaged:
    """What was read. `facts` holds the marks of the stream: its id, its sequence, the epochs.

    `highest`: a sequence that was surely given, for the marks may be lost; 0 where nothing says so.
    """

    alarms: list[AlarmRow] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    numbers: dict[NumberKey, NumberSet] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    cursors: dict[tuple[str, Lane], tuple[int, Ranges]] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    highest: int = 0

    @property
    def epochs(self) -> dict[str, int]:
        """The last epoch of each destination that is known."""
        found = ((key[6:], value) for key, value in self.facts.items() if key.startswith("epoch:"))
        return {name: int(value) for name, value in found if value.isdecimal()}

    def facts_to_keep(self) -> dict[str, str]:
        """What is as true in the next database: the epochs, the table of boots, and that a broken commit was not told yet."""
        kept = ("boots", UNTOLD)
        return {key: value for key, value in self.facts.items() if key.startswith("epoch:") or key in kept}


def salvage(path: Path) -> Salvaged:
    """Read what can be read of the database at `path`. Never raises."""
    found = Salvaged()
    deadline = time.monotonic() + SALVAGE_S
    with contextlib.suppress(sqlite3.Error, StoreError, OSError), readable(path) as (connection, _unchanged):
        connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS_BETWEEN_LOOKS)
        found.alarms += _rows(connection, "SELECT id, open, raised_ms, doc FROM alarm", _alarm)
        found.marks += _rows(connection, "SELECT device, key, value FROM mark", _mark)
        found.facts.update(_rows(connection, "SELECT key, value FROM fact", _fact))
        found.numbers = _numbers(connection)
        found.cursors.update(_rows(connection, "SELECT destination, lane, seq, ahead FROM cursor", _cursor))
        for query in ("SELECT max(at_seq) FROM number", "SELECT max(seq) FROM cursor"):
            found.highest = max([found.highest, *_rows(connection, query, _sequence)])
        found.letters += islice(_rows(connection, _LETTERS, _letter), KEPT_LETTERS)
    found.alarms.sort(key=lambda one: one.raised_ms)
    return found


def _numbers(connection: sqlite3.Connection) -> dict[NumberKey, NumberSet]:
    digests: dict[NumberKey, dict[int, bytes]] = {}
    for key, block, data in _rows(connection, "SELECT device, session, block, digests FROM number_digest", _digest):
        digests.setdefault(key, {})[block] = data
    query = "SELECT device, session, ranges, settled FROM number ORDER BY at_seq"

    def number(row: tuple[Any, ...]) -> tuple[NumberKey, NumberSet]:
        key = str(row[0]), str(row[1])
        return key, NumberSet.parse(row[2], settled=int(row[3]), digests=digests.get(key))

    return dict(_rows(connection, query, number))


def _alarm(row: tuple[Any, ...]) -> AlarmRow:
    return AlarmRow(str(row[0]), bool(row[1]), int(row[2]), str(row[3]))


def _mark(row: tuple[Any, ...]) -> Mark:
    return Mark(str(row[0]), str(row[1]), str(row[2]))


def _fact(row: tuple[Any, ...]) -> tuple[str, str]:
    return str(row[0]), str(row[1])


def _cursor(row: tuple[Any, ...]) -> tuple[tuple[str, Lane], tuple[int, Ranges]]:
    return (str(row[0]), Lane(row[1])), (int(row[2]), parse_ranges(row[3]))


def _letter(row: tuple[Any, ...]) -> Letter:
    return Letter(*(str(one) if at not in (1, 7) else int(one) for at, one in enumerate(row)))  # type: ignore[arg-type]  # each column by its place


def _sequence(row: tuple[Any, ...]) -> int:
    return int(row[0])


def _digest(row: tuple[Any, ...]) -> tuple[NumberKey, int, bytes]:
    return (str(row[0]), str(row[1])), int(row[2]), bytes(row[3])


def _rows(connection: sqlite3.Connection, query: str, made: Callable[[tuple[Any, ...]], T]) -> Iterator[T]:
    """Yield rows up to the first that cannot be read."""
    with contextlib.suppress(sqlite3.Error, ValueError, TypeError, OverflowError):
        for row in connection.execute(query):
            yield made(row)

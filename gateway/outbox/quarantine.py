"""Sets a corrupt database aside, so that the gateway can begin a new one, and takes from it what people hang on.

Limits: the newest `KEPT` are kept; of what was set aside, alarms and marks are read as far as they can be, for `SALVAGE_S`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.errors import StoreError
from gateway.outbox.inspect import readable
from gateway.outbox.rows import AlarmRow, Mark

KEPT: Final = 3
SALVAGE_S: Final = 3.0
_STEPS_BETWEEN_LOOKS: Final = 20_000
_ENDINGS: Final = ("", "-wal", "-shm")

T = TypeVar("T")


def set_aside(path: Path, *, now_ms: int) -> Path:
    """Rename a database with its WAL; return where it is. Close every connection to it before. Raises OSError."""
    aside = path.name + f".corrupt-{now_ms:013d}"
    for ending in _ENDINGS:  # the database first: a WAL that a crash leaves alone is discarded by SQLite
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(path.with_name(aside + ending))
    found = path.parent.glob(f"{path.name}.corrupt-*")
    # Whatever the clock says, the last is this one: after a power cut it may have been set back by years.
    others = sorted(one for one in found if one.name != aside and one.name.rpartition("-")[2].isdigit())
    for old in others[: 1 - KEPT]:
        for ending in _ENDINGS:
            old.with_name(old.name + ending).unlink(missing_ok=True)
    return path.with_name(aside)


def salvage(aside: Path) -> tuple[list[AlarmRow], list[Mark]]:
    """Return the alarms and marks of a corrupt database that can still be read. Never raises."""
    deadline = time.monotonic() + SALVAGE_S
    alarms: list[AlarmRow] = []
    marks: list[Mark] = []
    with contextlib.suppress(sqlite3.Error, StoreError, OSError), readable(aside) as (connection, _unchanged):
        connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS_BETWEEN_LOOKS)
        alarms += _rows(connection, "SELECT id, open, raised_ms, doc FROM alarm", _alarm)
        marks += _rows(connection, "SELECT device, key, value FROM mark", _mark)
    return sorted(alarms, key=lambda one: one.raised_ms), marks


def _alarm(row: tuple[Any, ...]) -> AlarmRow:
    return AlarmRow(str(row[0]), bool(row[1]), int(row[2]), str(row[3]))


def _mark(row: tuple[Any, ...]) -> Mark:
    return Mark(str(row[0]), str(row[1]), str(row[2]))


def _rows(connection: sqlite3.Connection, query: str, made: Callable[[tuple[Any, ...]], T]) -> Iterator[T]:
    """Yield rows up to the first that cannot be read."""
    with contextlib.suppress(sqlite3.Error, ValueError, TypeError, OverflowError):
        for row in connection.execute(query):
            yield made(row)


def discard(path: Path) -> None:
    """Remove what is left of a database that was begun and never came into use. Raises OSError."""
    for ending in reversed(_ENDINGS):
        path.with_name(path.name + ending).unlink(missing_ok=True)

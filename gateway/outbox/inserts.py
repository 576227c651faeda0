"""The rows of one transaction, inserted or replaced many at a time.

Each statement lets go of the interpreter and has to get it back from an event loop that may be busy: a statement for each row
would make a commit wait as often as it has rows, and `executemany` does so as well. Limits: `AT_ONCE` rows a statement, of
11 columns each at most.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from gateway.events import Lane
from gateway.outbox.connection import TABLES

AT_ONCE: Final = (64, 16, 4, 2, 1)
_COLUMNS: Final = 11
_ROW: Final = f"({','.join('?' * _COLUMNS)})"
_STATEMENTS: Final = {
    (lane, rows): f"INSERT INTO {table} VALUES {','.join([_ROW] * rows)}"  # noqa: S608 - a table of ours
    for lane, table in TABLES.items()
    for rows in AT_ONCE
}


class Inserts:
    """Rows that wait to be inserted, by lane."""

    def __init__(self) -> None:
        self._values: dict[Lane, list[object]] = {lane: [] for lane in Lane}

    def of(self, lane: Lane) -> list[object]:
        """Return the values of a lane, to be extended by one for each column of a row."""
        return self._values[lane]

    def run(self, connection: sqlite3.Connection) -> None:
        """Insert them. Raises sqlite3.Error; also whatever a value raises that cannot be stored."""
        for lane, values in self._values.items():
            at = 0
            for rows in AT_ONCE:
                step = rows * _COLUMNS
                while at + step <= len(values):
                    connection.execute(_STATEMENTS[lane, rows], values[at : at + step])
                    at += step


def put(connection: sqlite3.Connection, table: str, rows: Sequence[Sequence[object]]) -> None:
    """Insert whole rows, or replace those that have their keys; of two with one key the later stays. Raises sqlite3.Error."""
    at = 0
    for step in AT_ONCE:
        while at + step <= len(rows):
            some = rows[at : at + step]
            connection.execute(_replacing(table, len(some[0]), step), [value for row in some for value in row])
            at += step


@lru_cache(maxsize=64)
def _replacing(table: str, columns: int, rows: int) -> str:
    row = f"({','.join('?' * columns)})"
    return f"INSERT OR REPLACE INTO {table} VALUES {','.join([row] * rows)}"  # noqa: S608 - a table of ours

"""Reading the database back: its own connection, so that it never waits for a transaction of the writer."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.clock import Stamp
from gateway.events import Lane, Stored
from gateway.outbox.connection import TABLES, asks, connect
from gateway.outbox.numbers import Ranges, within
from gateway.outbox.rows import AlarmRow, Counted, CursorRow, Letter, Mark, MeterDay

_COLUMNS: Final = "seq, id, noun, device, recorded_ms, wall_ms, mono_ms, boot, clock, route, body"
_LAST: Final = 2**63 - 1


class Reader:
    """One connection that only reads. Not thread-safe: it has its thread. Everything raises StoreError."""

    def __init__(self, path: Path, boot_ids: Callable[[], Mapping[int, str]]) -> None:
        self.path = path
        self._boot_ids = boot_ids
        self._connection: sqlite3.Connection = connect(path)

    def close(self) -> None:
        """Close the connection. May be called twice."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    @asks
    def fetch(self, lane: Lane, after: int, limit: int) -> list[Stored]:
        """Return up to `limit` rows of a lane beyond `after`, in order."""
        query = f"SELECT {_COLUMNS} FROM {TABLES[lane]} WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608
        return [self._row(lane, row) for row in self._connection.execute(query, (after, limit))]

    def _row(self, lane: Lane, row: tuple[Any, ...]) -> Stored:
        seq, event_id, noun, device, recorded_ms, wall_ms, mono_ms, boot, clock, route, body = row
        at = Stamp(wall_ms, mono_ms, self._boot_ids().get(boot, ""), clock)
        return Stored(seq, lane, event_id, noun, device, recorded_ms, at, json.loads(route), body)

    @asks
    def cursors(self) -> list[CursorRow]:
        """Return every stored cursor."""
        query = "SELECT destination, lane, seq, ahead FROM cursor"
        return [CursorRow(name, Lane(lane), seq, ahead) for name, lane, seq, ahead in self._connection.execute(query)]

    @asks
    def marks(self) -> list[Mark]:
        """Return every mark of every device."""
        return [Mark(*row) for row in self._connection.execute("SELECT device, key, value FROM mark")]

    @asks
    def meter_days(
        self, device: str, first: str, last: str, *, after: tuple[str, str, int] = ("", "", 0), limit: int
    ) -> list[MeterDay]:
        """Return up to `limit` rows of a meter from one day to another, in order, behind `after` (a day, a kind, an `n`)."""
        query = (
            "SELECT device, day, kind, doc, n FROM meter_day WHERE device = ? AND day BETWEEN ? AND ? "
            "AND (day, kind, n) > (?, ?, ?) ORDER BY day, kind, n LIMIT ?"
        )
        return [MeterDay(*row) for row in self._connection.execute(query, (device, first, last, *after, limit))]

    @asks
    def metered(self) -> list[str]:
        """Return the devices of which something is kept."""
        return [device for (device,) in self._connection.execute("SELECT DISTINCT device FROM meter_day")]

    @asks
    def alarms(self) -> list[AlarmRow]:
        """Return the kept alarms, oldest first."""
        query = "SELECT id, open, raised_ms, doc FROM alarm ORDER BY raised_ms"
        return [AlarmRow(one, bool(is_open), at, doc) for one, is_open, at, doc in self._connection.execute(query)]

    @asks
    def letters(
        self, *, destination: str = "", prefix: str = "", upto: int | None = None, limit: int, newest: bool = True
    ) -> list[Letter]:
        """Return dead letters, the newest first or the oldest: of one destination ("": of all), with ids that begin so."""
        query = (
            "SELECT destination, seq, id, noun, device, code, reason, at_ms, body FROM dead_letter WHERE "
            "(? = '' OR destination = ?) AND substr(id, 1, ?) = ? AND seq <= ? "
            "ORDER BY CASE WHEN ? THEN -at_ms ELSE seq END, seq DESC LIMIT ?"
        )
        facts = (destination, destination, len(prefix), prefix, _LAST if upto is None else upto, newest, limit)
        return [Letter(*row) for row in self._connection.execute(query, facts)]

    @asks
    def count_letters(self, destination: str, *, upto: int | None = None) -> tuple[int, int]:
        """Return how many dead letters a destination has up to a sequence, and how many of them are of alarms."""
        query = (
            "SELECT count(*), count(CASE WHEN noun LIKE 'alarm.%' THEN 1 END) FROM dead_letter "
            "WHERE destination = ? AND seq <= ?"
        )
        count, alarms = self._connection.execute(query, (destination, _LAST if upto is None else upto)).fetchone()
        return int(count), int(alarms)

    @asks
    def lane_heads(self) -> dict[Lane, tuple[int, int]]:
        """Return for each lane that has rows the lowest and the highest sequence."""
        heads = {}
        for lane, table in TABLES.items():
            [low] = self._connection.execute(f"SELECT min(seq) FROM {table}").fetchone()  # noqa: S608 - a table of ours
            [high] = self._connection.execute(f"SELECT max(seq) FROM {table}").fetchone()  # noqa: S608 - apart, each is one look
            if low is not None:
                heads[lane] = (low, high)
        return heads

    @asks
    def last_recorded(self, beyond: int, otherwise: Stamp | None) -> Stamp | None:
        """Return when the newest event after sequence `beyond` was recorded, or `otherwise` if all of them have left."""
        found: tuple[Any, ...] | None = None
        for table in TABLES.values():
            query = f"SELECT recorded_ms, mono_ms, boot, clock, seq FROM {table} ORDER BY seq DESC LIMIT 1"  # noqa: S608
            row = self._connection.execute(query).fetchone()
            if row and row[4] > (found[4] if found else beyond):
                found = row
        if found is None:
            return otherwise
        return Stamp(found[0], found[1], self._boot_ids().get(found[2], ""), found[3])

    @asks
    def count(
        self, lane: Lane, after: int, upto: int, confirmed: Mapping[str, tuple[int, Ranges]], *, limit: int
    ) -> Counted:
        """Count `limit` rows of a lane beyond `after`, at most those up to `upto`; what is `confirmed` waits for nobody."""
        part = f"FROM (SELECT * FROM {TABLES[lane]} WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?)"  # noqa: S608
        bounds = (after, upto, limit)
        sums = "".join(", sum(seq > ? AND instr(route, ?) > 0)" for _one in confirmed)
        facts = [fact for name, (seq, _ahead) in confirmed.items() for fact in (seq, f'"{name}":')]
        rows, last, *waiting = self._connection.execute(
            f"SELECT count(*), max(seq){sums} {part}", (*facts, *bounds)
        ).fetchone()
        end = upto if rows < limit else last
        pending = {name: count or 0 for name, count in zip(confirmed, waiting, strict=True)}
        for name, (seq, ahead) in confirmed.items():
            if ahead and pending[name]:
                pending[name] -= self._count_ahead(lane, (max(after, seq), min(end, ahead[-1][1])), name, ahead)
        query = f"SELECT device, max(seq) {part} GROUP BY device"
        devices = dict(self._connection.execute(query, bounds).fetchall()) if lane is Lane.D else {}
        return Counted(end, rows, pending, devices)

    def _count_ahead(self, lane: Lane, between: tuple[int, int], name: str, ahead: Ranges) -> int:
        query = f"SELECT seq FROM {TABLES[lane]} WHERE seq > ? AND seq <= ? AND instr(route, ?)"  # noqa: S608 - a table of ours
        return sum(1 for (one,) in self._connection.execute(query, (*between, f'"{name}":')) if within(ahead, one))

    @asks
    def between(self, first: int, last: int, destination: str) -> dict[Lane, list[tuple[int, bool]]]:
        """Return the sequences from `first` to `last` that are there, by lane, and whether a destination wants each."""
        facts = (f'"{destination}":', first, last)
        found = {}
        for lane, table in TABLES.items():
            query = f"SELECT seq, instr(route, ?) > 0 FROM {table} WHERE seq BETWEEN ? AND ? ORDER BY seq"  # noqa: S608
            found[lane] = [(seq, bool(wanted)) for seq, wanted in self._connection.execute(query, facts)]
        return found

    @asks
    def count_upto(self, upto: Mapping[Lane, int]) -> dict[Lane, int]:
        """Return how many rows of each lane there are up to a sequence."""
        counts = {}
        for lane, seq in upto.items():
            query = f"SELECT count(*) FROM {TABLES[lane]} WHERE seq <= ?"  # noqa: S608 - tables of ours
            counts[lane] = int(self._connection.execute(query, (seq,)).fetchone()[0])
        return counts

    @asks
    def used_bytes(self) -> int:
        """Return the bytes of the database that hold something: its size without the free pages."""
        pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
        free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
        size = self._connection.execute("PRAGMA page_size").fetchone()[0]
        return int((pages - free) * size)

    @asks
    def file_bytes(self) -> int:
        """Return the size of the database in bytes, free pages included."""
        pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
        size = self._connection.execute("PRAGMA page_size").fetchone()[0]
        return int(pages * size)

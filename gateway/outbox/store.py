"""The database: schema, the one transaction that stores, and reading back. Synchronous; `Outbox` gives it its threads.

WAL with synchronous=FULL: NORMAL loses the last commits at a power cut. The WAL is never truncated on purpose, because a
growing WAL costs three times the bytes of one that is reused in place. Limit: one transaction holds at most what the
outbox hands over (1,000 events).
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

from gateway.clock import Stamp
from gateway.errors import StoreError
from gateway.events import Event, Lane, Stored, new_id, wants
from gateway.outbox.numbers import NumberSet

_TABLES: Final = {Lane.A: "event_a", Lane.B: "event_b", Lane.C: "event_c", Lane.D: "event_d"}
_COLUMNS: Final = "seq, id, noun, device, recorded_ms, wall_ms, mono_ms, boot, clock, route, body"
DELETE_STEP: Final = 500
_FACTS_EVERY: Final = 500
_KEPT_SESSIONS: Final = 8
_KEPT_CLOSED_ALARMS: Final = 1000


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
    """The identity of an acknowledged input."""

    device: str
    session: str
    n: int


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """An alarm's state as JSON text."""

    id: str
    is_open: bool
    raised_ms: int
    doc: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a destination refused for good."""

    destination: str
    row: Stored
    code: str
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class CursorRow:
    """How far a destination has confirmed a lane."""

    destination: str
    lane: Lane
    seq: int
    ahead: str = "[]"


@dataclass(frozen=True, slots=True)
class Write:
    """What must become durable together. `on_commit` is called with the stored rows, in the event loop."""

    events: tuple[Event, ...] = ()
    marks: tuple[Mark, ...] = ()
    numbers: tuple[Number, ...] = ()
    alarms: tuple[AlarmRow, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    on_commit: Callable[[list[Stored]], None] | None = None


@dataclass(slots=True)
class Counters:
    """The marks that a transaction moves; a copy is kept only if the commit succeeds."""

    sequence: int
    delivery: dict[str, int]
    numbers: dict[tuple[str, str], NumberSet] = field(default_factory=dict)


class Store:
    """One writer connection and one reader connection on one file. Not thread-safe: each connection has its thread."""

    def __init__(self, path: Path, routes: Sequence[Route]) -> None:
        self._path = path
        self.routes = routes
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection
        self._boots: dict[str, int] = {}
        self._boot_ids: dict[int, str] = {}
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self.counters = Counters(0, {})
        self.streamid = ""

    # -- opening ------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open or create the database. Raises StoreError: GW-STO-01 cannot, -02 corrupt, -05 newer schema."""
        try:
            self._writer = self._connect()
            self._migrate()
            self._load()
            self._reader = self._connect()
        except sqlite3.Error as error:
            raise _store_error(error, self._path) from error

    def close(self) -> None:
        """Close both connections; the WAL is checkpointed by SQLite when the last one goes."""
        self._reader.close()
        self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=1000")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _migrate(self) -> None:
        files = sorted(resources.files("gateway.outbox").joinpath("schema").iterdir(), key=lambda one: one.name)
        scripts = {int(one.name[:4]): one for one in files if re.fullmatch(r"\d{4}\.sql", one.name)}
        have = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if have > max(scripts):
            raise StoreError("GW-STO-05", str(self._path), path=str(self._path), found=have, known=max(scripts))
        for number in sorted(one for one in scripts if one > have):
            script = scripts[number].read_text(encoding="utf-8")
            self._writer.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={number}; COMMIT;")

    def _load(self) -> None:
        facts = dict(self._writer.execute("SELECT key, value FROM fact"))
        self.streamid = facts.get("streamid") or new_id()
        sequence = int(facts.get("sequence", 0))
        delivery = {route.destination: int(facts.get(f"delivery:{route.destination}", 0)) for route in self.routes}
        # The facts are written at least once in `_FACTS_EVERY` events: only what came after them is looked at.
        for table in _TABLES.values():
            query = f"SELECT seq, route FROM {table} WHERE seq > ?"  # noqa: S608 - a table of ours
            for seq, text in self._writer.execute(query, (int(facts.get("sequence", 0)),)):
                sequence = max(sequence, seq)
                for destination, number in json.loads(text).items():
                    if destination in delivery:
                        delivery[destination] = max(delivery[destination], number)
        self.counters = Counters(sequence, delivery)
        self._boots = {name: n for n, name in self._writer.execute("SELECT n, id FROM boot")}
        self._boot_ids = {n: name for name, n in self._boots.items()}
        self._writer.execute("BEGIN IMMEDIATE")
        self._put_facts([("streamid", self.streamid)])
        known = [route.destination for route in self.routes]
        marks = ",".join("?" * len(known))
        self._writer.execute(f"DELETE FROM cursor WHERE destination NOT IN ({marks})", known)  # noqa: S608
        self._prune_sessions()
        self._writer.execute("COMMIT")
        for device, session, text in self._writer.execute("SELECT device, session, ranges FROM number"):
            self.counters.numbers[device, session] = NumberSet.parse(text)

    def _prune_sessions(self) -> None:
        self._writer.execute(
            "DELETE FROM number WHERE (device, session) IN (SELECT device, session FROM (SELECT device, session, "
            "row_number() OVER (PARTITION BY device ORDER BY at_ms DESC) AS age FROM number) WHERE age > ?)",
            (_KEPT_SESSIONS,),
        )
        self._writer.execute(
            "DELETE FROM alarm WHERE open = 0 AND id NOT IN (SELECT id FROM alarm ORDER BY open DESC, raised_ms DESC LIMIT ?)",
            (_KEPT_CLOSED_ALARMS,),
        )

    # -- writing ------------------------------------------------------------------------------------------------

    def commit(
        self,
        writes: Sequence[tuple[Write, tuple[Lane, ...]]],
        cursors: Sequence[CursorRow],
        *,
        now_ms: int,
        delete: Mapping[Lane, int],
    ) -> tuple[list[list[Stored]], dict[Lane, int]]:
        """Store everything in one transaction; return the rows of each write, and the number of rows deleted by lane.

        Raises StoreError; then nothing is stored.

        `delete` gives for each lane the sequence up to which rows have left for every destination.
        """
        work = Counters(self.counters.sequence, dict(self.counters.delivery))
        boots = dict(self._boots)
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            stored = [self._store(write, lanes, work, boots, now_ms) for write, lanes in writes]
            self._put_cursors(cursors)
            self._put_marks([mark for write, _lanes in writes for mark in write.marks])
            deleted = self._delete(delete)
            if delete or cursors or work.sequence // _FACTS_EVERY != self.counters.sequence // _FACTS_EVERY:
                self._put_counters(work)
            for (device, session), numbers in work.numbers.items():
                self._writer.execute(
                    "INSERT OR REPLACE INTO number VALUES (?, ?, ?, ?)", (device, session, numbers.text(), now_ms)
                )
            self._writer.execute("COMMIT")
        except BaseException as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _store_error(error, self._path) from error
            raise
        self.counters.sequence, self.counters.delivery = work.sequence, work.delivery
        self.counters.numbers.update(work.numbers)
        self._boots = boots
        self._boot_ids = {n: name for name, n in boots.items()}
        return stored, deleted

    def _store(
        self, write: Write, lanes: tuple[Lane, ...], work: Counters, boots: dict[str, int], now_ms: int
    ) -> list[Stored]:
        rows = [
            self._put_event(event, lane, work, boots, now_ms) for event, lane in zip(write.events, lanes, strict=True)
        ]
        for number in write.numbers:
            key = (number.device, number.session)
            if key not in work.numbers:
                work.numbers[key] = self.counters.numbers.get(key, NumberSet()).copy()
            work.numbers[key].add(number.n)
        for alarm in write.alarms:
            self._writer.execute(
                "INSERT OR REPLACE INTO alarm VALUES (?, ?, ?, ?)",
                (alarm.id, int(alarm.is_open), alarm.raised_ms, alarm.doc),
            )
        for dead in write.dead:
            row = dead.row
            self._writer.execute(
                "INSERT OR REPLACE INTO dead_letter VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (dead.destination, row.seq, row.id, row.noun, row.device, dead.code, dead.reason, dead.at_ms, row.body),
            )
        if write.facts:
            self._put_facts(write.facts)
        return rows

    def _put_marks(self, marks: Sequence[Mark]) -> None:
        newest: dict[tuple[str, str], Mark] = {}
        for mark in marks:
            key = (mark.device, mark.key)
            if mark.version >= max(self._versions.get(key, 0), newest[key].version if key in newest else 0):
                newest[key] = mark
        for key, mark in newest.items():
            self._writer.execute("INSERT OR REPLACE INTO mark VALUES (?, ?, ?)", (mark.device, mark.key, mark.value))
            # Kept even if this transaction fails: the same marks come again with its retry.
            self._versions[key] = mark.version

    def _put_event(self, event: Event, lane: Lane, work: Counters, boots: dict[str, int], now_ms: int) -> Stored:
        boot = boots.get(event.at.boot)
        if boot is None:
            boot = boots[event.at.boot] = max(boots.values(), default=0) + 1
            self._writer.execute("INSERT INTO boot VALUES (?, ?)", (boot, event.at.boot))
        work.sequence += 1
        route: dict[str, int] = {}
        for destination in self._destinations_for(event.noun):
            work.delivery[destination] += 1
            route[destination] = work.delivery[destination]
        at = event.at
        self._writer.execute(
            f"INSERT INTO {_TABLES[lane]} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a table of ours
            (
                work.sequence, event.id, event.noun, event.device, now_ms, at.wall_ms, at.mono_ms, boot, at.clock,
                json.dumps(route, separators=(",", ":")), event.body,
            ),
        )  # fmt: skip
        return Stored(work.sequence, lane, event.id, event.noun, event.device, now_ms, at, route, event.body)

    def _destinations_for(self, noun: str) -> tuple[str, ...]:
        found = self._wanted.get(noun)
        if found is None:
            found = tuple(route.destination for route in self.routes if wants(route.types, noun))
            self._wanted[noun] = found
        return found

    def _put_facts(self, facts: Iterable[tuple[str, str]]) -> None:
        self._writer.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", facts)

    def _put_cursors(self, cursors: Sequence[CursorRow]) -> None:
        self._writer.executemany(
            "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?)",
            [(one.destination, int(one.lane), one.seq, one.ahead) for one in cursors],
        )

    def _delete(self, delete: Mapping[Lane, int]) -> dict[Lane, int]:
        deleted = {}
        for lane, seq in delete.items():
            table = _TABLES[lane]
            done = self._writer.execute(
                f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} WHERE seq <= ? ORDER BY seq LIMIT ?)",  # noqa: S608
                (seq, DELETE_STEP),
            )
            deleted[lane] = done.rowcount
        return deleted

    def _put_counters(self, work: Counters) -> None:
        facts = [("sequence", str(work.sequence))]
        facts += [(f"delivery:{destination}", str(number)) for destination, number in work.delivery.items()]
        self._put_facts(facts)

    # -- reading ------------------------------------------------------------------------------------------------

    def fetch(self, lane: Lane, after: int, limit: int) -> list[Stored]:
        """Return up to `limit` rows of a lane beyond `after`, in order. Runs on the reader connection."""
        query = f"SELECT {_COLUMNS} FROM {_TABLES[lane]} WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608
        return [self._row(lane, row) for row in self._reader.execute(query, (after, limit))]

    def _row(self, lane: Lane, row: tuple[Any, ...]) -> Stored:
        seq, event_id, noun, device, recorded_ms, wall_ms, mono_ms, boot, clock, route, body = row
        at = Stamp(wall_ms, mono_ms, self._boot_ids.get(boot, ""), clock)
        return Stored(seq, lane, event_id, noun, device, recorded_ms, at, json.loads(route), body)

    def cursors(self) -> list[CursorRow]:
        """Return every stored cursor."""
        query = "SELECT destination, lane, seq, ahead FROM cursor"
        return [CursorRow(name, Lane(lane), seq, ahead) for name, lane, seq, ahead in self._reader.execute(query)]

    def marks(self) -> list[Mark]:
        """Return every mark of every device."""
        return [Mark(*row) for row in self._reader.execute("SELECT device, key, value FROM mark")]

    def alarms(self) -> list[AlarmRow]:
        """Return the kept alarms, oldest first."""
        query = "SELECT id, open, raised_ms, doc FROM alarm ORDER BY raised_ms"
        return [AlarmRow(one, bool(is_open), at, doc) for one, is_open, at, doc in self._reader.execute(query)]

    def dead_letters(self, limit: int) -> list[dict[str, object]]:
        """Return the newest dead letters, without their bodies."""
        names = ("destination", "sequence", "id", "type", "device", "code", "reason", "at_ms")
        query = "SELECT destination, seq, id, noun, device, code, reason, at_ms FROM dead_letter ORDER BY at_ms DESC LIMIT ?"
        return [dict(zip(names, row, strict=True)) for row in self._reader.execute(query, (limit,))]

    def fact(self, key: str) -> str | None:
        """Return one fact."""
        row = self._reader.execute("SELECT value FROM fact WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def lane_heads(self) -> dict[Lane, tuple[int, int, int]]:
        """Return for each lane the lowest and highest sequence and the number of rows."""
        heads = {}
        for lane, table in _TABLES.items():
            low, high, count = self._reader.execute(f"SELECT min(seq), max(seq), count(*) FROM {table}").fetchone()  # noqa: S608
            heads[lane] = (low or 0, high or 0, count)
        return heads

    def last_recorded(self) -> Stamp | None:
        """Return when the newest event of all lanes was recorded: the last sign of life in the database."""
        found: tuple[Any, ...] | None = None
        for table in _TABLES.values():
            query = f"SELECT recorded_ms, mono_ms, boot, clock, seq FROM {table} ORDER BY seq DESC LIMIT 1"  # noqa: S608
            row = self._reader.execute(query).fetchone()
            if row and (found is None or row[4] > found[4]):
                found = row
        return Stamp(found[0], found[1], self._boot_ids.get(found[2], ""), found[3]) if found else None

    def count_beyond(self, lane: Lane, seq: int, destination: str) -> int:
        """Return how many rows of a lane beyond `seq` a destination wants."""
        query = f"SELECT count(*) FROM {_TABLES[lane]} WHERE seq > ? AND instr(route, ?)"  # noqa: S608
        return int(self._reader.execute(query, (seq, f'"{destination}":')).fetchone()[0])

    def backlog_devices(self) -> dict[str, int]:
        """Return the devices with telemetry in lane D and the last sequence of each."""
        return dict(self._reader.execute("SELECT device, max(seq) FROM event_d GROUP BY device").fetchall())

    def file_bytes(self) -> int:
        """Return the size of the database in bytes, free pages included."""
        pages = self._reader.execute("PRAGMA page_count").fetchone()[0]
        size = self._reader.execute("PRAGMA page_size").fetchone()[0]
        return int(pages * size)


def _store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """Name what SQLite says: full, corrupt, or not writable."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_FULL"):
        code = "GW-STO-03"
    elif name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        code = "GW-STO-02"
    else:
        code = "GW-STO-01"
    return StoreError(code, str(path), path=str(path), detail=f"{name or type(error).__name__}: {error}")

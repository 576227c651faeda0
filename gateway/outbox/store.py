"""The database: schema, the one transaction that stores, and reading back. Synchronous; `Outbox` gives it its threads.

WAL with synchronous=FULL: NORMAL loses the last commits at a power cut. The WAL is never truncated on purpose, because a
growing WAL costs three times the bytes of one that is reused in place. Limits: one transaction holds at most what the
outbox hands over (250 events) and deletes 500 rows a lane; of a device the last 8 sessions of numbers are kept, of a
destination 10,000 dead letters (those of alarms are never dropped), 1,000 closed alarms, and of a meter 400 days.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from gateway.clock import Stamp
from gateway.errors import StoreError
from gateway.events import Lane, Stored, new_id, wants
from gateway.outbox.connection import TABLES, asks, connect, store_error
from gateway.outbox.inserts import Inserts
from gateway.outbox.migration import migrate, refuse_newer
from gateway.outbox.numbers import NumberSet
from gateway.outbox.reader import Reader
from gateway.outbox.rows import OF_ANOTHER_STREAM, Accepted, CursorRow, DeadLetter, Mark, MeterDay, Route, Write
from gateway.outbox.salvage import Salvaged
from gateway.outbox.wal import hidden, torn
from gateway.outbox.wal_index import WalIndex
from gateway.tally import Tally

DELETE_STEP: Final = 500
_FACTS_EVERY: Final = 500
_quoted: Final = lru_cache(maxsize=64)(json.dumps)
_KEPT_SESSIONS: Final = 8
_KEPT_CLOSED_ALARMS: Final = 1000
_KEPT_DEAD_LETTERS: Final = 10_000
_KEPT_METER_DAYS: Final = 400
# What one write can do wrong by its content; every other error is the disk's or the file's.
_CONTENT_ERRORS: Final = (
    sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.NotSupportedError, sqlite3.ProgrammingError,
)  # fmt: skip


@dataclass(slots=True)
class Counters:
    """The marks that a transaction moves; a copy is kept only if the commit succeeds."""

    sequence: int
    delivery: dict[str, int]
    numbers: dict[tuple[str, str], NumberSet] = field(default_factory=dict)
    recorded: Stamp | None = None
    tally: Tally = field(default_factory=Tally)
    counted: Tally | None = None

    def for_work(self) -> Counters:
        """Return what one transaction moves."""
        return Counters(self.sequence, dict(self.delivery), recorded=self.recorded, tally=self.tally)

    def counting(self) -> Tally:
        """Return what this transaction may count in: a copy, made when the first thing is counted."""
        if self.counted is None:
            self.counted = self.tally.copy()
        return self.counted


class Store:
    """The writer connection on one file, and the reader beside it. Not thread-safe: each of both has its thread."""

    def __init__(self, path: Path, routes: Sequence[Route]) -> None:
        self.path = path
        self.routes = routes
        self.reader: Reader
        self._writer: sqlite3.Connection
        self._index = WalIndex(path)
        self._boots: dict[str, int] = {}
        self._boot_ids: dict[int, str] = {}
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._dead = 0
        self._versions: dict[tuple[str, str], int] = {}
        self.counters = Counters(0, {})
        self.counted_to = 0
        self.epochs: dict[str, int] = {}
        self.bases: dict[str, str] = {}
        self.boots = ""
        self.rescue = ""
        self.torn: list[str] = []
        self.is_torn = False
        self.streamid = ""

    # -- opening ------------------------------------------------------------------------------------------------

    @asks
    def open(self) -> None:
        """Open or create the database. Raises StoreError: GW-STO-01 cannot, -02 corrupt, -03 full, -05 newer schema."""
        refuse_newer(self.path)
        self._index.hold()
        try:
            self._writer = connect(self.path)
        except BaseException:
            self._index.release()
            raise
        try:
            self._refuse_hole()
            migrate(self._writer, self.path)
            self._load()
            self.reader = Reader(self.path, lambda: self._boot_ids)
        except BaseException:
            # Collected later it would delete the WAL of whatever stands at this path by then: that of a new database.
            self._writer.close()
            self._index.release()
            raise

    def _refuse_hole(self) -> None:
        """Before anything is written: the next commit goes where those stand that SQLite does not see. Raises StoreError."""
        seen = self._index.last_frame()
        frames = 0 if seen is None else hidden(self.path, after=seen)
        if not frames:
            self.torn = [] if seen is None else torn(self.path, after=seen)
            return
        # The last connection that may write would empty the WAL and remove it; one that may not leaves it as it is.
        with contextlib.closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as keeper:
            keeper.execute("SELECT count(*) FROM sqlite_master").fetchone()
            self.close()
        detail = f"commits stand behind damage in its WAL, {frames} frames from frame {seen} on"
        raise StoreError("GW-STO-02", str(self.path), path=str(self.path), detail=detail)

    def close(self) -> None:
        """Close the writer; the WAL is checkpointed by SQLite when the last connection goes, so close the reader first."""
        with contextlib.suppress(sqlite3.Error):
            self._writer.close()
        self._index.release()

    def _load(self) -> None:
        facts = dict(self._writer.execute("SELECT key, value FROM fact"))
        before, self.streamid = self.streamid, facts.get("streamid") or new_id()
        if "streamid" not in facts:
            self._put_facts([("streamid", self.streamid)])
        self.counted_to = sequence = int(facts.get("sequence", 0))
        if before == self.streamid:  # whatever a card has forgotten: no number is given twice
            sequence = max(sequence, self.counters.sequence)
        delivery = {route.destination: int(facts.get(f"delivery:{route.destination}", 0)) for route in self.routes}
        # The facts are written at least once in `_FACTS_EVERY` events: only what came after them is looked at.
        for table in TABLES.values():
            query = f"SELECT seq, route FROM {table} WHERE seq > ?"  # noqa: S608 - a table of ours
            for seq, text in self._writer.execute(query, (self.counted_to,)):
                sequence = max(sequence, seq)
                for destination, number in json.loads(text).items():
                    if destination in delivery:
                        delivery[destination] = max(delivery[destination], number)
        if before == self.streamid:
            delivery = {name: max(number, self.counters.delivery.get(name, 0)) for name, number in delivery.items()}
        self.epochs = {key[6:]: int(value) for key, value in facts.items() if key.startswith("epoch:")}
        self.boots = facts.get("boots", "")
        self.rescue = facts.get("rescue", "")
        told = set(facts.get("torn", "").split())
        self.is_torn = any(one not in told for one in self.torn)
        recorded = Stamp(**json.loads(facts["recorded"])) if "recorded" in facts else None
        try:
            tally = Tally.parse(facts["tally"]) if "tally" in facts else Tally()
        except (ValueError, KeyError, TypeError):  # of another version, perhaps: counts are no reason to give up events
            tally = Tally()
        self.counters = Counters(sequence, delivery, recorded=recorded, tally=tally)
        self.bases = {key[7:]: value for key, value in facts.items() if key.startswith("counts:")}
        self._boots = {name: n for n, name in self._writer.execute("SELECT n, id FROM boot")}
        self._boot_ids = {n: name for name, n in self._boots.items()}
        try:
            self._tidy()
        except sqlite3.OperationalError:  # a full disk: what is stored can be delivered all the same
            self._roll_back()
        digests: dict[tuple[str, str], dict[int, bytes]] = {}
        for device, session, block, data in self._writer.execute("SELECT * FROM number_digest"):
            digests.setdefault((device, session), {})[block] = data
        query = "SELECT device, session, ranges, settled FROM number ORDER BY at_seq"
        for device, session, text, settled in self._writer.execute(query):
            known = digests.get((device, session))
            self.counters.numbers[device, session] = NumberSet.parse(text, settled=settled, digests=known)

    @asks
    def adopt(self, numbers: Mapping[tuple[str, str], NumberSet], known: Salvaged, facts: Mapping[str, str]) -> None:
        """Take over, in one transaction, what a database that was set aside knew. Raises StoreError.

        Its letters get sequences below zero, for they are of another stream; older ones stay below newer ones.
        """
        wanted = {route.destination for route in self.routes}
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            for (device, session), taken in numbers.items():
                row = (device, session, taken.text(), self.counters.sequence, taken.settled)
                self._writer.execute("INSERT OR REPLACE INTO number VALUES (?, ?, ?, ?, ?)", row)
                self._writer.executemany(
                    "INSERT OR REPLACE INTO number_digest VALUES (?, ?, ?, ?)",
                    [(device, session, block, data) for block, data in taken.blocks()],
                )
            for one in sorted(known.letters, key=lambda one: one.seq, reverse=True):
                if one.destination in wanted:
                    rest = (one.id, one.noun, one.device, one.code, one.reason, one.at_ms, one.body)
                    self._put_letter(one.destination, self._below(one.destination), rest)
            self._writer.executemany(
                "INSERT OR REPLACE INTO alarm VALUES (?, ?, ?, ?)",
                [(one.id, int(one.is_open), one.raised_ms, one.doc) for one in known.alarms],
            )
            self._writer.executemany(
                "INSERT OR REPLACE INTO mark VALUES (?, ?, ?)",
                [(one.device, one.key, one.value) for one in known.marks],
            )
            self._put_facts(facts.items())
            self._writer.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self.counters.numbers.update({key: taken.copy() for key, taken in numbers.items()})
        self.rescue, self.boots = facts.get("rescue", ""), facts.get("boots", "")
        self.epochs = known.epochs

    def _below(self, destination: str) -> int:
        """Return a sequence for a letter of another stream: below every one that there is."""
        query = "SELECT min(0, coalesce(min(seq), 0)) - 1 FROM dead_letter WHERE destination = ?"
        return int(self._writer.execute(query, (destination,)).fetchone()[0])

    def _put_letter(self, destination: str, seq: int, rest: tuple[str | int, ...]) -> None:
        query = "INSERT OR REPLACE INTO dead_letter VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._writer.execute(query, (destination, seq, *rest))

    def _tidy(self) -> None:
        known = [route.destination for route in self.routes]
        marks = ",".join("?" * len(known))
        self._writer.execute("BEGIN IMMEDIATE")
        self._writer.execute(f"DELETE FROM cursor WHERE destination NOT IN ({marks})", known)  # noqa: S608
        self._writer.execute(
            "DELETE FROM number WHERE (device, session) IN (SELECT device, session FROM (SELECT device, session, "
            "row_number() OVER (PARTITION BY device ORDER BY at_seq DESC) AS age FROM number) WHERE age > ?)",
            (_KEPT_SESSIONS,),
        )
        self._writer.execute(
            "DELETE FROM number_digest WHERE (device, session) NOT IN (SELECT device, session FROM number)"
        )
        self._writer.execute(
            "DELETE FROM alarm WHERE open = 0 AND id NOT IN (SELECT id FROM alarm ORDER BY open DESC, raised_ms DESC LIMIT ?)",
            (_KEPT_CLOSED_ALARMS,),
        )
        self._prune_dead()
        self._writer.execute("COMMIT")

    def _roll_back(self) -> None:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error:  # the first error is the one to tell; the next transaction tries again
            pass

    # -- writing ------------------------------------------------------------------------------------------------

    def commit(
        self,
        writes: Sequence[tuple[Write, tuple[Lane, ...]]],
        cursors: Sequence[CursorRow],
        *,
        now_ms: int,
        delete: Mapping[Lane, int],
        accepted: Sequence[Accepted] = (),
    ) -> tuple[list[list[Stored]], dict[Lane, int]]:
        """Store everything in one transaction; return the rows of each write, and the number of rows deleted by lane.

        Raises StoreError when the database refuses, any other Exception when one of the writes cannot be stored as it
        is; then nothing is stored.

        `delete` gives for each lane the sequence up to which rows have left for every destination, `accepted` which alarms
        the `cursors` confirm.
        """
        work = self.counters.for_work()
        boots = dict(self._boots)
        try:
            self._roll_back()  # a transaction whose own ROLLBACK failed would refuse every later one
            self._writer.execute("BEGIN IMMEDIATE")
            inserts = Inserts()
            stored = [self._store(write, lanes, work, boots, now_ms, inserts) for write, lanes in writes]
            inserts.run(self._writer)
            self._put_cursors(cursors)
            for one in accepted:
                work.counting().accepted(one.destination, one.seconds)
            versions = self._put_marks([mark for write, _lanes in writes for mark in write.marks])
            deleted = self._delete(delete)
            is_dropping = any(write.drops for write, _lanes in writes)  # the rows that show the last numbers may leave
            is_due = work.sequence // _FACTS_EVERY != self.counters.sequence // _FACTS_EVERY
            if delete or cursors or is_dropping or is_due:
                self._put_counters(work)
            forgotten = self._put_numbers(work)
            if work.counted is not None:
                self._put_facts([("tally", work.counted.text())])
            # Before the commit: a reader that is quicker than we are must know the boot of every row.
            self._boot_ids = {n: name for name, n in boots.items()}
            self._writer.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error) and not isinstance(error, _CONTENT_ERRORS):
                raise store_error(error, self.path) from error
            raise
        counters = self.counters
        counters.sequence, counters.delivery, counters.recorded = work.sequence, work.delivery, work.recorded
        counters.tally = work.counted or counters.tally
        counters.numbers.update(work.numbers)  # in place: the event loop looks numbers up meanwhile
        for key in forgotten:
            counters.numbers.pop(key, None)
        self._boots = boots
        self._versions.update(versions)
        return stored, deleted

    def _store(
        self, write: Write, lanes: tuple[Lane, ...], work: Counters, boots: dict[str, int], now_ms: int,
        inserts: Inserts,
    ) -> list[Stored]:  # fmt: skip
        rows = self._put_events(write, lanes, work, boots, now_ms, inserts)
        for number in write.numbers:
            key = (number.device, number.session)
            if key not in work.numbers:
                work.numbers[key] = self.counters.numbers.get(key, NumberSet()).copy()
            work.numbers[key].add(number.n, number.digest, settled=number.settled, anew=number.anew)
        for alarm in write.alarms:
            self._writer.execute(
                "INSERT OR REPLACE INTO alarm VALUES (?, ?, ?, ?)",
                (alarm.id, int(alarm.is_open), alarm.raised_ms, alarm.doc),
            )
        if write.dead:
            self._put_dead(write.dead, work)
        if write.letters:
            self._writer.executemany("DELETE FROM dead_letter WHERE destination = ? AND seq = ?", write.letters)
        if write.facts:
            self._put_facts(write.facts)
        if write.days:
            self._put_days(write.days)
        for drop in write.drops:
            self._writer.executemany(
                f"DELETE FROM {TABLES[drop.lane]} WHERE seq = ?",  # noqa: S608 - a table of ours
                [(row.seq,) for row in drop.rows],
            )
        return rows

    def _put_days(self, days: Sequence[MeterDay]) -> None:
        """Keep what meters showed; what is older than `_KEPT_METER_DAYS` rows of days before the newest leaves."""
        for one in days:
            done = self._writer.execute(
                "INSERT OR IGNORE INTO meter_day VALUES (?, ?, ?, ?, ?)",
                (one.device, one.day, one.kind, one.n, one.doc),
            )
            if done.rowcount and one.kind == "read":
                self._writer.execute(
                    "DELETE FROM meter_day WHERE device = ? AND day < (SELECT day FROM meter_day WHERE device = ? AND "
                    "kind = 'read' ORDER BY day DESC LIMIT 1 OFFSET ?)",
                    (one.device, one.device, _KEPT_METER_DAYS - 1),
                )

    def _put_dead(self, dead: Sequence[DeadLetter], work: Counters) -> None:
        for one in dead:
            row = one.row
            seq = self._below(one.destination) if row.seq == OF_ANOTHER_STREAM else row.seq
            known = "SELECT 1 FROM dead_letter WHERE destination = ? AND seq = ?"
            if self._writer.execute(known, (one.destination, seq)).fetchone() is None:
                work.counting().dead_letter(one.destination)
            rest = (row.id, row.noun, row.device, one.code, one.reason, one.at_ms, row.body)
            self._put_letter(one.destination, seq, rest)
            self._dead += 1
            if self._dead > _KEPT_DEAD_LETTERS // 10:
                self._prune_dead()

    def _prune_dead(self) -> None:
        self._dead = 0
        for route in self.routes:
            self._writer.execute(
                "DELETE FROM dead_letter WHERE destination = ? AND noun NOT LIKE 'alarm.%' AND seq <= (SELECT seq "
                "FROM dead_letter WHERE destination = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (route.destination, route.destination, _KEPT_DEAD_LETTERS),
            )

    def _put_numbers(self, work: Counters) -> list[tuple[str, str]]:
        """Write the ranges that have grown; forget the oldest sessions of a device that keeps beginning new ones."""
        forgotten = []
        for (device, session), numbers in work.numbers.items():
            self._writer.execute(
                "INSERT OR REPLACE INTO number VALUES (?, ?, ?, ?, ?)",
                (device, session, numbers.text(), work.sequence, numbers.settled),
            )
            self._writer.executemany(
                "INSERT OR REPLACE INTO number_digest VALUES (?, ?, ?, ?)",
                [(device, session, block, numbers.block(block)) for block in numbers.changed],
            )
            if (device, session) not in self.counters.numbers:
                known = [key for key in self.counters.numbers if key[0] == device and key not in work.numbers]
                new = sum(1 for key in work.numbers if key[0] == device)
                forgotten += known[: max(0, len(known) + new - _KEPT_SESSIONS)]
        if forgotten:  # each statement lets go of the interpreter, also one that does nothing
            self._writer.executemany("DELETE FROM number WHERE device = ? AND session = ?", forgotten)
            self._writer.executemany("DELETE FROM number_digest WHERE device = ? AND session = ?", forgotten)
        return forgotten

    def _put_marks(self, marks: Sequence[Mark]) -> dict[tuple[str, str], int]:
        newest: dict[tuple[str, str], Mark] = {}
        for mark in marks:
            key = (mark.device, mark.key)
            if mark.version >= max(self._versions.get(key, 0), newest[key].version if key in newest else 0):
                newest[key] = mark
        if newest:
            self._writer.executemany(
                "INSERT OR REPLACE INTO mark VALUES (?, ?, ?)",
                [(one.device, one.key, one.value) for one in newest.values()],
            )
        return {key: mark.version for key, mark in newest.items()}

    def _put_events(
        self, write: Write, lanes: tuple[Lane, ...], work: Counters, boots: dict[str, int], now_ms: int, inserts: Inserts,
    ) -> list[Stored]:  # fmt: skip
        rows: list[Stored] = []
        only, delivery, sequence = write.only, work.delivery, work.sequence
        boot, number = "", 0
        for event, lane in zip(write.events, lanes, strict=True):
            at, noun, event_id, device, body = event.at, event.noun, event.id, event.device, event.body
            if at.boot != boot:
                boot, number = at.boot, self._boot_number(at.boot, boots)
            sequence += 1
            if not only and (lane is Lane.A or noun == "gateway.gap"):  # else it was counted the first time
                work.counting().stored(event)
            route: dict[str, int] = {}
            for destination in (only,) if only else self._wanted.get(noun) or self._destinations_for(noun):
                route[destination] = delivery[destination] = delivery[destination] + 1
            inserts.of(lane).extend((
                sequence, event_id, noun, device, now_ms, at.wall_ms, at.mono_ms, number, at.clock, _route_text(route), body,
            ))  # fmt: skip
            rows.append(Stored(sequence, lane, event_id, noun, device, now_ms, at, route, body))
        if rows:
            last = rows[-1].at
            work.sequence, work.recorded = sequence, Stamp(now_ms, last.mono_ms, last.boot, last.clock)
        return rows

    def _boot_number(self, boot: str, boots: dict[str, int]) -> int:
        number = boots.get(boot)
        if number is None:
            number = boots[boot] = max(boots.values(), default=0) + 1
            self._writer.execute("INSERT INTO boot VALUES (?, ?)", (number, boot))
        return number

    def _destinations_for(self, noun: str) -> tuple[str, ...]:
        found = self._wanted.get(noun)
        if found is None:
            found = tuple(route.destination for route in self.routes if wants(route.types, noun))
            self._wanted[noun] = found
        return found

    def _put_facts(self, facts: Iterable[tuple[str, str]]) -> None:
        self._writer.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", facts)

    def _put_cursors(self, cursors: Sequence[CursorRow]) -> None:
        if not cursors:
            return
        self._writer.executemany(
            "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?)",
            [(one.destination, int(one.lane), one.seq, one.ahead) for one in cursors],
        )

    def _delete(self, delete: Mapping[Lane, int]) -> dict[Lane, int]:
        deleted = {}
        for lane, seq in delete.items():
            table = TABLES[lane]
            done = self._writer.execute(
                f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} WHERE seq <= ? ORDER BY seq LIMIT ?)",  # noqa: S608
                (seq, DELETE_STEP),
            )
            deleted[lane] = done.rowcount
        return deleted

    def _put_counters(self, work: Counters) -> None:
        facts = [("sequence", str(work.sequence))]
        facts += [(f"delivery:{destination}", str(number)) for destination, number in work.delivery.items()]
        if work.recorded is not None:  # the rows that show it may leave with this very transaction
            facts.append(("recorded", json.dumps(asdict(work.recorded))))
        self._put_facts(facts)


def _route_text(route: Mapping[str, int]) -> str:
    """Return a route as it is stored, as JSON; an encoder would take a fifth of the time that a row takes."""
    return f"{{{','.join([f'{_quoted(name)}:{number}' for name, number in route.items()])}}}"

"""The one transaction that stores what the outbox hands over, on the writer connection: all of it becomes durable, or nothing.

Limits: one transaction holds at most what the outbox hands over (250 events) and deletes 500 rows a lane; of a device the
last 8 sessions of numbers are kept, of a destination 10,000 dead letters (those of alarms are never dropped), and of a meter
400 days.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from gateway.clock import Stamp
from gateway.events import Lane, Stored, wants
from gateway.outbox.connection import TABLES, store_error
from gateway.outbox.inserts import Inserts, put
from gateway.outbox.numbers import NumberSet
from gateway.outbox.rows import OF_ANOTHER_STREAM, Accepted, CursorRow, DeadLetter, Mark, MeterDay, Route, Write
from gateway.tally import Tally

DELETE_STEP: Final = 500
KEPT_SESSIONS: Final = 8
_FACTS_EVERY: Final = 500
_KEPT_DEAD_LETTERS: Final = 10_000
_KEPT_METER_DAYS: Final = 400
_PUT_DAY: Final = "INSERT OR IGNORE INTO meter_day VALUES (?, ?, ?, ?, ?)"
_PUT_TRUE_DAY: Final = "INSERT OR REPLACE INTO meter_day VALUES (?, ?, ?, ?, ?)"
_quoted: Final = lru_cache(maxsize=64)(json.dumps)
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


class Transactions:
    """What is stored through the writer connection. Not thread-safe: it belongs to one thread."""

    def __init__(self, path: Path, routes: Sequence[Route]) -> None:
        self.path = path
        self.routes = routes
        self.counters = Counters(0, {})
        self._writer: sqlite3.Connection
        self._boots: dict[str, int] = {}
        self._boot_ids: dict[int, str] = {}
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self._dead = 0

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
                _PUT_TRUE_DAY if one.wins else _PUT_DAY, (one.device, one.day, one.kind, one.n, one.doc)
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
            of_another = row.seq == OF_ANOTHER_STREAM
            seq = self._below(one.destination) if of_another else row.seq
            is_known = self._knows_letter(one.destination, row.id, of_another=of_another)
            if is_known and of_another:  # refused again before it was found in the damaged file
                continue
            known = "SELECT 1 FROM dead_letter WHERE destination = ? AND seq = ?"
            if not is_known and self._writer.execute(known, (one.destination, seq)).fetchone() is None:
                work.counting().dead_letter(one.destination)
            rest = (row.id, row.noun, row.device, one.code, one.reason, one.at_ms, row.body)
            self._put_letter(one.destination, seq, rest)
            self._dead += 1
            if self._dead > _KEPT_DEAD_LETTERS // 10:
                self._prune_dead()

    def _knows_letter(self, destination: str, id_: str, *, of_another: bool) -> bool:
        """Is there a letter of this event already? One that was brought back gives way to the new one.

        What was brought back from a damaged database may be sent again, and be refused again.
        """
        if of_another:
            query = "SELECT 1 FROM dead_letter WHERE destination = ? AND id = ?"
            return self._writer.execute(query, (destination, id_)).fetchone() is not None
        query = "DELETE FROM dead_letter WHERE destination = ? AND seq < 0 AND id = ?"
        return self._writer.execute(query, (destination, id_)).rowcount > 0

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
            blocks = [(device, session, block, numbers.block(block)) for block in numbers.changed]
            put(self._writer, "number_digest", blocks)
            if (device, session) not in self.counters.numbers:
                known = [key for key in self.counters.numbers if key[0] == device and key not in work.numbers]
                new = sum(1 for key in work.numbers if key[0] == device)
                forgotten += known[: max(0, len(known) + new - KEPT_SESSIONS)]
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
        put(self._writer, "mark", [(one.device, one.key, one.value) for one in newest.values()])
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
        put(self._writer, "fact", list(facts))

    def _put_cursors(self, cursors: Sequence[CursorRow]) -> None:
        put(self._writer, "cursor", [(one.destination, int(one.lane), one.seq, one.ahead) for one in cursors])

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
            at = work.recorded
            known = {"wall_ms": at.wall_ms, "mono_ms": at.mono_ms, "boot": at.boot, "clock": at.clock}
            facts.append(("recorded", json.dumps(known)))
        self._put_facts(facts)

    def _below(self, destination: str) -> int:
        """Return a sequence for a letter of another stream: below every one that there is."""
        query = "SELECT min(0, coalesce(min(seq), 0)) - 1 FROM dead_letter WHERE destination = ?"
        return int(self._writer.execute(query, (destination,)).fetchone()[0])

    def _put_letter(self, destination: str, seq: int, rest: tuple[str | int, ...]) -> None:
        query = "INSERT OR REPLACE INTO dead_letter VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._writer.execute(query, (destination, seq, *rest))

    def _roll_back(self) -> None:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error:  # the first error is the one to tell; the next transaction tries again
            pass


def _route_text(route: Mapping[str, int]) -> str:
    """Return a route as it is stored, as JSON; an encoder would take a fifth of the time that a row takes."""
    return f"{{{','.join([f'{_quoted(name)}:{number}' for name, number in route.items()])}}}"

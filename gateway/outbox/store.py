"""The database: opened and read at the start, what an older one knew taken over, closed. Synchronous; `Outbox` has its threads.

What is stored afterwards stands in `transaction`. WAL with synchronous=FULL: NORMAL loses the last commits at a power cut.
The WAL is never truncated on purpose, because a growing WAL costs three times the bytes of one that is reused in place.
Limits: 1,000 closed alarms are kept.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.clock import Stamp
from gateway.errors import StoreError
from gateway.events import new_id
from gateway.outbox.connection import TABLES, asks, connect
from gateway.outbox.migration import is_known, migrate, refuse_newer
from gateway.outbox.numbers import NumberSet
from gateway.outbox.reader import Reader
from gateway.outbox.rows import Route
from gateway.outbox.salvage import TORN, UNTOLD, Salvaged
from gateway.outbox.transaction import KEPT_SESSIONS, Counters, Transactions
from gateway.outbox.wal import hidden, torn
from gateway.outbox.wal_index import WalIndex
from gateway.tally import Tally

_KEPT_CLOSED_ALARMS: Final = 1000


class Store(Transactions):
    """The writer connection on one file, and the reader beside it. Not thread-safe: each of both has its thread."""

    def __init__(self, path: Path, routes: Sequence[Route]) -> None:
        super().__init__(path, routes)
        self.reader: Reader
        self._index = WalIndex(path)
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
            self._note_torn()
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
        told = facts.get(TORN, "").split()
        self.is_torn = bool(facts.get(UNTOLD)) or any(one not in told for one in self.torn)
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

    def _note_torn(self) -> None:
        """Before anything else is written, a newer schema too: the next commit may take the place of what shows a broken one."""
        if not self.torn or not is_known(self._writer):
            return
        facts = dict(self._writer.execute("SELECT key, value FROM fact WHERE key IN (?, ?)", (TORN, UNTOLD)))
        told = facts.get(TORN, "").split()
        if not facts.get(UNTOLD) and any(one not in told for one in self.torn):
            with contextlib.suppress(sqlite3.OperationalError):  # a full disk: it shows until something is written
                self._put_facts([(UNTOLD, "1")])

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
        self.epochs, self.is_torn = known.epochs, bool(facts.get(UNTOLD))

    def _tidy(self) -> None:
        known = [route.destination for route in self.routes]
        marks = ",".join("?" * len(known))
        self._writer.execute("BEGIN IMMEDIATE")
        self._writer.execute(f"DELETE FROM cursor WHERE destination NOT IN ({marks})", known)  # noqa: S608
        self._writer.execute(
            "DELETE FROM number WHERE (device, session) IN (SELECT device, session FROM (SELECT device, session, "
            "row_number() OVER (PARTITION BY device ORDER BY at_seq DESC) AS age FROM number) WHERE age > ?)",
            (KEPT_SESSIONS,),
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

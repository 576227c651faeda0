"""The outbox as the rest of the gateway sees it: submit without waiting, be called when it is durable, fetch, confirm.

One writer thread makes one transaction at a time from what has gathered meanwhile (group commit): alarms first, at most
`MAX_COMMIT_EVENTS` events, so an alarm waits for at most the commit in progress. One thread of its own instead of
aiosqlite: docs/decisions/0002-one-writer-thread.md has the measurement. Limits: `MAX_QUEUED` writes wait for the disk;
beyond that telemetry is refused (the caller counts it, numbered sources are simply not acknowledged), at five times
that faults and status, alarms never. Confirmations of destinations cost no fsync of their own: they ride on the next
commit, or go after `CURSOR_LINGER_S`. A database that turns out corrupt is set aside while running, too: a new stream
begins, and what was submitted goes into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from gateway.clock import Clock, Stamp
from gateway.errors import StoreError
from gateway.events import Lane, Stored
from gateway.outbox.numbers import NumberState, Ranges
from gateway.outbox.quarantine import discard, set_aside
from gateway.outbox.rows import AlarmRow, DeadLetter, Mark, Route, Write
from gateway.outbox.stock import LANES, Stock
from gateway.outbox.store import DELETE_STEP, Store

MAX_COMMIT_EVENTS: Final = 1000
MAX_QUEUED: Final = 20_000
MAX_QUEUED_STATUS: Final = 5 * MAX_QUEUED
CURSOR_LINGER_S: Final = 1.0
DELETE_PAUSE_S: Final = 0.1
RETRY_CAP_S: Final = 1.0
EPOCH_LIMIT_S: Final = 2.0

_log = structlog.get_logger("outbox")
T = TypeVar("T")
_Entry = tuple[Write, tuple[Lane, ...]]


class Outbox:
    """What was accepted and not yet delivered everywhere. Used from one event loop."""

    def __init__(self, path: Path, routes: Sequence[Route], *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._store = Store(path, routes)
        self._destinations = tuple(route.destination for route in routes)
        self._stock = Stock(self._destinations)
        self._writer = ThreadPoolExecutor(1, "outbox-writer")
        self._reader = ThreadPoolExecutor(1, "outbox-reader")
        self._urgent: deque[_Entry] = deque()
        self._rest: deque[_Entry] = deque()
        self._in_commit: list[_Entry] = []
        self._suspect = False
        self._corrupt: StoreError | None = None
        self._is_aside = False
        self._wake = asyncio.Event()
        self._dirty: dict[tuple[str, Lane], None] = {}
        self._epochs: dict[str, int] = {}
        self._facts: dict[str, str] = {}
        self._facts_durable: asyncio.Future[None] | None = None
        self._file_bytes = 0
        self.last_recorded: Stamp | None = None
        self.live: Callable[[], bool] = lambda: True
        self.on_stored: Callable[[], None] = lambda: None
        self.on_trouble: Callable[[StoreError | None], None] = lambda _error: None
        self.refused = 0
        self.poisoned = 0

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the database, or set a corrupt one aside and begin a new stream. Raises StoreError when neither works."""
        try:
            self._stock = await self._in_writer(lambda: self._opened(self._store))
        except StoreError as error:
            if error.code != "GW-STO-02":
                raise
            await self._begin_anew(error)
        self._epochs = dict(self._store.epochs)
        counters, counted_to = self._store.counters, self._store.counted_to
        self.last_recorded = await self._in_reader(
            lambda: self._store.reader.last_recorded(counted_to, counters.recorded)
        )
        self._file_bytes = await self._in_reader(self._store.reader.file_bytes)

    def _opened(self, store: Store) -> Stock:
        store.open()
        try:
            return Stock.read(store.reader, self._destinations, sequence=store.counters.sequence)
        except BaseException:
            store.reader.close()
            store.close()
            raise

    async def _close_store(self) -> None:
        await self._in_reader(self._store.reader.close)
        await self._in_writer(self._store.close)

    async def _begin_anew(self, error: StoreError) -> None:
        """Set the corrupt database aside and begin a new stream. The old one is closed. Raises StoreError."""
        try:
            if self._is_aside:
                discard(self._path)  # begun by an earlier try, which failed
            else:
                set_aside(self._path, now_ms=self._clock.stamp().wall_ms)
        except OSError as failed:
            detail = f"cannot be set aside: {failed}"
            raise StoreError("GW-STO-01", str(self._path), path=str(self._path), detail=detail) from failed
        self._is_aside = True
        store = Store(self._path, self._store.routes)
        stock = await self._in_writer(lambda: self._opened(store))
        for queue in (self._in_commit, self._urgent, self._rest):
            for at, (write, lanes) in enumerate(queue):
                if write.drops:  # they name rows of the old stream
                    queue[at] = (replace(write, drops=()), lanes)
        for write, lanes in (*self._in_commit, *self._urgent, *self._rest):
            for event, lane in zip(write.events, lanes, strict=True):
                if lane is Lane.D:
                    stock.expect(event.device)
        self._store, self._stock = store, stock
        self._is_aside, self._corrupt = False, None
        self._dirty.clear()
        _log.error("database set aside as corrupt; a new one was begun", path=str(self._path), error=str(error))
        self.on_trouble(error)
        self.on_stored()  # nobody may confirm rows of the old stream in the new one

    async def run(self) -> None:
        """Commit what is submitted, for ever. A failing disk is retried with back-off; nothing submitted is forgotten."""
        delay = 0.0
        while True:
            if not self._in_commit:
                await self._wait_for_work()
            try:
                if self._corrupt is not None:
                    if not self._is_aside:
                        await self._close_store()
                    await self._begin_anew(self._corrupt)
                await self._commit_once()
            except StoreError as error:
                if error.code == "GW-STO-02":
                    self._corrupt = error
                else:
                    self.on_trouble(error)
                delay = min(RETRY_CAP_S, delay * 2 or 0.25)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            else:
                if delay:
                    self.on_trouble(None)
                delay = 0.0

    async def _wait_for_work(self) -> None:
        while not self._urgent and not self._rest and not self._facts and self._corrupt is None:
            self._wake.clear()
            linger = DELETE_PAUSE_S if self._stock.is_deleting else CURSOR_LINGER_S
            try:
                async with asyncio.timeout(linger if self._dirty or self._stock.deletable() else None):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def flush(self, limit_s: float) -> bool:
        """Wait until all that was submitted before and the confirmations are durable; False when time ran out."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The last of the queue that alarms overtake: when it is durable, so is everything before it.
        self._rest.append((Write(on_commit=lambda _rows: _settle(done)), ()))
        self._wake.set()
        try:
            async with asyncio.timeout(limit_s):
                await done
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close the database; call after `run` has ended."""
        await self._close_store()
        self._writer.shutdown(wait=False)
        self._reader.shutdown(wait=False)

    # -- in -----------------------------------------------------------------------------------------------------

    def submit(self, write: Write) -> bool:
        """Queue a write; False (and counted) when the queue is full and the write raises no alarm."""
        lanes = {event.lane for event in write.events}
        # A dead letter hurries, too: the confirmation that lets its row go must not be durable before it.
        urgent = bool(write.alarms or write.dead) or Lane.A in lanes
        if not urgent and len(self._rest) >= (MAX_QUEUED_STATUS if Lane.B in lanes else MAX_QUEUED):
            self.refused += 1
            return False
        live = Lane.C in lanes and self.live()
        given = tuple(self._stock.lane_for(event.lane, event.device, live=live) for event in write.events)
        (self._urgent if urgent else self._rest).append((write, given))
        self._wake.set()
        return True

    def number_state(self, device: str, session: str, n: int) -> NumberState:
        """Judge the number of an acknowledged input against what is durable."""
        numbers = self._store.counters.numbers.get((device, session))
        return numbers.state(n) if numbers else NumberState.NEW

    @property
    def waiting(self) -> int:
        """Writes that are not yet durable."""
        return len(self._urgent) + len(self._rest) + len(self._in_commit)

    @property
    def oldest_waiting(self) -> Stamp | None:
        """When the oldest event that is not yet durable happened."""
        entries = list(self._in_commit)
        for queue in (self._urgent, self._rest):  # each is in the order in which things happened
            entries += [next((entry for entry in queue if entry[0].events), (Write(), ()))]
        stamps = [event.at for write, _lanes in entries for event in write.events]
        return min(stamps, key=lambda at: at.mono_ms, default=None)

    # -- the commit ---------------------------------------------------------------------------------------------

    async def _commit_once(self) -> None:
        if not self._in_commit:
            self._gather()
        batch, store = self._in_commit, self._store
        # Confirmations and deletions wait while a dead letter may still be queued, and while a poisoned write is looked for.
        alone = bool(self._urgent) or self._suspect
        confirmed = () if alone else tuple(self._dirty)
        cursors = [self._stock.cursor_row(*key) for key in confirmed]
        delete = {} if alone else self._stock.deletable()
        now_ms = self._clock.stamp().wall_ms
        for key in confirmed:
            del self._dirty[key]
        try:
            stored, deleted = await self._in_writer(lambda: store.commit(batch, cursors, now_ms=now_ms, delete=delete))
        except StoreError:
            self._dirty.update(dict.fromkeys(confirmed))
            raise
        except Exception as error:  # noqa: BLE001 - one write that cannot be stored must not stop the others
            self._dirty.update(dict.fromkeys(confirmed))
            self._isolate(error)
            return
        self._in_commit, self._suspect = [], False
        self._stock.note_deleted(deleted, upto=delete, step=DELETE_STEP)
        for (write, _lanes), rows in zip(batch, stored, strict=True):
            for row in rows:
                self._stock.add(row)
            for drop in write.drops:
                self._stock.drop(drop.lane, drop.rows)
            if write.on_commit:
                write.on_commit(rows)
        self.on_stored()

    def _gather(self) -> None:
        if self._facts:
            facts, durable = tuple(self._facts.items()), self._facts_durable
            self._facts, self._facts_durable = {}, None
            self._in_commit.append((Write(facts=facts, on_commit=lambda _rows: _settle(durable)), ()))
        events = 0
        for queue in (self._urgent, self._rest):
            while queue and events < MAX_COMMIT_EVENTS:
                entry = queue.popleft()
                events += max(1, len(entry[0].events))
                self._in_commit.append(entry)

    def _isolate(self, error: Exception) -> None:
        """Halve the batch until the write is found that fails alone; it is set aside, counted and logged whole."""
        if not self._suspect:  # first see whether the batch is to blame at all
            self._suspect = True
            return
        if len(self._in_commit) > 1:
            half = len(self._in_commit) // 2
            self._urgent.extendleft(reversed(self._in_commit[half:]))
            self._in_commit = self._in_commit[:half]
            return
        for write, lanes in self._in_commit:
            self.poisoned += 1
            for event, lane in zip(write.events, lanes, strict=True):
                if lane is Lane.D:
                    self._stock.withdraw(event.device)
            _log.error("a write that cannot be stored was set aside", error=repr(error), write=repr(write))
        self._in_commit, self._suspect = [], False

    # -- out ----------------------------------------------------------------------------------------------------

    @property
    def streamid(self) -> str:
        """The stream that the sequence belongs to; a new one begins when a database had to be replaced."""
        return self._store.streamid

    @property
    def sequence(self) -> int:
        """The last sequence given: also the number of events stored since the stream began."""
        return self._store.counters.sequence

    def last(self, lane: Lane) -> int:
        """The highest sequence stored in a lane."""
        return self._stock.last[lane]

    def cursor(self, destination: str, lane: Lane) -> tuple[int, Ranges]:
        """Return up to where a destination has confirmed a lane, and what beyond it."""
        return self._stock.cursor(destination, lane)

    async def fetch(self, lane: Lane, after: int, limit: int) -> list[Stored]:
        """Return up to `limit` rows beyond `after`, in order: from memory when they are recent, else from the disk.

        Raises StoreError.
        """
        rows = self._stock.recent(lane, after, limit)
        if rows is None:
            store = self._store
            try:
                rows = await self._in_reader(lambda: store.reader.fetch(lane, after, limit))
            except StoreError as error:
                if error.code == "GW-STO-02" and store is self._store:
                    self._corrupt = error
                    self._wake.set()
                raise
        return rows

    def confirm(self, destination: str, lane: Lane, *, seq: int, ahead: Callable[[], Ranges], done: int) -> None:
        """Note that a destination has everything of a lane up to `seq` and what `ahead` gives; `done` rows are new.

        `ahead` is asked when the confirmation is written, so that it must tell of everything confirmed until then.
        """
        self._stock.confirm(destination, lane, seq=seq, ahead=ahead, done=done)
        if not self._dirty:
            self._wake.set()  # it begins to linger
        self._dirty[destination, lane] = None

    def pending(self, destination: str) -> dict[str, int]:
        """Return how many rows each lane still holds for a destination."""
        return {lane.name: self._stock.pending[destination, lane] for lane in LANES}

    def alarms_pending(self, destination: str) -> bool:
        """Is an alarm waiting for a destination?"""
        return self._stock.pending[destination, Lane.A] > 0

    def dead_letter(self, letter: DeadLetter) -> None:
        """Keep a copy of what a destination refused for good."""
        self.submit(Write(dead=(letter,)))

    # -- reading ------------------------------------------------------------------------------------------------

    async def marks(self) -> list[Mark]:
        """Return what was judged last of each device."""
        return await self._in_reader(self._store.reader.marks)

    async def alarms(self) -> list[AlarmRow]:
        """Return the kept alarms, oldest first."""
        return await self._in_reader(self._store.reader.alarms)

    async def dead_letters(self, limit: int = 100) -> list[dict[str, object]]:
        """Return the newest dead letters."""
        return await self._in_reader(lambda: self._store.reader.dead_letters(limit))

    async def used_bytes(self) -> int:
        """Return the bytes of the database that hold something. Raises StoreError."""
        return await self._in_reader(self._store.reader.used_bytes)

    async def next_epoch(self, destination: str) -> int:
        """Count one more connection of a destination, durably if the disk answers within `EPOCH_LIMIT_S`.

        A disk that does not must not keep what is already stored from being delivered.
        """
        epoch = self._epochs[destination] = self._epochs.get(destination, 0) + 1
        self._facts[f"epoch:{destination}"] = str(epoch)
        durable = self._facts_durable = self._facts_durable or asyncio.get_running_loop().create_future()
        self._wake.set()
        await asyncio.wait({durable}, timeout=EPOCH_LIMIT_S)
        if not durable.done():
            _log.warning("the connection's epoch is not durable", destination=destination, epoch=epoch)
        return epoch

    async def status(self) -> dict[str, Any]:
        """Return the figures for `gateway status`."""
        with contextlib.suppress(StoreError):  # the problem is shown beside; the last figure is better than none
            self._file_bytes = await self._in_reader(self._store.reader.file_bytes)
        return {
            "stream": self.streamid,
            "sequence": self.sequence,
            "rows": {lane.name: self._stock.rows[lane] for lane in LANES},
            "unstored": self.waiting,
            "refused": self.refused,
            "poisoned": self.poisoned,
            "bytes": self._file_bytes,
        }

    def _in_writer(self, work: Callable[[], T]) -> Coroutine[Any, Any, T]:
        return _in_thread(self._writer, work)

    def _in_reader(self, work: Callable[[], T]) -> Coroutine[Any, Any, T]:
        return _in_thread(self._reader, work)


async def _in_thread(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _settle(done: asyncio.Future[None] | None) -> None:
    if done is not None and not done.done():
        done.set_result(None)

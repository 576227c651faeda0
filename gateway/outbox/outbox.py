"""The outbox as the rest of the gateway sees it: submit without waiting, be called when it is durable, fetch, confirm.

One writer thread makes one transaction at a time from what has gathered meanwhile (group commit): alarms first, at most
`MAX_COMMIT_EVENTS` events, so an alarm waits for at most the commit in progress. One thread of its own instead of
aiosqlite: docs/decisions/0002-one-writer-thread.md has the measurement. Limits: `MAX_QUEUED` writes wait for the disk;
beyond that telemetry is refused (the caller counts it, numbered sources are simply not acknowledged), alarms never are.
Confirmations of destinations cost no fsync of their own: they ride on the next commit, or go after `CURSOR_LINGER_S`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from gateway.clock import Clock, Stamp
from gateway.errors import StoreError
from gateway.events import Lane, Stored
from gateway.outbox.numbers import NumberState, fold, unfold
from gateway.outbox.store import DELETE_STEP, AlarmRow, CursorRow, DeadLetter, Mark, Route, Store, Write

MAX_COMMIT_EVENTS: Final = 1000
MAX_QUEUED: Final = 20_000
RECENT_ROWS: Final = 2_000
CURSOR_LINGER_S: Final = 1.0
_LANES: Final = tuple(Lane)

_log = structlog.get_logger("outbox")
T = TypeVar("T")


class Outbox:
    """What was accepted and not yet delivered everywhere. Used from one event loop."""

    def __init__(self, path: Path, routes: Sequence[Route], *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._store = Store(path, routes)
        self._destinations = tuple(route.destination for route in routes)
        self._writer = ThreadPoolExecutor(1, "outbox-writer")
        self._reader = ThreadPoolExecutor(1, "outbox-reader")
        self._urgent: deque[tuple[Write, tuple[Lane, ...]]] = deque()
        self._rest: deque[tuple[Write, tuple[Lane, ...]]] = deque()
        self._in_commit: list[tuple[Write, tuple[Lane, ...]]] = []
        self._wake = asyncio.Event()
        self._recent: dict[Lane, deque[Stored]] = {lane: deque() for lane in _LANES}
        self._recent_from: dict[Lane, int] = dict.fromkeys(_LANES, 0)
        self._last: dict[Lane, int] = dict.fromkeys(_LANES, 0)
        self._rows: dict[Lane, int] = dict.fromkeys(_LANES, 0)
        self._cursors: dict[tuple[str, Lane], tuple[int, set[int]]] = {}
        self._pending: dict[tuple[str, Lane], int] = {(one, lane): 0 for one in self._destinations for lane in _LANES}
        self._dirty: dict[tuple[str, Lane], None] = {}
        self._deleted: dict[Lane, int] = dict.fromkeys(_LANES, 0)
        self._behind: dict[str, list[int]] = {}
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
            await self._in_writer(self._store.open)
        except StoreError as error:
            if error.code != "GW-STO-02":
                raise
            self._quarantine()
            _log.error("database set aside as corrupt; a new one was begun", code=error.code, path=str(self._path))
            self._store = Store(self._path, self._store.routes)
            await self._in_writer(self._store.open)
            self.on_trouble(error)
        heads = await self._in_reader(self._store.lane_heads)
        for lane, (low, high, count) in heads.items():
            self._last[lane] = self._recent_from[lane] = max(high, self._store.counters.sequence)
            self._deleted[lane] = low - 1 if count else self._last[lane]
            self._rows[lane] = count
        for row in await self._in_reader(self._store.cursors):
            self._cursors[row.destination, row.lane] = (row.seq, unfold(row.ahead))
        for destination in self._destinations:
            for lane in _LANES:
                seq, ahead = self._cursors.get((destination, lane), (0, set()))
                beyond = await self._in_reader(lambda: self._store.count_beyond(lane, seq, destination))  # noqa: B023
                self._pending[destination, lane] = beyond - len(ahead)
        for name, seq in (await self._in_reader(self._store.backlog_devices)).items():
            self._behind[name] = [0, seq]
        self.last_recorded = await self._in_reader(self._store.last_recorded)
        self._file_bytes = await self._in_reader(self._store.file_bytes)

    def _quarantine(self) -> None:
        suffix = f".corrupt-{self._clock.stamp().wall_ms}"
        for ending in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + ending)
            if part.exists():
                part.rename(self._path.with_name(self._path.name + suffix + ending))

    async def run(self) -> None:
        """Commit what is submitted, for ever. A failing disk is retried with back-off; nothing submitted is forgotten."""
        delay = 0.0
        while True:
            if not self._urgent and not self._rest and not self._in_commit:
                await self._wait_for_work()
            try:
                await self._commit_once()
            except StoreError as error:
                self.on_trouble(error)
                delay = min(5.0, delay * 2 or 0.25)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            else:
                if delay:
                    self.on_trouble(None)
                delay = 0.0

    async def _wait_for_work(self) -> None:
        while not self._urgent and not self._rest:
            self._wake.clear()
            try:
                async with asyncio.timeout(CURSOR_LINGER_S if self._dirty or self._deletable() else None):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def flush(self, limit_s: float) -> bool:
        """Wait until everything submitted is durable and the confirmations are written; False when time ran out."""
        try:
            async with asyncio.timeout(limit_s):
                while self._urgent or self._rest or self._in_commit or self._dirty:
                    if self._dirty and not self._rest:
                        self.submit(Write())  # gives the confirmations something to ride on
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close the database; call after `run` has ended."""
        await self._in_writer(self._store.close)
        self._writer.shutdown(wait=False)
        self._reader.shutdown(wait=False)

    # -- in -----------------------------------------------------------------------------------------------------

    def submit(self, write: Write) -> bool:
        """Queue a write; False (and counted) when the queue is full and the write raises no alarm."""
        lanes = tuple(self._lane(event.lane, event.device) for event in write.events)
        urgent = bool(write.alarms) or Lane.A in lanes
        if not urgent and len(self._rest) >= MAX_QUEUED:
            self.refused += 1
            for event, lane in zip(write.events, lanes, strict=True):
                if lane is Lane.D:
                    self._behind[event.device][0] -= 1
            return False
        (self._urgent if urgent else self._rest).append((write, lanes))
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
        stamps = [entry[0].events[0].at for entry in self._in_commit[:1] if entry[0].events]
        heads = [queue[0][0].events for queue in (self._urgent, self._rest) if queue]
        stamps += [events[0].at for events in heads if events]
        return min(stamps, key=lambda at: at.mono_ms, default=None)

    def _lane(self, lane: Lane, device: str) -> Lane:
        # A device with telemetry in the backlog puts its new telemetry behind it, so that its order holds.
        if lane is not Lane.C:
            return lane
        behind = self._behind.get(device)
        if behind is None:
            if self.live():
                return Lane.C
            behind = self._behind[device] = [0, 0]
        behind[0] += 1
        return Lane.D

    # -- the commit ---------------------------------------------------------------------------------------------

    async def _commit_once(self) -> None:
        if not self._in_commit:
            self._gather()
        cursors = [self._cursor_row(key) for key in self._dirty]
        self._dirty.clear()
        delete = self._deletable()
        now_ms = self._clock.stamp().wall_ms
        batch = self._in_commit
        try:
            stored, deleted = await self._in_writer(
                lambda: self._store.commit(batch, cursors, now_ms=now_ms, delete=delete)
            )
        except StoreError:
            self._dirty.update(dict.fromkeys((row.destination, row.lane) for row in cursors))
            raise
        except Exception as error:  # noqa: BLE001 - one write that cannot be stored must not stop the others
            self._dirty.update(dict.fromkeys((row.destination, row.lane) for row in cursors))
            self._isolate(error)
            return
        self._in_commit = []
        for lane, count in deleted.items():
            self._rows[lane] -= count
            if count < DELETE_STEP:
                self._deleted[lane] = delete[lane]
        self._publish(batch, stored)

    def _gather(self) -> None:
        events = 0
        for queue in (self._urgent, self._rest):
            while queue and events < MAX_COMMIT_EVENTS:
                entry = queue.popleft()
                events += max(1, len(entry[0].events))
                self._in_commit.append(entry)

    def _isolate(self, error: Exception) -> None:
        """Commit what is left one by one; a write that fails alone is set aside, counted and logged whole."""
        if len(self._in_commit) > 1:
            half = len(self._in_commit) // 2
            self._urgent.extendleft(reversed(self._in_commit[half:]))
            self._in_commit = self._in_commit[:half]
            return
        for write, _lanes in self._in_commit:
            self.poisoned += 1
            _log.error(
                "a write that cannot be stored was set aside",
                error=repr(error),
                events=[one.body for one in write.events],
            )
        self._in_commit = []

    def _publish(self, batch: list[tuple[Write, tuple[Lane, ...]]], stored: list[list[Stored]]) -> None:
        for (write, _lanes), rows in zip(batch, stored, strict=True):
            for row in rows:
                lane = row.lane
                recent = self._recent[lane]
                recent.append(row)
                if len(recent) > RECENT_ROWS:
                    self._recent_from[lane] = recent.popleft().seq
                self._last[lane] = row.seq
                self._rows[lane] += 1
                for destination in row.route:
                    self._pending[destination, lane] += 1
                if lane is Lane.D:
                    behind = self._behind[row.device]
                    behind[0] -= 1
                    behind[1] = row.seq
            if write.on_commit:
                write.on_commit(rows)
        self.on_stored()

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
        return self._last[lane]

    def cursor(self, destination: str, lane: Lane) -> tuple[int, set[int]]:
        """Return up to where a destination has confirmed a lane, and what beyond it."""
        seq, ahead = self._cursors.get((destination, lane), (0, set()))
        return seq, set(ahead)

    async def fetch(self, lane: Lane, after: int, limit: int) -> list[Stored]:
        """Return up to `limit` rows beyond `after`, in order: from memory when they are recent, else from the disk."""
        if after >= self._recent_from[lane]:
            rows = []
            for row in reversed(self._recent[lane]):
                if row.seq <= after:
                    break
                rows.append(row)
            return rows[: -limit - 1 : -1]
        return await self._in_reader(lambda: self._store.fetch(lane, after, limit))

    def confirm(self, destination: str, lane: Lane, *, seq: int, ahead: set[int], done: int) -> None:
        """Note that a destination has everything of a lane up to `seq` and the rows in `ahead`; `done` rows are new."""
        self._cursors[destination, lane] = (seq, ahead)
        self._pending[destination, lane] -= done
        if lane is Lane.D and self._behind:
            floor = self._floor(Lane.D)
            for device in [one for one, (waiting, last) in self._behind.items() if not waiting and last <= floor]:
                del self._behind[device]
        if not self._dirty:
            self._wake.set()  # it begins to linger
        self._dirty[destination, lane] = None

    def pending(self, destination: str) -> dict[str, int]:
        """Return how many rows each lane still holds for a destination."""
        return {lane.name: self._pending[destination, lane] for lane in _LANES}

    def alarms_pending(self, destination: str) -> bool:
        """Is an alarm waiting for a destination?"""
        return self._pending[destination, Lane.A] > 0

    def dead_letter(self, letter: DeadLetter) -> None:
        """Keep a copy of what a destination refused for good."""
        self.submit(Write(dead=(letter,)))

    def _floor(self, lane: Lane) -> int:
        return min((self._cursors.get((one, lane), (0, set()))[0] for one in self._destinations), default=0)

    def _cursor_row(self, key: tuple[str, Lane]) -> CursorRow:
        seq, ahead = self._cursors[key]
        return CursorRow(key[0], key[1], seq, json.dumps(fold(ahead), separators=(",", ":")))

    def _deletable(self) -> dict[Lane, int]:
        return {
            lane: floor for lane in _LANES if self._rows[lane] and (floor := self._floor(lane)) > self._deleted[lane]
        }

    # -- reading ------------------------------------------------------------------------------------------------

    async def marks(self) -> list[Mark]:
        """Return what was judged last of each device."""
        return await self._in_reader(self._store.marks)

    async def alarms(self) -> list[AlarmRow]:
        """Return the kept alarms, oldest first."""
        return await self._in_reader(self._store.alarms)

    async def dead_letters(self, limit: int = 100) -> list[dict[str, object]]:
        """Return the newest dead letters."""
        return await self._in_reader(lambda: self._store.dead_letters(limit))

    async def next_epoch(self, destination: str) -> int:
        """Count one more connection of a destination, durably."""
        key = f"epoch:{destination}"
        epoch = int(await self._in_reader(lambda: self._store.fact(key)) or 0) + 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def committed(_rows: list[Stored]) -> None:
            if not done.done():
                done.set_result(None)

        self.submit(Write(facts=((key, str(epoch)),), on_commit=committed))
        await done
        return epoch

    async def status(self) -> dict[str, Any]:
        """Return the figures for `gateway status`."""
        self._file_bytes = await self._in_reader(self._store.file_bytes)
        return {
            "stream": self.streamid,
            "sequence": self.sequence,
            "rows": {lane.name: self._rows[lane] for lane in _LANES},
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

"""The four lanes of one destination between the outbox and the wire: read ahead from the disk, confirmed back to it.

Alarms are read right before sending. The others are read on beside it, lane after lane, so that what is in memory goes out
meanwhile, and no alarm waits for what is read of them. A lane that cannot be read is tried again every `UNREADABLE_S`; the
others go on. A disk that does not answer (a card that hangs, a frozen file system) is given up after `READ_LIMIT_S`; until
that reading ends only alarms are asked for, which stand in memory. What was stored for other destinations is not read, and
passed by when anything else is to be done, or when it is `PASS_BY` of a lane; of alarms, at once. Limits: `FETCH_ROWS` rows a
reading.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.deliver.flights import CLASS_OF_LANE
from gateway.deliver.lane_queue import LaneQueue
from gateway.errors import StoreError
from gateway.events import Lane, Stored
from gateway.outbox import Outbox

FETCH_ROWS: Final = 1_000
UNREADABLE_S: Final = 1.0
READ_LIMIT_S: Final = 2.0
PASS_BY: Final = 500

_log = structlog.get_logger("deliver")
_BESIDE: Final = (Lane.B, Lane.C, Lane.D)


class Lanes:
    """The queues of one destination."""

    def __init__(self, name: str, outbox: Outbox, clock: Clock) -> None:
        self._name = name
        self._outbox = outbox
        self._clock = clock
        self._unreadable: dict[Lane, float] = {}
        self._hung: asyncio.Task[list[Stored]] | None = None
        self._beside: asyncio.Task[None] | None = None
        self._queues: dict[Lane, LaneQueue] = {}
        self._newly: Counter[Lane] = Counter()
        self._is_gathering = False
        self.begin_stream()

    def __getitem__(self, lane: Lane) -> LaneQueue:
        """Return the queue of a lane."""
        return self._queues[lane]

    def begin_stream(self) -> None:
        """Begin where the outbox says that this destination stands."""
        for lane in Lane:
            cursor, ahead = self._outbox.cursor(self._name, lane)
            self._queues[lane] = LaneQueue(lane, self._name, cursor=cursor, ahead=ahead)

    def reset(self) -> None:
        """Read everything again that was not confirmed."""
        for queue in self._queues.values():
            queue.reset()

    # -- reading ------------------------------------------------------------------------------------------------

    def may_read(self, queue: LaneQueue) -> bool:
        """Is there more on the disk that may be read now?"""
        if queue.lane is not Lane.A and self._beside is not None:
            return False
        return self._is_due(queue)

    def _is_due(self, queue: LaneQueue) -> bool:
        if not self._is_behind(queue):  # nearly always
            return False
        if self._is_hung and queue.lane is not Lane.A:
            return False
        return self._unreadable.get(queue.lane, 0.0) <= self._clock.monotonic() and queue.room > 0

    def _is_behind(self, queue: LaneQueue) -> bool:
        return queue.loaded_to < self._outbox.last(queue.lane)

    @property
    def has_news(self) -> bool:
        """Was something stored for this destination that was not read yet, or so much for others that it is passed by?

        Alarms for others are passed by at once: they leave the memory with them, and the next one would be read from the disk.
        """
        for lane, queue in self._queues.items():
            last, read = self._outbox.last(lane), queue.loaded_to
            if read < last and (
                lane is Lane.A or read < self._outbox.wanted(self._name, lane) or last - read >= PASS_BY
            ):
                return True
        return False

    @property
    def has_waiting(self) -> bool:
        """Is there a row that could go, or be read, if there is room for it?"""
        return any(not queue.is_dry or self.may_read(queue) for queue in self._queues.values())

    def next_try(self) -> float | None:
        """Return when a lane that could not be read is tried again."""
        now = self._clock.monotonic()
        due = [at for at in self._unreadable.values() if at > now]
        if self._is_hung:
            due.append(now + UNREADABLE_S)
        return min(due, default=None)

    async def refill(self, *, then: Callable[[], None]) -> None:
        """Read alarms on, and begin to read the others where it is time; `then` is called when those are there.

        Raises whatever a bug raised that ended the last reading.
        """
        if self._beside is not None and self._beside.done():
            beside, self._beside = self._beside, None
            beside.result()
        for queue in self._queues.values():
            if self._is_behind(queue):
                self._refill_from_memory(queue)
        if any(self.may_read(self._queues[lane]) and self._queues[lane].wants_more for lane in _BESIDE):
            self._beside = asyncio.create_task(self._refill_beside(), name=f"read {self._name}")
            self._beside.add_done_callback(lambda _task: then())
        await self._refill(self._queues[Lane.A])

    def _refill_from_memory(self, queue: LaneQueue) -> None:
        """Whoever keeps up needs neither the disk nor a task."""
        if queue.wants_more and self.may_read(queue):
            if queue.loaded_to == queue.read_to and queue.loaded_to >= self._outbox.wanted(self._name, queue.lane):
                before = queue.cursor
                queue.pass_by(self._outbox.last(queue.lane))
                self._note(queue, before)
                return
            rows = self._outbox.recent(queue.lane, queue.loaded_to, min(queue.room, FETCH_ROWS))
            if rows:
                self._load(queue, rows)

    async def _refill_beside(self) -> None:
        for lane in _BESIDE:
            await self._refill(self._queues[lane])

    async def close(self) -> None:
        """End what is being read. Never raises."""
        beside, self._beside = self._beside, None
        if beside is not None:
            beside.cancel()
            await asyncio.wait({beside})

    async def _refill(self, queue: LaneQueue) -> None:
        if not self._is_due(queue) or not queue.wants_more:
            return
        # Before the await: a row that is stored meanwhile must not count as read.
        after, last = queue.loaded_to, self._outbox.last(queue.lane)
        try:
            rows = await self._read(queue.lane, after, min(queue.room, FETCH_ROWS))
        except (StoreError, TimeoutError) as error:
            if queue.lane not in self._unreadable:
                why = str(error) or f"no answer within {READ_LIMIT_S:g} s"
                _log.error("a lane cannot be read", destination=self._name, lane=queue.lane.name, error=why)
            self._unreadable[queue.lane] = self._clock.monotonic() + UNREADABLE_S
            return
        self._unreadable.pop(queue.lane, None)
        if queue.loaded_to != after or queue is not self._queues[queue.lane]:
            return  # a device was released, or the stream replaced: reading begins again, elsewhere
        if rows:
            self._load(queue, rows)
            return
        before = queue.cursor
        queue.exhausted(last)  # the lane's last row has left the database already
        self._note(queue, before)

    def _load(self, queue: LaneQueue, rows: list[Stored]) -> None:
        before = queue.cursor
        queue.load(rows)
        self._note(queue, before)

    def _note(self, queue: LaneQueue, before: int) -> None:
        if queue.cursor != before:
            self._outbox.confirm(self._name, queue.lane, seq=queue.cursor, ahead=queue.ahead, done=0)

    async def _read(self, lane: Lane, after: int, limit: int) -> list[Stored]:
        """Read, but no longer than `READ_LIMIT_S`: what hangs goes on by itself. Raises StoreError, TimeoutError."""
        reading = asyncio.create_task(self._outbox.fetch(lane, after, limit), name=f"read {self._name} {lane.name}")
        try:
            done, _ = await asyncio.wait({reading}, timeout=READ_LIMIT_S)
        except asyncio.CancelledError:
            reading.cancel()
            raise
        if done:
            return reading.result()
        reading.add_done_callback(_ended)
        self._hung = reading
        raise TimeoutError

    @property
    def _is_hung(self) -> bool:
        return self._hung is not None and not self._hung.done()

    # -- what has been sent -------------------------------------------------------------------------------------

    def done(self, row: Stored) -> None:
        """A row is finished: the cursor may move."""
        if self._queues[row.lane].done(row.seq):
            self._newly[row.lane] += 1
            if not self._is_gathering:
                self._confirm()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Confirm what is finished within as one step: the platform answers to a hundred events with one message."""
        self._is_gathering = True
        try:
            yield
        finally:
            self._is_gathering = False
            self._confirm()

    def _confirm(self) -> None:
        for lane, count in self._newly.items():
            queue = self._queues[lane]
            self._outbox.confirm(self._name, lane, seq=queue.cursor, ahead=queue.ahead, done=count)
        self._newly.clear()

    def put_back(self, lane: Lane, rows: Iterable[Stored]) -> None:
        """Take back rows of devices that are about to be released; one without a number was never in a queue."""
        self._queues[lane].put_back(row for row in rows if row.seq)

    def park(self, kind: str, device: str) -> None:
        """A device will be busy for long."""
        for queue in self._of_class(kind):
            queue.park(device)

    def release(self, kind: str, device: str) -> None:
        """A device may go on."""
        for queue in self._of_class(kind):
            queue.release(device)

    def _of_class(self, kind: str) -> list[LaneQueue]:
        return [queue for lane, queue in self._queues.items() if CLASS_OF_LANE[lane] == kind]


def _ended(reading: asyncio.Task[list[Stored]]) -> None:
    """A reading that nobody waits for any more: its rows are read again, its error was told as a time-out."""
    if not reading.cancelled():
        reading.exception()

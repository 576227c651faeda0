"""The outbox as the rest of the gateway sees it: submit without waiting, be called when it is durable, fetch, confirm.

One writer thread makes one transaction at a time from what has gathered meanwhile (`committing`). One thread of its own
instead of aiosqlite: docs/decisions/0002-one-writer-thread.md has the measurement. Limits: `MAX_QUEUED` writes wait for
the disk; beyond that telemetry is refused (the caller counts it, numbered sources are simply not acknowledged).
Confirmations of destinations cost no fsync of their own: they ride on the next commit, or go after a while (`linger`). A
disk that fails, or does not answer, does not keep alarms from being sent: `unstored_alarms`. A database that turns out
corrupt is set aside while running, too: a new stream begins, and what was submitted goes into it. One that cannot be
opened is tried again, at least every `REOPEN_CAP_S`; until then what is submitted waits as for a disk that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.clock import Boots, Clock, Stamp
from gateway.errors import StoreError
from gateway.events import Event, Lane, wants
from gateway.outbox.committing import Committing
from gateway.outbox.epochs import settle
from gateway.outbox.intake import MAX_QUEUED, Entry
from gateway.outbox.numbers import NumberState
from gateway.outbox.rows import OF_ANOTHER_STREAM, AlarmRow, DeadLetter, Mark, Route, Write
from gateway.outbox.stock import LANES, Stock

RETRY_CAP_S: Final = 1.0
REOPEN_CAP_S: Final = 3.0  # numbered sources keep what they have to say until it is stored
AFRESH_AFTER_S: Final = 3.0
OPEN_LIMIT_S: Final = 5.0
COUNT_LOOK_S: Final = 0.5
EPOCH_LIMIT_S: Final = 2.0

__all__ = ["MAX_QUEUED", "Outbox"]

_log = structlog.get_logger("outbox")


class Outbox(Committing):
    """What was accepted and not yet delivered everywhere. Used from one event loop."""

    def __init__(
        self,
        path: Path,
        routes: Sequence[Route],
        *,
        clock: Clock,
        hold: Callable[[], None] = lambda: None,
        retain: int = 0,
        linger_s: float = 0.0,
    ) -> None:
        """`retain`: so many sequences stay although everybody has them; `linger_s`: so long telemetry may wait."""
        super().__init__(path, routes, clock=clock, hold=hold, linger_s=linger_s)
        self._retain = retain
        self._opening: asyncio.Task[StoreError | None] | None = None
        self._stream = ""
        self._failing_since: float | None = None
        self._file_bytes = 0
        self.last_recorded: Stamp | None = None
        self.boots = Boots()
        self.live: Callable[[], bool] = lambda: True
        self.on_found: Callable[[list[Mark], list[AlarmRow]], None] = lambda _marks, _alarms: None
        self.on_recalled: Callable[[list[Mark], list[AlarmRow]], None] = lambda _marks, _alarms: None
        self.was_replaced = False
        self.to_rescue = ""
        self.is_torn = False
        self.torn: list[str] = []
        self.refused = 0

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the database, or set a corrupt one aside and begin a new stream.

        Where neither works within `OPEN_LIMIT_S` the outbox goes on without one: `run` tries again, alarms are there to be
        sent, and everything waits. Then `marks` and `alarms` give what could be read of the file.
        """
        opening = self._opening = asyncio.create_task(self._open(), name="open the outbox")
        await asyncio.wait({opening}, timeout=OPEN_LIMIT_S)
        try:
            if not opening.done():
                raise StoreError("GW-STO-01", str(self.path), path=str(self.path), detail="the disk does not answer")
            self._opening = None
            replaced = opening.result()
        except StoreError as error:
            self._is_failing = True
            _log.error("the database cannot be opened; the gateway runs without it", error=str(error))
            if opening.done():
                await self._look()
            self._tell("on_trouble", self.on_trouble, error)
            return
        self.was_replaced = replaced is not None
        if replaced is not None:
            self._tell("on_trouble", self.on_trouble, replaced)
        with contextlib.suppress(StoreError):
            counters, counted_to = self._store.counters, self._store.counted_to
            self.last_recorded = await self._database.ask(
                lambda reader: reader.last_recorded(counted_to, counters.recorded)
            )
            self._file_bytes = await self._database.ask(lambda reader: reader.file_bytes())

    async def _look(self) -> None:
        """Read what can be read of a database that does not open: what rings must ring on, and what was taken stays known."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_LIMIT_S):
                await self._database.look()
        salvaged = self._database.salvaged
        if salvaged is not None:
            self._epochs.load(salvaged.epochs)
        # A platform ignores what comes with a lower epoch than it has seen; no gateway has connected once a second.
        self._epochs.count_from(self._clock.stamp().wall_ms // 1000)

    async def _open(self) -> StoreError | None:
        """Open the database; return why the old one was replaced, if it was. Raises StoreError."""
        try:
            stock = await self._database.open()
        except StoreError as error:
            if error.code != "GW-STO-02":
                raise
            await self._begin_anew(error)
            return error
        if self._stream != self._store.streamid:  # else what is in memory knows more than the file
            self._take_stock(stock)
        return None

    async def _begin_anew(self, error: StoreError) -> None:
        """Set the corrupt database aside and begin a new stream. Raises StoreError."""
        stock = await self._database.replace()
        _log.error("database set aside as corrupt; a new one was begun", path=str(self.path), error=str(error))
        self._take_stock(stock)
        self._corrupt = None

    def _take_stock(self, stock: Stock) -> None:
        """What waits goes into this database: behind its backlog, without what it holds already, and drops nothing of it."""
        self._epochs.load(self._store.epochs)
        self.boots.recall(self._store.boots)

        def revised(write: Write, lanes: tuple[Lane, ...]) -> Entry:
            is_known = bool(write.numbers) and all(
                not one.anew
                and self.number_state(one.device, one.session, one.n, digest=one.digest) is NumberState.DURABLE
                for one in write.numbers
            )
            if is_known and Lane.A not in lanes:  # an alarm that was announced is told, even twice
                write, lanes = replace(write, events=()), ()
            placed = tuple(
                stock.lane_for(event.lane, event.device, live=lane is not Lane.D)
                for event, lane in zip(write.events, lanes, strict=True)
            )
            if write.drops:  # they name rows of another database, and what announces that they leave is not true
                write, placed = replace(write, drops=(), events=()), ()
            if write.letters:
                write = replace(write, letters=())
            if write.dead:
                dead = [replace(one, row=one.row._replace(seq=OF_ANOTHER_STREAM)) for one in write.dead]
                write = replace(write, dead=tuple(dead))
            if write.facts:  # how far the rescue of the one before it had come
                write = replace(write, facts=tuple(fact for fact in write.facts if fact[0] != "rescue"))
            return write, placed

        self._intake.revise(revised)
        stock.retain = self._retain
        self.to_rescue, self.is_torn, self.torn = self._store.rescue, self._store.is_torn, self._store.torn
        self._stock, self._stream = stock, self._store.streamid
        self._dirty.clear()
        self._accepted.clear()
        self._tell("on_stored", self.on_stored)  # at once: no answer to a row of the old stream may confirm one of this

    async def run(self) -> None:
        """Commit what is submitted, for ever. A failing disk is retried with back-off; nothing submitted is forgotten."""
        counting = asyncio.create_task(self._count(), name="count the outbox")
        try:
            await self._commit_for_ever()
        finally:
            counting.cancel()

    async def _count(self) -> None:
        """Count what was there at the opening, part by part: it does not hold up the start."""
        while True:
            stock, lane = self._stock, self._stock.uncounted
            if lane is None or not self._database.is_open:
                await asyncio.sleep(COUNT_LOOK_S)
                continue
            try:
                counted = await self._database.ask(partial(stock.ask, lane=lane))
                if stock is self._stock:
                    stock.note_counted(lane, counted)
                    self._wake.set()  # more may leave
            except StoreError as error:
                self._found_corrupt(error)
                await asyncio.sleep(COUNT_LOOK_S)
            except Exception as bug:  # noqa: BLE001 - ended without a word it would keep every row for ever
                self._note_bug("the count", bug)
                await asyncio.sleep(COUNT_LOOK_S)

    async def _commit_for_ever(self) -> None:
        delay = 0.25 if self._is_failing else 0.0
        while True:
            if self._database.is_open and not self._intake.batch:
                await self._wait_for_work()
            try:
                if not self._database.is_open and self._corrupt is None:
                    await self._reopen()
                if self._corrupt is not None:
                    error = self._corrupt
                    self._fails()  # until there is a new one, alarms go out without it
                    await self._begin_anew(error)
                    if self._is_unread:  # before it is asked for all that is known: what was brought over belongs to it
                        self._is_unread = False
                        self._tell("on_recalled", self.on_recalled, await self.marks(), await self.alarms())
                    self._tell("on_trouble", self.on_trouble, error)
                    self._tell("on_stored", self.on_stored)  # nobody may confirm rows of the old stream in the new one
                await self._commit_once()
            except StoreError as error:
                if error.code == "GW-STO-02":
                    self._corrupt = error
                else:
                    self._tell("on_trouble", self.on_trouble, error)
                self._fails()
                if error.code == "GW-STO-01":
                    await self._try_afresh()
                cap = RETRY_CAP_S if self._database.is_open else REOPEN_CAP_S
                delay = min(cap, delay * 2 or 0.25)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            else:
                if delay:
                    self._tell("on_trouble", self.on_trouble, None)
                delay, self._is_failing, self._failing_since = 0.0, False, None

    async def _try_afresh(self) -> None:
        """A file that could not be written when it was opened stays so for its connection; a new one may do better.

        The old one is let go only then: over a disk that turned read-only it still gives what it holds.
        """
        now = self._clock.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if self._database.is_open and now - self._failing_since >= AFRESH_AFTER_S and await self._database.may_write():
            await self._database.close_store()

    async def _reopen(self) -> None:
        """Try once more to open the database; tell who runs what it remembers. Raises StoreError."""
        was_known = bool(self._stream)
        opening = self._opening or asyncio.create_task(self._open(), name="open the outbox")
        self._opening = None
        replaced = await opening
        _log.info("the database is there again", stream=self.streamid, waiting=self.waiting)
        if not was_known:
            self._tell("on_found", self.on_found, await self.marks(), await self.alarms())
        if replaced is not None:
            self._tell("on_trouble", self.on_trouble, replaced)
        self._tell("on_stored", self.on_stored)

    async def flush(self, limit_s: float) -> bool:
        """Wait until all that was submitted before and the confirmations are durable; False when time ran out."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The last of the queue that alarms overtake: when it is durable, so is everything before it.
        self._intake.put(Write(on_commit=lambda _rows: settle(done)), ())
        self._wake.set()
        try:
            async with asyncio.timeout(limit_s):
                await done
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close the database; call after `run` has ended."""
        await self._database.close()

    # -- in -----------------------------------------------------------------------------------------------------

    def submit(self, write: Write, *, live: bool = True) -> bool:
        """Queue a write; False (and counted) when the queue is full and the write raises no alarm.

        Telemetry that is not `live` goes to the backlog in any case.
        """
        if self._intake.refuses(write):
            self.refused += 1
            return False
        lanes = tuple([event.lane for event in write.events])
        if self._intake.is_empty:
            self._linger.submitted(self._clock.monotonic())
        if Lane.C in lanes:
            live, stock = live and self.live(), self._stock
            placed = zip(lanes, write.events, strict=True)
            lanes = tuple([stock.lane_for(lane, one.device, live=live) for lane, one in placed])
        if self._intake.put(write, lanes):
            self._wake.set()
        if self._is_failing and Lane.A in lanes:
            # Not stored, but there to be sent.
            asyncio.get_running_loop().call_soon(self._tell, "on_stored", self.on_stored)
        return True

    @property
    def waiting(self) -> int:
        """Writes that are not yet durable."""
        return len(self._intake)

    def is_waiting_for(self, device: str) -> bool:
        """Is anything of a device not yet durable, as far as can be seen soon?"""
        return self._intake.has(device)

    @property
    def is_failing(self) -> bool:
        """Does the disk refuse, or not answer? What waits is tried again by itself."""
        return self._is_failing

    @property
    def oldest_waiting(self) -> Stamp | None:
        """When the oldest event that is not yet durable happened."""
        return self._intake.oldest()

    def waiting_alarms(self) -> list[Event]:
        """Return the alarms and alarm states that are not yet durable."""
        return self._intake.alarms()

    def waiting_events(self) -> list[Event]:
        """Return every event that is not yet durable."""
        return [event for write, _lanes in self._intake for event in write.events]

    def unstored_alarms(self, destination: str) -> list[Event]:
        """Return the alarms for a destination that a failing disk keeps from being stored (northbound rule 1)."""
        if not self._is_failing:
            return []
        types = next(route.types for route in self._store.routes if route.destination == destination)
        return [event for event in self._intake.alarms() if wants(types, event.noun)]

    # -- of a destination ---------------------------------------------------------------------------------------

    def dead_letter(self, letter: DeadLetter) -> None:
        """Keep a copy of what a destination refused for good."""
        self.submit(Write(dead=(letter,)))

    async def next_epoch(self, destination: str) -> int:
        """Count one more connection of a destination, durably if the disk answers within `EPOCH_LIMIT_S`.

        A disk that does not must not keep what is already stored from being delivered.
        """
        epoch, durable = self._epochs.count(destination)
        self._wake.set()
        if not self._is_failing:
            await asyncio.wait({durable}, timeout=EPOCH_LIMIT_S)
        if not durable.done():
            _log.warning("the connection's epoch is not durable", destination=destination, epoch=epoch)
        return epoch

    async def status(self) -> dict[str, Any]:
        """Return the figures for `gateway status`."""
        with contextlib.suppress(StoreError):  # the problem is shown beside; the last figure is better than none
            self._file_bytes = await self._database.ask(lambda reader: reader.file_bytes())
        kept = dict.fromkeys(LANES, 0)
        # Of one moment: while the disk is asked more is stored and delivered.
        stream, sequence, rows = self.streamid, self.sequence, dict(self._stock.rows)
        with contextlib.suppress(StoreError):
            upto = {lane: self._stock.delivered(lane) for lane in LANES}
            kept = await self.read(lambda reader: reader.count_upto(upto))
        return {
            "stream": stream,
            "sequence": sequence,
            "rows": {lane.name: max(0, rows[lane] - kept[lane]) for lane in LANES},
            "kept": sum(kept.values()),
            "unstored": self.waiting,
            "refused": self.refused,
            "poisoned": self.poisoned,
            "untold": self.untold,
            "bytes": self._file_bytes,
        }

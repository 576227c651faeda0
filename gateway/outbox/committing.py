"""When the next commit begins, and what it takes: what has gathered meanwhile, alarms first, in one transaction (group commit).

At most `MAX_COMMIT_EVENTS` events, so an alarm waits for at most the commit in progress. What is confirmed and what may leave
rides along. A disk that has not answered for `SLOW_DISK_S` counts as failing. A write that cannot be stored for what is in it
is looked for by halves, and does not stop the others; nor does a callback that raises: it is logged, counted and a problem.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.events import Lane
from gateway.outbox.epochs import Epochs
from gateway.outbox.holding import Holding
from gateway.outbox.intake import Intake
from gateway.outbox.linger import DELETE_PAUSE_S
from gateway.outbox.rows import Accepted, Route
from gateway.outbox.transaction import DELETE_STEP

MAX_COMMIT_EVENTS: Final = 250
SLOW_DISK_S: Final = 2.0
TICK_S: Final = 1e-6

_log = structlog.get_logger("outbox")


class Committing(Holding):
    """The commits of an outbox. `on_stored` is called after each, and when the disk fails; `on_bug` for a bad write."""

    def __init__(
        self, path: Path, routes: Sequence[Route], *, clock: Clock, hold: Callable[[], None], linger_s: float
    ) -> None:
        super().__init__(path, routes, clock=clock, hold=hold, linger_s=linger_s)
        self._intake = Intake()
        self._is_failing = False
        self._epochs = Epochs()
        self.on_stored: Callable[[], None] = lambda: None
        self.poisoned = 0

    async def _wait_for_work(self) -> None:
        loop = asyncio.get_running_loop()
        while (left_s := self._left_s()) is None or left_s > 0:
            self._wake.clear()
            # Not a time-out, which costs several times as much: this is done for each commit.
            timer = None if left_s is None else loop.call_later(left_s, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()
            if timer is not None and timer.when() - loop.time() < TICK_S:
                return

    def _left_s(self) -> float | None:
        """For how long the next commit can wait; None: until it is woken."""
        if self._epochs.wait or self._corrupt is not None or self._intake.is_pressing:
            return 0.0
        now = self._clock.monotonic()
        if not self._intake.may_linger:
            return self._linger.spacing_s(now)
        left_s = self._linger.left_s(
            now,
            is_waiting=not self._intake.is_empty,
            is_confirmed=bool(self._dirty),
            is_deletable=bool(self._stock.deletable()),
            is_soon=self._is_failing or any(lane in (Lane.A, Lane.B) for _destination, lane in self._dirty),
        )
        return min(left_s, DELETE_PAUSE_S) if left_s is not None and self._stock.is_deleting else left_s

    def _fails(self) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._tell("on_stored", self.on_stored)

    # -- the commit ---------------------------------------------------------------------------------------------

    async def _commit_once(self) -> None:
        intake, store = self._intake, self._store
        if not intake.batch:
            self._gather()
        batch = intake.batch
        # Confirmations and deletions wait while a dead letter may still be queued, and while a poisoned write is looked for.
        alone = intake.is_urgent or intake.is_suspect
        confirmed = () if alone else tuple(self._dirty)
        delete = {} if alone else self._stock.deletable()
        now = self._clock.monotonic()
        if self._linger.keeps_back(now, is_deletable=bool(delete), is_urgent=intake.holds_alarm):
            delete = {}
        # No row leaves before it is durable that everybody has it: also who never waited for it, and passed it by.
        owners = self._stock.destinations if delete else dict.fromkeys(destination for destination, _lane in confirmed)
        cursors = self._stock.cursor_rows(owners, sequence=self.sequence)
        now_ms = self._clock.stamp().wall_ms
        accepted: list[Accepted] = []
        if confirmed:  # with the cursors that confirm them: sent again after a crash, they are counted again
            accepted, self._accepted = self._accepted, []
        for key in confirmed:
            del self._dirty[key]
        self._linger.committed(now)
        slow = asyncio.get_running_loop().call_later(SLOW_DISK_S, self._fails)
        try:
            stored, deleted = await self._database.in_writer(
                lambda: store.commit(batch, cursors, now_ms=now_ms, delete=delete, accepted=accepted)
            )
        except StoreError:
            self._dirty.update(dict.fromkeys(confirmed))
            self._accepted[:0] = accepted
            raise
        except Exception as error:  # noqa: BLE001 - one write that cannot be stored must not stop the others
            self._dirty.update(dict.fromkeys(confirmed))
            self._accepted[:0] = accepted
            self._isolate(error)
            return
        finally:
            slow.cancel()
        intake.settle()
        self._stock.note_deleted(deleted, upto=delete, step=DELETE_STEP)
        for rows in stored:
            self._stock.add(rows)
        for (write, _lanes), rows in zip(batch, stored, strict=True):
            for drop in write.drops:
                self._stock.drop(drop.lane, drop.rows)
            if write.on_commit:
                self._tell("on_commit", write.on_commit, rows)
        self._tell("on_stored", self.on_stored)

    def _gather(self) -> None:
        if self._epochs.wait:
            self._intake.batch.append((self._epochs.write(), ()))
        self._intake.gather(MAX_COMMIT_EVENTS)

    def _isolate(self, error: Exception) -> None:
        """Halve the batch until the write is found that fails alone; it is logged, and its events stored alone or counted."""
        if not self._intake.batch:  # confirmations or deletions only: tried again with what comes next
            self._note_bug("the commit", error)
            return
        alone = self._intake.narrow()
        if alone is None:
            return
        write, lanes = alone
        bare = write.bare()
        _log.error("a write cannot be stored", kept=bare is not None, error=repr(error), write=repr(write))
        self._note_bug("a write", error)
        if write.on_failed:
            self._tell("on_failed", write.on_failed)
        if bare is not None:
            self._intake.batch = [(bare, lanes)]
            return
        self.poisoned += 1
        for event, lane in zip(write.events, lanes, strict=True):
            if lane is Lane.D:
                self._stock.withdraw(event.device)
        self._intake.settle()

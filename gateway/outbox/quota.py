"""Keeps the outbox within its space: what must give way is telemetry, oldest backlog first, and it is announced as a gap.

At four fifths of the limit a problem is raised. Of lane D, then of C, the readings of meters are thinned to one an hour, which
loses nothing of a register, and then the oldest rows are dropped. The last fifth is for alarms, faults and status, which are
never dropped. Each drop and its `gateway.gap` event are one transaction. Rows that a destination still wants and may be sending
now, or in a moment, are left alone (`dropping`). What one destination has loaded keeps
no row of another. Limits: looked at every `CHECK_S`, `STEP` rows a step, `THIN_STEP` are looked at for what can be thinned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.events import Lane, Origin, Stored
from gateway.outbox.dropping import QUOTA, THINNED, drop_announced, drop_delivered, spared_of
from gateway.outbox.outbox import Outbox
from gateway.outbox.thinning import in_few_ranges, superseded

CHECK_S: Final = 2.0
STEP: Final = 1_000
FLUSH_S: Final = 5.0
THIN_STEP: Final = 5_000
SHARE_FOR_TELEMETRY: Final = 0.8
_LANES: Final = (Lane.D, Lane.C)

_log = structlog.get_logger("outbox")


class Quota:
    """Watches one outbox. `trouble` is told the share in use, or None.

    `loaded` says for each destination that is delivered to up to where a lane may be on its way.
    """

    def __init__(
        self,
        outbox: Outbox,
        origin: Origin,
        *,
        max_bytes: int,
        clock: Clock,
        loaded: Callable[[Lane], Mapping[str, int]],
        trouble: Callable[[float | None], None],
    ) -> None:
        self._outbox = outbox
        self._origin = origin
        self._limit = max_bytes
        self._clock = clock
        self._loaded = loaded
        self._trouble = trouble
        self._thinned_to: dict[Lane, int] = dict.fromkeys(_LANES, 0)
        self.dropped = 0

    async def run(self) -> None:
        """Look and make room, for ever."""
        is_told = False
        while True:
            try:
                await self.check()
                is_told = False
            except StoreError as error:
                if not is_told:
                    _log.warning("the space of the outbox cannot be looked at", error=str(error))
                is_told = True
            await asyncio.sleep(CHECK_S)

    async def check(self) -> None:
        """Make room now if it is needed. Raises StoreError."""
        used = await self._outbox.used_bytes()
        if used <= SHARE_FOR_TELEMETRY * self._limit:
            self._trouble(None)
            return
        self._trouble(used / self._limit)
        if not self._outbox.is_counted:
            return  # rows that left now would be missing in the count
        while used > SHARE_FOR_TELEMETRY * self._limit:
            if self._outbox.shed():  # what everybody has goes first, and is no gap
                if not await self._outbox.flush(FLUSH_S):
                    return
                used = await self._outbox.used_bytes()
                continue
            reason, rows = await self._next()
            if not rows:
                return  # only what is never dropped is left
            if not await self._drop(rows, reason):
                return  # the disk does not keep up: the next look tries again
            used = await self._outbox.used_bytes()

    async def _next(self) -> tuple[str, Sequence[Stored]]:
        """Return what gives way next, and why: of the backlog what loses nothing, then its oldest, then of what is live."""
        for lane in _LANES:
            spared = await spared_of(lane, self._loaded(lane), outbox=self._outbox)
            rows = await self._superseded(lane, spared)
            if rows:
                return THINNED, rows
            rows = await self._oldest(lane, spared)
            if rows:
                return QUOTA, rows
        return QUOTA, ()

    def _free(self, lane: Lane, rows: Sequence[Stored], spared: Mapping[str, int]) -> list[Stored]:
        """Return the rows that no destination which still wants them may be sending."""
        busy = {
            row.seq
            for name, its in self._outbox.awaited(lane, rows).items()
            for row in its
            if row.seq <= spared.get(name, 0)
        }
        return [row for row in rows if row.seq not in busy]

    async def _oldest(self, lane: Lane, spared: Mapping[str, int]) -> Sequence[Stored]:
        free: list[Stored] = []
        after = self._outbox.stock.delivered(lane)
        while len(free) < STEP and (rows := await self._outbox.fetch(lane, after, STEP)):
            free += self._free(lane, rows, spared)
            after = rows[-1].seq
        return free[:STEP]

    async def _superseded(self, lane: Lane, spared: Mapping[str, int]) -> Sequence[Stored]:
        """Return readings of meters that a later one makes needless; none where all was looked at."""
        after = max(min(spared.values(), default=0), self._outbox.stock.delivered(lane), self._thinned_to[lane])
        while rows := await self._outbox.fetch(lane, after, THIN_STEP):
            gone = self._free(lane, superseded(rows), spared)
            some = in_few_ranges(gone[:STEP])
            after = self._thinned_to[lane] = rows[-1].seq if len(some) == len(gone) else some[-1].seq
            if some:
                return some
        return ()

    async def _drop(self, rows: Sequence[Stored], reason: str) -> bool:
        """Let rows go: what is still wanted with its announcement, what only stands behind something unconfirmed without."""
        lane = rows[0].lane
        wanted = {row.seq for its in self._outbox.awaited(lane, rows).values() for row in its}
        lost = [row for row in rows if row.seq in wanted]
        delivered = [row for row in rows if row.seq not in wanted]
        if delivered and not await drop_delivered(delivered, outbox=self._outbox):
            return False
        if lost and not await drop_announced(lost, reason, outbox=self._outbox, origin=self._origin, clock=self._clock):
            return False
        self.dropped += len(lost)
        return True

"""Alarms that a platform has not accepted for too long, whatever the reason: told as a problem of its own.

A platform that asks to wait an hour, or whose answers to alarms fail while everything else of it works, shows as no broken
layer: somebody must know all the same. Limits: told after `OVERDUE_S`; each platform is looked at every `LOOK_S`, at most
`ROWS` rows beyond its first unconfirmed one; a look that the disk does not answer in `READ_LIMIT_S` changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.events import Lane, Stored
from gateway.health import Health
from gateway.outbox import Outbox
from gateway.outbox.numbers import within

OVERDUE_S: Final = 60.0
LOOK_S: Final = 10.0
READ_LIMIT_S: Final = 5.0
ROWS: Final = 200
CODE: Final = "GW-PLT-05"


class Overdue:
    """Looks at what waits in lane A. `destinations` are the ids of those that run or are set aside."""

    def __init__(self, destinations: Sequence[str], *, outbox: Outbox, clock: Clock, health: Health) -> None:
        self._destinations = destinations
        self._outbox = outbox
        self._clock = clock
        self._health = health

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            for destination in self._destinations:
                await self.look(destination)

    async def look(self, destination: str) -> None:
        """Judge one destination now."""
        oldest = None
        if self._outbox.alarms_pending(destination):
            try:
                async with asyncio.timeout(READ_LIMIT_S):
                    oldest = await self._oldest(destination)
            except (StoreError, TimeoutError):
                return  # told by the room that it belongs to
        age_s = 0.0 if oldest is None else self._age_s(oldest)
        if oldest is not None and age_s > OVERDUE_S:
            self._health.on(CODE, destination, minutes=max(1, int(age_s // 60)), device=oldest.device)
        else:
            self._health.off(CODE, destination)

    async def _oldest(self, destination: str) -> Stored | None:
        after, ahead = self._outbox.cursor(destination, Lane.A)
        rows = await self._outbox.fetch(Lane.A, after, ROWS)
        return next((row for row in rows if destination in row.route and not within(ahead, row.seq)), None)

    def _age_s(self, row: Stored) -> float:
        return self._outbox.boots.least_age_ms(row.at, self._clock.stamp()) / 1000

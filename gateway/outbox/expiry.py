"""Telemetry that nobody wants any more: older than 30 days by a time that is trusted. Alarms, faults and status stay.

The age is the boot time within a boot; over boots the wall clock, and only where both ends are trusted. A row of which
that cannot be said stays until the quota takes it. What goes is announced as a gap and counted, and what a destination may
be sending now, or in a moment, is left alone (`dropping`). Limits: looked at every `CHECK_S`; at most `STEPS` times `STEP`
rows of a lane a look, the next look goes on from there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.events import TELEMETRY_LIFE_MS, Lane, Origin, Stored, lifetime_ms
from gateway.outbox.dropping import EXPIRED, drop_announced, spared_of
from gateway.outbox.outbox import Outbox

CHECK_S: Final = 600.0
STEP: Final = 500
STEPS: Final = 20
_LANES: Final = (Lane.D, Lane.C)

_log = structlog.get_logger("outbox")


class Expiry:
    """Watches one outbox. `loaded` says for each destination that is connected up to where a lane may be on its way."""

    def __init__(
        self, outbox: Outbox, origin: Origin, *, clock: Clock, loaded: Callable[[Lane], Mapping[str, int]]
    ) -> None:
        self._outbox = outbox
        self._origin = origin
        self._clock = clock
        self._loaded = loaded
        self._after: dict[Lane, int] = dict.fromkeys(_LANES, 0)
        self.expired = 0

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(CHECK_S * random.uniform(0.9, 1.1))  # noqa: S311 - jitter, not a secret
            try:
                await self.check()
            except StoreError as error:
                _log.warning("what has expired cannot be looked at", error=str(error))

    async def check(self) -> None:
        """Let what has expired go. Raises StoreError."""
        if not self._outbox.is_counted:
            return  # rows that left now would be missing in the count
        before = self.expired
        for lane in _LANES:
            for _ in range(STEPS):
                if not await self._step(lane):
                    break
        if self.expired != before:
            _log.warning("telemetry has expired", count=self.expired - before, days=TELEMETRY_LIFE_MS // 86_400_000)

    async def _step(self, lane: Lane) -> bool:
        """Look at some rows; True when there may be more that are old."""
        rows = await self._outbox.fetch(lane, self._after[lane], STEP)
        if not rows:
            self._after[lane] = 0
            return False
        now = self._clock.stamp()
        ages = [self._outbox.boots.age_ms(row.at, now) for row in rows]
        gone = [row for row, age in zip(rows, ages, strict=True) if _has_expired(row, age)]
        if gone:
            gone = await self._not_on_its_way(lane, gone)
        if gone and not await drop_announced(
            gone, EXPIRED, outbox=self._outbox, origin=self._origin, clock=self._clock
        ):
            return False  # the disk does not keep up: the next look tries again
        self.expired += len(gone)
        # Rows are in the order in which they were stored: behind one that is young all are.
        if any(age is not None and age < TELEMETRY_LIFE_MS for age in ages):
            self._after[lane] = 0
            return False
        self._after[lane] = rows[-1].seq
        return True

    async def _not_on_its_way(self, lane: Lane, rows: list[Stored]) -> list[Stored]:
        spared = await spared_of(lane, self._loaded(lane), outbox=self._outbox)
        awaited = self._outbox.awaited(lane, rows)
        busy = {row.seq for name, its in awaited.items() for row in its if row.seq <= spared.get(name, 0)}
        waited_for = {row.seq for its in awaited.values() for row in its}
        return [row for row in rows if row.seq in waited_for and row.seq not in busy]


def _has_expired(row: Stored, age_ms: int | None) -> bool:
    life_ms = lifetime_ms(row.noun)
    return life_ms is not None and age_ms is not None and age_ms > life_ms

"""Keeps the outbox within its space: what must give way is telemetry, oldest backlog first, and it is announced as a gap.

At four fifths of the limit a problem is raised and rows of lane D, then C, are dropped; the last fifth is for alarms,
faults and status, which are never dropped. Each drop and its `gateway.gap` event are one transaction. Rows that a
destination may be sending now are left alone. Limits: looked at every `CHECK_S`, `STEP` rows a step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from gateway.clock import Clock, iso
from gateway.errors import StoreError
from gateway.events import Lane, Origin, Stored, new_event
from gateway.outbox.outbox import Outbox
from gateway.outbox.rows import Drop, Write

CHECK_S: Final = 2.0
STEP: Final = 1_000
SPARED: Final = 2_000
SHARE_FOR_TELEMETRY: Final = 0.8

_log = structlog.get_logger("outbox")


class Quota:
    """Watches one outbox. `loaded` says up to where a lane may be on its way; `trouble` is told the share in use, or None."""

    def __init__(
        self,
        outbox: Outbox,
        origin: Origin,
        *,
        max_bytes: int,
        clock: Clock,
        loaded: Callable[[Lane], int],
        trouble: Callable[[float | None], None],
    ) -> None:
        self._outbox = outbox
        self._origin = origin
        self._limit = max_bytes
        self._clock = clock
        self._loaded = loaded
        self._trouble = trouble
        self.dropped = 0

    async def run(self) -> None:
        """Look and make room, for ever."""
        while True:
            try:
                await self.check()
            except StoreError as error:
                _log.warning("the space of the outbox cannot be looked at", error=str(error))
            await asyncio.sleep(CHECK_S)

    async def check(self) -> None:
        """Make room now if it is needed. Raises StoreError."""
        used = await self._outbox.used_bytes()
        if used <= SHARE_FOR_TELEMETRY * self._limit:
            self._trouble(None)
            return
        self._trouble(used / self._limit)
        while used > SHARE_FOR_TELEMETRY * self._limit:
            rows = await self._oldest()
            if not rows:
                return  # only what is never dropped is left
            if not await self._drop(rows):
                return  # the disk does not keep up: the next look tries again
            used = await self._outbox.used_bytes()

    async def _oldest(self) -> list[Stored]:
        for lane in (Lane.D, Lane.C):
            rows = await self._outbox.fetch(lane, self._loaded(lane), SPARED + STEP)
            if len(rows) > SPARED:
                return rows[SPARED:]
        return []

    async def _drop(self, rows: Sequence[Stored]) -> bool:
        by_destination: dict[str, list[int]] = {}
        for row in rows:
            for destination, number in row.route.items():
                by_destination.setdefault(destination, []).append(number)
        first, last = rows[0].at, rows[-1].at
        data: dict[str, object] = {
            "link": "outbox",
            "from": iso(first.wall_ms),
            "to": iso(last.wall_ms),
            "from_mono_ms": first.mono_ms,
            "to_mono_ms": last.mono_ms,
            "from_boot": first.boot,
            "reason": "quota",
            "dropped": len(rows),
            "lane": rows[0].lane.name,
            "sequences": _ranges([row.seq for row in rows]),
            "deliveryseqs": {name: _ranges(numbers) for name, numbers in by_destination.items()},
        }
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        gateway = self._origin.gateway
        event = new_event("gateway.gap", self._origin, device=gateway, at=self._clock.stamp(), data=data)
        drop = Drop(rows[0].lane, tuple(rows))
        if not self._outbox.submit(
            Write(
                (event,),
                drops=(drop,),
                on_commit=lambda _rows: _settle(done, ok=True),
                on_failed=lambda: _settle(done, ok=False),
            )
        ):
            return False
        if not await done:
            return False
        self.dropped += len(rows)
        return True


def _settle(done: asyncio.Future[bool], *, ok: bool) -> None:
    if not done.done():  # cancelled: the gateway ends
        done.set_result(ok)


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Fold ascending numbers into inclusive ranges."""
    ranges: list[tuple[int, int]] = []
    for n in numbers:
        if ranges and ranges[-1][1] == n - 1:
            ranges[-1] = (ranges[-1][0], n)
        else:
            ranges.append((n, n))
    return ranges

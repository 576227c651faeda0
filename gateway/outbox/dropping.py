"""Rows that somebody waits for leave only together with the `gateway.gap` event that lists them: one transaction.

The event names, for each destination that still waited, the ranges of its `deliveryseq` that will never come. So a row that
may be on its way, or be so before it has left, stays: those up to where a destination has loaded, and `SPARED` more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.clock import Clock, iso
from gateway.events import Lane, Origin, Stored, new_event
from gateway.outbox.outbox import Outbox
from gateway.outbox.rows import Drop, Write

EXPIRED: Final = "expired"
QUOTA: Final = "quota"
THINNED: Final = "thinned"
SPARED: Final = 2_000


async def spared_of(lane: Lane, loaded: Mapping[str, int], *, outbox: Outbox) -> dict[str, int]:
    """Return for each destination that waits for rows of a lane up to where they stay. Raises StoreError."""
    spared = {}
    for name, upto in loaded.items():
        if outbox.pending_in(name, lane):
            rows = await outbox.fetch(lane, upto, SPARED) if SPARED else ()
            spared[name] = rows[-1].seq if rows else upto
    return spared


async def drop_announced(rows: Sequence[Stored], reason: str, *, outbox: Outbox, origin: Origin, clock: Clock) -> bool:
    """Drop rows of one lane, in order; False when they stay: the disk does not keep up, or the announcement cannot be stored."""
    lane = rows[0].lane
    awaited = outbox.awaited(lane, rows)
    first, last = rows[0].at, rows[-1].at
    data: dict[str, object] = {
        "link": "outbox",
        "from": iso(outbox.boots.told(first).wall_ms),
        "to": iso(outbox.boots.told(last).wall_ms),
        "from_mono_ms": first.mono_ms,
        "to_mono_ms": last.mono_ms,
        "from_boot": first.boot,
        "to_boot": last.boot,
        "reason": reason,
        "dropped": len(rows),
        "lane": lane.name,
        "sequences": ranges_of([row.seq for row in rows]),
        "deliveryseqs": {name: ranges_of([row.route[name] for row in its]) for name, its in awaited.items()},
    }
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    event = new_event("gateway.gap", origin, device=origin.gateway, at=clock.stamp(), data=data)
    taken = outbox.submit(
        Write(
            (event,),
            drops=(Drop(lane, tuple(rows)),),
            on_commit=lambda _rows: _settle(done, ok=True),
            on_failed=lambda: _settle(done, ok=False),
        )
    )
    return taken and await done


async def drop_delivered(rows: Sequence[Stored], *, outbox: Outbox) -> bool:
    """Drop rows of one lane that nobody waits for; False when they stay. Nothing is announced: nobody misses anything."""
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    taken = outbox.submit(
        Write(
            drops=(Drop(rows[0].lane, tuple(rows)),),
            on_commit=lambda _rows: _settle(done, ok=True),
            on_failed=lambda: _settle(done, ok=False),
        )
    )
    return taken and await done


def _settle(done: asyncio.Future[bool], *, ok: bool) -> None:
    if not done.done():  # cancelled: the gateway ends
        done.set_result(ok)


def ranges_of(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Fold ascending numbers into inclusive ranges."""
    ranges: list[tuple[int, int]] = []
    for n in numbers:
        if ranges and ranges[-1][1] == n - 1:
            ranges[-1] = (ranges[-1][0], n)
        else:
            ranges.append((n, n))
    return ranges

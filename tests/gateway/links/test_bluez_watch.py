"""The watch over bluetoothd, over a private bus: what it tells though no signal does."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.links.bluez_adapters import AdapterState
from gateway.links.bluez_watch import BluezWatch


async def test_a_scan_that_ended_before_the_first_look_was_answered_is_noticed(world: Any) -> None:
    """On a machine that stands still the signal comes before the list of adapters, and the timer of the scan before both."""
    states: list[AdapterState] = []
    idle = asyncio.Event()
    watch = BluezWatch(adapter="hci0", on_change=states.append, on_idle=idle.set)
    running = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(30):
            await idle.wait()
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert states == [AdapterState.READY]

"""How much time a busy machine took from a test: what may last a second then may last a second of the time that was left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

STEP_S = 0.005
USUAL_S = 0.001  # a sleep is always a little longer than asked for


@dataclass
class Stolen:
    """`seconds`: how much later than asked for the event loop woke up, all in all."""

    seconds: float = 0.0


@asynccontextmanager
async def stolen_time() -> AsyncIterator[Stolen]:
    """Measure it as long as this is open."""
    stolen = Stolen()
    loop = asyncio.get_running_loop()

    async def look() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(STEP_S)
            stolen.seconds += max(0.0, loop.time() - before - STEP_S - USUAL_S)

    looking = asyncio.create_task(look())
    try:
        yield stolen
    finally:
        looking.cancel()
        await asyncio.wait({looking})

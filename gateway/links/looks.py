"""Since when all that had come was surely read: what is read now may have lain unread for as long as we stood still.

A busy machine, a card that does not answer, a process that is stopped: an input is stamped when it is read, and by then it
may be seconds old. Whatever was cut off after it is younger than it, and may be older than its stamp. What was ready when
the event loop looked is read in the same turn, before this look or after it; so only the look before the last proves that
what is read now had not come yet. That is also what others before us (bluetoothd, the bus) may have held it for.
Limit: a look every `LOOK_S`, so the proof is 0.5 s to 1 s old on a machine that is not busy.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.clock import Clock

LOOK_S: Final = 0.5


class Looks:
    """`sure`: what is read now came later than this."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.sure = self._last = clock.stamp()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """The event loop has come round."""
        self.sure, self._last = self._last, self._clock.stamp()

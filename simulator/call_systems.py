r"""A nurse-call system on a serial cable: it hands its calls over by ESPA 4.4.4, one by one, until each is acknowledged.

    EOT 1 ENQ 2 ENQ              it selects us; we answer ACK
    SOH 1 STX 1 US bed RS 2 US text RS 4 US 3 RS 6 US 1 ETX check      the call; ACK once it is durable, or NAK
    EOT                          it lets go

Blocks are built here, not by `drivers`: with one encoder at both ends, both would share one error. The tests compare them
with blocks that others published.

A call that is not acknowledged within `ANSWER_S` is sent again, also after the port was away: such a system keeps its calls.
It enters a call in the ledger when it is acknowledged, from when it was first sent: from then on it may never be lost. With
the quirk `garbled` the first sending of each call has a wrong check; with `deaf` one acknowledgement of each call is missed.
Limits: 9600 bauds, one call on the wire; what waits is as much as the schedule has.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any, Final

from simulator.pty_port import PtyPort

BAUD: Final = 9600
ANSWER_S: Final = 2.0
POLL_S: Final = 1.0
ACK, NAK, EOT = 0x06, 0x15, 0x04
SELECT: Final = b"\x041\x052\x05"

Record = Callable[[Mapping[str, Any]], None]


def block(address: str, text: str, *, kind: str = "3", priority: str = "1") -> bytes:
    """Build the block of a call (header 1)."""
    records = (("1", address), ("2", text), ("4", kind), ("6", priority))
    content = b"1\x02" + "\x1e".join(f"{name}\x1f{value}" for name, value in records).encode("latin-1") + b"\x03"
    return b"\x01" + content + bytes([reduce(xor, content)])


@dataclass(frozen=True, slots=True)
class CallQuirks:
    """What can be wrong: see the module."""

    garbled: bool = False
    deaf: bool = False


@dataclass(slots=True)
class _Waiting:
    device: str
    wire: bytes
    born: float
    first_sent: float | None = None
    times_sent: int = 0
    missed: int = 0


class CallSystem:
    """One system on a pty with the name `path`. `call` lets a bed call; `record` takes the ledger's rows."""

    def __init__(self, *, path: Path, record: Record, quirks: CallQuirks | None = None) -> None:
        """Prepare a system; `port` can be unplugged and plugged."""
        self.port = PtyPort(path=path, baud=BAUD, on_data=self._heard)
        self.quirks = quirks or CallQuirks()
        self.resent = self.refused = 0
        self._record = record
        self._waiting: deque[_Waiting] = deque()
        self._answers: asyncio.Queue[int] = asyncio.Queue()
        self._work = asyncio.Event()

    @property
    def unacknowledged(self) -> int:
        """How many calls are not acknowledged yet."""
        return len(self._waiting)

    def call(self, device: str, address: str) -> None:
        """Let somebody call at a bed: it waits for the calls before it."""
        self._waiting.append(_Waiting(device, block(address, f"Bett {address}"), time.time()))
        self._work.set()

    async def run(self) -> None:
        """Hand over calls, and select without one every `POLL_S`, until cancelled."""
        moving = asyncio.create_task(self.port.run(), name="call system")
        try:
            while not moving.done():
                self._work.clear()
                if self._waiting:
                    await self._hand_over(self._waiting[0])
                else:
                    await self._ask(SELECT)
                    await self.port.send(bytes([EOT]))
                    await self._idle()
            await moving
        finally:
            moving.cancel()
            await asyncio.wait({moving})

    async def _idle(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._work.wait()
        except TimeoutError:
            return

    async def _hand_over(self, one: _Waiting) -> None:
        if await self._ask(SELECT) == ACK:
            one.first_sent = one.first_sent or time.time()
            self.resent += one.times_sent > 0
            one.times_sent += 1
            is_garbled = self.quirks.garbled and one.times_sent == 1
            answer = await self._ask(one.wire[:-1] + bytes([one.wire[-1] ^ is_garbled]))
            if answer == ACK and self.quirks.deaf and not one.missed:
                one.missed += 1
            elif answer == ACK:
                self._waiting.popleft()
                row = {"t": one.first_sent, "t_last": time.time(), "device": one.device, "kind": "bed", "counter": None}
                self._record({**row, "n": None, "session": None, "value": None})
            self.refused += answer == NAK
        await self.port.send(bytes([EOT]))

    async def _ask(self, data: bytes) -> int | None:
        """Send something and return what is answered; None for silence."""
        while not self._answers.empty():
            self._answers.get_nowait()
        if not await self.port.send(data):
            await asyncio.sleep(POLL_S)
            return None
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._answers.get()
        except TimeoutError:
            return None

    def _heard(self, data: bytes) -> None:
        for byte in data:
            if byte in (ACK, NAK, EOT):
                self._answers.put_nowait(byte)

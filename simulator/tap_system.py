r"""A call system that pages by TAP 1.8: it logs on, hands its messages over one by one, and keeps each until it is taken.

    <CR>  ->  ID=                          it begins; the gateway asks who it is
    ESC PG1 <CR>  ->  ACK ESC [p           it logs on
    STX pager <CR> text <CR> ETX check <CR>  ->  ACK once it is durable, NAK, or RS

Blocks are built here, not by `drivers`. A message that is not answered within `ANSWER_S` is sent again after a new log-on, also
after the port was away. It enters the ledger when it is acknowledged, from when it was first sent: from then on it may never be
lost. Limits: one message on the wire; 8N1, for a pty knows no parity.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simulator.pty_port import PtyPort

BAUD: Final = 1200
ANSWER_S: Final = 4.0
# TAP 1.8: a terminal that does not ask ID= within this is begun with again.
BEGIN_S: Final = 2.0
POLL_S: Final = 0.2
LOG_ON: Final = b"\x1bPG1\r"
ASKS_ID: Final = b"ID="
WELCOME: Final = b"\x1b[p"
TAKEN: Final = b"\x06"
AGAIN: Final = b"\x15"
_MAX_HELD: Final = 64

Record = Callable[[Mapping[str, Any]], None]


def message(pager: str, text: str) -> bytes:
    """Build one block: its check is the sum of its bytes, in three characters of four bits each."""
    block = b"\x02" + pager.encode("ascii") + b"\r" + text.encode("ascii") + b"\r\x03"
    total = sum(block)
    return block + bytes(0x30 + (total >> shift & 0xF) for shift in (8, 4, 0)) + b"\r"


@dataclass(slots=True)
class _Waiting:
    device: str
    wire: bytes
    first_sent: float | None = None


class TapSystem:
    """One system on a pty with the name `path`. `call` lets a bed call; `record` takes the ledger's rows."""

    def __init__(self, *, path: Path, record: Record) -> None:
        """Prepare a system; `port` can be unplugged and plugged."""
        self.port = PtyPort(path=path, baud=BAUD, on_data=self._heard)
        self.refused = 0
        self._record = record
        self._waiting: deque[_Waiting] = deque()
        self._work = asyncio.Event()
        self._news = asyncio.Event()
        self._held = b""

    @property
    def unacknowledged(self) -> int:
        """How many messages are not taken yet."""
        return len(self._waiting)

    def call(self, device: str, pager: str) -> None:
        """Let somebody call: it waits for the calls before it."""
        self._waiting.append(_Waiting(device, message(pager, f"CALL {pager}")))
        self._work.set()

    async def run(self) -> None:
        """Hand over messages until cancelled."""
        moving = asyncio.create_task(self.port.run(), name="tap system")
        try:
            while not moving.done():
                if not self._waiting:
                    self._work.clear()
                    await self._work.wait()
                if not (await self._ask(b"\r", ASKS_ID, within_s=BEGIN_S) and await self._ask(LOG_ON, WELCOME)):
                    await asyncio.sleep(POLL_S)
                    continue
                while self._waiting and await self._hand_over(self._waiting[0]):
                    pass
                await self.port.send(b"\x04\r")
            await moving
        finally:
            moving.cancel()
            await asyncio.wait({moving})

    async def _hand_over(self, one: _Waiting) -> bool:
        one.first_sent = one.first_sent or time.time()
        if not await self._ask(one.wire, TAKEN):
            self.refused += AGAIN in self._held
            return False
        self._waiting.popleft()
        row = {"t": one.first_sent, "t_last": time.time(), "device": one.device, "kind": "bed", "counter": None}
        self._record({**row, "n": None, "session": None, "value": None})
        return True

    async def _ask(self, data: bytes, answer: bytes, *, within_s: float = ANSWER_S) -> bool:
        """Send something and wait for an answer; tell whether it came."""
        self._held = b""
        if not await self.port.send(data):
            return False
        try:
            async with asyncio.timeout(within_s):
                while answer not in self._held:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def _heard(self, data: bytes) -> None:
        self._held = (self._held + data)[-_MAX_HELD:]
        self._news.set()

"""A source of numbered JSON lines for the benchmark. Limits: `WINDOW` lines unacknowledged, `ANSWER_S` without a word."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

WINDOW: Final = 1_000
ANSWER_S: Final = 60.0


class Source(asyncio.Protocol):
    """A numbered source on one connection: sends lines, notes when each was sent and acknowledged.

    Line n is of device n modulo `devices`, whose address is d1, d2, ...; presses are all of d1.
    """

    def __init__(self, *, devices: int = 1) -> None:
        self._devices = devices
        self.connected = asyncio.Event()
        self.connected_at = 0.0
        self.sent: dict[int, float] = {}
        self.acked: dict[int, float] = {}
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._room = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the gateway's connection."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream server hands over
        self._transport = transport
        self.connected_at = time.time()
        self.connected.set()

    def data_received(self, data: bytes) -> None:
        """Note acknowledgements."""
        now = time.time()
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self.acked[json.loads(line)["ack"]] = now
        self._room.set()

    def send(self, *numbers: int, press: bool) -> None:
        """Send one line for each number."""
        assert self._transport is not None  # noqa: S101 - after `connected`
        devices, what = (1, '"press":1') if press else (self._devices, '"temp":21.5')
        now = time.time()
        self.sent.update(dict.fromkeys(numbers, now))
        self._transport.write("".join(f'{{"dev":"d{n % devices + 1}","n":{n},{what}}}\n' for n in numbers).encode())

    async def burst(self, first: int, count: int) -> None:
        """Send many lines, at most WINDOW unacknowledged, and wait for the last acknowledgement."""
        born = first
        while len(self.acked) < first + count - 1:
            free = min(WINDOW - (len(self.sent) - len(self.acked)), first + count - born)
            if free > 0:
                self.send(*range(born, born + free), press=False)
                born += free
            self._room.clear()
            async with asyncio.timeout(ANSWER_S):
                await self._room.wait()

    async def paced(self, first: int, count: int, *, per_s: float, press: bool = False) -> None:
        """Send lines at a steady rate, and wait for the last acknowledgement."""
        began = asyncio.get_running_loop().time()
        for number in range(first, first + count):
            await asyncio.sleep(began + (number - first) / per_s - asyncio.get_running_loop().time())
            self.send(number, press=press)
        async with asyncio.timeout(ANSWER_S):
            while len(self.acked) < len(self.sent):
                self._room.clear()
                await self._room.wait()

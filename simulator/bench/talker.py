"""A source of JSON lines for one measurement: says what it is told, and knows what was acknowledged.

Limits: one connection at a time; nothing is sent again (nothing is broken on purpose here); an acknowledgement that does
not come within `ANSWER_S` is a TimeoutError.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final

ANSWER_S: Final = 60.0


class Talker(asyncio.Protocol):
    """Listens on a port of 127.0.0.1; the gateway connects with `socket://`."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.acked = 0
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._answered = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the gateway's connection."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream server hands over
        self._transport = transport
        self._held = b""
        self.connected.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The gateway has gone."""
        self.connected.clear()

    def data_received(self, data: bytes) -> None:
        """Count acknowledgements."""
        *lines, self._held = (self._held + data).split(b"\n")
        self.acked += sum(1 for line in lines if "ack" in json.loads(line))
        self._answered.set()

    def say(self, *lines: str) -> None:
        """Send lines in one piece."""
        assert self._transport is not None  # noqa: S101 - after `connected`
        self._transport.write("".join(f"{line}\n" for line in lines).encode())

    async def acknowledged(self, count: int) -> None:
        """Wait until so many acknowledgements have come since the beginning."""
        async with asyncio.timeout(ANSWER_S):
            while self.acked < count:
                self._answered.clear()
                await self._answered.wait()

    async def burst(self, lines: Callable[[int], str], numbers: range, *, window: int) -> None:
        """Say one line for each number, each of them acknowledged, at most `window` at a time without that."""
        before, said = self.acked, 0
        while said < len(numbers):
            free = min(window - (said - (self.acked - before)), len(numbers) - said)
            if free > 0:
                self.say(*(lines(numbers[at]) for at in range(said, said + free)))
                said += free
            await self.acknowledged(before + max(1, said - window + 1))
        await self.acknowledged(before + said)

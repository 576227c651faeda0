"""A microcontroller behind TCP that writes JSON lines to the gateway: what it was acknowledged, and how to let it speak."""

from __future__ import annotations

import asyncio
import json
import select
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Board:
    """The far end of the gateway's line. It speaks to the gateway that is there now, never to one that has gone."""

    port: int
    acks: list[int] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(OSError):
            while line := await reader.readline():
                self.acks.append(json.loads(line)["ack"])

    @property
    def connected(self) -> bool:
        return any(not _has_gone(writer) for writer in self.writers)

    async def say(self, data: bytes) -> None:
        """Say it to the gateway that is connected, or to the next one."""
        await self._wait(lambda: self.connected, "never connected")
        writer = [one for one in self.writers if not _has_gone(one)][-1]
        writer.write(data)
        await writer.drain()

    async def say_to_nobody(self, data: bytes) -> None:
        """Say it while no gateway is there."""
        assert not self.connected
        self.writers[-1].write(data)

    async def press(self, n: int) -> None:
        """Press, and wait for the acknowledgement."""
        await self.say(b'{"dev":"b1","n":%d,"ev":"press"}\n' % n)
        await self.acknowledged(n)

    async def acknowledged(self, n: int, within_s: float = 30.0) -> None:
        await self._wait(lambda: n in self.acks, f"{n} was not acknowledged", within_s)

    async def _wait(self, condition: Callable[[], bool], why: str, within_s: float = 30.0) -> None:
        end = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < end, why
            await asyncio.sleep(0.01)


def _has_gone(writer: asyncio.StreamWriter) -> bool:
    """Has the other end closed? Asked of the kernel: the event loop hears of an end, and of a new connection, later."""
    if writer.is_closing():
        return True
    watch = select.poll()
    watch.register(writer.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(watch.poll(0))


@asynccontextmanager
async def listening_board() -> AsyncIterator[Board]:
    """A board that listens for the gateway."""
    here = Board(0)
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        for writer in here.writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

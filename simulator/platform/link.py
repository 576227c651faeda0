"""The line between the gateway and the platform, with its faults: a TCP proxy that can be cut, stalled and slowed.

`cut` resets every connection and refuses new ones; the port stays ours, so nobody can take it meanwhile. `stall` keeps
connections up while no byte passes either way, not even their end, as when a router in between has lost its way out:
what was sent arrives afterwards. `delay` holds every byte back, both ways. `heal` ends all three.
It understands nothing of what it carries; what MQTT needs is in mqtt_link.
Limits: 64 connections (more are reset and counted), 1 MiB on its way in each direction (then the sender must wait), 5 s
to reach the platform.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Self

from simulator.platform.conduct import MAX_MS, within

HOST: Final = "127.0.0.1"
MAX_CONNECTIONS: Final = 64
MAX_ON_THE_WAY: Final = 1024 * 1024
_CHUNK: Final = 64 * 1024
_CONNECT_LIMIT_S: Final = 5.0
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST


class Link:
    """The proxy. `port` is where the gateway connects (0: a free one), `target` the platform's own port."""

    def __init__(self, target: int, *, port: int = 0) -> None:
        self.port = port
        self._target = target
        self._listening: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: dict[asyncio.Task[None], socket.socket] = {}
        self.flowing = asyncio.Event()
        self.delay_s = 0.0
        self.total = 0
        self.last_at: float | None = None
        self.refused = 0
        self.given_up = 0
        self.carried = {"up": 0, "down": 0}

    # -- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind and listen. OSError when the port is taken."""
        if not self.port:
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                self.port = int(probe.getsockname()[1])
        # With its protocol named: only then asyncio turns Nagle's algorithm off for what is accepted.
        listening = socket.socket(proto=socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setblocking(False)  # noqa: FBT003 - its only parameter
            # Bound to a number that we name: only then does Linux keep the port for a socket that stops listening.
            listening.bind((HOST, self.port))
            self._listening = listening
            self._open()
        except BaseException:
            self._listening = None
            listening.close()
            raise
        self.flowing.set()

    async def stop(self) -> None:
        """Reset everything and give the port back."""
        await self._close()
        await self._reset_all()
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Stop."""
        await self.stop()

    # -- faults -------------------------------------------------------------------------------------------------

    async def cut(self) -> None:
        """Refuse new connections and reset the present ones."""
        await self._close()
        await self._reset_all()

    def stall(self) -> None:
        """Let no byte pass until `heal` or `unstall`."""
        self.flowing.clear()

    def unstall(self) -> None:
        """Let bytes pass again; what was held back goes first."""
        self.flowing.set()

    def delay(self, ms: float) -> None:
        """Hold each byte back for so long, in each direction. ValueError outside 0 to 60,000 ms."""
        self.delay_s = within("ms", ms, MAX_MS) / 1000

    def heal(self) -> None:
        """End cut, stall and delay."""
        self.delay_s = 0.0
        self._open()
        self.flowing.set()

    def stats(self) -> dict[str, Any]:
        """Return what the line carries. `given_up`: clients that left before the platform was reached."""
        return {
            "port": self.port,
            "cut": self._accepting is None,
            "stalled": not self.flowing.is_set(),
            "delay_ms": round(self.delay_s * 1000, 3),
            "open": len(self._connections),
            "total": self.total,
            "last_at": self.last_at,
            "refused": self.refused,
            "given_up": self.given_up,
            "bytes_up": self.carried["up"],
            "bytes_down": self.carried["down"],
        }

    # -- the listener ---------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._accepting is None and self._listening is not None:
            self._listening.listen(MAX_CONNECTIONS)
            self._accepting = asyncio.create_task(self._accept(self._listening), name="link-accept")

    async def _close(self) -> None:
        accepting, self._accepting = self._accepting, None
        if accepting is None or self._listening is None:
            return
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        self._listening.shutdown(socket.SHUT_RDWR)  # a listener becomes a bound socket again; who waited is reset

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listening)
            except OSError:  # out of descriptors: try again when some may have been closed
                await asyncio.sleep(0.1)
                continue
            if len(self._connections) >= MAX_CONNECTIONS:
                self.refused += 1
                reset(client)
                client.close()
                continue
            self.total += 1
            self.last_at = time.time()
            task = asyncio.create_task(self._serve(client), name="link-connection")
            self._connections[task] = client
            task.add_done_callback(lambda done: self._connections.pop(done, None))

    async def _reset_all(self) -> None:
        tasks = list(self._connections)
        for client in self._connections.values():
            reset(client)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._connections.clear()

    # -- one connection -------------------------------------------------------------------------------------------

    async def _serve(self, client: socket.socket) -> None:
        near: asyncio.StreamWriter | None = None
        far: Far | None = None
        try:
            reader, near = await self._take_up(client)
            near.transport.set_write_buffer_limits(high=_CHUNK)
            head = await self._first_bytes(reader)
            if head is None:
                self.given_up += 1
                return
            head = await self._admit(reader, near, head)
            if head is None:
                return
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                far = Far(*await asyncio.open_connection(HOST, self._target))
            far.writer.transport.set_write_buffer_limits(high=_CHUNK)
            if head:
                await asyncio.sleep(self.delay_s)
                await self.flowing.wait()
                far.writer.write(head)
                self.carried["up"] += len(head)
                far.asked = True
            await self._carry((reader, near), far)
        except (OSError, TimeoutError):
            pass  # one of both ends is gone; that is what a line is for
        finally:
            if near is not None:
                near.transport.abort()
            else:
                client.close()
            if far is not None:
                self._let_go(far)

    # What a variant may do otherwise.

    async def _take_up(self, client: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Make a stream of a client's socket."""
        return await asyncio.open_connection(sock=client)

    async def _admit(self, _reader: asyncio.StreamReader, _near: asyncio.StreamWriter, head: bytes) -> bytes | None:
        """Return what goes to the platform first, or None when the client has been sent away."""
        return head

    def _may_end(self, _far: Far) -> bool:
        """May the platform's end be closed now?"""
        return True

    def heard(self, far: Far) -> None:
        """Note that the platform has spoken."""
        far.answered = True

    def _let_go(self, far: Far) -> None:
        """Drop the platform's end."""
        reset(far.writer.get_extra_info("socket"))
        far.writer.transport.abort()

    async def _first_bytes(self, reader: asyncio.StreamReader) -> bytes | None:
        """Return what a client sent while the line was stalled; None when it has left again.

        On a dead line its connection would never have come about: a platform that now served it would serve a ghost.
        """
        head = bytearray()
        while not self.flowing.is_set():
            flowing = asyncio.create_task(self.flowing.wait())
            reading = asyncio.create_task(reader.read(_CHUNK - len(head)))
            try:
                await asyncio.wait((flowing, reading), return_when=asyncio.FIRST_COMPLETED)
            finally:
                flowing.cancel()
                reading.cancel()
                results = await asyncio.gather(flowing, reading, return_exceptions=True)
            if isinstance(results[1], bytes):
                if not results[1]:
                    return None
                head += results[1]
            elif isinstance(results[1], OSError):
                return None
            if len(head) >= _CHUNK:
                await self.flowing.wait()
        return bytes(head)

    async def _carry(self, near: tuple[asyncio.StreamReader, asyncio.StreamWriter], far: Far) -> None:
        """Carry both ways until one side has said its last byte, and that byte has been delivered."""
        tasks = [
            asyncio.create_task(_Pipe(self, far, "up").carry(near[0], far.writer), name="link-up"),
            asyncio.create_task(_Pipe(self, far, "down").carry(far.reader, near[1]), name="link-down"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        # An end that was said is passed on as an end, not as a reset: what went before it must arrive.
        ends = [near[1], far.writer] if self._may_end(far) else [near[1]]
        for writer in ends:
            writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                await asyncio.gather(*(writer.wait_closed() for writer in ends), return_exceptions=True)


@dataclass(slots=True)
class Far:
    """The platform's end of a connection: has it been sent anything, has it said anything?"""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    asked: bool = False
    answered: bool = False


class _Pipe:
    """One direction of one connection. No time limit on reading: an idle connection is a good one."""

    def __init__(self, link: Link, far: Far, direction: str) -> None:
        self._link = link
        self._far = far
        self._direction = direction
        self._on_the_way: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry until the reader's end has been delivered. Raises OSError when either side breaks."""
        taking = asyncio.create_task(self._take(reader), name="link-take")
        try:
            await self._give(writer)
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            await self._room.wait()
            await self._link.flowing.wait()
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                data = b""
            if data and self._direction == "down":
                self._link.heard(self._far)
            self._on_the_way.append((loop.time() + self._link.delay_s, data))
            self._bytes += len(data)
            if self._bytes >= MAX_ON_THE_WAY:
                self._room.clear()
            self._arrived.set()

    async def _give(self, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._on_the_way:
                self._arrived.clear()
                await self._arrived.wait()
            due, data = self._on_the_way[0]
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            await self._link.flowing.wait()
            self._on_the_way.popleft()
            if not data:
                return
            self._bytes -= len(data)
            if self._bytes < MAX_ON_THE_WAY:
                self._room.set()
            self._link.carried[self._direction] += len(data)
            if self._direction == "up":
                self._far.asked = True
            writer.write(data)
            await writer.drain()


def reset(sock: Any) -> None:
    """Make the close of this socket a reset. A socket that is closed already needs none."""
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

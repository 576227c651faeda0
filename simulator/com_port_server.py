"""A serial server on the network (Moxa, USR) whose port is set over RFC 2217: the far end of `rfc2217://`.

Telnet and the COM port option are pyserial's `PortManager`, so that gateway and simulator do not share one reading of the
standard. Unlike a pty it knows data bits and parity: what the client has set stands in `framing`. Bytes take their time in
both directions, as through a UART; what is sent while nobody is connected is discarded.

Limits: one client at a time, a second one is closed at once; 64 KiB wait in each direction, more is dropped.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Collection
from typing import Any, Final, cast

from serial.rfc2217 import PortManager

from simulator.uart import Framing, arriving

PENDING_BYTES: Final = 64 * 1024
PORTION_S: Final = 0.010


class _Settings:
    """What `PortManager` takes for a serial port: it sets attributes, and hands a ValueError back as a refusal."""

    cts = dsr = True
    ri = cd = False
    xonxoff = rtscts = dtr = rts = False

    def __init__(self, refuses: Collection[str]) -> None:
        self.baudrate, self.bytesize, self.stopbits = 9600, 8, 1
        self._parity = "N"
        self._refuses = refuses

    @property
    def parity(self) -> str:
        """N, E, O."""
        return self._parity

    @parity.setter
    def parity(self, wanted: str) -> None:
        if wanted in self._refuses:
            raise ValueError(f"no parity {wanted}")
        self._parity = wanted

    def reset_input_buffer(self) -> None:
        """Nothing is kept here."""

    def reset_output_buffer(self) -> None:
        """Nothing is kept here."""


class _Client(asyncio.Protocol):
    """One TCP connection: telnet off, bytes out."""

    def __init__(self, server: ComPortServer) -> None:
        self._server = server
        self._telnet: Any = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or turn away."""
        self.transport = cast(asyncio.Transport, transport)
        if self._server.admit(self):
            self._telnet = PortManager(cast(Any, self._server.settings), cast(Any, self))
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand what is left without telnet to the UART."""
        if self._telnet is None or self.transport is None:
            return
        try:
            self._server.take(b"".join(self._telnet.filter(data)))
        except (struct.error, KeyError, TypeError):  # half a command: pyserial does not look
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """It is gone."""
        self._server.leave(self)

    def write(self, data: bytes) -> None:
        """Send as it is: what `PortManager` says."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def send(self, data: bytes) -> None:
        """Send what came from the bus."""
        self.write(data.replace(b"\xff", b"\xff\xff"))


class ComPortServer:
    """One port of a serial server. `on_data` gets what the client sent when its last bit has passed.

    `refuses`: parities that its UART cannot do. Counters: `holders` clients so far, `discarded` bytes that went nowhere.
    """

    def __init__(
        self, *, port: int, on_data: Callable[[bytes], None] = lambda _data: None, host: str = "127.0.0.1",
        refuses: Collection[str] = (),
    ) -> None:  # fmt: skip
        """Prepare a server; nothing listens before `run`. `port` 0: any, see `port` then."""
        self.port = port
        self.host = host
        self.settings = _Settings(refuses)
        self.holders = self.discarded = 0
        self.listening = asyncio.Event()
        self.on_data = on_data
        self._client: _Client | None = None
        self._arrived = bytearray()
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()
        self._queued = 0
        self._free_at = 0.0

    @property
    def framing(self) -> Framing:
        """How the client has set the port."""
        own = self.settings
        return Framing(int(own.baudrate), int(own.bytesize), own.parity, int(own.stopbits))

    @property
    def held(self) -> bool:
        """Whether somebody is connected."""
        return self._client is not None

    async def run(self) -> None:
        """Serve until cancelled. OSError where the port cannot be had."""
        server = await asyncio.get_running_loop().create_server(lambda: _Client(self), self.host, self.port)
        self.port = server.sockets[0].getsockname()[1]
        self.listening.set()
        try:
            await self._transmit()
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        """Cut the client off."""
        if self._client is not None and self._client.transport is not None:
            self._client.transport.abort()

    def admit(self, client: _Client) -> bool:
        """Take a client unless there is one."""
        if self._client is not None:
            return False
        self._client, self.holders = client, self.holders + 1
        return True

    def leave(self, client: _Client) -> None:
        """Forget a client, and what it sent last."""
        if client is self._client:
            self._client = None
            self._arrived.clear()

    def take(self, data: bytes) -> None:
        """Take what the client wants to be sent."""
        room = PENDING_BYTES - len(self._arrived)
        self.discarded += max(0, len(data) - room)
        self._arrived += data[:room]
        self._wake.set()

    async def _transmit(self) -> None:
        """Let what came from the client pass the wire, a portion at a time."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if not self._arrived:
                self._wake.clear()
                await self._wake.wait()
                due = loop.time()
            portion, byte_s = self._portion(self.framing)
            data = bytes(self._arrived[:portion])
            del self._arrived[:portion]
            due += len(data) * byte_s
            await _until(due)
            if data and self.held:
                self.on_data(data)

    async def send(self, data: bytes, *, framing: Framing) -> bool:
        """Send what a device on the wires says, at its pace, as it arrives at the client's UART: see `arriving`.

        True when every byte went to one and the same client.
        """
        if self._queued + len(data) > PENDING_BYTES:
            self.discarded += len(data)
            return False
        self._queued += len(data)
        try:
            async with self._sending:
                return await self._send(data, framing)
        finally:
            self._queued -= len(data)

    async def _send(self, data: bytes, framing: Framing) -> bool:
        portion, byte_s = self._portion(framing)
        start = max(asyncio.get_running_loop().time(), self._free_at)
        self._free_at = start + len(data) * byte_s
        client, whole = self._client, True
        for first in range(0, len(data), portion):
            part = data[first : first + portion]
            await _until(start + (first + len(part)) * byte_s)
            there = self._client
            if there is None:
                self.discarded += len(part)
            else:
                there.send(arriving(part, sent=framing, heard=self.framing))
            whole = whole and there is not None and there is client
        return whole

    @staticmethod
    def _portion(framing: Framing) -> tuple[int, float]:
        byte_s = framing.bits_a_byte / framing.baud
        return max(1, int(PORTION_S / byte_s)), byte_s


async def _until(moment: float) -> None:
    delay = moment - asyncio.get_running_loop().time()
    if delay > 0:
        await asyncio.sleep(delay)

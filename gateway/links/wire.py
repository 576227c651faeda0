"""One connection of a line: a serial port opened by serialx, a TCP socket, or a serial server's port. It is never reopened.

A peer may send faster than its bytes can be understood: asyncio hands over 256 KiB at a time, which as short lines of
garbage keep a slow machine busy for seconds. So bytes are taken in slices, with everybody else's turn between two of them,
and the peer is held back meanwhile.
Limits: slices of 4 KiB, one read of 256 KiB held at most; an unsent rest gets 1.5 s at closing and is then cut off; a
silent TCP peer is given up after 15 s.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
from collections.abc import Callable
from typing import cast

import serialx

from drivers.kit import LineSettings
from gateway.links.serial_server import SerialServer, SettablePort

CLOSE_TIMEOUT_S = 2.0
SLICE_BYTES = 4096
# Keep-alive: after 5 s without a word a probe every 3 s, three of them. Unsent data is given up after 15 s.
_PROBES = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
# struct tcp_info: 8 single bytes, then 32-bit words; the 13th word is the age in ms of the peer's last acknowledgement.
_LAST_ACK_OFFSET = 8 + 12 * 4


class Wire(asyncio.Protocol):
    """`ended` becomes why the connection ended; or the error of a callback, which the event loop would only log."""

    def __init__(self, *, opened: Callable[[Wire], None], received: Callable[[bytes], None]) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._opened = opened
        self._received = received
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()
        # Read and not yet taken; while there is any, the transport is paused.
        self._held = b""
        self._coming = False
        self._paused = False
        self._lost: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport and call `opened`."""
        # serialx and asyncio both hand over full transports.
        self._transport = cast(asyncio.Transport, transport)
        try:
            self._opened(self)
        except Exception as bug:  # noqa: BLE001 - raised again where `ended` is awaited
            self._end_with(bug)

    def data_received(self, data: bytes) -> None:
        """Call `received`, with a slice at a time."""
        if not self._held and not self._paused and len(data) <= SLICE_BYTES:
            self._hand_over(data)
            return
        self._held += data
        if self._transport is not None:
            self._transport.pause_reading()
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end; what was read before it is taken first."""
        self._closed.set()
        self._lost = " ".join(str(exc).split()) if exc else "closed by the other side"
        self._paused = False
        self._go_on()

    def pause(self) -> None:
        """Take nothing more until `resume`."""
        self._paused = True
        transport = self.live()
        if transport is not None:
            transport.pause_reading()

    def resume(self) -> None:
        """Take bytes again."""
        self._paused = False
        self._go_on()

    def _go_on(self) -> None:
        """Take the next slice in the next turn: never within the taking of another one."""
        if not self._coming:
            self._coming = True
            asyncio.get_running_loop().call_soon(self._slice)

    def _slice(self) -> None:
        self._coming = False
        if self._paused or self.ended.done():
            return
        taken, self._held = self._held[:SLICE_BYTES], self._held[SLICE_BYTES:]
        if taken:
            self._hand_over(taken)
        if self._held:
            self._go_on()
        elif self._lost is not None:
            if not self.ended.done():
                self.ended.set_result(self._lost)
        elif not self._paused:
            transport = self.live()
            if transport is not None:
                transport.resume_reading()

    def _hand_over(self, data: bytes) -> None:
        try:
            self._received(data)
        except Exception as bug:  # noqa: BLE001 - raised again where `ended` is awaited
            self._end_with(bug)

    def live(self) -> asyncio.Transport | None:
        """Return the transport while bytes can pass."""
        if self._transport is None or self.ended.done() or self._transport.is_closing():
            return None
        return self._transport

    def hung_up(self) -> bool:
        """Whether the port is gone though nothing was read: while reading is paused nobody else would see it."""
        transport = self.live()
        serial = transport.get_extra_info("serial") if transport else None
        if serial is None:
            return False
        poll = select.poll()
        poll.register(serial.fileno(), 0)
        return bool(poll.poll(0))

    def peer_silent_ms(self) -> int | None:
        """Return how long ago the peer's kernel last acknowledged anything, None for a serial port."""
        transport = self.live()
        sock = transport.get_extra_info("socket") if transport else None
        if sock is None:
            return None
        information = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK_OFFSET + 4)
        (age_ms,) = struct.unpack_from("=I", information, _LAST_ACK_OFFSET)
        return int(age_ms)

    def abort(self, why: str = "") -> None:
        """Cut the connection off; `ended` follows, with the reason given here, if any."""
        if why and not self.ended.done():
            self.ended.set_result(why)
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Let the port go within 2 s."""
        if self._transport is None:
            return
        self._transport.close()
        if not await self._closed_within(CLOSE_TIMEOUT_S * 0.75):
            self._transport.abort()
            await self._closed_within(CLOSE_TIMEOUT_S * 0.25)

    async def _closed_within(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._closed.wait()
        except TimeoutError:
            return False
        return True

    def _end_with(self, bug: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(bug)


async def connect(wire: Wire, address: tuple[str, int]) -> None:
    """Connect to a socket. OSError when that fails.

    serialx has a socket transport too, but it gives no way to its socket, hence no keep-alive.
    """
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: wire, *address)
    _keep_alive(transport)


async def connect_and_set(wire: Wire, address: tuple[str, int], settings: LineSettings) -> None:
    """Connect to a serial server and set its port. OSError when that fails, see `SerialServer.open`."""
    transport, server = await asyncio.get_running_loop().create_connection(lambda: SerialServer(wire), *address)
    try:
        _keep_alive(transport)
        await server.open(settings)
    except BaseException:  # cancelled as well: nobody else would close it
        transport.abort()
        raise


def _keep_alive(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    try:
        if sock.getsockname() == sock.getpeername():
            # Nobody listens, and the kernel has connected a port of the ephemeral range to itself.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself: nobody listens")
        for level, option, value in _PROBES:
            sock.setsockopt(level, option, value)
    except OSError:
        transport.abort()
        raise


async def open_port(wire: Wire, port: str, settings: LineSettings) -> None:
    """Open and lock a device path. OSError, serialx.SerialException or ValueError (settings) when that fails."""
    await serialx.create_serial_connection(
        asyncio.get_running_loop(),
        lambda: wire,
        port,
        baudrate=settings.baud,
        parity=serialx.Parity(settings.parity),
        stopbits=serialx.StopBits(settings.stop),
        byte_size=settings.bits,
        exclusive=True,
        close_timeout=CLOSE_TIMEOUT_S,
    )


async def set_port(wire: Wire, settings: LineSettings) -> None:
    """Set an open port anew. What lies unread or unsent in the kernel is dropped. Errors as of `open_port`."""
    transport = wire.live()
    if isinstance(transport, SettablePort):
        await transport.set(settings)
        return
    if not isinstance(transport, serialx.BaseSerialTransport):
        raise OSError(errno.ENOTTY, "a socket has no speed of its own")
    await transport.reconfigure_port(
        baudrate=settings.baud,
        parity=serialx.Parity(settings.parity),
        stopbits=serialx.StopBits(settings.stop),
        byte_size=settings.bits,
    )

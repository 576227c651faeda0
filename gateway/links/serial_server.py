"""A serial server whose port is set from here: the TCP connection under `rfc2217://`, between the socket and a `Wire`.

Limits: `AGREE_S` for the server to agree to be set, `SET_S` for it to say what it has set; what it says beyond 64 KiB of
unsent answers ends the connection; commands are read byte by byte, so `READ_BYTES` are taken in one turn of the event loop,
where asyncio would hand over 256 KiB (half a second of nothing but commands). What comes from the port before it is set is
dropped: the line is not open yet.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Any, Final, cast

from drivers.kit import LineSettings
from gateway.links.com_port import ComPort, escaped

AGREE_S: Final = 2.0
SET_S: Final = 2.0
READ_BYTES: Final = 4096
ANSWERS_BYTES: Final = 64 * 1024


class SettablePort(asyncio.Transport):
    """What a `Wire` sees of the server's port. Everything but writing is the TCP transport's own."""

    def __init__(self, tcp: asyncio.Transport, server: SerialServer) -> None:
        """Stand in front of a TCP transport."""
        super().__init__()
        self._tcp = tcp
        self._server = server

    async def set(self, settings: LineSettings) -> None:
        """Set the port. OSError: EINVAL where the server keeps something else, ETIMEDOUT where it does not say."""
        await self._server.set(settings)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes to the port."""
        self._tcp.write(escaped(bytes(data)))

    def get_write_buffer_size(self) -> int:
        """How many bytes wait here; what waits in the server nobody knows."""
        return self._tcp.get_write_buffer_size()

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._tcp.resume_reading()

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._tcp.is_closing()

    def close(self) -> None:
        """See `asyncio.BaseTransport`."""
        self._tcp.close()

    def abort(self) -> None:
        """See `asyncio.WriteTransport`."""
        self._tcp.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""
        return self._tcp.get_extra_info(name, default)


class SerialServer(asyncio.BufferedProtocol):
    """The protocol of the TCP connection, which tells `above` of the port."""

    def __init__(self, above: asyncio.Protocol) -> None:
        """`above` is told of the port as soon as it is set, and of its bytes."""
        self._above = above
        self._com = ComPort()
        self._tcp: asyncio.Transport | None = None
        self._is_open = False
        self._news = asyncio.Event()
        self._lost: Exception | None = None
        self._buffer = bytearray(READ_BYTES)

    async def open(self, settings: LineSettings) -> None:
        """Agree with the server and set the port. OSError: EPROTO where the server does not speak RFC 2217, see `set`."""
        self._com.begin()
        self._send()
        try:
            async with asyncio.timeout(AGREE_S):
                while not self._com.is_ready and not self._com.refusal:
                    await self._hear()
        except TimeoutError:
            raise OSError(errno.EPROTO, "it does not answer telnet: is its port a raw TCP one?") from None
        if self._com.refusal:
            raise OSError(errno.EPROTO, self._com.refusal)
        await self.set(settings)
        if self._tcp is None or self._lost is not None:
            raise self._gone()  # in the moment it confirmed: nobody above would ever hear of the end
        self._is_open = True
        self._above.connection_made(SettablePort(self._tcp, self))

    async def set(self, settings: LineSettings) -> None:
        """See `SettablePort.set`."""
        self._com.ask(settings)
        self._send()
        try:
            async with asyncio.timeout(SET_S):
                while not self._com.is_set:
                    await self._hear()
        except TimeoutError:
            # An answer that comes later would pass for that to another question.
            if self._tcp is not None:
                self._tcp.abort()
            raise OSError(errno.ETIMEDOUT, "the serial server does not confirm the settings of its port") from None
        if self._com.kept:
            raise OSError(errno.EINVAL, f"the serial server has set {self._com.kept} instead")

    async def _hear(self) -> None:
        if self._lost is not None:
            raise self._gone()
        self._news.clear()
        await self._news.wait()

    def _gone(self) -> OSError:
        return OSError(errno.ECONNRESET, f"closed by the serial server: {self._lost}")

    def _send(self) -> None:
        data = self._com.replies()
        if data and self._tcp is not None and not self._tcp.is_closing():
            self._tcp.write(data)
            if self._tcp.get_write_buffer_size() > ANSWERS_BYTES:
                self._tcp.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; `above` hears of it when the port is set."""
        self._tcp = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - the name is asyncio's
        """Take no more in one turn of the event loop than is understood in some milliseconds."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take telnet off."""
        data = bytes(self._buffer[:nbytes])
        plain = self._com.feed(data)
        self._send()
        self._news.set()
        if plain and self._is_open:
            self._above.data_received(plain)
        if self._is_open and self._com.refusal and self._tcp is not None:
            self._tcp.abort()  # it takes back what was agreed

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits, and `above` where it knows of the port."""
        self._lost = exc or ConnectionError("end of the connection")
        self._news.set()
        if self._is_open:
            self._above.connection_lost(exc)

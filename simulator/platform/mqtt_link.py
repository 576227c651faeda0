"""What MQTT needs of the line: whole handshakes, the right version, TLS in front of a broker that has none.

It hides a client that vanishes before the broker has answered its CONNECT: the broker's end is then held until the answer
has come, because a handshake that fails can break that broker for good. And where the platform is to be an old one it
answers a CONNECT of another level than 4 as MQTT 3.1.1 section 3.1.2.2 demands, before the broker sees it.
Limits: 5 s for a client's TLS handshake and first bytes, 2 s for the answer to a CONNECT that nobody waits for any more, and
for who was sent away to leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, Final

from simulator.platform.link import Far, Link

LEVEL_3_1_1: Final = 4
_FIRST_LIMIT_S: Final = 5.0
_ANSWER_LIMIT_S: Final = 2.0
_CHUNK: Final = 4096
_CONNECT: Final = 0x10
_LONGEST_HEAD: Final = 1 + 4 + 2 + 4 + 1  # type, remaining length, length of the name, "MQTT", level
_WRONG_LEVEL: Final = b"\x20\x02\x00\x01"  # CONNACK, unacceptable protocol level


class MqttLink(Link):
    """A line to a broker. `only` is the one protocol level that the platform admits to; None: the broker says so itself."""

    def __init__(
        self, target: int, *, port: int = 0, only: int | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(target, port=port)
        self.wrong_level = 0
        self._only = only
        self._tls = tls
        self._shields: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Reset everything and give the port back."""
        await super().stop()
        for shield in self._shields:
            shield.cancel()
        await asyncio.gather(*self._shields, return_exceptions=True)

    def stats(self) -> dict[str, Any]:
        """Return what the line carries. `wrong_level`: clients whose version the platform does not speak."""
        return {**super().stats(), "wrong_level": self.wrong_level}

    def heard(self, far: Far) -> None:
        """Let the kernel acknowledge: the broker leaves Nagle's algorithm on, and would hold its next message 40 ms."""
        super().heard(far)
        sock = far.writer.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    async def _take_up(self, client: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._tls is None:
            return await super()._take_up(client)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, client, ssl=self._tls, ssl_handshake_timeout=_FIRST_LIMIT_S
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _admit(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter, head: bytes) -> bytes | None:
        if self._only is None:
            return head
        async with asyncio.timeout(_FIRST_LIMIT_S):
            while (level := _level(head)) is None:
                more = await reader.read(_LONGEST_HEAD)
                if not more:
                    return None
                head += more
        if level in {0, self._only}:
            return head
        self.wrong_level += 1
        await asyncio.sleep(2 * self.delay_s)
        await self.flowing.wait()
        near.write(_WRONG_LEVEL)
        near.write_eof()
        # Closing while more comes would be a reset, and that may overtake the answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                while await reader.read(_CHUNK):
                    pass
        return None

    def _may_end(self, far: Far) -> bool:
        return far.answered or not far.asked

    def _let_go(self, far: Far) -> None:
        if self._may_end(far):
            super()._let_go(far)
            return
        shield = asyncio.create_task(_await_answer(far), name="link-shield")
        self._shields.add(shield)
        shield.add_done_callback(self._shields.discard)


async def _await_answer(far: Far) -> None:
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                await far.reader.read(1)
    finally:
        far.writer.transport.abort()


def _level(head: bytes) -> int | None:
    """Return the protocol level that a CONNECT asks for; 0 for anything else (the broker's affair), None when more must come.

    MQTT 3.1.1 and 5.0 agree on this much (section 3.1): type, remaining length of 1 to 4 bytes, name, level.
    """
    if head[:1] not in (b"", bytes([_CONNECT])):
        return 0
    length = next((n for n, byte in enumerate(head[1:5], start=1) if byte < 0x80), None)
    if length is None:
        return 0 if len(head) >= 5 else None
    name = head[1 + length :]
    if len(name) < 7:
        return None
    return name[6] if name[:6] == b"\x00\x04MQTT" else 0

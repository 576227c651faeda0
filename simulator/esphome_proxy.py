"""A pretended Bluetooth proxy of ESPHome: the device's side of its native API, plain or encrypted, over TCP.

Written from the protocol's description and the messages of aioesphomeapi's own `api_pb2`. What a proxy does in the field that
hurts can be asked of it: it serves one listener of adverts at a time and refuses others without a word, hangs, goes deaf, is
cut off without a word (`silent`), resets, or reboots.
A plain frame is 00, length, type (both varints), message. An encrypted one is 01, length u16 BE, bytes: after the hello (client:
empty; proxy: 01 name 00 mac 00) and the handshake (00 and a message of Noise_NNpsk0_25519_ChaChaPoly_SHA256), type and length
(u16 BE each) and the message, sealed.
Limits: a message of 32 KiB; adverts go out one a message.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from aioesphomeapi import api_pb2
from cryptography.exceptions import InvalidTag
from noise.connection import NoiseConnection  # type: ignore[import-untyped]  # it has no types

from simulator.bluez_objects import Report

_NOISE: Final = b"Noise_NNpsk0_25519_ChaChaPoly_SHA256"
_PROLOGUE: Final = b"NoiseAPIInit\x00\x00"
_MAX_MESSAGE: Final = 32 * 1024
_RAW_ADVERTISEMENTS: Final = 1 << 5
_STATE_AND_MODE: Final = 1 << 6
_RUNNING: Final = 2
# api.proto numbers its messages in options.
_HELLO, _HELLO_BACK, _LOGIN, _LOGIN_BACK, _BYE, _BYE_BACK, _PING, _PONG, _ABOUT, _ABOUT_BACK = range(1, 11)
_SUBSCRIBE: Final = 66
_ADVERTS: Final = 93
_SCANNER: Final = 126


class _Refused(Exception):
    """The client does not speak as it must."""


@dataclass(slots=True)
class _Plain:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def open(self) -> None:
        """Nothing comes before the messages."""

    async def read(self) -> tuple[int, bytes]:
        if await self.reader.readexactly(1) != b"\0":
            self.writer.write(b"\0Bad indicator byte")
            raise _Refused("not plain")
        length, kind = await self._varint(), await self._varint()
        if length > _MAX_MESSAGE:
            raise _Refused("too long")
        return kind, await self.reader.readexactly(length)

    def write(self, kind: int, data: bytes) -> None:
        self.writer.write(b"\0" + _varint(len(data)) + _varint(kind) + data)

    async def _varint(self) -> int:
        value = shift = 0
        while shift < 32:
            byte = (await self.reader.readexactly(1))[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise _Refused("a number without an end")


@dataclass(slots=True)
class _Sealed:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    key: bytes
    name: str
    noise: Any = None

    async def open(self) -> None:
        """Shake hands. Raises _Refused for a client with another key, after it was told so."""
        if await self._frame():
            raise _Refused("a hello that is not empty")
        self._put(b"\x01" + self.name.encode() + b"\0" + b"aabbccddeeff\0")
        self.noise = NoiseConnection.from_name(_NOISE)
        self.noise.set_as_responder()
        self.noise.set_psks(self.key)
        self.noise.set_prologue(_PROLOGUE)
        self.noise.start_handshake()
        try:
            self.noise.read_message((await self._frame())[1:])
        except InvalidTag:
            self._put(b"\x01Handshake MAC failure")
            raise _Refused("another key") from None
        self._put(b"\0" + self.noise.write_message())

    async def read(self) -> tuple[int, bytes]:
        clear = self.noise.decrypt(await self._frame())
        kind, _length = struct.unpack(">HH", clear[:4])
        return kind, bytes(clear[4:])

    def write(self, kind: int, data: bytes) -> None:
        self._put(self.noise.encrypt(struct.pack(">HH", kind, len(data)) + data))

    async def _frame(self) -> bytes:
        if await self.reader.readexactly(1) != b"\x01":
            self._put(b"\x01Bad indicator byte")
            raise _Refused("not encrypted")
        return await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(2), "big"))

    def _put(self, data: bytes) -> None:
        self.writer.write(b"\x01" + len(data).to_bytes(2, "big") + data)


@dataclass(slots=True)
class FakeProxy:
    """One proxy on 127.0.0.1. `key`: base64, "" for plain; `features`: what it says that it can.

    `is_taken`: somebody else is served; `hangs`: accepts and says nothing; `silent`: alive for TCP, but reads and says nothing
    more; `is_deaf`: hears nothing; `keeps`: a connection that says good-bye is neither answered nor ended.
    """

    key: str = ""
    name: str = "proxy"
    features: int = _RAW_ADVERTISEMENTS | _STATE_AND_MODE
    is_taken: bool = False
    is_deaf: bool = False
    keeps: bool = False
    hangs: bool = False
    silent: bool = False
    port: int = 0
    connections: int = 0
    subscribed: int = 0
    asked: int = 0
    _server: asyncio.Server | None = None
    _wires: dict[asyncio.StreamWriter, _Plain | _Sealed] = field(default_factory=dict)
    _served: list[_Plain | _Sealed] = field(default_factory=list)

    async def start(self) -> None:
        """Listen; on the port of before, where there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Switch it off: its connections are reset, and nobody answers."""
        server, self._server = self._server, None
        self.reset()
        if server is not None:
            server.close()
            await asyncio.sleep(0)

    def reset(self) -> None:
        """Reset every connection."""
        for writer in list(self._wires):
            sock = writer.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._served.clear()

    def hear(self, report: Report) -> bool:
        """Hand a report up; tell whether anybody is served."""
        if self.is_deaf or self.silent or not self._served:
            return False
        data = b"".join(bytes((len(part) + 1, kind)) + part for kind, part in report.structures())
        message = _message("BluetoothLERawAdvertisementsResponse")
        message.advertisements.add(
            address=int(report.address.replace(":", ""), 16), rssi=report.rssi, address_type=1, data=data
        )
        for wire in self._served:
            wire.write(_ADVERTS, message.SerializeToString())
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        key = base64.b64decode(self.key)
        wire = _Sealed(reader, writer, key, self.name) if key else _Plain(reader, writer)
        self._wires[writer] = wire
        try:
            if self.hangs:
                await reader.read()  # until it gives up
                return
            await wire.open()
            while True:
                kind, _data = await wire.read()
                while self.silent:
                    await asyncio.sleep(0.01)
                if not self._answer(wire, kind):
                    await writer.drain()
                    return
        except (_Refused, OSError, asyncio.IncompleteReadError, InvalidTag):
            pass  # whoever it was is gone, or is to go
        finally:
            self._wires.pop(writer, None)
            if wire in self._served:
                self._served.remove(wire)
            writer.close()

    def _answer(self, wire: _Plain | _Sealed, kind: int) -> bool:
        """Answer a message; False for the last one."""
        if kind == _HELLO:
            hello = _message(
                "HelloResponse", api_version_major=1, api_version_minor=10, server_info="fake", name=self.name
            )
            wire.write(_HELLO_BACK, hello.SerializeToString())
        elif kind == _LOGIN:
            wire.write(_LOGIN_BACK, b"")
        elif kind == _PING:
            wire.write(_PONG, b"")
        elif kind == _ABOUT:
            about = _message("DeviceInfoResponse", name=self.name, bluetooth_proxy_feature_flags=self.features)
            wire.write(_ABOUT_BACK, about.SerializeToString())
        elif kind == _SUBSCRIBE:
            self._subscribe(wire)
        elif kind == _BYE and not self.keeps:
            wire.write(_BYE_BACK, b"")
            return False
        return True

    def _subscribe(self, wire: _Plain | _Sealed) -> None:
        self.asked += 1
        if self.is_taken or any(one is not wire for one in self._served):
            return
        if wire not in self._served:
            self._served.append(wire)
            self.subscribed += 1
        if self.features & _STATE_AND_MODE:
            wire.write(_SCANNER, _message("BluetoothScannerStateResponse", state=_RUNNING, mode=1).SerializeToString())


def _message(kind: str, /, **values: object) -> Any:
    """Make a message: protobuf builds its classes when it is loaded, so no type checker knows them."""
    return getattr(api_pb2, kind)(**values)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

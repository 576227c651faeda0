"""Servers to connect to: the simulator's real broker, and one that says what the test tells it to, byte by byte."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.errors import SessionError
from gateway.mqtt_session import Endpoint, MqttSession, Will
from simulator.platform.broker import Broker

HOST = "127.0.0.1"


def connack(reason: int = 0, properties: bytes = b"") -> bytes:
    """MQTT 5.0 section 3.2."""
    return bytes((0x20, 3 + len(properties), 0, reason, len(properties))) + properties


def suback(mid: bytes, reason: int = 1, *, level: int = 5) -> bytes:
    """MQTT 5.0 and 3.1.1 section 3.9."""
    return b"\x90\x04" + mid + bytes((0, reason)) if level == 5 else b"\x90\x03" + mid + bytes((reason,))


def puback(mid: bytes, reason: int = 0, *, level: int = 5) -> bytes:
    """MQTT 5.0 and 3.1.1 section 3.4."""
    return b"\x40\x04" + mid + bytes((reason, 0)) if level == 5 else b"\x40\x02" + mid


class Told:
    """A server that answers each kind of packet as it was told to: by default as a good broker would."""

    def __init__(self) -> None:
        self.port = 0
        self.connack = connack()
        self.connack_3_1_1 = b"\x20\x02\x00\x00"
        self.level = 5
        self.levels: list[int] = []
        self.subscribe_reason: int | None = 1
        self.publish_reason: int | None = 0
        self.packets: list[tuple[int, bytes]] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.then: Callable[[int, asyncio.StreamWriter], None] = lambda _kind, _writer: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                kind, body = await packet(reader)
                self.packets.append((kind, body))
                self.answer(kind, body, writer)
                self.then(kind, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def answer(self, kind: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        if kind >> 4 == 1:
            self.level = body[6]  # after the name "MQTT": 5, or 4 for 3.1.1
            self.levels.append(self.level)
            writer.write(self.connack if self.level == 5 else self.connack_3_1_1)
        elif kind >> 4 == 8 and self.subscribe_reason is not None:
            writer.write(suback(body[:2], self.subscribe_reason, level=self.level))
        elif kind >> 4 == 3 and self.publish_reason is not None:
            (length,) = struct.unpack(">H", body[:2])
            writer.write(puback(body[2 + length : 4 + length], self.publish_reason, level=self.level))

    def kinds(self) -> list[int]:
        """MQTT 5.0 section 2.1.2: 1 CONNECT, 3 PUBLISH, 8 SUBSCRIBE, 12 PINGREQ, 14 DISCONNECT."""
        return [kind >> 4 for kind, _body in self.packets]


async def packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return kind, await reader.readexactly(length)


class Ear:
    """What a session told us, and a way to wait for it."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.pubacks: list[tuple[int, int]] = []
        self.errors: list[SessionError] = []

    @property
    def losses(self) -> list[str]:
        """What was said of each loss."""
        return [str(error.facts["error"]) for error in self.errors]

    def session(self, port: int, **more: Any) -> MqttSession:
        host = more.pop("host", HOST)
        version = more.pop("version", "5")
        client_id = more.pop("client_id", "gateway")
        will = more.pop("will", Will("state", b"gone"))
        return MqttSession(
            Endpoint(host, port, client_id, **more), will=will,
            on_message=lambda topic, payload: self.messages.append((topic, payload)),
            on_puback=lambda mid, reason: self.pubacks.append((mid, reason)),
            on_lost=self.errors.append, version=version,
        )  # fmt: skip


async def until(true: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Let the loop go on until something is true."""
    async with asyncio.timeout(limit_s):
        while not true():
            await asyncio.sleep(0.002)


def sockets() -> int:
    """How many sockets this process holds."""
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        try:
            found += str(one.readlink()).startswith("socket:")
        except OSError:
            continue
    return found


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def wait_until() -> Callable[..., Awaitable[None]]:
    return until


@pytest.fixture
def count_sockets() -> Callable[[], int]:
    return sockets


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    """The simulator's broker: rumqttd in a process of its own."""
    async with Broker() as running:
        yield running


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    """A server that says what it is told to."""
    server_side = Told()
    server = await asyncio.start_server(server_side.serve, HOST, 0)
    server_side.port = server.sockets[0].getsockname()[1]
    yield server_side
    server.close()
    for writer in server_side.writers:
        writer.close()
    await asyncio.gather(*(one.wait_closed() for one in server_side.writers), return_exceptions=True)


@pytest.fixture
def packets() -> Any:
    """The packets that a server may send."""

    class Packets:
        connack = staticmethod(connack)
        suback = staticmethod(suback)
        puback = staticmethod(puback)

    return Packets


@pytest.fixture
def deaf_port() -> Any:
    """A port whose queue of connections is full: connecting neither succeeds nor fails."""
    listening = socket.socket()
    listening.bind((HOST, 0))
    listening.listen(0)
    waiting = []
    for _ in range(4):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(listening.getsockname())
        waiting.append(one)
    yield listening.getsockname()[1]
    for one in (*waiting, listening):
        one.close()


class Certificate:
    """A certificate for 127.0.0.1 that signs itself, and its files."""

    def __init__(self, folder: Path, name: str, *, host: str = HOST, days: tuple[int, int] = (-1, 1)) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(days=days[0]))
            .not_valid_after(now + dt.timedelta(days=days[1]))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.key_file = folder / f"{name}.key"
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        self.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key_file)
        return context


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[..., Certificate]:
    """Make a certificate: its name, and the address that it is for."""
    return lambda name, **more: Certificate(tmp_path, name, **more)


@pytest.fixture
async def secure(certificate: Callable[..., Certificate]) -> AsyncIterator[tuple[Told, Certificate]]:
    """The told server behind TLS, and its certificate."""
    mine = certificate("platform")
    server_side = Told()
    server = await asyncio.start_server(server_side.serve, HOST, 0, ssl=mine.server_context())
    server_side.port = server.sockets[0].getsockname()[1]
    yield server_side, mine
    server.close()
    for writer in server_side.writers:
        writer.close()
    await asyncio.gather(*(one.wait_closed() for one in server_side.writers), return_exceptions=True)

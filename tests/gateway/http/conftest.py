"""A platform that answers byte by byte as it is told, with or without TLS; and certificates, right and wrong ones."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.clock import PlatformTime, SystemClock
from gateway.errors import SessionError
from gateway.events import Lane, Origin, Sending, Stored, new_event, sending_text
from gateway.profiles import Profile
from gateway.tls import Tls
from gateway.uplinks import Ack, UplinkEvents
from gateway.uplinks.http import HttpEndpoint, HttpUplink
from gateway.uplinks.http_pace import Pace

HOST = "127.0.0.1"
ORIGIN = Origin("org", "site", "gw")
CLOCK = SystemClock()
NOUNS = {Lane.A: "alarm.raised", Lane.B: "device.fault", Lane.C: "telemetry.meter", Lane.D: "telemetry.meter"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came, and the number of its connection."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    line: int
    writer: asyncio.StreamWriter = field(repr=False)

    @property
    def content(self) -> Any:
        return json.loads(self.body)

    @property
    def ids(self) -> list[str]:
        """The events in it."""
        content = self.content
        return [one["id"] for one in (content if isinstance(content, list) else [content])]


def reply(status: int = 200, body: bytes | str | dict[str, Any] = b"", **headers: str) -> bytes:
    """An answer, as bytes."""
    if isinstance(body, dict):
        body = json.dumps(body)
    content = body.encode() if isinstance(body, str) else body
    lines = [
        f"{name.replace('_', '-')}: {value}" for name, value in {"content_length": len(content), **headers}.items()
    ]
    return f"HTTP/1.1 {status} Said\r\n{''.join(line + chr(13) + chr(10) for line in lines)}\r\n".encode() + content


def results(ids: list[str], status: str = "accepted", **more: object) -> bytes:
    return reply(200, {"results": [{"id": one, "status": status, **more} for one in ids]})


def good(asked: Asked) -> bytes:
    """What a platform that works says."""
    return reply(204) if asked.method == "PUT" else results(asked.ids)


class Platform:
    """A server that answers as `conduct` says: bytes, or None for nothing at all."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.conduct: Callable[[Asked], Awaitable[bytes | None] | bytes | None] = good
        self.asked: list[Asked] = []
        self.lines = 0
        self.heard = 0
        self.port = 0
        self._tls = tls
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._server: asyncio.Server | None = None

    async def start(self, host: str = HOST, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def deaf(self) -> None:
        """Take no new connection; those that stand go on."""
        assert self._server is not None
        self._server.close()

    def hang_up(self) -> None:
        """End every connection, as a server does that restarts."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        self._writers.append(writer)
        self.lines += 1
        number = self.lines
        try:
            while True:
                asked = await self._request(reader, writer, number)
                self.asked.append(asked)
                said = self.conduct(asked)
                said = await said if isinstance(said, Awaitable) else said
                if said is not None:
                    writer.write(said)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # cancelled by `stop` only; asyncio 3.11 would log it as a fault
        finally:
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> Asked:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heard += len(head)
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.heard += len(body)
        method, path, _version = first.split(" ")
        return Asked(method, path, headers, body, number, writer)

    def posts(self) -> list[Asked]:
        return [one for one in self.asked if one.method == "POST"]

    def puts(self, place: str) -> list[Asked]:
        return [one for one in self.asked if one.method == "PUT" and one.path.endswith(f"/{place}")]


class Told:
    """What a transport has told its deliverer."""

    def __init__(self) -> None:
        self.acks: list[Ack] = []
        self.sent: list[tuple[int, bool]] = []
        self.losses: list[SessionError] = []
        self.doubts: list[SessionError | None] = []
        self.order: list[str] = []
        self.events = UplinkEvents(acks=self._acks, sent=self._sent, lost=self._lost, doubted=self.doubts.append)

    def _acks(self, acks: list[Ack]) -> None:
        self.order.append("acks")
        self.acks.extend(acks)

    def _sent(self, token: int, ok: bool) -> None:
        self.order.append("sent")
        self.sent.append((token, ok))

    def _lost(self, error: SessionError) -> None:
        self.order.append("lost")
        self.losses.append(error)


class Site:
    """A gateway's uplink and what it needs: made, opened and closed with little to say."""

    def __init__(self) -> None:
        self.told = Told()
        self.on_time: Callable[[PlatformTime], None] | None = None
        self.birth: dict[str, object] = {"gateway": "gw", "rooms": [{"id": "201"}]}
        self._uplinks: list[HttpUplink] = []

    def uplink(
        self,
        url: str,
        *,
        tls: Tls | None = None,
        authorization: Callable[[], str] = lambda: "",
        profile: Profile | None = None,
        **pace: float,
    ) -> HttpUplink:
        endpoint = HttpEndpoint(url, authorization, tls)
        made = HttpUplink(
            endpoint, ORIGIN, destination="district", pace=Pace(**pace), profile=profile, on_time=self.on_time
        )
        self._uplinks.append(made)
        return made

    async def opened(self, platform: Platform, **more: Any) -> HttpUplink:
        """An uplink that stands."""
        made = self.uplink(f"http://{HOST}:{platform.port}", **more)
        await self.open(made)
        return made

    async def open(self, uplink: HttpUplink, epoch: int = 1) -> None:
        await uplink.open(self.told.events, epoch=epoch, birth=self.birth)

    async def refused(self, uplink: HttpUplink) -> SessionError:
        """Why it does not open."""
        with pytest.raises(SessionError) as caught:
            await self.open(uplink)
        return caught.value

    async def close(self) -> None:
        for one in self._uplinks:
            await one.close()


def text(lane: Lane, seq: int, device: str = "d1", **data: object) -> str:
    """An event as a deliverer hands it over."""
    event = new_event(NOUNS[lane], ORIGIN, device=device, at=CLOCK.stamp(), data=data, correlation="alarm-1")
    row = Stored(
        seq, lane, event.id, event.noun, device, CLOCK.stamp().wall_ms, event.at, {"district": seq}, event.body
    )
    return sending_text(row, Sending("district", "stream-1", 0, 1, buffered=False))


def texts(lane: Lane, number: int) -> list[str]:
    return [text(lane, seq, f"d{seq}") for seq in range(1, number + 1)]


async def until(true: Callable[[], object], limit_s: float = 30.0) -> None:
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
async def platform() -> AsyncIterator[Platform]:
    made = Platform()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """Whatever a test does with its uplinks: after the last close no task and no connection of theirs is left."""
    made = Site()
    yield made
    await made.close()
    await until(lambda: not [one for one in asyncio.all_tasks() if one.get_name().startswith("http-")])
    gc.collect(1)  # a connection that was not closed says so now, and fails the test


class Authority:
    """A certificate authority of its own, and what it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._signed(self._name, self._key, days=(-1, 1), names=(), ca=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: tuple[int, int], names: tuple[str, ...],
        ca: bool = False,
    ) -> x509.Certificate:  # fmt: skip
        now = dt.datetime.now(dt.UTC)
        own = self._key.public_key()
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"), False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(days=days[0]))
            .not_valid_after(now + dt.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
            .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=ca, crl_sign=ca, **usage), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(one) for one in names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())

    def signed(self, *names: str, days: tuple[int, int] = (-1, 1)) -> tuple[Path, Path]:
        """Make a certificate for these names; return its file and its key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
        made = self._signed(subject, key, days=days, names=names)
        stem = self._folder / f"signed-{made.serial_number}"
        file, key_file = stem.with_suffix(".pem"), stem.with_suffix(".key")
        file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        private = serialization.PrivateFormat.PKCS8
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
        return file, key_file

    def server(self, *names: str, days: tuple[int, int] = (-1, 1)) -> ssl.SSLContext:
        """The server's side of TLS with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.signed(*names, days=days))
        return context


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture
def authority(tmp_path: Path) -> Callable[[str], Authority]:
    return lambda name: Authority(tmp_path, name)


@pytest.fixture
async def serving() -> AsyncIterator[Callable[..., Awaitable[Platform]]]:
    """Start a platform: its TLS context, its address, its port."""
    started: list[Platform] = []

    async def start(tls: ssl.SSLContext | None = None, **where: Any) -> Platform:
        made = Platform(tls)
        await made.start(**where)
        started.append(made)
        return made

    yield start
    for one in started:
        await one.stop()


@pytest.fixture
def make() -> Any:
    """What tests make: answers, events, and time to wait."""

    class Make:
        reply = staticmethod(reply)
        results = staticmethod(results)
        good = staticmethod(good)
        text = staticmethod(text)
        texts = staticmethod(texts)
        until = staticmethod(until)
        sockets = staticmethod(sockets)

    return Make

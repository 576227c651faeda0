"""A network or a file system of its own for a test that breaks one, and what leads into it: ports, and names to be trusted."""

from __future__ import annotations

import asyncio
import ctypes
import datetime as dt
import ipaddress
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).parents[4]
CLONE_NEWNET = 0x40000000


class Apart:
    """A network and a file system of its own, kept by a process that sleeps. What is begun by `prefix` lives there."""

    def __init__(self, script: str, flags: Sequence[str]) -> None:
        self._flags = tuple(flags)
        self._process = subprocess.Popen(
            ["unshare", *flags, "sh", "-ec", f"{script}\necho ready\nexec sleep 600"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.said = ""
        for line in self._process.stdout:
            if line == "ready\n":
                return
            self.said += line
        self.close()

    @property
    def works(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("nsenter", f"--target={self.pid}", *self._flags, f"--wd={ROOT}", "--")

    def run(self, script: str) -> str:
        done = subprocess.run(
            [*self.prefix, "sh", "-ec", script], capture_output=True, text=True, timeout=30, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def listening(self, host: str, port: int = 0) -> socket.socket:
        """Return a socket that listens in there, for this process: where a socket lives is settled when it is made."""
        made: list[socket.socket] = []

        def make() -> None:
            with Path(f"/proc/{self.pid}/ns/net").open("rb") as network:
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server((host, port)))

        thread = threading.Thread(target=make)  # it alone is there, and ends
        thread.start()
        thread.join()
        return made[0]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def apart() -> Iterator[Callable[[str], Apart]]:
    """Make places apart; the script prepares each. Skips, and says so, where that is not allowed."""
    made: list[Apart] = []

    def make(script: str = "ip link set lo up", *flags: str) -> Apart:
        if os.geteuid() != 0:
            pytest.skip("only root can take a network or a file system apart here: this row of the table is not proven")
        here = Apart(script, flags or ("--net", "--mount"))
        made.append(here)
        if not here.works:
            pytest.skip(
                f"no network or file system apart can be had here, this row of the table is not proven: {here.said}"
            )
        return here

    yield make
    for one in made:
        one.close()


class Forward:
    """A port whose connections lead to another of this machine: `to` may change."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self, listening: socket.socket | None) -> Forward:
        listening = listening or socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self._server = await asyncio.start_server(self._pass_on, sock=listening)
        return self

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copied(reader, back), _copied(there, writer))

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@pytest.fixture
async def forward() -> AsyncIterator[Callable[..., Awaitable[Forward]]]:
    """Lead a port to another; one that listens apart, or a free one of this machine."""
    made: list[Forward] = []

    async def make(to: int, listening: socket.socket | None = None) -> Forward:
        made.append(await Forward(to).open(listening))
        return made[-1]

    yield make
    for one in made:
        one.close()


# -- certificates ------------------------------------------------------------------------------------------------


class Authority:
    """Who vouches for a platform: `certify` puts into a folder what a platform needs to be known by these names."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "district authority")])

    def _builder(self, name: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=90))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def certify(self, folder: Path, names: Sequence[str]) -> Path:
        """Return the file that a gateway is to trust."""
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        off = (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "encipher_only", "decipher_only",
        )  # fmt: skip
        ca = (
            self._builder("district authority", self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **dict.fromkeys(off, False)), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        key = ec.generate_private_key(ec.SECP256R1())
        known = [_general(name) for name in names]
        server = (
            self._builder(names[0], key.public_key())
            .add_extension(x509.SubjectAlternativeName(known), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        (folder / "ca.pem").chmod(0o644)
        (folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
        (folder / "server.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return folder / "ca.pem"


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture
def authority() -> Authority:
    return Authority()

"""A real mosquitto for each test that asks for one: with passwords, rights, TLS and limits as the test writes them.

Where the program is missing these tests are skipped, and say so: apt-get install mosquitto (`make test` does it as root).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from simulator.scenario import free_ports

HOST = "127.0.0.1"
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
USER, PASSWORD = "gw-01", "geheim-und-lang"


class Mosquitto:
    """One broker. `start` returns when it listens; what it says is in `said`."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.name = f"mosquitto-{number}"
        self.port = 0
        self.lines: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self.log = folder / f"{self.name}.log"

    async def start(self, *lines: str) -> None:
        """Start with these lines of configuration, or with those of before. Anonymous clients unless told otherwise."""
        if lines or not self.lines:
            self.lines = list(lines)
        for _ in range(5):  # somebody may take a free port between our look and the broker's
            self.port = self.port or free_port()
            if await self._start_once():
                return
            self.port = 0
        raise AssertionError(f"mosquitto does not start:\n{self.said}")

    async def _start_once(self) -> bool:
        lines = list(self.lines)
        if not any(line.startswith("allow_anonymous") for line in lines):
            lines.append("allow_anonymous true")
        config = self.folder / f"{self.name}.conf"
        # As root it would become the user mosquitto, who must not read what is in here.
        head = ["user root"] if os.geteuid() == 0 else []
        head += ["persistence false", "log_type all", "log_dest stderr", f"listener {self.port} {HOST}"]
        config.write_text("\n".join([*head, *lines, ""]))
        program = shutil.which("mosquitto", path=SEARCHED)
        assert program is not None
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(program, "-c", str(config), stderr=log, stdout=log)
        async with asyncio.timeout(30):
            while self.process.returncode is None:
                try:
                    _reader, writer = await asyncio.open_connection(HOST, self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return True
        return False

    async def stop(self, *, kill: bool = False) -> None:
        """End it, politely or not."""
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            process.kill() if kill else process.terminate()
            async with asyncio.timeout(30):
                await process.wait()

    @property
    def said(self) -> str:
        """Everything that it has logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def password_file(self, user: str = USER, password: str = PASSWORD) -> str:
        """Make a password file; return its line of configuration."""
        tool = shutil.which("mosquitto_passwd", path=SEARCHED)
        assert tool is not None
        file = self.folder / "passwords"
        subprocess.run([tool, "-b", "-c", str(file), user, password], check=True, capture_output=True)
        return f"password_file {file}"

    def acl_file(self, *lines: str) -> str:
        """Make a file of rights; return its line of configuration."""
        file = self.folder / "rights"
        file.write_text("\n".join([*lines, ""]))
        return f"acl_file {file}"

    def no_right_to_subscribe(self, but: str = "") -> list[str]:
        """Return lines that refuse every subscription, `but` one: a file of rights cannot, it only keeps messages back."""
        plugin = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"), None)
        if plugin is None:
            pytest.skip("this mosquitto comes without mosquitto_dynamic_security.so: it can refuse no subscription")
        file = self.folder / "rights.json"
        access = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
        rights: dict[str, Any] = {"defaultACLAccess": access}
        if but:
            acls = [{"acltype": "subscribeLiteral", "topic": but, "allow": True}]
            rights |= {
                "roles": [{"rolename": "some", "acls": acls}], "anonymousGroup": "all",
                "groups": [{"groupname": "all", "roles": [{"rolename": "some"}]}],
            }  # fmt: skip
        file.write_text(json.dumps(rights))
        return [f"plugin {plugin}", f"plugin_opt_config_file {file}", "allow_anonymous true"]


def free_port() -> int:
    return free_ports(["broker"])["broker"]


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    file: Path
    key_file: Path


class Authority:
    """A certificate authority of one test."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = self._builder(self._subject, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        unused = (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "encipher_only", "decipher_only",
        )  # fmt: skip
        usage = dict.fromkeys(unused, False)
        # Python 3.13 verifies by RFC 5280 to the letter: an authority without this identifier is refused there.
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        made = made.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    def pair(self, name: str, *, names: Sequence[str] = (), addresses: Sequence[str] = (HOST,)) -> Pair:
        """Sign a certificate for these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        others = [*(x509.DNSName(one) for one in names), *(x509.IPAddress(ipaddress.ip_address(a)) for a in addresses)]
        made = self._builder(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), key.public_key())
        made = made.add_extension(x509.SubjectAlternativeName(others), critical=False)
        made = made.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        pair.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        pair.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair


@pytest.fixture
async def new_mosquitto(tmp_path: Path) -> AsyncIterator[Callable[[], Mosquitto]]:
    """Make brokers; they end with the test."""
    if shutil.which("mosquitto", path=SEARCHED) is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto): nothing is proven against a real broker")
    made: list[Mosquitto] = []

    def make() -> Mosquitto:
        made.append(Mosquitto(tmp_path, len(made) + 1))
        return made[-1]

    yield make
    for one in made:
        await one.stop(kill=True)


@pytest.fixture
def mosquitto(new_mosquitto: Callable[[], Mosquitto]) -> Mosquitto:
    """One broker, not started yet."""
    return new_mosquitto()


@pytest.fixture
def authority(tmp_path: Path) -> Callable[[str], Authority]:
    """Make a certificate authority."""
    return lambda name: Authority(tmp_path, name)


@pytest.fixture
def login() -> dict[str, Any]:
    """What gets in."""
    return {"username": USER, "password": PASSWORD}

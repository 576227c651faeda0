"""A small centre that is well, beside which each test breaks one thing: a button behind TCP, a platform, a daemon.

The daemon and `gateway diagnose` run as an unprivileged user where the tests are root's, for root is denied nothing. The
machine's own clock and service manager are put aside by commands that are found before its own (`Centre.command`), so
that what is told first is what the test broke. Its files lie on a real file system: in memory would be a finding itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import datetime as dt
import grp
import ipaddress
import json
import os
import pty
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from simulator.platform import District, district

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Board, Gateway
else:
    Board = Gateway = Any

ROOT = Path(__file__).parents[3]
NOBODY = "nobody"
CLONE_NEWNET = 0x40000000
CHINESE = re.compile("[\u4e00-\u9fff]")
# A key instead of its words, a value that nobody filled in, a part that should have been left out, Python's own words.
BROKEN = re.compile(r"@[a-z]+\.|<<|>>|\{[a-z_]+\}|(?<!\w)\?|None|Error\(|Traceback")

HEAD = """
[gateway]
id = "gw"
org = "org"
site = "site"
data_dir = "{folder}/data"
control_socket = "{folder}/control.sock"
lang = "zh"

[[serial]]
id = "wire"
port = "socket://127.0.0.1:{board}"

[[device]]
id = "board-1"
model = "json-lines"
link = "wire"
address = "b1"
map = {{ signal = [ {{ field = "ev", equals = "press", is = "call" }} ] }}
"""
PLATFORM = """
[[destination]]
id = "district"
reconnect_spread_s = 0
  [[destination.path]]
  url = "mqtt://127.0.0.1:{platform}"
"""


@dataclass(frozen=True)
class Told:
    """What `gateway diagnose` said: on paper in Chinese, as a document in English, and the exit status of both."""

    status: int
    paper: str
    document: dict[str, Any]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [line for section in self.document["sections"] for line in section["lines"]]

    def line(self, code: str, subject: str) -> dict[str, Any]:
        found = [one for one in self.lines if (one["code"], one["subject"]) == (code, subject)]
        assert len(found) == 1, f"{code} {subject}: {found}\n{self.paper}"
        return found[0]

    @property
    def bad(self) -> list[tuple[str, str]]:
        """What is bad and follows from nothing else, in the order of the sections."""
        return [
            (one["code"], one["subject"])
            for one in self.lines
            if one["verdict"] in ("warning", "problem") and not one["hidden_by"]
        ]

    def says_first(self, code: str, subject: str, *, zh: tuple[str, str], en: tuple[str, str], status: int) -> None:
        """The first thing to do is this one, in words that were written out here: title and remedy, zh and en."""
        first = self.document["first"]
        assert first == {"code": code, "subject": subject}, f"{first}\n{self.paper}"
        assert (self.status, self.document["exit_status"]) == (status, status), self.paper
        end = self.paper.splitlines()[-6:]
        assert f"先做这件事：{code}  {zh[0]}" in end, self.paper
        assert f"  办法：{zh[1]}" in end, self.paper
        assert end[-1].startswith(f"打电话时请报：{code.removeprefix('GW-').replace('-', '')} "), self.paper
        line = self.line(code, subject)
        assert (line["title"], line["remedy"]) == en
        self.reads_well()

    def reads_well(self) -> None:
        """No text is broken, and each is in its language."""
        assert not BROKEN.search(self.paper), BROKEN.search(self.paper)
        for one in self.lines:
            words = " ".join(str(one.get(part) or "") for part in ("what", "title", "meaning", "remedy"))
            assert not CHINESE.search(words), one
            assert not BROKEN.search(words), one
            if one["verdict"] in ("warning", "problem"):
                assert one["title"]
                assert one["meaning"]
                assert one["remedy"]


@dataclass
class Centre:
    """The centre: `user` are the words before a command that make it somebody's who is not root."""

    gateway: Gateway
    board: Board
    platform: District
    user: tuple[str, ...]
    presses: int = 0
    _where: tuple[str, ...] = field(default=(), init=False)

    @property
    def folder(self) -> Path:
        return self.gateway.folder

    def own(self, *paths: Path) -> None:
        """Give files to whoever the daemon runs as."""
        if self.user:
            for path in paths:
                shutil.chown(path, NOBODY, group_of(NOBODY))

    def secret(self, name: str, content: str) -> Path:
        file = self.folder / name
        file.touch(mode=0o600)
        file.write_text(content, encoding="utf-8")
        self.own(file)
        return file

    def command(self, name: str, says: str, status: int = 0) -> None:
        """Put a command there that is found before the machine's own."""
        script = self.folder / "bin" / name
        script.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n", encoding="utf-8")
        script.chmod(0o755)

    def configure(self, more: str = "", **values: object) -> None:
        """Write the configuration: what is well, and more."""
        self.write((HEAD + PLATFORM + more).format(
            folder=self.folder, board=self.board.port, platform=self.platform.port, **values
        ))  # fmt: skip

    def write(self, text: str | bytes) -> None:
        """Write the configuration as it stands."""
        self.gateway.config.write_bytes(text.encode() if isinstance(text, str) else text)
        self.gateway.config.chmod(0o640)
        self.own(self.gateway.config)

    def moves(self, apart: Apart) -> None:
        """From now on daemon and diagnosis live apart from the rest of the machine."""
        self._where = apart.prefix
        self.gateway.prefix = (*self._where, *self.user)

    # -- what must go on ----------------------------------------------------------------------------------------

    async def call_is_heard(self) -> None:
        """Somebody calls for help: it is stored (only then acknowledged to the button), and the platform accepts it.

        Staff see to it, so that the next call is another alarm.
        """
        self.presses += 1
        await self.board.press(self.presses)
        await self.alarms_arrived(self.presses)
        await self.seen_to()

    async def alarms_arrived(self, count: int, device: str = "board-1") -> None:
        """So many alarms of a device have been accepted by the platform, none twice."""
        end = time.monotonic() + 15
        while len(self.accepted(device)) < count:
            assert time.monotonic() < end, f"{count} alarms of {device} did not arrive\n{self.gateway.said()}"
            await asyncio.sleep(0.02)
        assert len(self.accepted(device)) == count

    async def seen_to(self) -> None:
        """Staff close every alarm."""
        for alarm in await self.gateway.ask("alarms.list"):
            await self.gateway.ask("alarms.close", id=alarm["id"], by="n-07", why="seen to")

    def accepted(self, device: str = "board-1") -> list[dict[str, Any]]:
        """Every alarm that the platform has accepted of a device."""
        ledger = self.folder / "platform-district.jsonl"
        rows = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        return [
            row["event"]
            for row in rows
            if (row["device"], row["status"]) == (device, "accepted") and "alarm.raised" in row["type"]
        ]

    # -- what is told -------------------------------------------------------------------------------------------

    def logged(self, *turns: tuple[str, str, str]) -> None:
        """These problems came ("on") and went ("off"), each told once, in this order for each; nothing else was."""
        said = self.gateway.turns()
        assert sorted(said, key=lambda one: one[:2]) == sorted(turns, key=lambda one: one[:2]), self.gateway.said()
        assert "Traceback" not in self.gateway.said()
        assert [line for line in self.gateway.said().splitlines() if not line.startswith("{")] == []
        for one in self.gateway.entries():
            assert "exception" not in one, one
            if one.get("turn") == "on":
                assert one["event"]
                assert not BROKEN.search(one["event"]), one

    async def problem(self, code: str, subject: str, *, within_s: float = 15.0) -> None:
        """Wait until the daemon tells it."""
        await self.gateway.until(
            f"told {code}", lambda status: (code, subject) in _problems(status), within_s=within_s
        )

    async def well(self, *besides: str, within_s: float = 20.0) -> None:
        """Wait until no problem is left, and everything hears and is connected."""
        await self.gateway.until(
            "well",
            lambda status: (
                not status["problems"]
                and all(one["hearing"] for one in status["links"])
                and all(one["connected"] for one in status["destinations"])
            ),
            within_s=within_s,
        )

    async def diagnose(self) -> Told:
        """Ask for a diagnosis in both languages at once."""
        zh, en = await asyncio.gather(self._ask("--lang", "zh"), self._ask("--lang", "en", "--json"))
        assert zh[0] == en[0]
        return Told(zh[0], zh[1], json.loads(en[1]))

    async def _ask(self, *words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *self._where, *self.user, sys.executable, "-m", "gateway", "diagnose", "--config", str(self.gateway.config),
            *words, cwd=ROOT, env={**os.environ, "NO_COLOR": "1", **self.gateway.env}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, errors = await process.communicate()
        assert errors == b"", errors.decode(errors="replace")
        assert process.returncode is not None
        return process.returncode, out.decode()

    async def refuses_to_start(self) -> str:
        """It ends by itself with exit status 2; return what it said."""
        await self.gateway.start()
        assert await self.gateway.ended() == 2, self.gateway.said()
        said: str = self.gateway.said()
        assert "Traceback" not in said
        assert not BROKEN.search(said)
        return said


def _problems(status: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["code"], one["subject"]) for one in status["problems"]}


def group_of(user: str) -> str:
    return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name


@pytest.fixture(scope="session")
def user() -> tuple[str, ...]:
    """Words before a command that take root's rights away; none where the tests have none."""
    if os.geteuid() != 0:
        return ()
    nobody = pwd.getpwnam(NOBODY)
    words = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--")
    tried = subprocess.run([*words, sys.executable, "-c", "import gateway"], cwd=ROOT, capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"root cannot become {NOBODY} here, or {NOBODY} cannot read the program: {tried.stderr.decode()[-300:]}")
    return words


@pytest.fixture
def folder(user: tuple[str, ...]) -> Iterator[Path]:
    """A folder on a real file system that the daemon may enter."""
    here = Path(tempfile.mkdtemp(prefix="gw-", dir="/var/tmp"))
    here.chmod(0o755)
    (here / "bin").mkdir()
    (here / "bin").chmod(0o755)
    yield here
    shutil.rmtree(here)


@pytest.fixture
async def gateway(gateway: Gateway, folder: Path, user: tuple[str, ...]) -> AsyncIterator[Gateway]:
    """The gateway in that folder. Whatever happens, no process stays behind."""
    here = type(gateway)(folder, prefix=user)
    here.env["PATH"] = f"{folder}/bin:{os.environ['PATH']}"
    yield here
    if here.process is not None and here.process.returncode is None:
        with suppress(ProcessLookupError):
            here.process.kill()
        await here.process.wait()


@pytest.fixture
async def centre(gateway: Gateway, board: Board, user: tuple[str, ...]) -> AsyncIterator[Centre]:
    """The centre, not running yet: configure it, and start its gateway."""
    async with district(gateway.folder) as platform:
        here = Centre(gateway, board, platform, user)
        here.own(gateway.folder)
        here.command("timedatectl", "yes")
        here.command("systemctl", "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNRestarts=0")
        here.command("systemd-analyze", "Overall exposure level for daycare-gateway.service: 1.1 OK")
        yield here


# -- wires -------------------------------------------------------------------------------------------------------


@dataclass
class Cable:
    """A serial line that ends in a pty: `far` is the end of whatever hangs on it, `port` is ours."""

    far: int
    near: int
    port: Path


@pytest.fixture
def new_cable(user: tuple[str, ...]) -> Iterator[Callable[[], Cable]]:
    """Make serial lines."""
    made: list[int] = []

    def make() -> Cable:
        far, near = pty.openpty()
        made.extend((far, near))
        tty.setraw(near)
        port = Path(os.ttyname(near))
        if user:
            shutil.chown(port, NOBODY)
        return Cable(far, near, port)

    yield make
    for one in made:
        with suppress(OSError):
            os.close(one)


# -- apart from this machine -------------------------------------------------------------------------------------


class Apart:
    """A network and a file system of its own, kept by a process that sleeps. What is begun by `prefix` lives there."""

    def __init__(self, script: str) -> None:
        self._process = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-ec", f"{script}\necho ready\nexec sleep 600"],
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
        return ("nsenter", f"--target={self.pid}", "--net", "--mount", f"--wd={ROOT}", "--")

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

    def make(script: str = "ip link set lo up") -> Apart:
        if os.geteuid() != 0:
            pytest.skip("only root can take a network or a file system apart here: this row of the table is not proven")
        here = Apart(script)
        made.append(here)
        if not here.works:
            pytest.skip(f"no network or file system apart can be had here, this row of the table is not proven: {here.said}")
        return here

    yield make
    for one in made:
        one.close()


async def forwarded(listening: socket.socket, port: int) -> asyncio.Server:
    """Pass everything that comes to a socket apart on to a port of this machine."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copied(reader, back), _copied(there, writer))

    return await asyncio.start_server(pass_on, sock=listening)


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@pytest.fixture
def forward() -> Callable[[socket.socket, int], Any]:
    return forwarded


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

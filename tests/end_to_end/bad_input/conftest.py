"""A small centre that is well, beside which each test breaks one thing: a button behind TCP, a platform, a daemon.

The daemon and `gateway diagnose` run as an unprivileged user where the tests are root's, if that one can read the program. The
machine's own clock and service manager are put aside by commands that are found before its own (`Centre.command`), so
that what is told first is what the test broke. Its files lie on a real file system: in memory would be a finding itself.
"""

from __future__ import annotations

import asyncio
import grp
import json
import os
import pty
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from simulator.platform import District, district

if TYPE_CHECKING:
    from tests.end_to_end.bad_input.apart.conftest import Apart, Forward
    from tests.end_to_end.conftest import Gateway
    from tests.json_board import Board
else:
    Apart = Board = Forward = Gateway = Any

ROOT = Path(__file__).parents[3]
NOBODY = "nobody"
CHINESE = re.compile("[\u4e00-\u9fff]")
# A key instead of its words, a value that nobody filled in, a part that should have been left out, Python's own words.
BROKEN = re.compile(r"@[a-z]+\.|<<|>>|\{[a-z_]+\}|(?<!\w)\?|None|Error\(|Traceback")

WARNINGS = ("GW-DEV-02",)
# What is told, rightly, where root's rights cannot be taken away.
AS_ROOT = ("GW-SEC-13", "")

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
    as_root: bool = False

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
        found = [
            (one["code"], one["subject"])
            for one in self.lines
            if one["verdict"] in ("warning", "problem") and not one["hidden_by"]
        ]
        return [one for one in found if one != AS_ROOT] if self.as_root else found

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

    async def reach(self, apart: Apart, forward: Callable[..., Awaitable[Forward]]) -> None:
        """Daemon and diagnosis live apart, and what is well is reached from there as from here."""
        self.moves(apart)
        await forward(self.platform.port, apart.listening("127.0.0.1", self.platform.port))
        await forward(self.board.port, apart.listening("127.0.0.1", self.board.port))

    # -- what must go on ----------------------------------------------------------------------------------------

    async def call_is_heard(self) -> None:
        """Somebody calls for help: it is stored (only then acknowledged to the button), and the platform accepts it.

        Staff see to it, so that the next call is another alarm.
        """
        self.presses += 1
        await self.board.press(self.presses)
        await self.alarms_arrived(self.presses)
        await self.seen_to()

    async def alarms_arrived(self, count: int, device: str = "board-1", platform: str = "district") -> None:
        """So many alarms of a device have been accepted by a platform, none twice."""
        end = time.monotonic() + 45
        while len(self.accepted(device, platform)) < count:
            assert time.monotonic() < end, f"{count} alarms of {device} did not arrive\n{self.gateway.said()}"
            await asyncio.sleep(0.02)
        assert len(self.accepted(device, platform)) == count

    async def seen_to(self) -> None:
        """Staff close every alarm."""
        for alarm in await self.gateway.ask("alarms.list"):
            await self.gateway.ask("alarms.close", id=alarm["id"], by="n-07", why="seen to")

    def accepted(self, device: str = "board-1", platform: str = "district") -> list[dict[str, Any]]:
        """Every alarm that a platform has accepted of a device."""
        said = (self.folder / f"platform-{platform}.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith("\n")]
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
            if "turn" in one:
                level = "warning" if one["code"] in WARNINGS else "error"
                assert one["level"] == (level if one["turn"] == "on" else "info"), one
                assert one["event"]
                assert not BROKEN.search(one["event"]), one

    async def problem(self, code: str, subject: str, *, within_s: float = 45.0) -> None:
        """Wait until the daemon tells it."""
        await self.gateway.until(f"told {code}", lambda status: (code, subject) in _problems(status), within_s=within_s)

    async def well(self, *, within_s: float = 45.0) -> None:
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
        return Told(zh[0], zh[1], json.loads(en[1]), as_root=os.geteuid() == 0 and not self.user)

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
    try:
        tried = subprocess.run(
            [*words, sys.executable, "-c", "import gateway"], cwd=ROOT, capture_output=True, check=False
        )
    except FileNotFoundError:
        return ()
    return words if tried.returncode == 0 else ()


@pytest.fixture
def unprivileged(user: tuple[str, ...]) -> None:
    """Skip, and say so, where root's rights cannot be taken away: root is denied nothing."""
    if os.geteuid() == 0 and not user:
        pytest.skip(f"{NOBODY} cannot run this Python: that rights are missing is not proven here")


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
        here.command(
            "systemctl", "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNRestarts=0"
        )
        here.command("systemd-analyze", "Overall exposure level for daycare-gateway.service: 1.1 OK")
        yield here


# -- wires -------------------------------------------------------------------------------------------------------


class Cable:
    """A serial line: `port` is the gateway's end, a pty; `say` writes at the end of whatever hangs on it."""

    def __init__(self) -> None:
        self._far, self._near = pty.openpty()
        tty.setraw(self._near)
        self.port = Path(os.ttyname(self._near))
        self._open = [self._far, self._near]
        os.set_blocking(self._far, False)

    def free(self) -> None:
        """Let go of the gateway's end: it has been held so that it stays raw, and counts as held by another."""
        self._open.remove(self._near)
        os.close(self._near)

    async def say(self, data: bytes) -> None:
        async with asyncio.timeout(45):
            while data:
                try:
                    data = data[os.write(self._far, data) :]
                except BlockingIOError:  # nobody has read for a while
                    await asyncio.sleep(0.005)

    def close(self) -> None:
        for one in self._open:
            os.close(one)


@pytest.fixture
def new_cable(user: tuple[str, ...]) -> Iterator[Callable[[], Cable]]:
    """Make serial lines."""
    made: list[Cable] = []

    def make() -> Cable:
        made.append(Cable())
        if user:
            shutil.chown(made[-1].port, NOBODY)
        return made[-1]

    yield make
    for one in made:
        one.close()

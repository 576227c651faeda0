"""Whole diagnoses of a centre made of real parts: the daemon, a bluetoothd on a private bus, a platform, a pty.

What is compared is what people read, line by line, in both languages; what changes from run to run is taken out first.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway import control_client
from gateway.cli import diagnosis
from gateway.diagnose.report import Report
from gateway.errors import ControlError
from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report as Advert
from simulator.dbus_daemon import dbus_daemon
from simulator.scenario import free_ports

if TYPE_CHECKING:
    from tests.gateway.diagnose.conftest import Authority, Centre
else:
    Authority = Centre = Any

pytestmark = pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is missing")

ROOT = Path(__file__).parents[3]
BUTTON = "A4:C1:38:56:53:84"
OnPaper = Callable[[Report, str], str]

DEVICES = """
[[room]]
id = "201"
name = "二楼东一"

[[ble]]
id = "radio"

[[serial]]
id = "board"
port = "{port}"

[[device]]
id = "call-201-1"
model = "bthome-button"
link = "radio"
address = "A4:C1:38:56:53:84"
room = "201"
allow_plain = true

[[device]]
id = "gas-1"
model = "json-lines"
link = "board"
  [device.map]
  address = ""
  [[device.map.reading]]
  field = "c"
  quantity = "temperature"
"""


class Board:
    """A microcontroller behind a pty."""

    def __init__(self) -> None:
        self.ours, theirs = pty.openpty()
        tty.setraw(theirs, termios.TCSANOW)
        self.port = os.ttyname(theirs)
        os.close(theirs)

    def say(self, line: bytes) -> None:
        os.write(self.ours, line)


class Living:
    """The parts of a centre that are at work."""

    def __init__(self, centre: Centre, bluez: FakeBluez, board: Board, port: int) -> None:
        self.centre, self.bluez, self.board, self.port = centre, bluez, board, port
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the daemon and wait until it has heard everybody and the platform has taken something."""
        env = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
        with (self.centre.folder / "gateway.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway",
                "run",
                "--config",
                str(self.centre.config),
                env=env,
                stdout=log,
                stderr=log,
            )

    async def status(self) -> dict[str, Any]:
        try:
            answer = await asyncio.to_thread(control_client.ask, self.centre.control, "status")
        except ControlError:
            return {}
        return dict(answer)

    async def until(self, condition: Callable[[dict[str, Any]], bool], *, within_s: float = 30.0) -> None:
        end = asyncio.get_running_loop().time() + within_s
        count = 0
        while True:
            status = await self.status()
            with suppress(KeyError, IndexError, StopIteration):
                if condition(status):
                    return
            said = (self.centre.folder / "gateway.log").read_text(encoding="utf-8")
            assert asyncio.get_running_loop().time() < end, f"{json.dumps(status, ensure_ascii=False)}\n{said}"
            count += 1
            self.bluez.hear(Advert(BUTTON, -61, service_data={0xFCD2: bytes((0x40, 0x00, count % 256, 0x01, 95))}))
            with suppress(OSError):
                self.board.say(b'{"c": 21.5}\n')
            await asyncio.sleep(0.1)

    async def well(self) -> None:
        await self.until(
            lambda status: (
                all(one["hearing"] for one in status["links"])
                and all(one["last_heard_s"] is not None for one in status["devices"])
                and all(one["last_accepted_s"] is not None for one in status["destinations"])
                and not any(sum(one["pending"].values()) for one in status["destinations"])
            )
        )

    async def end(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.send_signal(number)
            await self.process.wait()

    async def diagnose(self, **more: Any) -> Report:
        """Diagnose, as if the daemon had been started by its unit as the user that it says."""
        if self.process is not None and self.process.returncode is None:
            real = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
            self.centre.put(f"proc/{self.process.pid}/status", re.sub(r"Uid:.*", "Uid:\t990\t990\t990\t990", real))
        return await asyncio.to_thread(self.centre.diagnose, **more)


@asynccontextmanager
async def platform(folder: Path) -> AsyncIterator[int]:
    """A platform as a process; yields its port."""
    (port,) = free_ports(["district"]).values()
    control = folder / "platform.sock"
    with (folder / "platform.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "simulator", "platform", "--run", str(folder), "--port", str(port), "--control", str(control),
            cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with asyncio.timeout(20):
            while not control.exists():
                assert process.returncode is None, (folder / "platform.log").read_text()
                await asyncio.sleep(0.05)
        yield port
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture
async def living(centre: Centre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Living]:
    run = tmp_path / "r"
    run.mkdir()
    board = Board()
    async with dbus_daemon(run) as address, platform(run) as port:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        bluez = FakeBluez(address)
        bluez.add_adapter()
        await bluez.start()
        centre.configure(DEVICES.format(port=board.port), port=port)
        here = Living(centre, bluez, board, port)
        try:
            yield here
        finally:
            await here.end()
            await bluez.stop()
            os.close(board.ours)


@pytest.fixture(autouse=True)
def _unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a line is folded depends on how long the paths of this run are."""
    monkeypatch.setattr(diagnosis, "_SHORT", 10_000)


# What changes from run to run, and what stands in its place. Codes, ids and counts of problems stay.
_CHANGING = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{3}Z)?", "TIME"),
    (r"took [\d.]+ s|用时 [\d.]+ 秒", "TOOK"),
    (r"[\d.]+ (小时 \d+ 分|秒|分钟|h \d+ min|s\b|min\b)", "AGE"),
    (r"[\d.]+ (GiB|MiB|KiB|B)\b", "SIZE"),
    (r"[d-][rwxstST-]{9}( \S+:\S+)?", "MODE"),
    (r"[\d.]+ ms", "MS"),
    (r"/dev/pts/\d+", "PTY"),
    (r"127\.0\.0\.1:\d+|localhost:\d+", "PLACE"),
    # Confirmed events leave the database within a second or two.
    (r"，最早的等了 AGE|, the oldest waits for AGE|；最后存盘的事件在 AGE前|; its last event was stored AGE ago", ""),
    (r"(?<![A-Za-z0-9*+.-])\d[\d./]*(?![\w-])", "#"),
)


def steady(text: str, folder: Path) -> str:
    """Return a report without what changes from run to run; what is of this machine is left out."""
    text = text.replace(str(folder), "HERE")
    for pattern, by in _CHANGING:
        text = re.sub(pattern, by, text)
    sections = [one for one in text.split("\n\n") if "GW-VER-05" not in one]
    of_this_machine = ("GW-STO-08", "其余串口", "other ports")
    kept = [
        line
        for one in "\n\n".join(sections).splitlines()
        for line in [one.rstrip()]
        if not any(word in line for word in of_this_machine)
    ]
    return "\n".join(kept) + "\n"


def written(name: str, lang: str) -> str:
    return (Path(__file__).parent / "reports" / f"{name}.{lang}.txt").read_text(encoding="utf-8")


def compare(name: str, report: Report, on_paper: OnPaper, folder: Path) -> None:
    """Compare with what was written out for this state of the centre, in both languages."""
    for lang in ("zh", "en"):
        got = steady(on_paper(report, lang), folder)
        import os as _o

        if _o.environ.get("GEN"):
            (Path(__file__).parent / "reports" / f"{name}.{lang}.txt").write_text(got, encoding="utf-8")
        assert got == written(name, lang), f"{name}.{lang}\n{got}"


async def test_a_healthy_centre(living: Living, on_paper: OnPaper) -> None:
    await living.start()
    await living.well()
    report = await living.diagnose()
    compare("healthy", report, on_paper, living.centre.folder)
    assert (report.exit_status, report.first) == (0, None)


async def test_a_dead_daemon(living: Living, on_paper: OnPaper) -> None:
    await living.start()
    await living.well()
    await living.end(signal.SIGKILL)
    before = _listing(living.centre.data)
    report = await living.diagnose()
    compare("daemon-dead", report, on_paper, living.centre.folder)
    assert report.first is not None
    assert (report.exit_status, report.first.code) == (2, "GW-CTL-01")
    assert _listing(living.centre.data) == before, "a diagnosis changes nothing"


async def test_a_hung_daemon(living: Living, on_paper: OnPaper) -> None:
    await living.start()
    await living.well()
    assert living.process is not None
    living.process.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(30):
        while "\nState:\tT" not in Path(f"/proc/{living.process.pid}/status").read_text(encoding="utf-8"):
            await asyncio.sleep(0.01)
    report = await living.diagnose()
    compare("daemon-hung", report, on_paper, living.centre.folder)
    assert report.first is not None
    assert (report.exit_status, report.first.code, report.daemon) == (2, "GW-CTL-05", "hung")


async def test_a_port_that_is_missing(living: Living, on_paper: OnPaper) -> None:
    missing = "/dev/serial/by-id/usb-1a86_USB_Serial-if00-port0"
    living.centre.configure(DEVICES.format(port=missing), port=living.port)
    await living.start()
    await living.until(lambda status: any(one["code"] == "GW-SER-01" for one in status["problems"]))
    await living.until(lambda status: status["devices"][0]["last_heard_s"] is not None)
    await living.until(lambda status: status["destinations"][0]["last_accepted_s"] is not None)
    report = await living.diagnose()
    compare("port-missing", report, on_paper, living.centre.folder)
    assert [line.code for line in report.causes] == ["GW-SER-01"]


async def test_an_adapter_that_is_off(living: Living, on_paper: OnPaper) -> None:
    await living.start()
    await living.well()
    living.bluez.power(on=False)
    await living.until(lambda status: any(one["code"] == "GW-BLE-04" for one in status["problems"]))
    report = await living.diagnose()
    compare("adapter-off", report, on_paper, living.centre.folder)
    assert [line.code for line in report.causes] == ["GW-BLE-04"]


async def test_a_platform_whose_certificate_names_another(
    living: Living, authority: Authority, on_paper: OnPaper
) -> None:
    async def gone(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(gone, "127.0.0.1", 0, ssl=authority.server("other.example.org"))
    port = server.sockets[0].getsockname()[1]
    text = living.centre.config.read_text(encoding="utf-8")
    plain = f'url = "mqtt://127.0.0.1:{living.port}"'
    secured = f'url = "mqtts://localhost:{port}"\nca_file = "{authority.file}"'
    living.centre.config.write_text(text.replace(plain, secured), encoding="utf-8")
    async with server:
        await living.start()
        await living.until(
            lambda status: (
                any(one["code"] == "GW-NET-03" for one in status["problems"])
                and all(one["last_heard_s"] is not None for one in status["devices"])
            )
        )
        report = await living.diagnose()
    compare("tls-wrong-name", report, on_paper, living.centre.folder)
    assert [line.code for line in report.causes] == ["GW-NET-03"]


@pytest.fixture
def small_disk(centre: Centre) -> Iterator[Path]:
    """24 MiB under the data directory, in the place of the rest of the card."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", centre.data], check=False)
    if mounted.returncode != 0:
        pytest.skip("only root may mount")
    yield centre.data
    subprocess.run(["umount", "--lazy", centre.data], check=True)


async def test_a_full_disk(centre: Centre, small_disk: Path, living: Living, on_paper: OnPaper) -> None:
    # As the card that it stands for would be mounted: memory would be the graver finding.
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    own = next(line for line in mounts if f" {small_disk} " in line).replace(" - tmpfs ", " - ext4 ")
    (centre.root / "proc" / "self").unlink()
    centre.put("proc/self/mountinfo", f"{own}\n")
    await living.start()
    await living.well()
    with (small_disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        for _ in range(32 * 16):
            file.write(bytes(65_536))
    report = await living.diagnose()
    compare("disk-full", report, on_paper, living.centre.folder)
    assert report.first is not None
    assert report.first.code == "GW-STO-03"


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in folder.iterdir())

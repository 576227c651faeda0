"""A Debian that was really booted, with the gateway installed on it by the commands of docs/install.md, word for word.

systemd-nspawn boots a throw-away copy (an overlay in memory) of a small root in about a second. Its system manager, its
D-Bus and its journal are real; udev, USB and power cuts are not there. Skipped, with the reason, where that cannot be had.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CGROUPS = Path("/sys/fs/cgroup/unified") if Path("/sys/fs/cgroup/unified").is_dir() else Path("/sys/fs/cgroup")
UNIT = "daycare-gateway"
PLATFORM_PORT = 18_830
CANNOT_BE_MADE = 4
KEY = "231d39c1d7cc1ab1aee224cd096db932"

# A mount name space, and below it a control group of its own: what a machine whose first process is not systemd lacks.
BOOT = """
set -eu; name=$1 root=$2 folder=$3
umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$name"; echo $$ >"/sys/fs/cgroup/$name/cgroup.procs"
mkdir -p /run/systemd; mount -t tmpfs tmpfs /run/systemd
disk=
if [ -e "$folder/disk.img" ]; then
    mkdir -p "$folder/disk" && mount -o loop "$folder/disk.img" "$folder/disk"
    disk="--bind=$folder/disk:/var/lib/daycare-gateway"
fi
exec systemd-nspawn -q "--directory=$root" --volatile=overlay --boot --register=no --keep-unit --private-network \\
    --console=pipe "--bind-ro=$folder/release:/root/release" "--bind-ro=$folder/wheels:/root/wheels" $disk
"""

CONFIG = """
[gateway]
id = "gw-01"
org = "kz-civil-affairs"
site = "hanfeng-01"
lang = "en"

[[room]]
id = "201"

[[ble]]
id = "radio"

[[device]]
id = "call-201-1"
model = "bthome-button"
link = "radio"
address = "A4:C1:38:56:53:84"
room = "201"
key = "credential:call-201-1"

[[serial]]
id = "wire"
port = "/dev/gw-board"

[[device]]
id = "board-1"
model = "json-lines"
link = "wire"
address = "b1"
room = "201"
  [device.map]
  address = "dev"
  number = "n"
    [[device.map.signal]]
    field = "ev"
    equals = "press"
    is = "call"

[[destination]]
id = "district"
reconnect_spread_s = 0
  [[destination.path]]
  url = "mqtt://127.0.0.1:{port}"
  username = "gw-01"
  password = "credential:platform-password"
"""

# The far end of a serial port, inside: what is written to it goes to the port, what comes from the port is printed.
FAR_END = """
import os, pty, select, shutil, sys, tty
far, near = pty.openpty()
tty.setraw(near); tty.setraw(far)
shutil.chown(os.ttyname(near), "root", "dialout"); os.chmod(os.ttyname(near), 0o660)
os.path.lexists(sys.argv[1]) and os.unlink(sys.argv[1]); os.symlink(os.ttyname(near), sys.argv[1])
print("ready", flush=True)
while True:
    for one in select.select([0, far], [], [])[0]:
        data = os.read(one, 4096)
        if not data:
            sys.exit()
        os.write(far if one == 0 else 1, data)
"""


@dataclass
class Machine:
    """One booted Debian. `figures` is what was measured on it, shown at the end."""

    suite: str
    folder: Path
    leader: int = 0
    process: subprocess.Popen[bytes] | None = None
    figures: dict[str, object] = field(default_factory=dict)

    # -- life ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return f"daycare-{self.suite}-{os.getpid()}"

    @property
    def group(self) -> Path:
        return CGROUPS / self.name

    def boot(self, root: Path) -> None:
        began = time.monotonic()
        with (self.folder / "console.log").open("wb") as console:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private",
                 "bash", "-c", BOOT, "boot", self.name, str(root), str(self.folder)],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
        leaders = self.group / "payload" / "init.scope" / "cgroup.procs"

        def is_up() -> bool:
            if self.process is not None and self.process.poll() is not None:
                pytest.skip(f"systemd-nspawn does not run here: {self.console()[-400:]}")
            with suppress(OSError, IndexError):
                self.leader = int(leaders.read_text().split()[0])
            return self.leader != 0 and self.run("systemctl is-system-running || true").strip() in (
                "running",
                "degraded",
            )

        wait_for(is_up, f"{self.suite} has not booted: {self.console()[-1000:]}")
        self.figures["boot_s"] = round(time.monotonic() - began, 1)

    def down(self) -> None:
        """Switch off; whatever happens, nothing stays behind."""
        assert self.process is not None
        with suppress(subprocess.SubprocessError):
            if self.leader:
                self.run("systemctl poweroff")
            self.process.wait(timeout=30)
        self.process.kill()
        self.process.wait(timeout=10)
        (self.folder / "figures.json").write_text(json.dumps(self.figures), encoding="utf-8")
        for directory, _, _ in sorted(os.walk(self.group), reverse=True):
            with suppress(OSError):
                Path(directory).rmdir()

    def console(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")

    # -- inside -------------------------------------------------------------------------------------------------

    def inside(self, *command: str) -> list[str]:
        """Return how to run a command inside."""
        environment = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "--",
                "env", "-i", environment, "HOME=/root", "LANG=C.UTF-8", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/root/wheels",
                "PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_ROOT_USER_ACTION=ignore", *command]  # fmt: skip

    def run(self, script: str, *, stdin: str = "", ok: tuple[int, ...] = (0,), limit_s: float = 120.0) -> str:
        """Run a script as root, in the folder with the release; return what it said."""
        done = subprocess.run(
            self.inside("bash", "-ec", f"cd /root/release 2>/dev/null || cd /; {script}"),
            input=stdin, capture_output=True, text=True, timeout=limit_s, check=False,
        )  # fmt: skip
        assert done.returncode in ok, f"{script}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def show(self, property_name: str) -> str:
        return self.run(f"systemctl show -P {property_name} {UNIT}").strip()

    def main_pid(self) -> int:
        return int(self.show("MainPID"))

    def restart(self, how: str = "restart") -> float:
        """Start the service anew; return in how many seconds it was ready, by systemd's own stamps."""
        self.run(f"systemctl {how} {UNIT}")
        return self.ready_s()

    def ready_s(self) -> float:
        began, ready = (int(self.show(f"{one}TimestampMonotonic")) for one in ("ExecMainStart", "ActiveEnter"))
        return round((ready - began) / 1e6, 2)

    def until_anew(self, pid: int) -> float:
        """Wait until another process than `pid` is the service, and active; return how long that took."""
        began = time.monotonic()

        def is_anew() -> bool:
            return self.show("ActiveState") == "active" and self.main_pid() not in (0, pid)

        wait_for(is_anew, "the service did not come back")
        return round(time.monotonic() - began, 2)

    def status(self) -> dict[str, Any]:
        """Ask the gateway, as root. It exits with 2 while there is a problem."""
        return dict(json.loads(self.run("gateway status --json", ok=(0, 1, 2))))

    def until_status(self, what: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        status: dict[str, Any] = {}

        def is_so() -> bool:
            nonlocal status
            with suppress(AssertionError, ValueError):
                status = self.status()
                return condition(status)
            return False

        wait_for(is_so, f"not {what}: {status}")
        return status

    def journal(self, *, since: str = "") -> list[str]:
        """Return what the gateway itself has logged."""
        mine = f"_SYSTEMD_UNIT={UNIT}.service"
        lines = self.run(f"journalctl -q --no-pager -o cat {mine} {f'--since=@{since}' if since else ''}").splitlines()
        return [line for line in lines if line]

    def now(self) -> str:
        return self.run("date +%s.%N").strip()


class Board:
    """A microcontroller on a serial port: presses, and what was acknowledged."""

    def __init__(self, machine: Machine, port: str) -> None:
        self._process = subprocess.Popen(
            machine.inside("python3", "-c", FAR_END, port), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        os.set_blocking(self._process.stdout.fileno(), False)
        self._heard = b""

    def press(self, n: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b'{"dev":"b1","n":%d,"ev":"press"}\n' % n)

    def acknowledged(self, n: int) -> bool:
        assert self._process.stdout is not None
        self._heard += self._process.stdout.read() or b""
        return n in [json.loads(line).get("ack") for line in self._heard.splitlines() if line.endswith(b"}")]

    def press_until_acknowledged(self, n: int) -> None:
        """Press as such a board does: the line again, every second, until it is acknowledged."""
        pressed = 0.0

        def is_acknowledged() -> bool:
            nonlocal pressed
            if time.monotonic() - pressed > 1.0:
                pressed = time.monotonic()
                self.press(n)
            return self.acknowledged(n)

        wait_for(is_acknowledged, f"press {n} was not acknowledged")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Platform:
    """The simulated platform, in the machine's network: what it has accepted."""

    def __init__(self, machine: Machine) -> None:
        self._folder = machine.folder / "platform"
        self._folder.mkdir()
        self._log = (machine.folder / "platform.log").open("wb")
        self._process = subprocess.Popen(
            ["nsenter", "-t", str(machine.leader), "-n", "--", sys.executable, "-m", "simulator", "platform",
             "--run", str(self._folder), "--destination", "district", "--port", str(PLATFORM_PORT),
             "--control", str(self._folder / "control.sock")],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=ROOT,
        )  # fmt: skip
        wait_for((self._folder / "control.sock").exists, "the platform has not started")

    def accepted(self) -> list[dict[str, Any]]:
        """Every event that it has accepted, in order."""
        ledger = self._folder / "platform-district.jsonl"
        rows = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
        accepted = [row for row in rows if row["status"] == "accepted"]
        return [
            {**one["event"], "noun": one["type"].removeprefix("cn.eldercare.").removesuffix(".v1")} for one in accepted
        ]

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self._process.kill()
        self._process.wait()
        self._log.close()


def wait_for(condition: Callable[[], object], why: str, limit_s: float = 120.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, why
        time.sleep(0.1)


def blocks(document: Path) -> list[str]:
    """Return the commands of a document that are marked as tried."""
    return re.findall(r"^```sh\n(.*?)^```$", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def release(folder: Path, python: str) -> None:
    """Lay out what a technician gets, and the wheels that their machine fetches."""
    target = folder / "release"
    target.mkdir()
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-build-isolation", "--wheel-dir", str(target), str(ROOT)], check=True, cwd=folder,
    )  # fmt: skip
    shutil.copy(ROOT / "requirements-gateway.lock", target)
    shutil.copytree(ROOT / "systemd", target / "systemd")
    shutil.copytree(ROOT / "docs", target / "docs")
    shutil.copytree(ROOT / "config", target / "config")
    (target / "config" / "gateway.toml").write_text(CONFIG.format(port=PLATFORM_PORT), encoding="utf-8")
    (folder / "wheels").symlink_to(ROOT / ".build" / "booted" / f"wheels-{python}")


def make_disk(folder: Path) -> None:
    """A file system of its own for the data, which can be frozen; without loop devices there is none."""
    disk = folder / "disk.img"
    with disk.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    loop = subprocess.run(["losetup", "-f"], capture_output=True, check=False)
    made = subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", str(disk)], capture_output=True, check=False)
    if loop.returncode or made.returncode:
        disk.unlink()


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return a booted Debian with the gateway installed and running."""
    suite = str(request.param)
    if not shutil.which("systemd-nspawn"):
        pytest.skip("systemd-nspawn is not here: apt-get install systemd-container")
    made = subprocess.run(
        ["bash", str(ROOT / "scripts" / "booted_root.sh"), suite],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    if made.returncode == CANNOT_BE_MADE:
        pytest.skip(f"no {suite} can be booted here: {made.stderr.strip()}")
    assert made.returncode == 0, made.stderr
    here = Machine(suite, tmp_path_factory.mktemp(suite))
    release(here.folder, {"bookworm": "3.11", "trixie": "3.13"}[suite])
    make_disk(here.folder)
    try:
        here.boot(ROOT / ".build" / "booted" / suite)
        here.run("printf '#!/bin/sh\\nexec \"$@\"\\n' >/usr/local/bin/sudo; chmod 755 /usr/local/bin/sudo")
        began = time.monotonic()
        for block in blocks(ROOT / "docs" / "install.md"):
            # `status` exits with 2 while there is a problem, and the platform is not there yet.
            here.run(block, stdin="hunter2\n", ok=(0, 2) if "gateway status" in block else (0,), limit_s=900)
            if "/dev/stdin" in block:  # a secret: the configuration has one more
                here.run(block.replace("platform-password", "call-201-1"), stdin=f"{KEY}\n")
        here.figures["install_s"] = round(time.monotonic() - began, 1)
        yield here
    finally:
        here.down()
        print(json.dumps({suite: here.figures}))


@pytest.fixture(scope="module")
def platform(machine: Machine) -> Iterator[Platform]:
    """Return the platform that the machine delivers to."""
    here = Platform(machine)
    yield here
    here.close()


@pytest.fixture(scope="module")
def board(machine: Machine) -> Iterator[Board]:
    """Return the board on the machine's serial port."""
    here = Board(machine, "/dev/gw-board")
    yield here
    here.close()


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until something is so."""
    return wait_for

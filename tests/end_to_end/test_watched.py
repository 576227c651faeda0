"""The real daemon and whoever started it: ready before it asks anybody, a line of state, a sign of life, and its end."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

CONFIG = """
[gateway]
id = "gw"
org = "org"
site = "site"
data_dir = "{folder}/data"
control_socket = "{folder}/control.sock"
lang = "zh"

[[ble]]
id = "radio"

[[device]]
id = "call-1"
model = "ingics-ibs"
link = "radio"
address = "E8:56:71:5A:54:F5"
room = "201"
allow_plain = true

[[room]]
id = "201"

[[destination]]
id = "district"
  [[destination.path]]
  url = "mqtt://127.0.0.1:{platform}"
"""

Eventually = Callable[[Callable[[], bool], str], Awaitable[None]]


class Systemd:
    """The other end of $NOTIFY_SOCKET, and of a system D-Bus on which nobody ever answers."""

    def __init__(self, folder: Path) -> None:
        self.environ = {
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": "2000000",
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={folder / 'bus'}",
        }
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.environ["NOTIFY_SOCKET"])
        self.socket.setblocking(False)
        self.bus = socket.socket(socket.AF_UNIX)
        self.bus.bind(str(folder / "bus"))
        self.bus.listen()
        self.said: list[str] = []

    def heard(self) -> list[str]:
        """Return every line said until now."""
        with suppress(BlockingIOError):
            while True:
                self.said += self.socket.recv(4096).decode().splitlines()
        return self.said

    def forget(self) -> None:
        self.heard()
        self.said.clear()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    here = Systemd(tmp_path)
    yield here
    here.socket.close()
    here.bus.close()


async def test_it_is_ready_with_its_control_socket_whatever_bluez_does(
    gateway: Any, systemd: Systemd, free_port: Callable[[], int], eventually: Eventually
) -> None:
    gateway.env = systemd.environ
    gateway.configure(CONFIG, platform=free_port())
    await gateway.start()
    await eventually(lambda: "READY=1" in systemd.heard(), "not ready")
    assert (gateway.folder / "data" / "outbox.db").exists()
    assert (await gateway.ask("status"))["gateway"]["id"] == "gw"
    assert systemd.said[0] == "READY=1"
    await eventually(lambda: systemd.heard().count("WATCHDOG=1") > 3, "no sign of life")
    await eventually(
        lambda: "STATUS=未关闭的报警：0；听不到：radio；平台未连接：district" in systemd.heard(), "no status"
    )
    status, _ = await gateway.end()
    assert status == 0
    assert systemd.heard().count("READY=1") == 1
    assert "STOPPING=1" in systemd.said


async def test_a_process_that_stands_still_gives_no_sign_and_says_where_it_stood(
    gateway: Any, systemd: Systemd, free_port: Callable[[], int], eventually: Eventually
) -> None:
    gateway.env = systemd.environ
    gateway.configure(CONFIG, platform=free_port())
    await gateway.start()
    await eventually(lambda: "WATCHDOG=1" in systemd.heard(), "no sign of life")
    os.kill(gateway.process.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{gateway.process.pid}/stat")
    await eventually(lambda: stat.read_text().rpartition(") ")[2].startswith("T"), "not stopped")
    systemd.forget()  # what it said before
    stopped = time.monotonic()
    await eventually(lambda: time.monotonic() - stopped > 2, "time stands still")
    assert systemd.heard() == []
    # What the service manager does then.
    # In this order the main thread takes it: another one would read its stack while it goes on, and now and then stumble.
    os.kill(gateway.process.pid, signal.SIGCONT)
    os.kill(gateway.process.pid, signal.SIGABRT)
    assert await gateway.ended() == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in gateway.said()
    assert "in run_forever" in gateway.said()

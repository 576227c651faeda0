"""One real daemon with a world of its own that can be broken: a private D-Bus, a bluetoothd, a pty, a serial server.

A button is pressed on the air, on the pty and over TCP every 0.2 s, each press once and with a number of its own, so that
what was lost is known press by press. What the daemon made of them is read where it counts: at a platform. Limits: the
packet number of the air has 8 bits, so a row may last 50 s; events are seen up to 50 ms after they were accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.control_client import NoAnswer, Refused, ask
from simulator.dbus_daemon import DbusDaemon
from simulator.platform import District, district
from simulator.processes import Child, Children
from simulator.pty_port import PtyPort

PRESS_EVERY_S: Final = 0.2
_LOOK_S: Final = 0.02
_BAUD: Final = 921_600
_NUMBERS: Final = 256
ADDRESS: Final = "A4:C1:38:56:53:84"
SILENCE_S: Final = 10
_CONFIG: Final = """
[gateway]
id = "gw"
org = "org"
site = "site"
data_dir = "{folder}/data"
control_socket = "{folder}/c.sock"

[[ble]]
id = "air"
silence_s = {silence_s}

[[device]]
id = "button"
model = "bthome-button"
link = "air"
address = "{address}"
allow_plain = true

[[serial]]
id = "wire"
port = "{folder}/ttyWIRE"
baud = {baud}

[[device]]
id = "board"
model = "json-lines"
link = "wire"
address = "w"
map = {{ signal = [ {{ field = "ev", equals = "press", is = "call" }} ] }}

[[serial]]
id = "net"
port = "socket://127.0.0.1:{server}"

[[device]]
id = "far-board"
model = "json-lines"
link = "net"
address = "w"
map = {{ signal = [ {{ field = "ev", equals = "press", is = "call" }} ] }}

[[destination]]
id = "district"
reconnect_spread_s = 0
  [[destination.path]]
  url = "mqtt://127.0.0.1:{platform}"
"""
_DEVICE: Final = {"air": "button", "wire": "board", "net": "far-board"}


@dataclass(frozen=True, slots=True)
class Press:
    """One press: when, and its number."""

    t: float
    number: int


@dataclass(slots=True)
class Server:
    """A serial server on TCP. `conduct`: "serve", or "reset" every connection at once."""

    port: int = 0
    conduct: str = "serve"
    listening: asyncio.Server | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def open(self) -> None:
        """Listen; always on the same port."""
        self.listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.listening.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Listen no more, and cut whoever is connected."""
        if self.listening is not None:
            self.listening.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    def send(self, data: bytes) -> None:
        """Send to whoever is connected."""
        for writer in self.writers:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.conduct == "reset":
            writer.transport.abort()
            return
        self.writers.append(writer)
        with contextlib.suppress(OSError):
            while await reader.read(4096):
                pass
        if writer in self.writers:
            self.writers.remove(writer)
        writer.close()


class Bench:
    """The daemon and its world. `presses` of each link, and the `events` that the platform accepted, in order."""

    def __init__(self, folder: Path, bus: DbusDaemon, platform: District, children: Children) -> None:
        self.folder = folder
        self.bus = bus
        self.bluez = FakeBluez(bus.address)
        self.server = Server()
        self.children = children
        self.presses: dict[str, list[Press]] = {link: [] for link in _DEVICE}
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.quiet: set[str] = set()
        """Links on which nobody presses now."""
        self._platform = platform
        self._ledger = folder / "platform-district.jsonl"
        self._read = self._log_read = 0
        self.wire = self._plug()
        self.mute: socket.socket | None = None
        self.fillers: list[socket.socket] = []
        self.holder: int | None = None
        self._daemon: Child | None = None

    async def start_daemon(self) -> None:
        """Start the real daemon; it is not waited for."""
        self._daemon = await self.children.start(
            "gateway", [sys.executable, "-m", "gateway", "run", "--config", str(self.folder / "gateway.toml")],
            env={"DBUS_SYSTEM_BUS_ADDRESS": self.bus.address, "NO_COLOR": "1"},
        )  # fmt: skip

    async def stop_daemon(self) -> None:
        """End the daemon in good order."""
        await self.children.stop("gateway", grace_s=20.0)

    @property
    def daemon_pid(self) -> int:
        """The daemon's process id."""
        if self._daemon is None:
            raise RuntimeError("the daemon was not started")
        return self._daemon.pid

    async def status(self) -> dict[str, Any]:
        """The daemon's status; empty while it does not answer."""
        try:
            status: dict[str, Any] = await ask(self.folder / "c.sock", "status")
        except (NoAnswer, Refused):
            return {}
        return status

    def mark_log(self) -> None:
        """Look for problems from here on."""
        log = self.folder / "gateway.log"
        self._log_read = log.stat().st_size if log.exists() else 0

    async def until_problem(self, code: str, link: str, *, within_s: float) -> float | None:
        """Return how many seconds it took until a problem was told in the log; None when it was not in time.

        Not by asking: what the daemon mends in some milliseconds is told, and gone when it is asked.
        """
        begun = time.monotonic()
        while time.monotonic() - begun < within_s:
            turns: list[dict[str, Any]] = []
            with contextlib.suppress(FileNotFoundError), (self.folder / "gateway.log").open("rb") as log:
                log.seek(self._log_read)
                turns = [json.loads(line) for line in log if line.startswith(b"{") and line.endswith(b"}\n")]
            if any((one.get("code"), one.get("subject"), one.get("turn")) == (code, link, "on") for one in turns):
                return time.monotonic() - begun
            await asyncio.sleep(_LOOK_S)
        return None

    async def until_well(self, *, within_s: float) -> bool:
        """Wait until every link is heard and has no problem, and the platform is connected."""

        def well(status: dict[str, Any]) -> bool:
            return bool(status) and all(
                one["hearing"] and not _problems(status, one["id"]) for one in status["links"]
            ) and all(one["connected"] for one in status["destinations"])  # fmt: skip

        return await self._until(well, within_s) is not None

    def read_events(self) -> None:
        """Read what the platform's ledger has gained."""
        with contextlib.suppress(FileNotFoundError), self._ledger.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                row = json.loads(line)
                if row["status"] == "accepted":
                    self.events.append((float(row["t"]), row["event"]))

    def heard(self, link: str, since: float) -> dict[int, float]:
        """Return the numbers of the presses that were heard since a moment, and when each was accepted."""
        return {
            int(event["data"]["counter" if link == "air" else "n"]): at
            for at, event in reversed(self.events)
            if _is_press(event, link) and _t(event["time"]) >= since - 0.01
        }

    def gaps(self, link: str, since: float) -> list[tuple[float, float]]:
        """Return the deaf times of a link that ended after a moment."""
        found = [
            (_t(event["data"]["from"]), _t(event["data"]["to"]))
            for _, event in self.events
            if ".gateway.gap." in event["type"] and event["data"]["link"] == link
        ]
        return [(begin, end) for begin, end in found if end >= since]

    def replug(self) -> None:
        """Plug the pty in again; behind the same name stands another device."""
        placeholder = os.openpty()
        self.wire.plug()
        for one in placeholder:
            os.close(one)

    async def press_for_ever(self) -> None:
        """Press on every link that is not quiet."""
        number = 0
        begun = time.monotonic()
        while True:
            number += 1
            await asyncio.sleep(max(0.0, begun + number * PRESS_EVERY_S - time.monotonic()))
            line = json.dumps({"dev": "w", "n": number, "ev": "press"}).encode() + b"\n"
            for link in _DEVICE.keys() - self.quiet:
                self.presses[link].append(Press(time.time(), number % _NUMBERS if link == "air" else number))
                if link == "air":
                    data = bytes((0x40, 0x00, number % _NUMBERS, 0x3A, 0x01))
                    self.bluez.hear(Report(ADDRESS, -60, service_data={0xFCD2: data}))
                elif link == "net":
                    self.server.send(line)
                else:
                    await self.wire.send(line)

    async def _until(self, condition: Callable[[dict[str, Any]], bool], within_s: float) -> float | None:
        begun = time.monotonic()
        while time.monotonic() - begun < within_s:
            if condition(await self.status()):
                return time.monotonic() - begun
            await asyncio.sleep(_LOOK_S)
        return None

    def _plug(self) -> PtyPort:
        return PtyPort(path=self.folder / "ttyWIRE", baud=_BAUD, on_data=lambda _: None)


@contextlib.asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    """Make a world in `folder`, with everything well and the daemon not yet started. DbusDaemonError, BrokerError."""
    bus = DbusDaemon(folder)
    async with contextlib.AsyncExitStack() as stack:
        platform = await stack.enter_async_context(district(folder))
        children = await stack.enter_async_context(Children(folder))
        here = Bench(folder, bus, platform, children)
        await bus.start()
        stack.push_async_callback(bus.stop)
        here.bluez.add_adapter()
        await here.bluez.start()
        stack.push_async_callback(here.bluez.stop)
        await here.server.open()
        stack.callback(here.server.close)
        (folder / "gateway.toml").write_text(
            _CONFIG.format(
                folder=folder,
                silence_s=SILENCE_S,
                baud=_BAUD,
                address=ADDRESS,
                server=here.server.port,
                platform=platform.port,
            ),
            encoding="utf-8",
        )
        tasks = [
            asyncio.create_task(here.wire.run(), name="pty"),
            asyncio.create_task(here.press_for_ever(), name="presses"),
        ]
        stack.push_async_callback(_end, tasks)
        yield here


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _problems(status: dict[str, Any], subject: str) -> set[str]:
    return {one["code"] for one in status.get("problems", ()) if one["subject"] == subject}


def _is_press(event: dict[str, Any], link: str) -> bool:
    return bool(".alarm." in event["type"] and event["subject"] == f"device/{_DEVICE[link]}")


def _t(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()

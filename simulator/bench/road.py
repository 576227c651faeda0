"""`simulator bench`: how fast the road is, each figure beside its limit measured in the same run.

The limit of a press being committed is one raw SQLite commit of a row of the same size with the same pragmas; the limit
of a press being accepted is that plus two raw QoS 1 round trips over the same broker (the event up, the answer down).
Everything runs on this machine, so figures tell of software, not of networks or cards; quote the ratios.
Limits: a run takes about a minute; 300 presses, 10,000 lines of burst.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from simulator.control_client import ask
from simulator.processes import Children

PRESSES: Final = 300
PRESS_EVERY_S: Final = 0.05
BURST: Final = 10_000
RAW: Final = 200
WINDOW: Final = 1_000
READY_S: Final = 20.0
DRAIN_S: Final = 60.0

_CONFIG: Final = """
[gateway]
id = "gw-bench"
org = "bench"
site = "bench"
data_dir = "{run}/data"
control_socket = "{run}/gw.sock"

[[room]]
id = "r1"

[[serial]]
id = "line"
port = "socket://127.0.0.1:{line}"

[[device]]
id = "dev-1"
model = "json-lines"
link = "line"
address = "d1"
room = "r1"
[device.map]
[[device.map.signal]]
field = "press"
equals = 1
is = "call"
code = "press"
[[device.map.reading]]
field = "temp"
quantity = "temperature"

[[destination]]
id = "district"
reconnect_spread_s = 1
[[destination.path]]
url = "mqtt://127.0.0.1:{platform}"
"""


@dataclass(slots=True)
class Spread:
    """Latencies in seconds, and what of them is shown, in milliseconds."""

    values: list[float] = field(default_factory=list)

    def at(self, share: float) -> float:
        """Return a quantile in milliseconds."""
        ranked = sorted(self.values)
        return 1000 * ranked[ceil(share * len(ranked)) - 1]


class Source(asyncio.Protocol):
    """A numbered source on one connection: sends lines, notes when each was sent and acknowledged."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.connected_at = 0.0
        self.sent: dict[int, float] = {}
        self.acked: dict[int, float] = {}
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._room = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the gateway's connection."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream server hands over
        self._transport = transport
        self.connected_at = time.time()
        self.connected.set()

    def data_received(self, data: bytes) -> None:
        """Note acknowledgements."""
        now = time.time()
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self.acked[json.loads(line)["ack"]] = now
        self._room.set()

    def send(self, *numbers: int, press: bool) -> None:
        """Send one line for each number."""
        assert self._transport is not None  # noqa: S101 - after `connected`
        what = '"press":1' if press else '"temp":21.5'
        now = time.time()
        self.sent.update(dict.fromkeys(numbers, now))
        self._transport.write("".join(f'{{"dev":"d1","n":{n},{what}}}\n' for n in numbers).encode())

    async def burst(self, first: int, count: int) -> None:
        """Send many lines, at most WINDOW unacknowledged, and wait for the last acknowledgement."""
        born = first
        while len(self.acked) < first + count - 1:
            free = min(WINDOW - (len(self.sent) - len(self.acked)), first + count - born)
            if free > 0:
                self.send(*range(born, born + free), press=False)
                born += free
            self._room.clear()
            async with asyncio.timeout(DRAIN_S):
                await self._room.wait()


def raw_commits(folder: Path) -> Spread:
    """One row of 600 bytes a commit, with the outbox's pragmas."""
    spread = Spread()
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE event (seq INTEGER PRIMARY KEY, body TEXT)")
    for n in range(RAW):
        time.sleep(PRESS_EVERY_S)  # as the presses come: a machine that has gone to sleep is slower
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO event VALUES (?, ?)", (n, "x" * 600))
        connection.execute("COMMIT")
        spread.values.append(time.perf_counter() - began)
    connection.close()
    return spread


def raw_round_trips(port: int) -> Spread:
    """One QoS 1 publish of 700 bytes at a time, until its PUBACK, with plain paho."""
    spread = Spread()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="raw", protocol=paho.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for _ in range(RAW):
        time.sleep(PRESS_EVERY_S)
        began = time.perf_counter()
        client.publish("bench/raw", b"x" * 700, qos=1).wait_for_publish(5)
        spread.values.append(time.perf_counter() - began)
    client.disconnect()
    client.loop_stop()
    return spread


def imports_only_mb() -> float:
    """Resident memory of a process that only imports the third parties that the gateway uses."""
    code = (
        "import asyncio, bleak, cryptography.hazmat.primitives.ciphers.aead, paho.mqtt.client, pydantic, serial, serialx, "
        "sqlite3, structlog, uuid_utils; print(open('/proc/self/status').read())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout  # noqa: S603
    return _resident(out)


def _resident(status: str) -> float:
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def measure() -> dict[str, Any]:
    """Run everything once and return the figures."""
    run = Path(tempfile.mkdtemp(prefix="bench-"))
    platform, line = _free_port(), _free_port()
    config = run / "gateway.toml"
    config.write_text(_CONFIG.format(run=run, line=line, platform=platform), encoding="utf-8")
    source = Source()
    server = await asyncio.get_running_loop().create_server(lambda: source, "127.0.0.1", line)
    try:
        async with Children(run) as children:
            python = [sys.executable, "-m"]
            command = ["simulator", "platform", "--run", run, "--port", platform, "--control", run / "pf.sock"]
            await children.start("platform", [*python, *map(str, command)])
            await _until((run / "pf.sock").exists)
            commits = await asyncio.to_thread(raw_commits, run)
            trips = await asyncio.to_thread(raw_round_trips, platform)
            began = time.time()
            gateway = await children.start("gateway", [*python, "gateway", "run", "--config", str(config)])
            return await _with_gateway(run, source, gateway.pid, began=began) | {
                "raw_commit_ms": {"p50": commits.at(0.5), "p99": commits.at(0.99)},
                "raw_round_trip_ms": {"p50": trips.at(0.5), "p99": trips.at(0.99)},
                "imports_only_mb": imports_only_mb(),
            }
    finally:
        server.close()
        shutil.rmtree(run, ignore_errors=True)


async def _with_gateway(run: Path, source: Source, pid: int, *, began: float) -> dict[str, Any]:
    async with asyncio.timeout(READY_S):
        await source.connected.wait()
    control = run / "gw.sock"
    await _until(control.exists)
    source.send(1, press=True)
    await _until(lambda: 1 in source.acked)
    first = source.acked[1] - began
    while not (await ask(control, "status"))["destinations"][0]["accepted"]:
        await asyncio.sleep(0.02)
    for n in range(2, PRESSES + 2):
        source.send(n, press=True)
        await asyncio.sleep(PRESS_EVERY_S)
    await _until(lambda: len(source.acked) == PRESSES + 1)
    idle = await ask(control, "status")
    burst_began = time.time()
    await source.burst(PRESSES + 2, BURST)
    stored = time.time()
    while sum((await ask(control, "status"))["destinations"][0]["pending"].values()):
        await asyncio.sleep(0.05)
    status = await ask(control, "status")
    await asyncio.sleep(0.2)  # the platform writes its ledger every 50 ms
    accepted = _accepted(run / "platform-district.jsonl")
    presses = range(2, PRESSES + 2)
    committed = Spread([source.acked[n] - source.sent[n] for n in presses])
    taken = Spread([accepted[n] - source.sent[n] for n in presses])
    memory = await asyncio.to_thread(Path(f"/proc/{pid}/status").read_text, encoding="ascii")
    return {
        "press_committed_ms": {"p50": committed.at(0.5), "p99": committed.at(0.99)},
        "press_accepted_ms": {"p50": taken.at(0.5), "p99": taken.at(0.99)},
        "start_to_hearing_s": source.connected_at - began,
        "start_to_first_commit_s": first,
        "burst_stored_per_s": BURST / (stored - burst_began),
        "burst_accepted_per_s": BURST / (max(accepted.values()) - burst_began),
        "cpu_s_per_1000": (status["cpu_s"] - idle["cpu_s"]) / BURST * 1000,
        "resident_mb": _resident(memory),
        "accepted": len(accepted),
        "sent": len(source.sent),
    }


def _accepted(ledger: Path) -> dict[int, float]:
    accepted: dict[int, float] = {}
    for line in ledger.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        number = entry["event"]["data"].get("n")
        if number is not None and entry["status"] == "accepted":
            accepted.setdefault(number, entry["t"])
    return accepted


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DRAIN_S):
        while not condition():
            await asyncio.sleep(0.005)


def table(figures: dict[str, Any]) -> str:
    """Return the figures as a table for people: ours, the limit, and how many times the limit we take."""
    commit, trip = figures["raw_commit_ms"], figures["raw_round_trip_ms"]
    rows = [f"{'what':<34}{'ours':>12}{'limit':>12}{'ratio':>8}   limit: measured in this run"]

    def row(what: str, ours: float, limit: float, unit: str, why: str) -> None:
        rows.append(f"{what:<34}{ours:>9.2f} {unit:<2}{limit:>9.2f} {unit:<2}{ours / limit:>8.2f}   {why}")

    for share in ("p50", "p99"):
        row(f"press -> committed, {share}", figures["press_committed_ms"][share], commit[share], "ms", "raw commit")
    for share in ("p50", "p99"):
        limit = commit[share] + 2 * trip[share]
        row(
            f"press -> accepted, {share}",
            figures["press_accepted_ms"][share],
            limit,
            "ms",
            "raw commit + 2 QoS 1 trips",
        )
    row("resident memory", figures["resident_mb"], figures["imports_only_mb"], "MB", "a process that only imports")
    for name, what, unit in (
        ("start_to_hearing_s", "start -> line open", "s"),
        ("start_to_first_commit_s", "start -> first commit", "s"),
        ("burst_stored_per_s", f"burst of {BURST:,}, stored", "/s"),
        ("burst_accepted_per_s", f"burst of {BURST:,}, accepted", "/s"),
        ("cpu_s_per_1000", "CPU of the gateway per 1,000", "s"),
    ):
        rows.append(f"{what:<34}{figures[name]:>9.2f} {unit:<2}")
    rows.append(f"lost of {figures['sent']:,}: {figures['sent'] - figures['accepted']}")
    return "\n".join(rows)


def main(report: Path | None) -> int:
    """Measure, print, write FILE; 1 when something was lost."""
    figures = asyncio.run(measure())
    print(
        f"{os.uname().machine}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}"
    )
    print(table(figures))
    if report:
        report.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return int(figures["sent"] != figures["accepted"])

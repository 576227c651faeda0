"""The road: presses and a burst of lines through the whole gateway, to two platforms at once.

The limit of a press being committed is one raw commit; of one being accepted that plus two raw QoS 1 round trips over
the same broker (the event up, the answer down), or one raw request over the same TLS server.
Limits: 300 presses, 10,000 lines of burst, 2,000 at 250/s, about 55 s.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simulator.bench import limits
from simulator.bench.figures import Figure, Spread
from simulator.bench.source import Source
from simulator.control_client import ask
from simulator.processes import Children
from simulator.scenario import free_ports

PRESSES: Final = 300
BURST: Final = 10_000
PACED: Final = 2_000
PACED_PER_S: Final = 250
CPU_LIMIT_S: Final = 0.35
READY_S: Final = 20.0
DRAIN_S: Final = 60.0
DISTRICT, FAMILY = "district", "family"

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
url = "mqtt://127.0.0.1:{district}"

[[destination]]
id = "family"
types = ["alarm.*"]
reconnect_spread_s = 1
[[destination.path]]
url = "https://127.0.0.1:{family}"
ca_file = "{run}/tls/ca.pem"
"""


@dataclass(frozen=True, slots=True)
class Road:
    """What was measured on the road: the figures, and how many lines were sent and accepted."""

    figures: list[Figure]
    sent: int
    accepted: int


async def measure(run: Path) -> Road:
    """Run everything once in the directory `run`."""
    ports = free_ports([DISTRICT, FAMILY, "line"])
    config = run / "gateway.toml"
    config.write_text(_CONFIG.format(run=run, **ports), encoding="utf-8")
    source = Source()
    server = await asyncio.get_running_loop().create_server(lambda: source, "127.0.0.1", ports["line"])
    try:
        async with Children(run) as children:
            python = [sys.executable, "-m"]
            for name, speaks in ((DISTRICT, "mqtt"), (FAMILY, "https")):
                where = ["--run", run, "--destination", name, "--port", ports[name], "--tls-dir", run / "tls"]
                how = ["--speaks", speaks, "--control", run / f"{name}.sock"]
                await children.start(name, [*python, "simulator", "platform", *map(str, (*where, *how))])
                await _until((run / f"{name}.sock").exists)
            raw = await asyncio.to_thread(_raw, run, ports)
            began = time.time()
            gateway = await children.start("gateway", [*python, "gateway", "run", "--config", str(config)])
            return await _drive(run, source, gateway.pid, began=began, raw=raw)
    finally:
        server.close()


@dataclass(frozen=True, slots=True)
class _Raw:
    commit: Spread
    mqtt: Spread
    https: Spread
    rows_per_s: float
    imports_mb: float
    imports_s: float


def _raw(run: Path, ports: dict[str, int]) -> _Raw:
    imports_mb, imports_s = limits.imports_only()
    return _Raw(
        limits.commits(run), limits.mqtt_round_trips(ports[DISTRICT]),
        limits.https_round_trips(ports[FAMILY], run / "tls" / "ca.pem"), limits.rows_per_s(run), imports_mb, imports_s,
    )  # fmt: skip


async def _drive(run: Path, source: Source, pid: int, *, began: float, raw: _Raw) -> Road:
    control = run / "gw.sock"
    async with asyncio.timeout(READY_S):
        await source.connected.wait()
    await _until(control.exists)
    source.send(1, press=True)
    await _until(lambda: 1 in source.acked)
    first = source.acked[1] - began
    await _drained(control, accepted=1)
    for number in range(2, PRESSES + 2):
        source.send(number, press=True)
        await asyncio.sleep(limits.PACE_S)
    await _until(lambda: len(source.acked) == PRESSES + 1)
    await _drained(control, accepted=PRESSES + 1)
    before = limits.cpu_s(pid)
    burst_began = time.time()
    await source.burst(PRESSES + 2, BURST)
    stored = time.time()
    await _drained(control, accepted=PRESSES + 1)
    cpu = limits.cpu_s(pid) - before
    before = limits.cpu_s(pid)
    await source.paced(PRESSES + 2 + BURST, PACED, per_s=PACED_PER_S)
    await _drained(control, accepted=PRESSES + 1)
    paced = limits.cpu_s(pid) - before
    await asyncio.sleep(0.2)  # the platforms write their ledgers every 50 ms
    taken = {name: _accepted(run / f"platform-{name}.jsonl") for name in (DISTRICT, FAMILY)}
    presses = range(2, PRESSES + 2)
    burst_taken = max(at for n, at in taken[DISTRICT].items() if n < PRESSES + 2 + BURST)
    committed = Spread([source.acked[n] - source.sent[n] for n in presses])
    accepted = {name: Spread([at[n] - source.sent[n] for n in presses]) for name, at in taken.items()}
    figures = [
        *_latencies("press -> committed", committed, raw.commit.at, "raw commit"),
        *_latencies(
            "press -> accepted over MQTT", accepted[DISTRICT],
            lambda share: raw.commit.at(share) + 2 * raw.mqtt.at(share), "raw commit + 2 QoS 1 round trips",
        ),
        *_latencies(
            "press -> accepted over HTTPS", accepted[FAMILY],
            lambda share: raw.commit.at(share) + raw.https.at(share), "raw commit + 1 request, warm TLS",
        ),
        Figure(
            f"burst of {BURST:,}, stored", BURST / (stored - burst_began), "/s", raw.rows_per_s,
            f"raw inserts, {limits.ROWS_A_COMMIT} a commit", more=True,
        ),
        Figure(f"burst of {BURST:,}, accepted over MQTT", BURST / (burst_taken - burst_began), "/s"),
        Figure("CPU per 1,000 events of a burst", cpu / BURST * 1000, "s"),
        Figure(
            f"CPU per 1,000 events at {PACED_PER_S}/s", paced / PACED * 1000, "s", CPU_LIMIT_S,
            "not measured: what comparable gateways need",
        ),
        Figure("resident memory, peak", limits.peak_mb(pid), "MB", raw.imports_mb, "a process that only imports"),
        Figure("start -> line open", source.connected_at - began, "s", raw.imports_s, "a process that only imports"),
        Figure("start -> first commit", first, "s", raw.imports_s, "a process that only imports"),
    ]  # fmt: skip
    return Road(figures, len(source.sent), len(taken[DISTRICT]))


def _latencies(what: str, ours: Spread, limit: Callable[[float], float], why: str) -> list[Figure]:
    return [
        Figure(f"{what}, {name}", ours.at(share), "ms", limit(share), why)
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]


async def _drained(control: Path, *, accepted: int) -> None:
    """Wait until nothing is pending anywhere, and each destination has accepted so much."""
    async with asyncio.timeout(DRAIN_S):
        while True:
            destinations = (await ask(control, "status"))["destinations"]
            if not any(sum(one["pending"].values()) for one in destinations) and all(
                one["accepted"] >= accepted for one in destinations
            ):
                return
            await asyncio.sleep(0.02)


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

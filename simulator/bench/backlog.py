"""A backlog and its drain: the platform was away, telemetry has gathered, an alarm is waiting; then the line is healed.

Three times: over MQTT, over MQTT with a round trip of `FAR_MS`, and over HTTPS. The limit is what the same events take over
the same line to the same server when nothing keeps order, counts, or waits for an application: plain paho, one event a
message, with the best of its windows; plain httpx, 100 events a request. Over the long line it is arithmetic: what may be
under way (64 KiB) for each round trip, measured. The press that waits tells when the first alarm is accepted; after `QUIET`
events presses come `PRESSES_PER_S` during the drain, and then `IDLE_PRESSES` when all is quiet: so many that the third worst
is the p99, and not the worst. The rate of the drain is that of the time before the presses, for telemetry gives way to alarms.
Limits: `DEVICES` devices on one line; up to 1,000,000 events (about a kilobyte of disk each, twice), `FAR` at most over the
long line.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulator.bench import limits, raw_drain
from simulator.bench.figures import Figure, Spread
from simulator.bench.source import Source
from simulator.control_client import NoAnswer, Refused, ask
from simulator.processes import Children
from simulator.scenario import free_ports

DEVICES: Final = 10
DEFAULT: Final = 80_000
FAR: Final = 30_000
QUIET: Final = 10_000
MOST: Final = 1_000_000
QUOTA_MB: Final = 4_096  # a million events and more: none may give way while the drain is timed
FAR_MS: Final = 30.0
PRESSES_PER_S: Final = 20.0
IDLE_PRESSES: Final = 200
LOOK_S: Final = 0.25
WIRE_BYTES: Final = 64 * 1024
PATIENCE_S: Final = 60.0
SLOWEST_PER_S: Final = 200.0

_CONFIG: Final = """
[gateway]
id = "gw-bench"
org = "bench"
site = "bench"
data_dir = "{run}/data"
control_socket = "{run}/gw.sock"

[outbox]
max_mb = {max_mb}

[[room]]
id = "r1"

[[serial]]
id = "line"
port = "socket://127.0.0.1:{line}"

[[destination]]
id = "district"
reconnect_spread_s = 1
[[destination.path]]
url = "{speaks}://127.0.0.1:{platform}"
"""
_DEVICE: Final = """
[[device]]
id = "dev-{n}"
model = "json-lines"
link = "line"
address = "d{n}"
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
"""


@dataclass(frozen=True, slots=True)
class Drained:
    """The figures, and how many lines were sent and accepted."""

    figures: list[Figure]
    sent: int
    accepted: int


@dataclass(slots=True)
class Taken:
    """What a ledger says of a drain: when each number was accepted, and the events of some of them as they came.

    `quiet` are those of the backlog that came before anybody pressed, from `began` to `quiet_until`.
    """

    at: dict[int, float] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    began: float = 0.0
    quiet: int = 0
    quiet_until: float = 0.0


@dataclass(slots=True)
class _Bench:
    """What runs: where, how many events, and over what."""

    run: Path
    speaks: str
    count: int
    delay_ms: float
    ports: dict[str, int]
    source: Source
    pid: int = 0

    @property
    def gateway(self) -> Path:
        return self.run / "gw.sock"

    @property
    def platform(self) -> Path:
        return self.run / "pf.sock"

    @property
    def ledger(self) -> Path:
        return self.run / "platform-district.jsonl"


async def measure(run: Path, *, backlog: int) -> list[Drained]:
    """Measure each transport in a directory of its own below `run`; `backlog` events, fewer over the long line."""
    return [
        await _drain(run / "drain-mqtt", "mqtt", backlog, delay_ms=0.0),
        await _drain(run / "drain-far", "mqtt", min(backlog, FAR), delay_ms=FAR_MS / 2),
        await _drain(run / "drain-https", "https", min(backlog, DEFAULT), delay_ms=0.0),
    ]


async def _drain(run: Path, speaks: str, count: int, *, delay_ms: float) -> Drained:
    await asyncio.to_thread(run.mkdir)
    source = Source(devices=DEVICES)
    bench = _Bench(run, speaks, count, delay_ms, free_ports(["line", "platform"]), source)
    config = run / "gateway.toml"
    text = _CONFIG.format(run=run, speaks=speaks, max_mb=QUOTA_MB, **bench.ports)
    text += f'ca_file = "{run}/tls/ca.pem"\n' if speaks == "https" else ""
    config.write_text(text + "".join(_DEVICE.format(n=n + 1) for n in range(DEVICES)), encoding="utf-8")
    server = await asyncio.get_running_loop().create_server(lambda: source, "127.0.0.1", bench.ports["line"])
    try:
        async with Children(run) as children:
            python = [sys.executable, "-m"]
            how = ["--run", run, "--port", bench.ports["platform"], "--tls-dir", run / "tls", "--speaks", speaks]
            platform = [*python, "simulator", "platform", *map(str, how), "--control", str(bench.platform)]
            await children.start("platform", platform)
            await _answers(bench.platform)
            await ask(bench.platform, "cut")
            gateway = await children.start("gateway", [*python, "gateway", "run", "--config", str(config)])
            bench.pid = gateway.pid
            return await _drive(bench)
    finally:
        server.close()


async def _drive(bench: _Bench) -> Drained:
    source = bench.source
    async with asyncio.timeout(PATIENCE_S):
        await source.connected.wait()
    await source.burst(1, bench.count)
    filled_mb = limits.peak_mb(bench.pid)
    waiting = bench.count + 1
    await source.paced(waiting, 1, per_s=1.0, press=True)
    before = limits.cpu_s(bench.pid)
    healed_at = time.time()
    await ask(bench.platform, "heal")
    if bench.delay_ms:
        await ask(bench.platform, "delay", ms=bench.delay_ms)
    connected_at = await _connected(bench, since=healed_at)
    during = await _press_until_drained(bench, first=waiting + 1)
    cpu = limits.cpu_s(bench.pid) - before
    drained_mb = limits.peak_mb(bench.pid)
    idle = during.stop
    await source.paced(idle, IDLE_PRESSES, per_s=PRESSES_PER_S, press=True)
    await _empty(bench)
    await asyncio.sleep(0.2)  # the platform writes its ledger every 50 ms
    taken = read(bench.ledger, count=bench.count, until=source.sent[during.start] if during else math.inf)
    raw = await asyncio.to_thread(_raw_per_s, bench, taken)
    rate = taken.quiet / (taken.quiet_until - taken.began)
    name = f"drain of {bench.count:,} over {bench.speaks}" + (f", {FAR_MS:g} ms" if bench.delay_ms else "")
    figures = [Figure(name, rate, "/s", raw[0], raw[1], more=True)]
    quiet = _spread(source, taken, range(idle, idle + IDLE_PRESSES))
    busy = _spread(source, taken, during)
    figures += [
        Figure(
            f"  press -> accepted meanwhile, {what} of {len(during)}", busy.at(share), "ms", quiet.at(share),
            f"{what} of {IDLE_PRESSES} when all is quiet",
        )
        for what, share in (("p50", 0.5), ("p99", 0.99))
        if during
    ]  # fmt: skip
    figures += [
        Figure("  CPU of the gateway per 1,000 events", cpu / bench.count * 1000, "s"),
        Figure("  first alarm accepted after connecting", 1000 * (taken.at[waiting] - connected_at), "ms"),
        Figure("  resident memory, peak, after it", drained_mb, "MB", filled_mb, "before it, filled"),
    ]  # fmt: skip
    return Drained(figures, len(source.sent), len(taken.at))


async def _connected(bench: _Bench, *, since: float) -> float:
    """Return when the gateway's first connection came; over HTTP there are soon more."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            last_at = (await ask(bench.platform, "stats"))["link"]["last_at"]
            if last_at is not None and last_at >= since:
                return float(last_at)
            await asyncio.sleep(0.005)


async def _press_until_drained(bench: _Bench, *, first: int) -> range:
    """Let `QUIET` events go (or half of them), then press at a steady rate until all have gone.

    Return the numbers pressed. What is pending is asked for now and then only: the answer is work of the gateway's, which a
    press would wait for.
    """
    number, next_look = first, 0.0
    still = bench.count - min(QUIET, bench.count // 2)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE_S + bench.count / SLOWEST_PER_S):
        while True:
            is_pressing = number > first
            if not is_pressing or loop.time() >= next_look:
                status = await ask(bench.gateway, "status")
                next_look = loop.time() + LOOK_S
                [destination] = status["destinations"]
                if destination["connected"]:
                    pending = destination["pending"]["C"] + destination["pending"]["D"]
                    if not pending:
                        break
                    is_pressing = pending < still
            if is_pressing:
                bench.source.send(number, press=True)
                number += 1
            await asyncio.sleep(1 / PRESSES_PER_S)
    await _empty(bench)
    return range(first, number)


async def _empty(bench: _Bench) -> None:
    """Wait until everything is acknowledged and nothing is pending."""
    source = bench.source
    async with asyncio.timeout(PATIENCE_S):
        while len(source.acked) < len(source.sent) or any(
            (await ask(bench.gateway, "status"))["destinations"][0]["pending"].values()
        ):
            await asyncio.sleep(0.05)


async def _answers(control: Path) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await ask(control, "stats")
            except (NoAnswer, Refused):
                await asyncio.sleep(0.05)
            else:
                return


def read(ledger: Path, *, count: int, until: float) -> Taken:
    """Read a ledger: numbers up to `count` are the backlog. Raises ValueError when none of them was accepted."""
    taken = Taken()
    for number, at, event in _accepted(ledger):
        taken.at.setdefault(number, at)
        if number <= count:
            taken.began = taken.began or at
            if at < until:
                taken.quiet, taken.quiet_until = taken.quiet + 1, at
            if len(taken.events) < raw_drain.EVENTS:
                taken.events.append(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
    if not taken.events:
        raise ValueError(f"{ledger}: nothing of the backlog was accepted")
    return taken


def _accepted(ledger: Path) -> Iterator[tuple[int, float, dict[str, Any]]]:
    with ledger.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            number = entry["event"]["data"].get("n")
            if number is not None and entry["status"] == "accepted":
                yield number, entry["t"], entry["event"]


def _raw_per_s(bench: _Bench, taken: Taken) -> tuple[float, str]:
    """Return the limit in events a second, and what it is."""
    port = bench.ports["platform"]
    if bench.speaks == "https":
        rate = raw_drain.httpx_per_s(port, bench.run / "tls" / "ca.pem", taken.events)
        return rate, "plain httpx, the same batches"
    if not bench.delay_ms:
        rate, window = raw_drain.paho_per_s(port, taken.events)
        return rate, f"plain paho, one by one, window {window}"
    round_trip_s = raw_drain.round_trip_s(port, size=WIRE_BYTES - 1024)
    size = sum(len(one.encode()) + 1 for one in taken.events) / len(taken.events)
    return WIRE_BYTES / size / round_trip_s, f"64 KiB a round trip of {1000 * round_trip_s:.0f} ms"


def _spread(source: Source, taken: Taken, numbers: range) -> Spread:
    return Spread([taken.at[n] - source.sent[n] for n in numbers if n in taken.at])

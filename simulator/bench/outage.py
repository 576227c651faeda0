"""A long outage: what days without a platform leave in the real database, and what happens when it comes back.

The gateway runs as a process of its own with no platform to reach. Its devices say as many events as the days would
bring, as fast as they are acknowledged (so the times in them are minutes apart, not days); then the gateway is restarted
over its full database, a call is raised, and the platform comes. While the backlog drains, one button is pressed every
`LIVE_PACE_S`. The platform's own ledger says what came, when, and in which order.

Mix: `CALLS_IN_100` calls, the rest readings of four registers, from `METERS` meters and `BUTTONS` buttons, all numbered.
Reordered, as the contract means it: accepted first with a lower sequence than one before, of one device and lane class.
Limits: `MAX_EVENTS` events; each gets about 3 KB of disk (the database and the platform's ledger).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulator.bench import limits
from simulator.bench.figures import Figure, Spread
from simulator.bench.talker import Talker
from simulator.bench.wear import meter_values
from simulator.control_client import NoAnswer, ask
from simulator.processes import Child, Children
from simulator.scenario import free_ports

MAX_EVENTS: Final = 3_000_000
METERS: Final = 8
BUTTONS: Final = 20
CALLS_IN_100: Final = 1
WINDOW: Final = 2_000
LIVE_PACE_S: Final = 2.0
LOOK_S: Final = 0.1
WAIT_S: Final = 120.0
DRAIN_PER_EVENT_S: Final = 0.005
PLATFORM: Final = "district"

_HEAD: Final = """
[gateway]
id = "gw-bench"
org = "kz-civil-affairs"
site = "bench-centre"
org_path = ["cq", "kaizhou", "hanfeng"]
data_dir = "{run}/data"
control_socket = "{run}/gw.sock"

[outbox]
max_mb = 16384

[[room]]
id = "hall"

[[serial]]
id = "line"
port = "socket://127.0.0.1:{line}"

[[destination]]
id = "district"
reconnect_spread_s = 1
[[destination.path]]
url = "mqtt://127.0.0.1:{district}"
"""
_DEVICE: Final = """
[[device]]
id = "{id}"
model = "json-lines"
link = "line"
address = "{id}"
room = "hall"
map = {{ {map} }}
"""
_METER: Final = """reading = [
  { field = "kwh", quantity = "energy_active_import", channel = "total" },
  { field = "v", quantity = "voltage", channel = "A" },
  { field = "a", quantity = "current", channel = "A" },
  { field = "kw", quantity = "power_active", channel = "total" },
]"""
_BUTTON: Final = 'signal = [{ field = "press", equals = 1, is = "call", code = "press" }]'


@dataclass(slots=True)
class Devices:
    """The devices of the line, and how far each has counted."""

    said: int = 0
    _counted: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def line(self, _n: int) -> str:
        """Return what is said next: by the meters in turn, and every so often by a button."""
        self.said += 1
        turn, place = divmod(self.said, 100)
        if place < CALLS_IN_100:
            return self.press(f"b{turn % BUTTONS + 1}")
        device = f"m{self.said % METERS + 1}"
        return f'{{"dev":"{device}","n":{self._next(device)},{meter_values(self.said)}}}'

    def press(self, device: str) -> str:
        """Return one press of a button."""
        return f'{{"dev":"{device}","n":{self._next(device)},"press":1}}'

    def _next(self, device: str) -> int:
        self._counted[device] += 1
        return self._counted[device]


@dataclass(slots=True)
class Ledger:
    """What the platform accepted first, read from its file: how many, how many again, how many out of order."""

    accepted: int = 0
    repeated: int = 0
    reordered: int = 0
    first_t: float = 0.0
    last_t: float = 0.0
    calls: dict[int, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, *, live: str) -> Ledger:
        """Read a platform's ledger line by line; `calls` are those of the button `live`, by number."""
        ledger, ids, heads = cls(), set[str](), dict[tuple[str, bool], str]()
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                event, t = entry["event"], float(entry["t"])
                if entry["status"] != "accepted" or event["id"] in ids:
                    ledger.repeated += 1
                    continue
                ids.add(event["id"])
                ledger.first_t, ledger.last_t = ledger.first_t or t, t
                if "n" in event["data"]:
                    ledger.accepted += 1
                key = (event["partitionkey"], ".alarm." in event["type"])
                ledger.reordered += heads.get(key, "") > event["sequence"]
                heads[key] = max(heads.get(key, ""), event["sequence"])
                if event["partitionkey"] == live:
                    ledger.calls.setdefault(event["data"]["n"], t)
        return ledger


@dataclass(frozen=True, slots=True)
class Outage:
    """What was measured: figures, and how many events were said and accepted."""

    figures: list[Figure]
    said: int
    accepted: int
    reordered: int


async def measure(run: Path, *, days: float, per_s: float) -> Outage:
    """Fill, restart, drain, and read the ledger, in the directory `run`. Raises ValueError for too many events."""
    events = round(days * 86_400 * per_s)
    if not 100 <= events <= MAX_EVENTS:
        raise ValueError(
            f"{days} days at {per_s} events/s are {events:,} events: from 100 to {MAX_EVENTS:,} can be done"
        )
    ports = free_ports([PLATFORM, "line"])
    names = [(f"m{n}", _METER) for n in range(1, METERS + 1)] + [(f"b{n}", _BUTTON) for n in range(1, BUTTONS + 2)]
    devices = "".join(_DEVICE.format(id=name, map=rules) for name, rules in names)
    (run / "gateway.toml").write_text(_HEAD.format(run=run, **ports) + devices, encoding="utf-8")
    talker = Talker()
    server = await asyncio.get_running_loop().create_server(lambda: talker, "127.0.0.1", ports["line"])
    try:
        async with Children(run) as children:
            return await _Run(run, talker, children, events=events, port=ports[PLATFORM]).through()
    finally:
        server.close()


class _Run:
    def __init__(self, run: Path, talker: Talker, children: Children, *, events: int, port: int) -> None:
        self._run = run
        self._talker = talker
        self._children = children
        self._events = events
        self._port = port
        self._devices = Devices()
        self._live = f"b{BUTTONS + 1}"
        self._pressed: list[float] = []

    async def through(self) -> Outage:
        gateway, _took = await self._start()
        filled = await self._fill(gateway)
        await self._children.stop("gateway", grace_s=WAIT_S)
        size = (self._run / "data" / "outbox.db").stat().st_size
        gateway, opened_s = await self._start()
        opened_mb = limits.peak_mb(gateway.pid)
        await self._press()
        began = time.time()
        await self._start_platform()
        alarms_s, all_s = await self._drain(began)
        peak_mb = limits.peak_mb(gateway.pid)
        await asyncio.sleep(0.5)  # the platform writes its ledger every 50 ms
        ledger = await asyncio.to_thread(Ledger.read, self._run / f"platform-{PLATFORM}.jsonl", live=self._live)
        live = Spread([ledger.calls[n] - at for n, at in enumerate(self._pressed, 1) if n in ledger.calls and n > 1])
        said = self._events + len(self._pressed)
        figures = [
            *filled,
            Figure("database on the disk", size / 1e6, "MB"),
            Figure("database, an event", size / self._events, "B"),
            Figure("start -> line open, database full", opened_s, "s"),
            Figure("memory after the start, peak", opened_mb, "MB"),
            Figure("platform process begins -> first acceptance", ledger.first_t - began, "s"),
            Figure("first acceptance -> all calls accepted", began + alarms_s - ledger.first_t, "s"),
            Figure("first acceptance -> everything accepted", ledger.last_t - ledger.first_t, "s"),
            Figure("drain", ledger.accepted / (ledger.last_t - ledger.first_t), "/s"),
            Figure("memory over the drain, peak", peak_mb, "MB"),
            *(
                Figure(f"a press during the drain -> accepted, {name}", live.at(share), "ms")
                for name, share in (("p50", 0.5), ("max", 1.0))
                if live.values
            ),
            Figure("sent again", float(ledger.repeated), ""),
            Figure("out of order, of one device and lane class", float(ledger.reordered), ""),
            Figure("until nothing is pending", all_s, "s"),
        ]
        return Outage(figures, said, ledger.accepted, ledger.reordered)

    async def _start(self) -> tuple[Child, float]:
        """Start the gateway, and return it and the seconds until it hears its line."""
        began = time.monotonic()
        config = str(self._run / "gateway.toml")
        child = await self._children.start("gateway", [sys.executable, "-m", "gateway", "run", "--config", config])
        async with asyncio.timeout(WAIT_S):
            await self._talker.connected.wait()
        return child, time.monotonic() - began

    async def _fill(self, gateway: Child) -> list[Figure]:
        cpu, began = limits.cpu_s(gateway.pid), time.monotonic()
        await self._talker.burst(self._devices.line, range(self._events), window=WINDOW)
        took = time.monotonic() - began
        return [
            Figure("events stored while nobody takes them", float(self._events), ""),
            Figure("stored", self._events / took, "/s"),
            Figure(
                "CPU of the gateway per 1,000 events stored",
                (limits.cpu_s(gateway.pid) - cpu) / self._events * 1000,
                "s",
            ),
            Figure("memory while it stores, peak", limits.peak_mb(gateway.pid), "MB"),
        ]

    async def _press(self) -> None:
        acked = self._talker.acked
        self._pressed.append(time.time())
        self._talker.say(self._devices.press(self._live))
        await self._talker.acknowledged(acked + 1)

    async def _start_platform(self) -> None:
        where = ["--run", self._run, "--destination", PLATFORM, "--port", self._port, "--control", self._run / "p.sock"]
        await self._children.start(PLATFORM, [sys.executable, "-m", "simulator", "platform", *map(str, where)])

    async def _drain(self, began: float) -> tuple[float, float]:
        """Press every now and then until nothing is pending; return after how long that was for alarms, and for all."""
        alarms_s, pressed_at = 0.0, time.time()
        async with asyncio.timeout(WAIT_S + DRAIN_PER_EVENT_S * self._events):
            while True:
                self._children.check()
                pending = await self._pending()
                if not alarms_s and not pending["A"]:
                    alarms_s = time.time() - began
                if not sum(pending.values()):
                    return alarms_s, time.time() - began
                if time.time() - pressed_at >= LIVE_PACE_S and alarms_s:
                    pressed_at = time.time()
                    await self._press()
                await asyncio.sleep(LOOK_S)

    async def _pending(self) -> dict[str, int]:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    status: dict[str, Any] = await ask(self._run / "gw.sock", "status")
                except NoAnswer:
                    await asyncio.sleep(LOOK_S)
                else:
                    return dict(status["destinations"][0]["pending"])

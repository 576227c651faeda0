"""`python -m simulator kills`: SIGKILL, again and again, under load; what that cost is read from the ledgers.

A microcontroller writes numbered lines over TCP and keeps each until it is acknowledged; a button presses on the air,
once each time, so that a press in a dead time is gone. The gateway is a real process and so is the platform. Each kill
comes at a random instant: one in `EARLY_SHARE` while the gateway still starts, the others up to `BUSY_S` after its first
acknowledgement. The audit of the demo judges; beside it is counted what came again after each kill.

Limits: a gateway that acknowledges nothing for `STUCK_S` ends the storm; after the last kill everything may arrive as long
as there is less to come each `DRAIN_S`, `MOST_DRAIN_S` in all; the packet number of the air has 8 bits, so a press is due
each `PRESS_EVERY_S` and not more often; 100,000 kills.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import shutil
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simulator import scenario as score
from simulator.audit import audit, percentiles, reasons
from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.bus import Ledger
from simulator.dbus_daemon import dbus_daemon
from simulator.demo import run_directory
from simulator.ledgers import Ledgers, read
from simulator.line_devices import LineSource, TcpPort
from simulator.processes import Children
from simulator.scenario import Scenario, SimDevice
from simulator.stage import CannotRun, Stage, pending

CLEAN, UNCLEAN = 0, 1
MAX_COUNT: Final = 100_000
EARLY_SHARE: Final = 0.15
EARLY_S: Final = 1.0
BUSY_S: Final = 0.8
STUCK_S: Final = 30.0
DRAIN_S: Final = 60.0
MOST_DRAIN_S: Final = 1800.0
RATE: Final = 100
PRESS_EVERY_S: Final = 0.2
# What may come again after one kill: what is on its way to the platform, and what one commit of the cursors had not taken.
WINDOW_EVENTS: Final = 40
COMMIT_EVENTS: Final = 250
_BUTTON: Final = "A4:C1:38:10:09:01"
_COUNTERS: Final = 256
_SAY_EVERY: Final = 25


@dataclass(frozen=True, slots=True)
class Storm:
    """What is asked: how many kills, from which seed, at how many lines a second."""

    count: int
    seed: int
    rate: int = RATE


def plan(storm: Storm, *, ports: Mapping[str, int]) -> Scenario:
    """Return the centre that the storm meets. `ports` as `free_ports(("district", "board"))` gives them."""
    reading = {"field": "temp", "quantity": "temperature"}
    call = {"field": "call", "equals": 1, "is": "call", "code": "wired"}
    board = SimDevice(
        id="board", role="controller", model="json-lines", link="wire-1", port=ports["board"],
        map={"address": "", "signal": [call], "reading": [reading]},
    )  # fmt: skip
    button = SimDevice(
        id="button", role="button", model="bthome-button", link="air", address=_BUTTON, allow_plain=True
    )  # fmt: skip
    platform = {"id": "district", "speaks": "mqtt", "port": ports["district"], "also": [], "types": ["*"]}
    return Scenario(
        name="kills",
        title="storm of kills",
        seed=storm.seed,
        seconds=None,
        emission_until_s=score.MAX_SECONDS,
        gateway={"id": "gw-01", "org": "demo", "site": "storm"},
        rooms=(),
        platforms=(platform,),
        links={"air": {"id": "air"}},
        devices=(board, button),
        emissions=(),
        faults=(),
    )


class _Devices:
    """The board and the button, in this process: what they do stands in the ledgers before it happens."""

    def __init__(self, run: Path, storm: Storm, *, port: int, bus_address: str) -> None:
        self._lines, self._air = Ledger(run / "lines.jsonl"), Ledger(run / "air.jsonl")
        self._rate = storm.rate
        self._rng = random.Random(storm.seed)  # noqa: S311 - a rehearsal that can be repeated
        self.acked = asyncio.Event()
        self.source = LineSource(device="board", address="", session=f"{storm.seed:08x}", record=self._record)
        self.port = TcpPort(port=port, source=self.source)
        self._bluez = FakeBluez(bus_address)

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[asyncio.Event]:
        """Serve while entered; nothing is emitted before the event that it yields is set, nor after it is cleared."""
        busy = asyncio.Event()
        self._bluez.add_adapter()
        await self._bluez.start()
        await self.port.listen()
        works = (self.port.run(), self.source.run(), self._write(busy), self._press(busy))
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield busy
        finally:
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            await self._bluez.stop()
            self._lines.close()
            self._air.close()
            for result in done:
                if isinstance(result, Exception):
                    raise result

    def _record(self, row: Mapping[str, Any]) -> None:
        self._lines.record(row)
        if "acked" in row:
            self.acked.set()

    async def _write(self, busy: asyncio.Event) -> None:
        while True:
            await busy.wait()
            await asyncio.sleep(self._rng.expovariate(self._rate))
            is_call = self._rng.random() < 0.1
            if busy.is_set():
                self.source.emit({"call": 1} if is_call else {"temp": round(self._rng.uniform(18, 26), 1)})

    async def _press(self, busy: asyncio.Event) -> None:
        number = 0
        while True:
            await busy.wait()
            await asyncio.sleep(PRESS_EVERY_S)
            number = (number + 1) % _COUNTERS
            now = time.time()
            row = {"t": now, "t_last": now, "device": "button", "kind": "press", "counter": number, "n": None}
            self._air.record({**row, "session": None, "value": {"code": "press"}})
            data = bytes((0x40, 0x00, number, 0x3A, 0x01))
            self._bluez.hear(Report(_BUTTON, -60, service_data={0xFCD2: data}))


class _StormStage(Stage):
    """Only the gateway and the platform are processes of their own here."""

    async def start_devices(self) -> None:
        """They are here already."""


async def storm(options: Storm, run: Path) -> tuple[Ledgers, float]:
    """Let the storm pass over a gateway in `run`. Returns the ledgers and how many seconds the kills took.

    Raises CannotRun when the gateway does not come back, and whatever the parts raise that cannot be had.
    """
    ports = score.free_ports(("district", "board"))
    centre = plan(options, ports=ports)
    score.write_gateway_files(centre, run)
    async with dbus_daemon(run) as bus_address, Children(run) as children:
        stage = _StormStage(centre, run, children=children, bus_address=bus_address)
        devices = _Devices(run, options, port=ports["board"], bus_address=bus_address)
        async with devices.at_work() as busy:
            await stage.open()
            busy.set()
            began = time.monotonic()
            await _kill_all(options, stage, devices)
            took = time.monotonic() - began
            await _acknowledged(devices, "after the last kill")
            busy.clear()
            stage.mark("stop")
            await _drained(stage, devices.source)
            words = {"status": await stage.status(), "alarms": None, "versions": {}}
            (run / "gateway.json").write_text(json.dumps(words), encoding="utf-8")
            await stage.stop_gateway()
        await stage.stop_platforms()
    return read(run), took


async def _kill_all(options: Storm, stage: Stage, devices: _Devices) -> None:
    rng = random.Random(options.seed + 1)  # noqa: S311 - as above
    for number in range(1, options.count + 1):
        if rng.random() < EARLY_SHARE:
            await asyncio.sleep(rng.uniform(0.0, EARLY_S))
        else:
            await _acknowledged(devices, f"before kill {number}")
            await asyncio.sleep(rng.uniform(0.0, BUSY_S))
        await stage.do("kill")
        devices.acked.clear()
        if number % _SAY_EVERY == 0:
            print(f"{number} kills", flush=True)


async def _acknowledged(devices: _Devices, when: str) -> None:
    try:
        async with asyncio.timeout(STUCK_S):
            await devices.acked.wait()
    except TimeoutError:
        raise CannotRun(f"the gateway acknowledged nothing for {STUCK_S:g} s {when}") from None


async def _drained(stage: Stage, source: LineSource) -> None:
    """A storm on a busy machine leaves a backlog: lives of a second hardly deliver. It must shrink, at its own pace."""
    end, before = time.time() + MOST_DRAIN_S, math.inf
    while time.time() < end:
        deadline = min(end, time.time() + DRAIN_S)
        while source.unacknowledged and time.time() < deadline:
            await asyncio.sleep(0.05)
        await stage.settle(deadline)
        status = await stage.status()
        left = math.inf if status is None else source.unacknowledged + pending(status)
        if not 0 < left < before:
            return
        before = left


def figures(ledgers: Ledgers, *, took_s: float) -> dict[str, Any]:
    """Judge a storm: the audit's report, and what came again after each kill."""
    report = audit(ledgers)
    kills = [fault.t for fault in ledgers.faults if fault.fault == "kill"]
    again = resent_by_kill(ledgers, kills)
    counts = [again[at] for at in range(1, len(kills) + 1)]
    most = WINDOW_EVENTS + COMMIT_EVENTS
    found = reasons(report)
    found += [f"{sum(count > most for count in counts)} kills after which more than {most} events came again"] * any(
        count > most for count in counts
    )
    if again[0]:
        found.append(f"{again[0]} events came again before the first kill")
    ranked = sorted(counts) or [0]
    report |= {
        "kills": len(kills),
        "kills_s": round(took_s, 1),
        "restart_ms": percentiles(_restarts(ledgers)),
        "resent_after_a_kill": {"p50": ranked[len(ranked) // 2], "max": ranked[-1], "limit": most},
        "acknowledged_inputs": sum(one.n is not None for one in ledgers.emissions),
        "one_shot_inputs": sum(one.n is None for one in ledgers.emissions),
    }
    return report | {"clean": not found, "reasons": found}


def resent_by_kill(ledgers: Ledgers, kills: list[float]) -> Counter[int]:
    """How many arrivals of what had been accepted before, by the number of kills before them."""
    counts: Counter[int] = Counter()
    for decisions in ledgers.decisions.values():
        counts.update(bisect_right(kills, one.t) for one in decisions if one.status == "duplicate")
    return counts


def _restarts(ledgers: Ledgers) -> list[float]:
    """From each start to the first acknowledgement after it, in seconds; not of a start that was killed before."""
    acked = sorted(ledgers.acked_at.values())
    changes = [fault for fault in ledgers.faults if fault.fault in ("kill", "start")]
    found = []
    for at, one in enumerate(changes):
        first = bisect_right(acked, one.t)
        end = changes[at + 1].t if at + 1 < len(changes) else float("inf")
        if one.fault == "start" and first < len(acked) and acked[first] < end:
            found.append(acked[first] - one.t)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `simulator kills`."""
    parser.add_argument("--count", type=int, default=1000, help=f"how many kills (1 to {MAX_COUNT})")
    parser.add_argument("--seed", type=int, default=1, help="a storm that can be repeated")
    parser.add_argument("--rate", type=int, default=RATE, help="lines a second")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the figures to FILE, as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the directory of the run, and say where it is")


def main(options: argparse.Namespace) -> int:
    """Run a storm, print its figures, and return the exit status: 0 clean, 1 not clean. Raises what `storm` raises."""
    if not 0 < options.count <= MAX_COUNT or not 0 < options.rate <= 1000:
        raise ValueError(f"--count: 1 to {MAX_COUNT}; --rate: 1 to 1000")
    run, clean = run_directory(), False
    try:
        ledgers, took_s = asyncio.run(storm(Storm(options.count, options.seed, options.rate), run))
        report = figures(ledgers, took_s=took_s)
        clean = bool(report["clean"])
    finally:
        if clean and not options.keep:
            shutil.rmtree(run, ignore_errors=True)
        else:
            print(f"the run is kept in {run}", file=sys.stderr)
    if options.report is not None:
        options.report.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(_words(report))
    return CLEAN if clean else UNCLEAN


def _words(report: Mapping[str, Any]) -> str:
    again, restart = report["resent_after_a_kill"], report["restart_ms"]
    lines = [
        f"{report['kills']} kills in {report['kills_s']} s, seed {report['seed']}",
        f"{report['acknowledged_inputs']} numbered lines, {report['one_shot_inputs']} presses on the air",
        f"lost {report['lost']}, doubled {report['duplicated']}, out of order {report['reordered']}",
        f"unheard in an announced gap {report['unheard']}, dead times without a gap {report['silent_gaps']}",
        f"came again after a kill: p50 {again['p50']}, most {again['max']} (limit {again['limit']})",
        f"start to first acknowledgement: p50 {restart['p50']} ms, p99 {restart['p99']} ms",
        *(["clean"] if report["clean"] else [f"NOT CLEAN: {'; '.join(report['reasons'])}"]),
    ]
    return "\n".join(lines)

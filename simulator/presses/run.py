"""`python -m simulator presses`: a hundred thousand presses over a radio that loses and breaks, and what became of each.

The gateway is a real process with the real bleak on a private D-Bus, and so is the platform; bluetoothd, the devices and the
staff, who close every alarm soon after it was delivered, are played here. Device time is compressed (`house`). While more than
`MOST_OPEN` alarms are open no new press begins: this asks for what is right, not for how fast.
The radio's troubles come every `--pause` seconds. Exit status: 0 clean, 1 not clean, 3 could not run.
Limits: 1 to 1,000,000 presses; after the last of them everything must arrive within `DRAIN_S`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from simulator import scenario as score
from simulator.bluez import FakeBluez
from simulator.dbus_daemon import DbusDaemon
from simulator.demo import run_directory
from simulator.presses.air import PressAir
from simulator.presses.house import Member, furnish
from simulator.presses.judge import OFFENCES, Said, judge
from simulator.presses.troubles import Done, Flood, Troubles
from simulator.presses.watch import Watch
from simulator.processes import Children
from simulator.scenario import Scenario, SimDevice
from simulator.stage import Stage

CLEAN, UNCLEAN = 0, 1
MAX_COUNT: Final = 1_000_000
MOST_OPEN: Final = 150
DRAIN_S: Final = 120.0
SAY_EVERY_S: Final = 30.0
DEFAULT_DEVICES: Final = 400
LINK: Final = "air"
SILENCE_S: Final = 10


class _PressStage(Stage):
    """Only the gateway and the platform are processes of their own here."""

    async def start_devices(self) -> None:
        """They are here already."""


def plan(house: Sequence[Member], *, seed: int, port: int) -> Scenario:
    """Return the centre that the gateway is configured for."""
    return Scenario(
        name="presses",
        title="presses",
        seed=seed,
        seconds=None,
        emission_until_s=score.MAX_SECONDS,
        gateway={"id": "gw-01", "org": "demo", "site": "presses"},
        rooms=(),
        platforms=({"id": "district", "speaks": "mqtt", "port": port, "also": [], "types": ["*"]},),
        links={"air": {"id": LINK, "silence_s": SILENCE_S}},
        devices=tuple(
            SimDevice(
                id=one.id, role="button", model=one.protocol.model, link=LINK, address=one.device.address, key=one.key,
                allow_plain=one.key is None, map=one.protocol.map,
            )
            for one in house
        ),
        emissions=(),
        faults=(),
    )  # fmt: skip


async def play(options: argparse.Namespace, run: Path) -> dict[str, Any]:
    """Play a run in `run` and return its report. Raises what the parts raise that cannot be had."""
    house = furnish(options.devices, seed=options.seed)
    ports = score.free_ports(("district",))
    centre = plan(house, seed=options.seed, port=ports["district"])
    score.write_gateway_files(centre, run)
    bus = DbusDaemon(run)
    await bus.start()
    try:
        async with Children(run) as children:
            stage = _PressStage(centre, run, children=children, bus_address=bus.address)
            watch = Watch(run / "platform-district.jsonl", score.control_socket(run), link=LINK, seed=options.seed)
            bluez = FakeBluez(bus.address)
            air = PressAir(
                house, bluez, presses=options.count, seed=options.seed, is_busy=lambda: watch.open > MOST_OPEN
            )
            bluez.add_adapter()
            await bluez.start()
            try:
                await stage.open()
                done, took_s = await _presses(options, stage, air, bus, watch)
                return await _ended(options, stage, air, watch, done=done, took_s=took_s)
            finally:
                await air.bluez.stop()
    finally:
        await bus.stop()


async def _presses(
    options: argparse.Namespace, stage: Stage, air: PressAir, bus: DbusDaemon, watch: Watch
) -> tuple[Done, float]:
    """Play until every press is made; returns the troubles made and the seconds that it took."""
    staff = asyncio.create_task(watch.work(), name="staff")
    troubles = Troubles(air, bus, stage, seed=options.seed, pause_s=options.pause)
    trouble = asyncio.create_task(troubles.make(), name="troubles")
    playing = asyncio.create_task(air.play(), name="air")
    said = asyncio.create_task(_say(options.count, air, watch), name="words")
    began = time.monotonic()
    try:
        await asyncio.wait({playing, trouble, staff}, return_when=asyncio.FIRST_COMPLETED)
        for task in (trouble, staff, playing):
            if task.done():
                task.result()
        took_s = time.monotonic() - began
        await troubles.end(trouble)
        await _drained(stage, watch)
        return troubles.done, took_s
    finally:
        for task in (playing, trouble, staff, said):
            task.cancel()
        await asyncio.wait({playing, trouble, staff, said})


async def _drained(stage: Stage, watch: Watch) -> None:
    end = time.time() + DRAIN_S
    await stage.settle(end)
    while watch.open and time.time() < end:
        await asyncio.sleep(0.1)
    await stage.settle(end)
    await asyncio.sleep(0.2)  # the platform writes its ledger every 50 ms
    watch.look()


async def _say(count: int, air: PressAir, watch: Watch) -> None:
    while True:
        await asyncio.sleep(SAY_EVERY_S)
        made = sum(not one.is_replay for one in air.said)
        print(f"{made} of {count} presses, {len(watch.raised)} alarms, {watch.open} open", flush=True)


async def _ended(
    options: argparse.Namespace, stage: Stage, air: PressAir, watch: Watch, *, done: Done, took_s: float
) -> dict[str, Any]:
    status = await stage.status()
    await stage.stop_gateway()
    await stage.stop_platforms()
    watch.look()
    _keep(stage.run, air.said)
    report = judge(air.said, watch.raised, watch.gaps)
    found = [f"{report[name]} {words}" for name, words in OFFENCES.items() if report[name]]
    left = None if status is None else sum(sum(one["pending"].values()) for one in status["destinations"])
    if left != 0:
        found.append("nobody knows what is still to be delivered" if left is None else f"{left} events not delivered")
    if not report["once"]:
        found.append("nothing was heard, so the run proves nothing")
    return {
        "seed": options.seed,
        "devices": len(stage.plan.devices),
        "took_s": round(took_s, 1),
        "closed": watch.closed,
        "resent": watch.resent,
        **report,
        "troubles": _recoveries(done),
        "flood": _load(done.floods),
        "calm": _load(done.calm),
        "clean": not found,
        "reasons": found,
    }


def _keep(run: Path, said: Sequence[Said]) -> None:
    """Write down what was said, so that a kept run can be judged again."""
    with (run / "said.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(one)) + "\n" for one in said)


def judge_again(run: Path) -> dict[str, Any]:
    """Judge a kept run anew. OSError, ValueError and TypeError where its ledgers cannot be read."""
    with (run / "said.jsonl").open(encoding="utf-8") as file:
        said = [Said(**json.loads(line)) for line in file]
    watch = Watch(run / "platform-district.jsonl", score.control_socket(run), link=LINK, seed=0, closes=False)
    watch.look()
    return judge(said, watch.raised, watch.gaps)


def _recoveries(done: Done) -> dict[str, Any]:
    by_name: dict[str, list[float]] = defaultdict(list)
    for one in done.troubles:
        by_name[one.name].append(one.hears_s)
    return {
        name: {"times": len(values), "median_s": sorted(values)[len(values) // 2], "longest_s": max(values)}
        for name, values in by_name.items()
    }


def _load(measured: Sequence[Flood]) -> dict[str, float] | None:
    seconds = sum(one.seconds for one in measured)
    if not seconds:
        return None
    return {
        "adverts_per_s": round(sum(one.adverts for one in measured) / seconds),
        "cpu_percent": round(100 * sum(one.cpu_s for one in measured) / seconds, 1),
        "seconds": round(seconds, 1),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `simulator presses`."""
    parser.add_argument("--count", type=int, default=100_000, help=f"how many presses (1 to {MAX_COUNT})")
    parser.add_argument("--seed", type=int, default=1, help="a run that can be repeated")
    parser.add_argument("--devices", type=int, default=DEFAULT_DEVICES, help="side by side: about 11 presses/s for 100")
    parser.add_argument("--pause", type=float, default=20.0, metavar="S", help="between two troubles of the radio")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report to FILE, as JSON")
    parser.add_argument(
        "--judge", type=Path, metavar="DIR", help="judge a run that was kept again, and print its counts"
    )
    parser.add_argument("--keep", action="store_true", help="keep the directory of the run, and say where it is")


def main(options: argparse.Namespace) -> int:
    """Play, print, and return the exit status: 0 clean, 1 not clean. Raises what `play` raises."""
    if not 0 < options.count <= MAX_COUNT or options.pause < 0:
        raise ValueError(f"--count: 1 to {MAX_COUNT}; --pause: 0 or more")
    if options.judge is not None:
        found = judge_again(options.judge)
        print(json.dumps(found, indent=1))
        return UNCLEAN if any(found[name] for name in OFFENCES) else CLEAN
    # The bus dies under the pretended bluetoothd on purpose; dbus-fast logs a traceback for each reply that it costs.
    logging.getLogger().addHandler(logging.NullHandler())
    run, clean = run_directory(), False
    try:
        report = asyncio.run(play(options, run))
        clean = bool(report["clean"])
    finally:
        if clean and not options.keep:
            shutil.rmtree(run, ignore_errors=True)
        else:
            print(f"the run is kept in {run}", file=sys.stderr)
    if options.report is not None:
        options.report.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(words(report))
    return CLEAN if clean else UNCLEAN


def words(report: Mapping[str, Any]) -> str:
    """Return a report in words."""
    lines = [
        f"{report['presses']} presses on {report['devices']} devices in {report['took_s']} s, seed {report['seed']}",
        f"heard {report['heard']}: raised once {report['once']}, inside a received gap {report['in_a_gap']}",
        f"heard only when it was said again {report['by_echo']}, its number used up by an attacker {report['masked']}",
        f"unheard {report['unheard']}: lost by the radio {report['radio_loss']}, met a deaf gateway {report['met_deaf']}",
        f"lost {report['lost']}, doubled {report['doubled']}, phantom {report['phantom']}, wrong {report['wrong']}",
        f"said again by an attacker {report['replays']}: raised, not verified {report['replays_raised']}",
        f"  counted as a repeat {report['replays_repeat']}, raised as verified {report['replay_verified']}",
        f"{report['gaps']} gaps, {report['gap_s']} s; adverts that met deafness outside every gap {report['deaf_untold']}",
    ]
    lines += [
        f"first advert -> {name}: p50 {one['p50']} ms, p99 {one['p99']} ms, max {one['max']} ms"
        for name, one in report["latency_ms"].items()
    ]
    for name in ("calm", "flood"):
        if report[name]:
            lines.append(
                f"CPU of the gateway at {report[name]['adverts_per_s']} adverts/s of strangers: "
                f"{report[name]['cpu_percent']} % of a core ({name})"
            )
    lines += [
        f"{name}: {one['times']} times, hears again after {one['median_s']} s (longest {one['longest_s']} s)"
        for name, one in report["troubles"].items()
    ]
    lines.append("clean" if report["clean"] else f"NOT CLEAN: {'; '.join(report['reasons'])}")
    return "\n".join(lines)

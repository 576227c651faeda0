"""`python -m simulator chaos`: a seeded schedule of faults over a running gateway, and a ledger that must be clean.

Exit status: 0 clean, 1 not clean (it says how to play the run again, and with fewer faults), 3 it could not run. What this
machine cannot do is left out of the schedule, and said so loudly, in the report too (`left_out`).
Limits: 10 s to 1 h; a run ends up to two minutes after its seconds, when the last of it has arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from simulator import scenario as score
from simulator import view
from simulator.chaos import disk as disks
from simulator.chaos import schedule as schedules
from simulator.chaos import wall_clock
from simulator.chaos.disk import Disk
from simulator.chaos.schedule import KINDS, Planned
from simulator.chaos.stage import ChaosStage, certificates
from simulator.chaos.wall_clock import WallClock
from simulator.demo import perform, run_directory
from simulator.platform.certificates import make_three

CLEAN, UNCLEAN = 0, 1
MOST_S: Final = 3600.0
SCENARIO: Final = "small_centre"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. `only`: numbers of the faults to play; `schedule`: a file with one, or with a report."""

    seconds: float
    seed: int
    report: Path | None = None
    schedule: Path | None = None
    only: tuple[int, ...] = ()
    without: tuple[str, ...] = ()
    keep: bool = False


def abilities() -> dict[str, str]:
    """Return what faults may need, and what is in the way here: "" for nothing."""
    return {"disk": disks.missing(), "clock": wall_clock.missing(), "corrupt": ""}


def planned(options: Options) -> tuple[tuple[Planned, ...], list[str]]:
    """Return the schedule, and what was left out of it and why. ScheduleError when it cannot be had."""
    lacking = {need: why for need, why in abilities().items() if why}
    without = {name for name, kind in KINDS.items() if {name, kind.needs} & set(options.without)}
    if options.schedule is not None:
        try:
            schedule = schedules.parse(options.schedule.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise schedules.ScheduleError(f"{options.schedule}: {error}") from error
    else:
        schedule = schedules.draw(options.seed, options.seconds)
    impossible = {name: lacking[kind.needs] for name, kind in KINDS.items() if kind.needs in lacking}
    impossible = dict.fromkeys(sorted(without), "left out as told") | impossible
    schedule = schedules.without(schedule, impossible)
    left_out = [f"{name}: {why}" for name, why in impossible.items()]
    return (schedules.only(schedule, options.only) if options.only else schedule), left_out


def run_chaos(options: Options) -> int:
    """Play one run and return its exit status: CLEAN or UNCLEAN. Raises what keeps it from being played."""
    if not score.MIN_SECONDS <= options.seconds <= MOST_S:
        raise ValueError(f"--seconds {options.seconds:g}: from {score.MIN_SECONDS:g} to {MOST_S:g}")
    schedule, left_out = planned(options)
    for one in left_out:
        print(f"NOT PLAYED  {one}", file=sys.stderr)
    print("\n".join(f"fault {schedules.words(one)}" for one in schedule), flush=True)
    run, clean = run_directory(), False
    try:
        report = asyncio.run(_run(options, run, schedule))
        report |= {"schedule": schedules.dump(schedule), "left_out": left_out}
        clean = bool(report["clean"])
        if options.report is not None:
            options.report.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    finally:
        if clean and not options.keep:
            shutil.rmtree(run, ignore_errors=True)
        else:
            print(f"the run is kept in {run} (audit it again with: python -m simulator audit {run})", file=sys.stderr)
    print(view.ledger(report, report["reasons"], view.Paint("off")))
    if not clean:
        print(_again(options, schedule))
    return CLEAN if clean else UNCLEAN


def _again(options: Options, schedule: Sequence[Planned]) -> str:
    numbers = ",".join(str(one.number) for one in schedule)
    command = f"python -m simulator chaos --seconds {options.seconds:g} --seed {options.seed}"
    if options.report is not None:
        command += f" --schedule {options.report}"
    return f"Again: {command}\nWith some of its faults: {command} --only {numbers}"


async def _run(options: Options, run: Path, schedule: Sequence[Planned]) -> dict[str, Any]:
    ports = score.free_ports(score.ports_needed(SCENARIO))
    plan = score.expand(SCENARIO, seed=options.seed, seconds=options.seconds, ports=ports)
    score.write_gateway_files(plan, run)
    make_three(certificates(run, ""), same=certificates(run, "same"), other=certificates(run, "other"))
    needs = {KINDS[one.fault].needs for one in schedule}
    clock = WallClock(run) if "clock" in needs else None
    async with _disk(run, wanted="disk" in needs) as disk:
        stage_of = partial(ChaosStage, schedule=schedule, disk=disk, clock=clock)
        return await perform(plan, run, stage_of=stage_of)


@contextlib.asynccontextmanager
async def _disk(run: Path, *, wanted: bool) -> AsyncIterator[Disk | None]:
    """Give the gateway's data a disk of its own while entered; what is on it then stays in the run's folder."""
    if not wanted:
        yield None
        return
    disk = Disk(run / "data", run / "disk.img")
    try:
        await disk.make()
        yield disk
    finally:
        await disk.remove()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `simulator chaos`."""
    parser.add_argument("--seconds", type=float, default=30.0, help=f"length of the run (10 to {MOST_S:g})")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same schedule")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write ledger and schedule to FILE, as JSON")
    parser.add_argument("--schedule", type=Path, metavar="FILE", help="play this one instead: a schedule, or a report")
    parser.add_argument("--only", type=_numbers, default=(), metavar="N,N", help="play only these faults of it")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=("disk", "clock", "corrupt", *KINDS),
        metavar="FAULT",
        help="leave such faults out: disk, clock, corrupt, or the name of one",
    )
    parser.add_argument("--keep", action="store_true", help="keep the directory of the run, and say where it is")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of faults, as 3,5") from None


def main(options: argparse.Namespace) -> int:
    """Run the command; see run_chaos."""
    return run_chaos(
        Options(
            seconds=options.seconds,
            seed=options.seed,
            report=options.report,
            schedule=options.schedule,
            only=options.only,
            without=tuple(options.without),
            keep=options.keep,
        )
    )

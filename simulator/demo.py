"""The demo: a small centre at work, with faults, and at the end a ledger that shows what was lost and what was not.

Exit status: 0 clean, 1 not clean, 3 it could not run (the message says what is missing and what to do).
Order of the end, on which the verdict hangs: emission and faults end at 60 % of the run; everything drains; 2 s before
the end the staff go home and the devices stop; the gateway is asked for its status when nothing is pending; then gateway
and platform stop and the ledgers are audited. Ctrl-C, once: the same from where it is; twice: everything is stopped at
once.
Limits: a busy machine gets 30 s more for the gateway to hear every device, 30 s for it to acknowledge what they hold, and
30 s for what is pending (10 s each after a Ctrl-C); the view is drawn twice a second on a terminal, else a line each 2 s; a
run that is not clean is kept.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from simulator import scenario as score
from simulator import view
from simulator.audit import audit, reasons
from simulator.control_client import NoAnswer, Refused
from simulator.dbus_daemon import DbusDaemonError, dbus_daemon
from simulator.ledgers import EMITTED_KINDS, LedgerError, read
from simulator.processes import Children, ProcessDied
from simulator.scenario import Scenario, ScenarioError
from simulator.staff import Staff
from simulator.stage import CannotRun, Stage, place

CLEAN, UNCLEAN, COULD_NOT_RUN = 0, 1, 3
DEFAULT_SCENARIO: Final = "small_centre"
END_S: Final = 2.0
INTERRUPT_DRAIN_S: Final = 10.0
DRAW_S: Final = 0.5
LINE_EVERY: Final = 4  # a line for a log each 4th drawing
MAX_SOCKET_PATH: Final = 100


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. `seconds` None: until Ctrl-C."""

    seconds: float | None = None
    report: Path | None = None
    seed: int | None = None
    scenario: str = DEFAULT_SCENARIO
    keep: bool = False


def run_demo(options: Options) -> int:
    """Run the demo and return its exit status."""
    run = run_directory()
    keep = options.keep
    try:
        status = asyncio.run(_demo(options, run))
        keep = keep or status != CLEAN
    except (CannotRun, ScenarioError, DbusDaemonError, ProcessDied, LedgerError, NoAnswer, Refused, OSError) as error:
        _say(f"The demo could not run: {error}", stream=sys.stderr)
        status, keep = COULD_NOT_RUN, keep or any(run.glob("*.log"))
        _drop_empty(options.report)
    except (KeyboardInterrupt, asyncio.CancelledError):
        _say("Stopped at once; there is no ledger.", stream=sys.stderr)
        status = UNCLEAN
        _drop_empty(options.report)
    if keep:
        _say(f"The run is kept in {run} (audit it again with: python -m simulator audit {run})")
    else:
        shutil.rmtree(run, ignore_errors=True)
    return status


def _drop_empty(report: Path | None) -> None:
    """Take back the report that could not be written."""
    if report is not None and report.is_file() and not report.stat().st_size:
        report.unlink()


def audit_directory(run: Path) -> int:
    """Audit a kept run again, print its ledger, and return the exit status."""
    try:
        ledgers = read(run)
    except LedgerError as error:
        _say(f"No audit: {error}", stream=sys.stderr)
        return COULD_NOT_RUN
    report = audit(ledgers)
    found = reasons(report)
    _say(view.ledger(report, found, _paint()))
    return UNCLEAN if found else CLEAN


def run_directory() -> Path:
    """Make a directory whose path is short enough for Unix sockets, and plain enough for a D-Bus address."""
    run = Path(tempfile.mkdtemp(prefix="daycare-"))
    longest = len(str(run / "dbus.sock").encode())
    if longest <= MAX_SOCKET_PATH and all(character.isalnum() or character in "/_.-" for character in str(run)):
        return run
    run.rmdir()
    return Path(tempfile.mkdtemp(prefix="daycare-", dir="/tmp"))


async def _demo(options: Options, run: Path) -> int:
    if options.report is not None:
        options.report.open("a", encoding="utf-8").close()  # that it cannot be written must not show at the end only
    seed = random.SystemRandom().randrange(1, 1_000_000) if options.seed is None else options.seed
    ports = score.free_ports(score.ports_needed(options.scenario))
    plan = score.expand(options.scenario, seed=seed, seconds=options.seconds, ports=ports)
    score.write_gateway_files(plan, run)
    _say(f"{plan.title}: seed {seed}, run directory {run}")
    report = await perform(plan, run)
    if options.report is not None:
        options.report.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    _say(view.ledger(report, report["reasons"], _paint()))
    return UNCLEAN if report["reasons"] else CLEAN


async def perform(plan: Scenario, run: Path, *, stage_of: Callable[..., Stage] = Stage) -> dict[str, Any]:
    """Play a score in `run`, where its files lie already, and judge it. Returns the report, with `clean` and `reasons`.

    `stage_of` makes the stage, as Stage does. Raises what keeps a run from being played.
    """
    async with dbus_daemon(run) as bus_address, Children(run) as children:
        stage = stage_of(plan, run, children=children, bus_address=bus_address)
        play = _Play(stage, children)
        with _signals(play):
            died = await play.play()
        gateway_exit = await stage.stop_gateway()
        await stage.stop_platforms()
    return _report(run, play, died=died, gateway_exit=gateway_exit)


def _report(run: Path, play: _Play, *, died: ProcessDied | None, gateway_exit: int | None) -> dict[str, Any]:
    report = audit(read(run))
    found = reasons(report)
    if died is not None:
        _say(str(died), stream=sys.stderr)
        found.insert(0, str(died).partition(";")[0])
    elif gateway_exit != 0:
        found.append(f"the gateway ended with exit code {gateway_exit} after SIGTERM")
    found += play.stage.complaints
    report["restart_s"] = play.restart_s
    report["staff"] = {"acknowledged": play.staff.acked, "closed": play.staff.closed}
    return report | {"clean": not found, "reasons": found}


class _signals:  # noqa: N801 - a context manager, used like a function
    """The first SIGINT or SIGTERM ends the run in order, the second one at once."""

    def __init__(self, play: _Play) -> None:
        self._play = play

    def __enter__(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop() -> None:
            if self._play.interrupted.is_set() and task is not None:
                task.cancel()
            self._play.interrupted.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)

    def __exit__(self, *_exc: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)


class _Play:
    """The course of one run, from second 0 to the gateway's last word."""

    def __init__(self, stage: Stage, children: Children) -> None:
        self.stage = stage
        self.interrupted = asyncio.Event()
        self.staff = Staff(score.control_socket(stage.run), seed=stage.plan.seed)
        self.restart_s: list[float] = []
        self._children = children
        self._tails = Tails(stage.run)
        self._home = asyncio.Event()
        self._down_since: float | None = None

    async def play(self) -> ProcessDied | None:
        """Play it. Returns how the gateway died, if it did by itself; another process that dies ends the demo."""
        await self.stage.open()
        side = [
            asyncio.create_task(self.staff.work(self._home), name="staff"),
            asyncio.create_task(self._watch(), name="view"),
        ]
        faults = asyncio.create_task(self.stage.play_faults(), name="faults")
        death = asyncio.create_task(self._children.wait_for_death(), name="death")
        try:
            died = await self._busy(faults, death)
            if died is None:
                await self._end()
                died = death.result() if death.done() else None
            await self._last_words()
        finally:
            for task in (*side, faults, death):
                task.cancel()
            await asyncio.wait([*side, faults, death])
        for task in side:
            if not task.cancelled():
                task.result()
        if died is not None and died.name != "gateway":
            raise died
        return died

    async def _busy(self, faults: asyncio.Task[None], death: asyncio.Task[ProcessDied]) -> ProcessDied | None:
        """Let things happen until the devices are to be stopped; 2 s before the end, or at a Ctrl-C."""
        stage, seconds = self.stage, self.stage.plan.seconds
        end = stage.start + (score.MAX_SECONDS if seconds is None else seconds) - END_S
        interrupt = asyncio.create_task(self.interrupted.wait(), name="interrupt")
        waits: set[asyncio.Task[Any]] = {interrupt, death, faults}
        try:
            while time.time() < end and not self.interrupted.is_set() and not death.done():
                await asyncio.wait(waits, timeout=end - time.time(), return_when=asyncio.FIRST_COMPLETED)
                if faults.done():
                    waits.discard(faults)
                    faults.result()
        finally:
            interrupt.cancel()
        if death.done():
            return death.result()
        if self.interrupted.is_set():
            await self._mend(faults)
        return None

    async def _mend(self, faults: asyncio.Task[None]) -> None:
        """After a Ctrl-C: no more faults, and what is broken is made whole."""
        async with self.stage.acting:  # a kill that has begun must not be left without its start
            faults.cancel()
        await asyncio.wait([faults])
        await self.stage.heal_all()
        self.stage.mark("interrupt")

    async def _end(self) -> None:
        """Stop staff and devices and let the last of it through."""
        self._home.set()
        stage, seconds = self.stage, self.stage.plan.seconds
        early = self.interrupted.is_set() or seconds is None
        if early:
            stage.hearing_s = stage.lines_s = stage.drain_s = INTERRUPT_DRAIN_S
        await stage.stop_devices()
        end = time.time() if early else max(time.time(), stage.start + (seconds or 0.0))
        await stage.settle(end + stage.drain_s)

    async def _last_words(self) -> None:
        """Ask the gateway what it has stored and what is pending, and keep the answer for the audit."""
        status, alarms = await self.stage.status(), await self.stage.alarms()
        versions = {
            "python": platform.python_version(),
            "simulator": _version(),
            "gateway": "unknown" if status is None else str(status["version"]),
        }
        dead = await self.stage.dead_letters()
        words = {"status": status, "alarms": alarms, "dead": dead, "versions": versions}
        (self.stage.run / "gateway.json").write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")

    # -- the view -----------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Draw the view until cancelled."""
        paint, terminal = _paint(), sys.stdout.isatty()
        turn = 0
        while True:
            status = await self.stage.status()
            self._measure_restart(status)
            snapshot = self._snapshot(status)
            if terminal:
                _say(view.in_place(view.screen(snapshot, paint), rows=shutil.get_terminal_size().lines))
            elif turn % LINE_EVERY == 0:
                _say(view.line(snapshot))
            turn += 1
            await asyncio.sleep(DRAW_S)

    def _measure_restart(self, status: Mapping[str, Any] | None) -> None:
        """Note how long each kill kept the gateway from hearing everything, to half a second."""
        kills = [at for at, name, _ in self.stage.faults if name == "kill"]
        whole = status is not None and all(link["hearing"] for link in status["links"])
        if whole and len(self.restart_s) < len(kills) and self.stage.faults[-1][1] != "kill":
            self.restart_s.append(round(self.stage.elapsed - kills[len(self.restart_s)], 1))

    def _snapshot(self, status: Mapping[str, Any] | None) -> view.Snapshot:
        plan = self.stage.plan
        self._tails.read()
        coming = [
            (fault["at_s"], fault["fault"], place(fault.get("platform", ""), fault.get("way", 0)))
            for fault in plan.faults
            if fault["at_s"] > self.stage.elapsed
        ]
        return view.Snapshot(
            title=plan.title,
            seed=plan.seed,
            elapsed_s=self.stage.elapsed,
            seconds=plan.seconds,
            busy=self.stage.elapsed <= plan.emission_until_s and not self._home.is_set(),
            platforms=[
                view.Platform(
                    one["id"],
                    [one["speaks"], *(way["speaks"] for way in one["also"])],
                    self._tails.decided[one["id"]],
                    self.stage.broken[one["id"]],
                )
                for one in plan.platforms
            ],
            status=status,
            done=self._tails.done,
            devices=[{"id": device.id} for device in plan.devices],
            faults=self.stage.faults,
            next_fault=coming[0] if coming else None,
        )


@dataclass(slots=True)
class Tails:
    """Follows the ledgers while they grow: what each device did, and what each platform decided."""

    run: Path
    done: Counter[str] = field(default_factory=Counter)
    decided: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _offsets: dict[Path, int] = field(default_factory=dict)

    def read(self) -> None:
        """Count what was written since the last time. Half a line waits for its end."""
        for path in self.run.glob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                block = file.read()
            whole = block[: block.rfind(b"\n") + 1]
            self._offsets[path] = self._offsets.get(path, 0) + len(whole)
            for line in whole.splitlines():
                self._count(path.name, json.loads(line))

    def _count(self, name: str, row: Mapping[str, Any]) -> None:
        if name.startswith("platform-"):
            self.decided[name.removeprefix("platform-").removesuffix(".jsonl")][row["status"]] += 1
        elif row.get("kind") in EMITTED_KINDS or row.get("kind") == "poll":
            self.done[row["device"]] += 1


def _version() -> str:
    try:
        return importlib.metadata.version("daycare-gateway")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # run from a source tree


def _paint() -> view.Paint:
    return view.Paint("on" if view.colour_allowed(sys.stdout) else "off")


def _say(text: str, *, stream: TextIO | None = None) -> None:
    print(text, file=stream or sys.stdout, flush=True)

"""One run on its feet: the processes of a scenario, started in order, broken as the score says, and stopped in order.

Platform, air, bus and gateway are processes of their own; what happens between them goes over wires. The gateway is
known only by its control socket. Limits: 15 s for the platform to be ready, twice the measured start of the gateway and
2 s more for everything to hear and be connected before second 0, once again with 20 s when that was too short.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from simulator import scenario as score
from simulator.control_client import NoAnswer, Refused, ask
from simulator.processes import Child, Children, tail
from simulator.scenario import Scenario
from simulator.true_time import of_this_boot
from simulator.ways import MUTED

PLATFORM_READY_S: Final = 15.0
SECOND_LEAD_S: Final = 20.0
LOOK_S: Final = 0.1
TELL_LIMIT_S: Final = 30.0  # a broker that starts on a busy machine


class CannotRun(Exception):
    """The run cannot begin: the message says what is wrong and what to do."""


class Stage:
    """The processes of one run. `faults` is what was done so far: (seconds after start, name, where or "").

    `acting` is held while a fault of the score is being done; `broken` are the ways that are broken now, and how.
    `drain_s`: for how long after the end of the run things may still be under way; `hearing_s`, `lines_s`: how long the
    devices go on at the end until the gateway hears them all, and until they hold no line that it has not acknowledged;
    `complaints`: what was not as it should be, beside what the ledgers say.
    """

    drain_s = 30.0
    hearing_s = 30.0
    lines_s = 30.0

    def __init__(self, plan: Scenario, run: Path, *, children: Children, bus_address: str) -> None:
        self.plan = plan
        self.run = run
        self.start = 0.0
        self.faults: list[tuple[float, str, str]] = []
        self.broken: dict[str, dict[int, str]] = {one["id"]: {} for one in plan.platforms}
        self.acting = asyncio.Lock()
        self.complaints: list[str] = []
        self.children = children
        self._bus_address = bus_address
        self._config = run / "gateway.toml"
        self._gateway_socket = score.control_socket(run)

    @property
    def elapsed(self) -> float:
        """Seconds since second 0; negative while everything gets ready."""
        return time.time() - self.start

    async def open(self) -> None:
        """Start everything and return shortly before second 0. CannotRun or ProcessDied when that fails."""
        await self._start_platforms()  # first: their certificates are part of what is rehearsed
        lead = 2.0 + 2.0 * await self._rehearse()
        for lead_s in (lead, SECOND_LEAD_S):
            self.start = time.time() + lead_s
            self.plan.write(self.run, start=self.start, boot=of_this_boot())
            await self.start_devices()
            await self.start_gateway()
            if await self._until(self._ready, self.start):
                return
            missing = await self._missing()
            for name in ("gateway", "air", "bus", *map(_process_name, self.plan.platforms)):
                await self.children.stop(name)
            self.begin_again()
            await self._start_platforms()
        raise CannotRun(f"the gateway was not ready within {SECOND_LEAD_S:g} s: {missing}")

    async def status(self) -> dict[str, Any] | None:
        """The gateway's status; None while it does not answer."""
        try:
            status: dict[str, Any] = await ask(self._gateway_socket, "status")
        except (NoAnswer, Refused):
            return None
        return status

    async def alarms(self) -> list[dict[str, Any]] | None:
        """All alarms of the run, closed ones too; None when the gateway does not answer."""
        try:
            alarms: list[dict[str, Any]] = await ask(self._gateway_socket, "alarms.list", all=True)
        except (NoAnswer, Refused):
            return None
        return alarms

    async def dead_letters(self) -> list[dict[str, Any]] | None:
        """What the gateway gave up, stored; None when it does not answer. Its status counts those of one life only."""
        try:
            outbox = await ask(self._gateway_socket, "outbox", dead=True)
        except (NoAnswer, Refused):
            return None
        dead: list[dict[str, Any]] = outbox["dead"]
        return dead

    async def play_faults(self) -> None:
        """Do what the score says, each at its time."""
        for fault in self.plan.faults:
            await asyncio.sleep(max(0.0, self.start + fault["at_s"] - time.time()))
            async with self.acting:
                await self.do(str(fault["fault"]), str(fault.get("platform", "")), int(fault.get("way", 0)))

    async def do(self, fault: str, platform: str = "", way: int = 0) -> None:
        """Do one fault: to a platform (way 0) or to one way into it, or kill the gateway and start it again at once.

        What breaks is entered in the ledger before it happens, what mends after: the time down is never too short.
        """
        if fault == "kill":
            self.mark("kill")
            await self.children.kill("gateway")
            self.mark("start")
            await self.start_gateway()
            return
        ways = [way] if way else list(range(1, 1 + self._count_ways(platform)))
        only = {"way": way} if way else {}
        if fault == "heal":
            await self.tell(platform, "mute", p=0, **only)
            await self.tell(platform, "unstall", where="application", **only)
            await self.tell(platform, "heal", **only)
            for one in ways:
                self.broken[platform].pop(one, None)
            self.mark("heal", platform, way)
        else:
            self.mark(fault, platform, way)
            op, how = ("stall", {"where": "application"}) if fault == "hang" else (fault, {})
            await self.tell(platform, op, **how, **only)
            if fault == "mute":
                self.mark(MUTED, platform, way)  # until now an answer may still have got through
            self.broken[platform].update(dict.fromkeys(ways, fault))

    async def heal_all(self) -> None:
        """Make whole what is broken. Answers that were lost come again only over new connections, or long after."""
        for platform, ways in self.broken.items():
            if "mute" in ways.values():
                await self.do("cut", platform)
            if ways:
                await self.do("heal", platform)

    def _count_ways(self, platform: str) -> int:
        return next(1 + len(one["also"]) for one in self.plan.platforms if one["id"] == platform)

    async def tell(self, platform: str, op: str, **arguments: object) -> None:
        """Let a platform do one operation of its remote control. Raises NoAnswer or Refused."""
        await ask(self._platform_socket(platform), op, timeout_s=TELL_LIMIT_S, **arguments)

    def _platform_socket(self, platform: str) -> Path:
        at = [one["id"] for one in self.plan.platforms].index(platform)
        return self.run / f"pf{at}.sock"  # short: a socket's path has 107 bytes

    def mark(self, name: str, platform: str = "", way: int = 0, **facts: object) -> None:
        """Write one line into DIR/faults.jsonl, and show it."""
        now = time.time()
        # Several processes write this file: a line that is appended in one write stays whole.
        with (self.run / "faults.jsonl").open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps({"t": now, "fault": name, "platform": platform, "way": way, **facts}) + "\n")
        self.faults.append((now - self.start, name, place(platform, way)))

    async def stop_devices(self) -> None:
        """End air and bus, once the gateway hears them and has taken what they hold: from here on nothing is emitted.

        What ended earlier nobody could judge: how long a link was deaf is known when it hears, and a line that its device
        still holds is not lost. A gateway that was killed last, on a busy machine, may need that time.
        """
        await self._until(self._hears, time.time() + self.hearing_s)
        await self._until(self._holds_nothing, time.time() + self.lines_s)
        await asyncio.gather(self.children.stop("air"), self.children.stop("bus"))
        self.mark("stop")

    async def _hears(self) -> bool:
        """Does the gateway hear all that it should?"""
        status = await self.status()
        return status is not None and all(link["hearing"] for link in status["links"])

    async def _holds_nothing(self) -> bool:
        return not _held(self.run / "lines.jsonl")

    async def settle(self, deadline: float) -> None:
        """Wait until nothing is pending and nothing more is stored, until `deadline` (wall-clock) at most."""
        before: object = None

        async def quiet() -> bool:
            nonlocal before
            status = await self.status()
            now = None if status is None else (status["outbox"]["sequence"], pending(status))
            same = now is not None and now == before and now[1] == 0
            before = now
            return same

        await self._until(quiet, deadline, every_s=0.25)

    async def stop_gateway(self) -> int | None:
        """End the gateway as its service manager would; returns its exit code."""
        return await self.children.stop("gateway", grace_s=20.0)

    # -- starting -----------------------------------------------------------------------------------------------

    async def _rehearse(self) -> float:
        """Let the gateway check its configuration. That shows early what is wrong with it, and how fast it starts."""
        began = time.monotonic()
        check = [*_python("gateway"), "config", "check", "--config", str(self._config)]
        child = await self.children.start("config-check", check)
        child.expected = True
        await child.watch
        if child.process.returncode not in (0, 1):  # 1: nothing but warnings
            raise CannotRun(f"the gateway refuses its configuration:\n{tail(child.log)}")
        return time.monotonic() - began

    async def _start_platforms(self) -> None:
        for platform in self.plan.platforms:
            command = ["platform", "--run", str(self.run), "--tls-dir", str(score.tls_directory(self.run))]
            command += ["--destination", platform["id"], "--port", str(platform["port"])]
            command += ["--speaks", platform["speaks"], "--control", str(self._platform_socket(platform["id"]))]
            for way in platform["also"]:
                command += ["--also", f"{way['speaks']}:{way['port']}"]
            await self.children.start(_process_name(platform), [*_python("simulator"), *command])
        if not await self._until(self._platforms_ready, time.time() + PLATFORM_READY_S):
            raise CannotRun(f"the platforms were not ready within {PLATFORM_READY_S:g} s")

    async def start_devices(self) -> None:
        """Start air and bus."""
        run = ["--run", str(self.run)]
        await asyncio.gather(
            self.children.start("bus", [*_python("simulator"), "bus", *run]),
            self.children.start("air", [*_python("simulator"), "air", *run], env=self._bus_env()),
        )

    async def start_gateway(self) -> Child:
        """Start the gateway; it is not waited for."""
        command = [*_python("gateway"), "run", "--config", str(self._config)]
        return await self.children.start("gateway", command, env=self.gateway_env())

    def gateway_env(self) -> dict[str, str]:
        """Return what the gateway finds in its environment beside our own."""
        return self._bus_env()

    def _bus_env(self) -> dict[str, str]:
        return {"DBUS_SYSTEM_BUS_ADDRESS": self._bus_address}

    async def _platforms_ready(self) -> bool:
        try:
            for platform in self.plan.platforms:
                await ask(self._platform_socket(platform["id"]), "stats")
        except (NoAnswer, Refused):
            return False
        return True

    async def stop_platforms(self) -> None:
        """End the platforms: their ledgers are whole then."""
        await asyncio.gather(*(self.children.stop(_process_name(one)) for one in self.plan.platforms))

    async def _ready(self) -> bool:
        status = await self.status()
        return (
            status is not None
            and all(link["hearing"] for link in status["links"])
            and all(one["connected"] for one in status["destinations"])
            and all(path["state"] != "down" for one in status["destinations"] for path in one["paths"])
        )

    async def _until(
        self, condition: Callable[[], Awaitable[bool]], deadline: float, *, every_s: float = LOOK_S
    ) -> bool:
        """Look until the condition holds (True) or the deadline is over (False). ProcessDied when a process ends."""
        while not await condition():
            self.children.check()
            if time.time() >= deadline:
                return False
            await asyncio.sleep(every_s)
        return True

    async def _missing(self) -> str:
        """What the gateway lacks, in its own words."""
        status = await self.status()
        if status is None:
            return f"it does not answer; its log ends:\n{tail(self.run / 'gateway.log')}"
        problems = [f"{one['code']} {one['subject']}: {one['title']}" for one in status["problems"]]
        deaf = [f"{link['id']} does not hear" for link in status["links"] if not link["hearing"]]
        return "; ".join(deaf + problems) or "no connection to the platform"

    def begin_again(self) -> None:
        """Forget a beginning that failed: ledgers and the gateway's database."""
        for path in self.run.glob("*.jsonl"):
            path.unlink()
        for path in (self.run / "data").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _process_name(platform: Mapping[str, Any]) -> str:
    return f"platform-{platform['id']}"


def place(platform: str, way: int) -> str:
    """Name a platform, or one way into it as the gateway names its paths."""
    return f"{platform}/{way}" if way else platform


def pending(status: dict[str, Any]) -> int:
    """How many events the gateway still has to store or to deliver."""
    waiting = sum(sum(one["pending"].values()) for one in status["destinations"])
    return int(status["outbox"].get("unstored", 0)) + waiting


def _held(lines: Path) -> bool:
    """Does a device still hold a line that was not acknowledged?"""
    if not lines.exists():
        return False
    born: set[tuple[str, int]] = set()
    acked: set[tuple[str, int]] = set()
    for text in lines.read_text(encoding="utf-8").splitlines():
        row = json.loads(text)
        if "acked" in row:
            acked.add((row["device"], row["acked"]))
        elif row.get("n") is not None:
            born.add((row["device"], row["n"]))
    return bool(born - acked)


def _python(package: str) -> list[str]:
    return [sys.executable, "-m", package]

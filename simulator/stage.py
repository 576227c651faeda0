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
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from simulator import scenario as score
from simulator.control_client import NoAnswer, Refused, ask
from simulator.processes import Children, tail
from simulator.scenario import Scenario

PLATFORM_READY_S: Final = 15.0
SECOND_LEAD_S: Final = 20.0
LOOK_S: Final = 0.1


class CannotRun(Exception):
    """The run cannot begin: the message says what is wrong and what to do."""


class Stage:
    """The processes of one run. `faults` is what was done so far: (seconds after start, name).

    `acting` is held while a fault of the score is being done.
    """

    def __init__(self, plan: Scenario, run: Path, *, children: Children, bus_address: str) -> None:
        self.plan = plan
        self.run = run
        self.start = 0.0
        self.faults: list[tuple[float, str]] = []
        self.platform_up = True
        self.acting = asyncio.Lock()
        self._children = children
        self._bus_address = bus_address
        self._config = run / "gateway.toml"
        self._gateway_socket = score.control_socket(run)
        self._platform_socket = run / "pf.sock"

    @property
    def elapsed(self) -> float:
        """Seconds since second 0; negative while everything gets ready."""
        return time.time() - self.start

    async def open(self) -> None:
        """Start everything and return shortly before second 0. CannotRun or ProcessDied when that fails."""
        lead = 2.0 + 2.0 * await self._rehearse()
        for lead_s in (lead, SECOND_LEAD_S):
            self.start = time.time() + lead_s
            self.plan.write(self.run, start=self.start)
            await self._start_all()
            if await self._until(self._ready, self.start):
                return
            missing = await self._missing()
            for name in ("gateway", "air", "bus", "platform"):
                await self._children.stop(name)
            self._begin_again()
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

    async def play_faults(self) -> None:
        """Do what the score says, each at its time."""
        for fault in self.plan.faults:
            await asyncio.sleep(max(0.0, self.start + fault["at_s"] - time.time()))
            async with self.acting:
                await self.do(str(fault["fault"]))

    async def do(self, fault: str) -> None:
        """Do one fault: mute, cut or heal the platform, or kill the gateway and start it again at once.

        What breaks is entered in the ledger before it happens, what mends after: the time down is never too short.
        """
        if fault == "kill":
            self.mark("kill")
            await self._children.kill("gateway")
            self.mark("start")
            await self._start_gateway()
        elif fault == "heal":
            await self._tell("mute", p=0)
            await self._tell("heal")
            self.platform_up = True
            self.mark("heal")
        else:
            self.mark(fault)
            await self._tell(fault)
            self.platform_up = fault != "cut"

    async def _tell(self, op: str, **arguments: object) -> None:
        await ask(self._platform_socket, op, timeout_s=10.0, **arguments)

    def mark(self, name: str) -> None:
        """Write one line into DIR/faults.jsonl, and show it."""
        now = time.time()
        # Several processes write this file: a line that is appended in one write stays whole.
        with (self.run / "faults.jsonl").open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps({"t": now, "fault": name}) + "\n")
        self.faults.append((now - self.start, name))

    async def stop_devices(self) -> None:
        """End air and bus: from here on nothing is emitted."""
        await asyncio.gather(self._children.stop("air"), self._children.stop("bus"))
        self.mark("stop")

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
        return await self._children.stop("gateway", grace_s=20.0)

    # -- starting -----------------------------------------------------------------------------------------------

    async def _rehearse(self) -> float:
        """Let the gateway check its configuration. That shows early what is wrong with it, and how fast it starts."""
        began = time.monotonic()
        check = [*_python("gateway"), "config", "check", "--config", str(self._config)]
        child = await self._children.start("config-check", check)
        child.expected = True
        await child.watch
        if child.process.returncode not in (0, 1):  # 1: nothing but warnings
            raise CannotRun(f"the gateway refuses its configuration:\n{tail(child.log)}")
        return time.monotonic() - began

    async def _start_all(self) -> None:
        run = ["--run", str(self.run)]
        platform = self.plan.platform
        address = ["--destination", platform["id"], "--port", str(platform["port"])]
        control = ["--control", str(self._platform_socket)]
        await asyncio.gather(
            self._children.start("platform", [*_python("simulator"), "platform", *run, *address, *control]),
            self._children.start("bus", [*_python("simulator"), "bus", *run]),
            self._children.start("air", [*_python("simulator"), "air", *run], env=self._bus_env()),
        )
        if not await self._until(self._platform_ready, time.time() + PLATFORM_READY_S):
            raise CannotRun(f"the platform was not ready within {PLATFORM_READY_S:g} s")
        await self._start_gateway()

    async def _start_gateway(self) -> None:
        command = [*_python("gateway"), "run", "--config", str(self._config)]
        await self._children.start("gateway", command, env=self._bus_env())

    def _bus_env(self) -> dict[str, str]:
        return {"DBUS_SYSTEM_BUS_ADDRESS": self._bus_address}

    async def _platform_ready(self) -> bool:
        try:
            await ask(self._platform_socket, "stats")
        except (NoAnswer, Refused):
            return False
        return True

    async def _ready(self) -> bool:
        status = await self.status()
        return (
            status is not None
            and all(link["hearing"] for link in status["links"])
            and all(one["connected"] for one in status["destinations"])
        )

    async def _until(
        self, condition: Callable[[], Awaitable[bool]], deadline: float, *, every_s: float = LOOK_S
    ) -> bool:
        """Look until the condition holds (True) or the deadline is over (False). ProcessDied when a process ends."""
        while not await condition():
            self._children.check()
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

    def _begin_again(self) -> None:
        """Forget a beginning that failed: ledgers and the gateway's database."""
        for path in self.run.glob("*.jsonl"):
            path.unlink()
        shutil.rmtree(self.run / "data")
        (self.run / "data").mkdir(mode=0o700)


def pending(status: dict[str, Any]) -> int:
    """How many events the gateway still has to store or to deliver."""
    waiting = sum(sum(one["pending"].values()) for one in status["destinations"])
    return int(status["outbox"].get("unstored", 0)) + waiting


def _python(package: str) -> list[str]:
    return [sys.executable, "-m", package]

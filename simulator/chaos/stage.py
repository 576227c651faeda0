"""The stage of a chaos run: does what stands in the schedule, each fault in a task of its own, and undoes it again.

A gateway that ends by itself is started again after a second, as its service manager would, and that is held against it.
Limits: the gateway may need the seconds of `SHOWN` to show a problem; a gateway that was started last may take
`hearing_s` to hear everything, and lines that devices still hold `lines_s`, before the devices are stopped, everything else
`drain_s` more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simulator import scenario as score
from simulator.chaos import wal
from simulator.chaos.destruction import checkpoint, choose, destroy
from simulator.chaos.disk import Disk, DiskError
from simulator.chaos.schedule import FAMILY, Planned
from simulator.chaos.wall_clock import WallClock
from simulator.control_client import NoAnswer, Refused, ask
from simulator.processes import Child, Children
from simulator.scenario import Scenario
from simulator.stage import LOOK_S, TELL_LIMIT_S, CannotRun, Stage
from simulator.ways import MUTED

RESTART_S: Final = 1.0  # RestartSec of the unit
AFTER_START_S: Final = 10.0
FILL_EVERY_S: Final = 0.1

# What must be shown while it lasts: the beginning of a problem's code, and for how many seconds the gateway must have been
# there, of a platform: since it knocked, for it may be waiting between two tries. A disk that nobody writes to is met by the
# second of two looks, a second apart.
SHOWN: Final = {
    "certificate-other-authority": ("GW-NET-03", 1.5),
    "disk-read-only": ("GW-STO-", 2.5),
    "start-read-only": ("GW-STO-", 1.5),
}


@dataclass(slots=True)
class _Attention:
    """For how many seconds the gateway answered during a fault, and whether it showed it when it was last asked.

    Of two such faults in a row the second may find the problem of the first still on: it does not come on anew.
    """

    seconds: float = 0.0
    is_shown: bool = False


class ChaosStage(Stage):
    """A stage with a schedule. `disk` and `clock` may be None when nothing of the schedule needs them."""

    drain_s = 90.0
    hearing_s = 60.0
    lines_s = 40.0

    def __init__(
        self,
        plan: Scenario,
        run: Path,
        *,
        children: Children,
        bus_address: str,
        schedule: Sequence[Planned],
        disk: Disk | None,
        clock: WallClock | None,
    ) -> None:
        super().__init__(plan, run, children=children, bus_address=bus_address)
        self._schedule = schedule
        self._disk = disk
        self._clock = clock
        self._process = asyncio.Lock()
        self._guards: set[asyncio.Task[None]] = set()
        self._played = asyncio.Event()
        self._is_wal_hit = False

    # -- the gateway's process ------------------------------------------------------------------------------------

    def gateway_env(self) -> dict[str, str]:
        """Return what it finds in its environment: a clock of its own, if one is to jump."""
        return {**super().gateway_env(), **(self._clock.environment() if self._clock else {})}

    async def start_gateway(self) -> Child:
        """Start the gateway, and again whenever it ends by itself."""
        child = await super().start_gateway()
        child.guarded = True
        guard = asyncio.create_task(self._guard(child), name="guard")
        self._guards.add(guard)
        guard.add_done_callback(self._guards.discard)
        return child

    async def stop_gateway(self) -> int | None:
        """End it as its service manager would."""
        for guard in list(self._guards):
            guard.cancel()
        return await super().stop_gateway()

    async def _guard(self, child: Child) -> None:
        await asyncio.shield(child.watch)
        if child.expected:
            return
        self.complaints.append(f"the gateway ended by itself with exit code {child.process.returncode}")
        self.mark("kill", by="itself")
        await asyncio.sleep(RESTART_S)
        async with self._process:
            if not child.expected:  # nobody has killed what was dead, and started it, meanwhile
                self.mark("start")
                await self.start_gateway()

    async def _kill(self, between: Callable[[], Awaitable[None]] | None = None) -> None:
        """Kill it, do something while it is dead, and start it again."""
        self.mark("kill")
        await self.children.kill("gateway")
        if between is not None:
            await between()
        self.mark("start")
        await self.start_gateway()

    # -- the schedule -----------------------------------------------------------------------------------------------

    async def play_faults(self) -> None:
        """Play the schedule; returns when the last fault is over. CannotRun when one cannot be played."""
        try:
            async with asyncio.TaskGroup() as group:
                for one in self._schedule:
                    group.create_task(self._play(one), name=f"fault {one.number}")
        except* (NoAnswer, Refused, DiskError, OSError) as group_of:
            raise CannotRun(f"a fault could not be played: {group_of.exceptions[0]!r}") from None
        finally:
            self._played.set()

    async def _play(self, one: Planned) -> None:
        await asyncio.sleep(max(0.0, self.start + one.at_s - time.time()))
        log = self.run / "gateway.log"
        before = log.stat().st_size if log.exists() else 0
        self.mark(f"begin {one.fault}", one.on, number=one.number)
        (shown, within_s), attention = SHOWN.get(one.fault, ("", 0.0)), _Attention()
        watching = asyncio.create_task(self._watch(attention, shown, one.on), name="attention") if shown else None
        try:
            await self._acts()[one.fault](one)
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.wait({watching})
        self.mark(f"end {one.fault}", one.on, number=one.number)
        is_shown = attention.is_shown or (shown and _told(log, before, shown))
        if shown and attention.seconds >= within_s and not is_shown:
            self.complaints.append(f"fault {one.number} ({one.fault}): no problem {shown} was shown")

    async def _watch(self, attention: _Attention, code: str, platform: str) -> None:
        """Add up for how long the gateway answers: one that is just starting cannot show what is wrong."""
        began = time.time()
        while True:
            await asyncio.sleep(LOOK_S)
            status = await self.status()
            if status is not None and (not platform or await self._knocked(platform) > began):
                attention.seconds += LOOK_S
                attention.is_shown = any(str(one["code"]).startswith(code) for one in status["problems"])

    async def _knocked(self, platform: str) -> float:
        """Return when somebody last connected to a platform, as seconds since 1970."""
        try:
            answer = await ask(self._platform_socket(platform), "stats", timeout_s=TELL_LIMIT_S)
        except (NoAnswer, Refused, OSError):
            return 0.0
        return _latest(answer)

    def _acts(self) -> dict[str, Callable[[Planned], Awaitable[None]]]:
        acts = {
            "kill": self._kill_once,
            "kill-twice": self._kill_twice,
            "disk-full": self._disk_full,
            "disk-hangs": self._disk_hangs,
            "disk-read-only": self._disk_read_only,
            "start-read-only": self._start_read_only,
            "corrupt-running": self._corrupt_running,
            "corrupt-dead": self._corrupt_dead,
            "corrupt-wal": self._corrupt_wal,
            "lose-database": self._lose_database,
            "clock": self._jump,
            "cut": self._cut,
            "broker-restart": self._restart_broker,
            "certificate-same-authority": self._certificate_same,
            "certificate-other-authority": self._certificate_other,
            "mute-then-cut": self._mute_then_cut,
            "answers-lost": self._mute,
            "one-event-refused": self._poison,
        }
        return {**acts, **dict.fromkeys(_SWITCHES, self._switch)}

    # -- the gateway and its world ----------------------------------------------------------------------------------

    async def _kill_once(self, _one: Planned) -> None:
        async with self._process:
            await self._kill()

    async def _kill_twice(self, one: Planned) -> None:
        async with self._process:
            await self._kill()
            await asyncio.sleep(one.for_s)
            await self._kill()

    async def _disk_full(self, one: Planned) -> None:
        disk = self._need_disk()
        async with self._process:  # on a busy machine the next may be due before this one is over
            end = time.monotonic() + one.for_s
            try:
                while time.monotonic() < end:
                    await asyncio.to_thread(disk.fill)
                    await asyncio.sleep(FILL_EVERY_S)
            finally:
                disk.empty()

    async def _disk_hangs(self, one: Planned) -> None:
        disk = self._need_disk()
        async with self._process:
            await disk.freeze()
            try:
                await asyncio.sleep(one.for_s)
            finally:
                await disk.thaw()

    async def _disk_read_only(self, one: Planned) -> None:
        """As a card does that gives up; afterwards the machine starts anew, with its file system checked."""
        disk = self._need_disk()
        async with self._process:
            await disk.fail()
            await asyncio.sleep(one.for_s)
            await self._kill(disk.replace)

    async def _start_read_only(self, one: Planned) -> None:
        disk = self._need_disk()

        async def turn() -> None:
            await disk.read_only(on=True)

        async with self._process:
            await self._kill(turn)
            try:
                await asyncio.sleep(one.for_s)
            finally:
                await disk.read_only(on=False)

    async def _corrupt_running(self, one: Planned) -> None:
        async with self._process:
            await self._look_at_wal()
            await self._destroy(one)
        await asyncio.sleep(one.for_s)

    async def _corrupt_dead(self, one: Planned) -> None:
        async def destroy() -> None:
            await self._destroy(one)

        async with self._process:
            await self._look_at_wal()
            await self._kill(destroy)

    async def _look_at_wal(self) -> None:
        """Has the gateway gone over a damaged WAL? Until then no checkpoint: it would drop what stands behind."""
        if self._is_wal_hit:
            status = await self.status()
            self._is_wal_hit = status is None or not status["outbox"]["sequence"]

    async def _corrupt_wal(self, one: Planned) -> None:
        async def hit() -> None:
            rng = random.Random(f"{self.plan.seed} {one.number}")  # noqa: S311 - as above
            log = self.run / "data" / "outbox.db-wal"
            block = wal.choose_block(log, rng)
            self.mark("nothing to destroy" if block is None else "corrupt", block=block)
            if block is not None:
                self._is_wal_hit = True
                wal.damage(log, block, rng)

        async with self._process:
            await self._kill(hit)

    async def _lose_database(self, _one: Planned) -> None:
        async def lose() -> None:
            for path in (self.run / "data").glob("outbox.db*"):
                path.unlink()

        async with self._process:
            await self._kill(lose)

    async def _destroy(self, one: Planned) -> None:
        """Overwrite pages of the database, the first excepted."""
        rng = random.Random(f"{self.plan.seed} {one.number}")  # noqa: S311 - as above
        database = self.run / "data" / "outbox.db"
        if not self._is_wal_hit:
            with contextlib.suppress(TimeoutError):
                await checkpoint(database)
        chosen = choose(database, int(one.facts["pages"]), rng)
        self.mark("corrupt" if chosen else "nothing to destroy", pages=chosen)
        destroy(database, chosen, rng)

    async def _jump(self, one: Planned) -> None:
        if self._clock is None:
            raise CannotRun("no clock can jump: it needs a C compiler")
        self.mark("clock", jump_s=one.facts["jump_s"])
        self._clock.jump(int(one.facts["jump_s"]))
        await asyncio.sleep(one.for_s)
        self._clock.jump(0)
        self.mark("clock", jump_s=0)

    def _need_disk(self) -> Disk:
        if self._disk is None:
            raise CannotRun("a disk that fails needs a disk of its own: run as root, on Linux with loop devices")
        return self._disk

    # -- platforms --------------------------------------------------------------------------------------------------

    async def _cut(self, one: Planned) -> None:
        self.mark("cut", one.on)
        await self.tell(one.on, "cut")
        await asyncio.sleep(one.for_s)
        await self.tell(one.on, "heal")
        self.mark("heal", one.on)

    async def _mute_then_cut(self, one: Planned) -> None:
        self.mark("mute", one.on)
        await self.tell(one.on, "mute", p=1)
        self.mark(MUTED, one.on)
        await asyncio.sleep(min(1.0, one.for_s / 2))
        self.mark("cut", one.on)
        await self.tell(one.on, "cut")
        await self.tell(one.on, "mute", p=0)
        await asyncio.sleep(one.for_s / 2)
        await self.tell(one.on, "heal")
        self.mark("heal", one.on)

    async def _mute(self, one: Planned) -> None:
        self.mark("mute", one.on)
        await self.tell(one.on, "mute", p=1)
        self.mark(MUTED, one.on)
        await asyncio.sleep(one.for_s)
        self.mark("heal", one.on)
        await self.tell(one.on, "mute", p=0)

    async def _restart_broker(self, one: Planned) -> None:
        await self.tell(one.on, "restart-broker")

    async def _certificate_same(self, one: Planned) -> None:
        await self._certify(one.on, "same")

    async def _certificate_other(self, one: Planned) -> None:
        await self._certify(one.on, "other")
        await asyncio.sleep(one.for_s)
        await self._certify(one.on, "")

    async def _certify(self, platform: str, which: str) -> None:
        """Replace the certificate, and end what was connected with the former."""
        await self.tell(platform, "certificate", folder=str(certificates(self.run, which)))
        await self.tell(platform, "cut")
        await self.tell(platform, "heal")

    async def _poison(self, one: Planned) -> None:
        await self.tell(one.on, "poison", n=1)

    async def _switch(self, one: Planned) -> None:
        begin, end = _SWITCHES[one.fault]
        op, arguments = begin(one)
        await self.tell(one.on, op, **arguments)
        await asyncio.sleep(one.for_s)
        await self.tell(one.on, end[0], **end[1])

    # -- the end ----------------------------------------------------------------------------------------------------

    async def heal_all(self) -> None:
        """Make everything whole: after an interrupt, and after the last fault for certain."""
        if self._clock is not None and self._clock.offset_s:
            self._clock.jump(0)
            self.mark("clock", jump_s=0)
        if self._disk is not None:
            self._disk.empty()
        for platform in self.plan.platforms:
            name = str(platform["id"])
            for op, arguments in _ALL_WELL:
                await self.tell(name, op, **arguments)
            if name == FAMILY:
                await self.tell(name, "answer_well")
                await self.tell(name, "certificate", folder=str(certificates(self.run, "")))

    async def stop_devices(self) -> None:
        """Wait for the last fault and until no device holds a line any more, then end the devices."""
        await self._played.wait()
        await self.heal_all()
        # A gateway that was started last may need some seconds to hear, and a meter two polls to be heard.
        started = max((at for at, name, _ in self.faults if name == "start"), default=0.0)
        await asyncio.sleep(max(0.0, started + AFTER_START_S - self.elapsed))
        await super().stop_devices()


Switch = tuple[str, dict[str, Any]]

_SWITCHES: Final[dict[str, tuple[Callable[[Planned], Switch], Switch]]] = {
    "half-open": (lambda _one: ("stall", {}), ("unstall", {})),
    "slow": (lambda one: ("slow", {"ms": one.facts["ms"]}), ("slow", {"ms": 0})),
    "answers-twice": (lambda _one: ("double_acks", {"on": True}), ("double_acks", {"on": False})),
    "messages-lost": (lambda one: ("forget", {"p": one.facts["p"]}), ("remember", {})),
    "retry-some": (
        lambda one: ("refuse_some", {"p": one.facts["p"], "retry_after_ms": one.facts["after_ms"]}),
        ("accept", {}),
    ),
    "retry-all": (lambda one: ("refuse", {"retry_after_ms": one.facts["after_ms"]}), ("accept", {})),
    "status-500": (lambda one: ("answer", {"how": 500, "decided": one.facts["decided"]}), ("answer_well", {})),
    "status-429": (lambda one: ("answer", {"how": 429, "retry_after": one.facts["retry_after"]}), ("answer_well", {})),
    "status-413": (lambda one: ("limit", {"bytes": one.facts["bytes"]}), ("limit", {"bytes": 0})),
    "business-error": (lambda _one: ("answer", {"how": "business"}), ("answer_well", {})),
    "answer-broken-off": (lambda one: ("answer", {"how": one.facts["how"]}), ("answer_well", {})),
}
_ALL_WELL: Final[tuple[Switch, ...]] = (
    ("mute", {"p": 0}),
    ("unstall", {"where": "application"}),
    ("accept", {}),
    ("remember", {}),
    ("slow", {"ms": 0}),
    ("double_acks", {"on": False}),
    ("heal", {}),
)


def _latest(node: object) -> float:
    """Return the latest `last_at` in what a platform has counted, however deep; 0 where there is none."""
    if isinstance(node, list):
        return max((_latest(one) for one in node), default=0.0)
    if not isinstance(node, Mapping):
        return 0.0
    own = node.get("last_at")
    return max([float(own) if isinstance(own, int | float) else 0.0, *(_latest(one) for one in node.values())])


def certificates(run: Path, which: str) -> Path:
    """Return where the platform's certificates of a run lie: "" those it began with, "same" and "other" authority."""
    first = score.tls_directory(run)
    return first.with_name(f"{first.name}-{which}") if which else first


def _told(log: Path, offset: int, code: str) -> bool:
    """Did a problem with such a code come on, in a log behind an offset?"""
    with log.open("rb") as file:
        file.seek(offset)
        rows = [json.loads(line) for line in file if line.startswith(b"{") and line.endswith(b"}\n")]
    return any(row.get("turn") == "on" and str(row.get("code")).startswith(code) for row in rows)

"""What is done to the radio of a run, one after the other, again and again until the presses are made.

Adapters are switched off, pulled and deafened, bluetoothd crashes or stops in order and comes back as another version with
another controller (the kinds of duplicate filtering), the D-Bus daemon dies, strangers flood the air, the gateway is killed.
Limits: each lasts 0.5 to 2 s, a flood `FLOOD_S`; the next begins `pause_s` after the gateway hears again, which it must within
`HEARS_S`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from simulator.bench.limits import cpu_s
from simulator.bluez import FakeBluez
from simulator.dbus_daemon import DbusDaemon
from simulator.presses.air import PressAir
from simulator.stage import Stage

FLOOD_PER_S: Final = 2_000.0
FLOOD_S: Final = 8.0
HEARS_S: Final = 60.0
_LOOK_S: Final = 0.02
# How bluetoothd comes back. What each means stands in `bluez_objects`.
KINDS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("BlueZ 5.82", {"version": (5, 82)}),
    ("BlueZ 5.88, coarse RSSI", {"version": (5, 88)}),
    ("an adapter for low energy only", {"dual_mode": False}),
    ("a controller that filters by address, with a monitor", {"controller": "by address", "experimental": True}),
    ("a controller that filters by data, with a monitor", {"controller": "by data", "experimental": True}),
    ("a controller that filters by data", {"controller": "by data"}),
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One that was done: from the fault, or from its mending, to a scan, in seconds."""

    name: str
    began: float
    hears_s: float


@dataclass(slots=True)
class Flood:
    """Strangers' adverts that were put on the bus within some seconds, and what the gateway took for all it did then."""

    adverts: int
    seconds: float
    cpu_s: float


@dataclass(slots=True)
class Done:
    """What was done so far."""

    troubles: list[Trouble] = field(default_factory=list)
    floods: list[Flood] = field(default_factory=list)
    calm: list[Flood] = field(default_factory=list)


class Troubles:
    """The troubles of one run."""

    def __init__(self, air: PressAir, bus: DbusDaemon, stage: Stage, *, seed: int, pause_s: float) -> None:
        self.done = Done()
        self._air = air
        self._bus = bus
        self._stage = stage
        self._pause_s = pause_s
        self._rng = random.Random(f"{seed}/troubles")  # noqa: S311 - a rehearsal that can be repeated
        self._kinds = itertools.cycle(KINDS[1:] + KINDS[:1])
        self._resting = asyncio.Lock()

    async def make(self) -> None:
        """Make trouble until cancelled; what is broken then is mended first."""
        every: tuple[tuple[str, Callable[[], Awaitable[str]]], ...] = (
            ("adapter switched off, on again", self._switch),
            ("bluetoothd killed, back", self._crash),
            ("strangers flood the air", self._flood),
            ("dbus-daemon dies, back", self._bus_dies),
            ("adapter pulled, back", self._pull),
            ("bluetoothd stopped in order, back", self._leave),
            ("gateway killed", self._kill),
            ("controller deaf until a new scan", self._wedge),
        )
        while True:
            for name, act in every:
                await self._calm()
                async with self._resting:
                    began = time.time()
                    detail = await act()
                    mended = time.time()
                    await self._until_heard()
                    label = f"{name}: {detail}" if detail else name
                    self.done.troubles.append(Trouble(label, began, round(time.time() - mended, 3)))

    async def end(self, task: asyncio.Task[None]) -> None:
        """Let the one that is under way be mended, and make no more."""
        async with self._resting:
            task.cancel()
        await asyncio.wait({task})

    async def _calm(self) -> None:
        await asyncio.sleep(self._pause_s / 2)
        if self._pause_s >= 4.0:
            self.done.calm.append(await self._measured(self._pause_s / 2))
        else:
            await asyncio.sleep(self._pause_s / 2)

    async def _measured(self, seconds: float) -> Flood:
        pid = self._stage.children.pid("gateway")
        before, told, began = cpu_s(pid), self._air.told, time.monotonic()
        await asyncio.sleep(seconds)
        return Flood(self._air.told - told, time.monotonic() - began, cpu_s(pid) - before)

    async def _until_heard(self) -> None:
        async with asyncio.timeout(HEARS_S):
            while not self._air.bluez.listens():
                await asyncio.sleep(_LOOK_S)

    async def _hold(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.5, 2.0))

    async def _switch(self) -> str:
        self._air.bluez.power(on=False)
        await self._hold()
        self._air.bluez.power(on=True)
        return ""

    async def _pull(self) -> str:
        self._air.bluez.remove_adapter()
        await self._hold()
        self._air.bluez.add_adapter()
        return ""

    async def _crash(self) -> str:
        await self._air.bluez.crash()
        return await self._come_back()

    async def _leave(self) -> str:
        await self._air.bluez.stop()
        return await self._come_back()

    async def _come_back(self) -> str:
        await self._hold()
        name, options = next(self._kinds)
        await self._begin(options)
        return f"as {name}"

    async def _bus_dies(self) -> str:
        await self._bus.stop()
        await self._air.bluez.crash()
        await self._hold()
        await self._bus.start()
        await self._air.bluez.start()
        return ""

    async def _begin(self, options: dict[str, Any]) -> None:
        bluez = FakeBluez(self._bus.address, **options)
        bluez.add_adapter()
        await bluez.start()
        self._air.bluez = bluez

    async def _wedge(self) -> str:
        self._air.bluez.wedge()
        return ""

    async def _kill(self) -> str:
        await self._stage.do("kill")
        return ""

    async def _flood(self) -> str:
        usual, self._air.foreign_per_s = self._air.foreign_per_s, FLOOD_PER_S
        try:
            self.done.floods.append(await self._measured(FLOOD_S))
        finally:
            self._air.foreign_per_s = usual
        return ""

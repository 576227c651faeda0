"""A destination to deliver to: a real outbox, a scripted uplink, and time that passes only when nothing else is to do."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.deliver import Deliverer, DeliveryCallbacks
from gateway.errors import SessionError
from gateway.events import Event, Lane, Origin, new_event
from gateway.health import Health
from gateway.outbox import Outbox, Route, Write
from gateway.uplinks import Ack, AckStatus, UplinkEvents
from gateway.uplinks.path import PlatformPath
from gateway.uplinks.paths import Paths

ORIGIN = Origin("org", "site", "gw")
START_MS = 1_800_000_000_000
DISTRICT = "district"


class PatientSelector(selectors.DefaultSelector):
    """Does not wait for time to pass: it lets it pass, unless a thread is at work."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.jobs = 0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if self.jobs:
            return super().select(10.0)  # its end wakes the loop
        if timeout is None:
            raise AssertionError("the loop waits for something that can never happen")
        self.now += timeout + 1e-6
        return []


class PatientLoop(asyncio.SelectorEventLoop):
    """An event loop whose hours take no time."""

    def __init__(self) -> None:
        self.patience = PatientSelector()
        super().__init__(self.patience)

    def time(self) -> float:
        return self.patience.now

    def patient(self, ask: Callable[..., asyncio.Future[Any]]) -> Callable[..., asyncio.Future[Any]]:
        """Let no time pass while a thread is at what it was asked."""

        def asked(work: Callable[[], Any]) -> asyncio.Future[Any]:
            self.patience.jobs += 1
            future = ask(work)
            future.add_done_callback(self._job_done)
            return future

        return asked

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]  # typeshed has type variables here
        self.patience.jobs += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _future: object) -> None:
        self.patience.jobs -= 1


class LoopClock:
    """The gateway's clocks, told by the loop."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def stamp(self) -> Stamp:
        ms = round(self.monotonic() * 1000)
        return Stamp(START_MS + ms, ms, "boot-1", "synced")


@dataclass
class Sent:
    """One message that went out."""

    token: int
    lane: Lane
    events: list[dict[str, Any]]
    at: float
    epoch: int
    connection: int
    size: int

    @property
    def ids(self) -> list[str]:
        return [one["id"] for one in self.events]

    @property
    def sequences(self) -> list[int]:
        return [int(one["sequence"]) for one in self.events]


class ScriptedUplink:
    """A transport that does what the test says. With `obliging` it confirms and accepts everything in the next turn."""

    def __init__(self) -> None:
        self.window = 40
        self.max_bytes = 256 * 1024 * 1024
        self.obliging = True
        self.confirming = True
        self.sent: list[Sent] = []
        self.opened: list[tuple[int, Mapping[str, object], float]] = []
        self.closed = 0
        self.tokens: list[int] = []
        self.failures: list[BaseException] = []
        self.breaks: list[SessionError] = []
        self.hangs = self.hangs_on_closing = False
        self.events: UplinkEvents | None = None
        self.epoch = 0
        self.announced: list[float] = []
        self.on_sent: Callable[[Sent], object] = lambda _message: None
        self.on_open: Callable[[], object] = lambda: None

    async def open(self, events: UplinkEvents, *, epoch: int, birth: Mapping[str, object]) -> None:
        self.opened.append((epoch, birth, asyncio.get_running_loop().time()))
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.Event().wait()
        if self.failures:
            raise self.failures.pop(0)
        self.events, self.epoch = events, epoch
        self.on_open()

    def announce(self) -> None:
        self.announced.append(asyncio.get_running_loop().time())

    def send(self, lane: Lane, texts: list[str]) -> int:
        if self.events is None:
            raise SessionError("GW-NET-05", "host", error="no session")
        if self.breaks:
            raise self.breaks.pop(0)
        loop = asyncio.get_running_loop()
        size = sum(len(text.encode()) for text in texts) + len(texts) + 1
        events = [json.loads(text) for text in texts]
        token = self.tokens.pop(0) if self.tokens else len(self.sent) + 1
        message = Sent(token, lane, events, loop.time(), self.epoch, len(self.opened), size)
        self.sent.append(message)
        if self.confirming:
            loop.call_soon(self.puback, message)
        if self.obliging:
            loop.call_soon(self.accept, message)
        self.on_sent(message)
        return message.token

    async def close(self) -> None:
        self.events = None
        self.closed += 1
        if self.hangs_on_closing:
            await asyncio.Event().wait()

    def puback(self, message: Sent, *, ok: bool = True) -> None:
        if self.events is not None and message.connection == len(self.opened):
            self.events.sent(message.token, ok)

    def accept(self, message: Sent) -> None:
        self.answer(*((one, "accepted") for one in message.ids))

    def answer(self, *decisions: tuple[str, str], after_s: float | None = None, code: str = "") -> None:
        if self.events is not None:
            self.events.acks([Ack(one, AckStatus(status), code, after_s) for one, status in decisions])

    def lose(self, code: str = "GW-NET-05") -> None:
        assert self.events is not None
        self.events.lost(SessionError(code, "district", error="cut"))

    def sequences(self, lane: Lane | None = None) -> list[int]:
        """Every sequence that went out, in order, repeats included."""
        return [seq for one in self.sent if lane in (None, one.lane) for seq in one.sequences]


class SharedUplink(ScriptedUplink):
    """One whose alarms go over the connection of everything else, as with MQTT."""

    is_shared = True

    def __init__(self, *, max_events: int = 100) -> None:
        super().__init__()
        self.max_events = max_events


class Bench:
    """A deliverer at work."""

    def __init__(self, folder: Path) -> None:
        self.clock = LoopClock()
        self.path = folder / "outbox.db"
        self.routes = [Route(DISTRICT, ("*",))]
        self.finish = "L2"
        self.spread_s = 60.0
        self.one_at_a_time = False
        self.uplinks = [ScriptedUplink()]
        self.levels: list[tuple[str, str]] = []
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def uplink(self) -> ScriptedUplink:
        """The first path, mostly the only one."""
        return self.uplinks[0]

    async def open(self, *, deliver: bool = True) -> None:
        self.outbox = Outbox(self.path, self.routes, clock=self.clock)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, PatientLoop)
        self.outbox._database.in_writer = loop.patient(self.outbox._database.in_writer)  # type: ignore[method-assign]  # time waits for it
        await self.outbox.open()
        self.tasks = [asyncio.create_task(self.outbox.run())]
        self.health = Health(self.clock)
        paths = Paths(
            DISTRICT,
            [PlatformPath(one, f"host-{n}", "scripted") for n, one in enumerate(self.uplinks, 1)],
            reconnect_spread_s=self.spread_s,
            clock=self.clock,
            health=self.health,
            one_at_a_time=self.one_at_a_time,
        )
        self.deliverer = Deliverer(
            DISTRICT, paths, self.outbox, finish=self.finish, reconnect_spread_s=self.spread_s,
            clock=self.clock, health=self.health,
            callbacks=DeliveryCallbacks(
                delivered=lambda event_id, level: self.levels.append((event_id, level)),
                birth=lambda: {"streamid": self.outbox.streamid},
            ),
        )  # fmt: skip
        self.outbox.on_stored = self.deliverer.wake
        self.outbox.live = lambda: self.deliverer.is_live
        if deliver:
            await self.deliver()

    async def deliver(self) -> None:
        self.tasks.append(asyncio.create_task(self.deliverer.run()))
        await self.settle()

    async def end_delivery(self) -> None:
        """Cancel the deliverer alone, as an orderly end does."""
        task = self.tasks.pop()
        task.cancel()
        await asyncio.wait({task})

    async def close(self) -> None:
        for task in reversed(self.tasks):
            task.cancel()
        done = await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks = []
        await self.outbox.close()
        for one in done:
            if isinstance(one, Exception):
                raise one

    async def settle(self, seconds: float = 0.001) -> None:
        """Let time pass: each millisecond begins when nothing else is left to do."""
        await asyncio.sleep(seconds)

    def event(self, noun: str = "telemetry.meter", device: str = "m1", **data: object) -> Event:
        return new_event(noun, ORIGIN, device=device, at=self.clock.stamp(), data=data)

    def disk_works(self, works: bool) -> None:
        """Let the disk take nothing more, as one that was mounted read-only, or work again."""

        async def may_write() -> bool:
            return works

        self.outbox._store._writer.execute(f"PRAGMA query_only={'OFF' if works else 'ON'}")
        self.outbox._database.may_write = may_write  # type: ignore[method-assign]  # a test's own

    async def store(self, *nouns_and_devices: tuple[str, str], **data: object) -> list[str]:
        """Store one event for each (type, device), in this order; return the ids. Then let everything settle."""
        ids = []
        for noun, device in nouns_and_devices:
            event = self.event(noun, device, **data)
            ids.append(event.id)
            self.outbox.submit(Write((event,)))
        assert await self.outbox.flush(100)
        await self.settle()
        return ids

    def problems(self) -> set[str]:
        return {trouble.code for trouble in self.health.current()}


Scenario = Callable[[Bench], Awaitable[None]]


def played(scenario: Scenario, folder: Path) -> Bench:
    bench = Bench(folder)

    async def whole() -> None:
        try:
            await scenario(bench)
        finally:
            await bench.close()

    run(whole())
    return bench


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scenario], Bench]:
    """Play a scenario on a bench, in time that is not waited for; everything that it began has ended afterwards."""
    return lambda scenario: played(scenario, tmp_path)


@pytest.fixture
def shared_line() -> Callable[..., SharedUplink]:
    """Make an uplink whose alarms go over the connection of everything else."""
    return SharedUplink


@pytest.fixture(scope="module")
def play_in() -> Callable[[Scenario, Path], Bench]:
    """Play a scenario in a folder of its own, as often as one likes."""
    return played


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        runner.run(scenario)

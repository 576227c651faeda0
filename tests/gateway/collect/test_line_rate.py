"""How much of a line's time is used while meters on it are dead: 32 of them at 2400 8E1, in simulated time.

The real master, rota, driver and meters; the line is a model that costs what the wires would. The theoretical cycle is that
of `gateway.collect.rota`; of a dead meter one request and its time-out of 1.5 s belong to it, for somebody has to notice.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from drivers.devices.dlt645_2007 import DRIVER
from drivers.kit import Ask, Framer, LineSettings, NoReply
from gateway.clock import Stamp
from gateway.collect import BusMaster, Desk
from gateway.health import Health
from simulator.meters import Meter, Quirks, RequestReader

SETTINGS = LineSettings(2400, 8, "E", 1)
BYTE_S, QUIET_S, WASTE_S, TIMEOUT_S = 11 / 2400, 0.05, 0.008, 1.5
WALL_S = 1_800_000_000
# 20 bytes out.
A_TIME_OUT_S = 20 * BYTE_S + TIMEOUT_S + QUIET_S


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def stamp(self) -> Stamp:
        ms = int(self.now * 1000)
        return Stamp(WALL_S * 1000 + ms, ms, "boot", "synced")


class Over(Exception):
    """The time that was to be played is over."""


@dataclass
class ModelLine:
    """A line at 2400 8E1: what an exchange costs passes on the clock at once."""

    clock: Clock
    meters: list[Meter]
    until: float
    link_id: str = "bus"
    timeouts: int = 0
    asks: int = 0
    replies: int = 0
    foreign: int = 0
    trimmed: int = 0
    taken: int = 0
    unasked: int = 0
    switches: int = 0
    restless: int = 0
    echo_seen: bool = False
    echo_expected: bool = False
    first_s: float | None = None
    on_unasked: Any = None
    ideal_s: float = 0.0
    polls: Counter[str] = field(default_factory=Counter)
    silences: Counter[str] = field(default_factory=Counter)
    first_reply: dict[str, float] = field(default_factory=dict)

    async def hear_out(self, *, at_most_s: float) -> None:
        raise AssertionError("nobody is late here")

    async def ask(
        self, ask: Ask, framer: Framer, settings: LineSettings | None = None, *, silent_s: float | None = None
    ) -> bytes:
        for _ in range(1 + ask.retries):
            if self.clock.now >= self.until:
                raise Over
            reply = self._try(ask, min(silent_s or ask.timeout_s, ask.timeout_s))
            if reply is not None:
                return reply
        self.timeouts += 1
        raise NoReply("no reply")

    def _try(self, ask: Ask, patience_s: float) -> bytes | None:
        (request,) = RequestReader().feed(ask.request)
        called = request.address[::-1].hex()
        self.clock.now += len(ask.request) * BYTE_S + QUIET_S
        for meter in self.meters:
            answer = None if meter.quirks.silent else meter.answer(request, now=WALL_S + self.clock.now)
            if answer is None:
                continue
            thinks_s = meter.delay_s()
            if thinks_s + BYTE_S > patience_s:
                break
            wire = meter.preamble + answer.frame
            cost = thinks_s + len(wire) * BYTE_S
            self.clock.now += cost + WASTE_S
            self.ideal_s += len(ask.request) * BYTE_S + QUIET_S + cost
            self.first_s = thinks_s + BYTE_S
            self.polls[meter.device] += 1
            self.first_reply.setdefault(meter.device, self.clock.now)
            return answer.frame
        self.clock.now += patience_s
        self.silences[called] += 1
        return None


class Bench:
    """A bus of 32 and its master; the last `dead` of them never answer."""

    def __init__(self, dead: int, *, minutes: float, quirks: dict[str, Quirks] | None = None) -> None:
        random.seed(32)
        self.clock = Clock()
        self.names = [f"m{n:02d}" for n in range(1, 33)]
        self.dead = self.names[32 - dead :]
        addresses = {name: f"{190_000 + n:012d}" for n, name in enumerate(self.names, 1)}
        own = quirks or {}
        meters = [
            Meter(
                device=name, address=address, seed=7, start=WALL_S,
                quirks=Quirks(silent=True) if name in self.dead else own.get(name),
            )
            for name, address in addresses.items()
        ]  # fmt: skip
        line: Any = ModelLine(self.clock, meters, minutes * 60)
        self.line = line
        registers = {"registers": ["energy_active_import"]}
        desks = [
            Desk(
                name, DRIVER.model, "bus", address, "", "", DRIVER, DRIVER.options(address, registers), wired=True,
                every_s=1.0, line=SETTINGS,
            )
            for name, address in addresses.items()
        ]  # fmt: skip
        self.master = BusMaster(line, desks, collector=Nobody(), clock=self.clock, health=Health(self.clock))

    async def play(self) -> float:
        """Play it; return the share of the theoretical rate, each dead meter noticed once a part of the theory."""
        with pytest.raises(Over):
            await self.master.run()
        return (self.line.ideal_s + len(self.dead) * A_TIME_OUT_S) / self.clock.now


class Nobody:
    """Whoever would take what was read."""

    registers: Any
    listeners: Any

    def __init__(self) -> None:
        self.registers = self.listeners = self

    def missing(self, _device: str) -> int:
        return 0

    def take(self, *_what: object) -> None:
        pass

    def tell_poll(self, *_what: object, **_more: object) -> None:
        pass

    def fault(self, _desk: Desk, bug: Exception) -> None:
        raise bug


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sleeping cost no time."""
    real, clocks = asyncio.sleep, list[Clock]()
    made = Clock.__init__

    def keep(clock: Clock) -> None:
        made(clock)
        clocks.append(clock)

    async def sleep(seconds: float) -> None:
        for clock in clocks:
            clock.now += seconds
        await real(0)

    monkeypatch.setattr(Clock, "__init__", keep)
    monkeypatch.setattr(asyncio, "sleep", sleep)


@pytest.mark.parametrize(
    ("dead", "minutes", "share"), [(0, 1, 0.97), (4, 1, 0.97), (4, 5, 0.94), (4, 15, 0.95), (8, 15, 0.92)]
)
async def test_dead_meters_cost_little_more_than_one_time_out_each(dead: int, minutes: float, share: float) -> None:
    assert await Bench(dead, minutes=minutes).play() >= share


async def test_every_living_meter_is_read_in_the_first_round_and_as_often_as_the_others() -> None:
    bench = Bench(4, minutes=5)
    await bench.play()
    polls = [bench.line.polls[name] for name in bench.names if name not in bench.dead]
    assert max(polls) - min(polls) <= 1
    # 28 of 0.35 s, and 4 dead ones of two questions each.
    assert max(bench.line.first_reply.values()) < 28 * 0.4 + 4 * 2 * A_TIME_OUT_S


async def test_the_dead_are_asked_again_within_five_minutes() -> None:
    bench = Bench(4, minutes=15)
    await bench.play()
    # Two questions a poll, the first poll included.
    assert all(bench.line.silences[f"{190_000 + n:012d}"] >= 2 * 3 for n in range(29, 33))


async def test_a_meter_that_is_silent_to_blocks_is_read_in_the_first_round_and_does_not_hold_up_the_others() -> None:
    odd = {"m03": Quirks(no_blocks=True, mute=True), "m09": Quirks(no_blocks=True, mute=True)}
    bench = Bench(0, minutes=5, quirks=odd)
    share = await bench.play()
    assert {"m03", "m09"} <= set(bench.line.first_reply)
    assert bench.line.first_reply["m03"] < 30
    assert share >= 0.84  # its silence to one request, 0.7 s a poll, is no part of the theory


async def test_a_meter_that_is_slower_than_all_others_and_than_the_standard_is_read_nevertheless() -> None:
    bench = Bench(0, minutes=15, quirks={"m03": Quirks(late_s=0.9)})
    await bench.play()
    assert bench.line.polls["m03"] >= 50
    assert bench.line.first_reply["m03"] < 120

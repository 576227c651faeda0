"""A month of three simulated meters with outages: every register accounted for, every gap named.

The gateway's own collecting, outbox and report; only the wires are short, and the time runs as fast as it is worked on.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import Answers, Ask, Framer, LineSettings, NoReply, catalogue
from gateway.alarms import AlarmBook
from gateway.cli.meter_month import FREEZE, MISSING, READ, Month, month_of
from gateway.clock import Stamp
from gateway.collect import BusMaster, Collector, Desk
from gateway.collect.judge import Judge
from gateway.collect.registers import Registers
from gateway.events import Origin
from gateway.health import Health
from gateway.outbox import Outbox, Route
from simulator.meters import Meter, RequestReader
from simulator.meters_1997 import Meter1997

CHINA = timezone(timedelta(hours=8))
BEGIN = datetime(2026, 11, 1, 0, 20, tzinfo=CHINA)
HOUR_S = 3600.0
ENERGY = "energy_active_import"
ASK_S = 0.4
METERS = {
    "kitchen": ("dlt645-2007", "000000193600"),
    "ward": ("dlt645-2007", "000000193601"),
    "yard": ("dlt645-1997", "000000000042"),
}


class QuickClock:
    """A clock that only moves when somebody works or waits."""

    def __init__(self) -> None:
        self.now = Stamp(int(BEGIN.timestamp() * 1000), 1_000, "boot-1", "synced")

    def stamp(self) -> Stamp:
        return self.now

    def monotonic(self) -> float:
        return self.now.mono_ms / 1000

    def go_on(self, seconds: float) -> None:
        ms = int(seconds * 1000)
        self.now = replace(self.now, wall_ms=self.now.wall_ms + ms, mono_ms=self.now.mono_ms + ms)


@dataclass
class ShortWires:
    """A line whose meters answer at once; `silent` says who does not answer at a moment."""

    clock: QuickClock
    meters: Mapping[str, Meter]
    silent: Any
    truth: dict[tuple[str, int], Decimal] = field(default_factory=dict)
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
    on_unasked: Any = None
    first_s: float | None = 0.05

    async def hear_out(self, *, at_most_s: float) -> None:
        raise AssertionError("nobody is late on these wires")

    async def ask(self, ask: Ask, framer: Framer, _settings: LineSettings | None = None, **_more: Any) -> bytes:
        self.clock.go_on(ASK_S)
        now = self.clock.now.wall_ms / 1000
        for request in RequestReader().feed(ask.request):
            for name, meter in self.meters.items():
                answer = (
                    None if self.silent(name, datetime.fromtimestamp(now, CHINA)) else meter.answer(request, now=now)
                )
                if answer is None:
                    continue
                for value in answer.values:
                    if value.quantity == ENERGY and not value.channel:
                        self.truth[name, self.clock.now.wall_ms] = Decimal(value.text())
                for frame in framer.feed(answer.frame):
                    if ask.answers(frame):
                        return frame
        self.clock.go_on(ask.timeout_s)
        raise NoReply("silence")


class Site:
    """The gateway's way in, from wires to disk; `restart` is another process on the same disk."""

    def __init__(self, folder: Path, wires: ShortWires, clock: QuickClock) -> None:
        self.folder, self.wires, self.clock = folder, wires, clock

    async def open(self) -> None:
        self.outbox = Outbox(self.folder / "outbox.db", [Route("district", ("*",))], clock=self.clock)
        await self.outbox.open()
        self.working = asyncio.create_task(self.outbox.run())
        desks = {}
        for name, (model, address) in METERS.items():
            driver = catalogue.driver(model)
            assert isinstance(driver, Answers)
            options = driver.options(address, {"registers": [ENERGY]})
            desks[name] = Desk(name, model, "bus", address, "", "", driver, options, wired=True, every_s=HOUR_S)
        health = Health(self.clock)
        self.collector = Collector(
            Origin("org", "site", "gw"), desks, outbox=self.outbox, alarms=AlarmBook(Origin("org", "site", "gw"), []),
            judge=Judge(), health=health, clock=self.clock, announce=lambda _change: None,
        )  # fmt: skip
        self.collector.registers = Registers(
            day_of=lambda ms: datetime.fromtimestamp(ms / 1000, CHINA).date()
        )  # fmt: skip
        self.collector.registers.load(await self.outbox.marks())
        line: Any = self.wires
        self.master = BusMaster(line, list(desks.values()), collector=self.collector, clock=self.clock, health=health)

    async def poll_until(self, moment: datetime) -> None:
        """Ask as the master does, without its waiting."""
        while self.clock.now.wall_ms < moment.timestamp() * 1000:
            turn, wait = self.master._rota.next(self.clock.monotonic())
            if wait:
                self.clock.go_on(min(wait, moment.timestamp() - self.clock.now.wall_ms / 1000) + 0.001)
                continue
            await self.master._poll(turn)
            await asyncio.sleep(0)

    async def close(self) -> None:
        assert await self.outbox.flush(30)
        self.working.cancel()
        await asyncio.wait({self.working})
        await self.outbox.close()

    async def restart(self) -> None:
        await self.close()
        await self.open()


def at(day: int, hour: float = 0.0) -> datetime:
    return datetime(2026, 11, 1, tzinfo=CHINA) + timedelta(days=day - 1, hours=hour)


def meters() -> dict[str, Meter]:
    start = BEGIN.timestamp() - 86_400
    made: dict[str, Meter] = {}
    for name, (model, address) in METERS.items():
        kind = Meter1997 if model == "dlt645-1997" else Meter
        made[name] = kind(device=name, address=address, seed=11, start=start, kw=2.0)
    return made


def silent(name: str, when: datetime) -> bool:
    """The ward's breaker is off for three days, the yard's meter is dead for one."""
    return (name == "ward" and at(14, 10) <= when < at(17, 9)) or (name == "yard" and at(25, 0) <= when < at(26, 0))


@pytest.fixture
def site_time() -> Iterator[None]:
    """Reports are worked out in the time of the machine: here that is the site's."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Shanghai"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


async def months(site: Site) -> dict[str, tuple[Month, list[dict[str, Any]]]]:
    assert await site.outbox.flush(30)  # what was polled last may still be on its way to the disk
    found = {}
    for name in METERS:
        rows = [
            {"day": one.day, "kind": one.kind, **json.loads(one.doc)}
            for one in await site.outbox.read(
                lambda reader, name=name: reader.meter_days(name, "2026-11-01", "2026-12-31", limit=1_000)
            )  # type: ignore[misc]  # a default binds the loop's name
        ]
        number, ms, last = site.collector.registers.last(name)
        told = {"id": name, "room": "", "meter": number, "t": ms, "ratio": "1", "units": {}}
        meter = {**told, "registers": {key: format(value, "f") for key, value in last.items()}}
        found[name] = (month_of(meter, rows, "2026-11", today=date(2026, 12, 1)), rows)
    return found


async def test_a_month_with_outages_is_accounted_for_and_its_gaps_are_named(tmp_path: Path, site_time: None) -> None:
    clock = QuickClock()
    wires = ShortWires(clock, meters(), silent)
    site = Site(tmp_path, wires, clock)
    await site.open()
    await site.poll_until(at(8, 10))
    await site.restart()
    clock.go_on(3 * 86_400 + 5 * HOUR_S)  # the gateway is off from the 8th, 10 h, to the 11th, 15 h
    await site.poll_until(at(20, 23))
    clock.go_on(3 * HOUR_S)  # and over a midnight
    await site.restart()
    await site.poll_until(at(31, 6))
    found = await months(site)
    await site.close()

    outage = [date(2026, 11, day) for day in (9, 10, 11)]
    for name in ("kitchen", "ward"):
        month, rows = found[name]
        # The meter's own midnights stand for the days that began without the gateway, and for those of the breaker.
        frozen = {date.fromisoformat(row["day"]) for row in rows if row["kind"] == "freeze"}
        assert set(outage) <= frozen
        assert month.gaps == []
        assert {month.days[day] for day in outage} == {FREEZE}
    assert {date(2026, 11, day) for day in (15, 16, 17)} <= {
        date.fromisoformat(row["day"]) for row in found["ward"][1] if row["kind"] == "freeze"
    }
    yard, _ = found["yard"]  # its protocol has no midnights: the days are gaps, by name
    assert yard.gaps == [(date(2026, 11, 9), date(2026, 11, 10)), (date(2026, 11, 25), date(2026, 11, 25))]

    for name in METERS:
        month, rows = found[name]
        assert len(month.days) == 30
        assert {READ, FREEZE, MISSING} >= set(month.days.values())
        for row in rows:
            if row["kind"] == "read":  # what is kept is what the meter showed then
                assert Decimal(row["r"][ENERGY]) in {
                    value for (meter, ms), value in wires.truth.items() if meter == name and abs(ms - row["t"]) < 60_000
                }
        (use,) = [one for one in month.uses if one.name == ENERGY]
        first = min(row["t"] for row in rows if row["kind"] == "read")
        shown = sorted((ms, value) for (meter, ms), value in wires.truth.items() if meter == name)
        opening = next(value for ms, value in shown if ms >= first - 60_000)
        assert use.first == opening
        assert use.used == use.last - use.first > 0
        # Each day's use and the shared sums of the gaps are the whole, nothing twice and nothing lost.
        assert sum(month.daily.values()) + sum(month.shared.values()) == pytest.approx(use.used, abs=Decimal("0.0001"))


async def test_a_midnight_of_the_meter_is_what_it_showed_at_that_midnight(tmp_path: Path, site_time: None) -> None:
    clock = QuickClock()
    site = Site(tmp_path, ShortWires(clock, meters(), lambda _name, _when: False), clock)
    await site.open()
    await site.poll_until(at(2, 3))
    clock.go_on(3 * 86_400)
    await site.poll_until(at(5, 6))
    _, rows = (await months(site))["kitchen"]
    await site.close()
    twin = meters()["kitchen"]  # a meter's state is a function of seed, name and time alone
    shown = {}
    for day in (3, 4, 5):
        values = twin.values(0x00010000, now=at(day).timestamp())
        assert values is not None
        shown[date(2026, 11, day).isoformat()] = values[0].text()
    assert {row["day"]: row["r"][ENERGY] for row in rows if row["kind"] == "freeze"} == shown

"""Alarms that a platform does not take for a minute are told, and no longer when it has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.app import overdue
from gateway.app.overdue import Overdue
from gateway.clock import Stamp
from gateway.events import Lane, Origin, new_event
from gateway.health import Health
from gateway.outbox import Outbox, Route, Write

ORIGIN = Origin("org", "site", "gw")


@dataclass
class HandClock:
    """Time that passes when it is told to."""

    now_s: float = 1_000.0
    boot: str = "boot-1"

    def monotonic(self) -> float:
        return self.now_s

    def stamp(self) -> Stamp:
        return Stamp(1_800_000_000_000 + int(1000 * self.now_s), int(1000 * self.now_s), self.boot)


class Site:
    """One outbox with two destinations, of which one takes no raised alarms."""

    def __init__(self, folder: Path) -> None:
        self.clock: Any = HandClock()
        self.health = Health(self.clock)
        routes = [Route("district", ("*",)), Route("family", ("alarm.closed",))]
        self.outbox = Outbox(folder / "outbox.db", routes, clock=self.clock)
        self.overdue = Overdue(["district", "family"], outbox=self.outbox, clock=self.clock, health=self.health)

    async def alarm(self, device: str) -> None:
        event = new_event("alarm.raised", ORIGIN, device=device, at=self.clock.stamp(), data={})
        self.outbox.submit(Write(events=(event,)))
        assert await self.outbox.flush(10)

    async def problems(self) -> list[tuple[str, str, Any]]:
        for name in ("district", "family"):
            await self.overdue.look(name)
        return [(one.code, one.subject, one.facts.get("minutes")) for one in self.health.current()]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    await site.outbox.open()
    writing = asyncio.create_task(site.outbox.run())
    yield site
    await site.outbox.flush(10)
    writing.cancel()
    await asyncio.wait({writing})
    await site.outbox.close()


async def test_an_alarm_that_waits_more_than_a_minute_is_told_for_whom_it_waits(site: Site) -> None:
    await site.alarm("call-1")
    assert await site.problems() == []
    site.clock.now_s += 61
    assert await site.problems() == [("GW-PLT-05", "district", 1)]
    site.clock.now_s += 600
    assert await site.problems() == [("GW-PLT-05", "district", 11)]
    site.outbox.confirm("district", Lane.A, seq=1, ahead=list, done=1)
    assert await site.problems() == []


async def test_what_was_confirmed_out_of_order_is_not_what_waits(site: Site) -> None:
    await site.alarm("call-1")
    site.clock.now_s += 100
    await site.alarm("call-2")
    site.outbox.confirm("district", Lane.A, seq=0, ahead=lambda: [(1, 1)], done=1)
    assert await site.problems() == []  # the second is young
    site.clock.now_s += 100
    assert await site.problems() == [("GW-PLT-05", "district", 1)]


async def test_after_a_reboot_an_alarm_is_as_old_as_the_boot_at_least_whatever_the_clock_says(site: Site) -> None:
    await site.alarm("call-1")
    site.clock.boot, site.clock.now_s = "boot-2", 30.0
    assert await site.problems() == []
    site.clock.now_s = 130.0
    assert await site.problems() == [("GW-PLT-05", "district", 2)]


async def test_a_disk_that_does_not_answer_changes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.alarm("call-1")
    site.clock.now_s += 61
    assert await site.problems() != []

    async def never(*_asked: object) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(overdue, "READ_LIMIT_S", 0.01)
    monkeypatch.setattr(site.outbox, "fetch", never)
    assert await site.problems() == [("GW-PLT-05", "district", 1)]

"""Telemetry of more than 30 days goes, announced and counted for whom it waited; nothing goes by a clock nobody trusts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.events import Lane, Origin, new_event
from gateway.outbox import Expiry, Outbox, Route, Write, dropping, expiry

ORIGIN = Origin("org", "site", "gw")
NOON = 1_800_000_000_000
DAY_MS = 86_400_000


class HandClock:
    """Both clocks by hand. `wall_ms` may be set to anything."""

    def __init__(self) -> None:
        self.wall_ms, self.mono_ms, self.boot, self.state = NOON, 1_000_000, "boot-1", "synced"

    def stamp(self) -> Stamp:
        return Stamp(self.wall_ms, self.mono_ms, self.boot, self.state)

    def monotonic(self) -> float:
        return self.mono_ms / 1000

    def wait(self, days: float) -> None:
        self.wall_ms += int(days * DAY_MS)
        self.mono_ms += int(days * DAY_MS)

    def reboot(self, boot: str, *, state: str, days: float) -> None:
        self.wall_ms += int(days * DAY_MS)
        self.mono_ms, self.boot, self.state = 1_000, boot, state


class Site:
    """An outbox for two platforms, both away."""

    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        routes = [Route("district", ("*",)), Route("street", ("telemetry.*",))]
        self.outbox = Outbox(folder / "outbox.db", routes, clock=self.clock)
        self.loaded: dict[str, int] = {}
        self.expiry = Expiry(self.outbox, ORIGIN, clock=self.clock, loaded=lambda _lane: self.loaded)

    async def store(self, noun: str, count: int) -> None:
        for n in range(count):
            event = new_event(noun, ORIGIN, device=f"m{n % 3}", at=self.clock.stamp(), data={})
            assert self.outbox.submit(Write((event,)))
        assert await self.outbox.flush(10)

    async def left(self) -> list[int]:
        rows = [row.seq for lane in Lane for row in await self.outbox.fetch(lane, 0, 5_000)]
        return sorted(rows)

    async def gaps(self) -> list[dict[str, Any]]:
        rows = await self.outbox.fetch(Lane.B, 0, 100)
        return [json.loads(row.body)["data"] for row in rows if row.noun == "gateway.gap"]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    await site.outbox.open()
    site.outbox.live = lambda: False
    writing = asyncio.create_task(site.outbox.run())
    yield site
    writing.cancel()
    await asyncio.wait({writing})
    await site.outbox.close()


async def test_what_is_older_than_30_days_goes_and_is_announced_for_each_platform_that_waited(site: Site) -> None:
    await site.store("telemetry.meter", 4)
    site.outbox.confirm("street", Lane.D, seq=2, ahead=list, done=2)
    site.clock.wait(20)
    await site.store("telemetry.meter", 3)
    site.clock.wait(10.001)
    await site.expiry.check()
    assert await site.left() == [5, 6, 7, 8]
    (gap,) = await site.gaps()
    assert (gap["reason"], gap["lane"], gap["dropped"], gap["sequences"]) == ("expired", "D", 4, [[1, 4]])
    assert gap["deliveryseqs"] == {"district": [[1, 4]], "street": [[3, 4]]}
    assert (gap["from"], gap["from_boot"], gap["from_mono_ms"]) == ("2027-01-15T08:00:00.000Z", "boot-1", 1_000_000)
    assert site.expiry.expired == 4
    assert site.outbox.pending("district") == {"A": 0, "B": 1, "C": 0, "D": 3}
    assert site.outbox.pending("street") == {"A": 0, "B": 0, "C": 0, "D": 3}


async def test_alarms_faults_and_what_people_do_never_expire(site: Site) -> None:
    for noun in ("alarm.raised", "device.fault", "gateway.gap", "checkin.card", "bed.occupancy"):
        await site.store(noun, 2)
    site.clock.wait(4_000)
    await site.expiry.check()
    assert await site.left() == list(range(1, 11))


@pytest.mark.parametrize("jump_ms", [10 * 365 * DAY_MS, -10 * 365 * DAY_MS])
async def test_within_a_boot_a_jump_of_the_wall_clock_lets_nothing_expire_and_keeps_nothing(
    site: Site, jump_ms: int
) -> None:
    await site.store("telemetry.meter", 2)
    site.clock.wall_ms += jump_ms
    await site.expiry.check()
    assert await site.left() == [1, 2]
    site.clock.wait(30.001)
    await site.expiry.check()
    assert await site.left() == [3]


@pytest.mark.parametrize(
    ("then", "now", "left"),
    [
        ("synced", "synced", [3]),
        ("synced", "unsynced", [1, 2]),
        ("unsynced", "synced", [1, 2]),
        ("floored", "synced", [1, 2]),
    ],
)
async def test_over_boots_both_ends_must_be_trusted(site: Site, then: str, now: str, left: list[int]) -> None:
    site.clock.state = then
    await site.store("telemetry.meter", 2)
    site.clock.reboot("boot-2", state=now, days=40)
    await site.expiry.check()
    assert await site.left() == left


async def test_what_was_stored_before_the_synchronisation_of_its_boot_has_a_trusted_time(site: Site) -> None:
    site.clock.state = "unsynced"
    await site.store("telemetry.meter", 2)
    site.outbox.boots.begin("boot-1", floor_ms=0)
    site.outbox.boots.synced("boot-1", offset_ms=NOON - 1_000_000)
    site.clock.reboot("boot-2", state="synced", days=30.1)
    await site.expiry.check()
    assert await site.left() == [3]


async def test_what_may_be_on_its_way_is_left_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropping, "SPARED", 0)
    await site.store("telemetry.meter", 5)
    site.loaded = {"district": 3}
    site.clock.wait(31)
    await site.expiry.check()
    assert await site.left() == [1, 2, 3, 6]
    site.loaded = {}
    await site.expiry.check()
    assert await site.left() == [6, 7]


async def test_what_may_be_on_its_way_before_it_has_left_is_left_alone_and_not_told_as_missing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform reads on while the drop is being committed: what it gets must not be announced as what never comes."""
    monkeypatch.setattr(dropping, "SPARED", 2)
    await site.store("telemetry.meter", 9)
    site.loaded = {"district": 3}
    site.clock.wait(31)
    await site.expiry.check()
    assert await site.left() == [1, 2, 3, 4, 5, 10]
    (gap,) = await site.gaps()
    assert gap["deliveryseqs"] == {"district": [[6, 9]], "street": [[6, 9]]}


async def test_a_long_backlog_goes_in_steps_and_rows_of_unknown_age_do_not_hide_what_is_behind_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "STEP", 3)
    monkeypatch.setattr(expiry, "STEPS", 2)
    site.clock.state = "unsynced"
    await site.store("telemetry.meter", 7)
    site.clock.reboot("boot-2", state="synced", days=0)
    await site.store("telemetry.meter", 4)
    site.clock.wait(31)
    await site.expiry.check()
    assert site.expiry.expired == 0
    await site.expiry.check()
    assert await site.left() == [1, 2, 3, 4, 5, 6, 7, 12, 13]
    assert [gap["sequences"] for gap in await site.gaps()] == [[[8, 9]], [[10, 11]]]


async def test_what_has_expired_is_passed_over_when_the_platform_is_back(site: Site) -> None:
    """The cursor of a destination moves over rows that are gone, also after a restart."""
    await site.store("telemetry.meter", 3)
    site.clock.wait(31)
    await site.store("telemetry.meter", 2)
    await site.expiry.check()
    rows = await site.outbox.fetch(Lane.D, 0, 100)
    assert [(row.seq, row.route["district"]) for row in rows] == [(4, 4), (5, 5)]
    site.outbox.confirm("district", Lane.D, seq=5, ahead=list, done=2)
    assert site.outbox.pending("district")["D"] == 0


async def test_an_empty_database_has_nothing_to_expire(site: Site) -> None:
    await site.expiry.check()
    assert (site.expiry.expired, await site.left()) == (0, [])

"""What gives way when the outbox is full, and what never does."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.events import Event, Lane, Origin, new_event
from gateway.outbox import Outbox, Quota, Route, Write, dropping

ORIGIN = Origin("org", "site", "gw")
CLOCK = SystemClock()
MEGABYTE = 1024 * 1024


def event(noun: str, device: str, *, size: int = 900) -> Event:
    return new_event(noun, ORIGIN, device=device, at=CLOCK.stamp(), data={"filler": "x" * size})


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    box = Outbox(tmp_path / "outbox.db", [Route("district", ("*",))], clock=CLOCK)
    await box.open()
    box.live = lambda: False
    task = asyncio.create_task(box.run())
    yield box
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await box.close()


async def fill(box: Outbox, noun: str, count: int) -> None:
    for n in range(count):
        assert box.submit(Write((event(noun, f"dev-{n % 5}"),)))
    assert await box.flush(30)


def watch(box: Outbox, megabytes: float, told: list[float | None]) -> Quota:
    return Quota(
        box,
        ORIGIN,
        max_bytes=int(megabytes * MEGABYTE),
        clock=CLOCK,
        loaded=lambda _lane: {"district": 0},
        trouble=told.append,
    )


async def test_below_four_fifths_nothing_is_dropped_and_no_problem_is_raised(outbox: Outbox) -> None:
    await fill(outbox, "telemetry.vital", 500)
    told: list[float | None] = []
    await watch(outbox, 16, told).check()
    assert told == [None]
    assert outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 500}


async def test_the_oldest_backlog_gives_way_and_the_drop_is_announced_with_its_ranges(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "SPARED", 10)
    await fill(outbox, "telemetry.vital", 3000)
    told: list[float | None] = []
    watched = watch(outbox, 5, told)
    await watched.check()
    assert told[0] is not None
    assert told[0] > 0.8
    assert watched.dropped == 1000
    assert outbox.pending("district") == {"A": 0, "B": 1, "C": 0, "D": 2000}
    gap = json.loads((await outbox.fetch(Lane.B, 0, 10))[0].body)["data"]
    assert (gap["reason"], gap["link"], gap["lane"], gap["dropped"]) == ("quota", "outbox", "D", 1000)
    assert gap["sequences"] == [[11, 1010]]
    assert gap["deliveryseqs"] == {"district": [[11, 1010]]}
    left = [row.seq for row in await outbox.fetch(Lane.D, 0, 3000)]
    assert left == [*range(1, 11), *range(1011, 3001)]


async def test_the_backlog_gives_way_before_what_is_live(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropping, "SPARED", 0)
    outbox.live = lambda: True
    await fill(outbox, "telemetry.vital", 500)
    outbox.live = lambda: False
    await fill(outbox, "telemetry.environment", 1000)
    assert outbox.pending("district") == {"A": 0, "B": 0, "C": 500, "D": 1000}
    await watch(outbox, 1.9, []).check()
    assert outbox.pending("district") == {"A": 0, "B": 1, "C": 500, "D": 0}


async def test_alarms_and_faults_are_never_dropped_however_full_it_is(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "SPARED", 0)
    await fill(outbox, "alarm.raised", 300)
    await fill(outbox, "device.fault", 300)
    await fill(outbox, "telemetry.vital", 1500)
    await watch(outbox, 0.1, []).check()
    pending = outbox.pending("district")
    assert (pending["A"], pending["D"]) == (300, 0)
    assert pending["B"] == 300 + 2  # two gap events, for 1,000 and 500 rows


async def test_what_was_dropped_does_not_come_back_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "SPARED", 0)
    for expected in (None, 501):
        box = Outbox(tmp_path / "outbox.db", [Route("district", ("*",))], clock=CLOCK)
        await box.open()
        box.live = lambda: False
        task = asyncio.create_task(box.run())
        if expected is None:
            await fill(box, "telemetry.vital", 1500)
            await watch(box, 1.8, []).check()
        else:
            assert sum(box.pending("district").values()) == expected
            assert box.sequence == 1501
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await box.close()


async def test_a_drop_that_cannot_be_stored_is_given_up_and_not_waited_for(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting would end the quota for ever, without a word."""
    monkeypatch.setattr(dropping, "SPARED", 10)
    await fill(outbox, "telemetry.vital", 1500)
    odd: Any = object()
    monkeypatch.setattr(dropping, "new_event", lambda *_, **__: replace(event("gateway.gap", "gw"), body=odd))
    bugs: list[Exception] = []
    outbox.on_bug = bugs.append
    watched = watch(outbox, 1.0, [])
    async with asyncio.timeout(30):
        await watched.check()
    assert (watched.dropped, outbox.pending("district")["D"]) == (0, 1500)
    assert outbox.poisoned == 1
    assert bugs


# Several destinations: what one has keeps nothing of another.


class Two:
    """An outbox for a street that is up to date and a city that is away; `loaded` is what each has read."""

    def __init__(self, folder: Path, *, city: str) -> None:
        routes = [Route("street", ("*",)), Route("city", (city,))]
        self.path = folder / "outbox.db"
        self.outbox = Outbox(self.path, routes, clock=CLOCK)
        self.loaded: dict[str, int] = {"street": 0, "city": 0}

    async def begin(self) -> None:
        await self.outbox.open()
        self.outbox.live = lambda: False
        self._running = asyncio.create_task(self.outbox.run())

    async def end(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.outbox.close()

    async def street_has_all(self) -> None:
        for lane in Lane:
            upto, waiting = self.outbox.last(lane), self.outbox.pending_in("street", lane)
            self.outbox.confirm("street", lane, seq=upto, ahead=list, done=waiting)
            self.loaded["street"] = max(self.loaded["street"], upto)
        assert await self.outbox.flush(10)

    def watch(self, max_bytes: int) -> Quota:
        return Quota(
            self.outbox, ORIGIN, max_bytes=max_bytes, clock=CLOCK, loaded=lambda _lane: self.loaded,
            trouble=lambda _share: None,
        )  # fmt: skip

    def left(self) -> list[int]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return [seq for (seq,) in connection.execute("SELECT seq FROM event_d ORDER BY seq")]

    async def gaps(self) -> list[Any]:
        rows = [row for row in await self.outbox.fetch(Lane.B, 0, 100) if row.noun == "gateway.gap"]
        return [json.loads(row.body)["data"] for row in rows]


async def test_one_that_is_up_to_date_does_not_keep_the_backlog_of_one_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "SPARED", 10)
    two = Two(tmp_path, city="*")
    await two.begin()
    await fill(two.outbox, "telemetry.vital", 3000)
    await two.street_has_all()
    two.loaded["city"] = 40  # read before it went away: these may be on their way
    used = await two.outbox.used_bytes()
    watched = two.watch(int(used / 0.82))
    await watched.check()
    gaps, left = await two.gaps(), two.left()
    assert watched.dropped == 1000
    assert left == [*range(1, 51), *range(1051, 3001)]
    assert [(gap["reason"], gap["deliveryseqs"]) for gap in gaps] == [("quota", {"city": [[51, 1050]]})]
    await two.end()


async def test_what_a_lagging_one_may_be_sending_stays_whatever_the_other_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "SPARED", 10)
    two = Two(tmp_path, city="*")
    await two.begin()
    await fill(two.outbox, "telemetry.vital", 1000)
    await two.street_has_all()
    two.loaded["city"] = 985
    await two.watch(1000).check()
    assert two.left() == list(range(1, 996))
    await two.end()


async def test_what_one_that_is_away_does_not_want_goes_before_anything_is_dropped(tmp_path: Path) -> None:
    two = Two(tmp_path, city="alarm.*")
    await two.begin()
    await fill(two.outbox, "alarm.raised", 1)
    await fill(two.outbox, "telemetry.vital", 2000)
    await two.street_has_all()
    for _ in range(10):
        assert await two.outbox.flush(10)
    assert two.outbox.pending("city") == {"A": 1, "B": 0, "C": 0, "D": 0}
    assert two.left() == []
    assert [row.seq for row in await two.outbox.fetch(Lane.A, 0, 10)] == [1]
    await two.end()


async def test_what_stands_behind_an_unconfirmed_row_goes_without_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "SPARED", 0)
    two = Two(tmp_path, city="telemetry.environment")
    await two.begin()
    await fill(two.outbox, "telemetry.environment", 1)
    await fill(two.outbox, "telemetry.vital", 900)
    await two.street_has_all()
    two.loaded["city"] = 1
    await two.watch(1000).check()
    assert (two.left(), await two.gaps()) == ([1], [])
    assert two.outbox.pending("city")["D"] == 1
    await two.end()

"""The counts of a period: when it ends, and that a crash neither doubles nor loses what was counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.app.counting import Counting
from gateway.clock import Stamp
from gateway.errors import StoreError
from gateway.events import Lane, Origin, new_event, new_id
from gateway.outbox import AlarmRow, DeadLetter, Outbox, Route, Write
from gateway.outbox import outbox as outbox_module

ORIGIN = Origin("org", "site", "gw")
WALL_MS = 1_800_000_000_000
# crc32("urn:eldercare:org:site:gw") / 2^32 of an hour and of a day, in milliseconds.
HOUR_PHASE = 2_841_812
DAY_PHASE = 68_203_507
HOUR = 3_600_000
GOLDEN = Path(__file__).parent.parent.parent / "data" / "native"
DAY = 24 * HOUR


class Centre:
    """A real outbox and its counting; `kill` ends it as SIGKILL would as far as the disk sees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = Stamp(WALL_MS, 10 * DAY, "boot-1", "synced")
        self.heard_since: list[float] = []
        self.outbox: Outbox
        self.counting: Counting
        self._running: asyncio.Task[None]

    def stamp(self) -> Stamp:
        return self.now

    def monotonic(self) -> float:
        return self.now.mono_ms / 1000

    async def begin(self) -> None:
        routes = [Route("street", ("*",)), Route("city", ("gateway.counts",))]
        self.outbox = Outbox(self.folder / "outbox.db", routes, clock=self)
        await self.outbox.open()
        self._running = asyncio.create_task(self.outbox.run())
        self.counting = Counting(ORIGIN, self.outbox, clock=self, began=self.now, silent=self.silent)
        await self.tick()

    def silent(self, moment: float) -> tuple[int, int]:
        self.heard_since.append(moment)
        return 1, 12

    async def kill(self) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})
        await self.outbox.close()

    def go(self, ms: int) -> None:
        self.now = replace(self.now, wall_ms=self.now.wall_ms + ms, mono_ms=self.now.mono_ms + ms)

    async def tick(self) -> None:
        self.counting.tick()
        assert await self.outbox.flush(10)

    async def alarm(self, noun: str = "alarm.raised", alarm: str = "") -> str:
        alarm = alarm or new_id()
        data = {"kind": "call", "presses": 1, "verified": True}
        event = new_event(noun, ORIGIN, device="call-1", at=self.now, data=data, correlation=alarm)
        self.outbox.submit(Write((event,), alarms=(AlarmRow(alarm, is_open=True, raised_ms=0, doc="{}"),)))
        assert await self.outbox.flush(10)
        return alarm

    async def told(self, period: str = "hour") -> list[Any]:
        rows = await self.outbox.fetch(Lane.B, 0, 100)
        found = [json.loads(row.body)["data"] for row in rows if row.noun == "gateway.counts"]
        return [one for one in found if one["period"] == period]


@pytest.fixture
async def centre(tmp_path: Path) -> AsyncIterator[Centre]:
    made = Centre(tmp_path)
    await made.begin()
    yield made
    await made.kill()


async def test_an_hour_ends_at_the_phase_of_the_gateway_by_the_clock_of_the_boot(centre: Centre) -> None:
    await centre.alarm()
    centre.go(HOUR_PHASE - 1)
    centre.now = replace(centre.now, wall_ms=0)
    await centre.tick()
    assert await centre.told() == []
    centre.go(1)
    await centre.tick()
    await centre.tick()
    [hour] = await centre.told()
    assert hour["alarms"]["raised"] == {"call": {"verified": 1, "unverified": 0}}
    assert (hour["to_mono_ms"] - hour["from_mono_ms"], hour["to_boot"]) == (HOUR_PHASE, "boot-1")
    assert hour["devices"] == {"configured": 12, "silent": 1, "listened_s": 2841}


async def test_the_event_has_the_shape_of_the_golden_one(centre: Centre) -> None:
    golden = json.loads((GOLDEN / "counts.json").read_text())["data"]
    centre.go(HOUR)
    await centre.tick()
    [hour] = await centre.told()
    assert hour.keys() == golden.keys() - {"delivery"}
    for name in ("alarms", "gaps", "events", "devices"):
        assert hour[name].keys() == golden[name].keys()
    assert hour["destinations"]["city"].keys() == golden["destinations"]["district"].keys()


async def test_the_next_hour_begins_with_nothing(centre: Centre) -> None:
    await centre.alarm()
    centre.go(HOUR)
    await centre.tick()
    centre.go(HOUR)
    await centre.tick()
    [_first, second] = await centre.told()
    assert second["alarms"]["raised"] == {"call": {"verified": 0, "unverified": 0}}
    assert (second["events"], second["destinations"]["city"]["delivered"]) == ({"stored": 1}, 0)
    assert second["destinations"]["city"]["pending"] == 1


async def test_a_day_ends_at_its_own_phase_and_has_what_its_hours_had(centre: Centre) -> None:
    alarm = await centre.alarm()
    centre.go(HOUR)
    await centre.tick()
    await centre.alarm("alarm.acknowledged", alarm)
    centre.go(DAY_PHASE - HOUR)
    await centre.tick()
    [day] = await centre.told("day")
    assert day["alarms"]["raised"] == {"call": {"verified": 1, "unverified": 0}}
    assert day["alarms"]["to_acknowledge_s"] == {"count": 1, "median": 3600.0, "max": 3600.0}


async def test_what_was_counted_before_a_crash_is_counted_once_after_it(centre: Centre) -> None:
    await centre.alarm()
    await centre.kill()
    await centre.begin()
    await centre.alarm()
    centre.go(HOUR)
    await centre.tick()
    await centre.kill()  # the hour is told
    await centre.begin()
    centre.go(HOUR)
    await centre.tick()
    assert [one["alarms"]["raised"]["call"]["verified"] for one in await centre.told()] == [2, 0]


async def test_a_crash_before_the_event_is_stored_tells_the_hour_after_it(centre: Centre) -> None:
    await centre.alarm()
    centre.go(HOUR)
    centre.counting.tick()  # submitted, and not waited for
    await centre.kill()
    await centre.begin()
    assert [one["alarms"]["raised"]["call"]["verified"] for one in await centre.told()] == [1]


async def test_a_reboot_ends_the_hour_at_the_first_phase_of_the_new_boot(centre: Centre) -> None:
    await centre.alarm()
    await centre.kill()
    centre.now = Stamp(WALL_MS + DAY, 5_000, "boot-2", "unsynced")
    await centre.begin()
    assert await centre.told() == []
    centre.go(HOUR_PHASE - 5_000)
    await centre.tick()
    [hour] = await centre.told()
    assert hour["alarms"]["raised"]["call"]["verified"] == 1
    assert (hour["from_boot"], hour["to_boot"]) == ("boot-1", "boot-2")
    assert (hour["from"], hour["to"]) == ("2027-01-15T08:00:00.000Z", "2027-01-16T08:47:16.812Z")
    assert hour["devices"]["listened_s"] == 2836


async def test_an_accepted_alarm_is_timed_and_counted_with_its_confirmation(centre: Centre) -> None:
    await centre.alarm()
    await centre.outbox.flush(10)
    [row] = await centre.outbox.fetch(Lane.A, 0, 10)
    centre.go(2_300)
    centre.outbox.accepted("street", row)
    centre.outbox.confirm("street", Lane.A, seq=row.seq, ahead=list, done=1)
    centre.go(HOUR)
    await centre.tick()
    centre.go(HOUR)
    await centre.tick()
    both = [one["destinations"]["street"]["alarms_to_accept_s"]["count"] for one in await centre.told()]
    assert sorted(both) == [0, 1]  # a commit lies between the confirmation and its count
    await centre.kill()
    await centre.begin()
    assert centre.outbox.totals().tally.to_accept["street"].last == (2.3,)


async def test_a_dead_letter_that_comes_again_after_a_crash_is_counted_once(centre: Centre) -> None:
    await centre.alarm()
    [row] = await centre.outbox.fetch(Lane.A, 0, 10)
    for _ in range(2):
        centre.outbox.dead_letter(DeadLetter("street", row, "http-400", "refused by the platform", WALL_MS))
        await centre.outbox.flush(10)
    assert centre.outbox.totals().tally.dead == {"street": 1}


async def test_what_an_older_gateway_stored_is_not_told_as_the_first_hour(tmp_path: Path) -> None:
    before = Centre(tmp_path)
    await before.begin()
    for _ in range(3):
        await before.alarm()
    await before.kill()
    outbox = Outbox(tmp_path / "outbox.db", [Route("street", ("*",))], clock=before)
    await outbox.open()
    outbox._store._writer.execute("DELETE FROM fact WHERE key = 'tally' OR key LIKE 'counts:%'")
    await outbox.close()
    after = Centre(tmp_path)
    await after.begin()
    after.go(HOUR)
    await after.tick()
    [hour] = await after.told()
    await after.kill()
    assert (hour["events"], hour["destinations"]["street"]["delivered"]) == ({"stored": 0}, 0)


async def test_a_database_replaced_while_running_begins_a_period_of_its_own(centre: Centre) -> None:
    await centre.alarm()
    await centre.outbox._begin_anew(_corrupt())
    await centre.tick()
    await centre.alarm()
    centre.go(HOUR)
    await centre.tick()
    assert [one["alarms"]["raised"]["call"]["verified"] for one in await centre.told()] == [1]


async def opened_late(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Centre:
    """A gateway that ran without its database for a while, ticked all the time, and then found it."""
    monkeypatch.setattr(outbox_module, "REOPEN_CAP_S", 0.01)
    refused = [StoreError("GW-STO-01", "outbox.db", path="outbox.db", detail="Read-only file system")]

    def hold() -> None:
        if refused:
            raise refused[0]

    centre = Centre(folder)
    centre.outbox = Outbox(folder / "outbox.db", [Route("street", ("*",)), Route("city", ("gateway.counts",))],
        clock=centre, hold=hold)  # fmt: skip
    await centre.outbox.open()
    centre.counting = Counting(ORIGIN, centre.outbox, clock=centre, began=centre.now, silent=centre.silent)
    centre.outbox.on_found = lambda _marks, _alarms: centre.counting.found()
    centre._running = asyncio.create_task(centre.outbox.run())
    for _ in range(3):
        centre.counting.tick()
    refused.clear()
    return centre


async def test_a_database_that_is_found_late_goes_on_with_its_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre = Centre(tmp_path)
    await centre.begin()
    for _ in range(3):
        await centre.alarm()
    centre.go(HOUR)
    await centre.tick()
    await centre.alarm()
    await centre.kill()
    late = await opened_late(tmp_path, monkeypatch)
    await late.alarm()
    late.go(2 * HOUR)
    await late.tick()
    hours = await late.told()
    await late.kill()
    assert [one["alarms"]["raised"]["call"]["verified"] for one in hours] == [3, 2]


async def test_what_was_never_counted_in_a_database_that_is_found_late_is_not_told_as_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre = Centre(tmp_path)
    await centre.begin()
    for _ in range(3):
        await centre.alarm()
    centre.outbox._store._writer.execute("DELETE FROM fact WHERE key LIKE 'counts:%'")
    await centre.kill()
    late = await opened_late(tmp_path, monkeypatch)
    await late.alarm()
    await late.tick()
    late.go(HOUR)
    await late.tick()
    [hour] = await late.told()
    await late.kill()
    assert (hour["alarms"]["raised"]["call"]["verified"], hour["events"]) == (1, {"stored": 1})


def _corrupt() -> StoreError:
    return StoreError("GW-STO-02", "outbox.db")

"""The offset of a boot: stored, told once, put into what waits; and what staff learn of a clock that is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.app import timekeeping
from gateway.app.timekeeping import Timekeeping
from gateway.clock import BUILT_MS, PlatformTime, Stamp, SystemClock, iso
from gateway.deliver.wording import Wording
from gateway.events import Lane, Origin, new_event
from gateway.health import Health
from gateway.outbox import Outbox, Route, Write

GOLDEN = Path(__file__).parent.parent.parent / "data" / "native"
ORIGIN = Origin("org", "site", "gw")
NOON = 1_800_000_000_000  # 2027-01-15T08:00:00Z
DAY_MS = 86_400_000
YEARS_10_MS = 10 * 365 * 86_400_000


class Site:
    """One machine with its clocks in our hands, and one database over its boots."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wall_ms, self.boot_ms = NOON, 5_000
        self.synced = False
        self.boot = "boot-1"
        self.alive: Stamp | None = None
        self.known_before_opening: Stamp
        self.clock: SystemClock
        self.outbox: Outbox
        self.health: Health
        self.keeping: Timekeeping
        self._writing: asyncio.Task[None]

    async def start(self) -> None:
        (self.folder / "boot_id").write_text(self.boot, encoding="ascii")
        self.clock = SystemClock(
            timesync=self.folder / "none", boot_id=self.folder / "boot_id",
            kernel_error_us=lambda: 500 if self.synced else 16_000_000,
            wall_ns=lambda: self.wall_ms * 1_000_000, boot_ns=lambda: self.boot_ms * 1_000_000,
        )  # fmt: skip
        self.health = Health(self.clock)
        self.outbox = Outbox(self.folder / "outbox.db", [Route("district", ("*",))], clock=self.clock)
        self.keeping = Timekeeping(self.clock, ORIGIN, outbox=self.outbox, health=self.health, alive=self.alive)
        self.known_before_opening = self.clock.stamp()
        await self.outbox.open()
        self._writing = asyncio.create_task(self.outbox.run())
        self.keeping.begin()

    async def stop(self) -> None:
        """End, and leave the sign of life that a process leaves."""
        self.alive = self.clock.stamp()
        assert await self.outbox.flush(10)
        self._writing.cancel()
        await asyncio.wait({self._writing})
        await self.outbox.close()

    async def reboot(self, boot: str, wall_ms: int) -> None:
        await self.stop()
        self.boot, self.wall_ms, self.boot_ms, self.synced = boot, wall_ms, 5_000, False
        await self.start()

    def wait(self, seconds: float) -> None:
        self.wall_ms += int(1000 * seconds)
        self.boot_ms += int(1000 * seconds)

    async def sync(self, wall_ms: int) -> None:
        """The network is there for the last 11 s, and the clock is set to `wall_ms`."""
        self.boot_ms += 11_000
        self.wall_ms, self.synced = wall_ms, True
        self.keeping.tick()
        assert await self.outbox.flush(10)

    async def store(self, noun: str, device: str = "call-1") -> None:
        event = new_event(noun, ORIGIN, device=device, at=self.clock.stamp(), data={"kind": "call"})
        assert self.outbox.submit(Write((event,)))
        assert await self.outbox.flush(10)

    async def sent(self, lane: Lane) -> list[dict[str, Any]]:
        """What the platform would get now."""
        words = Wording("district", self.clock, self.outbox.boots)
        return [json.loads(words.text(row)) for row in await self.outbox.fetch(lane, 0, 1000)]

    def problems(self) -> list[str]:
        self.keeping.tick()
        return [one.code for one in self.health.current()]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    await site.start()
    yield site
    await site.stop()


async def test_the_offset_is_told_once_when_the_clock_is_synchronised(site: Site) -> None:
    site.keeping.tick()
    assert await site.outbox.flush(10)
    assert await site.sent(Lane.B) == []
    site.wait(60)
    await site.sync(NOON + 7_200_000)
    site.wait(60)
    site.keeping.tick()
    assert await site.outbox.flush(10)
    (told,) = await site.sent(Lane.B)
    assert told["type"] == "cn.eldercare.gateway.health.v1"
    assert told["time"] == "2027-01-15T10:00:00.000Z"
    assert told["data"]["clock"] == {
        "state": "synced", "boot": "boot-1", "mono_ms": 76_000, "offset_ms": NOON + 7_200_000 - 76_000,
    }  # fmt: skip
    assert (told["data"]["kind"], told["data"]["by"]) == ("clock", "ntp")


async def test_after_three_hours_without_a_clock_what_waits_is_put_right_and_keeps_its_identity(site: Site) -> None:
    await site.reboot("boot-2", wall_ms=7_000)
    await site.store("alarm.raised")
    (before,) = await site.sent(Lane.A)
    assert before["data"]["clock"]["state"] == "unsynced"
    assert before["data"]["clock"]["floored"] is True
    site.wait(3 * 3600)
    await site.sync(NOON + 86_400_000)
    (after,) = await site.sent(Lane.A)
    assert after["time"] == "2027-01-16T04:59:49.000Z"
    assert after["data"]["clock"]["state"] == "corrected"
    assert [after[name] for name in ("id", "sequence", "deliveryseq")] == [
        before[name] for name in ("id", "sequence", "deliveryseq")
    ]  # fmt: skip
    assert after["data"]["delivery"]["age_ms"] == 3 * 3_600_000 + 11_000
    assert after["data"]["delivery"]["historic"] is True


async def test_an_alarm_of_a_boot_that_never_was_synchronised_has_bounds_and_no_age(site: Site) -> None:
    await site.sync(NOON)
    await site.reboot("boot-2", wall_ms=NOON + 1_000)  # a power cut: the clock goes on where it was
    await site.store("alarm.raised")
    await site.reboot("boot-3", wall_ms=NOON + 1_000)
    (alarm,) = await site.sent(Lane.A)
    assert alarm["data"]["delivery"] == {
        "buffered": True, "age_ms": None, "least_age_ms": 5_000, "attempt": 1,
    }  # fmt: skip
    site.wait(600)
    (alarm,) = await site.sent(Lane.A)
    assert alarm["data"]["delivery"]["historic"] is True
    await site.sync(NOON + 3_600_000)
    (alarm,) = await site.sent(Lane.A)
    assert alarm["data"]["clock"]["state"] == "unsynced"
    assert alarm["data"]["clock"]["not_before"] == "2027-01-15T08:00:05.000Z"
    assert alarm["data"]["clock"]["not_after"] == "2027-01-15T08:49:44.000Z"
    assert alarm["data"]["delivery"]["age_ms"] is None


async def test_the_limits_of_a_silence_are_put_right_each_by_its_own_boot(site: Site) -> None:
    await site.reboot("boot-2", wall_ms=0)
    at = site.clock.stamp()
    for since in ("boot-1", "boot-2"):
        data = {
            "link": "air", "from": iso(at.wall_ms - 9), "to": iso(at.wall_ms), "from_mono_ms": 4_000,
            "to_mono_ms": 5_000, "from_boot": since, "reason": "restart", "dropped": 0, "note": "静默",
        }  # fmt: skip
        event = new_event("gateway.gap", ORIGIN, device="gw", at=at, data=data)
        assert site.outbox.submit(Write((event,)))
    assert await site.outbox.flush(10)
    before = [one["data"] for one in await site.sent(Lane.B)]
    assert [(one["from"][:10], one["to"][:10]) for one in before] == [("2027-01-15", "2027-01-15")] * 2
    await site.sync(NOON + 86_400_000)
    other, own = [one["data"] for one in (await site.sent(Lane.B))[:2]]
    assert (own["from"], own["to"]) == ("2027-01-16T07:59:48.000Z", "2027-01-16T07:59:49.000Z")
    # The first boot never was synchronised: where its silence began stays as it was told.
    assert (other["from"], other["to"]) == (before[0]["from"], "2027-01-16T07:59:49.000Z")
    assert (own["note"], own["clock"]["state"], own["from_mono_ms"]) == ("静默", "corrected", 4_000)


async def test_two_boots_in_the_same_wall_minutes_are_told_apart(site: Site) -> None:
    await site.reboot("boot-2", wall_ms=NOON)
    await site.store("alarm.raised", "first")
    await site.sync(NOON + 1_000_000)
    await site.reboot("boot-3", wall_ms=NOON)
    await site.store("alarm.raised", "second")
    await site.sync(NOON + 9_000_000)
    first, second = await site.sent(Lane.A)
    assert (first["time"], second["time"]) == ("2027-01-15T08:16:29.000Z", "2027-01-15T10:29:49.000Z")


async def test_a_restart_in_the_same_boot_stays_synchronised_and_tells_nothing_again(site: Site) -> None:
    await site.sync(NOON + 1_000)
    site.synced = False
    await site.stop()
    site.wait(10)
    await site.start()
    assert site.clock.stamp().clock == "synced"
    site.keeping.tick()
    assert await site.outbox.flush(10)
    assert len(await site.sent(Lane.B)) == 1


async def test_the_clock_is_never_before_the_last_time_known_whatever_a_reboot_makes_of_it(site: Site) -> None:
    await site.sync(NOON)
    site.wait(5_000)
    await site.store("device.fault")
    await site.reboot("boot-2", wall_ms=0)
    assert site.clock.stamp() == Stamp(NOON + 5_000_000 + 5_000, 5_000, "boot-2", "floored")
    assert site.known_before_opening == site.clock.stamp()
    assert site.problems() == ["GW-CLK-02"]
    await site.reboot("boot-3", wall_ms=0)  # the floor outlives a boot that added nothing to it
    assert site.clock.stamp().wall_ms >= NOON + 5_000_000
    await site.sync(NOON + 20_000_000)
    assert site.problems() == []


@pytest.mark.parametrize("jump_ms", [YEARS_10_MS, -YEARS_10_MS])
async def test_a_jump_of_years_is_told_once_and_moves_nothing(site: Site, jump_ms: int) -> None:
    await site.sync(NOON)
    with capture_logs() as log:
        site.synced = False
        site.wall_ms += jump_ms
        for _ in range(5):
            site.wait(1)
            site.keeping.tick()
        await site.store("alarm.raised")
    assert [one["event"] for one in log if one["event"] == "the clock was set"] == ["the clock was set"]
    assert site.problems() == ["GW-CLK-05" if jump_ms > 0 else "GW-CLK-02"]
    (alarm,) = await site.sent(Lane.A)
    assert alarm["time"] == "2027-01-15T08:00:05.000Z"
    assert alarm["data"]["delivery"]["age_ms"] == 0
    site.wall_ms -= jump_ms
    site.wait(1)
    assert site.problems() == []


async def test_a_corrected_offset_is_told_again(site: Site) -> None:
    await site.sync(NOON)
    await site.sync(NOON + 90_000)
    told = await site.sent(Lane.B)
    assert [one["data"].get("corrected_from_ms") for one in told] == [None, NOON - 16_000]
    assert told[1]["data"]["clock"]["offset_ms"] == NOON + 63_000


async def test_a_platform_s_time_is_told_and_serves_until_the_network_s_comes(site: Site) -> None:
    await site.reboot("boot-2", wall_ms=0)
    site.keeping.platform_says("district", PlatformTime(NOON, 4_900, 5_000))
    site.keeping.tick()
    assert await site.outbox.flush(10)
    (told,) = await site.sent(Lane.B)
    assert (told["time"], told["data"]["by"]) == ("2027-01-15T08:00:00.050Z", "platform")
    assert site.problems() == ["GW-CLK-02"]  # the machine's own clock is still in 1970
    await site.sync(NOON + 11_500)
    assert site.clock.trust.by == "ntp"
    assert site.problems() == []


async def tell(site: Site, wall_ms: int) -> None:
    """A platform says its time, and what follows of it is stored."""
    site.keeping.platform_says("district", PlatformTime(wall_ms, site.boot_ms, site.boot_ms))
    site.keeping.tick()
    assert await site.outbox.flush(10)


@pytest.mark.parametrize("right", ["a platform", "the network"])
async def test_a_platform_that_was_wrong_once_does_not_bind_the_next_boot(site: Site, right: str) -> None:
    await tell(site, NOON + 200 * DAY_MS)
    await site.store("alarm.raised")
    assert site.clock.stamp().wall_ms == NOON + 200 * DAY_MS
    await site.reboot("boot-2", wall_ms=NOON + 60_000)
    assert site.clock.stamp().clock == "floored"  # no stamp goes back, but
    assert site.clock.trust.floor_ms == BUILT_MS  # nothing is ruled out
    if right == "a platform":
        await tell(site, site.wall_ms)
    else:
        await site.sync(NOON + 71_000)
    assert (site.clock.stamp().clock, site.clock.stamp().wall_ms) == ("synced", site.wall_ms)
    assert site.problems() == []


async def test_a_platform_that_was_wrong_is_put_right_after_a_restart_in_the_same_boot(site: Site) -> None:
    await tell(site, NOON + 200 * DAY_MS)
    await site.stop()
    site.wait(10)
    await site.start()
    assert site.clock.trust.by == "platform"
    await tell(site, site.wall_ms)
    assert site.clock.stamp().wall_ms == NOON + 10_000
    told = await site.sent(Lane.B)
    assert [one["data"].get("corrected_from_ms") for one in told] == [None, NOON + 200 * DAY_MS - 5_000]


async def test_a_platform_s_time_is_a_floor_once_the_network_stands_by_it(site: Site) -> None:
    await tell(site, NOON)
    await site.sync(NOON + 11_000)
    assert len(await site.sent(Lane.B)) == 1  # the same offset: nothing new to tell
    await site.reboot("boot-2", wall_ms=0)
    assert site.clock.trust.floor_ms == NOON + 11_000
    assert site.problems() == ["GW-CLK-02"]


@pytest.mark.parametrize(("skew_ms", "problems"), [(59_000, []), (-61_000, ["GW-CLK-04"]), (61_000, ["GW-CLK-04"])])
async def test_a_platform_whose_clock_differs_is_told(site: Site, skew_ms: int, problems: list[str]) -> None:
    await site.sync(NOON)
    said = PlatformTime(site.wall_ms + skew_ms, site.boot_ms - 100, site.boot_ms + 100)
    site.keeping.platform_says("district", said)
    assert site.problems() == problems
    assert site.clock.stamp().wall_ms == NOON
    site.keeping.platform_says("district", PlatformTime(site.wall_ms, site.boot_ms, site.boot_ms))
    assert site.problems() == []


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def shape(event: Any) -> tuple[set[str], set[str], set[str]]:
    return set(event), set(event["data"]["clock"]), set(event["data"]["delivery"])


async def test_what_goes_out_is_of_the_shape_that_platforms_were_told(site: Site) -> None:
    await site.store("alarm.raised")
    site.wait(3 * 3600)
    await site.sync(NOON + 86_400_000)
    await site.reboot("boot-2", wall_ms=0)
    await site.store("alarm.raised")
    await site.reboot("boot-3", wall_ms=0)
    await site.sync(NOON + 2 * 86_400_000)
    corrected, unknown = await site.sent(Lane.A)
    told = (await site.sent(Lane.B))[0]
    correlation = {"correlationid"}
    assert shape(corrected) == (set(golden("corrected")) - correlation, *shape(golden("corrected"))[1:])
    assert shape(unknown) == (set(golden("unknown-time")) - correlation, *shape(golden("unknown-time"))[1:])
    assert shape(told)[:2] == (set(golden("clock")) | {"datacontenttype"}, shape(golden("clock"))[1])
    assert set(told["data"]) == set(golden("clock")["data"])


async def test_a_new_database_gets_what_is_known_of_the_boots(site: Site) -> None:
    await site.sync(NOON)
    text = site.outbox.boots.text()
    site.keeping.store_again()
    assert await site.outbox.flush(10)
    await site.stop()
    await site.start()
    assert site.outbox.boots.text() == text


async def test_without_its_database_a_restart_knows_the_offset_from_the_sign_of_life_and_tells_it_again(
    site: Site,
) -> None:
    await site.sync(NOON)
    site.synced = False
    await site.stop()
    (site.folder / "outbox.db").unlink()
    site.wall_ms -= YEARS_10_MS
    await site.start()
    assert site.clock.stamp() == Stamp(NOON, 16_000, "boot-1", "synced")
    site.keeping.tick()
    assert await site.outbox.flush(10)
    assert [one["data"]["clock"]["offset_ms"] for one in await site.sent(Lane.B)] == [NOON - 16_000]


async def test_a_small_correction_backwards_is_followed_after_a_restart_too(site: Site) -> None:
    await site.sync(NOON)
    await site.stop()
    await site.start()
    await site.sync(NOON - 120_000)
    assert site.clock.stamp().wall_ms == NOON - 120_000
    assert site.problems() == []


async def test_a_wrong_time_that_was_trusted_once_does_not_keep_later_boots_from_the_right_one(site: Site) -> None:
    await site.sync(NOON + 3 * 365 * 86_400_000)  # a time server that was years ahead
    await site.reboot("boot-2", wall_ms=NOON)
    await site.sync(NOON + 20_000)
    assert site.problems() == ["GW-CLK-02"]
    site.wait(86_400)
    assert site.problems() == []
    assert site.clock.stamp().wall_ms == NOON + 20_000 + 86_400_000
    assert await site.outbox.flush(10)
    await site.reboot("boot-3", wall_ms=NOON + 90_000_000)
    await site.sync(NOON + 90_020_000)
    assert site.clock.stamp() == Stamp(NOON + 90_020_000, 16_000, "boot-3", "synced")
    assert site.problems() == []


async def test_timedated_is_asked_only_where_nobody_else_can_tell(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timekeeping, "ASK_S", 0.01)
    answers: list[bool | None] = [None, False, True]
    asked = asyncio.Event()

    async def ask() -> bool | None:
        if len(answers) == 1:
            asked.set()
        return answers.pop(0) if len(answers) > 1 else answers[0]

    clock = SystemClock(
        timesync=site.folder / "none", boot_id=site.folder / "boot_id", kernel_error_us=lambda: None,
        wall_ns=lambda: site.wall_ms * 1_000_000, boot_ns=lambda: site.boot_ms * 1_000_000,
    )  # fmt: skip
    keeping = Timekeeping(clock, ORIGIN, outbox=site.outbox, health=site.health, alive=None, ask=ask)
    running = asyncio.create_task(keeping.run())
    async with asyncio.timeout(30):
        await asked.wait()
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    assert clock.stamp().clock == "synced"

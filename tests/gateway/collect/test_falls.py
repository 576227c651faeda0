"""A fall that a radar reports as a state: one alarm while it lasts or flickers, never one too few; only a person ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from drivers.kit import Streams, catalogue
from gateway.collect import Desk, StreamReader

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]

FALL = bytes.fromhex("01000000010e02f301fe")
CLEAR = bytes.fromhex("01000000010e02f300ff")
SOMEBODY = bytes.fromhex("01000100010f09f801fe")
NOBODY = bytes.fromhex("01000100010f09f800ff")
PARAMETERS = bytes.fromhex("010000000c0e06fa666626409a99993e0f00000032")
TOO_HIGH = bytes.fromhex("010000000c0e06fa000096439a99993e0f00000081")
FALL_7 = bytes.fromhex("01000000010e02f307f8")
ODD = bytes.fromhex("01000000010e77867788")
ECHO = bytes.fromhex("01000000000e06f6")


@dataclass
class Radar:
    """A centre with one radar on a line. `restart` begins the gateway again after some seconds."""

    centre: Any
    written: list[bytes] = field(default_factory=list)
    is_open: bool = True

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.desk = self.centre.desks["radar-1"]
        self.reader = StreamReader(
            "radar", [self.desk], collector=self.centre.collector, outbox=self.centre.outbox, clock=self.centre.clock,
            health=self.centre.health,
        )  # fmt: skip
        line: Any = self
        self.reader.attach(line)
        self.centre.outbox.on_stored = self.reader.on_stored

    def write(self, data: bytes) -> bool:
        self.written.append(data)
        return self.is_open

    def say(self, *frames: bytes, after_s: float = 0.0) -> None:
        for frame in frames:
            self.centre.clock.go_on(after_s)
            self.reader.on_data(frame, self.centre.clock.stamp())

    async def restart(self, *, after_s: float) -> None:
        await self.centre.restart()
        self.centre.clock.go_on(after_s)
        self.connect()

    def ask(self) -> None:
        poll = self.desk.driver.poll
        self.reader.ask(poll.request, every_s=poll.every_s)

    @property
    def open_alarms(self) -> list[tuple[str, str, int]]:
        listed = self.centre.alarms.listed(self.centre.clock.stamp(), with_closed=False)
        return [(one["kind"], one["state"], one["presses"]) for one in listed]

    @property
    def raised(self) -> int:
        """How many different alarms there were, closed ones too."""
        return len(self.centre.alarms.listed(self.centre.clock.stamp(), with_closed=True))

    def close(self) -> None:
        (alarm,) = self.centre.alarms.listed(self.centre.clock.stamp(), with_closed=False)
        self.centre.collector.close(alarm["id"], "li", "helped up")

    def acknowledge(self) -> None:
        (alarm,) = self.centre.alarms.listed(self.centre.clock.stamp(), with_closed=False)
        self.centre.collector.acknowledge(alarm["id"], "li")


@pytest.fixture
async def radar(opened: Opener) -> Radar:
    """One radar, heard by its real driver."""
    driver = catalogue.driver("andar-radar")
    assert isinstance(driver, Streams)
    desk = Desk("radar-1", "andar-radar", "radar", "", "201", "1", driver, driver.options({}), wired=True)
    return Radar(await opened([desk]))


async def test_a_fall_raises_one_alarm_however_often_it_is_reported(radar: Radar) -> None:
    radar.say(CLEAR, FALL, FALL, FALL, after_s=1)
    assert radar.open_alarms == [("fall", "ACTIVE", 1)]
    assert await radar.centre.told("kind", "code", "presses", "verified") == [("alarm.raised", "fall", "fall", 1, True)]


async def test_a_fall_that_is_no_longer_seen_ends_nothing(radar: Radar) -> None:
    radar.say(FALL, CLEAR, CLEAR, after_s=20)
    radar.centre.clock.go_on(86_400)
    assert radar.open_alarms == [("fall", "ACTIVE", 1)]
    assert await radar.centre.told("state") == [("alarm.raised", "ACTIVE")]


async def test_a_fall_that_flickers_is_one_alarm_and_no_flood(radar: Radar) -> None:
    radar.say(*[FALL, CLEAR] * 20, after_s=0.5)
    assert radar.open_alarms == [("fall", "ACTIVE", 2)], "one press more after ten seconds"
    assert len(await radar.centre.events()) == 2
    assert radar.desk.repeats == 18


async def test_a_second_fall_within_ten_seconds_is_the_alarm_that_sounds_already(radar: Radar) -> None:
    """Nobody has come yet: whoever comes finds both. It is counted, and no press that is told."""
    radar.say(FALL)
    radar.say(CLEAR, FALL, after_s=4)
    assert radar.open_alarms == [("fall", "ACTIVE", 1)]
    assert radar.desk.repeats == 1
    radar.say(CLEAR, FALL, after_s=4)
    assert radar.open_alarms == [("fall", "ACTIVE", 2)], "16 s after the first"


async def test_two_falls_in_two_rooms_are_two_alarms_whatever_lies_between_them(opened: Opener) -> None:
    driver = catalogue.driver("andar-radar")
    assert isinstance(driver, Streams)
    desks = [
        Desk(f"radar-{n}", "andar-radar", f"line-{n}", "", f"20{n}", "", driver, driver.options({}), wired=True)
        for n in (1, 2)
    ]
    centre = await opened(desks)
    for desk in desks:
        reader = StreamReader(
            desk.link,
            [desk],
            collector=centre.collector,
            outbox=centre.outbox,
            clock=centre.clock,
            health=centre.health,
        )
        reader.on_data(FALL, centre.clock.stamp())
    assert await centre.told("room", "presses") == [("alarm.raised", "201", 1), ("alarm.raised", "202", 1)]


async def test_a_second_fall_while_the_first_is_open_is_the_same_alarm(radar: Radar) -> None:
    radar.say(FALL, CLEAR, FALL, after_s=30)
    assert radar.open_alarms == [("fall", "ACTIVE", 2)]
    assert radar.raised == 1


async def test_a_new_fall_after_an_acknowledgement_opens_the_alarm_again_at_once(radar: Radar) -> None:
    radar.say(FALL)
    radar.acknowledge()
    radar.say(CLEAR, FALL, after_s=1)
    assert radar.open_alarms == [("fall", "ACTIVE", 2)]


async def test_a_new_fall_after_the_alarm_was_closed_is_a_new_alarm_at_once(radar: Radar) -> None:
    radar.say(FALL)
    radar.close()
    radar.say(CLEAR, FALL, after_s=0.5)
    assert radar.open_alarms == [("fall", "ACTIVE", 1)]
    assert radar.raised == 2


async def test_a_fall_that_is_still_seen_after_the_alarm_was_closed_raises_no_other(radar: Radar) -> None:
    radar.say(FALL)
    radar.close()
    radar.say(*[FALL] * 100, after_s=10)
    assert (radar.open_alarms, radar.raised) == ([], 1)
    radar.say(CLEAR, FALL, after_s=10)
    assert radar.raised == 2


async def test_a_fall_that_was_not_reported_for_a_while_is_a_new_one(radar: Radar) -> None:
    radar.say(FALL)
    radar.close()
    radar.say(FALL, after_s=26)
    assert radar.raised == 2


async def test_after_a_restart_a_fall_that_lasts_is_the_same_alarm_and_told_once_more(radar: Radar) -> None:
    """It may be another one: somebody may have taken the first, and the disk not what they did."""
    radar.say(FALL)
    await radar.restart(after_s=20)
    radar.say(FALL, FALL, after_s=1)
    assert radar.open_alarms == [("fall", "ACTIVE", 2)]
    assert await radar.centre.told("presses") == [("alarm.raised", 1), ("alarm.raised", 2)]


async def test_after_a_restart_a_fall_whose_alarm_was_acknowledged_calls_again(radar: Radar) -> None:
    """It may be another fall, and who acknowledged the first one does not know of it."""
    radar.say(FALL)
    radar.acknowledge()
    await radar.restart(after_s=20)
    radar.say(FALL, FALL, after_s=1)
    assert radar.open_alarms == [("fall", "ACTIVE", 2)]


async def test_after_a_restart_a_fall_whose_alarm_was_closed_is_raised_once(radar: Radar) -> None:
    """Nobody knows whether it is the same fall: up and down again while the gateway was away."""
    radar.say(FALL)
    radar.close()
    await radar.restart(after_s=20)
    radar.say(FALL, FALL, FALL, after_s=1)
    assert radar.open_alarms == [("fall", "ACTIVE", 1)]
    assert radar.raised == 2


async def test_a_fall_that_had_ended_before_a_restart_is_a_new_one_after_it(radar: Radar) -> None:
    radar.say(FALL, CLEAR, after_s=1)
    radar.close()
    await radar.restart(after_s=5)
    radar.say(FALL)
    assert radar.raised == 2


async def test_a_state_that_is_none_is_told_as_a_fault_and_raises_nothing(radar: Radar) -> None:
    radar.say(*[FALL_7] * 5, after_s=1)
    assert radar.open_alarms == []
    assert await radar.centre.told("kind", "detail") == [("device.fault", "value-unread", "fall = 07")]
    assert radar.desk.rejects == {"value-unread": 5}
    radar.say(FALL_7, after_s=3601)
    assert len(await radar.centre.events()) == 2
    radar.say(FALL)
    assert radar.open_alarms == [("fall", "ACTIVE", 1)]


async def test_an_impossible_height_is_told_beside_what_can_be_read(radar: Radar) -> None:
    radar.say(TOO_HIGH, TOO_HIGH, after_s=20)
    assert await radar.centre.told("detail") == [
        ("telemetry.environment", None), ("device.fault", "install_height = 300 m"),
    ]  # fmt: skip


async def test_parameters_are_published_now_and_then_only(radar: Radar) -> None:
    radar.say(*[PARAMETERS] * 46, after_s=20)
    assert [noun for (noun,) in await radar.centre.told()] == ["telemetry.environment"] * 2


async def test_both_edges_of_presence_are_told_as_occupancy(radar: Radar) -> None:
    radar.say(SOMEBODY, SOMEBODY, NOBODY, NOBODY, SOMEBODY, after_s=100)
    assert await radar.centre.told("kind", "occupied", "room") == [
        ("bed.occupancy", "occupancy", True, "201"),
        ("bed.occupancy", "occupancy", False, "201"),
        ("bed.occupancy", "occupancy", True, "201"),
    ]


# Is it there at all?


async def test_a_radar_that_says_nothing_is_a_problem_after_a_minute(radar: Radar) -> None:
    radar.ask()
    for _ in range(3):
        radar.centre.clock.go_on(19)
        radar.say(ECHO, ECHO)  # our own question, come back on two joined wires, is no sign of life
        radar.ask()
    assert radar.centre.problems == []
    radar.centre.clock.go_on(19)
    radar.ask()
    assert radar.centre.problems == [("GW-DEV-01", "radar-1")]
    assert (radar.desk.polls, radar.desk.polls_failed) == (5, 4)
    assert radar.desk.heard == 0
    radar.say(CLEAR)
    assert radar.centre.problems == []


@pytest.mark.parametrize(
    "frame", [CLEAR, PARAMETERS, ODD, FALL_7], ids=["state", "answer", "unknown type", "odd state"]
)
async def test_whatever_a_radar_says_shows_that_it_lives(radar: Radar, frame: bytes) -> None:
    for _ in range(12):
        radar.ask()
        radar.centre.clock.go_on(19)
        radar.say(frame)
    assert radar.centre.problems == []
    assert radar.desk.polls_failed == 0


async def test_a_line_that_is_down_is_not_the_radar_s_fault(radar: Radar) -> None:
    radar.is_open = False
    for _ in range(10):
        radar.ask()
        radar.centre.clock.go_on(20)
    radar.is_open = True
    for _ in range(3):
        radar.ask()
        radar.centre.clock.go_on(19)
    assert radar.centre.problems == []
    assert (radar.desk.polls, radar.desk.polls_failed) == (3, 2)


async def test_the_interval_of_the_configuration_is_kept(radar: Radar) -> None:
    radar.desk.every_s = 0.01
    task = asyncio.create_task(radar.reader.keep_asking())
    async with asyncio.timeout(30):
        while len(radar.written) < 3:
            await asyncio.sleep(0.005)
    task.cancel()
    assert set(radar.written) == {ECHO}


async def test_frames_with_a_wrong_check_are_counted_at_the_radar(radar: Radar) -> None:
    radar.say(FALL[:-1] + b"\x00", FALL)
    assert radar.desk.rejects == {"bad-check": 1}
    assert radar.open_alarms == [("fall", "ACTIVE", 1)]

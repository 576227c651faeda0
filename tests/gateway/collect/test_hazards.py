"""What sensors find: smoke raises an alarm that only a person ends, a door is told or raises one, as the device is set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from drivers.kit import Advert, Advertises, Decoded, Reason, Rejected, Signal, SignalKind, Title
from gateway.collect import Desk

ADDRESS = "54:EF:44:00:00:01"
SERVICE = 0xFFFF

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]
Radio = Callable[..., Desk]


def decode(advert: Advert, key: bytes | None) -> Decoded:
    """Read "smoke=1": a kind and its level; "smoke" is one that happens once, "sealed" needs a key, "cold" can harm nobody."""
    said = advert.service_data[SERVICE].decode()
    if said in ("sealed", "cold"):
        raise Rejected(Reason.NO_KEY, harmless=said == "cold")
    said, is_open = said.removeprefix("open:"), said.startswith("open:")
    kind, _, level = said.partition("=")
    signal = Signal(SignalKind(kind), "x", level=None if not level else level == "1")
    return Decoded((signal,), authenticated=key is not None and not is_open)


@pytest.fixture
def sensor(opened: Opener, radio: Radio) -> Callable[..., Awaitable[Any]]:
    """Open a centre with one sensor; `say` lets it say things, `after_s` apart."""

    async def open_one(*, key: bytes | None = b"k", may_call: bool = False, **options: Any) -> Any:
        driver = Advertises("sensor", Title(zh="x", en="x"), decode, (), key_bytes=1, may_call=may_call)
        centre = await opened([radio("sensor-1", "sensor", ADDRESS, driver=driver, key=key, **options)])

        def say(*words: str, after_s: float = 1.0) -> None:
            for word in words:
                centre.clock.go_on(after_s)
                centre.hear(ADDRESS, service={SERVICE: word.encode().hex()})

        centre.say = say
        return centre

    return open_one


Sensor = Callable[..., Awaitable[Any]]


def the_alarm(centre: Any) -> tuple[str, str, str, int]:
    (one,) = centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    return (one["kind"], one["priority"], one["state"], one["presses"])


def close(centre: Any) -> None:
    (one,) = centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    centre.collector.close(one["id"], "li", "looked")


@pytest.mark.parametrize(
    ("kind", "priority"),
    [("smoke", "emergency"), ("gas", "emergency"), ("carbon_monoxide", "emergency"), ("water_leak", "urgent")],
)
async def test_a_hazard_is_an_alarm_of_its_own_kind(sensor: Sensor, kind: str, priority: str) -> None:
    centre = await sensor()
    centre.say(f"{kind}=0", f"{kind}=1", f"{kind}=1")
    assert the_alarm(centre) == (kind, priority, "ACTIVE", 1)
    assert await centre.told("kind", "priority", "presses", "verified") == [("alarm.raised", kind, priority, 1, True)]


async def test_that_smoke_has_passed_is_told_and_ends_no_alarm(sensor: Sensor) -> None:
    centre = await sensor()
    centre.say("smoke=1", "smoke=0", "smoke=0")
    assert the_alarm(centre) == ("smoke", "emergency", "ACTIVE", 1)
    assert await centre.told("kind", "state", "verified") == [
        ("alarm.raised", "smoke", "ACTIVE", True),
        ("sensor.changed", "smoke", "off", True),
    ]
    raised, passed = await centre.events()
    assert passed["correlationid"] == raised["correlationid"]
    assert passed["data"]["room"] == "201"


async def test_an_unproven_sensor_is_heard_at_both_edges_and_called_unverified(sensor: Sensor) -> None:
    centre = await sensor(key=None)
    centre.say("smoke=1", "smoke=0")
    assert await centre.told("state", "verified") == [
        ("alarm.raised", "ACTIVE", False), ("sensor.changed", "off", False),
    ]  # fmt: skip
    assert the_alarm(centre) == ("smoke", "emergency", "ACTIVE", 1)


async def test_smoke_that_flickers_is_one_alarm_and_no_flood(sensor: Sensor) -> None:
    centre = await sensor()
    centre.say(*["smoke=1", "smoke=0"] * 20, after_s=0.5)
    assert the_alarm(centre) == ("smoke", "emergency", "ACTIVE", 2)
    assert [sorted(event["time"][17:19] for event in await centre.events())] == [["00", "01", "10", "11"]]
    assert sorted(await centre.told("state")) == [("alarm.raised", "ACTIVE")] * 2 + [("sensor.changed", "off")] * 2


async def test_smoke_that_lasts_on_after_its_alarm_was_closed_raises_another_one_after_ten_minutes(
    sensor: Sensor,
) -> None:
    centre = await sensor()
    centre.say("smoke=1", "smoke=1", after_s=60)
    close(centre)
    centre.say(*["smoke=1"] * 9, after_s=59)
    assert centre.alarms.open_count == 0
    centre.say("smoke=1", after_s=9)
    assert the_alarm(centre) == ("smoke", "emergency", "ACTIVE", 1)


async def test_smoke_that_somebody_has_taken_and_that_lasts_on_does_not_sound_again(sensor: Sensor) -> None:
    centre = await sensor()
    centre.say("smoke=1")
    (one,) = centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    centre.collector.acknowledge(one["id"], "li")
    centre.say(*["smoke=1"] * 30, after_s=60)
    assert the_alarm(centre) == ("smoke", "emergency", "ACKED", 1)


async def test_smoke_that_comes_back_after_somebody_took_it_has_its_end_told_too(sensor: Sensor) -> None:
    centre = await sensor()
    centre.say("smoke=1", "smoke=0")
    (one,) = centre.alarms.listed(centre.clock.stamp(), with_closed=False)
    centre.collector.acknowledge(one["id"], "li")
    centre.say("smoke=1", "smoke=0")
    assert the_alarm(centre) == ("smoke", "emergency", "ACTIVE", 2)
    assert sorted(await centre.told()) == [
        ("alarm.acknowledged",), ("alarm.raised",), ("alarm.raised",), ("sensor.changed",), ("sensor.changed",),
    ]  # fmt: skip


async def test_smoke_that_anybody_may_have_said_does_not_hide_the_proven_one(sensor: Sensor) -> None:
    """Somebody plays an alarm again and again until it is closed unseen: what the key proves raises its own at once."""
    centre = await sensor()
    centre.say("open:smoke=1", "open:smoke=1")
    close(centre)
    centre.say("open:smoke=1", "smoke=1", "open:smoke=1")
    assert the_alarm(centre) == ("smoke", "emergency", "ACTIVE", 1)
    assert await centre.told("verified", "presses") == [
        ("alarm.raised", False, 1), ("gateway.security", False, None), ("alarm.closed", False, 1),
        ("alarm.raised", True, 1),
    ]  # fmt: skip


async def test_a_proven_end_ends_what_anybody_may_have_said_and_not_the_other_way_round(sensor: Sensor) -> None:
    centre = await sensor()
    centre.say("open:smoke=1", "smoke=0")
    assert await centre.told("state", "verified") == [
        ("alarm.raised", "ACTIVE", False), ("gateway.security", None, False), ("sensor.changed", "off", True),
    ]  # fmt: skip
    centre.say("smoke=1", "open:smoke=0", after_s=30)
    assert [noun for noun, *_ in await centre.told()] == [
        "alarm.raised", "gateway.security", "sensor.changed", "alarm.raised",
    ]  # fmt: skip


async def test_smoke_after_ten_silent_minutes_is_new(sensor: Sensor) -> None:
    """The word that it had passed may have been lost on the air."""
    centre = await sensor()
    centre.say("smoke=1")
    centre.say("smoke=1", after_s=600.001)
    assert the_alarm(centre) == ("smoke", "emergency", "ACTIVE", 2)


async def test_a_door_is_told_at_both_edges_and_raises_nothing(sensor: Sensor) -> None:
    centre = await sensor(key=None)
    centre.say("opening=1", "opening=1", "opening=0", "opening=0")
    assert centre.alarms.open_count == 0
    assert await centre.told("kind", "state", "verified") == [
        ("sensor.changed", "opening", "on", False),
        ("sensor.changed", "opening", "off", False),
    ]


async def test_a_door_that_must_stay_shut_raises_an_alarm_that_closing_it_does_not_end(sensor: Sensor) -> None:
    centre = await sensor(alarms_on=("opening",))
    centre.say("opening=1", "opening=0")
    assert the_alarm(centre) == ("opening", "urgent", "ACTIVE", 1)
    await centre.outbox.flush(5)
    centre.say("opening=1", after_s=15)
    assert await centre.told("kind", "state", "presses") == [
        ("alarm.raised", "opening", "ACTIVE", 1),
        ("sensor.changed", "opening", "off", None),
        ("alarm.raised", "opening", "ACTIVE", 2),
    ]


async def test_alarms_on_concerns_what_it_names_alone(sensor: Sensor) -> None:
    centre = await sensor(alarms_on=("opening",))
    centre.say("motion=1", "vibration")
    assert centre.alarms.open_count == 0
    assert await centre.told("kind", "state") == [
        ("sensor.changed", "motion", "on"),
        ("sensor.changed", "vibration", None),
    ]


async def test_an_empty_bed_is_told_and_raises_an_alarm_where_that_is_wanted(sensor: Sensor) -> None:
    centre = await sensor(alarms_on=("bed_exit",))
    centre.say("bed_exit=1", "bed_exit=0")
    assert the_alarm(centre) == ("bed_exit", "urgent", "ACTIVE", 1)
    assert await centre.told("kind", "occupied") == [
        ("alarm.raised", "bed_exit", None), ("bed.occupancy", "bed_exit", True),
    ]  # fmt: skip


async def test_that_somebody_is_back_in_bed_counts_from_a_proven_sender_only(sensor: Sensor) -> None:
    centre = await sensor(key=None)
    centre.say("bed_exit=1", "bed_exit=0")
    assert await centre.told("kind", "occupied") == [("bed.occupancy", "bed_exit", False)]
    assert centre.desks["sensor-1"].ignored == 1


async def test_a_problem_of_the_device_is_a_fault_until_it_says_that_it_is_over(sensor: Sensor) -> None:
    centre = await sensor()
    centre.say("problem=1", "problem=1", "problem=0")
    assert await centre.told("kind") == [("device.fault", "problem"), ("device.restored", "problem")]


# What cannot be decrypted.


async def test_what_cannot_be_read_of_a_sensor_that_may_raise_an_alarm_raises_one(sensor: Sensor) -> None:
    centre = await sensor(key=None, alarms_on=("opening",))
    centre.say("cold")
    assert the_alarm(centre) == ("call", "emergency", "ACTIVE", 1)
    assert centre.problems == [("GW-DEV-03", "sensor-1")]


@pytest.mark.parametrize(("may_call", "said", "alarms"), [(True, "sealed", 1), (True, "cold", 0), (False, "sealed", 0)])
async def test_what_cannot_be_read_raises_no_alarm_where_it_can_be_none(
    sensor: Sensor, may_call: bool, said: str, alarms: int
) -> None:
    centre = await sensor(key=None, may_call=may_call)
    centre.say(said)
    assert centre.alarms.open_count == alarms
    assert centre.problems[0] == ("GW-DEV-03", "sensor-1")


async def test_a_button_that_never_lets_go_calls_again_some_time_after_its_alarm_was_closed(sensor: Sensor) -> None:
    centre = await sensor()
    centre.say("call=1", after_s=0)
    centre.say(*["call=1"] * 30, after_s=10)
    assert the_alarm(centre)[2:] == ("ACTIVE", 1)
    close(centre)
    centre.say(*["call=1"] * 29, after_s=10)
    assert centre.alarms.open_count == 0
    centre.say("call=1", after_s=10)
    assert the_alarm(centre) == ("call", "emergency", "ACTIVE", 1)


async def test_a_fall_that_lasts_on_after_its_alarm_was_closed_is_the_same_fall(sensor: Sensor) -> None:
    centre = await sensor()
    centre.say("fall=1", after_s=0)
    close(centre)
    centre.say(*["fall=1"] * 90, after_s=10)
    assert centre.alarms.open_count == 0

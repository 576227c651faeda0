"""A receiver of radio on a line: only what is configured is taken, nothing of it is verified, and the receiver is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from drivers.kit import Streams, catalogue
from gateway.collect import Desk, StreamReader

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]

GOT_IT = b"\xaa\xa0\x55"
PRESS = bytes.fromhex("55000707017af650002989793001ffffffff37009d")


def code(address: str, key: str = "8") -> bytes:
    return bytes.fromhex(f"aaa42828015403fc{address}{key}55")


def desk(name: str, model: str, address: str, **options: object) -> Desk:
    driver = catalogue.driver(model)
    assert isinstance(driver, Streams)
    return Desk(name, model, "radio", address, "201", "", driver, driver.options(options), wired=True)


@dataclass
class Wire:
    """What goes back to the receiver."""

    written: list[bytes] = field(default_factory=list)

    def write(self, data: bytes) -> bool:
        self.written.append(data)
        return True


@dataclass
class Bench:
    """A centre with one receiver."""

    centre: Any
    wire: Wire = field(default_factory=Wire)

    def __post_init__(self) -> None:
        self.reader = StreamReader(
            "radio", list(self.centre.desks.values()), collector=self.centre.collector, outbox=self.centre.outbox,
            clock=self.centre.clock, health=self.centre.health,
        )  # fmt: skip
        line: Any = self.wire
        self.reader.attach(line)

    def say(self, *data: bytes) -> None:
        self.reader.on_data(b"".join(data), self.centre.clock.stamp())


@pytest.fixture
async def bridge(opened: Opener) -> Bench:
    return Bench(
        await opened([desk("button-1", "sonoff-rf-bridge", "D0FC3"), desk("button-2", "sonoff-rf-bridge", "D0FC4")])
    )


async def test_a_configured_button_calls_unverified_and_the_bridge_is_answered_at_once(bridge: Bench) -> None:
    bridge.say(code("D0FC3"))
    assert bridge.wire.written == [GOT_IT]
    told = await bridge.centre.told("code", "verified", "doubts")
    assert told == [("alarm.raised", "key-8", False, ["unauthenticated"])]


async def test_a_neighbours_button_is_counted_and_answered_and_no_problem(bridge: Bench) -> None:
    bridge.say(code("CD46B"))
    assert bridge.wire.written == [GOT_IT]
    assert await bridge.centre.events() == []
    assert bridge.reader.strangers == 1
    assert bridge.centre.problems == []


async def test_a_button_that_is_held_is_one_press(bridge: Bench) -> None:
    for _ in range(40):
        bridge.say(code("D0FC3"))
        bridge.centre.clock.go_on(0.1)
    assert await bridge.centre.told("presses") == [("alarm.raised", 1)]
    bridge.centre.clock.go_on(2)
    bridge.say(code("D0FC3"))
    assert await bridge.centre.told("presses") == [("alarm.raised", 1), ("alarm.raised", 2)]


async def test_a_press_after_the_alarm_was_closed_is_heard_at_once(bridge: Bench) -> None:
    bridge.say(code("D0FC3"))
    (event,) = await bridge.centre.events()
    bridge.centre.collector.close(event["correlationid"], "Li", "helped")
    bridge.say(code("D0FC3"))
    assert [noun for (noun,) in await bridge.centre.told()] == ["alarm.raised", "alarm.closed", "alarm.raised"]


async def test_two_buttons_at_the_same_moment_are_two_alarms(bridge: Bench) -> None:
    bridge.say(code("D0FC3"), code("D0FC4"))
    assert bridge.centre.alarms.open_count == 2


async def test_one_device_without_an_address_is_the_receiver_and_not_everybody(opened: Opener) -> None:
    bench = Bench(await opened([desk("stick", "enocean-esp3", "")]))
    bench.say(PRESS)
    assert await bench.centre.events() == []
    assert bench.centre.desks["stick"].heard == 0
    bench.say(bytes.fromhex("5500050002ce00ff800000da"))
    assert bench.centre.desks["stick"].heard == 1
    assert bench.centre.problems == []


async def test_a_receiver_that_is_not_configured_is_not_asked(opened: Opener) -> None:
    bench = Bench(await opened([desk("rocker", "enocean-esp3", "00298979")]))
    await bench.reader.keep_asking()
    assert bench.wire.written == []
    bench.say(PRESS, PRESS)
    assert await bench.centre.told("code", "presses") == [("alarm.raised", "BI", 1)]


async def test_a_door_that_opens_shuts_and_opens_within_the_time_of_a_repeat_is_told_three_times(
    opened: Opener,
) -> None:
    keys = {"E": "opening", "7": "closed"}
    bench = Bench(await opened([desk("door", "ev1527-board", "CD46B", keys=keys)]))
    for key in ("e", "e", "7", "7", "e"):
        bench.say(bytes.fromhex(f"fdcd46b{key}5adf"))
        bench.centre.clock.go_on(0.2)
    assert await bench.centre.told("kind", "state") == [
        ("sensor.changed", "opening", "on"), ("sensor.changed", "opening", "off"), ("sensor.changed", "opening", "on"),
    ]  # fmt: skip

"""A nurse-call system on a line: acknowledged after the commit, no call lost for an unknown address, no repeat told twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import reduce
from operator import xor
from typing import Any

import pytest

from drivers.kit import Streams, catalogue
from gateway.clock import Stamp
from gateway.collect import Desk, StreamReader
from gateway.collect.strangers import MAX_STRANGERS

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]

ACK, NAK = b"\x06", b"\x15"


def block(address: str, text: str = "", *, header: str = "1", kind: str = "3", priority: str = "3") -> bytes:
    """A block made here by hand."""
    records = [("1", address), ("2", text), ("4", kind), ("6", priority)]
    body = "\x1e".join(f"{name}\x1f{value}" for name, value in records if value).encode("latin-1")
    content = header.encode() + b"\x02" + body + b"\x03"
    return b"\x01" + content + bytes([reduce(xor, content)])


def bed(name: str, address: str, **options: object) -> Desk:
    driver = catalogue.driver("espa444")
    assert isinstance(driver, Streams)
    room = "301" if address else ""
    return Desk(name, "espa444", "calls", address, room, "", driver, driver.options(options), wired=True)


@dataclass
class Wire:
    """What goes back to the call system."""

    written: list[bytes] = field(default_factory=list)

    def write(self, data: bytes) -> bool:
        self.written.append(data)
        return True


@dataclass
class Bench:
    """A centre with one call system."""

    centre: Any
    wire: Wire = field(default_factory=Wire)

    def __post_init__(self) -> None:
        self.reader = StreamReader(
            "calls", list(self.centre.desks.values()), collector=self.centre.collector, outbox=self.centre.outbox,
            clock=self.centre.clock, health=self.centre.health, on_deaf=self.on_deaf,
        )  # fmt: skip
        line: Any = self.wire
        self.reader.attach(line)
        self.centre.outbox.on_stored = self.reader.on_stored

    def on_deaf(self, first: Stamp, last: Stamp) -> None:
        raise AssertionError("nothing is paused here")

    def say(self, *data: bytes) -> None:
        self.reader.on_data(b"".join(data), self.centre.clock.stamp())


@pytest.fixture
async def bench(opened: Opener) -> Bench:
    """The system itself, and one bed of it."""
    return Bench(await opened([bed("nurse-call", ""), bed("bed-1", "3011")]))


async def test_a_call_is_acknowledged_after_the_commit_and_not_before(bench: Bench) -> None:
    bench.say(b"1\x052\x05")
    assert bench.wire.written == [ACK]
    bench.say(block("3011", "Zimmer 301 Bett 1", priority="1"))
    assert bench.wire.written == [ACK]
    told = await bench.centre.told("code", "channel", "room", "detail", "verified", "kind")
    assert told == [("alarm.raised", "alarm", "3011", "301", "Zimmer 301 Bett 1", True, "call")]
    assert bench.wire.written == [ACK, ACK]


async def test_a_block_with_a_wrong_check_is_asked_for_again_and_raises_nothing(bench: Bench) -> None:
    broken = bytearray(block("3011", "Zimmer 301"))
    broken[-1] ^= 0x01
    bench.say(bytes(broken))
    assert bench.wire.written == [NAK]
    assert await bench.centre.events() == []
    assert bench.centre.desks["nurse-call"].rejects == {"bad-check": 1}
    bench.say(block("3011", "Zimmer 301"))
    assert len(await bench.centre.events()) == 1
    assert bench.wire.written == [NAK, ACK]


async def test_a_block_that_comes_again_after_a_missed_acknowledgement_is_one_call_and_acknowledged_again(
    bench: Bench,
) -> None:
    call = block("3011", "Zimmer 301")
    bench.say(call)
    bench.centre.clock.go_on(2)
    bench.say(call)
    assert await bench.centre.told("presses") == [("alarm.raised", 1)]
    assert b"".join(bench.wire.written) == ACK + ACK
    assert bench.centre.desks["bed-1"].repeats == 1


async def test_an_equal_call_after_five_seconds_is_another_press(bench: Bench) -> None:
    bench.say(block("3011", "Zimmer 301"))
    bench.centre.clock.go_on(5.1)
    bench.say(block("3011", "Zimmer 301"))
    assert await bench.centre.told("presses") == [("alarm.raised", 1), ("alarm.raised", 2)]


@pytest.mark.parametrize("again", [block("3011", "WC", priority="3"), block("3011", "Zimmer 301", priority="1")])
async def test_another_text_or_priority_is_another_call_at_once(bench: Bench, again: bytes) -> None:
    bench.say(block("3011", "Zimmer 301"), again)
    assert await bench.centre.told("presses") == [("alarm.raised", 1), ("alarm.raised", 2)]


async def test_an_equal_call_within_five_seconds_counts_once_a_person_has_taken_the_alarm(bench: Bench) -> None:
    bench.say(block("3011", "Zimmer 301"))
    (event,) = await bench.centre.events()
    bench.centre.collector.close(event["correlationid"], "Li", "helped")
    bench.centre.clock.go_on(2)
    bench.say(block("3011", "Zimmer 301"))
    assert [noun for (noun,) in await bench.centre.told()] == ["alarm.raised", "alarm.closed", "alarm.raised"]


async def test_a_reset_is_told_and_closes_nothing(bench: Bench) -> None:
    bench.say(block("3011", "Zimmer 301"), block("3011", "Zimmer 301", kind="1"))
    assert await bench.centre.told("kind") == [("alarm.raised", "call"), ("device.restored", "cancel")]
    assert bench.centre.alarms.open_count == 1


async def test_a_bed_that_nobody_configured_calls_all_the_same_and_is_told(bench: Bench) -> None:
    bench.say(block("4711", "Zimmer 12"), block("4712", "Zimmer 13"))
    found = [(one["subject"], one["data"]["channel"], one["data"]["detail"]) for one in await bench.centre.events()]
    assert found == [
        ("device/nurse-call-4711", "4711", "Zimmer 12"), ("device/nurse-call-4712", "4712", "Zimmer 13"),
    ]  # fmt: skip
    assert bench.centre.alarms.open_count == 2
    assert bench.centre.problems == [("GW-DEV-05", "calls")]


async def test_with_nothing_but_the_system_configured_each_bed_is_an_alarm_of_its_own(opened: Opener) -> None:
    bench = Bench(await opened([bed("nurse-call", "")]))
    bench.say(block("1", "A"), block("2", "B"), block("1", "A"))
    assert bench.centre.alarms.open_count == 2
    assert len(await bench.centre.events()) == 2


async def test_strangers_have_the_same_id_after_a_restart(opened: Opener) -> None:
    bench = Bench(await opened([bed("nurse-call", "")]))
    bench.say(block("30/1 A"))
    await bench.centre.restart()
    again = Bench(bench.centre)
    bench.centre.clock.go_on(60)
    again.say(block("30/1 A"))
    assert len({one["subject"] for one in await bench.centre.events()}) == 1
    assert bench.centre.alarms.open_count == 1


async def test_beyond_the_limit_strangers_call_as_the_system_itself_and_it_is_told(opened: Opener) -> None:
    bench = Bench(await opened([bed("nurse-call", "")]))
    bench.say(*(block(f"{n}") for n in range(1, MAX_STRANGERS + 1)))
    assert bench.centre.problems == [("GW-DEV-05", "calls")]
    bench.say(block("9001"), block("9002"))
    subjects = [one["subject"] for one in await bench.centre.events()]
    assert len(subjects) == MAX_STRANGERS + 2
    assert subjects[-2:] == ["device/nurse-call"] * 2
    assert len(set(subjects)) == MAX_STRANGERS + 1
    assert sorted(bench.centre.problems) == [("GW-DEV-05", "calls"), ("GW-DEV-06", "calls")]


async def test_whose_alarm_is_closed_gives_way_to_the_next_stranger_and_keeps_its_id(opened: Opener) -> None:
    bench = Bench(await opened([bed("nurse-call", "")]))
    bench.say(*(block(f"{n}") for n in range(1, MAX_STRANGERS + 1)))
    bench.centre.collector.close(bench.centre.alarms.open_of("nurse-call-7").id, "Li", "helped")
    bench.say(block("9001"))
    assert bench.centre.alarms.open_of("nurse-call-9001") is not None
    bench.centre.collector.close(bench.centre.alarms.open_of("nurse-call-9").id, "Li", "helped")
    bench.say(block("7"))
    assert bench.centre.alarms.open_of("nurse-call-7") is not None
    assert bench.centre.problems == [("GW-DEV-05", "calls")]


async def test_a_call_without_an_address_is_the_systems_own(bench: Bench) -> None:
    bench.say(block("", "Feuer"))
    (event,) = await bench.centre.events()
    assert (event["subject"], event["data"]["detail"]) == ("device/nurse-call", "Feuer")


async def test_the_test_call_of_the_system_is_acknowledged_and_raises_nothing(opened: Opener) -> None:
    bench = Bench(await opened([bed("nurse-call", ""), bed("heartbeat", "999", **{"is": "none"})]))
    bench.say(block("999", "Test"))
    assert await bench.centre.events() == []
    assert bench.wire.written == [ACK]


async def test_a_poll_of_the_system_is_a_sign_of_life_of_its_beds(bench: Bench) -> None:
    bench.say(b"\x042\x05")
    assert bench.wire.written == [b"\x04"]
    assert bench.centre.desks["bed-1"].last_heard == bench.centre.clock.monotonic()


async def test_a_call_that_could_not_be_stored_is_new_when_it_comes_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(bench.centre.outbox, "submit", lambda _write: False)
        bench.say(block("3011", "Reset", kind="1"))
    assert bench.wire.written == []
    bench.say(block("3011", "Reset", kind="1"))
    assert await bench.centre.told("kind") == [("device.restored", "cancel")]
    assert bench.wire.written == [ACK]

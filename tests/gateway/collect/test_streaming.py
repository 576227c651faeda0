"""A line that speaks by itself: what is acknowledged and when, what garbage does, and how a stuck disk holds it back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from drivers.kit import Counter, Decoded, Framer, Poll, Signal, SignalKind, SourceNumber, Streams, Title, catalogue
from drivers.kit.framing import LineFramer
from gateway.clock import Stamp
from gateway.collect import Desk, StreamReader
from gateway.collect.listening import Heard
from gateway.outbox import Mark, Write

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]

MAP = {
    "signal": [{"field": "ev", "equals": "press", "is": "call"}, {"field": "ev", "equals": "tamper", "is": "tamper"}],
    "reading": [{"field": "kwh", "quantity": "energy_active_import"}],
}


@dataclass
class Wire:
    """What the reader does to its line."""

    written: list[bytes] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def write(self, data: bytes) -> bool:
        self.written.append(data)
        return True

    def pause(self) -> None:
        self.done.append("pause")

    def resume(self) -> None:
        self.done.append("resume")


def json_desk(name: str, address: str) -> Desk:
    driver = catalogue.driver("json-lines")
    assert isinstance(driver, Streams)
    options = driver.options(MAP if address else {**MAP, "address": ""})
    return Desk(name, "json-lines", "wire", address, "201", "", driver, options, wired=True)


@dataclass
class Bench:
    """A centre with one line in it."""

    centre: Any
    wire: Wire = field(default_factory=Wire)
    deaf: list[tuple[Stamp, Stamp]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = StreamReader(
            "wire", list(self.centre.desks.values()), collector=self.centre.collector, outbox=self.centre.outbox,
            clock=self.centre.clock, health=self.centre.health, on_deaf=lambda first, last: self.deaf.append((first, last)),
        )  # fmt: skip
        line: Any = self.wire
        self.reader.attach(line)
        self.centre.outbox.on_stored = self.reader.on_stored

    def say(self, *lines: str) -> None:
        self.reader.on_data("".join(f"{line}\n" for line in lines).encode(), self.centre.clock.stamp())


@pytest.fixture
async def bench(opened: Opener) -> Bench:
    """Two devices, b1 and b2, share the line."""
    return Bench(await opened([json_desk("board-1", "b1"), json_desk("board-2", "b2")]))


# Acknowledgements.


async def test_a_numbered_line_is_acknowledged_after_the_commit_and_not_before(bench: Bench) -> None:
    bench.say('{"dev":"b1","n":7,"s":"x","ev":"press"}')
    assert bench.wire.written == []
    assert bench.centre.alarms.open_count == 1
    assert await bench.centre.told("n", "session", "verified", "code") == [("alarm.raised", 7, "x", True, "press")]
    assert bench.wire.written == [b'{"ack": 7, "s": "x"}\n']


async def test_a_resent_line_is_stored_once_and_acknowledged_again(bench: Bench) -> None:
    line = '{"dev":"b1","n":7,"ev":"press"}'
    bench.say(line, line)
    assert await bench.centre.told("n") == [("alarm.raised", 7)]
    assert bench.wire.written == [b'{"ack": 7}\n']
    bench.say(line)
    assert bench.wire.written == [b'{"ack": 7}\n'] * 2
    assert await bench.centre.told("n") == [("alarm.raised", 7)]
    assert bench.centre.desks["board-1"].repeats == 2


async def test_a_resent_line_is_known_after_a_restart(bench: Bench) -> None:
    bench.say('{"dev":"b1","n":7,"ev":"press"}')
    await bench.centre.restart()
    again = Bench(bench.centre)
    again.say(
        '{"dev":"b1","n":7,"ev":"press"}', '{"dev":"b2","n":7,"ev":"press"}', '{"dev":"b1","n":7,"s":"y","ev":"press"}'
    )
    assert again.wire.written == [b'{"ack": 7}\n']
    assert len(await bench.centre.events()) == 3


async def test_a_line_that_says_nothing_of_interest_is_acknowledged_too(bench: Bench) -> None:
    bench.say('{"dev":"b1","n":8,"rssi":-60}')
    assert await bench.centre.events() == []
    assert bench.wire.written == [b'{"ack": 8}\n']


async def test_a_numbered_call_with_a_broken_reading_is_raised_once_and_the_reading_told_as_a_fault(
    bench: Bench,
) -> None:
    line = '{"dev":"b1","n":9,"ev":"press","kwh":"broken"}'
    bench.say(line, line)
    assert await bench.centre.told("kind", "n", "detail") == [
        ("alarm.raised", "call", 9, None), ("device.fault", "value-unread", 9, "kwh is no number"),
    ]  # fmt: skip
    bench.say(line)
    assert len(await bench.centre.events()) == 2
    assert bench.wire.written == [b'{"ack": 9}\n'] * 2
    assert bench.centre.desks["board-1"].rejects == {"value-unread": 1}


async def test_a_line_without_a_number_is_stored_and_not_answered(bench: Bench) -> None:
    bench.say('{"dev":"b1","ev":"press"}', '{"dev":"b1","ev":"press"}')
    assert await bench.centre.told("presses") == [("alarm.raised", 1), ("alarm.raised", 2)]
    assert bench.wire.written == []


async def test_a_reading_is_stored_as_it_was_written(bench: Bench) -> None:
    bench.say('{"dev":"b2","n":1,"kwh":12.340}')
    assert await bench.centre.told("registers", "room", "n") == [
        (
            "telemetry.meter",
            [{"quantity": "energy_active_import", "channel": "", "value": "12.340", "unit": "kWh"}],
            "201",
            1,
        ),
    ]


async def test_a_refused_number_is_not_acknowledged_and_taken_when_it_comes_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = bench.centre.outbox.submit
    monkeypatch.setattr(bench.centre.outbox, "submit", lambda _write: False)
    bench.say('{"dev":"b1","n":7,"kwh":1}')
    monkeypatch.setattr(bench.centre.outbox, "submit", submit)
    bench.reader.on_stored()
    assert bench.wire.written == []
    assert bench.centre.desks["board-1"].rejects == {"queue-full": 1}
    assert bench.centre.refused == []  # its source keeps it: no gap
    bench.say('{"dev":"b1","n":7,"kwh":1}')
    assert await bench.centre.told("n") == [("telemetry.meter", 7)]
    assert bench.wire.written == [b'{"ack": 7}\n']


async def test_what_a_repeat_repeats_must_be_durable_before_it_is_acknowledged(opened: Opener) -> None:
    """A device with a counter and a number: the repeat waits behind the original, and is not forgotten either."""
    driver = catalogue.driver("json-lines")
    assert isinstance(driver, Streams)
    desk = json_desk("board-1", "")
    centre = await opened([desk])
    order: list[str] = []
    at = centre.clock.stamp()
    press = Decoded((Signal(SignalKind.CALL),), Counter(5, 8, authenticated=False), source_number=SourceNumber("", 1))
    repeat = Decoded((Signal(SignalKind.CALL),), Counter(5, 8, authenticated=False), source_number=SourceNumber("", 2))
    assert centre.collector.take(desk, press, at, lambda: order.append("press"))
    assert centre.collector.take(desk, repeat, at, lambda: order.append("repeat"))
    assert order == []
    assert await centre.told("n") == [("alarm.raised", 1)]
    assert order == ["press", "repeat"]


# Whose a line is.


async def test_lines_of_strangers_and_of_nobody_are_passed_over(bench: Bench) -> None:
    bench.say('{"dev":"b9","ev":"press"}', '{"ev":"press"}', '{"dev":"b1","ev":"press"}')
    assert len(await bench.centre.events()) == 1
    assert bench.reader.strangers == 2
    assert [desk.heard for desk in bench.centre.desks.values()] == [1, 0]


async def test_a_call_from_an_address_that_nobody_configured_is_told_with_the_address(bench: Bench) -> None:
    bench.say('{"dev":"b9","ev":"press"}', '{"dev":"b9","ev":"press"}')
    [trouble] = bench.centre.health.current()
    assert (trouble.code, trouble.subject, dict(trouble.facts)) == ("GW-DEV-04", "wire", {"address": "b9", "count": 2})
    bench.centre.clock.go_on(24 * 3600 + 1)
    assert bench.centre.problems == []


async def test_a_message_that_names_nobody_is_no_unknown_device(bench: Bench) -> None:
    bench.say('{"ev":"press"}')
    assert bench.centre.problems == []


async def test_a_device_that_has_the_line_to_itself_needs_no_address(opened: Opener) -> None:
    bench = Bench(await opened([json_desk("board-1", "")]))
    bench.say('{"n":1,"ev":"press"}')
    assert await bench.centre.told("n") == [("alarm.raised", 1)]


# Garbage and bugs.


async def test_good_lines_come_through_a_megabyte_of_garbage(bench: Bench) -> None:
    noise = random.Random(2)  # noqa: S311 - noise that can be repeated
    at = bench.centre.clock.stamp()
    for n in range(100):
        bench.reader.on_data(noise.randbytes(10_485), at)
        bench.reader.on_data(b'\n{"dev":"b1","n":%d,"kwh":1}\n' % n, at)
    assert [n for _, n in await bench.centre.told("n")] == list(range(100))
    assert bench.centre.desks["board-1"].heard == 100


async def test_garbage_is_one_problem_until_the_line_has_been_clean_for_a_while(bench: Bench) -> None:
    turns: list[str] = []
    bench.centre.health._announce = lambda trouble: turns.append("off" if trouble.until else "on")
    clock = bench.centre.clock
    for _ in range(5):
        bench.reader.on_data(b"\x00" * 600 + b"\n" + b"\xff" * 600 + b"\n", clock.stamp())
        assert bench.centre.problems == [("GW-DEV-02", "wire")]
        clock.go_on(1)
        bench.say('{"dev":"b1","ev":"tamper"}')
    assert turns == ["on"]
    clock.go_on(9.5)
    bench.say('{"dev":"b1","ev":"tamper"}')
    assert turns == ["on", "off"]
    assert bench.centre.problems == []


async def test_a_little_noise_between_good_lines_is_no_problem(bench: Bench) -> None:
    for _ in range(50):
        bench.reader.on_data(b"\xfe" * 500 + b"\n", bench.centre.clock.stamp())
        bench.say('{"dev":"b1","ev":"tamper"}')
    assert bench.centre.problems == []


async def test_an_odd_value_in_a_sound_line_is_no_garbage(bench: Bench) -> None:
    for n in range(100):
        bench.say(f'{{"dev":"b1","n":{n},"kwh":"{"x" * 40}"}}')
    assert bench.centre.problems == []
    assert bench.centre.desks["board-1"].rejects == {"value-unread": 100}
    assert bench.centre.desks["board-1"].heard == 100


async def test_half_a_line_is_void_after_a_reopening(bench: Bench) -> None:
    bench.reader.on_data(b'{"dev":"b1","ev":"pr', bench.centre.clock.stamp())
    bench.reader.reopened()
    bench.say('ess"}', '{"dev":"b1","ev":"press"}')
    assert len(await bench.centre.events()) == 1


class _BadFramer(LineFramer):
    def feed(self, data: bytes) -> list[bytes]:
        if b"crash the framer" in data:
            raise ValueError("a bug in a framer")
        return super().feed(data)


def _bad_framer() -> Framer:
    return _BadFramer()


def _bad_decode(frame: bytes, _options: object) -> Decoded:
    if b"crash the driver" in frame:
        raise IndexError("a bug in a driver")
    return Decoded((Signal(SignalKind.CALL, "press"),))


async def test_a_line_that_its_driver_cannot_stand_costs_itself_only(opened: Opener) -> None:
    driver = Streams("odd", Title("", ""), _bad_framer, lambda raw: raw, _bad_decode, ())
    bench = Bench(await opened([Desk("odd-1", "odd", "wire", "", "", "", driver, {}, wired=True)]))
    bench.say("one", "crash the driver", "two")
    bench.say("crash the framer")
    bench.say("three")
    assert [presses for _, presses in await bench.centre.told("presses")] == [1, 2, 3]
    assert bench.centre.desks["odd-1"].rejects == {"fault": 2}
    assert bench.centre.problems == [("GW-RUN-03", "odd-1")]


@pytest.mark.parametrize("line", ["crash the driver", "crash the framer"])
async def test_a_line_of_what_may_call_that_its_driver_cannot_stand_raises_an_unverified_call(
    opened: Opener, line: str
) -> None:
    driver = Streams("odd", Title("", ""), _bad_framer, lambda raw: raw, _bad_decode, (), may_call=True)
    bench = Bench(await opened([Desk("odd-1", "odd", "wire", "", "301", "2", driver, {}, wired=True)]))
    bench.say(line)
    bench.say(line)
    expected = ("alarm.raised", "undecipherable", False, ["fault"], "301", 1)
    assert await bench.centre.told("code", "verified", "doubts", "room", "presses") == [expected]
    assert bench.centre.desks["odd-1"].rejects == {"fault": 2}
    assert bench.centre.problems == [("GW-RUN-03", "odd-1")]
    bench.centre.collector.close(bench.centre.alarms.open_of("odd-1").id, "Li Na", "looked")
    bench.say(line)
    assert (await bench.centre.told("presses"))[-1] == ("alarm.raised", 1)
    bench.centre.clock.go_on(11)
    bench.say(line)
    assert (await bench.centre.told("presses"))[-1] == ("alarm.raised", 2)


def _bad_address(frame: bytes, _options: object) -> str:
    name, _, _rest = frame.decode().partition(" ")
    if name == "crash":
        raise IndexError("a bug in a driver")
    return name


async def test_a_call_of_whom_a_bug_keeps_from_being_known_is_the_lines_and_of_no_room(opened: Opener) -> None:
    driver = Streams(
        "odd", Title("", ""), _bad_framer, lambda raw: raw, _bad_decode, (), may_call=True, address_of=_bad_address
    )
    beds = [Desk(f"bed-{n}", "odd", "wire", f"b{n}", f"30{n}", "", driver, {}, wired=True) for n in (1, 2)]
    bench = Bench(await opened(beds))
    bench.say("b1 press", "crash at whose it is", "b9 crash the driver")
    found = [(one["subject"], one["data"]["room"], one["data"]["verified"]) for one in await bench.centre.events()]
    assert found == [("device/bed-1", "301", True), ("device/wire", "", False)]


async def test_a_call_that_meets_a_bug_of_the_judges_is_raised_unverified(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Streams("odd", Title("", ""), _bad_framer, lambda raw: raw, _bad_decode, (), may_call=True)
    bench = Bench(await opened([Desk("odd-1", "odd", "wire", "", "301", "2", driver, {}, wired=True)]))

    def broken(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(bench.centre.collector._levels, "take", broken)
    bench.say("press")
    assert await bench.centre.told("code", "verified", "doubts") == [("alarm.raised", "press", False, ["fault"])]


class _StuckFramer(LineFramer):
    """A framer whose state is spoilt by what it met: only another one hears again."""

    def feed(self, data: bytes) -> list[bytes]:
        if b"spoil" in data:
            self._held = None  # type: ignore[assignment]  # a bug
        return super().feed(data)


def _stuck_framer() -> Framer:
    return _StuckFramer(limit=64)


async def test_a_framer_that_is_spoilt_gives_way_to_another_which_counts_from_the_start(opened: Opener) -> None:
    driver = Streams("odd", Title("", ""), _stuck_framer, lambda raw: raw, _bad_decode, ())
    bench = Bench(await opened([Desk("odd-1", "odd", "wire", "", "", "", driver, {}, wired=True)]))
    bench.say("x" * 2_000, "one")
    bench.say("spoil")
    bench.say("two", "y" * 100)
    assert [presses for _, presses in await bench.centre.told("presses")] == [1, 2]
    assert bench.centre.desks["odd-1"].rejects == {"too-long": 2, "fault": 1}
    bench.centre.clock.go_on(11)
    bench.say("three")
    assert bench.centre.problems == [("GW-RUN-03", "odd-1")]
    bench.reader.on_data(b"y" * 2_000 + b"\nfour\nspoil\n", bench.centre.clock.stamp())
    bench.reader.on_data(b"\xff" * 1_030 + b"\n", bench.centre.clock.stamp())
    assert ("GW-DEV-02", "wire") in bench.centre.problems


async def test_what_comes_is_shown_to_whoever_listens(bench: Bench) -> None:
    seen: list[Heard] = []
    bench.centre.collector.listeners.add(seen.append)
    bench.say(
        '{"dev":"b1","ev":"press"}', "nonsense", '{"dev":"b1","kwh":"x"}', '{"dev":"b9"}', '{"dev":"b1","t":1}',
        "x" * 5_000,
    )  # fmt: skip
    assert [(one.kind, one.device, one.address, one.reason, one.detail) for one in seen] == [
        ("frame", "board-1", "b1", "", ""),
        ("frame", "", "", "names-nobody", ""),
        ("frame", "board-1", "b1", "implausible", "kwh is no number"),
        ("frame", "", "b9", "stranger", ""),
        ("frame", "board-1", "b1", "nothing-of-interest", ""),
        ("noise", "", "", "no-frame", "5001"),
    ]
    assert [one.get("code") for one in seen[0].item()["said"]] == ["press"]
    assert seen[1].capture == {"bytes": b"nonsense\n".hex()}
    assert len(str(seen[5].capture["bytes"])) == 128


# A disk that does not keep up.


async def test_a_stuck_disk_holds_the_line_back_and_the_pause_is_told(bench: Bench) -> None:
    centre = bench.centre
    centre.committing.cancel()
    for number in range(4_001):
        assert centre.outbox.submit(Write(marks=(Mark("x", str(number), "1"),)))
    began = centre.clock.stamp()
    bench.say('{"dev":"b1","n":1,"ev":"press"}')
    bench.say('{"dev":"b1","n":2,"ev":"press"}')
    assert bench.wire.done == ["pause"]
    centre.clock.go_on(1.9)
    bench.reader.on_stored()
    assert bench.wire.done == ["pause"]

    centre.committing = asyncio.create_task(centre.outbox.run())
    assert len(await centre.events()) == 2
    assert bench.wire.done == ["pause", "resume"]
    assert bench.deaf == [(began, centre.clock.stamp())]
    assert b"".join(bench.wire.written) == b'{"ack": 1}\n{"ack": 2}\n'
    bench.reader.on_stored()
    assert bench.wire.done == ["pause", "resume"]


def stick(centre: Any) -> None:
    """The disk takes nothing any more, and much waits for it."""
    centre.committing.cancel()
    for number in range(4_001):
        assert centre.outbox.submit(Write(marks=(Mark("x", str(number), "1"),)))


async def test_a_disk_that_never_answers_keeps_no_call_from_being_raised(bench: Bench) -> None:
    centre = bench.centre
    stick(centre)
    began = centre.clock.stamp()
    bench.say('{"dev":"b1","n":1,"kwh":1}')
    centre.clock.go_on(2)
    bench.reader.on_stored()  # the tick of the hearing
    assert bench.wire.done == ["pause", "resume"]
    assert bench.deaf == [(began, centre.clock.stamp())]
    for n in range(2, 100):
        bench.say(f'{{"dev":"b1","n":{n},"kwh":1}}')
    bench.say('{"dev":"b1","n":100,"ev":"press"}')
    assert bench.wire.done == ["pause", "resume"], "and it is not paused again for the same trouble"
    assert centre.alarms.open_count == 1
    assert bench.wire.written == []


async def test_once_the_disk_has_caught_up_a_line_can_be_held_back_again(bench: Bench) -> None:
    centre = bench.centre
    for turn in range(1, 3):
        stick(centre)
        bench.say(f'{{"dev":"b1","n":{turn},"kwh":1}}')
        centre.clock.go_on(2)
        bench.reader.on_stored()
        centre.committing = asyncio.create_task(centre.outbox.run())
        assert await centre.outbox.flush(5)
        bench.reader.on_stored()
        assert bench.wire.done == ["pause", "resume"] * turn


async def test_a_serial_line_on_which_nobody_repeats_is_never_held_back(bench: Bench) -> None:
    """What a radar says while nobody reads is lost: the pause would make a busy disk a deaf radar."""
    stick(bench.centre)
    bench.say('{"dev":"b1","kwh":1}', '{"dev":"b1","ev":"press"}')
    assert (bench.wire.done, bench.centre.alarms.open_count) == ([], 1)


async def test_a_socket_is_held_back_whoever_speaks_on_it(bench: Bench) -> None:
    """Its sender waits, and loses nothing."""
    bench.reader = StreamReader(
        "wire", list(bench.centre.desks.values()), collector=bench.centre.collector, outbox=bench.centre.outbox,
        clock=bench.centre.clock, health=bench.centre.health,
    )  # fmt: skip
    line: Any = bench.wire
    bench.reader.attach(line)
    stick(bench.centre)
    bench.say('{"dev":"b1","kwh":1}')
    assert bench.wire.done == ["pause"]


# Polls.


async def test_a_poll_that_the_driver_declares_is_sent_at_its_interval(opened: Opener) -> None:
    listens = json_desk("radar", "b1")
    assert isinstance(listens.driver, Streams)
    asks = replace(listens.driver, poll=Poll(b"state?\n", every_s=0.01))
    bench = Bench(await opened([replace(listens, driver=asks)]))
    task = asyncio.create_task(bench.reader.keep_asking())
    async with asyncio.timeout(30):
        while len(bench.wire.written) < 3:
            await asyncio.sleep(0.005)
    task.cancel()
    assert bench.wire.written[:3] == [b"state?\n"] * 3


async def test_a_driver_without_a_poll_is_left_to_speak_by_itself(bench: Bench) -> None:
    async with asyncio.timeout(30):
        await bench.reader.keep_asking()
    assert bench.wire.written == []

"""The master of a bus: turns, silence, refusals and bugs, so that one bad meter never silences the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest

from drivers.kit import (
    Answers,
    Ask,
    Decoded,
    Framer,
    LineSettings,
    Names,
    NoReply,
    Observation,
    Polled,
    Reading,
    Reason,
    Rejected,
    Title,
    catalogue,
)
from drivers.kit.framing import LineFramer
from gateway.collect import BusMaster, Desk
from gateway.collect.listening import Heard
from gateway.errors import ControlError, LinkDown
from gateway.links.serial_line import CannotBeSet
from gateway.outbox.outbox import MAX_QUEUED

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]


@dataclass
class Bus:
    """The line as a master sees it: `answers` gives the reply to a request, or the error that comes instead."""

    answers: Callable[[bytes], bytes | Exception]
    asked: list[bytes] = field(default_factory=list)
    tries: list[int] = field(default_factory=list)
    settings: list[LineSettings | None] = field(default_factory=list)
    heard_out: int = 0
    link_id: str = "bus"
    timeouts: int = 0
    asks: int = 0
    replies: int = 0
    foreign: int = 0
    trimmed: int = 0
    taken: int = 0
    unasked: int = 0
    switches: int = 0
    restless: int = 0
    echo_seen: bool = False
    echo_expected: bool = False
    first_s: float | None = 0.05
    on_unasked: Callable[[bytes], None] | None = None

    async def hear_out(self, *, at_most_s: float) -> None:
        self.heard_out += 1

    async def ask(
        self, ask: Ask, framer: Framer, settings: LineSettings | None = None, *, silent_s: float | None = None
    ) -> bytes:
        self.asked.append(ask.request)
        self.tries.append(1 + ask.retries)
        self.settings.append(settings)
        answer = self.answers(ask.request)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _talk(target: str) -> Generator[Ask, bytes, tuple[Observation, ...]]:
    reply = yield Ask(target.encode(), lambda _frame: True)
    if reply == b"refused":
        raise Rejected(Reason.IMPLAUSIBLE, "no reading")
    if reply == b"for ever":
        while True:
            yield Ask(target.encode(), lambda _frame: True)
    return (Reading("energy_active_import", Decimal(reply.decode()[4:])),)


METER = Answers(
    "meter", Title("", ""), LineFramer, lambda address, raw: address, _talk, (), every_s=60.0
)  # fmt: skip


def meter(name: str, *, every_s: float | None = None, driver: Answers = METER) -> Desk:
    return Desk(name, driver.model, "bus", name, "", "", driver, name, wired=True, every_s=every_s)


@pytest.fixture
async def bench(opened: Opener) -> Callable[..., Awaitable[Any]]:
    """`bench(answers, *desks)` gives a master, its bus and its centre."""

    async def made(answers: Callable[[bytes], bytes | Exception], *desks: Desk) -> Any:
        centre = await opened(desks)
        bus: Any = Bus(answers)
        master = BusMaster(bus, desks, collector=centre.collector, clock=centre.clock, health=centre.health)
        return master, bus, centre

    return made


@pytest.fixture
def quick_sleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Let waiting move a still clock instead of taking time."""
    real = asyncio.sleep

    def install(clock: Any) -> None:
        async def sleep(seconds: float) -> None:
            clock.go_on(seconds + 0.001)
            await real(0)

        monkeypatch.setattr(asyncio, "sleep", sleep)

    yield install
    monkeypatch.setattr(asyncio, "sleep", real)


async def polled(master: BusMaster, until: Callable[[], bool]) -> None:
    """Let the master run until something is so."""
    running = asyncio.create_task(master.run())
    async with asyncio.timeout(30):
        while not until():
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})


async def test_a_reply_becomes_one_event_of_its_registers(bench: Any) -> None:
    master, _, centre = await bench(lambda _request: b"kwh=12.50", meter("m1"))
    await master._poll(master._turns[0])
    assert await centre.told("registers", "verified") == [
        (
            "telemetry.meter",
            [{"quantity": "energy_active_import", "channel": "", "value": "12.50", "unit": "kWh"}],
            True,
        ),
    ]
    desk = centre.desks["m1"]
    assert (desk.polls, desk.polls_failed, desk.heard, desk.events) == (1, 0, 1, 1)


async def test_what_could_not_be_taken_of_a_reply_is_told_beside_what_could(bench: Any) -> None:
    def talk(target: str) -> Generator[Ask, bytes, Polled]:
        yield Ask(target.encode(), lambda _frame: True)
        return Decoded((Reading("volume_water", Decimal("2.00")),), refused=("record 2 = no number",))

    driver = Answers("meter", Title("", ""), LineFramer, lambda address, raw: address, talk, (), every_s=60.0)
    master, _, centre = await bench(lambda _request: b"", meter("m1", driver=driver))
    await master._poll(master._turns[0])
    assert sorted(await centre.told("registers", "detail"), key=str) == [
        ("device.fault", None, "record 2 = no number"),
        ("telemetry.meter", [{"quantity": "volume_water", "channel": "", "value": "2.00", "unit": "m3"}], None),
    ]
    desk = centre.desks["m1"]
    assert (desk.heard, desk.polls_failed, desk.rejects["value-unread"]) == (1, 0, 1)


async def test_a_real_meter_is_read_as_its_published_frames_say(opened: Opener) -> None:
    driver = catalogue.driver("dlt645-2007")
    assert isinstance(driver, Answers)
    vector = driver.vectors[0]  # a log of 2014, meter 000000193600
    replies = {request: reply for request, reply in vector.exchange if reply is not None}
    desk = Desk(
        "m1", driver.model, "bus", vector.address, "", "", driver, driver.options(vector.address, vector.options)
    )
    centre = await opened([desk])
    bus: Any = Bus(lambda request: replies[request])
    master = BusMaster(bus, [desk], collector=centre.collector, clock=centre.clock, health=centre.health)
    await master._poll(master._turns[0])
    ((noun, registers),) = await centre.told("registers")
    assert noun == "telemetry.meter"
    assert [(one["quantity"], one["channel"], one["value"], one["unit"]) for one in registers] == [
        ("energy_active_import", "", "36.30", "kWh"),
        ("energy_active_import", "T1", "2.56", "kWh"),
        ("energy_active_import", "T2", "0.19", "kWh"),
        ("energy_active_import", "T3", "0.38", "kWh"),
        ("energy_active_import", "T4", "33.17", "kWh"),
    ]


async def test_a_silent_meter_becomes_a_problem_after_three_polls_and_none_when_it_answers(bench: Any) -> None:
    answer: list[bytes | Exception] = [NoReply("silence")]
    master, _, centre = await bench(lambda _request: answer[0], meter("m1"))
    problems = []
    for _ in range(4):
        await master._poll(master._turns[0])
        problems.append(centre.problems)
    assert problems == [[], [], [("GW-DEV-01", "m1")], [("GW-DEV-01", "m1")]]
    assert (centre.desks["m1"].polls, centre.desks["m1"].polls_failed, centre.desks["m1"].heard) == (4, 4, 0)
    answer[0] = b"kwh=1"
    await master._poll(master._turns[0])
    assert centre.problems == []
    assert master._turns[0].failed == 0


@pytest.mark.parametrize(
    ("every_s", "waits"),
    [
        (5.0, [5, 10, 20, 40, 80, 80]),
        (60.0, [30, 60, 240, 300, 300, 300]),
        (900.0, [30, 60, 900, 900]),
    ],
)
async def test_a_silent_meter_is_asked_again_soon_then_less_often_and_never_forgotten(
    bench: Any, every_s: float, waits: list[float]
) -> None:
    master, _, centre = await bench(lambda _request: NoReply("silence"), meter("m1", every_s=every_s))
    turn = master._turns[0]
    for wait in waits:
        await master._poll(turn)
        assert 0.9 * wait <= turn.next_at - centre.clock.monotonic() <= 1.1 * wait


async def test_a_meter_that_fails_a_thousand_times_is_still_asked(bench: Any) -> None:
    master, _, _ = await bench(lambda _request: NoReply("silence"), meter("m1"))
    master._turns[0].failed = 100_000
    await master._poll(master._turns[0])
    assert master._turns[0].failed == 100_001


async def test_a_refused_reply_is_a_failed_poll_with_its_reason(bench: Any) -> None:
    master, _, centre = await bench(lambda _request: b"refused", meter("m1"))
    await master._poll(master._turns[0])
    assert centre.desks["m1"].rejects == {"implausible": 1}
    assert centre.desks["m1"].polls_failed == 1
    assert await centre.events() == []


async def test_a_conversation_without_an_end_is_ended(bench: Any) -> None:
    master, bus, centre = await bench(lambda _request: b"for ever", meter("m1"))
    await master._poll(master._turns[0])
    assert len(bus.asked) == 100
    assert centre.desks["m1"].polls_failed == 1


async def test_a_line_that_is_down_is_no_fault_of_the_meter(bench: Any) -> None:
    master, _, centre = await bench(lambda _request: LinkDown("GW-SER-01", "bus"), meter("m1"))
    turn = master._turns[0]
    await master._poll(turn)
    assert (centre.desks["m1"].polls, centre.desks["m1"].polls_failed, turn.failed) == (0, 0, 0)
    assert turn.next_at == centre.clock.monotonic() + 0.5


def _talk_after_silence(target: str) -> Generator[Ask, bytes, tuple[Observation, ...]]:
    with contextlib.suppress(NoReply):
        yield Ask(b"wake up", lambda _frame: True)
    return (yield from _talk(target))


async def test_a_meter_whose_settings_the_port_does_not_take_fails_whatever_its_driver_makes_of_silence(
    bench: Any,
) -> None:
    """A serial server that does not confirm a parity is cut off: asked on, the line would be down, and nobody at fault."""

    def answers(request: bytes) -> Exception:
        return CannotBeSet("cannot be set to 2400 8E1") if request == b"wake up" else LinkDown("GW-SER-04", "bus")

    master, bus, centre = await bench(answers, meter("m1", driver=replace(METER, talk=_talk_after_silence)))
    (turn,) = master._turns
    for _ in range(3):
        await master._poll(turn)
    assert (bus.asked, turn.failed, turn.deaf_to) == ([b"wake up"] * 3, 3, {})
    assert centre.problems == [("GW-DEV-01", "m1")]


def _bad_talk(_target: str) -> Generator[Ask, bytes, tuple[Observation, ...]]:
    reply = yield Ask(b"bad", lambda _frame: True)
    raise IndexError(f"a bug over {reply!r}")


async def test_a_reply_that_a_driver_cannot_stand_costs_that_poll_only(bench: Any) -> None:
    bad = Answers("bad", Title("", ""), LineFramer, lambda address, raw: address, _bad_talk, ())
    master, _, centre = await bench(lambda _request: b"kwh=1", meter("m1", driver=bad), meter("m2"))
    for turn in master._turns:
        await master._poll(turn)
    assert centre.desks["m1"].rejects == {"fault": 1}
    assert centre.desks["m1"].polls_failed == 1
    assert centre.desks["m2"].heard == 1
    assert centre.problems == [("GW-RUN-03", "m1")]


async def test_a_reply_that_breaks_the_line_s_own_reading_costs_that_poll_only(bench: Any) -> None:
    master, _, centre = await bench(lambda _request: RuntimeError("a framer's bug"), meter("m1"))
    await master._poll(master._turns[0])
    assert centre.desks["m1"].polls_failed == 1


async def test_turns_are_fair_and_a_dead_meter_starves_nobody(bench: Any, quick_sleep: Callable[[Any], None]) -> None:
    def answers(request: bytes) -> bytes | Exception:
        return NoReply("silence") if request == b"dead" else b"kwh=1"

    master, bus, centre = await bench(answers, *(meter(name, every_s=10.0) for name in ("a", "dead", "b")))
    quick_sleep(centre.clock)
    began = centre.clock.monotonic()
    await polled(master, lambda: centre.clock.monotonic() - began >= 400)
    counts = {name: bus.asked.count(name.encode()) for name in ("a", "dead", "b")}
    assert 39 <= counts["a"] <= 42
    assert 39 <= counts["b"] <= 42
    assert 5 <= counts["dead"] <= 8


@pytest.mark.parametrize(
    ("answer", "reply", "reason", "detail"),
    [
        (b"kwh=1", b"kwh=1".hex(), "", ""),
        (b"refused", b"refused".hex(), "implausible", "no reading"),
        (b"kwh=x", b"kwh=x".hex(), "fault", "InvalidOperation"),
        (NoReply("asked 3 times"), None, "no-reply", "asked 3 times"),
    ],
)
async def test_each_poll_is_shown_to_whoever_listens_as_it_went(
    bench: Any, answer: bytes | Exception, reply: str | None, reason: str, detail: str
) -> None:
    master, _, centre = await bench(lambda _request: answer, meter("m1"))
    seen: list[Heard] = []
    centre.collector.listeners.add(seen.append)
    await master._poll(master._turns[0])
    assert [(one.link, one.device, one.address, one.reason, one.detail) for one in seen] == [
        ("bus", "m1", "m1", reason, detail)
    ]
    assert seen[0].capture == {"exchange": [[b"m1".hex(), reply]]}
    values = [one.get("value") for one in seen[0].item()["said"]]
    assert values == (["1"] if not reason else [])


async def test_a_bug_behind_a_good_reply_costs_one_poll_and_not_the_bus(
    bench: Any, quick_sleep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, bus, centre = await bench(lambda _request: b"kwh=1", meter("m1"))
    quick_sleep(centre.clock)

    def broken(*_: object, **__: object) -> bool:
        raise KeyError("a bug")

    monkeypatch.setattr(centre.collector, "take", broken)
    await polled(master, lambda: len(bus.asked) >= 3)
    assert centre.problems == [("GW-RUN-03", "m1")]


async def test_who_is_not_known_to_be_there_is_asked_once_and_who_is_three_times(bench: Any) -> None:
    answer: list[bytes | Exception] = [NoReply("silence")]
    master, bus, _ = await bench(lambda _request: answer[0], meter("m1"))
    for answer[0] in (NoReply("silence"), b"kwh=1", b"kwh=1", NoReply("silence"), b"kwh=1"):
        await master._poll(master._turns[0])
    assert bus.tries == [1, 1, 3, 3, 1]


async def test_each_device_is_asked_with_the_settings_of_its_own(bench: Any) -> None:
    one, other = meter("m1"), meter("m2")
    other.line = LineSettings(9600, 8, "N", 1)
    master, bus, _ = await bench(lambda _request: b"kwh=1", one, other)
    for turn in master._turns:
        await master._poll(turn)
    assert bus.settings == [None, LineSettings(9600, 8, "N", 1)]


def _two_registers(_target: str) -> Generator[Ask, bytes, tuple[Observation, ...]]:
    first = yield Ask(b"first", lambda _frame: True)
    second = yield Ask(b"second", lambda _frame: True)
    return (Reading("energy_active_import", Decimal(first.decode())), Reading("voltage", Decimal(second.decode())))


async def test_a_late_reply_to_the_first_try_is_heard_out_before_another_register_is_asked(bench: Any) -> None:
    driver = Answers("two", Title("", ""), LineFramer, lambda address, raw: address, _two_registers, ())
    master, bus, _ = await bench(lambda _request: b"1", meter("m1", driver=driver))
    await master._poll(master._turns[0])
    assert bus.heard_out == 0

    def tried_again(request: bytes) -> bytes:
        bus.timeouts += request == b"first"  # the first try timed out, its repetition was answered
        return b"1"

    bus.answers = tried_again
    await master._poll(master._turns[0])
    assert bus.heard_out == 1


async def test_a_bus_that_is_never_quiet_is_a_problem_until_it_is(bench: Any) -> None:
    master, bus, centre = await bench(lambda _request: b"kwh=1", meter("m1"))
    bus.restless = 2
    master._look_at_line(master._turns[0])
    assert centre.problems == []
    bus.restless = 3
    master._look_at_line(master._turns[0])
    assert centre.problems == [("GW-SER-09", "bus")]
    bus.restless = 0
    master._look_at_line(master._turns[0])
    assert centre.problems == []


@pytest.mark.parametrize(("expected", "told"), [(False, [("GW-SER-10", "bus")]), (True, [])])
async def test_an_echo_that_nobody_configured_is_told(bench: Any, *, expected: bool, told: list[Any]) -> None:
    master, bus, centre = await bench(lambda _request: b"kwh=1", meter("m1"))
    bus.echo_seen, bus.echo_expected = True, expected
    master._look_at_line(master._turns[0])
    assert centre.problems == told


async def test_what_a_meter_shows_first_on_a_day_is_kept_in_the_commit_of_its_event(bench: Any) -> None:
    driver = Answers(
        "meter", Title("", ""), LineFramer, lambda address, raw: address, _talk, (), sender=lambda _frame: "000000193600"
    )  # fmt: skip
    desk = meter("m1", driver=driver)
    desk.ct = Decimal(20)
    master, _, centre = await bench(lambda _request: b"kwh=12.50", desk)
    await master._poll(master._turns[0])
    assert await centre.told("registers", "meter") == [
        (
            "telemetry.meter",
            [
                {
                    "quantity": "energy_active_import", "channel": "", "value": "250.00", "unit": "kWh", "raw": "12.50",
                    "ratio": "20",
                }
            ],
            "000000193600",
        ),
    ]  # fmt: skip
    (row,) = await centre.outbox.read(lambda reader: reader.meter_days("m1", "2000-01-01", "2100-01-01", limit=9))
    assert (row.device, row.kind, json.loads(row.doc)["r"]) == ("m1", "read", {"energy_active_import": "12.50"})
    marks = [one for one in await centre.outbox.marks() if one.key == "registers"]
    assert json.loads(marks[0].value)["last"] == {"energy_active_import": "12.50"}


def _two_step_talk(_target: Any) -> Generator[Ask, bytes, tuple[Observation, ...]]:
    yield Ask(b"hello\n", lambda frame: frame == b"ack\n")
    yield Ask(b"read\n", lambda frame: frame.startswith(b"kwh="))
    return (Reading("energy_active_import", Decimal(1)),)


@pytest.mark.parametrize(("names", "number"), [(Names.METER, "12345678"), (Names.PLACE, "")])
async def test_a_meter_s_number_is_that_of_the_first_frame_that_names_one(
    bench: Any, names: Names, number: str
) -> None:
    """An acknowledgement names nobody, and a place on the bus is no number of a meter."""
    driver = Answers(
        "meter", Title("", ""), LineFramer, lambda address, raw: address, _two_step_talk, (), names=names,
        sender=lambda frame: "12345678" if frame.startswith(b"kwh=") else "",
    )  # fmt: skip
    desk = meter("m1", driver=driver)
    master, _, _ = await bench(lambda request: b"ack" if request == b"hello\n" else b"kwh=1", desk)
    await master._poll(master._turns[0])
    assert desk.meter_number == number


async def test_a_number_that_a_meter_says_of_itself_shows_that_it_was_replaced(bench: Any) -> None:
    numbers = ["19012345", "", "20000001"]

    def talk(_target: Any) -> Generator[Ask, bytes, Decoded]:
        yield Ask(b"read\n", lambda _frame: True)
        return Decoded((Reading("energy_active_import", Decimal(1)),), meter=numbers.pop(0))

    driver = Answers("meter", Title("", ""), LineFramer, lambda address, raw: address, talk, ())
    desk = meter("m1", driver=driver)
    master, _, centre = await bench(lambda _request: b"kwh=1", desk)
    seen = []
    for _ in range(3):
        await master._poll(master._turns[0])
        seen.append(desk.meter_number)
    assert seen == ["19012345", "19012345", "20000001"]
    told = [event for event in await centre.told("kind", "old", "new") if event[0] == "device.birth"]
    assert told == [("device.birth", "meter-swapped", "19012345", "20000001")]


async def test_a_register_that_runs_backwards_is_published_as_held_and_told(bench: Any) -> None:
    reply = [b"kwh=100"]
    master, _, centre = await bench(lambda _request: reply[0], meter("m1"))
    await master._poll(master._turns[0])
    reply[0] = b"kwh=99"
    await master._poll(master._turns[0])
    nouns = [event[0] for event in await centre.told("kind")]
    assert nouns == ["telemetry.meter", "telemetry.meter", "device.fault"]
    ((_, registers),) = (await centre.told("registers"))[1:2]
    assert (registers[0]["value"], registers[0]["quality"], registers[0]["highest"]) == ("99", "held", "100")


async def test_after_an_outage_the_next_poll_asks_for_the_meter_s_own_midnights_once(bench: Any) -> None:
    targets: list[Any] = []

    def talk(target: Any) -> Generator[Ask, bytes, tuple[Observation, ...]]:
        targets.append(target)
        return (yield from _talk("m1"))

    driver = Answers(
        "meter", Title("", ""), LineFramer, lambda address, raw: address, talk, (),
        history=lambda target, days: (target, days),
    )  # fmt: skip
    master, _, centre = await bench(lambda _request: b"kwh=1", meter("m1", driver=driver))
    await master._poll(master._turns[0])
    centre.clock.go_on(3 * 86_400)
    for _ in range(3):
        await master._poll(master._turns[0])
    assert targets == ["m1", "m1", ("m1", 3), "m1"]


async def test_a_dial_is_stored_told_and_refused_for_what_is_no_meter(bench: Any) -> None:
    master, _, centre = await bench(lambda _request: b"kwh=100", meter("m1"))
    await master._poll(master._turns[0])
    doc = centre.collector.compare("m1", {"energy_active_import": Decimal("100.4")}, "li")
    assert doc["registers"] == {"energy_active_import": {"dial": "100.4", "read": "100", "difference": "0.4"}}
    assert (await centre.told("kind"))[-1] == ("test.completed", "dial-compared")
    with pytest.raises(ControlError):
        centre.collector.compare("nobody", {"energy_active_import": Decimal(1)}, "li")


async def test_what_a_meter_showed_last_is_kept_when_the_gateway_ends(bench: Any) -> None:
    values = iter((b"kwh=100", b"kwh=107"))
    master, _, centre = await bench(lambda _request: next(values), meter("m1"))
    for _ in range(2):
        await master._poll(master._turns[0])
        centre.clock.go_on(60)
    centre.collector.keep_registers()
    assert await centre.outbox.flush(5)
    (mark,) = await centre.outbox.marks()
    assert json.loads(mark.value)["last"] == {"energy_active_import": "107"}


async def test_the_row_of_a_day_that_a_full_queue_refused_is_not_lost(bench: Any) -> None:
    master, _, centre = await bench(lambda _request: b"kwh=100", meter("m1"))
    await master._poll(master._turns[0])
    assert await centre.outbox.flush(5)
    centre.committing.cancel()  # the disk hangs
    centre.clock.go_on(86_400)
    desk, at = centre.desks["m1"], centre.clock.stamp()
    for _ in range(MAX_QUEUED):
        assert centre.collector.take(desk, Decoded(), at, lambda: None)
    await master._poll(master._turns[0])
    assert desk.rejects == {"queue-full": 1}
    readings = [Reading("energy_active_import", Decimal(100))]
    taken = centre.collector.registers.take(desk, readings, at, now=centre.clock.monotonic())
    assert [one.kind for one in taken.days] == ["read"]


async def test_what_registers_showed_is_stored_again_when_the_database_was_replaced(bench: Any) -> None:
    master, _, centre = await bench(lambda _request: b"kwh=100", meter("m1"))
    await master._poll(master._turns[0])
    assert await centre.outbox.flush(5)
    (mark,) = await centre.outbox.marks()
    with contextlib.closing(sqlite3.connect(centre.folder / "outbox.db", isolation_level=None)) as database:
        database.execute("DELETE FROM mark")  # as a new database knows none
    centre.collector.store_again()
    assert await centre.outbox.flush(5)
    assert [(one.device, one.key, one.value) for one in await centre.outbox.marks()] == [
        ("m1", "registers", mark.value)
    ]


async def test_a_heat_meter_s_temperatures_do_not_make_its_registers_the_room_s(bench: Any) -> None:
    def talk(target: str) -> Generator[Ask, bytes, tuple[Observation, ...]]:
        yield Ask(target.encode(), lambda _frame: True)
        return (Reading("energy_heat", Decimal(1200)), Reading("temperature", Decimal("61.2"), "flow"))

    driver = Answers("meter", Title("", ""), LineFramer, lambda address, raw: address, talk, ())
    master, _, centre = await bench(lambda _request: b"", meter("m1", driver=driver))
    await master._poll(master._turns[0])
    assert [event[0] for event in await centre.told()] == ["telemetry.meter"]


async def test_midnights_are_asked_for_again_where_the_poll_that_was_to_bring_them_failed(bench: Any) -> None:
    targets: list[Any] = []

    def talk(target: Any) -> Generator[Ask, bytes, tuple[Observation, ...]]:
        targets.append(target)
        return (yield from _talk("m1"))

    driver = Answers(
        "meter", Title("", ""), LineFramer, lambda address, raw: address, talk, (),
        history=lambda target, days: (target, days),
    )  # fmt: skip
    answers: list[bytes | Exception] = [b"kwh=1", b"kwh=1", NoReply("silence"), NoReply("silence"), b"kwh=1", b"kwh=1"]
    master, _, centre = await bench(lambda _request: answers.pop(0), meter("m1", driver=driver))
    await master._poll(master._turns[0])
    centre.clock.go_on(8 * 86_400)
    for _ in range(5):
        await master._poll(master._turns[0])
    assert targets == ["m1", "m1", ("m1", 8), ("m1", 4), ("m1", 2), "m1"]


async def test_a_meter_that_speaks_by_itself_and_is_replaced_is_noticed_by_the_number_in_what_it_says(
    opened: Opener,
) -> None:
    driver = catalogue.driver("p1-port")
    assert not isinstance(driver, Answers)
    centre = await opened([Desk("p1", driver.model, "port", "", "", "", driver, None, wired=True)])
    for number, shown in (("E1", "5000.0"), ("E2", "3.0")):
        said = (Reading("energy_active_import", Decimal(shown), "T1"),)
        centre.collector.take(centre.desks["p1"], Decoded(said, meter=number), centre.clock.stamp())
        centre.clock.go_on(900)
    assert await centre.told("kind", "old", "new", "meter") == [
        ("telemetry.meter", None, None, None, "E1"), ("telemetry.meter", None, None, None, "E2"),
        ("device.birth", "meter-swapped", "E1", "E2", "E2"),
    ]  # fmt: skip

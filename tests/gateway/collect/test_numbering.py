"""Numbers that are used again: never taken for a repeat where they cannot be one, and a true repeat stays one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from drivers.kit import Decoded, Reading, Signal, SignalKind, Streams, catalogue
from gateway.collect import Desk, StreamReader
from gateway.collect.numbering import digest

Opener = Callable[[Iterable[Desk]], Awaitable[Any]]

MAP = {
    "address": "",
    "signal": [{"field": "ev", "equals": "press", "is": "call"}, {"field": "ev", "equals": "clear", "is": "cancel"}],
    "reading": [{"field": "t", "quantity": "temperature"}],
}
PRESS = '{"n":1,"ev":"press"}'


@dataclass
class Board:
    """A centre with one microcontroller on a line."""

    centre: Any
    written: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.desk = self.centre.desks["board-1"]
        self.reader = StreamReader(
            "wire", [self.desk], collector=self.centre.collector, outbox=self.centre.outbox, clock=self.centre.clock,
            health=self.centre.health,
        )  # fmt: skip
        line: Any = self
        self.reader.attach(line)
        self.centre.outbox.on_stored = self.reader.on_stored
        self.reader.reopened()

    def write(self, data: bytes) -> bool:
        self.written.append(data)
        return True

    async def say(self, *lines: str) -> list[bytes]:
        """Let lines come; return what was acknowledged once all of it is durable."""
        self.written.clear()
        self.reader.on_data("".join(f"{line}\n" for line in lines).encode(), self.centre.clock.stamp())
        assert await self.centre.outbox.flush(5)
        self.reader.on_stored()
        return b"".join(self.written).splitlines()

    async def unplugged(self, *, for_s: float) -> None:
        self.reader.lost()
        self.centre.clock.go_on(for_s)
        self.reader.lost()  # its trouble changed meanwhile
        self.reader.reopened()

    async def restart(self, *, after_s: float) -> None:
        await self.centre.restart()
        self.centre.clock.go_on(after_s)
        self.connect()

    async def told(self) -> list[tuple[str, int, bool]]:
        found: list[tuple[str, int, bool]] = await self.centre.told("n", "verified")
        return [one for one in found if one[0] != "gateway.security"]


@pytest.fixture
async def board(opened: Opener) -> Board:
    """One board whose lines are mapped, heard by the real driver."""
    driver = catalogue.driver("json-lines")
    assert isinstance(driver, Streams)
    return Board(
        await opened([Desk("board-1", "json-lines", "wire", "", "201", "", driver, driver.options(MAP), wired=True)])
    )


async def test_a_number_with_something_else_is_another_event_and_a_call_is_raised_unverified(board: Board) -> None:
    assert await board.say('{"n":1,"t":20.5}') == [b'{"ack": 1}']
    assert board.centre.problems == []
    assert await board.say(PRESS) == [b'{"ack": 1}']
    assert await board.told() == [("telemetry.environment", 1, True), ("alarm.raised", 1, False)]
    assert board.centre.problems == [("GW-SEC-04", "board-1")]
    assert (await board.centre.told("kind", "code"))[-1] == ("gateway.security", "number-reused", "GW-SEC-04")
    assert await board.say(PRESS, PRESS) == [b'{"ack": 1}'] * 2
    assert len(await board.told()) == 2


async def test_two_events_of_one_number_in_one_breath_are_two(board: Board) -> None:
    await board.say('{"n":1,"t":20.5}', PRESS, PRESS)
    assert await board.told() == [("alarm.raised", 1, False), ("telemetry.environment", 1, True)]
    assert board.desk.repeats == 1
    assert board.centre.problems == [("GW-SEC-04", "board-1")]


async def test_a_session_does_not_excuse_another_content(board: Board) -> None:
    await board.say('{"n":1,"s":"a","t":20.5}', '{"n":1,"s":"b","ev":"press"}')
    assert board.centre.problems == []
    await board.say('{"n":1,"s":"a","ev":"press"}')
    assert sorted(await board.told()) == [
        ("alarm.raised", 1, False), ("alarm.raised", 1, True), ("telemetry.environment", 1, True),
    ]  # fmt: skip


async def test_a_cancel_under_a_used_number_is_not_believed(board: Board) -> None:
    await board.say('{"n":1,"t":20.5}')
    assert await board.say('{"n":1,"ev":"clear"}') == [b'{"ack": 1}']
    assert len(await board.told()) == 1
    assert board.desk.ignored == 1


async def test_what_is_not_mapped_may_differ_in_a_repeat(board: Board) -> None:
    await board.say('{"n":1,"ev":"press","rssi":-60}')
    assert await board.say('{"n":1,"ev":"press","rssi":-61}') == [b'{"ack": 1}']
    assert len(await board.told()) == 1
    assert board.centre.problems == []


# The same content: only time and connection tell a second first press from a repeat.


async def test_a_board_that_counts_anew_without_a_session_is_heard_although_it_says_the_same(board: Board) -> None:
    await board.say(PRESS)
    board.centre.clock.go_on(61)
    assert await board.say(PRESS) == [b'{"ack": 1}']
    assert await board.told() == [("alarm.raised", 1, True), ("alarm.raised", 1, False)]
    assert board.centre.problems == [("GW-SEC-04", "board-1")]
    assert await board.say(PRESS) == [b'{"ack": 1}'], "but that one's own repeat is one"
    assert len(await board.told()) == 2
    # The numbers after it are new again, not used twice.
    await board.say('{"n":2,"ev":"press"}')
    assert (await board.told())[-1] == ("alarm.raised", 2, True)


async def test_every_press_of_a_board_that_counts_anew_is_heard_and_not_only_the_first(board: Board) -> None:
    """The others were durable before as well, and say the same: acknowledged as repeats they would be lost."""
    for n in (1, 2, 3):
        await board.say(f'{{"n":{n},"ev":"press"}}')
    board.centre.clock.go_on(600)
    for n in (1, 2, 3):
        assert await board.say(f'{{"n":{n},"ev":"press"}}') == [b'{"ack": %d}' % n]
        board.centre.clock.go_on(5)
    assert [n for _, n, _ in await board.told()] == [1, 2, 3, 1, 2, 3]
    await board.restart(after_s=5)
    assert await board.say('{"n":3,"ev":"press"}', '{"n":4,"ev":"press"}') == [b'{"ack": 3}', b'{"ack": 4}']
    assert [n for _, n, _ in await board.told()] == [1, 2, 3, 1, 2, 3, 4], "but their repeats are repeats"


async def test_presses_in_one_breath_are_all_heard_when_the_board_counts_anew(board: Board) -> None:
    presses = [f'{{"n":{n},"ev":"press"}}' for n in (1, 2, 3)]
    await board.say(*presses)
    board.centre.clock.go_on(600)
    await board.say(*presses, *presses)
    assert [n for _, n, _ in await board.told()] == [1, 2, 3, 1, 2, 3]
    await board.say(*presses)
    assert len(await board.told()) == 6


async def test_a_session_that_is_used_anew_voids_no_numbers_without_one(board: Board) -> None:
    await board.say(PRESS, '{"n":1,"s":"a","t":20.5}')
    board.centre.clock.go_on(61)
    await board.say('{"n":1,"s":"a","t":21.5}')
    await board.say(PRESS)
    assert [verified for _, _, verified in await board.told()] == [True, True, False, False]


async def test_a_repeat_within_a_minute_is_a_repeat(board: Board) -> None:
    for _ in range(20):
        assert await board.say(PRESS) == [b'{"ack": 1}']
        board.centre.clock.go_on(59)
    assert len(await board.told()) == 1
    assert board.centre.problems == []


async def test_a_repeat_after_a_long_time_unplugged_is_a_repeat(board: Board) -> None:
    await board.say(PRESS)
    board.centre.clock.go_on(30)
    await board.unplugged(for_s=7200)
    board.centre.clock.go_on(59)
    assert await board.say(PRESS) == [b'{"ack": 1}']
    assert len(await board.told()) == 1


async def test_what_was_settled_before_the_board_restarted_is_so_right_after_it(board: Board) -> None:
    await board.say(PRESS)
    board.centre.clock.go_on(600)
    await board.unplugged(for_s=3)
    await board.say(PRESS)
    assert await board.told() == [("alarm.raised", 1, True), ("alarm.raised", 1, False)]


async def test_a_repeat_after_a_restart_of_the_gateway_is_a_repeat(board: Board) -> None:
    await board.say(PRESS)
    await board.restart(after_s=600)
    assert await board.say(PRESS) == [b'{"ack": 1}']
    assert len(await board.told()) == 1


async def test_what_was_settled_is_known_after_a_restart_of_the_gateway(board: Board) -> None:
    await board.say(PRESS)
    board.centre.clock.go_on(61)
    await board.say('{"n":2,"ev":"press"}')
    await board.restart(after_s=5)
    await board.say('{"n":2,"ev":"press"}')
    assert await board.told() == [("alarm.raised", 1, True), ("alarm.raised", 2, True)]
    await board.say(PRESS)
    assert (await board.told())[-1] == ("alarm.raised", 1, False)


async def test_what_was_settled_of_the_numbers_before_says_nothing_of_those_after(board: Board) -> None:
    await board.say(PRESS, '{"n":2,"ev":"press"}')
    board.centre.clock.go_on(61)
    await board.say('{"n":3,"ev":"press"}')
    await board.say(PRESS)
    await board.say('{"n":2,"ev":"press"}')
    assert [verified for _, _, verified in await board.told()] == [True, True, True, False, True]
    await board.restart(after_s=5)
    await board.say('{"n":2,"ev":"press"}')
    assert len(await board.told()) == 5


async def test_a_session_is_trusted_for_ever(board: Board) -> None:
    await board.say('{"n":1,"s":"a","ev":"press"}')
    board.centre.clock.go_on(86_400)
    assert await board.say('{"n":1,"s":"a","ev":"press"}') == [b'{"ack": 1, "s": "a"}']
    assert len(await board.told()) == 1


async def test_a_paused_line_settles_nothing(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    await board.say(PRESS)
    monkeypatch.setattr("gateway.collect.streaming.HIGH_WATER", -1)
    board.pause = board.resume = lambda: None  # type: ignore[attr-defined]  # what the reader calls on its line
    board.reader.on_data(b"\n", board.centre.clock.stamp())
    monkeypatch.setattr("gateway.collect.streaming.HIGH_WATER", 4000)
    board.centre.clock.go_on(300)
    board.reader.on_stored()
    assert await board.say(PRESS) == [b'{"ack": 1}']
    assert len(await board.told()) == 1


async def test_a_line_that_is_lost_while_it_was_paused_settles_nothing_before_it_is_back(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    await board.say(PRESS)
    monkeypatch.setattr("gateway.collect.streaming.HIGH_WATER", -1)
    board.pause = board.resume = lambda: None  # type: ignore[attr-defined]  # what the reader calls on its line
    board.reader.on_data(b"\n", board.centre.clock.stamp())
    monkeypatch.setattr("gateway.collect.streaming.HIGH_WATER", 4000)
    board.reader.lost()
    board.reader.on_stored()  # the pause ends, the line is still away
    board.centre.clock.go_on(7200)
    board.reader.reopened()
    assert await board.say(PRESS) == [b'{"ack": 1}']
    assert len(await board.told()) == 1


async def test_a_number_that_meets_a_bug_is_taken_when_it_comes_again(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held for one that is on its way, it would be passed over for ever."""
    submit = board.centre.outbox.submit

    def broken(_write: object) -> bool:
        raise KeyError("a bug")

    monkeypatch.setattr(board.centre.outbox, "submit", broken)
    board.reader.on_data(f"{PRESS}\n".encode(), board.centre.clock.stamp())
    monkeypatch.setattr(board.centre.outbox, "submit", submit)
    assert board.centre.problems == [("GW-RUN-03", "board-1")]
    assert await board.say(PRESS) == [b'{"ack": 1}']
    assert await board.told() == [("alarm.raised", 1, True)]


async def test_a_call_whose_number_cannot_be_stored_is_stored_all_the_same_and_not_acknowledged(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexError("a bug in the numbers")

    monkeypatch.setattr("gateway.outbox.numbers.NumberSet.add", broken)
    assert await board.say(PRESS) == []
    assert await board.told() == [("alarm.raised", 1, True)]
    monkeypatch.undo()
    assert await board.say(PRESS) == [b'{"ack": 1}']


async def test_a_number_that_a_full_queue_refused_is_taken_when_it_comes_again(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = board.centre.outbox.submit
    monkeypatch.setattr(board.centre.outbox, "submit", lambda _write: False)
    board.reader.on_data(b'{"n":1,"t":1}\n', board.centre.clock.stamp())
    monkeypatch.setattr(board.centre.outbox, "submit", submit)
    assert await board.say('{"n":1,"t":1}') == [b'{"ack": 1}']
    assert await board.told() == [("telemetry.environment", 1, True)]


async def test_what_is_remembered_of_a_source_is_bounded(board: Board) -> None:
    numbering = board.reader._numbering
    for n in range(5_000):
        numbering.end(numbering.begin(("board-1", "", n), 7, anew=False), durable=True)
    assert list(numbering._recent["board-1"]) == list(range(904, 5_000))
    assert numbering._waiting == {}


# Digests.


def test_a_digest_stays_what_it_is_over_updates() -> None:
    """It is stored: one that changed would make every repeat after an update a new event."""
    press = Signal(SignalKind.CALL, "press", "1")
    assert digest(Decoded((press,))) == 0x94EA275A
    assert digest(Decoded((press, Reading("temperature", Decimal("20.5"))))) == 0x1ED3D651
    assert digest(Decoded()) == 0x1271CF25


def test_digests_differ_in_everything_that_is_said() -> None:
    said = [
        Signal(SignalKind.CALL, "press", "1"), Signal(SignalKind.FALL, "press", "1"),
        Signal(SignalKind.CALL, "long", "1"), Signal(SignalKind.CALL, "press", "2"),
        Signal(SignalKind.CALL, "press", "1", level=True), Signal(SignalKind.CALL, "press", "1", level=False),
        Reading("temperature", Decimal("20.5")), Reading("temperature", Decimal("20.6")),
        Reading("humidity", Decimal("20.5")), Reading("temperature", Decimal("20.5"), "1"),
    ]  # fmt: skip
    assert len({digest(Decoded((one,))) for one in said}) == len(said)
    assert digest(Decoded((said[0], said[6]))) != digest(Decoded((said[6], said[0])))

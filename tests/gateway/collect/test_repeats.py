"""What a message without counter and number repeats, and what only looks like it."""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import Decoded, Reading, Signal, SignalKind
from gateway.collect.repeats import MAX_DEVICES, Repeats

CALL = Decoded((Signal(SignalKind.CALL, "alarm", "301"),))
RESET = Decoded((Signal(SignalKind.CANCEL, "reset", "301"),))
OPEN = Decoded((Signal(SignalKind.OPENING, "key-E", level=True),))


def test_the_same_within_the_time_is_a_repeat_and_extends_it() -> None:
    repeats = Repeats(5.0)
    assert [repeats.is_repeat("bed", CALL, now) for now in (0.0, 4.0, 9.0, 14.1)] == [False, True, True, False]


def test_another_device_or_another_text_is_no_repeat() -> None:
    repeats = Repeats(5.0)
    assert not repeats.is_repeat("bed-1", CALL, 0.0)
    assert not repeats.is_repeat("bed-2", CALL, 0.1)
    assert repeats.is_repeat("bed-1", CALL, 0.2)
    assert not repeats.is_repeat("bed-1", Decoded((Signal(SignalKind.CALL, "alarm", "301", detail="WC"),)), 0.3)


def test_a_call_after_a_reset_is_a_call() -> None:
    repeats = Repeats(5.0)
    assert [repeats.is_repeat("bed", one, now) for now, one in enumerate((CALL, RESET, CALL))] == [False, False, False]


def test_a_state_is_left_to_those_who_judge_edges() -> None:
    repeats = Repeats(2.0)
    assert [repeats.is_repeat("door", OPEN, now) for now in (0.0, 0.5, 1.0)] == [False, False, False]


def test_readings_repeat_and_what_says_nothing_does_not() -> None:
    repeats = Repeats(2.0)
    reading = Decoded((Reading("temperature", Decimal(21)),))
    assert [repeats.is_repeat("room", reading, now) for now in (0.0, 1.0)] == [False, True]
    assert [repeats.is_repeat("line", Decoded(), now) for now in (0.0, 1.0)] == [False, False]
    assert [Repeats(0.0).is_repeat("bed", CALL, now) for now in (0.0, 0.0)] == [False, False]


def test_what_could_not_be_stored_is_new_again() -> None:
    repeats = Repeats(5.0)
    repeats.is_repeat("bed", CALL, 0.0)
    repeats.forget("bed")
    assert not repeats.is_repeat("bed", CALL, 1.0)


def test_beyond_the_limit_the_device_heard_longest_ago_gives_way() -> None:
    repeats = Repeats(5.0)
    for n in range(MAX_DEVICES + 1):
        repeats.is_repeat(f"bed-{n}", CALL, 0.0)
    assert repeats.is_repeat("bed-1", CALL, 1.0)
    assert not repeats.is_repeat("bed-0", CALL, 1.0)

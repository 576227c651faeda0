"""Numbers of acknowledged inputs: judged like a plain set of numbers would, whatever the order they come in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.outbox.numbers import WINDOW, NumberSet, NumberState, parse_ranges, within


class PlainSet:
    """The same rules over a plain set: slow, and plainly right."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()

    def state(self, n: int) -> NumberState:
        if n in self.numbers:
            return NumberState.DURABLE
        if self.numbers and n <= max(self.numbers) - WINDOW:
            return NumberState.RESTARTED
        return NumberState.NEW

    def add(self, n: int) -> None:
        if self.state(n) is NumberState.RESTARTED:
            self.numbers = set()
        self.numbers.add(n)
        self.numbers = {one for one in self.numbers if one > max(self.numbers) - WINDOW}


# Near each other, around the window, and anywhere: 64-bit counters and beyond.
NUMBERS = st.one_of(
    st.integers(0, 40),
    st.integers(WINDOW - 20, WINDOW + 20),
    st.integers(2 * WINDOW - 20, 2 * WINDOW + 20),
    st.integers(0, 1 << 70),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(NUMBERS, max_size=60), st.lists(NUMBERS, max_size=20))
def test_a_number_set_judges_as_a_plain_set_does(added: list[int], asked: list[int]) -> None:
    numbers, plain = NumberSet(), PlainSet()
    for n in added:
        assert numbers.state(n) is plain.state(n)
        numbers.add(n)
        plain.add(n)
        assert n in numbers
    for n in [*asked, *added]:
        assert numbers.state(n) is plain.state(n)
        assert (n in numbers) == (n in plain.numbers)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(NUMBERS, max_size=60))
def test_ranges_stay_ascending_apart_and_within_the_window(added: list[int]) -> None:
    numbers = NumberSet()
    for n in added:
        numbers.add(n)
    for (_, last), (first, _) in zip(numbers.ranges, numbers.ranges[1:], strict=False):
        assert first > last + 1
    assert all(first <= last for first, last in numbers.ranges)
    if numbers.ranges:
        assert numbers.ranges[-1][1] - numbers.ranges[0][0] < WINDOW
    assert NumberSet.parse(numbers.text()).ranges == numbers.ranges


def test_a_number_between_two_durable_ones_is_new() -> None:
    numbers = NumberSet([(1, 5), (7, 9)])
    assert numbers.state(6) is NumberState.NEW
    numbers.add(6)
    assert numbers.ranges == [(1, 9)]


def test_a_number_far_below_is_a_counter_that_began_again() -> None:
    numbers = NumberSet([(5000, 9000)])
    assert numbers.state(9000 - WINDOW) is NumberState.RESTARTED
    assert numbers.state(9000 - WINDOW + 1) is NumberState.NEW
    numbers.add(1)
    assert numbers.ranges == [(1, 1)]
    assert numbers.state(8999) is NumberState.NEW


def test_a_copy_does_not_change_with_its_original() -> None:
    numbers = NumberSet([(1, 3)])
    copy = numbers.copy()
    numbers.add(4)
    assert copy.ranges == [(1, 3)]


def test_ranges_are_written_as_json() -> None:
    numbers = NumberSet()
    for n in (3, 1, 2, 9):
        numbers.add(n)
    assert numbers.text() == "[[1,3],[9,9]]"


@pytest.mark.parametrize("n", [10, 15, 20, 30])
def test_within_finds_the_ends_of_ranges(n: int) -> None:
    assert within([(10, 20), (30, 30)], n)


@pytest.mark.parametrize("n", [9, 21, 29, 31])
def test_within_excludes_what_lies_between_ranges(n: int) -> None:
    assert not within([(10, 20), (30, 30)], n)


@pytest.mark.parametrize("text", ["", "[[1]]", "{}x", "[[1, 2, 3]]", '[["a", 2]]', "[1]", "[[1.5, 2]]"])
def test_ranges_that_make_no_sense_are_named(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        parse_ranges(text)

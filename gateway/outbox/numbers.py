"""Which numbered inputs of a source are durable, as ranges.

A source resends what was not acknowledged, in any order around a garbled line, so a high-water mark alone would call a
missing number a repeat and lose it. Limits: a source keeps at most `WINDOW` numbers unacknowledged; so a number `WINDOW`
or more below the highest is a counter that began again (a source that forgot), and is taken as new. At most `WINDOW` / 2
ranges are held. A source that forgets its counter more often must send a session beside the number.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from enum import Enum
from typing import Final

WINDOW: Final = 4096


class NumberState(Enum):
    """What is known of one number."""

    NEW = "new"
    DURABLE = "durable"
    RESTARTED = "restarted"


class NumberSet:
    """Durable numbers of one (device, session): disjoint inclusive ranges, ascending."""

    __slots__ = ("ranges",)

    def __init__(self, ranges: list[tuple[int, int]] | None = None) -> None:
        self.ranges = ranges or []

    @classmethod
    def parse(cls, text: str) -> NumberSet:
        """Read what `text()` wrote."""
        return cls([(first, last) for first, last in json.loads(text)])

    def text(self) -> str:
        """Return the ranges as JSON [[first, last], ...]."""
        return json.dumps(self.ranges, separators=(",", ":"))

    def copy(self) -> NumberSet:
        """Return an independent copy: a transaction works on it, and it is kept only if the commit succeeds."""
        return NumberSet(self.ranges.copy())

    def __contains__(self, n: int) -> bool:
        """Is the number durable?"""
        at = bisect_right(self.ranges, (n, 1 << 64)) - 1
        return at >= 0 and self.ranges[at][1] >= n

    def state(self, n: int) -> NumberState:
        """Judge a number that came."""
        if not self.ranges or n > self.ranges[-1][1]:
            return NumberState.NEW
        if n in self:
            return NumberState.DURABLE
        return NumberState.RESTARTED if n <= self.ranges[-1][1] - WINDOW else NumberState.NEW

    def add(self, n: int) -> None:
        """Make a number durable."""
        state = self.state(n)
        if state is NumberState.DURABLE:
            return
        if state is NumberState.RESTARTED:
            self.ranges = [(n, n)]
            return
        at = bisect_right(self.ranges, (n, n))
        first, last = n, n
        if at < len(self.ranges) and self.ranges[at][0] == n + 1:
            last = self.ranges.pop(at)[1]
        if at and self.ranges[at - 1][1] == n - 1:
            at -= 1
            first = self.ranges.pop(at)[0]
        self.ranges.insert(at, (first, last))
        horizon = self.ranges[-1][1] - WINDOW
        while self.ranges[0][1] <= horizon:
            del self.ranges[0]
        if self.ranges[0][0] <= horizon:
            self.ranges[0] = (horizon + 1, self.ranges[0][1])


def fold(numbers: set[int]) -> list[tuple[int, int]]:
    """Fold a set of integers into inclusive ranges, ascending."""
    folded: list[tuple[int, int]] = []
    for n in sorted(numbers):
        if folded and folded[-1][1] == n - 1:
            folded[-1] = (folded[-1][0], n)
        else:
            folded.append((n, n))
    return folded


def unfold(text: str) -> set[int]:
    """Return the integers in ranges written as JSON."""
    return {n for first, last in json.loads(text) for n in range(first, last + 1)}

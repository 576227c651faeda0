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
from operator import index, itemgetter
from typing import Final

WINDOW: Final = 4096

Ranges = list[tuple[int, int]]
"""Inclusive, disjoint, ascending."""


class NumberState(Enum):
    """What is known of one number."""

    NEW = "new"
    DURABLE = "durable"
    RESTARTED = "restarted"


def within(ranges: Ranges, n: int) -> bool:
    """Is the number in one of the ranges?"""
    at = bisect_right(ranges, n, key=itemgetter(0)) - 1
    return at >= 0 and ranges[at][1] >= n


def parse_ranges(text: str) -> Ranges:
    """Read ranges from JSON [[first, last], ...]. Raises ValueError or TypeError."""
    return [(index(first), index(last)) for first, last in json.loads(text)]


class NumberSet:
    """Durable numbers of one (device, session): disjoint inclusive ranges, ascending."""

    __slots__ = ("ranges",)

    def __init__(self, ranges: Ranges | None = None) -> None:
        self.ranges = ranges or []

    @classmethod
    def parse(cls, text: str) -> NumberSet:
        """Read what `text()` wrote."""
        return cls(parse_ranges(text))

    def text(self) -> str:
        """Return the ranges as JSON [[first, last], ...]."""
        return json.dumps(self.ranges, separators=(",", ":"))

    def copy(self) -> NumberSet:
        """Return an independent copy: a transaction works on it, and it is kept only if the commit succeeds."""
        return NumberSet(self.ranges.copy())

    def __contains__(self, n: int) -> bool:
        """Is the number durable?"""
        return within(self.ranges, n)

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
        at = bisect_right(self.ranges, n, key=itemgetter(0))
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

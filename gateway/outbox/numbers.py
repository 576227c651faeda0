"""Which numbered inputs of a source are durable, as ranges, and what each of them said, as a digest.

A source resends what was not acknowledged, in any order around a garbled line, so a high-water mark alone would call a
missing number a repeat and lose it. A number that is durable comes again as a repeat, unless it says something else, or
its source has surely received the acknowledgement (`settled`): then the source counts anew, and all that was known of its
numbers is void.

Limits: a source keeps at most `WINDOW` numbers unacknowledged; so a number `WINDOW` or more below the highest is a counter
that began again (a source that forgot), and is taken as new. At most `WINDOW` / 2 ranges are held, and 4 bytes a number:
23 KiB for a (device, session). A digest of 0 is not known and fits everything.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from enum import Enum
from operator import index, itemgetter
from typing import Final

WINDOW: Final = 4096
BLOCK: Final = 64
DIGEST_BYTES: Final = 4
BLOCK_BYTES: Final = BLOCK * DIGEST_BYTES

Ranges = list[tuple[int, int]]
"""Inclusive, disjoint, ascending."""


class NumberState(Enum):
    """What is known of one number."""

    NEW = "new"
    DURABLE = "durable"
    RESTARTED = "restarted"
    REUSED = "reused"


def within(ranges: Ranges, n: int) -> bool:
    """Is the number in one of the ranges?"""
    at = bisect_right(ranges, n, key=itemgetter(0)) - 1
    return at >= 0 and ranges[at][1] >= n


def parse_ranges(text: str) -> Ranges:
    """Read ranges from JSON [[first, last], ...]. Raises ValueError or TypeError."""
    return [(index(first), index(last)) for first, last in json.loads(text)]


class NumberSet:
    """Durable numbers of one (device, session): disjoint inclusive ranges, ascending; `changed` blocks since the copy."""

    __slots__ = ("_digests", "_own", "changed", "ranges", "settled")

    def __init__(
        self, ranges: Ranges | None = None, *, settled: int = -1, digests: Mapping[int, bytes | bytearray] | None = None
    ) -> None:
        self.ranges = ranges or []
        self.settled = settled
        self.changed: set[int] = set()
        # Copies share the blocks; those in `_own` may be changed in place.
        self._own: set[int] = set()
        self._digests: dict[int, bytes | bytearray] = {
            block: data for block, data in (digests or {}).items() if len(data) == BLOCK_BYTES
        }

    @classmethod
    def parse(cls, text: str, *, settled: int = -1, digests: Mapping[int, bytes] | None = None) -> NumberSet:
        """Read what `text()` wrote."""
        return cls(parse_ranges(text), settled=settled, digests=digests)

    def text(self) -> str:
        """Return the ranges as JSON [[first, last], ...]."""
        return json.dumps(self.ranges, separators=(",", ":"))

    def block(self, block: int) -> bytes:
        """Return the digests of one block."""
        return bytes(self._digests[block])

    def blocks(self) -> list[tuple[int, bytes]]:
        """Return the digests of every block that is known."""
        return [(block, bytes(data)) for block, data in self._digests.items()]

    def copy(self) -> NumberSet:
        """Return an independent copy: a transaction works on it, and it is kept only if the commit succeeds."""
        self._own.clear()
        return NumberSet(self.ranges.copy(), settled=self.settled, digests=self._digests)

    def __contains__(self, n: int) -> bool:
        """Is the number durable?"""
        return within(self.ranges, n)

    def state(self, n: int, digest: int = 0) -> NumberState:
        """Judge a number that came, and what it says."""
        if not self.ranges or n > self.ranges[-1][1]:
            return NumberState.NEW
        if n in self:
            known = self._digest(n)
            return NumberState.REUSED if known and digest and known != digest else NumberState.DURABLE
        return NumberState.RESTARTED if n <= self.ranges[-1][1] - WINDOW else NumberState.NEW

    def add(self, n: int, digest: int = 0, *, settled: int = -1, anew: bool = False) -> None:
        """Make a number durable. `settled` and `anew` as the source's reader knows them: it knows more than was stored."""
        if self.ranges and n == self.ranges[-1][1] + 1:  # nearly all there is: the next one
            self._extend(n)
            self.settled = max(self.settled, settled)
            self._put_digest(n, digest)
            return
        state = self.state(n, digest)
        if state is NumberState.DURABLE and n > self.settled and not anew:
            return
        if state is not NumberState.NEW:  # the source counts anew
            self.ranges, self.settled = [(n, n)], -1
        else:
            self._insert(n)
            self.settled = max(self.settled, settled)
        self._put_digest(n, digest)

    def _insert(self, n: int) -> None:
        at = bisect_right(self.ranges, n, key=itemgetter(0))
        first, last = n, n
        if at < len(self.ranges) and self.ranges[at][0] == n + 1:
            last = self.ranges.pop(at)[1]
        if at and self.ranges[at - 1][1] == n - 1:
            at -= 1
            first = self.ranges.pop(at)[0]
        self.ranges.insert(at, (first, last))
        self._forget()

    def _extend(self, n: int) -> None:
        self.ranges[-1] = (self.ranges[-1][0], n)
        self._forget()

    def _forget(self) -> None:
        horizon = self.ranges[-1][1] - WINDOW
        while self.ranges[0][1] <= horizon:
            del self.ranges[0]
        if self.ranges[0][0] <= horizon:
            self.ranges[0] = (horizon + 1, self.ranges[0][1])

    def _digest(self, n: int) -> int:
        """Return what is known of a durable number. All of them lie within `WINDOW`, so each has a place of its own."""
        block, place = divmod(n % WINDOW, BLOCK)
        data = self._digests.get(block)
        return 0 if data is None else int.from_bytes(data[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES], "little")

    def _put_digest(self, n: int, digest: int) -> None:
        block, place = divmod(n % WINDOW, BLOCK)
        data = self._digests.get(block)
        if block not in self._own or not isinstance(data, bytearray):
            data = self._digests[block] = bytearray(data or BLOCK_BYTES)
            self._own.add(block)
            self.changed.add(block)
        data[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES] = digest.to_bytes(DIGEST_BYTES, "little")

"""One lane on its way to one destination: read ahead, kept in order for each device, confirmed in any order.

Pure: no IO, no clock. A device that is busy (a message of it is on the wire, or the platform asked to wait) keeps its
later rows back; other devices go on. Limits: at most `READ_AHEAD` rows beyond the cursor are held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from gateway.events import Lane, Stored

READ_AHEAD: Final = 2_000
REFILL_BELOW: Final = 300
ENVELOPE_BYTES: Final = 320  # what is added to a stored body at send time, at most


class LaneQueue:
    """Rows of one lane. `cursor` is the last sequence up to which everything is confirmed, `ahead` what is beyond."""

    def __init__(self, lane: Lane, destination: str, *, cursor: int, ahead: set[int]) -> None:
        self.lane = lane
        self.destination = destination
        self.cursor = cursor
        self.ahead = ahead
        self.loaded_to = cursor
        self._order: deque[int] = deque()
        self._ready: deque[Stored] = deque()
        self._blocked: dict[str, deque[Stored]] = {}

    @property
    def room(self) -> int:
        """How many rows may still be loaded."""
        return READ_AHEAD - len(self._order)

    @property
    def wants_more(self) -> bool:
        """Is it time to read on, before the last loaded row is sent?"""
        return len(self._ready) < REFILL_BELOW and self.room > 0

    @property
    def is_dry(self) -> bool:
        """Nothing loaded waits to be sent (rows of busy devices aside)."""
        return not self._ready

    def load(self, rows: Iterable[Stored]) -> None:
        """Take rows in order, as they follow `loaded_to`."""
        for row in rows:
            self.loaded_to = row.seq
            self._order.append(row.seq)
            if row.seq in self.ahead:
                continue
            if self.destination in row.route:
                self._ready.append(row)
            else:
                self.ahead.add(row.seq)
        self._advance()

    def take(self, busy: Callable[[str], bool], *, count: int, size: int) -> list[Stored]:
        """Take up to `count` rows that make at most `size` bytes on the wire (one always fits), oldest first.

        Several rows of one device may be in one message, in order; rows of a busy device are set aside.
        """
        taken: list[Stored] = []
        length = 0
        while self._ready and len(taken) < count:
            row = self._ready[0]
            if row.seq <= self.cursor or row.seq in self.ahead:  # confirmed late, while it waited for a second try
                self._ready.popleft()
                continue
            if row.device in self._blocked or busy(row.device):
                self._blocked.setdefault(row.device, deque()).append(self._ready.popleft())
                continue
            bytes_ = ENVELOPE_BYTES + (len(row.body) if row.body.isascii() else len(row.body.encode()))
            if taken and length + bytes_ > size:
                break
            length += bytes_
            taken.append(self._ready.popleft())
        return taken

    def put_back(self, rows: Iterable[Stored]) -> None:
        """Take back rows of a device that is about to be released, before everything else of it."""
        for row in sorted(rows, key=lambda one: one.seq, reverse=True):
            self._blocked.setdefault(row.device, deque()).appendleft(row)

    def release(self, device: str) -> None:
        """Let a device go on: what was set aside comes first."""
        rows = self._blocked.pop(device, None)
        if rows:
            self._ready.extendleft(reversed(rows))

    def done(self, seq: int) -> bool:
        """Note one confirmed row; False if it was known."""
        if seq <= self.cursor or seq in self.ahead:
            return False
        self.ahead.add(seq)
        self._advance()
        return True

    def reset(self) -> None:
        """Forget what was loaded: the connection is gone, and everything not confirmed is read again."""
        self._order.clear()
        self._ready.clear()
        self._blocked.clear()
        self.loaded_to = self.cursor

    def _advance(self) -> None:
        while self._order and self._order[0] in self.ahead:
            self.cursor = self._order.popleft()
            self.ahead.discard(self.cursor)

"""One lane on its way to one destination: read ahead, kept in order for each device, confirmed in any order.

Pure: no IO, no clock. A device that is busy (a message of it is on the wire, or the platform asked to wait) keeps its
later rows back; other devices go on, however long it lasts: the rows of a parked device (asked to wait) that do not fit
are skipped, and read again once it may go on. What is confirmed behind them costs nothing, however much it is: only the rows
that are not are remembered. Limits: at most `READ_AHEAD` rows are held, of parked devices no more come when `SET_ASIDE` are;
when `BEYOND` rows are unconfirmed nothing is read on, so that others stop only behind as many rows of parked devices (and a
reading more).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from gateway.deliver.by_device import ByDevice
from gateway.events import Lane, Stored
from gateway.outbox.numbers import Ranges, within

READ_AHEAD: Final = 2_000
REFILL_BELOW: Final = 300
SET_ASIDE: Final = 1_000
BEYOND: Final = 20_000


class LaneQueue:
    """Rows of one lane. `cursor` is the last sequence up to which everything is confirmed, `ahead()` what is beyond."""

    def __init__(self, lane: Lane, destination: str, *, cursor: int, ahead: Ranges) -> None:
        self.lane = lane
        self.destination = destination
        self.cursor = cursor
        self.loaded_to = cursor
        self._known = ahead  # confirmed before these rows were loaded
        self._ordered_to = cursor
        self._open: dict[int, int] = {}  # each unconfirmed row, in order, and the last row of the lane before it
        self._oldest: deque[int] = deque()  # the same rows, and some that are confirmed meanwhile
        self._held: set[int] = set()
        self._waiting = ByDevice()
        self._parked: set[str] = set()
        self._skipped: dict[str, int] = {}

    @property
    def room(self) -> int:
        """How many rows may still be loaded."""
        room = READ_AHEAD - len(self._held)
        return room if self.loaded_to < self._ordered_to else min(room, BEYOND - len(self._open))

    @property
    def read_to(self) -> int:
        """Up to where rows were read at all: beyond it nothing is on its way."""
        return max(self.loaded_to, self._ordered_to)

    @property
    def wants_more(self) -> bool:
        """Is it time to read on, before the last loaded row is sent?"""
        return self._waiting.ready < REFILL_BELOW and self.room > 0

    @property
    def is_dry(self) -> bool:
        """Nothing loaded waits to be sent (rows of busy devices aside)."""
        return not self._waiting.ready

    def ahead(self) -> Ranges:
        """Return what is confirmed beyond the cursor, as ranges; each stands for every row of this lane inside it."""
        ranges: Ranges = []
        opened = 0
        for seq, before in self._open.items():
            if opened and before > opened:
                ranges.append((opened + 1, before))
            opened = seq
        if opened and self._ordered_to > opened:
            ranges.append((opened + 1, self._ordered_to))
        beyond = self._ordered_to + 1
        return ranges + [(max(first, beyond), last) for first, last in self._known if last >= beyond]

    def load(self, rows: Iterable[Stored]) -> None:
        """Take rows in order, as they follow `loaded_to`."""
        began, ordered_to, seen = self.loaded_to, self._ordered_to, set()
        for row in rows:
            self.loaded_to = row.seq
            seen.add(row.seq)
            if row.seq > self._ordered_to:
                if self.destination in row.route and not within(self._known, row.seq):
                    self._open[row.seq] = self._ordered_to
                    self._oldest.append(row.seq)
                self._ordered_to = row.seq
            if row.seq not in self._open or row.seq in self._held:
                continue
            if row.device in self._skipped or (row.device in self._parked and len(self._held) >= SET_ASIDE):
                self._skipped.setdefault(row.device, row.seq)
                continue
            self._held.add(row.seq)
            self._waiting.append(row)
        if began < ordered_to:
            self._give_up(began, self.loaded_to, seen)
        self._leap()
        self._advance()

    def exhausted(self, last: int) -> None:
        """There is nothing between `loaded_to` and `last` any more."""
        self._give_up(self.loaded_to, last, set())
        self.loaded_to = max(self.loaded_to, last)
        self._advance()

    def pass_by(self, last: int) -> None:
        """There is nothing for this destination between `loaded_to`, up to where everything was read, and `last`."""
        self.loaded_to = self._ordered_to = last
        self._advance()

    def _give_up(self, began: int, ended: int, seen: set[int]) -> None:
        """Rows that were skipped and are not there when they are read again gave way to the quota: wait no longer."""
        gone = [one for one in self._open if began < one <= ended and one not in seen and one not in self._held]
        for seq in gone:
            del self._open[seq]

    def _leap(self) -> None:
        """Pass over what need not be read: it was confirmed before, or what was skipped stands behind it."""
        if self.loaded_to < self._ordered_to:
            wanted = (seq for seq in self._open if seq > self.loaded_to and seq not in self._held)
            first = next(wanted, None)
            self.loaded_to = max(self.loaded_to, self._ordered_to if first is None else self._open[first])
        if self.loaded_to >= self._ordered_to:
            for first, last in self._known:
                if first <= self.loaded_to + 1 <= last:
                    self.loaded_to = self._ordered_to = last

    def take(
        self, busy: Callable[[str], bool], *, count: int, size: int, parts: int = 1,
        most: Callable[[Stored], int] = lambda _row: READ_AHEAD,
    ) -> list[Stored]:  # fmt: skip
        """Take up to `count` rows that make at most `size` bytes on the wire (one always fits), oldest first.

        Several rows of one device may be in one message, in order; rows of a busy device are set aside. `parts`: how many
        such messages are to be under way at once. A message with a row has at most as many rows as `most` says of that row.
        """
        return self._waiting.take(busy, count=count, size=size, parts=parts, passed=self._has_passed, most=most)

    def _has_passed(self, row: Stored) -> bool:
        """Was it confirmed late, while it waited for a second try?"""
        return row.seq not in self._open

    def put_back(self, rows: Iterable[Stored]) -> None:
        """Take back rows of a device that is about to be released, before everything else of it."""
        self._waiting.put_back(rows)

    def park(self, device: str) -> None:
        """The device will be busy for long: until it is released its rows need not be in memory.

        Those that came when it was tried again must not take the room of all others.
        """
        self._parked.add(device)
        if len(self._held) > SET_ASIDE:
            dropped = [row.seq for row in self._waiting.drop(device)]
            if dropped:
                self._held.difference_update(dropped)
                self._skipped[device] = min(dropped[0], self._skipped.get(device, dropped[0]))

    def release(self, device: str) -> None:
        """Let a device go on: what was set aside comes first, what was skipped is read again."""
        self._parked.discard(device)
        self._waiting.release(device)
        skipped = self._skipped.pop(device, None)
        if skipped is not None:
            self.loaded_to = min(self.loaded_to, skipped - 1)
            self._leap()

    def done(self, seq: int) -> bool:
        """Note one confirmed row; False if it was known."""
        if seq not in self._held:
            return False
        self._held.discard(seq)
        self._open.pop(seq, None)
        self._advance()
        return True

    def reset(self) -> None:
        """Forget what was loaded: the connection is gone, and everything not confirmed is read again."""
        self._known = self.ahead()
        for held in (self._open, self._oldest, self._held, self._waiting, self._parked, self._skipped):
            held.clear()
        self.loaded_to = self._ordered_to = self.cursor

    def _advance(self) -> None:
        oldest = self._oldest
        while oldest and oldest[0] not in self._open:
            oldest.popleft()
        self.cursor = self._open[oldest[0]] if oldest else self._ordered_to
        if len(oldest) > 2 * len(self._open) + READ_AHEAD:
            self._oldest = deque(self._open)

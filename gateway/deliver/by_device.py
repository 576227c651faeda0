"""The rows of a lane that wait to be sent, by device: the oldest first, each device's own in order.

Of one device one message is on the wire, so a message that held a row of every device would keep every device busy, and
the next could not be filled before it is answered: the line would stand still for a round trip, again and again. So where
more waits than a message can hold, it takes rows of a part of the devices only (of more where those have too few), and the
next messages find the others free. A device that is busy is set aside until it is released.
Pure: no IO, no clock. A message costs some steps for each device that it takes, and a row the logarithm of their number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from gateway.clock import SYNCED
from gateway.events import Stored

ENVELOPE_BYTES: Final = 320  # what is added to a stored body at send time, at most
UNSET_CLOCK_BYTES: Final = 120  # and what is said of a clock that was not synchronised


class ByDevice:
    """Rows that wait. `ready` are those of devices that were not busy when last looked at."""

    def __init__(self) -> None:
        self._rows: dict[str, deque[Stored]] = {}
        self._aside: set[str] = set()
        self._heads: list[tuple[int, str]] = []  # a heap; an entry counts while it tells a free device's oldest row
        self._total = 0
        self.ready = 0

    def __iter__(self) -> Iterator[Stored]:
        """Go through all rows, device by device."""
        for rows in self._rows.values():
            yield from rows

    def clear(self) -> None:
        """Forget all rows."""
        self._rows.clear()
        self._aside.clear()
        self._heads.clear()
        self._total = self.ready = 0

    def append(self, row: Stored) -> None:
        """Add a row behind all others of its device."""
        rows = self._rows.get(row.device)
        if rows is None:
            rows = self._rows[row.device] = deque()
            heappush(self._heads, (row.seq, row.device))
        rows.append(row)
        self._total += 1
        self.ready += row.device not in self._aside

    def put_back(self, rows: Iterable[Stored]) -> None:
        """Add rows before all others of their devices, which are set aside until they are released."""
        for row in sorted(rows, key=lambda one: one.seq, reverse=True):
            self._set_aside(row.device)
            self._rows.setdefault(row.device, deque()).appendleft(row)
            self._total += 1

    def drop(self, device: str) -> list[Stored]:
        """Let go of the rows of a device; return them in order."""
        rows = list(self._rows.pop(device, ()))
        self._total -= len(rows)
        self.ready -= 0 if device in self._aside else len(rows)
        return rows

    def release(self, device: str) -> None:
        """A device is busy no longer."""
        if device not in self._aside:
            return
        self._aside.discard(device)
        rows = self._rows.get(device)
        if rows:
            self.ready += len(rows)
            heappush(self._heads, (rows[0].seq, device))

    def take(
        self, busy: Callable[[str], bool], *, count: int, size: int, parts: int, passed: Callable[[Stored], bool],
        most: Callable[[Stored], int],
    ) -> list[Stored]:  # fmt: skip
        """Take up to `count` rows that make at most `size` bytes on the wire; one always fits.

        Where more rows wait they are of one of `parts` equal parts of the devices, or of more where those have too few.
        Rows that have `passed` are left out. A message with a row has at most as many rows as `most` says of that row.
        Nothing is taken only where nothing may go.
        """
        while True:
            before = self._total
            taken = self._taken(busy, count=count, size=size, parts=parts, passed=passed, most=most)
            if taken or self._total == before:
                return taken

    def _taken(
        self, busy: Callable[[str], bool], *, count: int, size: int, parts: int, passed: Callable[[Stored], bool],
        most: Callable[[Stored], int],
    ) -> list[Stored]:  # fmt: skip
        heads = self._chosen(busy, count, parts)
        taken: list[Stored] = []
        length = 0
        while heads and len(taken) < count:
            device = heads[0][1]
            rows = self._rows[device]
            row = rows[0]
            if not passed(row):
                bytes_ = _bytes_of(row)
                allowed = most(row)
                if taken and (length + bytes_ > size or len(taken) >= allowed):
                    break
                length += bytes_
                count = min(count, allowed)
                taken.append(row)
            rows.popleft()
            self._total -= 1
            self.ready -= 1
            if rows:
                heapreplace(heads, (rows[0].seq, device))
            else:
                heappop(heads)
                del self._rows[device]
        for head in heads:
            heappush(self._heads, head)
        return taken

    def _chosen(self, busy: Callable[[str], bool], count: int, parts: int) -> list[tuple[int, str]]:
        """Return the devices of the next message as a heap, by their oldest rows."""
        share = min(count, len(self._rows) if self._total <= count else -(-len(self._rows) // parts))
        chosen: list[tuple[int, str]] = []
        names: set[str] = set()
        rows_there = 0
        while self._heads and (len(chosen) < share or rows_there < count):
            seq, device = heappop(self._heads)
            rows = self._rows.get(device)
            if not rows or rows[0].seq != seq or device in self._aside or device in names:
                continue
            if busy(device):
                self._set_aside(device)
                continue
            chosen.append((seq, device))
            names.add(device)
            rows_there += len(rows)
        heapify(chosen)
        return chosen

    def _set_aside(self, device: str) -> None:
        if device not in self._aside:
            self._aside.add(device)
            self.ready -= len(self._rows.get(device, ()))


def _bytes_of(row: Stored) -> int:
    bytes_ = ENVELOPE_BYTES + (len(row.body) if row.body.isascii() else len(row.body.encode()))
    return bytes_ if row.at.clock == SYNCED else bytes_ + UNSET_CLOCK_BYTES

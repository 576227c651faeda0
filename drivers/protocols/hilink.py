"""Reports of Hi-Link's presence radars: a head of four bytes, content, a tail, and nothing that proves more than these.

    H H H H  [LL]  ...  T..      LL, little-endian, is how many bytes stand between it and the tail; LD2450 has none, and one size

Where the length stands in a report, another head within it says that this one was cut: the search goes on there.
Limit: what `Report.limit` says, of a whole report. Answers to commands (FD FC FB FA) are another head, and are not looked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from drivers.kit import Reason, Rejected
from drivers.kit.framing import LengthFramer

_LENGTH_BYTES = 2


@dataclass(frozen=True, slots=True)
class Report:
    """One kind of report. `limit`: of a whole one; `has_length`: its length stands behind its head, else it is always `limit`."""

    head: bytes
    tail: bytes
    limit: int
    has_length: bool = True

    def framer(self) -> LengthFramer:
        """Return a framer for the radar's line."""
        return LengthFramer(self.inspect, start=self.head[0], limit=self.limit)

    def inspect(self, data: bytes, start: int) -> int | Reason | None:
        """Say what stands at the first byte of a head, for LengthFramer."""
        head = data[start : start + len(self.head)]
        if head != self.head[: len(head)]:
            return Reason.NOT_MINE
        at = start + len(self.head)
        size = self.limit
        if self.has_length:
            if len(data) < at + _LENGTH_BYTES:
                return None
            size = int.from_bytes(data[at : at + _LENGTH_BYTES], "little") + self._overhead
            if size > self.limit:
                return Reason.TOO_LONG
            if data.find(self.head, start + 1, start + size) >= 0:
                return Reason.BAD_CHECK
        if len(data) - start < size:
            return None
        return size if data[start + size - len(self.tail) : start + size] == self.tail else Reason.BAD_CHECK

    def content(self, frame: bytes) -> bytes:
        """Return what stands between head and tail of one whole report. Raises Rejected."""
        if frame[:1] != self.head[:1] or self.inspect(frame, 0) != len(frame):
            raise Rejected(Reason.BAD_CHECK, "no whole report")
        return frame[self._overhead - len(self.tail) : -len(self.tail)]

    @property
    def _overhead(self) -> int:
        return len(self.head) + len(self.tail) + (_LENGTH_BYTES if self.has_length else 0)

"""Framers: they cut a byte stream into frames, whatever the line does to it.

Both hold at most `limit` bytes between two calls and do work in proportion to what they are fed, so that a line full of
garbage costs no more than a line full of frames. Every byte fed is in a returned frame, counted in `skipped`, or held:
nothing disappears. Frames are returned as they stood on the wire, with their delimiters and check bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from drivers.kit.observations import Reason

Inspect = Callable[[bytes, int], int | Reason | None]
"""What stands at a start byte: a frame of n bytes, not a frame (and why), or None: more bytes are needed to say.

It must answer from the first bytes wherever it can: what it costs is paid for each start byte in garbage. NOT_MINE says
that the byte only looked like a start; any other reason is counted as a refused frame.
"""


class LineFramer:
    r"""Cuts at a delimiter of one byte. A line longer than `limit`, delimiter included, is skipped up to its delimiter.

    Blank lines are skipped. A returned line ends with its delimiter (and with whatever stood before it, such as "\r").
    """

    def __init__(self, *, limit: int = 4096, delimiter: bytes = b"\n") -> None:
        if len(delimiter) != 1 or limit < 1:
            raise ValueError("a delimiter of one byte and a limit of at least one byte")
        self.limit = limit
        self.skipped = 0
        self.rejects: dict[Reason, int] = {}
        self._delimiter = delimiter
        self._held = b""
        self._discarding = False

    @property
    def held(self) -> int:
        """How many bytes wait for their delimiter."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in any cut, return the lines that they complete."""
        *lines, rest = (self._held + data).split(self._delimiter)
        frames: list[bytes] = []
        for line in lines:
            size = len(line) + 1
            if self._discarding:
                self._discarding = False
                self.skipped += size
            elif size > self.limit:
                self._refuse(size)
            elif line.strip():
                frames.append(line + self._delimiter)
            else:
                self.skipped += size
        # One byte of the limit belongs to the delimiter that is still to come.
        if self._discarding:
            self.skipped += len(rest)
            rest = b""
        elif len(rest) >= self.limit:
            self._refuse(len(rest))
            self._discarding = True
            rest = b""
        self._held = rest
        return frames

    def reset(self) -> None:
        """Forget a half line."""
        self.skipped += len(self._held)
        self._held = b""
        self._discarding = False

    def _refuse(self, size: int) -> None:
        self.skipped += size
        self.rejects[Reason.TOO_LONG] = self.rejects.get(Reason.TOO_LONG, 0) + 1


class LengthFramer:
    """Cuts frames that start with a known byte, or one of several, and tell their own length.

    Where `inspect` refuses a start, the search goes on at the very next byte: a frame that begins inside a broken one
    is found. A frame longer than `limit` is refused as TOO_LONG.
    """

    def __init__(self, inspect: Inspect, *, start: int | bytes, limit: int) -> None:
        starts = start if isinstance(start, bytes) else bytes([start])
        if not starts or limit < 1:
            raise ValueError("a start byte and a limit of at least one byte")
        self.limit = limit
        self.skipped = 0
        self.rejects: dict[Reason, int] = {}
        self._inspect = inspect
        self._find = _finder(starts)
        self._held = b""

    @property
    def held(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in any cut, return the whole frames that they complete."""
        buffer = self._held + data
        frames: list[bytes] = []
        at = 0
        while (start := self._find(buffer, at)) >= 0:
            self.skipped += start - at
            at = start
            look = self._inspect(buffer, start)
            if look is None:
                if len(buffer) - start <= self.limit:
                    break
                look = Reason.TOO_LONG
            if isinstance(look, int):
                if 1 <= look <= self.limit:
                    at = start + look
                    frames.append(buffer[start:at])
                    continue
                look = Reason.TOO_LONG
            if look is not Reason.NOT_MINE:
                self.rejects[look] = self.rejects.get(look, 0) + 1
            self.skipped += 1
            at = start + 1
        else:
            self.skipped += len(buffer) - at
            at = len(buffer)
        self._held = buffer[at:]
        return frames

    def reset(self) -> None:
        """Forget a half frame."""
        self.skipped += len(self._held)
        self._held = b""


@lru_cache(maxsize=64)
def _finder(starts: bytes) -> Callable[[bytes, int], int]:
    """Return what finds the next of some bytes, -1 for none."""
    if len(starts) == 1:
        return lambda data, at: data.find(starts, at)
    search = re.compile(b"[" + re.escape(starts) + b"]").search
    return lambda data, at: -1 if (found := search(data, at)) is None else found.start()


def eager(inspect: Inspect, *, start: int | bytes) -> Inspect:
    """Let a whole frame within a frame that is still waited for end the wait: nothing waits behind a garbled length."""
    find = _finder(start if isinstance(start, bytes) else bytes([start]))

    def look(data: bytes, at: int) -> int | Reason | None:
        found = inspect(data, at)
        while found is None and (at := find(data, at + 1)) >= 0:
            if isinstance(inspect(data, at), int):
                return Reason.NOT_MINE
        return found

    return look

"""Character-oriented lines after ISO 1745, as ESPA 4.4.4 and TAP use them: blocks with a check, and short units between.

    STX ... ETX check           a block: begins with one character, ends with another, then bytes of check
    04 32 05   PG1 <CR>         a unit: whatever stands before the character that ends it

A block with a wrong check is a frame as well, since it has to be answered. What begins or breaks off inside a block makes it
void: the search goes on there. Which characters these are, with and without the parity of seven bits, says the protocol.
Limits: `limit` bytes a block; what is held between two calls is less than that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from drivers.kit import Reason


@dataclass(frozen=True, slots=True)
class Grammar:
    """Where the frames of a protocol begin and end.

    `begins`: the first character of a block, or the last of a unit. `unit(buffer, at, end)` says where the unit begins whose
    last character is `end` - 1, not before `at`; at the end of what has come, from where a unit may still be on its way.
    `is_unit`: whether the character that was found ends a unit. `ends`, by the first character of a block: what ends it or makes
    it void. `closes`: which of these end it, and `check` how many bytes follow. `swallows`: of those that make it void, which
    belong to it. `anew`: what shows, before its end, that the other side has begun again; its last character begins there.
    """

    begins: re.Pattern[bytes]
    unit: Callable[[bytes, int, int], int]
    is_unit: Collection[int]
    ends: Mapping[int, re.Pattern[bytes]]
    closes: Collection[int]
    check: int
    swallows: Collection[int] = ()
    anew: re.Pattern[bytes] | None = None


class BlockFramer:
    """Cuts a line into units and blocks."""

    def __init__(self, grammar: Grammar, *, limit: int) -> None:
        self.limit = limit
        self.skipped = 0
        self.rejects: dict[Reason, int] = {}
        self._grammar = grammar
        self._held = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in any cut, return the whole frames that they complete."""
        buffer, at, grammar = self._held + data, 0, self._grammar
        frames: list[bytes] = []
        while found := grammar.begins.search(buffer, at):
            start = found.start()
            if buffer[start] in grammar.is_unit:
                begin = grammar.unit(buffer, at, start + 1)
                self.skipped += begin - at
                at = start + 1
                frames.append(buffer[begin:at])
                continue
            self.skipped += start - at
            at = start
            end = self._block(buffer, start)
            if end is None:
                break
            if end > 0:
                frames.append(buffer[start:end])
                at = end
            else:
                self.skipped += -end - start
                at = -end
        else:
            begin = grammar.unit(buffer, at, len(buffer) + 1)
            self.skipped += begin - at
            at = begin
        self._held = buffer[at:]
        return frames

    def reset(self) -> None:
        """Forget a half frame."""
        self.skipped += len(self._held)
        self._held = b""

    def _block(self, buffer: bytes, start: int) -> int | None:
        """Say where a block ends; negative: it is void, and the search goes on there; None: more bytes are needed."""
        grammar = self._grammar
        stop = grammar.ends[buffer[start]].search(buffer, start + 1, start + self.limit - grammar.check)
        if grammar.anew is not None:
            anew = grammar.anew.search(buffer, start + 1, len(buffer) if stop is None else stop.start())
            if anew is not None:
                return self._void(Reason.MALFORMED, anew.end() - 1)
        if stop is None:
            return self._void(Reason.TOO_LONG, start + 1) if len(buffer) - start >= self.limit else None
        at = stop.start()
        if buffer[at] not in grammar.closes:
            return self._void(Reason.MALFORMED, at + (buffer[at] in grammar.swallows))
        end = at + 1 + grammar.check
        return end if end <= len(buffer) else None

    def _void(self, reason: Reason, at: int) -> int:
        self.rejects[reason] = self.rejects.get(reason, 0) + 1
        return -at

"""TinyFrame as Andar's 60 GHz radar modules speak it (HLK-LD6002 family, Seeed MR60FDA2 and MR60BHA2).

Frame, a letter a byte; numbers of the head are big-endian, those inside the data little-endian:

    01  IIII  LLLL  TTTT  H  D...  C

    I  id of the message, of no meaning to a listener
    L  length of D
    T  type
    H  check of the seven bytes before it: the complement of their exclusive or
    D  data
    C  check of D, made alike; without data there is none

Nothing is escaped: 01 stands inside heads and data as well, so only both checks together tell a frame, and the search
goes on at the byte after each 01 that was none. A garbled head can promise data that never comes; a whole frame of a
type that is `urgent` inside what came meanwhile ends the wait for it, so that no fall waits behind noise.

This module builds two questions and nothing else: settings, resets (2110) and the start of a firmware update (3000)
cannot be made here.

Limits: 1,024 bytes of data, 1,033 a frame. Sources: limengdu/MR60FDA2_ESPHome_external_components,
jcmendez/mr60fda2-proto, laoyang-kingdom-cum-project/ld6002c-fall-detection.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.checks import xor8
from drivers.kit.framing import LengthFramer

START: Final = 0x01
HEAD: Final = 8
MAX_DATA: Final = 1024
MAX_FRAME: Final = HEAD + MAX_DATA + 1
# Parameters and version: all that is ever asked.
ASKABLE: Final = frozenset({0x0E06, 0xFFFF})
_LENGTH, _TYPE = slice(3, 5), slice(5, 7)


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame."""

    type: int
    data: bytes


def check(data: bytes) -> int:
    """Return the check byte of some bytes: the complement of their exclusive or."""
    return xor8(data) ^ 0xFF


def question(kind: int) -> bytes:
    """Build the frame that asks for a type: a head alone. Raises ValueError for what is no question."""
    if kind not in ASKABLE:
        raise ValueError(f"{kind:04x} is no question")
    head = bytes([START, 0, 0, 0, 0]) + kind.to_bytes(2, "big")
    return head + bytes([check(head)])


def framer(urgent: Collection[int] = ()) -> LengthFramer:
    """Return a framer; a whole frame of an `urgent` type is never waited over."""
    marks = tuple(kind.to_bytes(2, "big") for kind in urgent)

    def inspect(data: bytes, start: int) -> int | Reason | None:
        look = _inspect(data, start)
        if look is None and any(_holds(data, start + 1, mark) for mark in marks):
            return Reason.NOT_MINE
        return look

    return LengthFramer(inspect, start=START, limit=MAX_FRAME)


def parse(frame: bytes) -> Frame:
    """Take one whole frame apart. Raises Rejected."""
    if len(frame) < HEAD:
        raise Rejected(Reason.TOO_SHORT, f"{len(frame)} bytes")
    look = _inspect(frame, 0) if frame[0] == START else Reason.NOT_MINE
    if isinstance(look, Reason):
        raise Rejected(look, "no TinyFrame")
    if look != len(frame):
        raise Rejected(Reason.TOO_SHORT if look is None else Reason.TOO_LONG, f"{len(frame)} bytes")
    return Frame(int.from_bytes(frame[_TYPE], "big"), frame[HEAD:-1])


def _inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at a 01, for LengthFramer."""
    head = data[start : start + HEAD]
    if len(head) >= _LENGTH.stop and int.from_bytes(head[_LENGTH], "big") > MAX_DATA:
        return Reason.NOT_MINE
    if len(head) < HEAD:
        return None
    if check(head[:-1]) != head[-1]:
        return Reason.NOT_MINE  # nearly always a 01 that is no start
    length = int.from_bytes(head[_LENGTH], "big")
    size = HEAD + length + 1 if length else HEAD
    content = data[start + HEAD : start + size]
    if len(content) < size - HEAD:
        return None
    return Reason.BAD_CHECK if length and check(content[:-1]) != content[-1] else size


def _holds(data: bytes, start: int, mark: bytes) -> bool:
    """Is there a whole frame of a type at or after `start`?"""
    at = data.find(mark, start + _TYPE.start)
    while at >= 0:
        begin = at - _TYPE.start
        if data[begin] == START and isinstance(_inspect(data, begin), int):
            return True
        at = data.find(mark, at + 1)
    return False

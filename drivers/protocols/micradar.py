"""The serial frames of Micradar's 60 and 24 GHz modules: DFRobot C1001, Seeed MR60FDA1, MR60BHA1, MR24HPC1, R60ABD1, R60AFD1.

Frame, a letter a byte; the length is big-endian:

    53 59  C  M  LL  D...  S  54 43

    C  control word: which function
    M  command; with its highest bit a question to the module, and the answer to it
    L  length of D
    S  sum of everything before it
    D  data; a question has 0F

Nothing is escaped: 53, 54 and 43 stand inside data as well. The length tells where a frame ends, and the search goes on at
the byte after a 53 that was none. A garbled length may promise data that never come; a whole frame inside what came
meanwhile ends the wait, so that no fall waits behind noise.

This module builds questions and nothing else: no setting, no reset, no update.
Limits: 128 bytes of data, 137 a frame. Sources: DFRobot/DFRobot_HumanDetection, limengdu/Seeed-Studio-MR60FDA1-Sersor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.checks import sum8
from drivers.kit.framing import LengthFramer

MAX_DATA: Final = 128
MAX_FRAME: Final = MAX_DATA + 9
QUESTION: Final = b"\x0f"
ASKED: Final = 0x80
_HEAD, _TAIL = b"\x53\x59", b"\x54\x43"
_OVERHEAD: Final = 9
_DATA: Final = 6


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame. `command` as it stands, with the bit of an answer."""

    control: int
    command: int
    data: bytes


def question(control: int, command: int) -> bytes:
    """Build the frame that asks for what a report's command says. Raises ValueError for what would not be a question."""
    if not 0 <= command < ASKED:
        raise ValueError(f"{command:02x} is no command of a report")
    frame = _HEAD + bytes([control, command | ASKED, 0, 1]) + QUESTION
    return frame + bytes([sum8(frame)]) + _TAIL


def framer() -> LengthFramer:
    """Return a framer; a whole frame is never waited over."""
    return LengthFramer(_inspect, start=_HEAD[0], limit=MAX_FRAME)


def parse(frame: bytes) -> Frame:
    """Take one whole frame apart. Raises Rejected."""
    look = _frame_at(frame, 0) if frame[:1] == _HEAD[:1] else Reason.NOT_MINE
    if isinstance(look, Reason):
        raise Rejected(look, "no 53 59 frame")
    if look != len(frame):
        raise Rejected(Reason.TOO_SHORT if look is None else Reason.TOO_LONG, f"{len(frame)} bytes")
    return Frame(frame[2], frame[3], frame[_DATA:-3])


def _inspect(data: bytes, start: int) -> int | Reason | None:
    look = _frame_at(data, start)
    if look is not None:
        return look
    at = data.find(_HEAD, start + 1)
    while at >= 0:
        if isinstance(_frame_at(data, at), int):
            return Reason.NOT_MINE
        at = data.find(_HEAD, at + 1)
    return None


def _frame_at(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at a 53, for LengthFramer."""
    if data[start + 1 : start + 2] not in (b"", _HEAD[1:]):
        return Reason.NOT_MINE
    if len(data) - start < _DATA:
        return None
    length = int.from_bytes(data[start + 4 : start + 6], "big")
    if length > MAX_DATA:
        return Reason.NOT_MINE
    size = length + _OVERHEAD
    if len(data) - start < size:
        return None
    if data[start + size - 2 : start + size] != _TAIL or sum8(data[start : start + size - 3]) != data[start + size - 3]:
        return Reason.BAD_CHECK
    return size

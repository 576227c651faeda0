"""Modbus RTU, what most DIN-rail meters speak: reading requests out, registers in.

A letter a byte, numbers high byte first, the sum low byte first:

    U F AAAA NNNN SS        asked: unit 1-247, function 03 or 04, first register, how many
    U F L D... SS           answered: L bytes, two a register
    U F+80 E SS             refused: exception E

    S   CRC-16, over all bytes before it

A reply does not say which registers it carries. So a late one is told from the one that is waited for by its length alone:
whoever asks for several blocks asks for blocks of different lengths.

There is no start byte. A frame is found at any byte that can be a unit, by its function, its length and its sum; stray bytes
around it (00 and FF are known from lines without bias) count as skipped.

What can be built are the functions 03 and 04 and nothing else: writing is not known here.

Limits: 125 registers a request (6.3), 255 bytes a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.checks import crc16_modbus
from drivers.kit.framing import LengthFramer, eager

READ_HOLDING: Final = 0x03
READ_INPUT: Final = 0x04
READS: Final = (READ_HOLDING, READ_INPUT)
MAX_UNIT: Final = 247
MAX_REGISTERS: Final = 125
MAX_FRAME: Final = 5 + 2 * MAX_REGISTERS
_REFUSED: Final = 0x80
_UNITS: Final = bytes(range(1, MAX_UNIT + 1))

EXCEPTIONS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledged, still at work",
    6: "device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target did not respond",
}
ILLEGAL_ADDRESS: Final = 2


def read_request(unit: int, function: int, first: int, count: int) -> bytes:
    """Build the request for `count` registers from `first` on. ValueError for anything but a read within bounds."""
    if function not in READS or not 1 <= unit <= MAX_UNIT or not 1 <= count <= MAX_REGISTERS:
        raise ValueError("functions 03 and 04, units 1 to 247, 1 to 125 registers")
    body = bytes([unit, function]) + first.to_bytes(2, "big") + count.to_bytes(2, "big")
    return body + crc16_modbus(body).to_bytes(2, "little")


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole reply. `registers`: two bytes each; `exception`: what the meter refuses with, 0 where it answers."""

    unit: int
    function: int
    registers: bytes
    exception: int = 0

    def refusal(self) -> str:
        """Name the exception."""
        return f"exception {self.exception}: {EXCEPTIONS.get(self.exception, 'unknown')}"


def inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at a byte that can be a unit, for LengthFramer. A request (our echo) is no frame."""
    available = len(data) - start
    if available < 2:
        return None
    function = data[start + 1]
    if function & 0x7F not in READS:
        return Reason.NOT_MINE
    if available < 3:
        return None
    size = 5
    if not function & _REFUSED:
        count = data[start + 2]
        if not count or count & 1 or count > 2 * MAX_REGISTERS:
            return Reason.NOT_MINE
        size += count
    if available < size:
        return None
    # Any bytes may look like a start: only a sum that fits says that they were one.
    return size if crc16_modbus(data[start : start + size]) == 0 else Reason.NOT_MINE


def framer() -> LengthFramer:
    """Return a framer for the replies of any unit."""
    return LengthFramer(eager(inspect, start=_UNITS), start=_UNITS, limit=MAX_FRAME)


def parse(frame: bytes) -> Reply:
    """Take one whole reply apart. Raises Rejected."""
    if len(frame) < 5:
        raise Rejected(Reason.TOO_SHORT, f"{len(frame)} bytes")
    if frame[1] & 0x7F not in READS or len(frame) != (5 if frame[1] & _REFUSED else 5 + frame[2]):
        raise Rejected(Reason.MALFORMED, "no reply to a read")
    if crc16_modbus(frame):
        raise Rejected(Reason.BAD_CHECK, "the sum does not fit")
    if frame[1] & _REFUSED:
        return Reply(frame[0], frame[1] & ~_REFUSED, b"", frame[2])
    if not frame[2] or frame[2] & 1:
        raise Rejected(Reason.MALFORMED, f"{frame[2]} bytes of registers")
    return Reply(frame[0], frame[1], frame[3:-2])


def sender(frame: bytes) -> str:
    """Return the unit that a whole reply is from; "" where it is none. What meter that is a reply does not say."""
    try:
        return str(parse(frame).unit)
    except Rejected:
        return ""


def answers(frame: bytes, *, unit: int, function: int, count: int) -> bool:
    """Say whether a whole frame is the reply to a read: of this unit, to this function, of this many registers."""
    try:
        reply = parse(frame)
    except Rejected:
        return False
    if (reply.unit, reply.function) != (unit, function):
        return False
    return bool(reply.exception) or len(reply.registers) == 2 * count


@dataclass(frozen=True, slots=True)
class Block:
    """Registers that are read with one request. `optional`: a meter that has none of them is read without."""

    function: int
    first: int
    count: int
    optional: bool = False


def different_lengths(blocks: Sequence[Block]) -> bool:
    """Say whether no two blocks have one length: see the module's docstring."""
    return len({block.count for block in blocks}) == len(blocks)

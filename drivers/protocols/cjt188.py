"""CJ/T 188, the protocol of Chinese water, heat and gas meters: read requests out, replies in.

Frame (5.2), a letter a byte; nothing is added to the data bytes:

    FE FE FE  68 T AAAAAAAAAAAAAA C L II N D... S 16

    FE  wakes the line; a reply may carry any number of them, or none, and a concentrator its own text before them
    T   what is metered: 10-19 water, 20-29 heat, 30-39 gas, 40-49 others; AA is any
    A   address, 14 digits, low byte first; the last two bytes are the maker; byte AA stands for any value
    C   control: bit 7 from the meter, bit 6 refused, bits 0-5 function
    L   length of what follows up to S
    I   data identifier: 901F is sent as 90 1F by the edition of 2004, as 1F 90 by that of 2018; meters know one or both
    N   serial number of the request; not every meter returns it
    S   sum of all bytes from 68 on, modulo 256

What D holds, and in which order, differs between makers: `cjt188_layouts` has that as data.

This module can build two requests, to read data and to read the address. Closing a valve, setting a register or an
address: no function here takes a control code.

Limits: 113 bytes a frame (L at most 100 when reading, 5.2.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.framing import LengthFramer, eager
from drivers.protocols import meter_frame
from drivers.protocols.meter_frame import START, inspect_summed, same_address, see_whole, summed

MAX_DATA: Final = 100
OVERHEAD: Final = 13
MAX_FRAME: Final = OVERHEAD + MAX_DATA

ANY_ADDRESS: Final = "AA" * 7
ANY_TYPE: Final = 0xAA
FUNCTION_READ: Final = 0x01
FUNCTION_READ_ADDRESS: Final = 0x03
REPORT: Final = 0x21
CURRENT_DATA: Final = 0x901F
_ADDRESS_DATA: Final = 0x810A
_FROM_METER, _REFUSED, _FUNCTION = 0x80, 0x40, 0x3F


def address_bytes(address: str) -> bytes:
    """Turn 14 digits as printed on the meter into wire order; a pair AA fits any value. Raises ValueError."""
    return meter_frame.address_bytes(address, digits=14)


def read_request(kind: int, address: str, identifier: int = CURRENT_DATA, *, serial: int = 0) -> bytes:
    """Build the request for one data identifier, with its wake bytes. `identifier` as its two bytes go out: 0x901F."""
    return _request(kind, address, FUNCTION_READ, identifier, serial)


def address_request(*, serial: int = 0) -> bytes:
    """Build the question for the address of the only meter on a line, with its wake bytes."""
    return _request(ANY_TYPE, ANY_ADDRESS, FUNCTION_READ_ADDRESS, _ADDRESS_DATA, serial)


def _request(kind: int, address: str, function: int, identifier: int, serial: int) -> bytes:
    head = bytes([START, kind]) + address_bytes(address) + bytes([function, 3])
    return summed(head + identifier.to_bytes(2, "big") + bytes([serial]))


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame, either direction. `address` as printed; `data` is what stands between L and the sum."""

    kind: int
    address: str
    control: int
    data: bytes

    @property
    def function(self) -> int:
        """The function number: 01 reads."""
        return self.control & _FUNCTION

    @property
    def from_meter(self) -> bool:
        """False for a request: our own, echoed by the converter, or another master's."""
        return bool(self.control & _FROM_METER)

    @property
    def refused(self) -> bool:
        """The meter will not: its status word stands in the data."""
        return bool(self.control & _REFUSED)

    @property
    def identifier(self) -> int | None:
        """The data identifier as its two bytes stand on the wire, None where there is none (a refusal has none)."""
        return int.from_bytes(self.data[:2], "big") if len(self.data) >= 3 and not self.refused else None

    @property
    def value(self) -> bytes:
        """What follows identifier and serial number."""
        return self.data[3:]

    def refusal(self) -> str:
        """Say what a refusal carries: its serial number and status word, as sent."""
        return f"refused, status {self.data.hex() or 'missing'}"


def inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at a 68, for LengthFramer."""
    available = len(data) - start
    if available < 11:
        return None
    length = data[start + 10]
    if length > MAX_DATA:
        return Reason.NOT_MINE
    return inspect_summed(data, start, OVERHEAD + length)


def framer() -> LengthFramer:
    """Return a framer for either direction; wake bytes and what a concentrator puts around count as skipped."""
    return LengthFramer(eager(inspect, start=START), start=START, limit=MAX_FRAME)


def parse(frame: bytes) -> Frame:
    """Take one whole frame apart, without wake bytes. Raises Rejected."""
    see_whole(frame, inspect, least=OVERHEAD, name="CJ/T 188")
    return Frame(frame[1], frame[8:1:-1].hex().upper(), frame[9], frame[11:-2])


def sender(frame: bytes) -> str:
    """Return the address of the meter that has sent a whole frame, as printed on it; "" where none has."""
    return meter_frame.sender_of(frame, parse)


def answers(frame: bytes, *, kind: int, address: str, identifier: int) -> bool:
    """Say whether a whole frame is the reply to a read: from this meter, to this function, for this identifier.

    A meter may return the identifier in the other order of bytes. Water, heat and gas are told apart, their variants are
    not: a meter for heat and cooling (25) answers one who asked for heat (20). A refusal pairs by address alone.
    """
    try:
        reply = parse(frame)
    except Rejected:
        return False
    if not reply.from_meter or reply.function != FUNCTION_READ or not same_address(address, reply.address):
        return False
    if ANY_TYPE not in (kind, reply.kind) and kind >> 4 != reply.kind >> 4:
        return False
    swapped = (identifier & 0xFF) << 8 | identifier >> 8
    return reply.refused or reply.identifier in (identifier, swapped)

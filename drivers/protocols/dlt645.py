"""DL/T 645, the RS-485 protocol of Chinese electricity meters: its frames, in both editions.

What is asked and answered in them stands in `dlt645_2007` and `dlt645_1997`.

Frame (7.1), a letter a byte:

    FE FE FE FE  68 AAAAAA AAAAAA 68 C L D... S 16

    FE  wakes the line; a reply may carry any number of them, or none
    A   address, 12 digits, low byte first; byte AA stands for any value, and some meters answer with it
    C   control: bit 7 from the meter, bit 6 refused, bit 5 more frames follow, bits 0-4 function
    L   length of D, at most 200 when reading
    D   data, each byte plus 33H; a reply begins with the data identifier that was asked for, low byte first
    S   sum of all bytes from the first 68, modulo 256, over what is on the wire

16 and 68 occur anywhere inside a frame, also as its check sum, so only both 68, the length, the sum and the 16 together
tell a frame. Gaps of 500 ms between bytes are allowed: silence ends nothing.

This module can build read requests and nothing else. Writing, relay control, clearing and baud rates change or cut the
supply of a house full of people: `request` takes the codes of `Read` and refuses every other.

Limits: 212 bytes a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.framing import LengthFramer, eager
from drivers.protocols import meter_frame
from drivers.protocols.meter_frame import START, inspect_summed, same_address, see_whole, summed

OFFSET: Final = 0x33
MAX_DATA: Final = 200
OVERHEAD: Final = 12
MAX_FRAME: Final = OVERHEAD + MAX_DATA

ANY_ADDRESS: Final = "AAAAAAAAAAAA"
_FROM_METER, _REFUSED, _MORE, _FUNCTION = 0x80, 0x40, 0x20, 0x1F


class Read(IntEnum):
    """The functions that read; no other is ever sent."""

    DATA_1997 = 0x01
    NEXT_1997 = 0x02
    DATA = 0x11
    NEXT = 0x12
    ADDRESS = 0x13


# 5.2, table of the error word: bits 0 to 6.
ERRORS_2007: Final = (
    "other error",
    "no such data",
    "wrong password or not authorised",
    "baud rate cannot be changed",
    "too many yearly zones",
    "too many daily periods",
    "too many tariffs",
)


def add_offset(data: bytes) -> bytes:
    """Put 33H on each byte, as data stands on the wire."""
    return bytes((byte + OFFSET) & 0xFF for byte in data)


def remove_offset(data: bytes) -> bytes:
    """Take 33H off each byte of data from the wire."""
    return bytes((byte - OFFSET) & 0xFF for byte in data)


def address_bytes(address: str) -> bytes:
    """Turn 12 digits as printed on the meter into wire order; a pair AA fits any value. Raises ValueError."""
    return meter_frame.address_bytes(address, digits=12)


def request(function: Read, address: str, data: bytes) -> bytes:
    """Build a request, with its wake bytes; `data` without the offset. Raises ValueError for a function that reads nothing."""
    content = bytes([Read(function), len(data)]) + add_offset(data)
    return summed(bytes([START]) + address_bytes(address) + bytes([START]) + content)


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame, either direction. `address` as printed; `data` without the offset."""

    address: str
    control: int
    data: bytes

    @property
    def function(self) -> int:
        """The function number: 11H reads."""
        return self.control & _FUNCTION

    @property
    def from_meter(self) -> bool:
        """False for a request: our own, echoed by the converter, or another master's."""
        return bool(self.control & _FROM_METER)

    @property
    def refused(self) -> bool:
        """The meter will not: `refusal` says why."""
        return bool(self.control & _REFUSED)

    @property
    def more(self) -> bool:
        """The data does not fit into one frame."""
        return bool(self.control & _MORE)

    def refusal(self, names: tuple[str, ...] = ERRORS_2007) -> str:
        """Name the error word of a refused read; the raw byte too, since some meters send it without the offset."""
        if not self.data:
            return "refused without a reason"
        word = self.data[0]
        what = " and ".join(name for bit, name in enumerate(names) if word & 1 << bit) or "unknown error"
        return f"{what} (error word {word:02x}, on the wire {add_offset(self.data[:1]).hex()})"


def inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at a 68, for LengthFramer."""
    available = len(data) - start
    if available > 7 and data[start + 7] != START:
        return Reason.NOT_MINE
    if available < 10:
        return None
    length = data[start + 9]
    if length > MAX_DATA:
        return Reason.NOT_MINE
    return inspect_summed(data, start, OVERHEAD + length)


def framer() -> LengthFramer:
    """Return a framer for either direction; wake bytes count as skipped.

    A whole frame ends the wait for one that only seems to have begun before it: a 68 of noise, or of a doubled start.
    """
    return LengthFramer(eager(inspect, start=START), start=START, limit=MAX_FRAME)


def parse(frame: bytes) -> Frame:
    """Take one whole frame apart, without wake bytes. Raises Rejected."""
    see_whole(frame, inspect, least=OVERHEAD, name="DL/T 645")
    return Frame(frame[6:0:-1].hex().upper(), frame[8], remove_offset(frame[10:-2]))


def sender(frame: bytes) -> str:
    """Return the address of the meter that has sent a whole frame, as printed on it; "" where none has."""
    return meter_frame.sender_of(frame, parse)


def reply_to(frame: bytes, function: Read, *, address: str) -> Frame | None:
    """Take apart what answers a request: from this meter, to this function. None for everything else, our echo too."""
    try:
        reply = parse(frame)
    except Rejected:
        return None
    fits = reply.from_meter and reply.function == function and same_address(address, reply.address)
    return reply if fits else None

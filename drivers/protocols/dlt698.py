"""DL/T 698.45, the object protocol of newer Chinese electricity meters: its link frames, and requests that read.

Frame (part 45, 7.2), a letter a byte:

    FE FE FE FE  68 LL C FAAAAAA Y HH P... SS 16

    L   length of everything but 68 and 16, low byte first; bits 0 to 13
    C   bit 7 from the meter, bit 5 a fragment, bit 3 scrambled, bits 0-2 function: 3 carries an APDU, 1 keeps a link
    F   bits 0-3 length of the address less one, bit 4 which logical device, bits 6-7 kind: 0 one, 1 wildcard, 2 group, 3 all;
        with bit 5 the first byte of the address is the number of the logical device, and no part of it
    A   address, two digits a byte, low byte first; in a wildcard AA stands for any two
    Y   the client's own address, given back in the reply
    H   CRC-16/X-25 over L to Y, S over L to the end of P; low byte first
    P   APDU; what it says: `dlt698_data`

The length is checked by H before the rest is waited for, so a 68 of noise holds nothing up.

This module can build GET requests for attributes and records, and nothing else: no SET, no ACTION, no security, no link
management.

Limits: 2,048 bytes a frame. Fragments and scrambled frames are refused by name: a plain reply to what is asked here is neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.checks import crc16_x25
from drivers.kit.framing import LengthFramer
from drivers.protocols.meter_frame import END, START, WAKE, see_whole, sender_of

MAX_FRAME: Final = 2048
CLIENT: Final = 0x10
MAX_ADDRESS_BYTES: Final = 16
MAX_LIST: Final = 16
PIIDS: Final = 64
_ANY: Final = 0xAA
_REQUEST: Final = 0x43
_FROM_METER, _FRAGMENT, _SCRAMBLED, _FUNCTION, _USER_DATA = 0x80, 0x20, 0x08, 0x07, 0x03
_SINGLE, _WILDCARD = 0, 1
_EXTENDED: Final = 0x20
_GET: Final = 0x05
_RECORD: Final = 0x03
# Selector 9: the record that lies so many back.
_LAST_BUT: Final = 0x09
# What is not address, or APDU: L, C, F, Y, H and S.
_OVERHEAD: Final = 9


class Get(IntEnum):
    """How attributes are asked for: one, or several at once."""

    NORMAL = 1
    LIST = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame, either direction. `address` as printed; `kind`: 0 one meter, 1 wildcard, 2 group, 3 all."""

    control: int
    kind: int
    logical: int
    address: str
    client: int
    apdu: bytes

    @property
    def from_meter(self) -> bool:
        """False for a request: our own, echoed by the converter, or another master's."""
        return bool(self.control & _FROM_METER)

    @property
    def carries_data(self) -> bool:
        """False for what only keeps a link."""
        return self.control & _FUNCTION == _USER_DATA


def address_bytes(address: str) -> bytes:
    """Turn 2 to 32 digits as printed into wire order; AA fits any two. Raises ValueError.

    Hexadecimal digits are taken: a number of an odd count of digits is filled up with F.
    """
    if (
        not 2 <= len(address) <= 2 * MAX_ADDRESS_BYTES
        or len(address) % 2
        or not address.isascii()
        or not address.isalnum()
    ):
        raise ValueError("an address has an even number of digits, 2 to 32")
    return bytes.fromhex(address)[::-1]


def request(kind: Get, address: str, oads: Sequence[int], *, piid: int) -> bytes:
    """Build a request for one attribute, or for several, with its wake bytes. `piid`: 0 to 63, comes back in the reply.

    An attribute's descriptor (OAD) as printed: 0x00100200. Raises ValueError.
    """
    if len(oads) > MAX_LIST or (len(oads) != 1 and kind is not Get.LIST) or not oads:
        raise ValueError(f"{len(oads)} attributes")
    count = bytes([len(oads)]) if kind is Get.LIST else b""
    asked = count + b"".join(oad.to_bytes(4, "big") for oad in oads)
    return _framed(address, bytes([Get(kind), piid % PIIDS]) + asked)


def record_request(address: str, oad: int, back: int, columns: Sequence[int], *, piid: int) -> bytes:
    """Build a request for one record of what a meter keeps: the last (1), the one before (2), to 255; `columns` of it.

    Raises ValueError.
    """
    if not 1 <= back <= 0xFF or not 1 <= len(columns) <= MAX_LIST:
        raise ValueError(f"record {back}, {len(columns)} columns")
    which = oad.to_bytes(4, "big") + bytes([_LAST_BUT, back, len(columns)])
    asked = which + b"".join(b"\x00" + column.to_bytes(4, "big") for column in columns)
    return _framed(address, bytes([_RECORD, piid % PIIDS]) + asked)


def _framed(address: str, asked: bytes) -> bytes:
    """Put a GET of whatever kind, without a time tag, into a frame."""
    apdu = bytes([_GET]) + asked + b"\x00"
    server = address_bytes(address)
    flag = (_WILDCARD if _ANY in server else _SINGLE) << 6 | len(server) - 1
    size = _OVERHEAD + len(server) + len(apdu)
    head = size.to_bytes(2, "little") + bytes([_REQUEST, flag]) + server + bytes([CLIENT])
    body = head + crc16_x25(head).to_bytes(2, "little") + apdu
    return WAKE + bytes([START]) + body + crc16_x25(body).to_bytes(2, "little") + bytes([END])


def inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at a 68, for LengthFramer."""
    available = len(data) - start
    if available < 5:
        return None
    size = int.from_bytes(data[start + 1 : start + 3], "little")
    address_size = (data[start + 4] & 0x0F) + 1
    if size > MAX_FRAME - 2 or size < _OVERHEAD + address_size + 1:
        return Reason.NOT_MINE
    head_end = start + 6 + address_size
    if len(data) < head_end + 2:
        return None
    if crc16_x25(data[start + 1 : head_end]) != int.from_bytes(data[head_end : head_end + 2], "little"):
        return Reason.NOT_MINE
    end = start + size + 1
    if len(data) <= end:
        return None
    good = data[end] == END and crc16_x25(data[start + 1 : end - 2]) == int.from_bytes(data[end - 2 : end], "little")
    return size + 2 if good else Reason.BAD_CHECK


def framer() -> LengthFramer:
    """Return a framer for either direction; wake bytes count as skipped."""
    return LengthFramer(inspect, start=START, limit=MAX_FRAME)


def parse(frame: bytes) -> Frame:
    """Take one whole frame apart, without wake bytes. Raises Rejected."""
    see_whole(frame, inspect, least=_OVERHEAD + 4, name="DL/T 698.45")
    control, flag = frame[3], frame[4]
    if control & (_FRAGMENT | _SCRAMBLED):
        what = "a fragment" if control & _FRAGMENT else "scrambled"
        raise Rejected(Reason.UNSUPPORTED, f"the frame is {what}")
    is_extended = bool(flag & _EXTENDED)
    first, end = 5 + is_extended, 6 + (flag & 0x0F)
    if first == end:
        raise Rejected(Reason.MALFORMED, "a logical device without an address")
    logical = frame[5] if is_extended else flag >> 4 & 1
    address = frame[first:end][::-1].hex().upper()
    return Frame(control, flag >> 6, logical, address, frame[end], frame[end + 3 : -3])


def same_address(asked: str, replied: str) -> bool:
    """Compare the address that was asked with that of a reply; AA in the question fits any two digits."""
    if len(asked) != len(replied):
        return set(asked.upper()) == {"A"}
    pairs = zip(bytes.fromhex(asked), bytes.fromhex(replied), strict=True)
    return all(left in (right, _ANY) for left, right in pairs)


def reply_to(frame: bytes, *, address: str) -> Frame | None:
    """Take apart what a meter answers to a request of ours; None for everything else, our echo too."""
    try:
        reply = parse(frame)
    except Rejected:
        return None
    fits = reply.from_meter and reply.carries_data and reply.client == CLIENT and same_address(address, reply.address)
    return reply if fits else None


def sender(frame: bytes) -> str:
    """Return the address of the meter that has sent a whole frame; "" where it is no meter's."""
    return sender_of(frame, parse)

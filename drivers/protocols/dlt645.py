"""DL/T 645, the RS-485 protocol of Chinese electricity meters: its frames, and what is read by the edition of 2007.

`dlt645_1997` reads by the edition before, in the same frames.

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
supply of a house full of people; no function here takes a control code.

Limits: 212 bytes a frame. Annex A gives identifiers and formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivers.kit import Reading, Reason, Rejected
from drivers.kit.checks import sum8
from drivers.kit.fields import bcd
from drivers.kit.framing import LengthFramer

START: Final = 0x68
END: Final = 0x16
WAKE: Final = b"\xfe\xfe\xfe\xfe"
OFFSET: Final = 0x33
MAX_DATA: Final = 200
OVERHEAD: Final = 12
MAX_FRAME: Final = OVERHEAD + MAX_DATA

ANY_ADDRESS: Final = "AAAAAAAAAAAA"
FUNCTION_READ: Final = 0x11
_ANY = 0xAA
_FROM_METER, _REFUSED, _MORE, _FUNCTION = 0x80, 0x40, 0x20, 0x1F

# 5.2, table of the error word: bits 0 to 6.
_ERRORS: Final = (
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
    """Turn 12 characters as printed on the meter into wire order. Raises ValueError.

    Hexadecimal digits are taken, since not every maker keeps to decimal ones; a pair AA fits any value.
    """
    if len(address) != 12 or not address.isascii() or not address.isalnum():
        raise ValueError("an address has 12 digits")
    return bytes.fromhex(address)[::-1]


def read_request(address: str, identifier: int) -> bytes:
    """Build the request for one data identifier, with its wake bytes. `identifier` as in annex A: 0x00010000."""
    asked = bytes([FUNCTION_READ, 4]) + add_offset(identifier.to_bytes(4, "little"))
    frame = bytes([START]) + address_bytes(address) + bytes([START]) + asked
    return WAKE + frame + bytes([sum8(frame), END])


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

    @property
    def identifier(self) -> int | None:
        """The data identifier of a read, None where the data is too short to hold one."""
        return int.from_bytes(self.data[:4], "little") if len(self.data) >= 4 else None

    @property
    def value(self) -> bytes:
        """What follows the identifier."""
        return self.data[4:]

    def refusal(self) -> str:
        """Name the error word of a refused read; the raw byte too, since some meters send it without the offset."""
        if not self.data:
            return "refused without a reason"
        word = self.data[0]
        names = [name for bit, name in enumerate(_ERRORS) if word & 1 << bit]
        what = " and ".join(names) or "unknown error"
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
    size = OVERHEAD + length
    if available < size:
        return None
    if data[start + size - 1] != END or sum8(data[start : start + size - 2]) != data[start + size - 2]:
        return Reason.BAD_CHECK
    return size


def framer() -> LengthFramer:
    """Return a framer for either direction; wake bytes count as skipped."""
    return LengthFramer(inspect, start=START, limit=MAX_FRAME)


def parse(frame: bytes) -> Frame:
    """Take one whole frame apart, without wake bytes. Raises Rejected."""
    if len(frame) < OVERHEAD:
        raise Rejected(Reason.TOO_SHORT, f"{len(frame)} bytes")
    look = inspect(frame, 0) if frame[0] == START else Reason.NOT_MINE
    if isinstance(look, Reason):
        raise Rejected(look, "no DL/T 645 frame")
    if look != len(frame):
        raise Rejected(Reason.TOO_SHORT if look is None else Reason.TOO_LONG, f"{len(frame)} bytes")
    return Frame(frame[6:0:-1].hex().upper(), frame[8], remove_offset(frame[10:-2]))


def answers(frame: bytes, *, address: str, identifier: int) -> bool:
    """Say whether a whole frame is the reply to a read: from this meter, to this function, for this identifier.

    A refusal and a reply without data carry no identifier; they pair by address alone.
    """
    try:
        reply = parse(frame)
    except Rejected:
        return False
    if not reply.from_meter or reply.function != FUNCTION_READ or not same_address(address, reply.address):
        return False
    return reply.refused or not reply.data or reply.identifier == identifier


def same_address(asked: str, replied: str) -> bool:
    """Compare two addresses as printed; AA fits any value on either side: some meters answer with the wildcard."""
    pairs = zip(bytes.fromhex(asked), bytes.fromhex(replied), strict=True)
    return all(left == right or _ANY in (left, right) for left, right in pairs)


@dataclass(frozen=True, slots=True)
class _Register:
    """How an identifier's data is laid out: values of `size` bytes, each for one of `channels`."""

    quantity: str
    size: int
    decimals: int
    signed: bool
    channels: tuple[str, ...]


_TARIFFS = ("", *(f"T{tariff}" for tariff in range(1, 64)))
_PHASES = ("A", "B", "C")
_TOTAL_AND_PHASES = ("", *_PHASES)

# Annex A.1: DI3 is 00; DI2 gives the quantity and whether the highest bit is a sign.
_ENERGIES: Final[Mapping[int, tuple[str, bool]]] = {
    0x00: ("energy_active_combined", True),
    0x01: ("energy_active_import", False),
    0x02: ("energy_active_export", False),
    0x03: ("energy_reactive_1", True),
    0x04: ("energy_reactive_2", True),
}

# Annex A.3: DI3 is 02; DI2 gives quantity, bytes, decimals, sign, and what DI1 counts through.
_VARIABLES: Final[Mapping[int, _Register]] = {
    0x01: _Register("voltage", 2, 1, signed=False, channels=("", *_PHASES)),
    0x02: _Register("current", 3, 3, signed=True, channels=("", *_PHASES)),
    0x03: _Register("power_active", 3, 4, signed=True, channels=_TOTAL_AND_PHASES),
    0x04: _Register("power_reactive", 3, 4, signed=True, channels=_TOTAL_AND_PHASES),
    0x05: _Register("power_apparent", 3, 4, signed=True, channels=_TOTAL_AND_PHASES),
    0x06: _Register("power_factor", 2, 3, signed=True, channels=_TOTAL_AND_PHASES),
}
_WITHOUT_TOTAL = (0x01, 0x02)

_SINGLE: Final[Mapping[int, _Register]] = {
    0x02800001: _Register("current", 3, 3, signed=True, channels=("N",)),
    0x02800002: _Register("frequency", 2, 2, signed=False, channels=("",)),
}
_BLOCK = 0xFF


def readings(identifier: int, value: bytes) -> tuple[Reading, ...]:
    """Read the data of one identifier. A value that the meter does not have (all FF) is left out.

    The channel is "" for a total, "T1".. for tariffs, "A" "B" "C" for phases, "N" for the neutral. Raises Rejected:
    UNSUPPORTED for an identifier that is not read here, TOO_SHORT or MALFORMED for another length, IMPLAUSIBLE for
    what is no number.
    """
    register, block = _register(identifier)
    count, rest = divmod(len(value), register.size)
    wanted = len(register.channels) if block else 1
    if count < 1:
        raise Rejected(Reason.TOO_SHORT, f"{identifier:08x}: {len(value)} bytes")
    if rest or count > wanted:
        raise Rejected(
            Reason.MALFORMED, f"{identifier:08x}: {len(value)} bytes, {register.size} a value, {wanted} at most"
        )
    found: list[Reading] = []
    for index in range(count):
        field = value[index * register.size : (index + 1) * register.size]
        number = bcd(field, decimals=register.decimals, signed=register.signed)
        if number is not None:
            found.append(Reading(register.quantity, number, register.channels[index]))
    return tuple(found)


def _register(identifier: int) -> tuple[_Register, bool]:
    """Return the layout with its channels cut down to those asked for, and whether it is a block."""
    if single := _SINGLE.get(identifier):
        return single, False
    group, kind, part, tail = identifier.to_bytes(4, "big")
    if tail == 0 and group == 0x00 and kind in _ENERGIES:
        quantity, signed = _ENERGIES[kind]
        whole, first = _Register(quantity, 4, 2, signed, _TARIFFS), 0
    elif tail == 0 and group == 0x02 and kind in _VARIABLES:
        whole, first = _VARIABLES[kind], 1 if kind in _WITHOUT_TOTAL else 0
    else:
        raise Rejected(Reason.UNSUPPORTED, f"identifier {identifier:08x}")
    if part == _BLOCK:
        channels, block = whole.channels[first:], True
    elif first <= part < len(whole.channels):
        channels, block = whole.channels[part : part + 1], False
    else:
        raise Rejected(Reason.UNSUPPORTED, f"identifier {identifier:08x}")
    return _Register(whole.quantity, whole.size, whole.decimals, whole.signed, channels), block

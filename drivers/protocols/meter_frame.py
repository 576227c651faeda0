"""What the frames of DL/T 645, CJ/T 188, DL/T 698.45 and M-Bus have in common, and the addresses of the first two.

All of them run from a 68 to a 16 (format class FT 1.2 of IEC 60870-5-1, and what was made of it), and both bytes occur inside,
too. Those of 645 and 188 end with a sum and 16:

    FE FE FE FE  68 ... S 16

    FE  wakes the line before a request
    S   sum of all bytes from the first 68, modulo 256

Their addresses are printed as digits and sent low byte first; byte AA stands for any value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from drivers.kit import Reason, Rejected
from drivers.kit.checks import sum8
from drivers.kit.framing import Inspect

START: Final = 0x68
END: Final = 0x16
WAKE: Final = b"\xfe\xfe\xfe\xfe"
_ANY: Final = 0xAA


class Addressed(Protocol):
    """A frame that says which meter it is from, or for."""

    @property
    def address(self) -> str:
        """The address as printed on the meter."""

    @property
    def from_meter(self) -> bool:
        """False for a request."""


def summed(frame: bytes) -> bytes:
    """Return a frame from its 68 to its last data byte as it is sent: with wake bytes, sum and 16."""
    return WAKE + frame + bytes([sum8(frame), END])


def inspect_summed(data: bytes, start: int, size: int) -> int | Reason | None:
    """Say whether `size` bytes from `start` on are a frame that ends with its sum and 16, for LengthFramer."""
    last = start + size - 1
    if len(data) <= last:
        return None
    return size if data[last] == END and sum8(data[start : last - 1]) == data[last - 1] else Reason.BAD_CHECK


def see_whole(frame: bytes, inspect: Inspect, *, least: int, name: str) -> None:
    """See that bytes are one whole frame and nothing else. `least`: the bytes of an empty one. Raises Rejected."""
    if len(frame) < least:
        raise Rejected(Reason.TOO_SHORT, f"{len(frame)} bytes")
    look = inspect(frame, 0) if frame[0] == START else Reason.NOT_MINE
    if isinstance(look, Reason):
        raise Rejected(look, f"no {name} frame")
    if look != len(frame):
        raise Rejected(Reason.TOO_SHORT if look is None else Reason.TOO_LONG, f"{len(frame)} bytes")


def sender_of(frame: bytes, parse: Callable[[bytes], Addressed]) -> str:
    """Return the address of the meter that has sent a whole frame, as printed on it; "" where none has."""
    try:
        parsed = parse(frame)
    except Rejected:
        return ""
    return parsed.address if parsed.from_meter else ""


def address_bytes(address: str, *, digits: int) -> bytes:
    """Turn so many characters as printed on the meter into wire order. Raises ValueError.

    Hexadecimal digits are taken, since not every maker keeps to decimal ones; a pair AA fits any value.
    """
    if len(address) != digits or not address.isascii() or not address.isalnum():
        raise ValueError(f"an address has {digits} digits")
    return bytes.fromhex(address)[::-1]


def same_address(asked: str, replied: str) -> bool:
    """Compare two addresses as printed; AA fits any value on either side: some meters answer with the wildcard."""
    pairs = zip(bytes.fromhex(asked), bytes.fromhex(replied), strict=True)
    return all(left == right or _ANY in (left, right) for left, right in pairs)

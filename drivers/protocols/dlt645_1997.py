"""DL/T 645-1997, what old electricity meters and many submeters speak: read requests out, replies in.

The frame is that of 2007 (`dlt645`), also the 33H on each byte of data. What differs:

    68 AAAAAA AAAAAA 68 01 02 II S 16           asked, I an identifier of two bytes
    68 AAAAAA AAAAAA 68 81 L II VVVV ... S 16   answered, V packed digits
    68 AAAAAA AAAAAA 68 C1 01 E S 16            refused, E the error word

A block may end with a byte AA, and before it spare zeros for tariffs that the meter does not have; neither is a value.
Voltages have no decimals. Beside the wildcard AA some meters answer to the broadcast address 999999999999 only.

This module can build read requests and nothing else (see `dlt645`). Source of identifiers and formats:
coyool/XXOO_000 dd645_2007.c, KTS-Intek/DLT645 test-exchange-dlt645-97.log (two recorded meters).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivers.kit import Reading, Reason, Rejected
from drivers.kit.checks import sum8
from drivers.kit.fields import bcd
from drivers.protocols import dlt645

BROADCAST: Final = "999999999999"
FUNCTION_READ: Final = 0x01
_BLOCK_END: Final = 0xAA
_BLOCK: Final = 0x0F
_ERRORS: Final = ("illegal data", "no such data", "wrong password")

_TARIFFS: Final = ("", *(f"T{tariff}" for tariff in range(1, 15)))
# Total and four tariffs: what every meter has, so zeros behind them are spare.
_ALWAYS: Final = 5
_PHASES: Final = ("A", "B", "C")


@dataclass(frozen=True, slots=True)
class _Register:
    """How a group's data is laid out. `channels` stand in the order of the lower half of DI0, from `first` on."""

    quantity: str
    size: int
    decimals: int
    channels: tuple[str, ...]
    first: int = 0


# DI1 and the upper half of DI0.
_REGISTERS: Final[Mapping[int, _Register]] = {
    0x9000: _Register("energy_active_combined", 4, 2, _TARIFFS),
    0x9010: _Register("energy_active_import", 4, 2, _TARIFFS),
    0x9020: _Register("energy_active_export", 4, 2, _TARIFFS),
    0x9110: _Register("energy_reactive_import", 4, 2, _TARIFFS),
    0x9120: _Register("energy_reactive_export", 4, 2, _TARIFFS),
    0xB610: _Register("voltage", 2, 0, _PHASES, first=1),
    0xB620: _Register("current", 2, 2, _PHASES, first=1),
    0xB630: _Register("power_active", 3, 4, ("", *_PHASES)),
}


def read_request(address: str, identifier: int) -> bytes:
    """Build the request for one data identifier, with its wake bytes. `identifier` as printed: 0x9010."""
    asked = bytes([FUNCTION_READ, 2]) + dlt645.add_offset(identifier.to_bytes(2, "little"))
    frame = bytes([dlt645.START]) + dlt645.address_bytes(address) + bytes([dlt645.START]) + asked
    return dlt645.WAKE + frame + bytes([sum8(frame), dlt645.END])


def identifier_of(frame: dlt645.Frame) -> int | None:
    """Return the data identifier of a read, None where the data is too short to hold one."""
    return int.from_bytes(frame.data[:2], "little") if len(frame.data) >= 2 else None


def refusal(frame: dlt645.Frame) -> str:
    """Name the error word of a refused read."""
    if not frame.data:
        return "refused without a reason"
    word = frame.data[0]
    what = " and ".join(name for bit, name in enumerate(_ERRORS) if word & 1 << bit) or "unknown error"
    return f"{what} (error word {word:02x}, on the wire {dlt645.add_offset(frame.data[:1]).hex()})"


def answers(frame: bytes, *, address: str, identifier: int) -> bool:
    """Say whether a whole frame is the reply to a read: from this meter, to this function, for this identifier.

    A refusal and a reply without data carry no identifier; they pair by address alone.
    """
    try:
        reply = dlt645.parse(frame)
    except Rejected:
        return False
    if not reply.from_meter or reply.function != FUNCTION_READ:
        return False
    if address != BROADCAST and not dlt645.same_address(address, reply.address):
        return False
    return reply.refused or not reply.data or identifier_of(reply) == identifier


def readings(identifier: int, value: bytes) -> tuple[Reading, ...]:
    """Read the data of one identifier, without the identifier. A value that the meter does not have (FF) is left out.

    Raises Rejected: UNSUPPORTED for an identifier that is not read here, TOO_SHORT or MALFORMED for another length,
    IMPLAUSIBLE for what is no number.
    """
    register, part = _REGISTERS.get(identifier & 0xFFF0), identifier & 0x0F
    if register is None or (part != _BLOCK and not 0 <= part - register.first < len(register.channels)):
        raise Rejected(Reason.UNSUPPORTED, f"identifier {identifier:04x}")
    channels = register.channels if part == _BLOCK else (register.channels[part - register.first],)
    if len(value) % register.size == 1 and value[-1] == _BLOCK_END:
        value = value[:-1]
    if len(value) < register.size:
        raise Rejected(Reason.TOO_SHORT, f"{identifier:04x}: {len(value)} bytes")
    fields = [value[at : at + register.size] for at in range(0, len(value), register.size)]
    if register.channels is _TARIFFS:
        while len(fields) > _ALWAYS and not any(fields[-1]):
            fields.pop()
    if len(fields[-1]) != register.size or len(fields) > len(channels):
        raise Rejected(Reason.MALFORMED, f"{identifier:04x}: {len(value)} bytes, {register.size} a value")
    found: list[Reading] = []
    for channel, field in zip(channels, fields, strict=False):
        number = bcd(field, decimals=register.decimals)
        if number is not None:
            found.append(Reading(register.quantity, number, channel))
    return tuple(found)

"""What the data of a DL/T 645 reply is made of, whatever the edition: fields of packed digits, in a known order.

A layout says which quantity each field is, for which channel, and how a field is written. The editions' tables
(`dlt645_2007_tables`, `dlt645_1997_tables`) make layouts of identifiers; here bytes become readings by a layout.

A channel is "" for the total, else parts joined by "/": a tariff T1.., a phase A B C or N for the neutral, a harmonic H1..,
and when it was: S1 the last settlement day, S2 the one before; D1 the last daily freeze, O1 that of the last hour, and F I Z P
for the freezes at set times, at once, at a change of zones and of periods.

Never a number: a field of FF bytes (the meter has no such value), a nibble above 9, a value outside the bounds of its
quantity, a top bit that may be a sign or a digit. The first is left out, the others are refused by name, and what stands
beside them in the same reply is read all the same.
Limit: what one reply holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Final

from drivers.kit import Reading, Reason, Rejected
from drivers.kit.fields import bcd, meter_time

if TYPE_CHECKING:
    from datetime import datetime


class Sign(Enum):
    """What the highest bit of a field is."""

    NONE = "a digit, as the rest"
    BIT = "a sign"
    UNSAID = "a sign with some makers, a digit with others: refused where it is set"


@dataclass(frozen=True, slots=True)
class Field:
    """How one value is written: packed digits, low byte first.

    `stamped`: the time at which it was reached follows in 5 bytes (YYMMDDhhmm). `binary`: bits, not digits.
    """

    quantity: str
    size: int
    decimals: int = 0
    sign: Sign = Sign.NONE
    stamped: bool = False
    binary: bool = False

    @property
    def width(self) -> int:
        """Bytes on the wire, with the time."""
        return self.size + STAMP_BYTES * self.stamped


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of a reply in their order, one for each channel. `whole`: all of them must be there."""

    fields: tuple[Field, ...]
    channels: tuple[str, ...]
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """What a reply says. `refused` names what in it is no value, as "quantity channel = why"."""

    readings: tuple[Reading, ...]
    refused: tuple[str, ...] = ()


STAMP_BYTES: Final = 5
# Letters of the channels that are not of now.
PAST: Final = tuple("SDOFIZP")

# What a quantity cannot be. An instrument transformer scales none of these on the wire: they are the meter's own values.
_BOUNDS: Final[Mapping[str, tuple[Decimal, Decimal]]] = {
    "voltage": (Decimal(0), Decimal(500)),
    "power_factor": (Decimal(-1), Decimal(1)),
    "frequency": (Decimal(0), Decimal(70)),
    "meter_phase_angle": (Decimal(-360), Decimal(360)),
    "meter_temperature": (Decimal(-60), Decimal(125)),
    "meter_battery_voltage": (Decimal(0), Decimal(20)),
}
# A supply of between 0 and 40 Hz does not exist; 0 says that the meter measures none.
_LEAST_HERTZ: Final = Decimal(40)


def values(layout: Layout, data: bytes, *, shown: str) -> Data:
    """Read the data of one reply. `shown` names the identifier in messages.

    Raises Rejected: TOO_SHORT for less than one value (or less than all, where all must be there), MALFORMED for a length
    that no number of values has.
    """
    fields = layout.fields
    readings: list[Reading] = []
    refused: list[str] = []
    at, count, size = 0, 0, len(data)
    for channel in layout.channels:
        field = fields[count % len(fields)]
        end = at + field.size
        if end > size:
            break
        count += 1
        try:
            if (reading := _reading(field, data[at:end], channel)) is not None:
                if field.stamped:
                    reading = _stamped(reading, data[end : end + STAMP_BYTES], refused)
                readings.append(reading)
        except Rejected as rejected:
            refused.append(f"{name(field.quantity, channel)} = {rejected.detail}")
        at += field.width
    if at == 0 or (layout.whole and count < len(layout.channels)):
        raise Rejected(Reason.TOO_SHORT, f"{shown}: {size} bytes")
    if at != size:
        raise Rejected(
            Reason.MALFORMED, f"{shown}: {size} bytes, {fields[0].width} a value, {len(layout.channels)} at most"
        )
    return Data(tuple(readings), tuple(refused))


def is_past(channel: str) -> bool:
    """Say whether a channel is of a settlement day or a freeze, not of now."""
    when = channel.rpartition("/")[2]
    return when[:1] in PAST and when[1:].isdigit()


def name(quantity: str, channel: str) -> str:
    """Name a register as people read it."""
    return f"{quantity} {channel}" if channel else quantity


def _reading(field: Field, data: bytes, channel: str) -> Reading | None:
    if field.binary:
        # No meter has every fault there is: a word of nothing but ones is one that it does not have.
        if data.count(0xFF) == len(data):
            return None
        return Reading(field.quantity, Decimal(int.from_bytes(data, "little")), channel)
    number = bcd(data, decimals=field.decimals, signed=field.sign is Sign.BIT)
    if number is None:
        return None
    if field.sign is Sign.UNSAID and data[-1] & 0x80:
        raise Rejected(Reason.IMPLAUSIBLE, f"{data.hex()} is {number} or has a sign")
    reading = Reading(field.quantity, number, channel)
    if cannot_be(reading):
        raise Rejected(Reason.IMPLAUSIBLE, f"{number} cannot be")
    return reading


def cannot_be(reading: Reading) -> bool:
    """Say whether a value is outside of what its quantity can be."""
    bounds = _BOUNDS.get(reading.quantity)
    if bounds is None:
        return False
    hertz = reading.quantity == "frequency"
    return not bounds[0] <= reading.value <= bounds[1] or (hertz and 0 < reading.value < _LEAST_HERTZ)


def _stamped(reading: Reading, data: bytes, refused: list[str]) -> Reading:
    """Put the time at which a demand was reached to it; a time that is none costs the time, not the demand."""
    try:
        at = stamp(data)
    except Rejected as rejected:
        refused.append(f"{name(reading.quantity, reading.channel)} time = {rejected.detail}")
        return reading
    return Reading(reading.quantity, reading.value, reading.channel, at)


def stamp(data: bytes) -> datetime | None:
    """Read YYMMDDhhmm (5 bytes), or hhmmss before it (6): the meter's own clock (see `meter_time`). Low byte first.

    None where the meter has none: all FF, or all zero (nothing was ever recorded). Raises Rejected: TOO_SHORT for another
    length, IMPLAUSIBLE for what is no time.
    """
    if len(data) not in (STAMP_BYTES, STAMP_BYTES + 1):
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes where a time has {STAMP_BYTES}")
    if data.count(0xFF) == len(data) or not any(data):
        return None
    year, *rest = digits(data)
    return meter_time(2000 + year, *rest)


def digits(data: bytes) -> tuple[int, ...]:
    """Read each byte as two decimal digits, high byte first. Raises Rejected(IMPLAUSIBLE)."""
    text = data[::-1].hex()
    if not text.isdecimal():
        raise Rejected(Reason.IMPLAUSIBLE, f"{data.hex()} is not packed decimal")
    return tuple(int(text[at : at + 2]) for at in range(0, len(text), 2))


def ascii_text(data: bytes) -> str | None:
    """Read a text as meters send it: its last character first, filled up with NUL or blanks. None where there is none.

    Raises Rejected(IMPLAUSIBLE) for what is not printable.
    """
    if data.count(0xFF) == len(data):
        return None
    text = data[::-1].decode("latin-1").strip("\0 ")
    if not text.isascii() or not text.isprintable():
        raise Rejected(Reason.IMPLAUSIBLE, f"{data.hex()} is no text")
    return text or None


def digit_text(data: bytes) -> str | None:
    """Read a number of the meter as printed, with its leading zeros. None where there is none. Raises Rejected."""
    if data.count(0xFF) == len(data):
        return None
    text = data[::-1].hex()
    if not text.isdecimal():
        raise Rejected(Reason.IMPLAUSIBLE, f"{data.hex()} is not packed decimal")
    return text

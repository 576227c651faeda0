"""DL/T 698.45, annex A: what the attributes of a meter's objects hold, as data.

A descriptor (OAD) has four bytes: the object (OI, two), the attribute, and which element of it (00: all).

    00QP  energy: attribute 02 with 2 decimals, 04 with 4; Q quantity, P 0 all phases, 1 2 3 phase A B C
    10QP  greatest demand with its time, kW with 4 decimals
    2000  and on: variables
    4000  the clock
    5004  what was frozen at midnight: records of other attributes, 2021 their time

Elements of an energy or a demand: the total, then the tariffs. Of a variable: the phases A B C, of a power or a power factor
the total before them; attribute 04 of the current is that of the neutral. Status words (2014) are not read: makers differ in the
order of their bits. Powers are told in watts with one decimal, and published in kilowatts with four: the same digits.

Sources: Charity-Vance/Leetcode DI_698.h and icprog/dlt698.45 (object numbers), haibwang/hello-world data_table.c (types and
decimals), the catalogue of dlt698 1.0.1 (tables E.1 to E.3 of the standard: 136 attributes compared, none differs), the worked
example of blog.csdn.net/m0_37651448/article/details/143100464. Limit: 63 tariffs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from drivers.kit import Reading, Reason, Rejected
from drivers.protocols import dlt698_data as data
from drivers.protocols.dlt645_layout import Data, cannot_be, name
from drivers.protocols.dlt698_data import Element

MAX_TARIFF: Final = 63
CLOCK: Final = 0x40000200
ADDRESS: Final = 0x40010200
# What the meter keeps each midnight, and the column that says of which.
DAILY: Final = 0x50040200
FREEZE_TIME: Final = 0x20210200
_TARIFFS: Final = ("", *(f"T{tariff}" for tariff in range(1, MAX_TARIFF + 1)))
_PHASES: Final = ("A", "B", "C")
_TOTAL_AND_PHASES: Final = ("", *_PHASES)
_VALUE, _FINE = 0x02, 0x04

_DOUBLE_LONGS: Final = (data.DOUBLE_LONG, data.DOUBLE_LONG_UNSIGNED)
_FINE_ENERGY: Final = (data.LONG64, data.LONG64_UNSIGNED)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: a number of one of `tags`, scaled by `decimals`, for each of `channels`.

    `stamped`: each is a structure of the number and the time at which it was reached.
    """

    quantity: str
    decimals: int
    tags: tuple[int, ...]
    channels: tuple[str, ...] = ("",)
    stamped: bool = False


# The second digit of an energy's object, and of a demand's: quantity.
_KINDS: Final[Mapping[int, str]] = {
    0x1: "active_import",
    0x2: "active_export",
    0x3: "reactive_1",
    0x4: "reactive_2",
    0x5: "reactive_q1",
    0x6: "reactive_q2",
    0x7: "reactive_q3",
    0x8: "reactive_q4",
    0x9: "apparent_import",
    0xA: "apparent_export",
}
_PARTS: Final[Mapping[int, str]] = {
    0x0110: "energy_base_import",
    0x0120: "energy_base_export",
    0x0210: "energy_harmonic_import",
    0x0220: "energy_harmonic_export",
    0x0300: "energy_copper_loss",
    0x0400: "energy_iron_loss",
    0x0500: "energy_associated",
}
_WORD: Final = (data.LONG_UNSIGNED,)
_SIGNED_WORD: Final = (data.LONG,)
_WORDS: Final = (data.LONG, data.LONG_UNSIGNED)


def _table() -> dict[int, Attribute]:
    """Return object and attribute, as they stand in a descriptor -> what it holds."""
    found = {
        0x200002: Attribute("voltage", 1, _WORD, _PHASES),
        0x200102: Attribute("current", 3, _DOUBLE_LONGS, _PHASES),
        0x200104: Attribute("current", 3, _DOUBLE_LONGS, ("N",)),
        0x200302: Attribute("meter_phase_angle", 1, _WORD, _PHASES),
        0x200402: Attribute("power_active", 4, _DOUBLE_LONGS, _TOTAL_AND_PHASES),
        0x200502: Attribute("power_reactive", 4, _DOUBLE_LONGS, _TOTAL_AND_PHASES),
        0x200602: Attribute("power_apparent", 4, _DOUBLE_LONGS, _TOTAL_AND_PHASES),
        0x200702: Attribute("power_active_minute", 4, _DOUBLE_LONGS, _TOTAL_AND_PHASES),
        0x200A02: Attribute("power_factor", 3, _SIGNED_WORD, _TOTAL_AND_PHASES),
        0x200B02: Attribute("voltage_distortion", 2, _WORDS, _PHASES),
        0x200C02: Attribute("current_distortion", 2, _WORDS, _PHASES),
        0x200F02: Attribute("frequency", 2, _WORD),
        0x201002: Attribute("meter_temperature", 1, _SIGNED_WORD),
        0x201102: Attribute("meter_battery_voltage", 2, _WORD, ("clock",)),
        0x201202: Attribute("meter_battery_voltage", 2, _WORD, ("readout",)),
        0x201302: Attribute("meter_battery_time", 0, (data.DOUBLE_LONG_UNSIGNED,)),
        0x201702: Attribute("power_active_demand", 4, _DOUBLE_LONGS),
        0x201802: Attribute("power_reactive_demand", 4, _DOUBLE_LONGS),
        0x201902: Attribute("power_apparent_demand", 4, _DOUBLE_LONGS),
    }
    for kind in range(0x0B):
        for phase, letter in enumerate(_TOTAL_AND_PHASES):
            what = "active_combined" if kind == 0 else _KINDS[kind]
            if kind == 0 and phase:
                continue
            channels = tuple("/".join(part for part in (letter, tariff) if part) for tariff in _TARIFFS)
            oi = kind << 4 | phase
            found[oi << 8 | _VALUE] = Attribute(f"energy_{what}", 2, _DOUBLE_LONGS, channels)
            found[oi << 8 | _FINE] = Attribute(f"energy_{what}", 4, _FINE_ENERGY, channels)
            if kind:
                found[(0x1000 | oi) << 8 | _VALUE] = Attribute(
                    f"demand_{what}", 4, _DOUBLE_LONGS, channels, stamped=True
                )
    for base, quantity in _PARTS.items():
        for phase, letter in enumerate(_TOTAL_AND_PHASES):
            found[(base | phase) << 8 | _VALUE] = Attribute(quantity, 2, _DOUBLE_LONGS, (letter,))
            found[(base | phase) << 8 | _FINE] = Attribute(quantity, 4, _FINE_ENERGY, (letter,))
    return found


ATTRIBUTES: Final[Mapping[int, Attribute]] = _table()
# What an unsigned number is where a meter has none: 42,949,672.95 kWh is more than any register counts.
_NONE: Final[Mapping[int, int]] = {
    data.LONG_UNSIGNED: 0xFFFF,
    data.DOUBLE_LONG_UNSIGNED: 0xFFFFFFFF,
    data.LONG64_UNSIGNED: 0xFFFFFFFFFFFFFFFF,
}


def attribute(oad: int) -> Attribute:
    """Return what a descriptor names. Raises Rejected(UNSUPPORTED) for what is no quantity here, or no element of it."""
    found = ATTRIBUTES.get(oad >> 8)
    if found is None or oad & 0xFF > len(found.channels):
        raise Rejected(Reason.UNSUPPORTED, f"attribute {oad:08x}")
    return found


def decode(oad: int, element: Element) -> Data:
    """Read the data of one attribute. Data of no type (00) is no value, and left out.

    Raises Rejected: UNSUPPORTED for an attribute that is no quantity, MALFORMED for more elements than it can have, or
    data of a type that its decimals are not known for.
    """
    known, index = attribute(oad), oad & 0xFF
    several = element.tag == data.ARRAY or (element.tag == data.STRUCTURE and not known.stamped)
    elements = element.parts if several else (element,)
    channels = known.channels[index - 1 : index] if index else known.channels
    if len(elements) > len(channels):
        raise Rejected(Reason.MALFORMED, f"{oad:08x}: {len(elements)} elements, {len(channels)} at most")
    readings: list[Reading] = []
    refused: list[str] = []
    for one, channel in zip(elements, channels, strict=False):
        if (reading := _reading(known, one, channel, oad, refused)) is None:
            continue
        if cannot_be(reading):
            refused.append(f"{name(reading.quantity, channel)} = {reading.value} cannot be")
        else:
            readings.append(reading)
    return Data(tuple(readings), tuple(refused))


def clock(element: Element) -> datetime | None:
    """Read a time; None where the meter has none. Raises Rejected: IMPLAUSIBLE for what is no time, MALFORMED for no clock."""
    value = element.value
    if value is None and not element.parts:
        return None
    if isinstance(value, datetime):
        return value
    if element.tag in (0x19, 0x1C) and isinstance(value, bytes):
        raise Rejected(Reason.IMPLAUSIBLE, f"{value.hex()} is no time")
    raise Rejected(Reason.MALFORMED, f"a clock of the type {element.tag:02x}")


def _reading(known: Attribute, element: Element, channel: str, oad: int, refused: list[str]) -> Reading | None:
    reached = None
    if known.stamped and element.tag == data.STRUCTURE:
        if len(element.parts) != 2:
            raise Rejected(Reason.MALFORMED, f"{oad:08x}: a demand of {len(element.parts)} parts")
        element, time = element.parts
        try:
            reached = clock(time)
        except Rejected as rejected:
            refused.append(f"{name(known.quantity, channel)} time = {rejected.detail}")
    number = element.value
    if element.tag == 0:
        return None
    if element.tag not in known.tags:
        raise Rejected(Reason.MALFORMED, f"{oad:08x}: data of the type {element.tag:02x}")
    if not isinstance(number, int) or number == _NONE.get(element.tag):
        return None
    return Reading(known.quantity, Decimal(number).scaleb(-known.decimals), channel, reached)

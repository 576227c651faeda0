"""What the value information of M-Bus means (EN 13757-3, 6.3 and 6.4): tables from code to quantity, unit and power of ten.

Three tables: the first (VIF 00-7F), FD and FB. A code that stands in none has no meaning here: its record is kept, as raw bytes.
Units are those in which the standard counts; what is published is the driver's business.
Limits: linear tables of 128 codes each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Meaning:
    """`quantity` in words of this module, `unit`, and the power of ten that a number is multiplied by."""

    quantity: str
    unit: str = ""
    exponent: int = 0
    # Seconds are counted by the minute, hour or day: what a number is multiplied by.
    factor: int = 1


DATE, DATE_TIME = "date", "date and time"
_SPANS: Final = (1, 60, 3600, 86_400)


def _run(first: int, count: int, quantity: str, unit: str, exponent: int) -> dict[int, Meaning]:
    """Return `count` codes from `first` on, each ten times the one before."""
    return {first + step: Meaning(quantity, unit, exponent + step) for step in range(count)}


def _spans(first: int, quantity: str, *, begin: int = 0) -> dict[int, Meaning]:
    """Return codes for seconds, minutes, hours and days."""
    return {
        first + step: Meaning(quantity, "s", factor=factor) for step, factor in enumerate(_SPANS) if step >= begin
    }  # fmt: skip


PRIMARY: Final[Mapping[int, Meaning]] = {
    **_run(0x00, 8, "energy", "Wh", -3),
    **_run(0x08, 8, "energy", "J", 0),
    **_run(0x10, 8, "volume", "m3", -6),
    **_run(0x18, 8, "mass", "kg", -3),
    **_spans(0x20, "on time"),
    **_spans(0x24, "operating time"),
    **_run(0x28, 8, "power", "W", -3),
    **_run(0x30, 8, "power", "J/h", 0),
    **_run(0x38, 8, "volume flow", "m3/h", -6),
    **_run(0x40, 8, "volume flow", "m3/min", -7),
    **_run(0x48, 8, "volume flow", "m3/s", -9),
    **_run(0x50, 8, "mass flow", "kg/h", -3),
    **_run(0x58, 4, "flow temperature", "Cel", -3),
    **_run(0x5C, 4, "return temperature", "Cel", -3),
    **_run(0x60, 4, "temperature difference", "K", -3),
    **_run(0x64, 4, "external temperature", "Cel", -3),
    **_run(0x68, 4, "pressure", "bar", -3),
    0x6C: Meaning(DATE),
    0x6D: Meaning(DATE_TIME),
    0x6E: Meaning("heat cost units"),
    **_spans(0x70, "averaging duration"),
    **_spans(0x74, "actuality duration"),
    0x78: Meaning("fabrication number"),
    0x79: Meaning("identification"),
    0x7A: Meaning("bus address"),
}

FD: Final[Mapping[int, Meaning]] = {
    **_run(0x00, 4, "credit", "currency", -3),
    **_run(0x04, 4, "debit", "currency", -3),
    0x08: Meaning("access number"),
    0x09: Meaning("medium"),
    0x0A: Meaning("manufacturer"),
    0x0B: Meaning("parameter set"),
    0x0C: Meaning("model"),
    0x0D: Meaning("hardware version"),
    0x0E: Meaning("firmware version"),
    0x0F: Meaning("software version"),
    0x10: Meaning("customer location"),
    0x11: Meaning("customer"),
    0x12: Meaning("access code of users"),
    0x13: Meaning("access code of operators"),
    0x14: Meaning("access code of system operators"),
    0x15: Meaning("access code of developers"),
    0x16: Meaning("password"),
    0x17: Meaning("error flags"),
    0x18: Meaning("error mask"),
    0x1A: Meaning("digital output"),
    0x1B: Meaning("digital input"),
    0x1C: Meaning("baud rate"),
    0x1D: Meaning("response delay"),
    0x1E: Meaning("retries"),
    0x1F: Meaning("remote control"),
    0x20: Meaning("first cyclic storage"),
    0x21: Meaning("last cyclic storage"),
    0x22: Meaning("size of a storage block"),
    **_spans(0x24, "storage interval"),
    0x28: Meaning("storage interval", "month"),
    0x29: Meaning("storage interval", "year"),
    **_spans(0x2C, "time since the last readout"),
    0x30: Meaning("start of tariff"),
    **_spans(0x30, "duration of tariff", begin=1),
    **_spans(0x34, "period of tariff"),
    0x38: Meaning("period of tariff", "month"),
    0x39: Meaning("period of tariff", "year"),
    0x3A: Meaning("count"),
    **_run(0x40, 16, "voltage", "V", -9),
    **_run(0x50, 16, "current", "A", -12),
    0x60: Meaning("reset counter"),
    0x61: Meaning("cumulation counter"),
    0x62: Meaning("control signal"),
    0x63: Meaning("day of week"),
    0x64: Meaning("week number"),
    0x65: Meaning("time of day change"),
    0x66: Meaning("state of parameter activation"),
    0x67: Meaning("supplier information"),
    **{0x68 + step: Meaning("time since the last cumulation", unit) for step, unit in enumerate(("h", "d", "month", "year"))},
    **{0x6C + step: Meaning("battery operating time", unit) for step, unit in enumerate(("h", "d", "month", "year"))},
    0x70: Meaning("date of battery change"),
    0x71: Meaning("signal strength", "dBm"),
    0x74: Meaning("remaining battery life", "d"),
    0x75: Meaning("stops"),
}  # fmt: skip

FB: Final[Mapping[int, Meaning]] = {
    **_run(0x00, 2, "energy", "Wh", 5),
    **_run(0x02, 2, "reactive energy", "varh", 3),
    **_run(0x04, 2, "apparent energy", "VAh", 3),
    **_run(0x08, 2, "energy", "J", 8),
    **_run(0x0C, 4, "energy", "cal", 5),
    **_run(0x10, 2, "volume", "m3", 2),
    **_run(0x14, 4, "reactive power", "var", 0),
    **_run(0x18, 2, "mass", "kg", 5),
    **_run(0x1A, 2, "relative humidity", "%", -1),
    **_run(0x28, 2, "power", "W", 5),
    **_run(0x2C, 4, "frequency", "Hz", -3),
    **_run(0x30, 2, "power", "J/h", 8),
    **_run(0x34, 4, "apparent power", "VA", 0),
}

# Table of orthogonal codes behind a VIF (6.4.6): what is known not to change what is counted, and in which way it is told apart.
NEUTRAL: Final = 0x00
UNCORRECTED, POSITIVE, NEGATIVE = 0x3A, 0x3B, 0x3C
TOLD_APART: Final[Mapping[int, str]] = {UNCORRECTED: "uncorrected", POSITIVE: "positive", NEGATIVE: "negative"}
MULTIPLIED: Final = {0x70 + step: step - 6 for step in range(8)} | {0x7D: 3}
ADDED: Final = {0x78 + step: step - 3 for step in range(4)}
MAKERS_OWN: Final = 0x7F
# Behind 7C stands a code of a further table (6.4.7): the phases of a supply, and what is not known here.
FURTHER: Final = 0x7C
PHASES: Final[Mapping[int, str]] = {0x01: "A", 0x02: "B", 0x03: "C", 0x04: "N"}
# Says only that the flags of errors are those of the standard; and of several values in one record, packed.
STANDARD_FLAGS: Final = 0x1D
# In gallons, feet or degrees Fahrenheit (annex C).
NON_METRIC: Final = 0x3D
PROFILES: Final = (0x13, 0x1E, 0x1F)
# 01-1F, where a record has an error instead of a value.
ERRORS: Final[Mapping[int, str]] = {
    0x01: "too many DIFE",
    0x02: "no such storage",
    0x03: "no such unit",
    0x04: "no such tariff",
    0x05: "no such function",
    0x06: "no such data class",
    0x07: "no such data size",
    0x0B: "too many VIFE",
    0x0C: "illegal VIF group",
    0x0D: "illegal VIF exponent",
    0x0E: "VIF and DIF do not fit",
    0x0F: "unimplemented action",
    0x15: "no data",
    0x16: "data overflow",
    0x17: "data underflow",
    0x18: "data error",
    0x1C: "premature end of record",
}

MEDIA: Final[Mapping[int, str]] = {
    0x00: "other", 0x01: "oil", 0x02: "electricity", 0x03: "gas", 0x04: "heat", 0x05: "steam", 0x06: "warm water",
    0x07: "water", 0x08: "heat cost allocator", 0x09: "compressed air", 0x0A: "cooling", 0x0B: "cooling", 0x0C: "heat",
    0x0D: "heat and cooling", 0x0E: "bus", 0x0F: "unknown", 0x15: "hot water", 0x16: "cold water", 0x17: "dual water",
    0x18: "pressure", 0x19: "converter",
}  # fmt: skip

# The fixed data structure (EN 13757-3, annex G of 2004): codes of six bits.
_FIXED_STEPS: Final = (
    (0x02, "energy", "Wh", 0), (0x05, "energy", "Wh", 3), (0x08, "energy", "Wh", 6), (0x0B, "energy", "J", 3),
    (0x0E, "energy", "J", 6), (0x11, "energy", "J", 9), (0x14, "power", "W", 0), (0x17, "power", "W", 3),
    (0x1A, "power", "W", 6), (0x1D, "power", "J/h", 3), (0x20, "power", "J/h", 6), (0x23, "power", "J/h", 9),
    (0x26, "volume", "m3", -6), (0x29, "volume", "m3", -3), (0x2C, "volume", "m3", 0), (0x2F, "volume flow", "m3/h", -6),
    (0x32, "volume flow", "m3/h", -3), (0x35, "volume flow", "m3/h", 0),
)  # fmt: skip
FIXED_HISTORIC: Final = 0x3E
FIXED: Final[Mapping[int, Meaning]] = {
    **{code: one for step in _FIXED_STEPS for code, one in _run(step[0], 3, step[1], step[2], step[3]).items()},
    0x38: Meaning("temperature", "Cel", -3),
    0x39: Meaning("heat cost units"),
    0x3F: Meaning("count"),
}
FIXED_MEDIA: Final[Mapping[int, int]] = {
    0x0: 0x00, 0x1: 0x01, 0x2: 0x02, 0x3: 0x03, 0x4: 0x04, 0x5: 0x05, 0x6: 0x06, 0x7: 0x07, 0x8: 0x08,
    0xA: 0x03, 0xB: 0x04, 0xC: 0x06, 0xD: 0x07, 0xE: 0x08,
}  # fmt: skip

"""DL/T 645-1997, annex A: what each data identifier holds, as data.

An identifier has two bytes; the lower half of DI0 counts tariffs or phases, FH means all of them. Which are here:

    90/91 xT   energy now, 94/95 of the month before, 98/99 of the one before that; 1x 2x active, 1x..6x reactive
    A0/A1 xT   greatest demand, A4/A5 and A8/A9 before; B0/B1 and so on its time (MMDDhhmm, without a year: not read)
    B2 B3      counts of programming, demand resets and failures of a phase
    B6         voltage, current, power, power factor
    C0         clock, status words, pulse constants, numbers

A voltage has no decimals, a current two. Quadrants stand in the order 1, 4, 2, 3. The edition says nothing of signs: a power
whose top bit is set is -0.5 kW with one maker and 80.5 kW with another, so it is refused.
Not here, and refused as UNSUPPORTED: tariff tables, load records, passwords.
Sources: coyool/XXOO_000 dd645_2007.c (map of both editions), KTS-Intek/DLT645 test-exchange-dlt645-97.log (two recorded
meters), renrendoc.com p-9959533 (a maker's copy of the tables). Limit: 14 tariffs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.protocols.dlt645_layout import Field, Layout, Sign

ALL: Final = 0x0F
TARIFFS: Final = ("", *(f"T{tariff}" for tariff in range(1, 15)))
# Total and four tariffs: what every meter has, so zeros behind them are spare.
ALWAYS: Final = 5
_PHASES: Final = ("A", "B", "C")

# The upper half of DI0, under an even DI1 (active) and an odd one (reactive).
_ACTIVE: Final = {0x00: "active_combined", 0x10: "active_import", 0x20: "active_export"}
_REACTIVE: Final = {
    0x10: "reactive_import",
    0x20: "reactive_export",
    0x30: "reactive_q1",
    0x40: "reactive_q4",
    0x50: "reactive_q2",
    0x60: "reactive_q3",
}
_WHEN: Final = {0x0: "", 0x4: "S1", 0x8: "S2"}


def _groups() -> dict[int, tuple[Field, tuple[str, ...], int]]:
    """Return what is split by tariffs or phases: identifier without its last digit -> field, channels, first digit."""
    found: dict[int, tuple[Field, tuple[str, ...], int]] = {
        0xB610: (Field("voltage", 2), _PHASES, 1),
        0xB620: (Field("current", 2, 2), _PHASES, 1),
        0xB630: (Field("power_active", 3, 4, Sign.UNSAID), ("", *_PHASES), 0),
        0xB640: (Field("power_reactive", 2, 2, Sign.UNSAID), ("", *_PHASES), 0),
        0xB650: (Field("power_factor", 2, 3, Sign.UNSAID), ("", *_PHASES), 0),
        0xB310: (Field("meter_phase_failures", 2), ("", *_PHASES), 0),
        0xB320: (Field("meter_phase_failure_time", 3), ("", *_PHASES), 0),
    }
    for month, when in _WHEN.items():
        channels = tuple("/".join(part for part in (tariff, when) if part) for tariff in TARIFFS)
        for odd, kinds in enumerate((_ACTIVE, _REACTIVE)):
            for digit, what in kinds.items():
                signed = Sign.UNSAID if what == "active_combined" else Sign.NONE
                found[(0x90 | month | odd) << 8 | digit] = (Field(f"energy_{what}", 4, 2, signed), channels, 0)
                if what != "active_combined":
                    found[(0xA0 | month | odd) << 8 | digit] = (Field(f"demand_{what}", 3, 4), channels, 0)
    return found


GROUPS: Final = _groups()

SINGLES: Final[Mapping[int, tuple[Field, str]]] = {
    0xB212: (Field("meter_programmings", 2), ""),
    0xB213: (Field("meter_demand_resets", 2), ""),
    0xB214: (Field("meter_battery_time", 3), ""),
    0xC020: (Field("status_word", 1, binary=True), "meter"),
    0xC021: (Field("status_word", 1, binary=True), "grid"),
    0xC030: (Field("meter_constant_active", 3), ""),
    0xC031: (Field("meter_constant_reactive", 3), ""),
}

# Numbers as printed: identifier -> name and bytes.
TEXTS: Final[Mapping[int, tuple[str, int]]] = {
    0xC032: ("meter number", 6),
    0xC033: ("customer number", 6),
    0xC034: ("device code", 6),
}

DATE: Final = 0xC010
TIME: Final = 0xC011


@lru_cache(maxsize=256)
def layout(identifier: int) -> Layout:
    """Return what the reply to an identifier holds. Raises Rejected(UNSUPPORTED) for what is no quantity of the tables."""
    if single := SINGLES.get(identifier):
        return Layout((single[0],), (single[1],), whole=True)
    group, digit = GROUPS.get(identifier & 0xFFF0), identifier & 0x0F
    if group is not None:
        field, channels, first = group
        if digit == ALL:
            return Layout((field,), channels)
        if 0 <= digit - first < len(channels):
            return Layout((field,), channels[digit - first : digit - first + 1], whole=True)
    raise Rejected(Reason.UNSUPPORTED, f"identifier {identifier:04x}")


def is_by_tariff(identifier: int) -> bool:
    """Say whether an identifier asks for all tariffs of a register."""
    group = GROUPS.get(identifier & 0xFFF0)
    return identifier & 0x0F == ALL and group is not None and len(group[1]) == len(TARIFFS)

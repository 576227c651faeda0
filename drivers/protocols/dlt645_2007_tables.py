"""DL/T 645-2007, annex A: what each data identifier holds, as data.

An identifier has four bytes, DI3 to DI0. Which tables are here:

    A.1  00 QQ TT SS   energy: QQ quantity, TT tariff (FF: all), SS settlement day (00 now, 01 the last, to 0C)
    A.2  01 QQ TT SS   greatest demand with its time, in the same order
    A.3  02 QQ PP HH   variables: PP phase (FF: all), HH harmonic; 02 80 00 NN single ones
    A.4  03 .. .. 00   of the events: how often; not their records
    A.5  04 00 ...     of the parameters: clock, number, constants, texts, status words
    A.6  05 KK QQ NN   freezes: KK kind, QQ 00 the time, 01 to 08 energy, 09 0A demand, 10 powers; NN how many back

Not here, and refused as UNSUPPORTED: records of events (A.4), load records (A.7), tariff tables and passwords (A.5), blocks
over settlement days (SS = FF), and what grid companies added under numbers that others use otherwise.
Sources: the standard; the lists of 600888/dlt645 (names and formats; its units of power factor, distortion and harmonics are
wrong, and were taken from the standard); bobyuxinyang/dlt645_2007. Compared with the tables of sulfurandcu/dlt645-tool: 92
identifiers of A.1 and A.3, none differs. Limit: 63 tariffs, 12 settlement days.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.protocols.dlt645_layout import Field, Layout, Sign

ALL: Final = 0xFF
MAX_TARIFF: Final = 63
MAX_SETTLEMENT: Final = 12
MAX_HARMONIC: Final = 21
PHASES: Final = ("A", "B", "C")
TARIFFS: Final = ("", *(f"T{tariff}" for tariff in range(1, MAX_TARIFF + 1)))
_TOTAL_AND_PHASES: Final = ("", *PHASES)

# A.1 and A.2: the ten quantities that stand at DI2 01 to 0A in total, at 15 to 1E for phase A, 29 for B, 3D for C.
_TOTALS: Final = (
    ("active_import", Sign.NONE),
    ("active_export", Sign.NONE),
    ("reactive_1", Sign.BIT),
    ("reactive_2", Sign.BIT),
    ("reactive_q1", Sign.NONE),
    ("reactive_q2", Sign.NONE),
    ("reactive_q3", Sign.NONE),
    ("reactive_q4", Sign.NONE),
    ("apparent_import", Sign.NONE),
    ("apparent_export", Sign.NONE),
)
# A.1: what stands at DI2 80 to 86 in total, at 94 for phase A, A8 for B, BC for C.
_PARTS: Final = (
    ("energy_associated", Sign.UNSAID),
    ("energy_base_import", Sign.NONE),
    ("energy_base_export", Sign.NONE),
    ("energy_harmonic_import", Sign.NONE),
    ("energy_harmonic_export", Sign.NONE),
    ("energy_copper_loss", Sign.UNSAID),
    ("energy_iron_loss", Sign.UNSAID),
)
_FIRST_OF_TOTALS: Final = {"": 0x01, "A": 0x15, "B": 0x29, "C": 0x3D}
_FIRST_OF_PARTS: Final = {"": 0x80, "A": 0x94, "B": 0xA8, "C": 0xBC}


def _kinds() -> tuple[dict[int, tuple[Field, str]], dict[int, tuple[Field, str]]]:
    """Return the energies and the demands: DI2 -> field and phase."""
    energies = {0x00: (Field("energy_active_combined", 4, 2, Sign.BIT), "")}
    demands = {}
    for phase, first in _FIRST_OF_TOTALS.items():
        for step, (what, sign) in enumerate(_TOTALS):
            energies[first + step] = (Field(f"energy_{what}", 4, 2, sign), phase)
            # A demand has a sign in every quantity: the standard's note to A.2.
            demands[first + step] = (Field(f"demand_{what}", 3, 4, Sign.BIT, stamped=True), phase)
    for phase, first in _FIRST_OF_PARTS.items():
        for step, (what, sign) in enumerate(_PARTS):
            energies[first + step] = (Field(what, 4, 2, sign), phase)
    return energies, demands


ENERGIES, DEMANDS = _kinds()

# A.3: DI2 -> the field, and what DI1 counts through (from 1 where there is no total).
VARIABLES: Final[Mapping[int, tuple[Field, tuple[str, ...]]]] = {
    0x01: (Field("voltage", 2, 1), PHASES),
    0x02: (Field("current", 3, 3, Sign.BIT), PHASES),
    0x03: (Field("power_active", 3, 4, Sign.BIT), _TOTAL_AND_PHASES),
    0x04: (Field("power_reactive", 3, 4, Sign.BIT), _TOTAL_AND_PHASES),
    0x05: (Field("power_apparent", 3, 4, Sign.BIT), _TOTAL_AND_PHASES),
    0x06: (Field("power_factor", 2, 3, Sign.BIT), _TOTAL_AND_PHASES),
    0x07: (Field("meter_phase_angle", 2, 1), PHASES),
    0x08: (Field("voltage_distortion", 2, 2), PHASES),
    0x09: (Field("current_distortion", 2, 2), PHASES),
}
_HARMONICS: Final[Mapping[int, Field]] = {
    0x0A: Field("voltage_harmonic", 2, 2),
    0x0B: Field("current_harmonic", 2, 2),
}

# Identifiers that stand alone: the field and its channel.
SINGLES: Final[Mapping[int, tuple[Field, str]]] = {
    0x00900100: (Field("energy_credit", 4, 2), ""),
    0x00900101: (Field("energy_overdraft", 4, 2), ""),
    0x00900200: (Field("meter_credit", 4, 2), ""),
    0x00900201: (Field("meter_overdraft", 4, 2), ""),
    0x02800001: (Field("current", 3, 3, Sign.BIT), "N"),
    0x02800002: (Field("frequency", 2, 2), ""),
    0x02800003: (Field("power_active_minute", 3, 4, Sign.BIT), ""),
    0x02800004: (Field("power_active_demand", 3, 4, Sign.BIT), ""),
    0x02800005: (Field("power_reactive_demand", 3, 4, Sign.BIT), ""),
    0x02800006: (Field("power_apparent_demand", 3, 4, Sign.BIT), ""),
    0x02800007: (Field("meter_temperature", 2, 1, Sign.BIT), ""),
    0x02800008: (Field("meter_battery_voltage", 2, 2), "clock"),
    0x02800009: (Field("meter_battery_voltage", 2, 2), "readout"),
    0x0280000A: (Field("meter_battery_time", 4), ""),
    # The grid of southern China has other quantities from here on, of other lengths: a price has four bytes.
    0x0280000B: (Field("meter_price", 4, 4), ""),
    # A.4: how often it has happened so far; the records themselves are not read.
    0x03110000: (Field("meter_power_failures", 3), ""),
    0x03300000: (Field("meter_programmings", 3), ""),
    0x03300100: (Field("meter_clearings", 3), ""),
    0x03300200: (Field("meter_demand_resets", 3), ""),
    0x03300400: (Field("meter_clock_settings", 3), ""),
    0x03300D00: (Field("meter_cover_openings", 3), ""),
    0x03300E00: (Field("meter_terminal_openings", 3), ""),
    0x04000409: (Field("meter_constant_active", 3), ""),
    0x0400040A: (Field("meter_constant_reactive", 3), ""),
}

STATUS_BLOCK: Final = 0x040005FF
STATUS_WORDS: Final = tuple(range(0x04000501, 0x04000508))
_STATUS_WORD: Final = Field("status_word", 2, binary=True)
# What the State Grid added, in some meters' blocks behind the seven words: which keys are the makers' still.
KEY_STATUS: Final = 0x04000508
_KEY_STATUS: Final = Field("status_word", 4, binary=True)

# A.5, texts: identifier -> name, bytes (None: any length), and whether it is digits.
TEXTS: Final[Mapping[int, tuple[str, int, bool]]] = {
    0x04000401: ("communication address", 6, True),
    0x04000402: ("meter number", 6, True),
    0x04000403: ("asset number", 32, False),
    0x04000404: ("rated voltage", 6, False),
    0x04000405: ("basic current", 6, False),
    0x04000406: ("greatest current", 6, False),
    0x04000407: ("accuracy class, active", 4, False),
    0x04000408: ("accuracy class, reactive", 4, False),
    0x0400040B: ("model", 10, False),
    0x0400040C: ("date of manufacture", 10, False),
    0x0400040D: ("protocol version", 16, False),
}

DATE: Final = 0x04000101
TIME: Final = 0x04000102

# A.6: DI2 -> the letter of the channel. DI0 says how many freezes back, at most so many.
FREEZES: Final[Mapping[int, tuple[str, int]]] = {
    0x00: ("F", 12),  # at set times
    0x01: ("I", 3),  # at once
    0x02: ("Z", 2),  # change of the yearly zones
    0x03: ("P", 2),  # change of the daily periods
    0x06: ("D", 62),  # each day
}
_HOURLY, _HOURLY_LETTER, _MAX_HOURS = 0x04, "O", 254
DAILY: Final = 0x05060000
_FREEZE_ENERGIES: Final = range(0x01, 0x09)
_FREEZE_DEMANDS: Final = {0x09: 0x01, 0x0A: 0x02}
_FREEZE_POWERS: Final = 0x10


@lru_cache(maxsize=1024)
def layout(identifier: int) -> Layout:
    """Return what the reply to an identifier holds. Raises Rejected(UNSUPPORTED) for what is no quantity of the tables."""
    if single := SINGLES.get(identifier):
        return Layout((single[0],), (single[1],), whole=True)
    if identifier == STATUS_BLOCK:
        return Layout((_STATUS_WORD,) * 7 + (_KEY_STATUS,), (*"1234567", "keys"))
    if identifier == KEY_STATUS:
        return Layout((_KEY_STATUS,), ("keys",), whole=True)
    if identifier in STATUS_WORDS:
        return Layout((_STATUS_WORD,), (str(identifier & 0xFF),), whole=True)
    group, kind, part, tail = identifier.to_bytes(4, "big")
    found = None
    if group in (0x00, 0x01) and tail <= MAX_SETTLEMENT:
        found = _energy((ENERGIES, DEMANDS)[group], kind, part, f"S{tail}" if tail else "")
    elif group == 0x02:
        found = _harmonic(kind, part, tail) if kind in _HARMONICS else _variable(kind, part, tail)
    elif group == 0x05:
        found = _freeze(kind, part, tail)
    if found is None:
        raise Rejected(Reason.UNSUPPORTED, f"identifier {identifier:08x}")
    return found


def _channels(names: tuple[str, ...], when: str) -> tuple[str, ...]:
    return tuple("/".join(part for part in (name, when) if part) for name in names) if when else names


def _energy(table: Mapping[int, tuple[Field, str]], kind: int, part: int, when: str) -> Layout | None:
    entry = table.get(kind)
    if entry is None:
        return None
    field, phase = entry
    # Only what stands in A.1 and A.2 up to 0A is split by tariffs.
    if kind > 0x0A:
        return Layout((field,), _channels((phase,), when), whole=True) if part == 0 else None
    if part == ALL:
        return Layout((field,), _channels(TARIFFS, when))
    return Layout((field,), _channels(TARIFFS[part : part + 1], when), whole=True) if part <= MAX_TARIFF else None


def _variable(kind: int, part: int, tail: int) -> Layout | None:
    entry = VARIABLES.get(kind)
    if entry is None or tail:
        return None
    field, channels = entry
    if part == ALL:
        return Layout((field,), channels)
    at = part - (channels is PHASES)
    return Layout((field,), channels[at : at + 1], whole=True) if 0 <= at < len(channels) else None


def _harmonic(kind: int, part: int, tail: int) -> Layout | None:
    if not 1 <= part <= len(PHASES):
        return None
    names = tuple(f"{PHASES[part - 1]}/H{number}" for number in range(1, MAX_HARMONIC + 1))
    if tail == ALL:
        return Layout((_HARMONICS[kind],), names)
    return Layout((_HARMONICS[kind],), names[tail - 1 : tail], whole=True) if 1 <= tail <= MAX_HARMONIC else None


def _freeze(kind: int, part: int, back: int) -> Layout | None:
    if kind == _HOURLY:
        # Each hour keeps the totals of import and export only.
        if part not in (0x01, 0x02) or not 1 <= back <= _MAX_HOURS:
            return None
        return Layout((ENERGIES[part][0],), (f"{_HOURLY_LETTER}{back}",), whole=True)
    letter, most = FREEZES.get(kind, ("", 0))
    if not 1 <= back <= most:
        return None
    when = f"{letter}{back}"
    if part in _FREEZE_ENERGIES:
        return Layout((ENERGIES[part][0],), _channels(TARIFFS, when))
    if part in _FREEZE_DEMANDS:
        return Layout((DEMANDS[_FREEZE_DEMANDS[part]][0],), _channels(TARIFFS, when))
    if part == _FREEZE_POWERS:
        names = _channels(_TOTAL_AND_PHASES, when)
        fields = (VARIABLES[0x03][0],) * len(names) + (VARIABLES[0x04][0],) * len(names)
        return Layout(fields, names * 2, whole=True)
    return None

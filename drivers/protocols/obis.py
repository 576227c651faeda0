"""What OBIS codes of electricity meters mean (EN 62056-6-1): group C says what, D how, E which tariff.

Shared by the protocols that name their values so (P1, SML). Codes that stand for no quantity here, such as counters of failures,
texts and thresholds, give None. Group F says of when: 255 (or none) is now, anything else a billing period of before. Group B
says which channel: 0 and 1 are the meter's own, only its maker knows what a further one is.
Limits: the groups of electricity (A = 1); C 1-80 and 91, 92, D 4, 6, 7, 8, E up to 63.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from drivers.kit import QUANTITIES, Reading

_PHASES: Final = ("", "A", "B", "C")
_PHASE_STEP: Final = 20
_INSTANTANEOUS, _INTEGRAL, _DEMAND, _GREATEST = 7, 8, 4, 6
_LAST_DEMAND: Final = 10
MOST_TARIFF: Final = 63
ELECTRICITY: Final = 1
NOW: Final = 255
_OWN_CHANNELS: Final = (0, 1)

_ENERGIES: Final[Mapping[int, str]] = {
    1: "energy_active_import",
    2: "energy_active_export",
    3: "energy_reactive_import",
    4: "energy_reactive_export",
    5: "energy_reactive_q1",
    6: "energy_reactive_q2",
    7: "energy_reactive_q3",
    8: "energy_reactive_q4",
    9: "energy_apparent_import",
    10: "energy_apparent_export",
    15: "energy_active_absolute",
    16: "energy_active_combined",
}
# Quantity, and what its channel says beside the phase.
_PRESENT: Final[Mapping[int, tuple[str, str]]] = {
    1: ("power_active", "import"),
    2: ("power_active", "export"),
    3: ("power_reactive", "import"),
    4: ("power_reactive", "export"),
    5: ("power_reactive", "Q1"),
    6: ("power_reactive", "Q2"),
    7: ("power_reactive", "Q3"),
    8: ("power_reactive", "Q4"),
    9: ("power_apparent", "import"),
    10: ("power_apparent", "export"),
    11: ("current", ""),
    12: ("voltage", ""),
    13: ("power_factor", ""),
    14: ("frequency", ""),
    15: ("power_active", "absolute"),
    16: ("power_active", ""),
}
_NEUTRAL: Final[Mapping[int, tuple[str, str]]] = {91: ("current", "N"), 92: ("voltage", "N")}
_MEANS: Final[Mapping[int, tuple[str, str]]] = {
    1: ("power_active_demand", "import"),
    2: ("power_active_demand", "export"),
}
# Greatest demands, each also by tariff.
_DEMANDS: Final[Mapping[int, str]] = {
    c: name.replace("energy_", "demand_") for c, name in _ENERGIES.items() if c <= _LAST_DEMAND
}

# The unit of a quantity -> units that meters write, and the factor to it.
FACTORS: Final[Mapping[str, Mapping[str, Decimal]]] = {
    "kWh": {"Wh": Decimal("0.001"), "kWh": Decimal(1), "MWh": Decimal(1000)},
    "kvarh": {"varh": Decimal("0.001"), "kvarh": Decimal(1), "Mvarh": Decimal(1000)},
    "kVAh": {"VAh": Decimal("0.001"), "kVAh": Decimal(1), "MVAh": Decimal(1000)},
    "kW": {"W": Decimal("0.001"), "kW": Decimal(1), "MW": Decimal(1000)},
    "kvar": {"var": Decimal("0.001"), "kvar": Decimal(1), "Mvar": Decimal(1000)},
    "kVA": {"VA": Decimal("0.001"), "kVA": Decimal(1), "MVA": Decimal(1000)},
    "V": {"V": Decimal(1), "kV": Decimal(1000)},
    "A": {"A": Decimal(1), "kA": Decimal(1000)},
    "Hz": {"Hz": Decimal(1), "kHz": Decimal(1000)},
    "1": {"": Decimal(1)},
    "m3": {"m3": Decimal(1), "dm3": Decimal("0.001"), "l": Decimal("0.001")},
    "GJ": {"GJ": Decimal(1), "MJ": Decimal("0.001")},
}
_REACTIVE: Final = re.compile("var", re.IGNORECASE)
# What counts one way only: below nothing it cannot be.
_ONE_WAY: Final = ("voltage", "frequency", *(name for name, one in QUANTITIES.items() if one.cumulative))


def factor(quantity: str, unit: str) -> Decimal | None:
    """Return what makes a unit that meters write the quantity's own; None where it does not fit (kVArh is kvarh, mWh no MWh)."""
    return FACTORS[QUANTITIES[quantity].unit].get(_REACTIVE.sub("var", unit))


def is_own(b: int) -> bool:
    """Say whether group B is the meter's own channel."""
    return b in _OWN_CHANNELS


def cannot_be(reading: Reading) -> bool:
    """Say whether a value is below nothing where its quantity has no sign."""
    return reading.value < 0 and reading.quantity in _ONE_WAY


def settled(readings: Iterable[Reading]) -> tuple[tuple[Reading, ...], tuple[str, ...]]:
    """Return each register once, and the names of those that a telegram tells twice with two values: neither is taken."""
    found: dict[tuple[str, str], Reading] = {}
    twice: dict[tuple[str, str], str] = {}
    for one in readings:
        key = one.quantity, one.channel
        if (known := found.setdefault(key, one)).value != one.value:
            twice[key] = f"{one.quantity} {one.channel} = {known.value} and {one.value}"
    return tuple(one for key, one in found.items() if key not in twice), tuple(twice.values())


def meaning(c: int, d: int, e: int) -> tuple[str, str] | None:
    """Return quantity and channel of 1-0:C.D.E, None for what is no quantity here.

    The channel is the phase ("N" the neutral), the tariff ("T1"), "import" or "export" where a power is given as two, "Q1" to
    "Q4" where it is given by quadrant, "absolute" where it is both ways together, without a sign.
    """
    if c in _NEUTRAL:
        return _NEUTRAL[c] if (d, e) == (_INSTANTANEOUS, 0) else None
    turn, base = divmod(c - 1, _PHASE_STEP)
    base += 1
    if not 0 <= turn < len(_PHASES):
        return None
    phase = _PHASES[turn]
    counted = {_INTEGRAL: _ENERGIES, _GREATEST: _DEMANDS}.get(d, {})
    if base in counted and e <= MOST_TARIFF:
        return counted[base], "/".join(one for one in (phase, f"T{e}" if e else "") if one)
    if e:
        return None
    if d == _INSTANTANEOUS and base in _PRESENT:
        quantity, way = _PRESENT[base]
        return quantity, "/".join(one for one in (phase, way) if one)
    if d == _DEMAND and not phase and base in _MEANS:
        return _MEANS[base]
    return None

"""What OBIS codes of electricity meters mean (EN 62056-6-1): group C says what, D how, E which tariff.

Shared by the protocols that name their values so (P1, SML). Codes that stand for no quantity here, such as counters of failures,
texts and thresholds, give None.
Limits: the groups of electricity (A = 1); C 1-80, D 4, 6, 7, 8, E up to 63.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

_PHASES: Final = ("", "A", "B", "C")
_PHASE_STEP: Final = 20
_INSTANTANEOUS, _INTEGRAL, _DEMAND, _GREATEST = 7, 8, 4, 6
MOST_TARIFF: Final = 63

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
    16: "energy_active_combined",
}
# Quantity, and what its channel says beside the phase.
_PRESENT: Final[Mapping[int, tuple[str, str]]] = {
    1: ("power_active", "import"),
    2: ("power_active", "export"),
    3: ("power_reactive", "import"),
    4: ("power_reactive", "export"),
    9: ("power_apparent", "import"),
    10: ("power_apparent", "export"),
    11: ("current", ""),
    12: ("voltage", ""),
    13: ("power_factor", ""),
    14: ("frequency", ""),
    16: ("power_active", ""),
}
_DEMANDS: Final[Mapping[tuple[int, int], tuple[str, str]]] = {
    (1, _DEMAND): ("power_active_demand", "import"),
    (2, _DEMAND): ("power_active_demand", "export"),
    (1, _GREATEST): ("demand_active_import", ""),
    (2, _GREATEST): ("demand_active_export", ""),
}

# The unit of a quantity -> units that meters write, and the factor to it.
FACTORS: Final[Mapping[str, Mapping[str, Decimal]]] = {
    "kWh": {"Wh": Decimal("0.001"), "kWh": Decimal(1), "MWh": Decimal(1000)},
    "kvarh": {"varh": Decimal("0.001"), "kvarh": Decimal(1)},
    "kVAh": {"VAh": Decimal("0.001"), "kVAh": Decimal(1)},
    "kW": {"W": Decimal("0.001"), "kW": Decimal(1)},
    "kvar": {"var": Decimal("0.001"), "kvar": Decimal(1)},
    "kVA": {"VA": Decimal("0.001"), "kVA": Decimal(1)},
    "V": {"V": Decimal(1)},
    "A": {"A": Decimal(1)},
    "Hz": {"Hz": Decimal(1)},
    "1": {"": Decimal(1)},
    "m3": {"m3": Decimal(1), "dm3": Decimal("0.001"), "l": Decimal("0.001")},
    "GJ": {"GJ": Decimal(1), "MJ": Decimal("0.001")},
}


def meaning(c: int, d: int, e: int) -> tuple[str, str] | None:
    """Return quantity and channel of 1-0:C.D.E, None for what is no quantity here.

    The channel is the phase, the tariff ("T1"), and "import" or "export" where a power is given as two.
    """
    turn, base = divmod(c - 1, _PHASE_STEP)
    base += 1
    if not 0 <= turn < len(_PHASES):
        return None
    phase = _PHASES[turn]
    if d == _INTEGRAL and base in _ENERGIES and e <= MOST_TARIFF:
        return _ENERGIES[base], "/".join(one for one in (phase, f"T{e}" if e else "") if one)
    if e:
        return None
    if d == _INSTANTANEOUS and base in _PRESENT:
        quantity, way = _PRESENT[base]
        return quantity, "/".join(one for one in (phase, way) if one)
    if not phase and (base, d) in _DEMANDS:
        return _DEMANDS[base, d]
    return None

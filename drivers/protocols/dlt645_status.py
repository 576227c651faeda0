"""The status words of DL/T 645-2007 (annex C, tables C.1 to C.5): what their bits say that people should know.

Only faults and interference become signals; directions, seasons and permissions stay in the published word. Each is a
level: it is told when it begins and when it ends. Bits that the standard reserves mean nothing here.
Limit: seven words of 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from drivers.kit import Reading, Signal, SignalKind


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one bit says: `code` is also the channel, so that two faults of a meter do not hide each other."""

    kind: SignalKind
    code: str


_PROBLEM, _TAMPER, _BATTERY = SignalKind.PROBLEM, SignalKind.TAMPER, SignalKind.LOW_BATTERY

_OF_A_PHASE: Final[Mapping[int, str]] = {
    0: "voltage-lost",
    1: "voltage-low",
    2: "voltage-high",
    3: "current-lost",
    4: "current-high",
    5: "overload",
    6: "power-reversed",
    7: "phase-failed",
    8: "current-cut",
}
# Word -> bit -> meaning.
MEANINGS: Final[Mapping[int, Mapping[int, Meaning]]] = {
    1: {
        2: Meaning(_BATTERY, "clock-battery"),
        3: Meaning(_BATTERY, "readout-battery"),
        13: Meaning(_PROBLEM, "memory-fault"),
        15: Meaning(_PROBLEM, "clock-fault"),
    },
    3: {4: Meaning(_PROBLEM, "relay-open")},
    **{
        word: {bit: Meaning(_PROBLEM, f"{what}-{phase}") for bit, what in _OF_A_PHASE.items()}
        for word, phase in ((4, "a"), (5, "b"), (6, "c"))
    },
    7: {
        0: Meaning(_PROBLEM, "voltage-sequence"),
        1: Meaning(_PROBLEM, "current-sequence"),
        2: Meaning(_PROBLEM, "voltage-unbalance"),
        3: Meaning(_PROBLEM, "current-unbalance"),
        4: Meaning(_PROBLEM, "auxiliary-supply-lost"),
        9: Meaning(_TAMPER, "meter-cover"),
        10: Meaning(_TAMPER, "terminal-cover"),
    },
}


def signals(readings: Iterable[Reading]) -> tuple[Signal, ...]:
    """Return what the words among `readings` say, each bit that means something as a level."""
    return tuple(
        Signal(meaning.kind, meaning.code, meaning.code, level=bool(int(one.value) >> bit & 1))
        for one in readings
        if one.quantity == "status_word" and one.channel.isdigit()
        for bit, meaning in MEANINGS.get(int(one.channel), {}).items()
    )

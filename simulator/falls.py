"""A fall that lasts over a dead time of the gateway may be told once more after it.

It is a level that a device repeats, and nobody knows what it was meanwhile: the same fall, or another one of which nobody
who came knows. So the gateway tells it again rather than take it for the one before, whatever state that alarm is in.
Nor does a call system's call survive one: it has no number, so where its acknowledgement went with the process it is told again.
"""

from __future__ import annotations

from simulator.findings import moment
from simulator.ledgers import Decision, Emission, Ledgers

FALL = "fall"
BED = "bed"


def is_retold(emission: Emission, one: Decision, other: Decision, *, ledgers: Ledgers) -> bool:
    """Are these two events of one fall, or of one call of a bed, with a start of the gateway between them?"""
    first, last = sorted((_time(one), _time(other)))
    starts = [fault.t for fault in ledgers.faults if fault.fault == "start"]
    return emission.kind in (FALL, BED) and any(first <= t <= last for t in starts)


def _time(decision: Decision) -> float:
    return moment(decision.event.get("time")) or 0.0

"""Falls over a dead time of the gateway: a fall is a level that a device repeats, and nobody knows what it was meanwhile.

- One that lasts over the dead time may be told once more after it (`is_retold`).
- One that begins while the alarm of a fall before it stands, unattended, with a dead time between, may be taken for the same
  (`is_merged`): who comes for the first finds the second. As soon as anybody has acknowledged the first, it must call again.
"""

from __future__ import annotations

from simulator.findings import ALARM, RAISED, Taken, moment
from simulator.ledgers import Decision, Emission, Ledgers

FALL = "fall"


def is_retold(emission: Emission, one: Decision, other: Decision, *, ledgers: Ledgers) -> bool:
    """Are these two events of one fall, with a start of the gateway between them?"""
    first, last = sorted((_time(one), _time(other)))
    starts = [fault.t for fault in ledgers.faults if fault.fault == "start"]
    return emission.kind == FALL and any(first <= t <= last for t in starts)


def is_merged(emission: Emission, taken: Taken, *, ledgers: Ledgers) -> bool:
    """Is this a fall that may have been taken for the one before it?"""
    if emission.kind != FALL:
        return False
    told = [one for one in taken.first.values() if one.device == emission.device and one.type.startswith(ALARM)]
    before = [one for one in told if one.type == RAISED and _time(one) < emission.t]
    if not before:
        return False
    raised = max(before, key=_time)
    alarm = raised.event.get("correlationid")
    attended = [one for one in told if one.type != RAISED and one.event.get("correlationid") == alarm]
    dead = any(fault.fault == "kill" and _time(raised) <= fault.t <= emission.t_last for fault in ledgers.faults)
    return dead and not any(_time(one) <= emission.t for one in attended)


def _time(decision: Decision) -> float:
    return moment(decision.event.get("time")) or 0.0

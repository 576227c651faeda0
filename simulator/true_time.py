"""When things really happened, in a run in which the gateway's wall clock was made to jump.

The machine's own clocks stood still, and the boot-time clock of the gateway is the machine's: a run's score says how both
hang together. So an event's true time follows from its boot-time stamp, and with a lying wall clock nothing else is
believed: its `time` and the ends of a gap are put right before the audit looks at them, its `recordedtime`, which has no
boot-time stamp, is set to its `time` (so an acknowledgement before the recording is found only if it came before the input).
What an event says as "synced" or "corrected" must still be one of two things: the true time, or the true time plus one of
the jumps. One that is "unsynced" may say anything, for it says that nobody knows. Limit: 2 s.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from simulator.findings import GAP, Book, moment
from simulator.ledgers import Decision, Ledgers

TOLERANCE_S: Final = 2.0
JUMP: Final = "clock"
UNSYNCED: Final = "unsynced"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def of_this_boot() -> dict[str, Any]:
    """Return the boot's id, and the wall-clock moment at which its boot-time clock was 0."""
    zero = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return {"id": _BOOT_ID.read_text(encoding="ascii").strip(), "zero": zero}


def straightened(ledgers: Ledgers, book: Book) -> Ledgers:
    """Return the ledgers with true times, if a clock lied in them. A time neither true nor off by a jump is an offence."""
    jumps = {float(fault.facts.get("jump_s", 0.0)) for fault in ledgers.faults if fault.fault == JUMP}
    boot = ledgers.scenario.get("boot")
    if not jumps or not isinstance(boot, Mapping):
        return ledgers
    decisions = {}
    for destination, of in ledgers.decisions.items():
        decisions[destination] = tuple(_straight(one, boot, jumps | {0.0}, book) for one in of)
    return replace(ledgers, decisions=decisions)


def _straight(one: Decision, boot: Mapping[str, Any], offsets: set[float], book: Book) -> Decision:
    clock = one.data.get("clock")
    if not isinstance(clock, Mapping) or clock.get("boot") != boot["id"]:
        return one
    zero, said = float(boot["zero"]), moment(one.event.get("time"))
    true = zero + float(clock["mono_ms"]) / 1000
    wrong = said is None or min(abs(said - true - off) for off in offsets) > TOLERANCE_S
    if one.status == "accepted" and wrong and clock.get("state") != UNSYNCED:
        facts = {"id": one.id, "type": one.type, "said": one.event.get("time"), "true": _iso(true)}
        book.offence("wrong_times", one.device, facts)
    event: dict[str, Any] = {**one.event, "time": _iso(true), "recordedtime": _iso(true)}
    if one.type == GAP and one.data.get("from_boot") == boot["id"]:
        ends = {"from": one.data.get("from_mono_ms"), "to": one.data.get("to_mono_ms")}
        told = {name: _iso(zero + mono / 1000) for name, mono in ends.items() if isinstance(mono, int)}
        event["data"] = {**one.data, **told}
    return replace(one, event=event)


def _iso(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).isoformat(timespec="milliseconds")

"""What an audit finds: offences counted and described, a tally for each device, and what a platform took, in order.

Limits: the first 100 offences are described, all are counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, Final

from simulator.ledgers import Decision

MAX_DETAILS: Final = 100
RAISED: Final = "cn.eldercare.alarm.raised.v1"
METER: Final = "cn.eldercare.telemetry.meter.v1"
GAP: Final = "cn.eldercare.gateway.gap.v1"
ALARM: Final = "cn.eldercare.alarm."
TELEMETRY: Final = "cn.eldercare.telemetry."
ENVIRONMENT: Final = "cn.eldercare.telemetry.environment.v1"
EVERYTHING: Final = ("*",)
POISONED: Final = "poisoned"  # the code of what the platform was told never to accept

# Each makes a run unclean; the words end a sentence that begins with their number.
OFFENCES: Final = {
    "lost": "inputs lost",
    "duplicated": "events doubled",
    "reordered": "events accepted out of order",
    "phantom": "events that no device caused",
    "wrong_values": "values that the device never gave",
    "sequence_gaps": "numbers missing in the gateway's sequence",
    "deliveryseq_gaps": "numbers missing in the delivery sequence",
    "conflicts": "numbers that stand for two events",
    "stale_meters": "meters without a recent accepted reading",
    "rejected": "events rejected by the platform",
    "unwanted": "events sent to a platform that did not ask for them",
    "unconfirmed": "events taken for accepted although the platform's answer was lost",
    "acked_early": "lines acknowledged before they were recorded",
    "silent_gaps": "dead times of a link that no gap told of",
    "wide_gaps": "gaps that claim more than the dead time",
    "late": "alarms that waited although a way to the platform stood",
    "wrong_times": "events whose time is neither true nor what the clock said",
    "untold": "alarms of which staff's doings never reached the platform",
}


@dataclass(slots=True)
class Book:
    """Offences and other counts, the first offences in words, and a tally for each device."""

    counts: Counter[str] = field(default_factory=Counter)
    details: list[dict[str, Any]] = field(default_factory=list)
    devices: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def offence(self, name: str, device: str, facts: dict[str, Any], *, count: int = 1) -> None:
        """Enter one offence. `device` is "" for what concerns no single device."""
        self.counts[name] += count
        if device:
            self.devices[device][name] += count
        if len(self.details) < MAX_DETAILS:
            self.details.append({"offence": name, "device": device, **facts})


@dataclass(slots=True)
class Taken:
    """What one destination decided: first acceptances and first rejections by id, in the order of their coming.

    `refused` are those of the rejected that the platform was told never to accept: they must be dead letters.
    `types` are the event types that it asked for, as its configuration has them. `renumbered`: those that came first without a
    number, for no disk had taken them, and got one in the stream that came after: it says nothing of when they were told.
    `unnumbered`: all that came first without a number, and when their number came.
    """

    destination: str
    types: tuple[str, ...] = EVERYTHING
    first: dict[str, Decision] = field(default_factory=dict)
    refused: dict[str, Decision] = field(default_factory=dict)
    rejected: dict[str, Decision] = field(default_factory=dict)
    arrivals: int = 0
    ids: set[str] = field(default_factory=set)
    renumbered: set[str] = field(default_factory=set)
    unnumbered: dict[str, float] = field(default_factory=dict)

    def wants(self, type_: str) -> bool:
        """Did the destination ask for events of this type?"""
        noun = type_.removeprefix("cn.eldercare.").removesuffix(".v1")
        return any(fnmatchcase(noun, pattern) for pattern in self.types)


def take(destination: str, decisions: Sequence[Decision], book: Book, *, types: tuple[str, ...] = EVERYTHING) -> Taken:
    """Sort the decisions of one destination. Accepted twice, rejected, or not asked for: each is an offence."""
    taken = Taken(destination, types)
    for decision in decisions:
        taken.arrivals += 1
        taken.ids.add(decision.id)
        facts = {"id": decision.id, "type": decision.type, "t": decision.t}
        if decision.status == "rejected" and decision.code == POISONED:
            taken.refused.setdefault(decision.id, decision)
            taken.rejected.setdefault(decision.id, decision)
        elif decision.status == "rejected" and decision.id not in taken.rejected:
            taken.rejected[decision.id] = decision
            book.offence("rejected", decision.device, facts)
        if decision.status == "duplicate" and decision.sequence and decision.id in taken.first:
            # Sent before a disk could take it, and stored since: its number comes with a later arrival.
            first = taken.first[decision.id]
            if not first.sequence:
                taken.unnumbered[decision.id] = decision.t
                if first.streamid not in ("", decision.streamid):
                    taken.renumbered.add(decision.id)
                numbers = (decision.sequence, decision.deliveryseq, decision.streamid)
                taken.first[decision.id] = replace(
                    first, sequence=numbers[0], deliveryseq=numbers[1], streamid=numbers[2]
                )
        if decision.status != "accepted":
            continue
        if decision.id in taken.first:
            book.offence("duplicated", decision.device, {"why": "one id accepted twice", **facts})
            continue
        taken.first[decision.id] = decision
        if not taken.wants(decision.type):
            book.offence("unwanted", decision.device, {"destination": destination, **facts})
    return taken


def decimal(value: object) -> Decimal | None:
    """Read a decimal string. A float or anything else is not what the contract says, so it equals nothing."""
    try:
        return Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return None


def moment(text: object) -> float | None:
    """Seconds since 1970 of an RFC 3339 time, or None when it is none."""
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except ValueError:
        return None

"""What the platform knows of each gateway: is it there, which numbers have come, what is missing.

A will can arrive late: the broker sends it when it gives the old connection up, perhaps after the gateway is back. So
every state carries the connection counter `epoch`, and one older than the last birth or the last state is ignored. HTTP
has no will: a gateway that was heard that way, and then was not for 150 s (it speaks every 60 s), counts as offline.
Limits: 10,000 gateways; of each 100 streams (the oldest is dropped), 100,000 devices whose order is watched, the last
20 gap events, and 100,000 separate ranges a sequence (then it is marked incomplete: new ranges are no longer noted).
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from simulator.platform.contract import Address, noun_of, number
from simulator.platform.ledger import Decision, Status

MAX_GATEWAYS: Final = 10_000
MAX_STREAMS: Final = 100
MAX_RANGES: Final = 100_000
MAX_GAP_EVENTS: Final = 20
MAX_DEVICES: Final = 100_000
SILENCE_LIMIT_S: Final = 150.0
# Whatever was decided for good has been delivered; what must be sent again, or was forgotten, has not.
FINAL: Final = frozenset({Status.ACCEPTED, Status.DUPLICATE, Status.REJECTED})


@dataclass(slots=True)
class Numbers:
    """The numbers seen of one gap-free sequence that begins at 1, as ranges."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    complete: bool = True

    def add(self, number_: int) -> None:
        """Note one number; a known one changes nothing."""
        at = bisect_right(self.starts, number_) - 1
        if at >= 0 and number_ <= self.ends[at]:
            return
        follows = at >= 0 and self.ends[at] == number_ - 1
        precedes = at + 1 < len(self.starts) and self.starts[at + 1] == number_ + 1
        if follows and precedes:
            self.ends[at] = self.ends.pop(at + 1)
            del self.starts[at + 1]
        elif follows:
            self.ends[at] = number_
        elif precedes:
            self.starts[at + 1] = number_
        elif len(self.starts) >= MAX_RANGES:
            self.complete = False
        else:
            self.starts.insert(at + 1, number_)
            self.ends.insert(at + 1, number_)

    @property
    def highest(self) -> int:
        """The highest number seen; 0 before the first."""
        return self.ends[-1] if self.ends else 0

    @property
    def missing(self) -> int:
        """How many numbers from 1 to the highest have not come."""
        return self.highest - sum(end - start + 1 for start, end in zip(self.starts, self.ends, strict=True))

    def holes(self, limit: int) -> list[tuple[int, int]]:
        """Return the first `limit` ranges that have not come, both ends included."""
        found, due = [], 1
        for start, end in zip(self.starts, self.ends, strict=True):
            if start > due:
                found.append((due, start - 1))
                if len(found) >= limit:
                    break
            due = end + 1
        return found


@dataclass(slots=True)
class Gateway:
    """One gateway as the platform sees it. `epoch` 0: nothing has been heard of its connections yet.

    `heard`: when it last said anything over HTTP, by the roster's clock; None where a will tells that it is gone.
    """

    online: bool = False
    heard: float | None = None
    lapses: int = 0
    epoch: int = 0
    births: int = 0
    birth: Mapping[str, Any] | None = None
    stale_states: int = 0
    bad_states: int = 0
    gap_events: int = 0
    reordered: int = 0
    gaps: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_GAP_EVENTS))
    deliveries: dict[str, Numbers] = field(default_factory=dict)
    sequences: dict[str, Numbers] = field(default_factory=dict)
    last: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)

    def note(self, decision: Decision, sequence: int | None) -> None:
        """Count the numbers of an event that was decided for good; any other has not been delivered."""
        if decision.status not in FINAL:
            return
        for book, value in ((self.deliveries, number(decision.deliveryseq)), (self.sequences, sequence)):
            if value is None or not decision.streamid:
                continue
            if decision.streamid not in book:
                if len(book) >= MAX_STREAMS:
                    del book[next(iter(book))]
                book[decision.streamid] = Numbers()
            book[decision.streamid].add(value)
        if decision.status is Status.ACCEPTED:
            self._order(decision, sequence)
            if noun_of(decision.type) == "gateway.gap":
                self.gap_events += 1
                self.gaps.append(decision.event["data"])

    def _order(self, decision: Decision, sequence: int | None) -> None:
        """Reordered means: a first acceptance with a lower sequence than one before it, by device and lane."""
        if sequence is None:
            return
        key = (decision.device, decision.lane)
        stream, highest = self.last.get(key, ("", 0))
        if stream == decision.streamid and sequence < highest:
            self.reordered += 1
        elif key in self.last or len(self.last) < MAX_DEVICES:
            self.last[key] = (decision.streamid, sequence)

    def stats(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "online": self.online,
            "epoch": self.epoch,
            "births": self.births,
            "stale_states": self.stale_states,
            "bad_states": self.bad_states,
            "lapses": self.lapses,
            "reordered": self.reordered,
            "gap_events": self.gap_events,
            "gaps": list(self.gaps),
            "deliveryseq": {stream: _summary(numbers) for stream, numbers in self.deliveries.items()},
            "sequence": {stream: _summary(numbers) for stream, numbers in self.sequences.items()},
        }


class Roster:
    """All gateways, by (org, site, gateway)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._gateways: dict[tuple[str, str, str], Gateway] = {}
        self.refused = 0

    def __getitem__(self, address: Address) -> Gateway:
        """Return a gateway, noting it when it is new. Beyond 10,000 a stranger is counted and not kept."""
        key = (address.org, address.site, address.gateway)
        found = self._gateways.get(key)
        if found is None:
            found = Gateway()
            if len(self._gateways) < MAX_GATEWAYS:
                self._gateways[key] = found
            else:
                self.refused += 1
        return found

    def heard(self, address: Address) -> None:
        """Note a sign of life where no will can come."""
        self[address].heard = self._clock()

    def state(self, address: Address, message: object) -> bool:
        """Take a `state` message, the gateway's own or its will; return whether it says anything.

        `message` is decoded JSON, whatever it is.
        """
        gateway = self[address]
        online, epoch = _state_of(message)
        if online is None or epoch is None:
            gateway.bad_states += 1
        elif epoch < gateway.epoch:
            gateway.stale_states += 1
        else:
            gateway.online, gateway.epoch = online, epoch
        return online is not None and epoch is not None

    def birth(self, address: Address, message: object) -> bool:
        """Take a birth; return whether it says anything. It proves that the gateway is there."""
        gateway = self[address]
        _, epoch = _state_of(message)
        if epoch is None or not isinstance(message, dict):
            gateway.bad_states += 1
        elif epoch < gateway.epoch:
            gateway.stale_states += 1
        else:
            gateway.births += 1
            gateway.birth = message
            gateway.online, gateway.epoch = True, epoch
        return epoch is not None

    def all_lost(self) -> None:
        """Forget who is online: the platform has lost its own broker. Retained states tell again."""
        for gateway in self._gateways.values():
            gateway.online = False

    def stats(self) -> dict[str, Any]:
        """Return what stands of all gateways: `online` only when every known one is."""
        gateways = self._gateways.values()
        long_ago = self._clock() - SILENCE_LIMIT_S
        for gateway in gateways:
            if gateway.online and gateway.heard is not None and gateway.heard < long_ago:
                gateway.online = False
                gateway.lapses += 1
        return {
            "online": bool(gateways) and all(gateway.online for gateway in gateways),
            "epoch": max((gateway.epoch for gateway in gateways), default=0),
            "reordered": sum(gateway.reordered for gateway in gateways),
            "gaps": {
                "events": sum(gateway.gap_events for gateway in gateways),
                "deliveryseq_missing": sum(n.missing for g in gateways for n in g.deliveries.values()),
                "sequence_missing": sum(n.missing for g in gateways for n in g.sequences.values()),
            },
            "gateways": {"/".join(key): gateway.stats() for key, gateway in self._gateways.items()},
        }


def _summary(numbers: Numbers) -> dict[str, Any]:
    return {
        "highest": numbers.highest,
        "missing": numbers.missing,
        "holes": numbers.holes(20),
        "complete": numbers.complete,
    }


def _state_of(message: object) -> tuple[bool | None, int | None]:
    if not isinstance(message, dict):
        return None, None
    online, epoch = message.get("online"), message.get("epoch")
    return (
        online if isinstance(online, bool) else None,
        epoch if isinstance(epoch, int) and not isinstance(epoch, bool) and epoch >= 0 else None,
    )

"""What the gateway has done, as bare numbers: for the levels of sharing that get counts and no events.

A `Tally` only grows. The outbox moves it in the transaction that stores what is counted, so nothing is counted twice or
left out by a crash; a period is the difference between two of its states. No room, person or device is in what
`between` returns. Pure: no IO. Limits: durations are judged from the last `KEPT` of a period; of `MAX_OPEN` alarms at a
time it is known when they were raised. A commit with an alarm writes the tally anew: 2 to 3 KB of the log more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from statistics import median
from typing import Any, Final

from gateway.clock import Stamp
from gateway.events import Event

KEPT: Final = 128
MAX_OPEN: Final = 256
NOUN: Final = "gateway.counts"


@dataclass(frozen=True, slots=True)
class Durations:
    """How often, and the last `KEPT` durations in seconds."""

    count: int = 0
    last: tuple[float, ...] = ()

    def and_(self, seconds: float) -> Durations:
        """Return these and one more."""
        return Durations(self.count + 1, (*self.last[-KEPT + 1 :], round(max(0.0, seconds), 1)))

    def since(self, before: int) -> dict[str, object]:
        """Return count, median and maximum of those after the first `before`."""
        count = self.count - before
        these = self.last[-count:] if count > 0 else ()
        return {
            "count": count,
            "median": round(median(these), 1) if these else None,
            "max": max(these, default=None),
        }


@dataclass(slots=True)
class Tally:
    """The totals since the database began. `raised` is by kind: verified, unverified; `tests` by kind.

    `open_since` is when each alarm that nobody has acknowledged was raised: boot, milliseconds of it, wall milliseconds.
    """

    raised: dict[str, tuple[int, int]] = field(default_factory=dict)
    tests: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    closed: int = 0
    to_acknowledge: Durations = field(default_factory=Durations)
    gaps: int = 0
    gap_ms: int = 0
    dead: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    to_accept: dict[str, Durations] = field(default_factory=dict)
    open_since: dict[str, tuple[str, int, int]] = field(default_factory=dict)

    def copy(self) -> Tally:
        """Return one that may be moved while this one stays. Cheap, for an alarm waits for it."""
        return replace(
            self, raised=dict(self.raised), tests=dict(self.tests), dead=dict(self.dead), dropped=dict(self.dropped),
            to_accept=dict(self.to_accept), open_since=dict(self.open_since),
        )  # fmt: skip

    # -- counting -----------------------------------------------------------------------------------------------

    def stored(self, event: Event) -> None:
        """An event is being stored. Raises nothing: whatever its data says, it must be stored."""
        try:
            data = json.loads(event.body)["data"]
            if event.noun == "gateway.gap":
                self._gap(data)
            else:
                self._alarm(event, data)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return  # not one of ours: there is nothing in it that could be counted

    def _alarm(self, event: Event, data: Mapping[str, Any]) -> None:
        kind, is_test, alarm = str(data["kind"]), data.get("test") is True, event.correlation
        if event.noun == "alarm.raised":
            if not data.get("retold") and data.get("presses", 1) == 1:
                self._raised(kind, is_test=is_test, is_verified=data.get("verified") is True)
            if alarm not in self.open_since:
                self.open_since[alarm] = (event.at.boot, event.at.mono_ms, event.at.wall_ms)
                while len(self.open_since) > MAX_OPEN:
                    del self.open_since[next(iter(self.open_since))]
        elif event.noun in ("alarm.acknowledged", "alarm.closed"):
            since = self.open_since.pop(alarm, None)
            if is_test or data.get("retold"):
                return
            if event.noun == "alarm.closed":
                self.closed += 1
                return
            self.acknowledged += 1
            if since is not None:
                self.to_acknowledge = self.to_acknowledge.and_(_seconds(since, event.at))

    def _raised(self, kind: str, *, is_test: bool, is_verified: bool) -> None:
        if is_test:
            self.tests[kind] = self.tests.get(kind, 0) + 1
        else:
            verified, unverified = self.raised.get(kind, (0, 0))
            self.raised[kind] = (verified + is_verified, unverified + (not is_verified))

    def _gap(self, data: Mapping[str, Any]) -> None:
        if data["reason"] in ("quota", "expired"):  # rows that gave way, for whom they waited
            for destination, ranges in data["deliveryseqs"].items():
                lost = sum(last - first + 1 for first, last in ranges)
                self.dropped[destination] = self.dropped.get(destination, 0) + lost
            return
        begin, end = (datetime.fromisoformat(data[name]) for name in ("from", "to"))
        self.gaps += 1
        self.gap_ms += max(0, round((end - begin).total_seconds() * 1000))

    def dead_letter(self, destination: str) -> None:
        """A destination refused an event for good."""
        self.dead[destination] = self.dead.get(destination, 0) + 1

    def accepted(self, destination: str, seconds: float) -> None:
        """A platform has accepted a raised alarm."""
        self.to_accept[destination] = self.to_accept.get(destination, Durations()).and_(seconds)

    # -- keeping ------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """Return it as the text that is stored."""
        known: dict[str, object] = {one.name: getattr(self, one.name) for one in fields(self)}
        known["to_acknowledge"] = _plain(self.to_acknowledge)
        known["to_accept"] = {name: _plain(one) for name, one in self.to_accept.items()}
        return json.dumps(known, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Tally:
        """Read what `text` wrote. Raises ValueError, KeyError or TypeError."""
        known = json.loads(text)
        known["raised"] = {kind: tuple(both) for kind, both in known["raised"].items()}
        known["to_acknowledge"] = _durations(known["to_acknowledge"])
        known["to_accept"] = {name: _durations(one) for name, one in known["to_accept"].items()}
        known["open_since"] = {name: tuple(since) for name, since in known["open_since"].items()}
        return cls(**known)


def _plain(durations: Durations) -> tuple[int, tuple[float, ...]]:
    return durations.count, durations.last


def _durations(plain: Sequence[Any]) -> Durations:
    count, last = plain
    return Durations(count, tuple(last))


def seconds_from(raised: Stamp, now: Stamp) -> float:
    """Return the seconds between two moments: by the clock of their boot, by the wall clock where a restart lies between."""
    return _seconds((raised.boot, raised.mono_ms, raised.wall_ms), now)


def _seconds(since: Sequence[Any], now: Stamp) -> float:
    boot, mono_ms, wall_ms = since
    elapsed_ms = now.mono_ms - mono_ms if boot == now.boot else now.wall_ms - wall_ms
    return max(0.0, float(elapsed_ms) / 1000)


@dataclass(frozen=True, slots=True)
class Totals:
    """Where everything stands at one moment. `routed` and `pending` are by destination."""

    tally: Tally
    stored: int
    routed: Mapping[str, int]
    pending: Mapping[str, int]


def base_of(totals: Totals, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain numbers that the next period is counted from.

    Whoever is delivered to is told later than it happened: a crash may make rows pending again. So what was said of it
    stays said, and never shrinks.
    """
    tally = totals.tally
    delivered = {
        name: max(
            before.get("delivered", {}).get(name, 0),
            count - totals.pending.get(name, 0) - tally.dead.get(name, 0) - tally.dropped.get(name, 0),
        )
        for name, count in totals.routed.items()
    }
    return {
        "raised": dict(tally.raised), "tests": dict(tally.tests), "acknowledged": tally.acknowledged,
        "closed": tally.closed, "to_acknowledge": tally.to_acknowledge.count, "gaps": tally.gaps, "gap_ms": tally.gap_ms,
        "stored": totals.stored, "delivered": delivered, "dead": dict(tally.dead), "dropped": dict(tally.dropped),
        "to_accept": {name: one.count for name, one in tally.to_accept.items()},
    }  # fmt: skip


def between(before: Mapping[str, Any], totals: Totals, after: Mapping[str, Any]) -> dict[str, object]:
    """Return what happened between two bases, as the data of the event; `totals` are those that `after` was made of."""

    def grown(name: str, part: str) -> int:
        return int(after[name].get(part, 0)) - int(before.get(name, {}).get(part, 0))

    def since(name: str) -> int:
        return int(after[name]) - int(before.get(name, 0))

    raised = {}
    for kind, (verified, unverified) in after["raised"].items():
        was = before.get("raised", {}).get(kind, (0, 0))
        raised[kind] = {"verified": verified - was[0], "unverified": unverified - was[1]}
    tally = totals.tally
    destinations = {
        name: {
            "delivered": grown("delivered", name), "dead_lettered": grown("dead", name), "dropped": grown("dropped", name),
            "pending": totals.pending.get(name, 0),
            "alarms_to_accept_s": tally.to_accept.get(name, Durations()).since(before.get("to_accept", {}).get(name, 0)),
        }
        for name in totals.routed
    }  # fmt: skip
    return {
        "alarms": {
            "raised": raised, "tests": {kind: grown("tests", kind) for kind in after["tests"]},
            "acknowledged": since("acknowledged"), "closed": since("closed"),
            "to_acknowledge_s": tally.to_acknowledge.since(int(before.get("to_acknowledge", 0))),
        },
        "gaps": {"count": since("gaps"), "seconds": round(since("gap_ms") / 1000, 1)},
        "events": {"stored": since("stored")},
        "destinations": destinations,
    }  # fmt: skip

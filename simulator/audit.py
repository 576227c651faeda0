"""The audit: what devices did, against what the platform's application accepted. Pure functions over ledgers.

*Lost*: an acknowledged input (a line with a number) may never be lost; a one-shot input (an advert) that came while the
gateway was deaf is `unheard`, but only inside a `gateway.gap` window that the platform received; anywhere else it is
lost. *Duplicated*: one id accepted twice by the application, or two ids for one input; an arrival that the application
answered `duplicate` is only `resent`. *Reordered*: first acceptance with a lower sequence, per (destination, device,
lane). *Phantom*: an alarm, or a numbered input, that no device caused. *Late*: an alarm that waited while one way into the
platform was broken and another stood; what such alarms took is told apart from what they take when all is well.

Limits: an event may carry a time up to 30 s after the last repeat of its input and 0.25 s before the first; a gap
window is widened by 50 ms at both ends. With several destinations, an input is lost for each that did not get it. When
a run is interrupted, a line born less than 2 s before and never acknowledged is `held` by its device, not lost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import ceil
from typing import Any, Final

from simulator.consistency import judge_numbers, judge_order, judge_registers
from simulator.corruption import Announced, announced, corruptions, count_corruptions
from simulator.falls import BED, is_retold
from simulator.findings import (
    ENVIRONMENT,
    EVERYTHING,
    GAP,
    OFFENCES,
    RAISED,
    TELEMETRY,
    Book,
    Taken,
    decimal,
    moment,
    take,
)
from simulator.ledgers import Decision, Emission, Ledgers
from simulator.promises import dead_times, judge_promises
from simulator.silences import downtime, gaps_of, is_inside, merged
from simulator.true_time import straightened
from simulator.ways import meets, ways_of

EARLY_S: Final = 0.25
LATE_S: Final = 30.0
HELD_S: Final = 2.0


def audit(ledgers: Ledgers) -> dict[str, Any]:
    """Judge a run. The report is ready for JSON; `reasons` says in words what stands against it."""
    book = Book()
    ledgers = straightened(ledgers, book)
    for emission in ledgers.emissions:
        book.devices[emission.device]["emitted"] += 1
    for poll in ledgers.polls:
        book.devices[poll.device]["polled"] += 1
    asked = {str(one["id"]): tuple(one["types"]) for one in ledgers.scenario.get("platforms", ())}
    taken = [
        take(name, ledgers.decisions.get(name, ()), book, types=asked.get(name, EVERYTHING))
        for name in sorted({*ledgers.decisions, *asked})
    ]
    roads = [_Road(ledgers, one, book) for one in taken or [Taken("")]]
    for road in roads:
        if not road.taken.wants(GAP):  # it cannot know; what another platform was told excuses here, too
            road.windows = merged([gap for other in roads for gap in other.gaps])
    for road in roads:
        road.announced = announced(ledgers, road.gaps)
        road.judge()
        judge_registers(ledgers, road.taken, book)
        judge_order(ledgers, road.taken, book)
        judge_numbers(ledgers, road.taken, book, is_announced=bool(road.announced.announcements))
        judge_promises(ledgers, road.taken, road.gaps, road.windows, book, destroyed=road.announced)
    return _report(ledgers, roads, book)


def reasons(report: Mapping[str, Any]) -> list[str]:
    """Say in plain words why a run is not clean; an empty list means that it is."""
    found = [f"{report[name]} {words}" for name, words in OFFENCES.items() if report[name]]
    if report["pending"] is None:
        found.append("the gateway did not answer at the end, so nobody knows what is pending")
    elif report["pending"]:
        found.append(f"{report['pending']} events still pending at the end")
    wrongly_dead = report["dead_letters"] - report["refused"]
    done = report["accepted"] + report["refused_events"] + max(0, wrongly_dead)
    if report["stored"] not in (None, done - report["never_stored"]) and report["whole"] and not report["corruptions"]:
        found.append(f"{report['stored']} events stored, but {report['accepted']} accepted")
    if wrongly_dead > 0:
        found.append(f"{wrongly_dead} dead letters")
    if wrongly_dead < 0 and not report["corruptions"]:
        found.append(f"{-wrongly_dead} refused events that are no dead letters")
    if report["streams"] > 1 + report["corruptions"]:
        found.append(f"{report['streams']} streams: the database was replaced during the run")
    if not report["emitted"]:
        found.append("no device did anything, so the run proves nothing")
    return found


class _Inputs:
    """Finds the emission that an event tells of."""

    def __init__(self, emissions: Sequence[Emission]) -> None:
        self._numbered: dict[tuple[str, str, object], Emission] = {}
        self._others: dict[tuple[str, object], list[Emission]] = defaultdict(list)
        for emission in emissions:
            if emission.n is not None:
                self._numbered.setdefault((emission.device, emission.session, emission.n), emission)
            else:
                self._others[emission.device, emission.counter].append(emission)

    def of(self, decision: Decision) -> Emission | None:
        """By (device, session, n); or by (device, counter) at that time; or, for a level, by device and time alone."""
        data = decision.data
        if data.get("n") is not None:
            return self._numbered.get((decision.device, str(data.get("session") or ""), data["n"]))
        at = moment(decision.event.get("time"))
        candidates = self._others.get((decision.device, data.get("counter")), [])
        if at is None:
            return None
        index = bisect_right(candidates, at + EARLY_S, key=lambda emission: emission.t) - 1
        if index < 0 or at > candidates[index].t_last + LATE_S:
            return None
        return candidates[index]


class _Road:
    """One destination's view of the run: events matched to what caused them, and what is left over on either side."""

    def __init__(self, ledgers: Ledgers, taken: Taken, book: Book) -> None:
        self.taken = taken
        self.gaps = gaps_of(taken)
        self.alarms = 0
        self.latencies: list[float] = []
        self.narrow_latencies: list[float] = []
        self.announced = Announced()
        self._ledgers = ledgers
        self._book = book
        self._devices = {device["id"]: device for device in ledgers.scenario.get("devices", ())}
        self._ways = ways_of(ledgers, taken.destination)
        self._downtime = [*downtime(ledgers, taken), *self._ways.shut]
        self.windows = merged(self.gaps)
        self._dead = dead_times(ledgers, taken)

    def judge(self) -> None:
        """Enter phantoms, doubles, unheard and lost inputs in the book."""
        inputs = _Inputs(self._ledgers.emissions)
        # One input may be told as an alarm and as telemetry, each once.
        told: dict[int, dict[bool, Decision]] = defaultdict(dict)
        for decision in (*self.taken.first.values(), *self.taken.refused.values()):
            if not self._is_input(decision):
                continue
            emission = inputs.of(decision)
            facts: dict[str, Any] = {"id": decision.id, "type": decision.type, "time": decision.event.get("time")}
            alarm = decision.type == RAISED
            if self._told_again(decision):
                self._book.counts["doubled_by_corruption"] += 1
            elif emission is None or not _fits(emission, decision):
                self._book.offence("phantom", decision.device, facts)
            elif alarm in told[id(emission)] and self._forgotten(decision, told[id(emission)][alarm]):
                self._book.counts["doubled_by_corruption"] += 1
            elif alarm in told[id(emission)] and is_retold(
                emission, decision, told[id(emission)][alarm], ledgers=self._ledgers
            ):
                self._book.counts["retold"] += 1
            elif alarm in told[id(emission)] and not (decision.sequence and told[id(emission)][alarm].sequence):
                # Told before a disk could take it; its process went before one did, and its source said it again.
                self._book.counts["told_unstored"] += 1
            elif alarm in told[id(emission)]:
                facts |= {"why": "two ids for one input", "other": told[id(emission)][alarm].id}
                self._book.offence("duplicated", decision.device, facts)
            else:
                told[id(emission)][alarm] = decision
                self._check_value(emission, decision)
                self._measure(emission, decision)
        self._judge_silence(told)

    def _forgotten(self, decision: Decision, other: Decision) -> bool:
        """Did a database go between two events of one input, and with it the memory of the first?

        The first may have been brought back meanwhile, with a number of the new stream.
        """
        if decision.streamid != other.streamid:
            return bool(count_corruptions(self._ledgers))
        first, last = sorted(moment(one.event.get("time")) or 0.0 for one in (decision, other))
        return any(first <= at <= last for at in corruptions(self._ledgers))

    def _told_again(self, decision: Decision) -> bool:
        """Is this an open alarm that was told anew because its database went? It is one that a platform knows."""
        if not (count_corruptions(self._ledgers) and decision.data.get("retold") is True):
            return False
        alarm = decision.event.get("correlationid")
        return any(
            one.event.get("correlationid") == alarm and one.id != decision.id
            for decisions in self._ledgers.decisions.values()
            for one in decisions
        )

    def _is_input(self, decision: Decision) -> bool:
        """Alarms, and what a controller says: each must have been caused by a device."""
        controller = self._devices.get(decision.device, {}).get("role") == "controller"
        return decision.type == RAISED or (controller and decision.type.startswith(TELEMETRY))

    def _measure(self, emission: Emission, decision: Decision) -> None:
        """Time an alarm from its emission to its acceptance, if it had a road all the while."""
        if decision.type != RAISED:
            return
        self.alarms += 1
        deaf = self.windows.get(self._link(emission.device), ())
        if meets((*self._downtime, *deaf), emission.t, decision.t):
            return
        took, limit = decision.t - emission.t, self._ways.limit_s(emission.t, decision.t)
        if limit is None:
            self.latencies.append(took)
            return
        self.narrow_latencies.append(took)
        if took > limit:
            facts = {
                "id": decision.id,
                "destination": self.taken.destination,
                "took_s": round(took, 3),
                "limit_s": limit,
            }
            self._book.offence("late", emission.device, facts)

    def _check_value(self, emission: Emission, decision: Decision) -> None:
        """What a numbered line measured must come out as it went in: every register among the line's own numbers."""
        if decision.type == RAISED or not isinstance(emission.value, Mapping):
            return
        said = {Decimal(str(item)) for item in emission.value.values() if type(item) in (int, float)}
        for register in decision.data.get("registers") or ():
            if decimal(register.get("value")) not in said:
                facts = {"id": decision.id, "n": emission.n, "register": dict(register)}
                self._book.offence("wrong_values", decision.device, facts)

    def _judge_silence(self, told: Mapping[int, Mapping[bool, Decision]]) -> None:
        for emission in self._ledgers.emissions:
            heard = told.get(id(emission), {})
            if heard and (True in heard or not pressed(emission)):
                continue
            if not self.taken.wants(RAISED if pressed(emission) else ENVIRONMENT):
                continue
            facts = {"kind": emission.kind, "t": emission.t, "t_last": emission.t_last, "counter": emission.counter}
            facts["destination"] = self.taken.destination
            if emission.n is not None and self._still_held(emission):
                self._book.counts["held"] += 1
            elif (
                emission.n is None and emission.kind != BED and self._is_unheard(emission)
            ):  # asked first: it uses up no announcement
                self._book.counts["unheard"] += 1
                self._book.devices[emission.device]["unheard"] += 1
            elif self._went_with_its_gap(emission) or self.announced.excuses(emission, self._acked_at(emission)):
                self._book.counts["corrupted"] += 1
            elif emission.n is not None or emission.kind == BED:
                self._book.offence("lost", emission.device, {"why": "an acknowledged input", "n": emission.n, **facts})
            else:
                self._book.offence("lost", emission.device, {"why": "outside every gap received", **facts})

    def _is_unheard(self, emission: Emission) -> bool:
        return any(is_inside(emission, window) for window in self.windows.get(self._link(emission.device), ()))

    def _went_with_its_gap(self, emission: Emission) -> bool:
        """Did it come while the gateway was dead, and may the gap that said so have been lost with a database?"""
        if emission.n is not None or emission.kind == BED:  # it is said again until it is heard
            return False
        dead = self._dead.get(self._link(emission.device), ())
        return self.announced.may_tell_of(emission) and any(is_inside(emission, window) for window in dead)

    def summary(self) -> dict[str, Any]:
        """Return this destination's figures for the report."""
        return {
            "types": list(self.taken.types),
            "accepted": len(self.taken.first),
            "resent": self.taken.arrivals - len(self.taken.ids),
            "alarms": self.alarms,
            "latency_ms": percentiles(self.latencies),
            "ways": self._ways.count,
            "one_way": {"alarms": len(self.narrow_latencies), "latency_ms": percentiles(self.narrow_latencies)},
        }

    def _acked_at(self, emission: Emission) -> float | None:
        return None if emission.n is None else self._ledgers.acked_at.get((emission.device, emission.n))

    def _link(self, device: str) -> str:
        return str(self._devices.get(device, {}).get("link", ""))

    def _still_held(self, emission: Emission) -> bool:
        """Did an interrupt end the device so early that it still holds the line, never acknowledged?"""
        ends = [fault.t for fault in self._ledgers.faults if fault.fault == "interrupt"]
        acked = (emission.device, emission.n) in self._ledgers.acked
        return bool(ends) and not acked and emission.t >= ends[-1] - HELD_S


def pressed(emission: Emission) -> bool:
    """Was this a call for help or a fall?"""
    if emission.kind == "line":
        return isinstance(emission.value, Mapping) and "call" in emission.value
    return True


def _fits(emission: Emission, decision: Decision) -> bool:
    """Does the event say what the device did: a fall for a fall, a call for a press?"""
    if decision.type != RAISED:
        return emission.kind == "line"
    return pressed(emission) and decision.data.get("kind") == ("fall" if emission.kind == "fall" else "call")


def _report(ledgers: Ledgers, roads: Sequence[_Road], book: Book) -> dict[str, Any]:
    status, counts = ledgers.status, book.counts
    gaps = [gap for road in roads for gap in road.gaps]
    alarms = min((road.alarms for road in roads if road.taken.wants(RAISED)), default=0)
    destinations = () if status is None else status.get("destinations", ())
    dead = sum(int(one.get("dead_letters", 0)) for one in destinations) if ledgers.dead is None else ledgers.dead
    accepted = _accepted(roads)
    for device in accepted.values():
        book.devices[device]["accepted"] += 1
    report: dict[str, Any] = {
        "seed": ledgers.scenario.get("seed"),
        "seconds": ledgers.scenario.get("seconds"),
        "scenario": ledgers.scenario.get("name"),
        "emitted": len(ledgers.emissions),
        "stored": None if status is None else int(status["outbox"]["sequence"]),
        "accepted": len(accepted),
        # Is there a destination that takes everything, so that what was stored can be held against it?
        "whole": any(road.taken.types == EVERYTHING for road in roads),
        "destinations": {road.taken.destination: road.summary() for road in roads},
        "lost": counts["lost"],
        "unheard": counts["unheard"],
        "duplicated": counts["duplicated"],
        "reordered": counts["reordered"],
        "resent": sum(road.taken.arrivals - len(road.taken.ids) for road in roads),
        "pending": _pending(status),
        "alarms": {
            "pressed": sum(pressed(emission) for emission in ledgers.emissions),
            # The gateway lists its last alarms only, so in a long run its own count can be the lower one.
            "raised": max(alarms, _presses(ledgers.alarms or ())),
            "accepted": alarms,
            "latency_ms": percentiles([latency for road in roads for latency in road.latencies]),
        },
        "dead_letters": dead,
        "refused": sum(len(road.taken.refused) for road in roads),
        "refused_events": len({event_id for road in roads for event_id in road.taken.refused}),
        # Told before a disk could take it, and gone with its process: its source says it again, or it lies in a gap.
        "never_stored": len(
            set(accepted) - {i for road in roads for i, one in road.taken.first.items() if one.sequence}
        ),
        "told_unstored": counts["told_unstored"],
        "retold": counts["retold"],
        "corruptions": count_corruptions(ledgers),
        "corrupted": counts["corrupted"],
        "corrupted_numbers": counts["corrupted_numbers"],
        "doubled_by_corruption": counts["doubled_by_corruption"],
        # What no database took has no number, and a stream for the time being.
        "streams": len({one.streamid for road in roads for one in road.taken.first.values() if one.sequence} - {""}),
        "held": counts["held"],
        "meter_replies": len(ledgers.polls),
        "devices": _devices(ledgers, book),
        "gaps": gaps,
        "deaf_s": {link: round(sum(last - first for first, last in of), 3) for link, of in merged(gaps).items()},
        "faults": [
            {"t": fault.t, "fault": fault.fault, "platform": fault.platform, "way": fault.way}
            for fault in ledgers.faults
        ],
        "offences": book.details,
        "torn_lines": ledgers.torn,
        "versions": dict(ledgers.versions),
    }
    return report | {name: counts[name] for name in OFFENCES}


def _accepted(roads: Sequence[_Road]) -> dict[str, str]:
    """Return the ids that every destination accepted which asked for them, and whose they are."""
    return {
        event_id: one.device
        for event_id, one in {event_id: one for road in roads for event_id, one in road.taken.first.items()}.items()
        if all(event_id in road.taken.first for road in roads if road.taken.wants(one.type))
    }


def _presses(alarms: Sequence[Mapping[str, Any]]) -> int:
    return sum(int(alarm.get("presses", 1)) for alarm in alarms)


def _pending(status: Mapping[str, Any] | None) -> int | None:
    if status is None:
        return None
    unstored = int(status["outbox"].get("unstored", 0))
    return unstored + sum(sum(one["pending"].values()) for one in status.get("destinations", ()))


def _devices(ledgers: Ledgers, book: Book) -> dict[str, dict[str, Any]]:
    columns = ("emitted", "accepted", "lost", "unheard", "duplicated", "reordered", "polled", "readings")
    roles = {device["id"]: device.get("role") for device in ledgers.scenario.get("devices", ())}
    return {
        device: {"role": roles.get(device)} | {column: book.devices[device][column] for column in columns}
        for device in sorted(set(roles) | set(book.devices))
    }


def percentiles(latencies_s: Sequence[float]) -> dict[str, float | None]:
    """Nearest rank, in milliseconds; None when nothing was measured."""
    ranked = sorted(latencies_s)
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    if not ranked:
        return dict.fromkeys(shares)
    return {name: round(1000 * ranked[ceil(share * len(ranked)) - 1], 1) for name, share in shares.items()}

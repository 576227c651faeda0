"""Does what one platform accepted agree with itself: order, numbers without a hole, registers that the meter gave?

Limits: a register is compared with what the meter said within 8 s; a meter may be silent for two polls and 2 s, from when
the gateway, as it has told in a gap, heard its link again; a database is opened anew within 10 s of its disk's return.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from simulator.corruption import count_corruptions
from simulator.findings import EVERYTHING, GAP, METER, Book, Taken, decimal, moment
from simulator.ledgers import Decision, Ledgers

VALUE_WINDOW_S: Final = 8.0
STALE_SLACK_S: Final = 2.0
MAX_NUMBERS: Final = 20
_UNREADABLE: Final = ("disk-hangs", "start-read-only")
_OPENED_WITHIN_S: Final = 10.0  # it is tried every five seconds


def judge_order(ledgers: Ledgers, taken: Taken, book: Book) -> None:
    """A first acceptance with a lower sequence than one before it, of the same device and lane, is reordered.

    Alarms that no disk has taken go at once; what was stored before them goes first where it can be read. It cannot while a
    disk hangs, nor while a database that was found on a read-only disk is opened anew: then each of both keeps its order.
    So does what was told without a number by a process that was killed: the next one brings it back behind all that is new.
    """
    kills = [fault.t for fault in ledgers.faults if fault.fault == "kill" and not fault.platform]
    shut = [window for name in _UNREADABLE for window in _lasting(ledgers, name)]
    highest: dict[tuple[str, str, str, bool], int] = {}
    for decision in taken.first.values():
        if decision.id in taken.renumbered:
            continue
        numbered_at = taken.unnumbered.get(decision.id, decision.t)
        is_ahead = decision.id in taken.unnumbered and (
            any(a <= decision.t <= b for a, b in shut) or any(decision.t < kill < numbered_at for kill in kills)
        )
        key = (decision.device, decision.lane, decision.streamid, is_ahead)
        before = highest.get(key, 0)
        if decision.sequence and decision.sequence < before:
            facts = {"id": decision.id, "lane": decision.lane, "sequence": decision.sequence, "after": before}
            book.offence("reordered", decision.device, facts)
        highest[key] = max(decision.sequence, before)


def _lasting(ledgers: Ledgers, name: str) -> list[tuple[float, float]]:
    """Return when faults of a name lasted, and what the gateway needs to have its database open again."""
    begun = [fault.t for fault in ledgers.faults if fault.fault == f"begin {name}"]
    ended = [fault.t for fault in ledgers.faults if fault.fault == f"end {name}"]
    return [(a, min((b for b in ended if b >= a), default=a) + _OPENED_WITHIN_S) for a in begun]


def judge_numbers(ledgers: Ledgers, taken: Taken, book: Book, *, is_announced: bool = False) -> None:
    """Both sequences run from 1 without a hole up to what the gateway stored; no number stands for two events.

    A destination with a filter sees holes in the gateway's own sequence, but none in its delivery sequence. `is_announced`:
    it was told that events were lost with a database.
    """
    outbox = (ledgers.status or {}).get("outbox", {})
    destroyed = count_corruptions(ledgers) > 0
    done = {**taken.rejected, **taken.first}
    for stream in sorted({decision.streamid for decision in done.values()} | {str(outbox.get("stream", ""))} - {""}):
        stored = int(outbox.get("sequence", 0)) if stream == outbox.get("stream") else 0
        # What was destroyed with a database cannot come: see corruption.
        excused = destroyed and (is_announced or stream != outbox.get("stream"))
        of_stream = [decision for decision in done.values() if decision.streamid == stream]
        elsewhere: set[int] = set()
        if (
            destroyed
        ):  # what was brought back comes with a new number, again, and to those only who had not confirmed it
            known = {decision.id for decision in of_stream}
            again = {one.id: one for one in ledgers.decisions[taken.destination] if _is_again(one, stream)}
            of_stream += [one for name, one in again.items() if name not in known]
            everywhere = (one for decisions in ledgers.decisions.values() for one in decisions)
            elsewhere = {one.sequence for one in everywhere if one.streamid == stream}
        if taken.types == EVERYTHING:
            _judge_series("sequence", of_stream, taken, book, floor=stored, excused=excused, elsewhere=elsewhere)
        _judge_series("deliveryseq", of_stream, taken, book, floor=0, excused=excused)


def _is_again(decision: Decision, stream: str) -> bool:
    return decision.streamid == stream and decision.status == "duplicate"


def _judge_series(
    name: str, decisions: Sequence[Decision], taken: Taken, book: Book, *, floor: int, excused: bool,
    elsewhere: Collection[int] = (),
) -> None:  # fmt: skip
    numbers = Counter(int(getattr(decision, name)) for decision in decisions)
    del numbers[0]  # an event that could not be stored carries no number
    missing = [
        number for number in range(1, max(*numbers, floor, 0) + 1) if number not in numbers and number not in elsewhere
    ]
    if missing and excused:
        book.counts["corrupted_numbers"] += len(missing)
    elif missing:
        facts = {"destination": taken.destination, "missing": missing[:MAX_NUMBERS]}
        book.offence(f"{name}_gaps", "", facts, count=len(missing))
    doubled = [number for number, uses in numbers.items() if uses > 1]
    if doubled:
        facts = {"destination": taken.destination, "number": name, "values": doubled[:MAX_NUMBERS]}
        book.offence("conflicts", "", facts, count=len(doubled))


def judge_registers(ledgers: Ledgers, taken: Taken, book: Book) -> None:
    """Each register of a meter event is one that the meter gave at that time, and the last event is recent."""
    given = _Given(ledgers)
    newest: dict[str, float] = {}
    for decision in taken.first.values():
        if decision.type != METER or decision.device not in given.meters:
            continue
        at = moment(decision.event.get("time")) or 0.0
        newest[decision.device] = max(at, newest.get(decision.device, 0.0))
        book.devices[decision.device]["readings"] += 1
        registers = decision.data.get("registers") or ()
        if not registers:
            book.offence("wrong_values", decision.device, {"id": decision.id, "why": "a reading without registers"})
        for register in registers:
            if not given.holds(decision.device, register, at=at):
                book.offence("wrong_values", decision.device, {"id": decision.id, "register": dict(register)})
    end = _end(ledgers)
    told = [
        (one.data.get("link"), moment(one.data.get("to")) or 0.0) for one in taken.first.values() if one.type == GAP
    ]  # fmt: skip
    for device, meter in given.meters.items() if taken.wants(METER) else ():
        allowed = 2 * float(meter.get("every_s") or 0.0) + STALE_SLACK_S
        deaf_until = max((at for link, at in told if link == meter.get("link")), default=0.0)
        if max(newest.get(device, 0.0), deaf_until) < end - allowed:
            age = None if device not in newest else round(end - newest[device], 3)
            book.offence("stale_meters", device, {"age_s": age, "allowed_s": allowed})


class _Given:
    """What the meters of the scenario put on the wire."""

    def __init__(self, ledgers: Ledgers) -> None:
        devices = ledgers.scenario.get("devices", ())
        self.meters = {device["id"]: device for device in devices if device.get("role") == "meter"}
        self._said: dict[tuple[str, str, str], list[tuple[float, Decimal]]] = defaultdict(list)
        for poll in ledgers.polls:
            self._said[poll.device, poll.quantity, poll.channel].append((poll.t, Decimal(poll.value)))

    def holds(self, device: str, register: Mapping[str, Any], *, at: float) -> bool:
        """Did the meter give this value around that time?"""
        value = decimal(register.get("value"))
        said = self._said.get((device, str(register.get("quantity")), str(register.get("channel") or "")), [])
        first = bisect_left(said, at - VALUE_WINDOW_S, key=lambda entry: entry[0])
        last = bisect_left(said, at + VALUE_WINDOW_S, key=lambda entry: entry[0])
        return any(value == given for _, given in said[first:last])


def _end(ledgers: Ledgers) -> float:
    """When the devices were stopped; without that mark, the last thing that any of them did."""
    stops = [fault.t for fault in ledgers.faults if fault.fault == "stop"]
    return stops[-1] if stops else max((poll.t for poll in ledgers.polls), default=0.0)

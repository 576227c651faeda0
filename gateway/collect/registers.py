"""Cumulative registers, watched as money is: what runs backwards, jumps, rolls over or belongs to another meter is told.

A register only grows. Whether a reading goes on from what stood before is judged in `course`; what does not is published all
the same, marked (`quality: held` or `unconfirmed`) beside the highest value that was believed, told as a fault of the device,
and not taken into the bill. A meter whose own number is another was swapped; where `ct` or `pt` are others than before, that
is told with what the dial showed until then. The first reading of a day goes into the monthly store (a register that was not
in it follows with its own first), and so does what happened; readings that the meter froze by itself (channels "D1",
"T2/D5": so many midnights back) are kept as such, where they are of a midnight of this meter here, and no more than it shows.
A meter whose clock is off by `CLOCK_OFF_S` or more is told: its tariffs and its midnights are of another time.

Pure: no IO. What it remembers is one mark a device, stored with the event that it judged, at least every `MARK_EVERY_S` and
with each new day. Limits: `MAX_REGISTERS` registers a device, `MAX_TOLD_A_DAY` swaps, rollovers and dials of each kind a day;
of what a full queue refused `MAX_REFUSED` rows go with the next reading;
`MOST_DAYS` days are asked of a meter after an outage. While nobody knows the time (no clock yet, or in the first `SETTLING_MS`
of a boot one that was not synchronised) nothing is dated: what happened is owed, `MAX_OWED` of it, until somebody does.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from drivers.kit import QUANTITIES, Answers, Reading
from gateway.clock import FLOORED, SYNCED, Stamp
from gateway.collect.course import Course, Judged, Ruling, Shown, rollover_of
from gateway.collect.desk import Desk
from gateway.collect.register_memory import MAX_OWED, MAX_REFUSED, Memory, Values, memory_of, texts
from gateway.outbox import Mark, MeterDay

MARK: Final = "registers"
MARK_EVERY_S: Final = 900.0
MAX_REGISTERS: Final = 128
MAX_TOLD_A_DAY: Final = 16
MOST_DAYS: Final = 20
# A board without a clock chip begins with the time of its last shutdown, which looks like one.
SETTLING_MS: Final = 900_000
TOLD_EVERY_S: Final = 86_400.0
EARLY_MS: Final = 3_600_000
CLOCK_OFF_S: Final = 600
DIAL_NEAR: Final = Decimal(1)
_FROZEN: Final = re.compile(r"(?:(?P<rest>.*)/)?D(?P<days>[0-9]{1,2})")
# Registers of the past: S settlement, D daily, O hourly, and freezes of other kinds (drivers.protocols.dlt645_layout).
_PAST: Final = re.compile(r"(?:.*/)?[SDOFIZP][0-9]{1,2}")


def local_day(wall_ms: int) -> date:
    """Return the day at the site."""
    return datetime.fromtimestamp(wall_ms / 1000).astimezone().date()


@dataclass(slots=True)
class Taken:
    """What one poll leads to: the readings as they are published, what to add to each, what to tell and to store."""

    readings: list[Reading]
    more: dict[tuple[str, str], str] = field(default_factory=dict)
    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    days: list[MeterDay] = field(default_factory=list)
    mark: Mark | None = None
    is_swapped: bool = False

    def add(self, reading: Reading, members: Mapping[str, object]) -> None:
        """Add members to a register of the event."""
        text = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in members.items())
        key = (reading.quantity, reading.channel)
        self.more[key] = self.more.get(key, "") + text


class Registers:
    """The registers of all devices."""

    def __init__(self, *, day_of: Callable[[int], date] = local_day) -> None:
        self._day_of = day_of
        self._meters: dict[str, Memory] = {}
        self._versions = itertools.count(1)

    def load(self, marks: Iterable[Mark]) -> None:
        """Take up what was remembered. A mark that cannot be read is none: counting begins anew."""
        for mark in marks:
            if mark.key != MARK:
                continue
            try:
                found = memory_of(json.loads(mark.value))
            except (ValueError, KeyError, TypeError, AttributeError, InvalidOperation):
                continue
            if mark.device in self._meters:
                self._meters[mark.device].joined(found)
            else:
                self._meters[mark.device] = found

    def marks(self) -> list[Mark]:
        """Return what is remembered of every meter: what was stored of it is gone."""
        return [self._mark(device, meter) for device, meter in self._meters.items()]

    def known(self) -> list[str]:
        """Return the devices of which registers are remembered: those that are configured no more, too."""
        return list(self._meters)

    def missing(self, device: str) -> int:
        """How many midnights back the meter's own freezes are wanted; 0: none."""
        meter = self._meters.get(device)
        return meter.missing if meter else 0

    def asked(self, device: str) -> None:
        """The meter was asked for its freezes: whatever it gave, it is not asked for these again."""
        if device in self._meters:
            self._meters[device].missing = 0

    def not_given(self, device: str) -> None:
        """A poll for its freezes failed: they are wanted still, but half as many, for they may be what was too much."""
        if device in self._meters:
            self._meters[device].missing //= 2

    def refused(self, device: str, days: Iterable[MeterDay]) -> None:
        """A full queue refused rows of a meter that are judged already: they go with its next reading."""
        meter = self._meters.setdefault(device, Memory())
        meter.refused = [*meter.refused, *days][:MAX_REFUSED]

    def unstored(self) -> list[MeterDay]:
        """Return the rows that a full queue refused and that went with no reading since."""
        return [one for meter in self._meters.values() for one in meter.refused]

    def last(self, device: str) -> tuple[str, int, Values]:
        """Return the meter's number, when its registers were read last (ms since 1970, 0: never), and what they showed."""
        meter = self._meters.get(device, Memory())
        return meter.number, meter.last_ms, meter.last

    def ratio(self, device: str) -> str:
        """Return by what the energies of a device were multiplied last."""
        meter = self._meters.get(device)
        return (meter.ratio if meter else "") or "1"

    def take(self, desk: Desk, readings: Sequence[Reading], at: Stamp, *, now: float) -> Taken:
        """Judge the readings of one poll."""
        taken = Taken([])
        counted = [one for one in readings if _is_counted(one)]
        frozen = [one for one in readings if QUANTITIES[one.quantity].cumulative and _FROZEN.fullmatch(one.channel)]
        meter = self._meters.get(desk.id)
        if counted and meter is None:
            meter = self._meters[desk.id] = Memory(desk.meter_number)
        if meter is not None:
            if counted:
                taken.days, meter.refused = [*meter.refused], []
                self._pay(taken, desk, meter, at)
                self._retransformed(
                    taken, desk, meter, at
                )  # before a swap: what the old meter showed had the old ratio
                self._swap(taken, desk, meter, counted, at)
            if counted:
                self._watch_clock(taken, desk, meter, counted, at=at, now=now)
            if is_dated(at):
                self._freezes(taken, desk, meter, frozen, at=at, now=now)
            if counted:
                good = [one for one in counted if self._goes_on(taken, desk, meter, one, at=at, now=now)]
                self._remember(taken, desk, meter, good, at=at, now=now)
        for one in readings:
            if _FROZEN.fullmatch(one.channel) and one.device_time is not None:
                taken.add(one, {"quality": "freeze"})
        taken.readings = [self._scaled(taken, desk, one) for one in readings]
        return taken

    def dial(self, desk: Desk, shown: Mapping[str, Decimal], by: str, at: Stamp) -> tuple[dict[str, Any], Taken]:
        """A person has read the dial: store it with the difference. Only a register that is held goes on from what is read.

        And only where the dial shows the same, to within `DIAL_NEAR` of a unit: a slip of the finger must not move a bill.
        """
        meter = self._meters.setdefault(desk.id, Memory(desk.meter_number))
        rows: dict[str, dict[str, str | None]] = {}
        for name, value in shown.items():
            row = rows[name] = {"dial": format(value, "f"), "read": None, "difference": None}
            course = meter.courses.get(name)
            if course is None:
                continue
            read = course.waiting[-1].value if course.waiting else course.last.value
            row |= {"read": format(read, "f"), "difference": format(value - read, "f")}
            if course.waiting and abs(value - read) <= DIAL_NEAR:
                row |= {"from": format(course.last.value, "f"), "to": format(read, "f")}
                course.go_on_from_waiting()
                meter.absent.add(name)
        doc = {"by": by, "meter": meter.number, "read_t": meter.last_ms, "registers": rows, **_ratio(desk)}
        taken = Taken([])
        self._row(taken, desk.id, meter, "dial", doc, at)
        taken.mark = self._mark(desk.id, meter)
        return doc, taken

    # -- what happened to a meter -------------------------------------------------------------------------------

    def _swap(self, taken: Taken, desk: Desk, meter: Memory, counted: Sequence[Reading], at: Stamp) -> None:
        number = desk.meter_number
        if not number or number == meter.number:
            return
        if meter.number and meter.courses:
            first = {_name(one): format(one.value, "f") for one in counted}
            last = texts(meter.last)
            doc = {"old": meter.number, "new": number, "last_t": meter.last_ms, "last": last, "first": first}
            told: dict[str, object] = {"kind": "meter-swapped", "old": meter.number, "new": number, "last": last}
            taken.told.append(("device.birth", told))
            self._row(taken, desk.id, meter, "swap", {**doc, **_ratio(desk)}, at)
            meter.courses, meter.marked_at, meter.since_ms = {}, None, at.wall_ms
            taken.is_swapped = True
        meter.number = number

    def _retransformed(self, taken: Taken, desk: Desk, meter: Memory, at: Stamp) -> None:
        """Are `ct` or `pt` others than before? What was read until then was multiplied by the old ones."""
        ratio = format(desk.ratio("energy_active_import"), "f")
        old, meter.ratio = meter.ratio, ratio
        if meter.courses and old and Decimal(old) != Decimal(ratio):
            last = texts(meter.last)
            doc = {"old": old, "new": ratio, "last_t": meter.last_ms, "r": last, "ratio": old}
            taken.told.append(("device.birth", {"kind": "ratio-changed", "old": old, "new": ratio, "last": last}))
            self._row(taken, desk.id, meter, "ratio", doc, at)

    def _goes_on(
        self, taken: Taken, desk: Desk, meter: Memory, one: Reading, *, at: Stamp, now: float
    ) -> bool:  # fmt: skip
        """Does a register go on from what it showed last? What happened to it is told and kept."""
        name = _name(one)
        course = meter.courses.get(name)
        if course is None:
            if len(meter.courses) < MAX_REGISTERS:
                meter.courses[name] = Course(Shown(one.value, at))
                if not taken.is_swapped:  # else what it shows first stands with the swap
                    meter.absent.add(name)
            return True
        judged = course.judge(one.quantity, one.value, at)
        if judged.is_believed:
            self._happened(taken, desk, meter, one, judged, at)
            return True
        highest = format(judged.before.value, "f")
        taken.add(one, {"quality": judged.ruling.value, "highest": highest})
        if desk.is_due(f"{judged.ruling.value} {name}", now, every_s=TOLD_EVERY_S):
            kind = "register-backwards" if judged.ruling is Ruling.HELD else "register-unconfirmed"
            doc = {**_said(one), "highest": highest}
            taken.told.append(("device.fault", {"kind": kind, **doc}))
            self._row(taken, desk.id, meter, judged.ruling.value, doc, at)
        return False

    def _happened(
        self, taken: Taken, desk: Desk, meter: Memory, one: Reading, judged: Judged, at: Stamp
    ) -> None:  # fmt: skip
        """Keep and tell what a second reading has confirmed."""
        name, first, before = _name(one), format(judged.first.value, "f"), format(judged.before.value, "f")
        if judged.ruling is Ruling.ROLLED:
            end = format(rollover_of(judged.before.value), "f")
            doc = {"register": name, "last": before, "first": first, "at": end, **_ratio(desk)}
            self._row(taken, desk.id, meter, "rollover", doc, at)
            taken.add(one, {"rollover": True})
        elif judged.ruling is Ruling.JUMPED:
            self._row(
                taken, desk.id, meter, "jump", {"register": name, "from": before, "to": first, **_ratio(desk)}, at
            )
            taken.told.append(("device.fault", {"kind": "register-jumped", **_said(one), "from": before, "to": first}))
        elif judged.ruling is Ruling.WITHDRAWN:
            # It may stand in the row of its day, which is known by its moment.
            of = judged.before.at.wall_ms
            self._row(taken, desk.id, meter, "withdrawn", {"register": name, "withdrawn": before, "of": of}, at)
            meter.absent.add(name)
            taken.told.append(("device.fault", {"kind": "register-withdrawn", **_said(one), "withdrawn": before}))

    def _watch_clock(
        self, taken: Taken, desk: Desk, meter: Memory, counted: Sequence[Reading], *, at: Stamp, now: float
    ) -> None:  # fmt: skip
        """Is the meter's own clock, where it was read with what is asked now, right by a clock that is trusted?"""
        told = [one.device_time for one in counted if one.device_time is not None]
        if not told or at.clock != SYNCED or not isinstance(desk.driver, Answers):
            meter.clock_off_s = 0
            return
        meter.clock_off_s = (_ms(max(told)) - at.wall_ms) // 1000
        if abs(meter.clock_off_s) < CLOCK_OFF_S or not desk.is_due("clock", now, every_s=TOLD_EVERY_S):
            return
        taken.told.append(("device.fault", {"kind": "meter-clock-off", "seconds": meter.clock_off_s}))
        self._row(taken, desk.id, meter, "clock", {"seconds": meter.clock_off_s}, at)

    # -- days ---------------------------------------------------------------------------------------------------

    def _remember(
        self, taken: Taken, desk: Desk, meter: Memory, good: Sequence[Reading], *, at: Stamp, now: float
    ) -> None:  # fmt: skip
        """Keep the first reading of a day, and of what was not in it, and the mark where it is time."""
        if good:
            self._keep(taken, desk, meter, good, at)
        is_due = meter.marked_at is None or now - meter.marked_at >= MARK_EVERY_S
        if is_due or taken.told or taken.days:
            meter.marked_at = now
            taken.mark = self._mark(desk.id, meter)

    def _keep(self, taken: Taken, desk: Desk, meter: Memory, good: Sequence[Reading], at: Stamp) -> None:
        meter.last_ms = at.wall_ms
        values = {_name(one): format(one.value, "f") for one in good}
        day = self._day_of(at.wall_ms)
        is_new = is_dated(at) and day.isoformat() != meter.day
        late = meter.absent & values.keys() if is_dated(at) and not is_new else set()
        if is_new:
            self._note_missing(meter, day, at)
            # A clock that came back finds the rows of days that it had dated ahead: those days will come.
            is_ahead = "" < meter.day < day.isoformat()
            meter.day, meter.absent = day.isoformat(), meter.courses.keys() - values.keys()
            doc = {"t": at.wall_ms, "meter": meter.number, "r": values, **_ratio(desk)}
            taken.days.append(MeterDay(desk.id, meter.day, "read", _text(doc), wins=is_ahead))
        elif late:
            shown = {name: values[name] for name in sorted(late)}
            self._row(taken, desk.id, meter, "more", {"meter": meter.number, "r": shown, **_ratio(desk)}, at)
            meter.absent -= late

    def _note_missing(self, meter: Memory, day: date, at: Stamp) -> None:
        """After an outage the meter's own midnights are wanted: those of the days without a row, and today's if it is late.

        But none of before it took the place of another: where it was then nobody knows.
        """
        if not meter.day:
            return
        back = (day - date.fromisoformat(meter.day)).days
        is_early = self._day_of(at.wall_ms - EARLY_MS) < day
        here = (day - self._day_of(meter.since_ms)).days if meter.since_ms else back
        meter.missing = 0 if back == 1 and is_early else max(0, min(back, here, MOST_DAYS))

    def _freezes(
        self, taken: Taken, desk: Desk, meter: Memory, frozen: Sequence[Reading], *, at: Stamp, now: float
    ) -> None:  # fmt: skip
        by_time: dict[datetime, dict[str, str]] = {}
        for one in frozen:
            match = _FROZEN.fullmatch(one.channel)
            if not match or one.device_time is None:
                continue
            when, name = one.device_time, _name(replace(one, channel=match["rest"] or ""))
            why = self._no_midnight(meter, when, name, one.value, at)
            if not why:
                by_time.setdefault(when, {})[name] = format(one.value, "f")
            elif desk.is_due(f"freeze {name} {why}", now, every_s=TOLD_EVERY_S):
                detail = f"{when.isoformat()}: {why}"
                taken.told.append(("device.fault", {"kind": "freeze-refused", **_said(one), "detail": detail}))
        for when, values in by_time.items():
            doc = {"time": when.isoformat(), "meter": meter.number, "r": values, **_ratio(desk)}
            day = self._day_of(_ms(when) + EARLY_MS)
            taken.days.append(MeterDay(desk.id, day.isoformat(), "freeze", _text(doc)))

    def _no_midnight(self, meter: Memory, when: datetime, name: str, value: Decimal, at: Stamp) -> str:
        """Say why what a meter froze is no midnight of this meter here; "" where it is."""
        ms = _ms(when)
        if self._day_of(ms - EARLY_MS) == self._day_of(ms + EARLY_MS):
            return "no midnight at the site"
        if abs(meter.clock_off_s) * 1000 >= EARLY_MS:
            return "the clock of the meter is wrong"
        if ms > at.wall_ms + EARLY_MS:
            return "still to come: the clock of the meter is wrong"
        if ms < meter.since_ms:
            return "from before it took the place of another meter"
        course = meter.courses.get(name)
        if course is not None and value > max([course.last.value, *(one.value for one in course.waiting)]):
            return "more than the register shows"
        if course is not None and ms < course.anew_ms:  # on which side of its end or jump nobody knows
            return "from before the register began anew"
        return ""

    def _row(
        self, taken: Taken, device: str, meter: Memory, kind: str, doc: Mapping[str, object], at: Stamp
    ) -> None:  # fmt: skip
        """Keep what happened, as of now; what nobody can date is owed."""
        if not is_dated(at):
            if len(meter.owed) < MAX_OWED:
                meter.owed.append((kind, dict(doc)))
            return
        day = self._day_of(at.wall_ms).isoformat()
        meter.told = {key: count for key, count in meter.told.items() if key[0] == day}
        n = meter.told.get((day, kind), 0)
        if n < (MAX_REGISTERS if kind == "more" else MAX_TOLD_A_DAY):  # a meter may push its registers one by one
            meter.told[day, kind] = n + 1
            # Not from 0: after a restart the rows of the same day are not known.
            taken.days.append(MeterDay(device, day, kind, _text({"t": at.wall_ms, **doc}), n=at.wall_ms + n))

    def _pay(self, taken: Taken, desk: Desk, meter: Memory, at: Stamp) -> None:
        """Somebody knows the time: date what happened before, which is before what is read now."""
        if meter.owed and is_dated(at):
            owed, meter.owed = meter.owed, []
            for n, (kind, doc) in enumerate(owed):  # in the order in which it happened, a millisecond each
                then = replace(at, wall_ms=at.wall_ms - len(owed) + n)
                self._row(taken, desk.id, meter, kind, doc, then)

    def _mark(self, device: str, meter: Memory) -> Mark:
        return Mark(device, MARK, _text(meter.fields()), next(self._versions))

    @staticmethod
    def _scaled(taken: Taken, desk: Desk, one: Reading) -> Reading:
        """A meter behind transformers shows less than what flows: what flows is the value, what it shows stands beside it."""
        factor = desk.ratio(one.quantity)
        if factor == 1:
            return one
        taken.add(one, {"raw": format(one.value, "f"), "ratio": format(factor, "f")})
        return replace(one, value=one.value * factor)


def is_dated(at: Stamp) -> bool:
    """Does anybody know the time?"""
    return at.clock == SYNCED or (at.clock != FLOORED and at.mono_ms >= SETTLING_MS)


def _is_counted(one: Reading) -> bool:
    return QUANTITIES[one.quantity].cumulative and not _PAST.fullmatch(one.channel)


def _name(one: Reading) -> str:
    return f"{one.quantity} {one.channel}" if one.channel else one.quantity


def _ratio(desk: Desk) -> dict[str, str]:
    factor = desk.ratio("energy_active_import")
    return {} if factor == 1 else {"ratio": format(factor, "f")}


def _text(doc: Mapping[str, object]) -> str:
    return json.dumps(doc, ensure_ascii=False, separators=(",", ":"))


def _said(one: Reading) -> dict[str, object]:
    return {"quantity": one.quantity, "channel": one.channel, "value": format(one.value, "f")}


def _ms(when: datetime) -> int:
    return int(when.timestamp() * 1000)

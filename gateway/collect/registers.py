"""Cumulative registers, watched as money is: what runs backwards, rolls over or belongs to another meter is told.

A register only grows. One that shows less than before has rolled over (it was within a hundredth of a power of ten, from
`LEAST_ROLLOVER` on, and begins anew), or belongs to another meter (its own number has changed), or is *held*: published with
`quality: held` beside the highest value that was seen, told as a fault of the device, and not taken into the bill until it has
caught up or a person has compared the dial (`dial`). The first reading of a day goes into the monthly store, and so does what
happened; readings that the meter froze by itself (channels "D1", "T2/D5": so many midnights back) are kept as such.

Pure: no IO. What it remembers is one mark a device, stored with the event that it judged, at least every `MARK_EVERY_S` and
with each new day. Limits: `MAX_REGISTERS` registers a device, `MAX_TOLD_A_DAY` swaps, rollovers and dials of each kind a day;
`MOST_DAYS` days are asked of a meter after an outage. Nothing goes into the monthly store under a clock that nobody knows.
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

from drivers.kit import QUANTITIES, Reading
from gateway.clock import FLOORED, Stamp
from gateway.collect.desk import Desk
from gateway.outbox import Mark, MeterDay

MARK: Final = "registers"
MARK_EVERY_S: Final = 900.0
MAX_REGISTERS: Final = 128
MAX_TOLD_A_DAY: Final = 16
MOST_DAYS: Final = 20
LEAST_ROLLOVER: Final = Decimal(100_000)
HELD_TOLD_S: Final = 86_400.0
EARLY_H: Final = 1
DIAL_NEAR: Final = Decimal(1)
_ROLLED: Final = Decimal("0.01")
_FROZEN: Final = re.compile(r"(?:(?P<rest>.*)/)?D(?P<days>[0-9]{1,2})")
# Registers of the past: S settlement, D daily, O hourly, and freezes of other kinds (drivers.protocols.dlt645_layout).
_PAST: Final = re.compile(r"(?:.*/)?[SDOFIZP][0-9]{1,2}")

Values = dict[str, Decimal]
"""Registers by "quantity" or "quantity channel"."""


def local_day(wall_ms: int) -> date:
    """Return the day at the site."""
    return datetime.fromtimestamp(wall_ms / 1000).astimezone().date()


@dataclass(slots=True)
class _Meter:
    """What is remembered of one device: its own number, the highest registers, the day of the last row."""

    number: str = ""
    last: Values = field(default_factory=dict)
    last_ms: int = 0
    day: str = ""
    marked_at: float | None = None
    missing: int = 0
    told: dict[tuple[str, str], int] = field(default_factory=dict)
    # What registers show that are held; not stored: after a restart the next reading holds them again.
    held: Values = field(default_factory=dict)


@dataclass(slots=True)
class Taken:
    """What one poll leads to: the readings as they are published, what to add to each, what to tell and to store."""

    readings: list[Reading]
    more: dict[tuple[str, str], str] = field(default_factory=dict)
    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    days: list[MeterDay] = field(default_factory=list)
    mark: Mark | None = None

    def add(self, reading: Reading, members: Mapping[str, object]) -> None:
        """Add members to a register of the event."""
        text = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in members.items())
        key = (reading.quantity, reading.channel)
        self.more[key] = self.more.get(key, "") + text


class Registers:
    """The registers of all devices."""

    def __init__(self, *, day_of: Callable[[int], date] = local_day) -> None:
        self._day_of = day_of
        self._meters: dict[str, _Meter] = {}
        self._versions = itertools.count(1)

    def load(self, marks: Iterable[Mark]) -> None:
        """Take up what was remembered. A mark that cannot be read is none: counting begins anew."""
        for mark in marks:
            if mark.key == MARK and mark.device not in self._meters:
                try:
                    fields = json.loads(mark.value)
                    last = {str(name): Decimal(value) for name, value in fields["last"].items()}
                    self._meters[mark.device] = _Meter(
                        str(fields["number"]), last, int(fields["ms"]), str(fields["day"])
                    )
                except (ValueError, KeyError, TypeError, AttributeError, InvalidOperation):
                    continue

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

    def last(self, device: str) -> tuple[str, int, Values]:
        """Return the meter's number, when its registers were read last (ms since 1970, 0: never), and what they showed."""
        meter = self._meters.get(device, _Meter())
        return meter.number, meter.last_ms, dict(meter.last)

    def take(self, desk: Desk, readings: Sequence[Reading], at: Stamp, *, now: float) -> Taken:
        """Judge the readings of one poll."""
        taken = Taken([])
        counted = [one for one in readings if _is_counted(one)]
        frozen = [one for one in readings if QUANTITIES[one.quantity].cumulative and _FROZEN.fullmatch(one.channel)]
        meter = self._meters.get(desk.id)
        if counted and meter is None:
            meter = self._meters[desk.id] = _Meter(desk.meter_number)
        if meter is not None:
            day = self._day_of(at.wall_ms)
            if at.clock != FLOORED:
                self._freezes(taken, desk, meter, frozen)
            if counted:
                self._swap(taken, desk, meter, counted, at)
                good = [one for one in counted if self._grows(taken, desk, meter, one, at=at, now=now)]
                self._remember(taken, desk, meter, good, at=at, now=now, day=day)
        for one in readings:
            if _FROZEN.fullmatch(one.channel) and one.device_time is not None:
                taken.add(one, {"quality": "freeze"})
        taken.readings = [self._scaled(taken, desk, one) for one in readings]
        return taken

    def dial(self, desk: Desk, shown: Mapping[str, Decimal], by: str, at: Stamp) -> tuple[dict[str, Any], Taken]:
        """A person has read the dial: store it with the difference. Only a register that is held goes on from what is read.

        And only where the dial shows the same, to within `DIAL_NEAR` of a unit: a slip of the finger must not move a bill.
        """
        meter = self._meters.setdefault(desk.id, _Meter(desk.meter_number))
        rows: dict[str, dict[str, str | None]] = {}
        for name, value in shown.items():
            held = meter.held.get(name)
            read = meter.last.get(name) if held is None else held
            row = rows[name] = {"dial": format(value, "f"), "read": None, "difference": None}
            if read is not None:
                row |= {"read": format(read, "f"), "difference": format(value - read, "f")}
            if held is not None and abs(value - held) <= DIAL_NEAR:
                row |= {"from": format(meter.last[name], "f"), "to": format(held, "f")}
                meter.last[name] = meter.held.pop(name)
        taken = Taken([])
        doc = {
            "t": at.wall_ms,
            "by": by,
            "meter": meter.number,
            "read_t": meter.last_ms,
            "registers": rows,
            **_ratio(desk),
        }
        self._row(taken, desk, meter, "dial", doc, at)
        taken.mark = self._mark(desk.id, meter)
        return doc, taken

    # -- what happened to a meter -------------------------------------------------------------------------------

    def _swap(self, taken: Taken, desk: Desk, meter: _Meter, counted: Sequence[Reading], at: Stamp) -> None:
        number = desk.meter_number
        if not number or number == meter.number:
            return
        if meter.number and meter.last:
            first = {_name(one): format(one.value, "f") for one in counted}
            last = {name: format(value, "f") for name, value in meter.last.items()}
            doc: dict[str, object] = {
                "t": at.wall_ms,
                "old": meter.number,
                "new": number,
                "last_t": meter.last_ms,
                "last": last,
                "first": first,
            }
            told: dict[str, object] = {"kind": "meter-swapped", "old": meter.number, "new": number, "last": last}
            taken.told.append(("device.birth", told))
            self._row(taken, desk, meter, "swap", {**doc, **_ratio(desk)}, at)
            meter.last, meter.held, meter.marked_at = {}, {}, None
        meter.number = number

    def _grows(
        self, taken: Taken, desk: Desk, meter: _Meter, one: Reading, *, at: Stamp, now: float
    ) -> bool:  # fmt: skip
        """Does a register go on from what it showed last? What rolled over does."""
        name = _name(one)
        last = meter.last.get(name)
        if last is None or one.value >= last:
            meter.held.pop(name, None)
            return True
        whole = Decimal(10) ** (last.adjusted() + 1)
        if whole >= LEAST_ROLLOVER and whole - last <= _ROLLED * whole and one.value <= _ROLLED * whole:
            doc = {"t": at.wall_ms, "register": name, "last": format(last, "f"), "first": format(one.value, "f")}
            self._row(taken, desk, meter, "rollover", {**doc, "at": format(whole, "f"), **_ratio(desk)}, at)
            taken.add(one, {"rollover": True})
            return True
        meter.held[name] = one.value
        taken.add(one, {"quality": "held", "highest": format(last, "f")})
        if desk.is_due(f"held {name}", now, every_s=HELD_TOLD_S):
            said = {"quantity": one.quantity, "channel": one.channel, "value": format(one.value, "f")}
            told: dict[str, object] = {"kind": "register-backwards", **said, "highest": format(last, "f")}
            taken.told.append(("device.fault", told))
            self._row(taken, desk, meter, "held", {"t": at.wall_ms, **told}, at)
        return False

    def _remember(
        self, taken: Taken, desk: Desk, meter: _Meter, good: Sequence[Reading], *, at: Stamp, now: float, day: date
    ) -> None:
        for one in good:
            if len(meter.last) < MAX_REGISTERS or _name(one) in meter.last:
                meter.last[_name(one)] = one.value
        if good:
            meter.last_ms = at.wall_ms
        is_new = bool(good) and at.clock != FLOORED and day.isoformat() > meter.day
        if is_new:
            self._note_missing(meter, day, at)
            meter.day = day.isoformat()
            values = {_name(one): format(one.value, "f") for one in good}
            doc = {"t": at.wall_ms, "meter": meter.number, "r": values, **_ratio(desk)}
            taken.days.append(MeterDay(desk.id, meter.day, "read", _text(doc)))
        is_due = meter.marked_at is None or now - meter.marked_at >= MARK_EVERY_S
        if good and (is_new or is_due or taken.told or taken.days):
            meter.marked_at = now
            taken.mark = self._mark(desk.id, meter)

    def _note_missing(self, meter: _Meter, day: date, at: Stamp) -> None:
        """After an outage the meter's own midnights are wanted: those of the days without a row, and today's if it is late."""
        if not meter.day:
            return
        back = (day - date.fromisoformat(meter.day)).days
        is_early = self._day_of(at.wall_ms - EARLY_H * 3_600_000) < day
        meter.missing = 0 if back == 1 and is_early else min(back, MOST_DAYS)

    def _freezes(self, taken: Taken, desk: Desk, meter: _Meter, frozen: Sequence[Reading]) -> None:
        by_time: dict[datetime, dict[str, str]] = {}
        for one in frozen:
            match = _FROZEN.fullmatch(one.channel)
            if match and one.device_time is not None:
                name = _name(replace(one, channel=match["rest"] or ""))
                by_time.setdefault(one.device_time, {})[name] = format(one.value, "f")
        for when, values in by_time.items():
            doc = {"time": when.isoformat(), "meter": meter.number, "r": values, **_ratio(desk)}
            taken.days.append(MeterDay(desk.id, when.date().isoformat(), "freeze", _text(doc)))

    def _row(self, taken: Taken, desk: Desk, meter: _Meter, kind: str, doc: Mapping[str, object], at: Stamp) -> None:
        if at.clock == FLOORED and kind != "dial":
            return
        day = self._day_of(at.wall_ms).isoformat()
        meter.told = {key: count for key, count in meter.told.items() if key[0] == day}
        n = meter.told.get((day, kind), 0)
        if n < MAX_TOLD_A_DAY:
            meter.told[day, kind] = n + 1
            # Not from 0: after a restart the rows of the same day are not known.
            taken.days.append(MeterDay(desk.id, day, kind, _text(doc), n=at.wall_ms + n))

    def _mark(self, device: str, meter: _Meter) -> Mark:
        last = {name: format(value, "f") for name, value in meter.last.items()}
        fields = {"number": meter.number, "ms": meter.last_ms, "day": meter.day, "last": last}
        return Mark(device, MARK, _text(fields), next(self._versions))

    @staticmethod
    def _scaled(taken: Taken, desk: Desk, one: Reading) -> Reading:
        """A meter behind transformers shows less than what flows: what flows is the value, what it shows stands beside it."""
        factor = desk.ratio(one.quantity)
        if factor == 1:
            return one
        taken.add(one, {"raw": format(one.value, "f"), "ratio": format(factor, "f")})
        return replace(one, value=one.value * factor)


def _is_counted(one: Reading) -> bool:
    return QUANTITIES[one.quantity].cumulative and not _PAST.fullmatch(one.channel)


def _name(one: Reading) -> str:
    return f"{one.quantity} {one.channel}" if one.channel else one.quantity


def _ratio(desk: Desk) -> dict[str, str]:
    factor = desk.ratio("energy_active_import")
    return {} if factor == 1 else {"ratio": format(factor, "f")}


def _text(doc: Mapping[str, object]) -> str:
    return json.dumps(doc, ensure_ascii=False, separators=(",", ":"))

"""One month of one meter, from what the gateway kept of it: what was used, register by register, and each gap by name.

A month's use of a register is the sum over its points in time, from the first point at or after the month's beginning to
the first at or after its end (or the last there is): where the meter was swapped, rolled over, or was set back by a
comparison with the dial, one stretch ends and the next begins. So days without a reading cost nothing of the sum; they are
told all the same. Pure: no IO. Limit: 31 days, what `meters.days` gives of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

READ, FREEZE, MISSING, FUTURE, LAST = "read", "freeze", "missing", "future", "last"
TOLD: Final = ("swap", "rollover", "held", "dial")
_EARLY_MS: Final = 3_600_000

Values = Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Point:
    """A moment at which registers are known: `end` closes the stretch before it, `start` opens the one after."""

    t: float
    day: date
    kind: str
    end: Values
    start: Values
    ratio: Decimal = Decimal(1)


@dataclass(frozen=True, slots=True)
class Use:
    """One register in a month: where it began and ended, as the dial shows it, and what was used, ratio included."""

    name: str
    first: Decimal
    last: Decimal
    used: Decimal
    ratio: Decimal


@dataclass(slots=True)
class Month:
    """One meter in one month. `days`: read, freeze, missing or future; `daily`: what was used of `main` on each day."""

    meter: Mapping[str, Any]
    first: date
    days: dict[date, str] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    told: list[Mapping[str, Any]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    main: str = ""
    daily: dict[date, Decimal] = field(default_factory=dict)
    shared: dict[date, Decimal] = field(default_factory=dict)
    """What falls on each day of a gap if all of them used the same: known as a sum only."""

    @property
    def known(self) -> tuple[date, date] | None:
        """The days of the first reading of the month and of the last; None without any."""
        days = [one.day for one in self.points if one.kind in (READ, FREEZE, LAST)]
        return (days[0], days[-1]) if days else None

    @property
    def gaps(self) -> list[tuple[date, date]]:
        """The stretches of days without a reading of either kind."""
        found: list[tuple[date, date]] = []
        for day, kind in self.days.items():
            if kind != MISSING:
                continue
            if found and found[-1][1] == day - timedelta(days=1):
                found[-1] = (found[-1][0], day)
            else:
                found.append((day, day))
        return found


def bounds(month: str) -> tuple[date, date]:
    """Return the first day of "2026-11" and that of the month after. ValueError for anything else."""
    first = date.fromisoformat(f"{month}-01")
    return first, (first + timedelta(days=32)).replace(day=1)


def month_of(meter: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], month: str, *, today: date) -> Month:
    """Work out one month of one meter from its rows, those of the first days after the month included. ValueError."""
    first, beyond = bounds(month)
    found = Month(meter, first)
    points = sorted(filter(None, (_point(row) for row in rows)), key=lambda one: one.t)
    read = datetime.fromtimestamp(float(meter.get("t") or 0) / 1000, UTC).astimezone().date()
    if first <= read < beyond:  # the month is not over, or nothing was read since: what was read last ends it
        last = _numbers(meter["registers"])
        points.append(Point(float(meter["t"]), read, LAST, last, last, Decimal(str(meter.get("ratio", 1)))))
    starts = _starts(points)
    for n in range((beyond - first).days):
        day = first + timedelta(days=n)
        known = starts[day].kind if day in starts else MISSING
        found.days[day] = FUTURE if day > today else known
    found.told = [row for row in rows if row["kind"] in TOLD and first.isoformat() <= row["day"] < beyond.isoformat()]
    found.points = _within(points, starts, first, beyond)
    found.uses = _uses(found.points)
    found.main = next((one.name for one in found.uses if " " not in one.name), found.uses[0].name if found.uses else "")
    _share_out(found, starts, beyond)
    return found


def _point(row: Mapping[str, Any]) -> Point | None:
    day = date.fromisoformat(row["day"])
    ratio = Decimal(str(row.get("ratio", 1)))
    kind = row["kind"]
    if kind in (READ, FREEZE):
        values = _numbers(row["r"])
        t = row["t"] if kind == READ else datetime.fromisoformat(row["time"]).astimezone().timestamp() * 1000
        return Point(float(t), day, kind, values, values, ratio)
    if kind == "swap":
        return Point(float(row["t"]), day, kind, _numbers(row["last"]), _numbers(row["first"]), ratio)
    if kind == "rollover":
        name = row["register"]
        return Point(float(row["t"]), day, kind, {name: Decimal(row["at"])}, {name: Decimal(0)}, ratio)
    if kind == "dial":
        back = {name: one for name, one in row["registers"].items() if "to" in one}
        end = {name: Decimal(one["from"]) for name, one in back.items()}
        return Point(float(row["t"]), day, kind, end, {name: Decimal(one["to"]) for name, one in back.items()}, ratio)
    return None


def _starts(points: Sequence[Point]) -> dict[date, Point]:
    """Return by which point each day begins: a reading soon after midnight, else the meter's own freeze, else the reading."""
    found: dict[date, Point] = {}
    for one in points:
        if one.kind not in (READ, FREEZE):
            continue
        midnight = datetime.combine(one.day, datetime.min.time()).astimezone().timestamp() * 1000
        other = found.get(one.day)
        if other is None or abs(one.t - midnight) + _EARLY_MS * (one.kind == FREEZE) < abs(other.t - midnight):
            found[one.day] = one
    return found


def _within(points: Sequence[Point], starts: Mapping[date, Point], first: date, beyond: date) -> list[Point]:
    """Return the points of the month, with the one that ends it; of those that begin a day, one each."""
    begins = {id(one) for one in starts.values()}
    kept = [one for one in points if one.kind not in (READ, FREEZE) or id(one) in begins]
    inside = [one for one in kept if first <= one.day < beyond]
    after = [one for one in kept if one.day >= beyond and one.kind in (READ, FREEZE)]
    return inside + after[:1]


def _uses(points: Sequence[Point]) -> list[Use]:
    names = dict.fromkeys(name for one in points for name in (*one.end, *one.start))
    found = []
    for name in names:
        of = [one for one in points if name in one.end or name in one.start]
        used = _used(of, name)
        opening = next((one.start[name] for one in of if name in one.start), None)
        closing = next((one.end[name] for one in reversed(of) if name in one.end), None)
        if used is not None and opening is not None and closing is not None:
            found.append(Use(name, opening, closing, used, of[-1].ratio))
    return sorted(found, key=lambda one: one.name)


def _used(points: Sequence[Point], name: str) -> Decimal | None:
    """Return what a register has used from the first point to the last, stretch by stretch; None without a stretch."""
    total, before = None, None
    for one in points:
        if before is not None and name in one.end:
            total = (total or Decimal(0)) + (one.end[name] - before) * one.ratio
        if name in one.start:
            before = one.start[name]
    return total


def _share_out(month: Month, starts: Mapping[date, Point], beyond: date) -> None:
    """Give each day its use; what lies between two known days with a gap between them is known as a sum."""
    name = month.main
    known = [day for day, one in starts.items() if name in one.start and month.first <= day <= beyond]
    known.sort()
    ends: list[tuple[date, float]] = [(day, starts[day].t) for day in known]
    last = month.points[-1] if month.points else None
    if last is not None and last.kind == LAST and (not ends or last.t > ends[-1][1]):
        ends.append((last.day + timedelta(days=1), last.t))
    for (day, t), (until, t_until) in pairwise(ends):
        used = _used([one for one in month.points if t <= one.t <= t_until], name)
        if used is None:
            continue
        span = (until - day).days
        for n in range(span):
            (month.daily if span == 1 else month.shared)[day + timedelta(days=n)] = used / span


def _numbers(values: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: Decimal(value) for name, value in values.items()}

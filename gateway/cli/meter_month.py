"""One month of one meter, from what the gateway kept of it: what was used, register by register, and each gap by name.

A month's use of a register is the sum over its points in time, from the first point that begins a day at or after the
month's beginning to the first at or after its end (or the last there is): so each use is in one month and in no other, and
days without a reading cost nothing of the sum; they are told all the same. Where the meter was swapped, rolled over, jumped,
or was set back by a comparison with the dial, one stretch ends and the next begins; where a transformer was changed, the
stretch before has the old ratio. Each register has its own points: one that was not read with the others is not lost.
A fall that nothing explains, and another number without a swap, are told (`Oddity`) and not smoothed over.
Pure: no IO. Limit: one month.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from drivers.kit import QUANTITIES
from drivers.kit.quantities import is_transformed

READ, FREEZE, MORE, MISSING, FUTURE, LAST = "read", "freeze", "more", "missing", "future", "last"
TOLD: Final = ("swap", "number", "ratio", "rollover", "jump", "held", "unconfirmed", "withdrawn", "clock", "dial")
EARLY_MS: Final = 3_600_000
_KNOWN: Final = (READ, FREEZE, MORE)
_FIRST_YEAR: Final = 1970
_RANK: Final = {name: place for place, name in enumerate(QUANTITIES)}

Values = Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Point:
    """A moment at which registers are known: `end` closes the stretch before it, `start` opens the one after.

    `ratio` is the one of the stretch before. What is `anew` begins every register anew, those too that it does not name.
    """

    t: float
    day: date
    kind: str
    end: Values
    start: Values
    ratio: Decimal = Decimal(1)
    number: str = ""
    anew: bool = False

    @property
    def is_reading(self) -> bool:
        """Did the meter show this, to the gateway or to itself?"""
        return self.kind in (*_KNOWN, LAST)


@dataclass(frozen=True, slots=True)
class Oddity:
    """Between two points a register fell, or the meter's number changed, and nothing on record says why."""

    name: str
    before: Point
    after: Point

    @property
    def is_of_another(self) -> bool:
        """Was it another meter, by its number?"""
        return bool(self.before.number and self.after.number and self.before.number != self.after.number)


@dataclass(frozen=True, slots=True)
class Use:
    """One register in a month: where it began and ended, as the dial shows it, and what was used, ratio included.

    `used` is None where there is no stretch. `until_next`: for each day with a reading, what was used until the next reading
    and how many days that is; their sum is `used`. `absent`: days on which the meter was read and this register was not.
    """

    name: str
    opening: Point
    closing: Point
    first: Decimal
    last: Decimal
    used: Decimal | None
    ratios: tuple[Decimal, ...]
    until_next: Mapping[date, tuple[Decimal, int]]
    readings: Mapping[date, Point]
    absent: tuple[date, ...]

    @property
    def daily(self) -> dict[date, Decimal]:
        """What was used on each day that is known for itself."""
        return {day: used for day, (used, days) in self.until_next.items() if days == 1}

    @property
    def shared(self) -> dict[date, Decimal]:
        """What falls on each day of a gap if all of them used the same: known as a sum only."""
        gaps = [(day, used / days, days) for day, (used, days) in self.until_next.items() if days > 1]
        return {day + timedelta(days=n): used for day, used, days in gaps for n in range(days)}


@dataclass(slots=True)
class Month:
    """One meter in one month. `days`: read, freeze, missing or future. `heard`: days on which the gateway itself read it.

    `ahead`: days of rows that a wrong clock has dated.
    """

    meter: Mapping[str, Any]
    first: date
    beyond: date
    is_over: bool
    days: dict[date, str] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    told: list[Mapping[str, Any]] = field(default_factory=list)
    odd: list[Oddity] = field(default_factory=list)
    ahead: list[date] = field(default_factory=list)
    heard: set[date] = field(default_factory=set)

    @property
    def main(self) -> Use | None:
        """The register that stands for the meter in the picture: the first total there is."""
        totals = [one for one in self.uses if " " not in one.name]
        return next(iter(totals or self.uses), None)

    @property
    def daily(self) -> dict[date, Decimal]:
        """What was used of `main` on each day that is known for itself."""
        return {day: one for day, one in self.main.daily.items() if day < self.beyond} if self.main else {}

    @property
    def shared(self) -> dict[date, Decimal]:
        """What was used of `main` on each day of a gap, if all of them used the same."""
        return {day: one for day, one in self.main.shared.items() if day < self.beyond} if self.main else {}

    @property
    def gaps(self) -> list[tuple[date, date]]:
        """The stretches of days without a reading of either kind."""
        return stretches(day for day, kind in self.days.items() if kind == MISSING)


def stretches(days: Iterable[date]) -> list[tuple[date, date]]:
    """Return days in order as stretches without a hole."""
    found: list[tuple[date, date]] = []
    for day in days:
        if found and found[-1][1] == day - timedelta(days=1):
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def bounds(month: str) -> tuple[date, date]:
    """Return the first day of "2026-11" and that of the month after. ValueError for anything else."""
    first = date.fromisoformat(f"{month}-01")
    if first.year < _FIRST_YEAR:  # no clock of ours shows it, and east of Greenwich its first midnight is in no year
        raise ValueError(month)
    return first, (first + timedelta(days=32)).replace(day=1)


def midnight_ms(day: date) -> float:
    """Return when a day begins at the site."""
    return datetime.combine(day, datetime.min.time()).astimezone().timestamp() * 1000


def day_at(ms: float) -> date:
    """Return the day at the site."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().date()


def month_of(meter: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], month: str, *, today: date) -> Month:
    """Work out one month of one meter from its rows, those after the month up to the next reading included. ValueError."""
    first, beyond = bounds(month)
    found = Month(meter, first, beyond, is_over=today >= beyond)
    # A day after today was dated by a clock that was ahead; by a day it may be the one who asks that is behind.
    found.ahead = sorted({day for row in rows if (day := date.fromisoformat(row["day"])) > today + timedelta(days=1)})
    rows = [row for row in rows if date.fromisoformat(row["day"]) not in found.ahead]
    rows = _without_slips(rows)
    points = _points(meter, rows, first, beyond)
    known: dict[date, set[str]] = {}
    for one in points:
        if one.kind in _KNOWN and first <= one.day < beyond:
            known.setdefault(one.day, set()).add(READ if one.kind == MORE else one.kind)
    found.heard = {day for day, kinds in known.items() if READ in kinds}
    begins = _starts([one for one in points if one.kind in (READ, FREEZE)])
    for n in range((beyond - first).days):
        day = first + timedelta(days=n)
        kind = begins[day].kind if day in begins else READ if day in known else MISSING
        found.days[day] = FUTURE if day > today else kind
    found.told = [row for row in rows if row["kind"] in TOLD and first.isoformat() <= row["day"] < beyond.isoformat()]
    for name in dict.fromkeys(name for one in points for name in (*one.end, *one.start)):
        use, odd = _use(name, points, found)
        found.uses += [use] if use else []
        found.odd += odd
    found.uses.sort(key=lambda one: _order(one.name))
    return found


def _without_slips(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave out a swap that the next reading took back: the old number again, and its registers go on.

    What was read once under another number was garbled, or another meter that answered: it is no reading of this one.
    """
    found = list(rows)
    swaps = sorted((row for row in rows if row["kind"] == "swap"), key=lambda row: float(row["t"]))
    at = 0
    while at + 1 < len(swaps):
        one, back = swaps[at], swaps[at + 1]
        at += 1
        if _is_taken_back(one, back):
            at += 1
            false = [row for row in found if row["kind"] in (READ, MORE) and row.get("meter") == one["new"]]
            gone = [one, back, *(row for row in false if float(one["t"]) <= float(row["t"]) < float(back["t"]))]
            found = [row for row in found if not any(row is other for other in gone)]
            found.append({"kind": "number", "day": one["day"], "t": one["t"], "old": one["old"], "new": one["new"]})
    return found


def _is_taken_back(one: Mapping[str, Any], back: Mapping[str, Any]) -> bool:
    last, first = _numbers(one["last"]), _numbers(back["first"])
    both = last.keys() & first.keys()
    was_read_once = float(back.get("last_t") or 0) == float(one["t"])
    is_same = (one["old"], one["new"]) == (back["new"], back["old"])
    return was_read_once and is_same and bool(both) and all(first[name] >= last[name] for name in both)


def _points(meter: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], first: date, beyond: date) -> list[Point]:
    """Return every point in order; what happened stands before the reading of the same moment that showed it."""
    points = [one for one in (_point(row, rows) for row in rows) if one is not None]
    false = {
        (float(row["of"]), row["register"], Decimal(row["withdrawn"])) for row in rows if row["kind"] == "withdrawn"
    }
    points = [_without(one, false) for one in points]
    read = day_at(float(meter.get("t") or 0))
    if first <= read < beyond:  # the month is not over, or nothing was read since: what was read last ends it
        last = _numbers(meter["registers"])
        ratio = Decimal(str(meter.get("ratio", 1)))
        points.append(Point(float(meter["t"]), read, LAST, last, last, ratio, str(meter.get("meter", ""))))
    # Of the same moment: the old ratio is of what stood before anything else happened.
    return sorted(points, key=lambda one: (one.t, one.is_reading, one.kind == LAST, one.kind != "ratio"))


def _without(one: Point, false: set[tuple[float, str, Decimal]]) -> Point:
    """Leave out of a point what was withdrawn later: it was no true reading."""
    wrong = {name for t, name, value in false if t == one.t and one.start.get(name) == value}
    if not wrong or one.kind not in (READ, MORE, "swap"):
        return one
    start = {name: value for name, value in one.start.items() if name not in wrong}
    return replace(one, start=start, end=one.end if one.kind == "swap" else start)


def _behind_its_reading(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float:
    """Return when a ratio ended: right behind the last reading, for midnights that the meter gave later are of the new one.

    But not before what else has happened by then: that may have been dated later, when somebody knew the time.
    """
    t = float(row["t"])
    if not row.get("last_t"):
        return t
    before = [float(one["t"]) for one in rows if one["kind"] in ("swap", "rollover", "jump", "dial")]
    return min(max([float(row["last_t"]), *(one for one in before if one < t)]) + 0.5, t)


def _point(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Point | None:
    day, kind = date.fromisoformat(row["day"]), row["kind"]
    ratio, number = Decimal(str(row.get("ratio", 1))), str(row.get("meter", ""))
    if kind in _KNOWN:
        values = _numbers(row["r"])
        t = float(row["t"]) if kind != FREEZE else datetime.fromisoformat(row["time"]).astimezone().timestamp() * 1000
        return Point(t, day, kind, values, values, ratio, number)
    t = float(row["t"])
    match kind:
        case "swap":
            end, start = _numbers(row["last"]), _numbers(row["first"])
            return Point(t, day, kind, end, start, ratio, str(row["new"]), anew=True)
        case "ratio":
            values = _numbers(row["r"])
            t = _behind_its_reading(row, rows)
            return Point(t, day_at(t), kind, values, values, ratio)
        case "rollover":
            name = row["register"]
            return Point(t, day, kind, {name: Decimal(row["at"])}, {name: Decimal(0)}, ratio)
        case "jump":
            name = row["register"]
            return Point(t, day, kind, {name: Decimal(row["from"])}, {name: Decimal(row["to"])}, ratio)
        case "dial":
            back = {name: one for name, one in row["registers"].items() if "to" in one}
            end = {name: Decimal(one["from"]) for name, one in back.items()}
            return Point(t, day, kind, end, {name: Decimal(one["to"]) for name, one in back.items()}, ratio)
    return None


def _starts(points: Iterable[Point]) -> dict[date, Point]:
    """Return by which point each day begins: a reading soon after midnight, else the meter's own freeze, else the reading."""
    found: dict[date, Point] = {}
    for one in points:
        other = found.get(one.day)
        if other is None or _far(one) < _far(other):
            found[one.day] = one
    return found


def _far(one: Point) -> float:
    return abs(one.t - midnight_ms(one.day)) + EARLY_MS * (one.kind == FREEZE)


def _use(name: str, points: Sequence[Point], month: Month) -> tuple[Use | None, list[Oddity]]:
    """Work out one register: from the point that begins it to the one that ends it, in its own course."""
    starts = _starts(one for one in points if one.kind in _KNOWN and name in one.start)
    course = [one for one in points if one.anew or name in one.end or name in one.start]
    chosen = {id(one) for one in (*starts.values(), *_begun_anew(name, course))}
    course = [one for one in course if one.kind not in _KNOWN or id(one) in chosen]
    opens = next((at for at, one in enumerate(course) if id(one) in chosen and one.day >= month.first), None)
    if opens is None:
        opens = next((at for at, one in enumerate(course) if one.kind == LAST), None)
    if opens is None or course[opens].day >= month.beyond:
        return None, []
    closes = next(
        (at for at, one in enumerate(course) if id(one) in chosen and one.day >= month.beyond), len(course) - 1
    )
    course = course[opens : closes + 1]
    while len(course) > 1 and name not in course[-1].end:
        course.pop()
    until_next, odd = _spans(name, course)
    steps = [step for _, _, step in _stretches(name, course)]
    closing = course[-1]
    return Use(
        name, course[0], closing, course[0].start[name], closing.end[name], sum(steps, Decimal(0)) if steps else None,
        tuple(dict.fromkeys(one.ratio if is_transformed(name) else Decimal(1) for one in course)), until_next, starts,
        tuple(day for day, kind in month.days.items() if kind in (READ, FREEZE) and day not in starts),
    ), odd  # fmt: skip


def _begun_anew(name: str, course: Sequence[Point]) -> list[Point]:
    """Return by which readings a register begins that a new meter did not show at first: no day need begin with them."""
    found, is_awaited = [], False
    for one in course:
        if one.anew:
            is_awaited = name not in one.start
        elif is_awaited and one.kind in _KNOWN:
            found.append(one)
            is_awaited = False
    return found


def _stretches(name: str, course: Sequence[Point]) -> list[tuple[Point, Point, Decimal]]:
    """Return what was used between one point and the next where both are of one stretch."""
    found: list[tuple[Point, Point, Decimal]] = []
    since: Point | None = None
    for one in course:
        is_of_another = Oddity(name, since or one, one).is_of_another and not one.anew
        if since is not None and name in one.end and not is_of_another:
            factor = one.ratio if is_transformed(name) else Decimal(1)
            found.append((since, one, (one.end[name] - since.start[name]) * factor))
        if name in one.start:
            since = one
        elif one.anew:
            since = None
    return found


def _spans(name: str, course: Sequence[Point]) -> tuple[dict[date, tuple[Decimal, int]], list[Oddity]]:
    """Share what was used out over the days of readings; tell what nothing explains."""
    stretches = _stretches(name, course)
    readings = [at for at, one in enumerate(course) if one.is_reading or at == len(course) - 1]
    place = {id(one): at for at, one in enumerate(course)}
    found: dict[date, tuple[Decimal, int]] = {}
    for since, until in pairwise(readings):
        used = [step for _, one, step in stretches if since < place[id(one)] <= until]
        last = course[until]
        day = last.day if last.kind in _KNOWN else last.day + timedelta(days=1)
        begun = course[since].day
        if used:  # a day on which a new meter was read again has both
            before = found.get(begun, (Decimal(0), 0))[0]
            found[begun] = (before + sum(used, Decimal(0)), (day - begun).days)
    odd = [Oddity(name, one, other) for one, other, step in stretches if step < 0]
    for one, other in pairwise([one for one in course if one.is_reading or one.anew]):
        odd += [Oddity(name, one, other)] if Oddity(name, one, other).is_of_another and not other.anew else []
    return found, odd


def _order(name: str) -> tuple[int, str]:
    quantity, _, channel = name.partition(" ")
    return _RANK.get(quantity, len(_RANK)), channel


def _numbers(values: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: Decimal(value) for name, value in values.items()}

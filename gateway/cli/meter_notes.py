"""What a month of the meters has to say in words: a line on every gap, on what filled it, and on everything that happened.

A line tells whoever pays what it does to the sum. Styles say how bad it is: problem (the sum or a day is not whole), warning
(something happened), notice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from drivers.kit import QUANTITIES
from gateway.cli.layout import Paper, clean
from gateway.cli.meter_month import (
    EARLY_MS,
    FREEZE,
    LAST,
    Month,
    Oddity,
    Point,
    Use,
    day_at,
    midnight_ms,
    stretches,
)

Line = tuple[str, str]


def notes(paper: Paper, months: Sequence[Month], *, heard: Collection[date] = (), is_alone: bool = False) -> list[Line]:
    """Return every line, meter by meter.

    `heard`: the days on which any meter of the site was read, also one that is not among these: on the others the gateway was
    away. `is_alone`: it is the only one of the site, so that nobody knows whether it or the gateway was.
    """
    lines: list[Line] = []
    for month in months:
        name = month.meter["id"]
        if month.meter.get("gone"):
            lines.append((paper.say("meters-gone", device=name), "warning"))
        lines += _gaps(paper, month, heard, is_alone=is_alone)
        frozen = [day for day, kind in month.days.items() if kind == FREEZE]
        if frozen:
            lines.append((paper.say("meters-frozen", device=name, days=_listed(frozen)), "notice"))
        lines += [(_happened(paper, name, row), "warning") for row in month.told]
        lines += [(_odd(paper, name, one), "problem") for one in month.odd]
        lines += _absent(paper, month)
        if month.ahead:
            lines.append((paper.say("meters-ahead", device=name, days=", ".join(map(str, month.ahead[:5]))), "warning"))
    return lines or [(paper.say("meters-whole"), "good")]


def _absent(paper: Paper, month: Month) -> list[Line]:
    """Tell which registers were not read with the others; those of the same days in one line."""
    names: dict[tuple[date, ...], list[str]] = {}
    for one in month.uses:
        if one.absent:
            names.setdefault(one.absent, []).append(word(paper, one.name))
    facts = [
        {"device": month.meter["id"], "register": "; ".join(of), "days": _listed(days)} for days, of in names.items()
    ]
    return [(paper.say("meters-register-missing", **one), "warning") for one in facts]


def _gaps(paper: Paper, month: Month, heard: Collection[date], *, is_alone: bool) -> list[Line]:
    """Tell each gap: one at an end of the month with what it does to the sum, one within it."""
    name, use = month.meter["id"], month.main
    if use is None:
        return [(paper.say("meters-no-reading", device=name), "problem")]
    lines: list[Line] = []
    gaps = dict(month.gaps)
    before = gaps.pop(month.first, None)
    if before is not None or use.opening.t > midnight_ms(month.first) + EARLY_MS:
        facts = {"span": _span(paper, month.first, before)} if before else {}
        key = "meters-begins"
        lines.append((paper.say(key, device=name, time=_moment(use.opening), **facts), "problem"))
    after = next((first for first, last in gaps.items() if last == month.beyond - timedelta(days=1)), None)
    facts = {"span": _span(paper, after, gaps.pop(after))} if after else {}
    for first, last in gaps.items():
        count = (last - first).days + 1
        is_silent = any(first + timedelta(days=n) in heard for n in range(count))
        key = "meters-gap-alone" if is_alone else "meters-gap" if is_silent else "meters-gap-all"
        lines.append((paper.say(key, device=name, span=_span(paper, first, last), days=count), "problem"))
    closing = use.closing
    if closing.kind != LAST and closing.day >= month.beyond:
        if after or closing.t > midnight_ms(month.beyond) + EARLY_MS:
            lines.append((paper.say("meters-ends-late", device=name, time=_moment(closing), **facts), "problem"))
    elif month.is_over or after:
        lines.append((paper.say("meters-ends", device=name, time=_moment(closing), **facts), "problem"))
    return lines


def _odd(paper: Paper, name: str, odd: Oddity) -> str:
    facts = {
        "device": name,
        "register": word(paper, odd.name),
        "first": _moment(odd.before),
        "last": _moment(odd.after),
    }
    if odd.is_of_another:
        return paper.say("meters-other-number", old=clean(odd.before.number), new=clean(odd.after.number), **facts)
    before, after = odd.before.start[odd.name], odd.after.end[odd.name]
    return paper.say("meters-fell", before=f"{before:f}", after=f"{after:f}", **facts)


def _happened(paper: Paper, name: str, row: Mapping[str, Any]) -> str:
    facts: dict[str, object] = {"device": name, "day": row["day"]}
    match row["kind"]:
        case "swap":
            since = day_at(float(row["last_t"])) if row.get("last_t") else None
            return paper.say("meters-swap", old=clean(row["old"]), new=clean(row["new"]), since=since, **facts)
        case "number":
            return paper.say("meters-number-once", old=clean(row["old"]), new=clean(row["new"]), **facts)
        case "ratio":
            return paper.say("meters-ratio", old=_plain(row["old"]), new=_plain(row["new"]), **facts)
        case "rollover":
            facts["register"] = word(paper, row["register"])
            return paper.say("meters-rollover", last=row["last"], first=row["first"], **facts)
        case "jump":
            facts |= {"register": word(paper, row["register"]), "unit": unit_of(row["register"])}
            apart = f"{(Decimal(row['to']) - Decimal(row['from'])) * Decimal(str(row.get('ratio', 1))):f}"
            return paper.say("meters-jump", before=row["from"], after=row["to"], apart=apart, **facts)
        case "withdrawn":
            facts["register"] = word(paper, row["register"])
            return paper.say("meters-withdrawn", value=row["withdrawn"], **facts)
        case "clock":
            off = timedelta(seconds=abs(int(row["seconds"])))
            return paper.say("meters-clock-ahead" if row["seconds"] > 0 else "meters-clock-behind", off=off, **facts)
        case "held" | "unconfirmed" as kind:
            facts["register"] = word(paper, " ".join(filter(None, (row["quantity"], row["channel"]))))
            key = "meters-held" if kind == "held" else "meters-unconfirmed"
            return paper.say(key, value=row["value"], highest=row["highest"], **facts)
    compared = "; ".join(_compared(paper, register, one) for register, one in row["registers"].items())
    return paper.say("meters-dial", by=clean(row["by"]), compared=compared, **facts)


def _compared(paper: Paper, register: str, one: Mapping[str, Any]) -> str:
    difference = paper.say("meters-difference", difference=one["difference"] or "-")
    onward = paper.say("meters-onward", before=one["from"], after=one["to"]) if "to" in one else ""
    return f"{word(paper, register)} {one['dial']} ({difference}){onward}"


def _span(paper: Paper, first: date, last: date) -> str:
    return f"{first}" if first == last else paper.say("meters-span", first=first, last=last)


def _moment(point: Point) -> str:
    return f"{datetime.fromtimestamp(point.t / 1000, UTC).astimezone():%Y-%m-%d %H:%M}"


def _listed(days: Sequence[date]) -> str:
    """Return days of one month as "3, 5-9"."""
    return ", ".join(f"{a.day}" if a == b else f"{a.day}-{b.day}" for a, b in stretches(days))


def _plain(written: object) -> str:
    return f"{Decimal(str(written)).normalize():f}"


def shown_unit(name: str) -> str:
    """Return the unit of a register as people write it: a mere count has none."""
    unit = unit_of(name)
    return "" if unit == "1" else unit


def used_of(use: Use) -> str:
    """Return what was used, as people write it; "-" where that is not known."""
    return "-" if use.used is None else f"{use.used.normalize():f}"


def word(paper: Paper, name: str) -> str:
    """Return a register as people call it."""
    quantity, _, channel = name.partition(" ")
    known = QUANTITIES.get(quantity)
    shown = quantity if known is None else known.zh if paper.lang == "zh" else known.en
    return clean(f"{shown} {channel}".strip())


def unit_of(name: str) -> str:
    """Return the unit of a register; "" of an unknown one."""
    known = QUANTITIES.get(name.partition(" ")[0])
    return known.unit if known else ""

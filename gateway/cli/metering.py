"""`gateway meters`: the month of every meter as table, CSV and picture, and the comparison with the dial.

What a report needs is kept by the gateway (docs/decisions/0007); this only works it out and prints it.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from drivers.kit import QUANTITIES
from gateway import control_client as client
from gateway.cli.layout import Cell, Paper, clean
from gateway.cli.meter_month import FREEZE, MISSING, Month, bounds, month_of
from gateway.cli.meter_picture import picture

# So many days after a month are asked for, too: the first reading after it ends it, and an outage may lie there.
AFTER_DAYS: Final = 31
# Of a dial, before the point or behind it: "1e99999999" is as long as it says when it is written out.
MAX_DIGITS: Final = 18
_CSV: Final = (
    "device", "room", "meter", "quantity", "channel", "unit", "day", "kind", "time", "dial", "ratio", "used_that_day",
)  # fmt: skip


class NotThere(Exception):
    """What was asked for is not there: the message says what, in the language of whoever asks."""


def today() -> date:
    """Return the day at the site."""
    return datetime.now().astimezone().date()


def report(arguments: argparse.Namespace, paper: Paper, *, control: Path, today: date) -> bool:
    """Print the month; True where no day of no meter is missing. Raises NotThere, ControlError, OSError (a file)."""
    month = arguments.month or f"{today:%Y-%m}"
    try:
        first, beyond = bounds(month)
    except ValueError:
        raise NotThere(paper.say("meters-bad-month", month=month)) from None
    meters = client.ask(control, "meters.list")
    if arguments.device:
        meters = [one for one in meters if one["id"] == arguments.device]
    if not meters:
        raise NotThere(paper.say("meters-none", device=arguments.device))
    until = beyond + timedelta(days=AFTER_DAYS)
    months = []
    for meter in meters:
        asked = {"device": meter["id"], "first": first.isoformat(), "last": until.isoformat()}
        units = {name: unit_of(name) for name in meter["registers"]}
        rows = _rows(control, **asked)
        months.append(month_of({**meter, "units": units}, rows, month, today=today))
    title = paper.say("meters-title", month=month)
    show(paper, months, title)
    if arguments.csv:
        write_csv(Path(arguments.csv), months)
        paper.print(paper.say("meters-written", file=arguments.csv))
    if arguments.svg:
        Path(arguments.svg).write_text(picture(months, title=title, say=paper.say), encoding="utf-8")
        paper.print(paper.say("meters-written", file=arguments.svg))
    return not any(MISSING in one.days.values() for one in months)


def _rows(control: Path, **asked: Any) -> list[dict[str, Any]]:
    """Return everything that is kept of one meter in some days. Raises ControlError."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        answer = client.ask(control, "meters.days", **asked, after=after)
        found += answer["rows"]
        after = answer["next"]
        if after is None:
            return found


def show(paper: Paper, months: Sequence[Month], title: str) -> None:
    """Print the table, and below it a line for each thing that happened."""
    paper.print(paper.style(title, "head"))
    rows: list[list[Cell]] = []
    for month in months:
        head = [clean(month.meter[name]) for name in ("id", "room", "meter")]
        for use in month.uses:
            ratio = "" if use.ratio == 1 else f"x{use.ratio.normalize():f}"
            shown = [
                word(paper, use.name),
                f"{use.first:f}",
                f"{use.last:f}",
                ratio,
                f"{use.used:f}",
                unit_of(use.name),
            ]
            rows.append([*head, *shown])
        if not month.uses:
            rows.append([*head, *["-"] * 6])
    paper.table(("device", "room", "meter", "register", "first", "final", "ratio", "used", "unit"), rows)
    paper.print()
    for line, style in notes(paper, months):
        paper.print(f"  {paper.style(line, style)}")


def notes(paper: Paper, months: Sequence[Month]) -> list[tuple[str, str]]:
    """Return a line on every gap, on what the meters' own readings filled, and on everything that happened."""
    lines: list[tuple[str, str]] = []
    away = [day for day in months[0].days if all(one.days[day] == MISSING for one in months)] if len(months) > 1 else []
    for month in months:
        name = month.meter["id"]
        for first, last in month.gaps:
            days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
            if month.known is None or first < month.known[0] or last > month.known[1]:
                continue  # said with how the month begins and ends: there it costs something of the sum
            why = "meters-gap-all" if all(day in away for day in days) else "meters-gap"
            lines.append((paper.say(why, device=name, first=first, last=last, days=len(days)), "problem"))
        frozen = [day for day, kind in month.days.items() if kind == FREEZE]
        if frozen:
            listed = ", ".join(str(day.day) for day in frozen)
            lines.append((paper.say("meters-frozen", device=name, days=listed), "notice"))
        lines += [(_happened(paper, name, row), "warning") for row in month.told]
        lines += _edges(paper, month)
    return lines or [(paper.say("meters-whole"), "good")]


def _edges(paper: Paper, month: Month) -> list[tuple[str, str]]:
    """Say it where a month does not begin or end with its own first reading."""
    if month.known is None:
        return [(paper.say("meters-no-reading", device=month.meter["id"]), "problem")]
    lines, (begins, ends) = [], month.known
    missing = [first for first, _last in month.gaps]
    if any(first < begins for first in missing):
        lines.append((paper.say("meters-begins", device=month.meter["id"], day=begins), "problem"))
    if any(first > ends for first in missing):
        lines.append((paper.say("meters-ends", device=month.meter["id"], day=ends), "problem"))
    return lines


def _happened(paper: Paper, name: str, row: Mapping[str, Any]) -> str:
    day, kind = row["day"], row["kind"]
    if kind == "swap":
        return paper.say("meters-swap", device=name, day=day, old=clean(row["old"]), new=clean(row["new"]))
    if kind == "rollover":
        register = word(paper, row["register"])
        return paper.say(
            "meters-rollover", device=name, day=day, register=register, last=row["last"], first=row["first"]
        )
    if kind == "held":
        register = word(paper, " ".join(filter(None, (row["quantity"], row["channel"]))))
        told = {"value": row["value"], "highest": row["highest"]}
        return paper.say("meters-held", device=name, day=day, register=register, **told)
    compared = "; ".join(
        f"{word(paper, register)} {one['dial']} ({paper.say('meters-difference', difference=one['difference'] or '-')})"
        for register, one in row["registers"].items()
    )
    return paper.say("meters-dial", device=name, day=day, by=clean(row["by"]), compared=compared)


def write_csv(path: Path, months: Sequence[Month]) -> None:
    """Write a line for each day and register, days without a reading included. Raises OSError."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # the mark that a spreadsheet wants before Chinese
        out = csv.writer(file)
        out.writerow(_CSV)
        for month in months:
            starts = {one.day: one for one in month.points if one.kind in ("read", "freeze")}
            names = sorted({name for one in month.points for name in one.start}) or [""]
            for day, kind in month.days.items():
                for name in names:
                    out.writerow(_csv_row(month, day, kind, name, starts))


def _csv_row(month: Month, day: date, kind: str, name: str, starts: Mapping[date, Any]) -> list[str]:
    point = starts.get(day)
    quantity, _, channel = name.partition(" ")
    when = (
        "" if point is None else datetime.fromtimestamp(point.t / 1000, UTC).astimezone().isoformat(timespec="seconds")
    )
    dial = "" if point is None or name not in point.start else f"{point.start[name]:f}"
    used = f"{month.daily[day]:f}" if name == month.main and day in month.daily else ""
    head = [month.meter["id"], month.meter["room"], month.meter["meter"]]
    ratio = "" if point is None else f"{point.ratio:f}"
    return [*map(str, head), quantity, channel, unit_of(name), day.isoformat(), kind, when, dial, ratio, used]


def compare(arguments: argparse.Namespace, paper: Paper, *, control: Path, by: str, ask: Callable[[str], str]) -> None:
    """Ask what the dial shows, store it, show the difference. Raises NotThere, ControlError, EOFError."""
    meters = {one["id"]: one for one in client.ask(control, "meters.list")}
    meter = meters.get(arguments.device)
    if meter is None:
        raise NotThere(paper.say("meters-none", device=arguments.device))
    shown = {}
    for written in arguments.dial:
        name, _, value = written.rpartition("=")
        name = name.strip() or next(iter(meter["registers"]))
        shown[name] = _dial(paper, value)
    if not shown:
        read_at = datetime.fromtimestamp(meter["t"] / 1000, UTC).astimezone()
        paper.print(
            paper.say("meters-compare-head", device=meter["id"], meter=meter["meter"], time=f"{read_at:%H:%M:%S}")
        )
        for name, value in meter["registers"].items():
            if " " not in name:
                answer = ask(
                    f"{word(paper, name)} ({unit_of(name)}), {paper.say('meters-read', value=value)}: "
                ).strip()
                if answer:
                    shown[name] = _dial(paper, answer)
    if not shown:
        raise NotThere(paper.say("meters-nothing-compared"))
    answer = client.ask(control, "meters.compare", device=meter["id"], registers=shown, by=by)
    for name, one in answer["registers"].items():
        difference = one["difference"]
        same = difference is not None and abs(Decimal(difference)) <= 1
        line = paper.say("meters-compared", register=word(paper, name), difference=difference or "-", **_told(one))
        paper.print(paper.style(line, "good" if same else "warning"))


def _told(one: Mapping[str, Any]) -> dict[str, str]:
    return {"dial": str(one["dial"]), "read": str(one["read"] or "-")}


def _dial(paper: Paper, written: str) -> str:
    try:
        value = Decimal(written.strip())
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0 or abs(value.adjusted()) > MAX_DIGITS:
        raise NotThere(paper.say("meters-bad-dial", value=clean(written)))
    return f"{value:f}"


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

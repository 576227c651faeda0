"""`gateway meters`: the month of every meter as table, CSV and picture, and the comparison with the dial.

What a report needs is kept by the gateway (docs/decisions/0007); this only works it out and prints it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from gateway import control_client as client
from gateway.cli.layout import Cell, Paper, clean
from gateway.cli.meter_csv import write_csv
from gateway.cli.meter_month import FREEZE, MISSING, READ, Month, bounds, month_of
from gateway.cli.meter_notes import Line, notes, shown_unit, unit_of, word
from gateway.cli.meter_picture import picture

# Of what came after the next reading so many days are looked at, too: a register that was not in it may be in one of these.
AFTER_DAYS: Final = 31
# Of a dial, before the point or behind it: "1e99999999" is as long as it says when it is written out.
MAX_DIGITS: Final = 18


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
    except (ValueError, OverflowError):
        raise NotThere(paper.say("meters-bad-month", month=clean(month))) from None
    if first > today:
        raise NotThere(paper.say("meters-to-come", month=month))
    months = []
    for meter in client.ask(control, "meters.list"):
        rows = rows_of(control, meter["id"], first, beyond)
        found = month_of(meter, rows, month, today=today)
        if not meter["gone"] or any(kind in (READ, FREEZE) for kind in found.days.values()):
            months.append(found)
    heard, is_alone = {day for one in months for day in one.heard}, len(months) == 1
    if arguments.device:
        months = [one for one in months if one.meter["id"] == arguments.device]
    if not months:
        raise NotThere(paper.say("meters-none", device=arguments.device))
    title = paper.say("meters-title", month=month, zone=zone_of(first))
    lines = notes(paper, months, heard=heard, is_alone=is_alone)
    show(paper, months, title, lines)
    if arguments.csv:
        write_csv(Path(arguments.csv), months)
        paper.print(paper.say("meters-written", file=arguments.csv))
    if arguments.svg:
        Path(arguments.svg).write_text(picture(months, title=title, lines=lines, paper=paper), encoding="utf-8")
        paper.print(paper.say("meters-written", file=arguments.svg))
    return not any(MISSING in one.days.values() or one.odd for one in months)


def rows_of(control: Path, device: str, first: date, beyond: date) -> list[dict[str, Any]]:
    """Return what is kept of a month, and of what came after it until `AFTER_DAYS` behind the next reading.

    Raises ControlError.
    """
    rows = list(_pages(control, device=device, first=f"{first}", last=f"{beyond - timedelta(days=1)}"))
    until = date.max
    for row in _pages(control, device=device, first=f"{beyond}", last=f"{date.max}"):
        day = date.fromisoformat(row["day"])
        if day > until:
            break
        rows.append(row)
        if row["kind"] in (READ, FREEZE) and until == date.max:
            until = day + timedelta(days=AFTER_DAYS)
    return rows


def _pages(control: Path, **asked: str) -> Iterator[dict[str, Any]]:
    after = None
    while True:
        answer = client.ask(
            control, "meters.days", device=asked["device"], first=asked["first"], last=asked["last"], after=after
        )
        yield from answer["rows"]
        after = answer["next"]
        if after is None:
            return


def zone_of(day: date) -> str:
    """Return in what time the days of a month are: "UTC+08:00"."""
    return f"UTC{datetime.combine(day, datetime.min.time()).astimezone().isoformat()[-6:]}"


def show(paper: Paper, months: Sequence[Month], title: str, lines: Sequence[Line]) -> None:
    """Print the table, and below it a line for each thing that happened."""
    paper.print(paper.style(title, "head"))
    rows: list[list[Cell]] = []
    for month in months:
        head = [clean(month.meter[name]) for name in ("id", "room", "meter")]
        for use in month.uses:
            ratio = "" if use.ratios == (Decimal(1),) else "/".join(f"x{one.normalize():f}" for one in use.ratios)
            used = "-" if use.used is None else f"{use.used:f}"
            rows.append(
                [*head, word(paper, use.name), f"{use.first:f}", f"{use.last:f}", ratio, used, shown_unit(use.name)]
            )
        if not month.uses:
            rows.append([*head, *["-"] * 6])
    paper.table(("device", "room", "meter", "register", "first", "final", "ratio", "used", "unit"), rows)
    paper.print()
    for line, style in lines:
        paper.print(f"  {paper.style(line, style)}")


def compare(arguments: argparse.Namespace, paper: Paper, *, control: Path, by: str, ask: Callable[[str], str]) -> None:
    """Ask what the dial shows, store it, show the difference. Raises NotThere, ControlError, EOFError."""
    meters = {one["id"]: one for one in client.ask(control, "meters.list")}
    meter = meters.get(arguments.device)
    if meter is None or not meter["registers"]:
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
        registers = meter["registers"]
        totals = [name for name in registers if " " not in name]
        for name in totals or registers:
            read = paper.say("meters-read", value=registers[name])
            answer = ask(f"{word(paper, name)} ({unit_of(name)}), {read}: ").strip()
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

"""The month as a table for other programs: a line for each day and register, days without a reading included.

`used_that_day` is what is known of a day by itself; `used_until_next` is what was used from its reading to the next one, so
that its sum over the days of a register is the month's use, whatever is missing between. Columns are English.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from drivers.kit.quantities import is_transformed
from gateway.cli.meter_month import FUTURE, MISSING, Month, Use
from gateway.cli.meter_notes import unit_of

COLUMNS: Final = (
    "device", "room", "meter", "quantity", "channel", "unit", "day", "kind", "time", "dial", "ratio", "used_that_day",
    "used_until_next",
)  # fmt: skip


def write_csv(path: Path, months: Sequence[Month]) -> None:
    """Write the months. Raises OSError."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # the mark that a spreadsheet wants before Chinese
        out = csv.writer(file)
        out.writerow(COLUMNS)
        for month in months:
            for day, kind in month.days.items():
                for use in month.uses or (None,):
                    out.writerow(_row(month, use, day, kind))


def _row(month: Month, use: Use | None, day: date, kind: str) -> list[str]:
    meter = month.meter
    head = [str(meter[name]) for name in ("id", "room", "meter")]
    if use is None:
        return [*head, "", "", "", day.isoformat(), kind, "", "", "", "", ""]
    quantity, _, channel = use.name.partition(" ")
    head += [quantity, channel, unit_of(use.name), day.isoformat()]
    point = use.readings.get(day)
    if point is None:  # the meter may have been read, and this register not
        return [*head, kind if kind == FUTURE else MISSING, "", "", "", "", _number(use.until_next, day)]
    when = datetime.fromtimestamp(point.t / 1000, UTC).astimezone().isoformat(timespec="seconds")
    shown = [point.kind if point.kind == "freeze" else "read", when, f"{point.start[use.name]:f}"]
    shown.append(f"{point.ratio:f}" if is_transformed(quantity) else "1")
    daily = f"{use.daily[day]:f}" if day in use.daily else ""
    head[2] = point.number or head[2]  # on that day it may have been another one
    return [*head, *shown, daily, _number(use.until_next, day)]


def _number(until_next: Mapping[date, tuple[Decimal, int]], day: date) -> str:
    return f"{until_next[day][0]:f}" if day in until_next else ""

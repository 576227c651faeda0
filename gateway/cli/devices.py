"""`gateway devices`: every configured device, what is known of it, and which of them do not run.

Two lines a device, so that it can be read on 80 columns. The devices that are written down come from the configuration
file, what is known of them from the daemon; without the daemon the file alone is shown. Limit: a file of 1 MiB.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.cli.layout import Paper, clean, width

COLUMNS: Final = 78
_MAX_CONFIG_BYTES: Final = 1024 * 1024
_SHOWN_ID: Final = 18


def written(path: Path) -> list[dict[str, Any]] | None:
    """Return the [[device]] tables of a configuration as they stand; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            tables = tomllib.loads(file.read(_MAX_CONFIG_BYTES).decode("utf-8-sig")).get("device", [])
    except (OSError, ValueError, RecursionError):
        return None
    return [table for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []


def joined(
    tables: Sequence[Mapping[str, Any]] | None, running: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """Return one row a device, in the order of the file: those that run with what is known, then those that do not."""
    known = {str(one["id"]): dict(one) for one in running or ()}
    rows: list[dict[str, Any]] = []
    for table in tables or ():
        name = str(table.get("id", ""))
        place = {key: str(table.get(key, "")) for key in ("id", "model", "link", "room", "bed", "address")}
        row = known.pop(name, None)
        runs = None if running is None else row is not None
        rows.append({**place, **(row or {}), "runs": runs, "tested_s": None})
    return [*rows, *({**row, "runs": True, "tested_s": None} for row in known.values())]


def show(paper: Paper, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the devices."""
    if not rows:
        paper.print(paper.style(paper.say("devices-none"), "warning"))
        return
    for row in rows:
        _device(paper, row)
    asleep = sum(row["runs"] is False for row in rows)
    if asleep:
        paper.print(paper.style(paper.say("devices-aside", count=asleep), "problem"))


def _device(paper: Paper, row: Mapping[str, Any]) -> None:
    place = "/".join(clean(row[name]) for name in ("room", "bed") if row.get(name)) or "-"
    head = [paper.style(clean(row["id"]), "head"), clean(row["model"]), place]
    if row["runs"] is False:
        head.append(paper.style(paper.say("devices-does-not-run"), "problem"))
    elif row["runs"]:
        last = row.get("last_heard_s")
        heard = paper.say("never") if last is None else paper.say("ago", age=paper.age(last))
        head.append(paper.style(f"{paper.say('devices-heard')}{heard}", "warning" if last is None else "good"))
    if row.get("alarm"):
        head.append(paper.style(f"{paper.say('devices-alarm')}{clean(row['alarm'])[:_SHOWN_ID]}", "problem"))
    paper.print("  ".join(head))
    for line in _wrapped(_facts(paper, row), COLUMNS - 4):
        paper.print(f"    {paper.style(line, 'dim')}")


def _facts(paper: Paper, row: Mapping[str, Any]) -> list[str]:
    heard_by = row.get("receivers") or []
    link = ", ".join(_receiver(one) for one in heard_by) if len(heard_by) > 1 else clean(row["link"])
    facts = [f"{link} {clean(row.get('address'))}".strip()]
    if not row["runs"]:
        return facts
    if row.get("battery_percent") is not None:
        facts.append(paper.say("devices-battery", percent=f"{row['battery_percent']:g}"))
    if row.get("rssi") is not None and len(heard_by) < 2:
        facts.append(f"{row['rssi']} dBm")
    if row.get("counter") is not None:
        facts.append(paper.say("devices-counter", value=row["counter"]))
    facts.append(paper.say("devices-counts", heard=row["heard"], events=row["events"], repeats=row["repeats"]))
    if row.get("polls"):
        facts.append(paper.say("devices-polls", polls=row["polls"], failed=row["polls_failed"]))
    for reason, count in (row.get("rejects") or {}).items():
        facts.append(f"{paper.word('reason', reason)} {clean(count)}")
    tested = row.get("tested_s")
    shown = paper.say("never") if tested is None else paper.say("ago", age=paper.age(tested))
    return [*facts, f"{paper.say('devices-tested')}{shown}"]


def _receiver(one: Mapping[str, Any]) -> str:
    """Say which radio hears a device, and how strongly."""
    return clean(one["link"]) + (f" {one['rssi']} dBm" if isinstance(one.get("rssi"), int) else "")


def _wrapped(parts: Sequence[str], columns: int) -> list[str]:
    """Join parts into lines of at most so many columns."""
    lines = [""]
    for part in parts:
        joined_line = f"{lines[-1]} · {part}" if lines[-1] else part
        if lines[-1] and width(joined_line) > columns:
            lines.append(part)
        else:
            lines[-1] = joined_line
    return lines

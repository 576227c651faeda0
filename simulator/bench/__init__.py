"""`simulator bench`: how fast the gateway is, each figure beside its limit measured in the same run, as one table.

Everything runs on this machine, so figures tell of software, not of networks or cards; quote the ratios.
Limits: about six minutes; a backlog of a million events takes some twenty more and 4 GB of disk. What the card is given
needs root, and is left out, aloud, elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from simulator.bench import backlog, bus, ingest, outage, radio, road, wear
from simulator.bench.card import Card, NoCard
from simulator.bench.figures import Figure, table


def main(report: Path | None, *, events: int = backlog.DEFAULT) -> int:
    """Measure, print, write FILE; 1 when something was lost. `events` make the backlog that is drained."""
    _check(events)
    run = Path(tempfile.mkdtemp(prefix="bench-"))
    machine = f"{os.uname().machine}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    began_at = os.getloadavg()[0]
    try:
        measured = asyncio.run(road.measure(run))
        alone = ingest.measure(run / "ingest")
        drains = asyncio.run(backlog.measure(run, backlog=events))
        figures = [*measured.figures, *alone, *(one for drain in drains for one in drain.figures)]
        figures += [*asyncio.run(radio.measure(run)), *_wear(run / "wear")]
    finally:
        shutil.rmtree(run, ignore_errors=True)
    print(f"{machine}, load {began_at:.1f} at the beginning and {os.getloadavg()[0]:.1f} at the end")
    print(table(figures))
    sent = measured.sent + sum(drain.sent for drain in drains)
    accepted = measured.accepted + sum(drain.accepted for drain in drains)
    print(f"lost of {sent:,} lines: {sent - accepted}")
    if report:
        document: dict[str, Any] = {"machine": machine, "sent": sent, "accepted": accepted}
        document["figures"] = [one.as_json() for one in figures]
        report.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(sent != accepted)


def _check(events: int) -> None:
    if not 1_000 <= events <= backlog.MOST:
        raise ValueError(f"--backlog {events}: from 1000 to {backlog.MOST}")


def main_drain(report: Path | None, *, events: int = backlog.DEFAULT) -> int:
    """Measure the drains of a backlog, print, write FILE; 1 when something was lost. Raises ValueError."""
    _check(events)
    run = Path(tempfile.mkdtemp(prefix="bench-drain-"))
    try:
        drains = asyncio.run(backlog.measure(run, backlog=events))
    finally:
        shutil.rmtree(run, ignore_errors=True)
    figures = [one for drain in drains for one in drain.figures]
    lost = sum(drain.sent - drain.accepted for drain in drains)
    print(table(figures))
    print(f"lost of {sum(drain.sent for drain in drains):,} lines: {lost}")
    if report:
        text = json.dumps({"figures": [one.as_json() for one in figures]}, indent=1, ensure_ascii=False)
        report.write_text(text + "\n", encoding="utf-8")
    return int(lost != 0)


def main_wear(report: Path | None) -> int:
    """Measure what an event costs the card, print, write FILE. Raises NoCard where there can be none."""
    run = Path(tempfile.mkdtemp(prefix="bench-wear-"))
    try:
        with Card(run) as card:
            rows = asyncio.run(wear.measure(run, card, quick=False))
    finally:
        shutil.rmtree(run, ignore_errors=True)
    print(wear.table(rows))
    if report:
        text = json.dumps({"rows": wear.as_json(rows)}, indent=1, ensure_ascii=False)
        report.write_text(text + "\n", encoding="utf-8")
    return 0


def main_outage(report: Path | None, *, days: float, per_s: float) -> int:
    """Measure a long outage, print, write FILE; 1 when something was lost or came out of order. Raises ValueError."""
    run = Path(tempfile.mkdtemp(prefix="bench-outage-"))
    try:
        measured = asyncio.run(outage.measure(run, days=days, per_s=per_s))
    finally:
        shutil.rmtree(run, ignore_errors=True)
    lost = measured.said - measured.accepted
    print(f"an outage of {days:g} days at {per_s:g} events/s, {outage.CALLS_IN_100} % of them calls")
    print(table(measured.figures))
    print(f"lost of {measured.said:,} events: {lost}; out of order: {measured.reordered}")
    if report:
        document = {"days": days, "per_s": per_s, "said": measured.said, "accepted": measured.accepted}
        text = json.dumps({**document, "figures": [one.as_json() for one in measured.figures]}, indent=1)
        report.write_text(text + "\n", encoding="utf-8")
    return int(lost != 0 or measured.reordered != 0)


def main_bus(report: Path | None) -> int:
    """Measure how much of a bus's time is used, print, write FILE; 1 where it is less than `bus.LEAST_SHARE`."""
    figures, lines = [], []
    for silent in (0, bus.DEAD):
        run = Path(tempfile.mkdtemp(prefix="bench-bus-"))
        try:
            line = asyncio.run(bus.measure(run, silent=silent))
        finally:
            shutil.rmtree(run, ignore_errors=True)
        lines.append(line)
        figures += bus.figures(line, f"{bus.METERS} meters, {silent} dead")
    print(table(figures))
    if report:
        document = {"figures": [one.as_json() for one in figures]}
        report.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(lines[0].share < bus.LEAST_SHARE)


def _wear(run: Path) -> list[Figure]:
    run.mkdir()
    try:
        with Card(run) as card:
            return wear.figures(asyncio.run(wear.measure(run, card, quick=True)))
    except NoCard as error:
        print(f"bytes an event costs the card: not measured: {error}", file=sys.stderr)
        return []

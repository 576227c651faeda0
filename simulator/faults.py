"""`python -m simulator faults`: breaks the world around the real daemon in every way of the fault table, and measures.

For each row: how long until the problem is shown, how long from mending (or from the fault, where the daemon mends it by
itself) until a press is an event at the platform again, how many presses were lost, and whether a `gateway.gap` covers all
of them, and by how much it is wider. Limits: four daemons side by side, under two minutes in all; a press every
0.2 s, so that a deaf time is known to that; 30 s for everything to be well before a row.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from simulator.fault_bench import PRESS_EVERY_S, SILENCE_S, Bench, Press, bench
from simulator.fault_rows import ROWS, Row

_WELL_S: Final = 30.0
_WELL_AGAIN_S: Final = 30.0
_HOLD_S: Final = 0.6
_LOOK_S: Final = 0.05
_GAP_S: Final = 10.0
_ON_ITS_WAY_S: Final = 0.6
# A link that stays deaf tells nothing more: what it was told by then is all.
_SETTLE_S: Final = 10.0
_TOLERANCE_S: Final = 0.02  # of two clocks read in two processes, and of a time rounded to ms


@dataclass(frozen=True, slots=True)
class Measured:
    """One row. Times in seconds, None where there is nothing to measure; `why` says what fell short, "" when nothing."""

    name: str
    link: str
    code: str
    shown_s: float | None
    recovered_s: float | None
    lost: int
    deaf_s: float
    gap: str
    wider_s: float | None
    why: str


async def measure(rows: Sequence[Row]) -> list[Measured]:
    """Measure rows, those of each bench one after the other, the benches side by side."""
    groups = list(dict.fromkeys(row.bench for row in rows))
    found = await asyncio.gather(*(_measure_group([row for row in rows if row.bench == group]) for group in groups))
    by_name = {one.name: one for group in found for one in group}
    return [by_name[row.name] for row in rows]


async def _measure_group(rows: Sequence[Row]) -> list[Measured]:
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        async with bench(Path(folder)) as world:
            await world.start_daemon()
            return [await _measure(world, row) for row in rows]


async def _measure(world: Bench, row: Row) -> Measured:
    if row.before is not None:
        await row.before(world)
    if not await world.until_well(within_s=_WELL_S):
        return _measured(row, why="not well before it began")
    await asyncio.sleep(2 * PRESS_EVERY_S)
    begun = time.time()
    world.mark_log()
    if row.at_start:
        await world.stop_daemon()
    await row.breaks(world)
    if row.at_start:
        await world.start_daemon()
    shown = await world.until_problem(row.code, row.link, within_s=2.0 * SILENCE_S) if row.code else None
    mended = begun
    if row.mend is not None:
        await asyncio.sleep(_HOLD_S)
        mended = time.time()
        await row.mend(world)
    back = await _until_recovered(world, row, begun=begun, after=mended if row.mend else begun + (shown or 0.0))
    until = back or time.time()
    await _settle(world, row, begun, until)
    lost = _lost(world, row, begun, until)
    gaps = await _gaps(world, row, begun, lost)
    if row.after is not None:
        await row.after(world)
    well = await world.until_well(within_s=_WELL_AGAIN_S)
    recovered = None if back is None else max(0.0, back - mended)
    why = []
    if row.code and shown is None:
        why.append(f"{row.code} was not shown")
    if recovered is None or recovered > row.limit_s:
        why.append(f"not heard again within {row.limit_s:g} s")
    if not row.loses and (lost or gaps):
        why.append("presses lost" if lost else "a gap that was none")
    if not _covers(gaps, lost):
        why.append("a lost press that no gap covers")
    if not well:
        why.append("not well again")
    return _measured(row, shown=shown, recovered=recovered, lost=lost, gaps=gaps, why="; ".join(why))


async def _until_recovered(world: Bench, row: Row, *, begun: float, after: float) -> float | None:
    """Return when the first of three presses that were made after a moment was an event; None when not in time."""
    end = time.time() + row.limit_s + 2.0
    while time.time() < end:
        world.read_events()
        heard = world.heard(row.link, begun)
        first = after
        if row.mend is None and row.loses:
            # It mends by itself: heard again is what comes after the last one lost.
            missing = _lost(world, row, begun, _heard_up_to(world, row, begun))
            if not missing and not row.code:
                await asyncio.sleep(_LOOK_S)
                continue
            first = max([after, *(one.t for one in missing)])
        back = [heard[one.number] for one in world.presses[row.link] if one.t > first and one.number in heard]
        if len(back) >= 3:
            return min(back)
        await asyncio.sleep(_LOOK_S)
    return None


async def _settle(world: Bench, row: Row, begun: float, until: float) -> None:
    """Wait until a press that was made later is an event.

    What is told of one alarm comes in its order (every press here is one of the same alarm), so that one made before, and
    not an event by then, never becomes one. How long an event is on its way proves nothing: a busy machine takes a second.
    """
    end = time.time() + _SETTLE_S
    await asyncio.sleep(_ON_ITS_WAY_S)
    while time.time() < end:
        world.read_events()
        if _heard_up_to(world, row, begun) >= until:
            return
        await asyncio.sleep(_LOOK_S)


def _heard_up_to(world: Bench, row: Row, begun: float) -> float:
    """Return when the newest press was made that is an event."""
    heard = world.heard(row.link, begun)
    return max((one.t for one in world.presses[row.link] if one.t >= begun and one.number in heard), default=begun)


def _lost(world: Bench, row: Row, begun: float, until: float) -> list[Press]:
    """Return the presses between two moments that never became an event."""
    world.read_events()
    heard = world.heard(row.link, begun)
    return [one for one in world.presses[row.link] if begun <= one.t < until and one.number not in heard]


async def _gaps(world: Bench, row: Row, begun: float, lost: Sequence[Press]) -> list[tuple[float, float]]:
    """Return the gaps that were told, once they cover what was lost, or when they have had their time."""
    end = time.time() + (_GAP_S if lost else _ON_ITS_WAY_S)
    while True:
        world.read_events()
        gaps = world.gaps(row.link, begun)
        if time.time() >= end or (lost and _covers(gaps, lost)):
            return gaps
        await asyncio.sleep(_LOOK_S)


def _covers(gaps: Sequence[tuple[float, float]], lost: Sequence[Press]) -> bool:
    return all(any(begin - _TOLERANCE_S <= one.t <= end + _TOLERANCE_S for begin, end in gaps) for one in lost)


def _measured(
    row: Row, *, shown: float | None = None, recovered: float | None = None, lost: Sequence[Press] = (),
    gaps: Sequence[tuple[float, float]] = (), why: str,
) -> Measured:  # fmt: skip
    deaf_s = lost[-1].t - lost[0].t + PRESS_EVERY_S if lost else 0.0
    told_s = sum(end - begin for begin, end in gaps)
    gap = ("covers" if _covers(gaps, lost) else "MISSING") if lost else "told" if gaps else "none"
    return Measured(
        row.name, row.link, row.code, _round(shown), _round(recovered), len(lost), round(deaf_s, 2), gap,
        _round(told_s - deaf_s) if gaps else None, why,
    )  # fmt: skip


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def table(found: Sequence[Measured]) -> str:
    """Return the table as text."""
    head = ("fault", "problem", "shown s", "heard again s", "lost", "deaf s", "gap", "wider s", "")
    lines: list[Sequence[str]] = [head]
    for one in found:
        cells = (one.shown_s, one.recovered_s, one.lost, one.deaf_s, one.gap, one.wider_s)
        lines.append(
            [one.name, one.code or "-", *("-" if cell is None else str(cell) for cell in cells), one.why or "ok"]
        )
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def main(options: argparse.Namespace) -> int:
    """Measure and print. Returns the exit status: 1 when a row fell short."""
    if options.lines:
        return _main_lines(options)
    rows = [row for row in ROWS if options.only.lower() in row.name.lower() and (row.quick or not options.quick)]
    if not rows:
        raise ValueError(f"no row has {options.only!r} in its name")
    # The bus dies under the pretended bluetoothd on purpose; dbus-fast logs a traceback for each reply that it costs.
    logging.getLogger().addHandler(logging.NullHandler())
    begun = time.monotonic()
    found = asyncio.run(measure(rows))
    print(table(found))
    bad = sum(1 for one in found if one.why)
    print(f"\n{len(found)} rows, {bad} fell short, {time.monotonic() - begun:.0f} s; silence_s = {SILENCE_S}")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n", encoding="utf-8")
    return 1 if bad else 0


def _main_lines(options: argparse.Namespace) -> int:
    from simulator.line_faults import measure_lines

    begun = time.monotonic()
    found = asyncio.run(measure_lines())
    print(table(found))
    bad = sum(1 for one in found if one.why)
    print(f"\n{len(found)} rows, {bad} fell short, {time.monotonic() - begun:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n", encoding="utf-8")
    return 1 if bad else 0

"""Call systems, receivers and a radar on lines that break: each is heard again by itself, and each deaf time is told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from simulator import line_faults
from simulator.faults import table
from simulator.line_faults import ROWS, Line, LineRow, measure_lines

pytestmark = pytest.mark.slow


async def test_a_line_that_was_unplugged_and_one_full_of_garbage_are_heard_again() -> None:
    rows = [row for row in ROWS if row.name.startswith(("unplugged", "flood"))]
    found = {one.name: one for one in await measure_lines(rows)}
    assert [one.why for one in found.values()] == [""] * 10
    for model in ("espa444", "tap", "enocean-esp3", "sonoff-rf-bridge", "andar-radar"):
        assert found[f"{model}: unplugged, back"].gap in ("covers", "told")
        assert found[f"{model}: flood of garbage, over"].gap == "none"
    # What a call system has not got acknowledged it keeps.
    assert found["espa444: unplugged, back"].lost == found["tap: unplugged, back"].lost == 0
    assert found["enocean-esp3: unplugged, back"].lost > 0


async def _unplug(line: Line) -> None:
    line.port.unplug()


async def _leave_it(_line: Line) -> None:
    return


async def _lose_the_next(line: Line) -> None:
    """Something happens of which nothing reaches the gateway, though its line is well."""
    # A moment ago: what is told at once afterwards must not come within the tolerance of it.
    line.inputs.append(line_faults.Input(time.time() - 0.6, "key-that-is-not"))
    await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (LineRow("never mended", "GW-SER-03", _unplug, _leave_it), "was not shown; not heard again in time"),
        (LineRow("not told", "", _leave_it, _lose_the_next, is_deaf=False), "lost outside every gap"),
        (LineRow("no gap", "", _leave_it, _leave_it), "a deaf time without a gap"),
    ],
    ids=lambda value: value.name if isinstance(value, LineRow) else "",
)
async def test_what_falls_short_is_said(row: LineRow, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_faults, "LIMIT_S", 3.0)
    (found,) = await measure_lines([row], only=("sonoff",))
    assert why in found.why
    assert why in table([found])


def test_every_row_is_of_the_table_that_is_printed(tmp_path: Path) -> None:
    tasks = line_faults._Tasks()
    assert [line.name for line in line_faults.lines(tmp_path, tasks)] == ["espa", "tap", "esp3", "sonoff", "radar"]
    assert {row.code for row in ROWS} == {"GW-SER-01", "GW-SER-03", ""}

"""What the outbox alone stores durably: events that are ready, so many a commit, one commit after the other.

It runs in a process of its own, as everything of the gateway does that is measured here. The limit is the standard library's
sqlite3 in the same process: the same bodies into a table of two columns, with the same pragmas.
Limits: `EVENTS` events a run, the better of `RUNS`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from simulator.bench.figures import Figure

ROWS: Final = (100, 1_000)
EVENTS: Final = 20_000
RUNS: Final = 3
LIMIT_S: Final = 120.0
_WORK: Final = """
import asyncio, json, pathlib, sqlite3, sys, time
from gateway.clock import SystemClock
from gateway.events import Origin, new_event
from gateway.outbox import Outbox, Route, Write

folder, rows, count, runs = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:])
clock = SystemClock()
data = {"registers": [{"quantity": "temperature", "channel": "", "value": "21.5", "unit": "Cel"}], "room": "r1"}
events = [new_event("telemetry.environment", Origin("b", "b", "b"), device="d", at=clock.stamp(), data=data)
          for _ in range(count)]
chunks = [tuple(events[first:first + rows]) for first in range(0, count, rows)]

def raw(path):
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE event (seq INTEGER PRIMARY KEY, body TEXT)")
    began, seq = time.perf_counter(), 0
    for chunk in chunks:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO event VALUES (?, ?)",
                               [(seq + at, event.body) for at, event in enumerate(chunk)])
        connection.execute("COMMIT")
        seq += len(chunk)
    took = time.perf_counter() - began
    connection.close()
    return count / took

async def ours(path):
    outbox = Outbox(path, [Route("district", ("*",))], clock=clock)
    await outbox.open()
    running = asyncio.create_task(outbox.run())
    began = time.perf_counter()
    for chunk in chunks:
        done = asyncio.get_running_loop().create_future()
        assert outbox.submit(Write(chunk, on_commit=lambda _rows: done.set_result(None)))
        await done
    took = time.perf_counter() - began
    running.cancel()
    await asyncio.wait({running})
    await outbox.close()
    return count / took

print(json.dumps([[raw(folder / f"raw-{rows}-{run}.db"), asyncio.run(ours(folder / f"ours-{rows}-{run}.db"))]
                  for run in range(runs)]))
"""


def measure(run: Path) -> list[Figure]:
    """Measure each number of rows a commit. Raises OSError when the work fails."""
    run.mkdir()
    figures = []
    for rows in ROWS:
        command = [sys.executable, "-c", _WORK, str(run), str(rows), str(EVENTS), str(RUNS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)  # noqa: S603
        if done.returncode:
            raise OSError(f"the outbox could not be measured: {done.stderr.strip()[-300:]}")
        raw, ours = (max(one) for one in zip(*json.loads(done.stdout), strict=True))
        figures.append(Figure(f"outbox alone, {rows:,} a commit", ours, "/s", raw, "raw inserts, as many", more=True))
    return figures

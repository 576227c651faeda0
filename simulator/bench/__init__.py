"""`simulator bench`: how fast the gateway is, each figure beside its limit measured in the same run, as one table.

Everything runs on this machine, so figures tell of software, not of networks or cards; quote the ratios.
Limits: about two minutes.
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

from simulator.bench import radio, road
from simulator.bench.figures import table


def main(report: Path | None) -> int:
    """Measure, print, write FILE; 1 when something was lost."""
    run = Path(tempfile.mkdtemp(prefix="bench-"))
    machine = f"{os.uname().machine}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    began_at = os.getloadavg()[0]
    try:
        measured = asyncio.run(road.measure(run))
        figures = [*measured.figures, *asyncio.run(radio.measure(run))]
    finally:
        shutil.rmtree(run, ignore_errors=True)
    print(f"{machine}, load {began_at:.1f} at the beginning and {os.getloadavg()[0]:.1f} at the end")
    print(table(figures))
    print(f"lost of {measured.sent:,} lines: {measured.sent - measured.accepted}")
    if report:
        document: dict[str, Any] = {"machine": machine, "sent": measured.sent, "accepted": measured.accepted}
        document["figures"] = [one.as_json() for one in figures]
        report.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(measured.sent != measured.accepted)

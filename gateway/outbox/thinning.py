"""Which readings of meters may give way without a loss: registers count up, so the last of an hour says what the others said.

Hours are those of the boot in which a reading was taken: the wall clock may not have been set. Pure. Limit: at most `RANGES`
ranges at a time, so that the gap that names them stays an event of some KiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from gateway.events import Stored

METER: Final = "telemetry.meter"
HOUR_MS: Final = 3_600_000
RANGES: Final = 200


def superseded(rows: Iterable[Stored]) -> list[Stored]:
    """Return, in order, the readings after which the same meter was read again within the hour."""
    latest: dict[tuple[str, str, int], Stored] = {}
    gone = []
    for row in rows:
        if row.noun == METER:
            key = (row.device, row.at.boot, row.at.mono_ms // HOUR_MS)
            before = latest.get(key)
            if before is not None:
                gone.append(before)
            latest[key] = row
    return sorted(gone, key=lambda row: row.seq)


def in_few_ranges(rows: Sequence[Stored]) -> Sequence[Stored]:
    """Return the first rows, as many as make at most `RANGES` ranges."""
    ranges = 0
    for at, row in enumerate(rows):
        if at == 0 or rows[at - 1].seq != row.seq - 1:
            ranges += 1
            if ranges > RANGES:
                return rows[:at]
    return rows

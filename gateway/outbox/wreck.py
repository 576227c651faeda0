"""What can still be delivered of a database that was set aside: rows page by page, alarms and faults first; and bills.

Each row proves itself: its body is the event with the id and type that its columns name. What every destination had
confirmed is left out where the cursors can be read; else it comes again, with the same id. What is missing is told as ranges
of the old sequence: between what was surely confirmed and the last number that was given. What meters showed (`days`) is no
part of the sequence: a day of it that cannot be read is a gap in the month. Limits: `STEP_PAGES` pages a step;
the sequences of `MOST_ROWS` rows are kept track of; `RANGES` ranges, the last of which then covers the rest.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from operator import index
from pathlib import Path
from typing import Any, Final

from gateway.clock import Stamp
from gateway.events import PREFIX, VERSION_SUFFIX, Event, Lane
from gateway.outbox.connection import TABLES
from gateway.outbox.numbers import Ranges, within
from gateway.outbox.pages import Pages, Row, lanes_of
from gateway.outbox.rows import MeterDay
from gateway.outbox.salvage import Salvaged

STEP_PAGES: Final = 64
MOST_ROWS: Final = 8_000_000
RANGES: Final = 200
_COLUMNS: Final = 11
_TELEMETRY: Final = frozenset({Lane.C, Lane.D})


@dataclass(frozen=True, slots=True)
class Rescued:
    """One event of the old stream; `only` where a single one of the destinations that wanted it still does."""

    event: Event
    seq: int
    only: str


class Wreck:
    """One database that was set aside. Everything reads the disk; OSError where it does not answer.

    `sequence` is the last that was given, 0 where nobody knows; then `highest` is the highest that was found: of what came
    behind it nothing may be known. `destinations` are those that are delivered to: of one that has not confirmed anything
    there is no cursor.
    """

    def __init__(
        self, path: Path, salvaged: Salvaged, *, destinations: Collection[str] = (), sequence: int = 0
    ) -> None:
        self._pages = Pages(path)
        self._cursors = salvaged.cursors
        self._current = frozenset(destinations)
        self._destinations = self._current or {destination for destination, _lane in self._cursors}
        self._lanes = lanes_of(self._pages, {table: int(lane) for lane, table in TABLES.items()})
        self._seen = bytearray()
        self._base: int | None = None
        known = salvaged.facts.get("sequence", "0")
        self.highest = max(sequence, salvaged.highest, int(known) if known.isdecimal() else 0)
        self.first: Stamp | None = None
        self.last: Stamp | None = None

    def close(self) -> None:
        """Let go of the files."""
        self._pages.close()

    @property
    def count(self) -> int:
        """How many pages there are."""
        return self._pages.count

    def step(self, first: int, *, urgent: bool) -> list[Rescued]:
        """Return what is to be delivered of `STEP_PAGES` pages: alarms, faults and status, or telemetry."""
        found: dict[int, Rescued] = {}
        for number in range(first, min(first + STEP_PAGES, self.count + 1)):
            for row in self._pages.rows(number):
                one = self._judged(row, number, urgent=urgent)
                if one is not None:
                    found.setdefault(one.seq, one)
        return sorted(found.values(), key=lambda one: (one.event.lane, one.seq))

    def _judged(self, row: Row, page: int, *, urgent: bool) -> Rescued | None:
        seq, values = row
        if len(values) != _COLUMNS or values[0] is not None or not isinstance(values[2], str):
            return None
        event = _event(values)
        if event is None or seq <= 0:
            return None
        self._note(seq, event.at)
        if (event.lane in _TELEMETRY) is urgent:
            return None
        lane = self._lanes.get(page)
        named = _destinations(values[9])
        # One that is delivered to no more has no cursor either, and wants nothing.
        destinations = [one for one in named if one in self._destinations] if self._current else named
        if named and not destinations:
            return None
        wanted = [one for one in destinations if not self._is_confirmed(one, event.lane, lane, seq)]
        if destinations and not wanted:
            return None
        return Rescued(event, seq, wanted[0] if len(wanted) == 1 and len(destinations) > 1 else "")

    def _is_confirmed(self, destination: str, native: Lane, lane: int | None, seq: int) -> bool:
        # Where nobody knows which table this page was of, only what is confirmed in either is.
        lanes = sorted(_TELEMETRY) if native in _TELEMETRY else [native]
        for one in [Lane(lane)] if lane in lanes else lanes:
            upto, ahead = self._cursors.get((destination, one), (0, []))
            if seq > upto and not within(ahead, seq):
                return False
        return True

    def days(self, first: int) -> list[MeterDay]:
        """Return what `STEP_PAGES` pages hold of what meters showed."""
        pages = range(first, min(first + STEP_PAGES, self.count + 1))
        rows = (values for number in pages for values in self._pages.keyed_rows(number))
        found = {(one.device, one.day, one.kind, one.n): one for one in map(_day, rows) if one is not None}
        return list(found.values())

    # -- what is missing ----------------------------------------------------------------------------------------

    def _note(self, seq: int, at: Stamp) -> None:
        if self._base is None:
            self._base = max(0, min(self._floor(), seq) if self._cursors else seq - MOST_ROWS // 2)
        place = seq - self._base
        if 0 <= place < MOST_ROWS:
            byte, bit = divmod(place, 8)
            if byte >= len(self._seen):
                self._seen.extend(bytes(byte + 1 - len(self._seen)))
            self._seen[byte] |= 1 << bit
            self.highest = max(self.highest, seq)
        if self.first is None or at.wall_ms < self.first.wall_ms:
            self.first = at
        if self.last is None or at.wall_ms > self.last.wall_ms:
            self.last = at

    def _floor(self) -> int:
        """Up to where everything was confirmed by everybody: nobody knows of which lane a row was that is gone."""
        known = (self._cursors.get((one, lane), (0, []))[0] for one in self._destinations for lane in Lane)
        return min(known, default=0)

    def missing(self) -> Ranges:
        """Return the sequences that were given and not found: more than were lost, where some were confirmed out of turn."""
        base = self._base or 0
        ranges: Ranges = []
        for seq in range(max(base, self._floor()) + 1, self.highest + 1):
            byte, bit = divmod(seq - base, 8)
            if byte < len(self._seen) and self._seen[byte] >> bit & 1:
                continue
            if ranges and ranges[-1][1] == seq - 1:
                ranges[-1] = (ranges[-1][0], seq)
            elif len(ranges) < RANGES:
                ranges.append((seq, seq))
            else:
                ranges[-1] = (ranges[-1][0], seq)
        return ranges


def _event(values: tuple[Any, ...]) -> Event | None:
    """Return the event of a row, None where its columns and its body do not say the same."""
    event_id, noun, device, body = values[1], values[2], values[3], values[10]
    try:
        content = json.loads(body)
        said = content["id"], content["type"], content["partitionkey"]
        clock = content["data"]["clock"]
        # Of the body, not of the columns: one of those may be what was hit, and makes no time at all.
        wall_ms = round(datetime.fromisoformat(content["time"]).timestamp() * 1000)
        at = Stamp(wall_ms, max(0, index(clock["mono_ms"])), str(clock["boot"]), str(clock["state"]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    if said != (event_id, f"{PREFIX}{noun}{VERSION_SUFFIX}", device) or not body.endswith("}}"):
        return None
    return Event(event_id, noun, device, at, body, correlation=str(content.get("correlationid", "")))


def _day(values: tuple[Any, ...]) -> MeterDay | None:
    """Return a row of the table of days, None for a row of any other table, and for one that makes no sense."""
    if len(values) != 5 or not isinstance(values[3], int) or not isinstance(values[4], str):
        return None
    device, day, kind, n, doc = values
    try:
        if date.fromisoformat(day).isoformat() != day or not isinstance(json.loads(doc), dict):
            return None
    except (ValueError, TypeError, RecursionError):
        return None
    return MeterDay(str(device), day, str(kind), doc, n=n, wins=True)


def _destinations(text: Any) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, TypeError):
        return []
    return [str(one) for one in found] if isinstance(found, dict) else []


def steps(wreck: Wreck) -> Iterator[tuple[bool, int]]:
    """Yield what to read: all pages for what is urgent, then all pages once more for telemetry."""
    for urgent in (True, False):
        for first in range(1, wreck.count + 1, STEP_PAGES):
            yield urgent, first

"""What the database holds, as the event loop needs to know it without asking the disk: one `Stock` for each stream.

Pure: no IO (a `Reader` is only asked when a database is opened, and to count on). Limits: the last `RECENT_ROWS` of each lane
stay in memory until all have them, so that a destination that keeps up never reads the disk; of what was delivered the last
`retain` sequences stay, and leave `KEEP_STEP` at a time: to delete them one by one would write each page of the card again
and again. Of what was there at the opening lane A is counted at once, of the others `COUNT_STEP` rows, and the rest while the
gateway runs: until that is done `rows` and `pending` say less than there is, no row leaves uncounted, and new telemetry goes
behind the backlog whoever it is of.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.errors import StoreError
from gateway.events import Lane, Stored
from gateway.outbox.numbers import Ranges, parse_ranges, within
from gateway.outbox.reader import Reader
from gateway.outbox.rows import Counted, CursorRow

RECENT_ROWS: Final = 2_000
KEEP_STEP: Final = 500
COUNT_STEP: Final = 10_000
LANES: Final = tuple(Lane)
_NOTHING: Final[tuple[int, Callable[[], Ranges]]] = (0, list)


class Stock:
    """Rows, confirmations and what they leave pending, of one database."""

    def __init__(
        self, destinations: Sequence[str], *, sequence: int = 0, routed: Mapping[str, int] | None = None
    ) -> None:
        self._destinations = tuple(destinations)
        self.last: dict[Lane, int] = dict.fromkeys(LANES, sequence)
        self.rows: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self.pending: dict[tuple[str, Lane], int] = {(one, lane): 0 for one in destinations for lane in LANES}
        self.routed: dict[str, int] = {one: (routed or {}).get(one, 0) for one in destinations}
        self.is_deleting = False
        self.retain = 0
        self.held_from: int | None = None
        self._shed_to = 0
        self._again: dict[str, tuple[int, int]] = {}
        self._recent: dict[Lane, deque[Stored]] = {lane: deque() for lane in LANES}
        self._recent_from: dict[Lane, int] = dict.fromkeys(LANES, sequence)
        self._cursors: dict[tuple[str, Lane], tuple[int, Callable[[], Ranges]]] = {}
        self._deleted: dict[Lane, int] = dict.fromkeys(LANES, sequence)
        self._behind: dict[str, list[int]] = {}
        self._confirmed: dict[Lane, dict[str, tuple[int, Ranges]]] = {}
        self._uncounted: dict[Lane, tuple[int, int]] = {}
        self._wanted_to: dict[tuple[str, Lane], int] = {}

    @classmethod
    def read(cls, reader: Reader, destinations: Sequence[str], *, sequence: int, routed: Mapping[str, int]) -> Stock:
        """Take stock of a database that was just opened. Raises StoreError."""
        stock = cls(destinations, sequence=sequence, routed=routed)
        for row in reader.cursors():
            stock._take_cursor(row, reader.path)
        for lane in LANES:
            stock._confirmed[lane] = {one: stock.cursor(one, lane) for one in destinations}
        for lane, (low, high) in reader.lane_heads().items():
            stock.last[lane] = stock._recent_from[lane] = max(high, sequence)
            stock._deleted[lane] = low - 1
            stock._uncounted[lane] = (low - 1, high)
            stock.count(reader, lane)
        while Lane.A in stock._uncounted:  # whoever delivers must know at once whether an alarm waits
            stock.count(reader, Lane.A)
        return stock

    # -- counting what was there --------------------------------------------------------------------------------

    @property
    def destinations(self) -> tuple[str, ...]:
        """Everybody who is delivered to."""
        return self._destinations

    @property
    def uncounted(self) -> Lane | None:
        """A lane of which rows that were there at the opening are not counted yet."""
        return next(iter(self._uncounted), None)

    def count(self, reader: Reader, lane: Lane) -> None:
        """Count on in a lane. Raises StoreError."""
        self.note_counted(lane, self.ask(reader, lane))

    def ask(self, reader: Reader, lane: Lane) -> Counted:
        """Ask for the next part of a lane. Raises StoreError."""
        after, upto = self._uncounted[lane]
        return reader.count(lane, after, upto, self._confirmed[lane], limit=COUNT_STEP)

    def note_counted(self, lane: Lane, counted: Counted) -> None:
        """Add what was counted to what has happened since."""
        _after, upto = self._uncounted[lane]
        self.rows[lane] += counted.rows
        for destination, waiting in counted.pending.items():
            self.pending[destination, lane] += waiting
            if waiting:
                self._want(destination, lane, counted.upto)
        floor = self._floor(lane)
        for device, seq in counted.devices.items():
            if seq > floor:
                behind = self._behind.setdefault(device, [0, 0])
                behind[1] = max(behind[1], seq)
        if counted.upto < upto:
            self._uncounted[lane] = (counted.upto, upto)
        else:
            del self._uncounted[lane]

    def _take_cursor(self, row: CursorRow, path: Path) -> None:
        try:
            ahead = parse_ranges(row.ahead)
        except (ValueError, TypeError) as error:
            raise StoreError("GW-STO-02", str(path), path=str(path), detail=repr(error)) from error
        self._cursors[row.destination, row.lane] = (row.seq, lambda: ahead)

    # -- which lane ---------------------------------------------------------------------------------------------

    def lane_for(self, lane: Lane, device: str, *, live: bool) -> Lane:
        """Return where an event goes: a device with telemetry in the backlog puts its new telemetry behind it."""
        if lane is not Lane.C or (live and device not in self._behind and Lane.D not in self._uncounted):
            return lane
        self.expect(device)
        return Lane.D

    def expect(self, device: str) -> None:
        """A row of this device is on its way to the backlog."""
        self._behind.setdefault(device, [0, 0])[0] += 1

    def withdraw(self, device: str) -> None:
        """A row that was expected will not come."""
        self._behind[device][0] -= 1

    # -- rows ---------------------------------------------------------------------------------------------------

    def wanted(self, destination: str, lane: Lane) -> int:
        """Return up to which sequence rows of a lane may be there for a destination: what comes after is for others."""
        return self.last[lane] if lane in self._uncounted else self._wanted_to.get((destination, lane), 0)

    def add(self, rows: Iterable[Stored]) -> None:
        """Rows are durable; they come in the order of their sequence."""
        last, counted, pending, wanted_to = self.last, self.rows, self.pending, self._wanted_to
        for row in rows:
            seq, lane = row.seq, row.lane
            recent = self._recent[lane]
            recent.append(row)
            if len(recent) > RECENT_ROWS:
                self._recent_from[lane] = recent.popleft().seq
            last[lane] = seq
            counted[lane] += 1
            for destination, number in row.route.items():
                key = (destination, lane)
                pending[key] += 1
                wanted_to[key] = seq
                self.routed[destination] = number
            if lane is Lane.D:
                behind = self._behind[row.device]
                behind[0] -= 1
                behind[1] = seq

    def drop(self, lane: Lane, rows: Sequence[Stored]) -> None:
        """Rows gave way to the quota, or have expired: no destination waits for them any more."""
        for destination, waiting in self.awaited(lane, rows).items():
            self._no_longer(destination, lane, len(waiting))
        gone = {row.seq for row in rows}
        self._recent[lane] = deque(row for row in self._recent[lane] if row.seq not in gone)
        self.rows[lane] -= len(rows)

    def awaited(self, lane: Lane, rows: Sequence[Stored]) -> dict[str, list[Stored]]:
        """Return which of some rows of a lane each destination has not confirmed."""
        found: dict[str, list[Stored]] = {}
        for destination in self._destinations:
            seq, ahead = self.cursor(destination, lane)
            waiting = [row for row in rows if destination in row.route and row.seq > seq and not within(ahead, row.seq)]
            if waiting:
                found[destination] = waiting
        return found

    def recent(self, lane: Lane, after: int, limit: int) -> list[Stored] | None:
        """Return up to `limit` rows beyond `after`, in order; None when some of them are only on the disk."""
        if after < self._recent_from[lane]:
            return None
        rows = []
        for row in reversed(self._recent[lane]):
            if row.seq <= after:
                break
            rows.append(row)
        return rows[: -limit - 1 : -1]

    # -- confirmations ------------------------------------------------------------------------------------------

    def cursor(self, destination: str, lane: Lane) -> tuple[int, Ranges]:
        """Return up to where a destination has confirmed a lane, and what beyond it."""
        seq, ahead = self._cursors.get((destination, lane), _NOTHING)
        return seq, ahead()

    def confirm(self, destination: str, lane: Lane, *, seq: int, ahead: Callable[[], Ranges], done: int) -> None:
        """Note that a destination has everything up to `seq` and what `ahead` gives; `done` rows are new.

        `ahead` is called when the confirmation is written: to fold thousands of rows at each answer would be slow.
        """
        self._cursors[destination, lane] = (seq, ahead)
        self._no_longer(destination, lane, done)
        floor, recent = self._floor(lane), self._recent[lane]
        while recent and recent[0].seq <= floor:  # nobody asks for it again
            self._recent_from[lane] = recent.popleft().seq
        if lane is Lane.D and self._behind:
            for device in [one for one, (waiting, last) in self._behind.items() if not waiting and last <= floor]:
                del self._behind[device]

    def _no_longer(self, destination: str, lane: Lane, count: int) -> None:
        """So many rows wait no longer.

        A row that gives way while it is sent is counted twice: never below nothing, lest it be missing for ever in what is
        said to wait. Where rows are not counted yet they are missing on both sides for a while.
        """
        left = self.pending[destination, lane] - count
        self.pending[destination, lane] = left if lane in self._uncounted else max(left, 0)

    def cursor_rows(self, destinations: Iterable[str], *, sequence: int) -> list[CursorRow]:
        """Return the confirmations of destinations as they are stored; `sequence` is the last that was given.

        All lanes of a destination, and one that it has whole up to there: else it could not be told, when a page is lost,
        what had been delivered and had left, and what not.
        """
        rows = []
        for destination in destinations:
            for lane in LANES:
                seq, ahead = self._cursors.get((destination, lane), _NOTHING)
                if self._has_whole(destination, lane, seq):
                    rows.append(CursorRow(destination, lane, sequence, "[]"))
                elif (destination, lane) in self._cursors:
                    rows.append(CursorRow(destination, lane, seq, json.dumps(ahead(), separators=(",", ":"))))
        return rows

    def _has_whole(self, destination: str, lane: Lane, seq: int) -> bool:
        # By the cursor, not by a count: what it does not cover must come again after a restart.
        is_empty = not self.rows[lane] and not self.pending[destination, lane]
        return lane not in self._uncounted and (is_empty or seq >= min(self.last[lane], self.wanted(destination, lane)))

    def has_cursor(self, destination: str, lane: Lane) -> bool:
        """Has a destination confirmed anything of a lane?"""
        return (destination, lane) in self._cursors

    def confirmed(self, destination: str, lane: Lane, sequences: Sequence[int]) -> list[int]:
        """Return which of some rows of a lane a destination has confirmed."""
        cursor, ahead = self.cursor(destination, lane)
        return [seq for seq in sequences if seq <= cursor or within(ahead, seq)]

    def rewind(self, destination: str, lane: Lane, first: int, last: int, *, wanted: Sequence[int]) -> int:
        """Take back the confirmations of a range. `wanted`: its rows that are there for the destination; how many go again."""
        count = len(self.confirmed(destination, lane, wanted))
        if count:
            cursor, ahead = self.cursor(destination, lane)
            known = ([(0, cursor)] if cursor else []) + ahead
            ranges = [(low, min(high, first - 1)) for low, high in known if low < first]
            ranges += [(max(low, last + 1), high) for low, high in known if high > last]
            back = min(cursor, first - 1)
            beyond = [one for one in ranges if one[0] > back]
            self._cursors[destination, lane] = (back, lambda: beyond)
            self.pending[destination, lane] += count
            self._want(destination, lane, last)
            self._again[destination] = (first, last)
            self._recent[lane].clear()  # it may hold rows that have left the disk: they are not among `wanted`
            self._recent_from[lane] = self.last[lane]
        return count

    def is_again(self, destination: str, seq: int) -> bool:
        """Was a row accepted before the last replay (of this run)?"""
        first, last = self._again.get(destination, (0, -1))
        return first <= seq <= last

    def delivered(self, lane: Lane) -> int:
        """Up to which sequence every destination has everything of a lane."""
        return self._floor(lane)

    def _floor(self, lane: Lane) -> int:
        return min((self._reach(one, lane) for one in self._destinations), default=0)

    def _reach(self, destination: str, lane: Lane) -> int:
        """One that is away, and waits for nothing of a lane, must not keep what all the others have.

        By what was stored for it and not by a count: a row that gives way while it is sent is counted twice.
        """
        cursor = self._cursors.get((destination, lane), _NOTHING)[0]
        if lane in self._uncounted or self._wanted_to.get((destination, lane), 0) > cursor:
            return cursor
        return max(cursor, self.last[lane])

    def _want(self, destination: str, lane: Lane, seq: int) -> None:
        self._wanted_to[destination, lane] = max(seq, self._wanted_to.get((destination, lane), 0))

    # -- leaving ------------------------------------------------------------------------------------------------

    def deletable(self) -> dict[Lane, int]:
        """Return for each lane with rows that every destination has confirmed the sequence up to which they may go."""
        leaving = max(max(self.last.values()) - self.retain, self._shed_to)
        if self.held_from is not None:
            leaving = min(leaving, self.held_from - 1)
        found = {}
        for lane in LANES:
            done = self._deleted[lane]
            if not self.rows[lane] or leaving - done < (KEEP_STEP if self.retain and done >= self._shed_to else 1):
                continue  # asked for each commit: nearly always there is nothing yet
            upto = min(self._floor(lane), leaving)
            if lane in self._uncounted:  # what leaves uncounted would be missing in the count
                upto = min(upto, self._uncounted[lane][0])
            if upto - done >= (KEEP_STEP if self.retain and upto > self._shed_to else 1):
                found[lane] = upto
        return found

    def shed(self) -> bool:
        """Let go of the oldest of what is kept although it was delivered; False where there is nothing of it."""
        floors = {lane: self._floor(lane) for lane in LANES}
        kept = [self._deleted[lane] for lane in LANES if self.rows[lane] and floors[lane] > self._deleted[lane]]
        if not kept:
            return False
        self._shed_to = max(self._shed_to, min(kept)) + KEEP_STEP
        return True

    def note_deleted(self, deleted: dict[Lane, int], *, upto: dict[Lane, int], step: int) -> None:
        """Rows have left; a lane of which a whole `step` went may have more to give."""
        self.is_deleting = False
        for lane, count in deleted.items():
            self.rows[lane] -= count
            if count < step:
                self._deleted[lane] = upto[lane]
            else:
                self.is_deleting = True

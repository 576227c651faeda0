"""What the outbox holds, as who delivers and who asks sees it: rows in order, confirmations, what waits for whom, and reading.

The half of the outbox that stores nothing by itself: confirmations and corrections are noted here and made durable by the
next commit (`outbox`). Limit: `MAX_ACCEPTED` acceptances are counted between two commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import structlog

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.events import Lane, Stored, new_id
from gateway.outbox.database import Database
from gateway.outbox.linger import Linger
from gateway.outbox.numbers import NumberSet, NumberState, Ranges, within
from gateway.outbox.reader import Reader
from gateway.outbox.rows import Accepted, AlarmRow, Letter, Mark, Route
from gateway.outbox.stock import LANES, Stock
from gateway.outbox.store import Store
from gateway.tally import Totals, seconds_from

MAX_ACCEPTED: Final = 1_000  # not counted beyond, which a disk that takes nothing can lead to

_log = structlog.get_logger("outbox")
P = ParamSpec("P")
T = TypeVar("T")


class Holding:
    """What is in the database, and what of it each destination has. Used from one event loop."""

    def __init__(
        self, path: Path, routes: Sequence[Route], *, clock: Clock, hold: Callable[[], None], linger_s: float
    ) -> None:
        self.path = path
        self._clock = clock
        self._database = Database(path, routes, clock=clock, hold=hold)
        self._provisional = new_id()
        self._stock = Stock([route.destination for route in routes])
        self._corrupt: StoreError | None = None
        self._is_unread = False
        self._wake = asyncio.Event()
        self._dirty: dict[tuple[str, Lane], None] = {}
        self._linger = Linger(linger_s)
        self._accepted: list[Accepted] = []
        self.on_trouble: Callable[[StoreError | None], None] = lambda _error: None
        self.on_bug: Callable[[Exception], None] = lambda _error: None
        self.untold = 0
        self._bugs: set[str] = set()

    # -- what was taken ------------------------------------------------------------------------------------------

    def number_state(self, device: str, session: str, n: int, *, digest: int = 0) -> NumberState:
        """Judge the number of an acknowledged input, and what it says, against what is durable."""
        numbers = self._numbers.get((device, session))
        return numbers.state(n, digest) if numbers else NumberState.NEW

    def settled_number(self, device: str, session: str) -> int:
        """Return up to which number a source had surely received its acknowledgements; -1 where nothing is known."""
        numbers = self._numbers.get((device, session))
        return numbers.settled if numbers else -1

    @property
    def _numbers(self) -> Mapping[tuple[str, str], NumberSet]:
        if not self._database.is_open and self._database.salvaged is not None:
            return self._database.salvaged.numbers
        return self._store.counters.numbers

    # -- out -----------------------------------------------------------------------------------------------------

    @property
    def streamid(self) -> str:
        """The stream that the sequence belongs to; a new one begins when a database had to be replaced."""
        return self._store.streamid or self._provisional

    @property
    def sequence(self) -> int:
        """The last sequence given: also the number of events stored since the stream began."""
        return self._store.counters.sequence

    def last(self, lane: Lane) -> int:
        """The highest sequence stored in a lane."""
        return self._stock.last[lane]

    def wanted(self, destination: str, lane: Lane) -> int:
        """Up to which sequence rows of a lane may be there for a destination: what comes after is for others."""
        return self._stock.wanted(destination, lane)

    def cursor(self, destination: str, lane: Lane) -> tuple[int, Ranges]:
        """Return up to where a destination has confirmed a lane, and what beyond it."""
        return self._stock.cursor(destination, lane)

    def recent(self, lane: Lane, after: int, limit: int) -> list[Stored] | None:
        """Return what `fetch` would, at once; None where some of it is only on the disk."""
        return self._stock.recent(lane, after, limit)

    async def fetch(self, lane: Lane, after: int, limit: int) -> list[Stored]:
        """Return up to `limit` rows beyond `after`, in order: from memory when they are recent, else from the disk.

        Raises StoreError.
        """
        rows = self.recent(lane, after, limit)
        if rows is None:
            store = self._store
            try:
                rows = await self._database.ask(lambda reader: reader.fetch(lane, after, limit))
            except StoreError as error:
                if store is self._store:
                    self._found_corrupt(error)
                raise
        return rows

    def confirm(self, destination: str, lane: Lane, *, seq: int, ahead: Callable[[], Ranges], done: int) -> None:
        """Note that a destination has everything of a lane up to `seq` and what `ahead` gives; `done` rows are new.

        `ahead` is asked when the confirmation is written, so that it must tell of everything confirmed until then.
        """
        self._stock.confirm(destination, lane, seq=seq, ahead=ahead, done=done)
        has_less_time = self._linger.confirmed(done, now=self._clock.monotonic(), is_first=not self._dirty)
        if has_less_time or (destination, lane) not in self._dirty:
            self._wake.set()
        self._dirty[destination, lane] = None

    def accepted(self, destination: str, row: Stored) -> None:
        """Count how long a raised alarm took to be accepted; to be called before the row is confirmed."""
        is_first = not self._stock.is_again(destination, row.seq)
        if row.noun == "alarm.raised" and is_first and len(self._accepted) < MAX_ACCEPTED:
            self._accepted.append(Accepted(destination, seconds_from(row.at, self._clock.stamp())))

    def rewound(self, destination: str) -> None:
        """Confirmations of a destination were taken back: that must become durable."""
        known = (lane for lane in LANES if self._stock.has_cursor(destination, lane))
        self._dirty.update(dict.fromkeys((destination, lane) for lane in known))
        self._wake.set()

    def awaited(self, lane: Lane, rows: Sequence[Stored]) -> dict[str, list[Stored]]:
        """Return which of some rows of a lane each destination has not confirmed."""
        return self._stock.awaited(lane, rows)

    def pending(self, destination: str) -> dict[str, int]:
        """Return how many rows each lane still holds for a destination."""
        return {lane.name: self._stock.pending[destination, lane] for lane in LANES}

    def pending_in(self, destination: str, lane: Lane) -> int:
        """Return how many rows one lane still holds for a destination."""
        return self._stock.pending[destination, lane]

    def alarms_pending(self, destination: str) -> bool:
        """Is an alarm waiting for a destination?"""
        return self._stock.pending[destination, Lane.A] > 0

    async def pending_alarm_ids(self, destination: str) -> frozenset[str]:
        """Return the ids of the alarm events that a destination has not confirmed. Raises StoreError."""
        seq, ahead = self.cursor(destination, Lane.A)
        found: set[str] = set()
        while rows := await self.fetch(Lane.A, seq, 1000):
            found.update(row.id for row in rows if destination in row.route and not within(ahead, row.seq))
            seq = rows[-1].seq
        return frozenset(found)

    # -- counting ------------------------------------------------------------------------------------------------

    @property
    def is_counted(self) -> bool:
        """Is everything counted that was there at the opening?"""
        return self._stock.uncounted is None

    def totals(self) -> Totals:
        """Return where everything stands, for the counts of a period."""
        routed = dict(self._stock.routed)
        pending = {one: sum(self._stock.pending[one, lane] for lane in LANES) for one in routed}
        return Totals(self._store.counters.tally, max(self._stock.last.values()), routed, pending)

    @property
    def bases(self) -> Mapping[str, str]:
        """What each period was counted from when the database was opened."""
        return self._store.bases

    @property
    def stock(self) -> Stock:
        """What the database holds: for replays."""
        return self._stock

    def shed(self) -> bool:
        """Let go of the oldest of what is kept although it was delivered; False where there is nothing of it."""
        self._wake.set()
        return self._stock.shed()

    # -- telling -------------------------------------------------------------------------------------------------

    def _tell(self, what: str, callback: Callable[P, None], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call whoever waits for something. What it raises is its own bug: the store goes on, and tells all the others."""
        try:
            callback(*args, **kwargs)
        except Exception as bug:  # noqa: BLE001 - one who cannot be told must not keep an alarm from being stored
            self.untold += 1
            self._note_bug(what, bug)

    def _note_bug(self, what: str, bug: Exception) -> None:
        """Log a bug whole when it is met first (a callback may raise at each commit), and raise its problem."""
        if what not in self._bugs:
            self._bugs.add(what)
            _log.error("a callback of the outbox failed", callback=what, exc_info=bug)
        try:
            self.on_bug(bug)
        except Exception as another:  # noqa: BLE001 - as above
            if "on_bug" not in self._bugs:
                self._bugs.add("on_bug")
                _log.error("a callback of the outbox failed", callback="on_bug", exc_info=another)

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Is there a database at the moment?"""
        return self._database.is_open

    async def marks(self) -> list[Mark]:
        """Return what was judged last of each device; nothing where that cannot be read: every press is then new."""
        salvaged = self._database.salvaged
        return salvaged.marks if salvaged else await self._readable(lambda reader: reader.marks())

    async def alarms(self) -> list[AlarmRow]:
        """Return the kept alarms, oldest first; nothing where they cannot be read."""
        salvaged = self._database.salvaged
        return salvaged.alarms if salvaged else await self._readable(lambda reader: reader.alarms())

    async def _readable(self, question: Callable[[Reader], list[T]]) -> list[T]:
        """A bad page is no reason to hear nobody: it is told, and a corrupt database replaced as soon as the gateway runs."""
        if not self._database.is_open:
            return []
        try:
            return await self._database.ask(question)
        except StoreError as error:
            _log.error("a part of the database cannot be read", error=str(error), facts=error.facts)
            if error.code == "GW-STO-02":
                self._corrupt, self._is_unread = error, True
            else:
                self._tell("on_trouble", self.on_trouble, error)
            return []

    async def dead_letters(self, limit: int = 100) -> list[Letter]:
        """Return the newest dead letters. Raises StoreError."""
        return await self.read(lambda reader: reader.letters(limit=limit))

    async def read(self, work: Callable[[Reader], T]) -> T:
        """Read something that nobody needs all the time. Raises StoreError."""
        return await self._database.ask(work)

    async def used_bytes(self) -> int:
        """Return the bytes of the database that hold something. Raises StoreError."""
        return await self._database.ask(lambda reader: reader.used_bytes())

    def _found_corrupt(self, error: StoreError) -> None:
        if error.code == "GW-STO-02":
            self._corrupt = error
            self._wake.set()

    @property
    def _store(self) -> Store:
        return self._database.store

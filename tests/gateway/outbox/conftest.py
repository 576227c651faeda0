"""A shelf: a real outbox on a real file, a clock that stands still, and what happened to it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.errors import StoreError
from gateway.events import Event, Origin, new_event
from gateway.outbox import AlarmRow, Outbox, Route, Write
from gateway.outbox.store import Store

ORIGIN = Origin("org", "site", "gw")
NOW_MS = 1_800_000_000_000


class StillClock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = Stamp(NOW_MS, 1_000_000, "boot-1", "synced")

    def stamp(self) -> Stamp:
        return self.now

    def monotonic(self) -> float:
        return self.now.mono_ms / 1000


def make_event(noun: str = "telemetry.meter", device: str = "m1", **more: Any) -> Event:
    """An event; `mono_ms` and `boot` say when."""
    at = Stamp(NOW_MS, more.pop("mono_ms", 1_000_000), more.pop("boot", "boot-1"), "synced")
    return new_event(noun, ORIGIN, device=device, at=at, data=more)


def make_write(noun: str = "telemetry.meter", device: str = "m1", **more: Any) -> Write:
    """A write of one event."""
    return Write((make_event(noun, device, **more),))


def make_alarm(device: str = "call-1", **more: Any) -> Write:
    """A write of one alarm and its state."""
    event = make_event("alarm.raised", device, **more)
    return Write((event,), alarms=(AlarmRow(event.id, is_open=True, raised_ms=NOW_MS, doc="{}"),))


class Shelf:
    """An outbox with its file. `kill` ends it as SIGKILL would as far as the disk sees: nothing waiting is written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "outbox.db"
        self.clock = StillClock()
        self.routes = [Route("district", ("*",))]
        self.linger_s = 0.0
        self.troubles: list[str | None] = []
        self.hold: Callable[[], None] = lambda: None
        self.outbox: Outbox
        self.is_open = False
        self.running: asyncio.Task[None] | None = None

    async def open(self, *, running: bool = True) -> Outbox:
        assert not self.is_open, "its connections would be left to the collector"
        outbox = Outbox(self.path, self.routes, clock=self.clock, hold=self._holding, linger_s=self.linger_s)
        outbox.on_trouble = self._on_trouble
        await outbox.open()
        self.outbox, self.is_open = outbox, True
        if running:
            self.run()
        return outbox

    def _holding(self) -> None:
        self.hold()

    def _on_trouble(self, error: StoreError | None) -> None:
        self.troubles.append(error.code if error else None)

    def run(self) -> None:
        self.running = asyncio.create_task(self.outbox.run())

    async def close(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait({self.running})
            self.running = None
        if self.is_open:
            self.is_open = False
            await self.outbox.close()

    async def reopen(self, *, running: bool = True) -> Outbox:
        assert await self.outbox.flush(10)
        await self.close()
        return await self.open(running=running)

    async def kill(self, *, running: bool = True) -> Outbox:
        await self.close()
        return await self.open(running=running)

    async def store(self, *writes: Write) -> list[int]:
        """Submit, wait until durable, return the sequences."""
        before = self.outbox.sequence
        for write in writes:
            assert self.outbox.submit(write)
        assert await self.outbox.flush(10)
        return list(range(before + 1, self.outbox.sequence + 1))

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the file itself, over a connection of its own: what it answers is committed."""
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def sequences(self) -> list[int]:
        """Every sequence that is in the file."""
        found = []
        for lane in "abcd":
            found += [seq for (seq,) in self.sql(f"SELECT seq FROM event_{lane}")]  # noqa: S608 - one of four letters
        return sorted(found)

    def set_aside(self) -> list[str]:
        """The databases that were quarantined, with their WALs."""
        found = (one.name for one in self.path.parent.glob("outbox.db.corrupt-*"))
        return sorted(name for name in found if not name.endswith(".place"))


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    """A shelf that is open and running."""
    made = Shelf(tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def closed_shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    """A shelf that the test opens itself."""
    made = Shelf(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Open the database without any thread; each call closes the store of the one before."""
    opened: list[Store] = []

    def shut() -> None:
        while opened:
            store = opened.pop()
            if hasattr(store, "reader"):
                store.reader.close()
            store.close()

    def opener(**routes: tuple[str, ...]) -> Store:
        shut()
        wanted = routes or {"district": ("*",)}
        store = Store(tmp_path / "outbox.db", [Route(name, types) for name, types in wanted.items()])
        store.open()
        opened.append(store)
        return store

    yield opener
    shut()


@pytest.fixture
def event() -> Callable[..., Event]:
    """Make an event."""
    return make_event


@pytest.fixture
def write() -> Callable[..., Write]:
    """Make a write of one event."""
    return make_write


@pytest.fixture
def alarm() -> Callable[..., Write]:
    """Make a write of one alarm."""
    return make_alarm


@pytest.fixture
def commit() -> Callable[..., list[int]]:
    """Commit writes to a store, each event in the lane that its type names; return the sequences."""

    def committed(store: Store, *writes: Write, **more: Any) -> list[int]:
        entries = [(one, tuple(event.lane for event in one.events)) for one in writes]
        rows, _deleted = store.commit(
            entries, more.pop("cursors", []), now_ms=NOW_MS, delete=more.pop("delete", {}), **more
        )
        return [row.seq for each in rows for row in each]

    return committed


@pytest.fixture
def when() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Let the loop go on until something is true."""

    async def until(true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not true():
                await asyncio.sleep(0)

    return until

"""The database file and its two threads: opened, set aside when it is corrupt, begun anew, closed.

One thread writes, one reads, each over its own connection; the event loop never touches the disk. Limits: a corrupt
database is kept beside the new one (`quarantine`); a full disk is met once with the room of `reserve`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.outbox.quarantine import discard, set_aside
from gateway.outbox.reserve import Reserve
from gateway.outbox.rows import Route
from gateway.outbox.stock import Stock
from gateway.outbox.store import Store

T = TypeVar("T")


class Database:
    """One file. `store` is what is open on it now; `aside` is where the last corrupt one was put."""

    def __init__(self, path: Path, routes: Sequence[Route], *, clock: Clock) -> None:
        self.path = path
        self.store = Store(path, routes)
        self.aside = path
        self._clock = clock
        self._destinations = tuple(route.destination for route in routes)
        self._reserve = Reserve(path.with_name("reserve"))
        self._is_aside = False
        self._writer = ThreadPoolExecutor(1, "outbox-writer")
        self._reader = ThreadPoolExecutor(1, "outbox-reader")

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> Stock:
        """Open or create the database and take stock of it. Raises StoreError."""
        return await self.in_writer(lambda: self._opened(self.store))

    def _opened(self, store: Store) -> Stock:
        try:
            store.open()
            self._reserve.take()
        except StoreError as error:
            if error.code != "GW-STO-03" or not self._reserve.give_up():
                raise
            store.open()
        try:
            counters = store.counters
            return Stock.read(store.reader, self._destinations, sequence=counters.sequence, routed=counters.delivery)
        except BaseException:
            store.reader.close()
            store.close()
            raise

    async def replace(self, *, is_open: bool) -> Stock:
        """Set a corrupt database aside and begin a new stream. May be called again after it failed. Raises StoreError."""
        if is_open and not self._is_aside:
            await self.close_store()
        try:
            if self._is_aside:
                discard(self.path)  # begun by an earlier try, which failed
            else:
                self.aside = set_aside(self.path, now_ms=self._clock.stamp().wall_ms)
        except OSError as failed:
            detail = f"cannot be set aside: {failed}"
            raise StoreError("GW-STO-01", str(self.path), path=str(self.path), detail=detail) from failed
        self._is_aside = True
        store = Store(self.path, self.store.routes)
        stock = await self.in_writer(lambda: self._opened(store))
        self.store, self._is_aside = store, False
        return stock

    async def close_store(self) -> None:
        """Close both connections: the reader first, so that the writer's end checkpoints."""
        await self.in_reader(self.store.reader.close)
        await self.in_writer(self.store.close)

    async def close(self) -> None:
        """Close the database and let the threads go."""
        await self.close_store()
        self._writer.shutdown(wait=False)
        self._reader.shutdown(wait=False)

    # -- threads ------------------------------------------------------------------------------------------------

    def in_writer(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do something in the thread that writes."""
        return asyncio.get_running_loop().run_in_executor(self._writer, work)

    def in_reader(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do something in the thread that reads."""
        return asyncio.get_running_loop().run_in_executor(self._reader, work)

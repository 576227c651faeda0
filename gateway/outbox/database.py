"""The database file and its two threads: opened, set aside when it is corrupt, begun anew, closed.

One thread writes, one reads, each over its own connection; the event loop never touches the disk. Limits: a corrupt
database is kept beside the new one (`quarantine`); a full disk is met once with the room of `reserve`; one of a newer
gateway is not touched at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog

from gateway.clock import Clock, Stamp
from gateway.errors import StoreError
from gateway.outbox.connection import may_write
from gateway.outbox.quarantine import discard, free_name, keep_note, set_aside, unfinished
from gateway.outbox.reader import Reader
from gateway.outbox.reading import ReadingThread
from gateway.outbox.reserve import Reserve
from gateway.outbox.rows import Route
from gateway.outbox.salvage import Salvaged, salvage
from gateway.outbox.stock import Stock
from gateway.outbox.store import Store
from gateway.outbox.wal import mend

_log = structlog.get_logger("outbox")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
T = TypeVar("T")


class Database:
    """One file. `store` is what is open on it, or was last; `hold` is called before each opening.

    `salvaged`: what could be read of a database that cannot be opened; None since there is one, or a new one in its place.
    """

    def __init__(self, path: Path, routes: Sequence[Route], *, clock: Clock, hold: Callable[[], None]) -> None:
        self.path = path
        self.store = Store(path, routes)
        self.is_open = False
        self._was_open = False
        self.salvaged: Salvaged | None = None
        self._clock = clock
        self._hold = hold
        self._destinations = tuple(route.destination for route in routes)
        self._reserve = Reserve(path.with_name("reserve"))
        self._old: Salvaged | None = None
        self._aside: Path | None = None
        self._place: dict[str, object] = {}
        self._note = path.with_name(f"{path.name}.replacing")
        self._writer = ThreadPoolExecutor(1, "outbox-writer")
        self._reader = ReadingThread("outbox-reader")

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> Stock:
        """Open or create the database and take stock of it. Raises StoreError."""
        if self._aside is None:
            self._aside = await self.in_writer(self._interrupted)
        if self._aside is not None:  # its place is empty: what would be begun there must count as a replacement
            raise StoreError("GW-STO-02", str(self.path), path=str(self.path), detail="set aside")
        stock = await self.in_writer(lambda: self._opened(self.store))
        self.is_open, self.salvaged, self._was_open = True, None, True
        return stock

    def _opened(self, store: Store) -> Stock:
        self._hold()
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

    async def replace(self) -> Stock:
        """Set a corrupt database aside and begin a new stream. May be called again after it failed. Raises StoreError."""
        await self.close_store()
        try:
            now = self._clock.stamp()
            aside = await self.in_writer(lambda: self._make_place(now))
        except OSError as failed:
            detail = f"cannot be set aside: {failed}"
            raise StoreError("GW-STO-01", str(self.path), path=str(self.path), detail=detail) from failed
        if self._old is None:  # what `look` has read meanwhile is without what SQLite does not see
            self._old = self.salvaged = await self.in_reader(lambda: self._taken_from(aside))
        store, old = Store(self.path, self.store.routes), self._old
        numbers = {**old.numbers, **self.store.counters.numbers}  # in memory they are whole, where it ran
        former = old.facts.get("rescue", self.store.rescue if self._was_open else await self.in_reader(self._by_notes))
        facts = {**old.facts_to_keep(), "rescue": json.dumps(_behind(former, self._place, folder=self.path.parent))}

        def begun() -> Stock:
            stock = self._opened(store)
            try:
                store.adopt(numbers, old, facts)
            except BaseException:
                store.reader.close()
                store.close()
                raise
            with contextlib.suppress(OSError):  # what it stands for is in the database now
                keep_note(self._note, aside)
            return stock

        stock = await self.in_writer(begun)
        self.store, self._aside, self.is_open, self._was_open = store, None, True, True
        self._old = self.salvaged = None
        return stock

    def _make_place(self, now: Stamp) -> Path:
        """Set the database aside, with a note for whoever comes after a crash; or clear what an earlier try left."""
        if self._aside is not None:
            if set_aside(self.path, self._aside):  # it was interrupted, and its WAL is needed
                self.salvaged = None
            discard(self.path)
            return self._aside
        aside = free_name(self.path, now_ms=now.wall_ms)
        self._place = {"file": aside.name, "sequence": self.store.counters.sequence, "at": asdict(now)}
        with self._note.open("w", encoding="utf-8") as note:
            json.dump(self._place, note)
            note.flush()
            os.fsync(note.fileno())
        self._old = self.salvaged = None
        try:
            set_aside(self.path, aside)
        except OSError:
            if aside.exists():  # the rest must get the same name
                self._aside = aside
            raise
        self._aside = aside
        return aside

    def _taken_from(self, aside: Path) -> Salvaged:
        """Salvage what a database knew that was set aside, what SQLite does not see of its WAL included. Raises StoreError.

        Where the disk is full that waits for room: what was accepted behind the hole must not be left there for want of it.
        """
        while True:
            try:
                mend(aside)
            except OSError as error:
                if error.errno not in _FULL:  # it cannot be read, or not be written, ever: as far as SQLite sees, then
                    _log.warning(
                        "the WAL of a database that was set aside cannot be mended", path=str(aside), error=str(error)
                    )
                elif self._reserve.give_up():
                    continue
                else:
                    detail = f"no room to mend the WAL of {aside.name}: {error}"
                    raise StoreError("GW-STO-03", str(self.path), path=str(self.path), detail=detail) from error
            return salvage(aside)

    def _by_notes(self) -> str:
        """What is still to be gone through, as the notes say: the database that knew it has lost it."""
        places = [one for one in unfinished(self.path) if one["file"] != self._place.get("file")]
        chain: dict[str, object] = {}
        for place in reversed(places):
            chain = {**place, "then": chain} if chain else place
        return json.dumps(chain) if chain else ""

    def _interrupted(self) -> Path | None:
        """Return the database that an earlier process had set aside without getting a new one ready in its place."""
        try:
            place = json.loads(self._note.read_text(encoding="utf-8"))
            aside = self.path.with_name(str(place["file"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):  # torn before anything was renamed: it is made durable first
            return None
        if aside.exists() and not _has_adopted(self.path):
            self._place = place
            return aside
        with contextlib.suppress(OSError):
            if aside.exists():
                keep_note(self._note, aside)
            else:
                self._note.unlink()
        return None

    async def look(self) -> None:
        """Read what people hang on from a database that cannot be opened, as far as it goes."""
        self.salvaged = await self.in_reader(lambda: salvage(self._aside or self.path))

    async def may_write(self) -> bool:
        """Would a new connection be allowed to write?"""
        return await self.in_writer(lambda: may_write(self.path))

    async def close_store(self) -> None:
        """Close both connections: the reader first, so that the writer's end checkpoints."""
        if self.is_open:
            self.is_open = False
            await self.in_reader(self.store.reader.close)
            await self.in_writer(self.store.close)

    async def close(self) -> None:
        """Close the database and let the threads go. Waits for as long as the disk does."""
        await self.close_store()
        await self.in_writer(lambda: None)  # an opening that hangs would hold up the end of the process later
        self._writer.shutdown(wait=False)
        self._reader.shutdown()

    # -- threads ------------------------------------------------------------------------------------------------

    async def ask(self, question: Callable[[Reader], T]) -> T:
        """Ask the reader. Raises StoreError, also where there is no database at the moment."""
        if not self.is_open:
            raise StoreError("GW-STO-01", str(self.path), path=str(self.path), detail="not open")
        reader = self.store.reader
        return await self.in_reader(lambda: question(reader))

    def in_writer(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do something in the thread that writes; it is done even if nobody waits for it any more.

        Without the chain of futures that `run_in_executor` makes: three turns of the loop between a commit and whoever waits.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - whoever waits is told, whatever it is
                told = partial(_refuse, done, error)
            else:
                told = partial(_settle, done, result)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(told)

        self._writer.submit(job)
        return done

    def in_reader(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do something in the thread that reads."""
        return asyncio.get_running_loop().run_in_executor(self._reader, work)


def _settle(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def _refuse(done: asyncio.Future[T], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)


def _behind(former: str, place: dict[str, object], *, folder: Path) -> dict[str, object]:
    """Put a database that was set aside behind one before it that has not been gone through yet.

    One that is gone stays, to be told as a gap; of several that are gone only the last: what one says holds for all of them.
    """
    try:
        first = json.loads(former)
        if first["file"] == place["file"]:
            return place
        then = first.get("then")
        is_told_by_next = then and not any((folder / one["file"]).exists() for one in (first, then))
    except (ValueError, KeyError, TypeError):
        return place
    rest = _behind(json.dumps(then), place, folder=folder) if then else place
    return rest if is_told_by_next else {**first, "then": rest}


def _has_adopted(path: Path) -> bool:
    """Has a database taken over what the one before it knew? One that cannot be asked is not to be thrown away."""
    if not path.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT 1 FROM fact WHERE key = 'rescue'").fetchone() is not None
    except sqlite3.Error as error:
        return "no such table" not in str(error)

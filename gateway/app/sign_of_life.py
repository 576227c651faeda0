"""Keeps the note of when the gateway last surely heard, without ever waiting for the disk.

The note is a write to a file or two, and on a card that hangs even that does not return; in the event loop it would stop
every alarm with it. So it is written by a thread of its own. Limit: one note on its way at a time; while one is, later
ones are left out, and a restart then tells a longer gap, which is the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.clock import Clock, Stamp
from gateway.outbox.alive import AliveNotes


class SignOfLife:
    """The note of one run. `on_written` is told, on the event loop, what the disk said; None: it was written."""

    def __init__(self, notes: AliveNotes, *, clock: Clock, on_written: Callable[[BaseException | None], None]) -> None:
        self._notes = notes
        self._clock = clock
        self._on_written = on_written
        self._writer = ThreadPoolExecutor(1, "sign-of-life")
        self._on_its_way: asyncio.Future[None] | None = None
        self._began = 0.0

    @property
    def silent_s(self) -> float:
        """For how long the disk has not answered."""
        return 0.0 if self._on_its_way is None else self._clock.monotonic() - self._began

    def note(self, at: Stamp) -> None:
        """Note a moment, unless the one before is still on its way."""
        if self._on_its_way is None:
            self._begin(at, self._notes.write)

    async def note_last(self, at: Stamp, *, limit_s: float) -> None:
        """Note a moment after whatever is on its way; wait no longer than `limit_s`. It is written all the same."""
        await asyncio.wait({self._begin(at, self._notes.write_last)}, timeout=limit_s)

    async def close(self) -> None:
        """Let go of the file. Waits for as long as the disk does."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._notes.close)
        self._writer.shutdown(wait=False)

    def _begin(self, at: Stamp, write: Callable[[Stamp], None]) -> asyncio.Future[None]:
        self._began = self._clock.monotonic()
        job = self._on_its_way = asyncio.get_running_loop().run_in_executor(self._writer, write, at)
        job.add_done_callback(self._written)
        return job

    def _written(self, job: asyncio.Future[None]) -> None:
        if job is self._on_its_way:
            self._on_its_way = None
        if not job.cancelled():
            self._on_written(job.exception())

"""Which connection of a destination it is: a number that only grows, also over restarts: a late word of an old one is known.

Pure: no IO. Limit: what was counted and is not durable yet is one number for each destination.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gateway.outbox.rows import Write


class Epochs:
    """The last epoch of each destination. Used from one event loop."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._least = 0
        self._unstored: dict[str, str] = {}
        self._durable: asyncio.Future[None] | None = None

    def load(self, last: Mapping[str, int]) -> None:
        """Take back what is stored; what was counted meanwhile may be beyond it."""
        for destination, epoch in last.items():
            self._last[destination] = max(epoch, self._last.get(destination, 0))

    def count_from(self, least: int) -> None:
        """What was stored cannot be read: begin where no epoch can have been."""
        self._least = least

    @property
    def wait(self) -> bool:
        """Is there something to be stored?"""
        return bool(self._unstored)

    def count(self, destination: str) -> tuple[int, asyncio.Future[None]]:
        """Count one more; return it, and what is done once it is durable."""
        epoch = self._last[destination] = self._last.get(destination, self._least) + 1
        self._unstored[f"epoch:{destination}"] = str(epoch)
        self._durable = self._durable or asyncio.get_running_loop().create_future()
        return epoch, self._durable

    def write(self) -> Write:
        """Return what is to be stored, once."""
        facts, durable = tuple(self._unstored.items()), self._durable
        self._unstored, self._durable = {}, None
        return Write(facts=facts, on_commit=lambda _rows: settle(durable))


def settle(done: asyncio.Future[None] | None) -> None:
    """Call a future done, unless whoever waited has gone."""
    if done is not None and not done.done():
        done.set_result(None)

"""Whose turn it is, where only one path of a destination may be dialled at a time: the earliest of those that wait.

A plain lock would let them in as they came, and after two losses a fourth path before a second. They go in rounds, in each
of which every path has its turn once: two dead ones, tried again and again, must not keep a third from being tried at all.
A path that stood for a while begins a new round. Limit: one waiter a path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turn:
    """A lock that goes to the lowest number among those that wait for it and have not had it in this round."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._had: set[int] = set()

    def begin_anew(self) -> None:
        """Begin a new round."""
        self._had.clear()

    @asynccontextmanager
    async def of(self, number: int) -> AsyncIterator[None]:
        """Hold it; wait for it before."""
        if self._is_taken:
            turn = self._waiting[number] = asyncio.get_running_loop().create_future()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # it was given to us in the same moment
                    self._release()
                raise
            finally:
                self._waiting.pop(number, None)
        self._is_taken = True
        self._had.add(number)
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        waiting = {number for number, turn in self._waiting.items() if not turn.done()}
        self._is_taken = bool(waiting)
        if not waiting:
            return
        if waiting <= self._had:
            self.begin_anew()
        self._waiting[min(waiting - self._had)].set_result(None)

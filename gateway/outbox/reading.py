"""A thread for reading the disk that nobody waits for at the end: what only reads can be left where it hangs.

A `ThreadPoolExecutor` is joined when the interpreter ends, whatever its thread does: a reading that never returns would
hold up the end of the process for ever, and so its next start. Limit: one thread; what was asked waits for its turn.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class ReadingThread(Executor):
    """One thread, begun with the first question. Whatever was asked and not answered is left at the end of the process."""

    def __init__(self, name: str) -> None:
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._answer, name=name, daemon=True)
        self._began = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Ask something; the future has the answer, or what it raised."""
        future: Future[Any] = Future()

        def answer() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whoever asked is told, whatever it is
                future.set_exception(error)
            else:
                future.set_result(result)

        self._asked.put(answer)
        if self._began.acquire(blocking=False):
            self._thread.start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - as Executor has it
        """End after what was asked; nobody waits for it."""
        self._asked.put(None)

    def _answer(self) -> None:
        while (answer := self._asked.get()) is not None:
            answer()
            del answer

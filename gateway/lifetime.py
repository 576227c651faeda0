"""The process and its data directory: one owner at a time, and an end that nothing can hold up.

A directory in which nothing can be written is no reason to hear nobody: then the directory itself is locked, and if it
cannot even be opened nothing is, until `Owner.hold` finds it again; nobody opens a database before that.
Limits: the lock goes with the process, however it ends; a forced end comes after the time that `end_after` was given.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog

from gateway.errors import StoreError

_log = structlog.get_logger("gateway")


class Owner:
    """What this process holds of a data directory. Not thread-safe."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._held: dict[Path, int] = {}

    def hold(self) -> None:
        """Hold the lock file, or the directory where that cannot be had. Safe to call again.

        Raises StoreError: GW-RUN-01 another process holds it, GW-STO-01 nothing can be held at the moment.
        """
        lock = self._data_dir / "lock"
        if lock in self._held:
            return
        try:
            self._data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._lock(lock, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if self._data_dir not in self._held:
                self._hold_otherwise(lock, error)

    def _hold_otherwise(self, lock: Path, refused: OSError) -> None:
        for path, how in ((lock, os.O_RDONLY), (self._data_dir, os.O_RDONLY | os.O_DIRECTORY)):
            with contextlib.suppress(OSError):
                self._lock(path, how)
                return
        raise StoreError(
            "GW-STO-01", str(self._data_dir), path=str(self._data_dir), detail=refused.strerror or str(refused)
        ) from refused

    def _lock(self, path: Path, how: int) -> None:
        descriptor = os.open(path, how | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StoreError("GW-RUN-01", str(self._data_dir), detail=error.strerror or str(error)) from error
        self._held[path] = descriptor

    def release(self) -> None:
        """Let go of everything."""
        while self._held:
            os.close(self._held.popitem()[1])


@contextlib.contextmanager
def sole_owner(data_dir: Path) -> Iterator[Owner]:
    """Hold the data directory for this process alone, as far as it can be held. Raises StoreError GW-RUN-01: it is held."""
    owner = Owner(data_dir)
    try:
        try:
            owner.hold()
        except StoreError as error:
            if error.code == "GW-RUN-01":
                raise
        yield owner
    finally:
        owner.release()


def end_after(limit_s: float) -> threading.Timer:
    """Return a timer, to be started, that ends the process: a disk or a bus that hangs would hold it for ever."""

    def end() -> None:
        with contextlib.suppress(Exception):  # a log that hangs is no reason to stay
            _log.error("the orderly end took too long; ended without it", limit_s=limit_s)
        os._exit(1)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    return timer

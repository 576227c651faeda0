"""The process and its data directory: one owner at a time, and an end that nothing can hold up.

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

from gateway.errors import GatewayError

_log = structlog.get_logger("gateway")


@contextlib.contextmanager
def sole_owner(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this process alone. Raises GatewayError: GW-RUN-01 held, GW-RUN-02 not writable."""
    try:
        data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise GatewayError("GW-RUN-02", str(data_dir), detail=error.strerror or str(error)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise GatewayError("GW-RUN-01", str(data_dir), detail=error.strerror or str(error)) from error
    try:
        yield
    finally:
        os.close(lock)


def end_after(limit_s: float) -> threading.Timer:
    """Return a timer, to be started, that ends the process: a disk or a bus that hangs would hold it for ever."""

    def end() -> None:
        with contextlib.suppress(Exception):  # a log that hangs is no reason to stay
            _log.error("the orderly end took too long; ended without it", limit_s=limit_s)
        os._exit(1)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    return timer

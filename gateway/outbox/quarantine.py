"""Sets a corrupt database aside, so that the gateway can begin a new one.

Limit: the newest `KEPT` are kept.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from gateway.outbox.wal import DAMAGED

KEPT: Final = 3
_ENDINGS: Final = ("", "-wal", "-shm", DAMAGED)


def free_name(path: Path, *, now_ms: int) -> Path:
    """Return where a database would be set aside."""
    return path.with_name(f"{path.name}.corrupt-{now_ms:013d}")


def set_aside(path: Path, aside: Path) -> None:
    """Rename a database with its WAL. Close every connection to it before. Raises OSError."""
    for ending in _ENDINGS:  # the database first: a WAL that a crash leaves alone is discarded by SQLite
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(path.with_name(aside.name + ending))
    found = path.parent.glob(f"{path.name}.corrupt-*")
    # Whatever the clock says, the last is this one: after a power cut it may have been set back by years.
    others = sorted(one for one in found if one.name != aside.name and one.name.rpartition("-")[2].isdigit())
    for old in others[: 1 - KEPT]:
        for ending in _ENDINGS:
            old.with_name(old.name + ending).unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove what is left of a database that was begun and never came into use. Raises OSError."""
    for ending in reversed(_ENDINGS):
        path.with_name(path.name + ending).unlink(missing_ok=True)

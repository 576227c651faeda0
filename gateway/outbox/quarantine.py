"""Sets a corrupt database aside, so that the gateway can begin a new one.

Limit: the newest `KEPT` are kept.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

KEPT: Final = 3
_ENDINGS: Final = ("", "-wal", "-shm")


def set_aside(path: Path, *, now_ms: int) -> Path:
    """Rename a database with its WAL; return where it is. Close every connection to it before. Raises OSError."""
    aside = path.name + f".corrupt-{now_ms:013d}"
    for ending in _ENDINGS:  # the database first: a WAL that a crash leaves alone is discarded by SQLite
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(path.with_name(aside + ending))
    found = path.parent.glob(f"{path.name}.corrupt-*")
    # Whatever the clock says, the last is this one: after a power cut it may have been set back by years.
    others = sorted(one for one in found if one.name != aside and one.name.rpartition("-")[2].isdigit())
    for old in others[: 1 - KEPT]:
        for ending in _ENDINGS:
            old.with_name(old.name + ending).unlink(missing_ok=True)
    return path.with_name(aside)


def discard(path: Path) -> None:
    """Remove what is left of a database that was begun and never came into use. Raises OSError."""
    for ending in reversed(_ENDINGS):
        path.with_name(path.name + ending).unlink(missing_ok=True)

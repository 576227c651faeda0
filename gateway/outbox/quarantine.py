"""Sets a corrupt database aside, so that the gateway can begin a new one. Limits: the newest `KEPT` are kept."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

KEPT: Final = 3
_ENDINGS: Final = ("", "-wal", "-shm")


def set_aside(path: Path, *, now_ms: int) -> None:
    """Rename a database with its WAL; close every connection to it before. Raises OSError."""
    aside = path.name + f".corrupt-{now_ms:013d}"
    for ending in _ENDINGS:  # the database first: a WAL that a crash leaves alone is discarded by SQLite
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(path.with_name(aside + ending))
    kept = sorted(one for one in path.parent.glob(f"{path.name}.corrupt-*") if one.name.rpartition("-")[2].isdigit())
    for old in kept[:-KEPT]:
        for ending in _ENDINGS:
            old.with_name(old.name + ending).unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove what is left of a database that was begun and never came into use. Raises OSError."""
    for ending in reversed(_ENDINGS):
        path.with_name(path.name + ending).unlink(missing_ok=True)

"""Brings a database to the schema of this gateway, wholly or not at all, and leaves that of a newer one alone.

Every script that is missing runs in one transaction: after a power cut, a full disk or a script that fails, the database
is what the gateway before this one left, and that one can use it.
"""

from __future__ import annotations

import re
import sqlite3
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from gateway.errors import StoreError

HIGHEST: Final = 9_999  # by the names of the scripts
_VERSION_AT: Final = slice(60, 64)  # SQLite file format, section 1.3: the user version, big-endian


def scripts() -> dict[int, Traversable]:
    """Return the scripts by the version that each leads to."""
    files = resources.files("gateway.outbox").joinpath("schema").iterdir()
    found = {int(one.name[:4]): one for one in files if re.fullmatch(r"\d{4}\.sql", one.name)}
    return dict(sorted(found.items()))


def refuse_newer(path: Path) -> None:
    """Look at the version without SQLite, which would write beside the file. Raises StoreError: GW-STO-05, or -02: no version."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError:
        return  # whoever opens it will say why
    if header.startswith(b"SQLite format 3\0"):
        _refuse(path, int.from_bytes(header[_VERSION_AT], "big"), known=max(scripts()))


def _refuse(path: Path, have: int, *, known: int) -> None:
    if not 0 <= have <= HIGHEST:  # no gateway ever writes such a number: left alone as newer it would stay for ever
        raise StoreError("GW-STO-02", str(path), path=str(path), detail=f"schema {have}")
    if have > known:
        raise StoreError("GW-STO-05", str(path), path=str(path), found=have, known=known)


def is_known(connection: sqlite3.Connection) -> bool:
    """Is it a database of this gateway, or of one before it? Raises sqlite3.Error."""
    return 0 < int(connection.execute("PRAGMA user_version").fetchone()[0]) <= max(scripts())


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Run what is missing. Raises StoreError GW-STO-05 for a newer schema, sqlite3.Error when it cannot be done."""
    known = scripts()
    have = connection.execute("PRAGMA user_version").fetchone()[0]
    _refuse(path, have, known=max(known))
    missing = [script.read_text(encoding="utf-8") for number, script in known.items() if number > have]
    if not missing:
        return
    try:
        connection.executescript(
            "\n".join(("BEGIN IMMEDIATE;", *missing, f"PRAGMA user_version={max(known)};", "COMMIT;"))
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise

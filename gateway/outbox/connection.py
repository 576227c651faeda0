"""What the writer and the reader of the database share: how to connect, the tables of the lanes, and names for errors."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from gateway.errors import StoreError
from gateway.events import Lane

TABLES: Final = {Lane.A: "event_a", Lane.B: "event_b", Lane.C: "event_c", Lane.D: "event_d"}
BUSY_LIMIT_S: Final = 5.0
# A page is a block of the file system: a block that holds a page which the WAL does not have cannot be mended after a power
# cut. docs/decisions/0004-what-an-event-costs-the-card.md has the measurements. 4 MiB of WAL.
PAGE_BYTES: Final = 4096
CHECKPOINT_PAGES: Final = 4 * 1024 * 1024 // PAGE_BYTES
# Rows are appended, read once in order, and deleted at the other end: hardly any page is asked for twice.
CACHE_KIB: Final = 512


class HasPath(Protocol):
    """Whatever works on the file of a database."""

    path: Path


H = TypeVar("H", bound=HasPath)
P = ParamSpec("P")
T = TypeVar("T")


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection that survives a power cut with everything that it has committed."""
    # psow=0: a commit ends with a block of the WAL, so that no later one writes a block again that holds it. A card that
    # spoils what it is writing when the power goes would take the commit before with it.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?psow=0",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_LIMIT_S,
    )
    try:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a new database; an old one keeps its own
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    except BaseException:
        connection.close()
        raise
    return connection


def may_write(path: Path) -> bool:
    """Would a new connection be allowed to write, once the old ones are closed? Nothing is kept of the trial.

    Connections of one process share the index of the WAL: one that was opened while the disk could not be written makes all
    later ones read-only, too. So the disk itself is asked, and such an answer is not believed.
    """
    trial = path.with_name("trial")
    try:
        descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        trial.unlink()
    except OSError:
        return False
    try:
        connection = connect(path)
    except sqlite3.Error as error:
        return _is_read_only(error, path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return _is_read_only(error, path)
    finally:
        connection.close()
    return True


def _is_read_only(error: sqlite3.Error, path: Path) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY") and os.access(path, os.W_OK)


def asks(method: Callable[Concatenate[H, P], T]) -> Callable[Concatenate[H, P], T]:
    """Name what the database says when it is read: a bad page or text that makes no sense is GW-STO-02, never a traceback."""

    @wraps(method)
    def ask(self: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except sqlite3.Error as error:
            raise store_error(error, self.path) from error
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise StoreError("GW-STO-02", str(self.path), path=str(self.path), detail=repr(error)) from error

    return ask


def store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """Name what SQLite says: full, corrupt, or not writable."""
    name = getattr(error, "sqlite_errorname", "")
    undecodable = not name and isinstance(error, sqlite3.OperationalError)  # the module's own: text that is not UTF-8
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")):  # the index of the WAL found no room
        code = "GW-STO-03"
    elif name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or undecodable:
        code = "GW-STO-02"
    else:
        code = "GW-STO-01"
    return StoreError(code, str(path), path=str(path), detail=f"{name or type(error).__name__}: {error}")

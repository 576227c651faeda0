"""Looks into a database from outside, whoever has it open or nobody: for the technician whose gateway is dead.

Nothing is changed, not even a file beside it. A database whose WAL still holds something is read through the WAL with
SQLite's `readonly_shm`, which builds the index of the WAL in memory where no process maintains one; one at rest
(without a WAL) as `immutable`, which takes no lock and creates no file, and is looked at again afterwards, for the
gateway may have begun meanwhile. Where a WAL has lost its index a private copy is read. Limits: the times that are
given; a copy of at most 64 MiB; 10,000 events are searched for the oldest.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from gateway.errors import StoreError
from gateway.events import Lane
from gateway.outbox.connection import TABLES, store_error
from gateway.outbox.numbers import parse_ranges, within

SQLITE_VERSION: Final = sqlite3.sqlite_version
MAX_COPY_BYTES: Final = 64 * 1024 * 1024
MAX_SEARCHED: Final = 10_000
_LOCK_WAIT_S: Final = 0.5
_STEPS_BETWEEN_LOOKS: Final = 20_000  # of SQLite's virtual machine: some milliseconds on a Pi
_WAL_VERSION: Final = 2  # SQLite file format, section 1.3: bytes 18 and 19 of the header


@dataclass(frozen=True, slots=True)
class Inspection:
    """What stands in a database. `check`: what quick_check found ("ok"), "" where its time did not suffice.

    `pending` gives for each destination how many rows of each lane it has not confirmed; `oldest_ms` when the oldest of
    those was stored; `dead` the number of dead letters and how many of them are of alarms; `last_ms` when the newest
    event of each device that is still there was stored; `counters` the devices whose counters are kept.
    """

    schema: int
    wal: bool
    check: str
    file_bytes: int
    used_bytes: int
    rows: Mapping[str, int]
    pending: Mapping[str, Mapping[str, int]]
    oldest_ms: int | None
    recorded_ms: int | None
    dead: Mapping[str, tuple[int, int]]
    last_ms: Mapping[str, int]
    counters: frozenset[str]
    open_alarms: tuple[str, ...]


class _Late(Exception):
    """The time for a question is over."""


def inspect_database(
    path: Path, destinations: Collection[str] = (), *, limit_s: float = 3.0, check_s: float = 2.0
) -> Inspection:
    """Read the database at `path`; `limit_s` for the figures, then `check_s` for the check of its pages.

    `destinations`: those of the configuration, which a new database need not know yet.
    Raises StoreError: GW-STO-02 corrupt, GW-STO-01 cannot be read (its `detail` says why).
    """
    try:
        with readable(path) as (connection, unchanged):
            inspection = _inspected(connection, path, destinations, limit_s=limit_s, check_s=check_s)
            if not unchanged():
                raise _refusal(path, "the gateway began meanwhile")
            return inspection
    except _Late:
        raise _refusal(path, f"no answer within {limit_s:g} s") from None
    except sqlite3.Error as error:
        raise store_error(error, path) from error
    except OSError as error:
        raise _refusal(path, error.strerror or str(error)) from error
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise StoreError("GW-STO-02", str(path), path=str(path), detail=repr(error)[:200]) from error


def _refusal(path: Path, detail: str) -> StoreError:
    return StoreError("GW-STO-01", str(path), path=str(path), detail=detail)


# -- the way in --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def readable(path: Path) -> Iterator[tuple[sqlite3.Connection, Callable[[], bool]]]:
    """Open without leaving a trace. With it comes a question: is what was read still what stands there?"""
    with path.open("rb"):
        pass  # SQLite calls whatever is wrong "unable to open database file"; this names it
    wal, index = path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
    if not _size(wal):
        before = _mark(path, wal)
        with _connection(path, "immutable=1") as connection:
            yield connection, lambda: _mark(path, wal) == before
    elif index.exists():
        with _connection(path, "readonly_shm=1") as connection:
            yield connection, lambda: True
    else:
        with _copied(path, wal) as copy, _connection(copy, "") as connection:
            yield connection, lambda: True


@contextlib.contextmanager
def _connection(path: Path, how: str) -> Iterator[sqlite3.Connection]:
    uri = f"file:{quote(str(path))}?mode=ro&{how}".rstrip("&")
    connection = sqlite3.connect(uri, uri=True, timeout=_LOCK_WAIT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only=1")
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def _copied(path: Path, wal: Path) -> Iterator[Path]:
    if _size(path) + _size(wal) > MAX_COPY_BYTES:
        raise _refusal(path, "its WAL has lost its index; starting the gateway mends that")
    with tempfile.TemporaryDirectory(prefix="daycare-gateway-") as folder:
        for one in (path, wal):
            shutil.copyfile(one, Path(folder) / one.name)
        yield Path(folder) / path.name


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _mark(path: Path, wal: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, _size(wal)


# -- the questions -----------------------------------------------------------------------------------------------


def _inspected(
    connection: sqlite3.Connection, path: Path, destinations: Collection[str], *, limit_s: float, check_s: float
) -> Inspection:
    with _until(connection, limit_s):
        schema = int(_one(connection, "PRAGMA user_version"))
        pages, free, size = (
            int(_one(connection, f"PRAGMA {n}")) for n in ("page_count", "freelist_count", "page_size")
        )
        rows = {lane.name: int(_one(connection, f"SELECT count(*) FROM {table}")) for lane, table in TABLES.items()}  # noqa: S608
        pending, oldest = _pending(connection, destinations)
        recorded = [one for table in TABLES.values() if (one := _newest(connection, table)) is not None]
        inspection = Inspection(
            schema=schema, wal=_is_wal(path), check="", file_bytes=pages * size, used_bytes=(pages - free) * size,
            rows=rows, pending=pending, oldest_ms=oldest, recorded_ms=max(recorded, default=None), dead=_dead(connection),
            last_ms=_last_of_devices(connection), counters=_counters(connection), open_alarms=_open_alarms(connection),
        )  # fmt: skip
    return _checked(connection, inspection, check_s)


def _checked(connection: sqlite3.Connection, inspection: Inspection, check_s: float) -> Inspection:
    try:
        with _until(connection, check_s):
            return replace(inspection, check=str(_one(connection, "PRAGMA quick_check(1)"))[:200])
    except _Late:
        return inspection


@contextlib.contextmanager
def _until(connection: sqlite3.Connection, limit_s: float) -> Iterator[None]:
    """Interrupt whatever runs after `limit_s`. Raises _Late."""
    deadline = time.monotonic() + limit_s
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS_BETWEEN_LOOKS)
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            raise _Late from None
        raise
    finally:
        connection.set_progress_handler(None, 0)


def _one(connection: sqlite3.Connection, query: str) -> Any:
    return connection.execute(query).fetchone()[0]


def _is_wal(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(20)[18:20] == bytes((_WAL_VERSION, _WAL_VERSION))


def _pending(
    connection: sqlite3.Connection, destinations: Collection[str]
) -> tuple[dict[str, dict[str, int]], int | None]:
    """Return how much each destination still wants, and since when the oldest of it has been stored."""
    cursors = {(name, lane): (seq, parse_ranges(ahead)) for name, lane, seq, ahead in connection.execute(
        "SELECT destination, lane, seq, ahead FROM cursor")}  # fmt: skip
    names = {*destinations, *(name for name, _lane in cursors)}
    names |= {key[9:] for (key,) in connection.execute("SELECT key FROM fact WHERE key LIKE 'delivery:%'")}
    pending: dict[str, dict[str, int]] = {}
    oldest: list[int] = []
    for name in sorted(names):
        pending[name] = {}
        for lane, table in TABLES.items():
            seq, ahead = cursors.get((name, int(lane)), (0, []))
            found = connection.execute(
                f"SELECT seq, recorded_ms FROM {table} WHERE seq > ? AND instr(route, ?) ORDER BY seq LIMIT {MAX_SEARCHED}",  # noqa: S608
                (seq, f'"{name}":'),
            )  # fmt: skip
            waiting = [recorded for one, recorded in found if not within(ahead, one)]
            pending[name][lane.name] = len(waiting)
            oldest += waiting[:1]
    return pending, min(oldest, default=None)


def _newest(connection: sqlite3.Connection, table: str) -> int | None:
    row = connection.execute(f"SELECT recorded_ms FROM {table} ORDER BY seq DESC LIMIT 1").fetchone()  # noqa: S608
    return None if row is None else int(row[0])


def _dead(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    query = "SELECT destination, count(*), sum(noun LIKE 'alarm.%') FROM dead_letter GROUP BY destination"
    return {name: (int(count), int(alarms)) for name, count, alarms in connection.execute(query)}


def _last_of_devices(connection: sqlite3.Connection) -> dict[str, int]:
    found: dict[str, int] = {}
    for lane in (Lane.A, Lane.B, Lane.C):
        query = f"SELECT device, max(recorded_ms) FROM (SELECT device, recorded_ms FROM {TABLES[lane]} ORDER BY seq DESC LIMIT {MAX_SEARCHED}) GROUP BY device"  # noqa: S608, E501
        for device, recorded in connection.execute(query):
            found[device] = max(int(recorded), found.get(device, 0))
    return found


def _counters(connection: sqlite3.Connection) -> frozenset[str]:
    return frozenset(
        name for (name,) in connection.execute("SELECT DISTINCT device FROM mark WHERE key LIKE 'counter:%'")
    )


def _open_alarms(connection: sqlite3.Connection) -> tuple[str, ...]:
    query = "SELECT doc FROM alarm WHERE open = 1 ORDER BY raised_ms LIMIT 100"
    return tuple(doc for (doc,) in connection.execute(query))

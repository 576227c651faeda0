"""A schema is brought up to date wholly or not at all: killed, on a full disk, or by a script that is wrong."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreError
from gateway.events import Lane
from gateway.outbox import Route
from gateway.outbox import migration as module
from gateway.outbox import store as store_module
from gateway.outbox.connection import connect
from gateway.outbox.store import Store

ROOT = Path(__file__).parents[3]
NEWEST = max(module.scripts())
ROW = "1, 'an-id', 'alarm.raised', 'call-1', 2, 3, 4, 1, 'synced', '{\"district\":1}', '{}'"


def older(path: Path, version: int) -> Path:
    """A database as a gateway of that schema has left it, with an alarm that nobody has yet."""
    connection = connect(path)
    for number, script in module.scripts().items():
        if number <= version:
            connection.executescript(script.read_text(encoding="utf-8"))
    connection.executescript(
        f"PRAGMA user_version={version}; INSERT INTO boot VALUES (1, 'boot-1'); INSERT INTO event_a VALUES ({ROW});"  # noqa: S608
        "INSERT INTO fact VALUES ('streamid', 'the-stream'), ('sequence', '1'), ('delivery:district', '1');"
    )
    connection.close()
    return path


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def tables(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [str(one) for (one,) in connection.execute("SELECT sql FROM sqlite_master ORDER BY name")]
    finally:
        connection.close()


def opened(path: Path) -> tuple[str, list[str]]:
    """What a gateway finds: the stream and the alarms that wait."""
    store = Store(path, [Route("district", ("*",))])
    store.open()
    try:
        return store.streamid, [row.id for row in store.reader.fetch(Lane.A, 0, 10)]
    finally:
        store.reader.close()
        store.close()


@pytest.mark.parametrize("have", range(1, NEWEST + 1))
def test_a_database_of_each_older_schema_is_taken_over(tmp_path: Path, have: int) -> None:
    path = older(tmp_path / "outbox.db", have)
    assert opened(path) == ("the-stream", ["an-id"])
    assert version(path) == NEWEST
    fresh = tmp_path / "fresh.db"
    opened(fresh)
    assert tables(path) == tables(fresh)


@pytest.fixture
def next_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give the gateway one schema more."""
    known = module.scripts()

    def give(script: str) -> None:
        file = tmp_path / "next.sql"
        file.write_text(script, encoding="utf-8")
        monkeypatch.setattr(module, "scripts", lambda: {**known, NEWEST + 1: file})

    return give


@pytest.mark.parametrize("have", range(1, NEWEST + 1))
def test_a_script_that_fails_leaves_the_database_as_it_was(
    tmp_path: Path, next_schema: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, have: int
) -> None:
    path = older(tmp_path / "outbox.db", have)
    before = tables(path)
    next_schema("CREATE TABLE extra (n INTEGER); DELETE FROM event_a; INSERT INTO nowhere VALUES (1);")
    with pytest.raises(StoreError) as refused:
        opened(path)
    assert refused.value.code == "GW-STO-01"
    assert (version(path), tables(path)) == (have, before)
    monkeypatch.undo()
    assert opened(path) == ("the-stream", ["an-id"])


def test_a_disk_that_is_full_in_the_middle_leaves_the_database_as_it_was(
    tmp_path: Path, next_schema: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = older(tmp_path / "outbox.db", NEWEST)
    before = tables(path)

    def full(where: Path) -> Any:
        connection = connect(where)
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages + 3}")
        return connection

    monkeypatch.setattr(store_module, "connect", full)
    next_schema("CREATE TABLE extra (x BLOB); DELETE FROM event_a; INSERT INTO extra VALUES (zeroblob(100000));")
    with pytest.raises(StoreError) as refused:
        opened(path)
    assert refused.value.code == "GW-STO-03"
    assert (version(path), tables(path)) == (NEWEST, before)
    monkeypatch.undo()
    assert opened(path) == ("the-stream", ["an-id"])


KILLED = """
import os, signal, sys
from pathlib import Path
from gateway.outbox import migration
from gateway.outbox.connection import connect
path, script = Path(sys.argv[1]), Path(sys.argv[2])
connection = connect(path)
connection.create_function("power_cut", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
connection.execute("PRAGMA cache_size=0")  # so that the WAL has most of it when that comes
migration.scripts = lambda: {1: script, 99: script}
migration.migrate(connection, path)
"""


def test_a_kill_in_the_middle_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    path = older(tmp_path / "outbox.db", NEWEST)
    before = tables(path)
    script = tmp_path / "next.sql"
    script.write_text(
        "CREATE TABLE extra (x BLOB); DELETE FROM event_a; INSERT INTO extra VALUES (zeroblob(500000)); SELECT power_cut();",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-c", KILLED, path, script], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert path.with_name("outbox.db-wal").stat().st_size > 0
    assert (version(path), tables(path)) == (NEWEST, before)
    assert opened(path) == ("the-stream", ["an-id"])

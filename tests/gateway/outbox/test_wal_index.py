"""The index of the WAL on a disk that is full: what would kill the process is an error instead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreError
from gateway.outbox.connection import may_write
from gateway.outbox.store import Store
from gateway.outbox.wal_index import INDEX_BYTES, WalIndex

Maker = Callable[..., Any]
OPEN = """
import sys
from pathlib import Path
from gateway.errors import StoreError
from gateway.outbox.store import Store
store = Store(Path(sys.argv[1]), [])
try:
    store.open()
except StoreError as error:
    print(error.code)
else:
    print("opened")
    store.reader.close()
    store.close()
"""
KILLED = """
import os, sys
from pathlib import Path
from gateway.outbox.store import Store
store = Store(Path(sys.argv[1]), [])
store.open()
store._writer.execute("BEGIN IMMEDIATE")
store._put_facts([("kept", "yes"), *((f"filling:{n}", "x" * 3000) for n in range(int(sys.argv[2])))])
store._writer.execute("COMMIT")
os._exit(9)
"""
BARE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
try:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("SELECT count(*) FROM fact").fetchone()
    print("opened")
except sqlite3.Error as error:
    print(error.sqlite_errorname)
"""


def system(*command: str | Path) -> bool:
    """Run it; did it go well?"""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        return (
            subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, check=False).returncode == 0
        )
    except FileNotFoundError:
        return False


@pytest.fixture
def small_blocks(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB with blocks of 1 KiB. Only root may have one."""
    folder, image = tmp_path / "disk", tmp_path / "disk.img"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(8 * 1024 * 1024)
    made = os.geteuid() == 0 and system("mkfs.ext4", "-q", "-b", "1024", "-m", "0", "-F", image)
    if not made or not system("mount", "-o", "loop", image, folder):
        pytest.skip("a disk with blocks of 1 KiB needs root, mkfs.ext4, and a loop device to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill_up(folder: Path, *, leaving: int) -> None:
    """Take all the room but some KiB."""
    here = os.statvfs(folder)
    with (folder / "filler").open("ab", buffering=0) as file:
        for size in (65_536, 1024):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
        file.truncate(max(0, file.tell() - leaving * 1024))
    assert here.f_frsize == 1024


def said(script: str, path: Path, *more: str) -> tuple[str, int]:
    """Run a script over a database in a process of its own; what it said, and how it ended."""
    done = subprocess.run(
        [sys.executable, "-c", script, path, *more], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.strip() or done.stderr.strip(), done.returncode


def killed(path: Path, *, writes: int) -> None:
    """Make a database whose gateway was killed: a WAL of some 3 KiB a write has lost its owner."""
    assert said(KILLED, path, str(writes)) == ("", 9)


@pytest.mark.parametrize("leaving", [0, 8, 10, 20, 32, 40, 60])
def test_a_disk_too_full_for_the_index_is_an_error_and_never_the_end_of_the_process(
    small_blocks: Path, leaving: int
) -> None:
    path = small_blocks / "outbox.db"
    killed(path, writes=200)
    (small_blocks / "outbox.db-shm").unlink()
    fill_up(small_blocks, leaving=leaving)
    assert said(OPEN, path) == ("GW-STO-03", 0)
    (small_blocks / "filler").unlink()
    assert said(OPEN, path) == ("opened", 0)


def test_sqlite_alone_is_killed_where_the_index_has_holes(small_blocks: Path) -> None:
    """Why the room is taken first. When SQLite takes it itself one day, this says so."""
    path = small_blocks / "outbox.db"
    killed(path, writes=200)
    (small_blocks / "outbox.db-shm").unlink()
    fill_up(small_blocks, leaving=20)
    assert said(BARE, path) == ("", -signal.SIGBUS)


def test_a_full_disk_that_has_room_for_the_wal_that_is_there_is_enough(small_blocks: Path) -> None:
    path = small_blocks / "outbox.db"
    killed(path, writes=200)
    (small_blocks / "outbox.db-shm").unlink()
    fill_up(small_blocks, leaving=100)
    assert said(OPEN, path) == ("opened", 0)


def test_a_store_opened_on_a_read_only_disk_may_write_anew_when_the_disk_may(small_blocks: Path) -> None:
    """What the first connection found read-only stays so for every other of the process."""
    path = small_blocks / "outbox.db"
    killed(path, writes=1)
    assert system("mount", "-o", "remount,ro", small_blocks)
    store = Store(path, [])
    store.open()
    assert not may_write(path)
    assert system("mount", "-o", "remount,rw", small_blocks)
    assert may_write(path)
    store.reader.close()
    store.close()
    store.open()
    store._put_facts([("kept", "again")])
    store.reader.close()
    store.close()
    assert sorted(one.name for one in small_blocks.iterdir()) == ["lost+found", "outbox.db"]


def test_a_long_wal_gets_a_long_index(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with path.with_name("outbox.db-wal").open("wb") as file:
        file.truncate(40_000 * 1048)  # frames: 34 and 9 times 4096, and some
    index = WalIndex(path)
    index.hold()
    assert path.with_name("outbox.db-shm").stat().st_size == 11 * 32_768
    index.release()
    assert path.with_name("outbox.db-shm").exists()  # whoever reads a WAL from outside needs one


def test_an_open_database_has_the_room_for_all_of_its_index_that_it_will_need(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    store = Store(path, [])
    store.open()
    index = tmp_path / "outbox.db-shm"
    assert (index.stat().st_size, index.stat().st_blocks * 512 >= 262_144) == (262_144, True)
    store._writer.execute("BEGIN IMMEDIATE")
    other = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    text, _code = said(other, path)
    assert (
        text.splitlines()[-1] == "sqlite3.OperationalError: database is locked"
    )  # the locks of SQLite are still there
    store._writer.execute("ROLLBACK")
    store.reader.close()
    store.close()
    assert not index.exists()


def test_what_a_crash_left_of_an_index_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    killed(path, writes=1)
    index = tmp_path / "outbox.db-shm"
    index.write_bytes(b"\x5a" * index.stat().st_size)
    store = Store(path, [])
    store.open()
    assert store._writer.execute("SELECT value FROM fact WHERE key = 'kept'").fetchone() == ("yes",)
    assert store._writer.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.reader.close()
    store.close()


def test_an_index_that_somebody_reads_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    first, second = WalIndex(path), WalIndex(path)
    first.hold()
    index = tmp_path / "outbox.db-shm"
    with index.open("r+b") as file:
        file.write(b"in use")
    second.hold()
    assert index.read_bytes()[:6] == b"in use"
    second.release()
    assert index.exists()
    first.release()
    assert not index.exists()
    second.hold()
    assert index.read_bytes() == bytes(INDEX_BYTES)
    second.release()


def test_what_is_no_file_gets_no_index(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").mkdir()
    with pytest.raises(StoreError, match="GW-STO-01"):
        Store(tmp_path / "outbox.db", []).open()
    assert [one.name for one in tmp_path.iterdir()] == ["outbox.db"]

"""A WAL that is damaged in the middle: SQLite drops what comes behind, and that is what the gateway must notice."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from pathlib import Path

from simulator.chaos.wal import choose_block, damage


def left_behind(folder: Path, commits: int) -> Path:
    """A database as a kill leaves it, with its last commits in the WAL."""
    path = folder / "some.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?psow=0", uri=True, isolation_level=None)) as owner:
        owner.execute("PRAGMA page_size=4096")
        owner.execute("PRAGMA journal_mode=WAL")
        owner.execute("CREATE TABLE one (text)")
        owner.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for n in range(commits):
            owner.execute("INSERT INTO one VALUES (?)", (f"{n} " + "x" * 3_000,))
        kept = folder / "kept.db"
        for ending in ("", "-wal"):
            shutil.copyfile(f"{path}{ending}", f"{kept}{ending}")
    return kept


def seen(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM one").fetchone()[0])


def test_wherever_it_is_hit_sqlite_drops_at_least_two_commits_without_a_word(tmp_path: Path) -> None:
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = left_behind(folder, 10)
        rng = random.Random(seed)  # noqa: S311 - a seed that can be played again
        block = choose_block(path.with_name("kept.db-wal"), rng)
        assert block is not None
        damage(path.with_name("kept.db-wal"), block, rng)
        assert seen(path) <= 8


def test_where_only_the_last_commits_stand_there_nothing_is_hit(tmp_path: Path) -> None:
    path = left_behind(tmp_path, 2)
    rng = random.Random(1)  # noqa: S311 - as above
    assert choose_block(path.with_name("kept.db-wal"), rng) is None
    assert choose_block(tmp_path / "nothing-wal", rng) is None

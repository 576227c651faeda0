"""Pages that are destroyed: those of the database, also where everything still stands in the WAL."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

from simulator.chaos.destruction import checkpoint, choose, destroy


async def test_a_database_that_somebody_has_open_is_whole_before_it_is_destroyed(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("PRAGMA page_size=1024")
        owner.execute("PRAGMA journal_mode=WAL")
        owner.execute("CREATE TABLE one (text)")
        owner.execute("INSERT INTO one VALUES (?)", ("x" * 20_000,))
        rng = random.Random(1)  # noqa: S311 - a seed that can be played again
        assert choose(path, 3, rng) == []
        await checkpoint(path)
        chosen = choose(path, 3, rng)
        assert (len(set(chosen)), min(chosen) > 0, max(chosen) <= 21) == (3, True, True)
        before = path.read_bytes()
        destroy(path, chosen, rng)
        after = path.read_bytes()
    assert len(before) == len(after)
    hit = {
        n for n in range(len(after) // 1024) if after[n * 1024 : n * 1024 + 1024] != before[n * 1024 : n * 1024 + 1024]
    }
    assert hit == set(chosen)
    assert {after[n * 1024 : n * 1024 + 1024] for n in chosen} <= {b"\0" * 1024, b"\xff" * 1024}

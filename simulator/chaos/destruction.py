"""Destroys pages of a gateway's database, as a card does that wears out: with zeros, or with ones.

In a short run everything still stands in the WAL, and the database itself is a single page. So the WAL is checkpointed first,
in a process of its own: over a full disk that may be killed. Limits: `CHECKPOINT_S`; the first page is spared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from pathlib import Path
from typing import Final

CHECKPOINT_S: Final = 10.0
MOST_PAGE_BYTES: Final = 65_536
_PAGE_SIZE_AT: Final = 16  # sqlite.org/fileformat2.html, section 1.3
_CHECKPOINT: Final = """
import sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=rw", uri=True, timeout=2)
connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
connection.close()
"""


async def checkpoint(database: Path) -> None:
    """Bring what stands in the WAL into the database, as far as disk and readers allow."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", _CHECKPOINT, str(database),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(CHECKPOINT_S):
            await process.wait()
    finally:
        if process.returncode is None:  # not waited for: a disk that hangs does not let it go
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def choose(database: Path, count: int, rng: random.Random) -> list[int]:
    """Return the numbers of at most `count` pages, counted from 0; none where there is only the first."""
    pages = database.stat().st_size // _page_bytes(database)
    return rng.sample(range(1, pages), min(count, pages - 1)) if pages > 1 else []


def destroy(database: Path, pages: list[int], rng: random.Random) -> None:
    """Overwrite these pages."""
    size = _page_bytes(database)
    file = os.open(database, os.O_RDWR)
    try:
        for page in pages:
            os.pwrite(file, rng.choice((b"\0", b"\xff")) * size, page * size)
    finally:
        os.close(file)


def _page_bytes(database: Path) -> int:
    """The size of a page stands in the header, big-endian, 1 for 65,536."""
    with database.open("rb") as file:
        file.seek(_PAGE_SIZE_AT)
        size = int.from_bytes(file.read(2), "big") or MOST_PAGE_BYTES
    return MOST_PAGE_BYTES if size == 1 else size

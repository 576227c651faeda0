"""Damages a block in the middle of a WAL, as a card does: commits that were accepted stand behind it.

SQLite reads a WAL up to the first frame that is not sound, and drops what follows without a word. Hit is a block before the
last two commits: of the last alone nobody can say that it was accepted. Where none stands before them nothing is hit.
Limit: `BLOCK_BYTES`, at a multiple of them.
"""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 4_096
_HEADER_BYTES: Final = 32  # sqlite.org/fileformat2.html, section 4.1
_FRAME_HEADER_BYTES: Final = 24


def choose_block(wal: Path, rng: random.Random) -> int | None:
    """Return the number of a block, counted from 0, of a commit which two others follow; None where there is none."""
    ends = _commits(wal)
    if len(ends) < 3:
        return None
    return rng.randrange(ends[-3] // BLOCK_BYTES)


def damage(wal: Path, block: int, rng: random.Random) -> None:
    """Overwrite a block with zeros, with ones, or with noise."""
    file = os.open(wal, os.O_RDWR)
    try:
        noise = rng.choice((bytes(BLOCK_BYTES), b"\xff" * BLOCK_BYTES, rng.randbytes(BLOCK_BYTES)))
        os.pwrite(file, noise, block * BLOCK_BYTES)
    finally:
        os.close(file)


def _commits(wal: Path) -> list[int]:
    """Return where each commit of the log ends, in bytes; a copy that fills a commit's last block is part of it."""
    data = wal.read_bytes() if wal.exists() else b""
    if len(data) < _HEADER_BYTES:
        return []
    size = _FRAME_HEADER_BYTES + struct.unpack(">I", data[8:12])[0]
    ends: list[int] = []
    before = b""
    for at in range(_HEADER_BYTES, len(data) - size + 1, size):
        frame = data[at : at + size]
        if frame[8:16] != data[16:24]:  # the salts: of a log before this one
            break
        if any(frame[4:8]):
            if frame[:8] + frame[_FRAME_HEADER_BYTES:] == before and ends:
                ends.pop()
            ends.append(at + size)
        before = frame[:8] + frame[_FRAME_HEADER_BYTES:]
    return ends

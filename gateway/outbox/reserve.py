"""Room on the disk that is kept for one thing: to be given up so that the gateway can start although the disk is full.

SQLite needs some KiB beside the database before it can even read one, and a gateway that cannot open its database hears
nobody. Limits: `RESERVE_BYTES`, taken at a start that finds room, given up at one that does not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

RESERVE_BYTES: Final = 1024 * 1024


class Reserve:
    """A file that holds nothing but its place."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self) -> None:
        """Take the room, if there is any; half of it would be none."""
        try:
            if self._path.exists() and self._path.stat().st_blocks * 512 >= RESERVE_BYTES:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError:
            self.give_up()

    def give_up(self) -> bool:
        """Give the room back; False when there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

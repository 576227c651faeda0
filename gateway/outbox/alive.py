"""Until when the gateway surely heard: the start of the gap that a restart leaves.

One small file, overwritten once a second without fsync: it survives SIGKILL in the page cache and costs the card one page
per kernel write-back. After a power cut it may be missing or old; then the newest stored event is the last sign of life.
The stamp is never later than an input that is not yet durable, so what was heard and not stored lies inside the gap.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from operator import index
from pathlib import Path
from typing import Final

from gateway.clock import Stamp

_BYTES: Final = 256
_LAST_MS: Final = 253_402_300_800_000  # the year 10000: a later one cannot be written as a date


class AliveFile:
    """The file and its reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def read(self) -> Stamp | None:
        """Return the last stamp; None when there is none or it cannot be read."""
        try:
            fields = json.loads(self._path.read_bytes()[:_BYTES].rstrip(b"\0 \n"))
            at = Stamp(index(fields["wall_ms"]), index(fields["mono_ms"]), str(fields["boot"]), str(fields["clock"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return at if 0 <= at.wall_ms < _LAST_MS and 0 <= at.mono_ms < _LAST_MS else None

    def write(self, at: Stamp) -> None:
        """Overwrite the stamp in place. Raises OSError."""
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.pwrite(self._file, json.dumps(asdict(at)).encode().ljust(_BYTES), 0)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

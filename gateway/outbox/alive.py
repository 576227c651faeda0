"""Until when the gateway surely heard: the start of the gap that a restart leaves.

One small file, overwritten once a second without fsync: it survives SIGKILL in the page cache and costs the card one page
per kernel write-back. After a power cut it may be missing or old; then the newest stored event is the last sign of life.
The stamp is never later than an input that is not yet durable, so what was heard and not stored lies inside the gap.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from gateway.clock import Stamp

_BYTES = 256


class AliveFile:
    """The file and its reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def read(self) -> Stamp | None:
        """Return the last stamp; None when there is none or it cannot be read."""
        try:
            return Stamp(**json.loads(self._path.read_bytes()[:_BYTES].rstrip(b"\0 \n")))
        except (OSError, ValueError, TypeError):
            return None

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

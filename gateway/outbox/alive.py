"""Until when the gateway surely heard: the start of the gap that a restart leaves.

A small file, overwritten in place without fsync: it survives SIGKILL in the page cache. Two of them: the near one lies
beside the control socket, which systemd keeps in memory, and is written once a second; the one on the card once in
`CARD_EVERY_S`, and each time while the near one cannot be written. A second's write to the card would let ext4 journal
the file's time of change every 5 s: 7.6 MB an hour, more than all the events of a centre (decision 0004). Between two
notes on the card its file is opened for writing and closed again, which writes nothing and tells of a card that has
become read-only: nobody else would meet it before the next event.
After a power cut the note may be missing or `CARD_EVERY_S` old, and the gap is as much longer, which is the truth.
The stamp is never later than an input that is not yet durable, so what was heard and not stored lies inside the gap.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from operator import index
from pathlib import Path
from typing import Final

from gateway.clock import Stamp

CARD_EVERY_S: Final = 60
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

    def look(self) -> None:
        """Ask whether the file may still be written, and write nothing. Raises OSError when it may not, or is gone."""
        os.close(os.open(self._path, os.O_WRONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class AliveNotes:
    """The note in both places."""

    def __init__(self, card: Path, near: Path) -> None:
        self._card = AliveFile(card)
        self._near = AliveFile(near)
        self._on_card: Stamp | None = None

    def read(self) -> Stamp | None:
        """Return the near stamp, unless there is only the card's or that is of a later boot; None when neither can be read.

        Of one boot the near one counts although the card's were later: a stamp steps back when something is found waiting.
        """
        near, card = self._near.read(), self._card.read()
        if near is None or card is None:
            return near or card
        return card if card.boot != near.boot and card.wall_ms > near.wall_ms else near

    def write(self, at: Stamp) -> None:
        """Note a moment. Raises OSError when it had to be noted on the card and was not, or could not have been."""
        try:
            self._near.write(at)
        except OSError:
            self.write_last(at)
            return
        last = self._on_card
        is_old = last is None or last.boot != at.boot or at.mono_ms - last.mono_ms >= CARD_EVERY_S * 1000
        if is_old or (last is not None and at.mono_ms < last.mono_ms):  # it may have been deaf from before
            self._write_card(at)
        else:
            self._look_at_card(at)

    def write_last(self, at: Stamp) -> None:
        """Note a moment where it outlives the machine, whenever that was done last. Raises OSError."""
        with contextlib.suppress(OSError):
            self._near.write(at)
        self._write_card(at)

    def _look_at_card(self, at: Stamp) -> None:
        try:
            self._card.look()
        except FileNotFoundError:  # what is open still is no longer the file that a restart would read
            self._card.close()
            self._write_card(at)

    def _write_card(self, at: Stamp) -> None:
        self._card.write(at)
        self._on_card = at

    def close(self) -> None:
        """Let go of both files."""
        self._near.close()
        self._card.close()

"""Sets a corrupt database aside, so that the gateway can begin a new one.

Beside each lies a note of its place until it has been gone through: the new database, which knows that as well, may be lost
before. Limit: the newest `KEPT` are kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from gateway.outbox.wal import DAMAGED

KEPT: Final = 3
_ENDINGS: Final = ("", "-wal", "-shm", DAMAGED)
_NOTE: Final = ".place"


def free_name(path: Path, *, now_ms: int) -> Path:
    """Return where a database would be set aside: a name that none has, for the clock may have been set back."""
    while (free := path.with_name(f"{path.name}.corrupt-{now_ms:013d}")).exists():
        now_ms += 1
    return free


def set_aside(path: Path, aside: Path) -> bool:
    """Rename a database with its WAL; True if something was still to be renamed.

    Close every connection to it before. May be called again after it failed or was interrupted. Raises OSError.
    """
    is_moved = not aside.exists() and _rename(path, aside)
    if not path.exists():  # else what is beside it is of a database that was begun in its place
        for ending in _ENDINGS[1:]:  # the database first: a WAL that a crash leaves alone is known to be of this one
            at = aside.with_name(aside.name + ending)
            is_moved |= not at.exists() and _rename(path.with_name(path.name + ending), at)
    found = path.parent.glob(f"{path.name}.corrupt-*")
    # Whatever the clock says, the last is this one: after a power cut it may have been set back by years.
    others = sorted(one for one in found if one.name != aside.name and one.name.rpartition("-")[2].isdigit())
    for old in others[: 1 - KEPT]:
        for ending in (*_ENDINGS, _NOTE):
            old.with_name(old.name + ending).unlink(missing_ok=True)
    return is_moved


def keep_note(note: Path, aside: Path) -> None:
    """Lay the note of a database's place beside it. Raises OSError."""
    note.rename(aside.with_name(aside.name + _NOTE))


def forget_note(aside: Path) -> None:
    """It has been gone through. Raises OSError."""
    aside.with_name(aside.name + _NOTE).unlink(missing_ok=True)


def unfinished(path: Path) -> list[dict[str, Any]]:
    """Return the place of each that has not been gone through, the oldest first. A note that cannot be read is left out."""
    found = []
    for note in sorted(path.parent.glob(f"{path.name}.corrupt-*{_NOTE}")):
        try:
            place = json.loads(note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(place, dict) and f"{place.get('file')}{_NOTE}" == note.name:
            found.append(place)
    return found


def discard(path: Path) -> None:
    """Remove what is left of a database that was begun and never came into use. Raises OSError."""
    for ending in reversed(_ENDINGS):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _rename(path: Path, aside: Path) -> bool:
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    return True

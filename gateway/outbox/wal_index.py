"""Gives the index of the WAL (`-shm`) its room before SQLite maps it: what has none kills the process at a full disk.

SQLite extends that file by one byte in each 4096, and writes to it through a memory map. On a file system with smaller
blocks the rest of each 4096 are holes, and to touch a hole that the disk has no block for is SIGBUS, not an error. So the
room is taken first, where a full disk is an error. SQLite would cut the file again when it finds that nobody has it open:
a lock that says that somebody has (`walformat.html`, byte 128 "DMS") keeps it from that, held by an open file description,
as the file's own process does not see its POSIX locks. To close any descriptor of the file would drop those of SQLite: this
one stays open until the connections are closed. Limits: `INDEX_BYTES` is enough for 128 MiB of WAL in pages of 4 KiB, where
it is checkpointed at 4, or 32 MiB in pages of 1 KiB, as an older database may have; a longer WAL that was left, or a full
disk that has not that much, gets what that WAL needs in the smaller pages and 4 MiB more. A file system that writes
elsewhere each time, or gives no room in advance, is not made safer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from gateway.errors import StoreError

INDEX_BYTES: Final = 256 * 1024
_REGION_BYTES: Final = 32 * 1024
_REGION_FRAMES: Final = 4096  # of the first: 34 less
_FRAME_BYTES: Final = 1024 + 24  # in the smallest pages that a database of ours was ever begun with: it keeps them
_DMS: Final = 128
_HEADER_BYTES: Final = 48
_MAX_FRAME: Final = 16
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class WalIndex:
    """The index beside the database at `path`. Call `hold` before the first connection, `release` after the last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.with_name(path.name + "-shm")
        self._descriptor = -1

    def hold(self) -> None:
        """Take the room. Raises StoreError: GW-STO-03, no room. Whatever else is wrong is left for SQLite to tell."""
        self.release()
        if self._path.exists() and not self._path.is_file():
            return
        try:
            self._take()
        except OSError as error:
            self.release()
            if error.errno in _NO_ROOM:
                detail = f"no room for the index of the WAL: {error.strerror}"
                raise StoreError("GW-STO-03", str(self._path), path=str(self._path), detail=detail) from error

    def last_frame(self) -> int | None:
        """Return the last frame of the WAL that SQLite sees (`walformat.html`, `mxFrame`); None where nobody can say."""
        if self._descriptor < 0:
            return None
        try:
            header = os.pread(self._descriptor, _HEADER_BYTES, 0)
        except OSError:
            return None
        return int(struct.unpack_from("=I", header, _MAX_FRAME)[0]) if len(header) == _HEADER_BYTES else None

    def release(self) -> None:
        """Let go. Every connection of this process must be closed. What SQLite never came to use is removed."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            if self._wal_bytes() == 0 and os.fstat(descriptor).st_nlink and _lock(descriptor, fcntl.F_WRLCK):
                self._file.unlink()
        except OSError:  # left lying it is room, and nothing else
            pass
        finally:
            os.close(descriptor)

    def _take(self) -> None:
        mode = self._path.stat().st_mode & 0o777 if self._path.exists() else 0o644  # as SQLite does
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = self._descriptor = os.open(self._file, flags, mode)
        if _lock(descriptor, fcntl.F_WRLCK):
            os.ftruncate(descriptor, 0)  # what a crash has left is not to be trusted; SQLite builds it anew
        if not _lock(descriptor, fcntl.F_RDLCK):
            raise BlockingIOError(errno.EAGAIN, "somebody begins to use it")
        least = self._least()
        try:
            os.posix_fallocate(descriptor, 0, max(INDEX_BYTES, least))
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            os.posix_fallocate(descriptor, 0, least)

    def _least(self) -> int:
        """Return the bytes for the WAL that is there, and one region more."""
        return (2 + (self._wal_bytes() // _FRAME_BYTES + 34) // _REGION_FRAMES) * _REGION_BYTES

    def _wal_bytes(self) -> int:
        wal = self._path.with_name(self._path.name + "-wal")
        return wal.stat().st_size if wal.exists() else 0


def _lock(descriptor: int, kind: int) -> bool:
    """Lock the byte which says that the index is in use; False where somebody's lock forbids it."""
    lock = struct.pack("hhqqi0q", kind, os.SEEK_SET, _DMS, 1, 0)  # struct flock with 64-bit offsets
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    except (BlockingIOError, PermissionError):
        return False
    return True

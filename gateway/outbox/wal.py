"""Commits that SQLite no longer sees: what stands in the WAL behind a frame that was damaged.

SQLite reads a WAL up to the first frame whose checksum is wrong and says nothing of what comes behind it (file format,
sections 4.1 to 4.3). At the end of a log that is right: a power cut tears the commit in progress. In the middle it drops
commits that were accepted. What tells the two apart: a commit is begun only when the one before it is durable, so a whole
commit behind a break proves that the broken one was durable, too. A single broken commit at the end proves nothing: it may
have been accepted, and that is told, too.
Frames are whole or not each by itself, for each checksum goes on from the one that stands in the frame before. A failed commit
may leave frames of this log behind its end, but no commit that is whole and goes on from another. A log is begun anew when all
of it stands in the database: a power cut that spoils the first block then leaves the frames of the old one without a header,
and what they say is compared with the database before it counts as hidden.
Limits: where there is no hole only the headers of the frames behind the end are read (4 MiB of WAL: a thousand of them); else a
checksum takes a tenth of a millisecond a frame, some times that on a Pi; a frame beside the damaged one may count as damaged.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gateway.outbox.connection import PAGE_BYTES

DAMAGED: Final = "-wal-damaged"
HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
_MAGIC: Final = 0x377F0682  # and one more where the checksums are of big-endian words
_VERSION: Final = 3_007_000
_PAGE_SIZES: Final = (512, 1024, 2048, 4096, 8192, 16384, 32768)
_LOGS: Final = 1 << 16  # that much ahead a salt is of a later log, and not damage

Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a log, counted from 1. `pages`: how many the database has after this commit, 0 within one.

    `is_sound`: its checksum is right, as the frame before it has it. `is_padding`: a copy that fills a commit's last block.
    """

    number: int
    page: int
    pages: int
    is_sound: bool
    is_padding: bool


class Log:
    """A WAL as it stands in its file. A context; raises OSError where the file cannot be read."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        size = os.fstat(self._file.fileno()).st_size
        header = self._file.read(HEADER_BYTES).ljust(HEADER_BYTES, b"\0")
        magic, version, page_bytes = struct.unpack(">III", header[:12])
        native = _MAGIC + (sys.byteorder == "big")
        self._words = ">" if (magic if magic in (_MAGIC, _MAGIC + 1) else native) & 1 else "<"
        self._start: Sums | None = struct.unpack(">II", header[24:32])
        self.page_bytes: int = page_bytes if page_bytes in _PAGE_SIZES else PAGE_BYTES
        self.frame_bytes = FRAME_HEADER_BYTES + self.page_bytes
        self.count = max(0, size - HEADER_BYTES) // self.frame_bytes
        is_sound = magic in (_MAGIC, _MAGIC + 1) and version == _VERSION
        self.has_header = is_sound and self._sums(header[:24], (0, 0)) == self._start
        if self.has_header:
            self.header, self.salts = header, header[16:24]
        else:
            self._start, self.salts = None, self._first_salts()
            known = struct.pack(">IIII", native, _VERSION, self.page_bytes, 0) + self.salts
            self.header = known + struct.pack(">II", *self._sums(known, (0, 0)))

    def __enter__(self) -> Self:
        """Read it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the file."""
        self._file.close()

    def at(self, number: int) -> int:
        """Return where the page of a frame stands in the file."""
        return HEADER_BYTES + (number - 1) * self.frame_bytes + FRAME_HEADER_BYTES

    def frames(self, *, after: int = 0) -> Iterator[Frame]:
        """Yield the frames of this log behind the first `after`; those of a log before it are left out."""
        before = self._stored(self._head(after)) if after else self._start
        commit: tuple[Frame, bytes] | None = None
        for number in range(after + 1, self.count + 1):
            head = self._head(number)
            if head[8:16] != self.salts:
                before = None
                continue
            data = self._file.read(self.page_bytes)
            page, pages = struct.unpack(">II", head[:8])
            is_sound = before is not None and self._sums(head[:8] + data, before) == self._stored(head)
            frame = Frame(number, page, pages, is_sound, _is_padding(number, page, data, commit))
            yield frame
            before = self._stored(head)
            if pages:
                commit = frame, data

    def whole(self, frames: Iterable[Frame]) -> Iterator[tuple[bytes, bytes]]:
        """Yield header and page of some frames as they would be, had there never been others."""
        sums: Sums = struct.unpack(">II", self.header[24:32])
        for frame in frames:
            head = self._head(frame.number)
            data = self._file.read(self.page_bytes)
            sums = self._sums(head[:8] + data, sums)
            yield head[:16] + struct.pack(">II", *sums), data

    def stands_in(self, path: Path, frames: Iterable[Frame]) -> bool:
        """Does the database at `path` have every page as these frames, behind the last break, have it? Raises OSError.

        What stands before a break may be older than what was there, and was written over.
        """
        newest: dict[int, Frame] = {}
        before = 0
        for one in frames:
            if not one.is_sound or one.number != before + 1:
                newest.clear()
            if one.is_sound:
                newest[one.page] = one
            before = one.number
        with path.open("rb") as database:
            for frame in newest.values():
                database.seek((frame.page - 1) * self.page_bytes)
                self._file.seek(self.at(frame.number))
                if database.read(self.page_bytes) != self._file.read(self.page_bytes):
                    return False
        return True

    def name(self, frame: Frame) -> str:
        """Return what tells a frame from any other that ever stood in its place."""
        return f"{frame.number}-{self._head(frame.number)[8:24].hex()}"

    def _head(self, number: int) -> bytes:
        self._file.seek(self.at(number) - FRAME_HEADER_BYTES)
        return self._file.read(FRAME_HEADER_BYTES)

    @staticmethod
    def _stored(head: bytes) -> Sums:
        first, second = struct.unpack(">II", head[16:24])
        return first, second

    def _first_salts(self) -> bytes:
        """Where the header is gone: what two frames say, one after the other, or any frame of a log begun after that.

        The first salt counts the logs (section 4.1), and each is begun when all of the one before stands in the database.
        """
        all_salts = [self._head(number)[8:16] for number in range(1, self.count + 1)]
        pairs = (one for one, other in pairwise(all_salts) if one == other)
        newest = next(pairs, all_salts[-1] if all_salts else b"")
        for salts in all_salts:
            if 0 < (int.from_bytes(salts[:4], "big") - int.from_bytes(newest[:4], "big")) % (1 << 32) < _LOGS:
                newest = salts
        return newest

    def _sums(self, data: bytes, sums: Sums) -> Sums:
        """The checksum of the file format, section 4.2."""
        first, second = sums
        words = iter(struct.unpack(f"{self._words}{len(data) // 4}I", data))
        for one, other in zip(words, words, strict=True):
            first = (first + one + second) & 0xFFFFFFFF
            second = (second + other + first) & 0xFFFFFFFF
        return first, second


def _is_padding(number: int, page: int, data: bytes, commit: tuple[Frame, bytes] | None) -> bool:
    """Of a commit frame that is damaged nobody can say whether the next is its copy: better taken for one."""
    if commit is None:
        return False
    if not commit[0].is_sound:
        return number == commit[0].number + 1
    return page == commit[0].page and data == commit[1]


def behind_break(frames: Iterable[Frame], *, after: int) -> Iterator[Frame]:
    """Leave out what goes on from frame `after` without a break: SQLite sees it, whatever was said of its last frame."""
    is_seen = True
    for before, frame in enumerate(frames, after):
        is_seen = is_seen and frame.is_sound and frame.number == before + 1
        if not is_seen:
            yield frame


def last_whole(frames: Iterable[Frame], *, after: int) -> int:
    """Return the last frame of the last commit that is whole behind a break; `frames` begin behind `after`. 0: there is none."""
    last, is_whole, before = 0, False, 0
    for frame in behind_break(frames, after=after):
        is_whole = is_whole and frame.is_sound and frame.number == before + 1
        if frame.pages:
            if is_whole and not frame.is_padding:
                last = frame.number
            is_whole = True
        before = frame.number
    return last


def standing(frames: Sequence[Frame]) -> tuple[list[Frame], bool]:
    """Return the frames up to the last commit that was accepted, and whether there is a hole before it."""
    seen = before = 0
    for frame in frames:
        if not frame.is_sound or frame.number != before + 1:
            break
        before = frame.number
        seen = before if frame.pages else seen
    upto = last_whole([frame for frame in frames if frame.number > seen], after=seen)
    return [frame for frame in frames if frame.number <= max(seen, upto)], upto > 0


def hidden(path: Path, *, after: int) -> int:
    """Return how many frames behind the last that SQLite sees reach to the last whole commit there; 0 where there is none.

    `path` is that of the database. What cannot be read is left for SQLite to tell.
    """
    with contextlib.suppress(OSError), Log(path.with_name(path.name + "-wal")) as log:
        frames = list(log.frames(after=after))
        last = last_whole(frames, after=after)
        if not log.has_header and not after and log.stands_in(path, (one for one in frames if one.number <= last)):
            return 0
        return max(0, last - after)
    return 0


def torn(path: Path, *, after: int) -> list[str]:
    """Name the broken commits behind the last frame that SQLite sees: nobody can say whether they were accepted.

    They stand there until other commits come to be written over them, and have the same names as long.
    """
    with contextlib.suppress(OSError), Log(path.with_name(path.name + "-wal")) as log:
        frames = list(behind_break(log.frames(after=after), after=after))
        return [log.name(frame) for frame in frames if frame.pages]
    return []


def mend(path: Path) -> bool:
    """Let SQLite read on behind a hole, in a database that was set aside; True where there was one.

    The damaged frames are left out: a page that a later commit wrote again is as it was, any other as it was before. The WAL as
    it was stays beside it. May be called again after it failed. Raises OSError.
    """
    wal, kept = path.with_name(path.name + "-wal"), path.with_name(path.name + DAMAGED)
    if not wal.exists():
        return False
    with Log(wal) as log:
        frames, has_hole = standing(list(log.frames()))
        if not has_hole:
            return False
        mended = wal.with_name(wal.name + ".mended")
        try:
            with mended.open("wb") as file:
                file.write(log.header)
                for head, data in log.whole(one for one in frames if one.is_sound):
                    file.write(head + data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            mended.unlink(missing_ok=True)  # a full disk has better use for the room
            raise
    kept.unlink(missing_ok=True)
    try:
        os.link(wal, kept)
    except OSError:  # a file system without hard links
        shutil.copyfile(wal, kept)
    mended.replace(wal)
    return True

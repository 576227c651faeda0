"""Reads the rows of a SQLite file page by page, whatever has become of the pages that lead there. Pure but for reading.

SQLite follows a tree from its root: one bad page above hides everything below it. Here each leaf page is read by itself
(SQLite file format, sections 1.5, 1.6, 2.1 and 4), in the state of the last transaction that the WAL has whole. A frame that is
hit spoils its own page, not the later ones. Checksums of the WAL are looked at only where it is known to be damaged (`wal`):
then a page is read as it is in the damaged frame, and as it was before. Whatever a bad page makes of a row is left out when it
cannot be decoded; whoever asks must judge whether what is decoded makes sense, and that may be the same row twice.
Limit: a row of at most `MAX_ROW_BYTES`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway.outbox.connection import PAGE_BYTES
from gateway.outbox.wal import DAMAGED, Log, standing

MAX_ROW_BYTES: Final = 1024 * 1024
Value = int | float | str | bytes | None
Row = tuple[int, tuple[Value, ...]]

_MAGIC: Final = b"SQLite format 3\0"
_LEAF: Final = 0x0D
_INTERIOR: Final = 0x05
_KEYED: Final = {0x0A: 8, 0x02: 12}
"""Pages of a table without rowids, leaf and interior: both hold rows. Where their cells begin."""
_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = 24
_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_UNREADABLE: Final = (IndexError, ValueError, struct.error, OverflowError)


class Pages:
    """The pages of one database. Raises OSError where the file itself cannot be read."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        damaged = path.with_name(path.name + DAMAGED)
        wal = damaged if damaged.exists() else path.with_name(path.name + "-wal")
        self._wal = wal.open("rb") if wal.exists() else None
        self._in_wal: dict[int, int] = {}
        self._spoiled: dict[int, list[int]] = {}
        self.page_bytes = self._page_bytes()
        self.count = path.stat().st_size // self.page_bytes
        if wal == damaged:
            self._map_damaged(wal)
        else:
            self._map_wal()

    def close(self) -> None:
        """Let go of the files."""
        self._file.close()
        if self._wal is not None:
            self._wal.close()

    def _page_bytes(self) -> int:
        head = self._file.read(100)
        size = int.from_bytes(head[16:18], "big")
        if head.startswith(_MAGIC) and _is_page_size(size):
            return size
        if self._wal is not None:
            size = int.from_bytes(self._wal.read(12)[8:12], "big")
            if _is_page_size(size):
                return size
        return PAGE_BYTES

    def _map_wal(self) -> None:
        """Note where the newest committed state of each page stands in the WAL."""
        if self._wal is None:
            return
        self._wal.seek(0)
        salts = self._wal.read(_WAL_HEADER)[16:24]
        pending: dict[int, int] = {}
        at = _WAL_HEADER
        while len(head := self._frame_header(at)) == _FRAME_HEADER and head[8:16] == salts:
            number, committed = struct.unpack(">II", head[:8])
            pending[number] = at + _FRAME_HEADER
            if committed:
                self._take(pending, committed)
            at += _FRAME_HEADER + self.page_bytes

    def _map_damaged(self, wal: Path) -> None:
        """Note that, and where states stand that were newer and were hit."""
        with Log(wal) as log:
            pending: dict[int, int] = {}
            for frame in standing(list(log.frames()))[0]:
                if frame.is_sound:
                    pending[frame.page] = log.at(frame.number)
                    self._spoiled.pop(frame.page, None)
                else:
                    self._spoiled.setdefault(frame.page, []).append(log.at(frame.number))
                if frame.pages:
                    self._take(pending, frame.pages if frame.is_sound else 0)

    def _take(self, pending: dict[int, int], committed: int) -> None:
        self._in_wal.update(pending)
        pending.clear()
        self.count = max(self.count, min(committed, self.count + len(self._in_wal)))

    def _frame_header(self, at: int) -> bytes:
        assert self._wal is not None  # noqa: S101 - only asked where there is one
        self._wal.seek(at)
        return self._wal.read(_FRAME_HEADER)

    def page(self, number: int) -> bytes:
        """Return a page, counted from 1; short or empty beyond the end, and where the disk does not give it."""
        where = self._in_wal.get(number)
        try:
            if where is not None and self._wal is not None:
                self._wal.seek(where)
                return self._wal.read(self.page_bytes)
            self._file.seek((number - 1) * self.page_bytes)
            return self._file.read(self.page_bytes)
        except OSError:  # one bad sector must not keep all the others
            return b""

    # -- rows ---------------------------------------------------------------------------------------------------

    def rows(self, number: int) -> Iterator[Row]:
        """Yield (rowid, values) of a leaf page of a table; nothing for any other page."""
        for page in (self.page(number), *self._hit(number)):
            yield from self._rows_of(page, number)

    def _hit(self, number: int) -> Iterator[bytes]:
        for where in self._spoiled.get(number, ()):
            assert self._wal is not None  # noqa: S101 - that is where they stand
            try:
                self._wal.seek(where)
                yield self._wal.read(self.page_bytes)
            except OSError:
                continue

    def _rows_of(self, page: bytes, number: int) -> Iterator[Row]:
        start = 100 if number == 1 else 0
        if len(page) < self.page_bytes or page[start] != _LEAF:
            return
        for cell in _cells(page, start, first=start + 8):
            try:
                yield self._row(page, cell)
            except _UNREADABLE:
                continue

    def keyed_rows(self, number: int) -> Iterator[tuple[Value, ...]]:
        """Yield the rows of a page of a table without rowids (section 2.4), or of an index; nothing for any other page."""
        for page in (self.page(number), *self._hit(number)):
            yield from self._keyed_rows_of(page, number)

    def _keyed_rows_of(self, page: bytes, number: int) -> Iterator[tuple[Value, ...]]:
        start = 100 if number == 1 else 0
        first = _KEYED.get(page[start]) if len(page) == self.page_bytes else None
        for cell in [] if first is None else _cells(page, start, first=start + first):
            try:
                length, at = _varint(page, cell + (4 if page[start] == 0x02 else 0))
                most = (self.page_bytes - 12) * 64 // 255 - 23
                yield _values(self._payload(page, at, length, most=most))
            except _UNREADABLE:
                continue

    def _row(self, page: bytes, at: int) -> Row:
        length, at = _varint(page, at)
        rowid, at = _varint(page, at)
        return _signed(rowid), _values(self._payload(page, at, length, most=self.page_bytes - 35))

    def _payload(self, page: bytes, at: int, length: int, *, most: int) -> bytes:
        """Return a payload; `most`: what of one stands on the page itself at most (section 1.6)."""
        if not 0 < length <= MAX_ROW_BYTES:
            raise ValueError(length)
        usable = self.page_bytes  # no database of ours reserves bytes at the end of a page
        if length <= most:
            return page[at : at + length]
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        local = local if local <= most else least
        parts, have = [page[at : at + local]], local
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        while have < length:
            page = self.page(following) if following else b""
            if len(page) < usable:
                raise ValueError(following)
            parts.append(page[4 : 4 + length - have])
            have += len(parts[-1])
            following = int.from_bytes(page[:4], "big")
        return b"".join(parts)

    # -- the tree -----------------------------------------------------------------------------------------------

    def roots(self) -> dict[str, int]:
        """Return the root page of each table, where the first page still says so."""
        found = {}
        for values in (values for leaf in self.leaves(1) for _rowid, values in self.rows(leaf)):
            if len(values) == 5 and values[0] == "table" and isinstance(values[3], int):
                found[str(values[1])] = values[3]
        return found

    def leaves(self, root: int) -> set[int]:
        """Return the leaf pages that can be reached from a root."""
        found: set[int] = set()
        seen: set[int] = set()
        todo = [root]
        while todo:
            number = todo.pop()
            if number in seen or not 0 < number <= self.count:
                continue
            seen.add(number)
            page = self.page(number)
            if len(page) < self.page_bytes:
                continue
            start = 100 if number == 1 else 0
            if page[start] == _LEAF:
                found.add(number)
            elif page[start] == _INTERIOR:
                todo.append(int.from_bytes(page[start + 8 : start + 12], "big"))
                todo += [int.from_bytes(page[at : at + 4], "big") for at in _cells(page, start, first=start + 12)]
        return found


def lanes_of(pages: Pages, tables: Mapping[str, int]) -> dict[int, int]:
    """Return for each leaf page that can be reached from one table only the number that `tables` gives it."""
    roots = pages.roots()
    reached: dict[int, set[int]] = {}
    for name, lane in tables.items():
        for leaf in pages.leaves(roots[name]) if name in roots else ():
            reached.setdefault(leaf, set()).add(lane)
    return {leaf: lanes.pop() for leaf, lanes in reached.items() if len(lanes) == 1}


def _is_page_size(size: int) -> bool:
    return size in (512, 1024, 2048, 4096, 8192, 16384, 32768)


def _cells(page: bytes, start: int, *, first: int) -> list[int]:
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    count = min(count, (len(page) - first) // 2)
    found = (int.from_bytes(page[first + 2 * n : first + 2 * n + 2], "big") for n in range(count))
    return [at for at in found if first <= at < len(page)]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for n in range(8):
        byte = data[at + n]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + n + 1
    return value << 8 | data[at + 8], at + 9


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _values(payload: bytes) -> tuple[Value, ...]:
    """Decode a record. Raises what a bad one leads to."""
    end, at = _varint(payload, 0)
    body = end
    values: list[Value] = []
    while at < end:
        kind, at = _varint(payload, at)
        size = _INTEGERS.get(kind, 0)
        if kind in (8, 9):
            values.append(kind - 8)
        elif kind == 0:
            values.append(None)
        elif kind == 7:
            size = 8
            values.append(struct.unpack(">d", payload[body : body + 8])[0])
        elif size:
            values.append(int.from_bytes(_slice(payload, body, size), "big", signed=True))
        elif kind >= 12:
            size = (kind - 12) // 2
            data = _slice(payload, body, size)
            values.append(data.decode() if kind & 1 else data)
        else:
            raise ValueError(kind)
        body += size
    return tuple(values)


def _slice(payload: bytes, at: int, size: int) -> bytes:
    data = payload[at : at + size]
    if len(data) < size:
        raise ValueError(size)
    return data

"""DL/T 698.45: what an APDU says: replies to GET, and the typed data in them.

    05 01 P OOOO 00                      asked for one attribute, P which question (0-63), O its descriptor (OAD)
    05 02 P N OOOO... 00                 asked for N of them
    85 01 P OOOO R 00 00                 answered; R is 00 and a reason (DAR), or 01 and data
    85 02 P N (OOOO R)... 00 00          answered
    05 03 P OOOO 09 B N (00 OOOO)... 00  asked for N columns of the record that lies B back
    85 03 P OOOO N (00 OOOO)... R 00     answered; R is 00 and a reason, or 01, how many records, and the data of their columns
    90 00 L <reply> ...                  answered under security, in clear: what it proves is not looked at

Data begins with its type: numbers of 1 to 8 bytes (high byte first), texts and bit strings with a length, times, arrays and
structures with a count. A type that is not known ends the reading, since nothing tells how long it is.

Limits: 8 levels of arrays, 1,024 elements in all; whatever is declared beyond what is there is refused as TOO_SHORT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.fields import meter_time

MAX_DEPTH: Final = 8
MAX_ELEMENTS: Final = 1024
_GET_RESPONSE, _SECURITY_RESPONSE = 0x85, 0x90
_NORMAL, _LIST, _RECORD, _NEXT = 1, 2, 3, 5

Plain = int | bytes | str | bool | datetime | None


@dataclass(frozen=True, slots=True)
class Element:
    """One datum: its type, and its value; `parts` of an array (01) or structure (02)."""

    tag: int
    value: Plain = None
    parts: tuple[Element, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What a meter says of one attribute: data, or why it does not give any (`dar`)."""

    oad: int
    data: Element | None = None
    dar: int = 0

    def refusal(self) -> str:
        """Name the reason of a refusal."""
        return f"{DARS.get(self.dar, 'unknown error')} (DAR {self.dar})"


@dataclass(frozen=True, slots=True)
class Response:
    """A reply to GET. `piid`: which question it answers."""

    piid: int
    listed: bool
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Records:
    """A reply to GET of records: each row has a datum for each of `columns`; none, and `dar`, where there is no record."""

    piid: int
    oad: int
    columns: tuple[int, ...]
    rows: tuple[tuple[Element, ...], ...] = ()
    dar: int = 0


# 7.3.2.10, data access result.
DARS: Final[Mapping[int, str]] = {
    1: "hardware failure",
    2: "temporary failure",
    3: "reading denied",
    4: "object undefined",
    5: "object of another class",
    6: "no such object",
    7: "type does not match",
    8: "out of bounds",
    9: "block of data not available",
    15: "wrong password or not authorised",
    20: "security does not match",
    23: "security failed",
    27: "wrong address",
    31: "the meter is suspended",
    32: "invalid time tag",
    33: "request timed out",
    255: "other error",
}

ARRAY, STRUCTURE = 0x01, 0x02
DOUBLE_LONG, DOUBLE_LONG_UNSIGNED, LONG, LONG_UNSIGNED, LONG64, LONG64_UNSIGNED = 0x05, 0x06, 0x10, 0x12, 0x14, 0x15
# Type -> bytes and whether it has a sign.
_INTEGERS: Final[Mapping[int, tuple[int, bool]]] = {
    DOUBLE_LONG: (4, True),
    DOUBLE_LONG_UNSIGNED: (4, False),
    0x0F: (1, True),
    LONG: (2, True),
    0x11: (1, False),
    LONG_UNSIGNED: (2, False),
    LONG64: (8, True),
    LONG64_UNSIGNED: (8, False),
    0x16: (1, False),
}
# Types whose bytes are handed on as they are: floats, descriptors, intervals, units, port settings.
_FIXED: Final[Mapping[int, int]] = {
    0x17: 4, 0x18: 8, 0x50: 2, 0x51: 4, 0x53: 4, 0x54: 3, 0x59: 2, 0x5F: 5,
}  # fmt: skip
# Types that begin with their length in bytes: octets, texts, addresses, checks, random numbers.
_COUNTED: Final = frozenset({0x09, 0x0A, 0x0C, 0x55, 0x56, 0x57})


class Cursor:
    """Reads bytes from the front; what is not there is TOO_SHORT."""

    def __init__(self, data: bytes) -> None:
        """Begin at the first byte."""
        self._data = data
        self._at = 0
        self._elements = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """Read so many bytes. Raises Rejected."""
        end = self._at + size
        if end > len(self._data):
            raise Rejected(Reason.TOO_SHORT, f"{self.left} bytes where {size} are due")
        found = self._data[self._at : end]
        self._at = end
        return found

    def byte(self) -> int:
        """Read one byte."""
        return self.take(1)[0]

    def length(self) -> int:
        """Read a length: one byte, or 81 and one, 82 and two."""
        first = self.byte()
        if first < 0x80:
            return first
        if first not in (0x81, 0x82):
            raise Rejected(Reason.MALFORMED, f"a length that begins with {first:02x}")
        return int.from_bytes(self.take(first & 0x7F), "big")

    def element(self, depth: int = 0) -> Element:
        """Read one datum with all that is in it."""
        tag = self.byte()
        self._elements += 1
        if depth >= MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise Rejected(Reason.MALFORMED, f"more than {MAX_DEPTH} levels or {MAX_ELEMENTS} elements")
        if tag in (ARRAY, STRUCTURE):
            count = self.length()
            if count > self.left:
                raise Rejected(Reason.TOO_SHORT, f"{count} elements in {self.left} bytes")
            return Element(tag, None, tuple(self.element(depth + 1) for _ in range(count)))
        return Element(tag, self._plain(tag))

    def _plain(self, tag: int) -> Plain:
        if (number := _INTEGERS.get(tag)) is not None:
            return int.from_bytes(self.take(number[0]), "big", signed=number[1])
        if tag in _COUNTED:
            text = self.take(self.length())
            return text.decode("ascii", "replace") if tag == 0x0A else text
        if (size := _FIXED.get(tag)) is not None:
            return self.take(size)
        if (special := _SPECIAL.get(tag)) is not None:
            return special(self)
        raise Rejected(Reason.UNSUPPORTED, f"data of the type {tag:02x}")


def _bits(cursor: Cursor) -> bytes:
    return cursor.take(-(-cursor.length() // 8))


def _time(data: bytes, parts: tuple[int, ...]) -> Plain:
    """Return a time; its bytes where they are none, so that one wrong clock does not cost what stands beside it."""
    if data.count(0xFF) >= len(data) - 2 or not any(data):
        return None
    try:
        return meter_time(*parts)
    except Rejected:
        return data


def _stamp(cursor: Cursor) -> Plain:
    """Read date_time_s: year (2 bytes), month, day, hour, minute, second; FF where there is none."""
    data = cursor.take(7)
    return _time(data, (data[0] << 8 | data[1], *data[2:]))


def _long_stamp(cursor: Cursor) -> Plain:
    """Read date_time: as date_time_s, with a weekday after the day and milliseconds at the end."""
    data = cursor.take(10)
    return _time(data, (data[0] << 8 | data[1], data[2], data[3], *data[5:8]))


_SPECIAL: Final[Mapping[int, Callable[[Cursor], Plain]]] = {
    0x00: lambda _: None,
    0x03: lambda cursor: cursor.byte() != 0,
    0x04: _bits,
    0x19: _long_stamp,
    0x1A: lambda cursor: cursor.take(5),
    0x1B: lambda cursor: cursor.take(3),
    0x1C: _stamp,
}


def response(apdu: bytes) -> Response:
    """Read a reply to GET. Raises Rejected: UNSUPPORTED for any other service, NO_KEY for an encrypted one."""
    cursor, kind = _opened(apdu)
    if kind not in (_NORMAL, _LIST):
        raise Rejected(Reason.UNSUPPORTED, "a reply in blocks" if kind == _NEXT else f"service 85 {kind:02x}")
    piid = cursor.byte() & 0x3F
    count = cursor.length() if kind == _LIST else 1
    if count * 6 > cursor.left:
        raise Rejected(Reason.TOO_SHORT, f"{count} results in {cursor.left} bytes")
    return Response(piid, kind == _LIST, tuple(_result(cursor) for _ in range(count)))


def records(apdu: bytes) -> Records:
    """Read a reply to GET of records. Raises Rejected as `response` does; UNSUPPORTED for a column that is no attribute."""
    cursor, kind = _opened(apdu)
    if kind != _RECORD:
        raise Rejected(Reason.UNSUPPORTED, f"service 85 {kind:02x}")
    piid, oad = cursor.byte() & 0x3F, int.from_bytes(cursor.take(4), "big")
    columns = []
    for _ in range(cursor.length()):
        if cursor.byte() != 0:
            raise Rejected(Reason.UNSUPPORTED, "a column of several attributes")
        columns.append(int.from_bytes(cursor.take(4), "big"))
    if cursor.byte() == 0:
        return Records(piid, oad, tuple(columns), dar=cursor.byte())
    count = cursor.length()
    if count * max(1, len(columns)) > cursor.left:
        raise Rejected(Reason.TOO_SHORT, f"{count} records in {cursor.left} bytes")
    rows = tuple(tuple(cursor.element() for _ in columns) for _ in range(count))
    return Records(piid, oad, tuple(columns), rows)


def _opened(apdu: bytes) -> tuple[Cursor, int]:
    """Return what follows service and kind of a reply to GET, and the kind."""
    cursor = Cursor(apdu)
    service = cursor.byte()
    if service == _SECURITY_RESPONSE:
        if cursor.byte() != 0:
            raise Rejected(Reason.NO_KEY, "the reply is encrypted")
        cursor = Cursor(cursor.take(cursor.length()))
        service = cursor.byte()
    kind = cursor.byte()
    if service != _GET_RESPONSE:
        raise Rejected(Reason.UNSUPPORTED, f"service {service:02x} {kind:02x}")
    return cursor, kind


def _result(cursor: Cursor) -> Result:
    oad = int.from_bytes(cursor.take(4), "big")
    choice = cursor.byte()
    if choice == 0:
        return Result(oad, dar=cursor.byte())
    if choice != 1:
        raise Rejected(Reason.MALFORMED, f"a result that begins with {choice:02x}")
    return Result(oad, cursor.element())

"""SML, the Smart Message Language of German electricity meters (BSI TR-03109-1, annex IV b): pushed telegrams, read.

The transport, a letter a byte:

    1B1B1B1B 01010101 M... 00.. 1B1B1B1B 1A P SS

    M  messages; 1B1B1B1B in them is sent twice
    P  how many 00 fill up to a multiple of four
    S  CRC-16/X-25 from the first 1B to P, low byte first; some of Holley's meters have CRC-16/KERMIT there, high byte first

A message is a list of six: transaction, group, abort, body (its tag and a list), check, end. The body 0701 has the values of the
meter: OBIS code, status, time, unit, power of ten, value. What stands before every value is a byte (or more) of type and length.

Limits: 8,192 bytes a telegram, lists 8 deep, numbers of 8 bytes.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.checks import crc16_x25
from drivers.kit.framing import LengthFramer

MAX_TELEGRAM: Final = 8_192
MAX_DEPTH: Final = 8
ESCAPE: Final = b"\x1b\x1b\x1b\x1b"
BEGIN: Final = ESCAPE + b"\x01\x01\x01\x01"
_END: Final = 0x1A
_TAIL: Final = 8
_MOST_PADDING: Final = 3
GET_LIST_RESPONSE: Final = 0x0701
_STRING, _BOOLEAN, _INTEGER, _UNSIGNED, _LIST = 0x0, 0x4, 0x5, 0x6, 0x7
_ESCAPES: Final = re.compile(rb"(?:\x1b{8})+")
_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was sent: `raw` high byte first, with or without a sign."""

    raw: bytes
    signed: bool

    @property
    def value(self) -> int:
        """Its value."""
        return int.from_bytes(self.raw, "big", signed=self.signed)


Node = bytes | Number | bool | list["Node"] | None
"""A string, a number, a truth, a list, or nothing (an optional part that is not there)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of a meter. `code`: six bytes A-B:C.D.E*F; `unit` by the numbers of DLMS, None where there is none."""

    code: bytes
    unit: int | None
    scaler: int
    value: Node


@dataclass(frozen=True, slots=True)
class ValueList:
    """What a meter tells: its id, its time (seconds since 1970, None where it has none), and its values."""

    server: bytes
    time: int | None
    entries: tuple[Entry, ...]


def inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at a 1B, for LengthFramer."""
    head = data[start : start + len(BEGIN)]
    if not BEGIN.startswith(head):
        return Reason.NOT_MINE
    if len(head) < len(BEGIN):
        return None
    end = _end_of(data, start)
    if not isinstance(end, int):
        return end
    raw = data[start:end]
    return end - start if _is_whole(raw) else Reason.BAD_CHECK


def _end_of(data: bytes, start: int) -> int | Reason | None:
    """Return where a telegram ends that begins at `start`, passing over sequences that are sent twice."""
    at = start + len(BEGIN)
    while (at := data.find(ESCAPE, at)) >= 0:
        following = data[at + 4 : at + _TAIL]
        if len(following) < 4:
            return None
        if following == ESCAPE:
            run = _ESCAPES.match(data, at)
            at = run.end() if run else at + _TAIL  # all at once: it is looked through again with each byte that comes
        elif following[0] == _END:
            return at + _TAIL
        elif following[0] == ESCAPE[0]:
            at += 1  # a 1B of the data stands before the sequence
        else:
            return Reason.MALFORMED
    return None


def _is_whole(raw: bytes) -> bool:
    return crc16_x25(raw[:-2]) == int.from_bytes(raw[-2:], "little") or _crc16_kermit(raw[:-2]) == int.from_bytes(
        raw[-2:], "big"
    )


def _crc16_kermit(data: bytes) -> int:
    """CRC-16/KERMIT: the polynomial of X-25 that begins with 0 and is not inverted."""
    mirrored = crc_hqx(data.translate(_MIRRORED), 0)
    return _MIRRORED[mirrored & 0xFF] << 8 | _MIRRORED[mirrored >> 8]


def framer() -> LengthFramer:
    """Return a framer for telegrams."""
    return LengthFramer(inspect, start=ESCAPE[0], limit=MAX_TELEGRAM)


def parse(frame: bytes) -> tuple[ValueList, ...]:
    """Return the value lists of one whole telegram. Raises Rejected: BAD_CHECK, MALFORMED."""
    if not frame.startswith(BEGIN) or _end_of(frame, 0) != len(frame):
        raise Rejected(Reason.MALFORMED, "no whole telegram")
    if not _is_whole(frame):
        raise Rejected(Reason.BAD_CHECK, "the check does not fit")
    padding = frame[-3]
    content = frame[len(BEGIN) : len(frame) - _TAIL].replace(ESCAPE + ESCAPE, ESCAPE)
    # Some meters of DZG fill up by 4 where none is needed: zeros, as ends of message are.
    if padding > len(content) or (padding > _MOST_PADDING and any(content[-padding:])):
        raise Rejected(Reason.MALFORMED, f"{padding} bytes of padding")
    reader = _Reader(content[: len(content) - padding])
    found = []
    while not reader.at_end:
        message = reader.node(0)
        # Some meters fill up with more ends of message than they should.
        if message is not None and (values := _value_list(message)) is not None:
            found.append(values)
    return tuple(found)


class _Reader:
    """Reads one node after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        """Is everything read?"""
        return self._at >= len(self._data)

    def node(self, depth: int) -> Node:
        """Read one. Raises Rejected for what is cut, too deep, or of no type."""
        if depth > MAX_DEPTH:
            raise Rejected(Reason.MALFORMED, f"lists deeper than {MAX_DEPTH}")
        first = self._byte()
        if first == 0x00:
            return None  # the end of a message
        kind, length, heads = first >> 4 & 0x7, first & 0x0F, 1
        while first & 0x80:
            first = self._byte()
            heads += 1
            if heads > 3:
                raise Rejected(Reason.MALFORMED, "a length of more than 3 bytes")
            length = length << 4 | first & 0x0F
        if kind == _LIST:
            if length > len(self._data) - self._at:
                raise Rejected(Reason.MALFORMED, f"a list of {length} is cut")
            return [self.node(depth + 1) for _ in range(length)]
        if length < heads:
            raise Rejected(Reason.MALFORMED, f"a length of {length}")
        return _value(kind, self._take(length - heads))

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise Rejected(Reason.MALFORMED, "a value is cut")
        self._at += count
        return taken


def _value(kind: int, raw: bytes) -> Node:
    if kind == _STRING:
        return raw or None
    if kind == _BOOLEAN and len(raw) == 1:
        return bool(raw[0])
    if kind in (_INTEGER, _UNSIGNED) and 1 <= len(raw) <= 8:
        return Number(raw, signed=kind == _INTEGER)
    raise Rejected(Reason.MALFORMED, f"type {kind} with {len(raw)} bytes")


def _value_list(message: Node) -> ValueList | None:
    """Return the values of a message, None where it is of another kind. Raises Rejected for values of another form."""
    if not isinstance(message, list) or len(message) < 4:
        raise Rejected(Reason.MALFORMED, "no message")
    body = message[3]
    if not isinstance(body, list) or len(body) != 2 or _whole(body[0]) != GET_LIST_RESPONSE:
        return None
    content = body[1]
    if not isinstance(content, list) or len(content) != 7 or not isinstance(content[4], list):
        raise Rejected(Reason.MALFORMED, "no list of values")
    server = content[1] if isinstance(content[1], bytes) else b""
    entries = tuple(_entry(one) for one in content[4])
    return ValueList(server, _time(content[3]), entries)


def _entry(node: Node) -> Entry:
    if not isinstance(node, list) or len(node) != 7 or not isinstance(node[0], bytes) or len(node[0]) != 6:
        raise Rejected(Reason.MALFORMED, "no value of a list")
    return Entry(node[0], _whole(node[3]), _whole(node[4]) or 0, node[5])


def _whole(node: Node) -> int | None:
    return node.value if isinstance(node, Number) else None


def _time(node: Node) -> int | None:
    """Return seconds since 1970 where a time is one (choice 2); a meter that counts from its start has no clock."""
    if isinstance(node, list) and len(node) == 2 and _whole(node[0]) == 2:
        return _whole(node[1])
    return None

"""Q/GDW 376.1, what a concentrator speaks to its master station: only what carries a frame of a meter.

    68 LL LL 68 C AAAAAA F Q DDDD K... S 16

    L   two times the same, low byte first: bits 2-15 length of everything from C to K, bits 0-1 which protocol
    C   control: bit 7 from the concentrator
    A   region (2 bytes), concentrator (2), master station and group (1); newer ones have 3 bytes of each
    F   function: 10H forwards data; Q sequence; D which data unit: forwarding is 00 00 01 00
    K   from the concentrator: port (1), length (2), the meter's frame, then what may follow (event counts, time tag)
        to the concentrator: port, line settings, two time-outs (1 each), length (2), the frame
    S   sum of everything from C to K, modulo 256

Both frames begin with 68 and end with 16. A framer of DL/T 645 finds the inner one by itself; this module says who forwards it,
and whether all of it is whole. Nothing is built here.
Limits: 16,383 bytes. Functions other than forwarding are refused as UNSUPPORTED.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.checks import sum8

_START, _END = 0x68, 0x16
_FORWARD: Final = 0x10
_UNIT: Final = bytes.fromhex("00000100")
# 68 LL LL 68 before what is summed; the sum and 16 behind it.
_HEAD, _TAIL = 6, 2
# Where the function stands, by the length of region and concentrator.
_FUNCTION_AT: Final = {2: 6, 3: 8}
_LEAST_BODY: Final = 12
_HEAD_OF_REPLY, _HEAD_OF_REQUEST = 3, 6


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What a concentrator forwards: `concentrator` as region and number, `port` of it, the frame of the meter."""

    concentrator: str
    from_concentrator: bool
    port: int
    frame: bytes


def parse(frame: bytes) -> Forwarded:
    """Take one whole frame apart. Raises Rejected."""
    if len(frame) < _HEAD + _LEAST_BODY + _TAIL:
        raise Rejected(Reason.TOO_SHORT, f"{len(frame)} bytes")
    if frame[0] != _START or frame[5] != _START or frame[1:3] != frame[3:5]:
        raise Rejected(Reason.NOT_MINE, "no 376.1 frame")
    size = int.from_bytes(frame[1:3], "little") >> 2
    if len(frame) != _HEAD + size + _TAIL:
        reason = Reason.TOO_SHORT if len(frame) < _HEAD + size + _TAIL else Reason.TOO_LONG
        raise Rejected(reason, f"{len(frame)} bytes where {_HEAD + size + _TAIL} are due")
    body = frame[_HEAD:-_TAIL]
    if frame[-1] != _END or sum8(body) != frame[-_TAIL]:
        raise Rejected(Reason.BAD_CHECK, "376.1 frame")
    return _forwarded(body)


def _forwarded(body: bytes) -> Forwarded:
    for size, at in _FUNCTION_AT.items():
        content_at = at + 2 + len(_UNIT)
        if body[at : at + 1] == bytes([_FORWARD]) and body[at + 2 : content_at] == _UNIT:
            return _unpacked(body, size, body[content_at:])
    raise Rejected(Reason.UNSUPPORTED, f"no forwarding: {body[: _LEAST_BODY + 2].hex()}")


def _unpacked(body: bytes, address_size: int, content: bytes) -> Forwarded:
    from_concentrator = bool(body[0] & 0x80)
    head = _HEAD_OF_REPLY if from_concentrator else _HEAD_OF_REQUEST
    size = int.from_bytes(content[head - 2 : head], "little")
    inner = content[head : head + size]
    if len(content) < head or len(inner) != size:
        raise Rejected(Reason.TOO_SHORT, f"{len(inner)} bytes of a meter's frame where {size} are due")
    region, number = body[1 : 1 + address_size], body[1 + address_size : 1 + 2 * address_size]
    return Forwarded((region[::-1] + number[::-1]).hex().upper(), from_concentrator, content[0], inner)

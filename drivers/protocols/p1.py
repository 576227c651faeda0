r"""P1, the customer port of electricity meters (DSMR 2.2 to 5, e-MUCS, their like in SE, LU, AT, HU), and IEC 62056-21 mode D.

A telegram:

    /ISk5\2MT382-1000\r\n             who made it
    \r\n
    1-3:0.2.8(50)\r\n                 version
    0-0:1.0.0(170102192002W)\r\n      its time, W winter, S summer
    1-0:1.8.1(000004.426*kWh)\r\n     a code and its values
    1-0:1.8.0*96(...)\r\n              a code with a group F: 255 is now, else a billing period of before; some write .255
    ...
    !6EEE\r\n                         CRC-16/ARC from / to !, also written without leading zeros; before DSMR 4 none

Luxembourg and others wrap it in a frame of DLMS, encrypted and authenticated with AES-128 in GCM:

    DB 08 TTTTTTTT 82 LLLL 30 NNNN C... G

    T  the meter's system title, 8 bytes      N  frame counter, 4
    L  length of what follows                 G  tag, 12

A telegram that names its version must have its check: who has one and does not show it was cut. One that does not is of a time
before checks, and taken without.

Limits: 8,192 bytes a telegram, 512 lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.checks import crc16_arc
from drivers.kit.framing import LengthFramer

MAX_TELEGRAM: Final = 8_192
MAX_LINES: Final = 512
TEXT: Final = 0x2F
SEALED: Final = 0xDB
TITLE_BYTES: Final = 8
TAG_BYTES: Final = 12
_HEAD: Final = 2 + TITLE_BYTES + 3
_AUTHENTICATED: Final = 0x30
_NONCE_BYTES: Final = 12
# The published authentication key of Luxembourg's meters; others have one of their own.
AUTHENTICATION_KEY: Final = bytes.fromhex("00112233445566778899AABBCCDDEEFF")

_END = re.compile(rb"!([0-9A-Fa-f]{0,4})[ ]*\r?\n")
_LINE = re.compile(r"(?:(\d{1,3})-(\d{1,3}):)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:[*&.](\d{1,3}))?((?:\([^()]*\))+)")
_NOW: Final = 255
_ROWS = re.compile("\r\n?|\n")  # and no more: a message may hold other bytes that Python takes for the end of a line
_VALUES = re.compile(r"\(([^()]*)\)")
_VERSIONS: Final = ((1, 3, 0, 2, 8), (0, 0, 96, 1, 4))

Code = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its code A-B:C.D.E, what stands in its brackets, its group F (255: now, else a billing period of before)."""

    code: Code
    values: tuple[str, ...]
    period: int = _NOW


@dataclass(frozen=True, slots=True)
class Telegram:
    """A telegram: who made its meter, its lines, whether a check proved it whole, and what in a whole one is no line."""

    identification: str
    lines: tuple[Line, ...]
    is_checked: bool
    odd: tuple[str, ...] = ()


def inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at a start byte, for LengthFramer."""
    if data[start] == SEALED:
        return _inspect_sealed(data, start)
    end = data.find(b"!", start)
    again = data.find(b"\n/", start, end if end >= 0 else len(data))
    if again >= 0:
        return Reason.MALFORMED  # another telegram begins before the end of this one
    if end < 0:
        return None
    if b"\n" not in data[end : end + 16]:
        return None if len(data) - end < 16 else Reason.MALFORMED
    found = _END.match(data, end)
    return found.end() - start if found else Reason.MALFORMED


def _inspect_sealed(data: bytes, start: int) -> int | Reason | None:
    head = data[start : start + _HEAD]
    if len(head) > 1 and head[1] != TITLE_BYTES:
        return Reason.NOT_MINE
    if len(head) < _HEAD:
        return None
    if head[2 + TITLE_BYTES] != 0x82:
        return Reason.NOT_MINE
    size = _HEAD + int.from_bytes(head[-2:], "big")
    if not _HEAD + 5 + TAG_BYTES <= size <= MAX_TELEGRAM:
        return Reason.NOT_MINE
    return size if len(data) - start >= size else None


def framer() -> LengthFramer:
    """Return a framer for plain and for encrypted telegrams."""
    return LengthFramer(inspect, start=bytes([TEXT, SEALED]), limit=MAX_TELEGRAM)


def is_sealed(frame: bytes) -> bool:
    """Say whether a telegram is encrypted."""
    return frame[:1] == bytes([SEALED])


def opened(frame: bytes, *, key: bytes, authentication_key: bytes) -> bytes:
    """Decrypt a telegram. Raises Rejected: BAD_KEY where its tag does not fit, MALFORMED for another form or key length."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import GCM

    if not is_sealed(frame) or _inspect_sealed(frame, 0) != len(frame):
        raise Rejected(Reason.MALFORMED, "no encrypted telegram")
    control = frame[_HEAD]
    if control != _AUTHENTICATED:
        raise Rejected(Reason.UNSUPPORTED, f"security control {control:02x}: not encrypted and authenticated")
    nonce = frame[2 : 2 + TITLE_BYTES] + frame[_HEAD + 1 : _HEAD + 5]
    tag, content = frame[-TAG_BYTES:], frame[_HEAD + 5 : -TAG_BYTES]
    decryptor = Cipher(AES(key), GCM(nonce, tag, min_tag_length=TAG_BYTES)).decryptor()
    decryptor.authenticate_additional_data(bytes([control]) + authentication_key)
    try:
        return decryptor.update(content) + decryptor.finalize()
    except InvalidTag:
        raise Rejected(Reason.BAD_KEY, "the tag does not fit: another key, or another authentication key") from None


def parse(frame: bytes) -> Telegram:
    """Take a plain telegram apart. Raises Rejected: BAD_CHECK, and MALFORMED for a line that is none where no check proves it."""
    end = frame.find(b"!")
    found = _END.fullmatch(frame, end) if end > 0 and frame[0] == TEXT else None
    if found is None:
        raise Rejected(Reason.MALFORMED, "no telegram")
    digits = found[1]
    if digits and int(digits, 16) != crc16_arc(frame[: end + 1]):
        raise Rejected(Reason.BAD_CHECK, f"the check is {digits.decode()}, not {crc16_arc(frame[: end + 1]):04X}")
    # Seven-bit lines are read as eight bits by some adapters; what is no text is refused with its line.
    head, *rows = _ROWS.split(frame[1:end].decode("latin-1"))
    if len(rows) > MAX_LINES:
        raise Rejected(Reason.TOO_LONG, f"{len(rows)} lines")
    lines, odd = _lines(rows)
    if odd and not digits:
        raise Rejected(Reason.MALFORMED, f"no line of a telegram: {odd[0]!r}")
    if not digits and any(line.code in _VERSIONS for line in lines):
        raise Rejected(Reason.BAD_CHECK, "a telegram of this version has a check, and this one has none")
    return Telegram(head.strip(), lines, bool(digits), odd)


def _lines(rows: list[str]) -> tuple[tuple[Line, ...], tuple[str, ...]]:
    """Return the lines, and what is none."""
    joined: list[str] = []
    for row in rows:
        text = row.strip()
        if text.startswith("(") and joined:  # a long line goes on: the value of gas before DSMR 4
            joined[-1] += text
        elif text:
            joined.append(text)
    found, odd = [], []
    for text in joined:
        match = _LINE.fullmatch(text)
        if match is None:
            odd.append(text[:40])
            continue
        a, b, c, d, e = (int(part or default) for part, default in zip(match.groups()[:5], "10000", strict=True))
        found.append(Line((a, b, c, d, e), tuple(_VALUES.findall(match[7])), int(match[6] or _NOW)))
    return tuple(found), tuple(odd)

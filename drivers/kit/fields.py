"""Fields of meter frames, read exactly: packed decimal digits and short floats become a `Decimal`, never a float.

Limits: at most 14 bytes a field (28 digits, what a `Decimal` of the default context carries exactly).
"""

from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Final

from drivers.kit.observations import Reason, Rejected

MAX_BCD_BYTES = 14
CHINA: Final = timezone(timedelta(hours=8))


def bcd(field: bytes, *, decimals: int = 0, signed: bool = False) -> Decimal | None:
    """Read packed decimal digits, low byte first. All bytes FF mean that there is no value: None.

    `signed`: the highest bit of the field is a sign, not a digit. Raises Rejected(IMPLAUSIBLE) for a nibble above 9,
    which meters send with a correct checksum when their memory is damaged.
    """
    if not field or len(field) > MAX_BCD_BYTES:
        raise Rejected(Reason.MALFORMED, f"a field of {len(field)} bytes")
    if field.count(0xFF) == len(field):
        return None
    digits = field[::-1]
    negative = signed and digits[0] >= 0x80
    if negative:
        digits = bytes([digits[0] & 0x7F]) + digits[1:]
    text = digits.hex()
    # hex() gives a to f for the nibbles that are no digits.
    if not text.isdecimal():
        raise Rejected(Reason.IMPLAUSIBLE, f"{field.hex()} is not packed decimal")
    value = Decimal(f"{text}E-{decimals}")
    return -value if negative else value


def meter_time(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    """Return the time of a Chinese meter's own clock: meters keep the legal time of China, UTC+8 all year.

    Raises Rejected(IMPLAUSIBLE) for what is no time.
    """
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=CHINA)
    except ValueError:
        shown = f"{year}-{month}-{day} {hour}:{minute}:{second}"
        raise Rejected(Reason.IMPLAUSIBLE, f"{shown} is no time") from None


def real32(field: bytes) -> Decimal | None:
    """Read an IEEE 754 float of 32 bits, high byte first: the shortest decimal that is this float again, at most 9 digits.

    NaN and infinity are no values: None. Raises Rejected(MALFORMED) for another length than 4.
    """
    if len(field) != 4:
        raise Rejected(Reason.MALFORMED, f"a float of {len(field)} bytes")
    (number,) = struct.unpack(">f", field)
    if number != number or number in (float("inf"), float("-inf")):
        return None
    for digits in range(6, 10):
        text = f"{number:.{digits}g}"
        try:
            if struct.pack(">f", float(text)) == field:
                break
        except OverflowError:  # the nearest shorter decimal is beyond the largest float
            continue
    return Decimal(text)

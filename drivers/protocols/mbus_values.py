"""Values in the records of M-Bus meters (EN 13757-3, annex A): digits, numbers, floats, dates, text.

What the meter calls no value comes back as None with the reason: the most negative whole number, digits that are all F, NaN, a
date of zeros or ones, a clock that marks itself as wrong.

Limits: whole numbers of 8 bytes, texts of 191 characters.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

from drivers.kit.fields import real32

Value = Decimal | datetime | date | str | bytes | None


def whole(raw: bytes) -> tuple[Decimal | None, str]:
    """Type B: the most negative number is no value."""
    number = int.from_bytes(raw, "little", signed=True)
    if number == -1 << 8 * len(raw) - 1:
        return None, "no value"
    return Decimal(number), ""


def digits(raw: bytes) -> tuple[Decimal | None, str]:
    """Type A: packed digits; F in the top half byte is a minus, F in all is no value, else what is above 9 is no number."""
    if raw.count(0xFF) == len(raw):
        return None, "no value"
    text = raw[::-1].hex()
    sign = "-" if text[0] == "f" else ""
    digits = text[1:] if sign else text
    return (Decimal(sign + digits), "") if digits.isdecimal() else (None, f"{text} is not packed decimal")


def real(raw: bytes) -> tuple[Decimal | None, str]:
    """Type H: NaN and infinity are no values."""
    number = real32(raw[::-1])
    return number, "" if number is not None else "nan"


def time(raw: bytes) -> tuple[Value, str]:
    """Types G (2 bytes), F (4) and I (6). The clock's own mark that it is wrong makes it none."""
    if len(raw) not in (2, 4, 6):
        return None, f"a time of {len(raw)} bytes"
    day = raw[-2:] if len(raw) != 6 else raw[3:5]
    if not any(raw) or raw.count(0xFF) == len(raw):
        return None, "no time"
    short_year = (day[1] & 0xF0) >> 1 | day[0] >> 5
    try:
        if len(raw) == 2:
            return date(_year(short_year, 0), day[1] & 0x0F, day[0] & 0x1F), ""
        second, at = (0, 0) if len(raw) == 4 else (raw[0] & 0x3F, 1)
        minute, hour = raw[at], raw[at + 1]
        if minute & 0x80:
            return None, "the meter calls its time invalid"
        year = _year(short_year, hour >> 5 & 3 if len(raw) == 4 else 0)
        month, at_day = day[1] & 0x0F, day[0] & 0x1F
        return datetime(year, month, at_day, hour & 0x1F, minute & 0x3F, second), ""  # noqa: DTZ001 - no zone is sent
    except ValueError:
        return None, f"{raw.hex()} is no time"


def _year(short: int, hundreds: int) -> int:
    """Two digits of a year: 81-99 are of the last century (annex A, type G), unless type F says otherwise."""
    if hundreds:
        return 1900 + 100 * hundreds + short
    return 1900 + short if short > 80 else 2000 + short


def long_value(raw: bytes, *, high_first: bool) -> tuple[Value, str]:
    """LVAR: text (sent backwards), digits, or a long number."""
    length, content = raw[0], raw[1:]
    if length <= 0xBF:
        text = (content if high_first else content[::-1]).decode("latin-1")
        return "".join(one for one in text if one.isprintable()).strip(), ""
    ordered = content[::-1] if high_first else content
    if length <= 0xD9:
        digits = ordered[::-1].hex() or "0"
        if not digits.isdecimal():
            return None, f"{digits} is not packed decimal"
        return Decimal(digits) * (-1 if length >= 0xD0 else 1), ""
    return (bytes(ordered), "") if len(ordered) > 8 or not ordered else whole(ordered)

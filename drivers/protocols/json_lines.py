r"""JSON lines: one object a line, UTF-8, ended by "\n" (RFC 8259, ndjson).

Numbers with a point are read as `Decimal`, so that a register keeps every digit. Refused as malformed: anything that is
no object, a key that stands twice (which of the two is meant?), NaN and Infinity (no JSON), text that is not UTF-8.

Limits: 4096 bytes a line, 64 opening brackets a line (brackets inside texts count too), which bounds how deep an object
can nest. One parsed line is kept, since finding whose line it is and decoding it both need it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Final, NoReturn

from drivers.kit import Reason, Rejected
from drivers.kit.framing import LineFramer

MAX_LINE: Final = 4096
MAX_BRACKETS: Final = 64


def framer() -> LineFramer:
    """Return a framer that skips lines which are too long, and counts them."""
    return LineFramer(limit=MAX_LINE)


@lru_cache(maxsize=1)
def parse(line: bytes) -> Mapping[str, object]:
    """Read one line. Values are text, int, Decimal, bool, None, list or dict; do not change them. Raises Rejected."""
    return parse_object(line, longest=MAX_LINE, brackets=MAX_BRACKETS)


def parse_object(data: bytes, *, longest: int, brackets: int) -> Mapping[str, object]:
    """Read one object of at most `longest` bytes and `brackets` opening brackets. Raises Rejected."""
    if len(data) > longest:
        raise Rejected(Reason.TOO_LONG, f"{len(data)} bytes")
    if data.count(b"{") + data.count(b"[") > brackets:
        raise Rejected(Reason.MALFORMED, f"more than {brackets} brackets")
    try:
        found = _DECODER.decode(data.decode())
    except UnicodeDecodeError:
        raise Rejected(Reason.MALFORMED, "not UTF-8") from None
    except json.JSONDecodeError as problem:
        raise Rejected(Reason.MALFORMED, f"{problem.msg} at character {problem.pos}") from None
    except ArithmeticError:
        raise Rejected(Reason.MALFORMED, "a number with an impossible exponent") from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise Rejected(Reason.MALFORMED, "a number with too many digits") from None
    if not isinstance(found, dict):
        raise Rejected(Reason.MALFORMED, "not an object")
    return found


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Rejected(Reason.MALFORMED, "a key stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise Rejected(Reason.MALFORMED, f"{name} is no JSON number")


# Made once: making one costs more than reading a line.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=Decimal, parse_constant=_no_constant)

"""What a platform's answer over HTTP means for the events of a request (northbound, delivery rules 6 to 10).

Pure: no IO, no clock. Limits: a Retry-After of more than an hour counts as an hour; what is quoted of a
platform's words has at most 160 characters, of a code 200, none of them a control character.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final

from gateway.uplinks.uplink import STATUSES, Ack

MAX_RETRY_AFTER_S: Final = 3600.0
_QUOTE_CHARACTERS: Final = 160
_CODE_CHARACTERS: Final = 200


class Verdict(Enum):
    """What a status says of a request, and so of its events."""

    TAKEN = "taken"
    LATER = "later"
    TOO_BIG = "too big"
    REFUSED = "refused"
    NO_ENTRY = "no entry"
    MISPLACED = "misplaced"


# 409: the event conflicts with what the platform has. It says so of this event, and would say it again: as 400 and 422.
_REFUSED: Final = frozenset({400, 409, 422})
# RFC 9110 section 15.5.20 (421), RFC 4918 sections 11.3 and 11.4 (423, 424), RFC 8470 (425): of the moment, not of us.
_LATER: Final = frozenset({408, 421, 423, 424, 425, 429})


def verdict(status: int) -> Verdict:
    """Judge a status. What none of the rules names is about how we ask and not about an event: it condemns none."""
    if 200 <= status < 300:
        return Verdict.TAKEN
    if status in _LATER or 500 <= status < 600:
        return Verdict.LATER
    if status == 413:
        return Verdict.TOO_BIG
    if status in _REFUSED:
        return Verdict.REFUSED
    return Verdict.NO_ENTRY if status in (401, 403) else Verdict.MISPLACED


def retry_after(value: str, *, date: str) -> float | None:
    """Read Retry-After (RFC 9110 section 10.2.3) in seconds; None where it is absent or says nothing.

    A date is measured against the answer's own `date`, and says nothing where there is none (RFC 9110 section 6.6.1: a
    server without a clock sends none): our clock may not be set yet, and whose of both is right nobody knows.
    """
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(min(int(value[:9]), MAX_RETRY_AFTER_S))
    moment, server_now = _moment(value), _moment(date)
    if moment is None or server_now is None:
        return None
    return min(max(0.0, moment - server_now), MAX_RETRY_AFTER_S)


def _moment(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def read_results(body: bytes, asked: Collection[str]) -> tuple[list[Ack], int]:
    """Read the application's results for the events `asked`; return them and the number of what could not be read.

    An answer without results is no acknowledgement (L1 only). A result for an event that was not asked, or a second one
    for the same event, is not believed.
    """
    if not body.strip():
        return [], 0
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return [], 1
    if not isinstance(content, dict) or "results" not in content:
        return [], 0
    if not isinstance(content["results"], list):
        return [], 1
    acks: dict[str, Ack] = {}
    bad = 0
    for entry in content["results"]:
        ack = _ack(entry)
        if ack is None or ack.id not in asked or ack.id in acks:
            bad += 1
        else:
            acks[ack.id] = ack
    return list(acks.values()), bad


def _ack(entry: Any) -> Ack | None:
    try:
        delay = entry.get("retry_after_ms")
        after = None if delay is None else min(max(0.0, float(delay) / 1000), MAX_RETRY_AFTER_S)  # NaN gives 0
        code = entry.get("code")
        return Ack(str(entry["id"]), STATUSES[entry["status"]], _clean(str(code)) if code else "", after)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def quote(body: bytes, *, secret: str) -> str:
    """Return the beginning of what the platform said, fit for a log and a terminal, and without our own credential."""
    said = body[: 8 * _QUOTE_CHARACTERS].decode(errors="replace")
    if secret:
        said = said.replace(secret, "***")
    return _clean(said)[:_QUOTE_CHARACTERS]


def _clean(text: str) -> str:
    """Leave one line of printable characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:_CODE_CHARACTERS]

r"""One message of an MQTT broker as a frame: `topic TAB payload LF`; and what other gateways publish, read.

A tab is no character of a topic that anybody uses, and a payload may hold anything: only what stands before the first tab
is the topic, and the last line feed is the frame's own. Written down that way, a message can be kept in a capture.
Numbers of JSON are read as `Decimal`, as in `json_lines`. A payload that is no object is a field without a name: a number
where it reads as one, else a text.

Limits: 64 KiB a message, 256 opening brackets, topics of at most 256 characters without wildcards, as MQTT has them
(version 5.0, section 4.7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

from drivers.kit import BadOption, Reason, Rejected
from drivers.kit.framing import LineFramer
from drivers.protocols import json_lines

MAX_MESSAGE: Final = 64 * 1024
MAX_BRACKETS: Final = 256
MAX_TOPIC: Final = 256
MAX_WORD: Final = 64
WHOLE: Final = ""
# RFC 8259, section 6.
_JSON_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def framer() -> LineFramer:
    """Return a framer for messages that were written down, each without a line feed in its payload."""
    return LineFramer(limit=MAX_MESSAGE)


def frame(topic: str, payload: bytes) -> bytes:
    """Return a message as one frame."""
    return topic.encode() + b"\t" + payload + b"\n"


def split(data: bytes) -> tuple[str, bytes]:
    """Return topic and payload of a frame. Raises Rejected."""
    if len(data) > MAX_MESSAGE:
        raise Rejected(Reason.TOO_LONG, f"{len(data)} bytes")
    head, tab, payload = data.partition(b"\t")
    try:
        topic = head.decode()
    except UnicodeDecodeError:
        raise Rejected(Reason.MALFORMED, "a topic that is not UTF-8") from None
    if not tab or not topic or not data.endswith(b"\n"):
        raise Rejected(Reason.MALFORMED, "no topic before a tab")
    return topic, payload[:-1]


def fields(payload: bytes) -> Mapping[str, object]:
    """Return the fields of a payload; of one that is no object the only field is `WHOLE`. Raises Rejected."""
    bare = payload.strip()
    if bare[:1] == b"{":
        return json_lines.parse_object(payload, longest=MAX_MESSAGE, brackets=MAX_BRACKETS)
    try:
        word = bare.decode()
    except UnicodeDecodeError:
        raise Rejected(Reason.MALFORMED, "not UTF-8") from None
    if len(word) > MAX_WORD or not word.isprintable():
        raise Rejected(Reason.MALFORMED, f"neither an object nor a word of at most {MAX_WORD} printable characters")
    return {WHOLE: _number(word) if word else None}


def says_online(payload: bytes) -> bool | None:
    """Read what is said of who is there: `online` or `offline`, or an object with such a `state`; None for anything else."""
    try:
        said = fields(payload)
    except Rejected:
        return None
    word = said.get("state") if WHOLE not in said else said[WHOLE]
    return {"online": True, "offline": False}.get(word.casefold()) if isinstance(word, str) else None


def topic_option(value: object, key: str) -> str:
    """Check the topic of an option, or of an address. Raises BadOption."""
    good = (
        isinstance(value, str)
        and 0 < len(value) <= MAX_TOPIC
        and value.isprintable()
        and not set(value) & set("+#")
        and not value.startswith("$")
    )
    if not good:
        expected = f"a topic of at most {MAX_TOPIC} characters, without + and #"
        raise BadOption(key, value, expected, zh=f"一个主题（topic），最多 {MAX_TOPIC} 个字符，不含 + 和 #")
    assert isinstance(value, str)  # noqa: S101 - `good` says so, which mypy does not follow
    return value


def _number(word: str) -> object:
    """Return a word as a number where it is written as JSON writes one."""
    if not _JSON_NUMBER.fullmatch(word):
        return word
    try:
        return Decimal(word)
    except InvalidOperation:  # an exponent that is none
        return word

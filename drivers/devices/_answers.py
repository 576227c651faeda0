r"""Template of a device that speaks when asked: an invented thermometer on RS-485. Copy it, then change everything.

    ?07\r           asked, 07 the address
    =07+0215\r      answered, in tenths of a degree
    =07E3\r         refused, with an error number

Limits: 16 bytes a line, one request a poll.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from decimal import Decimal

from drivers.kit import (
    Answers,
    AnswerVector,
    Ask,
    BadOption,
    Observation,
    Reading,
    Reason,
    Rejected,
    Title,
)
from drivers.kit.framing import LineFramer
from drivers.kit.options import known_keys

_REPLY = re.compile(rb"=[0-9]{2}([+-][0-9]{4})\r")


def framer() -> LineFramer:
    """Return a framer for the thermometer's lines."""
    return LineFramer(limit=16, delimiter=b"\r")


def options(address: str, raw: Mapping[str, object]) -> bytes:
    """Check address and options; the target is the address as it stands in a line. Raises BadOption."""
    if not re.fullmatch("[0-9]{2}", address):
        raise BadOption("address", address, "two digits", zh="两位数字")
    known_keys(raw, name="map", allowed=())
    return address.encode()


def talk(target: bytes) -> Generator[Ask, bytes, tuple[Observation, ...]]:
    """Poll once. Raises Rejected; NoReply passes."""
    reply = yield Ask(b"?" + target + b"\r", lambda frame: frame.startswith(b"=" + target), timeout_s=0.5)
    match = _REPLY.fullmatch(reply)
    if not match:
        raise Rejected(Reason.MALFORMED, "no temperature in the reply")
    return (Reading("temperature", Decimal(int(match[1])).scaleb(-1)),)


DRIVER = Answers(
    model="my-meter",
    title=Title(zh="示例温度计", en="example thermometer"),
    framer=framer,
    options=options,
    talk=talk,
    vectors=(
        AnswerVector(
            source="synthetic: invented for this template",
            address="07",
            exchange=((b"?07\r", b"=07+0215\r"),),
            expect=(Reading("temperature", Decimal("21.5")),),
        ),
        AnswerVector(
            source="synthetic: invented for this template",
            address="07",
            exchange=((b"?07\r", b"=07E3\r"),),
            expect=Reason.MALFORMED,
        ),
    ),
)

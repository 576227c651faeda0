"""Turns what was heard into a vector, and a vector into the Python source of itself, ready to be pasted into a driver.

What a vector expects is what the driver says now: whoever pastes it must compare that with what the device showed. A key
is never part of it: an encrypted advert is written with what it is without one.
Limit: an exchange that ended in silence is no vector, since nothing can be expected of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum

from drivers.kit.observations import Decoded, NoReply, Reason, Rejected
from drivers.kit.shapes import Advert, Advertises, AdvertVector, Answers, AnswerVector, Polled, Streams, StreamVector

Exchange = Sequence[tuple[bytes, bytes | None]]


def of_advert(driver: Advertises, advert: Advert, *, source: str, options: Mapping[str, object]) -> AdvertVector:
    """Make the vector of an advert under a device's options."""
    try:
        expect: Decoded | Reason = driver.configured(options).decode(advert, None)
    except Rejected as rejected:
        expect = rejected.reason
    return AdvertVector(source=source, advert=advert, expect=expect, options=options)


def of_frame(driver: Streams, frame: bytes, *, source: str, options: Mapping[str, object]) -> StreamVector:
    """Make the vector of a frame under a device's options."""
    try:
        expect: Decoded | Reason = driver.decode(frame, driver.options(options))
    except Rejected as rejected:
        expect = rejected.reason
    return StreamVector(source=source, frame=frame, expect=expect, options=options)


def of_exchange(
    driver: Answers, exchange: Exchange, *, address: str, source: str, options: Mapping[str, object]
) -> AnswerVector | None:
    """Make the vector of a poll; None where it does not end with readings or a refusal."""
    talk = driver.talk(driver.options(address, options))
    expect: Polled | Reason | None = None
    try:
        next(talk)
        for _request, reply in exchange:
            if reply is None:
                talk.throw(NoReply())
            else:
                talk.send(reply)
    except StopIteration as end:
        expect = end.value
    except Rejected as rejected:
        expect = rejected.reason
    except NoReply:
        return None
    finally:
        talk.close()
    if expect is None:
        return None
    return AnswerVector(source=source, address=address, exchange=tuple(exchange), expect=expect, options=options)


def source_of(value: object) -> str:
    """Return the Python source of a vector, or of anything that stands in one."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if is_dataclass(value) and not isinstance(value, type):
        told = [f"{one.name}={_member(value, one)}" for one in fields(value) if not _is_default(value, one)]
        return f"{type(value).__name__}({', '.join(told)})"
    if isinstance(value, bytes):
        return f'bytes.fromhex("{value.hex()}")'
    if isinstance(value, Decimal):
        return f'Decimal("{value}")'
    if isinstance(value, datetime):
        return f'datetime.fromisoformat("{value.isoformat()}")'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {source_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(source_of, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(source_of, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def _member(owner: object, one: Field[object]) -> str:
    return source_of(getattr(owner, one.name))


def _is_default(owner: object, one: Field[object]) -> bool:
    default = one.default if one.default_factory is MISSING else one.default_factory()
    return default is not MISSING and getattr(owner, one.name) == default


def _key(key: object) -> str:
    """Return a key of a mapping; a number is an id of 16 bits, which people know in hexadecimal."""
    return f"0x{key:04X}" if isinstance(key, int) else repr(key)

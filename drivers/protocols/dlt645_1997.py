"""DL/T 645-1997, what old electricity meters and many submeters speak: read requests out, replies in.

The frame is that of 2007 (`dlt645`), also the 33H on each byte of data. What differs:

    68 AAAAAA AAAAAA 68 01 02 II S 16           asked, I an identifier of two bytes
    68 AAAAAA AAAAAA 68 81 L II VVVV ... S 16   answered, V packed digits; A1: there is more of it
    68 AAAAAA AAAAAA 68 02 02 II S 16           asked for the next part, which has no number: 82, A2
    68 AAAAAA AAAAAA 68 C1 01 E S 16            refused, E the error word

A block may end with a byte AA, and before it spare zeros for tariffs that the meter does not have; neither is a value.
Beside the wildcard AA some meters answer to the broadcast address 999999999999 only. What an identifier holds stands in
`dlt645_1997_tables`. This module can build read requests and nothing else (see `dlt645`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.protocols import dlt645, dlt645_2007
from drivers.protocols import dlt645_1997_tables as tables
from drivers.protocols.dlt645 import Read
from drivers.protocols.dlt645_layout import Data, digit_text, values

BROADCAST: Final = "999999999999"
IDENTIFIER_BYTES: Final = 2
_BLOCK_END: Final = 0xAA
ERRORS: Final = ("illegal data", "no such data", "wrong password")


def read_request(address: str, identifier: int) -> bytes:
    """Build the request for one data identifier, as printed: 0x9010."""
    return dlt645.request(Read.DATA_1997, address, identifier.to_bytes(IDENTIFIER_BYTES, "little"))


def next_request(address: str, identifier: int) -> bytes:
    """Build the request for the next part of an answer that did not fit into one frame.

    Parts have no numbers: asked twice, a meter gives the part after the next. Whoever misses one must begin anew.
    """
    return dlt645.request(Read.NEXT_1997, address, identifier.to_bytes(IDENTIFIER_BYTES, "little"))


def identifier_of(frame: dlt645.Frame) -> int | None:
    """Return the data identifier of a read, None where the data is too short to hold one."""
    data = frame.data
    return int.from_bytes(data[:IDENTIFIER_BYTES], "little") if len(data) >= IDENTIFIER_BYTES else None


def value_of(frame: dlt645.Frame) -> bytes:
    """Return what follows the identifier."""
    return frame.data[IDENTIFIER_BYTES:]


def refusal(frame: dlt645.Frame) -> str:
    """Name the error word of a refused read."""
    return frame.refusal(ERRORS)


def answers(frame: bytes, *, address: str, identifier: int) -> bool:
    """Say whether a whole frame is the reply to a read: from this meter, to this function, for this identifier.

    A refusal and a reply without data carry no identifier; they pair by address alone.
    """
    reply = _reply(frame, Read.DATA_1997, address)
    return reply is not None and (reply.refused or not reply.data or identifier_of(reply) == identifier)


def answers_next(frame: bytes, *, address: str, identifier: int) -> bool:
    """Say whether a whole frame is a next part of a longer answer, or refuses it."""
    reply = _reply(frame, Read.NEXT_1997, address)
    return reply is not None and (reply.refused or identifier_of(reply) == identifier)


def _reply(frame: bytes, function: Read, address: str) -> dlt645.Frame | None:
    return dlt645.reply_to(frame, function, address=dlt645.ANY_ADDRESS if address == BROADCAST else address)


def decode(identifier: int, value: bytes) -> Data:
    """Read the data of one identifier, without the identifier; of several frames, all parts together.

    A value that the meter does not have (FF) is left out; one that is no number is named in `refused`. Raises Rejected:
    UNSUPPORTED for an identifier that is no quantity, TOO_SHORT or MALFORMED for another length.
    """
    layout = tables.layout(identifier)
    width = layout.fields[0].width
    if not layout.whole and len(value) % width == 1 and value[-1] == _BLOCK_END:
        value = value[:-1]
    if tables.is_by_tariff(identifier):
        while len(value) > tables.ALWAYS * width and len(value) % width == 0 and not any(value[-width:]):
            value = value[:-width]
    return values(layout, value, shown=f"{identifier:04x}")


def text(identifier: int, value: bytes) -> str | None:
    """Read a number of the meter as printed; None where it has none. Raises Rejected."""
    entry = tables.TEXTS.get(identifier)
    if entry is None:
        raise Rejected(Reason.UNSUPPORTED, f"identifier {identifier:04x}")
    name, size = entry
    if len(value) != size:
        raise Rejected(Reason.MALFORMED, f"{name}: {len(value)} bytes where {size} are due")
    return digit_text(value)


def clock(date: bytes, time: bytes) -> datetime | None:
    """Put the meter's date (YYMMDDWW) and time (hhmmss) together; None where it has none. Raises Rejected."""
    return dlt645_2007.clock(date, time)

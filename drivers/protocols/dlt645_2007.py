"""DL/T 645-2007: what is asked of an electricity meter, and what its replies say. The frames are those of `dlt645`.

    68 AAAAAA AAAAAA 68 11 04 IIII S 16            asked, I a data identifier of four bytes
    68 AAAAAA AAAAAA 68 91 L IIII VVVV... S 16     answered; B1: there is more of it
    68 AAAAAA AAAAAA 68 12 05 IIII N S 16          asked for the next part, N from 1
    68 AAAAAA AAAAAA 68 92 L IIII VVVV... N S 16   answered; B2: there is more still
    68 AAAAAA AAAAAA 68 D1 01 E S 16               refused, E the error word
    68 AA*6 68 13 00 S 16                          what is your address? 68 A 68 93 06 A S 16

What an identifier holds stands in `dlt645_2007_tables`; status words become signals in `dlt645_status`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.fields import meter_time
from drivers.protocols import dlt645
from drivers.protocols import dlt645_2007_tables as tables
from drivers.protocols.dlt645 import Read
from drivers.protocols.dlt645_layout import Data, ascii_text, digit_text, digits, values

IDENTIFIER_BYTES: Final = 4


def read_request(address: str, identifier: int) -> bytes:
    """Build the request for one data identifier, as in annex A: 0x00010000."""
    return dlt645.request(Read.DATA, address, identifier.to_bytes(IDENTIFIER_BYTES, "little"))


def next_request(address: str, identifier: int, part: int) -> bytes:
    """Build the request for the next part of an answer that did not fit into one frame; `part` is 1 to 255."""
    return dlt645.request(Read.NEXT, address, identifier.to_bytes(IDENTIFIER_BYTES, "little") + bytes([part]))


def address_request() -> bytes:
    """Build the question for the address of the only meter on a line."""
    return dlt645.request(Read.ADDRESS, dlt645.ANY_ADDRESS, b"")


def identifier_of(frame: dlt645.Frame) -> int | None:
    """Return the data identifier of a read, None where the data is too short to hold one."""
    data = frame.data
    return int.from_bytes(data[:IDENTIFIER_BYTES], "little") if len(data) >= IDENTIFIER_BYTES else None


def value_of(frame: dlt645.Frame) -> bytes:
    """Return what follows the identifier; of a next part, also without its number."""
    return frame.data[IDENTIFIER_BYTES : -1 if frame.function == Read.NEXT else None]


def answers(frame: bytes, *, address: str, identifier: int) -> bool:
    """Say whether a whole frame is the reply to a read: from this meter, to this function, for this identifier.

    A refusal and a reply without data carry no identifier; they pair by address alone.
    """
    reply = dlt645.reply_to(frame, Read.DATA, address=address)
    return reply is not None and (reply.refused or not reply.data or identifier_of(reply) == identifier)


def answers_next(frame: bytes, *, address: str, identifier: int, part: int) -> bool:
    """Say whether a whole frame is this part of a longer answer, or refuses it."""
    reply = dlt645.reply_to(frame, Read.NEXT, address=address)
    if reply is None:
        return False
    return reply.refused or (
        len(reply.data) > IDENTIFIER_BYTES and identifier_of(reply) == identifier and reply.data[-1] == part
    )


def address_in(frame: bytes) -> str | None:
    """Return the address that a meter gives when it is asked for it; None where the frame is no such answer."""
    reply = dlt645.reply_to(frame, Read.ADDRESS, address=dlt645.ANY_ADDRESS)
    if reply is None or reply.refused or len(reply.data) != 6:
        return None
    return reply.data[::-1].hex().upper()


def decode(identifier: int, value: bytes) -> Data:
    """Read the data of one identifier, without the identifier; of several frames, all parts together.

    A value that the meter does not have (all FF) is left out; one that is no number is named in `refused`. Raises
    Rejected: UNSUPPORTED for an identifier that is no quantity, TOO_SHORT or MALFORMED for another length.
    """
    return values(tables.layout(identifier), value, shown=f"{identifier:08x}")


def text(identifier: int, value: bytes) -> str | None:
    """Read a text of the parameters (meter number, model, rated voltage); None where the meter has none. Raises Rejected."""
    entry = tables.TEXTS.get(identifier)
    if entry is None:
        raise Rejected(Reason.UNSUPPORTED, f"identifier {identifier:08x}")
    name, size, is_digits = entry
    # The lengths of the texts differ from maker to maker, those of the numbers do not.
    if not value or (is_digits and len(value) != size) or len(value) > size:
        raise Rejected(Reason.MALFORMED, f"{name}: {len(value)} bytes where {size} are due")
    return digit_text(value) if is_digits else ascii_text(value)


def clock(date: bytes, time: bytes) -> datetime | None:
    """Put the meter's date (YYMMDDWW) and time (hhmmss) together; None where it has none. Raises Rejected."""
    if len(date) != 4 or len(time) != 3:
        raise Rejected(Reason.MALFORMED, f"a date of {len(date)} bytes and a time of {len(time)}")
    if date.count(0xFF) == 4 or time.count(0xFF) == 3 or not any(date):
        return None
    year, month, day, _weekday = digits(date)
    hour, minute, second = digits(time)
    return meter_time(2000 + year, month, day, hour, minute, second)

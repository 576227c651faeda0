"""Which electricity meter is on a line: the questions that one of unknown address and protocol answers, in the order to ask.

Only the meter that is alone on its line can be found so: several that answer at once garble each other. Each question only reads.
A meter may answer a wildcard with the wildcard: then it is known by that address, and is the only one of its line.

Limit: five questions a line setting; the settings themselves (speed, parity) are tried by whoever scans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from drivers.protocols import dlt645, dlt645_1997, dlt645_2007, dlt698, dlt698_objects
from drivers.protocols.dlt645 import ANY_ADDRESS, Read
from drivers.protocols.dlt698 import Get

TIMEOUT_S: Final = 1.5


@dataclass(frozen=True, slots=True)
class Question:
    """One request, and `address_in`: the address of the meter that a whole frame is the answer of; None for any other."""

    model: str
    request: bytes
    address_in: Callable[[bytes], str | None]


def _sender(frame: bytes, *, function: Read) -> str | None:
    reply = dlt645.reply_to(frame, function, address=ANY_ADDRESS)
    return None if reply is None else reply.address


def _server(frame: bytes) -> str | None:
    reply = dlt698.reply_to(frame, address=ANY_ADDRESS)
    return None if reply is None else reply.address


_BY_DATA_2007 = partial(_sender, function=Read.DATA)
_BY_DATA_1997 = partial(_sender, function=Read.DATA_1997)

QUESTIONS: Final = (
    Question("dlt645-2007", dlt645_2007.address_request(), dlt645_2007.address_in),
    # Some meters of 2007 do not know the question for the address, and answer any other.
    Question("dlt645-2007", dlt645_2007.read_request(ANY_ADDRESS, 0x00010000), _BY_DATA_2007),
    Question("dlt698-45", dlt698.request(Get.NORMAL, ANY_ADDRESS, [dlt698_objects.ADDRESS], piid=0), _server),
    Question("dlt645-1997", dlt645_1997.read_request(ANY_ADDRESS, 0x9010), _BY_DATA_1997),
    Question("dlt645-1997", dlt645_1997.read_request(dlt645_1997.BROADCAST, 0x9010), _BY_DATA_1997),
)

"""Searches for meters that answer a wildcard: DL/T 645 of both editions, DL/T 698.45, CJ/T 188.

Several meters that answer a wildcard at once garble each other. DL/T 645-2007 (7.2.3) fixes the low digits of an address and
lets AA stand for the rest, so a crowd is taken apart pair by pair of digits, from the last ones on. Some meters of the other
protocols do the same; where one does not, the crowd is told and not taken apart.

Limits: 100 questions a pair of digits, six pairs of them; only branches in which somebody spoke are followed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final

from drivers.kit import Ask
from drivers.kit.searching import NOISE_PARTS, Found, Heard, Noisy, Search
from drivers.protocols import cjt188, dlt645, dlt645_1997, dlt645_2007, dlt698, dlt698_objects
from drivers.protocols.dlt645 import ANY_ADDRESS, Read
from drivers.protocols.dlt698 import Get

# The meter may think for 500 ms, and 40 bytes take 183 ms at 2400 baud, 367 ms at 1200.
TIMEOUT_S: Final = 0.9
PAIRS: Final = 6
_ANY_PAIR: Final = "AA"
_TOTAL_2007, _TOTAL_1997 = 0x00010000, 0x9010

Requests = Callable[[str], bytes]
AddressIn = Callable[[bytes], str | None]


def dlt645_2007_meters() -> Search:
    """Look for meters of the edition of 2007: by the question for the address, which some do not know, then by a read."""
    heard = yield from _asked(dlt645_2007.address_request(), dlt645_2007.address_in)
    if heard.silent or heard.crowded:
        yield from _meters(lambda address: dlt645_2007.read_request(address, _TOTAL_2007), _data(Read.DATA))
    elif heard.frame is not None and (address := dlt645_2007.address_in(heard.frame)):
        yield Found(address)


def dlt645_1997_meters() -> Search:
    """Look for meters of the edition of 1997: AA, or 99 for those that know no wildcard."""
    any_one = _data(Read.DATA_1997)
    heard = yield from _meters(lambda address: dlt645_1997.read_request(address, _TOTAL_1997), any_one)
    if heard.silent:
        heard = yield from _asked(dlt645_1997.read_request(dlt645_1997.BROADCAST, _TOTAL_1997), any_one)
        if heard.frame is not None and not heard.crowded and (address := any_one(heard.frame)):
            yield Found(address)


def dlt698_meters() -> Search:
    """Look for the only meter of DL/T 698.45 on a line."""

    def server(frame: bytes) -> str | None:
        reply = dlt698.reply_to(frame, address=ANY_ADDRESS)
        return None if reply is None else reply.address

    heard = yield from _asked(dlt698.request(Get.NORMAL, ANY_ADDRESS, [dlt698_objects.ADDRESS], piid=0), server)
    if heard.frame is not None and not heard.crowded and (address := server(heard.frame)):
        yield Found(address)


def cjt188_meters(meter_of: Callable[[int], str]) -> Search:
    """Look for the only CJ/T 188 meter on a line. `meter_of`: what the configuration calls a type of meter."""
    questions = (
        cjt188.address_request(),
        cjt188.read_request(0x10, cjt188.ANY_ADDRESS),
        cjt188.read_request(0x20, cjt188.ANY_ADDRESS),
        cjt188.read_request(0x30, cjt188.ANY_ADDRESS),
    )
    for request in questions:
        heard = yield from _asked(request, lambda frame: cjt188.sender(frame) or None)
        if heard.frame is not None and not heard.crowded:
            frame = cjt188.parse(heard.frame)
            yield Found(frame.address, {"meter": meter_of(frame.kind)}, about=f"type {frame.kind:02X}")
        if not heard.silent:
            return


def _data(function: Read) -> AddressIn:
    def sender(frame: bytes) -> str | None:
        reply = dlt645.reply_to(frame, function, address=ANY_ADDRESS)
        return None if reply is None else reply.address

    return sender


def _asked(request: bytes, address_in: AddressIn) -> Generator[Ask, Heard, Heard]:
    heard = yield Ask(request, lambda frame: address_in(frame) is not None, TIMEOUT_S, retries=0)
    return heard


def _meters(request: Requests, address_in: AddressIn, known: str = "") -> Generator[Ask | Found, Heard, Heard]:
    """Ask whoever has an address that ends with `known`; take a crowd apart. Returns what the first question brought."""
    asked = request(_ANY_PAIR * (PAIRS - len(known) // 2) + known)
    heard = yield Ask(asked, lambda frame: address_in(frame) is not None, TIMEOUT_S, retries=0)
    if heard.crowded and len(known) < 2 * PAIRS:
        crowded = 0
        for pair in range(100):
            part = yield from _meters(request, address_in, f"{pair:02d}{known}")
            crowded = crowded + 1 if part.crowded else 0
            if crowded >= NOISE_PARTS and len(known) == 2 * PAIRS - 2:
                raise Noisy
    elif heard.frame is not None and (address := address_in(heard.frame)):
        yield Found(address)
    return heard

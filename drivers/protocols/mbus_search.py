"""Looks for the meters on an M-Bus: by each primary address, then by selecting on the digits of their numbers.

Limits: 251 addresses; 10 selections a digit, only where somebody answered.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Final

from drivers.kit import Ask, Rejected
from drivers.kit.searching import Found, Heard, Noisy, Search
from drivers.protocols import mbus, mbus_records
from drivers.protocols.mbus_records import Header

# A meter answers within 330 bit times and 50 ms (EN 13757-2, 5.7.5.2); converters add theirs.
SEARCH_TIMEOUT_S: Final = 0.5
_UNKNOWN: Final = "F" * 16
_NUMBER_DIGITS: Final = 8


def meters() -> Search:
    """Reset the link of each primary address, which an E5 answers; then select by the digits of the number (13757-3, 11.5)."""
    numbers: set[str] = set()
    for address in range(1, mbus.MAX_PRIMARY + 1):
        yield from _primary(address, numbers)
    yield from _selected("", numbers)
    # What a meter has from the factory: its number is the better name, for the next new meter answers to 0, too.
    yield from _primary(0, numbers)


def _primary(address: int, numbers: set[str]) -> Search:
    heard = yield Ask(mbus.reset_request(address), mbus.is_ack, SEARCH_TIMEOUT_S, retries=0)
    if heard.frame is None:
        return
    data = yield from _data(address)
    header = None if data.frame is None else _header(data.frame)
    if header is not None and header.number:
        if address or header.number not in numbers:
            numbers.add(header.number)
            yield Found(str(address), about=header.secondary)
    elif data.frame is not None:
        yield Found(str(address))


def _selected(digits: str, known: set[str]) -> Search:
    """Look for meters whose number begins with `digits`, except those whose number is `known`."""
    yield from _silently(Ask(mbus.reset_request(mbus.SELECTED), mbus.is_ack, SEARCH_TIMEOUT_S, retries=0))
    heard = yield Ask(mbus.select_request((digits + _UNKNOWN)[:16]), mbus.is_ack, SEARCH_TIMEOUT_S, retries=1)
    if heard.silent:
        return
    data = yield from _data(mbus.SELECTED)
    header = None if data.frame is None else _header(data.frame)
    if header is not None and not data.crowded:
        if header.number not in known:
            known.add(header.number)
            yield Found(header.secondary.upper())
    elif len(digits) < _NUMBER_DIGITS:
        for digit in "0123456789":
            yield from _selected(digits + digit, known)
    elif heard.crowded:
        raise Noisy  # no two meters have one number, and an E5 of several is still an E5


def _data(address: int) -> Generator[Ask, Heard, Heard]:
    there = partial(mbus.answers, address=address)
    heard = yield Ask(mbus.data_request(address, turn=True), there, 1.5, retries=1)
    return heard


def _silently(ask: Ask) -> Generator[Ask, Heard, None]:
    yield ask


def _header(frame: bytes) -> Header | None:
    try:
        parsed = mbus.parse(frame)
        return mbus_records.header_of(parsed.information, parsed.data)
    except Rejected:
        return None

"""The data of an advert as it is on the air: AD structures, each a length byte, a type and data (Core, Vol 3 Part C 11).

Types 16 (service data under a 16-bit id), FF (manufacturer data, company id first) and 08, 09 (name) are read; ids are low
byte first. A structure that is cut off ends the list. Limit: what is longer than an extended advert carries is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from drivers.kit import Advert

MAX_DATA: Final = 1_650
_SERVICE_DATA, _MANUFACTURER_DATA, _NAMES = 0x16, 0xFF, (0x08, 0x09)


def advert(address: str, data: bytes, *, rssi: int | None = None, name: str = "") -> Advert:
    """Return an advert. `address`: upper case, colons; `rssi` in dBm; `name` goes before one in the data."""
    services: dict[int, bytes] = {}
    makers: dict[int, bytes] = {}
    for kind, part in _structures(data):
        if kind == _SERVICE_DATA and len(part) >= 2:
            services[int.from_bytes(part[:2], "little")] = part[2:]
        elif kind == _MANUFACTURER_DATA and len(part) >= 2:
            makers[int.from_bytes(part[:2], "little")] = part[2:]
        elif kind in _NAMES:
            name = name or part.decode("utf-8", "replace")
    return Advert(address, name, rssi, services, makers)


def _structures(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data) <= MAX_DATA:
        size = data[at]
        part = data[at + 1 : at + 1 + size]
        if size == 0 or len(part) < size:
            return
        yield part[0], part[1:]
        at += 1 + size

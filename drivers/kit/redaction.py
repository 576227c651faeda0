"""Adverts that carry a key in clear, and how to show them without it: whoever listens or records must not learn it.

Known: the commissioning telegram of EnOcean's BLE switches (company 03DA): sequence 4, key 16, with or without address 6.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from drivers.kit.shapes import Advert

ENOCEAN: Final = 0x03DA
KEY_AT: Final = 4
KEY_BYTES: Final = 16


def shows_key(data: bytes) -> bool:
    """Is EnOcean's manufacturer data a commissioning telegram? A data telegram of a switch has 13 bytes at most."""
    return len(data) >= KEY_AT + KEY_BYTES


def without_keys(advert: Advert) -> Advert:
    """Return an advert with zeros in place of a key."""
    data = advert.manufacturer_data.get(ENOCEAN)
    if data is None or not shows_key(data):
        return advert
    hidden = data[:KEY_AT] + bytes(KEY_BYTES) + data[KEY_AT + KEY_BYTES :]
    return replace(advert, manufacturer_data={**advert.manufacturer_data, ENOCEAN: hidden})

"""EnOcean's battery-free BLE switches (PTM 215B, 216B, 535BZ): what a press says, and the signature that proves it.

Manufacturer data of company 03DA, a letter a byte:

    data telegram    NNNN S [O | OO | OOOO] TTTT          9, 10, 11 or 13 bytes
    commissioning    NNNN KKKKKKKKKKKKKKKK [AAAAAA]       20 (first firmware), 26 or more

    N  sequence counter, 32 bits, little-endian: each telegram counts, commissioning too
    S  status: bit 0 press (else release), bit 1 A0, bit 2 A1, bit 3 B0, bit 4 B1 (535BZ: bit 1 INPUT1, bit 2 INPUT2)
    O  optional data, whatever was written into the switch by NFC
    T  signature, AES-128-CCM without content: associated data `L FF DA 03 N S O`, where L is the length byte of the AD
       structure; the nonce is the address, low byte first, then N, then three zeros
    K  the key, in clear. It is refused, and shown nowhere (`drivers.kit.redaction`)
    A  address, low byte first

Sources: EnOcean PTM 215B, PTM 216B and PTM 535BZ user manuals (chapters "Data telegram payload" and appendix C).
Limits: 64 ciphers are kept, the least recently used goes first. A switch in resolvable private address mode changes its
address and is not found; it must be set to its static address (NFC, the maker's default).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from drivers.kit import Advert, Counter, Reason, Rejected
from drivers.kit.redaction import ENOCEAN, shows_key

COMPANY: Final = ENOCEAN
KEY_BYTES: Final = 16

_SEQUENCE_BYTES = 4
_SIGNATURE_BYTES = 4
_STATUS_AT = 4
_OPTIONAL_SIZES = (0, 1, 2, 4)
_FIXED_BYTES = _SEQUENCE_BYTES + 1 + _SIGNATURE_BYTES
_AD_HEAD_BYTES = 3  # the type and the company, which the length byte counts
_PRESS = 0x01
_RESERVED = 0xE0
_CONTACTS: Final = ((0x02, "A0"), (0x04, "A1"), (0x08, "B0"), (0x10, "B1"))
_LABEL = re.compile(r"(?:^|\+)Z([0-9A-Fa-f]{32})(?:\+|$)")


@dataclass(frozen=True, slots=True)
class Telegram:
    """What one advert says. `contacts` are those that were closed, in the order A0 A1 B0 B1."""

    counter: Counter
    is_press: bool
    contacts: tuple[str, ...]
    optional: bytes
    authenticated: bool


def parse(advert: Advert, key: bytes | None) -> Telegram:
    """Read one advert. Raises Rejected; what a key does not fit carries its counter, which stands there in clear.

    Without a key the telegram is read all the same, and is then not authenticated.
    """
    data = advert.manufacturer_data.get(COMPANY)
    if data is None:
        raise Rejected(Reason.NOT_MINE, "no manufacturer data of company 03da")
    if len(data) < _FIXED_BYTES:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {_FIXED_BYTES} needed")
    sequence = int.from_bytes(data[:_SEQUENCE_BYTES], "little")
    claimed = Counter(sequence, 32, authenticated=False)
    if shows_key(data):
        told = (
            "commissioning: it shows its key in clear; write the key into the file of `key`, then press once as usual"
        )
        raise Rejected(Reason.KEY_IN_CLEAR, told, counter=claimed)
    if len(data) - _FIXED_BYTES not in _OPTIONAL_SIZES:
        raise Rejected(Reason.UNSUPPORTED, f"{len(data)} bytes: no telegram of a switch")
    status = data[_STATUS_AT]
    if status & _RESERVED:
        raise Rejected(Reason.UNSUPPORTED, f"status {status:02x}: another product of the maker", counter=claimed)
    if key is not None:
        _verify(advert, key, data, claimed)
    return Telegram(
        counter=Counter(sequence, 32, authenticated=key is not None),
        is_press=bool(status & _PRESS),
        contacts=tuple(name for bit, name in _CONTACTS if status & bit),
        optional=data[_STATUS_AT + 1 : -_SIGNATURE_BYTES],
        authenticated=key is not None,
    )


def signature(data: bytes, *, address: bytes, key: bytes) -> bytes:
    """Return the 4 bytes that sign `data` (sequence, status, optional data). `address`: 6 bytes, as people write it."""
    length = _AD_HEAD_BYTES + len(data) + _SIGNATURE_BYTES
    signed = bytes([length, 0xFF]) + COMPANY.to_bytes(2, "little") + data
    return _cipher(key).encrypt(_nonce(address, data), b"", signed)


def read_key(text: str) -> bytes:
    """Read a key: 32 hexadecimal digits, or the whole QR code of the label (`30S...+Z...+...`). Raises ValueError."""
    label = _LABEL.search(text)
    return bytes.fromhex(label[1] if label else text)


def _verify(advert: Advert, key: bytes, data: bytes, claimed: Counter) -> None:
    if len(key) != KEY_BYTES:
        raise Rejected(Reason.BAD_KEY, f"a key of {len(key)} bytes, {KEY_BYTES} needed", counter=claimed)
    address = _address(advert)
    if address is None:
        raise Rejected(Reason.MALFORMED, "the advertiser's address is no address", counter=claimed)
    body, tag = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
    signed = bytes([_AD_HEAD_BYTES + len(data), 0xFF]) + COMPANY.to_bytes(2, "little") + body
    try:
        _cipher(key).decrypt(_nonce(address, body), tag, signed)
    except InvalidTag:
        raise Rejected(Reason.BAD_KEY, "the signature does not fit the key", counter=claimed) from None


def _nonce(address: bytes, data: bytes) -> bytes:
    return address[::-1] + data[:_SEQUENCE_BYTES] + bytes(3)


@lru_cache(maxsize=64)
def _cipher(key: bytes) -> AESCCM:
    return AESCCM(key, tag_length=_SIGNATURE_BYTES)


def _address(advert: Advert) -> bytes | None:
    try:
        address = bytes.fromhex(advert.address.replace(":", ""))
    except ValueError:
        return None
    return address if len(address) == 6 else None

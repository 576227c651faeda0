"""Xiaomi MiBeacon: service data FE95 of Xiaomi, Aqara, Linptech, Yeelight, Qingping and others, plain or encrypted.

Layout, a letter a byte (the maker's SDK; everything little-endian):

    plain           FF PP N [MMMMMM] [C [II]] objects...
    versions 4, 5   FF PP N [MMMMMM] [C [II]] ciphertext XXX TTTT
    versions 2, 3   FF PP N [MMMMMM] [C [II]] ciphertext XXX S

    F  bit 3 encrypted, 4 the address follows, 5 the capability follows, 6 an object follows, 7 mesh, 12-15 the version
    P  product           N  counter           M  the sender's address, low byte first
    C  capability; with its bit 5, two bytes I of input and output follow
    X  the upper 24 bits of the counter: X and N together count 32 bits
    T  message integrity check           S  a sum of unknown kind, not looked at

Objects are `id (2) length (1) data`. Versions 4 and 5: AES-128-CCM with a tag of 4 bytes, associated data 11, and as nonce
M, P, N, X. Versions 2 and 3: the same cipher without a tag, as nonce F, P, N, X and five bytes of M; a wrong key shows in
objects that cannot be, so that nothing is proved. Their key has 12 bytes, with 8D3D3C97 put into its middle.

Why a codec of our own, and not xiaomi-ble (Apache-2.0): it has no counter, so that a press cannot be told from its repeats
or from a replay; it takes one byte for I, where its own test data has two; it drags a Bluetooth stack along; and its
objects end in entities of another program.

Limits: 255 bytes of service data; a frame whose address is not the advertiser's is refused. Versions 0 and 1, and mesh
devices, are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from drivers.kit import Advert, Counter, Reason, Rejected

SERVICE: Final = 0xFE95
KEY_BYTES: Final = 16
LEGACY_KEY_BYTES: Final = 12
MAX_BYTES: Final = 255

_ENCRYPTED, _WITH_ADDRESS, _WITH_CAPABILITY, _WITH_OBJECT, _MESH = (1 << bit for bit in (3, 4, 5, 6, 7))
_WITH_IO: Final = 0x20
_FIRST_VERSION: Final = 2
_LAST_LEGACY: Final = 3
_HEAD_BYTES: Final = 5
_EXTENSION_BYTES: Final = 3
_TAG_BYTES: Final = 4
_SUM_BYTES: Final = 1
_OBJECT_HEAD: Final = 3
_LEGACY_MIDDLE: Final = bytes.fromhex("8d3d3c97")
_ASSOCIATED: Final = b"\x11"


@dataclass(frozen=True, slots=True)
class Item:
    """One object, as its product means it."""

    id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """What stands in clear. `body` is what follows: objects, or what is encrypted of them."""

    product: int
    version: int
    has_object: bool
    is_encrypted: bool
    first: bytes
    sender: bytes
    body: bytes

    @property
    def is_legacy(self) -> bool:
        """Is it encrypted in the way that proves no sender?"""
        return self.is_encrypted and self.version <= _LAST_LEGACY


@dataclass(frozen=True, slots=True)
class Content:
    """The objects of a frame. Its counter has 8 bits where it came in clear, else 32."""

    items: tuple[Item, ...]
    counter: Counter
    authenticated: bool


def read_key(text: str) -> bytes:
    """Read a key of 32 hexadecimal digits, or the 24 of a device of version 2 or 3. Raises ValueError."""
    key = bytes.fromhex(text)
    return key[:6] + _LEGACY_MIDDLE + key[6:] if len(key) == LEGACY_KEY_BYTES else key


def head(advert: Advert) -> Head:
    """Read what stands in clear. Raises Rejected."""
    data = advert.service_data.get(SERVICE)
    if data is None:
        raise Rejected(Reason.NOT_MINE, "no service data fe95")
    if len(data) < _HEAD_BYTES:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes")
    if len(data) > MAX_BYTES:
        raise Rejected(Reason.TOO_LONG, f"{len(data)} bytes")
    flags = int.from_bytes(data[:2], "little")
    version = flags >> 12
    if version < _FIRST_VERSION:
        raise Rejected(Reason.UNSUPPORTED, f"MiBeacon version {version}")
    if flags & _MESH:
        raise Rejected(Reason.UNSUPPORTED, "a mesh device")
    at, sender = _HEAD_BYTES, _address(advert)
    if flags & _WITH_ADDRESS:
        at += 6
        inside = data[at - 6 : at][::-1]
        if sender is not None and inside != sender and len(data) >= at:
            raise Rejected(Reason.NOT_MINE, f"the beacon of {inside.hex(':').upper()}")
        sender = inside
    if flags & _WITH_CAPABILITY:
        at += 3 if data[at : at + 1] and data[at] & _WITH_IO else 1
    has_object = bool(flags & _WITH_OBJECT)
    if len(data) < at:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {at} needed")
    return Head(
        product=int.from_bytes(data[2:4], "little"), version=version, has_object=has_object,
        is_encrypted=bool(flags & _ENCRYPTED), first=data[:_HEAD_BYTES], sender=sender or b"", body=data[at:],
    )  # fmt: skip


def content(front: Head, key: bytes | None, *, harmless: bool) -> Content:
    """Read the objects of a frame that has some. Raises Rejected: BAD_KEY and NO_KEY carry the counter, and `harmless`.

    What is plain although there is a key is read, and proves nothing: the gateway judges the downgrade.
    """
    if not front.is_encrypted:
        counter = Counter(front.first[4], 8, authenticated=False)
        return Content(_items(front.body, counter), counter, authenticated=False)
    tail = _EXTENSION_BYTES + (_SUM_BYTES if front.is_legacy else _TAG_BYTES)
    if len(front.body) < tail:
        raise Rejected(Reason.TOO_SHORT, "no room for counter and check")
    cipher, extension, check = front.body[:-tail], front.body[-tail:][:_EXTENSION_BYTES], front.body[-tail:][3:]
    claimed = Counter(int.from_bytes(front.first[4:5] + extension, "little"), 32, authenticated=False)
    if key is None:
        raise Rejected(Reason.NO_KEY, "encrypted", counter=claimed, harmless=harmless)
    if len(key) != KEY_BYTES:
        detail = f"a key of {len(key)} bytes, {KEY_BYTES} needed"
        raise Rejected(Reason.BAD_KEY, detail, counter=claimed, harmless=harmless)
    if not front.sender:
        raise Rejected(Reason.MALFORMED, "the advertiser's address is no address", counter=claimed)
    if front.is_legacy:
        plain = _counter_mode(key, front.first + extension + front.sender[:0:-1], cipher)
        if not _is_whole(plain):
            raise wrong_key(claimed, harmless=harmless)
        return Content(_items(plain, claimed), claimed, authenticated=False)
    nonce = front.sender[::-1] + front.first[2:5] + extension
    try:
        plain = _cipher(key).decrypt(nonce, cipher + check, _ASSOCIATED)
    except InvalidTag:
        raise wrong_key(claimed, harmless=harmless) from None
    counter = Counter(claimed.value, 32, authenticated=True)
    return Content(_items(plain, counter), counter, authenticated=True)


def wrong_key(counter: Counter, *, harmless: bool) -> Rejected:
    """Return the refusal of what a key does not open."""
    return Rejected(Reason.BAD_KEY, "the check does not fit the key", counter=counter, harmless=harmless)


@lru_cache(maxsize=64)
def _cipher(key: bytes) -> AESCCM:
    return AESCCM(key, tag_length=_TAG_BYTES)


def _counter_mode(key: bytes, nonce: bytes, data: bytes) -> bytes:
    """Decrypt CCM without looking at its tag (RFC 3610 section 2.3: the key stream of its counter blocks from 1 on)."""
    decryptor = Cipher(AES(key), CTR(b"\x01" + nonce + b"\x00\x01")).decryptor()
    return decryptor.update(data) + decryptor.finalize()


def _address(advert: Advert) -> bytes | None:
    try:
        address = bytes.fromhex(advert.address.replace(":", ""))
    except ValueError:
        return None
    return address if len(address) == 6 else None


def _is_whole(payload: bytes) -> bool:
    """Do objects fill it to the last byte?"""
    at = 0
    while at + _OBJECT_HEAD <= len(payload):
        at += _OBJECT_HEAD + payload[at + 2]
    return at == len(payload) > 0


def _items(payload: bytes, counter: Counter) -> tuple[Item, ...]:
    """Read objects until the end, or until one is cut. Raises Rejected if that is already the first."""
    found = tuple(_each(payload))
    if not found:
        raise Rejected(Reason.TOO_SHORT, "no whole object", counter=counter)
    return found


def _each(payload: bytes) -> Iterator[Item]:
    at = 0
    while at + _OBJECT_HEAD <= len(payload):
        end = at + _OBJECT_HEAD + payload[at + 2]
        if end > len(payload):
            return
        yield Item(int.from_bytes(payload[at : at + 2], "little"), payload[at + _OBJECT_HEAD : end])
        at = end

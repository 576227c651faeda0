"""BTHome v2: measurements and button presses in BLE service data 0xFCD2, plain or encrypted (bthome.io/format).

Layout, a letter a field:

    plain       I [MMMMMM] objects...
    encrypted   I [MMMMMM] ciphertext NNNN TTTT

    I  bit 0 encrypted, bit 1 the sender's address follows, bit 2 sent on a trigger, bits 5-7 the version
    M  the sender's address, low byte first; older firmware only
    N  counter, 32 bits, little-endian, in clear: it can be read without the key, but only the key proves it
    T  message integrity check

Objects are `id value`, little-endian; text (53), raw (54) and a command (3B) tell their own length. Nothing tells the length
of an object with an unknown id, so the parse ends there and what was read before it stands. AES-128-CCM with a tag of
4 bytes and no associated data; the nonce is the address, D2FC, I and N. A press is told from its repeats by the counter,
plain by the packet id (object 00, 8 bits).

Limits: 255 bytes of service data (an extended advert); 64 ciphers are kept, the least recently used goes first.
Version 1 (0x181C, 0x181E) is obsolete and refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from drivers.kit import Advert, Counter, Reason, Rejected

SERVICE: Final = 0xFCD2
V1_SERVICES: Final = (0x181C, 0x181E)
KEY_BYTES: Final = 16
MAX_BYTES: Final = 255

PACKET_ID: Final = 0x00
BATTERY: Final = 0x01
BATTERY_LOW: Final = 0x15
TAMPER: Final = 0x2B
BUTTON: Final = 0x3A

_ENCRYPTED = 0x01
_WITH_ADDRESS = 0x02
_VERSION = 2
_COUNTER_BYTES = 4
_TAG_BYTES = 4

# FE is what Shelly firmware before 1.0.20 sends for hold.
BUTTON_CODES: Final[Mapping[int, str]] = {
    0x01: "press",
    0x02: "double",
    0x03: "triple",
    0x04: "long",
    0x05: "long-double",
    0x06: "long-triple",
    0x80: "hold",
    0x81: "hold-release",
    0xFE: "hold",
}
NO_PRESS: Final = 0x00


@dataclass(frozen=True, slots=True)
class _Number:
    """A whole number of `size` bytes times `factor`; a negative size marks a signed one."""

    name: str
    size: int
    factor: Decimal = Decimal(1)

    def read(self, field: bytes) -> Decimal:
        return int.from_bytes(field, "little", signed=self.size < 0) * self.factor


_HUNDREDTH, _TENTH, _THOUSANDTH = Decimal("0.01"), Decimal("0.1"), Decimal("0.001")
_MILLIONTH = Decimal("0.000001")

_NUMBERS: Final[Mapping[int, _Number]] = {
    0x00: _Number("packet_id", 1),
    0x01: _Number("battery", 1),
    0x02: _Number("temperature", -2, _HUNDREDTH),
    0x03: _Number("humidity", 2, _HUNDREDTH),
    0x04: _Number("pressure", 3, _HUNDREDTH),
    0x05: _Number("illuminance", 3, _HUNDREDTH),
    0x06: _Number("mass_kg", 2, _HUNDREDTH),
    0x07: _Number("mass_lb", 2, _HUNDREDTH),
    0x08: _Number("dew_point", -2, _HUNDREDTH),
    0x09: _Number("count", 1),
    0x0A: _Number("energy", 3, _THOUSANDTH),
    0x0B: _Number("power", 3, _HUNDREDTH),
    0x0C: _Number("voltage", 2, _THOUSANDTH),
    0x0D: _Number("pm2_5", 2),
    0x0E: _Number("pm10", 2),
    0x12: _Number("co2", 2),
    0x13: _Number("tvoc", 2),
    0x14: _Number("moisture", 2, _HUNDREDTH),
    0x2E: _Number("humidity", 1),
    0x2F: _Number("moisture", 1),
    0x3A: _Number("button", 1),
    0x3C: _Number("dimmer", 2),
    0x3D: _Number("count", 2),
    0x3E: _Number("count", 4),
    0x3F: _Number("rotation", -2, _TENTH),
    0x40: _Number("distance_mm", 2),
    0x41: _Number("distance_m", 2, _TENTH),
    0x42: _Number("duration", 3, _THOUSANDTH),
    0x43: _Number("current", 2, _THOUSANDTH),
    0x44: _Number("speed", 2, _HUNDREDTH),
    0x45: _Number("temperature", -2, _TENTH),
    0x46: _Number("uv_index", 1, _TENTH),
    0x47: _Number("volume_l", 2, _TENTH),
    0x48: _Number("volume_ml", 2),
    0x49: _Number("volume_flow_rate", 2, _THOUSANDTH),
    0x4A: _Number("voltage", 2, _TENTH),
    0x4B: _Number("gas", 3, _THOUSANDTH),
    0x4C: _Number("gas", 4, _THOUSANDTH),
    0x4D: _Number("energy", 4, _THOUSANDTH),
    0x4E: _Number("volume_l", 4, _THOUSANDTH),
    0x4F: _Number("water", 4, _THOUSANDTH),
    0x50: _Number("timestamp", 4),
    0x51: _Number("acceleration", 2, _THOUSANDTH),
    0x52: _Number("gyroscope", 2, _THOUSANDTH),
    0x55: _Number("volume_storage", 4, _THOUSANDTH),
    0x56: _Number("conductivity", 2),
    0x57: _Number("temperature", -1),
    0x58: _Number("temperature", -1, Decimal("0.35")),
    0x59: _Number("count", -1),
    0x5A: _Number("count", -2),
    0x5B: _Number("count", -4),
    0x5C: _Number("power", -4, _HUNDREDTH),
    0x5D: _Number("current", -2, _THOUSANDTH),
    0x5E: _Number("direction", 2, _HUNDREDTH),
    0x5F: _Number("precipitation", 2, _TENTH),
    0x60: _Number("channel", 1),
    0x61: _Number("rotational_speed", 2),
    0x62: _Number("speed", -4, _MILLIONTH),
    0x63: _Number("acceleration", -4, _MILLIONTH),
    0x64: _Number("light_level", 1),
    0x65: _Number("settings_revision", 1),
    0xF0: _Number("device_type", 2),
    0xF1: _Number("firmware", 4),
    0xF2: _Number("firmware", 3),
}

_FLAGS: Final[Mapping[int, str]] = {
    0x0F: "generic",
    0x10: "power_on",
    0x11: "opening",
    0x15: "battery_low",
    0x16: "battery_charging",
    0x17: "carbon_monoxide",
    0x18: "cold",
    0x19: "connectivity",
    0x1A: "door",
    0x1B: "garage_door",
    0x1C: "gas_detected",
    0x1D: "heat",
    0x1E: "light",
    0x1F: "unlocked",
    0x20: "moisture_detected",
    0x21: "motion",
    0x22: "moving",
    0x23: "occupancy",
    0x24: "plug",
    0x25: "presence",
    0x26: "problem",
    0x27: "running",
    0x28: "safety",
    0x29: "smoke",
    0x2A: "sound",
    0x2B: "tamper",
    0x2C: "vibration",
    0x2D: "window",
}

# A byte of length stands before the value of these. That of a command counts the arguments alone, in its low 5 bits.
_BLOBS: Final[Mapping[int, str]] = {0x3B: "command", 0x53: "text", 0x54: "raw"}
COMMAND: Final = 0x3B


@dataclass(frozen=True, slots=True)
class Item:
    """One object: a number in the unit that bthome.io gives for the id, a flag, or bytes (text, raw)."""

    id: int
    name: str
    value: Decimal | bool | bytes


@dataclass(frozen=True, slots=True)
class Packet:
    """What one advert says. `counter` is None when a plain advert carries no packet id."""

    items: tuple[Item, ...]
    counter: Counter | None
    authenticated: bool

    def presses(self) -> Iterator[tuple[str, str]]:
        """Give (channel, code) for each pressed button; the channel is empty where the device has only one."""
        buttons = [item for item in self.items if item.id == BUTTON]
        for position, button in enumerate(buttons, start=1):
            number = int(button.value)
            if number != NO_PRESS:
                yield str(position) if len(buttons) > 1 else "", BUTTON_CODES.get(number, f"unknown-{number:02x}")


def parse(advert: Advert, key: bytes | None) -> Packet:
    """Read one advert. Raises Rejected; BAD_KEY and NO_KEY carry the counter, which stands there in clear.

    A plain advert is read although a key is given, and is then not authenticated: the gateway judges the downgrade.
    """
    data = advert.service_data.get(SERVICE)
    if data is None:
        if any(service in advert.service_data for service in V1_SERVICES):
            raise Rejected(Reason.UNSUPPORTED, "BTHome version 1")
        raise Rejected(Reason.NOT_MINE, "no service data fcd2")
    if not data:
        raise Rejected(Reason.TOO_SHORT, "no info byte")
    if len(data) > MAX_BYTES:
        raise Rejected(Reason.TOO_LONG, f"{len(data)} bytes")
    info = data[0]
    if info >> 5 != _VERSION:
        raise Rejected(Reason.UNSUPPORTED, f"BTHome version {info >> 5}")
    payload, sender = data[1:], b""
    if info & _WITH_ADDRESS:
        payload, sender = data[7:], data[6:0:-1]
        if len(sender) < 6:
            raise Rejected(Reason.TOO_SHORT, "no room for the address")
    if not info & _ENCRYPTED:
        items = _items(payload, counter=None)
        return Packet(items, _packet_id(items), authenticated=False)
    counter, plain = _decrypt(payload, key=key, info=info, sender=sender or _address(advert))
    return Packet(_items(plain, counter=counter), counter, authenticated=True)


def _decrypt(payload: bytes, *, key: bytes | None, info: int, sender: bytes | None) -> tuple[Counter, bytes]:
    tail = _COUNTER_BYTES + _TAG_BYTES
    if len(payload) < tail:
        raise Rejected(Reason.TOO_SHORT, "no room for counter and check")
    number = payload[-tail:-_TAG_BYTES]
    claimed = Counter(int.from_bytes(number, "little"), 32, authenticated=False)
    if key is None:
        raise Rejected(Reason.NO_KEY, "encrypted", counter=claimed)
    if len(key) != KEY_BYTES:
        raise Rejected(Reason.BAD_KEY, f"a key of {len(key)} bytes, {KEY_BYTES} needed", counter=claimed)
    if sender is None:
        raise Rejected(Reason.MALFORMED, "the advertiser's address is no address", counter=claimed)
    nonce = sender + SERVICE.to_bytes(2, "little") + bytes([info]) + number
    try:
        plain = _cipher(key).decrypt(nonce, payload[:-tail] + payload[-_TAG_BYTES:], None)
    except InvalidTag:
        raise Rejected(Reason.BAD_KEY, "the check does not fit the key", counter=claimed) from None
    return Counter(claimed.value, 32, authenticated=True), plain


@lru_cache(maxsize=64)
def _cipher(key: bytes) -> AESCCM:
    return AESCCM(key, tag_length=_TAG_BYTES)


def _address(advert: Advert) -> bytes | None:
    digits = advert.address.replace(":", "")
    try:
        address = bytes.fromhex(digits)
    except ValueError:
        return None
    return address if len(address) == 6 else None


def _packet_id(items: tuple[Item, ...]) -> Counter | None:
    return next((Counter(int(item.value), 8, authenticated=False) for item in items if item.id == PACKET_ID), None)


def _items(payload: bytes, *, counter: Counter | None) -> tuple[Item, ...]:
    """Read objects until the end, or until one cannot be read. Raises Rejected if that is already the first."""
    items: list[Item] = []
    at = 0
    while at < len(payload):
        found = _item(payload, at)
        if isinstance(found, Reason):
            # A press before the part that cannot be read is still a press.
            if not items:
                raise Rejected(found, f"object {payload[at]:02x}", counter=counter)
            break
        item, at = found
        items.append(item)
    return tuple(items)


def _item(payload: bytes, at: int) -> tuple[Item, int] | Reason:
    identifier = payload[at]
    start = at + 1
    if number := _NUMBERS.get(identifier):
        end = start + abs(number.size)
        return (
            Reason.TOO_SHORT
            if end > len(payload)
            else (Item(identifier, number.name, number.read(payload[start:end])), end)
        )
    if name := _FLAGS.get(identifier):
        return Reason.TOO_SHORT if start >= len(payload) else (Item(identifier, name, payload[start] != 0), start + 1)
    if name := _BLOBS.get(identifier):
        if start >= len(payload):
            return Reason.TOO_SHORT
        end = start + 1 + (payload[start] if identifier != COMMAND else 1 + (payload[start] & 0x1F))
        return Reason.TOO_SHORT if end > len(payload) else (Item(identifier, name, payload[start + 1 : end]), end)
    return Reason.UNSUPPORTED

"""What the pretended BLE devices say: BTHome v2 buttons (plain and encrypted) and Ingics iBS01G/iBS03G pendants.

Bytes are made here from the published layouts and are checked in the tests against frames that others published, so
that the driver and the simulator cannot share one error. Pure: no IO, no clock, no randomness.
Limits: a BTHome packet id has 8 bits and wraps, an encryption counter has 32 bits and wraps; an advert of 31 bytes
leaves 24 for service data under a 16-bit id, or for manufacturer data, beside the flags.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

BTHOME_UUID: Final = 0xFCD2
# BTHome v2, "Device information": version 2 in bits 5-7, bit 0 encrypted, bit 2 trigger based (sleeps between events).
BTHOME_PLAIN: Final = 0x40
BTHOME_PLAIN_SLEEPY: Final = 0x44
BTHOME_ENCRYPTED: Final = 0x41
BTHOME_ENCRYPTED_SLEEPY: Final = 0x45
# BTHome v2, object 0x3A "button".
BUTTON_CODES: Final[Mapping[str, int]] = {
    "none": 0x00,
    "press": 0x01,
    "double": 0x02,
    "triple": 0x03,
    "long": 0x04,
    "long_double": 0x05,
    "long_triple": 0x06,
    "hold": 0x80,
}
# Ingics iBS: bits of the events byte.
INGICS_BUTTON: Final = 0x01
INGICS_MOVING: Final = 0x02
INGICS_FALL: Final = 0x08


@dataclass(frozen=True, slots=True)
class Payload:
    """What one advert carries beside address and RSSI. `counter` is what a driver can count by; None when it cannot."""

    name: str = ""
    service_data: Mapping[int, bytes] = field(default_factory=dict)
    manufacturer_data: Mapping[int, bytes] = field(default_factory=dict)
    counter: int | None = None


class BleDevice(Protocol):
    """A device on the air. Each call makes the payload of one new message; its repeats carry the same payload."""

    address: str

    def press(self, code: str) -> Payload:
        """Return the payload of a press; ValueError when the device knows no such code."""

    def heartbeat(self) -> Payload | None:
        """Return a sign of life (battery, nothing pressed, nobody fallen); None of a device that gives none."""


def bthome_objects(*, packet_id: int | None, battery: int | None, buttons: Sequence[int] = ()) -> bytes:
    """Return BTHome v2 objects, ascending by id: 00 packet id, 01 battery in %, 3A one for each button."""
    data = b""
    if packet_id is not None:
        data += bytes((0x00, packet_id & 0xFF))
    if battery is not None:
        data += bytes((0x01, battery))
    return data + b"".join(bytes((0x3A, code)) for code in buttons)


def bthome_plain(objects: bytes, *, info: int = BTHOME_PLAIN_SLEEPY) -> bytes:
    """Return service data of 0xFCD2: the information byte, then the objects."""
    return bytes((info,)) + objects


def bthome_encrypted(
    objects: bytes, *, address: str, key: bytes, counter: int, info: int = BTHOME_ENCRYPTED_SLEEPY
) -> bytes:
    """Return encrypted service data of 0xFCD2: information byte, ciphertext, counter (u32, little endian), tag of 4.

    AES-128-CCM over the objects; nonce = address as people read it (6), 0xFCD2 little endian, information, counter.
    """
    count = struct.pack("<I", counter & 0xFFFF_FFFF)
    nonce = bytes.fromhex(address.replace(":", "")) + struct.pack("<HB", BTHOME_UUID, info) + count
    sealed = AESCCM(key, tag_length=4).encrypt(nonce, objects, None)
    return bytes((info,)) + sealed[:-4] + count + sealed[-4:]


@dataclass(frozen=True, slots=True)
class IngicsVariant:
    """Company id, the two bytes that open the payload, the unused first field, and the three bytes that close it."""

    company: int
    code: bytes
    field1: bytes
    field2: bytes
    tail: bytes


INGICS: Final[Mapping[str, IngicsVariant]] = {
    "ibs01g": IngicsVariant(0x0059, b"\x80\xbc", b"\xff\xff", b"\x00\x00", b"\x06\x03\x00\x00"),
    "ibs03g": IngicsVariant(0x000D, b"\x83\xbc", b"\xaa\xaa", b"\xff\xff", b"\x16\x13\x00\x00"),
}


def ingics(variant: str, *, battery_centivolts: int, events: int) -> bytes:
    """Return manufacturer data of an iBS tag: code, battery (u16 LE, 0.01 V), events, 2 fields, user, subtype, rest."""
    form = INGICS[variant]
    return form.code + struct.pack("<HB", battery_centivolts, events) + form.field1 + form.field2 + b"\0\0" + form.tail


class BthomeButton:
    """A call button that sleeps until pressed. With a key it encrypts, as the real ones do, packet id included."""

    def __init__(self, address: str, *, key: bytes | None, counter: int, battery: int = 100, name: str = "") -> None:
        self.address = address
        self._key = key
        self._counter = counter
        self._battery = battery
        self._name = name

    def press(self, code: str) -> Payload:
        """Return the payload of a press with a new packet id and, encrypted, a new counter."""
        if code not in BUTTON_CODES:
            raise ValueError(f"a BTHome button knows no {code!r}; it knows {', '.join(BUTTON_CODES)}")
        return self._next((BUTTON_CODES[code],))

    def heartbeat(self) -> Payload:
        """Return a battery report with a packet id of its own."""
        return self._next(())

    def _next(self, buttons: Sequence[int]) -> Payload:
        self._counter = (self._counter + 1) & 0xFFFF_FFFF
        objects = bthome_objects(packet_id=self._counter, battery=self._battery, buttons=buttons)
        if self._key is None:
            return Payload(self._name, {BTHOME_UUID: bthome_plain(objects)}, counter=self._counter & 0xFF)
        sealed = bthome_encrypted(objects, address=self.address, key=self._key, counter=self._counter)
        return Payload(self._name, {BTHOME_UUID: sealed}, counter=self._counter)


class IngicsPendant:
    """A pendant that tells its state as bits, again and again, without a counter: a fall is a bit that stays high."""

    def __init__(self, address: str, *, variant: str = "ibs03g", battery_centivolts: int = 305) -> None:
        if variant not in INGICS:
            raise ValueError(f"no Ingics tag is called {variant!r}; there are {', '.join(INGICS)}")
        self.address = address
        self._variant = variant
        self._battery = battery_centivolts

    def press(self, code: str) -> Payload:
        """Return the advert with the button bit high; this tag has one way to be pressed."""
        if code != "press":
            raise ValueError(f"an Ingics tag knows no {code!r}, only press")
        return self._state(INGICS_BUTTON)

    def fall(self) -> Payload:
        """Return the advert with the fall bit high."""
        return self._state(INGICS_FALL)

    def heartbeat(self) -> Payload:
        """Return the advert of a tag at rest: no bit high."""
        return self._state(0)

    def _state(self, events: int) -> Payload:
        form = INGICS[self._variant]
        data = ingics(self._variant, battery_centivolts=self._battery, events=events)
        return Payload(manufacturer_data={form.company: data})

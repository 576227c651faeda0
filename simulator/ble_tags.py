"""What the pretended tags say: signed switches, beacons that change while pressed, buttons that count, tags with a state.


Bytes are made here from the published layouts and are checked in the tests against frames that others published, so
that the driver and the simulator cannot share one error. Pure: no IO, no clock, no randomness.
Limits: a sequence counter has 32 bits, a MOKO count 16; both wrap.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from simulator.ble_devices import Payload

ENOCEAN: Final = 0x03DA
APPLE: Final = 0x004C
MOKO: Final = 0xFEE0
MINEW: Final = 0x0639
HOLYIOT: Final = 0x5242
# EnOcean PTM 215B user manual, "Data telegram payload": bit 0 press, bit 4 contact B1.
ENOCEAN_PRESS_B1: Final = 0x11
ENOCEAN_RELEASE_B1: Final = 0x10
# KBeaconProDemo_Android README 4.3.4.1, "content change": added to the UUID.
BEACON_CODES: Final[Mapping[str, int]] = {"press": 4, "double": 5, "triple": 6, "long": 3}
# MOKO MKBXBBaseAdvModel: the first byte of a trigger's frame.
MOKO_CODES: Final[Mapping[str, int]] = {"press": 0x20, "double": 0x21, "long": 0x22}
_MOKO_ON: Final = 0x02
# Minew MSE01: bit 5 of its status is button 1, bit 1 that it moves.
_MSE_BUTTON, _MSE_MOVING = 0x20, 0x02
# Of an MSE frame, what stands behind the status is its axes: those of the published sample.
_MSE_AXES: Final = bytes.fromhex("0100efb598c3b498c0b63cbed37ebd0398bd")


def enocean(*, address: str, key: bytes, sequence: int, status: int) -> bytes:
    """Return manufacturer data of a switch: sequence (u32, little endian), status, signature of 4.

    AES-128-CCM of nothing; associated data = length byte 0C, FF, DA 03, sequence, status; nonce = address, low byte
    first, sequence, three zeros (appendix C of the manual).
    """
    body = struct.pack("<IB", sequence & 0xFFFF_FFFF, status)
    nonce = bytes.fromhex(address.replace(":", ""))[::-1] + body[:4] + bytes(3)
    return body + AESCCM(key, tag_length=4).encrypt(nonce, b"", b"\x0c\xff\xda\x03" + body)


def ibeacon(uuid: int, *, major: int, minor: int, power: int = -59) -> bytes:
    """Return manufacturer data of an iBeacon; `power` in dBm at 1 m."""
    return b"\x02\x15" + uuid.to_bytes(16, "big") + struct.pack(">HHb", major, minor, power)


class EnoceanSwitch:
    """A switch without a battery: nothing is heard of it but presses and releases, each with a number of its own."""

    def __init__(self, address: str, *, key: bytes, sequence: int) -> None:
        self.address = address
        self._key = key
        self._sequence = sequence

    def press(self, code: str) -> Payload:
        """Return the telegram of a press; a switch has one way to be pressed."""
        if code != "press":
            raise ValueError(f"an EnOcean switch knows no {code!r}, only press")
        return self._telegram(ENOCEAN_PRESS_B1)

    def release(self) -> Payload:
        """Return the telegram of letting go."""
        return self._telegram(ENOCEAN_RELEASE_B1)

    def heartbeat(self) -> None:
        """It has no battery, so it gives no sign of life."""
        return

    def _telegram(self, status: int) -> Payload:
        self._sequence = (self._sequence + 1) & 0xFFFF_FFFF
        data = enocean(address=self.address, key=self._key, sequence=self._sequence, status=status)
        return Payload(manufacturer_data={ENOCEAN: data}, counter=self._sequence)


class BeaconTag:
    """An iBeacon whose UUID changes while it was pressed ("content change"). It counts nothing."""

    def __init__(self, address: str, *, uuid: str, major: int = 1, minor: int = 1) -> None:
        self.address = address
        self._uuid = int(uuid.replace("-", ""), 16)
        self._major, self._minor = major, minor

    @classmethod
    def of(cls, address: str, options: Mapping[str, Any]) -> BeaconTag:
        """Make the tag that the first slot of a device's `map` describes. ValueError where that is none."""
        try:
            (slot, *_) = options["slot"]
            return cls(address, uuid=slot["uuid"], major=slot.get("major", 1), minor=slot.get("minor", 1))
        except (KeyError, TypeError) as error:
            raise ValueError(f"its first slot names no iBeacon: {error}") from error

    def press(self, code: str) -> Payload:
        """Return the advert while it was pressed."""
        if code not in BEACON_CODES:
            raise ValueError(f"a beacon knows no {code!r}; there are {', '.join(BEACON_CODES)}")
        return self._say(self._uuid + BEACON_CODES[code])

    def heartbeat(self) -> Payload:
        """Return the advert of a tag at rest."""
        return self._say(self._uuid)

    def _say(self, uuid: int) -> Payload:
        return Payload(manufacturer_data={APPLE: ibeacon(uuid % (1 << 128), major=self._major, minor=self._minor)})


class MokoButton:
    """A BXP-B: tells how often each way to press it was used so far, in signs of life too."""

    def __init__(self, address: str, *, presses: int = 0) -> None:
        self.address = address
        self._counts = dict.fromkeys(MOKO_CODES, presses)

    def press(self, code: str) -> Payload:
        """Return the advert of a press, counted."""
        if code not in MOKO_CODES:
            raise ValueError(f"a MOKO button knows no {code!r}; there are {', '.join(MOKO_CODES)}")
        self._counts[code] = (self._counts[code] + 1) & 0xFFFF
        return self._say(code, flags=_MOKO_ON)

    def heartbeat(self) -> Payload:
        """Return the advert at rest, with the count of single presses."""
        return self._say("press", flags=0)

    def _say(self, code: str, *, flags: int) -> Payload:
        count = self._counts[code]
        data = struct.pack(">BBH", MOKO_CODES[code], flags, count) + bytes.fromhex("e0000000000100") + b"\x00"
        return Payload(service_data={MOKO: data}, counter=count)


class MinewButton:
    """An MSE01: tells in each advert whether its button is down, and how many adverts it has sent."""

    def __init__(self, address: str, *, battery: int = 69, adverts: int = 0) -> None:
        self.address = address
        self._battery = battery
        self._adverts = adverts

    def press(self, code: str) -> Payload:
        """Return the advert with the button down; it has one way to be pressed."""
        if code != "press":
            raise ValueError(f"a Minew tag knows no {code!r}, only press")
        return self._state(_MSE_BUTTON | _MSE_MOVING)

    def heartbeat(self) -> Payload:
        """Return the advert of a tag at rest."""
        return self._state(0)

    def _state(self, status: int) -> Payload:
        self._adverts = (self._adverts + 1) & 0xFF
        head = bytes((0x51, 0x01, self._adverts, self._battery, status))
        return Payload(manufacturer_data={MINEW: head + _MSE_AXES})


class HolyiotButton:
    """A tag that tells in each advert whether its button is down."""

    def __init__(self, address: str, *, battery: int = 100) -> None:
        self.address = address
        self._battery = battery

    def press(self, code: str) -> Payload:
        """Return the advert with the button down; it has one way to be pressed."""
        if code != "press":
            raise ValueError(f"a HolyIOT tag knows no {code!r}, only press")
        return self._state(1)

    def heartbeat(self) -> Payload:
        """Return the advert of a tag at rest."""
        return self._state(0)

    def _state(self, value: int) -> Payload:
        sender = bytes.fromhex(self.address.replace(":", ""))
        return Payload(service_data={HOLYIOT: bytes((0x41, self._battery)) + sender + bytes((6, 6, 6, value, 0))})

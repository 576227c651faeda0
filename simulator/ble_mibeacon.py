"""What a pretended Xiaomi button says: MiBeacon version 5, encrypted, as the XMWXKG01LM speaks it.

Bytes are made here from the published layout and are checked in the tests against frames that others published, so that
the driver and the simulator cannot share one error. Pure: no IO, no clock, no randomness.
Limits: the counter has 32 bits and wraps; its lower 8 stand before the object, the others behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from simulator.ble_devices import Payload

MIBEACON: Final = 0xFE95
XMWXKG01LM: Final = 0x2387
# Version 5, bound, with object, address and encryption.
_FRAME_CONTROL: Final = 0x5958
# Each way of pressing is an object of its own, without data.
MIBEACON_CODES: Final[Mapping[str, int]] = {"press": 0x4E0C, "double": 0x4E0D, "long": 0x4E0E}


def mibeacon(product: int, objects: bytes, *, address: str, key: bytes, counter: int) -> bytes:
    """Return service data FE95 around `objects`: AES-128-CCM, tag of 4, associated data 11.

    Nonce: address (low byte first), product, lower byte of the counter, upper three bytes of the counter.
    """
    sender = bytes.fromhex(address.replace(":", ""))[::-1]
    head = struct.pack("<HHB", _FRAME_CONTROL, product, counter & 0xFF)
    upper = (counter >> 8 & 0xFF_FFFF).to_bytes(3, "little")
    sealed = AESCCM(key, tag_length=4).encrypt(sender + head[2:] + upper, objects, b"\x11")
    return head + sender + sealed[:-4] + upper + sealed[-4:]


class MibeaconButton:
    """A button that sleeps until pressed; it gives no sign of life."""

    def __init__(self, address: str, *, key: bytes, counter: int) -> None:
        self.address = address
        self._key = key
        self._counter = counter

    def press(self, code: str) -> Payload:
        """Return the frame of a press with a counter of its own."""
        if code not in MIBEACON_CODES:
            raise ValueError(f"a Xiaomi button knows no {code!r}; it knows {', '.join(MIBEACON_CODES)}")
        self._counter = (self._counter + 1) & 0xFFFF_FFFF
        objects = struct.pack("<HB", MIBEACON_CODES[code], 0)
        frame = mibeacon(XMWXKG01LM, objects, address=self.address, key=self._key, counter=self._counter)
        return Payload(service_data={MIBEACON: frame}, counter=self._counter)

    def heartbeat(self) -> None:
        """It speaks when pressed only."""
        return

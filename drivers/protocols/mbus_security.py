"""Encrypted telegrams of M-Bus meters (EN 13757-7): security modes 5 and 7, and the layer that carries the tag of mode 7.

A letter a byte:

    72 NNNNNNNN MM V D A S CC X...              mode 5: X is AES-128-CBC under the meter's key
    90 L FF T RRRR GGGGGGGG 72 N... S CC E X... mode 7: X is AES-128-CBC under a key made for this message

    X   begun with MM NNNNNNNN V D and 8 times A in mode 5, with zeros in mode 7
    CC  configuration: bits 8 to 12 the mode, bits 4 to 7 how many blocks of 16 are encrypted; plain records may follow them
    FF  what the layer carries: bits 10, 11, 13 of it G, R, T (others: a part of a longer message, or a key of its own)
    T   bits 0 to 3 how long G is: 3 to 7 for 2, 4, 8, 12, 16 bytes of AES-CMAC
    R   a counter; the keys are the CMAC of 00 (encryption) or 01 (tag), R, N and seven times 07 under the meter's key (9.6.2)
    G   tag: CMAC of T, R, and all from 72 on
    E   bits 4 and 5: how keys are made, 1 as above

What was opened with the right key begins with 2F 2F. Mode 5 has no tag: whoever may write on the line can alter what is in it.

Limits: 15 blocks.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected

KEY_BYTES: Final = 16
# CI of the layer with the tag.
AUTHENTICATED: Final = 0x90
_CBC, _DERIVED = 5, 7
_MODES: Final = (4, 5, 7, 8, 9, 10, 13)
_BLOCK: Final = 16
_OPENED: Final = b"\x2f\x2f"
_MORE, _CONTROL, _COUNTER, _TAG = 0x4000, 0x2000, 0x0800, 0x0400
_TAG_BYTES: Final = {3: 2, 4: 4, 5: 8, 6: 12, 7: 16}
_METHODS: Final = 0x30
_CMAC_METHOD: Final = 0x10
_FOR_DATA, _FOR_TAG = b"\x00", b"\x01"


@dataclass(frozen=True, slots=True)
class Layer:
    """What the layer with the tag says, and the message that it is around, from its CI on."""

    control: int
    counter: bytes
    tag: bytes
    message: bytes


def layer(data: bytes) -> Layer:
    """Take the layer behind CI 90 apart. Raises Rejected(UNSUPPORTED) for parts of a message and other fields."""
    if len(data) < 3 or len(data) < 2 + data[0]:
        raise Rejected(Reason.TOO_SHORT, f"an authentication layer of {len(data)} bytes")
    size, fields = data[0], int.from_bytes(data[1:3], "little")
    wanted = _CONTROL | _COUNTER | _TAG
    tag_bytes = _TAG_BYTES.get(data[3] & 0x0F, 0) if len(data) > 3 else 0
    if fields & 0xFF00 & ~_MORE != wanted or fields & _MORE or size != 7 + tag_bytes or not tag_bytes:
        raise Rejected(Reason.UNSUPPORTED, f"an authentication layer with fields {fields:04x}, {size} bytes")
    end = 1 + size
    return Layer(data[3], data[4:8], data[8:end], data[end:])


@dataclass(frozen=True, slots=True)
class Lock:
    """How a telegram is encrypted: `configuration` as sent, and what its key is begun with.

    `maker` and `number` in wire order. `layer`: what was around it.
    """

    configuration: int
    number: bytes
    maker: bytes
    version: int
    medium: int
    access: int
    layer: Layer | None

    @property
    def mode(self) -> int:
        """The security mode."""
        return self.configuration >> 8 & 0x1F

    @property
    def size(self) -> int:
        """How many bytes are encrypted."""
        return _BLOCK * (self.configuration >> 4 & 0x0F)

    def locks(self, records: bytes, *, is_keyed: bool) -> bool:
        """Say whether records are encrypted: in a known mode, and as many blocks as it says are there.

        Old meters keep something else in these bytes; of a meter that has a key nothing is read as plain that says it is not.
        Plain records of a meter that names a mode begin with 2F 2F.
        """
        found = records[self._extension :]
        if self.mode not in _MODES or not self.size or found[:2] == _OPENED:
            return False
        return is_keyed or len(found) >= self.size

    @property
    def _extension(self) -> int:
        return 1 if self.mode == _DERIVED else 0

    def opened(self, records: bytes, key: bytes | None) -> bytes:
        """Return the plain records. Raises Rejected: MALFORMED, NO_KEY, BAD_KEY, UNSUPPORTED for another mode."""
        there = len(records) - self._extension
        if there < self.size:
            # One in twenty such would pass for plain records.
            raise Rejected(Reason.MALFORMED, f"{self.size} bytes encrypted in mode {self.mode}, and {there} there")
        if self.mode not in (_CBC, _DERIVED):
            raise Rejected(Reason.UNSUPPORTED, f"encrypted in mode {self.mode}")
        if key is None:
            raise Rejected(Reason.NO_KEY, f"encrypted in mode {self.mode}")
        if not self.number:
            raise Rejected(Reason.UNSUPPORTED, f"encrypted in mode {self.mode} without a long header")
        if self.mode == _CBC:
            begin = self.maker + self.number + bytes([self.version, self.medium]) + bytes([self.access]) * 8
        else:
            key, begin, records = self._derived(records, key), bytes(_BLOCK), records[1:]
        plain = _decrypted(key, begin, records[: self.size]) + records[self.size :]
        if plain[:2] != _OPENED:
            raise Rejected(Reason.BAD_KEY, f"mode {self.mode} does not open with this key")
        return plain

    def _derived(self, records: bytes, key: bytes) -> bytes:
        """See that the tag fits; return the key of the data."""
        if records[0] & _METHODS != _CMAC_METHOD:
            raise Rejected(Reason.UNSUPPORTED, f"mode 7 with keys made by method {records[0] >> 4 & 3}")
        if self.layer is None:
            raise Rejected(Reason.UNSUPPORTED, "mode 7 without its counter")
        end = self.layer.counter + self.number + b"\x07" * 7
        signed = bytes([self.layer.control]) + self.layer.counter + self.layer.message
        tag = _cmac(_cmac(key, _FOR_TAG + end), signed)[: len(self.layer.tag)]
        if not hmac.compare_digest(tag, self.layer.tag):
            raise Rejected(Reason.BAD_KEY, "the tag does not fit: another key")
        return _cmac(key, _FOR_DATA + end)


def _cmac(key: bytes, content: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.cmac import CMAC

    made = CMAC(AES(key))
    made.update(content)
    return made.finalize()


def _decrypted(key: bytes, begin: bytes, content: bytes) -> bytes:
    # Most meters do not encrypt: only who has one that does loads the library.
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CBC

    decryptor = Cipher(AES(key), CBC(begin)).decryptor()
    return decryptor.update(content) + decryptor.finalize()

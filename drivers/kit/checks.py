"""Check bytes that more than one protocol uses. Pure sums over bytes; each costs one pass over its input."""

from __future__ import annotations

from binascii import crc_hqx
from functools import reduce
from operator import xor


def sum8(data: bytes) -> int:
    """Sum of all bytes, modulo 256 (DL/T 645, CJ/T 188, M-Bus)."""
    return sum(data) & 0xFF


def xor8(data: bytes) -> int:
    """Exclusive or of all bytes (block checks of ISO 1745 and many sensors)."""
    return reduce(xor, data, 0)


def crc16_modbus(data: bytes) -> int:
    """CRC-16/MODBUS (polynomial 8005 reflected, begins with FFFF). On the wire its low byte goes first."""
    return _crc16(data, 0xFFFF)


def crc16_arc(data: bytes) -> int:
    """CRC-16/ARC (polynomial 8005 reflected, begins with 0) of the P1 port of electricity meters."""
    return _crc16(data, 0)


def _crc16(data: bytes, crc: int) -> int:
    table = _CRC16
    for byte in data:
        crc = crc >> 8 ^ table[crc & 0xFF ^ byte]
    return crc


def crc16_x25(data: bytes) -> int:
    """CRC-16/X-25 (polynomial 1021 reflected, begins with FFFF, inverted) of HDLC, DL/T 698.45 and SML. Low byte first.

    The standard library has the same polynomial unreflected: on mirrored bytes it gives the mirrored sum.
    """
    mirrored = crc_hqx(data.translate(_MIRRORED), 0xFFFF)
    return (_MIRRORED[mirrored & 0xFF] << 8 | _MIRRORED[mirrored >> 8]) ^ 0xFFFF


def crc8(data: bytes) -> int:
    """CRC-8 (polynomial 07, begins with 00) of EnOcean's serial protocol."""
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def _crc8_of(byte: int) -> int:
    for _ in range(8):
        byte = ((byte << 1) ^ 0x07) & 0xFF if byte & 0x80 else byte << 1
    return byte


_CRC8 = bytes(_crc8_of(byte) for byte in range(256))
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _reflected(byte: int, polynomial: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ polynomial if byte & 1 else byte >> 1
    return byte


_CRC16 = tuple(_reflected(byte, 0xA001) for byte in range(256))

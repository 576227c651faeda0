"""Minew's own frames: service data FFE1 "A1", and manufacturer data of company 0639 (MSE, S3, S4, Connect V3).

A letter a byte, numbers big-endian unless said otherwise:

    FFE1   A1 V B ... AAAAAA     V what follows, B battery in % (all but 07 and 15), A address, low byte first
             01 TT HH   02 light   03 XX YY ZZ   05 LL lux   08 info: A, name   11 PP PIR (bit 0)   12 VOC   13 TT
             15 axes and gyroscope   16 magnetic field   17 pressure   18 NNNN S vibration (bit 0)   19 light
             20 S tamper (bit 0)   21 S water (bit 0)
    0639   51 M N B S ...        MSE01, MSE02; older firmware M N B S: N counts adverts, S bit 0 tamper, bit 1 motion,
                                 bit 5 button 1, bit 6 button 2
           A3 01 ...  A3 03 B TT HH AAAAAA     S3: device, climate
           A4 00 ...  A4 01 B D R ...          S4: device, door (D above 0: open, R above 0: taken off)
           CA 00 AAAAAA B ...                  Connect V3: device
           CA 03 blocks SSSS                   03 XX YY ZZ, 21 B, 22 R (above 0: taken off), 1F 4 bytes, S salt and check
           CA 05 s i . TT HH ...               climate (i bit 1: no humidity)
           CA 18 00 ...  CA 18 01 n P ...      radar: passages; P bits 0 to 3 how many people
           CA 1B 01 KK . AAAAAA VV TT ...      battery in mV, temperature; s bit 7: encrypted
           CA 1B 02 . 01 tt hh 02 AAAAAA 03 VV  raw: T = -45 + 175 t / 65535, H = -6 + 125 h / 65535
           CA 1E ...                           distance sensor: its flags are not published one by one

T and H are 8.8, T signed. None has a key. Facts from reelyactive/advlib-ble-services and -manufacturers (MIT) and the
product manuals of E8 and B10. A name, and what is not named here, is read past.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from drivers.kit import Advert, Reason, Rejected
from drivers.protocols.beacons import signed_8_8

SERVICE: Final = 0xFFE1
COMPANY: Final = 0x0639

_MARK = 0xA1
_MSE, _S3, _S4, _V3 = 0x51, 0xA3, 0xA4, 0xCA
_OLD_MSE = (0x01, 0x02)
_OLD_MSE_BYTES = 4
_WITHOUT_BATTERY = (0x07, 0x15)
# What FFE1 frames must have before the address, battery included.
_FFE1_BYTES: Final[Mapping[int, int]] = {
    0x01: 7, 0x02: 4, 0x03: 9, 0x05: 5, 0x07: 2, 0x08: 9, 0x11: 5, 0x12: 5, 0x13: 5, 0x15: 14, 0x16: 9, 0x17: 5,
    0x18: 8, 0x19: 5, 0x20: 4, 0x21: 4,
}  # fmt: skip
# How long a block of a combination frame is, its id included.
_BLOCKS: Final[Mapping[int, int]] = {0x03: 7, 0x1F: 5, 0x21: 2, 0x22: 2}
_SALT_BYTES = 4
_HUNDREDTH, _MILLI = Decimal("0.01"), Decimal("0.001")
_NO_HUMIDITY, _ENCRYPTED = 0x02, 0x80


@dataclass(frozen=True, slots=True)
class Said:
    """What one frame says; None where it does not. `buttons` are levels, the first is button 1."""

    battery: int | None = None
    battery_v: Decimal | None = None
    temperature: Decimal | None = None
    humidity: Decimal | None = None
    illuminance: int | None = None
    buttons: tuple[bool, ...] = ()
    tamper: bool | None = None
    motion: bool | None = None
    vibration: bool | None = None
    water: bool | None = None
    opening: bool | None = None
    people: int | None = None


def parse(advert: Advert) -> tuple[Said, ...]:
    """Read every frame that came with this report. Raises Rejected: of several frames the first that is broken is told."""
    said: list[Said] = []
    refusal: Rejected | None = None
    service = advert.fresh("service_data").get(SERVICE)
    maker = advert.fresh("manufacturer_data").get(COMPANY)
    for read, data in ((_ffe1, service), (_0639, maker)):
        try:
            if data is not None:
                said.append(read(data))
        except Rejected as one:
            refusal = refusal or one
    if said or (refusal is None and advert.cached):
        return tuple(said)
    raise refusal or Rejected(Reason.NOT_MINE, "no service data ffe1, no manufacturer data of company 0639")


def _ffe1(data: bytes) -> Said:
    if data[:1] != bytes([_MARK]):
        raise Rejected(Reason.NOT_MINE, f"service ffe1, but no frame a1: {data[:1].hex() or 'nothing'}")
    _at_least(data, 2)
    version = data[1]
    if version not in _FFE1_BYTES:
        raise Rejected(Reason.UNSUPPORTED, f"frame a1 {version:02x}")
    _at_least(data, _FFE1_BYTES[version])
    battery = None if version in _WITHOUT_BATTERY else data[2]
    if version == 0x01:
        return Said(battery, temperature=signed_8_8(data[3:5]), humidity=signed_8_8(data[5:7]))
    if version == 0x13:
        return Said(battery, temperature=signed_8_8(data[3:5]))
    if version == 0x05:
        return Said(battery, illuminance=_number(data, 3))
    if version == 0x11:
        return Said(battery, motion=bool(data[4] & 0x01))
    if version == 0x18:
        return Said(battery, vibration=bool(data[7] & 0x01))
    if version == 0x20:
        return Said(battery, tamper=bool(data[3] & 0x01))
    if version == 0x21:
        return Said(battery, water=bool(data[3] & 0x01))
    return Said(battery)


def _0639(data: bytes) -> Said:
    kind = data[0] if data else -1
    if kind in _OLD_MSE and len(data) == _OLD_MSE_BYTES:
        return _mse(data[2], data[3])
    if kind == _MSE:
        _at_least(data, 5)
        return _mse(data[3], data[4])
    _at_least(data, 3)
    if kind == _S3:
        return _s3(data)
    if kind == _S4:
        return _s4(data)
    if kind == _V3:
        return _v3(data)
    raise Rejected(Reason.UNSUPPORTED, f"frame {kind:02x} of company 0639")


def _mse(battery: int, status: int) -> Said:
    buttons = (bool(status & 0x20), bool(status & 0x40))
    return Said(battery, buttons=buttons, tamper=bool(status & 0x01), motion=bool(status & 0x02))


def _s3(data: bytes) -> Said:
    if data[1] == 0x01:
        return Said()
    if data[1] != 0x03:
        raise Rejected(Reason.UNSUPPORTED, f"frame a3 {data[1]:02x}")
    _at_least(data, 7)
    return Said(data[2], temperature=signed_8_8(data[3:5]), humidity=signed_8_8(data[5:7]))


def _s4(data: bytes) -> Said:
    if data[1] == 0x00:
        return Said()
    if data[1] != 0x01:
        raise Rejected(Reason.UNSUPPORTED, f"frame a4 {data[1]:02x}")
    _at_least(data, 5)
    return Said(data[2], opening=data[3] > 0, tamper=data[4] > 0)


def _v3(data: bytes) -> Said:
    kind, sub = data[1], data[2]
    if kind == 0x00:
        _at_least(data, 9)
        return Said(data[8])
    if kind == 0x03:
        return _blocks(data[2:-_SALT_BYTES])
    if kind == 0x05:
        _at_least(data, 9)
        humidity = None if data[3] & _NO_HUMIDITY else signed_8_8(data[7:9])
        return Said(temperature=signed_8_8(data[5:7]), humidity=humidity)
    if kind == 0x18:
        _at_least(data, 5)
        return Said(people=data[4] & 0x0F) if sub == 0x01 else Said()
    if kind == 0x1B:
        return _thermometer(data, sub)
    if kind == 0x1E:
        return Said()
    raise Rejected(Reason.UNSUPPORTED, f"frame ca {kind:02x}")


def _blocks(data: bytes) -> Said:
    battery: int | None = None
    tamper: bool | None = None
    at = 0
    while at < len(data):
        size = _BLOCKS.get(data[at])
        # Nothing tells the length of a block that is not known: what was read before it stands.
        if size is None or at + size > len(data):
            if at == 0:
                raise Rejected(Reason.UNSUPPORTED, f"block {data[at]:02x} of a frame ca03")
            break
        if data[at] == 0x21:
            battery = data[at + 1]
        elif data[at] == 0x22:
            tamper = data[at + 1] > 0
        at += size
    return Said(battery, tamper=tamper)


def _thermometer(data: bytes, sub: int) -> Said:
    if sub & _ENCRYPTED:
        raise Rejected(Reason.UNSUPPORTED, "frame ca1b, encrypted: switch the encryption of the tag off")
    if sub == 0x01:
        _at_least(data, 16)
        return Said(battery_v=_number(data, 12) * _MILLI, temperature=signed_8_8(data[14:16]))
    if sub != 0x02:
        raise Rejected(Reason.UNSUPPORTED, f"frame ca1b {sub:02x}")
    _at_least(data, 19)
    if (data[4], data[9], data[16]) != (0x01, 0x02, 0x03):
        raise Rejected(Reason.UNSUPPORTED, "frame ca1b 02 with other parts than 01, 02, 03")
    degrees = -45 + Decimal(175 * _number(data, 5)) / 65535
    percent = -6 + Decimal(125 * _number(data, 7)) / 65535
    return Said(
        battery_v=_number(data, 17) * _MILLI,
        temperature=degrees.quantize(_HUNDREDTH),
        humidity=percent.quantize(_HUNDREDTH),
    )


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _at_least(data: bytes, size: int) -> None:
    if len(data) < size:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {size} needed")

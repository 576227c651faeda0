"""Beacon frames: iBeacon, Eddystone and the sensor frame of KKM, as BLE tags of many makers send them.

Layouts after the company or service id, a letter a byte:

    004C : 02 15 UUUUUUUUUUUUUUUU MM NN P        iBeacon: UUID, major, minor (big-endian), power at 1 m
    FEAA : 00 P NNNNNNNNNN IIIIII [.. ..]        Eddystone-UID: namespace 10, instance 6
           10 P S ........                       Eddystone-URL: S the scheme, then text with 14 short forms
           20 00 VV TT CCCC SSSS                 Eddystone-TLM: mV, degrees (8.8, signed), adverts, 0.1 s since start
           20 01 ...                             the same encrypted (eTLM): refused by name, as is
           30 P EEEEEEEE                         Eddystone-EID, an identifier that changes every 2^K s
           21 MM ...                             KKM sensor: mask, then the fields that it names
           24 K VV C (L t ...)...                KKM sensor 2: kind, battery mV, degrees of the chip, fields of L bytes

    KKM's mask, big-endian: 001 battery mV, 002 temperature 8.8, 004 humidity 8.8, 008 acceleration 3 x mg, then 010
    alarm, 020 PIR, 040 lux and more, which are not read. Of sensor 2: t 02 temperature 0.1, 03 that and humidity in %. All
    numbers are big-endian. KKM's encrypted frames 06 and 07 are refused by name.

None of them has a counter or a key: who they are is all that they say, and anybody can say it. An EID is AES of the beacon's
own clock of 32 bits under its identity key (eid-computation.md), an eTLM is sealed with the same clock. A driver has no clock,
and to search all of one's values for each beacon of a passer-by would cost seconds: such a tag is to be set to UID.
Limits: 255 bytes of data (an extended advert); a URL of 17 encoded bytes at most. Sources: github.com/google/eddystone
(protocol-specification.md), Apple's "Proximity Beacon Specification" R1, KKM's public SDK (KBAdvPacketSensor).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from drivers.kit import Advert, Reason, Rejected

APPLE: Final = 0x004C
EDDYSTONE: Final = 0xFEAA

_IBEACON = b"\x02\x15"
_IBEACON_BYTES = 23
_UID, _URL, _TLM, _KKM, _KKM_2, _EID = 0x00, 0x10, 0x20, 0x21, 0x24, 0x30
_KKM_ENCRYPTED = (0x06, 0x07)
_UID_BYTES, _TLM_BYTES, _EID_BYTES = 18, 14, 10
_UNSUPPORTED_TEMPERATURE = b"\x80\x00"
_MILLI = Decimal("0.001")
_HUNDREDTH, _TENTH = Decimal("0.01"), Decimal("0.1")
_MASK_BATTERY, _MASK_TEMPERATURE, _MASK_HUMIDITY, _MASK_ACCELERATION = 1, 2, 4, 8
_MAX_HUMIDITY = 100
_MAX_URL_BYTES = 17

_SCHEMES: Final = ("http://www.", "https://www.", "http://", "https://")
_SHORT: Final = tuple(
    f".{name}{end}" for end in ("/", "") for name in ("com", "org", "edu", "net", "info", "biz", "gov")
)


@dataclass(frozen=True, slots=True)
class Slot:
    """One frame that says who sends it. `names`: the most exact first, then those with a part left open."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sensor:
    """What a tag measures: volts, degrees Celsius, percent; None where the frame does not say it."""

    battery_v: Decimal | None = None
    temperature: Decimal | None = None
    humidity: Decimal | None = None
    acceleration_mg: tuple[int, int, int] | None = None


Frame = Slot | Sensor


def ibeacon_name(uuid: int, major: int | None, minor: int | None) -> str:
    """Return the name of an iBeacon; an open minor, or major and minor, is a star."""
    parts = ("*" if part is None else str(part) for part in (major, minor))
    return f"ibeacon {uuid:032x}/{'/'.join(parts)}"


def eddystone_name(namespace: bytes, instance: bytes | None) -> str:
    """Return the name of an Eddystone-UID; an open instance is a star."""
    return f"eddystone {namespace.hex()}/{'*' if instance is None else instance.hex()}"


def url_name(url: str) -> str:
    """Return the name of an Eddystone-URL."""
    return f"url {url}"


def parse(advert: Advert) -> tuple[Frame, ...]:
    """Read every beacon frame that came with this report: one shown again would be a press that never ends.

    Raises Rejected: of several frames the first that is broken is told.
    """
    frames: list[Frame] = []
    refusal: Rejected | None = None
    makers, services = advert.fresh("manufacturer_data"), advert.fresh("service_data")
    for read, data in ((_ibeacon, makers.get(APPLE)), (_eddystone, services.get(EDDYSTONE))):
        try:
            if data is not None:
                frames.append(read(data))
        except Rejected as one:
            refusal = refusal or one
    # What is shown again only is no reason to complain of.
    if frames or (refusal is None and advert.cached):
        return tuple(frames)
    raise refusal or Rejected(Reason.NOT_MINE, "no beacon frame: neither iBeacon (004c) nor Eddystone (feaa)")


def identify(advert: Advert) -> tuple[str, ...]:
    """Return who an advert says that it is, the most exact first; nothing where it does not say it."""
    try:
        return tuple(name for frame in parse(advert) if isinstance(frame, Slot) for name in frame.names)
    except Rejected:
        return ()


def signed_8_8(field: bytes) -> Decimal:
    """Read a signed number of 16 bits, big-endian, in 1/256, rounded to hundredths."""
    return (Decimal(int.from_bytes(field, "big", signed=True)) / 256).quantize(_HUNDREDTH)


def _ibeacon(data: bytes) -> Frame:
    if not data.startswith(_IBEACON):
        raise Rejected(Reason.NOT_MINE, "company 004c, but no iBeacon")
    # Some tags put a byte of their own behind the power.
    if len(data) < _IBEACON_BYTES:
        raise Rejected(Reason.TOO_SHORT, f"an iBeacon of {len(data)} bytes, {_IBEACON_BYTES} needed")
    uuid = int.from_bytes(data[2:18], "big")
    major, minor = int.from_bytes(data[18:20], "big"), int.from_bytes(data[20:22], "big")
    return Slot(
        (ibeacon_name(uuid, major, minor), ibeacon_name(uuid, major, None), ibeacon_name(uuid, None, None)),
    )


def _eddystone(data: bytes) -> Frame:
    kind = data[0] if data else -1
    if kind == _UID:
        _at_least(data, _UID_BYTES)
        namespace, instance = data[2:12], data[12:18]
        return Slot((eddystone_name(namespace, instance), eddystone_name(namespace, None)))
    if kind == _URL:
        return Slot((url_name(_url(data)),))
    if kind == _TLM:
        return _telemetry(data)
    if kind == _KKM:
        return _kkm(data)
    if kind == _KKM_2:
        return _kkm_2(data)
    if kind in _KKM_ENCRYPTED:
        raise Rejected(Reason.UNSUPPORTED, "a sensor frame of KKM, encrypted: switch the encryption of the tag off")
    if kind == _EID:
        _at_least(data, _EID_BYTES)
        raise Rejected(Reason.UNSUPPORTED, "Eddystone-EID, whose identifier changes: set the tag to UID or iBeacon")
    raise Rejected(Reason.UNSUPPORTED, f"Eddystone frame {data[:1].hex() or 'without a type'}")


def _url(data: bytes) -> str:
    _at_least(data, 3)
    if len(data) > 3 + _MAX_URL_BYTES:
        raise Rejected(Reason.TOO_LONG, f"a URL of {len(data) - 3} bytes")
    if data[2] >= len(_SCHEMES):
        raise Rejected(Reason.MALFORMED, f"URL scheme {data[2]:02x}")
    return _SCHEMES[data[2]] + "".join(_letters(data[3:]))


def _letters(text: bytes) -> Iterator[str]:
    for byte in text:
        if byte < len(_SHORT):
            yield _SHORT[byte]
        elif 0x21 <= byte <= 0x7E:
            yield chr(byte)
        else:
            raise Rejected(Reason.MALFORMED, f"byte {byte:02x} in a URL")


def _telemetry(data: bytes) -> Sensor:
    _at_least(data, 2)
    if data[1] != 0:
        raise Rejected(
            Reason.UNSUPPORTED, f"Eddystone-TLM version {data[1]}: 1 is encrypted (eTLM), set the tag to UID"
        )
    _at_least(data, _TLM_BYTES)
    millivolts = int.from_bytes(data[2:4], "big")
    return Sensor(
        battery_v=millivolts * _MILLI if millivolts else None,
        temperature=None if data[4:6] == _UNSUPPORTED_TEMPERATURE else signed_8_8(data[4:6]),
    )


def _kkm(data: bytes) -> Sensor:
    _at_least(data, 3)
    mask, at = int.from_bytes(data[1:3], "big"), 3
    fields: dict[int, bytes] = {}
    for bit, size in ((_MASK_BATTERY, 2), (_MASK_TEMPERATURE, 2), (_MASK_HUMIDITY, 2), (_MASK_ACCELERATION, 6)):
        if mask & bit:
            _at_least(data, at + size)
            fields[bit], at = data[at : at + size], at + size
    axes = fields.get(_MASK_ACCELERATION)
    humidity = signed_8_8(fields[_MASK_HUMIDITY]) if _MASK_HUMIDITY in fields else None
    return Sensor(
        battery_v=int.from_bytes(fields[_MASK_BATTERY], "big") * _MILLI if _MASK_BATTERY in fields else None,
        temperature=signed_8_8(fields[_MASK_TEMPERATURE]) if _MASK_TEMPERATURE in fields else None,
        # A negative one carries something else (KKM's SDK), and above 100 % there is none.
        humidity=humidity if humidity is not None and 0 <= humidity <= _MAX_HUMIDITY else None,
        acceleration_mg=_axes(axes) if axes else None,
    )


def _kkm_2(data: bytes) -> Sensor:
    _at_least(data, 5)
    temperature: Decimal | None = None
    humidity: Decimal | None = None
    at = 5
    while at + 2 < len(data) and at + 1 + data[at] <= len(data):
        kind, field = data[at + 1], data[at + 2 : at + 1 + data[at]]
        if kind in (0x02, 0x03) and len(field) >= 2:
            temperature = int.from_bytes(field[:2], "big", signed=True) * _TENTH
        if kind == 0x03 and len(field) >= 3 and field[2] <= _MAX_HUMIDITY:
            humidity = Decimal(field[2])
        at += 1 + data[at]
    return Sensor(battery_v=int.from_bytes(data[2:4], "big") * _MILLI, temperature=temperature, humidity=humidity)


def _axes(field: bytes) -> tuple[int, int, int]:
    x, y, z = (int.from_bytes(field[at : at + 2], "big", signed=True) for at in (0, 2, 4))
    return x, y, z


def _at_least(data: bytes, size: int) -> None:
    if len(data) < size:
        raise Rejected(Reason.TOO_SHORT, f"a frame of {len(data)} bytes, {size} needed")

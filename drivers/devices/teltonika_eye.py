"""Teltonika EYE Sensor: temperature, humidity, movement, a magnet contact.

Manufacturer data of company 089A, a letter a byte, numbers big-endian; only what the flags name is there:

    01 F7 0A 91 2D 80 03 F6 FF F9 58
    V  F  T  T  H  M  M  P  R  R  U

    V  version 1
    F  bit 0 T, bit 1 H, bit 2 there is a magnet contact, bit 3 it sees its magnet, bit 4 M, bit 5 P and R, bit 6 the
       battery is low, bit 7 U
    T  temperature in 0.01 degrees, signed; H humidity in %
    M  bit 15 moving now, bits 0 to 14 how often it began to move
    P  pitch, R  roll in degrees, signed
    U  battery: 2.00 V and 0.01 V for each count

Moving is told as motion, a contact that does not see its magnet as an opening; `magnet = "none"` in the options is for a
sensor that hangs on no door. The sensor has no button, counter or key. Facts from wiki.teltonika-gps.com (EYE SENSOR,
"Bluetooth frame structure") and custom-components/ble_monitor. Not tried on a real sensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial

from drivers.kit import Advert, Advertises, AdvertVector, Decoded, Reading, Reason, Rejected, Signal, SignalKind, Title
from drivers.kit.options import choice, known_keys
from drivers.kit.report import Report

_COMPANY = 0x089A
_TEMPERATURE, _HUMIDITY, _CONTACT, _MAGNET, _MOVEMENT, _ANGLE, _LOW, _VOLTAGE = (1 << bit for bit in range(8))
_SIZES = ((_TEMPERATURE, 2), (_HUMIDITY, 1), (_MOVEMENT, 2), (_ANGLE, 3), (_VOLTAGE, 1))
_HUNDREDTH = Decimal("0.01")


def options(raw: Mapping[str, object]) -> Advertises:
    """Read whether the magnet contact is a door's. Raises BadOption."""
    known_keys(raw, name="map", allowed=("magnet",))
    magnet = choice({"magnet": "door", **raw}, "magnet", name="map", among=("door", "none"))
    return replace(DRIVER, decode=partial(_decode, is_door=magnet == "door"))


def _decode(advert: Advert, key: bytes | None, *, is_door: bool) -> Decoded:  # noqa: ARG001 - the sensor has no key
    """Read one advert. Raises Rejected."""
    data = advert.manufacturer_data.get(_COMPANY)
    if data is None:
        raise Rejected(Reason.NOT_MINE, "no manufacturer data of company 089a")
    if len(data) < 2:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes: no flags")
    if data[0] != 1:
        raise Rejected(Reason.UNSUPPORTED, f"version {data[0]}")
    flags = data[1]
    fields = _fields(data, flags)
    report = Report()
    if _MOVEMENT in fields:
        report.signal(SignalKind.MOTION, "moving", level=bool(fields[_MOVEMENT][0] & 0x80))
    if flags & _CONTACT and is_door:
        report.signal(SignalKind.OPENING, "open", level=not flags & _MAGNET)
    report.signal(SignalKind.LOW_BATTERY, level=bool(flags & _LOW))
    if _TEMPERATURE in fields:
        report.reading("temperature", int.from_bytes(fields[_TEMPERATURE], "big", signed=True) * _HUNDREDTH)
    if _HUMIDITY in fields:
        report.reading("humidity", fields[_HUMIDITY][0])
    if _VOLTAGE in fields:
        report.reading("battery_voltage", 2 + fields[_VOLTAGE][0] * _HUNDREDTH)
    return report.decoded()


def _fields(data: bytes, flags: int) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    at = 2
    for bit, size in _SIZES:
        if flags & bit:
            if len(data) < at + size:
                raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {at + size} needed for flags {flags:02x}")
            fields[bit], at = data[at : at + size], at + size
    return fields


def _advert(data: str) -> Advert:
    return Advert("7C:D9:F4:13:16:84", manufacturer_data={_COMPANY: bytes.fromhex(data)})


DRIVER = Advertises(
    model="teltonika-eye",
    title=Title(zh="Teltonika EYE 传感器", en="Teltonika EYE sensor"),
    decode=partial(_decode, is_door=True),
    options=options,
    vectors=(
        AdvertVector(
            source="wiki.teltonika-gps.com, EYE SENSOR: the maker's example; magnet present, and its field not seen",
            advert=_advert("01b708b4120ccb0bffc767"),
            expect=Decoded(
                (
                    Signal(SignalKind.MOTION, "moving", level=False),
                    Signal(SignalKind.OPENING, "open", level=True),
                    Signal(SignalKind.LOW_BATTERY, level=False),
                    Reading("temperature", Decimal("22.28")),
                    Reading("humidity", Decimal(18)),
                    Reading("battery_voltage", Decimal("3.03")),
                )
            ),
        ),
        AdvertVector(
            source="teltonika-ble tests: test_magnet_detected_and_low_battery",
            advert=_advert("014c"),
            expect=Decoded(
                (Signal(SignalKind.OPENING, "open", level=False), Signal(SignalKind.LOW_BATTERY, level=True))
            ),
        ),
        AdvertVector(
            source="teltonika-ble tests: test_moving_and_negative_temperature",
            advert=_advert("0111ff388005"),
            expect=Decoded(
                (
                    Signal(SignalKind.MOTION, "moving", level=True),
                    Signal(SignalKind.LOW_BATTERY, level=False),
                    Reading("temperature", Decimal("-2.00")),
                )
            ),
        ),
        AdvertVector(
            source="synthetic: every field of the maker's frame, moving, the magnet seen, the battery low",
            advert=_advert("01ff0a912d8003f6fff958"),
            expect=Decoded(
                (
                    Signal(SignalKind.MOTION, "moving", level=True),
                    Signal(SignalKind.OPENING, "open", level=False),
                    Signal(SignalKind.LOW_BATTERY, level=True),
                    Reading("temperature", Decimal("27.05")),
                    Reading("humidity", Decimal(45)),
                    Reading("battery_voltage", Decimal("2.88")),
                )
            ),
        ),
        AdvertVector(
            source="synthetic: a door that stands open, at rest, -1.50 degrees",
            advert=_advert("0115ff6a0003"),
            expect=Decoded(
                (
                    Signal(SignalKind.MOTION, "moving", level=False),
                    Signal(SignalKind.OPENING, "open", level=True),
                    Signal(SignalKind.LOW_BATTERY, level=False),
                    Reading("temperature", Decimal("-1.50")),
                )
            ),
        ),
        AdvertVector(
            source="synthetic: flags that name more than is there",
            advert=_advert("01ff0a91"),
            expect=Reason.TOO_SHORT,
        ),
    ),
)

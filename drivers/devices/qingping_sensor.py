"""Qingping (ClearGrass) sensors with their own protocol: door (CGH1), motion and light (CGPR1), and thermometers.

Service data FDCD, a letter a byte, numbers little-endian:

    48 04 75 10 60 34 2D 58 04 01 00 0F 01 CB
    F  K  A  A  A  A  A  A  then objects: id, length, value

    F  flags (08 regular, 48 after an event)
    K  kind: 04 door, 12 motion and light, others measure
    A  address, low byte first
    objects   01 temperature 0.1 degrees (signed), humidity 0.1 %     02 battery %
              04 door: 00 open, 01 closed, 02 left open                08 motion 0/1, illuminance lx (3 bytes)
              09 illuminance lx (4 bytes)                              11 light 0/1
              07 pressure 0.1 hPa      12 PM2.5, PM10 in ug/m3         13 carbon dioxide ppm
              0F counter; in a regular message of a door a second 0F is the door, as in 04

Door and motion are states, and edges are found by the gateway. The counter is of the message and not proven to be the same
in regular and event messages, so it is not used. There is no key. Facts from theengs/decoder, ble_monitor and
Bluetooth-Devices/qingping-ble. Unknown objects are passed by. Not tried on a real sensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from drivers.kit import Advert, Advertises, AdvertVector, Decoded, Reading, Reason, Rejected, Signal, SignalKind, Title
from drivers.kit.report import Report

_SERVICE = 0xFDCD
_HEAD_BYTES = 8
_DOOR_KIND = 0x04
_CLIMATE, _BATTERY, _DOOR, _PRESSURE, _MOTION, _LUX, _COUNTER = 0x01, 0x02, 0x04, 0x07, 0x08, 0x09, 0x0F
_PARTICLES, _CO2 = 0x12, 0x13
_SIZES = {
    _CLIMATE: 4, _BATTERY: 1, _DOOR: 1, _PRESSURE: 2, _MOTION: 4, _LUX: 4, _COUNTER: 1, _PARTICLES: 4, _CO2: 2,
}  # fmt: skip
_CLOSED, _LEFT_OPEN = 0x01, 0x02
_TENTH = Decimal("0.1")


def decode(advert: Advert, key: bytes | None) -> Decoded:  # noqa: ARG001 - the sensor has no key; the shape has
    """Read one advert. Raises Rejected."""
    data = advert.service_data.get(_SERVICE)
    if data is None:
        raise Rejected(Reason.NOT_MINE, "no service data fdcd")
    if len(data) < _HEAD_BYTES:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {_HEAD_BYTES} needed")
    report = Report()
    counters = 0
    for identifier, value in _objects(data[_HEAD_BYTES:]):
        if identifier == _COUNTER:
            counters += 1
            # The first is the counter; the second, of a door only, is the door.
            if counters == 2 and data[1] == _DOOR_KIND:
                _door(value, report)
        elif identifier == _DOOR:
            _door(value, report)
        elif identifier == _CLIMATE:
            report.reading("temperature", int.from_bytes(value[:2], "little", signed=True) * _TENTH)
            report.reading("humidity", int.from_bytes(value[2:], "little") * _TENTH)
        elif identifier == _MOTION:
            report.signal(SignalKind.MOTION, level=value[0] != 0)
            report.reading("illuminance", int.from_bytes(value[1:], "little"))
        elif identifier in (_PRESSURE, _PARTICLES, _CO2):
            _air(identifier, value, report)
        else:
            report.reading(
                "battery" if identifier == _BATTERY else "illuminance", int.from_bytes(value, "little"),
                none=0xFF if identifier == _BATTERY else 0xFFFF_FFFF,
            )  # fmt: skip
    return report.decoded()


def _door(value: bytes, report: Report) -> None:
    code = "left-open" if value[0] == _LEFT_OPEN else "open"
    report.signal(SignalKind.OPENING, code, level=value[0] != _CLOSED)


def _air(identifier: int, value: bytes, report: Report) -> None:
    first = int.from_bytes(value[:2], "little")
    if identifier == _PRESSURE:
        report.reading("pressure", first * _TENTH)
    elif identifier == _CO2:
        report.reading("co2", first)
    else:
        report.reading("pm2_5", first)
        report.reading("pm10", int.from_bytes(value[2:], "little"))


def _objects(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the known objects. Raises Rejected where nothing whole is there; what is cut off after that is left out."""
    at = 0
    while at + 2 <= len(data):
        identifier, size = data[at], data[at + 1]
        value = data[at + 2 : at + 2 + size]
        if len(value) < size:
            if at == 0:
                raise Rejected(Reason.TOO_SHORT, f"object {identifier:02x} of {len(value)} bytes, {size} needed")
            return
        if _SIZES.get(identifier) == size:
            yield identifier, value
        at += 2 + size


def _advert(data: str, address: str = "58:2D:34:60:10:75") -> Advert:
    return Advert(address, service_data={_SERVICE: bytes.fromhex(data)})


DRIVER = Advertises(
    model="qingping-sensor",
    title=Title(zh="青萍传感器（门窗、人体光照、温湿度）", en="Qingping sensor (door, motion and light, climate)"),
    decode=decode,
    vectors=(
        AdvertVector(
            source="theengs/decoder tests/BLE/test_ble.cpp test_uuid[77] (Qingping Door Open Action)",
            advert=_advert("4804751060342d580401000f01cb"),
            expect=Decoded((Signal(SignalKind.OPENING, "open", level=True),)),
        ),
        AdvertVector(
            source="theengs/decoder tests/BLE/test_ble.cpp test_uuid[76] (Qingping Door Close)",
            advert=_advert("0804751060342d580201600f01420f0101"),
            expect=Decoded((Reading("battery", Decimal(96)), Signal(SignalKind.OPENING, "open", level=False))),
        ),
        AdvertVector(
            source="custom-components/ble_monitor test/test_qingping_parser.py::test_qingping_CGPR1_2",
            advert=_advert("4812005e60342d580804008b09000f0122", "58:2D:34:60:5E:00"),
            expect=Decoded((Signal(SignalKind.MOTION, level=False), Reading("illuminance", Decimal(2443)))),
        ),
        AdvertVector(
            source="custom-components/ble_monitor test/test_qingping_parser.py::test_qingping_CGD1",
            advert=_advert("080cbf6552342d580104f100ad01020125", "58:2D:34:52:65:BF"),
            expect=Decoded(
                (
                    Reading("temperature", Decimal("24.1")),
                    Reading("humidity", Decimal("42.9")),
                    Reading("battery", Decimal(37)),
                )
            ),
        ),
        AdvertVector(
            source="synthetic: test_uuid[77] with the door left open (state 2, qingping-ble 1.3.0)",
            advert=_advert("4804751060342d580401020f01cb"),
            expect=Decoded((Signal(SignalKind.OPENING, "left-open", level=True),)),
        ),
        AdvertVector(
            source="synthetic: test_uuid[77] cut within its address",
            advert=_advert("480475106034"),
            expect=Reason.TOO_SHORT,
        ),
    ),
)

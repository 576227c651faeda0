"""SwitchBot sensors: contact, motion, water leak, and the meters for temperature and humidity.

Service data FD3D (0D00 on old firmware) and manufacturer data of company 0969, a letter a byte:

    service       K S B ...           K kind (bits 0 to 6): 64 contact, 73 motion, 26 leak, 54 69 77 meters
      contact     64 S B F . . . . N  S bit 7 in test, bit 6 motion; B battery %, bits 0 to 6; F bit 0 light, bit 1 open,
                                      bit 2 left open; N bits 0 to 3 how often its button was pressed
      motion      73 S B ...          S bit 6 motion
      meter       54 S B D T H        D tenths, T degrees (bit 7: above zero), H humidity %
    manufacturer  AAAAAA Q F ...      A address, Q sequence
      contact     F bit 7 motion, bit 5 left open, bit 4 open; byte 12, bits 0 to 3 the button
      motion      F bit 6 motion
      leak        F battery % (bit 7 low); byte 8: bit 0 water, bit 1 tampered

What a leak sensor found stands in the manufacturer data only. The button of a contact calls: its count goes round after
15, so a press is heard with the next advert where its own were all lost, and the first count heard counts nothing.
`calls_on = []` is for those who do not want that. There is no key. Facts from OpenWonderLabs/SwitchBotAPI-BLE and
pySwitchbot. A kind is known by the service data only: an advert without it is refused. Not tried on a real sensor.
"""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import (
    Advert,
    Advertises,
    AdvertVector,
    Counter,
    Decoded,
    Reading,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Title,
)
from drivers.kit.report import Report

_SERVICES = (0xFD3D, 0x0D00)
_COMPANY = 0x0969
_CONTACT, _MOTION, _LEAK = 0x64, 0x73, 0x26
_METERS = (0x54, 0x69, 0x77)
_CONTACT_MAKER_BYTES, _MOTION_MAKER_BYTES, _LEAK_MAKER_BYTES = 13, 8, 9
_CONTACT_BYTES, _MOTION_BYTES, _METER_BYTES = 9, 3, 6
_COUNT_BITS = 4
_LOW_PERCENT = 10
_TENTH = Decimal("0.1")


def decode(advert: Advert, key: bytes | None) -> Decoded:  # noqa: ARG001 - the sensor has no key; the shape has
    """Read one advert. Raises Rejected."""
    service = next((advert.service_data[uuid] for uuid in _SERVICES if uuid in advert.service_data), None)
    maker = advert.manufacturer_data.get(_COMPANY, b"")
    if service is None:
        raise Rejected(Reason.NOT_MINE, "no service data fd3d or 0d00: the kind of the sensor stands there only")
    kind = service[0] & 0x7F if service else -1
    report = Report()
    if kind == _CONTACT:
        _contact(service, maker, report)
    elif kind == _MOTION:
        _motion(service, maker, report)
    elif kind == _LEAK:
        _leak(maker, report)
    elif kind in _METERS:
        _meter(_at_least(service, _METER_BYTES), report)
    else:
        raise Rejected(Reason.UNSUPPORTED, f"kind {service[:1].hex() or 'without a byte'}")
    return report.decoded()


def _contact(service: bytes, maker: bytes, report: Report) -> None:
    if len(maker) >= _CONTACT_MAKER_BYTES:
        state, button = maker[7], maker[12]
        is_open, is_left, is_moving = bool(state & 0x30), bool(state & 0x20), bool(state & 0x80)
    else:
        _at_least(service, _CONTACT_BYTES)
        state, button = service[3], service[8]
        is_open, is_left, is_moving = bool(state & 0x06), bool(state & 0x04), bool(service[1] & 0x40)
    count = Counter(button & 0x0F, _COUNT_BITS, authenticated=False)
    report.signal(SignalKind.CALL, "press", count=count)
    report.signal(SignalKind.OPENING, "left-open" if is_left else "open", level=is_open)
    report.signal(SignalKind.MOTION, level=is_moving)
    _battery(service, report)


def _motion(service: bytes, maker: bytes, report: Report) -> None:
    state = maker[7] if len(maker) >= _MOTION_MAKER_BYTES else _at_least(service, _MOTION_BYTES)[1]
    report.signal(SignalKind.MOTION, level=bool(state & 0x40))
    _battery(service, report)


def _leak(maker: bytes, report: Report) -> None:
    _at_least(maker, _LEAK_MAKER_BYTES)
    battery = maker[7] & 0x7F
    report.signal(SignalKind.WATER_LEAK, level=bool(maker[8] & 0x01))
    report.signal(SignalKind.TAMPER, level=bool(maker[8] & 0x02))
    # The flag is not set in a recorded advert at 9 %.
    report.signal(SignalKind.LOW_BATTERY, level=bool(maker[7] & 0x80) or battery <= _LOW_PERCENT)
    report.reading("battery", battery)


def _meter(service: bytes, report: Report) -> None:
    degrees = (service[4] & 0x7F) + (service[3] & 0x0F) * _TENTH
    report.reading("temperature", degrees if service[4] & 0x80 else -degrees)
    report.reading("humidity", service[5] & 0x7F)
    _battery(service, report)


def _battery(service: bytes, report: Report) -> None:
    report.reading("battery", service[2] & 0x7F if len(service) > 2 else None)


def _at_least(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {size} needed")
    return data


def _advert(service: str, maker: str = "") -> Advert:
    makers = {_COMPANY: bytes.fromhex(maker)} if maker else {}
    return Advert("C4:34:30:37:4C:7A", service_data={0xFD3D: bytes.fromhex(service)}, manufacturer_data=makers)


def _said(count: int, code: str, *, is_open: bool, is_moving: bool) -> tuple[Signal, ...]:
    return (
        Signal(SignalKind.CALL, "press", count=Counter(count, _COUNT_BITS, authenticated=False)),
        Signal(SignalKind.OPENING, code, level=is_open),
        Signal(SignalKind.MOTION, level=is_moving),
    )


DRIVER = Advertises(
    model="switchbot-sensor",
    title=Title(zh="SwitchBot 传感器（门磁、人体、漏水）", en="SwitchBot sensor (contact, motion, leak)"),
    decode=decode,
    may_call=True,
    vectors=(
        AdvertVector(
            source="Danielhiversen/pySwitchbot tests/test_adv_parser.py::test_contact_sensor_mfr",
            advert=_advert("6400da040046018fc4", "cb39cdc43d46412c0046018fc4"),
            expect=Decoded((*_said(4, "left-open", is_open=True, is_moving=False), Reading("battery", Decimal(90)))),
        ),
        AdvertVector(
            source="theengs/decoder tests/BLE/test_ble.cpp test_uuid[51] (Switchbot_Contact), without manufacturer data",
            advert=_advert("64c05c010000000000"),
            expect=Decoded((*_said(0, "open", is_open=False, is_moving=True), Reading("battery", Decimal(92)))),
        ),
        AdvertVector(
            source="Danielhiversen/pySwitchbot tests/test_adv_parser.py::test_leak_low_battery",
            advert=_advert("260064", "c43430374c7a020998000000003c0500000000"),
            expect=Decoded(
                (
                    Signal(SignalKind.WATER_LEAK, level=False),
                    Signal(SignalKind.TAMPER, level=False),
                    Signal(SignalKind.LOW_BATTERY, level=True),
                    Reading("battery", Decimal(9)),
                )
            ),
        ),
        AdvertVector(
            source="synthetic: test_leak_low_battery, wet and tampered, 98 %",
            advert=_advert("260064", "c43430374c7a026203"),
            expect=Decoded(
                (
                    Signal(SignalKind.WATER_LEAK, level=True),
                    Signal(SignalKind.TAMPER, level=True),
                    Signal(SignalKind.LOW_BATTERY, level=False),
                    Reading("battery", Decimal(98)),
                )
            ),
        ),
        AdvertVector(
            source="synthetic: test_leak_low_battery without its manufacturer data, which alone says whether it is wet",
            advert=_advert("260064"),
            expect=Reason.TOO_SHORT,
        ),
    ),
)

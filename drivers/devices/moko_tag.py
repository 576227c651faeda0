"""MOKO tags: BXP-B button (BXP-B-D, BXP-B-CR), BeaconX Pro sensors, P1 door and motion beacon.

A letter a byte, numbers big-endian:

    FEE0 : M F CC D... K .      BXP-B, what a trigger sends: mode, flags, count, the tag's own name, its kind
    FEE0 : 00 R H.. XX YY ZZ TT P VV ...   BXP-B, its answer to a scan; EA00 the same on newer firmware
    FEAB : 40 P . VV ...        BeaconX Pro: 40 device, 60 P R . G . XX YY ZZ VV axes, 70 P R TT HH VV climate
    FF01 : B ...                older beacons: battery in %
    0A62 : 02 L S . AAAAAA ... VV ...      P1: length, state (bit 0 motion, bit 3 contact open), address; V is byte 16

    M  20 press, 21 double, 22 long, 23 not moved for long
    F  bit 1 the trigger is on (older firmware: bit 0; on newer bit 0 says that the tag wants a password)
    C  how often this mode was triggered
    V  battery in mV; T temperature and H humidity in 0.1

Every mode calls, also 23 ("inactivity", where the tag is set to watch for it): `calls_on` chooses. Each mode counts by
itself, so a press is heard with the next advert where its own were all lost; the first count that is heard is a call only
where a flag is set. There is no key. Facts from MOKO's public SDKs (MokoBleScanner, MKBXBBaseAdvModel), theengs/decoder and
reelyactive/advlib-ble-manufacturers. No capture of a BXP-B is published; not tried on a real tag.
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

_TRIGGER, _DEVICE, _BEACONX, _OLD, _P1 = 0xFEE0, 0xEA00, 0xFEAB, 0xFF01, 0x0A62
_SERVICES = (_TRIGGER, _DEVICE, _BEACONX, _OLD)
_MODES = {0x20: "press", 0x21: "double", 0x22: "long", 0x23: "inactivity"}
_TRIGGER_BYTES, _ANSWER_BYTES, _P1_BYTES = 4, 15, 18
_ON = 0x03
_COUNT_BITS = 16
_MILLI, _TENTH = Decimal("0.001"), Decimal("0.1")
# Where the battery stands in a frame of the BeaconX Pro.
_BEACONX_BATTERY = {0x40: 3, 0x60: 12, 0x70: 7}


def decode(advert: Advert, key: bytes | None) -> Decoded:  # noqa: ARG001 - the tags have no key; the shape has
    """Read one advert. Raises Rejected: of several parts the first that is broken is told, if none can be read."""
    report = Report()
    refusal: Rejected | None = None
    read = 0
    parts = [(uuid, advert.service_data[uuid]) for uuid in _SERVICES if uuid in advert.service_data]
    parts += [(_P1, advert.manufacturer_data[_P1])] if _P1 in advert.manufacturer_data else []
    for uuid, data in parts:
        try:
            _part(uuid, data, report)
            read += 1
        except Rejected as one:
            refusal = refusal or one
    if read:
        return report.decoded()
    raise refusal or Rejected(Reason.NOT_MINE, "no service data fee0, ea00, feab or ff01, no company 0a62")


def _part(uuid: int, data: bytes, report: Report) -> None:
    if uuid == _P1:
        _p1(data, report)
    elif uuid == _BEACONX:
        _beaconx(data, report)
    elif uuid == _OLD:
        report.reading("battery", _at_least(data, 1)[0], none=0xFF)
    elif uuid == _TRIGGER and data[:1] != b"\x00":
        _trigger(data, report)
    else:
        _at_least(data, _ANSWER_BYTES)
        report.reading("battery_voltage", _number(data, 13) * _MILLI)


def _trigger(data: bytes, report: Report) -> None:
    code = _MODES.get(data[0] if data else -1)
    if code is None:
        raise Rejected(Reason.UNSUPPORTED, f"frame {data[:1].hex() or 'without a type'} of service fee0")
    _at_least(data, _TRIGGER_BYTES)
    count = Counter(_number(data, 2), _COUNT_BITS, authenticated=False)
    report.signal(SignalKind.CALL, code, level=bool(data[1] & _ON), count=count)


def _beaconx(data: bytes, report: Report) -> None:
    at = _BEACONX_BATTERY.get(data[0] if data else -1)
    if at is None:
        raise Rejected(Reason.UNSUPPORTED, f"frame {data[:1].hex() or 'without a type'} of service feab")
    _at_least(data, at + 2)
    if data[0] == 0x70:
        report.reading("temperature", int.from_bytes(data[3:5], "big", signed=True) * _TENTH)
        report.reading("humidity", _number(data, 5) * _TENTH)
    report.reading("battery_voltage", _number(data, at) * _MILLI)


def _p1(data: bytes, report: Report) -> None:
    if _at_least(data, 2)[0] != 0x02:
        raise Rejected(Reason.UNSUPPORTED, f"frame {data[0]:02x} of company 0a62")
    _at_least(data, _P1_BYTES)
    report.signal(SignalKind.OPENING, "open", level=bool(data[2] & 0x08))
    report.signal(SignalKind.MOTION, level=bool(data[2] & 0x01))
    report.reading("battery_voltage", _number(data, 16) * _MILLI)


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _at_least(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {size} needed")
    return data


def _service(uuid: int, data: str) -> Advert:
    return Advert("E0:00:00:00:00:01", service_data={uuid: bytes.fromhex(data)})


def _call(code: str, count: int, *, level: bool) -> Signal:
    return Signal(SignalKind.CALL, code, level=level, count=Counter(count, _COUNT_BITS, authenticated=False))


DRIVER = Advertises(
    model="moko-tag",
    title=Title(zh="MOKO 标签（BXP-B 按钮、P1 门磁）", en="MOKO tag (BXP-B button, P1 contact)"),
    decode=decode,
    may_call=True,
    vectors=(
        AdvertVector(
            source="synthetic: the layout of MOKO's SDK, a long press, triggered 7 times so far",
            advert=_service(_TRIGGER, "22020007e000000000010100"),
            expect=Decoded((_call("long", 7, level=True),)),
        ),
        AdvertVector(
            source="synthetic: the layout of MOKO's SDK, no press now, 300 before",
            advert=_service(_TRIGGER, "2000012ce00000000001"),
            expect=Decoded((_call("press", 300, level=False),)),
        ),
        AdvertVector(
            source="theengs/decoder tests/BLE/test_ble.cpp test_uuid[23] (MokoXPro)",
            advert=_service(_BEACONX, "60000a0100070100ff403ec00bf901f40c93fe3487"),
            expect=Decoded((Reading("battery_voltage", Decimal("3.065")),)),
        ),
        AdvertVector(
            source="reelyactive/advlib-ble-manufacturers test/unit/mokotechnology.js:12 P1",
            advert=Advert(
                "F1:54:27:E0:30:4F",
                manufacturer_data={_P1: bytes.fromhex("02150900f15427e0304f16031e0d3a190e0a00000000b0")},
            ),
            expect=Decoded(
                (
                    Signal(SignalKind.OPENING, "open", level=True),
                    Signal(SignalKind.MOTION, level=True),
                    Reading("battery_voltage", Decimal("3.594")),
                )
            ),
        ),
        AdvertVector(
            source="synthetic: a press cut within its count",
            advert=_service(_TRIGGER, "200200"),
            expect=Reason.TOO_SHORT,
        ),
    ),
)

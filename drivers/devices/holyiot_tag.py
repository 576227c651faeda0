"""HolyIOT BLE tags with a button or sensors (nRF52, "41" frames).

Service data 5242, a letter a byte:

    41 64 C6 B5 45 F6 F1 8E 06 06 06 01 00
    M  B  A  A  A  A  A  A  .  .  T  V  V

    M  mark of the frame
    B  battery in %
    A  the tag's address
    T  what V is: 01 temperature (degrees, hundredths), 02 pressure, 03 humidity in %, 04 vibration, 05 which side is up,
       06 button (1 pressed)

The tag repeats a state without counter or key: a press is an edge, and it ends 25 s after the last advert that shows it.
Facts from custom-components/ble_monitor (holyiot.py) and its recorded adverts. Not tried on a real tag.
"""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import Advert, Advertises, AdvertVector, Decoded, Reading, Reason, Rejected, Signal, SignalKind, Title
from drivers.kit.report import Report

_SERVICE = 0x5242
_MARK = 0x41
_LENGTH = 12
_BATTERY_AT, _KIND_AT, _VALUE_AT = 1, 10, 11
_TEMPERATURE, _HUMIDITY, _VIBRATION, _BUTTON = 0x01, 0x03, 0x04, 0x06
_PASSED_OVER = (0x00, 0x02, 0x05)
_HUNDREDTH = Decimal("0.01")


def decode(advert: Advert, key: bytes | None) -> Decoded:  # noqa: ARG001 - the tag has no key; the shape has
    """Read one advert. Raises Rejected."""
    data = advert.service_data.get(_SERVICE)
    if data is None:
        raise Rejected(Reason.NOT_MINE, "no service data 5242")
    if not advert.fresh("service_data"):
        return Decoded()  # a press that is only shown again beside another frame of the tag would never end
    if not data or data[0] != _MARK:
        raise Rejected(Reason.UNSUPPORTED, f"frame {data[:1].hex() or 'without a byte'}")
    if len(data) < _LENGTH:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {_LENGTH} needed")
    kind, value = data[_KIND_AT], data[_VALUE_AT]
    report = Report()
    if kind == _BUTTON:
        report.signal(SignalKind.CALL, "press", level=value != 0)
    elif kind == _VIBRATION:
        report.signal(SignalKind.VIBRATION, level=value != 0)
    elif kind == _HUMIDITY:
        report.reading("humidity", value)
    elif kind == _TEMPERATURE:
        whole = value - 256 if value >= 128 else value
        hundredths = data[_VALUE_AT + 1] if len(data) > _VALUE_AT + 1 else 0
        report.reading("temperature", whole + (-hundredths if whole < 0 else hundredths) * _HUNDREDTH)
    elif kind not in _PASSED_OVER:
        raise Rejected(Reason.UNSUPPORTED, f"value {kind:02x}")
    report.reading("battery", data[_BATTERY_AT], none=0xFF)
    return report.decoded()


def _advert(data: str) -> Advert:
    return Advert("C6:B5:45:F6:F1:8E", service_data={_SERVICE: bytes.fromhex(data)})


DRIVER = Advertises(
    model="holyiot-tag",
    title=Title(zh="HolyIOT 蓝牙标签（按钮、震动）", en="HolyIOT BLE tag (button, vibration)"),
    decode=decode,
    may_call=True,
    vectors=(
        AdvertVector(
            source="custom-components/ble_monitor test/test_holyiot.py::test_holyiot_button",
            advert=_advert("4164c6b545f6f18e0606060100"),
            expect=Decoded((Signal(SignalKind.CALL, "press", level=True), Reading("battery", Decimal(100)))),
        ),
        AdvertVector(
            source="custom-components/ble_monitor test/test_holyiot.py::test_holyiot_humidity",
            advert=_advert("4164c6b545f6f18e0606034c00"),
            expect=Decoded((Reading("humidity", Decimal(76)), Reading("battery", Decimal(100)))),
        ),
        AdvertVector(
            source="synthetic: test_holyiot_button cut before what its value is",
            advert=_advert("4164c6b545f6f18e0606"),
            expect=Reason.TOO_SHORT,
        ),
    ),
)

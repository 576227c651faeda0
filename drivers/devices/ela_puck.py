"""ELA Innovation Blue Puck and Blue Coin: TOUCH (a button), MAG, MOV, PIR, DI, T, RHT.

Manufacturer data of company 0757, a letter a byte, numbers little-endian:

    06 AAAAAAAAAAAA    a number of the maker                12 TT          temperature in 0.01 degrees, signed
    21 H 12 TT         humidity in %, temperature           32 CC          MAG: bit 0 the magnet is there
    42 CC              MOV: bit 0 moving                    56 XX YY ZZ    acceleration in mg
    62 CC              DI: bit 0 the contact is closed      92 CC          PIR: bit 0 somebody moves
    B2 CC              TOUCH: bit 0 pressed                 F1 B           battery in %
    F2 VV              battery in mV
    C  bits 1 to 15: how often it happened so far

Older firmware sends the same without a company: service data 2A6E T, 2A6F H, 2A06 C (MAG and MOV by the tag's name).
A press is a rise of its count, so that it is heard with the next advert where its own were all lost; the first count that
is heard counts nothing, unless the button is down. MAG is an opening (open without its magnet), DI a contact: an opening
of the channel "input". There is no key. Facts from elainnovation.com ("Bluetooth advertising format") and
reelyactive/advlib-ble-manufacturers. A radio that hands over one frame of a company only may miss the battery.
Not tried on a real tag.
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

_COMPANY = 0x0757
_OLD_TEMPERATURE, _OLD_HUMIDITY, _OLD_COUNT = 0x2A6E, 0x2A6F, 0x2A06
_NUMBER, _T, _RHT, _MAG, _MOV, _ANG, _DI, _PIR, _TOUCH = 0x06, 0x12, 0x21, 0x32, 0x42, 0x56, 0x62, 0x92, 0xB2
_PERCENT, _MILLIVOLTS = 0xF1, 0xF2
_SIZES = {
    _NUMBER: 6, _T: 2, _RHT: 1, _MAG: 2, _MOV: 2, _ANG: 6, _DI: 2, _PIR: 2, _TOUCH: 2, _PERCENT: 1, _MILLIVOLTS: 2,
}  # fmt: skip
_HUNDREDTH, _MILLI = Decimal("0.01"), Decimal("0.001")
_COUNT_BITS = 15


def decode(advert: Advert, key: bytes | None) -> Decoded:  # noqa: ARG001 - the tag has no key; the shape has
    """Read one advert. Raises Rejected."""
    report = Report()
    data = advert.manufacturer_data.get(_COMPANY)
    if data is not None:
        _frame(data, report)
    elif not _old(advert, report):
        raise Rejected(Reason.NOT_MINE, "no manufacturer data of company 0757, nor that of old firmware")
    return report.decoded()


def _frame(data: bytes, report: Report) -> None:
    kind = data[0] if data else -1
    size = _SIZES.get(kind)
    if size is None:
        raise Rejected(Reason.UNSUPPORTED, f"frame {data[:1].hex() or 'without a type'}")
    if len(data) < 1 + size:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {1 + size} needed")
    field = data[1 : 1 + size]
    if kind == _T:
        report.reading("temperature", _temperature(field))
    elif kind == _RHT:
        report.reading("humidity", field[0])
        if len(data) >= 5 and data[2] == _T:
            report.reading("temperature", _temperature(data[3:5]))
    elif kind == _PERCENT:
        report.reading("battery", field[0], none=0xFF)
    elif kind == _MILLIVOLTS:
        report.reading("battery_voltage", int.from_bytes(field, "little") * _MILLI)
    elif kind not in (_NUMBER, _ANG):
        _counted(kind, field, report)


def _counted(kind: int, field: bytes, report: Report) -> None:
    word = int.from_bytes(field, "little")
    is_on = bool(word & 1)
    if kind == _TOUCH:
        count = Counter(word >> 1, _COUNT_BITS, authenticated=False)
        report.signal(SignalKind.CALL, "press", level=is_on, count=count)
    elif kind == _MAG:
        report.signal(SignalKind.OPENING, "open", level=not is_on)
    elif kind == _DI:
        report.signal(SignalKind.OPENING, "open", channel="input", level=not is_on)
    else:
        report.signal(SignalKind.MOTION, "moving", level=is_on)


def _old(advert: Advert, report: Report) -> bool:
    """Read what firmware without a company sends; say whether there was any of it."""
    services = advert.service_data
    if _OLD_TEMPERATURE in services:
        report.reading("temperature", _temperature(_exactly(services[_OLD_TEMPERATURE], 2)))
    if _OLD_HUMIDITY in services:
        report.reading("humidity", _exactly(services[_OLD_HUMIDITY], 1)[0])
    kind = next((kind for word, kind in ((" MAG ", _MAG), (" MOV ", _MOV)) if word in f" {advert.name} "), None)
    if _OLD_COUNT in services and kind is not None:
        _counted(kind, _exactly(services[_OLD_COUNT], 2), report)
        return True
    return _OLD_TEMPERATURE in services or _OLD_HUMIDITY in services


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {size} needed")
    return data[:size]


def _temperature(field: bytes) -> Decimal:
    return int.from_bytes(field, "little", signed=True) * _HUNDREDTH


def _advert(data: str) -> Advert:
    return Advert("FF:E9:F1:C2:25:F9", manufacturer_data={_COMPANY: bytes.fromhex(data)})


def _press(count: int, *, level: bool) -> Signal:
    counter = Counter(count, _COUNT_BITS, authenticated=False)
    return Signal(SignalKind.CALL, "press", level=level, count=counter)


DRIVER = Advertises(
    model="ela-puck",
    title=Title(zh="ELA Blue Puck 标签（触摸、门磁、移动）", en="ELA Blue Puck tag (touch, magnet, movement)"),
    decode=decode,
    may_call=True,
    vectors=(
        AdvertVector(
            source="reelyactive/advlib-ble-manufacturers test/unit/elainnovation.js:20 TOUCH",
            advert=_advert("b29c00"),
            expect=Decoded((_press(78, level=False),)),
        ),
        AdvertVector(
            source="synthetic: that advert while the button is down, counted once more",
            advert=_advert("b29f00"),
            expect=Decoded((_press(79, level=True),)),
        ),
        AdvertVector(
            source="custom-components/ble_monitor test/test_teltonika.py::test_ela_blue_puck_RHT",
            advert=_advert("213012b80a"),
            expect=Decoded((Reading("humidity", Decimal(48)), Reading("temperature", Decimal("27.44")))),
        ),
        AdvertVector(
            source="theengs/decoder tests/BLE/test_ble.cpp test_uuid_name_svcdata[88] (SE MAG Open)",
            advert=Advert("FF:E9:F1:C2:25:F9", "P MAG CCCCCC", service_data={_OLD_COUNT: bytes.fromhex("2400")}),
            expect=Decoded((Signal(SignalKind.OPENING, "open", level=True),)),
        ),
        AdvertVector(
            source="synthetic: TOUCH without the upper half of its count",
            advert=_advert("b29c"),
            expect=Reason.TOO_SHORT,
        ),
    ),
)

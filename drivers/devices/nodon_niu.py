"""NodOn NIU smart button.

Service data 0000 (the maker uses no number of its own), 16 bytes, a letter a byte:

    02 59 9C 37 D9 02 87 A5 21 52 00 06 63 5A B8 01
    .  .  .  .  .  .  .  .  .  .  C  C  B  .  .  E

    C  colour of the case: 0002 white to 0007 softberry
    B  battery in %, bits 0 to 6
    E  01 press, 02 double, 03 long, 04 released after a long press, 05 triple, 06 four times, 07 five times

The two bytes before E change with each message in a way that nobody published, so there is no counter: a press is one
until its adverts have been silent for 10 s. There is no key and no heartbeat: a dead button is found by pressing it only.
Facts from theengs/decoder (NODONNIU) and its recorded adverts. Not tried on a real button.
"""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import Advert, Advertises, AdvertVector, Decoded, Reading, Reason, Rejected, Signal, SignalKind, Title
from drivers.kit.report import Report

_SERVICE = 0x0000
_LENGTH = 16
_BATTERY_AT, _EVENT_AT = 12, 15
_RELEASED, _NONE = 0x04, 0x00
_CODES = {0x01: "press", 0x02: "double", 0x03: "long", 0x05: "triple", 0x06: "quadruple", 0x07: "quintuple"}


def decode(advert: Advert, key: bytes | None) -> Decoded:  # noqa: ARG001 - the button has no key; the shape has
    """Read one advert. Raises Rejected."""
    data = advert.service_data.get(_SERVICE)
    if data is None:
        raise Rejected(Reason.NOT_MINE, "no service data 0000")
    if len(data) < _LENGTH:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {_LENGTH} needed")
    if len(data) > _LENGTH:
        raise Rejected(Reason.UNSUPPORTED, f"{len(data)} bytes: no message of this button")
    event = data[_EVENT_AT]
    report = Report()
    if event not in (_RELEASED, _NONE):
        # A code that nobody knows is still somebody who pressed.
        report.signal(SignalKind.CALL, _CODES.get(event, f"unknown-{event:02x}"))
    report.reading("battery", data[_BATTERY_AT] & 0x7F)
    return report.decoded()


def _advert(data: str) -> Advert:
    return Advert("F4:5E:AB:00:00:01", service_data={_SERVICE: bytes.fromhex(data)})


DRIVER = Advertises(
    model="nodon-niu",
    title=Title(zh="NodOn NIU 智能按钮", en="NodOn NIU smart button"),
    decode=decode,
    may_call=True,
    level_hold_s=10.0,
    only_when_used=True,
    vectors=(
        AdvertVector(
            source="theengs/decoder tests/BLE/test_ble.cpp test_uuid[126] (NodOn NIU)",
            advert=_advert("02599c37d90287a521520006635ab801"),
            expect=Decoded((Signal(SignalKind.CALL, "press"), Reading("battery", Decimal(99)))),
        ),
        AdvertVector(
            source="theengs/decoder tests/BLE/test_ble.cpp test_uuid[129] (NodOn NIU), released",
            advert=_advert("02599c37d90287a521520006622b8104"),
            expect=Decoded((Reading("battery", Decimal(98)),)),
        ),
        AdvertVector(
            source="synthetic: test_uuid[126] without its last byte",
            advert=_advert("02599c37d90287a521520006635ab8"),
            expect=Reason.TOO_SHORT,
        ),
    ),
)

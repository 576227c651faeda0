"""BlueUp beacons with an alarm button: BlueBeacon Tag, Card, SafeX, Bangle, TagX (firmware 6).

Service data of the BlueUp advertising packet, a letter a byte:

    180F : B        battery in %
    8800 : F        flags: bit 7 alarm is on, bit 6 the tag can raise one; the others say which frames it sends

The alarm flag is a state without counter or key: a call is its edge, and it ends 25 s after the last advert that shows it.
The maker sends this packet beside iBeacon and Eddystone frames, which are not read here.
Facts from docs.blueupbeacons.com (Configuration GATT, firmware 6). No capture of one is published and none was tried.
"""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import Advert, Advertises, AdvertVector, Decoded, Reading, Reason, Rejected, Signal, SignalKind, Title
from drivers.kit.report import Report

_BLUEUP, _BATTERY = 0x8800, 0x180F
_ALARM, _CAN_ALARM = 0x80, 0x40


def decode(advert: Advert, key: bytes | None) -> Decoded:  # noqa: ARG001 - the tag has no key; the shape has
    """Read one advert. Raises Rejected."""
    data = advert.service_data.get(_BLUEUP)
    if data is None:
        raise Rejected(Reason.NOT_MINE, "no service data 8800")
    if not advert.fresh("service_data"):
        return Decoded()  # an alarm that is only shown again beside another frame of the tag would never end
    if not data:
        raise Rejected(Reason.TOO_SHORT, "no flags")
    report = Report()
    # The flag is believed also where the tag says that it has none: it may be an older firmware.
    if data[0] & (_ALARM | _CAN_ALARM):
        report.signal(SignalKind.CALL, "press", level=bool(data[0] & _ALARM))
    battery = advert.service_data.get(_BATTERY)
    report.reading("battery", battery[0] if battery else None, none=0xFF)
    return report.decoded()


def _advert(flags: str, battery: str = "5f") -> Advert:
    data = {_BATTERY: bytes.fromhex(battery), _BLUEUP: bytes.fromhex(flags)}
    return Advert("D0:00:00:00:00:01", "BlueUp-10-001234", service_data=data)


DRIVER = Advertises(
    model="blueup-tag",
    title=Title(zh="BlueUp 报警标签（SafeX 等）", en="BlueUp alarm tag (SafeX and others)"),
    decode=decode,
    may_call=True,
    vectors=(
        AdvertVector(
            source="synthetic: the layout of docs.blueupbeacons.com, alarm on",
            advert=_advert("c1"),
            expect=Decoded((Signal(SignalKind.CALL, "press", level=True), Reading("battery", Decimal(95)))),
        ),
        AdvertVector(
            source="synthetic: the layout of docs.blueupbeacons.com, no alarm",
            advert=_advert("41"),
            expect=Decoded((Signal(SignalKind.CALL, "press", level=False), Reading("battery", Decimal(95)))),
        ),
        AdvertVector(
            source="synthetic: the service without its flags",
            advert=_advert(""),
            expect=Reason.TOO_SHORT,
        ),
    ),
)

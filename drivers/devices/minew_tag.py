"""Minew tags: MSE01 and MSE02 with buttons, S4 door, PIR, vibration, tamper, water, climate, and the info frame of all.

Two kinds of frames, a letter a byte (all of them: `drivers.protocols.minew`):

    FFE1 : A1 21 64 01 AAAAAA       water is there (bit 0), battery 100 %
    0639 : 51 01 23 45 22 ...       MSE01: battery 69 %, state 22: bit 1 moving, bit 5 button 1, bit 6 button 2

States without counter or key: a press is an edge, and it ends 25 s after the last advert that shows it. (The MSE counts its
adverts, not its presses.) B10 and E8 show a press as a beacon frame of their own instead: that is the model
`beacon-button`; here they are heard by their info frame. Not tried on a real tag; the frames are the publishers' samples.
"""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import Advert, Advertises, AdvertVector, Decoded, Reading, Reason, Signal, SignalKind, Title
from drivers.kit.report import Report
from drivers.protocols import minew


def decode(advert: Advert, key: bytes | None) -> Decoded:  # noqa: ARG001 - the tags have no key; the shape has
    """Read one advert. Raises Rejected."""
    report = Report()
    for said in minew.parse(advert):
        _take(said, report)
    return report.decoded()


def _take(said: minew.Said, report: Report) -> None:
    for number, is_down in enumerate(said.buttons, start=1):
        report.signal(SignalKind.CALL, "press", channel=str(number), level=is_down)
    states = (
        (SignalKind.WATER_LEAK, "", said.water),
        (SignalKind.TAMPER, "", said.tamper),
        (SignalKind.OPENING, "open", said.opening),
        (SignalKind.MOTION, "", said.motion),
        (SignalKind.VIBRATION, "", said.vibration),
        (SignalKind.OCCUPANCY, "", None if said.people is None else said.people > 0),
    )
    for kind, code, level in states:
        if level is not None:
            report.signal(kind, code, level=level)
    report.reading("battery", said.battery, none=0xFF)
    report.reading("battery_voltage", said.battery_v)
    report.reading("temperature", said.temperature)
    report.reading("humidity", said.humidity)
    report.reading("illuminance", said.illuminance)


def _service(data: str) -> Advert:
    return Advert("AC:23:31:23:45:67", service_data={minew.SERVICE: bytes.fromhex(data)})


def _maker(data: str) -> Advert:
    return Advert("AC:23:31:23:45:67", manufacturer_data={minew.COMPANY: bytes.fromhex(data)})


DRIVER = Advertises(
    model="minew-tag",
    title=Title(zh="Minew 标签（按钮、门磁、水浸、红外等）", en="Minew tag (buttons, door, water, PIR and others)"),
    decode=decode,
    may_call=True,
    vectors=(
        AdvertVector(
            source="reelyactive/advlib-ble-manufacturers test/unit/minew.js INPUT_DATA_MSE01",
            advert=_maker("51012345220100efb598c3b498c0b63cbed37ebd0398bd"),
            expect=Decoded(
                (
                    Signal(SignalKind.CALL, "press", "1", level=True),
                    Signal(SignalKind.CALL, "press", "2", level=False),
                    Signal(SignalKind.TAMPER, level=False),
                    Signal(SignalKind.MOTION, level=True),
                    Reading("battery", Decimal(69)),
                )
            ),
        ),
        AdvertVector(
            source="reelyactive/advlib-ble-services test/unit/minew.test.js:28 WATER_DETECTION",
            advert=_service("a1216301aabbccddeeff"),
            expect=Decoded((Signal(SignalKind.WATER_LEAK, level=True), Reading("battery", Decimal(99)))),
        ),
        AdvertVector(
            source="Minew E8 product manual, info frame",
            advert=_service("a10864001302e4cdab504c5553303031"),
            expect=Decoded((Reading("battery", Decimal(100)),)),
        ),
        AdvertVector(
            source="reelyactive/advlib-ble-manufacturers test/unit/minew.js INPUT_DATA_V3_TYPE_1B_02",
            advert=_maker("ca1b0201016bd90e72020165332211ac030bb8"),
            expect=Decoded(
                (
                    Reading("battery_voltage", Decimal(3)),
                    Reading("temperature", Decimal("28.73")),
                    Reading("humidity", Decimal("1.05")),
                )
            ),
        ),
        AdvertVector(
            source="synthetic: a frame A1 of a version that nobody published",
            advert=_service("a17f6401aabbccddeeff"),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

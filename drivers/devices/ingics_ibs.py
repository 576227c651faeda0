"""Ingics iBS beacons: fall sensors iBS01G and iBS03G, and the tags of the family that have a button.

Manufacturer data, a letter a byte (all of it: `drivers.protocols.ingics`):

    0059 : 80 BC 3A 01 08 FF FF 00 00 00 00 06 03 00 00
           C  C  B  B  E  .  .  .  .  .  .  S

    B  battery in 0.01 V, little-endian
    E  state: 01 button, 02 moving, 08 fall
    S  subtype: 06 iBS01G, 16 iBS03G (company 000D, code 83BC), others have no fall bit

The beacon tells states, not events, without counter or key: button and fall are sent as levels in each advert, True and
False, and the gateway finds the edges.
"""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import (
    Advert,
    Advertises,
    AdvertVector,
    Decoded,
    Reading,
    Reason,
    Signal,
    SignalKind,
    Title,
)
from drivers.protocols import ingics


def decode(advert: Advert, key: bytes | None) -> Decoded:  # noqa: ARG001 - the protocol has no key; the shape has
    """Read one advert. Raises Rejected."""
    return Decoded(ingics.observations(ingics.parse(advert.manufacturer_data)))


def _advert(company: int, data: str) -> Advert:
    return Advert("E8:56:71:5A:54:F5", manufacturer_data={company: bytes.fromhex(data)})


DRIVER = Advertises(
    model="ingics-ibs",
    title=Title(zh="Ingics iBS 跌倒与按钮信标", en="Ingics iBS fall and button beacon"),
    decode=decode,
    may_call=True,
    vectors=(
        AdvertVector(
            source="ingics/ingics-message-parser-py tests/test_ibs01.py:107 test_ibs01g",
            advert=_advert(0x0059, "80bc3a0108ffff0000000006030000"),
            expect=Decoded(
                (
                    Signal(SignalKind.FALL, "fall", level=True),
                    Signal(SignalKind.CALL, "press", level=False),
                    Reading("battery_voltage", Decimal("3.14")),
                )
            ),
        ),
        AdvertVector(
            source="ingics/ingics-message-parser-py tests/test_ibs05.py:19 test_ibs05h",
            advert=_advert(0x082C, "83bc2d0101aaaa04000000310a1000"),
            expect=Decoded((Signal(SignalKind.CALL, "press", level=True), Reading("battery_voltage", Decimal("3.01")))),
        ),
        AdvertVector(
            source="synthetic: the iBS01G frame of test_ibs01.py:107 with the codes and subtype of an iBS03G",
            advert=_advert(0x000D, "83bc3a0108ffff0000000016030000"),
            expect=Decoded(
                (
                    Signal(SignalKind.FALL, "fall", level=True),
                    Signal(SignalKind.CALL, "press", level=False),
                    Reading("battery_voltage", Decimal("3.14")),
                )
            ),
        ),
        AdvertVector(
            source="synthetic: the iBS01G frame of test_ibs01.py:107 cut before its subtype",
            advert=_advert(0x0059, "80bc3a0108ffff00000000"),
            expect=Reason.TOO_SHORT,
        ),
        AdvertVector(
            source="synthetic: another maker's data under the company id 0059",
            advert=_advert(0x0059, "01020304"),
            expect=Reason.NOT_MINE,
        ),
    ),
)

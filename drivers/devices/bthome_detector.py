"""Detectors of smoke, gas, carbon monoxide or water that speak BTHome v2.

Service data FCD2, a letter a byte (all of it: `drivers.protocols.bthome`):

    40 00 09 01 64 29 01
    I  P  p  B  b  S  s

    I  info: 40 plain, 44 plain on a trigger, 41 and 45 encrypted
    P  object 00, packet id p: counts the messages
    B  object 01, battery b in %
    S  object 29 smoke, 1C gas, 17 carbon monoxide, 20 water: s 01 detected, 00 clear

Each raises an alarm of its own kind, which a person ends: that it is clear again is told. What else such a device may say
stands in `drivers.protocols.bthome_meaning`. An advert that no key opens may be smoke, and raises a call.
"""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import Advert, Advertises, AdvertVector, Counter, Decoded, Reading, Reason, Signal, SignalKind, Title
from drivers.protocols import bthome
from drivers.protocols.bthome_meaning import decode


def _advert(data: str, address: str = "A4:C1:38:8D:18:B2") -> Advert:
    return Advert(address, service_data={bthome.SERVICE: bytes.fromhex(data)})


DRIVER = Advertises(
    model="bthome-detector",
    title=Title(zh="BTHome 烟雾、燃气、一氧化碳、漏水探测器", en="BTHome detector of smoke, gas, CO or water"),
    decode=decode,
    key_bytes=bthome.KEY_BYTES,
    may_call=True,
    vectors=(
        AdvertVector(
            source="Bluetooth-Devices/bthome-ble tests/test_parser_v2.py::test_bthome_smoke (2901), with a packet id",
            advert=_advert("400009016415002901"),
            expect=Decoded(
                (
                    Reading("battery", Decimal(100)),
                    Signal(SignalKind.LOW_BATTERY, level=False),
                    Signal(SignalKind.SMOKE, level=True),
                ),
                Counter(9, 8, authenticated=False),
            ),
        ),
        AdvertVector(
            source="synthetic: bthome.io/format, all four at once, gas alone detected",
            advert=_advert("44170020001c012900"),
            expect=Decoded(
                (
                    Signal(SignalKind.CARBON_MONOXIDE, level=False),
                    Signal(SignalKind.WATER_LEAK, level=False),
                    Signal(SignalKind.GAS, level=True),
                    Signal(SignalKind.SMOKE, level=False),
                )
            ),
        ),
        AdvertVector(
            source="Bluetooth-Devices/bthome-ble tests/test_parser_v2.py::test_bthome_motion, under another key",
            advert=_advert("4187b90011223372b0231f", "54:48:E6:8F:80:A5"),
            key=bytes.fromhex("814aac74c4f17b6c1581e1ab87816b99"),
            expect=Reason.BAD_KEY,
        ),
    ),
)

"""Sensors that speak BTHome v2 and call nobody: doors and windows, motion, presence, vibration, climate, air.

Service data FCD2, a letter a byte (all of it: `drivers.protocols.bthome`):

    44 00 B1 01 64 05 00 00 00 2D 01 3F 00 00
    I  P  p  B  b  L  l  l  l  W  w  R  r  r     Shelly BLU Door/Window

    I  info: 40 plain, 44 plain on a trigger, 41 and 45 encrypted
    P  object 00, packet id p: counts the messages
    B  object 01, battery b in %
    L  object 05, light in 0.01 lx
    W  object 2D, window w: 01 open, 00 closed
    R  object 3F, rotation, read past

What it may say stands in `drivers.protocols.bthome_meaning`: doors and motion are told, and raise an alarm where the
configuration says `alarms_on`. A button or smoke in such a packet raises an alarm all the same; but an advert that no key
opens raises none (unless there is an `alarms_on`): for what may call, take bthome-button or bthome-detector.
"""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import Advert, Advertises, AdvertVector, Counter, Decoded, Reading, Reason, Signal, SignalKind, Title
from drivers.protocols import bthome
from drivers.protocols.bthome_meaning import decode


def _advert(data: str, address: str = "A4:C1:38:8D:18:B2") -> Advert:
    return Advert(address, service_data={bthome.SERVICE: bytes.fromhex(data)})


DRIVER = Advertises(
    model="bthome-sensor",
    title=Title(zh="BTHome 门磁、人体、温湿度等传感器", en="BTHome sensor: door, motion, climate and others"),
    decode=decode,
    key_bytes=bthome.KEY_BYTES,
    vectors=(
        AdvertVector(
            source="synthetic: Shelly BLU Door/Window as its manual orders the objects, open, 12.34 lx",
            advert=_advert("4400b1016405d204002d013f0000"),
            expect=Decoded(
                (
                    Reading("battery", Decimal(100)),
                    Reading("illuminance", Decimal("12.34")),
                    Signal(SignalKind.OPENING, channel="window", level=True),
                ),
                Counter(177, 8, authenticated=False),
            ),
        ),
        AdvertVector(
            source="Bluetooth-Devices/bthome-ble tests/test_parser_v2.py::test_bthome_motion (bindkey in the test)",
            advert=_advert("4187b90011223372b0231f", "54:48:E6:8F:80:A5"),
            key=bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932"),
            expect=Decoded(
                (Signal(SignalKind.MOTION, level=True),), Counter(857870592, 32, authenticated=True), authenticated=True
            ),
        ),
        AdvertVector(
            source="synthetic: two probes, a humidity that cannot be",
            advert=_advert("4002c40902bef60310eb"),
            expect=Decoded(
                (Reading("temperature", Decimal("25.00"), "1"), Reading("temperature", Decimal("-23.70"), "2")),
                refused=("humidity = 601.76 %",),
            ),
        ),
        AdvertVector(
            source="synthetic: an object whose length nobody knows stands first",
            advert=_advert("40ff2101"),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

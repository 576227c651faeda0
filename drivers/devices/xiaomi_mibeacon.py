"""Xiaomi MiBeacon: buttons, smoke and water detectors, doors, motion, presence, bed pads and climate, of many makers.

Service data FE95, a letter a byte (all of it: `drivers.protocols.mibeacon`):

    58 59 87 23 35 05 37 24 3C C2 18 D6 77 94 02 00 00 CB 2D E3 09
    F  F  P  P  N  M  M  M  M  M  M  .  .  .  X  X  X  T  T  T  T

    F  what follows, and the version       P  product, 2387: the button XMWXKG01LM
    N  counter, its lower 8 bits; X the 24 above: N and X tell a press from its repeats
    M  address, low byte first             T  check
    .  what is encrypted: object 4E0C of no data, pressed once

The product decides what an object means, and whether a frame that no key opens may be a call for help:
`drivers.protocols.mibeacon_products`. The key is the "BLE key" of the Xiaomi account: 32 hexadecimal digits, or 24 for the
dimmers and remotes of version 2 and 3, whose encryption proves no sender: what they say is never verified.

Tried on the frames that xiaomi-ble and ble_monitor publish, and on no device.
"""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import (
    Advert,
    Advertises,
    AdvertVector,
    Counter,
    Decoded,
    Observation,
    Reading,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Title,
)
from drivers.protocols import mibeacon
from drivers.protocols.mibeacon_products import product


def decode(advert: Advert, key: bytes | None) -> Decoded:
    """Read one frame. Raises Rejected; what is encrypted and cannot be read carries its counter."""
    front = mibeacon.head(advert)
    if not front.has_object:
        return Decoded()  # a sign of life; its counter is also that of the next event
    sender = product(front.product)
    content = mibeacon.content(front, key, harmless=not sender.may_call)
    found: list[Observation] = []
    unknown: list[str] = []
    refused: list[str] = []
    for item in content.items:
        reader = sender.objects.get(item.id)
        if reader is None:
            unknown.append(f"{item.id:04x}")
            continue
        try:
            found += reader(item.data)
        except Rejected:
            refused.append(f"object {item.id:04x} = {item.data.hex()}")
    if unknown and front.is_legacy:
        # Nothing else tells a wrong key from a right one.
        raise mibeacon.wrong_key(content.counter, harmless=not sender.may_call)
    if len(unknown) == len(content.items):
        detail = f"{sender.model}, object {' '.join(unknown)}"
        raise Rejected(Reason.UNSUPPORTED, detail, counter=content.counter)
    return Decoded(
        tuple(found), content.counter, content.authenticated, refused=tuple(refused), unprovable=front.is_legacy
    )


def _advert(address: str, data: str) -> Advert:
    return Advert(address, service_data={mibeacon.SERVICE: bytes.fromhex(data)})


DRIVER = Advertises(
    model="xiaomi-mibeacon",
    title=Title(
        zh="小米蓝牙（MiBeacon）按钮、烟雾、漏水、门磁、人体、床垫",
        en="Xiaomi MiBeacon: button, smoke, water, door, motion, bed",
    ),
    decode=decode,
    key_bytes=mibeacon.KEY_BYTES,
    read_key=mibeacon.read_key,
    may_call=True,
    vectors=(
        AdvertVector(
            source="Bluetooth-Devices/xiaomi-ble tests/test_parser.py::test_Xiaomi_XMWXKG01LM_press",
            advert=_advert("18:C2:3C:24:37:05", "58598723350537243cc218d67794020000cb2de309"),
            key=bytes.fromhex("7202a2d4201bbf82ea5bb3705657c32a"),
            expect=Decoded(
                (Signal(SignalKind.CALL, "press"),),
                Counter(0x235, 32, authenticated=True),
                authenticated=True,
            ),
        ),
        AdvertVector(
            source="Bluetooth-Devices/xiaomi-ble tests/test_parser.py::test_Xiaomi_JTYJGD03MI_smoke",
            advert=_advert("54:EF:44:E3:9C:BC", "5859970966bc9ce344ef5401081205000000715ebe90"),
            key=bytes.fromhex("5b51a7c91cde6707c9ef18dfda143a58"),
            expect=Decoded(
                (Signal(SignalKind.SMOKE, level=True),),
                Counter(0x66, 32, authenticated=True),
                authenticated=True,
            ),
        ),
        AdvertVector(
            source="custom-components/ble_monitor test_xiaomi_parser.py::test_Linptech_M1SBB",
            advert=_advert("A4:C1:38:66:E5:67", "585989187667e56638c1a4aa8902ba26000023c3bca8"),
            key=bytes.fromhex("0fdcc30fe9289254876b5ef7c11ef1f0"),
            expect=Decoded(
                (Signal(SignalKind.OPENING, level=True),),
                Counter(0x2676, 32, authenticated=True),
                authenticated=True,
            ),
        ),
        AdvertVector(
            source="Bluetooth-Devices/xiaomi-ble tests/test_parser.py, LYWSDCGQ, in plain text",
            advert=_advert("58:2D:34:3B:2E:BF", "5020aa01a3bf2e3b342d580d1004b40095020a10013b"),
            expect=Decoded(
                (
                    Reading("temperature", Decimal(18)),
                    Reading("humidity", Decimal("66.1")),
                    Reading("battery", Decimal(59)),
                ),
                Counter(0xA3, 8, authenticated=False),
            ),
        ),
        AdvertVector(
            source="Bluetooth-Devices/xiaomi-ble tests/test_parser.py::test_bindkey_wrong_legacy, YLKG07YL",
            advert=_advert("F8:24:41:C5:98:8B", "5830b603d28b98c54124f8c3491476757e00000099"),
            key=bytes.fromhex("b853075158488d3d3c977aa39a5b5ea9"),
            expect=Reason.BAD_KEY,
        ),
        AdvertVector(
            source="synthetic: the frame of XMWXKG01LM_press with the bit of a mesh device",
            advert=_advert("18:C2:3C:24:37:05", "d8598723350537243cc218d67794020000cb2de309"),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

"""Call buttons that speak BTHome v2: Shelly BLU Button1, Tough 1, Wall Switch 4, H&T with its button, own builds.

Service data FCD2, a letter a byte (all of it: `drivers.protocols.bthome`):

    40 00 1D 01 64 3A 01
    I  P  p  B  b  K  k

    I  info: 40 plain, 44 plain on a trigger, 41 and 45 encrypted
    P  object 00, packet id p: counts the messages, so it tells a press from its repeats
    B  object 01, battery b in %
    K  object 3A, button event k: 00 none, 01 press, 02 double, 03 triple, 04 long, ... 80 (old firmware FE) hold
       one object a button; on a device with several, the first is channel "1"

Any button event calls for help, also one with a code that is not known. What else such a device may say stands in
`drivers.protocols.bthome_meaning`. An advert that no key opens may be a press, and raises a call.
"""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import Advert, Advertises, AdvertVector, Counter, Decoded, Reading, Reason, Signal, SignalKind, Title
from drivers.protocols import bthome
from drivers.protocols.bthome_meaning import decode

_KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")


def _advert(data: str, address: str = "A4:C1:38:8D:18:B2") -> Advert:
    return Advert(address, service_data={bthome.SERVICE: bytes.fromhex(data)})


DRIVER = Advertises(
    model="bthome-button",
    title=Title(zh="BTHome 呼叫按钮", en="BTHome call button"),
    decode=decode,
    key_bytes=bthome.KEY_BYTES,
    may_call=True,
    vectors=(
        AdvertVector(
            source="theengs/decoder tests/BLE/test_ble.cpp test_name_mac_uuid_mfgsvcdata[0], Shelly BLU Button1",
            advert=_advert("40001d01643a01", "BC:02:6E:AA:BB:CC"),
            expect=Decoded(
                (Signal(SignalKind.CALL, "press"), Reading("battery", Decimal(100))),
                Counter(29, 8, authenticated=False),
            ),
        ),
        AdvertVector(
            source="Bluetooth-Devices/bthome-ble tests/test_parser_v2.py::test_bthome_event_triple_button_device",
            advert=_advert("403a003a013a03"),
            expect=Decoded((Signal(SignalKind.CALL, "press", "2"), Signal(SignalKind.CALL, "triple", "3"))),
        ),
        AdvertVector(
            source="synthetic: the counter and key of a bthome-ble example, encrypted by us around packet id 7, press",
            advert=_advert("41a6bf55cb00112233e9e7c705", "54:48:E6:8F:80:A5"),
            key=_KEY,
            expect=Decoded(
                (Signal(SignalKind.CALL, "press"),), Counter(857870592, 32, authenticated=True), authenticated=True
            ),
        ),
        AdvertVector(
            source="Bluetooth-Devices/bthome-ble tests/test_parser_v2.py::test_bthome_motion, under another key",
            advert=_advert("4187b90011223372b0231f", "54:48:E6:8F:80:A5"),
            key=bytes.fromhex("814aac74c4f17b6c1581e1ab87816b99"),
            expect=Reason.BAD_KEY,
        ),
        AdvertVector(
            source="theengs/decoder tests/BLE/test_ble.cpp test_uuid_name_svcdata[26], SBBT-002C; key not published",
            advert=_advert("4562511158bd25b8f093645b573115"),
            expect=Reason.NO_KEY,
        ),
    ),
)

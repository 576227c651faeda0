"""EnOcean battery-free BLE push buttons: PTM 215B, PTM 216B, PTM 535BZ (Easyfit and whatever is built on them).

Manufacturer data of company 03DA, a letter a byte (all of it: `drivers.protocols.enocean_ble`):

    5D 04 00 00 11 B2 FA 88 FF
    N  N  N  N  S  T  T  T  T

    N  sequence counter, little-endian, one more for each telegram: the gateway tells a press from its repeats by it,
       and a recording that is played again from a new press, also after a restart
    S  status: bit 0 press (else release), bits 1 to 4 the contacts A0 A1 B0 B1
    T  signature; between S and T there may be 1, 2 or 4 bytes of optional data

A press calls; its channel says which contacts were closed ("B1", "A0+B1", "" for none). A release is a message of its
own and calls nobody, unless `calls` says so: `press` (default), `release` (a cord or a switch that is pressed at rest) or
`both`, which hears a press whose own three adverts were all lost. With the key (16 bytes: hexadecimal digits or the whole
QR code of the label) the sender is proven; without it a call is unverified. A commissioning telegram shows the key in
clear: it is refused by name. There is no heartbeat and no battery, so a dead button is found by pressing it only.
Tried on the telegrams in the maker's manuals, not on a real button.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from drivers.kit import Advert, Advertises, AdvertVector, Counter, Decoded, Reason, Signal, SignalKind, Title
from drivers.kit.options import choice, known_keys
from drivers.protocols import enocean_ble

_CALLS: Final = ("press", "release", "both")


def options(raw: Mapping[str, object]) -> Advertises:
    """Read which movement calls. Raises BadOption."""
    known_keys(raw, name="map", allowed=("calls",))
    calls = choice({"calls": "press", **raw}, "calls", name="map", among=_CALLS)
    return replace(DRIVER, decode=partial(_decode, calls=calls))


def _decode(advert: Advert, key: bytes | None, *, calls: str) -> Decoded:
    """Read one advert. Raises Rejected."""
    telegram = enocean_ble.parse(advert, key)
    moved = "press" if telegram.is_press else "release"
    found = (Signal(SignalKind.CALL, moved, "+".join(telegram.contacts)),) if calls in (moved, "both") else ()
    return Decoded(found, telegram.counter, telegram.authenticated)


_KEY = bytes.fromhex("3dda31ad44767ae3ce56dce2b3ce2abb")


def _advert(data: str, address: str = "E2:15:00:00:19:B8") -> Advert:
    return Advert(address, manufacturer_data={enocean_ble.COMPANY: bytes.fromhex(data)})


DRIVER = Advertises(
    model="enocean-ptm",
    title=Title(zh="易能森 PTM 无电池蓝牙按钮", en="EnOcean PTM battery-free BLE button"),
    decode=partial(_decode, calls="press"),
    options=options,
    key_bytes=enocean_ble.KEY_BYTES,
    read_key=enocean_ble.read_key,
    may_call=True,
    only_when_used=True,
    vectors=(
        AdvertVector(
            source="EnOcean PTM 215B user manual, telegram examples",
            advert=_advert("5d04000011b2fa88ff"),
            key=_KEY,
            expect=Decoded(
                (Signal(SignalKind.CALL, "press", "B1"),), Counter(1117, 32, authenticated=True), authenticated=True
            ),
        ),
        AdvertVector(
            source="EnOcean PTM 215B user manual, telegram examples: a release with a byte of optional data",
            advert=_advert("620400001012b9feacc1"),
            key=_KEY,
            expect=Decoded((), Counter(1122, 32, authenticated=True), authenticated=True),
        ),
        AdvertVector(
            source="reelyactive/advlib-ble-manufacturers test/unit/enocean.js:17 PTM_215B_PRESS; key not published",
            advert=_advert("5f0000000909df40a3"),
            expect=Decoded((Signal(SignalKind.CALL, "press", "B0"),), Counter(95, 32, authenticated=False)),
        ),
        AdvertVector(
            source="EnOcean PTM 215B user manual, telegram examples, under the signature that it misprints",
            advert=_advert("6901000010c724eaf0", "E2:15:00:00:1B:9F"),
            key=bytes.fromhex("ab4b9a91852b70b8a652a05e92bb12a0"),
            expect=Reason.BAD_KEY,
        ),
        AdvertVector(
            source="synthetic: a commissioning telegram with a key of zeros",
            advert=_advert("71010000000000000000000000000000000000009f1b000015e2"),
            expect=Reason.KEY_IN_CLEAR,
        ),
    ),
)

"""MikroTik TG-BT5-IN and TG-BT5-OUT tags: tilt, impact and free fall, a reed switch, temperature.

Manufacturer data of company 094F, a letter a byte, numbers little-endian:

    01 00 10 A9 00 00 FD FF 01 00 00 80 6B E8 66 00 00 62
    V  U  S  S  X  X  Y  Y  Z  Z  T  T  N  N  N  N  F  B

    V  version 1
    U  bit 0: encrypted, which is not supported here (the key stays in the maker's controller)
    S  salt
    X  acceleration in g, 8.8 signed; T temperature likewise, 8000 where the tag has no sensor (IN)
    N  seconds since the tag was started
    F  what it was sent for: 01 reed switch closed, 02 tilt, 04 free fall, 08 10 20 impact along x, y, z
    B  battery in %

Free fall is not a fall of a person: somebody who slides off a bed does not fall freely, a tag that is dropped does. So it
is told as a vibration, "free-fall"; `free_fall = "fall"` (or "call") in the options makes it raise an alarm, for those who
want that. All are states without counter or key, edges count. The reed switch is an opening: open while it is not closed,
with `reed = "door"`; otherwise it is not told, since most tags have no magnet.
Facts from help.mikrotik.com (Bluetooth, advertisement payload) and a recorded advert. Not tried on a real tag.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Final

from drivers.kit import Advert, Advertises, AdvertVector, Decoded, Reading, Reason, Rejected, Signal, SignalKind, Title
from drivers.kit.options import choice, known_keys
from drivers.kit.report import Report

_COMPANY = 0x094F
_LENGTH = 18
_ENCRYPTED = 0x01
_NO_TEMPERATURE = b"\x00\x80"
_REED, _TILT, _FREE_FALL = 0x01, 0x02, 0x04
_IMPACTS = ((0x08, "x"), (0x10, "y"), (0x20, "z"))
_HUNDREDTH = Decimal("0.01")
_FREE_FALL_KINDS: Final = {"told": SignalKind.VIBRATION, "fall": SignalKind.FALL, "call": SignalKind.CALL}


@dataclass(frozen=True, slots=True)
class _Uses:
    free_fall: SignalKind = SignalKind.VIBRATION
    is_door: bool = False


def options(raw: Mapping[str, object]) -> Advertises:
    """Read what free fall and the reed switch mean. Raises BadOption."""
    known_keys(raw, name="map", allowed=("free_fall", "reed"))
    merged = {"free_fall": "told", "reed": "none", **raw}
    free_fall = choice(merged, "free_fall", name="map", among=tuple(_FREE_FALL_KINDS))
    reed = choice(merged, "reed", name="map", among=("none", "door"))
    uses = _Uses(_FREE_FALL_KINDS[free_fall], is_door=reed == "door")
    return replace(DRIVER, decode=partial(_decode, uses=uses), may_call=free_fall != "told")


def _decode(advert: Advert, key: bytes | None, *, uses: _Uses) -> Decoded:  # noqa: ARG001 - no key: sealed ones are refused
    """Read one advert. Raises Rejected."""
    data = advert.manufacturer_data.get(_COMPANY)
    if data is None:
        raise Rejected(Reason.NOT_MINE, "no manufacturer data of company 094f")
    if len(data) < _LENGTH:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {_LENGTH} needed")
    if data[0] != 1:
        raise Rejected(Reason.UNSUPPORTED, f"version {data[0]}")
    if data[1] & _ENCRYPTED:
        raise Rejected(Reason.UNSUPPORTED, "encrypted: switch the encryption of the tag off")
    flags = data[16]
    report = Report()
    report.signal(uses.free_fall, "free-fall", channel="free-fall", level=bool(flags & _FREE_FALL))
    report.signal(SignalKind.MOTION, "tilt", channel="tilt", level=bool(flags & _TILT))
    for bit, axis in _IMPACTS:
        report.signal(SignalKind.VIBRATION, "impact", channel=axis, level=bool(flags & bit))
    if uses.is_door:
        report.signal(SignalKind.OPENING, "open", level=not flags & _REED)
    report.reading("battery", data[17], none=0xFF)
    if data[10:12] != _NO_TEMPERATURE:
        report.reading(
            "temperature", (Decimal(int.from_bytes(data[10:12], "little", signed=True)) / 256).quantize(_HUNDREDTH)
        )
    return report.decoded()


def _advert(data: str) -> Advert:
    return Advert("DC:2C:6E:14:7B:DD", manufacturer_data={_COMPANY: bytes.fromhex(data)})


def _states(*on: str) -> tuple[Signal, ...]:
    names = ((SignalKind.VIBRATION, "free-fall", "free-fall"), (SignalKind.MOTION, "tilt", "tilt"))
    impacts = tuple((SignalKind.VIBRATION, "impact", axis) for _, axis in _IMPACTS)
    return tuple(Signal(kind, code, channel, channel in on) for kind, code, channel in (*names, *impacts))


DRIVER = Advertises(
    model="mikrotik-tg-bt5",
    title=Title(zh="MikroTik TG-BT5 标签（倾斜、撞击）", en="MikroTik TG-BT5 tag (tilt, impact)"),
    decode=partial(_decode, uses=_Uses()),
    options=options,
    vectors=(
        AdvertVector(
            source="custom-components/ble_monitor test/test_mikrotik.py::test_mikrotik_tg_bt5_in",
            advert=_advert("010010a90000fdff010000806be866000062"),
            expect=Decoded((*_states(), Reading("battery", Decimal(98)))),
        ),
        AdvertVector(
            source="synthetic: that advert of a tag with a sensor (-1.5 degrees), tilted, hit along y",
            advert=_advert("010010a90000fdff010080fe6be866001262"),
            expect=Decoded(
                (*_states("tilt", "y"), Reading("battery", Decimal(98)), Reading("temperature", Decimal("-1.5")))
            ),
        ),
        AdvertVector(
            source="synthetic: that advert with the free-fall flag, taken as a fall, and a door that stands open",
            advert=_advert("010010a90000fdff010000806be866000462"),
            expect=Decoded(
                (
                    Signal(SignalKind.FALL, "free-fall", "free-fall", level=True),
                    *_states()[1:],
                    Signal(SignalKind.OPENING, "open", level=True),
                    Reading("battery", Decimal(98)),
                )
            ),
            options={"free_fall": "fall", "reed": "door"},
        ),
        AdvertVector(
            source="synthetic: that advert with the flag of encryption",
            advert=_advert("010110a90000fdff010000806be866000062"),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

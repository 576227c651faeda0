"""Template of a device that advertises over BLE: an invented call button. Copy it, then change everything in it.

Manufacturer data of company FFFF (kept for tests), a letter a byte:

    B7 01 00 2A 02 5F
    M  M  N  N  E  B

    M  mark of the maker, B701
    N  counter, big-endian, one more for each press: the gateway tells a press from its repeats by it
    E  01 press, 02 long press, 00 no press (sent each hour, so that a silent button is noticed)
    B  battery in %
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

_COMPANY = 0xFFFF
_MARK = b"\xb7\x01"
_LENGTH = 6
_CODES = {0x01: "press", 0x02: "long"}


def decode(advert: Advert, key: bytes | None) -> Decoded:  # noqa: ARG001 - the invented button has no key
    """Read one advert. Raises Rejected."""
    data = advert.manufacturer_data.get(_COMPANY, b"")
    if not data.startswith(_MARK):
        raise Rejected(Reason.NOT_MINE, "no manufacturer data that begins with b701")
    if len(data) < _LENGTH:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {_LENGTH} needed")
    counter = Counter(int.from_bytes(data[2:4], "big"), 16, authenticated=False)
    found: list[Observation] = []
    if event := data[4]:
        # A code that nobody knows is still somebody who pressed.
        found.append(Signal(SignalKind.CALL, _CODES.get(event, f"unknown-{event:02x}")))
    if data[5] <= 100:
        found.append(Reading("battery", Decimal(data[5])))
    return Decoded(tuple(found), counter)


def _advert(data: str) -> Advert:
    return Advert("C0:00:00:00:00:01", manufacturer_data={_COMPANY: bytes.fromhex(data)})


DRIVER = Advertises(
    model="my-button",
    title=Title(zh="示例按钮", en="example button"),
    decode=decode,
    may_call=True,
    vectors=(
        AdvertVector(
            source="synthetic: invented for this template",
            advert=_advert("b701002a025f"),
            expect=Decoded(
                (Signal(SignalKind.CALL, "long"), Reading("battery", Decimal(95))), Counter(42, 16, authenticated=False)
            ),
        ),
        AdvertVector(
            source="synthetic: invented for this template",
            advert=_advert("b701002a"),
            expect=Reason.TOO_SHORT,
        ),
    ),
)

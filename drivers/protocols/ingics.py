"""Ingics iBS beacons: BLE manufacturer data of the companies 0059, 000D and 082C.

Layout after the company id, a letter a byte, in the order of the air:

    80BC, 83BC   C C  B B  E  F F  G G  U U  S ...      iBS01, iBS02 to iBS06, iBS08
    81BC 85 86   C C  W W  acceleration ...             iBS01RG, iBS03RG, iBS03GP, iBS05RG
    87BC         C C  B B  E  ... S (byte 17)           iBS07, iWS01

    C  code of the layout
    B  battery, 0.01 V, little-endian
    E  state: 01 button, 02 moving, 04 hall, 08 fall, 10 infrared, 20 flip, 40 input
    F  temperature, 0.01 degrees, signed; G humidity in % or 0.1 %, a second temperature, or carbon dioxide in ppm: by subtype,
       and AAAA or FFFF where there is none
    S  subtype; FF or 00 on old iBS01 firmware, which cannot say what it is
    W  bits 0-11 battery, 0.01 V; bit 12 moving; bit 13 button

The state is a level without any counter, repeated while it lasts, in clear: an edge is a press, anyone can fake it.
Movement is not told: a tag that is worn always moves. Only iBS01G, iBS03G and iBS01 firmware without a subtype report
falls. Layout read from the maker's published parsers (ingics-message-parser-py, igsparser/msd.py, and -js); checked
against their recorded adverts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from drivers.kit import Observation, Reading, Reason, Rejected, Signal, SignalKind

COMPANIES: Final = (0x0059, 0x000D, 0x082C)

_MARK = b"\xbc"
_BUTTON, _FALL, _INFRARED = 0x01, 0x08, 0x10
_WORD_BUTTON, _WORD_BATTERY = 0x2000, 0x0FFF
_SUBTYPE_AT, _IBS07_SUBTYPE_AT = 11, 17
_UNSET_TEMPERATURE = 0xFF
_UNSET = (b"\xaa\xaa", b"\xff\xff")
_HUNDREDTH, _TENTH = Decimal("0.01"), Decimal("0.1")
# Of F and of G: quantity, channel, what one is worth. Signed where it is a temperature.
_T: Final = ("temperature", "", _HUNDREDTH)
_T2: Final = ("temperature", "external", _HUNDREDTH)
_RH: Final = ("humidity", "", Decimal(1))
_RH_TENTHS: Final = ("humidity", "", _TENTH)
_CO2: Final = ("co2", "", Decimal(1))
_Field = tuple[str, str, Decimal]
_PLAUSIBLE: Final = {"temperature": (-60, 150), "humidity": (0, 100), "co2": (0, 20_000)}

# Coin cells and two AAA cells: anything above is no voltage but a filler.
_MAX_BATTERY_V = Decimal("4.00")


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    button: bool = True
    fall: bool = False
    battery: bool = True
    infrared: bool = False
    first: _Field | None = None
    second: _Field | None = None


# A subtype that is not listed gets its button heard: a press that nobody hears is worse than one that nobody made.
_UNKNOWN = _Kind("unknown")

_IBS01: Final[Mapping[int, _Kind]] = {
    0x03: _Kind("iBS01"),
    0x04: _Kind("iBS01H"),
    0x05: _Kind("iBS01T", first=_T, second=_RH),
    0x06: _Kind("iBS01G", fall=True),
    0x07: _Kind("iBS01T", first=_T, second=_RH),
}

_IBS: Final[Mapping[int, _Kind]] = {
    0x01: _Kind("iBS02PIR2", button=False, infrared=True),
    0x02: _Kind("iBS02IR2", button=False),
    0x04: _Kind("iBS02M2", button=False),
    0x10: _Kind("iBS03"),
    0x12: _Kind("iBS03P", button=False, second=_T2),
    0x13: _Kind("iBS03R", button=False),
    0x14: _Kind("iBS03T", first=_T, second=_RH),
    0x15: _Kind("iBS03T", first=_T),
    0x16: _Kind("iBS03G", fall=True),
    0x17: _Kind("iBS03TP", button=False, first=_T, second=_T2),
    0x18: _Kind("iBS04i"),
    0x19: _Kind("iBS04"),
    0x1A: _Kind("iBS03RS", button=False),
    0x1B: _Kind("iBS03F", button=False),
    0x1C: _Kind("iBS03Q", button=False),
    0x1D: _Kind("iBS03QY", button=False),
    0x30: _Kind("iBS05"),
    0x31: _Kind("iBS05H"),
    0x32: _Kind("iBS05T", first=_T),
    0x33: _Kind("iBS05G"),
    0x34: _Kind("iBS05CO2", second=_CO2),
    0x35: _Kind("iBS05i"),
    0x36: _Kind("iBS06i"),
    0x3A: _Kind("iBS05G-Flip"),
    0x40: _Kind("iBS06", button=False),
    0x41: _Kind("iBS08T", first=_T, second=_RH_TENTHS),
    0x42: _Kind("iBS08R", button=False),
    0x43: _Kind("iBS08PS", button=False),
    0x44: _Kind("iBS08PIR", button=False, infrared=True),
    0x48: _Kind("iBS08", button=False, first=("temperature", "ambient", _HUNDREDTH), second=_T),
}

_IBS07: Final[Mapping[int, _Kind]] = {0x50: _Kind("iBS07"), 0x39: _Kind("iWS01")}
_OLD_IBS01 = _Kind("iBS01", fall=True)
# Its battery field does not hold the battery.
_OLD_IBS01T = _Kind("iBS01T (old firmware)", battery=False, first=_T, second=_RH)

_WITH_WORD: Final[Mapping[int, str]] = {0x81: "iBS01RG or iBS03RG", 0x85: "iBS03GP", 0x86: "iBS05RG"}


@dataclass(frozen=True, slots=True)
class Beacon:
    """What one advert says. `button`, `fall` and `infrared` are levels, None where the beacon has none. `battery_v` in volts."""

    name: str
    battery_v: Decimal | None
    button: bool | None
    fall: bool | None
    infrared: bool | None = None
    readings: tuple[Reading, ...] = ()


def parse(manufacturer_data: Mapping[int, bytes]) -> Beacon:
    """Read one advert's manufacturer data. Raises Rejected."""
    for company in COMPANIES:
        data = manufacturer_data.get(company, b"")
        if data[1:2] == _MARK:
            return _beacon(company, data)
    raise Rejected(Reason.NOT_MINE, "no beacon data of companies 0059, 000d or 082c")


def observations(beacon: Beacon) -> tuple[Observation, ...]:
    """Return what a beacon says: fall, button and infrared as levels, the battery's voltage, what it measures."""
    found: list[Observation] = []
    if beacon.fall is not None:
        found.append(Signal(SignalKind.FALL, "fall", level=beacon.fall))
    if beacon.button is not None:
        found.append(Signal(SignalKind.CALL, "press", level=beacon.button))
    if beacon.infrared is not None:
        found.append(Signal(SignalKind.MOTION, "infrared", level=beacon.infrared))
    if beacon.battery_v is not None:
        found.append(Reading("battery_voltage", beacon.battery_v))
    return (*found, *beacon.readings)


def _beacon(company: int, data: bytes) -> Beacon:
    code = data[0]
    if code == 0x80 and company == 0x0059:
        return _with_state(data, kind=_ibs01_kind(data))
    if code == 0x83 and company != 0x0059:
        return _with_state(data, kind=_IBS.get(_byte(data, _SUBTYPE_AT), _UNKNOWN))
    if code == 0x87 and company == 0x082C:
        return _with_state(data, kind=_IBS07.get(_byte(data, _IBS07_SUBTYPE_AT), _UNKNOWN))
    if name := _WITH_WORD.get(code):
        word = _byte(data, 2) | _byte(data, 3) << 8
        return Beacon(name, _battery(word & _WORD_BATTERY), button=bool(word & _WORD_BUTTON), fall=None)
    raise Rejected(Reason.UNSUPPORTED, f"code {data[:2].hex()} of company {company:04x}")


def _ibs01_kind(data: bytes) -> _Kind:
    subtype = _byte(data, _SUBTYPE_AT)
    if subtype not in (0x00, 0xFF):
        return _IBS01.get(subtype, _UNKNOWN)
    # Firmware of old without a subtype: a temperature gives the iBS01T away; all others may be a fall sensor.
    has_temperature = _UNSET_TEMPERATURE not in (data[5], data[6])
    return _OLD_IBS01T if has_temperature else _OLD_IBS01


def _with_state(data: bytes, *, kind: _Kind) -> Beacon:
    state = data[4]
    return Beacon(
        kind.name,
        _battery(int.from_bytes(data[2:4], "little")) if kind.battery else None,
        button=bool(state & _BUTTON) if kind.button else None,
        fall=bool(state & _FALL) if kind.fall else None,
        infrared=bool(state & _INFRARED) if kind.infrared else None,
        readings=tuple(one for at, field in ((5, kind.first), (7, kind.second)) for one in _reading(data, at, field)),
    )


def _reading(data: bytes, at: int, field: _Field | None) -> tuple[Reading, ...]:
    raw = data[at : at + 2]
    if field is None or len(raw) < 2 or raw in _UNSET:
        return ()
    quantity, channel, worth = field
    value = int.from_bytes(raw, "little", signed=quantity == "temperature") * worth
    least, most = _PLAUSIBLE[quantity]
    return (Reading(quantity, value, channel),) if least <= value <= most else ()


def _battery(hundredths: int) -> Decimal | None:
    volts = Decimal(hundredths).scaleb(-2)
    return volts if 0 < volts <= _MAX_BATTERY_V else None


def _byte(data: bytes, at: int) -> int:
    if len(data) <= at:
        raise Rejected(Reason.TOO_SHORT, f"{len(data)} bytes, {at + 1} needed")
    return data[at]

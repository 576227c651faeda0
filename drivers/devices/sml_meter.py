"""German electricity meters that push SML over an optical head or a wire: eHZ, mME, eBZ, DZG, EasyMeter, Iskra, Holley, Itron.

A telegram every 1 to 4 s (all of it: `drivers.protocols.sml`, what the codes mean: `obis`):

    1B1B1B1B 01010101 76 .. 76 .. 77 07 0100010800FF 65 SSSSSSSS 01 62 1E 52 FF 59 VVVVVVVVVVVVVVVV 01 .. 1B1B1B1B 1A P SS
                              code 1-0:1.8.0*255, status, time, unit 1E (Wh), power of ten FF (-1), value, signature

Channels as those of the P1 port: phase, tariff, "import", "export", "absolute". Without its PIN a meter shows whole kilowatt
hours and no power. Histories (group F other than 255), names, keys and angles are read past. Told as refused are a unit that does
not fit, an energy below nothing, a register that stands there twice with two values, one of another channel (group B) than the
meter's own.

DZG's meters of some years send the present power without a sign in a field with one: 356.24 W comes as -299.12 W. A power that
is negative is refused for a meter of DZG, until `power` says "signed" (newer ones) or "unsigned".

Options: `power`, see above. Not tried on hardware. Limits: 8,192 bytes a telegram; readings are published every 15 minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from drivers.kit import (
    Decoded,
    LineSettings,
    Poll,
    Reading,
    Reason,
    Rejected,
    Streams,
    StreamVector,
    Title,
)
from drivers.kit.options import choice, known_keys
from drivers.protocols import obis, sml
from drivers.protocols.sml import Entry, Number, ValueList

EVERY_S: Final = 900.0
MOST_NUMBER: Final = 48
# Numbers of DLMS (IEC 62056-6-2, table 4) -> unit.
UNITS: Final = {27: "W", 28: "VA", 29: "var", 30: "Wh", 31: "VAh", 32: "varh", 33: "A", 35: "V", 44: "Hz", 255: ""}
_MOST_SCALER: Final = 9
# Before 2001 a clock was never set.
_SET: Final = 978_307_200
_MAKERS_OF_UNSIGNED: Final = (b"DZG",)
POWERS: Final = ("auto", "signed", "unsigned")
# Of the whole, and of the phases.
_NET_POWERS: Final = ((16, 7), (36, 7), (56, 7), (76, 7))


@dataclass(frozen=True, slots=True)
class Options:
    """`power`: whether a net power has a sign: "signed", "unsigned", or "auto" (refused where its maker makes it doubtful)."""

    power: str


def options(raw: Mapping[str, object]) -> Options:
    """Check the device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("power",))
    return Options(choice({"power": "auto", **raw}, "power", name="map", among=POWERS))


def decode(frame: bytes, options: Options) -> Decoded:
    """Read one telegram. Raises Rejected."""
    found: list[Reading] = []
    refused: list[str] = []
    meter = ""
    for values in sml.parse(frame):
        meter = values.server.hex()[:MOST_NUMBER] or meter
        at = None
        if values.time is not None and _SET < values.time < 1 << 32:
            at = datetime.fromtimestamp(values.time, UTC)
        for entry in values.entries:
            _take(entry, values, options, at=at, found=found, refused=refused)
    said, twice = obis.settled(found)
    refused += twice
    if not said:
        raise Rejected(Reason.IMPLAUSIBLE if refused else Reason.UNSUPPORTED, "; ".join(refused) or "no readings")
    return Decoded(said, refused=tuple(refused), meter=meter)


def _take(
    entry: Entry, values: ValueList, options: Options, *, at: datetime | None, found: list[Reading], refused: list[str]
) -> None:
    a, b, c, d, e, f = entry.code
    named = obis.meaning(c, d, e) if a == obis.ELECTRICITY and f == obis.NOW else None
    if named is None or not isinstance(entry.value, Number):
        return
    quantity, channel = named
    unit = UNITS.get(entry.unit if entry.unit is not None else 255)
    factor = obis.factor(quantity, unit) if unit is not None else None
    number = entry.value.value
    if factor is None or abs(entry.scaler) > _MOST_SCALER:
        refused.append(f"{quantity} {channel} = {number} in unit {entry.unit}, scaler {entry.scaler}")
        return
    if not obis.is_own(b):
        refused.append(f"{quantity} {channel} = {number} of channel {b}")
        return
    if number < 0 and (c, d) in _NET_POWERS:
        if options.power == "unsigned":
            number = int.from_bytes(entry.value.raw, "big")
        elif options.power == "auto" and any(maker in values.server for maker in _MAKERS_OF_UNSIGNED):
            refused.append(f"{quantity} {channel} = {number}, with or without a sign? set map.power")
            return
    reading = Reading(quantity, Decimal(number).scaleb(entry.scaler) * factor, channel, at)
    if obis.cannot_be(reading):
        refused.append(f"{quantity} {channel} = {reading.value}")
    else:
        found.append(reading)


def _hex(data: str) -> bytes:
    return bytes.fromhex(data)


_DZG: Final = _hex(
    "1b1b1b1b010101017605f12cad07620062007263010176010102310b0a01445a47000282225e7262016505e748d76202"
    "63955c007605f22cad07620062007263070177010b0a01445a47000282225e070100620affff7262016505e748d77577"
    "070100603201010172620162006200520004445a470177070100600100ff017262016200620052000b0a01445a470002"
    "82225e0177070100010800ff641c01047262016200621e52ff65033c93890177070100020800ff017262016200621e52"
    "ff650fa49a9e0177070100100700ff017262016200621b52fe538b28010101636b99007605f32cad0762006200726302"
    "01710163d90c00001b1b1b1b1a01c3e1"
)
_ISKRA: Final = _hex(
    "1b1b1b1b0101010176050f1a20606200620072630101760101050508b5760b090149534b000403df63010163c4ba0076"
    "050f1a2061620062007263070177010b090149534b000403df63070100620affff7262016507aff5dc7a77078181c782"
    "03ff010101010449534b0177070100000009ff010101010b090149534b000403df630177070100010800ff6500000182"
    "01621e52ff59000000000d637e080177070100010801ff0101621e52ff59000000000d637e080177070100010802ff01"
    "01621e52ff5900000000000000000177070100100700ff0101621b520055000000a80177070100240700ff0101621b52"
    "0055000000750177070100380700ff0101621b5200550000001601770701004c0700ff0101621b5200550000001d0177"
    "078181c78205ff0101010183020c2de05c56024e1cd45280f4a0769a95e629cae205c55c9f1683ca5419778e1d9bcfa1"
    "c577a6b36a92709ebf05ea21bd01010163291c0076050f1a206262006200726302017101630054001b1b1b1b1a00ae84"
)

DRIVER = Streams(
    model="sml-meter",
    title=Title(zh="SML 电表（德国）", en="SML electricity meter (Germany)"),
    framer=sml.framer,
    options=options,
    decode=decode,
    line=LineSettings(baud=9600, bits=8, parity="N", stop=1),
    # Nothing is asked; but one that has fallen silent is a problem.
    poll=Poll(b"", 30.0),
    readings_every_s=EVERY_S,
    vectors=(
        StreamVector(
            source="devZer0/libsml-testing ISKRA_MT175_eHZ.hex",
            frame=_ISKRA,
            expect=Decoded(
                (
                    Reading("energy_active_import", Decimal("22462.4136")),
                    Reading("energy_active_import", Decimal("22462.4136"), "T1"),
                    Reading("energy_active_import", Decimal("0.0000"), "T2"),
                    Reading("power_active", Decimal("0.168")),
                    Reading("power_active", Decimal("0.117"), "A"),
                    Reading("power_active", Decimal("0.022"), "B"),
                    Reading("power_active", Decimal("0.029"), "C"),
                ),
                meter="090149534b000403df63",
            ),
        ),
        StreamVector(
            source="devZer0/libsml-testing DZG_DVS-7412.2_jmberg.hex: a power that may have a sign, or none",
            frame=_DZG,
            expect=Decoded(
                (
                    Reading("energy_active_import", Decimal("5430.1577")),
                    Reading("energy_active_export", Decimal("26244.5726")),
                ),
                refused=("power_active  = -29912, with or without a sign? set map.power",),
                meter="0a01445a47000282225e",
            ),
        ),
        StreamVector(
            source="the same, known to be without a sign: 356.24 W",
            frame=_DZG,
            options={"power": "unsigned"},
            expect=Decoded(
                (
                    Reading("energy_active_import", Decimal("5430.1577")),
                    Reading("energy_active_export", Decimal("26244.5726")),
                    Reading("power_active", Decimal("0.35624")),
                ),
                meter="0a01445a47000282225e",
            ),
        ),
        StreamVector(
            source="synthetic: a telegram without a message of values",
            frame=_hex("1b1b1b1b0101010176050000000162006200726302017101630000001b1b1b1b1a00bb56"),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

r"""Electricity meters with a P1 port (DSMR, e-MUCS; NL, BE, LU, SE, HU, LT, AT), and the gas, water and heat meters behind them.

A telegram every 1 or 10 s (all of it: `drivers.protocols.p1`, what the codes mean: `obis`):

    /ISk5\2MT382-1000              who made it
    0-0:1.0.0(170102192002W)       its time
    1-0:1.8.1(000004.426*kWh)      energy, tariff 1
    0-1:24.1.0(003)                the meter on channel 1 is one for gas
    0-1:24.2.1(170102161005W)(00000.107*m3)
    !6EEE                          check

Channels: phase "A" to "C", "N" the neutral, tariff "T1", "import", "export" and "absolute" of powers, "M1" to "M9" for the
meters behind, whose readings have their own time. Energies, powers, volumes are published in the unit of their quantity, whatever
unit the meter writes. Told as refused are a unit that does not fit, a register that stands there twice with two values, one of
another channel (group B) than the meter's own, and a meter behind that was never heard (its time is 632525252525). Counters of
failures, texts, thresholds, switches and billing periods of before are read past. A telegram without a right check is refused,
see `p1` for those of before checks.

An encrypted telegram (Luxembourg and others) is opened with the device's `key`, 32 hexadecimal digits.

Options: `authentication_key`, 32 hexadecimal digits, where it is not Luxembourg's published one; `utc_offset_h`, the zone of
the meter's winter time (1). The port must be powered (RTS); 115200 8N1, before DSMR 4 9600 7E1.

Not tried on hardware. Limits: 9 meters behind one, 8,192 bytes a telegram; readings are published every 15 minutes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Final

from drivers.kit import (
    BadOption,
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
from drivers.kit.options import known_keys, number
from drivers.protocols import obis, p1
from drivers.protocols.p1 import Line

KEY_BYTES: Final = 16
EVERY_S: Final = 900.0
MOST_BEHIND: Final = 9
_CLOCK: Final = (0, 0, 1, 0, 0)
# The equipment identifier of the electricity meter (DSMR 5.0.2, 6.12): its text, as hexadecimal digits.
_NUMBER: Final = (0, 0, 96, 1, 1)
MOST_NUMBER: Final = 48
_VALUE: Final = re.compile(r"([+-]?\d{1,16}(?:\.\d{1,9})?)(?:\*([A-Za-z0-9]{1,8}))?")
_TIME: Final = re.compile(r"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)([WS])")
# Ten or twelve digits and nothing else: the time of a greatest demand that stands behind it.
_BARE_TIME: Final = re.compile(r"\d{10}(?:\d\d)?")

# Type of a meter behind (EN 13757-3 table 3) -> its quantity by unit.
_VOLUMES: Final = {
    3: "volume_gas", 4: "volume_heating", 6: "volume_hot_water", 7: "volume_water", 12: "volume_heating",
    0x15: "volume_hot_water", 0x16: "volume_water",
}  # fmt: skip
_HEATS: Final = {
    4: "energy_heat_joule",
    12: "energy_heat_joule",
    10: "energy_cooling_joule",
    11: "energy_cooling_joule",
}
_KILOWATT_HOURS: Final = {
    2: "energy_active_import",
    4: "energy_heat",
    12: "energy_heat",
    10: "energy_cooling",
    11: "energy_cooling",
}


@dataclass(frozen=True, slots=True)
class Options:
    """`key`: what opens an encrypted telegram, None where there is none. `winter`: the zone of a time marked W."""

    winter: timedelta
    authentication_key: bytes = field(repr=False)
    key: bytes | None = field(default=None, repr=False)


def options(raw: Mapping[str, object]) -> Options:
    """Check the device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("authentication_key", "utc_offset_h"))
    hours = number({"utc_offset_h": 1, **raw}, "utc_offset_h", name="map", least=-12, most=14)
    text = raw.get("authentication_key", p1.AUTHENTICATION_KEY.hex())
    if not isinstance(text, str) or not re.fullmatch(f"[0-9A-Fa-f]{{{2 * KEY_BYTES}}}", text):
        raise BadOption("map.authentication_key", text, "32 hexadecimal digits", zh="32 位十六进制数字")
    return Options(timedelta(hours=hours), bytes.fromhex(text))


def keyed(options: Options, key: bytes | None) -> Options:
    """Return the options with the device's key."""
    return replace(options, key=key)


def decode(frame: bytes, options: Options) -> Decoded:
    """Read one telegram. Raises Rejected."""
    is_sealed = p1.is_sealed(frame)
    if is_sealed:
        if options.key is None:
            raise Rejected(Reason.NO_KEY, "the telegram is encrypted")
        frame = p1.opened(frame, key=options.key, authentication_key=options.authentication_key)
    telegram = p1.parse(frame)
    found = _Found(telegram.lines, options).decoded()
    odd = tuple(f"line = {text!r}" for text in telegram.odd)
    # Where no check proves it a garbled number would be another meter's.
    meter = _number(telegram.lines) if telegram.is_checked or is_sealed else ""
    return replace(found, authenticated=is_sealed, refused=(*found.refused, *odd), meter=meter)


def _number(lines: tuple[Line, ...]) -> str:
    """Return the number that the meter says of itself, "" where it says none."""
    written = next((line.values[-1] for line in lines if line.code == _NUMBER), "")
    try:
        text = bytes.fromhex(written).decode("ascii")
    except ValueError:
        text = ""
    return (text if text.isprintable() and text else written)[:MOST_NUMBER]


class _Found:
    """Gathers what the lines of a telegram say."""

    def __init__(self, lines: tuple[Line, ...], options: Options) -> None:
        self._lines = lines
        self._winter = options.winter
        self._said: list[Reading] = []
        self._refused: list[str] = []
        self._types = {line.code[1]: line.values[0] for line in lines if line.code[2:] == (24, 1, 0)}
        clock = next((line.values[0] for line in lines if line.code == _CLOCK), "")
        self._clock = self._time(clock)

    def decoded(self) -> Decoded:
        """Return all of it. Raises Rejected where there is nothing."""
        for line in self._lines:
            a, b, c, d, e = line.code
            if line.period != obis.NOW:
                continue
            if a == obis.ELECTRICITY and (named := obis.meaning(c, d, e)) is not None:
                self._electricity(line, *named)
            elif a == 0 and 1 <= b <= MOST_BEHIND and c == 24 and d in (2, 3):
                self._behind(line, f"M{b}")
        said, twice = obis.settled(self._said)
        refused = (*self._refused, *twice)
        if not said:
            raise Rejected(Reason.IMPLAUSIBLE if refused else Reason.UNSUPPORTED, "; ".join(refused) or "no readings")
        return Decoded(said, refused=refused)

    def _electricity(self, line: Line, quantity: str, channel: str) -> None:
        if not obis.is_own(line.code[1]):
            self._refused.append(f"{quantity} {channel} = {line.values[-1][:30]} of channel {line.code[1]}")
            return
        at, value = self._clock, line.values[-1]
        if len(line.values) == 2 and _TIME.fullmatch(line.values[0]):  # a greatest demand has its own time
            at = self._time(line.values[0])
        elif len(line.values) == 2 and _BARE_TIME.fullmatch(value):
            at, value = None, line.values[0]
        self._keep(quantity, channel, value, at)

    def _behind(self, line: Line, channel: str) -> None:
        """Take the reading of a meter behind this one: its time and value, or the long form of before DSMR 4."""
        kind = self._types.get(line.code[1], "")
        at, value = self._time(line.values[0]), line.values[-1]
        if at is None and _TIME.fullmatch(line.values[0]):
            self._refused.append(f"{channel} = {value[:30]} at {line.values[0]}, which is no time")
            return
        if line.code[3] == 3 and len(line.values) >= 7:
            value = f"{line.values[-1]}*{line.values[-2]}"
        unit = value.partition("*")[2]
        type_ = int(kind) if re.fullmatch("[0-9]{1,3}", kind) else 0
        if unit in obis.FACTORS["m3"]:
            quantity = _VOLUMES.get(type_, "volume")
        elif unit in obis.FACTORS["GJ"]:
            quantity = _HEATS.get(type_, "energy_other_joule")
        elif unit in obis.FACTORS["kWh"]:
            quantity = _KILOWATT_HOURS.get(type_, "energy_other")
        elif not value:
            return  # a place without a meter
        else:
            self._refused.append(f"{channel} = {value[:30]}")
            return
        self._keep(quantity, channel, value, at)

    def _keep(self, quantity: str, channel: str, text: str, at: datetime | None) -> None:
        match = _VALUE.fullmatch(text)
        factor = obis.factor(quantity, match[2] or "") if match else None
        reading = (
            None if match is None or factor is None else Reading(quantity, Decimal(match[1]) * factor, channel, at)
        )
        if reading is None or obis.cannot_be(reading):
            self._refused.append(f"{quantity} {channel} = {text[:30]}")
            return
        self._said.append(reading)

    def _time(self, text: str) -> datetime | None:
        """Read a time with its mark of summer; None for one without, or that is none."""
        match = _TIME.fullmatch(text)
        if match is None:
            return None
        year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
        zone = timezone(self._winter + timedelta(hours=match[7] == "S"))
        try:
            return datetime(2000 + year, month, day, hour, minute, second, tzinfo=zone)
        except ValueError:
            return None


_DSMR5: Final = (
    b"/ISk5\\2MT382-1000\r\n\r\n1-3:0.2.8(50)\r\n0-0:1.0.0(170102192002W)\r\n0-0:96.1.1(4B384547303034303436333935353037)\r\n"
    b"1-0:1.8.1(000004.426*kWh)\r\n1-0:1.8.2(000002.399*kWh)\r\n1-0:2.8.1(000002.444*kWh)\r\n1-0:2.8.2(000000.000*kWh)\r\n"
    b"0-0:96.14.0(0002)\r\n1-0:1.7.0(00.244*kW)\r\n1-0:2.7.0(00.000*kW)\r\n0-0:96.7.21(00013)\r\n0-0:96.7.9(00000)\r\n"
    b"1-0:99.97.0(0)(0-0:96.7.19)\r\n1-0:32.32.0(00000)\r\n1-0:52.32.0(00000)\r\n1-0:72.32.0(00000)\r\n1-0:32.36.0(00000)\r\n"
    b"1-0:52.36.0(00000)\r\n1-0:72.36.0(00000)\r\n0-0:96.13.0()\r\n1-0:32.7.0(0230.0*V)\r\n1-0:52.7.0(0230.0*V)\r\n"
    b"1-0:72.7.0(0229.0*V)\r\n1-0:31.7.0(0.48*A)\r\n1-0:51.7.0(0.44*A)\r\n1-0:71.7.0(0.86*A)\r\n1-0:21.7.0(00.070*kW)\r\n"
    b"1-0:41.7.0(00.032*kW)\r\n1-0:61.7.0(00.142*kW)\r\n1-0:22.7.0(00.000*kW)\r\n1-0:42.7.0(00.000*kW)\r\n"
    b"1-0:62.7.0(00.000*kW)\r\n0-1:24.1.0(003)\r\n0-1:96.1.0(3232323241424344313233343536373839)\r\n"
    b"0-1:24.2.1(170102161005W)(00000.107*m3)\r\n0-2:24.1.0(003)\r\n0-2:96.1.0()\r\n!6EEE\r\n"
)
_CET: Final = timezone(timedelta(hours=1))
_AT: Final = datetime(2017, 1, 2, 19, 20, 2, tzinfo=_CET)

DRIVER = Streams(
    model="p1-port",
    title=Title(zh="P1 端口电表（DSMR 等）", en="electricity meter with a P1 port (DSMR and its like)"),
    framer=p1.framer,
    options=options,
    decode=decode,
    line=LineSettings(baud=115200, bits=8, parity="N", stop=1),
    # Nothing is asked; but one that has fallen silent is a problem.
    poll=Poll(b"", 30.0),
    readings_every_s=EVERY_S,
    keyed=keyed,
    key_bytes=KEY_BYTES,
    vectors=(
        StreamVector(
            source="dsmr_parser (MIT) test/example_telegrams.py TELEGRAM_V5",
            frame=_DSMR5,
            expect=Decoded(
                (
                    Reading("energy_active_import", Decimal("4.426"), "T1", _AT),
                    Reading("energy_active_import", Decimal("2.399"), "T2", _AT),
                    Reading("energy_active_export", Decimal("2.444"), "T1", _AT),
                    Reading("energy_active_export", Decimal("0.000"), "T2", _AT),
                    Reading("power_active", Decimal("0.244"), "import", _AT),
                    Reading("power_active", Decimal("0.000"), "export", _AT),
                    Reading("voltage", Decimal("230.0"), "A", _AT),
                    Reading("voltage", Decimal("230.0"), "B", _AT),
                    Reading("voltage", Decimal("229.0"), "C", _AT),
                    Reading("current", Decimal("0.48"), "A", _AT),
                    Reading("current", Decimal("0.44"), "B", _AT),
                    Reading("current", Decimal("0.86"), "C", _AT),
                    Reading("power_active", Decimal("0.070"), "A/import", _AT),
                    Reading("power_active", Decimal("0.032"), "B/import", _AT),
                    Reading("power_active", Decimal("0.142"), "C/import", _AT),
                    Reading("power_active", Decimal("0.000"), "A/export", _AT),
                    Reading("power_active", Decimal("0.000"), "B/export", _AT),
                    Reading("power_active", Decimal("0.000"), "C/export", _AT),
                    Reading("volume_gas", Decimal("0.107"), "M1", datetime(2017, 1, 2, 16, 10, 5, tzinfo=_CET)),
                ),
                meter="K8EG004046395507",
            ),
        ),
        StreamVector(
            source="dsmr_parser TELEGRAM_V2_2, shortened: no check, and the value of gas on a line of its own",
            frame=(
                b"/ISk5\\2MT382-1004\r\n\r\n1-0:1.8.1(00001.001*kWh)\r\n0-1:24.1.0(3)\r\n"
                b"0-1:24.3.0(161107190000)(00)(60)(1)(0-1:24.2.1)(m3)\r\n(00001.001)\r\n0-1:24.4.0(1)\r\n!\r\n"
            ),
            expect=Decoded(
                (
                    Reading("energy_active_import", Decimal("1.001"), "T1"),
                    Reading("volume_gas", Decimal("1.001"), "M1"),
                )
            ),
        ),
        StreamVector(
            source="dsmr_parser TELEGRAM_V5 with another digit, as a bad line makes it",
            frame=_DSMR5.replace(b"000004.426", b"000084.426"),
            expect=Reason.BAD_CHECK,
        ),
        StreamVector(
            source="synthetic: an encrypted telegram, and no key",
            frame=bytes.fromhex("db08" + "534d536770000001" + "820014" + "30" + "00000001" + "aabbcc" + "00" * 12),
            expect=Reason.NO_KEY,
        ),
    ),
)

"""What the records of an M-Bus reply become: quantities, units and channels.

A record becomes a reading in the unit of its quantity, exactly. What tells equal quantities apart stands in the channel:
"max" and "min", "error" (while an error lasted), "S1" storage, "T2" tariff, "U1" unit, "A" to "C" phase, "negative",
"uncorrected", "#2" where a meter says nothing that tells them apart. Tariffs of a meter for heat and cooling, what a further unit
counts (an input for pulses of another meter), and energy of a medium that is not known are called `energy_other` and `volume`
without saying what of. Further units of an electricity meter are left, since some makers send reactive energy there in watt
hours, unless it is known what a maker means (`UNITS_OF_MAKERS`); so are phases that a maker numbers in its own way.

What cannot be is told as refused: a total below zero; a float that repeats a whole number at a thousandth of it (meters are
known that mark kilowatt hours as watt hours there), and two whole numbers or two floats that do so both. A total of which all
bits are set is no value. Whole numbers without a unit are a count, but not those of electricity meters, which send power factors
and ratios so.

Limits: those of a reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Final

from drivers.kit import QUANTITIES, Decoded, Observation, Reading, Reason, Rejected, Signal, SignalKind
from drivers.protocols.mbus_meaning import DATE, DATE_TIME, MAKERS_OWN, MEDIA
from drivers.protocols.mbus_records import Record, Telegram

_NEGATIVE: Final = "negative"
_NONE: Final = ("no value", "no data", "nan")
_POWER_LOW, _PERMANENT, _TEMPORARY = 0x04, 0x08, 0x10

# What is counted -> unit of the standard -> quantity, and the factor to its unit.
_PLAIN: Final[Mapping[tuple[str, str], tuple[str, Decimal]]] = {
    ("mass", "kg"): ("mass", Decimal(1)),
    ("volume flow", "m3/h"): ("flow", Decimal(1)),
    ("volume flow", "m3/min"): ("flow", Decimal(60)),
    ("volume flow", "m3/s"): ("flow", Decimal(3600)),
    ("mass flow", "kg/h"): ("flow_mass", Decimal(1)),
    ("temperature difference", "K"): ("temperature_difference", Decimal(1)),
    ("pressure", "bar"): ("pressure", Decimal(1000)),
    ("operating time", "s"): ("operating_time", Decimal(1)),
    ("on time", "s"): ("on_time", Decimal(1)),
    ("heat cost units", ""): ("heat_cost_units", Decimal(1)),
    ("count", ""): ("count", Decimal(1)),
    ("error flags", ""): ("error_flags", Decimal(1)),
    ("voltage", "V"): ("voltage", Decimal(1)),
    ("current", "A"): ("current", Decimal(1)),
    ("frequency", "Hz"): ("frequency", Decimal(1)),
    ("relative humidity", "%"): ("humidity", Decimal(1)),
    ("apparent energy", "VAh"): ("energy_apparent_import", Decimal("0.001")),
    ("reactive power", "var"): ("power_reactive", Decimal("0.001")),
    ("apparent power", "VA"): ("power_apparent", Decimal("0.001")),
}
_TEMPERATURES: Final = {
    "flow temperature": "supply",
    "return temperature": "return",
    "external temperature": "external",
    "temperature": "",
}
_VOLUMES: Final = {
    "gas": "volume_gas",
    "water": "volume_water",
    "cold water": "volume_water",
    "dual water": "volume_water",
    "warm water": "volume_hot_water",
    "hot water": "volume_hot_water",
    "heat": "volume_heating",
    "cooling": "volume_heating",
    "heat and cooling": "volume_heating",
}
_ANY_TARIFF: Final = -1
# Maker, unit, tariff -> what its electricity meters count there, in watt hours and watts ("": nothing known).
# ABB: manual of A41 and A42, 2CMC484002M0201, chapter on M-Bus; IME: wmbusmeters, driver nemo.
UNITS_OF_MAKERS: Final[Mapping[tuple[str, int, int], tuple[str, str]]] = {
    ("ABB", 1, _ANY_TARIFF): ("energy_active_export", "power_active"),
    ("ABB", 2, _ANY_TARIFF): ("energy_reactive_import", "power_reactive"),
    ("ABB", 3, _ANY_TARIFF): ("energy_reactive_export", "power_reactive"),
    ("IME", 1, 1): ("energy_active_import", "power_active"),
    ("IME", 2, 1): ("energy_reactive_import", "power_reactive"),
    ("ELT", 1, 0): ("", "power_reactive"),
    ("FIN", 1, 0): ("", "power_reactive"),
    ("SBC", 1, 0): ("", "power_reactive"),
}
# Makers whose electricity meters number phases behind the code for what is their own: 0 all of them, 1 to 3 each.
# SBC: data sheet of ALE3 with M-Bus, page 5; Eltako and Finder send the same telegram (wmbusmeters' tests, hottis.de).
_NUMBER_PHASES: Final = ("ELT", "FIN", "SBC")
_NUMBERED: Final[Mapping[int, tuple[str, ...]]] = {0: (), 1: ("A",), 2: ("B",), 3: ("C",)}


def readings(telegrams: list[Telegram], *, zone: timezone, missing: str) -> Decoded:
    """Return what the telegrams of one reply say. `missing`: why a further one is not there.

    Raises Rejected where they say nothing.
    """
    return _Gathered(telegrams, zone).decoded(missing=missing)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a reading goes: its channel, and that with the number of how often it stood before."""

    quantity: str
    channel: str
    numbered: str

    def __str__(self) -> str:
        return f"{self.quantity} {self.numbered}".rstrip()


class _Gathered:
    """Gathers what the telegrams of one reply say."""

    def __init__(self, telegrams: list[Telegram], zone: timezone) -> None:
        self._header = telegrams[0].header
        self._medium = MEDIA.get(self._header.medium, "unknown")
        self._records = [record for telegram in telegrams for record in telegram.records]
        self._zone = zone
        self._said: dict[tuple[str, str], Reading] = {}
        self._times: dict[tuple[str, str], int] = {}
        # Of each total: places with their values, and whether they were sent as floats.
        self._totals: dict[tuple[str, str], list[tuple[_Place, Decimal, bool]]] = {}
        self._refused: list[str] = []
        self._unread = 0

    def decoded(self, *, missing: str) -> Decoded:
        """Return all of it; `missing`: why a further telegram is not there. Raises Rejected where there is no reading at all."""
        told = [f"further telegram = {missing}"] if missing else []
        for index, record in enumerate(self._records):
            self._record(index, record)
        if not self._said:
            if self._refused:
                raise Rejected(Reason.IMPLAUSIBLE, "; ".join((*told, *self._refused)))
            raise Rejected(Reason.UNSUPPORTED, "; ".join(("no readings", *told)))
        status = self._header.status
        extra: list[Observation] = [Reading("status_word", Decimal(status))]
        if self._unread:
            extra.append(Reading("records_unread", Decimal(self._unread)))
        extra += [
            Signal(SignalKind.LOW_BATTERY, level=bool(status & _POWER_LOW)),
            Signal(SignalKind.PROBLEM, "permanent", "permanent", level=bool(status & _PERMANENT)),
            Signal(SignalKind.PROBLEM, "temporary", "temporary", level=bool(status & _TEMPORARY)),
        ]
        return Decoded((*self._said.values(), *extra), refused=(*told, *self._refused))

    def _record(self, index: int, sent: Record) -> None:
        record = self._with_phase(sent)
        meaning = record.meaning
        if meaning is None or record.foreign or meaning.quantity in (DATE, DATE_TIME):
            self._unread += meaning is None or bool(record.foreign)
            return
        named = self._quantity(record)
        if named is None:
            self._unread += 1
            return
        quantity, part, factor = named
        told = quantity.endswith("_export") or quantity.startswith("energy_cooling")
        place = self._place(quantity, _channel(record, part, told=told))
        if record.invalid in _NONE or (record.invalid and record.function == "error"):
            pass  # the meter says itself that it has none
        elif record.invalid:
            self._refused.append(f"record {index}, {meaning.quantity} = {record.invalid}")
        elif isinstance(record.value, Decimal):
            if QUANTITIES[quantity].cumulative:
                self._total(record, place, record.value * factor)
            else:
                self._keep(place, record.value * factor, self._time(record))
        elif record.value is not None:
            self._unread += 1

    def _with_phase(self, record: Record) -> Record:
        """Return a record with the phase that its maker's own code means, where that is known."""
        codes = record.foreign
        if self._header.maker not in _NUMBER_PHASES or len(codes) != 2 or codes[0] & 0x7F != MAKERS_OWN:
            return record
        phase = _NUMBERED.get(codes[1])
        return record if phase is None else replace(record, foreign=b"", marks=record.marks + phase)

    def _place(self, quantity: str, channel: str) -> _Place:
        """Return where a reading goes. What stands again is numbered in its order: places must not move with values."""
        times = self._times[quantity, channel] = self._times.get((quantity, channel), 0) + 1
        return _Place(quantity, channel, channel if times == 1 else f"{channel}#{times}")

    def _keep(self, place: _Place, value: Decimal, at: datetime | None) -> None:
        self._said[place.quantity, place.numbered] = Reading(place.quantity, value, place.numbered, at)

    def _total(self, record: Record, place: _Place, value: Decimal) -> None:
        """Add a register that only grows, unless it cannot be what it says."""
        if record.raw.count(0xFF) == len(record.raw) and not record.real:
            return
        if value < 0 and _NEGATIVE not in record.marks:
            self._refused.append(f"{place} = {value}: a total below zero")
            return
        self._keep(place, value, self._time(record))
        beside = self._totals.setdefault((place.quantity, place.channel), [])
        for before, other, was_real in beside:
            if not _is_thousandfold(value, other):
                continue
            if was_real or not record.real:
                self._take_back(before, other, beside=value)
            if record.real or not was_real:
                self._take_back(place, value, beside=other)
        beside.append((place, value, record.real))

    def _take_back(self, place: _Place, value: Decimal, *, beside: Decimal) -> None:
        if self._said.pop((place.quantity, place.numbered), None) is not None:
            self._refused.append(f"{place} = {value}: {beside} stands beside it, a thousand times more or less")

    def _time(self, record: Record) -> datetime | None:
        """Return when a value was so: the date of its storage, or the meter's clock where it is not stored."""
        if record.function:
            return None
        for one in self._records:
            if one.storage == record.storage and not (
                one.function or one.tariff or one.unit or one.foreign or one.marks
            ):
                if isinstance(one.value, datetime):
                    return one.value.replace(tzinfo=self._zone)
                if isinstance(one.value, date) and one.storage:
                    return datetime(one.value.year, one.value.month, one.value.day, tzinfo=self._zone)
        return None

    def _quantity(self, record: Record) -> tuple[str, str, Decimal] | None:
        """Return quantity, part of its channel, and factor; None for what is no quantity here."""
        assert record.meaning is not None  # noqa: S101 - `_record` leaves out what has none
        what, unit = record.meaning.quantity, record.meaning.unit
        if what in _TEMPERATURES and unit == "Cel":
            return "temperature", _TEMPERATURES[what], Decimal(1)
        if what == "energy":
            return self._energy(record, unit)
        if what == "power":
            return self._power(record, unit)
        if what == "volume":
            return _VOLUMES.get(self._medium, "volume") if not record.unit else "volume", "", Decimal(1)
        if what == "reactive energy":
            return f"energy_reactive_{'export' if _NEGATIVE in record.marks else 'import'}", "", Decimal("0.001")
        if what == "count" and not self._is_count(record):
            return None
        plain = _PLAIN.get((what, unit))
        return None if plain is None else (plain[0], "", plain[1])

    def _is_count(self, record: Record) -> bool:
        """Is a number without a unit a count of something? Not a float or a fraction, nor what an electricity meter sends so."""
        whole = isinstance(record.value, Decimal) and record.value.as_tuple().exponent == 0
        return (whole or record.value is None) and not record.real and self._medium != "electricity"

    def _of_unit(self, record: Record) -> tuple[str, str] | None:
        maker, unit = self._header.maker, record.unit
        return UNITS_OF_MAKERS.get((maker, unit, record.tariff)) or UNITS_OF_MAKERS.get((maker, unit, _ANY_TARIFF))

    def _energy(self, record: Record, unit: str) -> tuple[str, str, Decimal] | None:
        is_negative = _NEGATIVE in record.marks
        if self._medium == "electricity":
            if unit == "Wh" and (of_unit := self._of_unit(record)) is not None and of_unit[0]:
                return of_unit[0], "", Decimal("0.001")
            kind = "energy_active_export" if is_negative else "energy_active_import"
            return (kind, "", Decimal("0.001")) if unit == "Wh" and not record.unit else None
        kind = {"heat": "energy_heat", "cooling": "energy_cooling"}.get(self._medium, "energy_other")
        if self._medium == "heat and cooling" and not record.tariff:
            kind = "energy_cooling" if is_negative else "energy_heat"
        if record.unit:
            kind = "energy_other"
        if unit == "Wh":
            return kind, "", Decimal("0.001")
        return (f"{kind}_joule", "", Decimal("0.000000001")) if unit == "J" else None

    def _power(self, record: Record, unit: str) -> tuple[str, str, Decimal] | None:
        if self._medium == "electricity":
            if unit == "W" and (of_unit := self._of_unit(record)) is not None:
                return of_unit[1], "", Decimal("0.001")
            return ("power_active", "", Decimal("0.001")) if unit == "W" and not record.unit else None
        if unit == "J/h":
            return "power_heat_joule", "", Decimal("0.000000001")
        is_heat = self._medium in ("heat", "cooling", "heat and cooling") and not record.unit
        return "power_heat" if is_heat else "power_other", "", Decimal("0.001")


def _is_thousandfold(one: Decimal, other: Decimal) -> bool:
    """Is one a thousand times the other, but for what a float rounds and what was counted in between?"""
    small, large = sorted((abs(one), abs(other)))
    return bool(small) and abs(large - 1000 * small) <= large * Decimal("0.005")


def _channel(record: Record, part: str, *, told: bool) -> str:
    """Say what tells a record from others of its quantity. `told`: that it is negative makes a quantity of its own."""
    marks = [mark for mark in record.marks if not (told and mark == _NEGATIVE)]
    places = (("S", record.storage), ("T", record.tariff), ("U", record.unit))
    numbered = [f"{letter}{count}" for letter, count in places if count]
    return "/".join(one for one in (part, *numbered, *marks, record.function) if one)

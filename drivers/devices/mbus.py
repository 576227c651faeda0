"""Heat, water, gas and electricity meters on an M-Bus (EN 13757): primary and secondary addresses, replies of several telegrams.

One poll; a letter a byte (all of it: `drivers.protocols.mbus`, what the data means: `mbus_records` and `mbus_meaning`):

    10 40 A S 16 -> E5                            the meter begins its turns anew (at 253: nobody is selected any more)
    68 0B 0B 68 53 FD 52 N... S 16 -> E5          selected, where the address is a secondary one
    10 7B A S 16 -> 68 L L 68 08 A 72 D... S 16   the data; 5B and 7B turn about while the meter says that more follows (1F)

Addresses: "1" to "250"; "254" for the only meter on a line; 8 digits of the number on the meter, or 16 hexadecimal digits:
number, maker, version, medium as `gateway scan` shows them; F in place of any digit fits all.

A record becomes a reading in the unit of its quantity, exactly. What tells equal quantities apart stands in the channel:
"max" and "min", "error" (while an error lasted), "S1" storage, "T2" tariff, "U1" unit, "negative", "uncorrected", "#2" where a
meter says nothing that tells them apart. Tariffs of a meter for heat and cooling, what a further unit counts (an input for
pulses of another meter), and energy of a medium that is not known are called `energy_other` and `volume` without saying what of.
The date of a storage goes with its readings. Whatever is no quantity here (numbers, versions, what a maker marks with codes of
its own) is counted as `records_unread`; a record that is no number is told as refused. Bits of the status byte are told as
low battery and as problem. The meter is never written to: the protocol module can build resets of the link, questions and
selections.

Options: `utc_offset_h`, hours that the meter's clock is ahead of UTC (8); `timeout_s`, how long an answer may take, 1 to 20 s
(4; at 300 baud 12). Many battery meters allow one reading an hour only, so that is how often one is asked.

Not tried on hardware. Limits: 16 telegrams a reply, 2 tries each: a dead meter takes 10 s.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Final

from drivers.kit import (
    Answers,
    AnswerVector,
    Ask,
    BadOption,
    Decoded,
    LineSettings,
    NoReply,
    Observation,
    Reading,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Title,
)
from drivers.kit.options import known_keys, number
from drivers.kit.searching import Found, Heard, Noisy, Search, Searching, lines
from drivers.protocols import mbus, mbus_records
from drivers.protocols.mbus_meaning import DATE, DATE_TIME, MEDIA
from drivers.protocols.mbus_records import Header, Record, Telegram

MOST_TELEGRAMS: Final = 16
RESET_TIMEOUT_S: Final = 0.5
ACK_TIMEOUT_S: Final = 1.0
EVERY_S: Final = 3_600.0
ADDRESS: Final = Title(
    zh="主地址 1 到 250（线上只有一块表时可写 254），或表号 8 位，或二级地址 16 位十六进制（F 表示任意）",
    en="a primary address from 1 to 250 (254 for the only meter), the meter's 8 digits, or 16 hexadecimal digits (F fits any)",
)
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


@dataclass(frozen=True, slots=True)
class Target:
    """A meter: the primary address to ask at, the secondary address to select before ("" for none), and its ways."""

    address: int
    secondary: str
    zone: timezone
    timeout_s: float


def options(address: str, raw: Mapping[str, object]) -> Target:
    """Check address and options. Raises BadOption."""
    known_keys(raw, name="map", allowed=("utc_offset_h", "timeout_s"))
    raw = {"utc_offset_h": 8, "timeout_s": 4, **raw}
    hours = number(raw, "utc_offset_h", name="map", least=-12, most=14)
    timeout_s = number(raw, "timeout_s", name="map", least=1, most=20)
    zone = timezone(timedelta(hours=hours))
    if re.fullmatch("[0-9]{1,3}", address) and (1 <= int(address) <= mbus.MAX_PRIMARY or int(address) == mbus.ANYBODY):
        return Target(int(address), "", zone, timeout_s)
    secondary = address.upper() + ("FFFFFFFF" if len(address) == 8 else "")
    if not re.fullmatch("[0-9A-F]{16}", secondary):
        raise BadOption("address", address, ADDRESS.en, zh=ADDRESS.zh)
    return Target(mbus.SELECTED, secondary, zone, timeout_s)


def talk(target: Target) -> Generator[Ask, bytes, Decoded]:
    """Poll once. Raises Rejected where the meter refuses, another answers, or its reply is no reading; NoReply passes."""
    with suppress(NoReply):  # nobody need be selected, and not every meter says that it has understood
        yield Ask(mbus.reset_request(target.address), mbus.is_ack, RESET_TIMEOUT_S, retries=0)
    if target.secondary:
        reply = yield Ask(mbus.select_request(target.secondary), mbus.is_ack, ACK_TIMEOUT_S, retries=2)
        if not mbus.is_ack(reply):
            raise Rejected(Reason.NOT_MINE, "no acknowledgement of the selection")
    telegrams: list[Telegram] = []
    last, missing = b"", ""
    while not telegrams or telegrams[-1].more:
        ask = Ask(
            mbus.data_request(target.address, turn=len(telegrams) % 2 == 0),
            lambda frame: mbus.answers(frame, address=target.address),
            target.timeout_s,
            retries=1,
        )
        try:
            reply = yield ask
        except NoReply:
            if not telegrams:
                raise
            missing = "no answer"
            break
        if not mbus.answers(reply, address=target.address):
            raise Rejected(Reason.NOT_MINE, "no answer to the question for data")
        if reply == last or len(telegrams) == MOST_TELEGRAMS:
            missing = "the one before once more" if reply == last else "one too many"
            break
        last, frame = reply, mbus.parse(reply)
        telegram = mbus_records.read(frame.information, frame.data)
        _same_meter(target, telegram.header, telegrams)
        telegrams.append(telegram)
    return _Found(telegrams, target.zone).decoded(missing=missing)


def _same_meter(target: Target, header: Header, before: list[Telegram]) -> None:
    """See that who answers is who was selected, and who answered before. Raises Rejected."""
    if before and header.number != before[0].header.number:
        raise Rejected(Reason.NOT_MINE, f"meter {header.number} goes on where {before[0].header.number} began")
    if target.secondary and header.secondary:
        pairs = zip(target.secondary, header.secondary.upper(), strict=True)
        if not all(asked in ("F", said) for asked, said in pairs):
            raise Rejected(Reason.NOT_MINE, f"meter {header.secondary} answers for {target.secondary}")


class _Found:
    """Gathers what the telegrams of one reply say."""

    def __init__(self, telegrams: list[Telegram], zone: timezone) -> None:
        self._header = telegrams[0].header
        self._medium = MEDIA.get(self._header.medium, "unknown")
        self._records = [record for telegram in telegrams for record in telegram.records]
        self._zone = zone
        self._said: dict[tuple[str, str], Reading] = {}
        self._times: dict[tuple[str, str], int] = {}
        self._refused: list[str] = []
        self._unread = 0

    def decoded(self, *, missing: str) -> Decoded:
        """Return all of it; `missing`: why a further telegram is not there. Raises Rejected where there is no reading at all."""
        if missing:
            self._refused.append(f"further telegram = {missing}")
        for index, record in enumerate(self._records):
            self._record(index, record)
        if not self._said:
            raise Rejected(
                Reason.IMPLAUSIBLE if self._refused else Reason.UNSUPPORTED, "; ".join(self._refused) or "no readings"
            )
        status = self._header.status
        extra: list[Observation] = [Reading("status_word", Decimal(status))]
        if self._unread:
            extra.append(Reading("records_unread", Decimal(self._unread)))
        extra += [
            Signal(SignalKind.LOW_BATTERY, level=bool(status & _POWER_LOW)),
            Signal(SignalKind.PROBLEM, "permanent", "permanent", level=bool(status & _PERMANENT)),
            Signal(SignalKind.PROBLEM, "temporary", "temporary", level=bool(status & _TEMPORARY)),
        ]
        return Decoded((*self._said.values(), *extra), refused=tuple(self._refused))

    def _record(self, index: int, record: Record) -> None:
        meaning = record.meaning
        if meaning is None or record.foreign or meaning.quantity in (DATE, DATE_TIME):
            self._unread += meaning is None or bool(record.foreign)
            return
        named = self._quantity(record)
        if named is None:
            self._unread += 1
        elif record.invalid in _NONE or (record.invalid and record.function == "error"):
            pass  # the meter says itself that it has none
        elif record.invalid:
            self._refused.append(f"record {index}, {meaning.quantity} = {record.invalid}")
        elif isinstance(record.value, Decimal):
            quantity, part, factor = named
            channel = _channel(record, part, told=quantity.endswith("_export") or quantity.startswith("energy_cooling"))
            self._keep(quantity, channel, record.value * factor, self._time(record))
        elif record.value is not None:
            self._unread += 1

    def _keep(self, quantity: str, channel: str, value: Decimal, at: datetime | None) -> None:
        """Add a reading. What stands again is numbered in its order, whatever its value: places must not move with values."""
        times = self._times[quantity, channel] = self._times.get((quantity, channel), 0) + 1
        numbered = channel if times == 1 else f"{channel}#{times}"
        self._said[quantity, numbered] = Reading(quantity, value, numbered, at)

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
        plain = _PLAIN.get((what, unit))
        return None if plain is None else (plain[0], "", plain[1])

    def _energy(self, record: Record, unit: str) -> tuple[str, str, Decimal] | None:
        """Further units of an electricity meter are left: some makers send reactive energy there, in watt hours."""
        is_negative = _NEGATIVE in record.marks
        if self._medium == "electricity":
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
            return ("power_active", "", Decimal("0.001")) if unit == "W" and not record.unit else None
        if unit == "J/h":
            return "power_heat_joule", "", Decimal("0.000000001")
        is_heat = self._medium in ("heat", "cooling", "heat and cooling") and not record.unit
        return "power_heat" if is_heat else "power_other", "", Decimal("0.001")


def _channel(record: Record, part: str, *, told: bool) -> str:
    """Say what tells a record from others of its quantity. `told`: that it is negative makes a quantity of its own."""
    marks = [mark for mark in record.marks if not (told and mark == _NEGATIVE)]
    places = (("S", record.storage), ("T", record.tariff), ("U", record.unit))
    numbered = [f"{letter}{count}" for letter, count in places if count]
    return "/".join(one for one in (part, *numbered, *marks, record.function) if one)


def _hex(data: str) -> bytes:
    return bytes.fromhex(data)


_ITRON: Final = datetime(2012, 1, 24, 13, 29, tzinfo=timezone(timedelta(hours=8)))
_WELL: Final = (
    Signal(SignalKind.LOW_BATTERY, level=False),
    Signal(SignalKind.PROBLEM, "permanent", "permanent", level=False),
    Signal(SignalKind.PROBLEM, "temporary", "temporary", level=False),
)

# A meter answers within 330 bit times and 50 ms (EN 13757-2, 5.7.5.2); converters add theirs.
SEARCH_TIMEOUT_S: Final = 0.5
_UNKNOWN: Final = "F" * 16
_NUMBER_DIGITS: Final = 8


def _search() -> Search:
    """Reset the link of each primary address, which an E5 answers; then select by the digits of the number (13757-3, 11.5)."""
    numbers: set[str] = set()
    for address in range(1, 251):
        heard = yield Ask(mbus.reset_request(address), mbus.is_ack, SEARCH_TIMEOUT_S, retries=0)
        if heard.frame is not None:
            data = yield from _data(address)
            header = None if data.frame is None else _header(data.frame)
            if header is not None and header.number:
                numbers.add(header.number)
                yield Found(str(address), about=header.secondary)
            elif data.frame is not None:
                yield Found(str(address))
    yield from _selected("", numbers)


def _selected(digits: str, known: set[str]) -> Search:
    """Look for meters whose number begins with `digits`, except those whose number is `known`."""
    yield from _silently(Ask(mbus.reset_request(mbus.SELECTED), mbus.is_ack, SEARCH_TIMEOUT_S, retries=0))
    heard = yield Ask(mbus.select_request((digits + _UNKNOWN)[:16]), mbus.is_ack, SEARCH_TIMEOUT_S, retries=1)
    if heard.silent:
        return
    data = yield from _data(mbus.SELECTED)
    header = None if data.frame is None else _header(data.frame)
    if header is not None and not data.crowded:
        if header.number not in known:
            known.add(header.number)
            yield Found(header.secondary.upper())
    elif len(digits) < _NUMBER_DIGITS:
        for digit in "0123456789":
            yield from _selected(digits + digit, known)
    elif heard.crowded:
        raise Noisy  # no two meters have one number, and an E5 of several is still an E5


def _data(address: int) -> Generator[Ask, Heard, Heard]:
    there = partial(mbus.answers, address=address)
    heard = yield Ask(mbus.data_request(address, turn=True), there, 1.5, retries=1)
    return heard


def _silently(ask: Ask) -> Generator[Ask, Heard, None]:
    yield ask


def _header(frame: bytes) -> Header | None:
    try:
        parsed = mbus.parse(frame)
        return mbus_records.read(parsed.information, parsed.data).header
    except Rejected:
        return None


DRIVER = Answers(
    model="mbus",
    title=Title(zh="M-Bus 仪表（热、水、气、电）", en="M-Bus meter: heat, water, gas, electricity"),
    framer=mbus.framer,
    options=options,
    talk=talk,
    line=LineSettings(baud=2400, bits=8, parity="E", stop=1),
    search=Searching(
        _search,
        lines("2400 8E1", "2400 8N1", "300 8E1", "9600 8E1"),
        questions=252,
        timeout_s=SEARCH_TIMEOUT_S,
    ),
    every_s=EVERY_S,
    vectors=(
        AnswerVector(
            source="libmbus (BSD-3-Clause, Raditex Control AB) itron_bm_+m.hex, water meter 11490378 (the requests are ours)",
            address="8",
            exchange=(
                (_hex("1040084816"), _hex("e5")),
                (
                    _hex("107b088316"),
                    _hex(
                        "683c3c680808727803491177040e16290000000c7878034911041331d40000426c000044130000"
                        "0000046d1d0d98110227000009fd0e0209fd0f060f00008f13e816"
                    ),
                ),
            ),
            expect=Decoded(
                (
                    Reading("volume_water", Decimal("54.321"), "", _ITRON),
                    Reading("volume_water", Decimal("0.000"), "S1"),
                    Reading("operating_time", Decimal(0), "", _ITRON),
                    Reading("status_word", Decimal(0)),
                    Reading("records_unread", Decimal(3)),
                    *_WELL,
                )
            ),
        ),
        AnswerVector(
            source="libmbus sen_pollusonic_2.hex: fixed structure, heat meter 91929393 that does not answer the reset",
            address="1",
            exchange=(
                (_hex("1040014116"), None),
                (_hex("107b017c16"), _hex("68131368080173939291901000056931650000690000003f16")),
            ),
            expect=Decoded(
                (
                    Reading("energy_heat", Decimal(6531)),
                    Reading("volume_heating", Decimal("0.069")),
                    Reading("status_word", Decimal(0)),
                    *_WELL,
                )
            ),
        ),
        AnswerVector(
            source="synthetic: a secondary address and two telegrams",
            address="12345678",
            exchange=(
                (_hex("1040fd3d16"), _hex("e5")),
                (_hex("680b0b6853fd5278563412ffffffffb216"), _hex("e5")),
                (_hex("107bfd7816"), _hex("68151568080572785634122440010755080000" + "0313153100" + "1fd716")),
                (_hex("105bfd5816"), _hex("68131368080572785634122440010756080000" + "02052a00" + "8e16")),
            ),
            expect=Decoded(
                (
                    Reading("volume_water", Decimal("12.565")),
                    Reading("energy_other", Decimal("4.2")),
                    Reading("status_word", Decimal(8)),
                    Signal(SignalKind.LOW_BATTERY, level=False),
                    Signal(SignalKind.PROBLEM, "permanent", "permanent", level=True),
                    Signal(SignalKind.PROBLEM, "temporary", "temporary", level=False),
                )
            ),
        ),
        AnswerVector(
            source="libmbus error/application_busy.hex, asked at 1",
            address="1",
            exchange=((_hex("1040014116"), _hex("e5")), (_hex("107b017c16"), _hex("68040468080170088116"))),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

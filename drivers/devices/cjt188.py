"""Water, hot water, heat, cooling and gas meters that answer CJ/T 188 on RS-485, or on an M-Bus converter.

One poll is one question; a letter a byte (all of it: `drivers.protocols.cjt188`, what the data means: `cjt188_layouts`):

    FE FE FE FE 68 T AAAAAAAAAAAAAA 01 03 90 1F 00 S 16     asked
    68 T AAAAAAAAAAAAAA 81 16 90 1F 00 VVVVVVVV U VVVVVVVV U CCCCCCCCCCCCCC TT S 16
                                                            water, gas: total, total at settlement, clock, status
    68 T AAAAAAAAAAAAAA 81 2E 90 1F 00 VVVVVVVV U ... S 16  heat: energies, power, flow, volume, temperatures, hours

The identifier goes out as 90 1F first, and as 1F 90 where that is not answered, or the other way round: as the dialect says.
Channel "S1" is what the meter kept of its last settlement day. What the meter has no value for (FF, or 99) is left
out; what is no number, or has no sure unit, is told as refused and never guessed. The status word is published as it is;
valve and battery are read from it only under a dialect that knows its bits. The valve is never operated: the protocol
module cannot build such a frame.

Options: `meter`, what is metered (METERS); `dialect`, how the maker writes (DIALECTS of `cjt188_layouts`), "auto" unless it
is named: that takes what fits one way only. The address is the 14 digits on the meter, AA in their place asks the only
one on a line. Many meters are powered by a battery: every 15 minutes is often enough.

Not tried on hardware. Limits: 2 identifiers asked, each twice, 2 s a request: a dead meter takes 8 s.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
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
from drivers.kit.fields import CHINA
from drivers.kit.options import choice, known_keys
from drivers.kit.searching import Searching, lines
from drivers.protocols import cjt188, cjt188_layouts, meter_search
from drivers.protocols.cjt188_layouts import DIALECTS, HEAT, WATER, Data, Dialect

METERS: Final[Mapping[str, int]] = {
    "cold-water": 0x10,
    "hot-water": 0x11,
    "drinking-water": 0x12,
    "grey-water": 0x13,
    "heat": 0x20,
    "cooling": 0x21,
    "heat-cooling": 0x25,
    "gas": 0x30,
}
_COOLING: Final = METERS["cooling"]
_WATERS: Final[Mapping[int, str]] = {
    0x10: "volume_water",
    0x11: "volume_hot_water",
    0x12: "volume_drinking_water",
    0x13: "volume_grey_water",
}
ADDRESS: Final = Title(
    zh="表上的 14 位表号；线上只有这一块表时可写 AAAAAAAAAAAAAA",
    en="the 14 digits on the meter, or AAAAAAAAAAAAAA for the only one",
)
# 72 bytes back take 330 ms at 2400 baud; what the meter may think is not said, converters to M-Bus add theirs.
TIMEOUT_S: Final = 2.0
RETRIES: Final = 1
SETTLEMENT: Final = "settlement"
# The last settlement day, as other meters call it.
LAST: Final = "S1"


@dataclass(frozen=True, slots=True)
class Target:
    """A meter: what it meters, its address, and how it writes."""

    kind: int
    address: str
    dialect: Dialect


def options(address: str, raw: Mapping[str, object]) -> Target:
    """Check address and options. Raises BadOption."""
    try:
        cjt188.address_bytes(address)
    except ValueError:
        raise BadOption("address", address, ADDRESS.en, zh=ADDRESS.zh) from None
    known_keys(raw, name="map", allowed=("meter", "dialect"))
    meter = choice(raw, "meter", name="map", among=METERS)
    dialect = choice({"dialect": "auto", **raw}, "dialect", name="map", among=DIALECTS)
    return Target(METERS[meter], address.upper(), DIALECTS[dialect])


def talk(target: Target) -> Generator[Ask, bytes, Decoded]:
    """Poll once. Raises Rejected where the meter refuses, or its reply is no reading; NoReply passes."""
    order = target.dialect.order
    orders = (order, (order & 0xFF) << 8 | order >> 8) if target.dialect.both else (order,)
    refusal = silence = None
    for identifier in orders:

        def answers(frame: bytes, asked: int = identifier) -> bool:
            return cjt188.answers(frame, kind=target.kind, address=target.address, identifier=asked)

        try:
            reply = yield Ask(cjt188.read_request(target.kind, target.address, identifier), answers, TIMEOUT_S, RETRIES)
        except NoReply as nothing:
            silence = nothing
            continue
        if not answers(reply):
            raise Rejected(Reason.NOT_MINE, f"no reply to {identifier:04x}")
        frame = cjt188.parse(reply)
        if not frame.refused:
            kind = target.kind if frame.kind == cjt188.ANY_TYPE else frame.kind
            return _Found(kind, cjt188_layouts.read(kind, frame.value, target.dialect), target.dialect).decoded()
        refusal = frame.refusal()
    if refusal is None and silence is not None:
        raise silence
    raise Rejected(Reason.UNSUPPORTED, refusal or "nothing was asked")


class _Found:
    """Gathers what a reply says. Every reading carries the meter's clock, where it has one."""

    def __init__(self, kind: int, data: Data, dialect: Dialect) -> None:
        self._kind = kind
        self._data = data
        self._dialect = dialect
        self._said: list[Observation] = []
        self._refused = list(data.refused)

    def decoded(self) -> Decoded:
        """Return all of it. Raises Rejected where every register was refused."""
        if cjt188_layouts.family(self._kind) == HEAT:
            self._heat()
        else:
            is_water = cjt188_layouts.family(self._kind) == WATER
            quantity = _WATERS.get(self._kind, "volume") if is_water else "volume_gas"
            self._value(quantity, "total")
            self._settlement(quantity, SETTLEMENT, of="total")
        self._value("flow", "flow")
        if not self._said and self._refused:
            raise Rejected(Reason.IMPLAUSIBLE, "; ".join(self._refused))
        if self._data.status is not None:
            self._reading("status_word", Decimal(self._data.status))
            self._status(self._data.status)
        return Decoded(tuple(self._said), refused=tuple(self._refused))

    def _reading(self, quantity: str, value: Decimal | None, channel: str = "") -> None:
        if value is not None:
            self._said.append(Reading(quantity, value, channel, self._data.clock))

    def _value(self, quantity: str, name: str, channel: str = "") -> None:
        value = self._data.values.get(name)
        if value is not None:
            self._reading(f"{quantity}_joule" if value.unit == "GJ" else quantity, value.number, channel)

    def _settlement(self, quantity: str, name: str, *, of: str) -> None:
        """Take what was kept of a settlement day. More than the present total it cannot be: then it is something else."""
        kept, total = self._data.values.get(name), self._data.values.get(of)
        if kept is not None and total is not None and kept.unit == total.unit and kept.number > total.number:
            self._refused.append(
                f"{name} = {kept.number} {kept.unit}, more than the total of {total.number}: name the dialect"
            )
        else:
            self._value(quantity, name, LAST)

    def _heat(self) -> None:
        own = "energy_cooling" if self._kind == _COOLING else "energy_heat"
        self._value(own, "heat")
        first = self._data.values.get("first")
        if self._kind in self._dialect.cooling_first:
            self._value("energy_cooling", "first")
        elif self._kind in self._dialect.settlement_first:
            self._settlement(own, "first", of="heat")
        elif first is not None and first.number:
            self._refused.append(f"first slot = {first.number} {first.unit}: settlement, or cooling? name the dialect")
        self._value("power_heat", "power")
        self._value("volume_heating", "volume")
        self._reading("temperature", self._data.numbers.get("supply"), "supply")
        self._reading("temperature", self._data.numbers.get("return"), "return")
        if (hours := self._data.numbers.get("hours")) is not None:
            self._reading("operating_time", 3600 * hours)

    def _status(self, word: int) -> None:
        dialect = self._dialect
        for bits, state in ((dialect.open, 0), (dialect.closed, 1)):
            if bits is not None and word & bits.mask == bits.value:
                self._reading("valve_state", Decimal(state))
        if (bits := dialect.valve_fault) is not None:
            self._said.append(Signal(SignalKind.PROBLEM, "valve", "valve", level=word & bits.mask == bits.value))
        if (bits := dialect.battery_low) is not None:
            self._said.append(Signal(SignalKind.LOW_BATTERY, level=word & bits.mask == bits.value))


def _hex(data: str) -> bytes:
    return bytes.fromhex(data)


_CENTURY_FIRST: Final = datetime(2020, 5, 28, 20, 58, 24, tzinfo=CHINA)
_UNIT_FIRST: Final = datetime(2015, 3, 31, 23, 57, 26, tzinfo=CHINA)


def _meter_of(kind: int) -> str:
    """What the configuration calls a type; one of its range where it has no name of its own (24 and 27 are seen)."""
    named = {code: name for name, code in METERS.items()}
    return named.get(kind) or {1: "cold-water", 2: "heat", 3: "gas"}.get(kind >> 4, "cold-water")


DRIVER = Answers(
    model="cjt188",
    title=Title(zh="CJ/T 188 水表、热量表、燃气表", en="CJ/T 188 water, heat and gas meter"),
    framer=cjt188.framer,
    options=options,
    talk=talk,
    line=LineSettings(baud=2400, bits=8, parity="E", stop=1),
    sender=cjt188.sender,
    search=Searching(
        lambda: meter_search.cjt188_meters(_meter_of),
        lines("2400 8E1", "9600 8N1", "2400 8N1"),
        questions=4,
        timeout_s=meter_search.TIMEOUT_S,
    ),
    vectors=(
        AnswerVector(
            source="Go simulator of a real water meter 78331505104145 (the request is ours): FF where there is no value",
            address="78331505104145",
            options={"meter": "cold-water"},
            exchange=(
                (
                    _hex("fefefefe681045411005153378" + "0103901f00" + "8616"),
                    _hex("fefe6810454110051533788116901faa005959002cffffffff2cffffffffffffff0000c216"),
                ),
            ),
            expect=Decoded((Reading("volume_water", Decimal("5959.00")), Reading("status_word", Decimal(0)))),
        ),
        AnswerVector(
            source="C# load tester with a recorded reply, heat meter 42590008210438 (the request is ours): units first",
            address="42590008210438",
            options={"meter": "heat"},
            exchange=(
                (
                    _hex("fefefefe682038042108005942" + "0103901f00" + "3b16"),
                    _hex(
                        "682038042108005942812e901f0005192853000519285300170000000035000000002c42331800"
                        "031900101900612700265723310315200301f716"
                    ),
                ),
            ),
            expect=Decoded(
                (
                    Reading("energy_heat", Decimal("5328.19"), "", _UNIT_FIRST),
                    Reading("energy_heat", Decimal("5328.19"), "S1", _UNIT_FIRST),
                    Reading("power_heat", Decimal("0.00"), "", _UNIT_FIRST),
                    Reading("volume_heating", Decimal("1833.42"), "", _UNIT_FIRST),
                    Reading("temperature", Decimal("19.03"), "supply", _UNIT_FIRST),
                    Reading("temperature", Decimal("19.10"), "return", _UNIT_FIRST),
                    Reading("operating_time", Decimal(2761 * 3600), "", _UNIT_FIRST),
                    Reading("flow", Decimal("0.0000"), "", _UNIT_FIRST),
                    Reading("status_word", Decimal(0x0301), "", _UNIT_FIRST),
                )
            ),
        ),
        AnswerVector(
            source="a comment in a Java client of an NB-IoT platform, water meter 00000051327643: unit 29 with what must be m3",
            address="00000051327643",
            options={"meter": "cold-water"},
            exchange=(
                (
                    _hex("fefefefe681043763251000000" + "0103901f00" + "6716"),
                    _hex("fefefefe6810437632510000008116901f0047700100295148010029202005282058240000a716"),
                ),
            ),
            expect=Reason.IMPLAUSIBLE,
        ),
        AnswerVector(
            source="the same reply, once somebody has compared it with the dial",
            address="00000051327643",
            options={"meter": "cold-water", "dialect": "m3-as-litre"},
            exchange=(
                (
                    _hex("fefefefe681043763251000000" + "0103901f00" + "6716"),
                    _hex("fefefefe6810437632510000008116901f0047700100295148010029202005282058240000a716"),
                ),
            ),
            expect=Decoded(
                (
                    Reading("volume_water", Decimal("170.47"), "", _CENTURY_FIRST),
                    Reading("volume_water", Decimal("148.51"), "S1", _CENTURY_FIRST),
                    Reading("status_word", Decimal(0), "", _CENTURY_FIRST),
                )
            ),
        ),
    ),
)

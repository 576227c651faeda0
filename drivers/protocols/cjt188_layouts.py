"""What the data of CJ/T 188 meters means, maker by maker: layouts and dialects as data, one reader for all of them.

A *layout* is the order of fields for one kind of meter and one length. A *dialect* is how a maker writes them: the unit behind
or before its value, the clock with its seconds or its century first, the decimals of a flow, what the first slot of heat is,
what the bits of the status word mean. A dialect may leave open what frames show by themselves ("auto"): then every way
of writing is tried, and the data must fit exactly one.

Where units stand is no guess: in each slot only units of that quantity fit (2C in a slot of volume, 17 in one of power), and
a value must be decimal digits. What fits two ways with two outcomes is refused, not chosen.

Unit 29 is the litre. Meters are known that send it with cubic metres, though: 170.47 "litres" of a flat's water, where
no meter has two decimals of a litre. So volumes in 29 are refused until the dialect says what is meant (`litre`).

Source of codes: CJ/T 188-2004 tables 3 and 9 as given in cnblogs.com/cj94/p/18534595, ng-gateway.com/southward/cjt188;
layouts: icprog/dlt698.45 libCjt188/cjt188def.h; dialects: the frames in tests/data/captures/cjt188.
Limits: values of 4 bytes, 6 slots a reply, 8 bits of a status word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.fields import CHINA, bcd

ENERGY, POWER, VOLUME, FLOW = "energy", "power", "volume", "flow"

# Table 9: code -> what it measures, its unit here, and the factor to it. Joules have a unit of their own: they are no
# whole number of kilowatt hours.
UNITS: Final[Mapping[int, tuple[str, str, Decimal]]] = {
    0x02: (ENERGY, "kWh", Decimal("0.001")),
    0x05: (ENERGY, "kWh", Decimal(1)),
    0x08: (ENERGY, "kWh", Decimal(1000)),
    0x0A: (ENERGY, "kWh", Decimal(100_000)),
    0x01: (ENERGY, "GJ", Decimal("0.000000001")),
    0x0B: (ENERGY, "GJ", Decimal("0.000001")),
    0x0E: (ENERGY, "GJ", Decimal("0.001")),
    0x11: (ENERGY, "GJ", Decimal(1)),
    0x13: (ENERGY, "GJ", Decimal(100)),
    0x14: (POWER, "kW", Decimal("0.001")),
    0x17: (POWER, "kW", Decimal(1)),
    0x1A: (POWER, "kW", Decimal(1000)),
    0x29: (VOLUME, "m3", Decimal("0.001")),
    0x2C: (VOLUME, "m3", Decimal(1)),
    0x32: (FLOW, "m3/h", Decimal("0.001")),
    0x35: (FLOW, "m3/h", Decimal(1)),
}
LITRE: Final = 0x29
FILLERS: Final = (0xFF, 0x99)
_CENTURY: Final = 20

WATER, HEAT, GAS = "water", "heat", "gas"


def family(kind: int) -> str:
    """Return what a meter type measures. Raises Rejected(UNSUPPORTED) for electricity and types of a maker's own."""
    found = {0x1: WATER, 0x2: HEAT, 0x3: GAS}.get(kind >> 4)
    if found is None or kind & 0x0F > 9:
        raise Rejected(Reason.UNSUPPORTED, f"meter type {kind:02X}")
    return found


@dataclass(frozen=True, slots=True)
class Slot:
    """One field. `measures`: it is a value of four bytes with a unit code beside it; else `size` bytes of its own format."""

    name: str
    measures: str = ""
    size: int = 5
    decimals: int = 2


_TOTALS = (Slot("total", VOLUME), Slot("settlement", VOLUME))
_CLOCK, _STATUS = Slot("clock", size=7), Slot("status", size=2)

# Family and bytes after the serial number -> fields in their order.
LAYOUTS: Final[Mapping[tuple[str, int], tuple[Slot, ...]]] = {
    (WATER, 19): (*_TOTALS, _CLOCK, _STATUS),
    (GAS, 19): (*_TOTALS, _CLOCK, _STATUS),
    (HEAT, 43): (
        Slot("first", ENERGY),
        Slot("heat", ENERGY),
        Slot("power", POWER),
        Slot("flow", FLOW, decimals=4),
        Slot("volume", VOLUME),
        Slot("supply", size=3),
        Slot("return", size=3),
        Slot("hours", size=3, decimals=0),
        _CLOCK,
        _STATUS,
    ),
    # The report of a radio module, unasked: with the flow, and two bytes more.
    (WATER, 26): (*_TOTALS, Slot("flow", FLOW, decimals=4), _CLOCK, _STATUS, Slot("spare", size=2)),
}


@dataclass(frozen=True, slots=True)
class Bits:
    """A field of the status word, as a number in the order of its bytes: what `(word & mask) == value` means."""

    mask: int
    value: int


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a maker writes.

    `order`: the identifier as it goes out first; `both`: ask the other order where that is not answered. `unit_first` and
    `century_first`: None finds out. `flow_decimals`: None takes the layout's. `cooling_first` and
    `settlement_first`: the meter types whose first slot of heat is cooling, or what was counted at the day of settlement; of
    other types it is refused where it is not zero. `litre`: what a volume in unit 29
    is in: "L", "m3", or "" (refused). `closed`, `open`, `valve_fault`, `battery_low`: bits of the status word; None: unknown,
    and nothing is concluded from it.
    """

    order: int = 0x901F
    both: bool = True
    unit_first: bool | None = None
    century_first: bool | None = None
    flow_decimals: int | None = None
    cooling_first: frozenset[int] = frozenset({0x25, 0x27})
    settlement_first: frozenset[int] = frozenset({0x20, 0x21})
    litre: str = ""
    open: Bits | None = None
    closed: Bits | None = None
    valve_fault: Bits | None = None
    battery_low: Bits | None = None


_ALL_HEAT: Final = frozenset(range(0x20, 0x2A))
_STANDARD: Final = Dialect(
    unit_first=False,
    century_first=False,
    litre="L",
    open=Bits(0x0300, 0x0000),
    closed=Bits(0x0300, 0x0100),
    valve_fault=Bits(0x0300, 0x0300),
    battery_low=Bits(0x0400, 0x0400),
)
DIALECTS: Final[Mapping[str, Dialect]] = {
    "auto": Dialect(),
    "2004": _STANDARD,
    "2018": replace(_STANDARD, order=0x1F90),
    "unit-first": Dialect(unit_first=True, century_first=False),
    "century-first": Dialect(unit_first=False, century_first=True),
    "m3-as-litre": Dialect(unit_first=False, litre="m3"),
    "sanext": Dialect(
        order=0x1F90, unit_first=False, century_first=False, flow_decimals=2, cooling_first=_ALL_HEAT, litre="L"
    ),
    "valve-high-bits": Dialect(
        unit_first=False,
        open=Bits(0xC000, 0x0000),
        closed=Bits(0xC000, 0x4000),
        valve_fault=Bits(0xC000, 0xC000),
        battery_low=Bits(0x2000, 0x2000),
    ),
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value as the meter counts it: `number` in `unit` ("kWh", "GJ", "kW", "m3", "m3/h"), sent under `code`."""

    number: Decimal
    unit: str
    code: int


@dataclass(slots=True)
class Data:
    """What a reply says. A field that the meter has no value for is left out; `refused` names what is no value."""

    values: dict[str, Quantity] = field(default_factory=dict)
    numbers: dict[str, Decimal] = field(default_factory=dict)
    clock: datetime | None = None
    status: int | None = None
    refused: list[str] = field(default_factory=list)


def read(kind: int, data: bytes, dialect: Dialect) -> Data:
    """Read the data of a reply to 901F, after its serial number. Raises Rejected.

    UNSUPPORTED for another kind of meter, MALFORMED for a length that no layout has, IMPLAUSIBLE where units and digits
    fit no way of writing, or two.
    """
    layout = LAYOUTS.get((family(kind), len(data)))
    if layout is None:
        raise Rejected(Reason.MALFORMED, f"{len(data)} bytes of data for meter type {kind:02X}")
    places = (dialect.unit_first,) if dialect.unit_first is not None else (False, True)
    fitting = [sent for place in places if (sent := _slots(layout, data, unit_first=place)) is not None]
    if len(fitting) > 1 and fitting[0] != fitting[1]:
        raise Rejected(Reason.IMPLAUSIBLE, "units fit before and behind their values: name the dialect")
    if not fitting:
        raise Rejected(Reason.IMPLAUSIBLE, f"no known units in {data.hex()}")
    found = Data()
    _values(found, layout, fitting[0], dialect)
    at = 0
    for slot in layout:
        raw = data[at : at + slot.size]
        at += slot.size
        if slot.name == "clock":
            found.clock = _clock(raw, century_first=dialect.century_first)
        elif slot.name == "status":
            found.status = int.from_bytes(raw, "big")
        elif not slot.measures and slot.name != "spare":
            _number(found, slot, raw)
    if (flow := _doubtful_flow(found)) is not None:
        found.refused.append(flow)
    return found


def _slots(layout: tuple[Slot, ...], data: bytes, *, unit_first: bool) -> tuple[tuple[int, bytes], ...] | None:
    """Return unit and digits of each value, None where a unit or a digit does not fit."""
    found = []
    at = 0
    for slot in layout:
        raw = data[at : at + slot.size]
        at += slot.size
        if not slot.measures:
            continue
        code, digits = (raw[0], raw[1:]) if unit_first else (raw[-1], raw[:-1])
        unit = UNITS.get(code)
        if unit is None or unit[0] != slot.measures or not (digits.hex().isdecimal() or _is_filler(digits)):
            return None
        found.append((code, digits))
    return tuple(found)


def _is_filler(raw: bytes) -> bool:
    return any(raw.count(filler) == len(raw) for filler in FILLERS)


def _values(found: Data, layout: tuple[Slot, ...], sent: tuple[tuple[int, bytes], ...], dialect: Dialect) -> None:
    slots = [slot for slot in layout if slot.measures]
    for slot, (code, digits) in zip(slots, sent, strict=True):
        if _is_filler(digits):
            continue
        decimals = slot.decimals
        if slot.measures == FLOW and dialect.flow_decimals is not None:
            decimals = dialect.flow_decimals
        number = bcd(digits, decimals=decimals)
        assert number is not None  # noqa: S101 - None stands for FF only, left out above as a filler
        _, unit, factor = UNITS[code]
        if code == LITRE and number:
            if not dialect.litre:
                found.refused.append(f"{slot.name} = {number} in unit 29: litres, or cubic metres? name the dialect")
                continue
            factor = factor if dialect.litre == "L" else Decimal(1)
        found.values[slot.name] = Quantity(number * factor, unit, code)


def _number(found: Data, slot: Slot, raw: bytes) -> None:
    """Take a number without a unit: a temperature with its sign in the highest bit, or hours."""
    if _is_filler(raw):
        return
    try:
        number = bcd(raw, decimals=slot.decimals, signed=slot.decimals > 0)
    except Rejected as rejected:
        found.refused.append(f"{slot.name} = {rejected.detail}")
        return
    if number is not None:
        found.numbers[slot.name] = number


def _clock(raw: bytes, *, century_first: bool | None) -> datetime | None:
    """Read a clock where it is a date of this century; under "find out" only where one order is one, or both agree."""
    orders = (century_first,) if century_first is not None else (False, True)
    dates = {date for order in orders if (date := _date(raw if order else raw[::-1])) is not None}
    return dates.pop() if len(dates) == 1 else None


def _date(raw: bytes) -> datetime | None:
    if not raw.hex().isdecimal():
        return None
    century, year, month, day, hour, minute, second = (int(f"{byte:02x}") for byte in raw)
    if century != _CENTURY:
        return None
    try:
        return datetime(100 * century + year, month, day, hour, minute, second, tzinfo=CHINA)
    except ValueError:
        return None


def _doubtful_flow(found: Data) -> str | None:
    """Take a flow back that power and temperatures contradict by a factor of 30: its decimals are another maker's.

    1 m3/h that cools by 1 K gives 1.163 kW; a factor of 100 stands between the two known ways.
    """
    power, flow = found.values.get("power"), found.values.get("flow")
    supply, back = found.numbers.get("supply"), found.numbers.get("return")
    if power is None or flow is None or supply is None or back is None or power.unit != "kW":
        return None
    given, carried = abs(power.number), abs(flow.number * (supply - back)) * Decimal("1.163")
    if not given or not carried or abs(supply - back) < 1 or carried / 30 < given < carried * 30:
        return None
    del found.values["flow"]
    return f"flow = {flow.number} m3/h does not carry {power.number} kW at {supply} and {back} degrees"

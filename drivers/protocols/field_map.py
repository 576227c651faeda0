"""What the fields of an object mean, by a device's `map` table: which value is which signal, which number which quantity.

    [[device.map.signal]]      # the first signal of a field that fits decides
    field = "ev"
    equals = "press"           # text, whole number, true or false; left out: any value but null, false, 0 and ""
    is = "call"
    code = "press"             # left out: the value itself
    channel = "1"              # left out: none
    ends = "off"               # not of numbered lines: it is a state; this value says that it is over; left out: it happens once
    topic = "a/b"              # of a broker only; left out: the device's address

    [[device.map.reading]]
    field = "kwh"
    quantity = "energy_active_import"
    channel = "T1"
    topic = "a/b"

A field that is null counts as absent. `Button1.Action` is the field `Action` of the object in `Button1`, unless a field has
that whole name; the empty name is the whole of what came, where it is no object.
Limits: 32 signals and 32 readings; names of at most 64 printable characters; numbers below 1e15 with at most 12 decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from drivers.kit import QUANTITIES, BadOption, Reading, Reason, Rejected, Signal, SignalKind
from drivers.kit.options import MAX_NAME, choice, known_keys, tables, text
from drivers.protocols.published import topic_option

MAX_RULES: Final = 32
MAX_DECIMALS: Final = 12
MAX_DIGITS: Final = 15

Value = str | int | bool
Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SignalRule:
    """`equals` None fits any value that says something; `signal.code` is empty where the value itself is the code."""

    field: str
    equals: Value | None
    ends: Value | None
    signal: Signal
    topic: str


@dataclass(frozen=True, slots=True)
class ReadingRule:
    """One number."""

    field: str
    quantity: str
    channel: str
    topic: str


@dataclass(frozen=True, slots=True)
class FieldMap:
    """The rules of one device, in the order of the configuration."""

    signals: tuple[SignalRule, ...]
    readings: tuple[ReadingRule, ...]


def options(raw: Mapping[str, object], *, has_topics: bool = False, has_ends: bool = False) -> FieldMap:
    """Read `signal` and `reading` of a device's `map`; one of both must be there. Raises BadOption.

    `has_topics`: it speaks by a broker. `has_ends`: a state may end although there is no broker; not where lines are numbered.
    """
    found = FieldMap(
        tuple(
            _signal_rule(row, where, has_topics=has_topics, has_ends=has_ends or has_topics)
            for where, row in tables(raw, "signal", name="map", most=MAX_RULES)
        ),
        tuple(
            _reading_rule(row, where, has_topics=has_topics)
            for where, row in tables(raw, "reading", name="map", most=MAX_RULES)
        ),
    )
    if not found.signals and not found.readings:
        expected = "at least one [[device.map.signal]] or [[device.map.reading]]"
        raise BadOption("map", dict(raw), expected, zh="至少一个 [[device.map.signal]] 或 [[device.map.reading]]")
    return found


def _signal_rule(row: Mapping[str, object], where: str, *, has_topics: bool, has_ends: bool) -> SignalRule:
    # A numbered line that is refused by a full queue comes again, and an edge that was judged already would be a repeat.
    more = (*(("ends",) if has_ends else ()), *(("topic",) if has_topics else ()))
    known_keys(row, name=where, allowed=("field", "equals", "is", "code", "channel", *more))
    equals, ends = _value_of(row, "equals", where), _value_of(row, "ends", where)
    kind = SignalKind(choice(row, "is", name=where, among=[kind.value for kind in SignalKind]))
    code = text(row, "code", name=where, default="") or ("" if equals is None else _code(equals))
    level = None if ends is None else True
    return SignalRule(
        _field(row, where, has_topics=has_topics), equals, ends,
        Signal(kind, code, text(row, "channel", name=where, default=""), level),
        _topic(row, where),
    )  # fmt: skip


def _reading_rule(row: Mapping[str, object], where: str, *, has_topics: bool) -> ReadingRule:
    topic = ("topic",) if has_topics else ()
    known_keys(row, name=where, allowed=("field", "quantity", "channel", *topic))
    return ReadingRule(
        _field(row, where, has_topics=has_topics),
        choice(row, "quantity", name=where, among=QUANTITIES),
        text(row, "channel", name=where, default=""),
        _topic(row, where),
    )


def _field(row: Mapping[str, object], where: str, *, has_topics: bool) -> str:
    """Read the name of a field. A message of a broker may be a bare word: that one has no name."""
    return text(row, "field", name=where, default="" if has_topics else None)


def _topic(row: Mapping[str, object], where: str) -> str:
    return topic_option(row["topic"], f"{where}.topic") if "topic" in row else ""


def _value_of(row: Mapping[str, object], key: str, where: str) -> Value | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str | int):
        expected = "a text, a whole number, true or false"
        raise BadOption(f"{where}.{key}", value, expected, zh="一段文字、一个整数、true 或 false")
    return value


def signals(fields: Fields, meaning: FieldMap, *, topic: str = "") -> list[Signal]:
    """Return what happened, by the rules that fit."""
    found: list[Signal] = []
    decided: list[str] = []
    for rule in meaning.signals:
        value = lookup(fields, rule.field)
        if value is None or rule.field in decided or (rule.topic and rule.topic != topic):
            continue
        signal = rule.signal
        if rule.ends is not None and _is(value, rule.ends):
            signal = Signal(signal.kind, signal.code, signal.channel, level=False)
        elif not value if rule.equals is None else not _is(value, rule.equals):
            continue
        decided.append(rule.field)
        found.append(signal if signal.code else Signal(signal.kind, _code(value), signal.channel, signal.level))
    return found


def readings(fields: Fields, meaning: FieldMap, *, topic: str = "") -> tuple[list[Reading], tuple[str, ...]]:
    """Return what can be read, and in words what cannot."""
    found: list[Reading] = []
    refused: list[str] = []
    for rule in meaning.readings:
        value = lookup(fields, rule.field)
        if value is None or (rule.topic and rule.topic != topic):
            continue
        try:
            found.append(Reading(rule.quantity, number(value, rule.field), rule.channel))
        except Rejected as rejected:
            refused.append(rejected.detail)
    return found, tuple(refused)


def lookup(fields: Fields, path: str) -> object:
    """Return the value of a field, None where there is none."""
    if path in fields or "." not in path:
        return fields.get(path)
    value: object = fields
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def number(value: object, field: str) -> Decimal:
    """Return a value as a number. Raises Rejected (implausible)."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Rejected(Reason.IMPLAUSIBLE, f"{field} is no number")
    found = Decimal(value)
    exponent = found.as_tuple().exponent
    if found.adjusted() >= MAX_DIGITS or not isinstance(exponent, int) or exponent < -MAX_DECIMALS:
        raise Rejected(Reason.IMPLAUSIBLE, f"{field} is out of range")
    # 1E+3 is a fine number but no decimal string.
    return found if exponent <= 0 else found.quantize(Decimal(1))


def name(value: object) -> str | None:
    """Return the name of a device: a text, or a whole number of at most 15 digits as its digits."""
    if isinstance(value, str):
        return value if 0 < len(value) <= MAX_NAME and value.isprintable() else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**MAX_DIGITS:
        return None
    return str(value)


def _is(value: object, wanted: Value) -> bool:
    """Is it that value? True is 1 in Python but not in JSON."""
    return value == wanted and isinstance(value, bool) is isinstance(wanted, bool)


def _code(value: object) -> str:
    """Return a value as a signal's code; "unknown" for what is no short text and no number."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return name(value) or "unknown"

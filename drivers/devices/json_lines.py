r"""Any device or bridge that writes JSON lines on a serial port: what its fields mean stands in the configuration.

    {"dev": "b1", "n": 7, "s": "boot-3", "ev": "press", "kwh": 12.34}\n      the device
    {"ack": 7, "s": "boot-3"}\n                                              the gateway, once the event is durable

`dev` names the device, so that several can share a line. `n` numbers what the device resends until it is acknowledged;
`s` is the session within which `n` is unique (a device that counts from 1 after each start puts its start there). A
number that is used again for another event is taken as one, unverified; a line must be repeated at least every minute.

    [device.map]
    address = "dev"            # field with the device's address; "" where only one device speaks on the line
    number = "n"               # field with the acknowledged number
    session = "s"

    [[device.map.signal]]      # the first signal of a field that fits decides
    field = "ev"
    equals = "press"           # text, whole number, true or false; left out: any value but null, false, 0 and ""
    is = "call"                # call fall cancel recovered bed_exit tamper low_battery restored occupancy
    code = "press"             # left out: the value itself
    channel = "1"              # left out: none

    [[device.map.reading]]
    field = "kwh"
    quantity = "energy_active_import"
    channel = "T1"             # left out: none

Devices on one line must agree on `address`. A field that is null counts as absent. A reading that is no plausible number
rejects the line, unless the line is numbered or calls for help: then the rest is taken, the number acknowledged, and the
reading told as a fault. A number or session that cannot be acknowledged rejects the line, but never one that calls.

Limits: 32 signals and 32 readings; n from 0 to 2**63-1; sessions and addresses of at most 64 printable characters;
readings below 1e15 with at most 12 decimals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

from drivers.kit import (
    QUANTITIES,
    RAISING,
    BadOption,
    Decoded,
    LineSettings,
    Reading,
    Reason,
    Rejected,
    Reply,
    Signal,
    SignalKind,
    SourceNumber,
    Streams,
    StreamVector,
    Title,
)
from drivers.kit.options import MAX_NAME, choice, known_keys, tables, text
from drivers.protocols import json_lines

MAX_RULES: Final = 32
MAX_NUMBER: Final = 2**63 - 1
MAX_DECIMALS: Final = 12
MAX_DIGITS: Final = 15


@dataclass(frozen=True, slots=True)
class _SignalRule:
    """`equals` None fits any value that says something; `signal.code` is empty where the value itself is the code."""

    field: str
    equals: str | int | bool | None
    signal: Signal


@dataclass(frozen=True, slots=True)
class _ReadingRule:
    field: str
    quantity: str
    channel: str


@dataclass(frozen=True, slots=True)
class Map:
    """What the fields of a device's lines mean."""

    address: str
    number: str
    session: str
    signals: tuple[_SignalRule, ...]
    readings: tuple[_ReadingRule, ...]


def options(raw: Mapping[str, object]) -> Map:
    """Check a device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("address", "number", "session", "signal", "reading"))
    found = Map(
        text(raw, "address", name="map", default="dev"),
        text(raw, "number", name="map", default="n"),
        text(raw, "session", name="map", default="s"),
        tuple(_signal_rule(row, name) for name, row in tables(raw, "signal", name="map", most=MAX_RULES)),
        tuple(_reading_rule(row, name) for name, row in tables(raw, "reading", name="map", most=MAX_RULES)),
    )
    if not found.signals and not found.readings:
        expected = "at least one [[device.map.signal]] or [[device.map.reading]]"
        raise BadOption("map", dict(raw), expected, zh="至少一个 [[device.map.signal]] 或 [[device.map.reading]]")
    return found


def _signal_rule(row: Mapping[str, object], name: str) -> _SignalRule:
    known_keys(row, name=name, allowed=("field", "equals", "is", "code", "channel"))
    equals = row.get("equals")
    if equals is not None and not isinstance(equals, str | int):
        expected = "a text, a whole number, true or false"
        raise BadOption(f"{name}.equals", equals, expected, zh="一段文字、一个整数、true 或 false")
    kind = SignalKind(choice(row, "is", name=name, among=[kind.value for kind in SignalKind]))
    code = text(row, "code", name=name, default="") or ("" if equals is None else _code(equals))
    return _SignalRule(
        text(row, "field", name=name), equals, Signal(kind, code, text(row, "channel", name=name, default=""))
    )


def _reading_rule(row: Mapping[str, object], name: str) -> _ReadingRule:
    known_keys(row, name=name, allowed=("field", "quantity", "channel"))
    return _ReadingRule(
        text(row, "field", name=name),
        choice(row, "quantity", name=name, among=QUANTITIES),
        text(row, "channel", name=name, default=""),
    )


def address_of(frame: bytes, meaning: Map) -> str:
    """Say whose line it is, "" where it names nobody or cannot be read: `decode` then says why."""
    if not meaning.address:
        return ""
    try:
        return _name(json_lines.parse(frame).get(meaning.address)) or ""
    except Rejected:
        return ""


def decode(frame: bytes, meaning: Map) -> Decoded:
    """Read one line. Raises Rejected."""
    fields = json_lines.parse(frame)
    # A line that names nobody comes here only where one device has the line to itself: then it is that device's.
    address = (_name(fields.get(meaning.address)) or "") if meaning.address else ""
    signals = _signals(fields, meaning.signals)
    raising = any(signal.kind in RAISING for signal in signals)
    readings, refused = _readings(fields, meaning.readings)
    try:
        number = _number(fields, meaning)
    except Rejected as wrong:
        if not raising:
            raise
        number = None  # a call for help is raised whatever stands beside it; without its number it will come again
        refused = (*refused, wrong.detail)
    if refused and number is None and not raising:
        raise Rejected(Reason.IMPLAUSIBLE, refused[0])
    if number is None:
        return Decoded((*signals, *readings), address=address, refused=refused)
    session = _quoted(number.session) if fields.get(meaning.session) is not None else None
    reply = f'{{"ack": {number.n}}}\n' if session is None else f'{{"ack": {number.n}, "s": {session}}}\n'
    replies = (Reply(reply.encode(), when="committed"),)
    return Decoded((*signals, *readings), address=address, source_number=number, replies=replies, refused=refused)


def _signals(fields: Mapping[str, object], rules: tuple[_SignalRule, ...]) -> list[Signal]:
    found: list[Signal] = []
    decided: list[str] = []
    for rule in rules:
        value = fields.get(rule.field)
        if value is None or rule.field in decided:
            continue
        if rule.equals is None:
            if not value:
                continue
        # True is 1 in Python but not in JSON.
        elif value != rule.equals or isinstance(value, bool) is not isinstance(rule.equals, bool):
            continue
        decided.append(rule.field)
        signal = rule.signal
        found.append(signal if signal.code else Signal(signal.kind, _code(value), signal.channel))
    return found


def _readings(fields: Mapping[str, object], rules: tuple[_ReadingRule, ...]) -> tuple[list[Reading], tuple[str, ...]]:
    """Return what can be read, and in words what cannot."""
    found: list[Reading] = []
    refused: list[str] = []
    for rule in rules:
        value = fields.get(rule.field)
        if value is None:
            continue
        try:
            found.append(Reading(rule.quantity, _value(value, rule.field), rule.channel))
        except Rejected as rejected:
            refused.append(rejected.detail)
    return found, tuple(refused)


def _value(value: object, field: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Rejected(Reason.IMPLAUSIBLE, f"{field} is no number")
    number = Decimal(value)
    exponent = number.as_tuple().exponent
    if number.adjusted() >= MAX_DIGITS or not isinstance(exponent, int) or exponent < -MAX_DECIMALS:
        raise Rejected(Reason.IMPLAUSIBLE, f"{field} is out of range")
    # 1E+3 is a fine number but no decimal string.
    return number if exponent <= 0 else number.quantize(Decimal(1))


def _number(fields: Mapping[str, object], meaning: Map) -> SourceNumber | None:
    n = fields.get(meaning.number)
    if n is None:
        return None
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= MAX_NUMBER:
        raise Rejected(Reason.MALFORMED, f"{meaning.number} is no whole number from 0 to 2**63-1")
    session = fields.get(meaning.session)
    if session is None:
        return SourceNumber("", n)
    if not isinstance(session, str) or len(session) > MAX_NAME or not session.isprintable():
        raise Rejected(Reason.MALFORMED, f"{meaning.session} is no text of at most {MAX_NAME} printable characters")
    return SourceNumber(session, n)


@lru_cache(maxsize=64)
def _quoted(session: str) -> str:
    return json.dumps(session)


def _name(value: object) -> str | None:
    """Return the name of a device: a text, or a whole number of at most 15 digits as its digits."""
    if isinstance(value, str):
        return value if 0 < len(value) <= MAX_NAME and value.isprintable() else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**MAX_DIGITS:
        return None
    return str(value)


def _code(value: object) -> str:
    """Return a value as a signal's code; "unknown" for what is no short text and no number."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _name(value) or "unknown"


_PRESS = {"field": "ev", "equals": "press", "is": "call", "code": "press"}
_ENERGY = {"field": "kwh", "quantity": "energy_active_import", "channel": "T1"}
_EXAMPLE = {"signal": [_PRESS], "reading": [_ENERGY]}

DRIVER = Streams(
    model="json-lines",
    title=Title(zh="JSON 行设备", en="JSON lines device"),
    framer=json_lines.framer,
    options=options,
    decode=decode,
    address_of=address_of,
    line=LineSettings(baud=115200),
    vectors=(
        StreamVector(
            source="synthetic: a numbered press; the format is our own",
            frame=b'{"dev": "b1", "n": 7, "ev": "press"}\n',
            options=_EXAMPLE,
            expect=Decoded(
                (Signal(SignalKind.CALL, "press"),),
                address="b1",
                source_number=SourceNumber("", 7),
                replies=(Reply(b'{"ack": 7}\n', when="committed"),),
            ),
        ),
        StreamVector(
            source="synthetic: a reading within a session",
            frame=b'{"dev":"m1","n":8,"s":"boot-3","kwh":1234.50}\r\n',
            options=_EXAMPLE,
            expect=Decoded(
                (Reading("energy_active_import", Decimal("1234.50"), "T1"),),
                address="m1",
                source_number=SourceNumber("boot-3", 8),
                replies=(Reply(b'{"ack": 8, "s": "boot-3"}\n', when="committed"),),
            ),
        ),
        StreamVector(
            source="synthetic: nothing in the line is mapped, its number is acknowledged all the same",
            frame=b'{"dev": "b1", "n": 9, "rssi": -60}\n',
            options=_EXAMPLE,
            expect=Decoded(
                address="b1",
                source_number=SourceNumber("", 9),
                replies=(Reply(b'{"ack": 9}\n', when="committed"),),
            ),
        ),
        StreamVector(
            source="synthetic: a register that is no number",
            frame=b'{"dev": "m1", "kwh": "12"}\n',
            options=_EXAMPLE,
            expect=Reason.IMPLAUSIBLE,
        ),
        StreamVector(
            source="synthetic: a line cut by an unplugged cable",
            frame=b'{"dev": "b1", "n": 1\n',
            options=_EXAMPLE,
            expect=Reason.MALFORMED,
        ),
    ),
)

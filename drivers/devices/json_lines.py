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
    is = "call"                # call fall smoke gas carbon_monoxide water_leak, or told: cancel recovered bed_exit tamper
                               # low_battery restored occupancy opening motion vibration problem
    code = "press"             # left out: the value itself
    channel = "1"              # left out: none

    [[device.map.reading]]
    field = "kwh"
    quantity = "energy_active_import"
    channel = "T1"             # left out: none

Devices on one line must agree on `address`. A field that is null counts as absent. A reading that is no plausible number
rejects the line, unless the line is numbered or has a signal: then the rest is taken, the number acknowledged, and the
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
    RAISING,
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
from drivers.kit.options import MAX_NAME, known_keys, text
from drivers.protocols import field_map, json_lines

MAX_NUMBER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Map:
    """What the fields of a device's lines mean."""

    address: str
    number: str
    session: str
    fields: field_map.FieldMap


def options(raw: Mapping[str, object]) -> Map:
    """Check a device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("address", "number", "session", "signal", "reading"))
    return Map(
        text(raw, "address", name="map", default="dev"),
        text(raw, "number", name="map", default="n"),
        text(raw, "session", name="map", default="s"),
        field_map.options(raw),
    )


def address_of(frame: bytes, meaning: Map) -> str:
    """Say whose line it is, "" where it names nobody or cannot be read: `decode` then says why."""
    if not meaning.address:
        return ""
    try:
        return field_map.name(json_lines.parse(frame).get(meaning.address)) or ""
    except Rejected:
        return ""


def decode(frame: bytes, meaning: Map) -> Decoded:
    """Read one line. Raises Rejected."""
    fields = json_lines.parse(frame)
    # A line that names nobody comes here only where one device has the line to itself: then it is that device's.
    address = (field_map.name(fields.get(meaning.address)) or "") if meaning.address else ""
    signals = field_map.signals(fields, meaning.fields)
    raising = any(signal.kind in RAISING for signal in signals)
    readings, refused = field_map.readings(fields, meaning.fields)
    try:
        number = _number(fields, meaning)
    except Rejected as wrong:
        if not raising:
            raise
        number = None  # a call for help is raised whatever stands beside it; without its number it will come again
        refused = (*refused, wrong.detail)
    if refused and number is None and not signals:
        raise Rejected(Reason.IMPLAUSIBLE, refused[0])
    if number is None:
        return Decoded((*signals, *readings), address=address, refused=refused)
    session = _quoted(number.session) if fields.get(meaning.session) is not None else None
    reply = f'{{"ack": {number.n}}}\n' if session is None else f'{{"ack": {number.n}, "s": {session}}}\n'
    replies = (Reply(reply.encode(), when="committed"),)
    return Decoded((*signals, *readings), address=address, source_number=number, replies=replies, refused=refused)


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
    may_call=True,
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

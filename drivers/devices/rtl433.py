r"""A software radio: the JSON lines of rtl_433, which hears sensors and remotes on 433 and 868 MHz, over a serial port or TCP.

    {"time": "...", "model": "Kerui-Security", "id": 840811, "cmd": 10, "state": "motion", "battery_ok": 1}\n

What a transmitter is, and what its fields mean, is guessed by rtl_433 from pulses: a recorded remote comes as "Smoke-GS558".
So nothing is taken but what is configured. The `address` of a [[device]] is the model and its id, "Kerui-Security/840811"; where
a line has no id its code or data stands for it ("DY-SQ100B-WaterLeak-EV1527/983141"). `gateway listen` shows them. The fields
are mapped as those of `json-lines`, and a state may end:

    [[device.map.signal]]
    field = "state"
    equals = "motion"          # left out: any value but null, false, 0 and ""
    ends = "idle"              # left out: it happens once; else it is a state, and this value says that it is over
    is = "motion"

    [[device.map.reading]]
    field = "temperature_C"
    quantity = "temperature"

`battery_ok` 0 is a low battery, 1 ends it, and `tamper` 1 and 0 the same of a housing, without being mapped. Of alarm systems
(Visonic-Powercode, Honeywell-Security, DSC-Security) the `alarm` of a pendant is a field like others: map it to call. Radio is
heard by everybody and can be sent by everybody: nothing is verified. An equal line within 2 s is the same transmission. Run
rtl_433 with the decoders that you own only (-R), and with -F json on a line of its own.
Limits: as in `drivers.protocols.json_lines` and `field_map`; an id is a text of at most 40 characters or a whole number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from drivers.kit import (
    Decoded,
    LineSettings,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Strangers,
    Streams,
    StreamVector,
    Title,
)
from drivers.kit.options import MAX_NAME, known_keys
from drivers.protocols import field_map, json_lines
from drivers.protocols.field_map import FieldMap

REPEAT_S: Final = 2.0
MAX_ID: Final = 40
# What stands for the id where a transmitter has none.
_IDS: Final = ("id", "code", "data")


def options(raw: Mapping[str, object]) -> FieldMap:
    """Check a device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("signal", "reading"))
    return field_map.options(raw, has_ends=True)


def address_of(frame: bytes, options: FieldMap) -> str:  # noqa: ARG001 - an address is one under any options
    """Say which transmitter a line is of; "" where it names none, or cannot be read."""
    try:
        return _address(json_lines.parse(frame))
    except Rejected:
        return ""


def decode(frame: bytes, options: FieldMap) -> Decoded:
    """Read one line. Raises Rejected."""
    fields = json_lines.parse(frame)
    address = _address(fields)
    if not address:
        raise Rejected(Reason.NOT_MINE, "a line without a model and an id")
    signals = [*field_map.signals(fields, options), *_battery(fields), *_tamper(fields, options)]
    readings, refused = field_map.readings(fields, options)
    if refused and not readings and not signals:  # any signal may be one that the configuration makes an alarm
        raise Rejected(Reason.IMPLAUSIBLE, refused[0], address=address)
    return Decoded((*signals, *readings), address=address, refused=refused)


def _address(fields: Mapping[str, object]) -> str:
    model = field_map.name(fields.get("model"))
    number = next((name for name in (field_map.name(fields.get(one)) for one in _IDS) if name), None)
    if not model or not number or len(number) > MAX_ID:
        return ""
    return f"{model}/{number}"[:MAX_NAME]


def _battery(fields: Mapping[str, object]) -> tuple[Signal, ...]:
    value = fields.get("battery_ok")
    if isinstance(value, bool) or value not in (0, 1):  # some give a share of a full battery
        return ()
    return (Signal(SignalKind.LOW_BATTERY, "battery_ok", level=value == 0),)


def _tamper(fields: Mapping[str, object], options: FieldMap) -> tuple[Signal, ...]:
    value = fields.get("tamper")
    if isinstance(value, bool) or value not in (0, 1) or any(rule.field == "tamper" for rule in options.signals):
        return ()
    return (Signal(SignalKind.TAMPER, "tamper", level=value == 1),)


_EXAMPLE: Final = {"signal": [{"field": "switch1", "equals": "OPEN", "ends": "CLOSED", "is": "opening"}]}
_WATER: Final = {
    "signal": [{"field": "code", "equals": 983141, "is": "water_leak", "code": "wet"}],
    "reading": [{"field": "temperature_C", "quantity": "temperature"}],
}

DRIVER = Streams(
    model="rtl433",
    title=Title(zh="rtl_433 软件无线电接收", en="rtl_433 software radio"),
    framer=json_lines.framer,
    options=options,
    decode=decode,
    address_of=address_of,
    line=LineSettings(baud=115200),
    readings_every_s=900.0,
    repeat_s=REPEAT_S,
    strangers=Strangers.IGNORED,
    radio=True,
    note=Title(
        zh="多数发射器无法监测是否完好，全都能被复制：每周各试一次",
        en="most transmitters cannot be supervised, and all can be copied: try each once a week",
    ),
    may_call=True,
    vectors=(
        StreamVector(
            source="Kismet rtl_433 sample: a contact",
            frame=b'{"model":"Interlogix-Security","subtype":"contact","id":"a55b4b","battery_ok":1,"switch1":"OPEN",'
            b'"raw_message":"2dd4ac"}\n',
            options=_EXAMPLE,
            expect=Decoded(
                (
                    Signal(SignalKind.OPENING, "OPEN", level=True),
                    Signal(SignalKind.LOW_BATTERY, "battery_ok", level=False),
                ),
                address="Interlogix-Security/a55b4b",
            ),
        ),
        StreamVector(
            source="merbanan/rtl_433_tests DY-SQ100B json",
            frame=b'{"model":"DY-SQ100B-WaterLeak-EV1527","data":"0f0065","code":983141}\n',
            options=_WATER,
            expect=Decoded((Signal(SignalKind.WATER_LEAK, "wet"),), address="DY-SQ100B-WaterLeak-EV1527/983141"),
        ),
        StreamVector(
            source="synthetic: a line of rtl_433 that is of no transmitter",
            frame=b'{"enabled":209,"since":"2026-01-01"}\n',
            options=_EXAMPLE,
            expect=Reason.NOT_MINE,
        ),
    ),
)

r"""Any device that another gateway publishes on an MQTT broker: what its messages mean stands in the configuration.

    topic TAB payload LF                                    a message, written down
    stat/pull-201/RESULT    {"Button1": {"Action": "SINGLE"}}        Tasmota: a field within a field
    pull-202/binary_sensor/sos/state    ON                           ESPHome: the payload is a word
    home/gw/BTtoMQTT/A4C138000001    {"button": 1, "batt": 90}       Theengs: fields

    [[device]]
    link = "broker"                            # an [[mqtt]]
    address = "stat/pull-201/RESULT"           # a topic that the device speaks under
      [device.map]
      availability = "tele/pull-201/LWT"       # where it, or its gateway, says "online" and "offline"; left out: nowhere
      [[device.map.signal]]                    # the rest: drivers/protocols/field_map.py
      field = "Button1.Action"
      equals = "SINGLE"
      is = "call"

A rule without a `topic` is for the address; each topic that a rule names is subscribed too. A rule without a `field` is for a
message that is a bare word or number. A press has no number of its own here: what tells it from its repeat is the broker's mark
of a message that it sends again.

Limits: those of `field_map` and `published`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from drivers.kit import (
    Decoded,
    Reading,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Streams,
    StreamVector,
    Title,
)
from drivers.kit.options import known_keys
from drivers.protocols import field_map, published


@dataclass(frozen=True, slots=True)
class Map:
    """What the messages of a device mean. `availability`: a topic, "" for none."""

    availability: str
    fields: field_map.FieldMap


def options(raw: Mapping[str, object]) -> Map:
    """Check a device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("availability", "signal", "reading"))
    availability = ""
    if "availability" in raw:
        availability = published.topic_option(raw["availability"], "map.availability")
    return Map(availability, field_map.options(raw, has_topics=True))


def topics(address: str, meaning: Map) -> tuple[str, ...]:
    """Return what to subscribe to. Raises BadOption."""
    named = _named(meaning.fields)
    wanted = [published.topic_option(address, "address"), *named, meaning.availability]
    return tuple(dict.fromkeys(topic for topic in wanted if topic))


def decode(frame: bytes, meaning: Map) -> Decoded:
    """Read one message. Raises Rejected."""
    topic, payload = published.split(frame)
    if topic == meaning.availability:
        is_there = published.says_online(payload)
        if is_there is None:
            raise Rejected(Reason.MALFORMED, "neither online nor offline")
        return Decoded(reachable=is_there)
    here = _rules_for(meaning.fields, topic)
    fields = published.fields(payload)
    signals = field_map.signals(fields, here, topic=topic)
    readings, refused = field_map.readings(fields, here, topic=topic)
    if refused and not signals and not readings:  # any signal may be one that the configuration makes an alarm
        raise Rejected(Reason.IMPLAUSIBLE, refused[0])
    return Decoded((*signals, *readings), refused=refused)


def _named(meaning: field_map.FieldMap) -> tuple[str, ...]:
    return (*(rule.topic for rule in meaning.signals), *(rule.topic for rule in meaning.readings))


def _rules_for(meaning: field_map.FieldMap, topic: str) -> field_map.FieldMap:
    """Return the rules of a topic that a rule names, or else those that name none: they are for the address."""
    if topic not in _named(meaning):
        return meaning
    return replace(
        meaning,
        signals=tuple(rule for rule in meaning.signals if rule.topic),
        readings=tuple(rule for rule in meaning.readings if rule.topic),
    )


_TASMOTA = {
    "availability": "tele/pull-201/LWT",
    "signal": [{"field": "Button1.Action", "equals": "SINGLE", "is": "call", "code": "press"}],
}
_ESPHOME = {
    "signal": [{"equals": "ON", "ends": "OFF", "is": "call", "code": "pull"}],
    "reading": [{"topic": "pull-202/sensor/battery/state", "quantity": "battery"}],
}

DRIVER = Streams(
    model="mqtt-topic",
    title=Title(
        zh="MQTT 主题设备（Tasmota、ESPHome、Theengs 等）", en="device on an MQTT topic (Tasmota, ESPHome, Theengs ...)"
    ),
    framer=published.framer,
    options=options,
    decode=decode,
    topics=topics,
    level_hold_s=3_600.0,
    may_call=True,
    vectors=(
        StreamVector(
            source="synthetic: a button of Tasmota, in the form of its documentation (Buttons and Switches, SetOption73)",
            frame=b'stat/pull-201/RESULT\t{"Button1":{"Action":"SINGLE"}}\n',
            options=_TASMOTA,
            expect=Decoded((Signal(SignalKind.CALL, "press"),)),
        ),
        StreamVector(
            source="synthetic: the last will of Tasmota",
            frame=b"tele/pull-201/LWT\tOffline\n",
            options=_TASMOTA,
            expect=Decoded(reachable=False),
        ),
        StreamVector(
            source="synthetic: a binary sensor of ESPHome, in the form of its documentation (MQTT client component)",
            frame=b"pull-202/binary_sensor/sos/state\tON\n",
            options=_ESPHOME,
            expect=Decoded((Signal(SignalKind.CALL, "pull", level=True),)),
        ),
        StreamVector(
            source="synthetic: a sensor of ESPHome under a topic of its own",
            frame=b"pull-202/sensor/battery/state\t87.5\n",
            options=_ESPHOME,
            expect=Decoded((Reading("battery", Decimal("87.5")),)),
        ),
        StreamVector(
            source="synthetic: a message that is cut",
            frame=b'stat/pull-201/RESULT\t{"Button1":{"Action":\n',
            options=_TASMOTA,
            expect=Reason.MALFORMED,
        ),
    ),
)

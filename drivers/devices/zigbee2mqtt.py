r"""Zigbee devices that zigbee2mqtt publishes: SOS buttons, pull cords, remotes; smoke, gas, water, door and motion sensors.

    topic TAB payload LF                                a message, written down
    zigbee2mqtt/sos-201    {"action": "emergency", "battery": 100, "linkquality": 120}
    zigbee2mqtt/sos-201/availability    {"state": "online"}

    address    the device's topic: base topic / friendly name
    action     calls, whatever it is, apart from what only ends a press (release, *_release, "", null); old versions: click
    sos        true calls (a state)
    smoke, gas, carbon_monoxide, water_leak, tamper, vibration, occupancy, presence, battery_low    states
    contact    false: open
    fall_down_status    "fall", "maybe_fall": a fall (radars of Tuya); "none": over
    battery %, temperature, humidity, illuminance: readings

A device of the bridge may have several buttons: `1_single` is `single` of button "1". Which actions call can be narrowed in
the configuration (`calls_on`). The bridge publishes the whole state of a device each time, so a state is told again and again:
the edges are judged by the gateway, and a state that is not told for an hour is a new one. `action` must not be retained.

Limits: those of `published`; an action of more than 64 characters calls as "unknown".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from drivers.kit import (
    Decoded,
    Observation,
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

AVAILABILITY: Final = "/availability"
# What only ends a press of which its beginning was told.
_RELEASE: Final = re.compile(r"(^|_)release$")
_OF_BUTTON: Final = re.compile(r"(\d{1,2}|left|right|both|center|dual)_(.+)|(.+)_(\d{1,2}|left|right|both)")
_STATES: Final = {
    "sos": SignalKind.CALL,
    "smoke": SignalKind.SMOKE,
    "gas": SignalKind.GAS,
    "carbon_monoxide": SignalKind.CARBON_MONOXIDE,
    "water_leak": SignalKind.WATER_LEAK,
    "tamper": SignalKind.TAMPER,
    "vibration": SignalKind.VIBRATION,
    "occupancy": SignalKind.MOTION,
    "presence": SignalKind.OCCUPANCY,
    "battery_low": SignalKind.LOW_BATTERY,
}
_FALLS: Final = {"fall": True, "maybe_fall": True, "none": False}
# Quantity, factor, and what is plausible.
_READINGS: Final = {
    "battery": ("battery", 0, 100),
    "temperature": ("temperature", -60, 150),
    "humidity": ("humidity", 0, 100),
    "illuminance": ("illuminance", 0, 200_000),
}


def options(raw: Mapping[str, object]) -> None:
    """Refuse every option: there is none. Raises BadOption."""
    known_keys(raw, name="map", allowed=())


def topics(address: str, _options: object) -> tuple[str, ...]:
    """Return what to subscribe to. Raises BadOption."""
    topic = published.topic_option(address, "address")
    return topic, topic + AVAILABILITY


def decode(frame: bytes, _options: object) -> Decoded:
    """Read one message. Raises Rejected."""
    topic, payload = published.split(frame)
    if topic.endswith(AVAILABILITY):
        is_there = published.says_online(payload)
        if is_there is None:
            raise Rejected(Reason.MALFORMED, "neither online nor offline")
        return Decoded(reachable=is_there)
    fields = published.fields(payload)
    if published.WHOLE in fields:
        raise Rejected(Reason.UNSUPPORTED, "no object: `output` of zigbee2mqtt must be json")
    action = fields.get("action")
    if action is None or action == "":
        action = fields.get("click")
    found: list[Observation] = [*_action(action), *_states(fields)]
    refused: list[str] = []
    for field, (quantity, least, most) in _READINGS.items():
        value = fields.get(field)
        if value is None:
            continue
        try:
            number = field_map.number(value, field)
        except Rejected as rejected:
            refused.append(rejected.detail)
            continue
        if least <= number <= most:
            found.append(Reading(quantity, number))
        else:
            refused.append(f"{field} = {number}")
    return Decoded(tuple(found), refused=tuple(refused))


def _action(value: object) -> list[Signal]:
    if value is None or value == "":
        return []
    name = field_map.name(value) or "unknown"
    if _RELEASE.search(name):
        return []
    if found := _OF_BUTTON.fullmatch(name):
        channel, code, other_code, other_channel = found.groups()
        return [Signal(SignalKind.CALL, code or other_code, channel or other_channel)]
    return [Signal(SignalKind.CALL, name)]


def _states(fields: Mapping[str, object]) -> list[Signal]:
    found = [
        Signal(kind, "sos" if kind is SignalKind.CALL else "", level=value)
        for field, kind in _STATES.items()
        if isinstance(value := fields.get(field), bool)
    ]
    contact, fall = fields.get("contact"), fields.get("fall_down_status")
    if isinstance(contact, bool):
        found.append(Signal(SignalKind.OPENING, level=not contact))
    if isinstance(fall, str) and fall in _FALLS:
        found.append(Signal(SignalKind.FALL, fall if _FALLS[fall] else "", level=_FALLS[fall]))
    return found


DRIVER = Streams(
    model="zigbee2mqtt",
    title=Title(zh="Zigbee 设备（经 zigbee2mqtt）", en="Zigbee device (by zigbee2mqtt)"),
    framer=published.framer,
    options=options,
    decode=decode,
    topics=topics,
    level_hold_s=3_600.0,
    readings_every_s=900.0,
    may_call=True,
    vectors=(
        StreamVector(
            source="synthetic: an SOS button, in the form of the zigbee2mqtt documentation (TS0215A_sos)",
            frame=b'zigbee2mqtt/sos-201\t{"action":"emergency","battery":100,"linkquality":120}\n',
            expect=Decoded((Signal(SignalKind.CALL, "emergency"), Reading("battery", Decimal(100)))),
        ),
        StreamVector(
            source="synthetic: the second button of a remote",
            frame=b'zigbee2mqtt/remote\t{"action":"2_double"}\n',
            expect=Decoded((Signal(SignalKind.CALL, "double", "2"),)),
        ),
        StreamVector(
            source="synthetic: a water sensor, in the form of the documentation (SJCGQ11LM)",
            frame=b'zigbee2mqtt/toilet 1\t{"water_leak":true,"battery_low":false,"tamper":false,"voltage":3005}\n',
            expect=Decoded(
                (
                    Signal(SignalKind.WATER_LEAK, level=True),
                    Signal(SignalKind.TAMPER, level=False),
                    Signal(SignalKind.LOW_BATTERY, level=False),
                )
            ),
        ),
        StreamVector(
            source="synthetic: zigbee2mqtt has not heard the device for too long",
            frame=b'zigbee2mqtt/sos-201/availability\t{"state":"offline"}\n',
            expect=Decoded(reachable=False),
        ),
        StreamVector(
            source="synthetic: one attribute as a message of its own (output: attribute)",
            frame=b"zigbee2mqtt/sos-201\temergency\n",
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

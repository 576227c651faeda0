"""What zigbee2mqtt publishes: actions of many remotes, states, readings, and what cannot be taken."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from drivers.devices.zigbee2mqtt import DRIVER
from drivers.kit import BadOption, Decoded, Reading, Reason, Rejected, Signal, SignalKind
from drivers.protocols import published

TOPIC = "zigbee2mqtt/x"


def decode(**fields: object) -> Decoded:
    return DRIVER.decode(published.frame(TOPIC, json.dumps(fields).encode()), None)


@pytest.mark.parametrize(
    ("action", "code", "channel"),
    [
        ("emergency", "emergency", ""), ("panic", "panic", ""), ("single", "single", ""), ("hold", "hold", ""),
        ("1_single", "single", "1"), ("12_hold", "hold", "12"), ("left_double", "double", "left"),
        ("single_left", "single", "left"), ("recall_2", "recall", "2"), ("arm_all_zones", "arm_all_zones", ""),
        ("on", "on", ""), ("button_1_hold", "button_1_hold", ""), ("x" * 65, "unknown", ""), (7, "7", ""), (["a"], "unknown", ""),
    ],
)  # fmt: skip
def test_an_action_calls(action: object, code: str, channel: str) -> None:
    assert decode(action=action) == Decoded((Signal(SignalKind.CALL, code, channel),))


def test_a_click_of_an_old_version_calls_and_one_beside_its_action_is_the_same_press() -> None:
    assert decode(click="single", linkquality=102) == Decoded((Signal(SignalKind.CALL, "single"),))
    assert decode(click="double", action="double") == Decoded((Signal(SignalKind.CALL, "double"),))
    assert decode(click="single", action="") == Decoded((Signal(SignalKind.CALL, "single"),))


@pytest.mark.parametrize("action", ["", None, "release", "hold_release", "1_release", "brightness_move_release"])
def test_what_only_ends_a_press_does_not(action: object) -> None:
    assert decode(action=action) == Decoded()


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("sos", SignalKind.CALL), ("smoke", SignalKind.SMOKE), ("gas", SignalKind.GAS),
        ("carbon_monoxide", SignalKind.CARBON_MONOXIDE), ("water_leak", SignalKind.WATER_LEAK),
        ("tamper", SignalKind.TAMPER), ("vibration", SignalKind.VIBRATION), ("occupancy", SignalKind.MOTION),
        ("presence", SignalKind.OCCUPANCY), ("battery_low", SignalKind.LOW_BATTERY),
    ],
)  # fmt: skip
def test_a_state_has_two_edges(field: str, kind: SignalKind) -> None:
    code = "sos" if field == "sos" else ""
    assert decode(**{field: True}) == Decoded((Signal(kind, code, level=True),))
    assert decode(**{field: False}) == Decoded((Signal(kind, code, level=False),))
    assert decode(**{field: "yes"}) == Decoded()


def test_a_contact_that_is_not_closed_is_open() -> None:
    assert decode(contact=False) == Decoded((Signal(SignalKind.OPENING, level=True),))
    assert decode(contact=True) == Decoded((Signal(SignalKind.OPENING, level=False),))


def test_a_radar_tells_falls() -> None:
    assert decode(fall_down_status="maybe_fall") == Decoded((Signal(SignalKind.FALL, "maybe_fall", level=True),))
    assert decode(fall_down_status="fall") == Decoded((Signal(SignalKind.FALL, "fall", level=True),))
    assert decode(fall_down_status="none") == Decoded((Signal(SignalKind.FALL, level=False),))
    assert decode(fall_down_status="?") == Decoded()


def test_readings_that_cannot_be_are_refused_beside_what_can() -> None:
    assert decode(battery=101, temperature=21.5, humidity=None, illuminance="dark", action="single") == Decoded(
        (Signal(SignalKind.CALL, "single"), Reading("temperature", Decimal("21.5"))),
        refused=("battery = 101", "illuminance is no number"),
    )


def test_availability_is_not_taken_for_a_state_of_the_device() -> None:
    said = published.frame(TOPIC + "/availability", b"offline")
    assert DRIVER.decode(said, None) == Decoded(reachable=False)
    with pytest.raises(Rejected) as caught:
        DRIVER.decode(published.frame(TOPIC + "/availability", b"perhaps"), None)
    assert caught.value.reason is Reason.MALFORMED


def test_what_is_subscribed_to_and_what_is_no_address() -> None:
    assert DRIVER.topics is not None
    assert DRIVER.topics(TOPIC, None) == (TOPIC, TOPIC + "/availability")
    with pytest.raises(BadOption) as caught:
        DRIVER.topics("zigbee2mqtt/#", None)
    assert caught.value.key == "address"
    with pytest.raises(BadOption):
        DRIVER.options({"x": 1})

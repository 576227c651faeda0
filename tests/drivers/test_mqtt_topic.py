"""A device that speaks under topics: its rules by topic, who says that it is there, and what is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest

from drivers.devices.mqtt_topic import DRIVER
from drivers.kit import BadOption, Decoded, Reading, Reason, Rejected, Signal, SignalKind
from drivers.protocols import published

HUB = {
    "availability": "hub/status",
    "signal": [
        {"field": "button", "equals": 1, "is": "call"},
        {"topic": "hub/smoke", "equals": "ON", "ends": "OFF", "is": "smoke"},
    ],
    "reading": [{"topic": "hub/temperature", "quantity": "temperature"}, {"field": "batt", "quantity": "battery"}],
}


def decode(topic: str, payload: bytes) -> Decoded:
    return DRIVER.decode(published.frame(topic, payload), DRIVER.options(HUB))


def test_what_is_subscribed_to() -> None:
    assert DRIVER.topics is not None
    assert DRIVER.topics("hub/state", DRIVER.options(HUB)) == (
        "hub/state",
        "hub/smoke",
        "hub/temperature",
        "hub/status",
    )
    only = DRIVER.options({"signal": [{"is": "call"}]})
    assert DRIVER.topics("x", only) == ("x",)


def test_rules_without_a_topic_are_for_the_address() -> None:
    assert decode("hub/state", b'{"button":1,"batt":90}') == Decoded(
        (Signal(SignalKind.CALL, "1"), Reading("battery", Decimal(90)))
    )
    assert decode("hub/smoke", b"ON") == Decoded((Signal(SignalKind.SMOKE, "ON", level=True),))
    assert decode("hub/smoke", b"OFF") == Decoded((Signal(SignalKind.SMOKE, "ON", level=False),))
    assert decode("hub/smoke", b'{"button":1}') == Decoded()
    assert decode("hub/temperature", b"21.5") == Decoded((Reading("temperature", Decimal("21.5")),))


def test_who_is_there() -> None:
    assert decode("hub/status", b"online") == Decoded(reachable=True)
    assert decode("hub/status", b"offline") == Decoded(reachable=False)
    with pytest.raises(Rejected) as caught:
        decode("hub/status", b"?")
    assert caught.value.reason is Reason.MALFORMED


def test_a_reading_that_cannot_be_is_refused_but_never_a_call_beside_it() -> None:
    with pytest.raises(Rejected) as caught:
        decode("hub/state", b'{"batt":"full"}')
    assert caught.value.reason is Reason.IMPLAUSIBLE
    assert decode("hub/state", b'{"batt":"full","button":1}') == Decoded(
        (Signal(SignalKind.CALL, "1"),), refused=("batt is no number",)
    )


def test_a_map_that_says_nothing_is_refused() -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options({"availability": "x"})
    assert caught.value.key == "map"

"""What the fields of an object mean: states with an end, fields within fields, whole messages."""

from __future__ import annotations

from decimal import Decimal

import pytest

from drivers.kit import BadOption, Reading, Signal, SignalKind
from drivers.protocols import field_map

SMOKE = {"field": "smoke", "equals": True, "ends": False, "is": "tamper", "code": "smoke"}


def test_a_value_that_ends_a_signal_makes_it_a_state_with_two_edges() -> None:
    meaning = field_map.options({"signal": [SMOKE]}, has_topics=True)
    kind = SignalKind.TAMPER
    assert field_map.signals({"smoke": True}, meaning) == [Signal(kind, "smoke", level=True)]
    assert field_map.signals({"smoke": False}, meaning) == [Signal(kind, "smoke", level=False)]
    assert field_map.signals({"smoke": None}, meaning) == []
    assert field_map.signals({"smoke": 0}, meaning) == []  # false is not 0
    assert field_map.signals({}, meaning) == []


def test_without_a_value_that_begins_it_everything_but_its_end_does() -> None:
    rules = {"signal": [{"field": "state", "ends": "idle", "is": "occupancy"}]}
    meaning = field_map.options(rules, has_topics=True)
    kind = SignalKind.OCCUPANCY
    assert field_map.signals({"state": "moving"}, meaning) == [Signal(kind, "moving", level=True)]
    assert field_map.signals({"state": "idle"}, meaning) == [Signal(kind, "idle", level=False)]
    assert field_map.signals({"state": ""}, meaning) == []


def test_a_dotted_name_is_a_field_within_a_field_unless_a_field_has_that_whole_name() -> None:
    meaning = field_map.options({"signal": [{"field": "Button1.Action", "equals": "SINGLE", "is": "call"}]})
    press = [Signal(SignalKind.CALL, "SINGLE")]
    assert field_map.signals({"Button1": {"Action": "SINGLE"}}, meaning) == press
    assert field_map.signals({"Button1.Action": "SINGLE", "Button1": {"Action": "HOLD"}}, meaning) == press
    assert field_map.signals({"Button1": {"Action": "HOLD"}}, meaning) == []
    assert field_map.signals({"Button1": "SINGLE"}, meaning) == []
    assert field_map.signals({"Button2": {"Action": "SINGLE"}}, meaning) == []


def test_a_rule_of_a_topic_is_for_that_topic_only() -> None:
    rules = {
        "signal": [{"field": "", "equals": "ON", "ends": "OFF", "is": "call", "topic": "a/sos"}],
        "reading": [{"field": "", "quantity": "temperature", "topic": "a/temperature"}],
    }
    meaning = field_map.options(rules, has_topics=True)
    assert field_map.signals({"": "ON"}, meaning, topic="a/sos") == [Signal(SignalKind.CALL, "ON", level=True)]
    assert field_map.signals({"": "ON"}, meaning, topic="a/other") == []
    warm = Decimal("21.5")
    assert field_map.readings({"": warm}, meaning, topic="a/temperature") == ([Reading("temperature", warm)], ())
    assert field_map.readings({"": warm}, meaning, topic="a/sos") == ([], ())


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ({"signal": [{"field": "a", "is": "call", "ends": "off"}]}, "map.signal[0].ends"),
        ({"signal": [{"field": "a", "is": "call", "topic": "x"}]}, "map.signal[0].topic"),
        ({"reading": [{"field": "a", "quantity": "voltage", "topic": "x"}]}, "map.reading[0].topic"),
        ({"signal": [{"is": "call"}]}, "map.signal[0].field"),
        ({}, "map"),
    ],
)
def test_of_a_line_what_does_not_fit_is_refused_by_key(rules: dict[str, object], key: str) -> None:
    with pytest.raises(BadOption) as caught:
        field_map.options(rules)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ({"signal": [{"is": "call", "ends": 1.5}]}, "map.signal[0].ends"),
        ({"signal": [{"is": "call", "topic": "a/+"}]}, "map.signal[0].topic"),
        ({"reading": [{"quantity": "voltage", "topic": ""}]}, "map.reading[0].topic"),
        ({"reading": [{"quantity": "voltage", "ends": 1}]}, "map.reading[0].ends"),
    ],
)
def test_of_a_broker_what_does_not_fit_is_refused_by_key(rules: dict[str, object], key: str) -> None:
    with pytest.raises(BadOption) as caught:
        field_map.options(rules, has_topics=True)
    assert caught.value.key == key

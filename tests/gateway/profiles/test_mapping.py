"""Templates: what a placeholder becomes, and what cannot be said."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any

import pytest

from gateway.profiles.mapping import MappingError, Words, compiled, rendered

WORDS = Words({"level": {"alarm.raised": 1, "default": 3}, "strict": {"yes": "Y"}})
EVENT: dict[str, Any] = {
    "id": "abc",
    "noun": "alarm.raised",
    "time": "2026-03-05T08:15:30.123Z",
    "sequence": "00000000000000000042",
    "data": {"kind": "call", "verified": True, "bed": None, "n": 7, "registers": [
        {"quantity": "voltage", "channel": "a", "value": "231.4"}, {"quantity": "energy", "channel": "", "value": "-12"},
    ]},
}  # fmt: skip


def said(template: object) -> Any:
    return rendered(compiled({"it": template}), EVENT, WORDS).get("it", "left out")


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("{id}", "abc"),
        ("event-{id}!", "event-abc!"),
        ("{data.verified}", True),
        ("is {data.verified}", "is true"),
        ("{data.n}", 7),
        ("{data.n}/{data.kind}", "7/call"),
        ("{time|ms}", 1772698530123),
        ("{time|s}", 1772698530),
        ("{time|iso}", "2026-03-05T08:15:30.123+00:00"),
        ("{time|local}", "2026-03-05 16:15:30"),
        ("{sequence|number}", 42),
        ("{data.n|text}", "7"),
        ("{noun|snake}", "alarm_raised"),
        ("{data.registers|values}", {"voltage_a": 231.4, "energy": -12}),
        ("{noun|enum:level}", 1),
        ("{data.kind|enum:level}", 3),
        ("{data.kind|enum:level|text}", "3"),
        ("{data.missing?}", "left out"),
        ("{data.bed?}", "left out"),
        ("<{data.missing?}>", "<>"),
        (["{id}", "{data.missing?}", 1], ["abc", 1]),
        ({"a": {"b": "{id}"}, "c": "{data.missing?}"}, {"a": {"b": "abc"}}),
        (1.5, 1.5),
        ("", ""),
    ],
)
def test_a_template_becomes(template: object, value: object) -> None:
    assert said(template) == value


def test_local_time_is_that_of_the_profile() -> None:
    words = Words({}, timezone(timedelta(hours=-5)))
    assert rendered(compiled("{time|local}"), EVENT, words) == "2026-03-05 03:15:30"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{data.missing}", "the event has no data.missing"),
        ("{data.bed}", "the event has no data.bed"),
        ("{data.kind.more}", "the event has no data.kind.more"),
        ("{data.kind|ms}", "data.kind|ms: Invalid isoformat string: 'call'"),
        ("{data.n|ms}", "data.n|ms: fromisoformat: argument must be str"),
        ("{data.kind|number}", "data.kind|number: not a number: 'call'"),
        ("{data.kind|enum:strict}", "data.kind|enum: 'call' is not in the table strict"),
        ("{data.kind|values}", "data.kind|values: string indices must be integers, not 'str'"),
        ("a {data} b", "a dict within a text"),
    ],
)
def test_what_cannot_be_said_is_named(template: str, why: str) -> None:
    with pytest.raises(MappingError) as caught:
        said(template)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    "template", ["{", "}", "{}", "{Data.kind}", "{data.}", "{data.kind|}", "{data kind}", "{{id}}"]
)
def test_what_looks_like_a_placeholder_and_is_none_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"[{}]"):
        compiled({"it": [template]})


def test_a_text_has_an_end() -> None:
    with pytest.raises(MappingError, match="a text of 70002 characters"):
        rendered(compiled("<{id}>"), {"id": "x" * 70_000}, WORDS)

"""What a driver gathers of one message: what is told as a value, and what is refused by name."""

from __future__ import annotations

from decimal import Decimal

import pytest

from drivers.kit import Reading
from drivers.kit.report import Report


@pytest.mark.parametrize("word", ["NaN", "sNaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("none", [None, 255])
def test_what_is_no_number_is_refused_and_raises_nothing(word: str, none: int | None) -> None:
    report = Report()
    report.reading("battery", Decimal(word), none=none)
    report.reading("humidity", Decimal(48))
    decoded = report.decoded()
    assert decoded.refused == (f"battery = {word}",)
    assert decoded.observations == (Reading("humidity", Decimal(48)),)


def test_a_filler_is_no_value_and_what_lies_outside_its_bounds_is_refused() -> None:
    report = Report()
    report.reading("battery", 255, none=255)
    report.reading("battery", 101, none=255)
    report.reading("temperature", None)
    decoded = report.decoded()
    assert (decoded.observations, decoded.refused) == ((), ("battery = 101",))


@pytest.mark.parametrize(("value", "good"), [("12.5", True), ("NaN", False), ("sNaN", False), ("-Infinity", False)])
def test_a_reading_knows_whether_it_is_a_number(value: str, good: bool) -> None:
    assert Reading("battery", Decimal(value)).is_finite is good

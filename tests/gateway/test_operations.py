"""What the control socket takes from people is bounded where it comes in."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.operations import dial_of


@pytest.mark.parametrize(
    ("written", "shown"),
    [("1312.5", Decimal("1312.5")), ("0", Decimal(0)), ("0.000", Decimal(0)), ("007.25", Decimal("7.25"))],
)
def test_what_a_dial_shows_is_taken(written: str, shown: Decimal) -> None:
    assert dial_of(written) == shown


@pytest.mark.parametrize("written", ["", "abc", "-3", "nan", "inf", "1e99999999", "0e-99999999", "1e-99999999", "1e19"])
def test_a_number_that_no_dial_shows_is_none_however_short_it_is_written(written: str) -> None:
    assert dial_of(written) is None

"""Packed decimal fields and check bytes, by values worked out by hand."""

from __future__ import annotations

from decimal import Decimal

import pytest

from drivers.kit import Reason, Rejected
from drivers.kit.checks import sum8, xor8
from drivers.kit.fields import bcd


@pytest.mark.parametrize(
    ("field", "decimals", "expected"),
    [
        ("30360000", 2, "36.30"),
        ("78563412", 2, "123456.78"),
        ("00000000", 2, "0.00"),
        ("0123", 1, "230.1"),
        ("99999999", 2, "999999.99"),
        ("07", 0, "7"),
    ],
)
def test_digits_are_read_low_byte_first_and_keep_their_decimals(field: str, decimals: int, expected: str) -> None:
    assert str(bcd(bytes.fromhex(field), decimals=decimals)) == expected


def test_the_highest_bit_of_a_signed_field_is_a_minus() -> None:
    assert bcd(bytes.fromhex("050080"), decimals=4, signed=True) == Decimal("-0.0005")
    assert bcd(bytes.fromhex("050080"), decimals=4) == Decimal("80.0005")


def test_a_negative_zero_is_zero() -> None:
    assert str(bcd(bytes.fromhex("000080"), decimals=3, signed=True)) == "0.000"


def test_all_ff_is_no_value_and_never_a_number() -> None:
    assert bcd(b"\xff\xff") is None
    assert bcd(b"\xff\xff", signed=True) is None


@pytest.mark.parametrize("field", ["0a00", "00b0", "ff00", "00ff"])
def test_a_nibble_above_nine_is_implausible(field: str) -> None:
    with pytest.raises(Rejected) as caught:
        bcd(bytes.fromhex(field))
    assert caught.value.reason is Reason.IMPLAUSIBLE


@pytest.mark.parametrize("size", [0, 15])
def test_a_field_of_no_bytes_or_too_many_is_malformed(size: int) -> None:
    with pytest.raises(Rejected) as caught:
        bcd(bytes(size))
    assert caught.value.reason is Reason.MALFORMED


def test_check_bytes() -> None:
    # The read request for 02010100 with the wildcard address, published with its sum B1.
    assert sum8(bytes.fromhex("68aaaaaaaaaaaa68110433343435")) == 0xB1
    assert xor8(b"\x0f\xf0\x01") == 0xFE
    assert sum8(b"") == xor8(b"") == 0

"""A UART's view of bytes that were sent with another speed or parity, worked out by hand bit by bit."""

from __future__ import annotations

import pytest

from simulator.uart import Framing, arriving

EVEN, ODD, NONE = Framing(2400, 8, "E"), Framing(2400, 8, "O"), Framing(2400)
REQUEST = bytes.fromhex("fefefefe68003619000000681104333334339a16")


def test_the_same_settings_hear_what_was_said() -> None:
    assert arriving(REQUEST, sent=EVEN, heard=Framing(2400, 8, "E", 1)) == REQUEST


def test_even_for_odd_is_an_error_in_each_byte() -> None:
    assert arriving(REQUEST, sent=EVEN, heard=ODD) == bytes(len(REQUEST))


def test_without_parity_a_byte_with_an_odd_number_of_ones_passes_and_the_others_have_no_stop_bit() -> None:
    # 68 = three ones: its even parity is 1, which passes for a stop bit. 11 = two ones: 0, no stop bit.
    assert arriving(b"\x68\x11\x68", sent=EVEN, heard=NONE) == b"\x68\x00\x68"


def test_a_receiver_that_wants_parity_reads_the_stop_bit_as_one() -> None:
    # Alone on the line a byte with an odd number of ones has the right "parity", and the idle line is its stop bit.
    assert arriving(b"\x68", sent=NONE, heard=EVEN) == b"\x68"
    assert arriving(b"\x11", sent=NONE, heard=EVEN) == b"\x00"
    assert arriving(REQUEST, sent=NONE, heard=EVEN) != REQUEST


def test_a_second_stop_bit_is_only_a_pause() -> None:
    assert arriving(REQUEST, sent=Framing(2400, 8, "N", 2), heard=NONE) == REQUEST


@pytest.mark.parametrize("heard", [Framing(9600, 8, "E"), Framing(1200, 8, "E")])
def test_another_speed_is_noise(heard: Framing) -> None:
    assert arriving(REQUEST, sent=EVEN, heard=heard) != REQUEST

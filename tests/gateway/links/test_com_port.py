"""Telnet and the COM port option (RFC 2217), byte by byte; the numbers stand in RFC 854, 856 and 2217."""

from __future__ import annotations

import random

import pytest

from drivers.kit import LineSettings
from gateway.links.com_port import ComPort, escaped

DO_BINARY, WILL_BINARY, DO_COM = bytes.fromhex("fffd00"), bytes.fromhex("fffb00"), bytes.fromhex("fffd2c")
# 2400 8E1: FB2C, then 1 = 00000960, 2 = 08, 3 = 03 (even), 4 = 01, no flow control, no notes on modem lines.
SET_2400_8E1 = bytes.fromhex(
    "fffa2c0100000960fff0 fffa2c0208fff0 fffa2c0303fff0 fffa2c0401fff0 fffa2c0501fff0 fffa2c0b00fff0"
)
DONE_2400_8E1 = bytes.fromhex("fffa2c6500000960fff0 fffa2c6608fff0 fffa2c6703fff0 fffa2c6801fff0")


def agreed() -> ComPort:
    com = ComPort()
    com.begin()
    com.replies()
    com.feed(DO_BINARY + WILL_BINARY + DO_COM)
    return com


def test_it_asks_for_eight_bits_both_ways_and_for_the_port() -> None:
    com = ComPort()
    com.begin()
    assert com.replies() == bytes.fromhex("fffb00 fffd00 fffb2c fffb03 fffd03")
    assert not com.is_ready
    assert com.feed(DO_BINARY + WILL_BINARY) == b""
    assert not com.is_ready
    com.feed(DO_COM)
    assert com.is_ready
    assert com.replies() == b""  # what was asked for is not answered once more


def test_settings_are_sent_in_one_go_and_compared_with_what_the_server_says() -> None:
    com = agreed()
    com.ask(LineSettings(2400, 8, "E", 1))
    assert com.replies() == SET_2400_8E1
    assert not com.is_set
    com.feed(DONE_2400_8E1)
    assert com.is_set
    assert com.kept == ""


def test_a_server_that_keeps_another_parity_is_not_believed_to_have_set_ours() -> None:
    com = agreed()
    com.ask(LineSettings(2400, 8, "E", 1))
    com.feed(DONE_2400_8E1.replace(bytes.fromhex("6703"), bytes.fromhex("6701")))
    assert com.is_set
    assert com.kept == "2400 8N1"


def test_what_it_said_of_former_settings_does_not_count() -> None:
    com = agreed()
    com.ask(LineSettings(2400, 8, "E", 1))
    com.feed(DONE_2400_8E1)
    com.ask(LineSettings(9600, 8, "N", 1))
    assert not com.is_set


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        ("fffe2c", "it does not let its port be set (RFC 2217)"),
        ("fffe00", "it passes no eight bits (telnet without BINARY)"),
        ("fffc00", "it passes no eight bits (telnet without BINARY)"),
    ],
)
def test_what_a_server_refuses_is_named(said: str, refusal: str) -> None:
    com = ComPort()
    com.begin()
    com.feed(bytes.fromhex(said))
    assert com.refusal == refusal


def test_a_server_that_offers_the_option_itself_is_taken_at_its_word() -> None:
    com = ComPort()
    com.begin()
    com.feed(DO_BINARY + bytes.fromhex("fffe2c fffb2c"))
    assert com.is_ready
    assert com.refusal == ""


def test_options_that_nobody_needs_are_declined_and_agreement_is_not_argued_about() -> None:
    com = agreed()
    com.feed(bytes.fromhex("fffb01 fffd18"))  # it would echo; it wants a terminal type
    assert com.replies() == bytes.fromhex("fffe01 fffc18")
    com.feed(DO_BINARY * 3 + WILL_BINARY * 3)
    assert com.replies() == b""
    com.feed(bytes.fromhex("fffe00"))
    assert com.replies() == bytes.fromhex("fffc00")
    assert com.refusal == "it passes no eight bits (telnet without BINARY)"


def test_all_bytes_pass_in_both_directions_in_any_cut() -> None:
    every = bytes(range(256))
    wire = escaped(every)
    assert len(wire) == 257
    noted = wire[:100] + bytes.fromhex("fffa2c6bb0fff0 fff1") + wire[100:]  # a note on modem lines, a NOP
    for size in (1, 2, 3, 7, 300):
        com = agreed()
        assert b"".join(com.feed(noted[at : at + size]) for at in range(0, len(noted), size)) == every


def test_a_command_without_an_end_holds_no_memory_and_costs_only_itself() -> None:
    com = agreed()
    com.ask(LineSettings(2400, 8, "E", 1))
    com.feed(bytes.fromhex("fffa2c65") + bytes(100_000))
    assert len(com._sub) < 100
    assert com.feed(bytes.fromhex("fff0") + DONE_2400_8E1 + b"meter") == b"meter"
    assert com.is_set


def test_nothing_that_a_server_sends_breaks_it() -> None:
    source = random.Random(2217)  # noqa: S311 - a rehearsal that can be repeated
    com = agreed()
    for _ in range(20_000):
        com.feed(bytes(source.choice((255, 250, 240, 251, 252, 253, 254, 44, 101, 0, 7)) for _ in range(12)))
        assert len(com.replies()) <= 36

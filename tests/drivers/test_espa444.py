"""ESPA 4.4.4: published blocks, answers to the line, records as call systems really write them, and broken lines."""

from __future__ import annotations

import json
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

import pytest

from drivers.devices.espa444 import DRIVER
from drivers.kit import BadOption, Decoded, Reason, Rejected, Reply, Signal, SignalKind

CAPTURES = Path(__file__).parents[1] / "data" / "captures" / "espa444" / "espa444.jsonl"
LINES: list[dict[str, Any]] = [json.loads(line) for line in CAPTURES.read_text(encoding="utf-8").splitlines()]
ACK, NAK, EOT = Reply(b"\x06"), Reply(b"\x15"), Reply(b"\x04")
STORED = Reply(b"\x06", when="committed")
PLAIN = DRIVER.options({})


def block(header: str, *records: str) -> bytes:
    """A block made here by hand; each record as it stands between two RS."""
    content = header.encode() + b"\x02" + "\x1e".join(records).encode("latin-1") + b"\x03"
    return b"\x01" + content + bytes([reduce(xor, content)])


def with_parity(data: bytes) -> bytes:
    """What a line of 7E1 looks like to eight bits."""
    return bytes(byte | (0x80 if byte.bit_count() % 2 else 0) for byte in data)


def said(data: bytes, **options: object) -> list[Decoded]:
    """Everything that comes of these bytes; refusals raise."""
    return [DRIVER.decode(frame, DRIVER.options(options)) for frame in DRIVER.framer().feed(data)]


def refused(frame: bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        DRIVER.decode(frame, PLAIN)
    return caught.value


# The corpus: what each published line leads to.
CALL = SignalKind.CALL
MEANING: dict[str, list[Decoded] | Reason] = {
    "01310220311f3535301e321f43414c4c204d45203130311e331f331e341f331e351f331e361f330303": [
        Decoded((Signal(CALL, "normal", "550", detail="CALL ME 101"),), address="550", replies=(STORED,))
    ],
    "013102311f41035f": [Decoded((Signal(CALL, "", "A"),), address="A", replies=(STORED,))],
    "013102311f303831351e321f4665756572205a696d6d65722031321e331f321e341f331e351f311e361f310342": [
        Decoded((Signal(CALL, "alarm", "0815", detail="Feuer Zimmer 12"),), address="0815", replies=(STORED,))
    ],
    "013102311f303831351e321f4665756572205a696d6d65722031321e331f321e341f331e351f311e361f310343": Reason.BAD_CHECK,
    "05": [Decoded(replies=(ACK,))],
    "31053205": [Decoded(), Decoded(replies=(ACK,))],
    "013102311f31321e341f310319": [
        Decoded((Signal(SignalKind.CANCEL, "reset", "12"),), address="12", replies=(STORED,))
    ],
}


def test_the_corpus_is_whole() -> None:
    assert [line["bytes"] for line in LINES] == list(MEANING)
    assert len(LINES) == 7


@pytest.mark.parametrize("line", LINES, ids=lambda line: str(line["bytes"]))
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_published_line_means_what_its_publisher_says(line: dict[str, Any], step: int) -> None:
    data, framer = bytes.fromhex(line["bytes"]), DRIVER.framer()
    frames = [frame for at in range(0, len(data), step) for frame in framer.feed(data[at : at + step])]
    meaning = MEANING[line["bytes"]]
    if isinstance(meaning, Reason):
        (frame,) = frames
        assert refused(frame).reason is meaning
        assert refused(frame).replies == (NAK,)
    else:
        assert [DRIVER.decode(frame, PLAIN) for frame in frames] == meaning


# Answers to the line.


def test_a_poll_follows_an_eot_and_is_answered_by_one_since_we_have_nothing_to_send() -> None:
    assert said(b"\x042\x05") == [Decoded(replies=(EOT,))]
    assert said(b"\x042\x05", polled="ack") == [Decoded(replies=(ACK,))]


def test_a_whole_transaction_is_answered_step_by_step() -> None:
    call = block("1", "1\x1f3011")
    found = said(b"\x041\x052\x05" + call + b"\x04")
    assert [one.replies for one in found] == [(), (ACK,), (STORED,)]


def test_on_a_shared_line_only_our_own_station_answers() -> None:
    assert said(b"\x043\x052\x05", station="2") == [Decoded(), Decoded(replies=(ACK,))]
    assert said(b"\x041\x053\x05", station="2") == [Decoded(), Decoded()]


@pytest.mark.parametrize("header", ["2", "3", "4"])
def test_status_and_subscriber_lines_are_acknowledged_and_read_past(header: str) -> None:
    assert said(block(header, "1\x1f3011", "7\x1f1")) == [Decoded(address="3011", replies=(ACK,))]


def test_makers_information_is_acknowledged_and_refused_by_name() -> None:
    found = refused(block("5", "9\x1fx"))
    assert (found.reason, found.replies) == (Reason.UNSUPPORTED, (ACK,))


@pytest.mark.parametrize("header", ["", "6", "01", " 1", "call"])
def test_a_header_that_nobody_has_described_is_a_call(header: str) -> None:
    (found,) = said(block(header, "1\x1f3011"))
    assert found.observations == (Signal(CALL, "", "3011"),)


# Records as they come.


def test_records_come_in_any_order_with_spaces_and_a_last_separator() -> None:
    (found,) = said(block(" 1 ", "6\x1f2", " 2\x1f Stra\xdfe  7 ", "  1 \x1f 3011 ", ""))
    assert found == Decoded((Signal(CALL, "high", "3011", detail="Straße 7"),), address="3011", replies=(STORED,))


def test_of_two_equal_records_the_first_with_a_value_counts() -> None:
    (found,) = said(block("1", "1\x1f", "1\x1f7", "1\x1f8"))
    assert found.address == "7"


@pytest.mark.parametrize("kind", ["2", "3", "", "9", "01", "x"])
def test_every_call_type_but_a_reset_calls(kind: str) -> None:
    (found,) = said(block("1", "1\x1f7", f"4\x1f{kind}"))
    assert found.observations == (Signal(CALL, "", "7"),)


def test_an_unknown_priority_calls() -> None:
    (found,) = said(block("1", "1\x1f7", "6\x1f0"))
    assert found.observations == (Signal(CALL, "unknown", "7"),)


def test_a_text_is_bounded_and_has_no_control_characters() -> None:
    (found,) = said(block("1", "1\x1f7", "2\x1fA\r\nB\x7f" + "x" * 500))
    (signal,) = found.observations
    assert isinstance(signal, Signal)
    assert signal.detail == "A B " + "x" * 196


def test_a_call_without_any_address_calls() -> None:
    (found,) = said(block("1", "2\x1fFeuer"))
    assert found.observations == (Signal(CALL, detail="Feuer"),)
    assert found.address == ""


def test_an_address_can_mean_something_else_or_nothing() -> None:
    (found,) = said(block("1", "1\x1f7"), **{"is": "bed_exit"})
    assert found.observations == (Signal(SignalKind.BED_EXIT, "", "7"),)
    assert said(block("1", "1\x1f7"), **{"is": "none"}) == [Decoded(address="7", replies=(ACK,))]


def test_seven_bits_with_parity_are_understood_and_answered_with_parity() -> None:
    found = said(with_parity(b"\x041\x052\x05" + block("1", "1\x1f3011", "2\x1fZimmer")))
    assert found[-1] == Decoded((Signal(CALL, "", "3011", detail="Zimmer"),), address="3011", replies=(STORED,))
    assert [one.replies for one in found[:-1]] == [(), (ACK,)]
    broken = with_parity(block("1", "1\x1f3011")[:-1]) + b"\x00"
    (frame,) = DRIVER.framer().feed(broken)
    assert refused(frame).replies == (Reply(b"\x95"),)
    assert said(with_parity(b"\x042\x05")) == [Decoded(replies=(Reply(b"\x84"),))]


# Broken lines.


@pytest.mark.parametrize("control", range(0x20))
def test_a_block_check_may_look_like_any_control_character(control: int) -> None:
    bare = block("1", "1\x1f7", "2\x1f")[-1]
    filler = "".join(chr(0x40 | (byte & 0x3F)) for byte in (bare ^ control, 0)) + chr(0x20 | ((bare ^ control) & 0x40))
    calls = [block("1", "1\x1f7", f"2\x1f{filler}{end}") for end in ("", "@", " ", "@ ", "`", "@`", " `", "@ `")]
    call = next(one for one in calls if one[-1] == control)
    assert DRIVER.framer().feed(call + b"\x04") == [call]


@pytest.mark.parametrize("interrupted", [b"\x011\x021\x1f30", b"\x011\x021\x1f30\x04", b"\x01", b"\x03\x03"])
def test_a_call_behind_an_interrupted_block_is_found_at_once(interrupted: bytes) -> None:
    call = block("1", "1\x1f3011")
    framer = DRIVER.framer()
    assert framer.feed(interrupted) == []
    assert framer.feed(call) == [call]


def test_an_inquiry_within_a_block_is_not_answered_as_if_the_block_had_come() -> None:
    framer = DRIVER.framer()
    assert framer.feed(b"\x011\x021\x1f3011\x05") == []
    assert framer.rejects == {Reason.MALFORMED: 1}
    assert framer.feed(b"2\x05") == [b"2\x05"]


def test_a_block_without_an_end_is_given_up_at_the_limit() -> None:
    framer = DRIVER.framer()
    assert framer.feed(b"\x011\x02" + b"x" * 2000) == []
    assert framer.rejects == {Reason.TOO_LONG: 1}
    assert framer.feed(b"2\x05") == [b"2\x05"]


@pytest.mark.parametrize(
    ("key", "value"), [("is", "fire"), ("polled", "nak"), ("station", 2), ("control", True), ("is", ["call"])]
)
def test_options_that_do_not_fit_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options({key: value})
    assert caught.value.key == f"map.{key}"

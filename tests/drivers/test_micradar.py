"""Micradar modules: published frames, falls and what hides them, and that a fall waits behind nothing."""

from __future__ import annotations

import inspect
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.devices.micradar import DRIVER
from drivers.kit import BadOption, Decoded, Reading, Reason, Rejected, Signal, SignalKind
from drivers.protocols import micradar

CAPTURES = Path(__file__).parents[1] / "data" / "captures" / "micradar" / "micradar.jsonl"
LINES: list[dict[str, Any]] = [json.loads(line) for line in CAPTURES.read_text(encoding="utf-8").splitlines()]
PLAIN = DRIVER.options({})
FALL_FRAME = bytes.fromhex("53598381000101b25443")


def frame(control: int, command: int, data: bytes) -> bytes:
    """A frame made here by hand."""
    head = bytes([0x53, 0x59, control, command]) + len(data).to_bytes(2, "big") + data
    return head + bytes([sum(head) & 0xFF]) + b"\x54\x43"


def decode(control: int, command: int, data: bytes, **options: object) -> Decoded:
    return DRIVER.decode(frame(control, command, data), DRIVER.options(options))


def meaning(expected: dict[str, Any]) -> Decoded | Reason:
    """What the publisher's words are to us; questions and settings to the module are none of its reports."""
    report, value = expected.get("report"), expected.get("value")
    commands = {"query fall state": Reason.NOT_MINE, "query work mode": Reason.NOT_MINE}
    if "command" in expected:
        return commands.get(expected["command"], Decoded())  # "set mode", "reset": read past
    if report in ("body_movement", "81 05"):
        return Decoded((Reading("body_movement", Decimal(value)),))
    if report == "motion":
        return Decoded((Reading("motion", Decimal({"none": 0, "still": 1, "active": 2}[value])),))
    if report == "distance":
        return Decoded((Reading("target_distance", Decimal(expected["cm"]).scaleb(-2)),))
    if report == "heart_rate":
        return Decoded((Reading("heart_rate", Decimal(expected["bpm"])),))
    if report == "breath_rate":
        return Decoded((Reading("breath_rate", Decimal(expected["rpm"])),) if expected["rpm"] else ())
    if report == "presence":
        return Decoded((Signal(SignalKind.OCCUPANCY, "presence", level=value),))
    if report == "fall (answer to query)":
        return Decoded((Signal(SignalKind.FALL, "fall", level=value),))
    if report == "stationary_residency":
        return Decoded((Signal(SignalKind.CALL, "stationary", "stationary", level=value),))
    assert report in ("81 04", "direction_angle"), "nobody says what this is; it is read past"
    return Decoded()


def test_the_corpus_is_whole() -> None:
    assert len(LINES) == 34


@pytest.mark.parametrize("line", LINES, ids=lambda line: str(line["bytes"])[:40])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_published_frame_means_what_its_publisher_says(line: dict[str, Any], step: int) -> None:
    data, framer = bytes.fromhex(line["bytes"]), DRIVER.framer()
    frames = [found for at in range(0, len(data), step) for found in framer.feed(data[at : at + step])]
    expected = line["expected"].get("frames", [line["expected"]])
    assert len(frames) == len(expected)
    for found, one in zip(frames, expected, strict=True):
        wanted = meaning(one)
        if isinstance(wanted, Decoded):
            assert DRIVER.decode(found, PLAIN) == wanted
        else:
            with pytest.raises(Rejected) as caught:
                DRIVER.decode(found, PLAIN)
            assert caught.value.reason is wanted


@pytest.mark.parametrize("command", [0x01, 0x81])
@pytest.mark.parametrize("level", [True, False])
def test_a_fall_is_a_level_in_a_report_and_in_an_answer(command: int, level: bool) -> None:
    assert decode(0x83, command, bytes([level])) == Decoded((Signal(SignalKind.FALL, "fall", level=level),))


def test_our_questions_are_the_published_ones_and_asked_together() -> None:
    assert micradar.question(0x83, 0x01).hex() == "5359838100010fc05443"
    assert micradar.question(0x02, 0x28).hex() == "535902a800010f665443"
    assert DRIVER.poll is not None
    assert DRIVER.poll.request.hex() == "5359838100010fc05443535902a800010f665443"
    assert DRIVER.poll.every_s == 2.0


def test_the_codec_builds_questions_and_nothing_that_changes_a_module() -> None:
    made = [
        name
        for name, found in inspect.getmembers(micradar, inspect.isfunction)
        if found.__module__ == "drivers.protocols.micradar" and not name.startswith("_")
    ]
    assert made == ["framer", "parse", "question"]
    for command in (0x80, 0xFF, -1):
        with pytest.raises(ValueError, match="no command"):
            micradar.question(0x01, command)


def test_somebody_who_does_not_move_calls_unless_people_rest_there() -> None:
    call = Signal(SignalKind.CALL, "stationary", "stationary", level=True)
    assert decode(0x83, 0x05, b"\x01") == Decoded((call,))
    assert decode(0x83, 0x05, b"\x01", stationary="none") == Decoded()


@pytest.mark.parametrize(("mode", "level"), [(1, False), (2, True), (0, True), (9, True)])
def test_a_module_that_watches_no_falls_says_a_problem(mode: int, level: bool) -> None:
    problem = Signal(SignalKind.PROBLEM, "work-mode", "work-mode", level=level)
    assert decode(0x02, 0xA8, bytes([mode])) == Decoded((problem,))
    assert decode(0x02, 0xA8, bytes([mode]), falls=False) == Decoded()


def test_a_detection_that_is_off_is_a_problem() -> None:
    def problem(level: bool) -> Decoded:
        return Decoded((Signal(SignalKind.PROBLEM, "fall-detection-off", "fall-detection", level=level),))

    assert decode(0x83, 0x00, b"\x00") == decode(0x83, 0x80, b"\x00") == problem(True)
    assert decode(0x83, 0x00, b"\x01") == problem(False)
    assert decode(0x83, 0x00, b"\x00", falls=False) == Decoded()


@pytest.mark.parametrize(
    ("control", "command", "data", "told"),
    [
        (0x83, 0x01, b"\x02", "fall = 02"), (0x83, 0x81, b"\xff", "fall = ff"), (0x80, 0x01, b"\x07", "presence = 07"),
        (0x80, 0x03, b"\x65", "body_movement = 101"), (0x80, 0x04, b"\xff\xff", "target_distance = 65535"),
        (0x85, 0x02, b"\xff", "heart_rate = 255"), (0x81, 0x02, b"\xff", "breath_rate = 255"), (0x84, 0x01, b"\x03", "bed = 03"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name_and_told(control: int, command: int, data: bytes, told: str) -> None:
    assert decode(control, command, data) == Decoded(refused=(told,))


def test_a_bed_is_occupied_or_not_or_not_watched() -> None:
    assert decode(0x84, 0x01, b"\x00") == Decoded((Signal(SignalKind.OCCUPANCY, "bed", "bed", level=False),))
    assert decode(0x84, 0x01, b"\x01") == Decoded((Signal(SignalKind.OCCUPANCY, "bed", "bed", level=True),))
    assert decode(0x84, 0x01, b"\x02") == Decoded()


@pytest.mark.parametrize(
    ("control", "command", "data"),
    [
        (0x01, 0x01, b"\x0f"), (0x02, 0xA1, b"R60ABD1"), (0x05, 0x01, b"\x0f"), (0x07, 0x07, b"\x00"), (0x80, 0x05, bytes(6)),
        (0x80, 0x0E, bytes(8)), (0x81, 0x05, bytes(5)), (0x83, 0x0C, b"\x00\x00\x00\x05"), (0x84, 0x02, b"\x01"),
        (0x80, 0x00, b""),
    ],
)  # fmt: skip
def test_what_is_of_no_interest_is_read_past(control: int, command: int, data: bytes) -> None:
    assert decode(control, command, data) == Decoded()


@pytest.mark.parametrize(
    ("control", "command", "data", "reason"),
    [
        (0x99, 0x01, b"\x01", Reason.UNSUPPORTED), (0x83, 0x01, b"", Reason.MALFORMED), (0x83, 0x01, b"\0\1", Reason.MALFORMED),
        (0x80, 0x04, b"\x01", Reason.MALFORMED), (0x83, 0x85, b"\x0f", Reason.NOT_MINE),
    ],
)  # fmt: skip
def test_other_frames_are_refused_by_name(control: int, command: int, data: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        decode(control, command, data)
    assert caught.value.reason is reason


def test_a_garbled_length_does_not_hold_a_fall_back() -> None:
    framer = DRIVER.framer()
    assert framer.feed(bytes.fromhex("535980030080")) == []
    assert framer.feed(FALL_FRAME) == [FALL_FRAME]


def test_after_a_bad_sum_the_search_goes_on_at_the_next_byte() -> None:
    framer = DRIVER.framer()
    broken = bytes.fromhex("53598003000106375443")
    assert framer.feed(b"\x53" + broken + FALL_FRAME) == [FALL_FRAME]
    assert framer.rejects == {Reason.BAD_CHECK: 1}


@pytest.mark.parametrize(("key", "value"), [("falls", 1), ("stationary", "told"), ("height", 2)])
def test_options_that_do_not_fit_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options({key: value})
    assert caught.value.key == f"map.{key}"

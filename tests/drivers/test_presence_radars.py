"""LD2410 and LD2450, which see presence and no falls, and the old MR24FDB1: published frames and what stands around them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.devices import ld2410, ld2450, mr24fdb1
from drivers.kit import Decoded, Reading, Reason, Rejected, Signal, SignalKind, Streams
from drivers.kit.checks import crc16_modbus

CAPTURES = Path(__file__).parents[1] / "data" / "captures"


def lines(model: str) -> list[dict[str, Any]]:
    text = (CAPTURES / model / f"{model}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def presence(level: bool) -> Signal:
    return Signal(SignalKind.OCCUPANCY, "presence", level=level)


def said(driver: Streams, data: bytes, step: int = 1000) -> list[Decoded]:
    framer, options = driver.framer(), driver.options({})
    frames = [frame for at in range(0, len(data), step) for frame in framer.feed(data[at : at + step])]
    return [driver.decode(frame, options) for frame in frames]


def refused(driver: Streams, data: bytes) -> Reason:
    with pytest.raises(Rejected) as caught:
        said(driver, data)
    return caught.value.reason


# LD2410.


@pytest.mark.parametrize("line", lines("ld2410"), ids=lambda line: str(line["bytes"]))
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_published_report_of_an_ld2410_means_what_its_publisher_says(line: dict[str, Any], step: int) -> None:
    found = said(ld2410.DRIVER, bytes.fromhex(line["bytes"]), step)
    expected = line["expected"].get("frames", [line["expected"]])
    if "ack" in line["expected"]:
        assert found == []  # an answer to a command: nothing is ever asked, so nothing looks for answers
        return
    assert len(found) == len(expected)
    for one, wanted in zip(found, expected, strict=True):
        cm = wanted["static_cm" if wanted["target"] == "static" else "moving_cm"]
        distance = (Reading("target_distance", Decimal(cm).scaleb(-2)),) if wanted["target"] != "none" and cm else ()
        assert one == Decoded((presence(wanted["target"] != "none"), *distance))


def test_the_corpora_are_whole() -> None:
    assert [len(lines(model)) for model in ("ld2410", "ld2450", "mr24fdb1")] == [15, 1, 1]


def report(state: int, kind: int = 2, extra: bytes = b"") -> bytes:
    content = bytes([kind, 0xAA, state]) + bytes.fromhex("c40100dd0124d301") + extra + b"\x55\x00"
    return b"\xf4\xf3\xf2\xf1" + len(content).to_bytes(2, "little") + content + b"\xf8\xf7\xf6\xf5"


def test_an_engineering_report_is_the_same_with_more_behind_it() -> None:
    (found,) = said(ld2410.DRIVER, report(1, kind=1, extra=bytes(22)))
    assert found == Decoded((presence(level=True), Reading("target_distance", Decimal("4.52"))))


@pytest.mark.parametrize("state", [4, 5, 6])
def test_a_module_that_calibrates_itself_says_nothing_of_presence(state: int) -> None:
    assert said(ld2410.DRIVER, report(state)) == [Decoded()]


def test_an_unknown_state_is_refused_by_name() -> None:
    assert said(ld2410.DRIVER, report(7)) == [Decoded(refused=("presence = 07",))]
    assert refused(ld2410.DRIVER, report(1, kind=3)) is Reason.UNSUPPORTED


def test_a_report_of_another_module_in_the_same_frame_is_refused_by_name() -> None:
    """A real report of an S3KM1110, published with its parser: presence 01, range 79, energies of 16 gates."""
    energies = "d1833544f45a3a010d0105016500590035002800 1a00240014002000 25001a00"
    data = bytes.fromhex("f4f3f2f1" + "2300" + "014f00" + energies.replace(" ", "") + "f8f7f6f5")
    assert refused(ld2410.DRIVER, data) is Reason.UNSUPPORTED


def test_a_report_behind_a_cut_one_is_found_at_once() -> None:
    framer, whole = ld2410.DRIVER.framer(), report(1)
    assert framer.feed(whole[:9] + whole) == [whole]


# LD2450.


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_the_vendors_report_of_an_ld2450_means_what_it_says(step: int) -> None:
    (line,) = lines("ld2450")
    assert said(ld2450.DRIVER, bytes.fromhex(line["bytes"]), step) == [
        # x = -782 mm, y = 1713 mm: 1883 mm away
        Decoded((presence(level=True), Reading("target_distance", Decimal("1.88"))))
    ]


def targets(*found: str) -> bytes:
    return bytes.fromhex("aaff0300" + "".join(found).ljust(48, "0") + "55cc")


def test_the_nearest_of_three_targets_counts() -> None:
    far, near = "0000" + "a08f" + "0000" + "4001", "0000" + "f481" + "0000" + "4001"  # 4000 mm, 500 mm
    assert said(ld2450.DRIVER, targets(far, near)) == [
        Decoded((presence(level=True), Reading("target_distance", Decimal("0.50"))))
    ]
    assert said(ld2450.DRIVER, targets()) == [Decoded((presence(level=False),))]


def test_a_target_beyond_what_the_radar_can_see_is_present_and_told() -> None:
    assert said(ld2450.DRIVER, targets("0000" + "10a7" + "0000" + "4001")) == [
        Decoded((presence(level=True),), refused=("target_distance = 10000 mm",))
    ]


# MR24FDB1.


def old(content: str, *, order: str = "little") -> bytes:
    body = bytes.fromhex(content)
    frame = b"\x55" + (len(body) + 4).to_bytes(2, "little") + body
    return frame + crc16_modbus(frame).to_bytes(2, "little" if order == "little" else "big")


def test_the_published_example_of_a_check_is_ours() -> None:
    (line,) = lines("mr24fdb1")
    data = bytes.fromhex(line["bytes"])
    assert line["expected"]["crc16_modbus"] == "0x800C"
    assert old("05010403") == data + b"\x0c\x80"
    assert said(mr24fdb1.DRIVER, data + b"\x0c\x80") == [Decoded()]


@pytest.mark.parametrize("before", ["", "04"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    ("state", "code", "level"), [("00", "suspected", True), ("01", "fall", True), ("02", "fall", False)]
)
def test_a_fall_and_a_suspected_one_call(before: str, order: str, state: str, code: str, level: bool) -> None:
    found = said(mr24fdb1.DRIVER, old(f"{before}060101{state}", order=order))
    assert found == [Decoded((Signal(SignalKind.FALL, code, level=level),))]


@pytest.mark.parametrize(("state", "level"), [("00", False), ("01", True), ("04", True)])
def test_somebody_who_does_not_move_calls(state: str, level: bool) -> None:
    found = said(mr24fdb1.DRIVER, old(f"060102{state}"))
    assert found == [Decoded((Signal(SignalKind.CALL, "stationary", "stationary", level=level),))]
    (frame,) = mr24fdb1.DRIVER.framer().feed(old(f"060102{state}"))
    assert mr24fdb1.DRIVER.decode(frame, mr24fdb1.DRIVER.options({"stationary": "none"})) == Decoded()


@pytest.mark.parametrize(
    ("content", "level"),
    [("03030500ffff", False), ("0403050100ff", True), ("040305010101", True), ("03030100ffff", False)],
)
def test_surroundings_are_presence(content: str, level: bool) -> None:
    assert said(mr24fdb1.DRIVER, old(content)) == [Decoded((presence(level),))]


@pytest.mark.parametrize(
    ("content", "told"), [("06010103", "fall = 03"), ("06010205", "stationary = 05"), ("030305020202", "presence = 020202")]
)  # fmt: skip
def test_states_that_are_none_are_refused_by_name(content: str, told: str) -> None:
    assert said(mr24fdb1.DRIVER, old(content)) == [Decoded(refused=(told,))]


def test_a_garbled_length_does_not_hold_a_fall_back() -> None:
    framer, fall = mr24fdb1.DRIVER.framer(), old("06010101")
    assert framer.feed(b"\x55\x30\x00") == []
    assert framer.feed(fall) == [fall]
    assert refused(mr24fdb1.DRIVER, old("09010101")) is Reason.UNSUPPORTED
    assert refused(mr24fdb1.DRIVER, old("0601010101")) is Reason.MALFORMED

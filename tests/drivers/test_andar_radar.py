"""The fall radar: what its frames mean, what is no state and no height, and that a fall waits behind nothing."""

from __future__ import annotations

import inspect
import struct
from decimal import Decimal

import pytest

from drivers.devices.andar_radar import DRIVER, FALL
from drivers.kit import BadOption, Decoded, Reading, Reason, Rejected, Signal, SignalKind
from drivers.protocols import tinyframe

FALL_FRAME = bytes.fromhex("01000000010e02f301fe")
CLEAR_FRAME = bytes.fromhex("01000000010e02f300ff")


def frame(kind: int, data: bytes, *, number: int = 0) -> bytes:
    """A frame made here by hand."""

    def check(part: bytes) -> int:
        found = 0
        for byte in part:
            found ^= byte
        return found ^ 0xFF

    head = struct.pack(">BHHH", 1, number, len(data), kind)
    return head + bytes([check(head)]) + (data + bytes([check(data)]) if data else b"")


def decode(kind: int, data: bytes) -> Decoded:
    return DRIVER.decode(frame(kind, data), None)


def refused(kind: int, data: bytes) -> tuple[Reason, str]:
    with pytest.raises(Rejected) as caught:
        decode(kind, data)
    return caught.value.reason, caught.value.detail


def test_our_frames_are_the_published_ones() -> None:
    assert frame(FALL, b"\x01") == FALL_FRAME
    assert frame(0x0F09, b"\x01", number=1).hex() == "01000100010f09f801fe"
    assert frame(0x0E06, b"").hex() == "01000000000e06f6"


@pytest.mark.parametrize("state", ["01", "0100", "01000000"])
def test_a_fall_is_a_level(state: str) -> None:
    assert decode(0x0E02, bytes.fromhex(state)) == Decoded((Signal(SignalKind.FALL, "fall", level=True),))


def test_the_end_of_a_fall_cancels_and_recovers_nothing() -> None:
    (signal,) = DRIVER.decode(CLEAR_FRAME, None).observations
    assert signal == Signal(SignalKind.FALL, "fall", level=False)


@pytest.mark.parametrize(("state", "level"), [(b"\x00", False), (b"\x01", True)])
def test_presence_is_occupancy(state: bytes, level: bool) -> None:
    assert decode(0x0F09, state) == Decoded((Signal(SignalKind.OCCUPANCY, "presence", level=level),))


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        (0x0E02, b"\x07", "fall = 07"),
        (0x0E02, b"\x00\x01", "fall = 0001"),
        (0x0F09, b"\xff", "presence = ff"),
        (0x0E06, struct.pack("<ffI", 300.0, 0.3, 15), "install_height = 300 m"),
        (0x0E06, struct.pack("<ffI", float("nan"), 0.3, 15), "install_height = nan m"),
        (0x0E06, struct.pack("<ffI", 2.6, float("inf"), 15), "fall_threshold = inf m"),
        (0x0E06, struct.pack("<ffI", 2.6, 0.3, 0), "sensitivity = 0"),
        (0x0E06, struct.pack(">ffI", 2.6, 0.3, 15), "sensitivity = 251658240"),
        (0x0E0C, struct.pack("<4f", -1, 1, 99, -1), "alarm_area front = 99 m"),
        (0x0E0E, struct.pack("<f", -3.0), "target_height = -3 m"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_told(kind: int, data: bytes, told: str) -> None:
    decoded = decode(kind, data)
    assert told in decoded.refused
    assert all(isinstance(one, Reading) or one.kind is SignalKind.PROBLEM for one in decoded.observations)


def test_a_wrong_height_does_not_hide_the_threshold_beside_it() -> None:
    decoded = decode(0x0E06, struct.pack("<ffI", 300.0, 0.3, 15))
    assert [(one.quantity, str(one.value)) for one in decoded.observations if isinstance(one, Reading)] == [
        ("fall_threshold", "0.30"), ("sensitivity", "15"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("height", "threshold", "told"),
    [
        (2.6, 0.3, []), (3.0, 0.6, []), (2.2, 0.0, []), (1.5, 0.3, ["install-height"]), (3.5, 0.3, ["install-height"]),
        (2.6, 0.9, ["fall-threshold"]), (float("nan"), float("nan"), []),
    ],
)  # fmt: skip
def test_a_radar_that_cannot_see_a_fall_as_it_is_set_says_a_problem(
    height: float, threshold: float, told: list[str]
) -> None:
    decoded = decode(0x0E06, struct.pack("<ffI", height, threshold, 15))
    assert [one.code for one in decoded.observations if isinstance(one, Signal) and one.level] == told


@pytest.mark.parametrize(("site", "level"), [(b"\x00", False), (b"\x01", True)])
def test_a_radar_at_a_wall_says_a_problem(site: bytes, level: bool) -> None:
    assert decode(0x0A11, site) == Decoded((Signal(SignalKind.PROBLEM, "install-site", "install-site", level=level),))
    assert decode(0x0A11, b"\x07") == Decoded(refused=("install_site = 07",))


def test_zones_are_presence_each() -> None:
    decoded = decode(0x0A0A, bytes.fromhex("01000000010000000000000009000000"))
    assert [(one.channel, one.level) for one in decoded.observations if isinstance(one, Signal)] == [
        ("zone-1", True), ("zone-2", True), ("zone-3", False),
    ]  # fmt: skip
    assert decoded.refused == ("zone = 9",)


def test_breath_heart_and_distance_of_the_other_models_are_readings() -> None:
    assert decode(0x0A14, struct.pack("<f", 16.4)) == Decoded((Reading("breath_rate", Decimal(16)),))
    assert decode(0x0A15, struct.pack("<f", 71.6)) == Decoded((Reading("heart_rate", Decimal(72)),))
    assert decode(0x0A16, struct.pack("<If", 1, 151.0)) == Decoded((Reading("target_distance", Decimal("1.51")),))
    assert decode(0x0A16, struct.pack("<If", 0, 151.0)) == Decoded()
    assert decode(0x0A14, struct.pack("<f", 0)) == decode(0x0A14, b"\x01") == Decoded()
    assert decode(0x0A15, struct.pack("<f", float("nan"))) == Decoded(refused=("heart_rate = nan",))


def test_the_watched_area_has_four_borders() -> None:
    decoded = decode(0x0E0C, struct.pack("<4f", -1.5, 1.5, 2, -2))
    assert [(one.channel, str(one.value)) for one in decoded.observations] == [
        ("left", "-1.50"), ("right", "1.50"), ("front", "2.00"), ("back", "-2.00"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [0x0A04, 0x0A08, 0x0E04, 0x0E08, 0x0E0A, 0x010E, 0x0100, 0xFFFF])
def test_what_is_of_no_interest_is_read_past(kind: int) -> None:
    assert decode(kind, b"\x01\x02\x03") == Decoded()


@pytest.mark.parametrize("kind", [0x3000, 0x2110, 0x0E7F])
def test_other_types_are_refused_by_their_number(kind: int) -> None:
    assert refused(kind, b"\x01") == (Reason.UNSUPPORTED, f"type {kind:04x}")


@pytest.mark.parametrize(("kind", "data"), [(0x0E02, b"\0" * 5), (0x0E06, b"\0" * 8), (0x0E0E, b"\0")])
def test_data_of_another_length_is_refused(kind: int, data: bytes) -> None:
    assert refused(kind, data)[0] is Reason.MALFORMED


def test_a_question_that_comes_back_is_no_sign_of_life() -> None:
    assert refused(0x0E06, b"")[0] is Reason.NOT_MINE
    assert DRIVER.poll is not None
    assert DRIVER.poll.request.hex() == "01000000000e06f6"
    assert refused(0x0E02, b"")[0] is Reason.NOT_MINE


def test_the_codec_builds_two_questions_and_nothing_that_changes_a_radar() -> None:
    made = [
        name
        for name, found in inspect.getmembers(tinyframe, inspect.isfunction)
        if found.__module__ == "drivers.protocols.tinyframe"
    ]
    assert [name for name in made if not name.startswith("_")] == ["check", "framer", "parse", "question"]
    assert list(inspect.signature(tinyframe.question).parameters) == ["kind"]
    assert tinyframe.question(0xFFFF).hex() == "0100000000fffffe"
    for kind in range(0x10000):
        if kind not in (0x0E06, 0xFFFF):
            with pytest.raises(ValueError, match="no question"):
                tinyframe.question(kind)


# The framer.


def test_a_01_inside_data_begins_no_frame() -> None:
    tricky = frame(0x0A08, FALL_FRAME[:7] + b"\x01\x00\x01\x00")
    framer = DRIVER.framer()
    assert framer.feed(tricky + CLEAR_FRAME) == [tricky, CLEAR_FRAME]
    assert framer.rejects == {}


def test_after_a_bad_check_the_search_goes_on_at_the_next_byte() -> None:
    broken = bytearray(frame(0x0A08, b"\x55" + FALL_FRAME + b"\x55"))
    broken[-1] ^= 0xFF
    framer = DRIVER.framer()
    assert framer.feed(bytes(broken)) == [FALL_FRAME]
    assert framer.rejects == {Reason.BAD_CHECK: 1}


def test_a_garbled_length_does_not_hold_a_fall_back() -> None:
    """A head that promises 1,000 bytes: the fall behind it is found at once, not when they have come."""
    garbled = struct.pack(">BHHH", 1, 0, 1000, 0x0A08)
    head = garbled + bytes([frame(0x0A08, b"\0" * 1000)[7]])
    framer = DRIVER.framer()
    assert framer.feed(head) == []
    for byte in FALL_FRAME[:-1]:
        assert framer.feed(bytes([byte])) == []
    assert framer.feed(FALL_FRAME[-1:]) == [FALL_FRAME]


def test_a_length_beyond_the_limit_is_no_head() -> None:
    framer = DRIVER.framer()
    assert framer.feed(struct.pack(">BHHH", 1, 0, 1025, 0x0A08) + FALL_FRAME) == [FALL_FRAME]
    assert framer.feed(frame(0x0A08, b"\x00" * 1024)) == [frame(0x0A08, b"\x00" * 1024)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.TOO_SHORT),
        (FALL_FRAME[:-1], Reason.TOO_SHORT),
        (FALL_FRAME + b"\x00", Reason.TOO_LONG),
        (FALL_FRAME[:-1] + b"\x00", Reason.BAD_CHECK),
        (b"\x02" + FALL_FRAME[1:], Reason.NOT_MINE),
    ],
)
def test_what_is_no_frame_is_refused_by_name(data: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        DRIVER.decode(data, None)
    assert caught.value.reason is reason


def test_the_radar_has_no_options() -> None:
    with pytest.raises(BadOption) as caught:
        DRIVER.options({"height": 2.6})
    assert caught.value.key == "map.height"

"""The framers: bounded, in step again after anything, and nothing unaccounted for."""

from __future__ import annotations

import pytest

from drivers.kit import Reason
from drivers.kit.framing import LengthFramer, LineFramer


def inspect(data: bytes, start: int) -> int | Reason | None:
    """A frame for the tests: 02, length of all, content, 03."""
    if len(data) - start < 2:
        return None
    size = data[start + 1]
    if size < 3:
        return Reason.NOT_MINE
    if len(data) - start < size:
        return None
    return size if data[start + size - 1] == 3 else Reason.BAD_CHECK


def framer(limit: int = 16) -> LengthFramer:
    return LengthFramer(inspect, start=2, limit=limit)


def test_a_line_comes_out_with_its_delimiter_and_what_stood_before_it() -> None:
    assert LineFramer().feed(b"one\r\ntwo\n") == [b"one\r\n", b"two\n"]


def test_a_line_is_kept_until_its_delimiter_comes() -> None:
    lines = LineFramer()
    assert lines.feed(b"on") == []
    assert lines.held == 2
    assert lines.feed(b"e\ntw") == [b"one\n"]
    assert lines.held == 2


def test_blank_lines_are_no_frames() -> None:
    lines = LineFramer()
    assert lines.feed(b"\n\r\n \na\n") == [b"a\n"]
    assert lines.skipped == 5


def test_a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    lines = LineFramer(limit=4)
    assert lines.feed(b"abc\nabcd\nab\n") == [b"abc\n", b"ab\n"]
    assert lines.rejects == {Reason.TOO_LONG: 1}
    assert lines.skipped == 5


def test_a_line_that_is_too_long_in_any_cut_is_skipped_to_its_end_and_counted_once() -> None:
    lines = LineFramer(limit=4)
    found = [frame for byte in b"0123456789\nok\n" for frame in lines.feed(bytes([byte]))]
    assert found == [b"ok\n"]
    assert lines.rejects == {Reason.TOO_LONG: 1}
    assert lines.skipped == 11


def test_a_line_framer_never_holds_its_limit() -> None:
    lines = LineFramer(limit=4)
    for _ in range(1000):
        lines.feed(b"xx")
        assert lines.held < 4
    assert lines.skipped == 2000
    assert lines.rejects == {Reason.TOO_LONG: 1}


def test_after_a_reset_the_rest_of_a_long_line_is_read_as_a_line() -> None:
    lines = LineFramer(limit=4)
    lines.feed(b"0123456")
    lines.reset()
    assert lines.feed(b"ok\n") == [b"ok\n"]


def test_a_delimiter_of_two_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="one byte"):
        LineFramer(delimiter=b"\r\n")


def test_a_frame_is_found_between_bytes_that_belong_to_none() -> None:
    frames = framer()
    assert frames.feed(b"\xff\xff\x02\x04\x41\x03\xff") == [b"\x02\x04\x41\x03"]
    assert frames.skipped == 3
    assert frames.rejects == {}


def test_the_search_goes_on_at_the_byte_after_a_refused_start() -> None:
    # The first 02 claims five bytes and does not end in 03; the frame begins at its third byte.
    frames = framer()
    assert frames.feed(b"\x02\x05\x02\x04\x41\x03") == [b"\x02\x04\x41\x03"]
    assert frames.rejects == {Reason.BAD_CHECK: 1}
    assert frames.skipped == 2


def test_a_byte_that_only_looks_like_a_start_is_not_counted_as_a_frame() -> None:
    frames = framer()
    assert frames.feed(b"\x02\x00\x02\x04\x41\x03") == [b"\x02\x04\x41\x03"]
    assert frames.rejects == {}


def test_a_start_byte_inside_a_frame_starts_nothing() -> None:
    assert framer().feed(b"\x02\x05\x02\x02\x03") == [b"\x02\x05\x02\x02\x03"]


def test_a_frame_longer_than_the_limit_is_refused_without_being_held() -> None:
    frames = framer(limit=4)
    held = []
    for _ in range(100):
        frames.feed(b"\x02\x40\x41\x41")
        held.append(frames.held)
    assert max(held) <= 4
    assert frames.rejects[Reason.TOO_LONG] >= 99


def test_a_whole_frame_longer_than_the_limit_is_refused_too() -> None:
    frames = framer(limit=4)
    assert frames.feed(b"\x02\x06\x41\x41\x41\x03\x02\x03\x03") == [b"\x02\x03\x03"]
    assert frames.rejects == {Reason.TOO_LONG: 1}


def test_a_flood_of_start_bytes_costs_one_look_a_byte() -> None:
    looks = 0

    def count(data: bytes, start: int) -> int | Reason | None:
        nonlocal looks
        looks += 1
        return inspect(data, start)

    frames = LengthFramer(count, start=2, limit=64)
    size = 20_000
    for _ in range(size // 100):
        frames.feed(b"\x02\x02" * 50)
    # One look a start byte, and one more for the start that waits at the end of each of the 200 feeds.
    assert size // 2 <= looks <= size + 200
    assert frames.held <= 64

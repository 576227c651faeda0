"""TAP: the log-on, messages, their sums, and lines of seven bits read with eight."""

from __future__ import annotations

import pytest

from drivers.devices.tap import DRIVER
from drivers.kit import Decoded, Reason, Rejected, Reply, Signal, SignalKind

CALL = SignalKind.CALL
STORED, AGAIN = Reply(b"\r\x06\r", when="committed"), Reply(b"\r\x15\r")


def block(*fields: str, end: int = 0x03) -> bytes:
    """A block made here by hand."""
    data = b"\x02" + "".join(f"{field}\r" for field in fields).encode("latin-1") + bytes([end])
    total = sum(byte & 0x7F for byte in data)
    return data + bytes(0x30 + nibble for nibble in (total // 256 % 16, total // 16 % 16, total % 16)) + b"\r"


def with_parity(data: bytes) -> bytes:
    return bytes(byte | (0x80 if byte.bit_count() % 2 else 0) for byte in data)


def said(data: bytes, **options: object) -> list[Decoded]:
    return [DRIVER.decode(frame, DRIVER.options(options)) for frame in DRIVER.framer().feed(data)]


def refused(data: bytes) -> Rejected:
    (frame,) = DRIVER.framer().feed(data)
    with pytest.raises(Rejected) as caught:
        DRIVER.decode(frame, DRIVER.options({}))
    return caught.value


def test_the_sum_is_that_of_the_specification() -> None:
    # The example that the specification works out: pager 123, message ABC, sum 17;
    assert block("123", "ABC") == b"\x02123\rABC\r\x0317;\r"


def test_a_whole_session_is_answered_step_by_step() -> None:
    found = said(b"\r" + b"\x1bPG1000000\r" + block("301", "Room 301", "bed 2") + b"\x04\r")
    assert [one.replies for one in found] == [
        (Reply(b"ID="),), (Reply(b"\r\x06\r\x1b[p\r"),), (STORED,), (Reply(b"\r\x1b\x04\r"),),
    ]  # fmt: skip
    assert found[2].observations == (Signal(CALL, "", "301", detail="Room 301 bed 2"),)
    assert found[2].address == "301"


@pytest.mark.parametrize("step", [1, 3])
def test_the_same_session_in_pieces(step: int) -> None:
    data, framer = b"\r\x1bPG1\r" + block("301", "X") + b"\x04\r", DRIVER.framer()
    pieces = [frame for at in range(0, len(data), step) for frame in framer.feed(data[at : at + step])]
    assert pieces == DRIVER.framer().feed(data)
    assert len(pieces) == 4


def test_a_wrong_sum_is_asked_for_again() -> None:
    found = refused(block("301", "X")[:-4] + b"000\r")
    assert (found.reason, found.replies) == (Reason.BAD_CHECK, (AGAIN,))


def test_seven_bits_with_parity_and_eight_with_a_sum_of_all_are_understood() -> None:
    assert said(with_parity(block("301", "Help"))) == said(block("301", "Help"))
    data = b"\x02301\rZ\xfcrich\r\x03"
    total = sum(data)
    whole = data + bytes(0x30 + nibble for nibble in (total // 256 % 16, total // 16 % 16, total % 16)) + b"\r"
    assert said(whole)[0].observations == (Signal(CALL, "", "301", detail="Zürich"),)


@pytest.mark.parametrize("end", [0x17, 0x1F])
def test_a_message_in_several_blocks_calls_with_the_first(end: int) -> None:
    (found,) = said(block("301", "X", end=end))
    assert found.observations == (Signal(CALL, "", "301", detail="X"),)


def test_a_pager_can_mean_something_else_or_nothing() -> None:
    assert said(block("7", "X"), **{"is": "none"}) == [Decoded(address="7", replies=(Reply(b"\r\x06\r"),))]
    (found,) = said(block("7", "X"), **{"is": "bed_exit"})
    assert found.observations == (Signal(SignalKind.BED_EXIT, "", "7", detail="X"),)


def test_a_message_behind_an_interrupted_one_is_found_at_once() -> None:
    framer, whole = DRIVER.framer(), block("301", "X")
    assert framer.feed(b"\x02301\rHEL" + whole) == [whole]
    assert framer.rejects == {Reason.MALFORMED: 1}
    assert framer.feed(b"\x02" + b"x" * 2000) == []
    assert framer.feed(whole) == [whole]


def test_who_begins_anew_after_a_cut_block_or_noise_with_its_first_byte_is_answered_at_the_third_time() -> None:
    for cut in (b"\x02301\rHEL", b"\x00\x82\xef\xd9\x08\x01\xdf)<"):
        framer = DRIVER.framer()
        answers = [framer.feed(data) for data in (cut, b"\r", b"\r", b"\r")]
        assert answers == [[], [], [], [b"\r"]]
        assert framer.rejects == {Reason.MALFORMED: 1}
        assert framer.feed(b"\x1bPG1\r" + block("301", "X")) == [b"\x1bPG1\r", block("301", "X")]
    (empty,) = said(block("301", ""))
    assert empty.observations == (Signal(CALL, "", "301"),)

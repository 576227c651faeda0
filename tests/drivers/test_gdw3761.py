"""Q/GDW 376.1: a concentrator forwards a meter's frame, and what is not whole is refused by name."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.kit import Reason, Rejected
from drivers.protocols import dlt645, dlt645_2007, gdw3761

# JavaScript test of a concentrator: meter 151230011061, 6.78 kWh (find_string id 17053496834).
PUBLISHED = "68ae00ae0068a8000234120410e0000001001f14006861100130121568910833333433ab39333349164f00000650232105ae16"


def framed(body: str) -> bytes:
    """A frame around a body from C to K, made here by hand."""
    inner = bytes.fromhex(body)
    length = (len(inner) << 2 | 2).to_bytes(2, "little")
    return b"\x68" + length * 2 + b"\x68" + inner + bytes([sum(inner) % 256, 0x16])


def test_a_forwarded_frame_comes_out_with_who_forwarded_it() -> None:
    found = gdw3761.parse(bytes.fromhex(PUBLISHED))
    assert (found.concentrator, found.from_concentrator, found.port) == ("02001234", True, 0x1F)
    frame = dlt645.parse(found.frame)
    assert frame.address == "151230011061"
    assert dlt645_2007.decode(0x00010000, dlt645_2007.value_of(frame)).readings[0].value == Decimal("6.78")


def test_the_framer_of_meters_finds_the_inner_frame_by_itself() -> None:
    (inner,) = dlt645.framer().feed(bytes.fromhex(PUBLISHED))
    assert inner == gdw3761.parse(bytes.fromhex(PUBLISHED)).frame


def test_a_forwarded_question_comes_out_too() -> None:
    asked = "6861100130121568110433333433" + "ef16"
    body = "4b" + "000234120410" + "e000000100" + "1f6b6464" + "1000" + asked
    found = gdw3761.parse(framed(body))
    assert (found.from_concentrator, found.port, found.frame.hex()) == (False, 0x1F, asked)


def test_a_newer_concentrator_has_a_longer_address() -> None:
    # Java simulator of a concentrator (find_string id 18698700767). Its values were edited by hand, so that neither sum is right
    # any more; here the outer one is made anew.
    body = "A80222235235220410E5000001001F14006829012906122068910833333433456789AB8D16D805054558132605"
    found = gdw3761.parse(framed(body))
    assert (found.concentrator, found.port, len(found.frame)) == ("232202223552", 0x1F, 20)
    assert dlt645.framer().feed(framed(body)) == [], "the sum of the inner frame is wrong"


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("", Reason.TOO_SHORT),
        (PUBLISHED[:-2], Reason.TOO_SHORT),
        (PUBLISHED + "00", Reason.TOO_LONG),
        (PUBLISHED[:-4] + "af16", Reason.BAD_CHECK),
        (PUBLISHED[:-2] + "17", Reason.BAD_CHECK),
        ("69" + PUBLISHED[2:], Reason.NOT_MINE),
        (PUBLISHED[:6] + "af" + PUBLISHED[8:], Reason.NOT_MINE),
        (framed("a8" + "0002341204" + "0ce000000100" + "1f00").hex(), Reason.UNSUPPORTED),
        (framed("a8" + "0002341204" + "10e000000200" + "1f00").hex(), Reason.UNSUPPORTED),
        (framed("a8" + "0002341204" + "10e000000100" + "1f140068").hex(), Reason.TOO_SHORT),
        (framed("a8" + "0002341204" + "10e000000100" + "1f").hex(), Reason.TOO_SHORT),
    ],
)
def test_what_forwards_nothing_whole_is_refused_by_name(frame: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        gdw3761.parse(bytes.fromhex(frame))
    assert caught.value.reason is reason


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(st.binary(max_size=60))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        found = gdw3761.parse(framed(body.hex()))
    except Rejected:
        return
    assert found.frame in body

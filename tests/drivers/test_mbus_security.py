"""Encrypted M-Bus telegrams: the published examples of modes 5 and 7, each in a wired frame, and what does not open them.

Sources: EN 13757-3 and OMS volume 2, annex N.2.1 (mode 5) and N.5.3 (mode 5, partly encrypted), as in tudborg/exmbus,
test/full_frame_test.exs and test/spec/oms_vol2_annex_n_test.exs; CEN/TR 17167:2018, F.3 (mode 7), as in exmbus,
test/parser/afl/afl_example_test.exs. They are radio telegrams: header, cipher text and layer are theirs, the wired frame around
them is ours. N.2.1 has the number of its meter in the header of the radio; here it stands in the long one.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

import pytest

from drivers.devices.mbus import DRIVER
from drivers.kit import Decoded, Reading, Reason, Rejected

KEY_N21 = bytes.fromhex("0102030405060708090a0b0c0d0e0f11")
KEY = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
N21 = "72 78563412 9315 33 03 2a 00 2005 5923c95aaa26d1b2e7493b013ec4a6f6 d3529b520edff0ea6defc99d6d69ebf3"
N53 = "72 88776655 9344 55 08 00 04 1005 00dfe2a782146d1513581cd2f83f3904 0cfd1078563412"
F3 = (
    "90 0f 002c 25 b30a0000 af5d74df73a600d9 72 78563412 9315 33 03 75 00 2007 10 "
    "9058475f4bc91df878b80a1b0f98b629 024aac727942bfc549233c0140829b93"
)


def framed(content: str) -> bytes:
    body = bytes.fromhex("08 01" + content)
    return bytes([0x68, len(body), len(body), 0x68]) + body + bytes([sum(body) % 256, 0x16])


def polled(frame: bytes, key: bytes | None) -> Decoded:
    assert DRIVER.keyed is not None
    talk = DRIVER.talk(DRIVER.keyed(DRIVER.options("1", {"utc_offset_h": 1}), key))
    next(talk)
    talk.send(b"\xe5")
    try:
        talk.send(frame)
    except StopIteration as end:
        return cast("Decoded", end.value)
    raise AssertionError("the poll does not end")


def readings(frame: bytes, key: bytes | None) -> dict[str, Any]:
    said = [one for one in polled(frame, key).observations if isinstance(one, Reading)]
    times = {one.device_time.isoformat() for one in said if one.device_time}
    assert times <= {"2008-05-31T23:50:00+01:00", "2007-04-30T00:00:00+01:00"}
    return {f"{one.quantity} {one.channel}".strip(): one.value for one in said}


GAS = {"volume_gas": Decimal("28504.27"), "error_flags": Decimal(0), "status_word": Decimal(0)}


@pytest.mark.parametrize(("content", "key"), [(N21, KEY_N21), (F3, KEY)], ids=["mode 5", "mode 7"])
def test_a_published_gas_meter_opens_with_its_key(content: str, key: bytes) -> None:
    assert readings(framed(content), key) == GAS


def test_plain_records_behind_the_encrypted_ones_are_read() -> None:
    assert readings(framed(N53), KEY) == {
        "heat_cost_units": Decimal(1234),
        "heat_cost_units S1": Decimal(23456),
        "status_word": Decimal(4),
        "records_unread": Decimal(1),  # where the customer is
    }


@pytest.mark.parametrize("content", [N21, N53, F3])
def test_who_answers_is_named_without_a_key(content: str) -> None:
    assert DRIVER.sender is not None
    assert DRIVER.sender(framed(content)) in ("1234567815933303", "5566778844935508")


def refusal(content: str, key: bytes | None) -> tuple[Reason, str]:
    with pytest.raises(Rejected) as caught:
        polled(framed(content), key)
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize(
    ("content", "key", "reason", "why"),
    [
        (N21, None, Reason.NO_KEY, "encrypted in mode 5"),
        (F3, None, Reason.NO_KEY, "encrypted in mode 7"),
        (N21, KEY, Reason.BAD_KEY, "mode 5 does not open with this key"),
        (F3, KEY_N21, Reason.BAD_KEY, "the tag does not fit: another key"),
        # One bit of the cipher text, of the counter, of the tag, and of the header that the tag covers.
        (F3.replace("829b93", "829b92"), KEY, Reason.BAD_KEY, "the tag does not fit: another key"),
        (F3.replace("b30a0000", "b20a0000"), KEY, Reason.BAD_KEY, "the tag does not fit: another key"),
        (F3.replace("af5d", "ae5d"), KEY, Reason.BAD_KEY, "the tag does not fit: another key"),
        (F3.replace(" 75 00 ", " 75 08 "), KEY, Reason.BAD_KEY, "the tag does not fit: another key"),
        (F3[F3.index("72 7856") :], KEY, Reason.UNSUPPORTED, "mode 7 without its counter"),
        (F3.replace("2007 10", "2007 20"), KEY, Reason.UNSUPPORTED, "mode 7 with keys made by method 2"),
        (N21.replace("2005", "200a"), KEY, Reason.UNSUPPORTED, "encrypted in mode 10"),
        ("7a 2a 00 1005" + N21[34:66], KEY, Reason.UNSUPPORTED, "encrypted in mode 5 without a long header"),
        ("90 0f 006c" + F3[10:], KEY, Reason.UNSUPPORTED, "an authentication layer with fields 6c00, 15 bytes"),
        ("90 0f 0028" + F3[10:], KEY, Reason.UNSUPPORTED, "an authentication layer with fields 2800, 15 bytes"),
        ("90 0f 00", KEY, Reason.TOO_SHORT, "an authentication layer of 2 bytes"),
    ],
)  # fmt: skip
def test_what_does_not_open_is_refused_by_name(content: str, key: bytes | None, reason: Reason, why: str) -> None:
    assert refusal(content, key) == (reason, why)


def test_a_tag_that_is_cut_short_is_refused() -> None:
    """A tag of two bytes is checked as two bytes; one that is shorter than it says is no layer."""
    assert refusal("90 09 002c 23 b30a0000 ae5d " + F3[F3.index("72 7856") :], KEY)[0] is Reason.BAD_KEY
    assert refusal("90 08 002c 23 b30a0000 ae " + F3[F3.index("72 7856") :], KEY)[0] is Reason.UNSUPPORTED


def test_a_meter_with_a_key_that_speaks_plain_is_read() -> None:
    plain = "72 78563412 9315 33 03 2a 00 2005 2f2f0c1427048502046d32371f1502fd1700002f2f2f2f2f2f2f2f2f2f2f2f2f"
    assert readings(framed(plain), KEY) == GAS
    assert readings(framed(plain), None) == GAS


def test_the_key_stands_in_no_representation() -> None:
    assert DRIVER.keyed is not None
    assert DRIVER.key_bytes == 16
    assert KEY.hex() not in repr(DRIVER.keyed(DRIVER.options("1", {}), KEY))
    assert repr(KEY) not in repr(DRIVER.keyed(DRIVER.options("1", {}), KEY))


def test_of_a_meter_with_a_key_fewer_bytes_than_it_says_are_encrypted_are_no_plain_records() -> None:
    """Four blocks are said, three are there; read as plain they would be a volume of 12.565 m3."""
    cut = "72 78563412 2d2c 01 07 01 00 4005" + "0313153100" + "2f" * 43
    with pytest.raises(Rejected) as caught:
        polled(framed(cut), KEY)
    assert caught.value.reason is Reason.MALFORMED

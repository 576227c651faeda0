"""More DL/T 645 frames that others published: found after the tables were written, so that these were held to them.

Lines of `more_2007.jsonl` and `more_1997.jsonl` in `tests/data/captures/`; `source` in each says where it is from.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from drivers.kit import QUANTITIES, Reason, Rejected
from drivers.protocols import dlt645, dlt645_1997, dlt645_2007
from drivers.protocols.dlt645_layout import stamp
from tests.drivers.captures import lines

Line = dict[str, Any]
NEW = lines("dlt645-2007", "more_2007.jsonl")
OLD = lines("dlt645-1997", "more_1997.jsonl")
NOON = bytes.fromhex("000012")
SOME_DAY = bytes.fromhex("01110116")


def by_hex(line: Line) -> str:
    return str(line["hex"][:60])


def parsed(line: Line) -> dlt645.Frame:
    (found,) = dlt645.framer().feed(bytes.fromhex(line["hex"]))
    frame = dlt645.parse(found)
    if "address" in line["expected"]:
        assert frame.address == line["expected"]["address"]
    return frame


def test_the_corpus_is_whole() -> None:
    assert (len(NEW), len(OLD), sum(not line["valid"] for line in NEW)) == (77, 12, 4)


@pytest.mark.parametrize("line", [line for line in NEW if not line["valid"]], ids=by_hex)
def test_a_frame_that_was_edited_by_hand_is_not_found(line: Line) -> None:
    assert dlt645.framer().feed(bytes.fromhex(line["hex"])) == []


@pytest.mark.parametrize("line", [line for line in NEW if line["valid"]], ids=by_hex)
def test_a_reply_of_2007_reads_as_its_publisher_says(line: Line) -> None:
    expected, frame = line["expected"], parsed(line)
    if "meter" in expected:
        (whole,) = dlt645.framer().feed(bytes.fromhex(line["hex"]))
        assert dlt645_2007.address_in(whole) == expected["meter"] == frame.address
        return
    if "error" in expected:
        assert (frame.control, frame.data[0]) == (expected["ctrl"], expected["error"])
        assert "no such data" in frame.refusal()
        return
    identifier, value = int(expected["di"], 16), dlt645_2007.value_of(frame)
    assert dlt645_2007.identifier_of(frame) == identifier
    if "text" in expected:
        assert dlt645_2007.text(identifier, value) == expected["text"]
    elif "date" in expected:
        assert str(dlt645_2007.clock(value, NOON))[:10] == expected["date"]
    elif "time" in expected:
        assert str(dlt645_2007.clock(SOME_DAY, value))[11:19] == expected["time"]
    elif "stamp" in expected:
        assert str(stamp(value)) == f"{expected['stamp']}+08:00"
    elif "refused" in expected:
        with pytest.raises(Rejected) as caught:
            dlt645_2007.decode(identifier, value)
        assert caught.value.reason is Reason(expected["refused"])
    elif "not_decimal" in expected:
        found = dlt645_2007.decode(identifier, value)
        assert (found.readings, len(found.refused)) == ((), 1)
        assert expected["not_decimal"] in found.refused[0]
    else:
        found = dlt645_2007.decode(identifier, value)
        assert not found.refused
        assert [str(one.value) for one in found.readings] == expected["value"]
        assert {QUANTITIES[one.quantity].unit for one in found.readings} == {expected["unit"]}


@pytest.mark.parametrize("line", OLD, ids=by_hex)
def test_a_reply_of_1997_reads_as_its_publisher_says(line: Line) -> None:
    expected, frame = line["expected"], parsed(line)
    identifier = int(expected["di"], 16)
    assert dlt645_1997.identifier_of(frame) == identifier
    found = dlt645_1997.decode(identifier, dlt645_1997.value_of(frame))
    assert not found.refused
    assert [one.value for one in found.readings] == [Decimal(value) for value in expected["value"]]
    assert {QUANTITIES[one.quantity].unit for one in found.readings} == {expected["unit"]}


def test_the_tariffs_of_one_meter_add_up_to_its_total() -> None:
    energies = [line["expected"]["value"][0] for line in NEW[:52] if line["expected"].get("di", "").startswith("00010")]
    total, *tariffs = [Decimal(value) for value in energies[:5]]
    assert (total, sum(tariffs)) == (Decimal("230.93"), Decimal("230.93"))


def test_answers_that_a_socket_repeats_at_once_come_out_one_by_one() -> None:
    at_once = "6820111221063668810563e9333333db166820111221063668c503e9016385166820110600415668810643c33c3333330016"
    found = [dlt645.parse(frame) for frame in dlt645.framer().feed(bytes.fromhex(at_once))]
    assert [(frame.address, frame.control) for frame in found] == [
        ("360621121120", 0x81), ("360621121120", 0xC5), ("564100061120", 0x81)
    ]  # fmt: skip

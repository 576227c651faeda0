"""DL/T 645 frames of real meters, published by others: every line is right, refused by name, or listed here.

Lines of `tests/data/captures/dlt645-2007/` and `dlt645-1997/`; `source` in each says where it is from. Both editions
have the same outside: a reply of the one is never taken for one of the other.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import QUANTITIES, Reason, Rejected
from drivers.protocols import dlt645, dlt645_1997, dlt645_2007

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
Line = dict[str, Any]

# Frames that carry no value that we publish: hexadecimal -> the identifier's refusal, and why.
REFUSED = {
    "fefefefe6891400201180768910a35373337c47335344b3a5916": (Reason.UNSUPPORTED, "a meter number is no quantity"),
    "686803000000000068910733343435333333d416": (Reason.MALFORMED, "three bytes where a voltage has two"),
}


def lines(name: str) -> list[Line]:
    return [json.loads(line) for line in (CAPTURES / name).read_text(encoding="utf-8").splitlines()]


def frames(line: Line) -> list[bytes]:
    return dlt645.framer().feed(bytes.fromhex(line["hex"]))


VALID = [line for line in lines("dlt645-2007/dlt645_2007.jsonl") if line["valid"]]
INVALID = [
    line
    for name in ("dlt645-2007/dlt645_2007.jsonl", "dlt645-1997/dlt645_1997.jsonl")
    for line in lines(name)
    if not line["valid"]
]
OLD = [line for line in lines("dlt645-1997/dlt645_1997.jsonl") if line["valid"]]


def by_hex(line: Line) -> str:
    return str(line["hex"][:60])


def test_the_corpus_is_whole() -> None:
    assert (len(VALID), len(OLD), len(INVALID)) == (56, 29, 3)
    values = [line for line in VALID if "value" in line["expected"]]
    assert len(values) == 39
    assert sum(line["hex"] in REFUSED for line in VALID) == len(REFUSED) == 2


@pytest.mark.parametrize("line", VALID, ids=by_hex)
def test_a_published_frame_is_found_and_taken_apart(line: Line) -> None:
    expected = line["expected"]
    (found,) = frames(line)
    frame = dlt645.parse(found)
    assert frame.from_meter is (expected.get("kind") != "request")
    if "ctrl" in expected:
        assert frame.control == expected["ctrl"]
    if "di" in expected:
        assert f"{dlt645_2007.identifier_of(frame):08X}" == expected["di"].upper()
    if "error" in expected:
        assert frame.refused
        assert frame.data[0] == expected["error"]
        assert frame.refusal()
    if expected.get("ctrl") == 0x93:
        assert frame.data[::-1].hex() == expected["address"]
    if "address" in expected:
        assert frame.address == expected["address"].upper()


@pytest.mark.parametrize("line", [line for line in VALID if "di" in line["expected"]], ids=by_hex)
def test_a_published_reply_reads_as_its_publisher_says(line: Line) -> None:
    expected = line["expected"]
    (found,) = frames(line)
    frame = dlt645.parse(found)
    if not frame.from_meter:
        assert not dlt645_2007.answers(found, address=frame.address, identifier=int(expected["di"], 16))
        return
    assert dlt645_2007.answers(found, address=frame.address, identifier=int(expected["di"], 16))
    if expected["di"] == "04000402":
        assert dlt645_2007.text(0x04000402, dlt645_2007.value_of(frame)) == expected["value"]
    if line["hex"] in REFUSED:
        with pytest.raises(Rejected) as caught:
            dlt645_2007.decode(int(expected["di"], 16), dlt645_2007.value_of(frame))
        assert caught.value.reason is REFUSED[line["hex"]][0]
        return
    found_data = dlt645_2007.decode(int(expected["di"], 16), dlt645_2007.value_of(frame))
    assert not found_data.refused
    readings = found_data.readings
    values = expected["value"] if isinstance(expected["value"], list) else [expected["value"]]
    assert [str(reading.value) for reading in readings] == [value for value in values if value is not None]
    if "unit" in expected:
        assert {QUANTITIES[reading.quantity].unit for reading in readings} <= {expected["unit"]}


@pytest.mark.parametrize("line", INVALID, ids=by_hex)
def test_a_garbled_or_cut_frame_is_never_found(line: Line) -> None:
    assert frames(line) == []


# Several frames in one read; all others hold one.
MANY = {
    "2011122106366881": 3,
    "567b166820110602": 8,
}
# What a 1997 frame carries that is no quantity: the meter's number, its date and its time.
NO_QUANTITY = {
    "C032": lambda value: dlt645_1997.text(0xC032, value) == "201708176934",
    "C010": lambda value: str(dlt645_1997.clock(value, bytes(3))) == "2019-07-06 00:00:00+08:00",
    "C011": lambda value: str(dlt645_1997.clock(bytes.fromhex("06060719"), value)) == "2019-07-06 22:22:04+08:00",
}


@pytest.mark.parametrize("line", OLD, ids=by_hex)
def test_1997_frames_are_found_and_answer_no_2007_request(line: Line) -> None:
    count = next((count for part, count in MANY.items() if part in line["hex"][:40]), 1)
    found = frames(line)
    assert len(found) == count
    for frame in found:
        address = dlt645.parse(frame).address
        assert not dlt645_2007.answers(frame, address=address, identifier=0x00010000)


@pytest.mark.parametrize("line", [line for line in OLD if "di" in line["expected"]], ids=by_hex)
def test_a_published_1997_reply_reads_as_its_publisher_says(line: Line) -> None:
    expected = line["expected"]
    identifier = int(expected["di"], 16)
    (found,) = frames(line)
    frame = dlt645.parse(found)
    assert dlt645_1997.identifier_of(frame) == identifier
    for asked in (frame.address, dlt645.ANY_ADDRESS, dlt645_1997.BROADCAST):
        assert dlt645_1997.answers(found, address=asked, identifier=identifier)
    assert not dlt645_1997.answers(found, address=frame.address, identifier=identifier ^ 0x10)
    value = dlt645_1997.value_of(frame)
    if expected["di"] in NO_QUANTITY:
        with pytest.raises(Rejected) as caught:
            dlt645_1997.decode(identifier, value)
        assert caught.value.reason is Reason.UNSUPPORTED
        assert NO_QUANTITY[expected["di"]](value)
        return
    found_data = dlt645_1997.decode(identifier, value)
    assert not found_data.refused
    values = expected["value"] if isinstance(expected["value"], list) else [expected["value"]]
    assert [reading.value for reading in found_data.readings] == [Decimal(text) for text in values]
    unit = expected.get("unit", "1/kWh")
    assert {QUANTITIES[reading.quantity].unit for reading in found_data.readings} == {unit}


@pytest.mark.parametrize("line", [line for line in OLD if "error" in line["expected"]], ids=by_hex)
def test_a_1997_refusal_is_named_and_one_of_a_write_answers_no_read(line: Line) -> None:
    (found,) = frames(line)
    frame = dlt645.parse(found)
    assert (frame.control, frame.refused) == (line["expected"]["ctrl"], True)
    names = {1: "illegal data", 2: "no such data", 4: "wrong password"}
    assert names[line["expected"]["error"]] in dlt645_1997.refusal(frame)
    is_read = line["expected"]["ctrl"] == 0xC1
    assert dlt645_1997.answers(found, address=frame.address, identifier=0x9010) is is_read


def test_replies_of_two_meters_in_one_read_are_told_apart() -> None:
    (line,) = [line for line in OLD if "frames" in line["expected"]]
    first, _refused_write, second = frames(line)
    assert dlt645_1997.decode(0xB630, dlt645.parse(first).data[2:]).readings[0].value == Decimal("0.0000")
    assert dlt645_1997.decode(0x9010, dlt645.parse(second).data[2:]).readings[0].value == Decimal("0.09")
    assert dlt645.parse(first).address == "360621121120"
    assert dlt645.parse(second).address == "564100061120"


def test_every_1997_line_is_read_refused_by_name_or_listed() -> None:
    told = [line for line in OLD if "di" in line["expected"] and line["expected"]["di"] not in NO_QUANTITY]
    refused = [line for line in OLD if "error" in line["expected"]]
    listed = [line for line in OLD if line["expected"].get("di") in NO_QUANTITY]
    streams = [line for line in OLD if "trap" in line["expected"]]
    assert (len(told), len(refused), len(listed), len(streams)) == (20, 4, 3, 2)
    assert len(told) + len(refused) + len(listed) + len(streams) == len(OLD)

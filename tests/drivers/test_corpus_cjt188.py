"""CJ/T 188 frames of real meters, published by others: every line is right, refused by name, or listed here.

Lines of `tests/data/captures/cjt188/`; `source` in each says where it is from.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from drivers.kit import Reason, Rejected
from drivers.kit.fields import CHINA
from drivers.protocols import cjt188, cjt188_layouts
from drivers.protocols.cjt188_layouts import DIALECTS, Data
from tests.drivers.captures import Line, lines

ALL = lines("cjt188", "cjt188.jsonl")
VALID = [line for line in ALL if line["valid"]]
INVALID = [line for line in ALL if not line["valid"]]
DATA = [line for line in VALID if any(key in line["expected"] for key in ("total", "heat", "time"))]

# Whole replies that are no reading, and why.
REFUSED = {
    "aa30420000aa010268300201000616052381161f9001177200000000000000000000120101201635002e1681d655": (
        "a simulated gas meter: unit codes 00"
    ),
    "68105417370300180081161f900102030405060708090a0b0c0d0e0f10111213144d16": "counted up by a test: no units",
    "fefefefe6810437632510000008116901f0047700100295148010029202005282058240000a716": "litres that must be cubic metres",
}


def frame_of(line: Line) -> cjt188.Frame:
    (found,) = cjt188.framer().feed(bytes.fromhex(line["hex"]))
    return cjt188.parse(found)


def read(line: Line, dialect: str = "auto") -> Data:
    frame = frame_of(line)
    return cjt188_layouts.read(frame.kind, frame.value, DIALECTS[dialect])


def by_device(line: Line) -> str:
    return str(line["device"])[:60]


def test_the_corpus_is_whole() -> None:
    assert (len(ALL), len(VALID), len(INVALID), len(DATA)) == (43, 37, 6, 27)


@pytest.mark.parametrize("line", INVALID, ids=by_device)
def test_a_garbled_frame_is_never_found(line: Line) -> None:
    assert cjt188.framer().feed(bytes.fromhex(line["hex"])) == []


@pytest.mark.parametrize("line", VALID, ids=by_device)
def test_a_published_frame_is_found_and_taken_apart(line: Line) -> None:
    expected, frame = line["expected"], frame_of(line)
    assert frame.from_meter is (expected.get("kind") != "request")
    if "address" in expected:
        assert frame.address == expected["address"]
    if "type" in expected:
        assert frame.kind == expected["type"]
    if "ctrl" in expected:
        assert frame.control == expected["ctrl"]


# What the lines call a field, and where it stands.
VALUES = {
    "total": "total", "settlement": "settlement", "heat": "heat", "heat_settlement": "first", "cool": "first",
    "power": "power", "flow": "flow", "volume": "volume",
}  # fmt: skip
NUMBERS = {"supply": "supply", "return_": "return", "hours": "hours"}
# Megawatt hours stand in the lines as they were sent.
FACTORS = {"MWh (08)": 1000}


@pytest.mark.parametrize("line", [line for line in DATA if line["hex"] not in REFUSED], ids=by_device)
def test_a_published_reply_reads_as_its_publisher_says(line: Line) -> None:
    expected: dict[str, Any] = line["expected"]
    data = read(line)
    assert data.refused == []
    factor = FACTORS.get(expected.get("heat_unit", ""), 1)
    for key, name in VALUES.items():
        if key in expected and expected[key] is None:
            assert name not in data.values
        elif key in expected:
            times = factor if key in ("heat", "cool", "heat_settlement") else 1
            assert data.values[name].number == times * Decimal(expected[key]), key
    for key, name in NUMBERS.items():
        if key in expected:
            assert data.numbers[name] == Decimal(expected[key]), key
    units = {value.unit for name, value in data.values.items() if name in ("total", "settlement", "volume")}
    assert units == {"m3"}
    if "heat_unit" in expected:
        assert data.values["heat"].unit == "kWh"
    if "time" in expected:
        told = None if data.clock is None else data.clock.replace(tzinfo=None)
        assert told == (None if expected["time"] is None else datetime.fromisoformat(expected["time"]))
    else:
        assert data.clock is None
    if "status" in expected:
        assert data.status == int(expected["status"], 16)


@pytest.mark.parametrize("line", [line for line in VALID if line["hex"] in REFUSED], ids=by_device)
def test_what_is_no_reading_is_refused_by_name(line: Line) -> None:
    if line["expected"].get("unit") == "29":  # each register by itself: clock and status are sound
        data = read(line)
        assert not data.values
        assert len(data.refused) == 2
        assert all("unit 29" in one for one in data.refused)
        return
    with pytest.raises(Rejected) as caught:
        read(line)
    assert caught.value.reason is Reason.IMPLAUSIBLE


def test_litres_are_read_once_the_dialect_says_what_they_are() -> None:
    (line,) = [line for line in VALID if line["expected"].get("unit") == "29"]
    assert read(line, "m3-as-litre").values["total"].number == Decimal("170.47")
    assert read(line, "2004").values["total"].number == Decimal("0.17047")
    assert read(line, "century-first").clock == datetime(2020, 5, 28, 20, 58, 24, tzinfo=CHINA)


@pytest.mark.parametrize("line", [line for line in VALID if frame_of(line).from_meter], ids=by_device)
def test_a_published_reply_answers_its_own_question_and_no_other(line: Line) -> None:
    frame = frame_of(line)
    (raw,) = cjt188.framer().feed(bytes.fromhex(line["hex"]))
    is_read = frame.control == 0x81

    def answers(kind: int = frame.kind, address: str = frame.address, identifier: int = 0x901F) -> bool:
        return cjt188.answers(raw, kind=kind, address=address, identifier=identifier)

    assert answers() is is_read
    assert answers(identifier=0x1F90) is is_read
    assert answers(address=cjt188.ANY_ADDRESS) is is_read
    assert not answers(address="01" * 7)
    assert not answers(identifier=0xD120)
    assert not answers(kind=0x20 if frame.kind < 0x20 else 0x10) or frame.kind == cjt188.ANY_TYPE


@pytest.mark.parametrize("line", [line for line in VALID if line["expected"].get("kind") == "request"], ids=by_device)
def test_a_published_request_is_never_an_answer(line: Line) -> None:
    (raw,) = cjt188.framer().feed(bytes.fromhex(line["hex"]))
    frame = cjt188.parse(raw)
    assert not cjt188.answers(raw, kind=frame.kind, address=frame.address, identifier=0x901F)


def test_every_line_is_read_refused_by_name_or_listed() -> None:
    requests = [line for line in VALID if line["expected"].get("kind") == "request"]
    addresses = [line for line in VALID if line["expected"].get("ctrl") == 0x83]
    right = [line for line in DATA if line["hex"] not in REFUSED]
    refused = [line for line in VALID if line["hex"] in REFUSED]
    assert (len(requests), len(addresses), len(right), len(refused)) == (6, 2, 26, 3)
    assert len(requests) + len(addresses) + len(right) + len(refused) == len(VALID)

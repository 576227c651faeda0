"""DL/T 698.45 frames that others published: every line is right, refused by name, or listed here.

Lines of `tests/data/captures/dlt698-45/`; `source` in each says where it is from. Both checks of each frame were computed anew by
the framer. What meters say of events (under security, in clear) is taken apart, but is no quantity.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from drivers.kit import QUANTITIES, Reason, Rejected
from drivers.protocols import dlt698, dlt698_data, dlt698_objects
from tests.drivers.captures import lines

Line = dict[str, Any]
LINES = lines("dlt698-45", "dlt698_45.jsonl")
# Whoever is asked for much at once answers in pieces; here each register that a list does not bring is asked for by itself.
FRAGMENTS = [line for line in LINES if line["expected"].get("service") == "fragment"]
VALID = [line for line in LINES if line["valid"] and line not in FRAGMENTS]
REQUESTS = [line for line in VALID if "request" in str(line["expected"].get("service", "")).lower()]
LINKS = [line for line in VALID if "LINK" in str(line["expected"].get("service", ""))]
VALUES = [line for line in VALID if "value" in line["expected"] and "unit" in line["expected"]]
# Event records, texts and addresses: they are taken apart, and are no quantities of ours.
NO_QUANTITY = {"30070A00", "301B0700", "30130A00", "41040200", "40010200"}


def by_hex(line: Line) -> str:
    return str(line["hex"][:44])


def parsed(line: Line) -> dlt698.Frame:
    (frame,) = dlt698.framer().feed(bytes.fromhex(line["hex"]))
    return dlt698.parse(frame)


def test_the_corpus_is_whole() -> None:
    assert (len(LINES), len(VALID), len(FRAGMENTS)) == (41, 37, 3)
    assert (len(REQUESTS), len(LINKS), len(VALUES)) == (9, 2, 14)


@pytest.mark.parametrize("line", VALID, ids=by_hex)
def test_a_published_frame_is_found_and_taken_apart(line: Line) -> None:
    frame = parsed(line)
    # One terminal sends its heartbeat as a client would send data (control 43): its APDU says what it is.
    assert frame.from_meter is (frame.control & 0x80 == 0x80)
    assert frame.carries_data is (frame.control != 0x81)
    if line not in (*REQUESTS, *LINKS):
        assert (frame.from_meter, frame.carries_data) == (True, True)
    if "address" in line["expected"]:
        assert frame.address == line["expected"]["address"]
    if line["device"].startswith("meter 0") or line["device"].startswith("meter 2"):
        assert line["device"].startswith(f"meter {frame.address}")


@pytest.mark.parametrize("line", FRAGMENTS, ids=by_hex)
def test_a_fragment_is_found_and_refused_by_name(line: Line) -> None:
    with pytest.raises(Rejected) as caught:
        parsed(line)
    assert caught.value.reason is Reason(line["expected"]["refused"])


@pytest.mark.parametrize("line", [line for line in LINES if not line["valid"]], ids=by_hex)
def test_a_frame_with_a_wrong_length_is_never_found(line: Line) -> None:
    assert dlt698.framer().feed(bytes.fromhex(line["hex"])) == []


@pytest.mark.parametrize("line", VALUES, ids=by_hex)
def test_a_published_reply_reads_as_its_publisher_says(line: Line) -> None:
    expected = line["expected"]
    result = dlt698_data.response(parsed(line).apdu).results[0]
    assert f"{result.oad:08X}" == expected["oad"]
    assert result.data is not None
    found = dlt698_objects.decode(result.oad, result.data)
    assert not found.refused
    assert [one.value for one in found.readings] == [Decimal(value) for value in expected["value"]]
    assert {QUANTITIES[one.quantity].unit for one in found.readings} == {expected["unit"]}
    if "second" in expected:
        other = dlt698_data.response(parsed(line).apdu).results[1]
        assert other.data is not None
        assert [str(one.value) for one in dlt698_objects.decode(other.oad, other.data).readings] == expected["second"]
    if "check" in expected:
        assert sum(one.value for one in found.readings[1:]) == found.readings[0].value
    if "time" in expected:
        assert [str(one.device_time) for one in found.readings] == [f"{expected['time']}+08:00"]


def test_the_worked_example_with_four_decimals_reads_as_five_energies() -> None:
    (line,) = [line for line in VALID if line["expected"].get("type", "").startswith("long64")]
    (result,) = dlt698_data.response(parsed(line).apdu).results
    assert result.data is not None
    found = dlt698_objects.decode(0x00100400, result.data)
    assert [(str(one.value), one.channel) for one in found.readings] == [
        ("0.0000", ""),
        ("0.0000", "T1"),
        ("0.0000", "T2"),
        ("0.0000", "T3"),
        ("0.0000", "T4"),
    ]


def test_a_clock_is_read_and_one_that_is_no_time_costs_only_itself() -> None:
    (line,) = [line for line in VALID if "clock" in line["expected"]]
    data = dlt698_data.response(parsed(line).apdu).results[0].data
    assert data is not None
    assert str(dlt698_objects.clock(data)) == "2026-10-07 14:16:26+08:00"
    (line,) = [line for line in VALID if "month 17" in line["expected"].get("trap", "")]
    energies, time = dlt698_data.response(parsed(line).apdu).results
    assert energies.data is not None
    assert len(dlt698_objects.decode(energies.oad, energies.data).readings) == 5
    assert time.data is not None
    with pytest.raises(Rejected) as caught:
        dlt698_objects.clock(time.data)
    assert caught.value.reason is Reason.IMPLAUSIBLE


@pytest.mark.parametrize("line", REQUESTS + LINKS, ids=by_hex)
def test_a_request_and_a_heartbeat_are_no_reply(line: Line) -> None:
    with pytest.raises(Rejected) as caught:
        dlt698_data.response(parsed(line).apdu)
    assert caught.value.reason is Reason.UNSUPPORTED
    (frame,) = dlt698.framer().feed(bytes.fromhex(line["hex"]))
    assert dlt698.reply_to(frame, address="AAAAAAAAAAAA") is None


@pytest.mark.parametrize("line", [line for line in VALID if "record" in line["expected"]], ids=by_hex)
def test_a_published_record_of_a_midnight_reads_as_its_publisher_says(line: Line) -> None:
    expected, found = line["expected"], dlt698_data.records(parsed(line).apdu)
    assert f"{found.oad:08X}" == expected["record"]
    if "rows" in expected:
        time, total = found.columns.index(0x20210200), found.columns.index(0x00100201)
        told = [(f"{dlt698_objects.clock(row[time]):%Y-%m-%d %H:%M:%S}", row[total]) for row in found.rows]
        values = [dlt698_objects.decode(0x00100201, cell).readings for _, cell in told]
        assert [[when, str(one.value)] for (when, _), (one,) in zip(told, values, strict=True)] == expected["rows"]
        return
    (row,) = found.rows
    cells = {oad >> 8: (oad, element) for oad, element in zip(found.columns, row, strict=True)}
    for key, name in ((0x001002, "import"), (0x002002, "export")):
        told = [] if key not in cells else dlt698_objects.decode(*cells[key]).readings
        assert [str(one.value) for one in told] == expected[name]
    if "neutral" in expected:
        told = dlt698_objects.decode(*cells[0x200104]).readings
        assert [(str(one.value), one.channel) for one in told] == [(value, "N") for value in expected["neutral"]]
    time = dlt698_objects.clock(cells[0x202102][1]) if 0x202102 in cells else None
    assert (time and f"{time:%Y-%m-%d %H:%M:%S}") == expected["time"]


def test_every_other_line_is_taken_apart_and_is_no_quantity() -> None:
    rest = [line for line in VALID if line not in (*REQUESTS, *LINKS, *VALUES)]
    rest = [line for line in rest if not {"clock", "record"} & set(line["expected"])]
    rest = [line for line in rest if not str(line["expected"].get("type", "")).startswith("long64")]
    assert {line["expected"]["oad"] for line in rest} == NO_QUANTITY
    for line in rest:
        (result,) = dlt698_data.response(parsed(line).apdu).results
        assert f"{result.oad:08X}" == line["expected"]["oad"]
        assert result.data is not None
        if "text" in line["expected"]:
            assert result.data.value == line["expected"]["text"]
        with pytest.raises(Rejected) as caught:
            dlt698_objects.decode(result.oad, result.data)
        assert caught.value.reason is Reason.UNSUPPORTED

"""The platform's ledger: the line is as agreed, nothing answered is lost, a torn end harms nobody."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.platform.ledger import Decision, Ledger, LedgerError, Status, read_ledger

DECISION = Decision(
    t=1772698530.25,
    id="0190a5c0-0000-7000-8000-000000000001",
    type="cn.eldercare.alarm.raised.v1",
    device="call-r101-1",
    sequence="00000000000000000001",
    deliveryseq="00000000000000000001",
    streamid="5f0c1a52",
    status=Status.ACCEPTED,
    lane="alarm",
    event={"id": "0190a5c0-0000-7000-8000-000000000001", "data": {"room": "一楼"}},
)


def test_a_line_has_the_agreed_names(tmp_path: Path) -> None:
    with Ledger(tmp_path / "platform-district.jsonl") as ledger:
        ledger.write(DECISION)
        ledger.write(replace(DECISION, status=Status.REJECTED, code="bad-id"))
    lines = (tmp_path / "platform-district.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "t": 1772698530.25,
        "id": "0190a5c0-0000-7000-8000-000000000001",
        "type": "cn.eldercare.alarm.raised.v1",
        "device": "call-r101-1",
        "sequence": "00000000000000000001",
        "deliveryseq": "00000000000000000001",
        "streamid": "5f0c1a52",
        "status": "accepted",
        "lane": "alarm",
        "way": 1,
        "event": {"id": "0190a5c0-0000-7000-8000-000000000001", "data": {"room": "一楼"}},
    }
    assert json.loads(lines[1])["code"] == "bad-id"


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    written = [DECISION, replace(DECISION, status=Status.RETRY, sequence=None, code="busy")]
    with Ledger(tmp_path / "l.jsonl") as ledger:
        for decision in written:
            ledger.write(decision)
    assert list(read_ledger(tmp_path / "l.jsonl")) == written


def test_a_line_is_in_the_file_after_flush_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ledger.write(DECISION)
        assert path.read_bytes() == b""
        ledger.flush()
        assert path.read_bytes().count(b"\n") == 1


def test_the_buffer_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ledger.write(replace(DECISION, event={"malformed": "x" * 300_000}))
        assert path.stat().st_size > 300_000


def test_a_torn_last_line_is_left_out_by_the_reader_and_cut_off_by_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ledger.write(DECISION)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert list(read_ledger(path)) == [DECISION]
    with Ledger(path) as ledger:
        ledger.write(replace(DECISION, status=Status.DUPLICATE))
    assert [decision.status for decision in read_ledger(path)] == [Status.ACCEPTED, Status.DUPLICATE]


def test_a_first_line_that_is_torn_is_cut_off_even_when_long(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    path.write_bytes(b"{" * 200_000)
    with Ledger(path):
        pass
    assert path.read_bytes() == b""


def test_a_line_broken_in_the_middle_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    path.write_text('{"t": 1}\n{"t": 2}\n')
    with pytest.raises(LedgerError, match=r"l\.jsonl:1: KeyError\('id'\)"):
        list(read_ledger(path))


def test_a_ledger_that_was_never_begun_has_no_decisions(tmp_path: Path) -> None:
    assert list(read_ledger(tmp_path / "none.jsonl")) == []


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "l.jsonl")

"""Ledgers are read as their writers leave them, half a last line included; a broken one is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.ledgers import Emission, LedgerError, PollReply, read

SCENARIO = {"name": "by-hand", "devices": [{"id": "button", "role": "button", "link": "air"}]}


def write_run(tmp_path: Path) -> None:
    (tmp_path / "scenario.json").write_text(json.dumps(SCENARIO))
    (tmp_path / "air.jsonl").write_text(
        '{"t":1,"t_last":2,"device":"button","kind":"press","counter":5,"n":null,"session":null,"value":null}\n'
    )
    (tmp_path / "lines.jsonl").write_text(
        '{"t":3,"t_last":3,"device":"board","kind":"line","counter":null,"n":1,"session":"s","value":{"call":1}}\n'
        '{"t":4,"device":"board","acked":1}\n'
    )
    (tmp_path / "bus.jsonl").write_text(
        '{"t":4,"device":"meter","kind":"poll","value":{"quantity":"voltage","channel":"A","value":"220.1"}}\n'
    )
    (tmp_path / "platform-district.jsonl").write_text(
        '{"t":5,"id":"x","type":"t","device":"d","sequence":"00000000000000000001","deliveryseq":null,'
        '"streamid":"s","status":"accepted","lane":"alarm","event":{"data":{"kind":"call"}}}\n'
    )


def test_ledgers_are_read_as_their_writers_leave_them(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "faults.jsonl").write_text('{"t":7,"fault":"heal"}\n{"t":6,"fault":"cut"}\n')
    (tmp_path / "gateway.json").write_text('{"status":{"pid":1},"alarms":[],"versions":{"python":"3"}}')
    ledgers = read(tmp_path)
    assert ledgers.emissions == (
        Emission(1.0, 2.0, "button", "press", counter=5),
        Emission(3.0, 3.0, "board", "line", n=1, session="s", value={"call": 1}),
    )
    assert ledgers.polls == (PollReply(4.0, "meter", "voltage", "A", "220.1"),)
    (taken,) = ledgers.decisions["district"]
    assert (taken.sequence, taken.deliveryseq, taken.data) == (1, 0, {"kind": "call"})
    assert [fault.fault for fault in ledgers.faults] == ["cut", "heal"]
    assert ledgers.acked == {("board", 1)}
    assert (ledgers.status, ledgers.alarms, ledgers.torn) == ({"pid": 1}, (), 0)


def test_half_a_line_at_the_end_is_counted_and_not_used(tmp_path: Path) -> None:
    write_run(tmp_path)
    with (tmp_path / "air.jsonl").open("a") as file:
        file.write('{"t":9,"dev')
    ledgers = read(tmp_path)
    assert (len(ledgers.emissions), ledgers.torn) == (2, 1)


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path)
    with (tmp_path / "air.jsonl").open("a") as file:
        file.write('{"t":9,"dev\n{}\n')
    with pytest.raises(LedgerError, match=r"air\.jsonl:2"):
        read(tmp_path)


def test_a_line_without_its_fields_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path)
    with (tmp_path / "air.jsonl").open("a") as file:
        file.write('{"t":9,"kind":"press"}\n')
    with pytest.raises(LedgerError, match="device"):
        read(tmp_path)


def test_a_run_without_a_scenario_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"scenario\.json"):
        read(tmp_path)

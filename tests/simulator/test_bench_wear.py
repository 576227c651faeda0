"""What an event costs the card: the counters of a device as they are read, and the table for people."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simulator.bench.card import Card, NoCard, Written, parse_stat
from simulator.bench.wear import Row, call_line, figures, meter_line, table

# Fields 5, 7 and 16: write requests, sectors of 512 bytes, flushes (Documentation/block/stat.rst of Linux).
STAT = "  53  0  2122  16  41  7  808  2  0  12  22  0  0  0  0  19  2\n"
ROWS = [
    Row("limit: bare rowid table, WAL, FULL, alone", 1000, 10_000.0, 2.0, 1.0),
    Row("limit: log that grows, fsync, alone", 1000, 20_000.0, 3.0, 2.0),
    Row("numbered reading, alone", 1000, 15_000.0, 2.04, 1.0),
]


def test_bytes_requests_and_flushes_are_read_from_the_kernels_counters() -> None:
    assert parse_stat(STAT) == Written(bytes=413_696, requests=41, flushes=19)
    assert parse_stat(STAT).since(Written(4096, 1, 9)) == Written(409_600, 40, 10)


def test_a_kernel_that_counts_no_flushes_is_no_card() -> None:
    with pytest.raises(NoCard, match="flushes"):
        parse_stat("1 2 3 4 5 6 7 8 9 10 11")


def test_who_is_not_root_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoCard, match="root"), Card(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_missing_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoCard, match="losetup, mke2fs, mount, umount"), Card(tmp_path):
        pass


def test_lines_are_what_the_benchmarks_devices_are_configured_for() -> None:
    assert meter_line(7, numbered=True) == '{"dev":"m1","n":7,"kwh":12345.07,"v":221.4,"a":3.217,"kw":0.7122}'
    assert meter_line(7, numbered=False) == '{"dev":"m1","kwh":12345.07,"v":221.4,"a":3.217,"kw":0.7122}'
    assert call_line(7) == '{"dev":"b1","press":1}'


def test_the_table_says_what_a_card_gets_for_an_event() -> None:
    last = table([*ROWS, Row("an hour without events", 0, 7_864_320.0, 1320.0, 1200.0)]).split("\n")
    assert last[3].split() == ["numbered", "reading,", "alone", "1,000", "15,000", "15.0", "2.04", "1.00"]
    assert last[4].split() == ["an", "hour", "without", "events", "7,864,320", "1320.00", "1200.00"]


def test_in_the_benchmark_ours_stands_beside_the_bare_table() -> None:
    [figure] = figures(ROWS)
    assert (figure.what, figure.ours, figure.limit, figure.ratio) == (
        "card: numbered reading, alone",
        15_000,
        10_000,
        1.5,
    )

"""The benchmark: what is shown of a figure and which way its ratio points, what is sent, and how a ledger is read."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from simulator.bench import backlog, main, main_drain, raw_drain
from simulator.bench.bus import SETTLE, Line, figures
from simulator.bench.figures import Figure, Spread, table
from simulator.bench.limits import peak_mb, resident_mb
from simulator.bench.source import Source
from simulator.bus import Exchange


def test_the_ratio_says_how_much_worse_than_the_limit() -> None:
    assert Figure("latency", 4.0, "ms", 2.0).ratio == 2.0
    assert Figure("rate", 500.0, "/s", 1000.0, more=True).ratio == 2.0
    assert Figure("alone", 4.0, "ms").ratio is None
    assert Figure("nothing", 0.0, "%", 1.0).ratio is None


def test_a_line_of_the_table_has_figure_limit_ratio_and_what_the_limit_is() -> None:
    head, first, second = table([Figure("press", 4.0, "ms", 2.0, "raw"), Figure("burst", 12345.0, "/s")]).split("\n")
    assert head.split()[:4] == ["what", "ours", "limit", "ratio"]
    assert first.split() == ["press", "4.00", "ms", "2.00", "ms", "2.00", "raw"]
    assert second.split() == ["burst", "12,345", "/s"]


def test_quantiles_are_nearest_rank_in_milliseconds() -> None:
    spread = Spread([0.004, 0.001, 0.003, 0.002])
    assert (spread.at(0.5), spread.at(0.99), spread.at(1.0)) == (2.0, 4.0, 4.0)
    with pytest.raises(ValueError, match="nothing was measured"):
        Spread().at(0.5)


def test_memory_is_read_as_proc_has_it() -> None:
    assert resident_mb("VmHWM:\t    9999 kB\nVmRSS:\t    2048 kB\n") == 2.0
    with pytest.raises(FileNotFoundError):
        peak_mb(2**22 + 1)  # beyond the largest process id of Linux (proc(5))


def test_raw_batches_are_filled_as_a_gateway_fills_them() -> None:
    small = raw_drain.batches(['{"n":1}'] * 250)
    assert [len(json.loads(one)) for one in small] == [100, 100, 50]
    large = raw_drain.batches([json.dumps("x" * 30_000)] * 5)
    assert [len(json.loads(one)) for one in large] == [2, 2, 1]


def _ledger_line(n: int | None, t: float, status: str) -> str:
    data = {} if n is None else {"n": n}
    return json.dumps({"t": t, "status": status, "event": {"id": f"e{n}", "data": data}}) + "\n"


def test_a_drain_is_read_from_its_ledger_up_to_the_first_press(tmp_path: Path) -> None:
    ledger = tmp_path / "platform.jsonl"
    lines = [(None, 9.0, "accepted"), (1, 10.0, "accepted"), (2, 11.0, "retry"), (2, 12.0, "accepted")]
    lines += [(2, 12.5, "duplicate"), (3, 14.0, "accepted"), (4, 15.0, "accepted")]
    ledger.write_text("".join(_ledger_line(*one) for one in lines), encoding="utf-8")
    taken = backlog.read(ledger, count=3, until=13.0)
    assert taken.at == {1: 10.0, 2: 12.0, 3: 14.0, 4: 15.0}
    assert (taken.began, taken.quiet, taken.quiet_until) == (10.0, 2, 12.0)
    assert [json.loads(one)["id"] for one in taken.events] == ["e1", "e2", "e3"]
    with pytest.raises(ValueError, match="nothing of the backlog was accepted"):
        backlog.read(ledger, count=0, until=13.0)


def test_a_backlog_of_an_impossible_size_is_refused_before_anything_runs() -> None:
    for events in (999, 1_000_001):
        with pytest.raises(ValueError, match=f"--backlog {events}: from 1000 to 1000000"):
            main(None, events=events)
        with pytest.raises(ValueError, match=f"--backlog {events}: from 1000 to 1000000"):
            main_drain(None, events=events)


def test_presses_come_from_one_device_and_lines_from_all_in_turn() -> None:
    written: list[bytes] = []
    source = Source(devices=3)
    source._transport = cast("asyncio.Transport", SimpleNamespace(write=written.append))
    source.send(4, 5, press=False)
    source.send(6, press=True)
    lines = [json.loads(one) for one in b"".join(written).splitlines()]
    assert [(one["dev"], one["n"], "press" in one) for one in lines] == [
        ("d2", 4, False),
        ("d3", 5, False),
        ("d1", 6, True),
    ]


def test_the_share_of_a_bus_is_its_theoretical_cycles_beside_the_measured_ones() -> None:
    line = Line(baud=2400, quiet_s=0.05)
    # 20 bytes out, 40 back, 10 bits a byte: 0.25 s on the wire, 0.04 s of thought, 0.05 s of quiet: 0.34 s a cycle.
    line.exchanges = [Exchange("m1", 20, 0.04, 40, 0.4 * n) for n in range(SETTLE + 11)]
    assert line.ideal_s(line.exchanges[0]) == pytest.approx(0.34)
    assert line.share == pytest.approx(0.85)
    shown = {one.what: one.ours for one in figures(line, "bus")}
    assert shown["bus: wasted a cycle, p50"] == pytest.approx(60.0)
    assert shown["bus: polls"] == pytest.approx(2.5)

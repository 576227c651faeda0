"""The table of a benchmark: what is shown of a figure, and which way its ratio points."""

from __future__ import annotations

import pytest

from simulator.bench.figures import Figure, Spread, table
from simulator.bench.limits import peak_mb, resident_mb


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

"""The long outage: what its devices say, and what is read from the platform's ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.bench.outage import Devices, Ledger, measure


def entry(
    sequence: int, device: str, *, status: str = "accepted", kind: str = "telemetry.meter", n: int | None = 1
) -> str:
    data = {} if n is None else {"n": n}
    event = {"id": f"id-{sequence}", "type": f"cn.eldercare.{kind}.v1", "partitionkey": device, "data": data}
    return json.dumps({"t": 100.0 + sequence, "status": status, "event": event | {"sequence": f"{sequence:020d}"}})


def read(folder: Path, *lines: str) -> Ledger:
    path = folder / "ledger.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Ledger.read(path, live="b21")


def test_each_device_counts_for_itself_and_one_line_in_a_hundred_is_a_call() -> None:
    devices = Devices()
    lines = [json.loads(devices.line(0)) for _ in range(200)]
    calls = [line for line in lines if "press" in line]
    assert [(line["dev"], line["n"]) for line in calls] == [("b2", 1), ("b3", 1)]
    assert [line["n"] for line in lines if line["dev"] == "m2"] == list(range(1, 26))
    assert len({line["dev"] for line in lines}) == 10


def test_first_acceptances_are_counted_and_repeats_apart(tmp_path: Path) -> None:
    ledger = read(
        tmp_path,
        entry(1, "m1"),
        entry(2, "m1"),
        entry(1, "m1", status="duplicate"),
        entry(2, "m1"),
        entry(3, "gw", n=None),
    )
    assert (ledger.accepted, ledger.repeated, ledger.reordered) == (2, 2, 0)
    assert (ledger.first_t, ledger.last_t) == (101.0, 103.0)


def test_out_of_order_is_judged_for_each_device_and_lane_class(tmp_path: Path) -> None:
    alarm = "alarm.raised"
    ledger = read(tmp_path, entry(9, "m1"), entry(8, "m2"), entry(7, "m1", kind=alarm), entry(6, "m1"), entry(10, "m1"))
    assert ledger.reordered == 1


def test_the_calls_of_the_live_button_are_timed(tmp_path: Path) -> None:
    kind = "alarm.raised"
    ledger = read(tmp_path, entry(1, "b1", kind=kind), entry(2, "b21", kind=kind), entry(3, "b21", kind=kind, n=2))
    assert ledger.calls == {1: 102.0, 2: 103.0}


async def test_more_than_can_be_done_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="6,048,000 events"):
        await measure(tmp_path, days=7, per_s=10.0)

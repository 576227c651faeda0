"""Readings of meters give way first, down to the last of each hour, because that loses nothing of a register."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.events import Lane, Stored
from gateway.outbox import Quota, dropping, quota
from gateway.outbox.thinning import RANGES, in_few_ranges, superseded
from tests.gateway.outbox.conftest import ORIGIN

Maker = Callable[..., Any]
MINUTE_MS = 60_000


def reading(seq: int, device: str, minute: int, *, noun: str = "telemetry.meter", boot: str = "b") -> Stored:
    return Stored(
        seq, Lane.D, f"id-{seq}", noun, device, 0, Stamp(0, minute * MINUTE_MS, boot), {"district": seq}, "{}"
    )


def test_of_each_meter_and_hour_the_last_reading_stays() -> None:
    rows = [
        reading(1, "m1", 0), reading(2, "m2", 1), reading(3, "m1", 15), reading(4, "m2", 16), reading(5, "m1", 45),
        reading(6, "m1", 60), reading(7, "m1", 75), reading(8, "m2", 130),
    ]  # fmt: skip
    assert [row.seq for row in superseded(rows)] == [1, 2, 3, 6]


def test_what_does_not_count_up_is_not_thinned_and_boots_have_hours_of_their_own() -> None:
    rows = [
        reading(1, "m1", 0, noun="telemetry.environment"), reading(2, "m1", 1, noun="telemetry.environment"),
        reading(3, "m1", 2), reading(4, "m1", 3, boot="another"), reading(5, "m1", 4, noun="alarm.raised"),
    ]  # fmt: skip
    assert superseded(rows) == []


def test_a_gap_names_a_bounded_number_of_ranges() -> None:
    rows = [reading(2 * n, "m1", 0) for n in range(1, 1_000)]
    assert [row.seq for row in in_few_ranges(rows)] == [2 * n for n in range(1, RANGES + 1)]
    together = [reading(n, "m1", 0) for n in range(1, 1_000)]
    assert in_few_ranges(together) == together


async def test_meters_are_thinned_before_anything_is_dropped_and_it_is_told(
    shelf: Any, write: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "SPARED", 8)
    monkeypatch.setattr(quota, "THIN_STEP", 300)
    outbox = shelf.outbox
    outbox.live = lambda: False
    for n in range(100):  # two meters and a thermometer, every 10 minutes
        for device, noun in (("m1", "telemetry.meter"), ("m2", "telemetry.meter"), ("t1", "telemetry.environment")):
            assert outbox.submit(write(noun, device, mono_ms=10 * n * MINUTE_MS, text="x" * 900))
    assert await outbox.flush(20)
    used = await outbox.used_bytes()
    watched = Quota(
        outbox,
        ORIGIN,
        max_bytes=int(used / 0.82),
        clock=shelf.clock,
        loaded=lambda _lane: {"district": 0},
        trouble=lambda _share: None,
    )
    await watched.check()
    gaps = [json.loads(row.body)["data"] for row in await outbox.fetch(Lane.B, 0, 10)]
    assert [gap["reason"] for gap in gaps] == ["thinned"]
    rows = await outbox.fetch(Lane.D, 0, 1_000)
    assert len(rows) == 300 - gaps[0]["dropped"]
    left = {
        device: [row.at.mono_ms // MINUTE_MS for row in rows if row.device == device] for device in ("m1", "m2", "t1")
    }
    assert left["t1"] == list(range(0, 1_000, 10))
    # Spared, then the last of each hour.
    assert left["m1"] == [0, 10, 20, *range(50, 960, 60), 990]
    assert left["m2"] == [0, 10, 20, *range(50, 960, 60), 990]


async def test_where_thinning_is_not_enough_the_backlog_gives_way_oldest_first(
    shelf: Any, write: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "SPARED", 0)
    monkeypatch.setattr(quota, "STEP", 100)
    outbox = shelf.outbox
    outbox.live = lambda: False
    for n in range(200):
        noun = "telemetry.meter" if n % 2 else "telemetry.environment"
        assert outbox.submit(write(noun, mono_ms=n * MINUTE_MS, text="x" * 900))
    assert await outbox.flush(20)
    used = await outbox.used_bytes()
    watched = Quota(
        outbox,
        ORIGIN,
        max_bytes=int(used * 0.5),
        clock=shelf.clock,
        loaded=lambda _lane: {"district": 0},
        trouble=lambda _share: None,
    )
    await watched.check()
    await asyncio.sleep(0)
    gaps = [json.loads(row.body)["data"] for row in await outbox.fetch(Lane.B, 0, 10)]
    assert [(gap["reason"], gap["dropped"]) for gap in gaps] == [("thinned", 96), ("quota", 100)]
    # 100 thermometer readings (odd) and the meter's last of each hour (60, 120, 180, 200), without the oldest 100 of them.
    assert [row.seq for row in await outbox.fetch(Lane.D, 0, 1_000)] == [195, 197, 199, 200]

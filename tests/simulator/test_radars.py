"""The simulated radar speaks as published, and the real driver hears of it what happened, over a real pty and line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.devices.andar_radar import DRIVER
from drivers.kit import Reading, Signal, SignalKind
from gateway.clock import Stamp, SystemClock
from gateway.links.serial_line import SerialLine
from simulator.bus import BusError, Ledger, fall_radars, play_falls
from simulator.radars import FallRadar, RadarQuirks, frame

PUBLISHED = [
    ("the vendor's fall, in ld6002c-fall-detection", 0x0E02, "01", 0, "01000000010e02f301fe"),
    ("the vendor's presence, in ld6002c-fall-detection", 0x0F09, "01", 1, "01000100010f09f801fe"),
    ("mr60fda2-proto parses_fall_cleared", 0x0E02, "00", 0, "01000000010e02f300ff"),
    ("mr60fda2-proto parses_parameters", 0x0E06, "666626409a99993e0f000000", 0, "010000000c0e06fa666626409a99993e0f00000032"),
    ("MR60FDA2_ESPHome: the question for parameters", 0x0E06, "", 0, "01000000000e06f6"),
    ("MR60FDA2_ESPHome: a head with another number", 0x0E0E, "", 0x8000, "01800000000e0e7e"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "kind", "data", "number", "wire"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_frames_are_built_as_published(source: str, kind: int, data: str, number: int, wire: str) -> None:
    assert frame(kind, bytes.fromhex(data), number=number).hex() == wire


class Ear:
    """The gateway's line and the driver's framer at the far end of a radar's cable."""

    def __init__(self, port: str) -> None:
        self.framer = DRIVER.framer()
        self.heard: list[Any] = []
        self.refused: list[str] = []
        self.line = SerialLine(
            link_id="radar", port=port, line=DRIVER.line, quiet_ms=20, echo=False, on_state=lambda _state: None,
            clock=SystemClock(), on_data=self._take,
        )  # fmt: skip

    def _take(self, data: bytes, _at: Stamp) -> None:
        for one in self.framer.feed(data):
            decoded = DRIVER.decode(one, None)
            self.heard += decoded.observations
            self.refused += decoded.refused

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def heard(radar: FallRadar) -> AsyncIterator[Ear]:
    ear = Ear(str(radar.port.path))
    tasks = [asyncio.create_task(radar.run()), asyncio.create_task(ear.line.run())]
    try:
        await ear.until(lambda: ear.line.is_open and radar.port.held)
        yield ear
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def make(run: Path, rows: list[Any], **quirks: Any) -> FallRadar:
    return FallRadar(device="radar-1", path=run / "ttyRADAR", seed=1, record=rows.append, quirks=RadarQuirks(**quirks))


FALLEN = Signal(SignalKind.FALL, "fall", level=True)
UPRIGHT = Signal(SignalKind.FALL, "fall", level=False)


async def test_a_fall_is_reported_while_it_lasts_and_stands_in_the_ledger_once(tmp_path: Path) -> None:
    rows: list[Any] = []
    radar = make(tmp_path, rows)
    async with heard(radar) as ear:
        await ear.until(lambda: UPRIGHT in ear.heard)
        assert FALLEN not in ear.heard
        radar.fall(0.3)
        await ear.until(lambda: FALLEN in ear.heard)
        await ear.until(lambda: ear.heard[-2:] == [UPRIGHT, Signal(SignalKind.OCCUPANCY, "presence", level=True)])
    assert [(row["kind"], row["device"], round(row["t_last"] - row["t"], 3)) for row in rows] == [
        ("fall", "radar-1", 0.0)  # after that it may be over before the next report
    ]
    assert ear.framer.skipped == 0


async def test_the_question_of_the_driver_is_answered(tmp_path: Path) -> None:
    radar = make(tmp_path, [], height_m=2.4)
    assert DRIVER.poll is not None
    async with heard(radar) as ear:
        assert ear.line.write(DRIVER.poll.request)
        await ear.until(lambda: any(isinstance(one, Reading) for one in ear.heard))
    readings = [(one.quantity, str(one.value)) for one in ear.heard if isinstance(one, Reading)]
    assert readings == [("install_height", "2.40"), ("fall_threshold", "0.30"), ("sensitivity", "15")]
    assert radar.answered == 1


async def test_an_impossible_height_is_refused_by_the_driver(tmp_path: Path) -> None:
    assert DRIVER.poll is not None
    async with heard(make(tmp_path, [], height_m=300.0)) as ear:
        assert ear.line.write(DRIVER.poll.request)
        await ear.until(lambda: ear.refused == ["install_height = 300 m"])


async def test_point_clouds_hide_no_fall(tmp_path: Path) -> None:
    radar = make(tmp_path, [], cloud=True)
    async with heard(radar) as ear:
        radar.fall(60)
        await ear.until(lambda: ear.heard.count(FALLEN) >= 4)
    assert ear.framer.rejects == {}


async def test_a_silent_radar_answers_nothing(tmp_path: Path) -> None:
    radar = make(tmp_path, [], silent=True)
    assert DRIVER.poll is not None
    async with heard(radar) as ear:
        ear.line.write(DRIVER.poll.request)
        radar.fall(60)
        await asyncio.sleep(0.2)
    assert (ear.heard, radar.answered, ear.line.rx_bytes) == ([], 0, 0)


def test_a_cloud_is_as_long_as_it_says(tmp_path: Path) -> None:
    async def reported() -> list[bytes]:
        return make(tmp_path, [], cloud=True).reports()

    _, cloud, _ = asyncio.run(reported())
    (points,) = struct.unpack_from("<i", cloud, 8)
    assert len(cloud) == 8 + 4 + 20 * points + 1


async def test_the_radars_of_a_scenario_see_their_falls(tmp_path: Path) -> None:
    scenario = {
        "seed": 1,
        "start": 0.0,
        "devices": [
            {"id": "radar-1", "role": "radar", "model": "andar-radar", "faults": {"cloud": True}},
            {"id": "m1", "role": "meter"},
        ],
        "emissions": [
            {"at_s": 0, "device": "radar-1", "kind": "fall", "for_s": 60},
            {"at_s": 0, "device": "pendant", "kind": "fall", "for_s": 60},
        ],
    }
    ledger = Ledger(tmp_path / "lines.jsonl")
    (radar,) = fall_radars(tmp_path, scenario, ledger)
    await play_falls(scenario, radar)
    ledger.close()
    assert radar.fallen
    assert radar.quirks.cloud
    assert radar.port.path == tmp_path / "tty-radar-1"
    rows = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["device"]) for row in rows] == [("fall", "radar-1")]


def test_a_fault_that_no_radar_has_is_named(tmp_path: Path) -> None:
    scenario = {"seed": 1, "devices": [{"id": "r", "role": "radar", "faults": {"deaf": True}}]}
    ledger = Ledger(tmp_path / "lines.jsonl")
    with pytest.raises(BusError, match="deaf"):
        fall_radars(tmp_path, scenario, ledger)
    ledger.close()

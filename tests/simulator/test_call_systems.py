"""The simulated call system speaks as published, and the real driver takes its calls over a real pty and line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.devices import espa444, micradar
from drivers.kit import Rejected, Signal, SignalKind
from gateway.clock import Stamp, SystemClock
from gateway.links.serial_line import SerialLine
from simulator.bus import BusError, Ledger, call_systems, play_calls
from simulator.call_systems import CallQuirks, CallSystem, block
from simulator.radars import MicradarRadar, RadarQuirks, micradar_frame


def test_blocks_and_frames_are_built_as_published() -> None:
    # northplane's block (check 42) without its records 3 and 5, which change the check by 00 and 05.
    assert block("0815", "Feuer Zimmer 12", kind="3", priority="1").hex() == (
        "013102311f303831351e321f4665756572205a696d6d65722031321e341f331e361f310347"
    )
    assert micradar_frame(0x83, 0x81, b"\x01").hex() == "53598381000101b25443"
    assert micradar_frame(0x83, 0x81, b"\x0f").hex() == "5359838100010fc05443"


class Ear:
    """The gateway's line and the driver at the far end; `held_back`: a call is answered only when this says so."""

    def __init__(self, port: str, driver: Any) -> None:
        self.driver, self.options = driver, driver.options({})
        self.framer = driver.framer()
        self.heard: list[Any] = []
        self.calls = 0
        self.line = SerialLine(
            link_id="calls", port=port, line=driver.line, quiet_ms=20, echo=False, on_state=lambda _state: None,
            clock=SystemClock(), on_data=self._take,
        )  # fmt: skip

    def _take(self, data: bytes, _at: Stamp) -> None:
        for one in self.framer.feed(data):
            try:
                decoded = self.driver.decode(one, self.options)
            except Rejected as rejected:
                replies = rejected.replies
            else:
                replies, self.heard = decoded.replies, [*self.heard, *decoded.observations]
            for reply in replies:
                self.line.write(reply.data)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def heard(source: Any, driver: Any) -> AsyncIterator[Ear]:
    ear = Ear(str(source.port.path), driver)
    tasks = [asyncio.create_task(source.run()), asyncio.create_task(ear.line.run())]
    try:
        await ear.until(lambda: ear.line.is_open and source.port.held)
        yield ear
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def system(run: Path, rows: list[Any], **quirks: bool) -> CallSystem:
    return CallSystem(path=run / "tty-calls", record=rows.append, quirks=CallQuirks(**quirks))


CALL = Signal(SignalKind.CALL, "alarm", "3011", detail="Bett 3011")


async def test_calls_are_handed_over_one_after_the_other_and_stand_in_the_ledger_when_acknowledged(
    tmp_path: Path,
) -> None:
    rows: list[Any] = []
    source = system(tmp_path, rows)
    async with heard(source, espa444.DRIVER) as ear:
        source.call("bed-1", "3011")
        source.call("bed-2", "3012")
        await ear.until(lambda: source.unacknowledged == 0)
    assert [one.channel for one in ear.heard] == ["3011", "3012"]
    assert [(row["device"], row["kind"]) for row in rows] == [("bed-1", "bed"), ("bed-2", "bed")]
    assert source.resent == 0


async def test_a_garbled_block_is_refused_and_comes_again(tmp_path: Path) -> None:
    source = system(tmp_path, [], garbled=True)
    async with heard(source, espa444.DRIVER) as ear:
        source.call("bed-1", "3011")
        await ear.until(lambda: source.unacknowledged == 0)
    assert ear.heard == [CALL]
    assert (source.refused, source.resent) == (1, 1)


async def test_a_missed_acknowledgement_brings_the_call_again(tmp_path: Path) -> None:
    source = system(tmp_path, [], deaf=True)
    async with heard(source, espa444.DRIVER) as ear:
        source.call("bed-1", "3011")
        await ear.until(lambda: source.unacknowledged == 0)
    assert ear.heard == [CALL, CALL]


async def test_a_call_that_nobody_takes_stays_with_the_system(tmp_path: Path) -> None:
    rows: list[Any] = []
    source = system(tmp_path, rows)
    running = asyncio.create_task(source.run())
    source.call("bed-1", "3011")
    await asyncio.sleep(0)
    assert source.unacknowledged == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert rows == []


async def test_a_micradar_says_a_fall_when_it_is_asked_and_what_it_watches(tmp_path: Path) -> None:
    rows: list[Any] = []
    radar = MicradarRadar(
        device="radar-1", path=tmp_path / "tty-radar", seed=1, record=rows.append, quirks=RadarQuirks(no_falls=True)
    )
    assert micradar.DRIVER.poll is not None
    async with heard(radar, micradar.DRIVER) as ear:
        radar.fall(60)
        await ear.until(lambda: any(getattr(one, "code", "") == "presence" for one in ear.heard))
        assert not [one for one in ear.heard if isinstance(one, Signal) and one.kind is SignalKind.FALL]
        ear.line.write(micradar.DRIVER.poll.request)
        await ear.until(lambda: Signal(SignalKind.FALL, "fall", level=True) in ear.heard)
        await ear.until(lambda: Signal(SignalKind.PROBLEM, "work-mode", "work-mode", level=True) in ear.heard)
    assert [row["kind"] for row in rows] == ["fall"]


async def test_a_scenarios_beds_share_the_system_of_their_link(tmp_path: Path) -> None:
    beds = [{"id": f"bed-{n}", "role": "bed", "link": "calls", "address": f"301{n}"} for n in (1, 2)]
    scenario: dict[str, Any] = {
        "start": 0.0, "devices": beds, "emissions": [{"at_s": 0.1, "device": "bed-2", "kind": "bed", "for_s": 0.0}],
    }  # fmt: skip
    ledger = Ledger(tmp_path / "lines.jsonl")
    found = call_systems(tmp_path, scenario, ledger)
    assert list(found) == ["calls"]
    await play_calls(scenario, "calls", found["calls"])
    assert found["calls"].unacknowledged == 1
    with pytest.raises(BusError, match="call system"):
        call_systems(tmp_path, {**scenario, "devices": [{**beds[0], "faults": {"loud": True}}]}, ledger)
    ledger.close()

"""A capture of what the gateway heard, played again on a line, a bus and the air: the same comes out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import Decoded, LineSettings, Reading, catalogue
from gateway.cli.listening import Recording
from gateway.clock import Stamp, SystemClock
from gateway.collect.desk import Desk
from gateway.collect.listening import Heard, Listeners
from gateway.links.serial_line import SerialLine
from simulator.replay import ReplayError, main, read

DEADLINE_S = 60.0
FALL = bytes.fromhex("01000000010e02f301fe")
CLEAR = bytes.fromhex("01000000010e02f300ff")


def capture(path: Path) -> None:
    """What a radar and a meter said, as `gateway listen --record` keeps it."""
    seen: list[Heard] = []
    listeners = Listeners()
    listeners.add(seen.append)
    radar, meter = catalogue.driver("andar-radar"), catalogue.driver("dlt645-2007")
    radar_desk = Desk("radar-1", "andar-radar", "radar", "", "201", "", radar, None)
    vector: Any = meter.vectors[0]
    meter_desk = Desk("meter-1", "dlt645-2007", "bus", vector.address, "", "", meter, None, map=vector.options)
    at = Stamp(1_772_352_000_000, 0, "boot", "synced")
    for step, frame in enumerate((CLEAR, FALL, CLEAR)):
        later = Stamp(at.wall_ms + 100 * step, 0, "boot", "synced")
        listeners.tell_frame("radar", later, frame, desk=radar_desk, said=Decoded())
    listeners.tell_poll("bus", at, vector.exchange, desk=meter_desk, said=Decoded(vector.expect))
    recording = Recording(path, with_strangers=False)
    recording.open()
    for one in seen:
        recording.keep(one.item())
    recording.close()
    assert recording.count == 4


def line(path: Path, model: str, **options: Any) -> SerialLine:
    driver: Any = catalogue.driver(model)
    # A pty cannot be opened a second time with parity.
    settings = LineSettings(baud=driver.line.baud)
    return SerialLine(
        link_id=path.name, port=str(path), line=settings, quiet_ms=20, echo=False, on_state=lambda _state: None,
        clock=SystemClock(), **options,
    )  # fmt: skip


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_was_recorded_comes_again_and_questions_are_answered_as_then(tmp_path: Path) -> None:
    capture(tmp_path / "capture.jsonl")
    heard: list[bytes] = []
    framer: Any = catalogue.driver("andar-radar")
    cut = framer.framer()
    radar = line(tmp_path / "radar", "andar-radar", on_data=lambda data, _at: heard.extend(cut.feed(data)))
    bus = line(tmp_path / "bus", "dlt645-2007")
    playing = asyncio.create_task(main(tmp_path / "capture.jsonl", run=tmp_path, speed=1.0, linger_s=None))
    tasks = [playing, asyncio.create_task(radar.run()), asyncio.create_task(bus.run())]
    try:
        await until(lambda: len(heard) == 3)
        assert heard == [CLEAR, FALL, CLEAR]
        driver: Any = catalogue.driver("dlt645-2007")
        for _ in range(2):  # the last reply for ever
            talk = driver.talk(driver.options("000000193600", {"registers": ["energy_active_import"]}))
            ask = next(talk)
            with pytest.raises(StopIteration) as end:
                talk.send(await bus.ask(ask, driver.framer()))
            assert next(str(one.value) for one in end.value.value if isinstance(one, Reading)) == "36.30"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def test_the_command_ends_after_its_capture(tmp_path: Path) -> None:
    capture(tmp_path / "capture.jsonl")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulator", "replay", str(tmp_path / "capture.jsonl"), "--run", str(tmp_path),
        "--speed", "10", "--linger", "0.1", stderr=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    await until(lambda: (tmp_path / "radar").is_symlink() and (tmp_path / "bus").is_symlink())
    held = [os.open(tmp_path / name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK) for name in ("radar", "bus")]
    got = b""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while got != CLEAR + FALL + CLEAR:
                with contextlib.suppress(BlockingIOError):
                    got += os.read(held[0], 4096)
                await asyncio.sleep(0.01)
            _, err = await process.communicate()
    finally:
        for one in held:
            os.close(one)
    assert (process.returncode, err) == (0, b"")


def test_adverts_of_a_capture_become_reports_with_whole_addresses(tmp_path: Path) -> None:
    row = {
        "t": "2026-03-01T08:00:00.250Z", "link": "radio", "kind": "advert", "mac": "11:22:33:··:··:··", "name": "",
        "rssi": -70, "service_data": {"fcd2": "44"}, "manufacturer_data": {"004c": "0215"},
    }  # fmt: skip
    path = tmp_path / "capture.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (moment,) = read(path).moments
    assert moment.report is not None
    assert moment.report.address == "11:22:33:00:00:00"
    assert (moment.report.rssi, moment.report.service_data) == (-70, {0xFCD2: b"\x44"})


@pytest.mark.parametrize(
    "line_",
    ["nonsense", "{}", '{"t":"2026-03-01T08:00:00Z","link":"x","kind":"song"}', '{"t":1,"link":"x","kind":"frame"}'],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line_: str) -> None:
    path = tmp_path / "capture.jsonl"
    path.write_text(f"{line_}\n", encoding="utf-8")
    with pytest.raises(ReplayError, match="line 1"):
        read(path)


async def test_an_empty_capture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    path.touch()
    with pytest.raises(ReplayError, match="nothing"):
        await main(path, run=tmp_path, speed=1.0, linger_s=0)

"""`gateway scan` over a cable with simulated meters: several speeds, crowds, echo; what was found survives an interruption."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import io
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import Answers, LineSettings, catalogue
from drivers.kit.searching import lines
from drivers.protocols import meter_search
from gateway.cli import bus_scanning
from gateway.cli.layout import Paper
from gateway.errors import LinkDown
from gateway.links.bus_scan import Device, Scan, Step, plan, scan
from simulator.bus import Ledger, MeterBus
from simulator.com_port_server import ComPortServer
from simulator.meters import Meter
from simulator.meters_698 import Meter698
from simulator.meters_1997 import Meter1997

QUIET_MS = 10
PORT = "/dev/serial/by-id/usb-FTDI_485-port0"


def meter(device: str, address: str, *, baud: int | None = None) -> Meter:
    return Meter(device=device, address=address, seed=5, start=time.time(), baud=baud)


@contextlib.asynccontextmanager
async def wires(run: Path, meters: Sequence[Meter], *, echo: bool = False) -> AsyncIterator[str]:
    ledger = Ledger(run / "bus.jsonl")
    bus = MeterBus(path=run / "ttyMETER", baud=9600, meters=meters, ledger=ledger, echo=echo)
    running = asyncio.create_task(bus.run())
    try:
        async with asyncio.timeout(10):
            while not (run / "ttyMETER").exists():
                await asyncio.sleep(0.002)
        yield str(run / "ttyMETER")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        ledger.close()


def steps(*models: str) -> list[Step]:
    """The steps of a scan that a pty can do: it knows no parity."""
    drivers = [one for one in map(catalogue.driver, models) if isinstance(one, Answers)]
    planned = plan(drivers, is_settable=True, quiet_s=QUIET_MS / 1000)
    return [one for one in planned if one.settings is not None and one.settings.parity == "N"]


async def scanned(port: str, planned: Sequence[Step], into: Scan, found: list[Device] | None = None) -> Scan:
    taken = found if found is not None else []
    await scan(
        port, planned, into, quiet_ms=QUIET_MS, on_step=lambda _step: None, on_found=taken.append,
        on_asked=lambda: None,
    )  # fmt: skip
    return into


def told(result: Scan) -> list[tuple[str, str, int]]:
    return [
        (one.driver.model, one.found.address, one.settings.baud if one.settings else 0) for one in result.devices
    ]  # fmt: skip


async def test_meters_of_two_speeds_are_found_each_at_its_own_and_once(tmp_path: Path) -> None:
    meters = [meter("m1", "000000193600"), meter("m2", "000000200001", baud=2400)]
    async with wires(tmp_path, meters) as port:
        result = await scanned(port, steps("dlt645-2007", "dlt645-1997", "dlt698-45"), Scan())
    assert told(result) == [("dlt645-2007", "000000200001", 2400), ("dlt645-2007", "000000193600", 9600)]
    assert result.crowded == []


async def test_a_meter_that_is_heard_at_either_parity_is_found_once(tmp_path: Path) -> None:
    driver = catalogue.driver("dlt645-2007")
    assert isinstance(driver, Answers)
    planned = plan([driver], is_settable=True, quiet_s=QUIET_MS / 1000)
    both = [one for one in planned if one.settings is not None and one.settings.baud == 9600]
    assert {one.settings.parity for one in both if one.settings} == {"E", "N"}
    async with wires(tmp_path, [meter("m1", "000000193600")]) as port:
        result = await scanned(port, both, Scan())
    assert told(result) == [("dlt645-2007", "000000193600", 9600)]


def test_what_was_found_before_the_port_was_lost_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(port: str, _steps: Sequence[Step], into: Scan, **_callbacks: Any) -> None:
        into.devices.append(found("dlt645-2007", "000000193600", LineSettings(9600)))
        raise LinkDown("GW-SER-04", port, port=port)

    monkeypatch.setattr(bus_scanning, "scan", lost)
    out = io.StringIO()
    options = argparse.Namespace(port=PORT, model=[], baud=[], line=[], quiet=QUIET_MS, json=False)
    with pytest.raises(LinkDown):
        bus_scanning.run(options, Paper("en", out), config=tmp_path / "gateway.toml")
    assert 'address = "000000193600"' in out.getvalue()


async def test_three_meters_that_garble_each_other_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = ["000000193600", "000000193601", "000000193742"]
    async with wires(tmp_path, [meter(f"m{n}", one) for n, one in enumerate(addresses)]) as port:
        planned = [one for one in steps("dlt645-2007") if one.settings == LineSettings(9600)]
        monkeypatch.setattr(meter_search, "TIMEOUT_S", 0.3)  # the meters think for 60 ms at most
        result = await scanned(port, planned, Scan())
    assert sorted(one[1] for one in told(result)) == addresses


async def test_an_echo_is_no_crowd_and_is_told(tmp_path: Path) -> None:
    async with wires(tmp_path, [meter("m1", "000000193600")], echo=True) as port:
        result = await scanned(port, steps("dlt645-2007"), Scan())
    assert told(result) == [("dlt645-2007", "000000193600", 9600)]
    assert result.echo
    assert result.crowded == []


async def test_what_was_found_stays_when_the_scan_is_interrupted(tmp_path: Path) -> None:
    async with wires(tmp_path, [meter("m1", "000000193600", baud=2400), meter("m2", "000000200001")]) as port:
        result, found = Scan(), list[Device]()
        running = asyncio.create_task(scanned(port, steps("dlt645-2007", "modbus-meter"), result, found))
        async with asyncio.timeout(60):
            while not found:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running})
    assert told(result)[0] == ("dlt645-2007", "000000193600", 2400)


async def test_a_port_that_another_program_holds_is_refused_by_name(tmp_path: Path) -> None:
    async with wires(tmp_path, [meter("m1", "000000193600")]) as port:
        holder = os.open(port, os.O_RDWR | os.O_NOCTTY)
        try:
            fcntl.flock(holder, fcntl.LOCK_EX)
            with pytest.raises(LinkDown) as caught:
                await scanned(port, steps("dlt645-2007"), Scan())
        finally:
            os.close(holder)
    assert caught.value.code == "GW-SER-03"


def found(model: str, address: str, settings: LineSettings, **options: Any) -> Device:
    from drivers.kit.searching import Found

    driver = catalogue.driver(model)
    assert isinstance(driver, Answers)
    complete = options.pop("complete", True)
    return Device(driver, settings, Found(address, options, complete=complete))


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_configuration_that_is_printed_is_one_that_the_loader_takes(tmp_path: Path, lang: str) -> None:
    result = Scan(
        devices=[
            found("dlt645-2007", "000000193600", LineSettings(2400, 8, "E", 1)),
            found("dlt645-2007", "000000193601", LineSettings(9600, 8, "N", 1)),
            found("cjt188", "78331505104145", LineSettings(2400, 8, "E", 1), meter="cold-water"),
            found("modbus-meter", "1", LineSettings(9600, 8, "N", 1), meter="chint-ddsu666"),
            found("modbus-meter", "7", LineSettings(9600, 8, "N", 1), complete=False),
            found("mbus", "5", LineSettings(2400, 8, "E", 1)),
        ],
        echo=True,
    )
    config = tmp_path / "gateway.toml"
    config.write_text('[[serial]]\nid = "bus-1"\n')
    block = bus_scanning.tables(Paper(lang, io.StringIO()), result, port=PORT, config=config)
    assert bus_scanning.findings(block) == []
    assert 'id = "bus-2"' in block
    assert "echo = true" in block
    assert block.count("[[device]]") == 6
    assert '# model = "modbus-meter"' in block
    assert 'baud = 9600\nparity = "N"' in block


def test_what_the_loader_has_against_a_block_is_said() -> None:
    line = '[[serial]]\nid = "bus-1"\nport = "/dev/ttyUSB0"\n'
    device = '[[device]]\nid = "m"\nmodel = "dlt645-2007"\nlink = "bus-1"\naddress = "1"\n'
    assert bus_scanning.findings(line + device) != []


@contextlib.asynccontextmanager
async def server(run: Path, meters: Sequence[Meter], *, refuses: str = "") -> AsyncIterator[str]:
    """The same wires behind a serial server, whose port knows parity."""
    ledger, front = Ledger(run / "bus.jsonl"), ComPortServer(port=0, refuses=refuses)
    running = asyncio.create_task(MeterBus(path=front, baud=2400, parity="E", meters=meters, ledger=ledger).run())
    try:
        async with asyncio.timeout(10):
            await front.listening.wait()
        yield f"rfc2217://127.0.0.1:{front.port}"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        ledger.close()


def at(settings: str, *models: str) -> list[Step]:
    drivers = [one for one in map(catalogue.driver, models) if isinstance(one, Answers)]
    return plan(drivers, is_settable=True, quiet_s=QUIET_MS / 1000, lines=lines(*settings.split(", ")))


def named(result: Scan) -> list[tuple[str, str, str]]:
    return [
        (one.driver.model, one.found.address, f"{one.settings.baud} {one.settings.bits}{one.settings.parity}")
        for one in result.devices
        if one.settings is not None
    ]


async def test_meters_of_every_parity_are_found_each_at_its_own_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_search, "TIMEOUT_S", 0.7)  # 40 bytes take 183 ms
    options: dict[str, Any] = {"seed": 5, "start": time.time()}
    meters = [
        Meter(device="even", address="000000193600", **options),
        Meter(device="none", address="000000200001", parity="N", **options),
        Meter(device="odd", address="000000200002", parity="O", **options),
        Meter698(device="m698", address="000000698450", baud=9600, **options),
        Meter1997(device="old", address="000000971234", baud=9600, parity="O", **options),
    ]
    async with server(tmp_path, meters) as port:
        planned = at("2400 8E1, 2400 8N1, 2400 8O1, 9600 8E1, 9600 8O1", "dlt645-2007", "dlt645-1997", "dlt698-45")
        result = await scanned(port, planned, Scan())
    assert sorted(named(result)) == [
        ("dlt645-1997", "000000971234", "9600 8O"),
        ("dlt645-2007", "000000193600", "2400 8E"),
        ("dlt645-2007", "000000200001", "2400 8N"),
        ("dlt645-2007", "000000200002", "2400 8O"),
        ("dlt698-45", "000000698450", "9600 8E"),
    ]
    assert result.crowded == []
    assert result.refused == []


async def test_a_serial_server_that_refuses_a_parity_is_told_and_the_rest_is_found(tmp_path: Path) -> None:
    meters = [meter("m1", "000000193600"), Meter(device="m2", address="1" * 12, seed=5, start=0, parity="O")]
    async with server(tmp_path, meters, refuses="O") as port:
        result = await scanned(port, at("2400 8O1, 2400 8E1", "dlt645-2007"), Scan())
    assert named(result) == [("dlt645-2007", "000000193600", "2400 8E")]
    assert result.refused == [LineSettings(2400, 8, "O", 1)]


def test_short_searches_come_first_and_the_time_is_that_of_the_questions() -> None:
    drivers = [one for one in map(catalogue.driver, ("mbus", "dlt645-2007")) if isinstance(one, Answers)]
    planned = plan(drivers, is_settable=True, quiet_s=0.05)
    assert [one.driver.model for one in planned] == ["dlt645-2007"] * 6 + ["mbus"] * 4
    # 2 questions of 0.9 s, 50 ms of quiet and 20 bytes of 4.58 ms.
    assert planned[0].seconds == pytest.approx(2.08, abs=0.01)
    assert [one.settings for one in plan(drivers, is_settable=False, quiet_s=0.05)] == [None, None]

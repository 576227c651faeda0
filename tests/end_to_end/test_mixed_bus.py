"""One bus with meters of every protocol, at several speeds and parities: found each once, and what is printed is polled at once.

Behind a serial server (RFC 2217), for a pty has no parity. Fewer units and addresses are asked than a scan asks: a whole one
takes a quarter of an hour; what it found is told in docs/meter-bus.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.devices import modbus_meter
from drivers.kit.searching import lines
from drivers.protocols import mbus, modbus
from gateway.cli import bus_scanning
from gateway.cli.layout import Paper
from simulator.bus import Ledger, MeterBus
from simulator.com_port_server import ComPortServer
from simulator.control_client import NoAnswer, ask
from simulator.line_meters import ChintMeter, HeatMeter, ModbusMeter, WaterMeter
from simulator.meters import Meter
from simulator.meters_698 import Meter698
from simulator.meters_1997 import Meter1997
from simulator.processes import Children
from simulator.scenario import free_ports

pytestmark = pytest.mark.slow

LIMIT_S = 120.0
# Model, address, settings, the option that says which meter it is; who it is on the simulated bus; what is worth money.
METERS = {
    ("dlt645-1997", "000000971234", "1200 8E1", ""): ("old", "energy_active_import"),
    ("dlt645-2007", "000000193600", "2400 8E1", ""): ("new", "energy_active_import"),
    ("dlt698-45", "000000698450", "9600 8E1", ""): ("object", "energy_active_import"),
    ("cjt188", "00000012345678", "2400 8E1", "cold-water"): ("water", "volume_water"),
    ("mbus", "7", "2400 8E1", ""): ("heat-7", "energy_heat"),
    ("mbus", "203017424D2D0104", "2400 8E1", ""): ("heat-number", "energy_heat"),
    ("modbus-meter", "5", "9600 8N1", "eastron-sdm630"): ("eastron", "energy_active_import"),
    ("modbus-meter", "11", "9600 8E1", "chint-ddsu666"): ("chint", "energy_active_import"),
}
CONFIG = """
[gateway]
id = "gw"
org = "o"
site = "s"
data_dir = "{run}/data"
control_socket = "{run}/gw.sock"
[[destination]]
id = "nobody"
[[destination.path]]
url = "mqtt://127.0.0.1:{nobody}"
"""


def meters() -> list[Meter]:
    options: dict[str, Any] = {"seed": 3, "start": time.time()}
    return [
        Meter1997(device="old", address="000000971234", baud=1200, **options),
        Meter(device="new", address="000000193600", **options),
        Meter698(device="object", address="000000698450", baud=9600, **options),
        WaterMeter(device="water", address="00000012345678", **options),
        HeatMeter(device="heat-7", address="7", **options),
        HeatMeter(device="heat-number", address="20301742", **options),
        ModbusMeter(device="eastron", address="5", baud=9600, parity="N", **options),
        ChintMeter(device="chint", address="11", baud=9600, **options),
    ]


@contextlib.asynccontextmanager
async def served(run: Path) -> AsyncIterator[str]:
    ledger, front = Ledger(run / "bus.jsonl"), ComPortServer(port=0)
    running = asyncio.create_task(MeterBus(path=front, baud=2400, parity="E", meters=meters(), ledger=ledger).run())
    try:
        async with asyncio.timeout(10):
            await front.listening.wait()
        yield f"rfc2217://127.0.0.1:{front.port}"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        ledger.close()


async def found(port: str, run: Path) -> Any:
    out = io.StringIO()
    options = argparse.Namespace(
        port=port, model=[], baud=[], quiet=20, json=True, line=lines("2400 8E1", "9600 8E1", "9600 8N1", "1200 8E1")
    )
    paper = Paper("en", out)
    assert await asyncio.to_thread(bus_scanning.run, options, paper, config=run / "none.toml")
    return json.loads(out.getvalue())


async def polled(run: Path, block: str) -> dict[str, list[tuple[str, Decimal]]]:
    """Run the gateway with what the scan printed until each device told two events; return what it told, by device."""
    config = CONFIG.format(run=run, **free_ports(["nobody"])) + block.replace(
        "[[device]]\n", "[[device]]\nevery_s = 5\n"
    )
    (run / "gateway.toml").write_text(config, encoding="utf-8")
    async with Children(run) as children:
        await children.start("gateway", [sys.executable, "-m", "gateway", "run", "--config", str(run / "gateway.toml")])
        async with asyncio.timeout(LIMIT_S):
            while True:
                with contextlib.suppress(NoAnswer):
                    devices = (await ask(run / "gw.sock", "status"))["devices"]
                    if len(devices) == len(METERS) and all(one["events"] >= 2 for one in devices):
                        break
                await asyncio.sleep(0.3)
        await children.stop("gateway", grace_s=20.0)
    told: dict[str, list[tuple[str, Decimal]]] = {}
    with contextlib.closing(sqlite3.connect(run / "data/outbox.db")) as store:
        for device, body in store.execute("SELECT device, body FROM event_d WHERE noun = 'telemetry.meter'"):
            registers = json.loads(body)["data"]["registers"]
            told.setdefault(device, []).extend(
                (one["quantity"], Decimal(one["value"])) for one in registers if not one["channel"]
            )
    return told


async def test_a_mixed_bus_is_found_whole_and_what_is_printed_is_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modbus_meter, "SEARCH_TIMEOUT_S", 0.5)  # the wires need 0.1; the rest is for a busy machine
    monkeypatch.setattr(modbus, "MAX_UNIT", 12)
    monkeypatch.setattr(mbus, "MAX_PRIMARY", 8)
    async with served(tmp_path) as port:
        scan = await found(port, tmp_path)
        devices = [
            (one["model"], one["address"], one["settings"], one["options"].get("meter", "")) for one in scan["devices"]
        ]
        assert sorted(devices) == sorted(METERS)
        assert bus_scanning.findings(scan["config"]) == []
        told = await polled(tmp_path, scan["config"])
    rows = [json.loads(line) for line in (tmp_path / "bus.jsonl").read_text().splitlines()]
    assert len(told) == len(METERS)
    names = [line.split('"')[1] for line in scan["config"].splitlines() if line.startswith("id = ")][1:]
    for name, device in zip(names, devices, strict=True):
        who, quantity = METERS[device]
        given = [
            Decimal(row["value"]["value"])
            for row in rows
            if row["device"] == who and row["value"]["quantity"] == quantity and not row["value"]["channel"]
        ]
        values = [value for what, value in told[name] if what == quantity]
        assert len(values) >= 2, name
        # Modbus has it as a 32-bit float.
        assert all(any(abs(value - one) <= one * Decimal("1E-6") for one in given) for value in values), name

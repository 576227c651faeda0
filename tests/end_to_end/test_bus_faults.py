"""The faults that users report of buses, each played once against the running gateway: what is told of it, and no wrong value."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from simulator.bus import Ledger, MeterBus
from simulator.control_client import NoAnswer, ask
from simulator.meters import Meter, Quirks
from simulator.processes import Children
from simulator.scenario import free_ports

pytestmark = pytest.mark.slow

LIMIT_S = 150.0


WELL = Quirks()


@dataclass(frozen=True)
class Fault:
    """What is wrong with the first of two meters, or with the wires; and how `gateway status` tells it."""

    name: str
    told: Callable[[Mapping[str, Any], Mapping[str, Any], set[tuple[str, str]]], bool]
    quirks: Quirks = WELL
    echo: bool = False
    twins: bool = False
    is_read: bool = True


FAULTS = (
    Fault("echo", lambda bus, _, on: bus["echo"] and ("GW-SER-10", "echo") in on, echo=True),
    Fault("stray", lambda bus, _, __: bus["trimmed"] > 10, Quirks(stray=True)),
    Fault("foreign", lambda bus, _, __: bus["foreign"] > 1, Quirks(foreign=True)),
    # After the time-out: it comes while the next question waits for its reply, or nobody asks any more.
    Fault("late", lambda bus, one, _: one["polls_failed"] > 2 and bus["foreign"] + bus["unasked"] > 1, Quirks(late_s=1.8),
          is_read=False),
    Fault("garbled", lambda bus, _, __: bus["trimmed"] > 0 and bus["timeouts"] > 0, Quirks(garbled=0.4)),
    Fault("jabbers", lambda bus, _, on: bus["unasked"] > 100 and ("GW-SER-09", "jabbers") in on, Quirks(jabbers=True)),
    Fault("twins", lambda _, one, on: one["polls_failed"] > 2 and ("GW-DEV-01", "twins-1") in on, twins=True, is_read=False),
    Fault("sometimes", lambda bus, _, __: bus["timeouts"] > 3, Quirks(answers=0.4)),
    Fault("silent", lambda _, one, on: one["polls_failed"] > 2 and ("GW-DEV-01", "silent-1") in on, Quirks(silent=True),
          is_read=False),
)  # fmt: skip

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
BUS = """
[[serial]]
id = "{name}"
port = "{run}/{name}"
baud = 9600
parity = "N"
"""
METER = """
[[device]]
id = "{name}-{n}"
model = "dlt645-2007"
link = "{name}"
address = "{address}"
every_s = 4
map = {{ registers = ["energy_active_import"] }}
"""


def buses(run: Path, ledgers: Mapping[str, Ledger]) -> list[MeterBus]:
    made = []
    for fault in FAULTS:
        options: dict[str, Any] = {"seed": 11, "start": time.time()}
        meters = [
            Meter(device=f"{fault.name}-1", address="000000000001", quirks=fault.quirks, **options),
            Meter(device=f"{fault.name}-2", address="000000000002", **options),
        ]
        if fault.twins:
            meters.append(Meter(device="twin", address="000000000001", **options))
        ledger = ledgers[fault.name]
        made.append(MeterBus(path=run / fault.name, baud=9600, meters=meters, ledger=ledger, echo=fault.echo))
    return made


def configured(run: Path) -> str:
    text = CONFIG.format(run=run, **free_ports(["nobody"]))
    for fault in FAULTS:
        text += BUS.format(name=fault.name, run=run)
        text += "".join(METER.format(name=fault.name, n=n, address=f"{n:012d}") for n in (1, 2))
    return text


async def until_told(run: Path) -> list[Mapping[str, Any]]:
    """Return the problems, once each fault was told and every meter that can be read was."""
    end = time.monotonic() + LIMIT_S
    missing = [fault.name for fault in FAULTS]
    while True:
        with contextlib.suppress(NoAnswer):
            status = await ask(run / "gw.sock", "status")
            on = {(one["code"], one["subject"]) for one in status["problems"]}
            lines = {one["id"]: one for one in status["buses"]}
            devices = {one["id"]: one for one in status["devices"]}
            missing = [
                fault.name
                for fault in FAULTS
                if not fault.told(lines[fault.name], devices[f"{fault.name}-1"], on)
                or any(not devices[f"{fault.name}-{n}"]["events"] for n in (1, 2) if fault.is_read or n == 2)
            ]
            if not missing:
                found: list[Mapping[str, Any]] = status["problems"]
                return found
        assert time.monotonic() < end, (missing, lines, devices, on)
        await asyncio.sleep(0.5)


def values(rows: list[tuple[str, str]]) -> dict[str, set[tuple[str, str, Decimal]]]:
    found: dict[str, set[tuple[str, str, Decimal]]] = {}
    for device, body in rows:
        for one in json.loads(body)["data"]["registers"]:
            found.setdefault(device, set()).add((one["quantity"], one["channel"], Decimal(one["value"])))
    return found


def given(run: Path) -> dict[str, set[tuple[str, str, Decimal]]]:
    found: dict[str, set[tuple[str, str, Decimal]]] = {}
    for fault in FAULTS:
        for line in (run / f"{fault.name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            value = row["value"]
            one = (value["quantity"], value["channel"], Decimal(value["value"]))
            found.setdefault(row["device"], set()).add(one)
    return found


async def test_each_fault_of_a_bus_is_told_and_no_wrong_value_comes_of_it(tmp_path: Path) -> None:
    ledgers = {fault.name: Ledger(tmp_path / f"{fault.name}.jsonl") for fault in FAULTS}
    running = [asyncio.create_task(bus.run()) for bus in buses(tmp_path, ledgers)]
    (tmp_path / "gateway.toml").write_text(configured(tmp_path), encoding="utf-8")
    try:
        async with Children(tmp_path) as children:
            command = [sys.executable, "-m", "gateway", "run", "--config", str(tmp_path / "gateway.toml")]
            await children.start("gateway", command)
            problems = await until_told(tmp_path)
            await children.stop("gateway", grace_s=20.0)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for ledger in ledgers.values():
            ledger.close()
    told = {(one["code"], one["subject"]): one["facts"] for one in problems}
    # Silence, and what nobody can read, are told apart.
    assert told["GW-DEV-01", "twins-1"]["bytes"] >= 4
    assert "bytes" not in told["GW-DEV-01", "silent-1"]
    assert told["GW-SER-09", "jabbers"]["address"] == "000000000001"
    with contextlib.closing(sqlite3.connect(tmp_path / "data/outbox.db")) as store:
        published = values(store.execute("SELECT device, body FROM event_d WHERE noun = 'telemetry.meter'").fetchall())
    meant = given(tmp_path)
    assert {name for name in published if not published[name] <= meant.get(name, set())} == set()
    assert published.keys() == {f"{fault.name}-{n}" for fault in FAULTS for n in (1, 2) if fault.is_read or n == 2}

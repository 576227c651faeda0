"""The air: strangers' adverts at several rates, the real bleak in the gateway, and presses among them.

The limit is a process that does nothing but listen: the same bleak, the same bus, the same adverts at the same time, and
a callback that returns at once. Limits: 10 s a rate; twenty buttons; a bus that a process can hold up holds up both.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from simulator.bench import limits
from simulator.bench.figures import Figure, Spread
from simulator.control_client import NoAnswer, Refused, ask
from simulator.dbus_daemon import dbus_daemon
from simulator.processes import Children
from simulator.scenario import free_ports

RATES_PER_S: Final = (100, 500, 2000)
RUN_S: Final = 10.0
BUTTONS: Final = 20
LEAD_S: Final = 8.0
DRAIN_S: Final = 20.0
_LISTENER: Final = """
import asyncio, os, sys
from bleak import BleakScanner

async def main():
    heard = 0
    def on_advert(device, data):
        nonlocal heard
        heard += 1
    async with BleakScanner(on_advert, bluez={"adapter": "hci0", "filters": {"DuplicateData": True}}):
        while True:
            await asyncio.sleep(0.2)
            with open(sys.argv[1] + "~", "w") as file:
                file.write(str(heard))
            os.replace(sys.argv[1] + "~", sys.argv[1])

asyncio.run(main())
"""


async def measure(run: Path) -> list[Figure]:
    """Measure each rate in a directory of its own below `run`."""
    figures: list[Figure] = []
    for rate in RATES_PER_S:
        folder = run / f"air-{rate}"
        folder.mkdir()
        figures += await _at_rate(folder, rate)
    return figures


async def _at_rate(run: Path, rate: int) -> list[Figure]:
    port = free_ports(["platform"])["platform"]
    devices = [_button(number) for number in range(BUTTONS)]
    config = run / "gateway.toml"
    config.write_text(_config(run, devices, port=port), encoding="utf-8")
    python = [sys.executable, "-m"]
    async with dbus_daemon(run) as address, Children(run) as children:
        bus = {"DBUS_SYSTEM_BUS_ADDRESS": address}
        platform = ["simulator", "platform", "--run", run, "--port", port, "--control", run / "pf.sock"]
        await children.start("platform", [*python, *map(str, platform)])
        start = time.time() + LEAD_S
        (run / "scenario.json").write_text(json.dumps(_scenario(devices, rate=rate, start=start)), encoding="utf-8")
        await children.start("air", [*python, "simulator", "air", "--run", str(run)], env=bus)
        gateway = await children.start("gateway", [*python, "gateway", "run", "--config", str(config)], env=bus)
        await _until(lambda: _hears(run / "gw.sock"), deadline=start)
        count = run / "heard"
        listener = await children.start("listener", [sys.executable, "-c", _LISTENER, str(count)], env=bus)
        await _until(lambda: _heard_any(count), deadline=start)
        await asyncio.sleep(start - time.time())
        before = limits.cpu_s(gateway.pid), limits.cpu_s(listener.pid), _heard(count)
        await asyncio.sleep(RUN_S)
        after = limits.cpu_s(gateway.pid), limits.cpu_s(listener.pid), _heard(count)
        await _drained(run / "gw.sock")
        children.check()
    ours, theirs = (100 * (now - then) / RUN_S for now, then in zip(after[:2], before[:2], strict=True))
    presses = _latencies(run)
    heard = (after[2] - before[2]) / RUN_S
    return [
        Figure(f"CPU of the gateway at {heard:,.0f} adverts/s", ours, "%", theirs, "bleak with an empty callback"),
        Figure(f"  press among them -> accepted, p50 of {len(presses.values)}", presses.at(0.5), "ms"),
        Figure(f"  press among them -> accepted, max of {len(presses.values)}", presses.at(1.0), "ms"),
    ]


def _button(number: int) -> dict[str, Any]:
    address = f"A4:C1:38:00:{number // 256:02X}:{number % 256:02X}"
    name = f"call-{number}"
    return {"id": name, "model": "bthome-button", "link": "air", "address": address, "key": secrets.token_hex(16)}


def _scenario(devices: list[dict[str, Any]], *, rate: int, start: float) -> dict[str, Any]:
    """Each button is pressed once, one after the other, spread over the run."""
    step = (RUN_S - 2.0) / len(devices)
    emissions = [
        {"at_s": round(step * at, 3), "device": one["id"], "kind": "press", "code": "press"}
        for at, one in enumerate(devices)
    ]
    return {"seed": 1, "start": start, "devices": devices, "emissions": emissions, "foreign_per_s": rate}


def _config(run: Path, devices: list[dict[str, Any]], *, port: int) -> str:
    lines = ["[gateway]", 'id = "gw-bench"', 'org = "bench"', 'site = "bench"', f'data_dir = "{run}/data"']
    lines += [f'control_socket = "{run}/gw.sock"', "[[ble]]", 'id = "air"', "[[room]]", 'id = "r1"']
    for one in devices:
        key = run / f"key-{one['id']}"
        key.touch(mode=0o600)
        key.write_text(one["key"], encoding="ascii")
        lines += ["[[device]]", f'id = "{one["id"]}"', 'model = "bthome-button"', 'link = "air"', 'room = "r1"']
        lines += [f'address = "{one["address"]}"', f'key = "file:{key}"']
    lines += ["[[destination]]", 'id = "district"', "reconnect_spread_s = 1", "[[destination.path]]"]
    return "\n".join([*lines, f'url = "mqtt://127.0.0.1:{port}"', ""])


async def _until(condition: Callable[[], Awaitable[bool]], *, deadline: float) -> None:
    """Wait for a condition. Raises TimeoutError when the deadline (wall-clock) is over."""
    while not await condition():
        if time.time() > deadline:
            raise TimeoutError(f"gateway and listener did not hear within {LEAD_S:g} s")
        await asyncio.sleep(0.05)


async def _hears(control: Path) -> bool:
    try:
        status = await ask(control, "status")
    except (NoAnswer, Refused):
        return False
    return all(link["hearing"] for link in status["links"]) and bool(status["destinations"][0]["connected"])


async def _heard_any(count: Path) -> bool:
    return _heard(count) > 0


def _heard(count: Path) -> int:
    """Return how many adverts the listener has heard: 0 before it wrote."""
    return int((count.read_text(encoding="ascii") if count.exists() else "") or 0)


async def _drained(control: Path) -> None:
    async with asyncio.timeout(DRAIN_S):
        while sum((await ask(control, "status"))["destinations"][0]["pending"].values()):
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)  # the platform writes its ledger every 50 ms


def _latencies(run: Path) -> Spread:
    """From the first advert of each press to its acceptance. Raises ValueError when one never came."""
    pressed = {(row["device"], row["counter"]): row["t"] for row in _rows(run / "air.jsonl")}
    accepted: dict[tuple[str, int], float] = {}
    for row in _rows(run / "platform-district.jsonl"):
        if row["type"] == "cn.eldercare.alarm.raised.v1" and row["status"] == "accepted":
            accepted.setdefault((row["device"], row["event"]["data"].get("counter")), row["t"])
    missing = set(pressed) - set(accepted)
    if missing:
        raise ValueError(f"presses that the platform never accepted: {sorted(missing)}")
    return Spread([accepted[key] - at for key, at in pressed.items()])


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

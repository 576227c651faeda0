"""`python -m simulator every-device`: starts the gateway with a device of every kind, uses each once, and counts what is told.

With `--replay` the gateway's own `listen --record` writes down what comes, a second gateway with an empty database gets that
capture from `simulator replay`, and must tell the same. Exit status: 0 each was told exactly once, 1 not, 3 could not run.
Limits: everything must be told within `TELL_S` of the last use, and nothing more for `QUIET_S` after that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simulator.bluez import FakeBluez
from simulator.call_systems import CallSystem
from simulator.control_client import NoAnswer, Refused, ask
from simulator.dbus_daemon import dbus_daemon
from simulator.demo import run_directory
from simulator.every_device import ALARM, Use, say, uses
from simulator.line_devices import LineSource, PtyLinePort
from simulator.platform import District, district
from simulator.processes import Children
from simulator.radars import FallRadar, MicradarRadar
from simulator.receivers import Receiver
from simulator.stage import CannotRun
from simulator.tap_system import TapSystem

CLEAN, UNCLEAN = 0, 1
READY_S: Final = 30.0
TELL_S: Final = 30.0
QUIET_S: Final = 1.5
APART_S: Final = 0.15
FALL_S: Final = 6.0
_PREFIX: Final = "cn.eldercare."


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one device. `took_s`: from its use to the platform, None where nothing came or it was a replay."""

    device: str
    model: str
    told: str
    kind: str
    times: int
    others: int
    verified: bool | None
    took_s: float | None

    @property
    def is_right(self) -> bool:
        """Was it told once, and nothing else raised an alarm?"""
        return self.times == 1 and not self.others


class House:
    """Every device, on the air and on ptys in `run`. `used` says when each was used."""

    def __init__(self, run: Path, all_uses: Sequence[Use], bluez: FakeBluez) -> None:
        self.used: dict[str, float] = {}
        self._uses = all_uses
        self._bluez = bluez
        self._run = run
        self._receivers: dict[str, Receiver] = {}
        self._espa = CallSystem(path=run / "espa-bed", record=_nothing)
        self._tap = TapSystem(path=run / "tap-bed", record=_nothing)
        self._andar = FallRadar(device="andar-radar", path=run / "andar-radar", seed=1, record=_nothing)
        self._micradar = MicradarRadar(device="micradar", path=run / "micradar", seed=1, record=_nothing)
        self._board = LineSource(device="json-board", address="b1", session="every", record=_nothing)
        self._board_port = PtyLinePort(path=run / "json-board", baud=115200, source=self._board)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Let the ptys be there while entered."""
        for one in self._uses:
            if one.frames:
                is_sonoff = one.model == "sonoff-rf-bridge"
                self._receivers[one.device] = Receiver(path=self._run / one.device, baud=one.baud, is_sonoff=is_sonoff)
        works = [one.run() for one in self._receivers.values()]
        works += [self._espa.run(), self._tap.run(), self._andar.run(), self._micradar.run()]
        works += [self._board.run(), self._board_port.run()]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result

    async def use_all(self) -> None:
        """Use each device once, one shortly after the other."""
        async with asyncio.TaskGroup() as group:
            for one in self._uses:
                group.create_task(self._use(one), name=f"use {one.device}")
                await asyncio.sleep(APART_S)

    async def _use(self, one: Use) -> None:
        self.used[one.device] = time.time()
        if one.is_air:
            await say(one, self._bluez.hear)
        elif one.frames:
            await self._receivers[one.device].say_all(one.frames)
        elif one.system == "espa444":
            self._espa.call(one.device, one.address)
        elif one.system == "tap":
            self._tap.call(one.device, one.address)
        elif one.system == "json-lines":
            self._board.emit({"call": 1})
        else:
            radar = self._andar if one.system == "andar-radar" else self._micradar
            radar.fall(FALL_S)


def _nothing(_row: Mapping[str, Any]) -> None:
    """Take a row of a ledger: what was used, and when, is known already."""


def config(run: Path, all_uses: Sequence[Use], *, port: int) -> str:
    """Return the gateway's configuration."""
    lines = ["[gateway]", 'id = "gw"', 'org = "org"', 'site = "every-device"', f'data_dir = "{run}/data"']
    lines += [f'control_socket = "{run}/gw.sock"', "[[ble]]", 'id = "air"', "[[room]]", 'id = "r1"']
    for one in all_uses:
        if not one.is_air:
            lines += ["[[serial]]", f'id = "{one.device}"', f'port = "{run / one.device}"', f"baud = {one.baud}"]
            lines += ["bits = 8", 'parity = "N"', "stop = 1"]  # a pty cannot be opened a second time with parity
        lines += ["[[device]]", f'id = "{one.device}"', f'model = "{one.model}"', 'room = "r1"']
        lines.append(f'link = "{"air" if one.is_air else one.device}"')
        lines += [f"address = {json.dumps(one.address)}"] * bool(one.address)
        if one.key is not None:
            secret = run / f"key-{one.device}"
            secret.touch(mode=0o600)
            secret.write_text(one.key.hex(), encoding="ascii")
            lines.append(f'key = "file:{secret}"')
        elif one.is_air:
            lines.append("allow_plain = true")
        if one.map:
            lines.append(f"map = {_toml(one.map)}")
    lines += ["[[destination]]", 'id = "district"', "reconnect_spread_s = 0", "[[destination.path]]"]
    return "\n".join([*lines, f'url = "mqtt://127.0.0.1:{port}"', ""])


def _toml(value: object) -> str:
    """Write a table of a device's `map`, inline."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)


async def live(run: Path, *, record: bool) -> list[Told]:
    """Use every device in `run`; with `record` what came is kept in run/capture.jsonl. CannotRun, DbusDaemonError."""
    all_uses = uses()
    async with dbus_daemon(run) as address, district(run) as platform, Children(run) as children:
        bluez = FakeBluez(address)
        bluez.add_adapter()
        await bluez.start()
        house = House(run, all_uses, bluez)
        try:
            async with house.open():
                await _start(run, all_uses, children, address=address, platform=platform)
                if record:
                    await _listen(run, children)
                await house.use_all()
                await _told(run, all_uses)
                await children.stop("listen")
                await children.stop("gateway", grace_s=20.0)
        finally:
            await bluez.stop()
    return count(run, all_uses, house.used)


async def again(run: Path, capture: Path) -> list[Told]:
    """Let a new gateway in `run` hear a capture."""
    all_uses = uses()
    async with dbus_daemon(run) as address, district(run) as platform, Children(run) as children:
        command = [sys.executable, "-m", "simulator", "replay", str(capture), "--run", str(run)]
        await children.start("replay", command, env={"DBUS_SYSTEM_BUS_ADDRESS": address})
        await _start(run, all_uses, children, address=address, platform=platform)
        await _told(run, all_uses)
        await children.stop("gateway", grace_s=20.0)
        await children.stop("replay")
    return count(run, all_uses, {})


async def _start(run: Path, all_uses: Sequence[Use], children: Children, *, address: str, platform: District) -> None:
    """Start the gateway; return when every link hears."""
    path = run / "gateway.toml"
    path.write_text(config(run, all_uses, port=platform.port), encoding="utf-8")
    command = [sys.executable, "-m", "gateway", "run", "--config", str(path)]
    await children.start("gateway", command, env={"DBUS_SYSTEM_BUS_ADDRESS": address})
    links = 1 + sum(not one.is_air for one in all_uses)
    deaf: list[str] = ["the gateway does not answer"]
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        children.check()
        with contextlib.suppress(NoAnswer, Refused):
            status = await ask(run / "gw.sock", "status")
            deaf = [one["id"] for one in status["links"] if not one["hearing"]]
            if len(status["links"]) == links and not deaf and status["destinations"][0]["connected"]:
                return
        await asyncio.sleep(0.1)
    raise CannotRun(f"the gateway was not ready within {READY_S:g} s: {', '.join(deaf)}")


async def _listen(run: Path, children: Children) -> None:
    """Let the gateway's own command write down what comes."""
    command = [sys.executable, "-m", "gateway", "listen", "--known", "--record", str(run / "capture.jsonl")]
    listener = await children.start("listen", [*command, "--config", str(run / "gateway.toml")])
    async with asyncio.timeout(READY_S):
        while not (run / "capture.jsonl").exists() or not (run / "capture.jsonl").stat().st_size:
            children.check()
            await asyncio.sleep(0.1)  # a radar reports all the time: its first line says that it listens
    listener.expected = True


async def _told(run: Path, all_uses: Sequence[Use]) -> None:
    """Return when everything was told, or its time is over, and nothing more came for a while."""
    end = time.monotonic() + TELL_S
    while time.monotonic() < end and any(one.times < 1 for one in count(run, all_uses, {})):
        await asyncio.sleep(0.2)
    await asyncio.sleep(QUIET_S)


def count(run: Path, all_uses: Sequence[Use], used: Mapping[str, float]) -> list[Told]:
    """Read at the platform what came of each device."""
    rows: dict[str, list[dict[str, Any]]] = {}
    ledger = run / "platform-district.jsonl"
    with contextlib.suppress(FileNotFoundError), ledger.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                row = json.loads(line)
                if row["status"] == "accepted":
                    rows.setdefault(row["device"], []).append(row)
    return [_count(one, rows.get(one.device, []), used.get(one.device)) for one in all_uses]


def _count(one: Use, rows: Sequence[Mapping[str, Any]], used: float | None) -> Told:
    mine, alarms = [], 0
    for row in rows:
        data = row["event"]["data"]
        noun = row["type"].removeprefix(_PREFIX).removesuffix(".v1")
        is_on = data.get("state") != "off" and data.get("occupied") in (None, one.kind == "occupancy")
        if (noun, data.get("kind")) == (one.told, one.kind) and is_on:
            mine.append(row)
        elif noun == ALARM:
            alarms += 1
    took = None if not mine or used is None else round(float(mine[0]["t"]) - used, 3)
    verified = mine[0]["event"]["data"].get("verified") if mine else None
    return Told(one.device, one.model, one.told, one.kind, len(mine), alarms, verified, took)


def table(found: Sequence[Told], again_found: Sequence[Told]) -> str:
    """Return the table as text."""
    lines = [("device", "model", "told", "kind", "times", "verified", "took s", "replayed")]
    replayed = {one.device: one for one in again_found}
    for one in found:
        other = replayed.get(one.device)
        verified = "-" if one.verified is None else "yes" if one.verified else "no"
        took = "-" if one.took_s is None else f"{one.took_s:.2f}"
        cells = (one.device, one.model, one.told, one.kind, str(one.times) + "!" * bool(one.others), verified, took)
        lines.append((*cells, "-" if other is None else str(other.times) + "!" * bool(other.others)))
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `simulator every-device`."""
    parser.add_argument("--replay", action="store_true", help="record it, and let a second gateway hear the capture")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the rows to FILE, as JSON")


def main(options: argparse.Namespace) -> int:
    """Use every device, print the table, and return the exit status. Raises what `live` raises."""
    folders = [run_directory() for _ in range(1 + options.replay)]
    wrong = True
    try:
        found = asyncio.run(live(folders[0], record=options.replay))
        replayed = asyncio.run(again(folders[1], folders[0] / "capture.jsonl")) if options.replay else []
        wrong = any(not one.is_right for one in (*found, *replayed))
    finally:
        for folder in folders:
            if wrong:
                print(f"the run is kept in {folder}", file=sys.stderr)
            else:
                shutil.rmtree(folder, ignore_errors=True)
    print(table(found, replayed))
    right = sum(one.is_right for one in found)
    words = f", {sum(one.is_right for one in replayed)} when replayed" if options.replay else ""
    print(f"\n{len(found)} devices, {right} told exactly once{words}")
    if options.report is not None:
        rows = {"live": [_row(one) for one in found], "replayed": [_row(one) for one in replayed]}
        options.report.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return UNCLEAN if wrong else CLEAN


def _row(one: Told) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Told.__slots__}

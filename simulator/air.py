"""The air of a run: buttons that are pressed, pendants that fall, their signs of life, and the chatter of strangers.

Plays the radio part of DIR/scenario.json over a pretended bluetoothd and writes down in DIR/air.jsonl what each device
really did, at its first advert. A press is about 6 adverts of one payload within 1.2 s, a fall an advert in 0.4 s while
the bit is high, with low ones after it; a switch that is let go says so. RSSI varies with each advert. One device does
one thing at a time: what is due meanwhile comes later, and the ledger has the true time. The faults ble-off, ble-on,
ble-unplug, ble-plug and ble-deaf (until the scan is started anew) break the radio.
Limits: 200 devices; an emission that is more than 5 s late when the process starts is left out and said so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from simulator.ble_devices import BUTTON_CODES, BleDevice, BthomeButton, IngicsPendant, Payload
from simulator.ble_mibeacon import MIBEACON_CODES, MibeaconButton
from simulator.ble_tags import BEACON_CODES, MOKO_CODES, BeaconTag, EnoceanSwitch, MokoButton
from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.bluez_wire import BluezError

BUS_VARIABLE: Final = "DBUS_SYSTEM_BUS_ADDRESS"
DEFAULT_FOREIGN_PER_S: Final = 20.0
_MODELS: Final = ("bthome-button", "ingics-ibs", "enocean-ptm", "beacon-button", "moko-tag", "xiaomi-mibeacon")
_MAX_DEVICES: Final = 200
_LATE_S: Final = 5.0
_PRESS_S: Final = 1.2
_PRESS_STEP_S: Final = 0.24
_FALL_S: Final = 6.0
_FALL_STEP_S: Final = 0.4
_LOW_ADVERTS: Final = 5
_CLEAR_S: Final = 1.0  # no sign of life so shortly before something happens
_HEARTBEAT_S: Final = {"bthome-button": 20.0, "ingics-ibs": 4.0, "beacon-button": 1.28, "moko-tag": 10.0}
_STRANGERS: Final = 60
_CODES: Final[Mapping[type[BleDevice], Mapping[str, int]]] = {
    BthomeButton: BUTTON_CODES, BeaconTag: BEACON_CODES, MokoButton: MOKO_CODES,
    MibeaconButton: MIBEACON_CODES,
}  # fmt: skip


class AirError(Exception):
    """The air cannot be played: the message names what does not fit."""


class Air:
    """The devices of one scenario over one pretended bluetoothd. `scenario` is the content of scenario.json."""

    def __init__(self, run: Path, scenario: Mapping[str, Any], *, bluez: FakeBluez) -> None:
        self._run = run
        self._bluez = bluez
        self._rng = random.Random(int(scenario.get("seed", 0)))  # noqa: S311 - a rehearsal that can be repeated
        self._begin = asyncio.get_running_loop().time() + float(scenario["start"]) - time.time()
        self._foreign_per_s = float(scenario.get("foreign_per_s", DEFAULT_FOREIGN_PER_S))
        self._heartbeat_s: float | None = scenario.get("heartbeat_s")
        self._faults = scenario.get("faults", ())
        entries = [entry for entry in scenario["devices"] if entry.get("model") in _MODELS]
        if len(entries) > _MAX_DEVICES:
            raise AirError(f"{len(entries)} devices on the air: at most {_MAX_DEVICES}")
        self._entries = {str(entry["id"]): entry for entry in entries}
        self._devices = {name: _device(entry, rng=self._rng) for name, entry in self._entries.items()}
        self._emissions: dict[str, deque[Mapping[str, Any]]] = {name: deque() for name in self._entries}
        for emission in sorted(scenario["emissions"], key=lambda one: float(one["at_s"])):
            if emission["device"] in self._devices:
                _check(emission, self._devices[emission["device"]])
                self._emissions[emission["device"]].append(emission)

    async def play(self) -> None:
        """Play until cancelled. BluezError when the bus ends under it."""
        with (self._run / "air.jsonl").open("a", encoding="utf-8") as ledger:

            def note(line: Mapping[str, Any]) -> None:
                ledger.write(json.dumps(line) + "\n")
                ledger.flush()

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._live(name, note), name=f"air-{name}") for name in self._devices]
                tasks.append(group.create_task(self._chatter(), name="air-strangers"))
                tasks.append(group.create_task(self._break(), name="air-faults"))
                await self._bluez.wait_lost()
                for task in tasks:
                    task.cancel()
        raise BluezError("the D-Bus connection of the air has ended")

    async def _live(self, name: str, note: Callable[[Mapping[str, Any]], None]) -> None:
        """Play one device for ever: what it does, in order, and signs of life between."""
        loop = asyncio.get_running_loop()
        rng = random.Random(f"{name} {self._rng.random()}")  # noqa: S311 - as above
        device, pending = self._devices[name], self._emissions[name]
        late = 0
        while pending and self._begin + pending[0]["at_s"] < loop.time() - _LATE_S:
            pending.popleft()
            late += 1
        if late:
            print(f"air: {name}: {late} emissions left out, their time was over", file=sys.stderr)
        own_s = _HEARTBEAT_S.get(self._entries[name]["model"])
        every_s = math.inf if own_s is None else self._heartbeat_s or own_s
        rssi = rng.uniform(-80, -50)
        beat = math.inf if own_s is None else loop.time() + rng.uniform(0.0, every_s)
        while True:
            due = self._begin + pending[0]["at_s"] if pending else math.inf
            if beat < due - _CLEAR_S:
                await asyncio.sleep(beat - loop.time())
                sign = device.heartbeat()
                if sign is not None:
                    await self._repeat(device, sign, offsets=(0.0, 0.1), rssi=rssi, rng=rng)
                beat = loop.time() + every_s * rng.uniform(0.8, 1.2)
            else:
                await asyncio.sleep(due - loop.time())
                await self._emit(pending.popleft(), device, note=note, rssi=rssi, rng=rng)
                beat = max(beat, loop.time() + _CLEAR_S)

    async def _emit(
        self,
        emission: Mapping[str, Any],
        device: BleDevice,
        *,
        note: Callable[[Mapping[str, Any]], None],
        rssi: float,
        rng: random.Random,
    ) -> None:
        """Do one thing, repeats and all; it stands in the ledger before its first advert goes out."""
        kind = emission["kind"]
        if kind == "fall" and isinstance(device, IngicsPendant):
            payload, value = device.fall(), None
            offsets = _offsets(float(emission.get("for_s") or _FALL_S), step_s=_FALL_STEP_S, rng=rng)
        else:
            code = str(emission.get("code", "press"))
            payload, value = device.press(code), {"code": code}
            offsets = _offsets(float(emission.get("for_s") or _PRESS_S), step_s=_PRESS_STEP_S, rng=rng)
        now = time.time()
        note(
            {
                "t": round(now, 6),
                "t_last": round(now + offsets[-1], 6),
                "device": emission["device"],
                "kind": kind,
                "counter": payload.counter,
                "n": None,
                "session": None,
                "value": value,
            }
        )
        await self._repeat(device, payload, offsets=offsets, rssi=rssi, rng=rng)
        if isinstance(device, IngicsPendant):
            low = _offsets(_LOW_ADVERTS * _FALL_STEP_S, step_s=_FALL_STEP_S, rng=rng)
            await asyncio.sleep(_FALL_STEP_S)
            await self._repeat(device, device.heartbeat(), offsets=low, rssi=rssi, rng=rng)
        elif isinstance(device, EnoceanSwitch):
            await self._repeat(device, device.release(), offsets=(0.0, 0.02, 0.04), rssi=rssi, rng=rng)

    async def _repeat(
        self, device: BleDevice, payload: Payload, *, offsets: Sequence[float], rssi: float, rng: random.Random
    ) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for offset in offsets:
            if offset > 0:  # the first advert goes out at once: what stands in the ledger was on the air
                await asyncio.sleep(begin + offset - loop.time())
            strength = min(-20, max(-100, round(rng.gauss(rssi, 3.0))))
            self._bluez.hear(
                Report(device.address, strength, payload.name, payload.service_data, payload.manufacturer_data)
            )

    async def _chatter(self) -> None:
        """Let strangers talk, at `foreign_per_s` on average, as in a building full of telephones and lamps."""
        if self._foreign_per_s <= 0:
            return
        loop = asyncio.get_running_loop()
        rng = random.Random(self._rng.random())  # noqa: S311 - as above
        strangers = [_stranger(rng) for _ in range(_STRANGERS)]
        due = loop.time()
        while True:
            due += rng.expovariate(self._foreign_per_s)
            await asyncio.sleep(due - loop.time())
            seat = rng.randrange(_STRANGERS)
            if rng.random() < 0.01:  # telephones change their address every few minutes
                strangers[seat] = _stranger(rng)
            address, company = strangers[seat]
            data = bytes((0x10, 0x05)) + rng.randbytes(6)
            self._bluez.hear(Report(address, rng.randint(-98, -45), manufacturer_data={company: data}))

    async def _break(self) -> None:
        """Do the radio's own part of the faults; each stands in DIR/faults.jsonl."""
        loop = asyncio.get_running_loop()
        acts: dict[str, Callable[[], None]] = {
            "ble-off": lambda: self._bluez.power(on=False),
            "ble-on": lambda: self._bluez.power(on=True),
            "ble-unplug": self._bluez.remove_adapter,
            "ble-plug": self._bluez.add_adapter,
            "ble-deaf": self._bluez.wedge,
        }
        for fault in sorted(self._faults, key=lambda one: float(one["at_s"])):
            if fault["fault"] not in acts:
                continue
            await asyncio.sleep(self._begin + float(fault["at_s"]) - loop.time())
            acts[fault["fault"]]()
            line = json.dumps({"t": round(time.time(), 6), "fault": fault["fault"]}) + "\n"
            # Several processes write this file: a line that is appended in one write stays whole.
            with (self._run / "faults.jsonl").open("a", encoding="utf-8") as ledger:
                ledger.write(line)


def _device(entry: Mapping[str, Any], *, rng: random.Random) -> BleDevice:
    address = str(entry["address"]).upper()
    try:
        if entry["model"] == "ingics-ibs":
            return IngicsPendant(address, variant=str(entry.get("map", {}).get("variant", "ibs03g")))
        if entry["model"] == "beacon-button":
            return BeaconTag.of(address, entry.get("map", {}))
        if entry["model"] == "moko-tag":
            return MokoButton(address, presses=rng.randrange(1 << 15))
        key = bytes.fromhex(entry["key"]) if entry.get("key") else None
        if entry["model"] == "enocean-ptm":
            # As below: a sequence must not go back when the air is started anew.
            return EnoceanSwitch(address, key=key or bytes(16), sequence=int(time.time()))
        if entry["model"] == "xiaomi-mibeacon":
            return MibeaconButton(address, key=key or bytes(16), counter=int(time.time()))
    except ValueError as error:
        raise AirError(f"device {entry['id']}: {error}") from error
    # A counter of 32 bits must not go back when the air is started anew: the time serves as its beginning.
    counter = rng.randrange(256) if key is None else int(time.time())
    return BthomeButton(address, key=key, counter=counter, name="SBBT-002C")


def _check(emission: Mapping[str, Any], device: BleDevice) -> None:
    """Refuse what a device cannot do before the run begins, not in its middle."""
    kind, code = emission["kind"], emission.get("code", "press")
    codes = tuple(_CODES.get(type(device), ("press",)))
    fits = code in codes if kind == "press" else kind == "fall" and isinstance(device, IngicsPendant)
    if not fits:
        raise AirError(f"emission at {emission['at_s']} s: {emission['device']} cannot do {kind} {code}")


def _offsets(for_s: float, *, step_s: float, rng: random.Random) -> tuple[float, ...]:
    """Return when the adverts of one message go out, in seconds after its first: every `step_s`, jittered."""
    count = max(1, round(for_s / step_s))
    return (0.0, *(step_s * (turn + rng.uniform(-0.3, 0.0)) for turn in range(1, count + 1)))


def _stranger(rng: random.Random) -> tuple[str, int]:
    address = ":".join(f"{byte:02X}" for byte in (0x40 | rng.randrange(64), *rng.randbytes(5)))
    return address, rng.choice((0x004C, 0x0006, 0x0075, 0x00E0))


async def play_air(run: Path, scenario: Mapping[str, Any], *, bluez: FakeBluez) -> None:
    """Play the radio part of a scenario until cancelled.

    AirError when the scenario does not fit, BluezError when the bus ends.
    """
    try:
        air = Air(run, scenario, bluez=bluez)
    except KeyError as error:
        raise AirError(f"scenario.json: {error.args[0]} is missing") from error
    await air.play()


async def main(run: Path) -> None:
    """Own org.bluez on the private bus and play DIR's scenario until SIGTERM or SIGINT."""
    address = os.environ.get(BUS_VARIABLE)
    if not address:
        raise AirError(f"{BUS_VARIABLE} is not set: the air wants a private bus, never the machine's own")
    try:
        scenario = json.loads((run / "scenario.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AirError(f"{run / 'scenario.json'}: {error}") from error
    bluez = FakeBluez(address)
    bluez.add_adapter()
    await bluez.start()
    playing = asyncio.create_task(play_air(run, scenario, bluez=bluez), name="air")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, playing.cancel)
    try:
        await asyncio.wait({playing})
        if not playing.cancelled():
            await playing
    finally:
        playing.cancel()
        await asyncio.wait({playing})
        await bluez.stop()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `python -m simulator air`."""
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="directory of the run (scenario.json)")

"""The wires of a centre: the RS-485 bus with its meters on a pty, radars on ptys, and controllers on TCP.

Plays its part of DIR/scenario.json from `start` on, until it is told to end (SIGTERM, SIGINT): devices with the role
"meter" answer on DIR/`links.bus.path`, as their model says; devices with the role "controller" serve a TCP port each and
emit what stands in `emissions` under their id with the kind "line"; devices with the role "radar" report on DIR/`path`
(tty-ID unless they have one), as their model does, and see the emissions of the kind "fall"; devices with the role "bed" are
beds of the nurse-call system on DIR/tty-LINK, and call by the emissions of the kind "bed"; devices with the role "push-meter"
speak by themselves on DIR/`path`, as their model does (p1-port, sml-meter), encrypted with their "key".

Writes DIR/bus.jsonl (each register of each reply that went whole to one holder of the port) and DIR/lines.jsonl (each
line at its birth and at its acknowledgement, each fall at its beginning).

Beside what `scenario` writes, a meter may have "kw" (its load), "phases", "baud" and "parity" (its own) and "faults" (see
`meters.Quirks`), a radar "faults" (see `radars.RadarQuirks`), and `links.bus` may have "echo": true, and instead of "path" a
TCP port "rfc2217" and a "parity": then a serial server stands before the bus, which knows parity; a pty knows none.

Limits: 8 replies of a bus under way at once, a request beyond them is not answered. An emission whose time has passed
is made up for at once.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, TextIO

from simulator.call_systems import CallQuirks, CallSystem
from simulator.com_port_server import ComPortServer
from simulator.line_devices import FIELD_NAMES, LineSource, TcpPort
from simulator.line_meters import ChintMeter, HeatMeter, LineReader, ModbusMeter, WaterMeter
from simulator.meters import Answer, Meter, Quirks, Request, frame
from simulator.meters_698 import Meter698
from simulator.meters_1997 import Meter1997
from simulator.pty_port import PtyPort
from simulator.push_meters import PushMeter
from simulator.radars import FallRadar, MicradarRadar, RadarQuirks
from simulator.scenario import load
from simulator.uart import Framing, arriving, noise

REPLIES_AT_ONCE: Final = 8
BYTE_GAP_S: Final = 0.5
JABBER_S: Final = 0.002
STRANGER: Final = bytes.fromhex("999999999998")
CONTROL_AT: Final = 8


class Ledger:
    """A file of JSON lines, flushed line by line: what stands in it happened."""

    def __init__(self, path: Path) -> None:
        """Open the file for appending."""
        self._file: TextIO = path.open("a", encoding="utf-8", buffering=1)

    def record(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        self._file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its reply as they took the wires: bytes each way, and for how long the meter thought (s)."""

    device: str
    asked_bytes: int
    thought_s: float
    reply_bytes: int
    ended_at: float


class MeterBus:
    """Meters that share two wires. Two that answer at once garble each other, as on the real ones.

    A meter has the speed and parity of the bus or its own; what is sent at another speed is noise to it, and so is another
    parity where the master is a serial server: a pty knows none. `on_exchange` is told of each reply that went whole to one
    holder, with the moment of the monotonic clock at which its last bit had passed.
    """

    def __init__(
        self, *, path: Path | ComPortServer, baud: int, meters: Sequence[Meter], ledger: Ledger, echo: bool = False,
        bits_per_byte: int = 10, parity: str = "N", on_exchange: Callable[[Exchange], None] | None = None,
    ) -> None:  # fmt: skip
        """Put meters on a pty with the name `path`, or behind a serial server. `echo`: the adapter hears what it sends."""
        self._own = Framing(baud, parity=parity)
        self._readers = {self._framing(one): LineReader() for one in meters} or {self._own: LineReader()}
        # An adapter's echo is its own: it comes back clean at whatever speed it is set to.
        self._follows = echo or {one.baud for one in self._readers} != {baud}
        self.port: PtyPort | ComPortServer
        if isinstance(path, ComPortServer):
            self.port = path
            path.on_data = self._heard
        else:
            self.port = PtyPort(
                path=path, baud=baud, on_data=self._heard, bits_per_byte=bits_per_byte, follows=self._follows
            )  # fmt: skip
        self._on_exchange = on_exchange
        self._asked_bytes = 0
        self._is_jabbered = False
        self._meters = meters
        self._ledger = ledger
        self._echo = echo
        self._heard_at = 0.0
        self._replies: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            await self.port.run()
        finally:
            for reply in list(self._replies):
                reply.cancel()

    def _heard(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._heard_at > BYTE_GAP_S:
            for reader in self._readers.values():
                reader.forget()
        self._heard_at = now
        self._asked_bytes += len(data)
        if self._echo:
            self._begin(self._send_echo(data))
        for framing, reader in self._readers.items():
            for request in reader.feed(self._arriving(data, framing)):
                self._answer(request, framing)
                self._asked_bytes = 0

    def _arriving(self, data: bytes, framing: Framing) -> bytes:
        """Return what a meter reads of what the master sends."""
        port = self.port
        if isinstance(port, ComPortServer):
            return arriving(data, sent=port.framing, heard=framing)
        return noise(data) if self._follows and framing.baud != port.speed else data

    async def _send(self, data: bytes, framing: Framing) -> bool:
        """Let a meter speak; True when all of it went to one holder of the port who had set it as the meter has."""
        port = self.port
        if not isinstance(port, ComPortServer):
            return await port.send(data, baud=framing.baud)
        return await port.send(data, framing=framing) and port.framing == framing

    def _framing(self, meter: Meter) -> Framing:
        own = self._own
        return Framing(meter.baud or own.baud, own.bits, meter.parity or own.parity, own.stop)

    def _answer(self, request: Request, framing: Framing) -> None:
        now = time.time()
        here = [meter for meter in self._meters if self._framing(meter) == framing]
        answers = [(meter, answer) for meter in here if (answer := self._reply_of(meter, request, now=now))]
        if len(answers) == 1:
            self._begin(self._reply(*answers[0], asked_bytes=self._asked_bytes))
        elif answers:
            self._begin(self._collide([answer.frame for _, answer in answers], framing))

    def _reply_of(self, meter: Meter, request: Request, *, now: float) -> Answer | None:
        if meter.quirks.silent or (meter.quirks.answers < 1 and meter.random.random() >= meter.quirks.answers):
            return None
        return meter.answer(request, now=now)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._replies) >= REPLIES_AT_ONCE:
            work.close()
            return
        task = asyncio.create_task(work, name="meter reply")
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    async def _send_echo(self, data: bytes) -> None:
        port = self.port
        await self._send(data, port.framing if isinstance(port, ComPortServer) else Framing(port.speed))

    async def _reply(self, meter: Meter, answer: Answer, *, asked_bytes: int) -> None:
        thought_s = meter.delay_s()
        await asyncio.sleep(thought_s)
        framing = self._framing(meter)
        if meter.quirks.foreign and len(answer.frame) > CONTROL_AT:
            await self._send(frame(STRANGER, answer.frame[CONTROL_AT], answer.data), framing)
        wire = meter.preamble + answer.frame
        if meter.quirks.stray:
            wire = b"\x00\xff\x00" + wire + b"\xff\x00"
        is_garbled = meter.random.random() < meter.quirks.garbled
        if is_garbled:
            at = meter.random.randrange(len(wire))
            wire = wire[:at] + bytes([wire[at] ^ 0x20]) + wire[at + 1 :]
        if meter.quirks.jabbers:
            self._begin(self._jabber(wire, framing))
        if not await self._send(wire, framing):
            return
        if self._on_exchange is not None:
            ended_at = asyncio.get_running_loop().time()
            self._on_exchange(Exchange(meter.device, asked_bytes, thought_s, len(wire), ended_at))
        if not answer.values or is_garbled:
            return
        meter.replies += 1
        now = time.time()
        for value in answer.values:
            if value.number is not None:
                row = {"t": now, "t_last": now, "device": meter.device, "kind": "poll", "counter": meter.replies}
                told = {"quantity": value.quantity, "channel": value.channel, "value": value.text()}
                self._ledger.record({**row, "n": None, "session": None, "value": told})

    async def _jabber(self, wire: bytes, framing: Framing) -> None:
        if not self._is_jabbered:
            self._is_jabbered = True
            while True:
                await asyncio.sleep(JABBER_S)
                await self._send(wire, framing)

    async def _collide(self, frames: Sequence[bytes], framing: Framing) -> None:
        await asyncio.sleep(0.02)
        columns = zip_longest(*frames, fillvalue=0xFF)
        await self._send(bytes(_dominant(column) for column in columns), framing)


def _dominant(column: Sequence[int]) -> int:
    """What a receiver reads while several drive the wires: the zeros win."""
    level = 0xFF
    for byte in column:
        level &= byte
    return level


class BusError(Exception):
    """The scenario asks for wires that cannot be laid: the message says which and why."""


async def main(run: Path) -> None:
    """Play the meters and controllers of a run until SIGTERM or SIGINT. Raises BusError."""
    scenario = load(run)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    replies, lines = Ledger(run / "bus.jsonl"), Ledger(run / "lines.jsonl")
    try:
        bus = meter_bus(run, scenario, replies)
        sources = line_sources(scenario, lines)
        radars = fall_radars(run, scenario, lines)
        pushing = push_meters(run, scenario, replies)
        systems = call_systems(run, scenario, lines)
        ports = [TcpPort(port=port, source=source) for port, source in sources]
        for port in ports:
            await _listen(port)
        async with asyncio.TaskGroup() as group:
            works = [bus.run()] if bus is not None else []
            works += [port.run() for port in ports] + [source.run() for _, source in sources]
            works += [radar.run() for radar in radars]
            works += [meter.run() for meter in pushing]
            works.append(play(scenario, {source.device: source for _, source in sources}))
            works += [play_falls(scenario, radar) for radar in radars]
            works += [system.run() for system in systems.values()]
            works += [play_calls(scenario, link, system) for link, system in systems.items()]
            tasks = [group.create_task(work) for work in works]
            await stop.wait()
            for task in tasks:
                task.cancel()
    finally:
        replies.close()
        lines.close()


def meter_bus(run: Path, scenario: Mapping[str, Any], ledger: Ledger) -> MeterBus | None:
    """Lay the bus of a scenario; None when it has none. Raises BusError."""
    link = scenario.get("links", {}).get("bus")
    if link is None:
        return None
    meters = [_meter(device, scenario) for device in scenario["devices"] if device.get("role") == "meter"]
    where = ComPortServer(port=int(link["rfc2217"])) if "rfc2217" in link else run / str(link["path"])
    return MeterBus(
        path=where, baud=int(link["baud"]), parity=str(link.get("parity", "N")), meters=meters, ledger=ledger,
        echo=bool(link.get("echo", False)),
    )  # fmt: skip


def push_meters(run: Path, scenario: Mapping[str, Any], ledger: Ledger) -> list[PushMeter]:
    """Make the meters of a scenario that speak by themselves, each on a pty of its own. Raises BusError."""
    try:
        return [
            PushMeter(
                path=run / str(device.get("path") or f"tty-{device['id']}"),
                record=ledger.record,
                model=str(device["model"]),
                key=bytes.fromhex(device["key"]) if "key" in device else None,
                device=device["id"],
                seed=scenario["seed"],
                start=scenario["start"],
                kw=device.get("kw"),
                phases=device.get("phases", 3),
                quirks=Quirks(**device.get("faults", {})),
            )
            for device in scenario["devices"]
            if device.get("role") == "push-meter"
        ]
    except (TypeError, ValueError) as error:
        raise BusError(f"a meter: {error}") from error


def line_sources(scenario: Mapping[str, Any], ledger: Ledger) -> list[tuple[int, LineSource]]:
    """Make the controllers of a scenario, each with its TCP port."""
    session = secrets.token_hex(4)
    found = []
    for device in scenario["devices"]:
        if device.get("role") == "controller":
            names = {key: str(name) for key, name in device.get("map", {}).items() if key in FIELD_NAMES}
            source = LineSource(
                device=device["id"],
                address=device.get("address", ""),
                session=session,
                record=ledger.record,
                names=names,
            )
            found.append((int(device["port"]), source))
    return found


async def play(scenario: Mapping[str, Any], sources: Mapping[str, LineSource]) -> None:
    """Let each line happen at its time; returns after the last."""
    for emission in sorted(scenario["emissions"], key=lambda one: float(one["at_s"])):
        source = sources.get(emission["device"])
        if source is None or emission["kind"] != "line":
            continue
        await asyncio.sleep(max(0.0, scenario["start"] + emission["at_s"] - time.time()))
        source.emit(emission["value"])


def fall_radars(run: Path, scenario: Mapping[str, Any], ledger: Ledger) -> list[FallRadar]:
    """Make the radars of a scenario. Raises BusError."""
    try:
        return [
            (MicradarRadar if device.get("model") == "micradar" else FallRadar)(
                device=device["id"],
                path=run / str(device.get("path") or f"tty-{device['id']}"),
                seed=scenario["seed"],
                record=ledger.record,
                quirks=RadarQuirks(**device.get("faults", {})),
            )
            for device in scenario["devices"]
            if device.get("role") == "radar"
        ]
    except TypeError as error:
        raise BusError(f"a radar: {error}") from error


async def play_falls(scenario: Mapping[str, Any], radar: FallRadar) -> None:
    """Let each fall before one radar happen at its time; returns after the last."""
    for emission in sorted(scenario["emissions"], key=lambda one: float(one["at_s"])):
        if emission["device"] == radar.device and emission["kind"] == "fall":
            await asyncio.sleep(max(0.0, scenario["start"] + emission["at_s"] - time.time()))
            radar.fall(float(emission["for_s"]))


def call_systems(run: Path, scenario: Mapping[str, Any], ledger: Ledger) -> dict[str, CallSystem]:
    """Make the nurse-call systems of a scenario, one for each link that beds share. Raises BusError."""
    found: dict[str, CallSystem] = {}
    try:
        for device in scenario["devices"]:
            if device.get("role") == "bed" and device["link"] not in found:
                quirks = CallQuirks(**device.get("faults", {}))
                path = run / f"tty-{device['link']}"
                found[device["link"]] = CallSystem(path=path, record=ledger.record, quirks=quirks)
    except TypeError as error:
        raise BusError(f"a call system: {error}") from error
    return found


async def play_calls(scenario: Mapping[str, Any], link: str, system: CallSystem) -> None:
    """Let each bed of one call system call at its time; returns after the last."""
    beds = {one["id"]: one["address"] for one in scenario["devices"] if one["link"] == link and one["role"] == "bed"}
    for emission in sorted(scenario["emissions"], key=lambda one: float(one["at_s"])):
        if emission["device"] in beds:
            await asyncio.sleep(max(0.0, scenario["start"] + emission["at_s"] - time.time()))
            system.call(emission["device"], beds[emission["device"]])


_MODELS: Final[Mapping[str, type[Meter]]] = {
    "dlt645-1997": Meter1997,
    "dlt698-45": Meter698,
    "cjt188": WaterMeter,
    "mbus": HeatMeter,
    "modbus-meter": ModbusMeter,
}


def _meter(device: Mapping[str, Any], scenario: Mapping[str, Any]) -> Meter:
    try:
        make = _MODELS.get(device.get("model", ""), Meter)
        if device.get("map", {}).get("meter") == "chint-ddsu666":
            make = ChintMeter
        return make(
            device=device["id"],
            address=device["address"],
            seed=scenario["seed"],
            start=scenario["start"],
            kw=device.get("kw"),
            phases=device.get("phases", 3),
            baud=device.get("baud"),
            parity=device.get("parity"),
            quirks=Quirks(**device.get("faults", {})),
        )
    except (TypeError, ValueError) as error:
        raise BusError(f"device {device['id']}: {error}") from error


async def _listen(port: TcpPort) -> None:
    try:
        await port.listen()
    except OSError as error:
        raise BusError(f"port {port.port} of 127.0.0.1: {error.strerror}") from error

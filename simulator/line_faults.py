"""`python -m simulator faults --lines`: call systems, receivers and a radar on real ptys, each broken in every way a line breaks.

Five lines side by side on one daemon: ESPA 4.4.4, TAP, an EnOcean stick (ESP3), a Sonoff RF Bridge, an Andar radar. Each is
unplugged, held by another program when it comes back, frozen (the far end takes nothing of what the gateway writes), and
flooded with garbage. Measured is how long until the problem is shown, how long from mending until what happens then is an event
at the platform, what was lost, and whether a received `gateway.gap` holds it. What a call system has not got acknowledged it
keeps: of that nothing may be lost, nor told twice.
Limits: nobody presses amid the garbage, for what is garbled on the wire has not reached us; a radar tells a change of its state
only; each fault lasts `HOLD_S`, the garbage `GARBAGE_S`; a line must be heard again within `LIMIT_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from simulator import receivers
from simulator.call_systems import CallSystem
from simulator.control_client import NoAnswer, Refused, ask
from simulator.faults import Measured
from simulator.platform import district
from simulator.processes import Children
from simulator.pty_port import PtyPort
from simulator.radars import FallRadar
from simulator.receivers import Receiver
from simulator.tap_system import TapSystem

HOLD_S: Final = 2.0
GARBAGE_S: Final = 2.0
LIMIT_S: Final = 10.0
WELL_S: Final = 30.0
SHOWN_S: Final = 5.0
TOLERANCE_S: Final = 0.05
ON_ITS_WAY_S: Final = 1.5
_LOOK_S: Final = 0.05
_SAME_S: Final = 0.7
_PREFIX: Final = "cn.eldercare."


@dataclass(frozen=True, slots=True)
class Input:
    """Something that happened at a device: when, and what tells it from the one before."""

    t: float
    key: str


@dataclass(slots=True)
class Line:
    """One line. `act` lets the next thing happen and returns its key, which is found as `told` says in the events.

    `keeps`: it keeps what was not acknowledged. `inputs` is what has happened so far.
    """

    name: str
    model: str
    port: PtyPort
    baud: int
    every_s: float
    run: Callable[[], Awaitable[None]]
    act: Callable[[int], str]
    told: Callable[[Mapping[str, Any]], str]
    device: Mapping[str, str] = field(default_factory=dict)
    keeps: bool = False
    inputs: list[Input] = field(default_factory=list)
    quiet: bool = False
    holder: int | None = None

    async def live(self) -> None:
        """Let things happen until cancelled."""
        number = 0
        while True:
            await asyncio.sleep(self.every_s)
            if not self.quiet:
                number += 1
                self.inputs.append(Input(time.time(), self.act(number)))


def _nothing(_row: Mapping[str, Any]) -> None:
    """Take a row of a ledger: what happened stands in `inputs`."""


class _Tasks:
    """Keeps hold of what a receiver is still saying."""

    def __init__(self) -> None:
        self.running: set[asyncio.Task[bool]] = set()

    def say(self, receiver: Receiver, message: bytes) -> None:
        task = asyncio.create_task(receiver.say(message, times=2))
        self.running.add(task)
        task.add_done_callback(self.running.discard)


def lines(folder: Path, tasks: _Tasks) -> list[Line]:
    """Lay the five lines in `folder`."""
    espa = CallSystem(path=folder / "espa", record=_nothing)
    tap = TapSystem(path=folder / "tap", record=_nothing)
    esp3 = Receiver(path=folder / "esp3", baud=57600)
    sonoff = Receiver(path=folder / "sonoff", baud=19200, is_sonoff=True)
    radar = FallRadar(device="radar", path=folder / "radar", seed=1, record=_nothing)
    rockers = (0x10, 0x30, 0x50, 0x70)  # AI, A0, BI, B0 down

    def bed(number: int) -> str:
        espa.call("bed", str(3000 + number))
        return str(3000 + number)

    def pager(number: int) -> str:
        tap.call("bed", str(4000 + number))
        return str(4000 + number)

    def rocker(number: int) -> str:
        byte = rockers[number % 4]
        tasks.say(esp3, receivers.esp3(0xF6, bytes([byte]), sender="00298979", status=0x30))
        return ("AI", "A0", "BI", "B0")[number % 4]

    def remote(number: int) -> str:
        tasks.say(sonoff, receivers.sonoff(f"d0fc3{number % 16:x}"))
        return f"key-{number % 16:X}"

    def walk(_number: int) -> str:
        radar.occupied = not radar.occupied
        return str(radar.occupied)

    def code(data: Mapping[str, Any]) -> str:
        return str(data.get("code"))

    def channel(data: Mapping[str, Any]) -> str:
        return str(data.get("channel"))

    return [
        Line("espa", "espa444", espa.port, 9600, 1.0, espa.run, bed, channel, keeps=True),
        Line("tap", "tap", tap.port, 1200, 1.5, tap.run, pager, channel, keeps=True),
        Line("esp3", "enocean-esp3", esp3.port, 57600, 0.5, esp3.run, rocker, code, {"address": "00298979"}),
        Line("sonoff", "sonoff-rf-bridge", sonoff.port, 19200, 0.5, sonoff.run, remote, code, {"address": "D0FC3"}),
        Line("radar", "andar-radar", radar.port, 115200, 1.5, radar.run, walk, lambda data: str(data.get("occupied"))),
    ]


@dataclass(frozen=True, slots=True)
class LineRow:
    """One fault of a line. `code` "" where nothing need be shown; `is_deaf`: what happens meanwhile may be lost."""

    name: str
    code: str
    breaks: Callable[[Line], Awaitable[None]]
    mends: Callable[[Line], Awaitable[None]]
    is_deaf: bool = True


async def _unplug(line: Line) -> None:
    line.port.unplug()


async def _replug(line: Line) -> None:
    line.port.plug()


async def _hold(line: Line) -> None:
    """The port comes back, and another program is quicker."""
    path = line.port.path
    line.port.unplug()
    await asyncio.sleep(0.1)
    line.port.path = path.with_name(f"{path.name}-aside")
    line.port.plug()
    line.holder = os.open(line.port.path, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(line.holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    line.port.path.rename(path)
    line.port.path = path


async def _let_go(line: Line) -> None:
    if line.holder is not None:
        os.close(line.holder)
        line.holder = None


async def _freeze(line: Line) -> None:
    line.port.frozen = True


async def _thaw(line: Line) -> None:
    line.port.frozen = False


async def _garble(line: Line) -> None:
    line.quiet = True
    await asyncio.sleep(ON_ITS_WAY_S)  # what was on its way is through
    rng = random.Random(line.name)  # noqa: S311 - noise that can be repeated
    end = time.monotonic() + GARBAGE_S
    while time.monotonic() < end:
        await line.port.send(rng.randbytes(max(8, line.baud // 200)))


async def _clear(line: Line) -> None:
    line.quiet = False


ROWS: Final = (
    LineRow("unplugged, back", "GW-SER-01", _unplug, _replug),
    LineRow("held by another program, let go", "GW-SER-03", _hold, _let_go),
    LineRow("far end takes no bytes, takes them", "", _freeze, _thaw, is_deaf=False),
    LineRow("flood of garbage, over", "", _garble, _clear, is_deaf=False),
)


class LineBench:
    """One daemon with the five lines. `events`: what the platform accepted, by link: (key, time of the event, accepted)."""

    def __init__(self, folder: Path, all_lines: Sequence[Line]) -> None:
        self.lines = all_lines
        self.events: dict[str, list[Input]] = {line.name: [] for line in all_lines}
        self.accepted: dict[str, list[float]] = {line.name: [] for line in all_lines}
        self.gaps: dict[str, list[tuple[float, float]]] = {line.name: [] for line in all_lines}
        self._folder = folder
        self._ledger = folder / "platform-district.jsonl"
        self._read = 0

    def look(self) -> None:
        """Read what the platform's ledger has gained."""
        with contextlib.suppress(FileNotFoundError), self._ledger.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                row = json.loads(line)
                if row["status"] == "accepted":
                    self._take(row)

    def _take(self, row: Mapping[str, Any]) -> None:
        event, data = row["event"], row["event"]["data"]
        noun = row["type"].removeprefix(_PREFIX).removesuffix(".v1")
        if noun == "gateway.gap" and data["link"] in self.gaps:
            self.gaps[data["link"]].append((_t(data["from"]), _t(data["to"])))
        line = next((one for one in self.lines if row["device"].startswith(one.name)), None)
        if line is not None and noun in ("alarm.raised", "bed.occupancy"):
            self.events[line.name].append(Input(_t(event["time"]), line.told(data)))
            self.accepted[line.name].append(float(row["t"]))

    def told(self, line: Line, one: Input) -> list[float]:
        """Return when an input was accepted, once for each time that it was told."""
        return [
            accepted
            for event, accepted in zip(self.events[line.name], self.accepted[line.name], strict=True)
            if event.key == one.key and (line.keeps or -TOLERANCE_S <= event.t - one.t <= _SAME_S)
        ]

    async def well(self) -> bool:
        """Wait until every line hears and has no problem."""
        end = time.monotonic() + WELL_S
        while time.monotonic() < end:
            with contextlib.suppress(NoAnswer, Refused):
                status = await ask(self._folder / "c.sock", "status")
                # An unknown bed is a problem of its line, too, but none of its hearing.
                told = (one for one in status["problems"] if one["code"].startswith("GW-SER-"))
                troubled = {one["subject"] for one in told} & set(self.events)
                hears = all(one["hearing"] for one in status["links"]) and not troubled
                if hears and status["destinations"][0]["connected"]:
                    return True
            await asyncio.sleep(_LOOK_S)
        return False

    async def shown(self, code: str, link: str, *, since: int) -> float | None:
        """Return how long it took until a problem was told in the log, from the byte `since` on."""
        begun = time.monotonic()
        while time.monotonic() - begun < SHOWN_S:
            with (self._folder / "gateway.log").open("rb") as log:
                log.seek(since)
                for line in log:
                    if line.startswith(b"{") and line.endswith(b"}\n"):
                        turn = json.loads(line)
                        if (turn.get("code"), turn.get("subject"), turn.get("turn")) == (code, link, "on"):
                            return time.monotonic() - begun
            await asyncio.sleep(_LOOK_S)
        return None

    def log_size(self) -> int:
        """How long the daemon's log is."""
        return (self._folder / "gateway.log").stat().st_size


def _t(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def measure_lines(rows: Sequence[LineRow] = ROWS, only: Sequence[str] = ()) -> list[Measured]:
    """Measure each fault on all lines at once, or on those named in `only`. DbusDaemonError, BrokerError."""
    with tempfile.TemporaryDirectory(prefix="lines-") as name:
        async with _bench(Path(name), only) as bench:
            found: list[Measured] = []
            for row in rows:
                is_well = await bench.well()
                found += await asyncio.gather(*(_measure(bench, line, row, is_well=is_well) for line in bench.lines))
            return found


async def _measure(bench: LineBench, line: Line, row: LineRow, *, is_well: bool) -> Measured:
    if not is_well:
        return Measured(
            _name(line, row), line.name, row.code, None, None, 0, 0.0, "none", None, "not well before it began"
        )
    await asyncio.sleep(ON_ITS_WAY_S)
    since, begun = bench.log_size(), time.time()
    await row.breaks(line)
    shown = await bench.shown(row.code, line.name, since=since) if row.code else None
    await asyncio.sleep(HOLD_S if row.breaks is not _garble else 0.0)
    mended = time.time()
    await row.mends(line)
    back = await _heard_again(bench, line, mended)
    await asyncio.sleep(ON_ITS_WAY_S)
    return _judged(bench, line, row, begun=begun, mended=mended, shown=shown, back=back)


async def _heard_again(bench: LineBench, line: Line, mended: float) -> float | None:
    """Return when the first thing that happened after a moment was an event; None when not in time."""
    end = time.time() + LIMIT_S
    while time.time() < end:
        bench.look()
        back = [at for one in line.inputs if one.t > mended for at in bench.told(line, one)]
        if back:
            return min(back)
        await asyncio.sleep(_LOOK_S)
    return None


def _judged(
    bench: LineBench, line: Line, row: LineRow, *, begun: float, mended: float, shown: float | None, back: float | None
) -> Measured:
    bench.look()
    until = back or time.time()
    happened = [one for one in line.inputs if begun <= one.t < until - TOLERANCE_S]
    lost = [one for one in happened if not bench.told(line, one)]
    doubled = [one for one in happened if line.keeps and len(bench.told(line, one)) > 1]
    gaps = [gap for gap in bench.gaps[line.name] if gap[1] >= begun]
    held = all(any(a - TOLERANCE_S <= one.t <= b + ON_ITS_WAY_S for a, b in gaps) for one in lost)
    why = ["was not shown"] if row.code and shown is None else []
    why += ["not heard again in time"] if back is None else []
    why += ["a call that a call system keeps was lost"] if line.keeps and lost else []
    why += ["told twice"] if doubled else []
    why += ["lost outside every gap"] if lost and not held else []
    why += ["a deaf time without a gap"] if row.is_deaf and not gaps else []
    why += ["a gap that was none"] if gaps and not row.is_deaf else []
    told_s = sum(b - a for a, b in gaps)
    recovered = None if back is None else round(max(0.0, back - mended), 2)
    gap = "covers" if lost and held else "MISSING" if lost else "told" if gaps else "none"
    return Measured(
        _name(line, row), line.name, row.code, None if shown is None else round(shown, 2), recovered, len(lost),
        round(told_s, 2), gap, None, "; ".join(why),
    )  # fmt: skip


def _name(line: Line, row: LineRow) -> str:
    return f"{line.model}: {row.name}"


@contextlib.asynccontextmanager
async def _bench(folder: Path, only: Sequence[str]) -> AsyncIterator[LineBench]:
    tasks = _Tasks()
    all_lines = [line for line in lines(folder, tasks) if not only or line.name in only]
    async with district(folder) as platform, Children(folder) as children:
        running = [asyncio.ensure_future(work) for line in all_lines for work in (line.run(), line.live())]
        try:
            path = folder / "gateway.toml"
            path.write_text(_config(folder, all_lines, port=platform.port), encoding="utf-8")
            command = [sys.executable, "-m", "gateway", "run", "--config", str(path)]
            await children.start("gateway", command, env={"NO_COLOR": "1"})
            yield LineBench(folder, all_lines)
            await children.stop("gateway", grace_s=20.0)
        finally:
            for task in (*running, *tasks.running):
                task.cancel()
            await asyncio.gather(*running, *tasks.running, return_exceptions=True)


def _config(folder: Path, all_lines: Sequence[Line], *, port: int) -> str:
    said = ["[gateway]", 'id = "gw"', 'org = "org"', 'site = "site"', f'data_dir = "{folder}/data"']
    said.append(f'control_socket = "{folder}/c.sock"')
    for line in all_lines:
        said += ["[[serial]]", f'id = "{line.name}"', f'port = "{folder / line.name}"', f"baud = {line.baud}"]
        said += ["bits = 8", 'parity = "N"', "stop = 1"]  # a pty cannot be opened a second time with parity
        said += ["[[device]]", f'id = "{line.name}-1"', f'model = "{line.model}"', f'link = "{line.name}"']
        said += [f'{name} = "{value}"' for name, value in line.device.items()]
    said += ["[[destination]]", 'id = "district"', "reconnect_spread_s = 0", "[[destination.path]]"]
    return "\n".join([*said, f'url = "mqtt://127.0.0.1:{port}"', ""])

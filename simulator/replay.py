"""Plays a capture of `gateway listen --record` again: adverts on the air, frames on lines, answers on a bus.

    python -m simulator replay FILE --run DIR [--speed 10]

Each link of the capture that is a line becomes a pty DIR/LINK, at the speed of its device's model: what streamed is sent
at its recorded time, what was asked is answered as it was answered then, each request by its replies in turn and the last
of them for ever. Adverts go over a pretended bluetoothd on the bus of DBUS_SYSTEM_BUS_ADDRESS; masked parts of strangers'
addresses become 00. Plays once and then answers on until SIGTERM or SIGINT, or ends `--linger` seconds after the last.

Limits: 100,000 lines a capture; a request is recognised as one whole, within 512 bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from drivers.kit import Advertises, catalogue
from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.pty_port import PtyPort

MAX_LINES: Final = 100_000
MAX_HELD: Final = 512
BUS_VARIABLE: Final = "DBUS_SYSTEM_BUS_ADDRESS"
ANSWER_S: Final = 0.02
SETTLE_S: Final = 0.5  # who opens a port sets it up and flushes what came meanwhile
DEFAULT_BAUD: Final = 9600


class ReplayError(Exception):
    """A capture that cannot be played: the message names the file, the line and what does not fit."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something to be put on a link, `at_s` seconds after the beginning of the capture."""

    at_s: float
    link: str
    frame: bytes | None
    report: Report | None


@dataclass(slots=True)
class Capture:
    """A capture, read. `answers` holds for each link the replies to each request; None: silence."""

    moments: list[Moment] = field(default_factory=list)
    answers: dict[str, dict[bytes, list[bytes | None]]] = field(default_factory=dict)
    bauds: dict[str, int] = field(default_factory=dict)


def read(path: Path) -> Capture:
    """Read a capture. ReplayError names the line that does not fit."""
    capture = Capture()
    began: datetime | None = None
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) > MAX_LINES:
        raise ReplayError(f"{path}: {len(lines)} lines, at most {MAX_LINES}")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            at = datetime.fromisoformat(row["t"])
            began = began or at
            _take(capture, row, at_s=(at - began).total_seconds())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReplayError(f"{path}, line {number}: no line of a capture ({error!r})") from error
    capture.moments.sort(key=lambda one: one.at_s)
    return capture


def _take(capture: Capture, row: Mapping[str, Any], *, at_s: float) -> None:
    link, kind = str(row["link"]), row["kind"]
    if kind == "advert":
        services, makers = (
            {int(key, 16): bytes.fromhex(value) for key, value in row[name].items()}
            for name in ("service_data", "manufacturer_data")
        )
        address = str(row["mac"]).replace("··", "00")
        report = Report(address, int(row.get("rssi", -60)), str(row.get("name", "")), services, makers)
        capture.moments.append(Moment(at_s, link, None, report))
        return
    capture.bauds.setdefault(link, _baud(str(row.get("model", ""))))
    if kind == "poll":
        for request, reply in row["exchange"]:
            known = capture.answers.setdefault(link, {}).setdefault(bytes.fromhex(request), [])
            known.append(None if reply is None else bytes.fromhex(reply))
    elif kind in ("frame", "noise"):
        capture.moments.append(Moment(at_s, link, bytes.fromhex(row["bytes"]), None))
    else:
        raise ValueError(f"kind {kind!r}")


def _baud(model: str) -> int:
    """The speed of a model's line; of one that is not known the usual one."""
    try:
        driver = catalogue.driver(model)
    except catalogue.UnknownModel:
        return DEFAULT_BAUD
    return DEFAULT_BAUD if isinstance(driver, Advertises) else driver.line.baud


class ReplayedLine:
    """One line of a capture on a pty. `baud` None: as fast as its device's own."""

    def __init__(self, *, path: Path, baud: int, answers: Mapping[bytes, Sequence[bytes | None]]) -> None:
        """Lay a line with the name `path`."""
        self.port = PtyPort(path=path, baud=baud, on_data=self._heard)
        self.answered = 0
        self._answers = {request: list(replies) for request, replies in answers.items()}
        self._held = b""
        self._replies: set[asyncio.Task[None]] = set()

    def _heard(self, data: bytes) -> None:
        self._held = (self._held + data)[-MAX_HELD:]
        for request, replies in self._answers.items():
            if self._held.endswith(request):
                self._held = b""
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
                if reply is not None:
                    task = asyncio.create_task(self._answer(reply))
                    self._replies.add(task)
                    task.add_done_callback(self._replies.discard)
                return

    async def _answer(self, reply: bytes) -> None:
        await asyncio.sleep(ANSWER_S)
        self.answered += await self.port.send(reply)


async def play(capture: Capture, lines: Mapping[str, ReplayedLine], bluez: FakeBluez | None, *, speed: float) -> None:
    """Put everything on its link at its time; returns after the last."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for moment in capture.moments:
        await asyncio.sleep(max(0.0, began + moment.at_s / speed - loop.time()))
        if moment.frame is not None:
            await lines[moment.link].port.send(moment.frame)
        elif moment.report is not None and bluez is not None:
            bluez.hear(moment.report)


async def main(path: Path, *, run: Path, speed: float, linger_s: float | None) -> None:
    """Play a capture until SIGTERM or SIGINT, or `linger_s` after its end. ReplayError, BluezError, OSError."""
    capture = read(path)
    if not capture.moments and not capture.answers:
        raise ReplayError(f"{path}: nothing in it")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    lines = {
        link: ReplayedLine(path=run / link, baud=baud, answers=capture.answers.get(link, {}))
        for link, baud in capture.bauds.items()
    }
    bluez = await _air() if any(moment.report for moment in capture.moments) else None
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(line.port.run(), name=name) for name, line in lines.items()]
    try:
        # Who plays to nobody plays in vain: begin when each line is held, and its holder is through with opening it.
        while not stop.is_set() and not all(line.port.held for line in lines.values()):
            await asyncio.sleep(0.02)
        await asyncio.sleep(SETTLE_S)
        playing = asyncio.create_task(play(capture, lines, bluez, speed=speed), name="replay")
        tasks.append(playing)
        ended = asyncio.create_task(stop.wait(), name="stop")
        tasks.append(ended)
        await asyncio.wait([playing, ended], return_when=asyncio.FIRST_COMPLETED)
        if playing.done():
            playing.result()
            with suppress(TimeoutError):
                async with asyncio.timeout(linger_s):
                    await stop.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if bluez is not None:
            await bluez.stop()


async def _air() -> FakeBluez:
    address = os.environ.get(BUS_VARIABLE)
    if not address:
        raise ReplayError(f"{BUS_VARIABLE} is not set: adverts want a private bus, never the machine's own")
    bluez = FakeBluez(address)
    bluez.add_adapter()
    await bluez.start()
    return bluez


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `simulator replay`."""
    parser.add_argument("capture", type=Path, metavar="FILE", help="what gateway listen --record has kept")
    parser.add_argument("--run", type=Path, default=Path(), metavar="DIR", help="where the ptys of its lines appear")
    parser.add_argument("--speed", type=float, default=1.0, help="so many times as fast as it was")
    parser.add_argument(
        "--linger", type=float, metavar="S", help="end so many seconds after the last; without it, on Ctrl-C"
    )

"""Looks for what is on a bus that nobody has configured: every driver's own search, at each setting that it is met with.

Reads only: what is asked stands in the drivers, whose protocols can build nothing else. A line is opened as the daemon opens
it, so a port that another program holds is refused and named. What was found is handed out at once, so that an interruption
costs nothing of it.
Limits: a search as long as its questions take, `MOST_QUESTIONS` of them; `OPEN_S` for the opening; a reply is followed for
`AFTER_S`, to see whether another meter speaks, too. Fewer than `NOISE_BYTES` stray bytes are noise and no crowd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from drivers.kit import Answers, Ask, LineSettings, NoReply
from drivers.kit.searching import Found, Heard, Noisy, Searching
from gateway.clock import SystemClock
from gateway.errors import LinkDown
from gateway.links import ports
from gateway.links.serial_line import SerialLine
from gateway.links.state import LinkState

OPEN_S: Final = 6.0
AFTER_S: Final = 0.1
NOISE_BYTES: Final = 4
MOST_QUESTIONS: Final = 5_000
WAKE: Final = 0xFE


@dataclass(frozen=True, slots=True)
class Step:
    """One search at one setting. `settings` None: a serial server's own."""

    driver: Answers
    searching: Searching
    settings: LineSettings | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Device:
    """Something that answered."""

    driver: Answers
    settings: LineSettings | None
    found: Found


@dataclass(slots=True)
class Scan:
    """What was found so far. `crowded`: where several spoke at once and could not be told apart; `refused`: settings."""

    devices: list[Device] = field(default_factory=list)
    crowded: list[Step] = field(default_factory=list)
    refused: list[LineSettings] = field(default_factory=list)
    echo: bool = False
    asked: int = 0


def plan(
    drivers: Sequence[Answers], *, is_settable: bool, quiet_s: float, lines: Sequence[LineSettings] = ()
) -> list[Step]:
    """Return the steps: short searches first, each with what it takes where nobody is there, in seconds.

    `lines`: settings to be tried instead of those under which each protocol is met.
    """
    steps = []
    for driver in drivers:
        searching = driver.search
        if searching is None:
            continue
        for settings in (lines or searching.lines) if is_settable else (None,):
            byte_s = 11 / (settings or driver.line).baud
            steps.append(
                Step(driver, searching, settings, searching.questions * (searching.timeout_s + quiet_s + 20 * byte_s))
            )
    return sorted(steps, key=lambda one: one.searching.questions)


async def scan(
    port: str, steps: Sequence[Step], into: Scan, *, quiet_ms: int, on_step: Callable[[Step], None],
    on_found: Callable[[Device], None], on_asked: Callable[[], None],
) -> None:  # fmt: skip
    """Do all steps. Raises LinkDown when the port cannot be opened or is lost; ValueError for what is no port."""
    told: list[LinkState] = []
    # Opened as every port can be: a setting that it refuses costs that setting, not the search.
    line = SerialLine(
        link_id=port,
        port=port,
        line=LineSettings(),
        quiet_ms=quiet_ms,
        echo=False,
        on_state=told.append,
        clock=SystemClock(),
    )
    running = asyncio.create_task(line.run())
    try:
        await _opened(line, told, port)
        for step in steps:
            if step.settings not in into.refused:
                on_step(step)
                await _step(line, step, into, on_found=on_found, on_asked=on_asked)
                if step.settings in into.refused and not line.is_open:
                    told.clear()  # a serial server that does not confirm is cut off, and asked for the next setting anew
                    await _opened(line, told, port)
        into.echo = line.echo_seen
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _opened(line: SerialLine, told: Sequence[LinkState], port: str) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + OPEN_S
    while not line.is_open:
        # That it was lost is no reason why it cannot be opened.
        down = next((one for one in told if one.problem not in (None, ports.LOST) and not one.hearing), None)
        if down is not None:
            raise LinkDown(str(down.problem), port, **down.facts)
        if loop.time() > until:
            raise LinkDown(ports.OTHER, port, port=port)
        await asyncio.sleep(0.02)


async def _step(
    line: SerialLine, step: Step, into: Scan, *, on_found: Callable[[Device], None], on_asked: Callable[[], None]
) -> None:  # fmt: skip
    if step.settings is not None:
        try:
            await line.be_set(step.settings)
        except NoReply:
            into.refused.append(step.settings)
            return
    search = step.searching.run()
    is_crowded, known, asked = False, len(into.devices), 0
    try:
        wanted = next(search)
        while True:
            if isinstance(wanted, Found):
                device = Device(step.driver, step.settings, wanted)
                if not any(_same(device, other) for other in into.devices):
                    into.devices.append(device)
                    on_found(device)
                wanted = search.send(Heard())
                continue
            heard = await _heard(line, wanted, step)
            asked, into.asked = asked + 1, into.asked + 1
            is_crowded |= heard.crowded
            on_asked()
            wanted = search.send(heard)
            if asked > MOST_QUESTIONS:
                raise Noisy
    except StopIteration:
        pass
    except Noisy:
        is_crowded = True
    finally:
        search.close()
    if is_crowded and len(into.devices) == known:
        into.crowded.append(step)


async def _heard(line: SerialLine, ask: Ask, step: Step) -> Heard:
    """Ask once, and count what came beside the answer: wake-up bytes and the own echo are nobody's."""
    beside = 0

    def count(data: bytes) -> None:
        nonlocal beside
        beside += len(data) - data.count(WAKE)

    line.on_unasked = count
    before, frames = line.rx_bytes, line.foreign
    try:
        frame = await line.ask(ask, step.driver.framer(), step.settings)
    except NoReply:
        tries = 1 + ask.retries
        others = line.rx_bytes - before - (tries * len(ask.request) if line.echo_seen else 0)
        return Heard(None, others if others >= NOISE_BYTES else 0)
    await asyncio.sleep(AFTER_S)
    others = beside + NOISE_BYTES * (line.foreign - frames)
    return Heard(frame, others if others >= NOISE_BYTES else 0)


def _same(one: Device, other: Device) -> bool:
    """Is it the same meter, found by another of its protocols, or by a parity that does not matter on this line?

    A meter of 2007 may answer 1997, too.
    """
    speeds = [here.settings and here.settings.baud for here in (one, other)]
    return speeds[0] == speeds[1] and one.found.address == other.found.address and (
        one.driver.model == other.driver.model or len(one.found.address) >= len("000000000000")
    )  # fmt: skip

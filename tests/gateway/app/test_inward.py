"""The way in as it is wired: what a link could not hear reaches the hearing as a gap, wherever bytes can be lost."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import Streams, catalogue
from gateway.alarms import AlarmBook
from gateway.app.inward import Inward
from gateway.clock import Stamp, SystemClock
from gateway.collect import Collector, Desk, Hearing
from gateway.collect.judge import Judge
from gateway.config import Ble, Gateway, Receiver, Serial, Settings
from gateway.config import Outbox as OutboxSettings
from gateway.events import Origin
from gateway.health import Health
from gateway.outbox import Mark, Outbox, Route

ORIGIN = Origin("org", "site", "gw")
PRESS = b'{"n":1,"ev":"press"}\n'


@dataclass
class Way:
    """The way in of one gateway with a radio and a line, and the gaps that it told."""

    inward: Inward
    hearing: Hearing
    gaps: list[Mapping[str, Any]]
    health: Health

    @property
    def problems(self) -> list[tuple[str, str]]:
        return [(one.code, one.subject) for one in self.health.current()]


Opener = Callable[..., Way]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """`opened(port)` wires a radio and one line on that port; nothing runs yet."""
    clock = SystemClock()
    outbox = Outbox(tmp_path / "outbox.db", [Route("district", ("*",))], clock=clock)
    await outbox.open()

    def made(port: str, *, receivers: tuple[Receiver, ...] = ()) -> Way:
        driver = catalogue.driver("json-lines")
        assert isinstance(driver, Streams)
        options = driver.options({"address": "", "signal": [{"field": "ev", "is": "call"}]})
        desks = {"board": Desk("board", "json-lines", "wire", "", "201", "", driver, options, wired=True)}
        settings = Settings(
            Gateway("gw", "org", "site"), rooms=(), serial=(Serial("wire", port),), ble=(Ble("air"),), mqtt=(), devices=(),
            destinations=(), outbox=OutboxSettings(), path=Path("/gateway.toml"), receivers=receivers,
        )  # fmt: skip
        gaps: list[Mapping[str, Any]] = []

        def store(data: Mapping[str, object] | None, _at: Stamp, _mark: Mark, on_durable: Callable[[], None]) -> bool:
            if data is not None:
                gaps.append(data)
            on_durable()
            return True

        health, judge = Health(clock), Judge()
        links = [("air", "ble"), ("wire", "serial")]
        hearing = Hearing(links, [], deaf_since=clock.stamp(), clock=clock, health=health, store=store)
        collector = Collector(
            ORIGIN, desks, outbox=outbox, alarms=AlarmBook(ORIGIN), judge=judge, health=health, clock=clock,
            announce=lambda _change: None,
        )  # fmt: skip
        inward = Inward(
            settings, desks, origin=ORIGIN, collector=collector, judge=judge, hearing=hearing, outbox=outbox, clock=clock,
            health=health,
        )  # fmt: skip
        return Way(inward, hearing, gaps, health)

    yield made
    await outbox.close()


async def told_of_a_pause(way: Way, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the disk fall behind and catch up while something is read; return the reasons of the gaps."""
    reader = way.inward._readers["wire"]
    monkeypatch.setattr("gateway.collect.streaming.HIGH_WATER", -1)
    reader.on_data(PRESS, SystemClock().stamp())
    monkeypatch.setattr("gateway.collect.streaming.HIGH_WATER", 4000)
    way.inward.on_stored()
    return [str(gap["reason"]) for gap in way.gaps]


async def test_a_pause_of_a_serial_port_is_told_as_a_gap(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await told_of_a_pause(opened("/dev/ttyS99"), monkeypatch) == ["overflow"]


async def test_a_pause_of_a_socket_is_none_because_its_sender_waits(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await told_of_a_pause(opened("socket://127.0.0.1:1"), monkeypatch) == []


async def test_what_a_radio_had_to_drop_is_told_as_a_gap(opened: Opener) -> None:
    way = opened("/dev/ttyS99")
    now = SystemClock().stamp()
    on_overflow: Any = way.inward._radios["air"]._queue._on_overflow
    on_overflow(7, now, now)
    assert [(gap["link"], gap["reason"], gap["dropped"]) for gap in way.gaps] == [("air", "overflow", 7)]


async def test_a_line_that_is_lost_and_found_tells_its_reader(opened: Opener) -> None:
    """The reader must know from when a source could not repeat, and that half a line is void."""
    master, slave = os.openpty()
    way = opened(os.ttyname(slave))
    reader = way.inward._readers["wire"]
    turns: list[str] = []
    lost, reopened = reader.lost, reader.reopened
    reader.lost = lambda: (turns.append("lost"), lost())[1]  # type: ignore[method-assign]  # to be seen
    reader.reopened = lambda: (turns.append("reopened"), reopened())[1]  # type: ignore[method-assign]  # to be seen
    async with asyncio.TaskGroup() as group:
        line = group.create_task(way.inward._lines["wire"].run())
        async with asyncio.timeout(30):
            while turns != ["reopened"]:
                await asyncio.sleep(0.01)
            os.close(master)  # unplugged
            while turns[:2] != ["reopened", "lost"]:
                await asyncio.sleep(0.01)
        line.cancel()
    os.close(slave)


async def test_without_its_library_a_receiver_is_told_and_the_rest_is_heard(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = opened("/dev/ttyS99", receivers=(Receiver("stairs", "192.168.8.31"),))
    assert (set(way.inward._proxies), way.problems) == ({"stairs"}, [])
    monkeypatch.setitem(sys.modules, "gateway.links.esphome_proxy", None)
    way = opened("/dev/ttyS99", receivers=(Receiver("stairs", "192.168.8.31"),))
    assert (way.inward._proxies, way.problems) == ({}, [("GW-RCV-05", "stairs")])
    assert set(way.inward._radios) == {"air"}

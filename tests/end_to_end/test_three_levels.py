"""Three-level sharing, the whole road: three platforms with filters of their own; one fails, and the others notice nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simulator.platform import District, district

pytestmark = pytest.mark.slow
RAISED, METER = "cn.eldercare.alarm.raised.v1", "cn.eldercare.telemetry.meter.v1"
CONFIG = """
[gateway]
id = "gw"
org = "org"
site = "site"
data_dir = "{folder}/data"
control_socket = "{folder}/control.sock"
lang = "en"

[[serial]]
id = "wire"
port = "socket://127.0.0.1:{line}"

[[device]]
id = "board-1"
model = "json-lines"
link = "wire"
address = "b1"
  [[device.map.signal]]
  field = "ev"
  equals = "press"
  is = "call"
  [[device.map.reading]]
  field = "kwh"
  quantity = "energy_active_import"

[[destination]]
id = "district"
types = ["alarm.*", "telemetry.*"]
reconnect_spread_s = 0
  [[destination.path]]
  url = "mqtt://127.0.0.1:{district}"

[[destination]]
id = "street"
types = ["alarm.*"]
reconnect_spread_s = 0
  [[destination.path]]
  url = "https://127.0.0.1:{street}"
  ca_file = "{folder}/tls/ca.pem"

[[destination]]
id = "city"
types = ["telemetry.meter"]
reconnect_spread_s = 0
  [[destination.path]]
  url = "https://127.0.0.1:{city}"
  ca_file = "{folder}/tls/ca.pem"
"""
WANTED = {"district": {RAISED, METER}, "street": {RAISED}, "city": {METER}}


@dataclass(frozen=True)
class Arrival:
    """One line of a platform's ledger."""

    type: str
    status: str
    deliveryseq: int


@dataclass
class Levels:
    """The three platforms and the board that all of them hear of."""

    folder: Path
    platforms: dict[str, District]
    board: Any
    said: int = 0

    def arrivals(self, name: str) -> list[Arrival]:
        rows = [json.loads(line) for line in (self.folder / f"platform-{name}.jsonl").read_text().splitlines()]
        return [Arrival(one["type"], one["status"], int(one["deliveryseq"])) for one in rows]

    def accepted(self, name: str) -> list[Arrival]:
        return [one for one in self.arrivals(name) if one.status == "accepted"]

    async def press(self) -> None:
        self.said += 1
        await self.board.press(self.said)

    async def read(self) -> None:
        self.said += 1
        await self.board.say(b'{"dev":"b1","n":%d,"kwh":%d}\n' % (self.said, self.said))
        await self.board.acknowledged(self.said)

    async def both(self, times: int = 3) -> None:
        for _ in range(times):
            await self.press()
            await self.read()


@pytest.fixture
async def levels(gateway: Any, board: Any, tmp_path: Path) -> AsyncIterator[Levels]:
    """Three platforms, and a daemon that is connected to all of them."""
    async with AsyncExitStack() as parts:
        speaks = {"district": "mqtt", "street": "https", "city": "https"}
        platforms = {
            name: await parts.enter_async_context(district(tmp_path, destination=name, speaks=word))
            for name, word in speaks.items()
        }
        ports = {name: one.port for name, one in platforms.items()}
        gateway.configure(CONFIG, line=board.port, **ports)
        await gateway.start()
        await gateway.until("connected", lambda status: all(one["connected"] for one in status["destinations"]))
        yield Levels(tmp_path, platforms, board)


def pending(status: dict[str, Any]) -> dict[str, int]:
    return {one["id"]: sum(one["pending"].values()) for one in status["destinations"]}


async def test_each_gets_what_its_filter_lets_through_whoever_fails_and_can_prove_that_nothing_is_missing(
    gateway: Any, levels: Levels, problems_of: Callable[..., set[tuple[str, str]]]
) -> None:
    async def all_but(failing: str, told: str) -> None:
        """The others have everything before a message to the failing one is even given up (8 s), and people are told which."""
        before = {name: len(levels.accepted(name)) for name in WANTED}
        await levels.both()
        others = [name for name in WANTED if name != failing]
        await gateway.until("others", lambda status: not any(pending(status)[name] for name in others), within_s=7)
        for name in others:
            assert len(levels.accepted(name)) == before[name] + 3 * len(WANTED[name]), (failing, name)
        status = await gateway.until("told", lambda status: (told, failing) in problems_of(status))
        assert problems_of(status) == {(told, failing)}
        assert pending(status)[failing] == 3 * len(WANTED[failing])

    async def mended(failing: str) -> None:
        status = await gateway.until("delivered", lambda status: not any(pending(status).values()))
        assert {subject for _code, subject in problems_of(status)} & {failing} == set()

    await levels.both()
    await gateway.until("delivered", lambda status: not any(pending(status).values()))

    await levels.platforms["district"].link.cut()
    await all_but("district", "GW-NET-02")
    levels.platforms["district"].link.heal()
    await mended("district")

    street: Any = levels.platforms["street"].front
    street.answers.answer(on=["alarm", "birth", "state"], how=404)
    await all_but("street", "GW-NET-06")
    street.answers.well()
    await mended("street")

    city: Any = levels.platforms["city"].front
    city.answers.answer(on=["batch", "birth", "state"], how=401)
    await all_but("city", "GW-NET-04")
    city.answers.well()
    await levels.press()
    await mended("city")

    for name, types in WANTED.items():
        taken = levels.accepted(name)
        assert {one.type for one in taken} == types, name
        assert [one.deliveryseq for one in sorted(taken, key=lambda one: one.deliveryseq)] == list(
            range(1, len(taken) + 1)
        ), name
        assert len(taken) == 12 * len(types) + (1 if RAISED in types else 0), name
        figures = levels.platforms[name].application.stats()
        assert (figures["reordered"], figures["rejected"], figures["gaps"]["deliveryseq_missing"]) == (0, 0, 0), name
    status = await gateway.ask("status")
    assert [one["dead_letters"] for one in status["destinations"]] == [0, 0, 0]

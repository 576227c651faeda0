"""A centre to collect for: a clock that stands still, a real outbox, real drivers, and whatever was announced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import Advert, Advertises, catalogue
from gateway.alarms import AlarmBook, Change
from gateway.clock import Stamp
from gateway.collect import Collector, Desk
from gateway.collect.judge import Judge
from gateway.events import Lane, Origin
from gateway.health import Health
from gateway.links.state import HeardAdvert
from gateway.outbox import Outbox, Route

ORIGIN = Origin("org", "site", "gw")
START = Stamp(1_800_000_000_000, 1_000_000, "boot-1", "synced")


class StillClock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = START

    def stamp(self) -> Stamp:
        return self.now

    def monotonic(self) -> float:
        return self.now.mono_ms / 1000

    def go_on(self, seconds: float) -> None:
        ms = int(seconds * 1000)
        self.now = replace(self.now, wall_ms=self.now.wall_ms + ms, mono_ms=self.now.mono_ms + ms)


@dataclass
class Centre:
    """Everything between the links and the disk. `restart` ends the process in thought and begins it again."""

    folder: Path
    clock: StillClock = field(default_factory=StillClock)
    desks: dict[str, Desk] = field(default_factory=dict)
    announced: list[Change] = field(default_factory=list)
    refused: list[tuple[str, Stamp]] = field(default_factory=list)

    async def open(self) -> None:
        self.outbox = Outbox(self.folder / "outbox.db", [Route("district", ("*",))], clock=self.clock)
        await self.outbox.open()
        self.health = Health(self.clock)
        self.alarms = AlarmBook(ORIGIN, ["district"])
        self.alarms.load(row.doc for row in await self.outbox.alarms())
        judge = self.judge = Judge()
        judge.load(await self.outbox.marks())
        self.collector = Collector(
            ORIGIN, self.desks, outbox=self.outbox, alarms=self.alarms, judge=judge, health=self.health,
            clock=self.clock, announce=self.announced.append,
        )  # fmt: skip
        self.collector.on_refused = lambda link, at: self.refused.append((link, at))
        self.committing = asyncio.create_task(self.outbox.run())

    async def close(self) -> None:
        self.committing.cancel()
        await asyncio.wait({self.committing})
        await self.outbox.close()

    async def restart(self) -> None:
        await self.outbox.flush(5)
        await self.close()
        await self.open()

    def hear(
        self, address: str, *, service: dict[int, str] | None = None, maker: dict[int, str] | None = None,
        by: str = "air", rssi: int = -60,
    ) -> None:  # fmt: skip
        """Let a radio hand over one advert; data as hexadecimal."""
        services = {key: bytes.fromhex(value) for key, value in (service or {}).items()}
        makers = {key: bytes.fromhex(value) for key, value in (maker or {}).items()}
        advert = Advert(address, rssi=rssi, service_data=services, manufacturer_data=makers)
        self.collector.on_advert(HeardAdvert(by, advert, self.clock.stamp()))

    async def events(self) -> list[dict[str, Any]]:
        """Return everything that is stored, in the order of its sequence."""
        assert await self.outbox.flush(5)
        rows = [row for lane in Lane for row in await self.outbox.fetch(lane, 0, 2_000)]
        return [json.loads(row.body) for row in sorted(rows, key=lambda row: row.seq)]

    async def told(self, *keys: str) -> list[tuple[Any, ...]]:
        """Return the type of each stored event, without its prefix, and these keys of its data."""
        return [
            (one["type"].removeprefix("cn.eldercare.").removesuffix(".v1"), *(one["data"].get(key) for key in keys))
            for one in await self.events()
        ]

    @property
    def problems(self) -> list[tuple[str, str]]:
        return [(one.code, one.subject) for one in self.health.current()]


def radio_desk(name: str, model: str, address: str, **options: Any) -> Desk:
    """A device on the air with its real driver."""
    driver = options.pop("driver", None) or catalogue.driver(model)
    assert isinstance(driver, Advertises)
    return Desk(name, model, "air", address, "201", "1", driver, None, **options)


Opener = Callable[[Iterable[Desk]], Awaitable[Centre]]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Open a centre with these devices."""
    centres: list[Centre] = []

    async def open_centre(desks: Iterable[Desk]) -> Centre:
        centre = Centre(tmp_path, desks={desk.id: desk for desk in desks})
        await centre.open()
        centres.append(centre)
        return centre

    yield open_centre
    for centre in centres:
        await centre.close()


@pytest.fixture
def radio() -> Callable[..., Desk]:
    """Make a device on the air: `radio(id, model, address, key=..., calls_on=...)`."""
    return radio_desk


@pytest.fixture
def still_clock() -> StillClock:
    """A clock that moves only when told to."""
    return StillClock()

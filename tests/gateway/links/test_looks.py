"""What is read now came later than the look before the last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from gateway.clock import Stamp
from gateway.links import looks as looks_module
from gateway.links.looks import Looks

START = Stamp(1_800_000_000_000, 1_000, "boot-1", "synced")


@dataclass
class HandClock:
    """Moved by hand."""

    now: Stamp = START

    def stamp(self) -> Stamp:
        return self.now

    def monotonic(self) -> float:
        return self.now.mono_ms / 1000

    def go_on(self, ms: int) -> None:
        self.now = replace(self.now, wall_ms=self.now.wall_ms + ms, mono_ms=self.now.mono_ms + ms)


def test_sure_is_the_look_before_the_last() -> None:
    clock = HandClock()
    looks = Looks(clock)
    sure = [looks.sure.mono_ms]
    for ms in (500, 500, 9_000, 500):  # it stood still for 9 s
        clock.go_on(ms)
        looks.look()
        sure.append(looks.sure.mono_ms)
    assert sure == [1_000, 1_000, 1_500, 2_000, 11_000]


async def test_it_goes_on_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_module, "LOOK_S", 0.001)
    clock = HandClock()
    looks = Looks(clock)
    looking = asyncio.create_task(looks.run())
    async with asyncio.timeout(30):
        while looks.sure.mono_ms < 1_030:
            clock.go_on(10)
            await asyncio.sleep(0.001)
    looking.cancel()
    await asyncio.wait({looking})
    assert clock.now.mono_ms > looks.sure.mono_ms

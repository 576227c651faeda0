"""One radio and the pretended world around it: a private D-Bus, a bluetoothd, and a real bleak between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Stamp, SystemClock
from gateway.links import bleak_bus
from gateway.links.ble_radio import BleRadio
from gateway.links.looks import LOOK_S
from gateway.links.silence import Silence
from gateway.links.state import HeardAdvert, LinkState
from simulator.bluez import FakeBluez
from simulator.bluez_objects import Report
from simulator.dbus_daemon import DbusDaemon

# Recovery takes 5 to 150 ms on an idle machine; the limit leaves room for a busy one.
SOON_S = 30.0
# How long a busy machine may keep the radio from a look at its clock.
BUSY_MS = 5_000


async def until(condition: Callable[[], bool], why: Callable[[], str], *, within_s: float = SOON_S) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not condition():
        assert loop.time() < end, why()
        await asyncio.sleep(0.003)


@dataclass
class World:
    """What the radio said and delivered, and what can be done to it. Our devices' addresses begin with AA."""

    daemon: DbusDaemon
    bluez: FakeBluez
    heard: list[HeardAdvert] = field(default_factory=list)
    states: list[LinkState] = field(default_factory=list)
    overflows: list[tuple[int, Stamp, Stamp]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    ours = "AA:BB:CC:DD:EE:01"
    stranger = "11:22:33:44:55:66"
    press = b"\x44\x00\x1d\x01\x64\x3a\x01"

    def radio(self, **options: Any) -> BleRadio:
        settings: dict[str, Any] = {
            "adapter": "hci0", "retry_cap_s": 0.2, "power_grace_s": 60.0, "deliver": self.heard.append,
            "wanted": self.is_ours, "known": self.is_ours, **options,
        }  # fmt: skip
        radio = BleRadio(
            link_id="air",
            on_state=self.states.append,
            on_overflow=lambda *what: self.overflows.append(what),
            clock=SystemClock(),
            **settings,
        )
        self.tasks.append(asyncio.create_task(radio.run()))
        return radio

    @staticmethod
    def is_ours(address: str) -> bool:
        return address.startswith("AA:")

    @property
    def said(self) -> list[str]:
        """What was said of the link, in order: "hearing", "deaf", the problem, or "hearing, but" a problem."""
        return [
            state.problem or "deaf"
            if not state.hearing
            else f"hearing, but {state.problem}"
            if state.problem
            else "hearing"
            for state in self.states
        ]

    async def until(self, condition: Callable[[], bool], why: str = "", *, within_s: float = SOON_S) -> None:
        await until(condition, lambda: why or f"said {self.said}", within_s=within_s)

    async def until_said(self, *expected: str) -> None:
        await until(lambda: self.said == list(expected), lambda: f"said {self.said}, expected {expected}")

    def is_told(self, deaf: Stamp, last: Stamp) -> bool:
        """Is a deaf time told from the last advert on, as far as can be known: not later, nor before a look that proves it?

        It is not told from before the hearing began either.
        """
        looked_ms = 2 * 1000 * LOOK_S + BUSY_MS
        return max(last.mono_ms - looked_ms, self.states[0].at.mono_ms) <= deaf.mono_ms <= last.mono_ms

    async def until_delivered(self) -> None:
        """Let our device speak until it is heard and the radio says that it hears, as one who presses again and again."""
        before = len(self.heard)

        def spoke() -> bool:
            self.speak()
            return len(self.heard) > before and self.states[-1].hearing

        await until(spoke, lambda: f"never heard; said {self.said}")

    async def until_heard_once(self) -> None:
        """Let our device speak while it is listened to, and wait for that: no advert of it is on its way afterwards."""
        before = len(self.heard)
        assert self.bluez.scanning()
        self.speak()
        await self.until(lambda: len(self.heard) > before)

    async def until_rhythm_known(self, radio: BleRadio) -> None:
        """Let our device be heard, and the radio know it for its rhythm: every 50 ms for five seconds, until now.

        What went before is only remembered, for on a busy machine it would be no rhythm.
        """
        await self.until_heard_once()
        now = SystemClock().monotonic()
        silence = Silence(after_s=radio._silence.after_s, known=self.is_ours, now=now - 5.0)
        for n in range(100, -1, -1):
            silence.heard(self.ours, now - n * 0.05)
        radio._silence = silence

    def speak(self, address: str = "") -> None:
        self.bluez.hear(Report(address or self.ours, -60, service_data={0xFCD2: self.press}))

    async def chat(self, adverts: int = 100) -> None:
        """Let our device keep a rhythm, until so many of its adverts have been heard."""
        before = len(self.heard)
        end = asyncio.get_running_loop().time() + SOON_S
        while len(self.heard) < before + adverts:
            assert asyncio.get_running_loop().time() < end, f"heard {len(self.heard) - before} of {adverts}"
            self.speak()
            await asyncio.sleep(0.02)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A private bus with a bluetoothd and one adapter. An error of dbus-daemon being missing says how to install it."""
    daemon = DbusDaemon(tmp_path)
    await daemon.start()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", daemon.address)
    bluez = FakeBluez(daemon.address)
    bluez.add_adapter()
    await bluez.start()
    here = World(daemon, bluez)
    yield here
    for task in here.tasks:
        task.cancel()
    if here.tasks:
        _, late = await asyncio.wait(here.tasks, timeout=SOON_S)
        assert not late, "a cancelled radio did not end"
    await bleak_bus.drop(bleak_bus.current())
    await bluez.stop()
    await daemon.stop()

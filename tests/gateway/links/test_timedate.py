"""Asking systemd-timedated over a real bus: its answer, its silence, and that it may be missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from gateway.links.timedate import is_synchronised
from simulator.dbus_daemon import DbusDaemon


@pytest.fixture
async def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DbusDaemon]:
    daemon = DbusDaemon(tmp_path)
    await daemon.start()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", daemon.address)
    yield daemon
    await daemon.stop()


class Timedated:
    """Answers every question with `value`; None: it never answers."""

    def __init__(self, value: Variant | None) -> None:
        self.value = value
        self.asked: list[Any] = []
        self._bus: MessageBus

    async def __aenter__(self) -> Timedated:
        self._bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        self._bus.add_message_handler(self._answer)
        await self._bus.request_name("org.freedesktop.timedate1")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._bus.disconnect()

    def _answer(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL or message.member != "Get":
            return None
        self.asked.append((message.path, message.body))
        return True if self.value is None else Message.new_method_return(message, "v", [self.value])


@pytest.mark.parametrize("synced", [True, False])
async def test_its_word_is_taken(bus: DbusDaemon, synced: bool) -> None:
    async with Timedated(Variant("b", synced)) as timedated:
        assert await is_synchronised(limit_s=10) is synced
        assert timedated.asked == [
            ("/org/freedesktop/timedate1", ["org.freedesktop.timedate1", "NTPSynchronized"])
        ]  # fmt: skip


async def test_an_answer_of_another_kind_is_none(bus: DbusDaemon) -> None:
    async with Timedated(Variant("s", "yes")):
        assert await is_synchronised(limit_s=10) is None


async def test_it_is_not_waited_for_longer_than_the_limit(bus: DbusDaemon) -> None:
    async with Timedated(None):
        begun = asyncio.get_running_loop().time()
        assert await is_synchronised(limit_s=0.2) is None
        assert asyncio.get_running_loop().time() - begun < 5


async def test_without_timedated_or_without_a_bus_there_is_no_answer(
    bus: DbusDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await is_synchronised(limit_s=10) is None
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/at/all")
    assert await is_synchronised(limit_s=10) is None

"""The sign of life is noted without waiting for the disk; here the disk that does not answer is a pipe without a reader."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.app.sign_of_life import SignOfLife
from gateway.clock import Stamp
from gateway.outbox.alive import AliveNotes


class HandClock:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def stamp(self) -> Stamp:
        return at(self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def at(seconds: float) -> Stamp:
    return Stamp(1_800_000_000_000, int(seconds * 1000), "boot-1", "synced")


class Noted:
    """A sign of life on a path, and what its disk said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = HandClock()
        self.said: list[str | None] = []
        self.sign = SignOfLife(self._notes(), clock=self.clock, on_written=self._on_written)

    def _on_written(self, error: BaseException | None) -> None:
        self.said.append(None if error is None else type(error).__name__)

    def _notes(self) -> AliveNotes:
        return AliveNotes(self.path, self.path.with_name("near"))

    def last(self) -> Stamp | None:
        return self._notes().read()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
def noted(tmp_path: Path) -> Noted:
    return Noted(tmp_path / "alive")


@pytest.fixture
def stuck(tmp_path: Path) -> Noted:
    os.mkfifo(tmp_path / "alive")
    return Noted(tmp_path / "alive")


def let_go(stuck: Noted) -> int:
    """Let the disk answer: with an error, as a pipe cannot be written at a place."""
    return os.open(stuck.path, os.O_RDONLY | os.O_NONBLOCK)


async def test_each_note_is_written_and_said_to_be(noted: Noted) -> None:
    for n in (1, 2):
        noted.sign.note(at(n))
        await noted.until(lambda n=n: len(noted.said) == n)  # type: ignore[misc]
        assert noted.last() == at(n)
    assert noted.said == [None, None]
    await noted.sign.close()


async def test_a_disk_that_does_not_answer_holds_nobody_up_and_is_seen(stuck: Noted) -> None:
    assert stuck.sign.silent_s == 0
    stuck.sign.note(at(1))
    stuck.clock.seconds += 7
    stuck.sign.note(at(8))  # left out: the one before is on its way
    assert stuck.sign.silent_s == 7
    reader = let_go(stuck)
    await stuck.until(lambda: stuck.said)
    assert stuck.said == ["OSError"]
    assert stuck.sign.silent_s == 0
    await stuck.sign.close()
    os.close(reader)


async def test_the_last_note_comes_after_the_one_that_is_on_its_way(noted: Noted) -> None:
    noted.sign.note(at(1))
    await noted.sign.note_last(at(2), limit_s=10)
    assert noted.last() == at(2)
    assert noted.said == [None, None]
    await noted.sign.close()


async def test_the_last_note_is_not_waited_for_beyond_its_limit(stuck: Noted) -> None:
    async with asyncio.timeout(30):
        await stuck.sign.note_last(at(1), limit_s=0.05)
    assert stuck.said == []
    reader = let_go(stuck)
    await stuck.until(lambda: stuck.said)
    await stuck.sign.close()
    os.close(reader)

"""Alarms whose events a corrupt database gives back: what comes last, for whoever goes by the sequence, is how they stand now."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.alarms import AlarmBook, Call, Change
from gateway.app.brought_back import settle_alarms
from gateway.clock import Stamp
from gateway.collect.batch import alarm_row
from gateway.events import Event, Lane, Origin
from gateway.outbox import Outbox, Rescue, Route, Write

ORIGIN = Origin("org", "site", "gw")
NOW = Stamp(1_800_000_000_000, 1_000_000, "boot-1", "synced")
CALL = Call("call", "call-1", "201", "2", NOW, code="press")


class Centre:
    """A real outbox on a file whose pages can be destroyed, and the alarms beside it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "outbox.db"
        self.announced: list[str] = []
        self.outbox: Outbox
        self.book: AlarmBook
        self._running: asyncio.Task[None]

    def stamp(self) -> Stamp:
        return NOW

    def monotonic(self) -> float:
        return 1_000.0

    async def begin(self) -> None:
        self.outbox = Outbox(self.path, [Route("district", ("*",))], clock=self)
        await self.outbox.open()
        self.book = AlarmBook(ORIGIN, ["district"])
        self.book.load(row.doc for row in await self.outbox.alarms())
        self._running = asyncio.create_task(self.outbox.run())

    async def end(self) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})
        await self.outbox.close()

    async def store(self, change: Change) -> None:
        assert change.event is not None
        self.outbox.submit(Write((change.event,), alarms=(alarm_row(change),)))
        assert await self.outbox.flush(10)

    async def break_and_begin(self, *tables: str) -> None:
        """Destroy the first page of some tables, and start anew."""
        roots = dict(self.outbox._store._writer.execute("SELECT name, rootpage FROM sqlite_master"))
        await self.end()
        with self.path.open("r+b") as file:
            for table in ("number", *tables):
                file.seek((roots[table] - 1) * 4096)
                file.write(b"\xa5" * 4096)
        await self.begin()
        assert self.outbox.was_replaced

    async def rescue(self) -> None:
        def settle(events: list[Event]) -> None:
            settle_alarms(
                events, book=self.book, outbox=self.outbox, clock=self,
                announce=lambda change: self.announced.append(change.alarm.id),
            )  # fmt: skip

        await Rescue(self.outbox, ORIGIN, clock=self, on_alarms=settle).once()
        assert await self.outbox.flush(10)

    async def told(self) -> list[tuple[str, str, bool]]:
        """Type and state of every alarm event, in order, and whether it was told again."""
        rows = await self.outbox.fetch(Lane.A, 0, 100)
        data = [(row.noun, json.loads(row.body)["data"]) for row in rows]
        return [(noun, one["state"], one.get("retold", False)) for noun, one in data]


@pytest.fixture
async def centre(tmp_path: Path) -> AsyncIterator[Centre]:
    made = Centre(tmp_path)
    await made.begin()
    yield made
    await made.end()


async def test_an_acknowledgement_of_before_does_not_silence_an_alarm_that_was_raised_again(centre: Centre) -> None:
    first = centre.book.raise_alarm(CALL)
    await centre.store(first)
    await centre.store(centre.book.acknowledge(first.alarm.id, "nurse", NOW))
    await centre.break_and_begin()
    await centre.store(centre.book.raise_alarm(CALL))
    await centre.rescue()
    assert await centre.told() == [
        ("alarm.raised", "ACTIVE", False), ("alarm.raised", "ACTIVE", False), ("alarm.acknowledged", "ACKED", False),
        ("alarm.raised", "ACTIVE", True),
    ]  # fmt: skip
    assert centre.announced == []


async def test_a_call_of_before_does_not_reopen_an_alarm_that_was_closed(centre: Centre) -> None:
    first = centre.book.raise_alarm(CALL)
    await centre.store(first)
    await centre.break_and_begin()
    await centre.store(centre.book.close(first.alarm.id, "nurse", "helped", at=NOW))
    await centre.rescue()
    assert await centre.told() == [
        ("alarm.closed", "CLOSED", False), ("alarm.raised", "ACTIVE", False), ("alarm.closed", "CLOSED", True),
    ]  # fmt: skip
    tally = centre.outbox.totals().tally
    assert tally.closed == 1, "told twice, and counted once"


@pytest.mark.parametrize(("is_acked", "state"), [(False, "ACTIVE"), (True, "ACKED")])
async def test_an_alarm_whose_state_was_destroyed_rings_again_by_its_event(
    centre: Centre, is_acked: bool, state: str
) -> None:
    first = centre.book.raise_alarm(CALL)
    await centre.store(first)
    if is_acked:
        await centre.store(centre.book.acknowledge(first.alarm.id, "nurse", NOW))
    await centre.break_and_begin("alarm")
    assert centre.book.open_count == 0
    await centre.rescue()
    assert centre.announced == [first.alarm.id]
    [alarm] = centre.book.listed(NOW, with_closed=False)
    assert (alarm["id"], alarm["state"], alarm["room"]) == (first.alarm.id, state, "201")
    assert [(row.id, row.is_open) for row in await centre.outbox.alarms()] == [(first.alarm.id, True)]
    assert len(await centre.told()) == 1 + is_acked, "its own events are there: nothing is told a second time"


async def test_an_alarm_that_was_closed_before_its_state_was_destroyed_stays_closed(centre: Centre) -> None:
    first = centre.book.raise_alarm(CALL)
    await centre.store(first)
    await centre.store(centre.book.close(first.alarm.id, "nurse", "helped", at=NOW))
    await centre.break_and_begin("alarm")
    await centre.rescue()
    assert (centre.announced, centre.book.open_count) == ([], 0)


async def test_presses_go_on_counting_for_the_alarm_that_was_raised_since(centre: Centre) -> None:
    first = centre.book.raise_alarm(CALL)
    await centre.store(first)
    await centre.break_and_begin("alarm")
    since = centre.book.raise_alarm(CALL)
    await centre.store(since)
    await centre.rescue()
    assert centre.announced == [first.alarm.id]
    assert centre.book.open_count == 2
    again = centre.book.raise_alarm(replace(CALL, code="again"))
    assert (again.alarm.id, again.alarm.presses) == (since.alarm.id, 2)


async def test_what_cannot_be_read_as_an_alarm_stops_nothing(centre: Centre) -> None:
    good = centre.book.raise_alarm(CALL)
    assert good.event is not None
    bodies = ("", "no JSON", "[]", "{}", '{"data": {"kind": 1}}')
    odd = [replace(good.event, correlation=f"odd {body}", body=body) for body in bodies]
    centre.book = AlarmBook(ORIGIN, ["district"])
    settle_alarms(
        [*odd, good.event], book=centre.book, outbox=centre.outbox, clock=centre,
        announce=lambda change: centre.announced.append(change.alarm.id),
    )  # fmt: skip
    assert centre.announced == [good.alarm.id]

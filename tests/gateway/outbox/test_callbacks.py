"""A callback that raises: everybody else is told all the same, and the store goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.errors import StoreError
from gateway.events import Lane
from gateway.outbox import Outbox, Write
from gateway.outbox.store import Store

Maker = Callable[..., Any]
BUG = KeyError("whoever waits has a bug")


@pytest.fixture(autouse=True)
def _unprinted() -> Iterator[None]:
    """A traceback drawn for a person, locals and all, takes seconds of the event loop on a busy machine."""
    with capture_logs():
        yield


def raises(*_args: object) -> None:
    raise BUG


def running(shelf: Any) -> bool:
    task: asyncio.Task[None] = shelf.running
    return not task.done()


async def test_whoever_raises_at_a_commit_keeps_nobody_else_from_being_told(
    closed_shelf: Any, write: Maker, alarm: Maker
) -> None:
    outbox: Outbox = await closed_shelf.open(running=False)
    told: list[int] = []
    bugs: list[Exception] = []
    outbox.on_bug = bugs.append
    outbox.submit(replace(write(), on_commit=raises))
    outbox.submit(replace(write(), on_commit=lambda rows: told.append(rows[0].seq)))
    closed_shelf.run()
    assert await outbox.flush(10)
    outbox.submit(replace(alarm(), on_commit=raises))
    outbox.submit(replace(write(), on_commit=lambda rows: told.append(rows[0].seq)))
    assert await outbox.flush(10)
    assert (told, bugs, outbox.untold, running(closed_shelf)) == ([2, 4], [BUG, BUG], 2, True)
    assert (await outbox.status())["untold"] == 2
    assert [row.noun for row in await outbox.fetch(Lane.A, 0, 9)] == ["alarm.raised"]


async def test_rows_of_a_commit_count_as_stored_before_a_callback_can_raise(closed_shelf: Any, alarm: Maker) -> None:
    outbox: Outbox = await closed_shelf.open()
    outbox.submit(replace(alarm(), on_commit=raises))
    assert await outbox.flush(10)
    assert outbox.alarms_pending("district")


@pytest.mark.parametrize("name", ["on_stored", "on_bug"])
async def test_no_callback_of_the_outbox_ends_its_commits(closed_shelf: Any, write: Maker, name: str) -> None:
    outbox: Outbox = await closed_shelf.open()
    setattr(outbox, name, raises)
    for _ in range(3):
        outbox.submit(replace(write(), on_commit=raises if name == "on_bug" else None))
        assert await outbox.flush(10)
    assert (running(closed_shelf), closed_shelf.sequences()) == (True, [1, 2, 3])


async def test_who_is_told_of_a_bad_write_may_raise(closed_shelf: Any, write: Maker, event: Maker) -> None:
    outbox: Outbox = await closed_shelf.open()
    outbox.submit(Write((replace(event(), body=object()),), on_failed=raises))
    outbox.submit(write())
    assert await outbox.flush(10)
    assert (outbox.poisoned, outbox.untold, closed_shelf.sequences()) == (1, 1, [1])


async def test_a_trouble_that_cannot_be_told_is_tried_again_like_any_other(
    closed_shelf: Any, write: Maker, when: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox: Outbox = await closed_shelf.open()
    outbox.on_trouble = raises
    commit, failures = Store.commit, [StoreError("GW-STO-03", "", path="", detail="full")]

    def once(self: Store, *args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return commit(self, *args, **kwargs)

    monkeypatch.setattr(Store, "commit", once)
    outbox.submit(write())
    assert await outbox.flush(10)
    await when(lambda: outbox.untold == 2)  # that it fails, and that it does not any more
    assert (running(closed_shelf), closed_shelf.sequences()) == (True, [1])


async def test_a_count_that_meets_a_bug_is_told_and_goes_on(
    closed_shelf: Any, write: Maker, when: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended without a word it would keep every row on the disk for ever."""
    monkeypatch.setattr("gateway.outbox.stock.COUNT_STEP", 2)
    monkeypatch.setattr("gateway.outbox.outbox.COUNT_LOOK_S", 0.01)
    outbox: Outbox = await closed_shelf.open()
    for _ in range(5):
        outbox.submit(write())
    assert await outbox.flush(10)
    await closed_shelf.close()
    outbox = await closed_shelf.open(running=False)
    bugs: list[Exception] = []
    outbox.on_bug = bugs.append
    count, stock = outbox.stock.note_counted, outbox.stock

    def once(*args: Any) -> None:
        monkeypatch.setattr(stock, "note_counted", count)
        raise BUG

    monkeypatch.setattr(stock, "note_counted", once)
    closed_shelf.run()
    await when(lambda: outbox.is_counted)
    assert bugs == [BUG]

"""What a platform refused: found, and sent again with its id, behind everything else, to nobody but that platform."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.errors import ControlError
from gateway.events import Lane
from gateway.outbox import DeadLetter, DeadLetters, Route
from gateway.outbox.dead_letters import event_of

Maker = Callable[..., Any]


@pytest.fixture
def refused(closed_shelf: Any) -> Callable[..., Any]:
    """Store writes; the province refuses those of them that are named by their place."""

    async def do(*writes: Any, by: str = "province", which: tuple[int, ...] = (0,)) -> tuple[DeadLetters, list[Any]]:
        if not closed_shelf.is_open:
            closed_shelf.routes = [Route("district", ("*",)), Route("province", ("*",))]
            await closed_shelf.open()
        outbox = closed_shelf.outbox
        first = outbox.sequence
        await closed_shelf.store(*writes)
        rows = [row for lane in Lane for row in await outbox.fetch(lane, first, 1000)]
        rows.sort(key=lambda row: row.seq)
        for at in which:
            outbox.dead_letter(DeadLetter(by, rows[at], "schema", "no such room", 1_000 + at))
        assert await outbox.flush(10)
        return DeadLetters(outbox, closed_shelf.clock), rows

    return do


async def test_a_requeued_event_keeps_its_id_and_goes_behind_to_the_one_that_refused_it(
    refused: Maker, alarm: Maker, closed_shelf: Any
) -> None:
    letters, rows = await refused(alarm("call-1"), alarm("call-2"), alarm("call-1"))
    assert await letters.requeue(rows[0].id) == 1
    [again] = await closed_shelf.outbox.fetch(Lane.A, 3, 10)
    assert (again.id, again.seq, again.device, again.body) == (rows[0].id, 4, "call-1", rows[0].body)
    assert again.at == rows[0].at
    assert again.route == {"province": 4}
    assert closed_shelf.sql("SELECT count(*) FROM dead_letter") == [(0,)]
    assert closed_shelf.outbox.pending("province")["A"] == 4
    assert closed_shelf.outbox.pending("district")["A"] == 3
    assert letters.requeued == 1


async def test_everything_of_a_destination_goes_again_in_its_order(
    refused: Maker, write: Maker, closed_shelf: Any
) -> None:
    letters, rows = await refused(*(write(device=f"m{n % 7}") for n in range(250)), which=tuple(range(0, 250, 2)))
    assert await letters.requeue_all("province", upto=250) == (100, 25)
    assert await letters.requeue_all("province", upto=250) == (25, 0)
    again = await closed_shelf.outbox.fetch(Lane.C, 250, 1000)
    assert [row.id for row in again] == [row.id for row in rows[::2]]
    assert [row.route["province"] for row in again] == list(range(251, 376))


async def test_what_was_refused_after_the_command_is_left_alone(
    refused: Maker, write: Maker, closed_shelf: Any
) -> None:
    letters, _ = await refused(write(), write(), which=(0, 1))
    assert await letters.requeue_all("province", upto=1) == (1, 0)
    assert [one.seq for one in await letters.listed("province")] == [2]


async def test_a_long_list_goes_in_parts_and_says_how_many_are_left(
    refused: Maker, write: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.dead_letters.MOST_AT_ONCE", 3)
    letters, _ = await refused(*(write() for _ in range(5)), which=(0, 1, 2, 3, 4))
    assert await letters.requeue_all("province", upto=5) == (3, 2)
    assert await letters.requeue_all("province", upto=5) == (2, 0)
    assert await letters.requeue_all("province", upto=5) == (0, 0)


async def test_no_more_alarms_are_requeued_than_a_new_one_may_wait_behind(
    refused: Maker, alarm: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.dead_letters.MOST_AT_ONCE", 5)
    letters, _ = await refused(*(alarm(f"call-{n}") for n in range(4)), which=(0, 1, 2, 3))
    assert await letters.requeue_all("province", upto=4) == (1, 3)  # four wait already
    assert await letters.requeue_all("province", upto=4) == (0, 3)


async def test_two_that_ask_at_once_send_it_once(refused: Maker, write: Maker, closed_shelf: Any) -> None:
    letters, rows = await refused(write())
    counts = await asyncio.gather(
        letters.requeue_all("province", upto=9), letters.requeue_all("province", upto=9), return_exceptions=True
    )
    assert sorted(counts) == [(0, 0), (1, 0)]
    assert [row.id for row in await closed_shelf.outbox.fetch(Lane.C, 1, 10)] == [rows[0].id]


async def test_a_request_that_was_given_up_is_not_done_twice(refused: Maker, write: Maker, closed_shelf: Any) -> None:
    letters, rows = await refused(write())
    closed_shelf.running.cancel()  # the disk takes nothing for now
    await asyncio.wait({closed_shelf.running})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await letters.requeue(rows[0].id)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await closed_shelf.outbox.flush(10)
    assert await letters.requeue(rows[0].id) == 0
    closed_shelf.run()
    assert await closed_shelf.outbox.flush(10)
    assert [row.id for row in await closed_shelf.outbox.fetch(Lane.C, 1, 10)] == [rows[0].id]


async def test_after_a_restart_the_requeued_event_still_waits_and_no_letter_is_left(
    refused: Maker, alarm: Maker, closed_shelf: Any
) -> None:
    letters, rows = await refused(alarm())
    await letters.requeue(rows[0].id)
    await closed_shelf.kill()
    assert await closed_shelf.outbox.dead_letters() == []
    assert closed_shelf.outbox.pending("province")["A"] == 2
    [again] = await closed_shelf.outbox.fetch(Lane.A, 1, 10)
    assert (again.seq, again.route) == (2, {"province": 2})


async def test_an_event_that_two_destinations_refused_is_found_by_both_and_requeued_for_one_that_is_named(
    refused: Maker, write: Maker
) -> None:
    letters, rows = await refused(write())
    outbox = letters._outbox
    outbox.dead_letter(DeadLetter("district", rows[0], "E7", "why", 5))
    assert await outbox.flush(10)
    assert [one.destination for one in await letters.found(rows[0].id)] == ["province", "district"]
    assert await letters.requeue(rows[0].id, "district") == 1
    assert [one.destination for one in await letters.found(rows[0].id)] == ["province"]


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [("1234567", "@refusal.too-short"), ("12345678", "@refusal.unknown-letter"), ("%%%%%%%%", "@refusal.unknown-letter")],
)  # fmt: skip
async def test_an_id_that_names_none_is_refused(refused: Maker, write: Maker, prefix: str, reason: str) -> None:
    letters, _ = await refused(write())
    with pytest.raises(ControlError) as refusal:
        await letters.found(prefix)
    assert refusal.value.facts["reason"] == reason


async def test_the_beginning_of_an_id_that_fits_two_is_refused(refused: Maker, write: Maker) -> None:
    letters, rows = await refused(write(), write(), which=(0, 1))
    with pytest.raises(ControlError) as refusal:  # made within the same second
        await letters.found(rows[0].id[:8])
    assert refusal.value.facts["reason"] == "@refusal.ambiguous-letter"


async def test_nothing_is_requeued_while_the_disk_fails(refused: Maker, write: Maker, closed_shelf: Any) -> None:
    letters, rows = await refused(write())
    closed_shelf.outbox._is_failing = True
    with pytest.raises(ControlError) as refusal:
        await letters.requeue(rows[0].id)
    assert refusal.value.facts == {"reason": "@refusal.not-stored", "count": 0}
    closed_shelf.outbox._is_failing = False
    assert await letters.requeue(rows[0].id) == 1


async def test_a_destination_that_is_not_configured_gets_nothing_and_nobody_else_either(
    refused: Maker, write: Maker, closed_shelf: Any
) -> None:
    letters, rows = await refused(write(), by="gone")
    with pytest.raises(ControlError):
        await letters.requeue(rows[0].id)
    assert closed_shelf.sql("SELECT count(*) FROM event_c") == [(1,)]
    assert [one.destination for one in await letters.listed()] == ["gone"]


async def test_a_body_that_is_no_event_happened_now(refused: Maker, write: Maker) -> None:
    letters, _ = await refused(write())
    [letter] = await letters.listed()
    now = Stamp(5, 6, "boot-9", "synced")
    assert event_of(letter, now).at == Stamp(1_800_000_000_000, 1_000_000, "boot-1", "synced")
    object.__setattr__(letter, "body", "{")
    assert event_of(letter, now).at == now

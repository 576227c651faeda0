"""The outbox: alarms first, nothing forgotten, nothing confirmed before its time, and a disk that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.events import Lane
from gateway.outbox import DeadLetter, Mark, Number, NumberState, Route, Write
from gateway.outbox import intake as intake_module
from gateway.outbox import linger as linger_module
from gateway.outbox import outbox as outbox_module
from gateway.outbox.intake import MAX_QUEUED, MAX_QUEUED_STATUS

Maker = Callable[..., Any]
Ranges = list[tuple[int, int]]


def nothing_ahead() -> Ranges:
    return []


def confirm(shelf: Any, lane: Lane, seq: int, *, done: int = 0, destination: str = "district") -> None:
    shelf.outbox.confirm(destination, lane, seq=seq, ahead=nothing_ahead, done=done)


# Storing.


async def test_what_is_told_durable_is_in_the_file(shelf: Any, write: Maker) -> None:
    seen: list[tuple[list[int], list[int]]] = []
    shelf.outbox.submit(
        replace(write(), on_commit=lambda rows: seen.append(([row.seq for row in rows], shelf.sequences())))
    )
    assert await shelf.outbox.flush(10)
    assert seen == [([1], [1])]


async def test_an_alarm_behind_20000_readings_is_in_the_next_commit(
    closed_shelf: Any, write: Maker, alarm: Maker
) -> None:
    outbox = await closed_shelf.open(running=False)
    order: list[str] = []
    for _ in range(MAX_QUEUED):
        assert outbox.submit(replace(write(), on_commit=lambda _rows: order.append("reading")))
    assert outbox.submit(replace(alarm(), on_commit=lambda _rows: order.append("alarm")))
    await outbox._commit_once()
    assert order[0] == "alarm"
    assert [row.seq for row in await outbox.fetch(Lane.A, 0, 9)] == [1]
    closed_shelf.run()
    assert await outbox.flush(30)
    assert (outbox.sequence, len(order)) == (20_001, 20_001)


async def test_what_waits_is_committed_together(closed_shelf: Any, write: Maker) -> None:
    outbox = await closed_shelf.open(running=False)
    for _ in range(600):
        outbox.submit(write())
    sequences = []
    for _ in range(3):
        await outbox._commit_once()
        sequences.append(outbox.sequence)
    assert sequences == [250, 500, 600]


async def test_beyond_the_bound_readings_are_refused_and_counted_alarms_and_status_are_not(
    closed_shelf: Any, write: Maker, alarm: Maker
) -> None:
    outbox = await closed_shelf.open(running=False)
    assert all(outbox.submit(write()) for _ in range(20_000))
    assert not outbox.submit(write())
    assert not outbox.submit(Write(marks=(Mark("m1", "k", "v"),)))
    assert outbox.refused == 2
    assert outbox.submit(write("gateway.gap"))
    assert outbox.submit(write("alarm.raised"))
    assert outbox.submit(alarm())
    assert (outbox.refused, outbox.waiting) == (2, 20_003)


async def test_even_status_is_bounded_alarms_never_are(
    closed_shelf: Any, write: Maker, alarm: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_QUEUED_STATUS == 100_000
    monkeypatch.setattr(intake_module, "MAX_QUEUED_STATUS", 50)
    outbox = await closed_shelf.open(running=False)
    assert [outbox.submit(write("gateway.gap")) for _ in range(52)] == [True] * 50 + [False] * 2
    assert all(outbox.submit(alarm()) for _ in range(50))


async def test_the_order_of_submission_is_the_order_of_the_sequence(shelf: Any, write: Maker) -> None:
    order: list[tuple[int, int]] = []

    def note(n: int) -> Callable[[Any], None]:
        return lambda rows: order.append((n, rows[0].seq))

    for n in range(1, 2101):
        shelf.outbox.submit(replace(write(), on_commit=note(n)))
        if n % 300 == 0:
            await asyncio.sleep(0)
    assert await shelf.outbox.flush(10)
    assert order == [(n, n) for n in range(1, 2101)]


async def test_a_number_is_durable_exactly_from_its_commit_on(closed_shelf: Any, event: Maker) -> None:
    outbox = await closed_shelf.open(running=False)
    outbox.submit(Write((event(),), numbers=(Number("m1", "s", 5),)))
    assert outbox.number_state("m1", "s", 5) is NumberState.NEW
    await outbox._commit_once()
    assert outbox.number_state("m1", "s", 5) is NumberState.DURABLE
    outbox = await closed_shelf.kill()
    assert outbox.number_state("m1", "s", 5) is NumberState.DURABLE
    assert outbox.number_state("m1", "s", 4) is NumberState.NEW


async def test_what_was_not_committed_is_gone_after_a_crash_with_its_number(closed_shelf: Any, event: Maker) -> None:
    outbox = await closed_shelf.open(running=False)
    outbox.submit(Write((event(),), marks=(Mark("m1", "k", "v"),), numbers=(Number("m1", "s", 5),)))
    outbox = await closed_shelf.kill()
    assert (outbox.sequence, outbox.number_state("m1", "s", 5), await outbox.marks()) == (0, NumberState.NEW, [])


async def test_the_oldest_thing_that_waits_is_found_wherever_it_waits(
    closed_shelf: Any, write: Maker, alarm: Maker
) -> None:
    outbox = await closed_shelf.open(running=False)

    def oldest() -> int | None:
        at = outbox.oldest_waiting
        return at.mono_ms if at else None

    outbox.submit(Write(marks=(Mark("m1", "k", "v"),)))
    assert oldest() is None
    outbox.submit(write(mono_ms=500))
    outbox.submit(write(mono_ms=600))
    outbox.submit(alarm(mono_ms=700))
    assert oldest() == 500
    outbox._intake.gather(2)
    outbox.submit(write(mono_ms=800))
    assert oldest() == 500


async def test_flush_waits_for_what_was_there_and_not_for_what_keeps_coming(shelf: Any, write: Maker) -> None:
    """While a platform confirms a backlog there is always something to write: the end of the gateway must not wait for it."""
    await shelf.store(write(), write())
    stop = asyncio.Event()

    async def keep_confirming() -> None:
        while not stop.is_set():
            confirm(shelf, Lane.C, 1)
            await asyncio.sleep(0)

    confirming = asyncio.create_task(keep_confirming())
    assert await shelf.outbox.flush(5)
    stop.set()
    await confirming


async def test_flush_tells_that_time_ran_out(closed_shelf: Any, write: Maker) -> None:
    outbox = await closed_shelf.open(running=False)
    outbox.submit(write())
    assert not await outbox.flush(0.01)


# Reading back.


async def test_memory_and_disk_tell_the_same(shelf: Any, write: Maker) -> None:
    await shelf.store(*(write(device=f"m{n % 7}") for n in range(2600)))
    for after, limit in [(0, 10), (595, 10), (600, 10), (2590, 100), (2600, 10), (0, 2600)]:
        rows = await shelf.outbox.fetch(Lane.C, after, limit)
        assert [row.seq for row in rows] == list(range(after + 1, min(2600, after + limit) + 1))
        assert rows == shelf.outbox._store.reader.fetch(Lane.C, after, limit)


async def test_fetch_after_a_restart_reads_the_disk(shelf: Any, write: Maker) -> None:
    for noun in ("alarm.raised", "telemetry.meter", "alarm.closed"):
        await shelf.store(write(noun))
    outbox = await shelf.reopen()
    assert [row.seq for row in await outbox.fetch(Lane.A, 0, 10)] == [1, 3]
    assert outbox.last(Lane.A) == 3
    await shelf.store(write("alarm.raised"))
    assert [row.seq for row in await outbox.fetch(Lane.A, 0, 10)] == [1, 3, 4]
    assert [row.seq for row in await outbox.fetch(Lane.A, 3, 10)] == [4]


# Confirmations and leaving.


async def test_a_row_leaves_when_every_destination_has_it(closed_shelf: Any, write: Maker) -> None:
    closed_shelf.routes = [Route("one", ("*",)), Route("two", ("*",))]
    await closed_shelf.open()
    await closed_shelf.store(*(write() for _ in range(4)))
    confirm(closed_shelf, Lane.C, 4, done=4, destination="one")
    assert await closed_shelf.outbox.flush(10)
    assert closed_shelf.sequences() == [1, 2, 3, 4]
    confirm(closed_shelf, Lane.C, 3, done=3, destination="two")
    assert await closed_shelf.outbox.flush(10)
    assert closed_shelf.sequences() == [4]
    assert (await closed_shelf.outbox.status())["rows"] == {"A": 0, "B": 0, "C": 1, "D": 0}
    assert closed_shelf.outbox.pending("two") == {"A": 0, "B": 0, "C": 1, "D": 0}


async def test_rows_leave_only_when_it_is_durable_that_everybody_has_them_also_who_never_waited_for_them(
    closed_shelf: Any, write: Maker
) -> None:
    closed_shelf.routes = [Route("one", ("*",)), Route("two", ("alarm.*",))]
    await closed_shelf.open()
    await closed_shelf.store(*(write() for _ in range(4)))
    confirm(closed_shelf, Lane.C, 3, done=3, destination="one")
    assert await closed_shelf.outbox.flush(10)
    assert closed_shelf.sequences() == [4]
    query = "SELECT destination, seq FROM cursor WHERE lane = 2 ORDER BY destination"
    assert closed_shelf.sql(query) == [("one", 3), ("two", 4)]


async def test_confirmations_are_written_although_nothing_else_is_stored(
    shelf: Any, write: Maker, when: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linger_module, "CURSOR_LINGER_S", 0.01)
    await shelf.store(write(), write())
    confirm(shelf, Lane.C, 2, done=2)
    await when(lambda: shelf.sql("SELECT seq FROM cursor WHERE lane = 2") == [(2,)])
    assert shelf.sequences() == []


async def test_a_long_backlog_that_was_confirmed_leaves_step_by_step(
    shelf: Any, write: Maker, when: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linger_module, "CURSOR_LINGER_S", 0.01)
    monkeypatch.setattr("gateway.outbox.committing.DELETE_PAUSE_S", 0.01)
    await shelf.store(*(write() for _ in range(2200)))
    confirm(shelf, Lane.C, 2100, done=2100)
    await when(lambda: shelf.outbox._stock.rows[Lane.C] == 100)
    assert shelf.sequences() == list(range(2101, 2201))


async def test_what_is_pending_is_known_after_a_restart(closed_shelf: Any, write: Maker, alarm: Maker) -> None:
    closed_shelf.routes = [Route("all", ("*",)), Route("meters", ("telemetry.meter",))]
    await closed_shelf.open()
    await closed_shelf.store(alarm(), write(), write("telemetry.environment"), write(), write("gateway.gap"))
    closed_shelf.outbox.confirm("all", Lane.C, seq=0, ahead=lambda: [(3, 4)], done=2)
    outbox = await closed_shelf.reopen()
    assert outbox.pending("all") == {"A": 1, "B": 1, "C": 1, "D": 0}
    assert outbox.pending("meters") == {"A": 0, "B": 0, "C": 2, "D": 0}
    assert outbox.cursor("all", Lane.C) == (0, [(3, 4)])
    assert outbox.alarms_pending("all")
    assert not outbox.alarms_pending("meters")


async def test_every_alarm_that_is_pending_is_known_however_many_there_are(closed_shelf: Any, alarm: Maker) -> None:
    """One that was passed over would be shown to the staff as accepted."""
    outbox = await closed_shelf.open()
    writes = [alarm(f"call-{n}") for n in range(2_101)]
    await closed_shelf.store(*writes)
    confirm(closed_shelf, Lane.A, 3, done=3)
    outbox = await closed_shelf.reopen()
    pending = await outbox.pending_alarm_ids("district")
    assert pending == {write.events[0].id for write in writes[3:]}


async def test_a_dead_letter_is_durable_no_later_than_the_confirmation_of_its_row(
    closed_shelf: Any, write: Maker, alarm: Maker
) -> None:
    """Were the confirmation first, a crash between both would make the event vanish without a trace."""
    outbox = await closed_shelf.open()
    await closed_shelf.store(write())
    [row] = await outbox.fetch(Lane.C, 0, 1)
    closed_shelf.running.cancel()
    await asyncio.wait({closed_shelf.running})
    for _ in range(300):
        outbox.submit(alarm())
    outbox.dead_letter(DeadLetter("district", row, "unwanted", "refused by the platform", 7))
    confirm(closed_shelf, Lane.C, 1, done=1)
    await outbox._commit_once()
    assert closed_shelf.sql("SELECT seq FROM dead_letter") == []
    assert (closed_shelf.sql("SELECT seq FROM cursor"), 1 in closed_shelf.sequences()) == ([], True)
    await outbox._commit_once()
    assert closed_shelf.sql("SELECT seq, code FROM dead_letter") == [(1, "unwanted")]
    assert (closed_shelf.sql("SELECT seq FROM cursor WHERE lane = 2"), 1 in closed_shelf.sequences()) == (
        [(251,)],
        True,
    )
    await outbox._commit_once()  # without alarms: what may leave does
    assert 1 not in closed_shelf.sequences()


async def test_the_commit_of_an_alarm_deletes_nothing_and_what_may_leave_goes_soon_after(
    closed_shelf: Any, write: Maker, alarm: Maker
) -> None:
    """Five hundred rows that leave make a commit several times as long: a call would wait for that."""
    outbox = await closed_shelf.open()
    await closed_shelf.store(write(), write())
    confirm(closed_shelf, Lane.C, 2, done=2)
    await closed_shelf.store(alarm())
    assert closed_shelf.sequences() == [1, 2, 3]
    async with asyncio.timeout(5):
        while closed_shelf.sequences() != [3]:
            await asyncio.sleep(0.01)
    assert outbox.pending("district")["A"] == 1


async def test_dead_letters_are_never_refused(closed_shelf: Any, write: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "MAX_QUEUED", 500)
    outbox = await closed_shelf.open()
    await closed_shelf.store(write())
    [row] = await outbox.fetch(Lane.C, 0, 1)
    closed_shelf.running.cancel()
    await asyncio.wait({closed_shelf.running})
    for _ in range(500):
        outbox.submit(write())
    outbox.dead_letter(DeadLetter("district", row, "unwanted", "why", 7))
    await outbox._commit_once()
    assert [one.seq for one in await outbox.dead_letters()] == [1]


# The backlog.


async def lane_of(shelf: Any, write: Write) -> str:
    [seq] = await shelf.store(write)
    return next(lane for lane in "abcd" if shelf.sql(f"SELECT 1 FROM event_{lane} WHERE seq = ?", seq))  # noqa: S608


async def test_a_device_with_a_backlog_puts_new_telemetry_behind_it(shelf: Any, write: Maker) -> None:
    live = False
    shelf.outbox.live = lambda: live
    assert await lane_of(shelf, write()) == "d"
    live = True
    assert await lane_of(shelf, write()) == "d"
    assert await lane_of(shelf, write(device="m2")) == "c"
    confirm(shelf, Lane.D, 1, done=1)
    assert await lane_of(shelf, write()) == "d"
    confirm(shelf, Lane.D, 4, done=2)
    assert await lane_of(shelf, write()) == "c"


async def test_alarms_and_status_never_go_to_the_backlog(shelf: Any, write: Maker) -> None:
    shelf.outbox.live = lambda: False
    assert [await lane_of(shelf, write(noun)) for noun in ("alarm.raised", "gateway.gap", "bed.occupancy")] == [*"abd"]


async def test_after_a_restart_only_devices_with_an_unconfirmed_backlog_are_behind(shelf: Any, write: Maker) -> None:
    shelf.outbox.live = lambda: False
    await shelf.store(write(device="done"), write(device="behind"))
    confirm(shelf, Lane.D, 1, done=1)
    await shelf.reopen()
    assert await lane_of(shelf, write(device="behind")) == "d"
    assert await lane_of(shelf, write(device="done")) == "c"


async def test_a_refused_reading_does_not_leave_its_device_behind(
    closed_shelf: Any, write: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "MAX_QUEUED", 500)
    outbox = await closed_shelf.open(running=False)
    outbox.live = lambda: False
    for _ in range(500):
        outbox.submit(write(device="m1"))
    assert not outbox.submit(write(device="m2"))
    outbox.live = lambda: True
    closed_shelf.run()
    assert await outbox.flush(30)
    assert await lane_of(closed_shelf, write(device="m2")) == "c"


# Epochs.


async def test_epochs_count_on_over_restarts_and_by_destination(closed_shelf: Any) -> None:
    closed_shelf.routes = [Route("one", ("*",)), Route("two", ("*",))]
    outbox = await closed_shelf.open()
    assert [await outbox.next_epoch(name) for name in ("one", "one", "two")] == [1, 2, 1]
    outbox = await closed_shelf.kill()
    assert [await outbox.next_epoch(name) for name in ("one", "two")] == [3, 2]


async def test_a_disk_that_fails_does_not_keep_a_destination_from_connecting(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "EPOCH_LIMIT_S", 0.01)
    shelf.outbox._store._writer.execute("PRAGMA query_only=ON")
    assert [await shelf.outbox.next_epoch("district") for _ in range(3)] == [1, 2, 3]
    shelf.outbox._store._writer.execute("PRAGMA query_only=OFF")
    outbox = await shelf.reopen()
    assert await outbox.next_epoch("district") == 4


async def test_an_epoch_does_not_wait_behind_a_full_queue(
    closed_shelf: Any, write: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "MAX_QUEUED", 500)
    outbox = await closed_shelf.open(running=False)
    for _ in range(500):
        outbox.submit(write())
    epoch = asyncio.create_task(outbox.next_epoch("district"))
    await asyncio.sleep(0)
    await outbox._commit_once()
    assert closed_shelf.sql("SELECT value FROM fact WHERE key = 'epoch:district'") == [("1",)]
    assert await epoch == 1


async def test_the_figures_of_the_status_are_of_one_moment(
    shelf: Any, write: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored while the disk is asked would look as if it waited for somebody."""
    outbox = shelf.outbox
    outbox.stock.retain = 1_000  # what was delivered stays a while
    await shelf.store(write("alarm.raised"))
    outbox.confirm("district", Lane.A, seq=1, ahead=list, done=1)
    read = outbox.read

    async def slow(work: Callable[..., Any]) -> Any:
        await shelf.store(write("alarm.raised"))
        return await read(work)

    monkeypatch.setattr(outbox, "read", slow)
    status = await outbox.status()
    assert (status["sequence"], status["kept"], status["rows"]["A"]) == (1, 1, 0)

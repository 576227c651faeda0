"""The outbox: alarms first, nothing forgotten, nothing confirmed before its time, and a disk that fails."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.errors import StoreError
from gateway.events import Lane
from gateway.outbox import DeadLetter, Mark, Number, NumberState, Route, Write
from gateway.outbox import intake as intake_module
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


async def test_confirmations_are_written_although_nothing_else_is_stored(
    shelf: Any, write: Maker, when: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "CURSOR_LINGER_S", 0.01)
    await shelf.store(write(), write())
    confirm(shelf, Lane.C, 2, done=2)
    await when(lambda: shelf.sql("SELECT seq FROM cursor") == [(2,)])
    assert shelf.sequences() == []


async def test_a_long_backlog_that_was_confirmed_leaves_step_by_step(
    shelf: Any, write: Maker, when: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "CURSOR_LINGER_S", 0.01)
    monkeypatch.setattr(outbox_module, "DELETE_PAUSE_S", 0.01)
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
    assert (closed_shelf.sql("SELECT seq FROM cursor"), 1 in closed_shelf.sequences()) == ([(1,)], False)


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
    assert [one["sequence"] for one in await outbox.dead_letters()] == [1]


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


# Trouble with the disk.


@pytest.fixture
def disk_fails() -> Iterator[Callable[[bool], None]]:
    """Let every write of this process beyond the first 16 KiB of a file fail with a real EFBIG, or work again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fail(failing: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_384 if failing else soft, hard))

    yield fail
    fail(failing=False)


async def test_a_full_disk_loses_nothing_and_is_told_until_it_has_room(
    shelf: Any, write: Maker, alarm: Maker, when: Maker
) -> None:
    await shelf.store(write())
    writer = shelf.outbox._store._writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count={pages}")
    for _ in range(50):
        shelf.outbox.submit(write(text="x" * 1000))
    shelf.outbox.submit(alarm(text="x" * 5000))
    await when(lambda: "GW-STO-03" in shelf.troubles)
    assert (shelf.sequences(), shelf.outbox.waiting) == ([1], 51)
    writer.execute("PRAGMA max_page_count=1000000")
    assert await shelf.outbox.flush(10)
    assert shelf.sequences() == list(range(1, 53))
    assert shelf.troubles[-1] is None


def mounted(folder: Path, options: str) -> bool:
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], bool]]]:
    """A file system of 1 MiB, and how to make it larger. Only root may have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not mounted(folder, "size=1m"):
        pytest.skip("a file system of its own needs root and the right to mount")
    try:
        yield folder, lambda: mounted(folder, "remount,size=16m")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_file_system_that_is_really_full_gives_what_it_holds_and_takes_the_rest_when_it_has_room(
    small_disk: tuple[Path, Callable[[], bool]], closed_shelf: Any, write: Maker, when: Maker
) -> None:
    folder, make_room = small_disk
    closed_shelf.path = folder / "outbox.db"
    outbox = await closed_shelf.open()
    for _ in range(3000):
        outbox.submit(write(text="x" * 300))
    await when(lambda: "GW-STO-03" in closed_shelf.troubles)
    stored = outbox.sequence
    assert [row.seq for row in await outbox.fetch(Lane.C, 0, 3000)] == list(range(1, stored + 1))
    assert outbox.waiting + stored == 3000
    assert make_room()
    assert await outbox.flush(10)
    assert closed_shelf.sequences() == list(range(1, 3001))
    assert (closed_shelf.troubles[-1], outbox.poisoned, outbox.refused) == (None, 0, 0)
    await closed_shelf.close()


async def test_a_disk_that_errs_is_tried_again_and_each_write_is_stored_once(
    shelf: Any, write: Maker, when: Maker, disk_fails: Callable[[bool], None]
) -> None:
    told: list[int] = []
    await shelf.store(*(write() for _ in range(20)))
    disk_fails(True)
    for _ in range(5):
        shelf.outbox.submit(replace(write(), on_commit=lambda rows: told.append(rows[0].seq)))
    await when(lambda: "GW-STO-01" in shelf.troubles or "GW-STO-03" in shelf.troubles)
    assert (told, shelf.outbox.poisoned) == ([], 0)
    disk_fails(False)
    assert await shelf.outbox.flush(10)
    assert told == [21, 22, 23, 24, 25]
    assert shelf.sequences() == list(range(1, 26))
    assert (shelf.troubles[-1], shelf.outbox.poisoned) == (None, 0)


async def test_a_disk_that_may_not_be_written_still_gives_what_it_holds(shelf: Any, write: Maker, when: Maker) -> None:
    await shelf.store(write("alarm.raised"))
    shelf.outbox._store._writer.execute("PRAGMA query_only=ON")
    shelf.outbox.submit(write("alarm.raised"))
    await when(lambda: shelf.troubles == ["GW-STO-01"])
    assert [row.seq for row in await shelf.outbox.fetch(Lane.A, 0, 9)] == [1]
    assert (await shelf.outbox.status())["unstored"] == 1
    shelf.outbox._store._writer.execute("PRAGMA query_only=OFF")
    assert await shelf.outbox.flush(10)


# Poison.


async def test_a_write_that_cannot_be_stored_is_set_aside_alone(closed_shelf: Any, write: Maker, event: Maker) -> None:
    outbox = await closed_shelf.open(running=False)
    told: list[int] = []
    for n in range(1, 101):
        if n in (40, 77):
            poison = replace(event(), body=object())
            outbox.submit(Write((poison,), on_commit=lambda _rows: told.append(-1)))
        else:
            outbox.submit(replace(write(), on_commit=lambda rows: told.append(rows[0].seq)))
    closed_shelf.run()
    assert await outbox.flush(10)
    assert (outbox.poisoned, closed_shelf.troubles) == (2, [])
    assert told == list(range(1, 99))
    assert closed_shelf.sequences() == list(range(1, 99))


async def test_an_alarm_with_poison_before_it_is_stored(closed_shelf: Any, alarm: Maker, event: Maker) -> None:
    outbox = await closed_shelf.open()
    outbox.submit(Write((replace(event("alarm.raised"), at=Stamp(1 << 70, 0, "b")),)))
    outbox.submit(alarm())
    assert await outbox.flush(10)
    assert (outbox.poisoned, [row.noun for row in await outbox.fetch(Lane.A, 0, 9)]) == (1, ["alarm.raised"])


async def test_poison_does_not_leave_its_device_behind(closed_shelf: Any, write: Maker, event: Maker) -> None:
    outbox = await closed_shelf.open()
    outbox.live = lambda: False
    outbox.submit(Write((replace(event(), body=object()),)))
    assert await outbox.flush(10)
    assert outbox.poisoned == 1
    await closed_shelf.store(write())
    confirm(closed_shelf, Lane.D, 1, done=1)
    outbox.live = lambda: True
    assert await lane_of(closed_shelf, write()) == "c"


async def test_a_confirmation_rides_on_after_poison(closed_shelf: Any, write: Maker, event: Maker) -> None:
    outbox = await closed_shelf.open()
    await closed_shelf.store(write())
    confirm(closed_shelf, Lane.C, 1, done=1)
    outbox.submit(Write((replace(event(), body=object()),)))
    assert await outbox.flush(10)
    assert closed_shelf.sql("SELECT seq FROM cursor") == [(1,)]


# A corrupt database.


def damage(shelf: Any, table: str) -> None:
    """Overwrite the page that a table begins at."""
    [(root,)] = shelf.sql("SELECT rootpage FROM sqlite_master WHERE name = ?", table)
    with shelf.path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)


@pytest.mark.parametrize("table", ["sqlite_header", "event_a", "event_d", "fact", "number", "cursor"])
async def test_a_corrupt_database_is_set_aside_at_the_start_and_a_new_stream_begins(
    closed_shelf: Any, write: Maker, table: str
) -> None:
    outbox = await closed_shelf.open()
    await closed_shelf.store(*(write("alarm.raised") for _ in range(10)))
    before = outbox.streamid
    await closed_shelf.close()
    if table == "sqlite_header":
        with closed_shelf.path.open("r+b") as file:
            file.write(b"\0" * 4096)
    else:
        damage(closed_shelf, table)
    outbox = await closed_shelf.open()
    assert (closed_shelf.troubles, len(closed_shelf.set_aside())) == (["GW-STO-02"], 1)
    assert outbox.streamid != before
    assert await closed_shelf.store(write("alarm.raised")) == [1]


async def test_the_new_database_keeps_its_wal_when_the_old_one_is_let_go(closed_shelf: Any, write: Maker) -> None:
    """SQLite deletes a WAL by its name when a connection is closed: not that of the database which took the place."""
    await closed_shelf.open()
    await closed_shelf.store(write())
    await closed_shelf.close()
    damage(closed_shelf, "event_c")
    await closed_shelf.open()
    await closed_shelf.store(write("alarm.raised"))
    gc.collect()
    assert closed_shelf.path.with_name("outbox.db-wal").stat().st_size > 0
    assert closed_shelf.sequences() == [1]


async def test_a_database_that_turns_corrupt_is_replaced_while_running(shelf: Any, write: Maker, alarm: Maker) -> None:
    await shelf.store(*(write("alarm.raised") for _ in range(10)))
    before = shelf.outbox.streamid
    streams: list[str] = []
    shelf.outbox.on_stored = lambda: streams.append(shelf.outbox.streamid)
    writer = shelf.outbox._store._writer
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    writer.execute("PRAGMA cache_size=0")
    damage(shelf, "event_a")
    writer.execute("PRAGMA shrink_memory")
    stored: list[int] = []
    shelf.outbox.submit(replace(alarm(), on_commit=lambda rows: stored.append(rows[0].seq)))
    shelf.outbox.live = lambda: False
    shelf.outbox.submit(replace(write(), on_commit=lambda rows: stored.append(rows[0].seq)))
    assert await shelf.outbox.flush(10)
    assert shelf.troubles == ["GW-STO-02", None]
    assert stored == [1, 2]
    assert shelf.outbox.streamid != before
    # Whoever delivers is woken with the new stream before anything of it is stored.
    assert shelf.outbox.streamid in streams[:2]
    assert shelf.outbox.pending("district") == {"A": 1, "B": 0, "C": 0, "D": 1}
    assert shelf.sequences() == [1, 2]
    assert [name for name in shelf.set_aside() if not name.endswith(("-wal", "-shm"))] != []


async def test_a_reader_that_finds_corruption_has_the_database_replaced(shelf: Any, write: Maker, when: Maker) -> None:
    await shelf.store(*(write() for _ in range(2500)))
    before = shelf.outbox.streamid
    reader = shelf.outbox._store.reader._connection
    shelf.outbox._store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    reader.execute("PRAGMA cache_size=0")
    damage(shelf, "event_c")
    reader.execute("PRAGMA shrink_memory")
    with pytest.raises(StoreError) as caught:
        await shelf.outbox.fetch(Lane.C, 0, 10)
    assert caught.value.code == "GW-STO-02"
    await when(lambda: shelf.outbox.streamid != before)
    assert await shelf.store(write()) == [1]


async def test_epochs_count_on_in_a_new_stream(shelf: Any, write: Maker) -> None:
    assert [await shelf.outbox.next_epoch("district") for _ in range(3)] == [1, 2, 3]
    shelf.outbox._corrupt = StoreError("GW-STO-02")
    await shelf.store(write())
    assert await shelf.outbox.next_epoch("district") == 4


async def test_a_card_that_corrupts_every_start_does_not_fill_up_with_quarantines(
    closed_shelf: Any, write: Maker
) -> None:
    for start in range(6):
        closed_shelf.clock.now = Stamp(1_000 + start, 0, "boot")
        await closed_shelf.open()
        await closed_shelf.store(write())
        await closed_shelf.close()
        damage(closed_shelf, "event_c")
    await closed_shelf.open()
    kept = [name for name in closed_shelf.set_aside() if not name.endswith(("-wal", "-shm"))]
    assert kept == [f"outbox.db.corrupt-{n:013d}" for n in (1003, 1004, 1005)]


async def test_a_database_of_a_newer_gateway_is_refused_and_kept(closed_shelf: Any, write: Maker) -> None:
    await closed_shelf.open()
    await closed_shelf.store(write())
    closed_shelf.outbox._store._writer.execute("PRAGMA user_version=2")
    await closed_shelf.close()
    with pytest.raises(StoreError) as caught:
        await closed_shelf.open()
    assert (caught.value.code, closed_shelf.set_aside()) == ("GW-STO-05", [])
    assert closed_shelf.sequences() == [1]


async def test_closing_lets_go_of_every_file(closed_shelf: Any, write: Maker) -> None:
    await closed_shelf.open()
    await closed_shelf.store(write())
    await closed_shelf.close()
    held = [one.readlink() for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    assert [one for one in held if one.parent == closed_shelf.path.parent] == []

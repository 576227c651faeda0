"""The outbox over a disk that is full, errs, hangs or lies, and with writes that cannot be stored."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.errors import StoreError
from gateway.events import Lane, Stored
from gateway.outbox import Drop, Mark, Number, Route, Write
from gateway.outbox.store import Store

Maker = Callable[..., Any]
Ranges = list[tuple[int, int]]


def nothing_ahead() -> Ranges:
    return []


def confirm(shelf: Any, lane: Lane, seq: int, *, done: int = 0, destination: str = "district") -> None:
    shelf.outbox.confirm(destination, lane, seq=seq, ahead=nothing_ahead, done=done)


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


def fill_up(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


async def test_a_gateway_starts_on_a_disk_that_others_have_filled(
    small_disk: tuple[Path, Callable[[], bool]], closed_shelf: Any, alarm: Maker
) -> None:
    """After an orderly end SQLite needs room beside the database before it can even read it."""
    folder, make_room = small_disk
    assert make_room()
    closed_shelf.path = folder / "outbox.db"
    await closed_shelf.open()
    await closed_shelf.store(alarm())
    await closed_shelf.close()
    fill_up(folder / "filling")
    outbox = await closed_shelf.open()
    assert closed_shelf.sequences() == [1]
    assert await closed_shelf.store(alarm("call-2")) == [2]
    assert not (folder / "reserve").exists()
    (folder / "filling").unlink()
    outbox = await closed_shelf.reopen()
    assert (folder / "reserve").stat().st_size == 1024 * 1024
    assert outbox.sequence == 2


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


async def test_alarms_are_there_to_be_sent_while_the_disk_fails_and_only_then(
    shelf: Any, write: Maker, alarm: Maker, when: Maker
) -> None:
    shelf.outbox._store.routes.append(Route("meters", ("telemetry.*",)))
    shelf.outbox.submit(alarm())
    assert shelf.outbox.unstored_alarms("district") == []
    assert await shelf.outbox.flush(10)
    woken: list[None] = []
    shelf.outbox.on_stored = lambda: woken.append(None)
    shelf.outbox._store._writer.execute("PRAGMA query_only=ON")
    shelf.outbox.submit(write())
    await when(lambda: woken)
    one = alarm("call-2")
    shelf.outbox.submit(one)
    await when(lambda: len(woken) == 2)
    assert shelf.outbox.unstored_alarms("district") == list(one.events)
    assert shelf.outbox.unstored_alarms("meters") == []
    shelf.outbox._store._writer.execute("PRAGMA query_only=OFF")
    assert await shelf.outbox.flush(10)
    assert shelf.outbox.unstored_alarms("district") == []


async def test_a_disk_that_hangs_does_not_keep_alarms_back(
    shelf: Any, alarm: Maker, when: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.committing.SLOW_DISK_S", 0.01)
    hangs = threading.Event()
    commit = shelf.outbox._store.commit

    def hanging(*entries: Any, **more: Any) -> Any:
        hangs.wait(10)
        return commit(*entries, **more)

    shelf.outbox._store.commit = hanging
    one, two = alarm("call-1"), alarm("call-2")
    shelf.outbox.submit(one)
    await when(lambda: shelf.outbox.unstored_alarms("district"))
    shelf.outbox.submit(two)
    assert shelf.outbox.unstored_alarms("district") == [*one.events, *two.events]
    hangs.set()
    assert await shelf.outbox.flush(10)
    assert (shelf.outbox.unstored_alarms("district"), shelf.sequences()) == ([], [1, 2])


# Poison.


async def test_a_write_that_cannot_be_stored_is_set_aside_alone(closed_shelf: Any, write: Maker, event: Maker) -> None:
    outbox = await closed_shelf.open(running=False)
    told: list[int] = []
    bugs: list[Exception] = []
    outbox.on_bug = bugs.append
    for n in range(1, 101):
        if n in (40, 77):
            poison = replace(event(), body=object())
            outbox.submit(Write((poison,), on_commit=lambda _rows: told.append(-1), on_failed=lambda: told.append(-2)))
        else:
            outbox.submit(replace(write(), on_commit=lambda rows: told.append(rows[0].seq)))
    closed_shelf.run()
    assert await outbox.flush(10)
    assert (outbox.poisoned, closed_shelf.troubles, len(bugs)) == (2, [], 4)
    assert [one for one in told if one > 0] == list(range(1, 99))
    assert told.count(-2) == 2
    assert closed_shelf.sequences() == list(range(1, 99))


async def test_an_alarm_with_poison_before_it_is_stored(closed_shelf: Any, alarm: Maker, event: Maker) -> None:
    outbox = await closed_shelf.open()
    outbox.submit(Write((replace(event("alarm.raised"), at=Stamp(1 << 70, 0, "b")),)))
    outbox.submit(alarm())
    assert await outbox.flush(10)
    assert (outbox.poisoned, [row.noun for row in await outbox.fetch(Lane.A, 0, 9)]) == (1, ["alarm.raised"])


@pytest.mark.parametrize("poison", ["mark", "number", "state"])
async def test_an_alarm_is_stored_although_what_comes_with_it_cannot_be(
    closed_shelf: Any, alarm: Maker, poison: str
) -> None:
    outbox = await closed_shelf.open()
    odd: Any = object()
    one = alarm()
    if poison == "mark":
        one = replace(one, marks=(Mark("call-1", "counter:", odd),))
    elif poison == "number":
        one = replace(one, numbers=(Number("call-1", odd, 1),))
    else:
        one = replace(one, alarms=(replace(one.alarms[0], doc=odd),), on_commit=lambda _rows: None)
    outbox.submit(one)
    outbox.submit(alarm("call-2"))
    assert await outbox.flush(10)
    assert [row.device for row in await outbox.fetch(Lane.A, 0, 9)] == ["call-1", "call-2"]
    assert [bool(row.is_open) for row in await outbox.alarms()] == [True] * (1 if poison == "state" else 2)
    assert outbox.poisoned == 0


async def test_poison_does_not_leave_its_device_behind(closed_shelf: Any, write: Maker, event: Maker) -> None:
    outbox = await closed_shelf.open()
    outbox.live = lambda: False
    outbox.submit(Write((replace(event(), body=object()),)))
    assert await outbox.flush(10)
    assert outbox.poisoned == 1
    await closed_shelf.store(write())
    confirm(closed_shelf, Lane.D, 1, done=1)
    outbox.live = lambda: True
    [seq] = await closed_shelf.store(write())
    assert closed_shelf.sql("SELECT seq FROM event_c") == [(seq,)]


async def test_a_confirmation_rides_on_after_poison(closed_shelf: Any, write: Maker, event: Maker) -> None:
    outbox = await closed_shelf.open()
    await closed_shelf.store(write())
    confirm(closed_shelf, Lane.C, 1, done=1)
    outbox.submit(Write((replace(event(), body=object()),)))
    assert await outbox.flush(10)
    assert closed_shelf.sql("SELECT seq FROM cursor WHERE lane = 2") == [(1,)]


async def test_a_confirmation_that_a_failing_disk_refused_is_stored_when_it_takes_it(
    closed_shelf: Any, write: Maker, when: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgotten, its row would be delivered once more after the next start."""
    outbox = await closed_shelf.open()
    await closed_shelf.store(write())
    refused: list[int] = []
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_WRITE"

    def failing(_store: Store, cursors: Sequence[object]) -> None:
        if cursors:
            refused.append(1)
            raise error

    monkeypatch.setattr(Store, "_put_cursors", failing)
    confirm(closed_shelf, Lane.C, 1, done=1)
    await when(lambda: len(refused) > 0)
    monkeypatch.undo()
    await when(lambda: closed_shelf.sql("SELECT seq FROM cursor WHERE lane = 2") == [(1,)])
    assert outbox.poisoned == 0


async def test_confirmations_that_cannot_be_stored_are_told_and_stop_no_alarm(
    closed_shelf: Any, write: Maker, alarm: Maker, when: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = await closed_shelf.open()
    bugs: list[Exception] = []
    outbox.on_bug = bugs.append
    await closed_shelf.store(write())

    def broken(_store: Store, cursors: Sequence[object]) -> None:
        if cursors:
            raise IndexError("a bug")

    monkeypatch.setattr(Store, "_put_cursors", broken)
    confirm(closed_shelf, Lane.C, 1, done=1)
    await when(lambda: len(bugs) > 0)
    assert await closed_shelf.store(alarm()) == [2]
    monkeypatch.undo()
    await when(lambda: closed_shelf.sql("SELECT seq FROM cursor WHERE lane = 2") == [(2,)])


# A corrupt database.


def damage(shelf: Any, table: str) -> None:
    """Overwrite the page that a table begins at."""
    [(root,)] = shelf.sql("SELECT rootpage FROM sqlite_master WHERE name = ?", table)
    [(size,)] = shelf.sql("PRAGMA page_size")
    with shelf.path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xa5" * size)


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


@pytest.mark.parametrize("version", [10_000, 915_911_637, 2**31 - 1, -5])
async def test_a_version_that_no_gateway_writes_is_a_torn_page_and_not_a_newer_gateway(
    closed_shelf: Any, write: Maker, version: int
) -> None:
    """Left alone as a newer one it would keep the gateway without a database for ever."""
    await closed_shelf.open()
    await closed_shelf.store(write())
    closed_shelf.outbox._store._writer.execute(f"PRAGMA user_version={version}")
    await closed_shelf.close()
    outbox = await closed_shelf.open()
    assert (outbox.is_open, closed_shelf.troubles) == (True, ["GW-STO-02"])
    assert outbox.to_rescue


async def test_what_people_hang_on_is_taken_over_from_a_corrupt_database(closed_shelf: Any, alarm: Maker) -> None:
    """An alarm that is open must sound again after the power cut that has torn a page of meter readings."""
    await closed_shelf.open()
    one = alarm()
    await closed_shelf.store(replace(one, marks=(Mark("call-1", "counter:", "7"),)))
    await closed_shelf.close()
    damage(closed_shelf, "event_c")
    outbox = await closed_shelf.open()
    assert outbox.was_replaced
    assert await outbox.alarms() == list(one.alarms)
    assert await outbox.marks() == [Mark("call-1", "counter:", "7")]
    outbox = await closed_shelf.reopen()
    assert (outbox.was_replaced, await outbox.alarms()) == (False, list(one.alarms)), (
        "whoever ends before it says so again"
    )


@pytest.mark.parametrize("table", ["mark", "alarm"])
async def test_of_a_corrupt_database_what_can_be_read_is_taken_over(
    closed_shelf: Any, alarm: Maker, table: str
) -> None:
    await closed_shelf.open()
    await closed_shelf.store(replace(alarm(), marks=(Mark("call-1", "counter:", "7"),)))
    await closed_shelf.close()
    damage(closed_shelf, "event_c")
    damage(closed_shelf, table)
    outbox = await closed_shelf.open()
    found = {"mark": len(await outbox.marks()), "alarm": len(await outbox.alarms())}
    assert found == {"mark": 1, "alarm": 1, table: 0}


async def test_a_bad_page_of_marks_keeps_nobody_from_being_heard(closed_shelf: Any, alarm: Maker, when: Maker) -> None:
    """It would be found at every start anew: the gateway would never hear again."""
    await closed_shelf.open()
    one = alarm()
    await closed_shelf.store(replace(one, marks=(Mark("call-1", "counter:", "7"),)))
    await closed_shelf.close()
    damage(closed_shelf, "mark")
    outbox = await closed_shelf.open(running=False)
    assert await outbox.marks() == []
    assert await outbox.alarms() == list(one.alarms), "they are announced"
    before = outbox.streamid
    closed_shelf.run()
    await when(lambda: outbox.streamid != before)
    assert await closed_shelf.store(alarm("call-2")) == [1]
    assert closed_shelf.troubles == ["GW-STO-02"]


async def test_what_a_bad_page_hid_at_the_start_is_told_when_it_was_brought_over(
    closed_shelf: Any, alarm: Maker, when: Maker
) -> None:
    """Else a press would count twice, and a deaf time would begin too late, until the next restart."""
    await closed_shelf.open()
    one = alarm()
    marks = tuple(Mark(f"call-{n:03}", "counter:", "7" * 100) for n in range(200))
    await closed_shelf.store(replace(one, marks=marks))
    await closed_shelf.close()
    content = closed_shelf.path.read_bytes()
    page = content.rfind(b"call-190") // 4096
    with closed_shelf.path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xa5" * 4096)
    outbox = await closed_shelf.open(running=False)
    told: list[Any] = []
    outbox.on_recalled = lambda marks, alarms: told.append(
        (outbox.streamid, marks, alarms, list(closed_shelf.troubles))
    )
    assert await outbox.marks() == []
    before = outbox.streamid
    closed_shelf.run()
    await when(lambda: bool(told))
    [(stream, recalled, alarms, troubles)] = told
    assert stream == outbox.streamid != before
    assert troubles == [], "what is known is asked for after that"
    assert recalled[0] == marks[0]
    assert 100 < len(recalled) < 200
    assert alarms == list(one.alarms)


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


async def test_what_was_to_give_way_in_the_old_database_costs_the_new_one_nothing(
    closed_shelf: Any, write: Maker, alarm: Maker
) -> None:
    """The numbers of its rows begin at 1 again."""
    outbox = await closed_shelf.open(running=False)
    row = Stored(1, Lane.A, "id", "alarm.raised", "call-1", 0, Stamp(0, 0, "boot-1"), {"district": 1}, "{}")
    outbox.submit(alarm())
    outbox.submit(replace(write("gateway.gap"), drops=(Drop(Lane.A, (row,)),)))
    outbox._corrupt = StoreError("GW-STO-02")
    closed_shelf.run()
    assert await outbox.flush(10)
    assert closed_shelf.sql("SELECT seq FROM event_a") == [(1,)]
    assert closed_shelf.sql("SELECT seq FROM event_b") == [], "nothing has left, and that it would leave is told"
    assert outbox.pending("district")["A"] == 1


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
    # The last was set aside in the same millisecond as the one before, which it must not overwrite.
    assert kept == [f"outbox.db.corrupt-{n:013d}" for n in (1004, 1005, 1006)]


async def test_what_was_set_aside_last_is_kept_although_the_clock_was_set_back(closed_shelf: Any, write: Maker) -> None:
    """After a power cut it may begin in 1970: what waits in the newest would be the first to be thrown away."""
    for wall_ms in (2_000, 2_001, 2_002, 5):
        closed_shelf.clock.now = Stamp(wall_ms, 0, "boot")
        await closed_shelf.open()
        await closed_shelf.store(write())
        await closed_shelf.close()
        damage(closed_shelf, "event_c")
        await closed_shelf.open()
        await closed_shelf.close()
    kept = [name for name in closed_shelf.set_aside() if not name.endswith(("-wal", "-shm"))]
    assert kept == [f"outbox.db.corrupt-{n:013d}" for n in (5, 2001, 2002)]


async def test_closing_lets_go_of_every_file(closed_shelf: Any, write: Maker) -> None:
    await closed_shelf.open()
    await closed_shelf.store(write())
    await closed_shelf.close()
    held = [one.readlink() for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    assert [one for one in held if one.parent == closed_shelf.path.parent] == []


async def test_a_page_of_a_new_database_is_a_block_and_an_old_one_keeps_its_own(
    closed_shelf: Any, write: Maker
) -> None:
    await closed_shelf.open()
    await closed_shelf.store(write())
    assert closed_shelf.sql("PRAGMA page_size") == [(4096,)]
    await closed_shelf.close()
    with sqlite3.connect(closed_shelf.path) as connection:
        connection.executescript("PRAGMA journal_mode=DELETE; PRAGMA page_size=1024; VACUUM")
    connection.close()
    await closed_shelf.open()
    assert await closed_shelf.store(write()) == [2]
    assert closed_shelf.sql("PRAGMA page_size") == [(1024,)]
    assert closed_shelf.sequences() == [1, 2]

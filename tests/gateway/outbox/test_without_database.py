"""A gateway whose database cannot be opened: calls are there to be sent, everything waits, and the disk may come back."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.errors import StoreError
from gateway.events import Lane
from gateway.outbox import Mark, Number, NumberState, Route, Write
from gateway.outbox import outbox as outbox_module
from gateway.outbox.database import Database

Maker = Callable[..., Any]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "REOPEN_CAP_S", 0.01)


def refuse(shelf: Any, code: str = "GW-STO-01") -> None:
    """Let nothing be opened, as where the directory cannot be written."""

    def refused() -> None:
        raise StoreError(code, str(shelf.path), path=str(shelf.path), detail="Read-only file system")

    shelf.hold = refused


def allow(shelf: Any) -> None:
    shelf.hold = lambda: None


async def test_calls_are_there_to_be_sent_and_are_stored_with_their_ids_when_it_opens(
    closed_shelf: Any, alarm: Maker, write: Maker, when: Maker
) -> None:
    (closed_shelf.path).mkdir()  # what stands there is no file
    outbox = await closed_shelf.open()
    assert (closed_shelf.troubles[0], outbox.is_open, outbox.is_failing) == ("GW-STO-01", False, True)
    stored: list[str] = []
    one, reading = alarm(), write()
    for each in (reading, one):
        outbox.submit(replace(each, on_commit=lambda rows: stored.extend(row.id for row in rows)))
    assert outbox.unstored_alarms("district") == list(one.events)
    assert outbox.waiting_events() == [*one.events, *reading.events]
    assert stored == [], "nothing is acknowledged"
    closed_shelf.path.rmdir()
    assert await outbox.flush(10)
    assert stored == [one.events[0].id, reading.events[0].id]
    assert [row.id for row in await outbox.fetch(Lane.A, 0, 9)] == [one.events[0].id]
    assert (outbox.unstored_alarms("district"), closed_shelf.troubles[-1]) == ([], None)


async def test_whoever_asks_it_meanwhile_is_told_and_hears_no_traceback(closed_shelf: Any) -> None:
    refuse(closed_shelf)
    outbox = await closed_shelf.open()
    assert (await outbox.marks(), await outbox.alarms(), outbox.last_recorded) == ([], [], None)
    assert outbox.number_state("d", "s", 1) is NumberState.NEW
    assert (await outbox.status())["rows"] == {"A": 0, "B": 0, "C": 0, "D": 0}
    assert outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 0}
    assert len(outbox.streamid) == 36
    for question in (outbox.used_bytes(), outbox.dead_letters(), outbox.fetch(Lane.A, -1, 1)):
        with pytest.raises(StoreError) as refused:
            await question
        assert refused.value.code == "GW-STO-01"
    assert not await outbox.flush(0.02)


async def test_a_directory_that_another_process_holds_is_left_alone(closed_shelf: Any, when: Maker) -> None:
    refuse(closed_shelf)
    await closed_shelf.open()
    refuse(closed_shelf, "GW-RUN-01")
    await when(lambda: "GW-RUN-01" in closed_shelf.troubles)
    assert not closed_shelf.path.exists()


async def test_a_database_of_a_newer_gateway_is_not_touched_and_calls_are_heard_without_it(
    closed_shelf: Any, write: Maker, alarm: Maker, when: Maker
) -> None:
    await closed_shelf.open()
    await closed_shelf.store(replace(alarm(), marks=(Mark("call-1", "counter:", "7"),)))
    closed_shelf.outbox._store._writer.execute("PRAGMA user_version=99")
    await closed_shelf.close()
    before = {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in closed_shelf.path.parent.iterdir()}
    outbox = await closed_shelf.open()
    assert (closed_shelf.troubles, outbox.is_open) == (["GW-STO-05"], False)
    assert await outbox.marks() == [Mark("call-1", "counter:", "7")]
    assert len(await outbox.alarms()) == 1, "what rings there rings on"
    one = alarm("call-2")
    outbox.submit(one)
    assert outbox.unstored_alarms("district") == list(one.events)
    await when(lambda: closed_shelf.troubles.count("GW-STO-05") > 3)
    await closed_shelf.close()
    after = {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in closed_shelf.path.parent.iterdir()}
    assert after == before


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """A file system of its own at `disk`, and how to mount it anew. Only root may have one."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)

    try:
        mount("size=16m")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system of its own needs root and the right to mount")
    yield lambda how: mount(f"remount,{how},size=16m")
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_of_a_read_only_disk_what_rings_rings_on_and_what_was_taken_stays_known(
    closed_shelf: Any, disk: Callable[[str], None], tmp_path: Path, alarm: Maker, event: Maker
) -> None:
    """A card that is worn out shows itself like this, mostly at a start."""
    closed_shelf.path = tmp_path / "disk" / "outbox.db"
    await closed_shelf.open()
    one = alarm()
    await closed_shelf.store(
        replace(one, marks=(Mark("call-1", "counter:", "7"),), numbers=(Number("call-1", "", 5, 77),))
    )
    await closed_shelf.outbox.next_epoch("district")
    await closed_shelf.close()
    disk("ro")
    outbox = await closed_shelf.open()
    assert (outbox.is_open, await outbox.alarms()) == (False, list(one.alarms))
    assert await outbox.marks() == [Mark("call-1", "counter:", "7")]
    assert outbox.number_state("call-1", "", 5, digest=77) is NumberState.DURABLE
    assert await outbox.next_epoch("district") == 2
    two = alarm("call-2")
    outbox.submit(two)
    assert outbox.unstored_alarms("district") == list(two.events)
    disk("rw")
    assert await outbox.flush(10)
    assert [row.id for row in await outbox.fetch(Lane.A, 0, 9)] == [one.events[0].id, two.events[0].id]
    assert closed_shelf.sql("SELECT value FROM fact WHERE key = 'epoch:district'") == [("2",)]


async def test_what_it_remembers_is_told_when_it_opens(closed_shelf: Any, alarm: Maker, when: Maker) -> None:
    await closed_shelf.open()
    one = alarm()
    await closed_shelf.store(replace(one, marks=(Mark("call-1", "counter:", "7"),)))
    before = closed_shelf.outbox.streamid
    await closed_shelf.close()
    refuse(closed_shelf)
    outbox = await closed_shelf.open()
    found: list[Any] = []
    outbox.on_found = lambda marks, alarms: found.append((marks, alarms))
    streams: list[str] = []
    outbox.on_stored = lambda: streams.append(outbox.streamid)
    allow(closed_shelf)
    await when(lambda: len(found) > 0)
    assert found == [([Mark("call-1", "counter:", "7")], list(one.alarms))]
    await when(lambda: before in streams)


async def test_new_telemetry_goes_behind_a_backlog_that_was_not_known(closed_shelf: Any, write: Maker) -> None:
    outbox = await closed_shelf.open()
    outbox.live = lambda: False
    await closed_shelf.store(write())
    await closed_shelf.close()
    refuse(closed_shelf)
    outbox = await closed_shelf.open()
    outbox.live = lambda: True
    outbox.submit(write())
    outbox.submit(write(device="m2"))
    allow(closed_shelf)
    assert await outbox.flush(10)
    assert closed_shelf.sql("SELECT device FROM event_d ORDER BY seq") == [("m1",), ("m1",)]
    assert closed_shelf.sql("SELECT device FROM event_c") == [("m2",)]


async def test_a_numbered_reading_that_the_disk_already_holds_is_acknowledged_and_not_stored_twice(
    closed_shelf: Any, event: Maker, alarm: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its acknowledgement was lost with the last run, and nothing could tell that it is known. A call is told again."""
    await closed_shelf.open()
    await closed_shelf.store(Write((event(),), numbers=(Number("m1", "", 1, 11), Number("m1", "", 2, 12))))
    await closed_shelf.close()

    async def nothing(_self: Database) -> None:
        return None

    monkeypatch.setattr(Database, "look", nothing)
    refuse(closed_shelf)
    outbox = await closed_shelf.open()
    told: list[int] = []
    for number in (Number("m1", "", 1, 11), Number("m1", "", 3, 13), Number("m1", "", 2, 99)):
        outbox.submit(Write((event(),), numbers=(number,), on_commit=lambda rows: told.append(len(rows))))
    outbox.submit(replace(alarm(), numbers=(Number("m1", "", 2, 12),), on_commit=lambda rows: told.append(len(rows))))
    allow(closed_shelf)
    assert await outbox.flush(10)
    assert sorted(told) == [0, 1, 1, 1], "what says something else under an old number is another reading"
    assert closed_shelf.sql("SELECT count(*) FROM event_c") == [(3,)]


async def test_no_platform_sees_a_lower_epoch_than_before(
    closed_shelf: Any, write: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would ignore the birth that comes with it."""
    closed_shelf.path.mkdir()
    outbox = await closed_shelf.open()
    assert await outbox.next_epoch("district") == 1_800_000_001
    assert await outbox.next_epoch("district") == 1_800_000_002
    closed_shelf.path.rmdir()
    assert await outbox.flush(10)
    assert closed_shelf.sql("SELECT value FROM fact WHERE key = 'epoch:district'") == [("1800000002",)]
    outbox = await closed_shelf.reopen()
    assert await outbox.next_epoch("district") == 1_800_000_003


async def test_a_disk_that_hangs_at_the_opening_holds_up_no_call(
    closed_shelf: Any, alarm: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "OPEN_LIMIT_S", 0.02)
    answers = threading.Event()
    closed_shelf.hold = lambda: answers.wait(10) and None
    outbox = await closed_shelf.open()
    assert (closed_shelf.troubles, outbox.is_open) == (["GW-STO-01"], False)
    one = alarm()
    outbox.submit(one)
    assert outbox.unstored_alarms("district") == list(one.events)
    answers.set()
    assert await outbox.flush(10)
    assert (closed_shelf.sequences(), closed_shelf.troubles[-1]) == ([1], None)


async def test_a_corrupt_database_that_cannot_be_set_aside_yet_is_replaced_when_it_can(
    closed_shelf: Any, alarm: Maker, monkeypatch: pytest.MonkeyPatch, when: Maker
) -> None:
    await closed_shelf.open()
    one = alarm()
    await closed_shelf.store(one)
    await closed_shelf.close()
    with closed_shelf.path.open("r+b") as file:
        file.seek(18)
        file.write(b"\xff\xff")

    def read_only(*_: object, **__: object) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("gateway.outbox.database.set_aside", read_only)
    outbox = await closed_shelf.open()
    assert (closed_shelf.troubles, outbox.is_open) == (["GW-STO-01"], False)
    two = alarm("call-2")
    outbox.submit(two)
    assert outbox.unstored_alarms("district") == list(two.events)
    monkeypatch.undo()
    assert await outbox.flush(10)
    assert "GW-STO-02" in closed_shelf.troubles
    assert two.events[0].id in [row.id for row in await outbox.fetch(Lane.A, 0, 9)]
    assert len(closed_shelf.set_aside()) == 1


async def test_its_end_waits_for_nothing_that_is_not_there(closed_shelf: Any, alarm: Maker) -> None:
    refuse(closed_shelf)
    closed_shelf.routes = [Route("district", ("*",))]
    outbox = await closed_shelf.open()
    outbox.submit(alarm())
    await closed_shelf.close()
    assert [one.noun for one in outbox.waiting_events()] == ["alarm.raised"]
    assert outbox.oldest_waiting == Stamp(1_800_000_000_000, 1_000_000, "boot-1", "synced")

"""A frame of the WAL that is hit in the middle: what was accepted behind it is noticed, brought back, and the rest is told."""

from __future__ import annotations

import asyncio
import errno
import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreError
from gateway.events import Lane
from gateway.outbox import Mark, Number, NumberState, Rescue, Write
from gateway.outbox import database as database_module
from gateway.outbox import outbox as outbox_module
from gateway.outbox import rescue as rescue_module
from gateway.outbox import store as store_module
from gateway.outbox.store import Store
from gateway.outbox.wal import DAMAGED, Log, hidden, mend, torn
from tests.gateway.outbox.conftest import ORIGIN

Maker = Callable[..., Any]
HEADER, HEAD, PAGE = 32, 24, 4096
FRAME = HEAD + PAGE


def flip(path: Path, at: int, count: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        data = file.read(count)
        file.seek(at)
        file.write(bytes(one ^ 0xFF for one in data))


def commits_of(wal: Path) -> list[range]:
    """The frames of each commit, counted from 1; the copy that fills its last block included."""
    data = wal.read_bytes()
    frames = [data[at : at + FRAME] for at in range(HEADER, len(data) - FRAME + 1, FRAME)]
    begin, commits = 1, []
    for number, (frame, following) in enumerate(zip(frames, [*frames[1:], b""], strict=True), 1):
        if frame[4:8] != bytes(4) and frame[HEAD:] != following[HEAD:]:
            commits.append(range(begin, number + 1))
            begin = number + 1
    return commits


def commit_and_die(path: Path, rows: int) -> None:
    """Commit so many rows from another process, which then ends without a checkpoint."""
    script = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(f'file:{sys.argv[1]}?psow=0', uri=True, isolation_level=None)\n"
        "c.execute('BEGIN')\n"
        "for n in range(int(sys.argv[2])):\n"
        "    c.execute('INSERT INTO mark VALUES (?, ?, ?)', (str(n), sys.argv[2], 'x' * 2000))\n"
        "c.execute('COMMIT')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path), str(rows)], check=True, timeout=30)


class Crashed:
    """What a crash has left: a database with its WAL, each event in a commit of its own."""

    def __init__(self, shelf: Any) -> None:
        self.shelf = shelf
        self.wal = shelf.path.with_name("outbox.db-wal")

    async def leave(self, writes: list[Write], folder: Path) -> None:
        """Store, and take the files as they stand, as a process that is killed leaves them."""
        await self.shelf.open()
        for write in writes:
            await self.shelf.store(write)
        await self.die(folder / "kept")

    async def die(self, kept: Path) -> None:
        kept.mkdir()
        for name in ("outbox.db", "outbox.db-wal"):
            shutil.copyfile(self.shelf.path.with_name(name), kept / name)
        await self.shelf.close()
        for name in ("outbox.db", "outbox.db-wal"):
            shutil.copyfile(kept / name, self.shelf.path.with_name(name))


async def rescued(shelf: Any) -> tuple[list[str], list[Any]]:
    """Open, bring back what can be brought back; return the ids that are there and the gaps that are told."""
    outbox = shelf.outbox if shelf.is_open else await shelf.open()
    if outbox.to_rescue:
        await Rescue(outbox, ORIGIN, clock=shelf.clock).once()
    rows = [row for lane in Lane for row in await outbox.fetch(lane, 0, 10_000)]
    gaps = [json.loads(row.body)["data"] for row in rows if row.noun == "gateway.gap"]
    return sorted(row.id for row in rows if row.noun != "gateway.gap"), gaps


def numbered(event: Maker, n: int, noun: str = "telemetry.meter") -> Write:
    return Write((event(noun, f"dev-{n % 3}", text="x" * 300),), numbers=(Number("m1", "", n),))


async def test_a_wal_without_damage_hides_nothing(closed_shelf: Any, event: Maker, tmp_path: Path) -> None:
    crashed = Crashed(closed_shelf)
    await crashed.leave([numbered(event, n) for n in range(20)], tmp_path)
    with Log(crashed.wal) as log:
        frames = list(log.frames())
    assert len(frames) == commits_of(crashed.wal)[-1][-1] > 60
    assert all(frame.is_sound for frame in frames)
    assert mend(closed_shelf.path) is False
    await closed_shelf.open()
    assert (closed_shelf.troubles, closed_shelf.outbox.sequence) == ([], 20)


@pytest.mark.parametrize("where", ["page", "page number", "salt", "checksum", "block"])
async def test_whichever_frame_is_hit_the_commits_behind_are_seen_unless_it_was_the_last(
    closed_shelf: Any, event: Maker, tmp_path: Path, where: str
) -> None:
    crashed = Crashed(closed_shelf)
    await crashed.leave([numbered(event, n) for n in range(6)], tmp_path)
    commits = commits_of(crashed.wal)
    whole = crashed.wal.read_bytes()
    place = {"page": HEAD + 2_000, "page number": 2, "salt": 9, "checksum": 17, "block": 0}[where]
    for at, commit in enumerate(commits):
        for frame in commit:
            if where == "block" and frame == commit[-1]:
                continue  # it reaches into the next commit
            crashed.wal.write_bytes(whole)
            flip(crashed.wal, HEADER + (frame - 1) * FRAME + place, 4_096 if where == "block" else 1)
            seen = commits[at - 1][-1] if at else 0
            found = hidden(closed_shelf.path, after=seen) > 0
            # Nothing proves the last commit, and it goes on from the checksum of the copy before it.
            is_begin_of_next = frame == commit[-1] and where in ("salt", "checksum")
            assert found == (at + is_begin_of_next < len(commits) - 1), (frame, commit)


async def test_a_commit_that_a_power_cut_tore_is_no_hole(closed_shelf: Any, event: Maker, tmp_path: Path) -> None:
    crashed = Crashed(closed_shelf)
    await crashed.leave([numbered(event, n) for n in range(5)], tmp_path)
    whole, last = crashed.wal.read_bytes(), commits_of(crashed.wal)[-1]
    for lost in range(2 ** len(last)):
        data = bytearray(whole)
        for bit, frame in enumerate(last):
            if lost >> bit & 1:
                at = HEADER + (frame - 1) * FRAME
                data[at : at + FRAME] = bytes(FRAME)
        crashed.wal.write_bytes(data)
        for after in {last[0] - 1, last[-1]}:
            assert hidden(closed_shelf.path, after=after) == 0
        assert mend(closed_shelf.path) is False


async def test_what_a_failed_commit_left_behind_the_end_is_no_hole(
    closed_shelf: Any, event: Maker, tmp_path: Path
) -> None:
    """A disk that failed took the frames of a commit, which was rolled back; a shorter one then stands before them."""
    crashed = Crashed(closed_shelf)
    await crashed.leave([numbered(event, n) for n in range(5)], tmp_path)
    commits = commits_of(crashed.wal)
    first = commits[-1][0]
    base = crashed.wal.read_bytes()[: HEADER + (first - 1) * FRAME]
    tails = []
    for rows in (40, 12, 1):  # each a commit from the same place
        crashed.wal.write_bytes(base)
        commit_and_die(closed_shelf.path, rows)
        tails.append(crashed.wal.read_bytes()[len(base) :])
    tail = tails[2] + tails[1][len(tails[2]) :] + tails[0][len(tails[1]) :]
    crashed.wal.write_bytes(base + tail)
    seen = commits_of(crashed.wal)
    assert hidden(closed_shelf.path, after=first - 1 + len(tails[2]) // FRAME) == 0
    assert len(seen) > len(commits)
    await closed_shelf.open()
    assert closed_shelf.troubles == []


@pytest.mark.parametrize("which", range(4))
async def test_what_was_accepted_behind_a_hole_comes_back_with_its_id_and_the_rest_is_told(
    closed_shelf: Any, event: Maker, alarm: Maker, tmp_path: Path, which: int
) -> None:
    """The alarm that was raised behind it rings again, its counter and every number are known."""
    crashed = Crashed(closed_shelf)
    writes = [numbered(event, n) for n in range(30)]
    call = replace(alarm("call-1"), marks=(Mark("call-1", "counter:", "7"),))
    writes.insert(25, call)
    await crashed.leave(writes, tmp_path)
    commits = commits_of(crashed.wal)
    frame = commits[-20][which % len(commits[-20])]
    flip(crashed.wal, HEADER + (frame - 1) * FRAME + HEAD, PAGE)
    ids, gaps = await rescued(closed_shelf)
    assert closed_shelf.troubles == ["GW-STO-02"]
    assert ids == sorted(one.events[0].id for one in writes)
    [gap] = gaps
    assert (gap["reason"], gap["sequences"]) == ("corrupt", [])
    outbox = closed_shelf.outbox
    assert [row.id for row in await outbox.alarms()] == [call.alarms[0].id]
    assert await outbox.marks() == [Mark("call-1", "counter:", "7")]
    assert {outbox.number_state("m1", "", n) for n in range(30)} == {NumberState.DURABLE}
    assert outbox.number_state("m1", "", 30) is NumberState.NEW


@pytest.mark.parametrize(
    ("at", "count"), [(0, 16), (100, 8), (18, 2), (56, 4), (16, 2), (PAGE, 64), (0, PAGE), (0, 3 * PAGE)],
    ids=["magic", "first page", "journal mode", "encoding", "page size", "second page", "all of the first", "three pages"],
)  # fmt: skip
async def test_a_corrupt_database_costs_nothing_of_what_stands_behind_a_hole_in_its_wal(
    closed_shelf: Any, event: Maker, tmp_path: Path, at: int, count: int
) -> None:
    """Opening it must not write the log into it, nor remove the log: what is behind the hole would be gone."""
    crashed = Crashed(closed_shelf)
    outbox = await closed_shelf.open()
    for n in range(100, 105):
        await closed_shelf.store(numbered(event, n))
    outbox._store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writes = [numbered(event, n) for n in range(20)]
    for write in writes:
        await closed_shelf.store(write)
    await crashed.die(tmp_path / "kept")
    frame = commits_of(crashed.wal)[-10][0]
    flip(crashed.wal, HEADER + (frame - 1) * FRAME + HEAD, PAGE)
    flip(closed_shelf.path, at, count)
    ids, _gaps = await rescued(closed_shelf)
    assert closed_shelf.troubles == ["GW-STO-02"]
    assert {one.events[0].id for one in writes[-9:]} <= set(ids)


async def test_on_a_full_disk_what_stands_behind_a_hole_waits_for_room(
    closed_shelf: Any, event: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be left in the file that was set aside, and nobody would know."""
    crashed = Crashed(closed_shelf)
    writes = [numbered(event, n) for n in range(30)]
    await crashed.leave(writes, tmp_path)
    frame = commits_of(crashed.wal)[-20][0]
    flip(crashed.wal, HEADER + (frame - 1) * FRAME + HEAD, PAGE)
    tries = [0]

    def full(path: Path) -> bool:
        tries[0] += 1
        if tries[0] < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return mend(path)

    monkeypatch.setattr(database_module, "mend", full)
    monkeypatch.setattr(outbox_module, "REOPEN_CAP_S", 0.01)
    outbox = await closed_shelf.open()
    # With the first refusal the room that is kept for this is given up, so it is tried once more at once.
    assert (outbox.is_open, closed_shelf.troubles[0]) == (False, "GW-STO-03")
    late = numbered(event, 99)
    outbox.submit(late)
    assert await outbox.flush(10)
    assert tries == [4]
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    rows = [row for lane in Lane for row in await outbox.fetch(lane, 0, 10_000)]
    assert sorted(row.id for row in rows if row.noun != "gateway.gap") == sorted(
        one.events[0].id for one in [*writes, late]
    )


async def test_a_row_that_stood_only_in_the_frame_that_was_hit_is_told_as_lost(
    closed_shelf: Any, event: Maker, tmp_path: Path
) -> None:
    crashed = Crashed(closed_shelf)
    big = [Write((event("telemetry.meter", "m1", text=str(n) * 3_000),)) for n in range(8)]  # a page for each
    await crashed.leave(big, tmp_path)
    data = crashed.wal.read_bytes()
    where = [at for at in range(HEADER, len(data), FRAME) if ("3" * 3_000).encode() in data[at : at + FRAME]]
    for at in where:
        flip(crashed.wal, at + HEAD, PAGE)
    ids, [gap] = await rescued(closed_shelf)
    assert ids == sorted(one.events[0].id for at, one in enumerate(big) if at != 3)
    assert (gap["dropped"], gap["sequences"], gap["highest"]) == (1, [[4, 4]], 8)


async def test_a_broken_commit_at_the_end_may_have_been_accepted_and_is_told_once(
    closed_shelf: Any, event: Maker, tmp_path: Path, when: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue_module, "LOOK_S", 0.01)
    crashed = Crashed(closed_shelf)
    writes = [numbered(event, n) for n in range(5)]
    await crashed.leave(writes, tmp_path)
    flip(crashed.wal, HEADER + (commits_of(crashed.wal)[-1][0] - 1) * FRAME + HEAD)
    outbox = await closed_shelf.open()
    before = outbox.streamid
    running = asyncio.create_task(Rescue(outbox, ORIGIN, clock=closed_shelf.clock).run())
    await when(lambda: outbox.sequence == 5)
    running.cancel()
    await asyncio.wait({running})
    outbox = await closed_shelf.kill()
    ids, gaps = await rescued(closed_shelf)
    assert (closed_shelf.troubles, outbox.streamid, outbox.is_torn) == ([], before, False)
    assert ids == sorted(one.events[0].id for one in writes[:4])
    [gap] = gaps
    facts = ("link", "reason", "dropped", "exact", "highest", "highest_is_sure", "from_mono_ms")
    assert [gap[one] for one in facts] == ["outbox", "corrupt", 0, False, 4, False, 1_000_000]


async def test_a_broken_commit_that_stands_there_still_is_not_told_again(
    closed_shelf: Any, event: Maker, tmp_path: Path
) -> None:
    """Each kill after it leaves what no commit was written over; another one that breaks is told."""
    crashed = Crashed(closed_shelf)
    big = Write(tuple(event("telemetry.meter", "m1", text="x" * 3_000) for _ in range(40)))
    await crashed.leave([numbered(event, 0), big], tmp_path)
    flip(crashed.wal, HEADER + (commits_of(crashed.wal)[-1][0] - 1) * FRAME + HEAD)
    outbox = await closed_shelf.open()
    assert outbox.is_torn
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).tell_torn()
    for n in (1, 2):
        await closed_shelf.store(numbered(event, n))
        await crashed.die(tmp_path / f"kill-{n}")
        outbox = await closed_shelf.open()
        assert (outbox.is_torn, outbox.torn != []) == (False, True)
    end = outbox._store._index.last_frame()
    assert end is not None
    await closed_shelf.store(numbered(event, 3))
    await crashed.die(tmp_path / "kill-3")
    flip(crashed.wal, HEADER + end * FRAME + HEAD)
    outbox = await closed_shelf.open()
    assert (outbox.is_torn, outbox.sequence) == (True, 4)


async def test_a_broken_commit_is_told_however_soon_the_gateway_ends_again(
    closed_shelf: Any, event: Maker, tmp_path: Path
) -> None:
    """What is stored after the start takes its place in the log: it shows no more, and was not told yet."""
    crashed = Crashed(closed_shelf)
    await crashed.leave([numbered(event, n) for n in range(5)], tmp_path)
    flip(crashed.wal, HEADER + (commits_of(crashed.wal)[-1][0] - 1) * FRAME + HEAD)
    outbox = await closed_shelf.open()
    assert outbox.is_torn
    for n in (11, 12, 13):
        await closed_shelf.store(numbered(event, n))
        await crashed.die(tmp_path / f"kill-{n}")
        outbox = await closed_shelf.open()
        assert outbox.is_torn
    assert outbox.torn == []
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).tell_torn()
    assert not outbox.is_torn
    outbox = await closed_shelf.kill()
    assert not outbox.is_torn
    _, [gap] = await rescued(closed_shelf)
    assert (gap["link"], gap["reason"], gap["highest_is_sure"]) == ("outbox", "corrupt", False)


async def test_a_broken_commit_is_told_although_a_kill_comes_right_after_the_schema_was_brought_up_to_date(
    closed_shelf: Any, event: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is the first commit of a newer gateway: it takes the broken one's place in the log."""
    crashed = Crashed(closed_shelf)
    await crashed.leave([numbered(event, n) for n in range(5)], tmp_path)
    flip(crashed.wal, HEADER + (commits_of(crashed.wal)[-1][0] - 1) * FRAME + HEAD)

    def killed(connection: sqlite3.Connection, _path: Path) -> None:
        connection.executescript("BEGIN IMMEDIATE; CREATE TABLE newer (n INTEGER); COMMIT;")
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "migrate", killed)
        with pytest.raises(InterruptedError):
            Store(closed_shelf.path, closed_shelf.routes).open()
    outbox = await closed_shelf.open()
    assert (outbox.is_torn, outbox.torn) == (True, [])
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).tell_torn()
    outbox = await closed_shelf.kill()
    assert not outbox.is_torn


async def test_a_broken_commit_is_told_although_its_database_has_to_be_replaced_before_that(
    closed_shelf: Any, event: Maker, tmp_path: Path, when: Maker
) -> None:
    """All that can be found there is found, and the last number is known: nothing else would tell of it."""
    crashed = Crashed(closed_shelf)
    await crashed.leave([numbered(event, n) for n in range(5)], tmp_path)
    flip(crashed.wal, HEADER + (commits_of(crashed.wal)[-1][0] - 1) * FRAME + HEAD)
    outbox = await closed_shelf.open()
    before = outbox.streamid
    assert outbox.is_torn
    outbox._found_corrupt(StoreError("GW-STO-02", "outbox.db"))
    await when(lambda: outbox.streamid != before)
    assert outbox.is_torn
    outbox = await closed_shelf.kill()
    assert outbox.is_torn
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).tell_torn()
    outbox = await closed_shelf.kill()
    assert not outbox.is_torn
    _, [gap] = await rescued(closed_shelf)
    assert (gap["link"], gap["reason"], gap["complete"], gap["highest_is_sure"]) == ("outbox", "corrupt", False, False)


async def test_a_commit_without_its_end_was_not_accepted_and_is_not_told(
    closed_shelf: Any, event: Maker, tmp_path: Path
) -> None:
    crashed = Crashed(closed_shelf)
    await crashed.leave([numbered(event, n) for n in range(5)], tmp_path)
    last = commits_of(crashed.wal)[-1]
    whole = crashed.wal.read_bytes()
    for kept in range(len(last) - 1):
        crashed.wal.write_bytes(whole[: HEADER + (last[0] - 1 + kept) * FRAME + 100])
        outbox = await closed_shelf.open()
        assert (outbox.sequence, outbox.is_torn) == (4, False)
        await closed_shelf.close()
        for name in ("outbox.db", "outbox.db-wal"):
            shutil.copyfile(tmp_path / "kept" / name, closed_shelf.path.with_name(name))


@pytest.mark.parametrize("count", [4, 32, 4_096])
async def test_without_the_header_of_the_wal_its_frames_are_found_all_the_same(
    closed_shelf: Any, event: Maker, tmp_path: Path, count: int
) -> None:
    crashed = Crashed(closed_shelf)
    writes = [numbered(event, n) for n in range(10)]
    await crashed.leave(writes, tmp_path)
    flip(crashed.wal, 0, count)
    ids, gaps = await rescued(closed_shelf)
    assert closed_shelf.troubles == ["GW-STO-02"]
    assert ids == sorted(one.events[0].id for one in writes)
    assert [gap["sequences"] for gap in gaps] == [[]]


async def test_what_was_checkpointed_before_the_log_began_anew_is_no_hole(
    closed_shelf: Any, event: Maker, tmp_path: Path
) -> None:
    """Frames of an older log stand behind those of the new one, with other salts."""
    outbox = await closed_shelf.open()
    for n in range(8):
        await closed_shelf.store(numbered(event, n))
    outbox._store._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
    await closed_shelf.store(numbered(event, 8))
    await closed_shelf.store(numbered(event, 9))
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("outbox.db", "outbox.db-wal"):
        shutil.copyfile(closed_shelf.path.with_name(name), kept / name)
    await closed_shelf.close()
    for name in ("outbox.db", "outbox.db-wal"):
        shutil.copyfile(kept / name, closed_shelf.path.with_name(name))
    with Log(closed_shelf.path.with_name("outbox.db-wal")) as log:
        assert log.count > 2 * len(list(log.frames()))
    outbox = await closed_shelf.open()
    assert (closed_shelf.troubles, outbox.sequence) == ([], 10)


@pytest.mark.parametrize("spoiled", [b"\xff" * PAGE, bytes(PAGE), bytes(4), b"\xa5" * 24])
@pytest.mark.parametrize("logs", [0, 1, 2])
async def test_a_power_cut_that_spoils_the_block_with_which_the_log_begins_anew_is_no_hole(
    closed_shelf: Any, event: Maker, tmp_path: Path, spoiled: bytes, logs: int
) -> None:
    """All frames of the old log are there, without a header, and all of them stand in the database."""
    outbox = await closed_shelf.open()
    for n in range(8):
        await closed_shelf.store(numbered(event, n))
    outbox._store._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
    for n in range(logs):  # each with a commit of one frame and its copy
        outbox._store._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        outbox._store._writer.execute("UPDATE number SET settled = ?", (9 + n,))
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("outbox.db", "outbox.db-wal"):
        shutil.copyfile(closed_shelf.path.with_name(name), kept / name)
    await closed_shelf.close()
    for name in ("outbox.db", "outbox.db-wal"):
        shutil.copyfile(kept / name, closed_shelf.path.with_name(name))
    with closed_shelf.path.with_name("outbox.db-wal").open("r+b") as wal:
        wal.write(spoiled)
    stream = outbox.streamid
    outbox = await closed_shelf.open()
    # The first commit of the new log may have been accepted: that much is told.
    assert (closed_shelf.troubles, outbox.streamid, outbox.sequence, outbox.is_torn) == ([], stream, 8, True)


async def test_commits_that_go_on_without_a_break_are_no_hole_whatever_was_said_of_the_end(
    closed_shelf: Any, event: Maker, tmp_path: Path
) -> None:
    """A process that holds the index keeps one of before: SQLite notes a new log there before the file has its header."""
    crashed = Crashed(closed_shelf)
    await crashed.leave([numbered(event, n) for n in range(6)], tmp_path)
    with Log(crashed.wal) as log:
        count = log.count
    assert [hidden(closed_shelf.path, after=after) for after in range(count)] == [0] * count
    assert not any(torn(closed_shelf.path, after=after) for after in range(count))


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_blocks_are_hit_nothing_that_was_accepted_goes_without_a_word(
    closed_shelf: Any, event: Maker, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - a seed that can be played again
    crashed = Crashed(closed_shelf)
    nouns = ("alarm.raised", "device.fault", "telemetry.meter")
    writes = [
        Write((event(nouns[n % 3], f"dev-{n % 5}", text="x" * dice.choice((10, 300, 5_000))),)) for n in range(40)
    ]
    await crashed.leave(writes, tmp_path)
    commits = commits_of(crashed.wal)
    blocks = commits[-3][0] * FRAME // 4_096
    for block in dice.sample(range(blocks), dice.choice((1, 2, 5))):
        flip(crashed.wal, block * 4_096, 4_096)
    ids, gaps = await rescued(closed_shelf)
    lost = [at for at, one in enumerate(writes, 1) if one.events[0].id not in ids]
    told = {seq for gap in gaps for first, last in gap["sequences"] for seq in range(first, last + 1)}
    assert closed_shelf.troubles == ["GW-STO-02"]
    assert len(gaps) == 1
    assert set(lost) <= told
    assert len(ids) == len(set(ids))


async def test_the_wal_is_kept_as_it_was_and_goes_with_its_database(
    closed_shelf: Any, event: Maker, tmp_path: Path
) -> None:
    crashed = Crashed(closed_shelf)
    await crashed.leave([numbered(event, n) for n in range(10)], tmp_path)
    flip(crashed.wal, HEADER + 10 * FRAME + HEAD + 100)
    damaged = crashed.wal.read_bytes()
    await closed_shelf.open()
    [aside] = [one for one in closed_shelf.set_aside() if one.endswith(DAMAGED)]
    assert closed_shelf.path.with_name(aside).read_bytes() == damaged
    database = closed_shelf.path.with_name(aside.removesuffix(DAMAGED))
    assert mend(database) is False
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    assert connection.execute("SELECT count(*) FROM event_c").fetchone() == (10,)
    connection.close()


def test_a_hole_is_refused_before_anything_is_written(
    open_store: Callable[..., Store], commit: Callable[..., list[int]], write: Maker, tmp_path: Path
) -> None:
    store = open_store()
    for _ in range(10):
        commit(store, write())
    path = tmp_path / "crashed" / "outbox.db"
    path.parent.mkdir()
    for ending in ("", "-wal"):
        shutil.copyfile(store.path.with_name(store.path.name + ending), path.with_name(path.name + ending))
    wal = path.with_name("outbox.db-wal")
    flip(wal, HEADER + 12 * FRAME + HEAD)
    before = wal.read_bytes()
    for _try in range(2):
        with pytest.raises(StoreError, match="commits stand behind damage in its WAL") as refused:
            Store(path, store.routes).open()
        assert refused.value.code == "GW-STO-02"
        assert wal.read_bytes() == before

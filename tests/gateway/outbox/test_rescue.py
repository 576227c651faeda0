"""What a corrupt database still held is brought back: every row of a page that was not hit, and the rest is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.errors import StoreError
from gateway.events import Lane
from gateway.outbox import DeadLetter, Mark, MeterDay, Number, NumberState, Rescue, Route, Write
from gateway.outbox import rescue as rescue_module
from gateway.outbox.connection import TABLES
from gateway.outbox.pages import Pages, lanes_of
from gateway.outbox.reading import ReadingThread
from gateway.outbox.rows import OF_ANOTHER_STREAM
from gateway.outbox.salvage import Salvaged, salvage
from gateway.outbox.transaction import Transactions
from gateway.outbox.wreck import Wreck, steps
from tests.gateway.outbox.conftest import NOW_MS, ORIGIN

Maker = Callable[..., Any]
PAGE = 4096
NOUNS = ("alarm.raised", "device.fault", "telemetry.meter", "telemetry.environment")


async def fill(shelf: Any, event: Maker, count: int, *, seed: int = 1, each: int = 100) -> dict[str, int]:
    """Store events of all kinds and sizes, some of them longer than a page; return their ids and sequences."""
    dice = random.Random(seed)  # noqa: S311 - a seed that can be played again
    shelf.outbox.live = lambda: False
    for n in range(count):
        one = event(NOUNS[n % 4], f"dev-{n % 7}", text="x" * dice.choice((10, 300, 5_000)))
        shelf.outbox.submit(Write((one,)))
        if n % each == each - 1:
            assert await shelf.outbox.flush(20)
    assert await shelf.outbox.flush(20)
    return {row[1]: row[0] for lane in "abcd" for row in shelf.sql(f"SELECT seq, id FROM event_{lane}")}  # noqa: S608


def found(path: Path, salvaged: Salvaged) -> dict[str, int]:
    wreck = Wreck(path, salvaged)
    try:
        return {one.event.id: one.seq for urgent, first in steps(wreck) for one in wreck.step(first, urgent=urgent)}
    finally:
        wreck.close()


class Traced(Pages):
    """Notes which pages are read."""

    def __init__(self, path: Path) -> None:
        self.read: set[int] = set()
        super().__init__(path)

    def page(self, number: int) -> bytes:
        self.read.add(number)
        return super().page(number)


def pages_of(path: Path) -> dict[str, set[int]]:
    """Every page that a row lies on: its leaf, and those that take what does not fit there."""
    pages = Traced(path)
    try:
        where = {}
        for number in range(1, pages.count + 1):
            for _seq, values in pages.rows(number):
                if len(values) == 11:
                    where[str(values[1])] = {number, *pages.read}
                pages.read.clear()
        return where
    finally:
        pages.close()


async def test_every_row_of_a_sound_file_is_found_with_or_without_its_wal(closed_shelf: Any, event: Maker) -> None:
    await closed_shelf.open()
    ids = await fill(closed_shelf, event, 400)
    copy = closed_shelf.path.with_name("copy.db")
    for ending in ("", "-wal"):
        shutil.copyfile(f"{closed_shelf.path}{ending}", f"{copy}{ending}")
    assert found(copy, Salvaged()) == ids
    await closed_shelf.close()
    assert found(closed_shelf.path, salvage(closed_shelf.path)) == ids


async def test_the_tree_tells_which_lane_a_page_is_of(closed_shelf: Any, event: Maker) -> None:
    await closed_shelf.open()
    await fill(closed_shelf, event, 200)
    await closed_shelf.close()
    pages = Pages(closed_shelf.path)
    lanes = lanes_of(pages, {table: int(lane) for lane, table in TABLES.items()})
    seen = {
        (lanes[number], str(values[2]).partition(".")[0]) for number in lanes for _seq, values in pages.rows(number)
    }
    pages.close()
    assert seen == {(0, "alarm"), (1, "device"), (3, "telemetry")}


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_pages_are_flipped_every_row_of_the_others_is_found(
    closed_shelf: Any, event: Maker, seed: int
) -> None:
    await closed_shelf.open()
    ids = await fill(closed_shelf, event, 160, seed=seed)
    await closed_shelf.close()
    where = pages_of(closed_shelf.path)
    size = closed_shelf.path.stat().st_size // PAGE
    dice = random.Random(seed)  # noqa: S311 - a seed that can be played again
    hit = set(dice.sample(range(1, size + 1), dice.randint(1, max(1, size // 6))))
    with closed_shelf.path.open("r+b") as file:
        for page in hit:
            file.seek((page - 1) * PAGE + dice.choice((0, 0, dice.randrange(PAGE))))
            file.write(dice.randbytes(dice.choice((8, 200, PAGE)))[: page * PAGE - file.tell()])
    untouched = {name for name, pages in where.items() if not pages & hit}
    rescued = found(closed_shelf.path, Salvaged())
    assert untouched <= rescued.keys()
    assert {name: rescued[name] for name in untouched} == {name: ids[name] for name in untouched}
    assert rescued.items() <= ids.items(), "nothing was made up"


async def test_rows_that_everybody_has_confirmed_do_not_come_again(closed_shelf: Any, event: Maker) -> None:
    closed_shelf.routes = [Route("district", ("*",)), Route("street", ("alarm.*",))]
    outbox = await closed_shelf.open()
    ids = await fill(closed_shelf, event, 40, each=1)
    last = {lane: max(seq for (seq,) in closed_shelf.sql(f"SELECT seq FROM event_{lane}")) for lane in "abd"}  # noqa: S608
    outbox.confirm("district", Lane.A, seq=20, ahead=lambda: [(25, 25)], done=6)
    outbox.confirm("street", Lane.A, seq=4, ahead=list, done=1)
    outbox.confirm("district", Lane.B, seq=last["b"], ahead=list, done=10)
    outbox.confirm("district", Lane.D, seq=11, ahead=list, done=5)
    assert await outbox.flush(10)
    await closed_shelf.close()
    salvaged = salvage(closed_shelf.path)
    wreck = Wreck(closed_shelf.path, salvaged)
    rescued = [one for urgent, first in steps(wreck) for one in wreck.step(first, urgent=urgent)]
    wreck.close()
    by_lane = {lane: sorted(one.seq for one in rescued if one.event.lane is lane) for lane in (Lane.A, Lane.B, Lane.C)}
    assert by_lane[Lane.A] == [5, 9, 13, 17, 21, 25, 29, 33, 37], "the street has had only the first"
    assert {one.seq: one.only for one in rescued if one.event.lane is Lane.A} == {
        5: "street", 9: "street", 13: "street", 17: "street", 21: "", 25: "street", 29: "", 33: "", 37: "",
    }  # fmt: skip
    assert by_lane[Lane.B] == []
    assert by_lane[Lane.C] == [seq for seq in range(12, 41) if seq % 4 in (3, 0)]
    assert len(ids) == 40


def break_page(path: Path, table: str) -> None:
    with sqlite3.connect(path) as connection:
        [(root,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
        [(size,)] = connection.execute("PRAGMA page_size")
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xa5" * size)


async def test_the_new_stream_has_the_old_events_with_their_ids_alarms_first(closed_shelf: Any, event: Maker) -> None:
    await closed_shelf.open()
    ids = await fill(closed_shelf, event, 200)
    old = closed_shelf.outbox.streamid
    await closed_shelf.close()
    break_page(closed_shelf.path, "event_a")
    outbox = await closed_shelf.open()
    assert outbox.to_rescue
    rescue = Rescue(outbox, ORIGIN, clock=closed_shelf.clock)
    await rescue.once()
    assert (rescue.rescued, outbox.to_rescue, outbox.streamid != old) == (200, "", True)
    rows = [row for lane in Lane for row in await outbox.fetch(lane, 0, 1_000)]
    assert {row.id for row in rows if row.noun != "gateway.gap"} == set(ids)
    order = [row.noun.partition(".")[0] for row in sorted(rows, key=lambda row: row.seq) if row.noun != "gateway.gap"]
    assert order.index("telemetry") > max(at for at, noun in enumerate(order) if noun in ("alarm", "device"))
    alarms = await outbox.fetch(Lane.A, 0, 100)
    assert [ids[row.id] for row in alarms] == sorted(ids[row.id] for row in alarms), "in the order that they had"
    await closed_shelf.reopen()
    assert closed_shelf.outbox.to_rescue == ""


@pytest.mark.parametrize("seed", range(100, 108))
async def test_whatever_was_flipped_the_outbox_opens_delivers_what_is_sound_and_tells_the_rest(
    closed_shelf: Any, event: Maker, seed: int
) -> None:
    """More of the same was done by hand, with 300 rows and a quarter of the pages."""
    dice = random.Random(seed)  # noqa: S311 - a seed that can be played again
    await closed_shelf.open()
    ids = await fill(closed_shelf, event, 120, seed=seed, each=10)
    await closed_shelf.close()
    where = pages_of(closed_shelf.path)
    size = closed_shelf.path.stat().st_size // PAGE
    hit = set(dice.sample(range(1, size + 1), max(1, size // 5)))
    with closed_shelf.path.open("r+b") as file:
        for page in hit:
            file.seek((page - 1) * PAGE)
            file.write(dice.randbytes(dice.choice((8, 200, PAGE))))
    outbox = await closed_shelf.open()
    before = outbox.streamid
    for lane in Lane:  # as the delivery does: the rest of what is corrupt shows itself
        with contextlib.suppress(StoreError):
            await outbox.fetch(lane, 0, 1_000)
    assert await outbox.flush(20)
    assert outbox.to_rescue or outbox.streamid != before
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    rows = [row for lane in Lane for row in await outbox.fetch(lane, 0, 1_000)]
    delivered = {row.id for row in rows}
    assert {name for name, pages in where.items() if not pages & hit} <= delivered
    [gap] = [json.loads(row.body)["data"] for row in rows if row.noun == "gateway.gap"]
    told = {seq for a, b in gap["sequences"] for seq in range(a, b + 1)}
    untold = {seq for name, seq in ids.items() if name not in delivered} - told
    assert not gap["highest_is_sure"] or not untold
    assert all(seq > gap["highest"] for seq in untold), "of what came last nobody knows where the number itself is lost"


async def test_what_could_not_be_found_is_told_as_a_gap(closed_shelf: Any, event: Maker) -> None:
    await closed_shelf.open()
    ids = await fill(closed_shelf, event, 120, each=4)
    old = closed_shelf.outbox.streamid
    await closed_shelf.close()
    where = pages_of(closed_shelf.path)
    name = next(one for one, seq in ids.items() if seq == 60)
    [page] = where[name]
    gone = sorted(ids[one] for one, pages in where.items() if page in pages)
    with closed_shelf.path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xa5" * PAGE)
    break_page(closed_shelf.path, "number")
    outbox = await closed_shelf.open()
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    rows = [row for lane in Lane for row in await outbox.fetch(lane, 0, 1_000)]
    assert {ids[row.id] for row in rows if row.id in ids} == set(range(1, 121)) - set(gone)
    [gap] = [json.loads(row.body)["data"] for row in rows if row.noun == "gateway.gap"]
    assert (gap["link"], gap["reason"], gap["stream"]) == ("outbox", "corrupt", old)
    assert [seq for a, b in gap["sequences"] for seq in range(a, b + 1)] == gone
    assert (gap["dropped"], gap["exact"], gap["complete"], gap["rescued"]) == (len(gone), False, True, 120 - len(gone))


async def test_what_one_platform_has_and_another_never_confirmed_is_told_when_it_is_lost(
    closed_shelf: Any, event: Maker
) -> None:
    closed_shelf.routes = [Route("district", ("*",)), Route("family", ("*",))]
    outbox = await closed_shelf.open()
    ids = await fill(closed_shelf, event, 120, each=4)
    for lane, count in ((Lane.A, 30), (Lane.B, 30), (Lane.D, 60)):
        outbox.confirm("district", lane, seq=outbox.last(lane), ahead=list, done=count)
    assert await outbox.flush(10)
    await closed_shelf.close()
    where = pages_of(closed_shelf.path)
    alarm = next(one for one, seq in ids.items() if seq > 40 and seq % 4 == 1 and len(where[one]) == 1)
    [page] = where[alarm]
    gone = sorted(ids[one] for one, pages in where.items() if page in pages)
    with closed_shelf.path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xa5" * PAGE)
    break_page(closed_shelf.path, "number")
    outbox = await closed_shelf.open()
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    [gap] = [json.loads(row.body)["data"] for row in await outbox.fetch(Lane.B, 0, 1_000) if row.noun == "gateway.gap"]
    assert ids[alarm] in gone
    assert [seq for a, b in gap["sequences"] for seq in range(a, b + 1)] == gone


async def test_the_last_row_is_told_as_lost_although_the_marks_went_with_it(closed_shelf: Any, event: Maker) -> None:
    """The number of an input, and how far a platform has confirmed, say how far the sequence had come."""
    await closed_shelf.open()
    for n in range(3):
        await closed_shelf.store(Write((event("device.fault"),), numbers=(Number("m1", "", n),)))
    await closed_shelf.store(Write((event("telemetry.meter"),), numbers=(Number("m1", "", 3),)))
    await closed_shelf.close()
    break_page(closed_shelf.path, "fact")
    break_page(closed_shelf.path, "event_c")
    outbox = await closed_shelf.open()
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    rows = await outbox.fetch(Lane.B, 0, 100)
    [gap] = [json.loads(row.body)["data"] for row in rows if row.noun == "gateway.gap"]
    assert (gap["sequences"], gap["dropped"], gap["highest"]) == ([[4, 4]], 1, 4)


async def test_what_was_delivered_and_left_is_not_told_as_lost(closed_shelf: Any, event: Maker) -> None:
    """Alarms come seldom: their confirmation must not stand for months while readings come and go."""
    outbox = await closed_shelf.open()
    await fill(closed_shelf, event, 4)
    for lane, count in ((Lane.A, 1), (Lane.B, 1), (Lane.D, 2)):
        outbox.confirm("district", lane, seq=outbox.last(lane), ahead=list, done=count)
    for _ in range(60):
        closed_shelf.outbox.submit(Write((event("telemetry.meter", "dev-1"),)))
    assert await outbox.flush(10)
    outbox.confirm("district", Lane.D, seq=outbox.last(Lane.D), ahead=list, done=60)
    assert await outbox.flush(10)
    for _ in range(4):
        closed_shelf.outbox.submit(Write((event("alarm.raised", "dev-2"),)))
    assert await outbox.flush(10)
    await closed_shelf.close()
    break_page(closed_shelf.path, "number")
    outbox = await closed_shelf.open()
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    rows = await outbox.fetch(Lane.A, 0, 1_000)
    gaps = [json.loads(row.body)["data"] for row in await outbox.fetch(Lane.B, 0, 1_000) if row.noun == "gateway.gap"]
    assert len(rows) == 4
    assert [gap["sequences"] for gap in gaps] == []


async def test_the_window_of_what_was_lost_ends_when_the_database_was_set_aside(
    closed_shelf: Any, event: Maker
) -> None:
    """What came last may be what was lost: nothing that was found is as late."""
    await closed_shelf.open()
    await fill(closed_shelf, event, 40, each=4)
    await closed_shelf.close()
    where = pages_of(closed_shelf.path)
    with closed_shelf.path.open("r+b") as file:
        for page in max(where.values(), key=max):
            file.seek((page - 1) * PAGE)
            file.write(b"\xa5" * PAGE)
    break_page(closed_shelf.path, "number")
    closed_shelf.clock.now = Stamp(NOW_MS + 7_000, 1_007_000, "boot-1", "synced")
    outbox = await closed_shelf.open()
    closed_shelf.clock.now = Stamp(NOW_MS + 60_000, 1_060_000, "boot-1", "synced")
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    rows = [row for lane in Lane for row in await outbox.fetch(lane, 0, 1_000)]
    [gap] = [json.loads(row.body)["data"] for row in rows if row.noun == "gateway.gap"]
    assert (gap["from_mono_ms"], gap["to_mono_ms"], gap["to_boot"]) == (1_000_000, 1_007_000, "boot-1")
    assert (gap["from"], gap["to"]) == ("2027-01-15T08:00:00.000Z", "2027-01-15T08:00:07.000Z")


async def test_a_gateway_that_ends_meanwhile_goes_on_where_it_was(
    closed_shelf: Any, event: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.wreck.STEP_PAGES", 8)
    await closed_shelf.open()
    ids = await fill(closed_shelf, event, 200)
    await closed_shelf.close()
    break_page(closed_shelf.path, "event_d")
    outbox = await closed_shelf.open()
    rescue = Rescue(outbox, ORIGIN, clock=closed_shelf.clock)
    task = asyncio.create_task(rescue.once())
    while rescue.rescued < 60:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    outbox = await closed_shelf.kill()
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    rows = [row for lane in Lane for row in await outbox.fetch(lane, 0, 1_000)]
    assert {row.id for row in rows if row.noun != "gateway.gap"} == set(ids)
    assert len(rows) < 200 + 60, "only the last step came twice, with the same ids"


async def test_a_database_that_goes_before_the_one_before_it_was_gone_through_is_behind_it(
    closed_shelf: Any, event: Maker
) -> None:
    """Killed after the first replacement, and the new database is corrupt as well: both are gone through, in their order."""
    await closed_shelf.open()
    first = await fill(closed_shelf, event, 12)
    await closed_shelf.close()
    break_page(closed_shelf.path, "number")
    await closed_shelf.open()
    second = await fill(closed_shelf, event, 8, seed=2)
    closed_shelf.clock.now = Stamp(NOW_MS + 60_000, 1_060_000, "boot-1", "synced")
    await closed_shelf.close()
    break_page(closed_shelf.path, "number")
    outbox = await closed_shelf.open()
    place = json.loads(outbox.to_rescue)
    assert place["file"] < place["then"]["file"]
    rescue = Rescue(outbox, ORIGIN, clock=closed_shelf.clock)
    await rescue.once()
    rows = [row for lane in Lane for row in await outbox.fetch(lane, 0, 1_000)]
    assert {row.id for row in rows if row.noun != "gateway.gap"} == set(first)
    outbox = await closed_shelf.reopen()
    assert "then" not in json.loads(outbox.to_rescue)
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    rows = [row for lane in Lane for row in await outbox.fetch(lane, 0, 1_000)]
    assert {row.id for row in rows if row.noun != "gateway.gap"} == {*first, *second}
    assert outbox.to_rescue == ""


async def test_one_that_was_not_gone_through_is_remembered_beside_it_where_the_next_lost_that(
    closed_shelf: Any, event: Maker
) -> None:
    """Killed early after the first replacement, and of the new database the very page is hit that named the old one."""
    await closed_shelf.open()
    first = await fill(closed_shelf, event, 12)
    await closed_shelf.close()
    break_page(closed_shelf.path, "number")
    await closed_shelf.open()
    second = await fill(closed_shelf, event, 8, seed=2)
    closed_shelf.clock.now = Stamp(NOW_MS + 60_000, 1_060_000, "boot-1", "synced")
    await closed_shelf.close()
    break_page(closed_shelf.path, "fact")
    outbox = await closed_shelf.open()
    for _ in range(2):
        await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    rows = [row for lane in Lane for row in await outbox.fetch(lane, 0, 1_000)]
    assert {row.id for row in rows if row.noun != "gateway.gap"} == {*first, *second}
    assert outbox.to_rescue == ""
    # Nothing says any more that they have to be gone through.
    await closed_shelf.close()
    break_page(closed_shelf.path, "fact")
    outbox = await closed_shelf.open()
    assert "then" not in json.loads(outbox.to_rescue)


async def test_one_that_is_gone_takes_none_behind_it_along_and_is_told(
    closed_shelf: Any, event: Maker, when: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many are kept: the first of them may have been removed before it was gone through."""
    monkeypatch.setattr(rescue_module, "LOOK_S", 0.01)
    ids: list[set[str]] = []
    for n in range(3):
        closed_shelf.clock.now = Stamp(NOW_MS + n * 60_000, 1_000_000 + n * 60_000, "boot-1", "synced")
        await closed_shelf.open()
        ids.append(set(await fill(closed_shelf, event, 8, seed=n)))
        await closed_shelf.close()
        if n == 2:
            closed_shelf.path.with_name(closed_shelf.set_aside()[0]).unlink()
        break_page(closed_shelf.path, "number")
    outbox = await closed_shelf.open()
    running = asyncio.create_task(Rescue(outbox, ORIGIN, clock=closed_shelf.clock).run())
    await when(lambda: outbox.to_rescue == "")
    running.cancel()
    await asyncio.wait({running})
    rows = [row for lane in Lane for row in await outbox.fetch(lane, 0, 1_000)]
    assert {row.id for row in rows if row.noun != "gateway.gap"} == ids[1] | ids[2]
    gaps = [json.loads(row.body)["data"] for row in rows if row.noun == "gateway.gap"]
    assert [gap["complete"] for gap in gaps] == [False]


async def test_a_card_that_corrupts_every_start_leaves_no_endless_list_of_what_is_to_be_gone_through(
    closed_shelf: Any, event: Maker
) -> None:
    for n in range(8):
        closed_shelf.clock.now = Stamp(NOW_MS + n, 1_000_000 + n, "boot-1", "synced")
        await closed_shelf.open()
        await fill(closed_shelf, event, 4, seed=n)
        await closed_shelf.close()
        break_page(closed_shelf.path, "number")
    place = json.loads((await closed_shelf.open()).to_rescue)
    files = []
    while place:
        files.append(place["file"])
        place = place.get("then")
    kept = [name for name in closed_shelf.set_aside() if name[-1].isdigit()]
    assert (files[1:], files[0] < files[1]) == (kept, True)


async def test_a_file_that_says_nothing_at_all_is_told_as_a_gap_of_unknown_size(
    closed_shelf: Any, event: Maker, when: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue_module, "LOOK_S", 0.01)
    await closed_shelf.open()
    await fill(closed_shelf, event, 20)
    await closed_shelf.close()
    closed_shelf.path.write_bytes(bytes(range(256)) * (closed_shelf.path.stat().st_size // 256))
    outbox = await closed_shelf.open()
    closed_shelf.path.with_name(json.loads(outbox.to_rescue)["file"]).unlink()
    running = asyncio.create_task(Rescue(outbox, ORIGIN, clock=closed_shelf.clock).run())
    await when(lambda: outbox.to_rescue == "")
    running.cancel()
    await asyncio.wait({running})
    [row] = await outbox.fetch(Lane.B, 0, 10)
    gap = json.loads(row.body)["data"]
    assert (gap["reason"], gap["complete"], gap["sequences"]) == ("corrupt", False, [])


async def test_numbers_epochs_and_dead_letters_outlive_the_file(closed_shelf: Any, event: Maker) -> None:
    outbox = await closed_shelf.open()
    await closed_shelf.store(Write((event("alarm.raised"),), numbers=(Number("m1", "", 7, 77),)))
    [row] = await outbox.fetch(Lane.A, 0, 1)
    outbox.dead_letter(DeadLetter("district", row, "no", "why", 5))
    assert [await outbox.next_epoch("district") for _ in range(3)] == [1, 2, 3]
    assert await outbox.flush(10)
    await closed_shelf.close()
    break_page(closed_shelf.path, "event_c")
    for _start in range(2):
        outbox = await closed_shelf.open()
        assert outbox.number_state("m1", "", 7, digest=77) is NumberState.DURABLE
        assert outbox.number_state("m1", "", 7, digest=78) is NumberState.REUSED
        [letter] = await outbox.dead_letters()
        assert (letter.id, letter.seq, letter.code, letter.body) == (row.id, -1, "no", row.body)
        await closed_shelf.close()
    outbox = await closed_shelf.open()
    assert await outbox.next_epoch("district") == 4


async def test_numbers_outlive_a_file_that_turns_corrupt_while_running(shelf: Any, event: Maker, when: Maker) -> None:
    await shelf.store(Write((event(),), numbers=(Number("m1", "", 7, 77),)))
    before = shelf.outbox.streamid
    shelf.outbox._corrupt = StoreError("GW-STO-02", "outbox.db")
    shelf.outbox._wake.set()
    await when(lambda: shelf.outbox.streamid != before)
    assert shelf.outbox.number_state("m1", "", 7, digest=77) is NumberState.DURABLE


async def test_what_was_taken_since_a_replacement_at_the_start_stays_known_while_the_disk_fails(
    closed_shelf: Any, event: Maker
) -> None:
    """What the database before it had known would tell a source that its number is new, and it would be stored twice."""
    await closed_shelf.open()
    await closed_shelf.store(Write((event(),), numbers=(Number("m1", "", 7, 77),)))
    await closed_shelf.close()
    break_page(closed_shelf.path, "event_d")
    outbox = await closed_shelf.open()
    await closed_shelf.store(Write((event(),), numbers=(Number("m1", "", 8, 88),)))
    await outbox._database.close_store()
    assert outbox._database.salvaged is None
    assert outbox.number_state("m1", "", 7, digest=77) is NumberState.DURABLE
    assert outbox.number_state("m1", "", 8, digest=88) is NumberState.DURABLE


async def test_the_table_of_boots_is_known_in_the_run_that_replaced_its_database(
    closed_shelf: Any, event: Maker
) -> None:
    outbox = await closed_shelf.open()
    outbox.boots.begin("boot-0", floor_ms=NOW_MS)
    await closed_shelf.store(Write(facts=(("boots", outbox.boots.text()),)))
    await closed_shelf.close()
    break_page(closed_shelf.path, "event_d")
    outbox = await closed_shelf.open()
    assert outbox.boots["boot-0"].floor_ms == NOW_MS


async def test_letters_of_the_same_sequence_outlive_one_replacement_after_the_other(
    closed_shelf: Any, event: Maker
) -> None:
    ids = []
    for _stream in range(3):
        outbox = await closed_shelf.open()
        one = event("alarm.raised")
        await closed_shelf.store(Write((one,)), Write((event("alarm.raised"),)))
        row, other = await outbox.fetch(Lane.A, 0, 2)
        assert (row.seq, other.seq) == (1, 2)
        for letter in (row, other):
            outbox.dead_letter(DeadLetter("district", letter, "no", "why", 5))
        assert await outbox.flush(10)
        ids += [row.id, other.id]
        await closed_shelf.close()
        break_page(closed_shelf.path, "event_d")
    outbox = await closed_shelf.open()
    letters = await outbox.dead_letters()
    assert [one.seq for one in reversed(letters)] == [-6, -5, -4, -3, -2, -1]
    assert [one.id for one in reversed(letters)] == ids


@pytest.mark.parametrize("first", ["refused again", "brought back"])
async def test_what_is_refused_again_after_a_damage_is_one_letter(closed_shelf: Any, event: Maker, first: str) -> None:
    outbox = await closed_shelf.open()
    await closed_shelf.store(Write((event("alarm.raised"),)))
    [row] = await outbox.fetch(Lane.A, 0, 1)
    old = DeadLetter("district", row._replace(seq=OF_ANOTHER_STREAM), "no", "why", 5)
    again = DeadLetter("district", row, "no", "why", 6)
    for letter in (again, old) if first == "refused again" else (old, again):
        outbox.dead_letter(letter)
        assert await outbox.flush(10)
    assert [(one.seq, one.id, one.at_ms) for one in await outbox.dead_letters()] == [(1, row.id, 6)]
    assert outbox.totals().tally.dead == {"district": 1}


async def test_a_letter_that_waited_while_its_database_went_takes_the_place_of_no_other(
    closed_shelf: Any, event: Maker, when: Maker
) -> None:
    outbox = await closed_shelf.open()
    await closed_shelf.store(Write((event("alarm.raised"),)))
    [old] = await outbox.fetch(Lane.A, 0, 1)
    outbox._corrupt = StoreError("GW-STO-02", "outbox.db")
    outbox.dead_letter(DeadLetter("district", old, "no", "why", 5))
    await when(lambda: outbox.waiting == 0)
    await closed_shelf.store(Write((event("alarm.raised"),)))
    [new] = await outbox.fetch(Lane.A, 0, 1)
    assert (old.seq, new.seq) == (1, 1)
    outbox.dead_letter(DeadLetter("district", new, "no", "why", 6))
    assert await outbox.flush(10)
    assert [(one.seq, one.id) for one in await outbox.dead_letters()] == [(1, new.id), (-1, old.id)]


# A disk that does not answer.


async def test_a_page_that_never_comes_holds_up_no_end(
    closed_shelf: Any, event: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await closed_shelf.open()
    await fill(closed_shelf, event, 20)
    await closed_shelf.close()
    break_page(closed_shelf.path, "event_d")
    outbox = await closed_shelf.open()
    asked, answered = threading.Event(), threading.Event()

    def hang(*_arguments: Any, **_more: Any) -> list[Any]:
        asked.set()
        answered.wait()
        return []

    monkeypatch.setattr(Wreck, "step", hang)
    running = asyncio.create_task(Rescue(outbox, ORIGIN, clock=closed_shelf.clock).run())
    assert await asyncio.to_thread(asked.wait, 10)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=30)
    answered.set()
    assert done == {running}


def test_a_process_ends_although_a_reading_hangs() -> None:
    """A pool of the standard library would be joined, and the process would stay for ever."""
    program = (
        "import threading\n"
        "from gateway.outbox.reading import ReadingThread\n"
        "begun = threading.Event()\n"
        "thread = ReadingThread('hangs')\n"
        "thread.submit(lambda: (begun.set(), threading.Event().wait()))\n"
        "begun.wait()\n"
        "print('the end')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("the end\n", "", 0)


async def test_a_reading_gives_its_answer_or_its_error() -> None:
    thread = ReadingThread("answers")
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(thread, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(thread, lambda: 1 // 0)
    thread.shutdown()


# A replacement that is interrupted.


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("at", ["gateway.outbox.store.Store.adopt", "gateway.outbox.database.salvage"])
async def test_a_replacement_that_a_crash_interrupts_is_finished_by_the_next_start(
    closed_shelf: Any, event: Maker, alarm: Maker, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    await closed_shelf.open()
    one = alarm()
    await closed_shelf.store(replace(one, marks=(Mark("call-1", "counter:", "7"),)))
    await closed_shelf.close()
    break_page(closed_shelf.path, "number")

    def killed(*_arguments: Any, **_more: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(at, killed)
        with pytest.raises(Killed):
            await closed_shelf.open()
    outbox = await closed_shelf.open()
    assert (outbox.was_replaced, bool(outbox.to_rescue)) == (True, True)
    assert [row.id for row in await outbox.alarms()] == [one.alarms[0].id]
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    assert [row.id for row in await outbox.fetch(Lane.A, 0, 10)] == [one.events[0].id]
    assert not closed_shelf.path.with_name("outbox.db.replacing").exists()
    stream = outbox.streamid
    outbox = await closed_shelf.reopen()
    assert (outbox.streamid, outbox.was_replaced) == (stream, False)
    assert [row.id for row in await outbox.alarms()] == [one.alarms[0].id]


@pytest.mark.parametrize("failure", [Killed(), OSError(28, "No space left on device")])
async def test_a_database_that_was_set_aside_without_its_wal_gets_it_still(
    closed_shelf: Any,
    alarm: Maker,
    event: Maker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
) -> None:
    """What was accepted last stands only there."""
    await closed_shelf.open()
    one = alarm()
    await closed_shelf.store(one)
    ids = await fill(closed_shelf, event, 8, each=2)
    for ending in ("", "-wal"):
        shutil.copyfile(f"{closed_shelf.path}{ending}", tmp_path / f"kept{ending}")
    await closed_shelf.close()
    for ending in ("", "-wal"):
        shutil.copyfile(tmp_path / f"kept{ending}", f"{closed_shelf.path}{ending}")
    with closed_shelf.path.with_name("outbox.db-wal").open("r+b") as wal:
        wal.seek(32 + 24 + 2_000)
        wal.write(b"\xa5" * 100)
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.name == "outbox.db-wal":
            raise failure
        return rename(path, target)

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(Path, "rename", fails)
        outbox = await closed_shelf.open()
        assert (closed_shelf.troubles, outbox.is_open) == (["GW-STO-01"], False)
    if isinstance(failure, Killed):
        outbox = await closed_shelf.open()
    assert await outbox.flush(10)
    assert len([name for name in closed_shelf.set_aside() if name[-1].isdigit()]) == 1
    assert [row.id for row in await outbox.alarms()] == [one.alarms[0].id]
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    found = [row.id for lane in Lane for row in await outbox.fetch(lane, 0, 100) if row.noun != "gateway.gap"]
    assert sorted(found) == sorted(ids)


async def test_a_replacement_that_was_finished_is_not_done_again(closed_shelf: Any, event: Maker) -> None:
    await closed_shelf.open()
    await fill(closed_shelf, event, 4)
    await closed_shelf.close()
    break_page(closed_shelf.path, "number")
    outbox = await closed_shelf.open()
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    stream = outbox.streamid
    await closed_shelf.close()
    [aside] = [one for one in closed_shelf.path.parent.glob("outbox.db.corrupt-*") if one.name[-1].isdigit()]
    note = closed_shelf.path.with_name("outbox.db.replacing")
    note.write_text(json.dumps({"file": aside.name}), encoding="utf-8")  # as if it could not be removed
    outbox = await closed_shelf.open()
    assert (outbox.streamid, note.exists()) == (stream, False)


async def test_what_only_a_removed_destination_had_not_confirmed_does_not_come_again(
    closed_shelf: Any, event: Maker
) -> None:
    closed_shelf.routes = [Route("district", ("*",)), Route("old", ("*",))]
    outbox = await closed_shelf.open()
    await fill(closed_shelf, event, 8)
    outbox.confirm("district", Lane.A, seq=outbox.last(Lane.A), ahead=list, done=2)
    assert await outbox.flush(10)
    await closed_shelf.close()
    wreck = Wreck(closed_shelf.path, salvage(closed_shelf.path), destinations=["district"])
    rescued = [one for urgent, first in steps(wreck) for one in wreck.step(first, urgent=urgent)]
    wreck.close()
    assert {one.event.lane for one in rescued} == {Lane.B, Lane.C}
    assert {one.only for one in rescued} == {""}


async def test_a_page_that_the_disk_does_not_give_keeps_no_other(
    closed_shelf: Any, event: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await closed_shelf.open()
    ids = await fill(closed_shelf, event, 40)
    await closed_shelf.close()
    where = pages_of(closed_shelf.path)
    name = next(one for one, pages in where.items() if len(pages) == 1)
    [bad] = where[name]
    pages = Pages(closed_shelf.path)

    class Sector:
        def __init__(self, file: Any) -> None:
            self.file = file

        def seek(self, at: int) -> int:
            if at == (bad - 1) * pages.page_bytes:
                raise OSError(5, "Input/output error")
            return int(self.file.seek(at))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    monkeypatch.setattr(pages, "_file", Sector(pages._file))
    found_ids = {
        values[1] for number in range(1, pages.count + 1) for _rowid, values in pages.rows(number) if len(values) == 11
    }
    pages.close()
    assert name not in found_ids
    assert {one for one, its in where.items() if bad not in its} <= found_ids
    assert len(ids) == 40


async def test_what_meters_showed_comes_back_page_by_page_and_is_the_true_first_of_its_day(
    closed_shelf: Any, event: Maker
) -> None:
    await closed_shelf.open()
    await fill(closed_shelf, event, 4)
    days = [f"2026-{month:02d}-{day:02d}" for month in range(1, 13) for day in range(1, 29)]
    doc = {day: json.dumps({"t": n, "r": {f"energy_active_import T{k}": f"{n}.{k:02d}" for k in range(1, 60)}})
           for n, day in enumerate(days)}  # fmt: skip
    for first in range(0, len(days), 50):
        rows = [MeterDay("m1", day, "read", doc[day]) for day in days[first : first + 50]]
        rows.append(MeterDay("m1", days[first], "swap", '{"t":0,"old":"1","new":"2"}', n=7))
        await closed_shelf.store(Write(days=tuple(rows)))
    await closed_shelf.close()
    break_page(closed_shelf.path, "meter_day")  # the root: every leaf below it stands, and SQL finds none
    break_page(closed_shelf.path, "number")
    outbox = await closed_shelf.open()
    await closed_shelf.store(Write(days=(MeterDay("m1", days[-1], "read", '{"t":999}'),)))  # later on that day
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    kept = await outbox.read(lambda reader: reader.meter_days("m1", "2000-01-01", "2100-01-01", limit=1_000))
    found = {one.day: one.doc for one in kept if one.kind == "read"}
    assert found.items() <= doc.items(), "nothing was made up"
    assert len(found) >= len(days) - 8, "but for what stood in the root itself"
    assert found[days[-1]] == doc[days[-1]]
    assert [(one.day, one.n, one.doc) for one in kept if one.kind == "swap"] == [
        (days[first], 7, '{"t":0,"old":"1","new":"2"}') for first in range(0, len(days), 50)
    ]  # fmt: skip


async def test_a_year_of_many_meters_comes_back_in_commits_that_an_alarm_can_wait_for(
    closed_shelf: Any, event: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await closed_shelf.open()
    await fill(closed_shelf, event, 4)
    days = [f"2026-{month:02d}-{day:02d}" for month in range(1, 13) for day in range(1, 29)]
    for meter in range(8):
        await closed_shelf.store(Write(days=tuple(MeterDay(f"m{meter}", day, "read", '{"t":1}') for day in days)))
    await closed_shelf.close()
    break_page(closed_shelf.path, "number")
    outbox = await closed_shelf.open()
    commits: list[int] = []
    commit = Transactions.commit

    def counted(self: Transactions, writes: Any, *args: Any, **kwargs: Any) -> Any:
        commits.append(sum(len(write.days) for write, _lanes in writes))
        return commit(self, writes, *args, **kwargs)

    monkeypatch.setattr(Transactions, "commit", counted)
    await Rescue(outbox, ORIGIN, clock=closed_shelf.clock).once()
    assert sum(commits) >= 8 * len(days)
    assert max(commits) <= 100

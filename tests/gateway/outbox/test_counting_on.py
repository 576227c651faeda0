"""A database with a long backlog is opened as quickly as one without: what was there is counted while the gateway runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.events import Lane, Stored
from gateway.outbox import stock as stock_module
from gateway.outbox.pages import Pages
from gateway.outbox.stock import Stock

Maker = Callable[..., Any]


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock_module, "COUNT_STEP", 10)
    monkeypatch.setattr("gateway.outbox.outbox.COUNT_LOOK_S", 0.01)


async def backlog(shelf: Any, write: Maker, *, lanes: tuple[str, ...] = ("telemetry.meter",), count: int = 45) -> None:
    await shelf.open()
    shelf.outbox.live = lambda: False
    for n in range(count):
        await shelf.store(*(write(noun, f"m{n % 3}") for noun in lanes))
    await shelf.close()


async def test_alarms_are_counted_at_once_the_rest_later(closed_shelf: Any, write: Maker, when: Maker) -> None:
    await backlog(closed_shelf, write, lanes=("alarm.raised", "device.fault", "telemetry.meter"))
    outbox = await closed_shelf.open(running=False)
    assert (outbox.pending("district"), outbox.is_counted) == ({"A": 45, "B": 10, "C": 0, "D": 10}, False)
    closed_shelf.run()
    await when(lambda: outbox.is_counted)
    assert outbox.pending("district") == {"A": 45, "B": 45, "C": 0, "D": 45}
    assert (await outbox.status())["rows"] == {"A": 45, "B": 45, "C": 0, "D": 45}


async def test_what_is_confirmed_before_it_was_counted_is_not_counted_twice(
    closed_shelf: Any, write: Maker, when: Maker
) -> None:
    await backlog(closed_shelf, write)
    outbox = await closed_shelf.open(running=False)
    outbox.confirm("district", Lane.D, seq=30, ahead=lambda: [(35, 36)], done=32)
    assert outbox._stock.deletable() == {Lane.D: 10}, "what is not counted does not leave"
    closed_shelf.run()
    await when(lambda: outbox.is_counted)
    assert outbox.pending("district")["D"] == 13
    await when(lambda: closed_shelf.sql("SELECT min(seq) FROM event_d") == [(31,)])
    await when(lambda: outbox._stock.rows[Lane.D] == 15)


async def test_what_is_stored_meanwhile_is_counted_once(closed_shelf: Any, write: Maker, when: Maker) -> None:
    await backlog(closed_shelf, write)
    outbox = await closed_shelf.open(running=False)
    outbox.live = lambda: False
    outbox.submit(write())
    await outbox._commit_once()
    closed_shelf.run()
    await when(lambda: outbox.is_counted)
    assert outbox.pending("district")["D"] == 46


async def test_until_the_backlog_is_known_new_telemetry_goes_behind_it_whoever_it_is_of(
    closed_shelf: Any, write: Maker, when: Maker
) -> None:
    await backlog(closed_shelf, write)
    outbox = await closed_shelf.open(running=False)
    outbox.live = lambda: True
    outbox.submit(write(device="another"))
    closed_shelf.run()
    await when(lambda: outbox.is_counted)
    for device in ("m0", "third"):
        outbox.submit(write(device=device))
    assert await outbox.flush(10)
    assert closed_shelf.sql("SELECT device FROM event_d WHERE seq > 45") == [("another",), ("m0",)]
    assert closed_shelf.sql("SELECT device FROM event_c") == [("third",)]


async def test_a_bad_page_that_the_count_meets_has_the_database_replaced(
    closed_shelf: Any, write: Maker, when: Maker
) -> None:
    await backlog(closed_shelf, write, count=700)
    pages = Pages(closed_shelf.path)
    leaves = sorted(pages.leaves(pages.roots()["event_d"]))
    pages.close()
    with closed_shelf.path.open("r+b") as file:
        file.seek((leaves[len(leaves) // 2] - 1) * 4096)
        file.write(b"\xa5" * 4096)
    outbox = await closed_shelf.open(running=False)
    before = outbox.streamid
    closed_shelf.run()
    await when(lambda: outbox.streamid != before)
    assert outbox.to_rescue


def test_a_row_that_gives_way_while_it_is_sent_takes_no_other_with_it() -> None:
    """Its destination confirms it all the same: it leaves twice from what waits, and nothing else may count as delivered."""
    stock = Stock(["district"])
    at = Stamp(1_800_000_000_000, 1_000_000, "boot-1", "synced")
    rows = [
        Stored(seq, Lane.C, f"id-{seq}", "telemetry.meter", "m1", 0, at, {"district": seq}, "{}") for seq in range(1, 5)
    ]
    stock.add(rows)
    stock.drop(Lane.C, rows[:2])
    stock.confirm("district", Lane.C, seq=2, ahead=list, done=2)
    assert (stock.delivered(Lane.C), stock.deletable()) == (2, {Lane.C: 2})
    stock.confirm("district", Lane.C, seq=4, ahead=list, done=2)
    assert stock.deletable() == {Lane.C: 4}
    assert stock.pending["district", Lane.C] == 0
    stock.add([rows[0]._replace(seq=5)])
    assert stock.pending["district", Lane.C] == 1

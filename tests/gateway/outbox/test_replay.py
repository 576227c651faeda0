"""What was delivered stays for a while and goes again by its sequence, with what is no longer there named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import ControlError
from gateway.events import Lane
from gateway.outbox import Outbox, Replays, Route
from gateway.outbox import stock as stock_module
from gateway.problems import describe

Maker = Callable[..., Any]


class Shop:
    """An outbox that keeps ten sequences, and leaves two at a time."""

    def __init__(self, shelf: Any) -> None:
        self.shelf = shelf
        self.reread = 0

    async def open(self) -> Outbox:
        outbox = Outbox(self.shelf.path, self.shelf.routes, clock=self.shelf.clock, retain=10)
        await outbox.open()
        self.shelf.outbox, self.shelf.is_open = outbox, True
        self.shelf.run()
        return outbox

    def deliver(self, lane: Lane, upto: int, *, to: str = "district", done: int) -> None:
        self.shelf.outbox.confirm(to, lane, seq=upto, ahead=list, done=done)

    async def replay(self, first: int, last: int, to: str = "district") -> Any:
        def reread() -> None:
            self.reread += 1

        return await Replays(self.shelf.outbox).replay(to, first, last, reread=reread)


@pytest.fixture
async def shop(closed_shelf: Any, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(stock_module, "KEEP_STEP", 2)
    made = Shop(closed_shelf)
    await made.open()
    return made


async def test_the_last_of_what_was_delivered_stay_and_older_ones_leave(shop: Shop, write: Maker) -> None:
    outbox = shop.shelf.outbox
    await shop.shelf.store(*(write() for _ in range(25)))
    shop.deliver(Lane.C, 25, done=25)
    await shop.shelf.store(write())
    assert shop.shelf.sequences() == list(range(16, 27))
    status = await outbox.status()
    assert (status["rows"], status["kept"]) == ({"A": 0, "B": 0, "C": 1, "D": 0}, 10)
    shop.deliver(Lane.C, 26, done=1)
    await shop.shelf.store(write())
    assert shop.shelf.sequences() == list(range(16, 28))  # one alone does not leave
    await shop.shelf.store(write())
    assert shop.shelf.sequences() == list(range(18, 29))


async def test_a_range_goes_again_with_its_numbers_and_what_is_gone_is_named(
    shop: Shop, write: Maker, alarm: Maker
) -> None:
    outbox = shop.shelf.outbox
    for one in (*(write() for _ in range(20)), alarm(), write(), write()):
        await shop.shelf.store(one)
    shop.deliver(Lane.C, 23, done=22)
    shop.deliver(Lane.A, 21, done=1)
    await shop.shelf.store(write(), write())  # 24, 25 wait
    assert shop.shelf.sequences() == list(range(14, 26))
    done = await shop.replay(10, 22)
    assert (done.count, done.missing, shop.reread) == (9, [(10, 13)], 1)
    assert outbox.cursor("district", Lane.C) == (9, [(23, 23)])
    assert outbox.cursor("district", Lane.A) == (9, [])
    assert outbox.pending("district") == {"A": 1, "B": 0, "C": 10, "D": 0}
    rows = await outbox.fetch(Lane.C, 9, 100)
    assert [(row.seq, row.route["district"]) for row in rows][:3] == [(14, 14), (15, 15), (16, 16)]


async def test_it_goes_on_after_a_restart(shop: Shop, write: Maker) -> None:
    await shop.shelf.store(*(write() for _ in range(8)))
    shop.deliver(Lane.C, 8, done=8)
    await shop.replay(3, 5)
    assert await shop.shelf.outbox.flush(10)
    await shop.shelf.close()
    outbox = await shop.open()
    assert outbox.cursor("district", Lane.C) == (2, [(6, 8)])
    assert outbox.pending("district")["C"] == 3


async def test_nothing_leaves_while_it_goes_again(shop: Shop, write: Maker) -> None:
    await shop.shelf.store(*(write() for _ in range(12)))
    shop.deliver(Lane.C, 12, done=12)
    await shop.replay(5, 6)
    await shop.shelf.store(*(write() for _ in range(30)))
    assert shop.shelf.sequences()[0] <= 5
    shop.deliver(Lane.C, 42, done=32)
    await shop.shelf.store(write())
    await shop.shelf.store(write())
    assert shop.shelf.sequences()[0] > 30


async def test_what_still_waits_or_was_never_wanted_is_left_as_it_is(
    closed_shelf: Any, write: Maker, alarm: Maker
) -> None:
    closed_shelf.routes = [Route("district", ("*",)), Route("street", ("alarm.*",))]
    shop = Shop(closed_shelf)
    outbox = await shop.open()
    await closed_shelf.store(alarm(), write(), write(), alarm())  # alarms overtake: they are 1 and 2
    shop.deliver(Lane.A, 1, to="street", done=1)
    done = await shop.replay(1, 4, to="street")
    assert (done.count, done.missing) == (1, [])
    assert outbox.pending("street")["A"] == 2
    assert outbox.pending("district") == {"A": 2, "B": 0, "C": 2, "D": 0}
    again = await shop.replay(1, 4, to="street")
    assert (again.count, shop.reread) == (0, 1)


async def test_a_range_in_what_was_confirmed_beyond_the_cursor(shop: Shop, write: Maker) -> None:
    outbox = shop.shelf.outbox
    await shop.shelf.store(*(write() for _ in range(9)))
    outbox.confirm("district", Lane.C, seq=2, ahead=lambda: [(4, 6), (8, 9)], done=7)
    assert (await shop.replay(5, 8)).count == 3
    assert outbox.cursor("district", Lane.C) == (2, [(4, 4), (9, 9)])
    assert outbox.pending("district")["C"] == 5


async def test_full_space_takes_what_was_delivered_before_anything_that_waits(shop: Shop, write: Maker) -> None:
    outbox = shop.shelf.outbox
    await shop.shelf.store(*(write() for _ in range(8)))
    shop.deliver(Lane.C, 6, done=6)
    gone = []
    while outbox.shed():
        assert await outbox.flush(10)
        gone.append(shop.shelf.sequences()[0])
    assert shop.shelf.sequences() == [7, 8]
    assert gone == sorted(gone)
    assert not outbox.shed()


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [(0, 1, "@refusal.no-range"), (2, 1, "@refusal.no-range"), (1, 9, "@refusal.no-range")],
)
async def test_what_is_no_range_is_refused(shop: Shop, write: Maker, first: int, last: int, reason: str) -> None:
    await shop.shelf.store(*(write() for _ in range(3)))
    with pytest.raises(ControlError) as refusal:
        await shop.replay(first, last)
    assert refusal.value.facts["reason"] == reason


async def test_too_long_a_range_and_too_many_alarms_are_refused_and_change_nothing(
    shop: Shop, alarm: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = shop.shelf.outbox
    await shop.shelf.store(*(alarm() for _ in range(5)))
    shop.deliver(Lane.A, 5, done=5)
    monkeypatch.setattr("gateway.outbox.replay.MOST_ALARMS", 3)
    with pytest.raises(ControlError) as refusal:
        await shop.replay(1, 4)
    assert refusal.value.facts == {"reason": "@refusal.too-many-alarms", "count": 4, "most": 3}
    monkeypatch.setattr("gateway.outbox.replay.MOST", 3)
    with pytest.raises(ControlError) as refusal:
        await shop.replay(1, 4)
    assert refusal.value.facts["reason"] == "@refusal.range-too-long"
    assert outbox.cursor("district", Lane.A) == (5, [])
    assert (await shop.replay(1, 3)).count == 3


async def test_alarms_that_wait_already_count_for_the_limit_of_a_replay(
    shop: Shop, alarm: Maker, write: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.shelf.store(*(alarm() for _ in range(5)), write())
    shop.deliver(Lane.A, 5, done=5)
    shop.deliver(Lane.C, 6, done=1)
    monkeypatch.setattr("gateway.outbox.replay.MOST_ALARMS", 3)
    assert (await shop.replay(1, 2)).count == 2
    with pytest.raises(ControlError) as refusal:
        await shop.replay(3, 4)
    assert refusal.value.facts == {"reason": "@refusal.too-many-alarms", "count": 2, "most": 3, "waiting": 2}
    told = [describe("GW-CTL-03", lang, "3-4", refusal.value.facts).title for lang in ("zh", "en")]
    assert "还有 2 条在排队" in told[0]
    assert "2 alarms are in it, 2 wait already; at most 3 at once" in told[1]
    assert shop.shelf.outbox.pending_in("district", Lane.A) == 2
    assert (await shop.replay(3, 3)).count == 1
    assert (await shop.replay(6, 6)).count == 1  # telemetry delays no alarm
    shop.deliver(Lane.A, 5, done=3)
    assert (await shop.replay(3, 5)).count == 3


async def test_a_replay_is_not_counted_as_a_time_that_an_alarm_took(shop: Shop, alarm: Maker) -> None:
    outbox = shop.shelf.outbox
    await shop.shelf.store(alarm(), alarm())
    rows = await outbox.fetch(Lane.A, 0, 10)
    outbox.accepted("district", rows[0])
    shop.deliver(Lane.A, 2, done=2)
    await shop.replay(1, 1)
    for row in rows:
        outbox.accepted("district", row)
    await shop.shelf.store(alarm())
    assert outbox.totals().tally.to_accept["district"].count == 2

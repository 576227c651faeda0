"""A disk that is read, that fails, or whose database was replaced: what still goes out, and what must not."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from gateway.deliver import lane_queue
from gateway.errors import SessionError, StoreError
from gateway.events import Lane
from gateway.outbox import Route, Write

Play = Callable[[Any], Any]
METER, ALARM, FAULT = "telemetry.meter", "alarm.raised", "device.fault"


def only_alarms_in_memory(outbox: Any) -> None:
    """The rows of every other lane are on the disk alone."""
    recent = outbox.recent
    outbox.recent = lambda lane, after, limit: recent(lane, after, limit) if lane is Lane.A else None


# Reading ahead.


def test_an_alarm_that_is_stored_while_its_lane_is_read_from_the_disk_is_not_missed(play: Play) -> None:
    """The first look at each lane after a start goes to the disk, and may come back empty when a row is there."""

    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store((ALARM, "call-1"), (FAULT, "d1"))
        bench.outbox.confirm("district", Lane.A, seq=1, ahead=list, done=1)
        assert await bench.outbox.flush(10)
        await bench.close()
        with contextlib.closing(sqlite3.connect(bench.path)) as database, database:  # as an older version left it
            database.execute("UPDATE cursor SET seq = 1 WHERE lane = 0")
        await bench.open(deliver=False)
        bench.outbox.wanted = lambda _destination, lane: bench.outbox.last(lane)  # as before a lane is counted
        fetch = bench.outbox.fetch

        async def slow(lane: Lane, after: int, limit: int) -> Any:
            rows = await fetch(lane, after, limit)
            if lane is Lane.A and not rows and bench.outbox.last(Lane.A) == 2:
                await bench.store((ALARM, "call-2"))  # between the reading and its return
            return rows

        bench.outbox.fetch = slow
        await bench.deliver()
        await bench.settle(1)
        assert bench.uplink.sequences(Lane.A) == [3]

    play(scenario)


def test_an_alarm_is_not_read_from_the_disk_because_alarms_for_others_came_before_it(play: Play) -> None:
    """What others have is in memory no longer: whoever had not passed it by would have to look for it on the disk."""

    async def scenario(bench: Any) -> None:
        bench.routes = [Route("district", (ALARM,)), Route("ministry", ("*",))]
        await bench.open()
        ask, asked = bench.outbox._database.ask, []

        def noted(question: Any) -> Any:
            asked.append(question)
            return ask(question)

        bench.outbox._database.ask = noted
        for n in (0, 3, 6):
            await bench.store((ALARM, f"call-{n}"))
            await bench.store(("alarm.acknowledged", "a"), ("alarm.closed", "c"))
            await bench.settle(1)
            bench.outbox.confirm("ministry", Lane.A, seq=n + 3, ahead=list, done=3)
        assert bench.uplink.sequences(Lane.A) == [1, 4, 7]
        assert asked == []

    play(scenario)


def test_a_disk_that_never_answers_does_not_keep_alarms(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store((FAULT, "d1"), (METER, "m1"))
        fetch, hung, asked = bench.outbox.fetch, asyncio.Event(), []

        async def frozen(lane: Lane, after: int, limit: int) -> Any:
            asked.append(lane)
            if lane is not Lane.A:  # alarms just stored stand in memory
                await hung.wait()
            return await fetch(lane, after, limit)

        bench.outbox.fetch = frozen
        only_alarms_in_memory(bench.outbox)
        await bench.deliver()
        await bench.settle(1)
        await bench.store((ALARM, "call-1"))
        await bench.settle(3)
        assert bench.uplink.sequences(Lane.A) == [3]
        assert bench.uplink.sequences(Lane.B) == []
        # One reading hangs; no more are begun behind it.
        await bench.settle(30)
        assert [lane for lane in asked if lane is not Lane.A] == [Lane.B]
        hung.set()
        await bench.settle(3)
        assert (bench.uplink.sequences(Lane.B), bench.uplink.sequences(Lane.D)) == ([1], [2])

    play(scenario)


def test_what_was_read_while_a_device_was_released_is_read_again_from_its_skipped_rows_on(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_queue, "SET_ASIDE", 1)

    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store(*((METER, "m1") for _ in range(6)))
        lanes = bench.deliverer._dispatch._lanes
        queue = lanes[Lane.D]
        rows = await bench.outbox.fetch(Lane.D, 0, 6)
        queue.load(rows[:1])
        queue.take(lambda _device: False, count=1, size=10_000)
        queue.park("m1")
        queue.load(rows[1:3])  # skipped: the device has to wait
        assert queue.loaded_to == 3
        fetch = bench.outbox.fetch

        async def meanwhile(lane: Lane, after: int, limit: int) -> Any:
            read = await fetch(lane, after, limit)
            queue.release("m1")
            return read

        bench.outbox.fetch = meanwhile
        only_alarms_in_memory(bench.outbox)
        await lanes._refill(queue)
        assert queue.loaded_to == 1
        await lanes._refill(queue)
        assert [row.seq for row in queue.take(lambda _device: False, count=9, size=10_000)] == [2, 3, 4, 5, 6]

    play(scenario)


def test_a_lane_that_cannot_be_read_does_not_stop_the_others_and_is_tried_again(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store((METER, "m1"), (ALARM, "call-1"))
        fetch = bench.outbox.fetch
        asked = 0

        async def failing(lane: Lane, after: int, limit: int) -> Any:
            nonlocal asked
            if lane is Lane.D:
                asked += 1
                if asked < 4:
                    raise StoreError("GW-STO-01", "outbox.db")
            return await fetch(lane, after, limit)

        bench.outbox.fetch = failing
        only_alarms_in_memory(bench.outbox)
        await bench.deliver()
        await bench.settle()
        assert [one.lane for one in bench.uplink.sent] == [Lane.A]
        await bench.settle(4)
        assert [one.lane for one in bench.uplink.sent] == [Lane.A, Lane.D]
        assert asked == 4

    play(scenario)


def test_a_long_backlog_goes_out_whole_and_in_order(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        for _ in range(5):
            await bench.store(*((METER, f"m{n % 40}") for n in range(1500)))
        await bench.deliver()
        await bench.settle(5)
        assert sorted(bench.uplink.sequences()) == list(range(1, 7501))
        of_device: dict[str, list[int]] = {}
        for one in bench.uplink.sent:
            for event in one.events:
                of_device.setdefault(event["partitionkey"], []).append(int(event["sequence"]))
        assert len(of_device) == 40
        assert all(numbers == sorted(numbers) for numbers in of_device.values())
        assert bench.outbox.pending("district")["D"] == 0
        await bench.settle(60)
        assert (await bench.outbox.status())["rows"]["D"] == 0

    play(scenario)


def test_confirmations_outlive_a_restart_and_nothing_confirmed_goes_again(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        ids = await bench.store(*((METER, f"m{n}") for n in range(6)))
        for one in (ids[1], ids[2], ids[4]):
            bench.uplink.answer((one, "accepted"))
        assert await bench.outbox.flush(10)
        await bench.close()
        bench.uplink.sent.clear()
        bench.uplink.obliging = True
        await bench.open()
        await bench.settle(1)
        assert sorted(bench.uplink.sequences()) == [1, 4, 6]

    play(scenario)


# A disk that fails.


def disk_works(bench: Any, works: bool) -> None:
    bench.disk_works(works)


async def raise_alarm(bench: Any, device: str) -> str:
    event = bench.event(ALARM, device)
    assert bench.outbox.submit(Write((event,)))
    await bench.settle(0.5)
    return str(event.id)


def test_an_alarm_that_cannot_be_stored_is_sent_without_a_number_and_with_it_when_the_disk_returns(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        await bench.store((ALARM, "call-1"))
        disk_works(bench, False)
        alarm = await raise_alarm(bench, "call-2")
        [_, message] = bench.uplink.sent
        [event] = message.events
        assert (event["id"], event["data"]["stored"], message.lane) == (alarm, False, Lane.A)
        assert event.keys() & {"sequence", "deliveryseq"} == set()
        assert event["streamid"] == bench.outbox.streamid
        assert event["recordedtime"].startswith("2027-")
        assert bench.levels[-1] == (alarm, "L2")
        await bench.settle(120)
        assert len(bench.uplink.sent) == 2  # the platform has it
        disk_works(bench, True)
        await bench.settle(5)
        assert [one.ids for one in bench.uplink.sent[2:]] == [[alarm]]
        assert bench.uplink.sent[2].sequences == [2]
        assert "stored" not in bench.uplink.sent[2].events[0]["data"]
        assert bench.outbox.pending("district")["A"] == 0
        assert bench.deliverer.status()["accepted"] == 2

    play(scenario)


def test_alarms_that_cannot_be_stored_keep_their_order_and_are_tried_again(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        disk_works(bench, False)
        bench.uplink.obliging = False
        first = await raise_alarm(bench, "call-1")
        second = await raise_alarm(bench, "call-1")
        other = await raise_alarm(bench, "call-2")
        assert [one.ids for one in bench.uplink.sent] == [[first], [other]]
        await bench.settle(10)
        assert [one.ids for one in bench.uplink.sent] == [[first], [other], [first], [other]]
        bench.uplink.obliging = True
        bench.uplink.answer((first, "accepted"), (other, "accepted"))
        await bench.settle()
        assert bench.uplink.sent[4].ids == [second]
        disk_works(bench, True)
        await bench.settle(5)
        assert sorted(one.ids[0] for one in bench.uplink.sent[5:]) == sorted([first, second, other])
        assert sorted(seq for one in bench.uplink.sent[5:] for seq in one.sequences) == [1, 2, 3]

    play(scenario)


def test_an_alarm_that_cannot_be_stored_shortens_the_wait_for_the_platform(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.failures = [SessionError("GW-NET-02", "host")] * 9
        await bench.open()
        await bench.settle(100)
        disk_works(bench, False)
        await raise_alarm(bench, "call-1")
        attempts = len(bench.uplink.opened)
        await bench.settle(60)
        assert len(bench.uplink.opened) > min(9, attempts + 3)
        assert len(bench.uplink.sent) == 1
        disk_works(bench, True)
        await bench.settle(3)

    play(scenario)


def test_what_the_platform_refuses_unstored_is_a_dead_letter_when_it_is_stored(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        disk_works(bench, False)
        bench.uplink.obliging = False
        alarm = await raise_alarm(bench, "call-1")
        bench.uplink.answer((alarm, "rejected"), code="unwanted")
        await bench.settle(60)
        assert len(bench.uplink.sent) == 1
        disk_works(bench, True)
        await bench.settle(3)
        bench.uplink.answer((alarm, "rejected"), code="unwanted")
        await bench.settle(3)
        assert [(one.id, one.seq) for one in await bench.outbox.dead_letters()] == [(alarm, 1)]

    play(scenario)


# A new stream.


def test_answers_to_a_stream_that_was_set_aside_confirm_nothing_of_the_new_one(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        old = await bench.store((ALARM, "call-1"), (ALARM, "call-2"), (METER, "m1"))
        old_stream = bench.outbox.streamid
        answers = bench.uplink.events
        bench.outbox._corrupt = StoreError("GW-STO-02")
        [new] = await bench.store((ALARM, "call-3"))
        assert bench.outbox.streamid != old_stream
        bench.uplink.events = answers
        bench.uplink.answer(*((one, "accepted") for one in old))
        assert bench.outbox.pending("district")["A"] == 1
        bench.uplink.events = None
        bench.uplink.obliging = True
        await bench.settle(3)
        assert len(bench.uplink.opened) == 2
        assert bench.uplink.opened[1][1] == {"streamid": bench.outbox.streamid}
        assert (bench.uplink.sent[-1].ids, bench.uplink.sent[-1].sequences) == ([new], [1])
        assert bench.outbox.pending("district")["A"] == 0

    play(scenario)

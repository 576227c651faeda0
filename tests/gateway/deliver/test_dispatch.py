"""What goes out, in which order, and what an answer, a late answer or none does to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.deliver import dispatch as dispatch_module
from gateway.errors import StoreError
from gateway.events import Lane, sending_text
from gateway.outbox import Route

Play = Callable[[Any], Any]
METER, ALARM, FAULT = "telemetry.meter", "alarm.raised", "device.fault"


# Lanes.


def test_an_alarm_goes_out_as_soon_as_it_is_stored_and_is_finished_by_the_application(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        assert [(one.lane, one.ids) for one in bench.uplink.sent] == [(Lane.A, [alarm])]
        assert bench.levels == [(alarm, "SENT"), (alarm, "L1"), (alarm, "L2")]
        assert bench.outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 0}
        assert bench.deliverer.status()["accepted"] == 1

    play(scenario)


def test_alarms_first_then_faults_then_telemetry(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        bench.outbox.live = lambda: True
        await bench.store((METER, "m1"))
        bench.outbox.live = lambda: False
        await bench.store((METER, "m2"), (FAULT, "d1"), (ALARM, "call-1"))
        await bench.deliver()
        await bench.settle()
        assert [one.lane for one in bench.uplink.sent] == [Lane.A, Lane.B, Lane.C, Lane.D]

    play(scenario)


def test_alarms_and_faults_go_alone_telemetry_in_batches(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store(*((noun, f"d{n}") for n in range(5) for noun in (ALARM, FAULT)))
        await bench.store(*((METER, f"m{n % 9}") for n in range(250)))
        await bench.deliver()
        await bench.settle()
        sizes = {lane: [len(one.events) for one in bench.uplink.sent if one.lane is lane] for lane in Lane}
        assert (sizes[Lane.A], sizes[Lane.B], sum(sizes[Lane.D])) == ([1] * 5, [1] * 5, 250)
        assert 90 < max(sizes[Lane.D]) <= 100
        assert sorted(bench.uplink.sequences(Lane.D)) == list(range(11, 261))

    play(scenario)


def test_no_message_is_longer_than_64_kib(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store(*((METER, f"m{n % 9}") for n in range(300)), text="呼" * 400)
        await bench.deliver()
        await bench.settle()
        assert len(bench.uplink.sequences()) == 300
        assert 60_000 < max(one.size for one in bench.uplink.sent) <= 65_536

    play(scenario)


def test_an_alarm_waits_for_one_batch_on_the_wire_and_not_for_a_window_of_them(play: Play) -> None:
    """On one connection an alarm stands behind every byte that was written before it."""

    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store(*((METER, f"m{n}") for n in range(2000)), text="x" * 400)
        bench.uplink.obliging = bench.uplink.confirming = False
        await bench.deliver()
        assert 1 <= len(bench.uplink.sent) <= 2
        assert sum(one.size for one in bench.uplink.sent) <= 2 * 65_536
        await bench.store((ALARM, "call-1"))
        assert bench.uplink.sent[-1].lane is Lane.A
        before = len(bench.uplink.sent)
        for one in list(bench.uplink.sent):
            bench.uplink.puback(one)
        await bench.settle()
        assert len(bench.uplink.sent) == before  # the backlog pauses while the alarm is pending
        bench.uplink.accept(bench.uplink.sent[-1])
        await bench.settle()
        assert len(bench.uplink.sent) > before

    play(scenario)


def test_the_backlog_pauses_while_an_alarm_is_pending(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        [alarm] = await bench.store((ALARM, "call-1"))
        bench.outbox.live = lambda: False
        await bench.store((METER, "m1"))
        assert [one.lane for one in bench.uplink.sent] == [Lane.A]
        bench.uplink.answer((alarm, "accepted"))
        await bench.settle()
        assert [one.lane for one in bench.uplink.sent] == [Lane.A, Lane.D]

    play(scenario)


def test_live_telemetry_goes_on_while_an_alarm_is_pending(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        await bench.store((ALARM, "call-1"))
        await bench.store((METER, "m1"))
        assert [one.lane for one in bench.uplink.sent] == [Lane.A, Lane.C]

    play(scenario)


def test_slots_are_kept_free_for_alarms(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        bench.uplink.window = 10
        await bench.store(*((FAULT, f"d{n}") for n in range(20)))
        assert len(bench.uplink.sent) == 2
        await bench.store(*((ALARM, f"call-{n}") for n in range(20)))
        assert [one.lane for one in bench.uplink.sent] == [Lane.B] * 2 + [Lane.A] * 8

    play(scenario)


def test_a_window_of_one_still_lets_everything_through(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.window = 1
        await bench.open()
        await bench.store((METER, "m1"), (FAULT, "d1"), (ALARM, "call-1"), (METER, "m2"))
        await bench.settle(1)
        assert sorted(bench.uplink.sequences()) == [1, 2, 3, 4]

    play(scenario)


def test_a_window_that_opens_later_is_used(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.window = 0
        await bench.open()
        await bench.store((ALARM, "call-1"))
        assert bench.uplink.sent == []
        bench.uplink.window = 40
        bench.uplink.events.sent(65_000, True)  # a confirmation of something else of ours
        await bench.settle()
        assert len(bench.uplink.sent) == 1

    play(scenario)


def test_new_telemetry_of_a_device_goes_behind_its_backlog(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store(*((METER, "m1") for _ in range(250)))
        bench.uplink.obliging = False
        await bench.deliver()
        assert bench.deliverer.is_live
        await bench.store((METER, "m1"), (METER, "m2"))
        assert [one.lane for one in bench.uplink.sent] == [Lane.D, Lane.C]
        assert bench.uplink.sent[1].events[0]["partitionkey"] == "m2"
        bench.uplink.obliging = True
        for one in list(bench.uplink.sent):
            bench.uplink.accept(one)
        await bench.settle()
        of_m1 = [int(e["sequence"]) for one in bench.uplink.sent for e in one.events if e["partitionkey"] == "m1"]
        assert of_m1 == list(range(1, 252))

    play(scenario)


# One device.


def test_of_one_device_one_message_is_on_the_wire(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        first, second, other = await bench.store((ALARM, "call-1"), (ALARM, "call-1"), (ALARM, "call-2"))
        assert [one.ids for one in bench.uplink.sent] == [[first], [other]]
        bench.uplink.answer((first, "accepted"))
        await bench.settle()
        assert [one.ids for one in bench.uplink.sent] == [[first], [other], [second]]

    play(scenario)


def test_an_alarm_of_a_device_does_not_wait_for_its_telemetry(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        await bench.store((METER, "d1"))
        await bench.store((ALARM, "d1"), (FAULT, "d1"))
        assert [one.lane for one in bench.uplink.sent] == [Lane.C, Lane.A, Lane.B]

    play(scenario)


def test_rows_of_one_device_in_a_batch_are_in_order(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store(*((METER, f"m{n % 3}") for n in range(60)))
        await bench.deliver()
        await bench.settle()
        assert [one.sequences for one in bench.uplink.sent] == [list(range(1, 61))]

    play(scenario)


# Answers.


def test_no_answer_in_10_seconds_and_the_same_alarm_goes_again(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        [alarm] = await bench.store((ALARM, "call-1"))
        await bench.settle(9.9)
        assert len(bench.uplink.sent) == 1
        await bench.settle(0.2)
        first, second = bench.uplink.sent
        assert (first.ids, second.ids) == ([alarm], [alarm])
        assert 10.0 <= second.at - first.at < 10.1
        assert [one.events[0]["data"]["delivery"]["attempt"] for one in (first, second)] == [1, 2]
        assert "GW-PLT-01" in bench.problems()
        bench.uplink.answer((alarm, "accepted"))
        await bench.settle(60)
        assert len(bench.uplink.sent) == 2
        assert bench.problems() == set()
        assert bench.deliverer.status()["resent"] == 1

    play(scenario)


def test_telemetry_is_waited_for_30_seconds(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        await bench.store((METER, "m1"), (FAULT, "d1"))
        await bench.settle(29.9)
        assert len(bench.uplink.sent) == 2
        await bench.settle(0.2)
        assert len(bench.uplink.sent) == 4

    play(scenario)


def test_a_late_answer_counts_and_the_row_does_not_go_again(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        first, second = await bench.store((ALARM, "call-1"), (ALARM, "call-1"))
        await bench.settle(9.9)
        # The time is up and the platform has asked to wait; then it accepts after all.
        bench.uplink.answer((first, "retry"), after_s=20)
        await bench.settle(5)
        bench.uplink.answer((first, "accepted"))
        await bench.settle(20)
        assert [one.ids for one in bench.uplink.sent[:2]] == [[first], [second]]

    play(scenario)


def test_a_late_answer_of_the_first_try_finishes_the_second(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        first, second = await bench.store((ALARM, "call-1"), (ALARM, "call-1"))
        await bench.settle(10.5)
        assert [one.ids for one in bench.uplink.sent] == [[first], [first]]
        bench.uplink.answer((first, "accepted"))
        await bench.settle()
        assert [one.ids for one in bench.uplink.sent] == [[first], [first], [second]]
        bench.uplink.answer((first, "duplicate"))  # the answer to the second try
        bench.uplink.answer((second, "accepted"))
        await bench.settle(60)
        assert len(bench.uplink.sent) == 3
        assert bench.deliverer.status()["accepted"] == 2
        assert bench.outbox.pending("district")["A"] == 0

    play(scenario)


def test_answers_twice_or_to_strangers_change_nothing(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        [alarm] = await bench.store((ALARM, "call-1"))
        bench.uplink.answer((alarm, "duplicate"), (alarm, "accepted"), (alarm, "rejected"), ("nobody", "rejected"))
        bench.uplink.answer((alarm, "retry"))
        await bench.settle(60)
        status = bench.deliverer.status()
        assert (status["accepted"], status["rejected"], len(bench.uplink.sent)) == (1, 0, 1)
        assert bench.outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 0}

    play(scenario)


def test_a_device_that_has_to_wait_keeps_its_order_and_holds_nobody_else(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        [one] = await bench.store((METER, "m1"))
        bench.uplink.answer((one, "retry"), after_s=100)
        two, other = await bench.store((METER, "m1"), (METER, "m2"))
        assert bench.uplink.sent[-1].ids == [other]
        bench.uplink.answer((other, "accepted"))
        assert "GW-PLT-03" in bench.problems()  # as long as one has to wait, whatever else is accepted
        await bench.settle(99)
        assert [message.ids for message in bench.uplink.sent if one in message.ids or two in message.ids] == [[one]]
        await bench.settle(2)
        assert bench.uplink.sent[-1].ids == [one, two]
        bench.uplink.answer((one, "accepted"), (two, "accepted"))
        assert bench.problems() == set()

    play(scenario)


def test_of_a_batch_the_refused_rows_wait_and_the_others_are_done(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        ids = await bench.store((METER, "m1"), (METER, "m2"), (METER, "m1"), (METER, "m3"))
        bench.uplink.obliging = False
        await bench.deliver()
        assert [one.ids for one in bench.uplink.sent] == [ids]
        bench.uplink.answer((ids[0], "retry"), (ids[1], "accepted"), (ids[2], "retry"), (ids[3], "accepted"), after_s=5)
        await bench.settle(5.5)
        assert [one.ids for one in bench.uplink.sent] == [ids, [ids[0], ids[2]]]

    play(scenario)


def test_a_hold_that_ends_while_the_rest_of_the_batch_is_unanswered_waits_for_it(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        one, two = await bench.store((METER, "m1"), (METER, "m2"))
        bench.uplink.obliging = False
        await bench.deliver()
        bench.uplink.answer((one, "retry"))
        turns = 0
        sleep = bench.deliverer._dispatch._sleep

        async def counted() -> None:
            nonlocal turns
            turns += 1
            await sleep()

        bench.deliverer._dispatch._sleep = counted
        await bench.settle(20)
        assert turns < 10  # it does not spin
        bench.uplink.answer((two, "accepted"))
        await bench.settle()
        assert [message.ids for message in bench.uplink.sent] == [[one, two], [one]]

    play(scenario)


def test_a_transport_that_refuses_a_message_has_it_again_later(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = bench.uplink.confirming = False
        [alarm] = await bench.store((ALARM, "call-1"))
        bench.uplink.puback(bench.uplink.sent[0], ok=False)
        await bench.settle(5.1)
        assert [one.ids for one in bench.uplink.sent[:2]] == [[alarm], [alarm]]
        assert bench.uplink.closed == 0

    play(scenario)


def test_a_rejected_event_is_a_dead_letter_and_does_not_go_again(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        one, two = await bench.store((METER, "m1"), (METER, "m1"))
        bench.uplink.answer((one, "rejected"), code="schema")
        await bench.settle()
        bench.uplink.answer((two, "accepted"))
        await bench.settle(60)
        status = bench.deliverer.status()
        assert (status["rejected"], status["dead_letters"], status["accepted"]) == (1, 1, 1)
        [letter] = await bench.outbox.dead_letters()
        assert (letter["id"], letter["code"], letter["destination"]) == (one, "schema", "district")
        assert "GW-PLT-02" in bench.problems()
        assert bench.uplink.sequences() == [1, 2]

    play(scenario)


def test_a_destination_that_finishes_at_l1_needs_no_application(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.finish = "L1"
        await bench.open()
        bench.uplink.obliging = False
        alarm, _meter = await bench.store((ALARM, "call-1"), (METER, "m1"))
        assert bench.levels == [(alarm, "SENT"), (alarm, "L1")]
        assert bench.outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 0}
        await bench.settle(60)
        assert len(bench.uplink.sent) == 2

    play(scenario)


def test_a_batch_that_is_never_answered_is_halved_until_the_one_that_chokes_is_alone(play: Play) -> None:
    """A platform that falls over one event must not cost the other ninety-nine."""

    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        ids = await bench.store(*((METER, f"m{n}") for n in range(100)))
        poison = ids[37]
        bench.uplink.obliging = False
        answered = 0

        async def platform() -> None:
            nonlocal answered
            while True:
                await asyncio.sleep(0.01)
                for one in bench.uplink.sent[answered:]:
                    if poison not in one.ids:
                        bench.uplink.accept(one)
                answered = len(bench.uplink.sent)

        await bench.deliver()
        task = asyncio.create_task(platform())
        await bench.settle(30 * 9)
        task.cancel()
        assert bench.outbox.pending("district")["D"] == 1
        sizes = [len(one.events) for one in bench.uplink.sent if poison in one.ids]
        assert sizes[1:8] == [50, 25, 12, 6, 3, 1, 1]
        assert "GW-PLT-01" in bench.problems()  # as long as one is unanswered, whatever else is accepted

    play(scenario)


def test_a_line_that_confirms_nothing_is_given_up_before_the_keep_alive_would_see_it(play: Play) -> None:
    """The router has forgotten the connection: every byte goes nowhere, and TCP says nothing for minutes."""

    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = bench.uplink.confirming = False
        [alarm] = await bench.store((ALARM, "call-1"))
        began = bench.clock.monotonic()
        await bench.settle(10.1)
        assert bench.uplink.closed == 1
        bench.uplink.obliging = bench.uplink.confirming = True
        await bench.settle(2.1)
        assert [one.ids for one in bench.uplink.sent] == [[alarm], [alarm]]
        assert bench.uplink.sent[1].at - began < 12.2
        assert bench.outbox.pending("district")["A"] == 0

    play(scenario)


# Texts.


def test_an_event_on_the_wire_says_how_old_it_is_and_whether_it_waited(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store((ALARM, "call-1"))
        await bench.settle(700)
        await bench.deliver()
        await bench.store((ALARM, "call-2"))
        old, new = (one.events[0]["data"]["delivery"] for one in bench.uplink.sent)
        assert old == {"buffered": True, "age_ms": pytest.approx(700_000, abs=500), "attempt": 1, "historic": True}
        assert new == {"buffered": False, "age_ms": pytest.approx(0, abs=500), "attempt": 1}
        assert bench.uplink.sent[0].events[0]["streamid"] == bench.outbox.streamid

    play(scenario)


def test_each_destination_is_sent_what_it_wants_with_numbers_of_its_own(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.routes = [Route("district", ("alarm.*", "telemetry.meter")), Route("other", ("*",))]
        await bench.open()
        await bench.store((FAULT, "d1"), (ALARM, "call-1"), ("telemetry.environment", "e1"), (METER, "m1"))
        await bench.store((ALARM, "call-1"))
        sent = [one.events[0] for one in bench.uplink.sent]
        assert [(one["type"], int(one["deliveryseq"])) for one in sent] == [
            ("cn.eldercare.alarm.raised.v1", 1),
            ("cn.eldercare.telemetry.meter.v1", 2),
            ("cn.eldercare.alarm.raised.v1", 3),
        ]

    play(scenario)


def test_a_row_that_cannot_be_put_into_words_is_set_aside_and_the_others_go(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sending_text

    def words(row: Any, how: Any) -> str:
        if row.device == "odd":
            raise ValueError("no words for it")
        return real(row, how)

    monkeypatch.setattr(dispatch_module, "sending_text", words)

    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store((METER, "m1"), (METER, "odd"), (METER, "m2"), (ALARM, "odd"), (ALARM, "call-1"))
        await bench.deliver()
        await bench.settle()
        assert bench.uplink.sequences(Lane.A) == [2]
        assert bench.uplink.sequences(Lane.D) == [3, 5]
        letters = await bench.outbox.dead_letters()
        assert {(one["device"], one["code"]) for one in letters} == {("odd", "unsendable")}
        assert bench.outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 0}

    play(scenario)


def test_an_event_that_is_too_big_for_the_platform_is_a_dead_letter(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.max_bytes = 5_000
        await bench.open(deliver=False)
        await bench.store(*((METER, f"m{n}") for n in range(10)), text="x" * 800)
        [big] = await bench.store((METER, "big"), text="呼" * 2_000)
        await bench.deliver()
        await bench.settle()
        assert bench.uplink.sequences() == list(range(1, 11))
        assert max(one.size for one in bench.uplink.sent) <= 5_000
        [letter] = await bench.outbox.dead_letters()
        assert (letter["id"], letter["code"]) == (big, "too-big")

    play(scenario)


# Reading ahead.


def test_an_alarm_that_is_stored_while_its_lane_is_read_from_the_disk_is_not_missed(play: Play) -> None:
    """The first look at each lane after a start goes to the disk, and may come back empty when a row is there."""

    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store((ALARM, "call-1"), (FAULT, "d1"))
        bench.outbox.confirm("district", Lane.A, seq=1, ahead=list, done=1)
        assert await bench.outbox.flush(10)
        await bench.close()
        await bench.open(deliver=False)
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

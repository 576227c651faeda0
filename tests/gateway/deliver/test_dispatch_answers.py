"""What an answer, a late answer, or none does to what went out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

Play = Callable[[Any], Any]
METER, ALARM, FAULT = "telemetry.meter", "alarm.raised", "device.fault"


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


def test_a_transport_may_use_its_numbers_again(play: Play) -> None:
    """MQTT packet identifiers come round after 65,535: an old message must not be taken for the new one of its number."""

    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        bench.uplink.tokens = [7, 7]
        [old] = await bench.store((ALARM, "call-1"))
        bench.uplink.answer((old, "retry"), after_s=1000)
        new, behind = await bench.store((ALARM, "call-2"), (ALARM, "call-2"))
        bench.uplink.answer((old, "accepted"))
        bench.uplink.answer((new, "accepted"))
        await bench.settle()
        assert [one.ids for one in bench.uplink.sent] == [[old], [new], [behind]]

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
        [three] = await bench.store((METER, "m1"))
        assert len(bench.uplink.sent) == 1
        bench.uplink.answer((two, "accepted"))
        await bench.settle()
        assert [message.ids for message in bench.uplink.sent] == [[one, two], [one, three]]

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
        assert (letter.id, letter.code, letter.destination) == (one, "schema", "district")
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


def test_a_device_whose_events_are_never_answered_stops_nobody_behind_it(play: Play) -> None:
    """A platform that does not know a device may say nothing at all of it: its rows would take all the room."""

    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store(*((METER, "unknown") for _ in range(2_500)))
        await bench.store(*((METER, f"m{n}") for n in range(100)))
        bench.uplink.obliging = False
        answered = 0

        async def platform() -> None:
            nonlocal answered
            while True:
                await asyncio.sleep(0.01)
                for one in bench.uplink.sent[answered:]:
                    if all(event["subject"] != "device/unknown" for event in one.events):
                        bench.uplink.accept(one)
                answered = len(bench.uplink.sent)

        await bench.deliver()
        task = asyncio.create_task(platform())
        await bench.settle(30 * 9)
        assert bench.outbox.pending("district")["D"] == 2_500
        before = len(bench.uplink.sent)
        await bench.settle(30 * 20)
        task.cancel()
        assert {event["subject"] for one in bench.uplink.sent[before:] for event in one.events} == {"device/unknown"}
        assert {tuple(one.sequences) for one in bench.uplink.sent[before:]} == {(1,)}
        bench.uplink.obliging = True
        await bench.settle(61)
        assert bench.outbox.pending("district")["D"] == 0

    play(scenario)


def test_a_line_that_confirms_nothing_is_given_up_before_the_keep_alive_would_see_it(play: Play) -> None:
    """The router has forgotten the connection: every byte goes nowhere, and TCP says nothing for minutes."""

    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = bench.uplink.confirming = False
        [alarm] = await bench.store((ALARM, "call-1"))
        began = bench.clock.monotonic()
        bench.uplink.obliging = bench.uplink.confirming = True  # what is sent from now on is answered
        await bench.settle(10.1)
        assert bench.uplink.closed == 1
        await bench.settle(2.1)
        assert [one.ids for one in bench.uplink.sent] == [[alarm], [alarm]]
        assert bench.uplink.sent[1].at - began < 12.2
        assert bench.outbox.pending("district")["A"] == 0

    play(scenario)

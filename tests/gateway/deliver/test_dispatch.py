"""What goes out, in which order, and how it is put into words."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from gateway.deliver import wording
from gateway.deliver.batches import cut
from gateway.events import Lane, sending_text
from gateway.outbox import Route, Write

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
        for one in reversed(bench.uplink.sent[:before]):
            bench.uplink.accept(one)
        await bench.settle()
        assert len(bench.uplink.sent) > before

    play(scenario)


def test_for_a_minute_after_an_alarm_a_backlog_goes_in_messages_of_half_the_size(play: Play) -> None:
    """Its acknowledgement and its end wait for what the gateway and the platform have at work; a quiet backlog goes fast."""

    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store((ALARM, "call-0"), *((METER, f"m{n}") for n in range(1500)), text="x")
        bench.uplink.obliging = False
        await bench.deliver()
        bench.uplink.accept(bench.uplink.sent[0])
        await bench.settle()
        sizes = [len(one.events) for one in bench.uplink.sent]
        assert (sizes[0], min(sizes[1:]) > 50, len(sizes)) == (1, True, 3)  # one that has waited says nothing of now
        await bench.store((ALARM, "call-1"))
        for one in list(bench.uplink.sent[1:]):
            bench.uplink.accept(one)
        await bench.settle()
        assert [one.lane for one in bench.uplink.sent[4:]] == [Lane.D, Lane.D]
        assert 25 < max(len(one.events) for one in bench.uplink.sent[4:]) <= 50

    play(scenario)
    sizes = [cut(is_shared=False, quiet_s=quiet_s) for quiet_s in (0.0, 59.9, 60.0, math.inf)]
    assert [(one.events, one.size, one.messages) for one in sizes] == [(50, 31744, 2)] * 2 + [(100, 64512, 2)] * 2


def test_the_platform_has_two_batches_to_work_on_and_no_more_while_it_answers(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store(*((METER, f"m{n}") for n in range(1000)), text="x")
        bench.uplink.obliging = False
        await bench.deliver()
        assert len(bench.uplink.sent) == 2
        bench.uplink.accept(bench.uplink.sent[0])
        await bench.settle()
        assert len(bench.uplink.sent) == 3

    play(scenario)


def test_on_a_line_that_alarms_share_three_small_messages_are_under_way_of_devices_of_their_own(
    play: Play, shared_line: Any
) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplinks = [shared_line()]
        await bench.open(deliver=False)
        await bench.store(*((METER, f"m{n % 10}") for n in range(1000)), text="x")
        bench.uplink.obliging = bench.uplink.confirming = False
        await bench.deliver()
        assert [len(one.events) for one in bench.uplink.sent] == [45, 45, 45]
        assert sum(one.size for one in bench.uplink.sent) <= 3 * 32 * 1024
        devices = [sorted({event["partitionkey"] for event in one.events}) for one in bench.uplink.sent]
        assert devices == [["m0", "m1", "m2", "m3"], ["m4", "m5", "m6", "m7"], ["m8", "m9"]]
        bench.uplink.puback(bench.uplink.sent[1])
        bench.uplink.accept(bench.uplink.sent[1])
        await bench.settle()
        assert len(bench.uplink.sent) == 4

    play(scenario)


def test_an_event_a_message_is_bounded_by_events_and_not_by_messages(play: Play, shared_line: Any) -> None:
    """A profile without a batch: two messages under way would be two events for each round trip."""

    async def scenario(bench: Any) -> None:
        bench.uplinks = [shared_line(max_events=1)]
        bench.uplink.window, bench.uplink.obliging = 500, False
        await bench.open(deliver=False)
        bench.outbox.live = lambda: True
        await bench.store(*((METER, f"m{n}") for n in range(200)), text="x")
        await bench.deliver()
        assert len(bench.uplink.sent) == 100  # 637 bytes each: the 101st would find more than 62 KiB under way
        for one in bench.uplink.sent[:60]:
            bench.uplink.accept(one)
        await bench.settle()
        assert len(bench.uplink.sent) == 160

    play(scenario)


@pytest.mark.parametrize("devices", [3, 10, 100])
def test_over_a_long_line_a_drain_needs_no_more_than_what_may_be_under_way_for_each_round_trip(
    play: Play, shared_line: Any, devices: int
) -> None:
    """Where every message held a row of each device, one alone was under way, and the line idle most of the time."""

    async def scenario(bench: Any) -> None:
        bench.uplinks = [shared_line()]
        uplink, loop = bench.uplink, asyncio.get_running_loop()
        await bench.open(deliver=False)
        await bench.store(*((METER, f"m{n % devices}") for n in range(3000)), text="x" * 400)
        uplink.obliging = uplink.confirming = False
        uplink.on_sent = lambda message: loop.call_later(0.030, far_end, bench, message)
        began = loop.time()
        await bench.deliver()
        while bench.outbox.pending("district")["D"]:
            await bench.settle(0.01)
        taken_s = loop.time() - began
        bytes_ = sum(one.size for one in uplink.sent)
        assert taken_s < bytes_ / 65_536 * 0.030
        assert sorted(uplink.sequences()) == list(range(1, 3001))

    play(scenario)


def far_end(bench: Any, message: Any) -> None:
    bench.uplink.puback(message)
    bench.uplink.accept(message)


def test_batches_that_are_not_answered_soon_do_not_hold_up_the_others(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store(*((METER, f"m{n}") for n in range(1000)), text="x")
        bench.uplink.obliging = False
        await bench.deliver()
        assert len(bench.uplink.sent) == 2
        await bench.settle(1.5)
        assert len(bench.uplink.sent) == 4

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


def test_what_is_stored_for_others_wakes_nobody_and_is_passed_by_with_the_next_of_its_own(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(bench: Any) -> None:
        bench.routes = [Route("district", ("alarm.*",)), Route("other", ("*",))]
        await bench.open()
        woken = asyncio.Event()
        lanes = bench.deliverer._dispatch._lanes
        bench.deliverer._dispatch._wake.set = woken.set
        await bench.store((METER, "m1"), (METER, "m1"), (METER, "m1"))
        assert (woken.is_set(), lanes[Lane.C].loaded_to) == (False, 0)
        del bench.deliverer._dispatch._wake.set
        await bench.store((ALARM, "call-1"))
        assert bench.uplink.sequences() == [4]
        assert (lanes[Lane.C].loaded_to, lanes[Lane.C].cursor) == (3, 3)
        monkeypatch.setattr("gateway.deliver.lanes.PASS_BY", 3)
        await bench.store((METER, "m1"))  # the fifth
        assert lanes[Lane.C].loaded_to == 3
        await bench.store((METER, "m1"))  # the sixth is three beyond the third
        assert (lanes[Lane.C].loaded_to, lanes[Lane.C].cursor) == (6, 6)
        assert bench.outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 0}

    play(scenario)


def test_two_rows_of_one_event_in_a_batch_are_both_finished(play: Play) -> None:
    """What is rescued twice, or was stored by a commit that failed at its end, is there twice, with the same id."""

    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        once, more = bench.event(METER, "m1"), bench.event(METER, "m1")
        for one in (once, more, once):
            bench.outbox.submit(Write((one,)))
        assert await bench.outbox.flush(10)
        await bench.deliver()
        await bench.settle(5)
        assert bench.uplink.sequences() == [1, 2, 3]
        assert bench.outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 0}

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

    monkeypatch.setattr(wording, "sending_text", words)

    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        await bench.store((METER, "m1"), (METER, "odd"), (METER, "m2"), (ALARM, "odd"), (ALARM, "call-1"))
        await bench.deliver()
        await bench.settle()
        assert bench.uplink.sequences(Lane.A) == [2]
        assert bench.uplink.sequences(Lane.D) == [3, 5]
        letters = await bench.outbox.dead_letters()
        assert {(one.device, one.code) for one in letters} == {("odd", "unsendable")}
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
        assert (letter.id, letter.code) == (big, "too-big")

    play(scenario)

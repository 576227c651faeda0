"""An alarm and two paths: when it goes over the other one as well, what confirms it, and what becomes of a refused one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.deliver import wording
from gateway.errors import SessionError
from gateway.events import Lane
from gateway.outbox import Write
from simulator.platform.contract import Address, defect

Play = Callable[[Any], Any]
METER, ALARM, FAULT = "telemetry.meter", "alarm.raised", "device.fault"


def paths_of(bench: Any, count: int = 2) -> Any:
    """Give the destination so many paths, all of which stand and none of which answers."""
    kind = type(bench.uplink)
    bench.uplinks = [kind() for _ in range(count)]
    for one in bench.uplinks:
        one.obliging = False
    return bench.uplinks


def states(bench: Any) -> list[str]:
    return [one["state"] for one in bench.deliverer.status()["paths"]]


def alarms(uplink: Any) -> list[str]:
    return [one.ids[0] for one in uplink.sent if one.lane is Lane.A]


# Copies.


def test_an_alarm_that_is_unanswered_for_three_seconds_goes_over_the_second_path_too(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        await bench.settle(2.9)
        assert second.sent == []
        await bench.settle(0.2)
        assert [alarms(first), alarms(second)] == [[alarm], [alarm]]
        assert second.sent[0].at - first.sent[0].at == pytest.approx(3.0, abs=0.05)
        assert second.sent[0].events[0]["data"]["delivery"]["attempt"] == 2
        second.answer((alarm, "accepted"))
        first.answer((alarm, "duplicate"))
        await bench.settle(60)
        assert bench.levels[-1] == (alarm, "L2")
        assert bench.deliverer.status()["accepted"] == 1
        assert [alarms(first), alarms(second)] == [[alarm], [alarm]]
        assert bench.outbox.pending("district")["A"] == 0

    play(scenario)


def test_an_alarm_that_is_answered_in_time_goes_over_one_path_only(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        await bench.settle(2.5)
        first.answer((alarm, "accepted"))
        await bench.settle(60)
        assert [alarms(first), alarms(second)] == [[alarm], []]

    play(scenario)


def test_over_each_path_once_in_ten_seconds(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        ways = paths_of(bench, 3)
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        await bench.settle(9.9)
        assert [alarms(one) for one in ways] == [[alarm]] * 3
        assert [round(one.sent[0].at - ways[0].sent[0].at) for one in ways] == [0, 3, 6]
        await bench.settle(10)
        assert sum(len(alarms(one)) for one in ways) == 6
        ways[2].answer((alarm, "accepted"))
        await bench.settle(60)
        assert sum(len(alarms(one)) for one in ways) == 6

    play(scenario)


def test_telemetry_and_faults_go_over_the_path_in_use_only(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        await bench.store(*((METER, f"m{n}") for n in range(50)), (FAULT, "d1"), (ALARM, "call-1"))
        await bench.settle(9)
        assert {one.lane for one in second.sent} == {Lane.A}
        assert {one.lane for one in first.sent} == {Lane.A, Lane.B, Lane.C}

    play(scenario)


def test_an_alarm_that_is_asked_to_wait_goes_over_the_second_path_at_once_and_the_wait_is_kept(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        first.answer((alarm, "retry"), after_s=120)
        await bench.settle()
        assert alarms(second) == [alarm]
        second.answer((alarm, "accepted"))
        await bench.settle()
        assert (bench.outbox.pending("district")["A"], states(bench)) == (0, ["in use", "standby"])
        assert bench.problems() == set()

    play(scenario)


def test_while_a_path_has_asked_to_wait_the_next_try_of_this_device_goes_over_the_other(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        first.answer((alarm, "retry"), after_s=300)
        await bench.settle(15)  # the second does not answer
        assert alarms(first) == [alarm]
        assert alarms(second) == [alarm, alarm]
        [other] = await bench.store((ALARM, "call-2"))
        assert alarms(first) == [alarm, other]  # nobody asked to wait with that one
        first.answer((other, "accepted"))
        second.answer((alarm, "accepted"))
        [later] = await bench.store((ALARM, "call-1"))
        assert alarms(first)[-1] == later  # what is accepted ends the wait

    play(scenario)


def test_when_every_path_asks_to_wait_it_goes_again_when_the_first_of_them_may_be_asked(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        first.answer((alarm, "retry"), after_s=60)
        second.answer((alarm, "retry"), after_s=20)
        assert "GW-PLT-03" in bench.problems()
        await bench.settle(19)
        assert [len(alarms(first)), len(alarms(second))] == [1, 1]
        await bench.settle(2)
        assert [len(alarms(first)), len(alarms(second))] == [1, 2]

    play(scenario)


def test_the_same_answer_heard_over_both_paths_does_no_harm(play: Play) -> None:
    """Two connections to one broker: both hear every acknowledgement."""

    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        for one in (second, first):
            one.answer((alarm, "retry"), after_s=5)
        await bench.settle(6)
        for one in (second, first):
            one.answer((alarm, "accepted"))
        await bench.settle(60)
        assert bench.deliverer.status()["accepted"] == 1
        assert bench.outbox.pending("district")["A"] == 0
        assert len(alarms(first)) + len(alarms(second)) <= 4

    play(scenario)


def test_a_message_that_its_transport_refuses_goes_over_the_other_path_at_once(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        first.confirming = False
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        first.puback(first.sent[0], ok=False)
        await bench.settle()
        assert alarms(second) == [alarm]

    play(scenario)


def test_where_the_path_in_use_has_no_room_an_alarm_takes_the_other(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        first.window = 0
        [alarm] = await bench.store((ALARM, "call-1"))
        await bench.store((METER, "m1"))
        assert [first.sent, alarms(second)] == [[], [alarm]]
        assert {one.lane for one in second.sent} == {Lane.A}

    play(scenario)


def test_an_alarm_that_waits_takes_a_path_that_comes_to_stand_at_once(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        _, second = paths_of(bench)
        second.hangs = True
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        await bench.settle(4)
        assert alarms(second) == []
        second.hangs = False
        second.failures = []
        waiting = [task for task in asyncio.all_tasks() if task.get_name() == "path district/2"]
        assert len(waiting) == 1
        await bench.settle(60)  # the attempt that hangs ends after 45 s, the next one is made within 5 s
        assert alarm in alarms(second)
        assert second.sent[0].at - second.opened[-1][2] < 0.1

    play(scenario)


def test_at_a_destination_that_needs_no_application_either_transport_confirms(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.finish = "L1"
        first, second = paths_of(bench)
        first.confirming = False
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        await bench.settle(3.1)
        assert (alarms(second), bench.outbox.pending("district")["A"]) == ([alarm], 0)
        first.puback(first.sent[0])
        await bench.settle(60)
        assert bench.deliverer.status()["accepted"] == 1

    play(scenario)


def test_an_alarm_that_is_too_long_for_the_other_path_waits_for_its_own(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        second.max_bytes = 3_000
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"), text="x" * 5_000)
        await bench.settle(5)
        assert second.sent == []
        first.answer((alarm, "accepted"))
        assert bench.deliverer.status()["dead_letters"] == 0

    play(scenario)


def test_an_alarm_that_no_disk_has_goes_over_the_second_path_as_well(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        bench.disk_works(False)
        event = bench.event(ALARM, "call-1")
        assert bench.outbox.submit(Write((event,)))
        await bench.settle(5)
        assert [alarms(first), alarms(second)] == [[event.id], [event.id]]
        second.answer((event.id, "accepted"))
        await bench.settle(30)
        assert [alarms(first), alarms(second)] == [[event.id], [event.id]]
        bench.disk_works(True)
        await bench.settle(3)

    play(scenario)


# Silent and dead paths.


def test_a_path_on_which_nothing_is_answered_is_passed_over_but_stays_connected(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        second.obliging = True
        await bench.open()
        await bench.settle(400)
        await bench.store((ALARM, "call-1"), (FAULT, "d1"))
        await bench.settle(3.1)
        assert (states(bench), bench.problems()) == (["standby", "in use"], {"GW-NET-07"})
        assert [one["code"] for one in bench.deliverer.status()["paths"]] == ["GW-PLT-01", ""]
        before = bench.clock.monotonic()
        [next_alarm] = await bench.store((ALARM, "call-2"))
        await bench.store((METER, "m1"))
        assert bench.clock.monotonic() - before < 1
        assert next_alarm in alarms(second)
        assert len(alarms(first)) == 1
        first.obliging = True
        await bench.settle(58)  # meanwhile the fault's time is up: that is no news of the path
        assert (states(bench), bench.outbox.pending("district")["B"]) == (["standby", "in use"], 0)
        await bench.settle(3)
        assert (states(bench), bench.problems()) == (["in use", "standby"], set())
        assert (len(first.opened), len(second.opened)) == (1, 1)

    play(scenario)


def test_telemetry_that_is_never_answered_moves_to_the_other_path(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        _, second = paths_of(bench)
        second.obliging = True
        await bench.open()
        await bench.store(*((METER, f"m{n}") for n in range(30)))
        await bench.settle(29)
        assert second.sent == []
        await bench.settle(2)
        assert sorted(set(second.sequences())) == list(range(1, 31))
        assert states(bench) == ["standby", "in use"]
        assert bench.problems() == {"GW-NET-07"}

    play(scenario)


def test_what_a_silent_path_carries_alone_goes_over_the_next_as_soon_as_it_is_known_to_be_silent(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        second.obliging = True
        await bench.open()
        await bench.store((ALARM, "call-1"), (FAULT, "d1"), (METER, "m1"))
        await bench.settle(2)
        [late] = await bench.store((ALARM, "call-2"))
        assert late in alarms(first)
        await bench.settle(1.2)  # 3 s after the first alarm: the second is 1 s old
        assert late in alarms(second)
        await bench.settle(0.1)
        assert bench.outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 0}

    play(scenario)


def test_a_silent_path_that_answers_again_counts_as_one_that_answers(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        second.obliging = True
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        await bench.settle(3.1)
        assert (states(bench), bench.problems()) == (["standby", "in use"], {"GW-NET-07"})
        first.answer((alarm, "duplicate"))
        await bench.settle(0.1)
        assert (states(bench), bench.problems()) == (["standby", "in use"], set())
        # Now the other one falls silent: the first is taken at once, and trusted.
        first.obliging, second.obliging = True, False
        await bench.store((ALARM, "call-2"))
        await bench.settle(3.1)
        assert states(bench) == ["in use", "standby"]

    play(scenario)


def test_when_nobody_answers_anywhere_the_paths_do_not_take_turns_for_ever(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        await bench.store((METER, "m1"))
        turns, was = 0, states(bench)
        for _ in range(1800):
            await bench.settle(1)
            turns, was = turns + (states(bench) != was), states(bench)
        assert 2 <= turns <= 12
        assert "GW-PLT-01" in bench.problems()
        assert (len(first.opened), len(second.opened)) == (1, 1)

    play(scenario)


def test_a_dead_line_is_given_up_for_the_other_and_told(play: Play) -> None:
    """The router has forgotten the connection: not even the transport confirms."""

    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        first.confirming = False
        second.obliging = True
        await bench.open()
        ids = await bench.store((METER, "m1"), (METER, "m2"), (FAULT, "d1"))
        first.failures = [SessionError("GW-NET-02", "host")] * 9
        await bench.settle(30.5)
        assert sorted(id_ for one in second.sent for id_ in one.ids) == sorted(ids)
        assert (first.closed, bench.problems()) == (1, {"GW-NET-07"})
        assert states(bench) == ["down", "in use"]

    play(scenario)


def test_several_messages_on_a_dead_line_end_together(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        first.confirming = False
        second.obliging = True
        await bench.open()
        await bench.store(*((FAULT, f"d{n}") for n in range(10)))
        await bench.settle(31)
        assert sorted(second.sequences()) == list(range(1, 11))

    play(scenario)


# Refused for good.


CALL = {
    "kind": "call", "state": "ACTIVE", "priority": "emergency", "room": "201", "bed": "1", "presses": 1,
    "verified": True, "test": False, "code": "0102", "doubts": ["x" * 500] * 9,
}  # fmt: skip


def address() -> Address:
    return Address("org", "site", "gw", "alarm")


def test_a_refused_alarm_is_a_dead_letter_a_problem_and_goes_in_minimal_form_over_the_other_path(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        event = bench.event(ALARM, "call-1", **CALL)
        event = type(event)(
            event.id, event.noun, event.device, event.at,
            event.body.replace('"data":', '"correlationid":"alarm-1","data":', 1), "alarm-1",
        )  # fmt: skip
        bench.outbox.submit(Write((event,)))
        await bench.settle(0.5)
        assert "doubts" in first.sent[0].events[0]["data"]
        first.answer((event.id, "rejected"), code="schema")
        await bench.settle()
        [message] = second.sent
        [told] = message.events
        assert (told["id"], told["type"], told["partitionkey"], told["sequence"]) == (
            event.id, "cn.eldercare.alarm.raised.v1", "call-1", "00000000000000000001",
        )  # fmt: skip
        assert told["time"] == first.sent[0].events[0]["time"]
        assert (told["data"]["kind"], told["data"]["room"], told["data"]["minimal"]) == ("call", "201", True)
        assert "doubts" not in told["data"]
        assert "code" not in told["data"]
        assert defect(told, address()) is None
        assert message.size < 900
        assert {"GW-PLT-02", "GW-PLT-06"} <= bench.problems()
        [letter] = await bench.outbox.dead_letters()
        assert (letter.id, letter.code) == (event.id, "schema")
        assert bench.levels[-1] == (event.id, "DEAD_LETTER")
        second.answer((event.id, "accepted"))
        await bench.settle(60)
        assert bench.levels[-1] == (event.id, "L2")
        assert len(second.sent) == 1
        assert bench.outbox.pending("district")["A"] == 0

    play(scenario)


def test_with_one_path_a_refused_alarm_goes_nowhere_else(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.obliging = False
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"), **CALL)
        bench.uplink.answer((alarm, "rejected"), code="schema")
        await bench.settle(60)
        assert len(bench.uplink.sent) == 1
        assert {"GW-PLT-02", "GW-PLT-06"} <= bench.problems()

    play(scenario)


def test_an_alarm_that_is_too_long_goes_in_minimal_form_over_the_only_path(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.max_bytes = 2_500
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"), kind="fall", room="2" * 3_000)
        [message] = bench.uplink.sent
        assert message.ids == [alarm]
        assert message.events[0]["data"]["room"] == "2" * 64
        assert "GW-PLT-06" in bench.problems()
        assert bench.levels == [(alarm, "DEAD_LETTER"), (alarm, "L2")]

    play(scenario)


def test_the_next_alarm_of_the_device_does_not_wait_for_the_minimal_form(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        one, two = await bench.store((ALARM, "call-1"), (ALARM, "call-1"), **CALL)
        first.answer((one, "rejected"))
        await bench.settle()
        assert (alarms(second), alarms(first)) == ([one], [one, two])

    play(scenario)


@pytest.mark.parametrize("answer", ["nothing", "retry", "rejected"])
def test_a_minimal_form_that_nobody_takes_is_tried_three_times_at_most(play: Play, answer: str) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"), **CALL)
        first.answer((alarm, "rejected"))
        await bench.settle()
        if answer != "nothing":
            second.answer((alarm, answer))
        await bench.settle(120)
        assert len(second.sent) == (1 if answer == "rejected" else 3)
        assert len(first.sent) == 1
        assert bench.deliverer.status()["inflight"] == 0
        assert (await bench.outbox.dead_letters(5))[0].id == alarm
        assert len(await bench.outbox.dead_letters(5)) == 1

    play(scenario)


def test_a_minimal_form_whose_path_is_lost_goes_over_the_next(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second, third = paths_of(bench, 3)
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"), **CALL)
        first.answer((alarm, "rejected"))
        await bench.settle()
        second.lose()
        await bench.settle()
        assert alarms(third) == [alarm]
        assert alarms(first) == [alarm]

    play(scenario)


def test_an_alarm_without_a_minimal_form_is_a_dead_letter_all_the_same(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_of_it(_row: Any) -> Any:
        raise KeyError("data")

    monkeypatch.setattr("gateway.deliver.alarm_paths.minimal", none_of_it)

    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        [alarm] = await bench.store((ALARM, "call-1"))
        first.answer((alarm, "rejected"))
        [after] = await bench.store((ALARM, "call-2"))
        assert (second.sent, alarms(first)) == ([], [alarm, after])
        assert len(await bench.outbox.dead_letters()) == 1

    play(scenario)


def test_what_is_kept_of_an_alarm_is_short_whatever_was_in_it() -> None:
    nested = {"a" * 500: ["b" * 500] * 50, **{str(n): {"c": "d" * 500} for n in range(50)}}
    assert len(str(wording._short(nested))) < 1200
    assert wording._short("呼" * 100) == "呼" * 64
    assert (wording._short(7), wording._short(None), wording._short(True)) == (7, None, True)

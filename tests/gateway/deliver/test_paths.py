"""Several paths of one destination: which is used, who waits for whom, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import SessionError
from gateway.events import Lane
from gateway.uplinks import back_off
from gateway.uplinks.path import PlatformPath
from gateway.uplinks.paths import Paths

Play = Callable[[Any], Any]
METER, ALARM, FAULT = "telemetry.meter", "alarm.raised", "device.fault"


def unreachable(code: str = "GW-NET-02") -> SessionError:
    return SessionError(code, "platform.example", port=8883, error="no answer in time")


def paths_of(bench: Any, count: int = 2) -> Any:
    """Give the destination so many paths."""
    kind = type(bench.uplink)
    bench.uplinks = [kind() for _ in range(count)]
    return bench.uplinks


def states(bench: Any) -> list[str]:
    return [one["state"] for one in bench.deliverer.status()["paths"]]


def opened_at(uplink: Any) -> list[float]:
    return [round(at - 1000, 1) for _epoch, _birth, at in uplink.opened]


@pytest.fixture
def longest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw is the longest that it may be."""

    class Longest:
        def uniform(self, _low: float, high: float) -> float:
            return high

    monkeypatch.setattr(back_off, "_random", Longest())


# Which path.


def test_the_first_path_is_used_and_the_second_is_kept_connected(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        await bench.store((ALARM, "call-1"), (METER, "m1"), (FAULT, "d1"))
        assert sorted(first.sequences()) == [1, 2, 3]
        assert second.sequences() == []
        assert states(bench) == ["in use", "standby"]
        await bench.settle(600)
        assert (len(first.opened), len(second.opened), bench.problems()) == (1, 1, set())

    play(scenario)


def test_both_connections_carry_the_epoch_of_the_session_and_its_birth(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        await bench.settle(5)
        assert [(epoch, birth) for epoch, birth, _at in first.opened + second.opened] == [
            (1, {"streamid": bench.outbox.streamid})
        ] * 2

    play(scenario)


def test_where_the_first_cannot_be_had_the_second_is_used_at_once_and_people_are_told(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        first.failures = [unreachable("GW-NET-03")] * 500
        await bench.open()
        await bench.store((ALARM, "call-1"), (METER, "m1"))
        assert sorted(second.sequences()) == [1, 2]
        assert (bench.deliverer.connected, states(bench)) == (True, ["down", "in use"])
        [trouble] = bench.health.current()
        assert (trouble.code, trouble.subject, trouble.severity) == ("GW-NET-07", "district/1", "warning")
        assert {name: trouble.facts[name] for name in ("host", "code", "detail")} == {
            "host": "host-1", "code": "GW-NET-03", "detail": "no answer in time",
        }  # fmt: skip
        assert bench.deliverer.status()["paths"][0]["code"] == "GW-NET-03"
        first.failures.clear()
        await bench.settle(310)
        assert bench.problems() == set()
        await bench.settle(61)
        assert states(bench) == ["in use", "standby"]

    play(scenario)


def test_a_first_path_that_hangs_has_a_head_start_of_three_seconds_and_no_more(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second, third = paths_of(bench, 3)
        first.hangs = second.hangs = True
        await bench.open()
        await bench.settle(5.9)
        assert (second.opened[0][2] - first.opened[0][2], third.opened) == (pytest.approx(3, abs=0.1), [])
        await bench.settle(0.3)
        assert states(bench) == ["down", "down", "in use"]
        await bench.store((ALARM, "call-1"))
        assert third.sequences() == [1]
        await bench.settle(45)  # an attempt has an end
        assert len(first.opened) >= 1
        assert bench.problems() == {"GW-NET-07"}

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_when_none_can_be_had_the_first_one_is_told_and_all_wait_together(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        first.failures = [unreachable("GW-NET-01")] * 7
        second.failures = [unreachable("GW-NET-04")] * 7
        await bench.open()
        assert bench.problems() == {"GW-NET-01"}
        assert not bench.deliverer.connected
        await bench.settle(64)
        # The first wait of a path's own back-off ends with the session's: neither is tried more often than alone.
        began = opened_at(first)[0]
        assert [round(at - began) for at in opened_at(first)] == [0, 1, 3, 7, 15, 31, 63]
        assert [round(at - began) for at in opened_at(second)] == [0, 1, 3, 7, 15, 31, 63]
        assert bench.problems() == {"GW-NET-01"}
        await bench.settle(65)
        assert states(bench) == ["in use", "standby"]
        assert bench.problems() == set()

    play(scenario)


# Losing one.


def test_when_the_path_in_use_is_lost_the_other_takes_over_at_once_with_the_same_ids_in_order(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        first.obliging = False
        ids = await bench.store((ALARM, "call-1"), (ALARM, "call-1"), (ALARM, "call-2"), (METER, "m1"), (METER, "m1"))
        before = bench.clock.monotonic()
        first.answer((ids[2], "accepted"))
        first.lose()
        await bench.settle()
        assert bench.clock.monotonic() - before < 0.1
        assert [one.ids for one in second.sent if one.lane is Lane.A] == [[ids[0]], [ids[1]]]
        assert [seq for one in second.sent if one.lane is not Lane.A for seq in one.sequences] == [4, 5]
        assert (bench.deliverer.connected, bench.deliverer.epoch) == (True, 1)
        assert bench.outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 0}
        assert bench.problems() == {"GW-NET-07"}

    play(scenario)


def test_an_answer_over_the_new_path_to_what_the_old_one_carried_counts_once(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        first.obliging = second.obliging = False
        one, two = await bench.store((METER, "m1"), (METER, "m1"))
        first.lose()
        await bench.settle()
        second.answer((one, "accepted"), (two, "accepted"))  # to the first path's copy, heard here
        second.answer((one, "duplicate"), (two, "duplicate"))
        await bench.settle(60)
        status = bench.deliverer.status()
        assert (status["accepted"], bench.outbox.pending("district")["C"]) == (2, 0)

    play(scenario)


def test_a_device_that_was_asked_to_wait_still_waits_on_the_next_path(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        first.obliging = False
        [waits] = await bench.store((METER, "m1"))
        first.answer((waits, "retry"), after_s=100)
        first.lose()
        await bench.settle(50)
        [other] = await bench.store((METER, "m2"))
        assert [one.ids for one in second.sent] == [[other]]
        await bench.settle(51)
        assert second.sent[-1].ids == [waits]

    play(scenario)


def test_tokens_of_a_new_connection_confirm_nothing_that_the_old_one_carried(play: Play) -> None:
    """Packet identifiers begin at 1 again; the first are those of state and birth."""

    async def scenario(bench: Any) -> None:
        bench.spread_s = 0
        bench.finish = "L1"
        first, second = paths_of(bench)
        await bench.open()
        first.confirming = second.confirming = False
        first.obliging = second.obliging = False
        await bench.store((ALARM, "call-1"))
        await bench.settle(3.5)
        assert [len(one.sent) for one in (first, second)] == [1, 1]  # the alarm is on both
        first.lose()
        first.window = 0  # it does not take the alarm again
        await bench.settle(1)
        assert (len(first.opened), len(first.sent)) == (2, 1)
        first.events.sent(first.sent[0].token, True)
        await bench.settle()
        assert bench.outbox.pending("district")["A"] == 1

    play(scenario)


def test_a_path_that_breaks_while_sending_is_left_and_nothing_is_lost(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        first.breaks = [unreachable("GW-NET-05")]
        await bench.store((METER, "m1"), (ALARM, "call-1"), (FAULT, "d1"))
        assert sorted(second.sequences()) == [1, 2, 3]
        assert states(bench)[1] == "in use"
        second.breaks = [unreachable("GW-NET-05")]
        first.failures = [unreachable()] * 3
        await bench.store((METER, "m1"))
        await bench.settle(100)
        assert bench.outbox.pending("district") == {"A": 0, "B": 0, "C": 0, "D": 0}

    play(scenario)


def test_what_was_under_way_when_a_path_breaks_while_sending_goes_again_at_once(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        first.obliging = False
        under_way = await bench.store((METER, "m1"), (FAULT, "d1"))
        first.breaks = [unreachable("GW-NET-05")]
        [breaking] = await bench.store((FAULT, "d2"))
        await bench.settle(0.1)
        assert sorted(one for message in second.sent for one in message.ids) == sorted([*under_way, breaking])

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_when_the_last_one_is_lost_everything_waits_as_with_a_single_path(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        first.failures = [unreachable()] * 3
        first.lose()
        await bench.settle(1)
        second.lose()
        await bench.settle()
        assert (bench.deliverer.connected, bench.problems()) == (False, {"GW-NET-05"})
        attempts = len(first.opened)
        await bench.settle(59)
        assert (len(first.opened), len(second.opened)) == (attempts, 1)
        await bench.settle(2)
        assert (bench.deliverer.connected, states(bench), bench.deliverer.epoch) == (True, ["down", "in use"], 2)

    play(scenario)


def test_a_connection_that_is_lost_while_it_is_being_opened_is_no_connection(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        really = first.open

        async def lost_meanwhile(events: Any, **more: Any) -> None:
            await really(events, **more)
            events.lost(unreachable("GW-NET-05"))
            first.open = really

        first.open = lost_meanwhile
        await bench.open()
        await bench.store((ALARM, "call-1"))
        assert second.sequences() == [1]
        assert bench.problems() == {"GW-NET-07"}

    play(scenario)


# Coming back.


@pytest.mark.usefixtures("longest_waits")
def test_the_first_path_is_used_again_when_it_has_stood_for_a_minute_and_nothing_goes_twice(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.spread_s = 10
        first, second = paths_of(bench)
        await bench.open()
        await bench.settle(400)  # it had been steady
        first.lose()
        await bench.settle(69.5)  # 10 s until it is connected, 60 s of probation
        assert (len(first.opened), states(bench)) == (2, ["standby", "in use"])
        second.obliging = False
        one, _ = await bench.store((METER, "m1"), (METER, "m2"))
        await bench.settle(1)
        assert states(bench) == ["in use", "standby"]
        later, _ = await bench.store((METER, "m1"), (FAULT, "d1"))
        assert [message.lane for message in first.sent] == [Lane.B]  # m1 waits for its answer on the second path
        second.accept(second.sent[0])
        await bench.settle()
        assert first.sent[-1].ids == [later]
        assert [message.ids[0] for message in second.sent].count(one) == 1
        assert bench.deliverer.status()["resent"] == 0

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_a_path_that_comes_and_goes_is_trusted_less_and_less_and_stops_nothing(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.spread_s = 1
        first, _ = paths_of(bench)
        await bench.open()
        stood_before_use = []
        for _ in range(4):
            first.lose()
            await bench.store((ALARM, "call-1"))
            assert bench.outbox.pending("district")["A"] == 0
            while len(first.opened) < 2 + len(stood_before_use):
                await bench.settle(1)
            began = bench.clock.monotonic()
            while states(bench)[0] != "in use":
                assert states(bench)[1] == "in use"
                await bench.settle(1)
            stood_before_use.append(bench.clock.monotonic() - began)
            await bench.settle(10)
        assert stood_before_use == [pytest.approx(want, abs=3) for want in (120, 240, 480, 960)]
        await bench.settle(400)
        first.lose()  # it was steady this time
        await bench.settle(65)
        assert states(bench)[0] == "in use"

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_a_standby_that_cannot_be_had_is_tried_less_and_less_often_and_sooner_with_an_alarm(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        second.failures = [unreachable()] * 50
        await bench.open()
        await bench.settle(260)
        began = opened_at(second)[0]
        assert [round(at - began) for at in opened_at(second)] == [0, 1, 3, 7, 15, 31, 63, 127, 255]
        await bench.store((ALARM, "call-1"))
        await bench.settle(5.1)
        assert len(second.opened) == 10
        assert len(first.opened) == 1

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_while_an_alarm_is_pending_a_standby_is_tried_every_five_seconds(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        second.failures = [unreachable()] * 50
        first.obliging = False
        await bench.open()
        await bench.settle(60)
        await bench.store((ALARM, "call-1"))
        await bench.settle(6)
        began = len(second.opened)
        await bench.settle(50)
        assert len(second.opened) - began == 10

    play(scenario)


# What the platform and people hear.


def test_when_a_connection_ends_the_others_say_that_the_gateway_is_there_again_and_again(play: Play) -> None:
    """The will of the lost connection says the opposite, perhaps 45 s later; the broker's time-out may be later still."""

    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        await bench.open()
        await bench.settle(400)
        second.failures = [unreachable()] * 100
        at = bench.clock.monotonic()
        second.lose()
        await bench.settle(1100)
        assert [round(time - at) for time in first.announced] == [0, 2, 60, 300, 1000]
        assert second.announced == []

    play(scenario)


def test_a_single_path_never_says_it_again(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        for _ in range(3):
            bench.uplink.lose()
            await bench.settle(100)
        assert bench.uplink.announced == []
        assert bench.problems() == set()

    play(scenario)


def test_problems_of_paths_are_taken_back_when_the_deliverer_ends(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, _second = paths_of(bench)
        first.failures = [unreachable()] * 9
        await bench.open()
        assert bench.problems() == {"GW-NET-07"}
        await bench.end_delivery()
        assert bench.problems() == set()

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_a_takeover_is_told_until_it_is_over_and_not_fought_at_full_speed(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.spread_s = 0
        await bench.open()
        waits = []
        for _ in range(5):
            await bench.store((METER, "m1"))  # each session does its work
            at, count = bench.clock.monotonic(), len(bench.uplink.opened)
            bench.uplink.lose("GW-PLT-07")
            while len(bench.uplink.opened) == count:
                await bench.settle(0.5)
            waits.append(bench.uplink.opened[-1][2] - at)
            assert "GW-PLT-07" in bench.problems()
        assert waits == [pytest.approx(want, abs=0.1) for want in (2, 4, 8, 16, 32)]
        await bench.settle(290)
        assert bench.problems() == {"GW-PLT-07"}
        await bench.settle(15)
        assert bench.problems() == set()

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_a_takeover_of_one_path_is_told_although_the_other_stands(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.spread_s = 0
        first, second = paths_of(bench)
        await bench.open()
        await bench.settle(290)
        waits = []
        for _ in range(4):
            at, count = bench.clock.monotonic(), len(first.opened)
            first.lose("GW-PLT-07")
            await bench.settle()
            assert bench.problems() == {"GW-PLT-07", "GW-NET-07"}
            while len(first.opened) == count:
                await bench.settle(0.5)
            waits.append(first.opened[-1][2] - at)
        assert waits == [pytest.approx(want, abs=0.1) for want in (2, 4, 8, 16)]
        await bench.settle(280)
        assert bench.problems() == {"GW-PLT-07"}
        await bench.settle(25)
        assert bench.problems() == set()
        assert len(second.opened) == 1

    play(scenario)


def test_a_takeover_is_not_called_over_while_its_path_is_away(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, _ = paths_of(bench)
        await bench.open()
        await bench.settle(290)
        first.failures = [unreachable()] * 99
        first.lose("GW-PLT-07")
        await bench.settle(400)
        assert bench.problems() == {"GW-PLT-07", "GW-NET-07"}

    play(scenario)


# Ends.


def test_everything_ends_with_the_deliverer(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, second, third = paths_of(bench, 3)
        second.failures = [unreachable()] * 9
        third.hangs = True
        await bench.open()
        await bench.settle(1)
        await bench.end_delivery()
        await bench.settle()
        assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("path ")] == []
        assert (first.events, first.closed) == (None, 1)

    play(scenario)


def test_a_goodbye_that_hangs_does_not_hold_up_the_end(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        first, _second = paths_of(bench)
        first.hangs_on_closing = True
        await bench.open()
        began = bench.clock.monotonic()
        await bench.end_delivery()
        assert bench.clock.monotonic() - began < 7
        assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("path ")] == []

    play(scenario)


@pytest.mark.parametrize("later", [False, True])
def test_a_bug_in_one_path_ends_the_deliverer_and_is_not_swallowed(play: Play, later: bool) -> None:
    async def scenario(bench: Any) -> None:
        first, second = paths_of(bench)
        if later:
            second.failures = [unreachable(), ZeroDivisionError("a bug")]
        else:
            first.failures = [ZeroDivisionError("a bug")]
        await bench.open()
        await bench.settle(400)
        task = bench.tasks.pop()
        assert task.done()
        with pytest.raises(ZeroDivisionError):
            task.result()
        assert [one.events for one in (first, second)] == [None, None]

    play(scenario)


@pytest.mark.parametrize("count", [0, 5])
def test_there_are_one_to_four_paths(play: Play, count: int) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        ways = [PlatformPath(type(bench.uplink)(), "host", "scripted") for _ in range(count)]
        with pytest.raises(ValueError, match="1 to 4"):
            Paths("district", ways, reconnect_spread_s=1, clock=bench.clock, health=bench.health)

    play(scenario)


def test_what_a_standing_path_refuses_is_told_until_it_is_taken_or_the_path_is_lost(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        refusal = SessionError("GW-NET-06", "host-1", url="https://host-1/faults", status=404, error="HTTP 404")
        bench.uplink.events.doubted(refusal)
        assert bench.problems() == {"GW-PLT-08"}
        [trouble] = bench.health.current()
        assert (trouble.subject, trouble.facts["url"], trouble.facts["cause"]) == (
            "district/1", "https://host-1/faults", "GW-NET-06",
        )  # fmt: skip
        [alarm] = await bench.store(("alarm.raised", "call-1"))
        assert bench.uplink.sent[-1].ids == [alarm]
        bench.uplink.events.doubted(None)
        assert bench.problems() == set()
        bench.uplink.events.doubted(refusal)
        bench.uplink.lose()
        await bench.settle()
        assert bench.problems() == {"GW-NET-05"}

    play(scenario)


def test_where_there_is_one_client_id_a_second_path_is_dialled_only_when_the_first_cannot_be_had(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.one_at_a_time, bench.spread_s = True, 1.0
        first, second = paths_of(bench)
        await bench.open()
        await bench.settle(3600)
        assert (len(first.opened), len(second.opened)) == (1, 0)
        assert states(bench) == ["in use", "standby"]
        assert bench.problems() == set()
        first.failures = [unreachable()] * 3
        first.lose()
        await bench.settle(10)
        assert first.closed >= 1
        assert (len(second.opened), second.closed) == (1, 0)
        [alarm] = await bench.store(("alarm.raised", "call-1"))
        assert second.sent[-1].ids == [alarm]
        assert (alarm, "L2") in bench.levels
        assert states(bench) == ["down", "in use"]
        assert "GW-NET-07" in bench.problems()
        await bench.settle(3600)
        dialled, first.failures = len(first.opened), []
        second.lose()
        await bench.settle(10)
        assert states(bench) == ["in use", "standby"]
        assert (len(first.opened), first.sent, second.events) == (dialled + 1, [], None)

    play(scenario)


def test_of_paths_with_one_client_id_never_two_are_connected(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.one_at_a_time, bench.spread_s = True, 1.0
        first, second = paths_of(bench)
        connected: list[tuple[bool, bool]] = []
        for one in (first, second):
            one.on_open = lambda: connected.append((first.events is not None, second.events is not None))
        await bench.open()
        for number in range(20):
            for one in (first, second):
                if one.events is not None:
                    one.lose()
            first.failures = [unreachable()] * (number % 3)
            await bench.settle(1200)
        assert len(connected) > 20
        assert (True, True) not in connected
        assert first.events is not None or second.events is not None

    play(scenario)

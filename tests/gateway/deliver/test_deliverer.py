"""The life of a destination: connecting, losing, waiting, and an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import SessionError
from gateway.events import Lane
from gateway.uplinks import back_off

Play = Callable[[Any], Any]
METER, ALARM = "telemetry.meter", "alarm.raised"


def unreachable(code: str = "GW-NET-02") -> SessionError:
    return SessionError(code, "platform.example", port=8883, error="no answer in time")


@pytest.fixture
def longest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw is the longest that it may be."""

    class Longest:
        def uniform(self, _low: float, high: float) -> float:
            return high

    monkeypatch.setattr(back_off, "_random", Longest())


def times(bench: Any) -> list[float]:
    """When it connected, in seconds after the first time."""
    first = bench.uplink.opened[0][2]
    return [round(at - first, 1) for _epoch, _birth, at in bench.uplink.opened]


def test_each_connection_has_an_epoch_of_its_own_and_a_birth(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.failures = [unreachable(), unreachable()]
        await bench.open()
        await bench.settle(10)
        assert [epoch for epoch, _birth, _at in bench.uplink.opened] == [1, 2, 3]
        assert bench.uplink.opened[-1][1] == {"streamid": bench.outbox.streamid}
        assert (bench.deliverer.connected, bench.deliverer.epoch) == (True, 3)
        await bench.close()
        await bench.open()
        assert bench.uplink.opened[-1][0] == 4

    play(scenario)


def test_the_problem_names_the_broken_layer_and_goes_when_the_next_session_stands(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.failures = [unreachable("GW-NET-01"), *[unreachable("GW-NET-03")] * 3]
        await bench.open()
        assert bench.problems() == {"GW-NET-01"}
        await bench.settle(1)
        assert bench.problems() == {"GW-NET-03"}
        await bench.settle(30)
        assert bench.problems() == set()

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_a_platform_that_is_away_is_tried_less_and_less_often(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.failures = [unreachable()] * 20
        await bench.open()
        await bench.settle(1500)
        assert times(bench) == [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 811, 1111, 1411]

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_with_an_alarm_pending_it_is_tried_every_five_seconds(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.failures = [unreachable()] * 20
        await bench.open(deliver=False)
        await bench.store((ALARM, "call-1"))
        await bench.deliver()
        await bench.settle(30)
        assert times(bench) == [0, 1, 3, 7, 12, 17, 22, 27]

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_an_alarm_shortens_a_wait_that_has_begun(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.failures = [unreachable()] * 9
        await bench.open()
        await bench.settle(260)  # the wait from 255 s to 511 s has begun
        await bench.store((ALARM, "call-1"))
        await bench.settle(5.1)
        assert len(bench.uplink.opened) == 10
        assert bench.uplink.sequences(Lane.A) == [1]

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_an_alarm_does_not_lengthen_a_wait_that_is_nearly_over(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.uplink.failures = [unreachable()] * 4
        await bench.open()
        await bench.settle(14.5)  # the next attempt is at 15 s
        await bench.store((ALARM, "call-1"))
        await bench.settle(0.6)
        assert times(bench) == [0, 1, 3, 7, 15]

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_a_lost_session_is_waited_for_by_the_spread_and_with_an_alarm_two_seconds(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        await bench.store((METER, "m1"))
        bench.uplink.lose()
        await bench.settle(59)
        assert (len(bench.uplink.opened), bench.problems()) == (1, {"GW-NET-05"})
        await bench.settle(2)
        assert len(bench.uplink.opened) == 2
        bench.uplink.lose()
        await bench.settle(1)
        await bench.store((ALARM, "call-1"))
        await bench.settle(2.1)
        assert len(bench.uplink.opened) == 3
        assert bench.outbox.pending("district")["A"] == 0

    play(scenario)


@pytest.mark.usefixtures("longest_waits")
def test_the_back_off_begins_anew_after_an_accepted_event_not_after_connecting(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.spread_s = 0
        bench.uplink.obliging = False
        await bench.open(deliver=False)
        await bench.store((METER, "m1"))
        await bench.deliver()
        for wait in (0, 2, 4, 8):
            before = len(bench.uplink.opened)
            bench.uplink.lose()
            await bench.settle(wait + 0.5)
            assert len(bench.uplink.opened) == before + 1
        bench.uplink.obliging = True
        bench.uplink.accept(bench.uplink.sent[-1])
        bench.uplink.lose()
        await bench.settle(0.5)
        assert bench.deliverer.connected

    play(scenario)


def test_what_was_not_confirmed_goes_again_over_the_next_connection_in_order(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.spread_s = 0
        await bench.open()
        bench.uplink.obliging = False
        ids = await bench.store((ALARM, "call-1"), (ALARM, "call-1"), (ALARM, "call-2"))
        bench.uplink.answer((ids[2], "accepted"))
        bench.uplink.lose()
        bench.uplink.obliging = True
        await bench.settle(5)
        assert [one.ids for one in bench.uplink.sent] == [[ids[0]], [ids[2]], [ids[0]], [ids[1]]]
        assert [one.epoch for one in bench.uplink.sent] == [1, 1, 2, 2]

    play(scenario)


def test_an_answer_over_a_new_connection_to_what_the_old_one_carried_is_no_harm(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        bench.spread_s = 0
        await bench.open()
        bench.uplink.obliging = False
        first, second = await bench.store((ALARM, "call-1"), (ALARM, "call-1"))
        bench.uplink.lose()
        await bench.settle(3)
        bench.uplink.answer((first, "accepted"), (second, "accepted"))  # the second has not been sent yet
        await bench.settle()
        assert [one.ids for one in bench.uplink.sent] == [[first], [first], [second]]

    play(scenario)


def test_telemetry_is_live_while_connected_and_not_far_behind(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        assert not bench.deliverer.is_live
        await bench.deliver()
        assert bench.deliverer.is_live
        bench.uplink.obliging = False
        await bench.store(*((METER, f"m{n}") for n in range(499)))
        assert bench.deliverer.is_live
        await bench.store((METER, "m500"))
        assert not bench.deliverer.is_live
        bench.uplink.lose()
        await bench.settle()
        assert not bench.deliverer.is_live

    play(scenario)


def test_an_orderly_end_waits_for_alarms_and_says_goodbye(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        [alarm] = await bench.store((ALARM, "call-1"))
        began = bench.clock.monotonic()
        asyncio.get_running_loop().call_later(2.0, bench.uplink.answer, (alarm, "accepted"))
        await bench.deliverer.drain_alarms(5.0)
        assert 2.0 <= bench.clock.monotonic() - began < 2.1
        closed = bench.uplink.closed
        bench.tasks[1].cancel()
        await asyncio.wait({bench.tasks[1]})
        assert bench.uplink.closed > closed
        bench.tasks.pop()

    play(scenario)


def test_an_end_does_not_wait_for_ever_for_alarms(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        bench.uplink.obliging = False
        await bench.store((ALARM, "call-1"))
        began = bench.clock.monotonic()
        await bench.deliverer.drain_alarms(5.0)
        assert 5.0 <= bench.clock.monotonic() - began < 5.1
        bench.uplink.lose()
        await bench.settle()
        began = bench.clock.monotonic()
        await bench.deliverer.drain_alarms(5.0)  # nobody is there: nothing to wait for
        assert bench.clock.monotonic() - began < 0.1

    play(scenario)


def test_its_figures_tell_how_it_stands(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open()
        await bench.store((ALARM, "call-1"))
        bench.uplink.obliging = False
        await bench.store((METER, "m1"), (METER, "m2"))
        await bench.settle(3)
        assert bench.deliverer.status() == {
            "id": "district",
            "connected": True,
            "epoch": 1,
            "pending": {"A": 0, "B": 0, "C": 2, "D": 0},
            "paths": [{"url_host": "host-1", "transport": "scripted", "state": "in use", "code": "", "since_s": 3.0}],
            "inflight": 1,
            "accepted": 1,
            "rejected": 0,
            "resent": 0,
            "dead_letters": 0,
            "last_accepted_s": 3.0,
        }

    play(scenario)

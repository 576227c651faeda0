"""A backlog makes way for alarms, though not for ever, and goes no faster than it is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.deliver.drain import Drain

Play = Callable[[Any], Any]
METER, ALARM = "telemetry.meter", "alarm.raised"


def test_it_grows_by_one_for_each_window_that_is_taken_in_time() -> None:
    drain = Drain()
    assert drain.window == 8
    for n in range(8):
        drain.taken(n, n + 0.1)
    assert drain.window == 8  # 1/8 each, of a window that has grown a little
    drain.taken(9, 9.1)
    assert drain.window == 9
    for n in range(10_000):
        drain.taken(n, n + 0.1)
    assert drain.window == 64


def test_a_message_that_is_put_off_halves_it_once_for_all_that_was_on_its_way() -> None:
    drain = Drain()
    drain.put_off(1.0, 2.0)
    drain.put_off(1.5, 2.1)
    drain.taken(1.6, 2.2)
    assert drain.window == 4
    drain.put_off(2.0, 3.0)
    assert drain.window == 2
    for n in range(10):
        drain.put_off(10.0 + n, 10.5 + n)
    assert drain.window == 2


@pytest.mark.parametrize(
    ("quickest", "seconds", "window"), [(0.1, 0.9, 8), (0.1, 1.1, 4), (0.5, 1.9, 8), (0.5, 2.1, 4)]
)
def test_an_answer_that_took_more_than_a_second_and_four_times_the_quickest_halves_it(
    quickest: float, seconds: float, window: int
) -> None:
    drain = Drain()
    drain.taken(0.0, quickest)
    drain.taken(1.0, 1.0 + seconds)
    assert drain.window == window


def test_a_slow_line_is_not_taken_for_a_busy_platform() -> None:
    drain = Drain()
    for n in range(20):
        drain.taken(n * 10, n * 10 + 5.0)
    assert drain.window > 8


def test_after_a_minute_it_waits_only_for_an_alarm_that_is_new() -> None:
    drain = Drain()
    assert not drain.waits(10.0, alarm_pending=False, alarm_is_new=False)
    assert drain.waits(10.0, alarm_pending=True, alarm_is_new=False)
    assert drain.next_time(10.0) == 70.0
    assert drain.waits(69.9, alarm_pending=True, alarm_is_new=False)
    assert not drain.waits(70.0, alarm_pending=True, alarm_is_new=False)
    assert drain.next_time(70.0) is None
    assert drain.waits(71.0, alarm_pending=True, alarm_is_new=True)
    assert not drain.waits(72.0, alarm_pending=False, alarm_is_new=False)
    assert drain.waits(73.0, alarm_pending=True, alarm_is_new=False)


def test_an_alarm_that_is_put_off_for_ever_stops_the_backlog_for_a_minute_only(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        bench.outbox.live = lambda: False
        readings = await bench.store(*((METER, f"m{n}") for n in range(3)))
        [alarm] = await bench.store((ALARM, "call-1"))
        bench.uplink.obliging = False
        await bench.deliver()
        for _ in range(600):  # ten minutes: an alarm that comes again is refused again at once
            if any(one.ids == [alarm] for one in bench.uplink.sent):
                bench.uplink.answer((alarm, "retry"))
            if bench.uplink.sent[-1].ids == readings:
                break
            await bench.settle(0.5)
        assert [one.ids for one in bench.uplink.sent if one.ids != [alarm]] == [readings]
        assert 59 < bench.uplink.sent[-1].at - bench.uplink.sent[0].at < 62
        # A new alarm of another device still stops it.
        bench.uplink.answer(*((one, "accepted") for one in readings))
        [second] = await bench.store((ALARM, "call-2"))
        assert bench.uplink.sent[-1].ids == [second]
        more = await bench.store((METER, "m1"))
        await bench.settle(5)
        assert not any(one.ids == more for one in bench.uplink.sent)
        bench.uplink.answer((second, "accepted"))
        await bench.settle(1)
        assert any(one.ids == more for one in bench.uplink.sent)

    play(scenario)


def test_a_platform_that_puts_the_backlog_off_gets_fewer_messages_at_once(play: Play) -> None:
    async def scenario(bench: Any) -> None:
        await bench.open(deliver=False)
        bench.outbox.live = lambda: False
        await bench.store(*((METER, f"m{n}") for n in range(1600)))
        bench.uplink.obliging = False
        await bench.deliver()
        await bench.settle(5)  # two at once, two more each second that they are not answered
        first = list(bench.uplink.sent)
        assert len(first) == 8
        bench.uplink.answer(*((one, "retry") for one in first[0].ids), after_s=600)
        for message in first[1:]:
            bench.uplink.accept(message)
        await bench.settle(5)
        assert len(bench.uplink.sent) - len(first) == 4

    play(scenario)

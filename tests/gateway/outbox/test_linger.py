"""Telemetry waits for company on its way to the card; nothing that anybody waits for ever does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.events import Lane
from gateway.outbox import Mark, Number, Write
from gateway.outbox.intake import MAX_LINGERING, Intake
from gateway.outbox.linger import Linger

Maker = Callable[..., Any]
NOTHING = {"is_waiting": False, "is_confirmed": False, "is_deletable": False, "is_soon": False}
LINGERS_S = 60.0  # longer than a test waits for what must not linger


# For how long. Five seconds for telemetry: its confirmations alone 30 s, whatever else is confirmed 1 s.


def test_with_nothing_to_do_a_commit_waits_until_it_is_woken() -> None:
    assert Linger(5.0).left_s(100.0, **NOTHING) is None


def test_telemetry_waits_from_the_first_of_it() -> None:
    linger = Linger(5.0)
    linger.submitted(100.0)
    assert linger.left_s(100.0, **NOTHING | {"is_waiting": True}) == 5.0
    assert linger.left_s(104.5, **NOTHING | {"is_waiting": True}) == 0.5
    assert linger.left_s(106.0, **NOTHING | {"is_waiting": True}) == 0.0


def test_confirmed_telemetry_waits_six_times_as_long_and_anything_else_a_second() -> None:
    linger = Linger(5.0)
    linger.confirmed(20, now=100.0, is_first=True)
    assert linger.left_s(101.0, **NOTHING | {"is_confirmed": True}) == 29.0
    assert linger.left_s(100.25, **NOTHING | {"is_confirmed": True, "is_soon": True}) == 0.75


def test_more_than_twenty_rows_confirmed_wait_a_second() -> None:
    """A crash has them sent again: at most a window of them."""
    linger = Linger(5.0)
    assert linger.confirmed(15, now=100.0, is_first=True) is True
    assert linger.confirmed(5, now=100.25, is_first=False) is False
    assert linger.confirmed(1, now=100.5, is_first=False) is True
    assert linger.left_s(100.5, **NOTHING | {"is_confirmed": True}) == 0.5


def test_rows_that_may_be_deleted_wait_a_second_after_the_commit_before() -> None:
    linger = Linger(5.0)
    linger.committed(100.0)
    assert linger.left_s(100.5, **NOTHING | {"is_deletable": True}) == 0.5


def test_a_deletion_that_an_alarm_goes_before_follows_a_tenth_of_a_second_later() -> None:
    linger = Linger(5.0)
    assert linger.keeps_back(100.0, is_deletable=True, is_urgent=True)
    linger.committed(100.0)
    linger.committed(100.05)
    assert linger.left_s(100.05, **NOTHING | {"is_deletable": True}) == pytest.approx(0.05)
    assert not linger.keeps_back(100.1, is_deletable=True, is_urgent=False)
    linger.committed(100.1)
    assert linger.left_s(100.1, **NOTHING | {"is_deletable": True}) == 1.0


def test_alarms_without_a_pause_take_a_deletion_along_each_second() -> None:
    linger = Linger(5.0)
    kept = [linger.keeps_back(100.0 + step / 4, is_deletable=True, is_urgent=True) for step in range(10)]
    assert kept == [True, True, True, True, False, True, True, True, True, False]


def test_where_telemetry_may_not_linger_its_confirmations_wait_a_second() -> None:
    linger = Linger(0.0)
    linger.submitted(100.0)
    linger.confirmed(1, now=100.0, is_first=True)
    assert linger.left_s(100.0, **NOTHING | {"is_waiting": True}) == 0.0
    assert linger.left_s(100.0, **NOTHING | {"is_confirmed": True}) == 1.0


# What may linger.


def lane_c(intake: Intake, write: Write) -> bool:
    intake.put(write, tuple(Lane.C for _event in write.events))
    return intake.may_linger


def test_telemetry_may_linger_with_what_was_judged_of_its_device(write: Maker) -> None:
    intake = Intake()
    assert lane_c(intake, write()) is True
    assert lane_c(intake, replace(write("telemetry.environment"), marks=(Mark("m1", "counter", "7", 1),))) is True


@pytest.mark.parametrize("noun", ["alarm.raised", "device.fault", "gateway.gap", "bed.occupancy", "checkin.card"])
def test_nothing_but_telemetry_may_linger(write: Maker, noun: str) -> None:
    assert lane_c(Intake(), write(noun)) is False


def test_what_a_sender_or_anybody_else_waits_for_may_not_linger(write: Maker) -> None:
    assert lane_c(Intake(), replace(write(), on_commit=lambda _rows: None)) is False
    assert lane_c(Intake(), replace(write(), numbers=(Number("m1", "s", 1),))) is False
    assert lane_c(Intake(), Write(facts=(("epoch:district", "1"),))) is False
    assert lane_c(Intake(), Write(marks=(Mark("m1", "counter", "7", 1),))) is False


def test_one_that_may_not_takes_those_along_that_may_and_then_others_may_again(write: Maker) -> None:
    intake = Intake()
    lane_c(intake, write())
    assert lane_c(intake, write("device.fault")) is False
    intake.gather(250)
    assert (len(intake.batch), intake.may_linger) == (2, True)
    intake.settle()
    assert lane_c(intake, write()) is True


def test_what_a_full_commit_left_behind_does_not_linger_again(write: Maker) -> None:
    intake = Intake()
    for _ in range(3):
        lane_c(intake, write())
    lane_c(intake, write("device.fault"))
    intake.gather(2)
    assert intake.may_linger is False


def test_a_hundred_do_not_linger(write: Maker) -> None:
    intake = Intake()
    seen = [lane_c(intake, write()) for _ in range(MAX_LINGERING)]
    assert (seen[98], seen[99]) == (True, False)


# In the outbox.


@pytest.fixture
async def lingering(closed_shelf: Any) -> Any:
    closed_shelf.linger_s = LINGERS_S
    await closed_shelf.open()
    return closed_shelf


async def test_telemetry_lingers_and_an_alarm_takes_it_along_at_once(
    lingering: Any, write: Maker, alarm: Maker, when: Maker
) -> None:
    lingering.outbox.submit(write())
    lingering.outbox.submit(write())
    await asyncio.sleep(0)
    assert (lingering.outbox.waiting, lingering.outbox.sequence) == (2, 0)
    lingering.outbox.submit(alarm())
    await when(lambda: lingering.outbox.waiting == 0)
    assert [row.seq for row in await lingering.outbox.fetch(Lane.A, 0, 10)] == [1]
    assert lingering.sequences() == [1, 2, 3]


async def test_a_numbered_input_is_durable_at_once_and_what_lingers_with_it(
    lingering: Any, write: Maker, when: Maker
) -> None:
    acknowledged: list[int] = []
    lingering.outbox.submit(write())
    lingering.outbox.submit(
        replace(write(), numbers=(Number("m1", "s", 7),), on_commit=lambda _rows: acknowledged.append(7))
    )
    await when(lambda: acknowledged == [7])
    assert lingering.sequences() == [1, 2]


async def test_what_lingers_is_durable_when_its_time_is_over(closed_shelf: Any, write: Maker, when: Maker) -> None:
    closed_shelf.linger_s = 0.05
    await closed_shelf.open()
    closed_shelf.outbox.submit(write())
    await when(lambda: closed_shelf.sequences() == [1])


async def test_what_lingers_is_stored_before_the_end(lingering: Any, write: Maker) -> None:
    lingering.outbox.submit(write())
    assert await lingering.outbox.flush(5)
    assert lingering.sequences() == [1]


async def test_until_it_is_stored_it_is_the_oldest_that_waits(lingering: Any, write: Maker) -> None:
    """So that the gap of a crash covers it."""
    lingering.outbox.submit(write(mono_ms=999_000))
    assert lingering.outbox.oldest_waiting.mono_ms == 999_000


async def test_confirmations_of_telemetry_ride_on_the_next_commit(lingering: Any, write: Maker) -> None:
    await lingering.store(write())
    lingering.outbox.confirm("district", Lane.C, seq=1, ahead=list, done=1)
    await asyncio.sleep(0)
    assert lingering.sql("SELECT seq FROM cursor") == []
    await lingering.store(write("device.fault"))
    assert lingering.sql("SELECT seq FROM cursor WHERE lane = 2") == [(1,)]
    assert lingering.sequences() == [2]


# What somebody waits for, in a stream of it.


def test_what_somebody_waits_for_begins_no_sooner_than_twenty_milliseconds_after_the_commit_before() -> None:
    linger = Linger(5.0)
    assert linger.spacing_s(0.0) == 0.0  # the first one
    linger.committed(100.0)
    assert linger.spacing_s(100.0) == pytest.approx(0.020)
    assert linger.spacing_s(100.015) == pytest.approx(0.005)
    assert linger.spacing_s(100.5) == 0.0
    assert linger.spacing_s(1.0) == 0.020  # whatever a clock does


def test_an_alarm_or_a_hundred_inputs_wait_for_no_others(write: Maker, alarm: Maker) -> None:
    intake = Intake()
    numbered = replace(write(), numbers=(Number("m1", "s", 1),))
    seen = [(intake.put(numbered, (Lane.C,)), intake.is_pressing) for _ in range(MAX_LINGERING)]
    # Whoever waits to commit looks again at the first, and at the hundredth.
    assert seen == [(True, False), *[(False, False)] * 98, (True, True)]
    intake = Intake()
    intake.put(numbered, (Lane.C,))
    assert intake.put(alarm(), (Lane.A,)) is True
    assert intake.is_pressing is True


def test_a_write_of_a_hundred_events_waits_for_no_others_and_what_is_left_behind_it_does(write: Maker) -> None:
    intake = Intake()
    one = replace(write(), on_commit=lambda _rows: None)
    assert intake.put(replace(one, events=one.events * MAX_LINGERING), (Lane.C,) * MAX_LINGERING) is True
    assert intake.is_pressing is True
    intake.put(one, (Lane.C,))
    intake.gather(MAX_LINGERING)
    assert (len(intake.batch), intake.is_pressing) == (1, False)
    intake.revise(lambda one, lanes: (one, lanes * MAX_LINGERING))
    assert intake.is_pressing is True


async def test_inputs_that_come_one_by_one_in_a_stream_share_a_commit_and_an_alarm_among_them_waits_for_none(
    closed_shelf: Any, write: Maker, alarm: Maker, when: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.linger.SPACING_S", LINGERS_S)
    await closed_shelf.open()
    durable: list[int] = []

    def numbered(n: int) -> Write:
        return replace(write(), numbers=(Number("m1", "s", n),), on_commit=lambda _rows: durable.append(n))

    closed_shelf.outbox.submit(numbered(1))
    await when(lambda: durable == [1])
    closed_shelf.outbox.submit(numbered(2))
    closed_shelf.outbox.submit(numbered(3))
    for _ in range(5):
        await asyncio.sleep(0)
    assert (durable, closed_shelf.outbox.waiting) == ([1], 2)
    closed_shelf.outbox.submit(alarm())
    await when(lambda: durable == [1, 2, 3])
    assert closed_shelf.sequences() == [1, 2, 3, 4]

"""Waits that a platform asked for, and how much it is sent at a time."""

from __future__ import annotations

from gateway.uplinks.http_courtesy import Courtesy


def test_what_was_said_to_a_batch_holds_no_alarm() -> None:
    courtesy = Courtesy()
    courtesy.refused(100.0, after_s=60.0, alarm=False)
    assert courtesy.alarm_wait(100.0) == 0.0
    assert 60.0 <= courtesy.bulk_wait(100.0) <= 66.0
    assert courtesy.bulk_wait(167.0) == 0.0


def test_what_was_said_to_an_alarm_holds_everything() -> None:
    courtesy = Courtesy()
    courtesy.refused(100.0, after_s=60.0, alarm=True)
    assert courtesy.alarm_wait(110.0) == 50.0
    assert courtesy.bulk_wait(110.0) >= 50.0


def test_without_a_time_the_waits_grow_and_an_alarm_never_waits_more_than_five_seconds() -> None:
    longest = {1: 0.0, 3: 0.0, 12: 0.0}
    for _ in range(300):
        courtesy = Courtesy()
        for failures in range(1, 13):
            now = failures * 10_000.0
            courtesy.refused(now, after_s=None, alarm=True)
            assert courtesy.alarm_wait(now) <= 5.0
            if failures in longest:
                longest[failures] = max(longest[failures], courtesy.bulk_wait(now))
    assert longest[1] <= 2.0
    assert 2.0 < longest[3] <= 8.0
    assert 100.0 < longest[12] <= 300.0


def test_a_message_that_is_taken_ends_the_growth() -> None:
    waits = []
    for _ in range(300):
        courtesy = Courtesy()
        for _failure in range(8):
            courtesy.refused(0.0, after_s=0.0, alarm=False)
        courtesy.taken(1)
        courtesy.refused(0.0, after_s=None, alarm=False)
        waits.append(courtesy.bulk_wait(0.0))
    assert max(waits) <= 2.0


def test_a_shorter_wait_does_not_end_a_longer_one() -> None:
    courtesy = Courtesy()
    courtesy.refused(0.0, after_s=30.0, alarm=True)
    courtesy.refused(0.0, after_s=1.0, alarm=True)
    assert courtesy.alarm_wait(0.0) == 30.0
    courtesy.alarms_may_go()
    assert courtesy.alarm_wait(0.0) == 0.0


def test_a_session_waits_only_for_a_time_that_was_named() -> None:
    courtesy = Courtesy()
    courtesy.not_now(100.0, after_s=None)
    assert courtesy.session_wait(100.0) == 0.0
    courtesy.not_now(100.0, after_s=30.0)
    assert courtesy.session_wait(110.0) == 20.0


def test_an_address_that_refuses_us_holds_up_what_goes_there_and_nothing_else() -> None:
    courtesy = Courtesy()
    assert [courtesy.shut("/faults", 100.0) for _ in range(9)] == [True] + [False] * 8
    assert 0.0 <= courtesy.place_wait("/faults", 100.0) <= 300.0
    assert (courtesy.place_wait("/batch", 100.0), courtesy.bulk_wait(100.0), courtesy.alarm_wait(100.0)) == (0, 0, 0)
    assert [courtesy.open("/faults"), courtesy.open("/faults")] == [True, False]
    assert courtesy.place_wait("/faults", 100.0) == 0.0


def test_of_addresses_that_refuse_us_64_are_remembered() -> None:
    courtesy = Courtesy()
    for number in range(100):
        courtesy.shut(f"/{number}", 0.0)
    assert [courtesy.open(f"/{number}") for number in (35, 36, 99)] == [False, True, True]


def test_a_login_is_read_anew_once_for_each_address_until_something_was_taken_there() -> None:
    courtesy = Courtesy()
    assert [courtesy.logs_in_anew("/batch"), courtesy.logs_in_anew("/batch")] == [True, False]
    courtesy.open("/batch")
    assert courtesy.logs_in_anew("/batch")


def test_batches_are_halved_when_they_were_too_much_and_grow_again() -> None:
    courtesy = Courtesy()
    assert courtesy.part_events == 100
    courtesy.too_much(100)
    assert courtesy.part_events == 50
    courtesy.too_much(7)
    assert courtesy.part_events == 3
    courtesy.taken(2)  # less than it may have proves nothing
    assert courtesy.part_events == 3
    courtesy.taken(3)
    assert courtesy.part_events == 13
    for _ in range(20):
        courtesy.taken(100)
    assert courtesy.part_events == 100
    for _ in range(20):
        courtesy.too_much(2)
    assert courtesy.part_events == 1

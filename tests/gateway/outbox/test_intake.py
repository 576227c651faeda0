"""What is committed together: an alarm takes few others along, everything else as many as may be."""

from __future__ import annotations

from collections.abc import Callable

from gateway.events import Lane
from gateway.outbox import Mark, Write
from gateway.outbox.intake import Intake

Maker = Callable[..., Write]


def test_readings_fill_a_commit(write: Maker) -> None:
    intake = Intake()
    for _ in range(300):
        intake.put(write(), ())
    intake.gather(250)
    assert (len(intake.batch), len(intake)) == (250, 300)


def test_an_alarm_takes_twenty_readings_along_and_the_next_commit_is_full_again(write: Maker, alarm: Maker) -> None:
    intake = Intake()
    for _ in range(300):
        intake.put(write(), ())
    intake.put(alarm(), ())
    intake.gather(250)
    assert len(intake.batch) == 21
    assert intake.batch[0][0].alarms
    intake.settle()
    intake.gather(250)
    assert len(intake.batch) == 250


def test_many_alarms_fill_a_commit_and_take_no_more_along_than_fits(write: Maker, alarm: Maker) -> None:
    intake = Intake()
    for _ in range(100):
        intake.put(write(), ())
    for _ in range(245):
        intake.put(alarm(), ())
    intake.gather(250)
    assert len(intake.batch) == 250
    assert sum(bool(one.alarms) for one, _lanes in intake.batch) == 245


def test_what_waits_of_a_device_is_found_and_assumed_where_too_much_waits_to_look(write: Maker) -> None:
    intake = Intake()
    assert not intake.has("m1")
    intake.put(write(device="m2"), (Lane.C,))
    intake.put(Write(marks=(Mark("m3", "level:x", "{}"),)), ())
    assert [intake.has(one) for one in ("m1", "m2", "m3")] == [False, True, True]
    intake.gather(100)
    assert [intake.has(one) for one in ("m1", "m2", "m3")] == [False, True, True], "the commit in progress counts"
    for _ in range(200):
        intake.put(write(device="m2"), (Lane.C,))
    assert intake.has("m1")

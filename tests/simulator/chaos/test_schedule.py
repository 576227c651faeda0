"""The schedule of a seed: the same each time, without two faults on one thing, and to be played again in part."""

from __future__ import annotations

import json
from itertools import combinations

import pytest

from simulator.chaos.schedule import (
    KINDS,
    Planned,
    ScheduleError,
    draw,
    dump,
    only,
    parse,
    without,
    words,
)


def test_a_seed_gives_the_same_schedule_each_time_and_another_seed_another_one() -> None:
    assert draw(7, 30.0) == draw(7, 30.0)
    assert draw(7, 30.0) != draw(8, 30.0)


def test_thirty_seconds_hold_a_dozen_faults_while_devices_work_in_order_of_their_time() -> None:
    schedule = draw(7, 30.0)
    assert 10 <= len(schedule) <= 14
    assert [one.number for one in schedule] == list(range(1, len(schedule) + 1))
    assert [one.at_s for one in schedule] == sorted(one.at_s for one in schedule)
    assert all(one.at_s >= 1.0 and one.at_s + one.for_s <= 24.0 for one in schedule)


def test_no_two_faults_work_on_one_thing_at_the_same_time() -> None:
    for seed in range(50):
        for one, other in combinations(draw(seed, 30.0), 2):
            if (KINDS[one.fault].works_on, one.on) == (KINDS[other.fault].works_on, other.on):
                assert one.at_s + one.for_s < other.at_s


def test_two_hundred_seeds_hold_every_kind_of_fault_many_times() -> None:
    played = [one.fault for seed in range(200) for one in draw(seed, 30.0)]
    rare = {name: played.count(name) for name, kind in KINDS.items() if kind.weight and played.count(name) < 20}
    assert rare == {}


def test_a_schedule_comes_back_from_json_and_from_a_report() -> None:
    schedule = draw(3, 30.0)
    assert parse(json.dumps(dump(schedule))) == schedule
    assert parse(json.dumps({"seed": 3, "lost": 1, "schedule": dump(schedule)})) == schedule


def test_what_is_taken_out_leaves_the_numbers_of_the_others() -> None:
    schedule = (Planned(1, 1.0, 0.0, "kill"), Planned(2, 2.0, 1.0, "cut", "family"), Planned(3, 3.0, 0.0, "kill"))
    assert [one.number for one in only(schedule, (3, 2))] == [2, 3]
    assert [one.number for one in without(schedule, {"kill"})] == [2]
    with pytest.raises(ScheduleError, match=r"3 faults; there is no 4, 9"):
        only(schedule, (1, 9, 4))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "a list of 1 to 1000 faults"),
        ('{"seed": 1}', "a list of 1 to 1000 faults"),
        ('[{"number": 1}]', "fault 1 of the schedule: KeyError"),
        (
            '[{"number": 1, "at_s": 1, "for_s": 0, "fault": "earthquake", "on": "", "facts": {}}]',
            "no 'earthquake' on ''",
        ),
        ('[{"number": 1, "at_s": 1, "for_s": 0, "fault": "cut", "on": "", "facts": {}}]', "no 'cut' on ''"),
        ('[{"number": 1, "at_s": -1, "for_s": 0, "fault": "kill", "on": "", "facts": {}}]', "at_s from 0"),
        ('[{"number": 1, "at_s": 1, "for_s": 900, "fault": "kill", "on": "", "facts": {}}]', "for_s from 0 to 70"),
    ],
)
def test_a_schedule_that_cannot_be_played_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ScheduleError, match=says):
        parse(text)


def test_a_fault_is_said_in_one_line() -> None:
    one = Planned(4, 12.5, 2.0, "status-429", "family", {"retry_after": "2"})
    assert words(one) == "  4   12.50 s  status-429 family for 2 s  retry_after=2"

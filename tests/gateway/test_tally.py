"""The tally: what counts as an alarm, a gap, an acknowledgement, and that nobody can be recognised in it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.clock import Stamp
from gateway.events import Event, Origin, new_event
from gateway.tally import Tally, Totals, base_of, between, seconds_from

ORIGIN = Origin("org", "site", "gw")
WALL_MS = 1_800_000_000_000


def at(second: float, boot: str = "boot-1") -> Stamp:
    return Stamp(WALL_MS + round(second * 1000), round(second * 1000), boot, "synced")


def told(noun: str, alarm: str = "a1", when: Stamp | None = None, **data: Any) -> Event:
    known: dict[str, Any] = {"kind": "call", "presses": 1, "verified": True, "test": False, "room": "room-201", **data}
    return new_event(noun, ORIGIN, device="call-201", at=when or at(0), data=known, correlation=alarm)


def counts(tally: Tally, **more: Any) -> Any:
    totals = Totals(tally, more.get("stored", 0), more.get("routed", {}), more.get("pending", {}))
    return between({}, totals, base_of(totals, {}))


def test_alarms_are_counted_by_kind_once_each_and_tests_apart() -> None:
    tally = Tally()
    for event in (
        told("alarm.raised"),
        told("alarm.raised", presses=2),
        told("alarm.raised", "a2", kind="fall", verified=False),
        told("alarm.raised", "a3", test=True),
        told("alarm.raised", "a1", retold=True),
    ):
        tally.stored(event)
    assert counts(tally)["alarms"]["raised"] == {
        "call": {"verified": 1, "unverified": 0},
        "fall": {"verified": 0, "unverified": 1},
    }
    assert counts(tally)["alarms"]["tests"] == {"call": 1}


def test_the_time_to_an_acknowledgement_runs_from_the_first_press_and_anew_after_a_reopening() -> None:
    tally = Tally()
    for event in (
        told("alarm.raised", when=at(0)),
        told("alarm.raised", when=at(20), presses=2),
        told("alarm.acknowledged", when=at(30)),
        told("alarm.raised", when=at(100), presses=3),
        told("alarm.acknowledged", when=at(110)),
        told("alarm.raised", "a2", when=at(200)),
        told("alarm.acknowledged", "a2", when=at(216)),
        told("alarm.closed", "a2", when=at(300)),
        told("alarm.acknowledged", "never-heard-of", when=at(301)),
    ):
        tally.stored(event)
    alarms = counts(tally)["alarms"]
    assert (alarms["acknowledged"], alarms["closed"]) == (4, 1)
    assert alarms["to_acknowledge_s"] == {"count": 3, "median": 16.0, "max": 30.0}


def test_nothing_acknowledged_has_no_median() -> None:
    assert counts(Tally())["alarms"]["to_acknowledge_s"] == {"count": 0, "median": None, "max": None}


def test_a_time_over_a_restart_goes_by_the_wall_clock() -> None:
    assert seconds_from(at(5), replace(at(65), mono_ms=3, boot="boot-2")) == 60.0
    assert seconds_from(at(5), replace(at(65), wall_ms=0)) == 60.0


def test_gaps_of_links_are_counted_and_rows_that_gave_way_are_no_gap_of_hearing() -> None:
    tally = Tally()
    gap = {"from": "2027-01-15T08:00:00.000Z", "to": "2027-01-15T08:00:02.500Z"}
    tally.stored(told("gateway.gap", reason="restart", **gap))
    tally.stored(told("gateway.gap", reason="quota", deliveryseqs={"street": [(3, 5), (9, 9)]}, **gap))
    tally.stored(told("gateway.gap", reason="expired", deliveryseqs={"city": [(1, 1)], "street": [(11, 11)]}, **gap))
    assert tally.dropped == {"street": 5, "city": 1}
    assert counts(tally)["gaps"] == {"count": 1, "seconds": 2.5}


@pytest.mark.parametrize("body", ["", "[]", '{"data":7}', '{"data":{}}'])
def test_an_event_that_nobody_can_read_is_stored_all_the_same(body: str) -> None:
    tally = Tally()
    tally.stored(replace(told("alarm.raised"), body=body))
    tally.stored(replace(told("gateway.gap"), body=body))
    assert tally == Tally()


def test_what_a_destination_got_is_what_it_was_given_less_what_is_left() -> None:
    tally = Tally()
    tally.dead_letter("street")
    tally.dropped = {"street": 2, "city": 2}
    tally.accepted("street", 0.44)
    found = counts(tally, routed={"street": 10, "city": 2}, pending={"street": 3})["destinations"]
    assert found == {
        "street": {
            "delivered": 4, "dead_lettered": 1, "dropped": 2, "pending": 3,
            "alarms_to_accept_s": {"count": 1, "median": 0.4, "max": 0.4},
        },
        "city": {
            "delivered": 0, "dead_lettered": 0, "dropped": 2, "pending": 0,
            "alarms_to_accept_s": {"count": 0, "median": None, "max": None},
        },
    }  # fmt: skip


def test_a_period_is_what_came_after_the_one_before() -> None:
    tally = Tally()
    tally.stored(told("alarm.raised", when=at(0)))
    tally.stored(told("alarm.acknowledged", when=at(90)))
    first = base_of(Totals(tally, 2, {"street": 2}, {}), {})
    tally.stored(told("alarm.raised", "a2", when=at(100), verified=False))
    tally.stored(told("alarm.acknowledged", "a2", when=at(103)))
    totals = Totals(tally, 7, {"street": 5}, {"street": 1})
    found: Any = between(first, totals, base_of(totals, first))
    assert found["alarms"]["raised"] == {"call": {"verified": 0, "unverified": 1}}
    assert found["alarms"]["to_acknowledge_s"] == {"count": 1, "median": 3.0, "max": 3.0}
    assert (found["events"], found["destinations"]["street"]["delivered"]) == ({"stored": 5}, 2)


def test_what_was_said_to_be_delivered_stays_said_when_a_crash_makes_it_pending_again() -> None:
    before = base_of(Totals(Tally(), 10, {"street": 10}, {"street": 0}), {})
    totals = Totals(Tally(), 10, {"street": 10}, {"street": 4})
    after = base_of(totals, before)
    found: Any = between(before, totals, after)
    assert (found["destinations"]["street"]["delivered"], found["destinations"]["street"]["pending"]) == (0, 4)
    totals = Totals(Tally(), 11, {"street": 11}, {"street": 0})
    found = between(after, totals, base_of(totals, after))
    assert found["destinations"]["street"]["delivered"] == 1


def test_a_tally_reads_what_it_wrote() -> None:
    tally = Tally()
    tally.stored(told("alarm.raised", when=at(0)))
    tally.accepted("street", 1.26)
    kept = Tally.parse(tally.text())
    assert kept == tally
    kept.stored(told("alarm.acknowledged", when=at(2)))
    assert kept.to_acknowledge.last == (2.0,)
    assert tally.to_acknowledge.last == ()


def test_a_flood_of_alarms_is_counted_and_the_memory_of_it_bounded() -> None:
    tally = Tally()
    for n in range(1000):
        tally.stored(told("alarm.raised", f"a{n}", when=at(n)))
        tally.accepted("street", n)
    assert len(tally.open_since) == 256
    assert counts(tally, routed={"street": 1000})["destinations"]["street"]["alarms_to_accept_s"] == {
        "count": 1000, "median": 935.5, "max": 999.0,
    }  # fmt: skip


def test_no_room_person_or_device_is_in_the_counts() -> None:
    tally = Tally()
    tally.stored(told("alarm.raised", bed="1", by="Li"))
    tally.stored(told("alarm.acknowledged", bed="1", by="Li"))
    said = json.dumps(counts(tally, routed={"street": 1}))
    assert not [word for word in ("room-201", "call-201", "Li", "a1") if word in said]

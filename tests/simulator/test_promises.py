"""What only counting the outcome would not find: ledgers written by hand, one offence each."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from simulator.audit import audit, reasons
from simulator.ledgers import Decision, Emission, Fault, Ledgers

T0 = 1_700_000_000.0
PREFIX = "cn.eldercare."
SCENARIO: dict[str, Any] = {
    "name": "by-hand", "seed": 1, "seconds": 40.0, "start": T0,
    "devices": [{"id": "button", "role": "button", "link": "air"}, {"id": "board", "role": "controller", "link": "wire-1"}],
}  # fmt: skip


def rfc3339(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).isoformat(timespec="milliseconds")


def accepted(
    number: int, type_: str, *, at: float, device: str = "button", alarm: str = "", **data: object
) -> Decision:
    event: dict[str, Any] = {"time": rfc3339(at - 0.1), "recordedtime": rfc3339(at - 0.05), "data": data}
    return Decision(
        t=at, id=f"id-{number}", type=f"{PREFIX}{type_}.v1", device=device, status="accepted", lane="alarm",
        sequence=number, deliveryseq=number, streamid="s", event=event | ({"correlationid": alarm} if alarm else {}),
    )  # fmt: skip


def gap(number: int, link: str, *, first: float, last: float) -> Decision:
    data = {"link": link, "reason": "restart", "from": rfc3339(first), "to": rfc3339(last)}
    return accepted(number, "gateway.gap", at=last + 0.3, device="gw", **data)


PRESS = Emission(T0 + 1, T0 + 2, "button", "press", counter=1)
RAISED = accepted(1, "alarm.raised", at=T0 + 1.1, alarm="a", kind="call", counter=1)
KILL = (Fault(T0 + 10, "kill"), Fault(T0 + 10.05, "start"))
GAPS = (gap(2, "air", first=T0 + 9.5, last=T0 + 11), gap(3, "wire-1", first=T0 + 9.5, last=T0 + 11))
LATER = accepted(4, "device.restored", at=T0 + 20, kind="low_battery")
MUTE = (Fault(T0 + 0.5, "mute"), Fault(T0 + 2, "cut"), Fault(T0 + 4, "heal"))


def run(*decisions: Decision, **rest: Any) -> Ledgers:
    status = {
        "outbox": {"stream": "s", "sequence": len({one.id for one in decisions}), "unstored": 0},
        "destinations": [{"pending": {"A": 0, "B": 0, "C": 0, "D": 0}, "dead_letters": 0}],
    }
    fields = {"emissions": (PRESS,), "status": status, **rest}
    return Ledgers(scenario=SCENARIO, decisions={"district": decisions}, **fields)


def test_a_run_that_keeps_every_promise_is_clean() -> None:
    twice = replace(RAISED, t=T0 + 4.2, status="duplicate")
    faults = tuple(sorted((*MUTE, *KILL), key=lambda fault: fault.t))
    assert reasons(audit(run(RAISED, twice, *GAPS, LATER, faults=faults))) == []


def test_what_was_taken_while_the_answers_were_lost_must_come_again() -> None:
    report = audit(run(RAISED, faults=MUTE))
    assert report["unconfirmed"] == 1
    assert "1 events taken for accepted although the platform's answer was lost" in reasons(report)


@pytest.mark.parametrize(("holds_at", "unconfirmed"), [(1.0, 1), (1.1, 0), (1.2, 0)])
def test_an_answer_may_get_through_until_the_platform_says_that_it_is_mute(holds_at: float, unconfirmed: int) -> None:
    """A busy platform takes its time to obey; the press is accepted at 1.1 s."""
    begun, *rest = MUTE
    report = audit(run(RAISED, faults=(begun, Fault(T0 + holds_at, "muted"), *rest)))
    assert report["unconfirmed"] == unconfirmed


def test_a_line_acknowledged_before_it_was_recorded_is_an_offence() -> None:
    line = Emission(T0 + 5, T0 + 5, "board", "line", n=7, session="x", value={"call": 1})
    told = accepted(2, "alarm.raised", at=T0 + 5.2, device="board", kind="call", n=7, session="x")
    emissions = (PRESS, line)
    early = run(RAISED, told, emissions=emissions, acked_at={("board", 7): T0 + 5.1})
    assert audit(early)["acked_early"] == 1
    honest = run(RAISED, told, emissions=emissions, acked_at={("board", 7): T0 + 5.16})
    assert audit(honest)["acked_early"] == 0


def test_a_kill_without_a_gap_on_each_link_is_an_offence() -> None:
    report = audit(run(RAISED, gap(2, "air", first=T0 + 9.5, last=T0 + 11), replace(LATER, sequence=3), faults=KILL))
    assert report["silent_gaps"] == 1
    assert report["offences"][-1]["link"] == "wire-1"


def test_a_link_whose_devices_are_gone_when_the_gateway_is_back_cannot_tell_its_gap() -> None:
    late = gap(2, "air", first=T0 + 9.5, last=T0 + 16)
    assert audit(run(RAISED, late, LATER, faults=(*KILL, Fault(T0 + 18, "stop"))))["silent_gaps"] == 0
    assert audit(run(RAISED, late, LATER, faults=(*KILL, Fault(T0 + 22, "stop"))))["silent_gaps"] == 1
    assert audit(run(RAISED, LATER, faults=(*KILL, Fault(T0 + 18, "stop"))))["silent_gaps"] == 2


def test_a_gap_that_went_with_a_database_is_told_by_the_gap_of_the_outbox() -> None:
    lost = gap(3, "outbox", first=T0 + 9, last=T0 + 12)
    decisions = (RAISED, GAPS[0], lost, LATER)
    assert audit(run(*decisions, faults=(*KILL, Fault(T0 + 12, "corrupt"))))["silent_gaps"] == 0
    assert audit(run(*decisions, faults=KILL))["silent_gaps"] == 1


def test_a_gap_that_does_not_reach_back_to_the_kill_is_no_gap() -> None:
    late = tuple(gap(n, link, first=T0 + 10.2, last=T0 + 11) for n, link in ((2, "air"), (3, "wire-1")))
    assert audit(run(RAISED, *late, LATER, faults=KILL))["silent_gaps"] == 2


def test_a_gap_may_last_as_long_as_nothing_was_heard_after_a_slow_start() -> None:
    slow = gap(2, "air", first=T0 + 9.5, last=T0 + 24)
    first = accepted(4, "alarm.raised", at=T0 + 24.6, alarm="b", kind="call", counter=2)
    assert audit(run(RAISED, slow, GAPS[1], first, faults=KILL))["wide_gaps"] == 0
    sooner = accepted(4, "alarm.raised", at=T0 + 22, alarm="b", kind="call", counter=2)
    assert audit(run(RAISED, slow, GAPS[1], sooner, faults=KILL))["wide_gaps"] == 1
    anew = accepted(5, "alarm.raised", at=T0 + 22, alarm="a", kind="call", counter=1, retold=True)
    assert audit(run(RAISED, slow, GAPS[1], first, anew, faults=KILL))["wide_gaps"] == 0


def test_a_gap_that_no_disk_had_taken_when_the_next_kill_came_goes_on_over_it() -> None:
    heard = accepted(5, "alarm.raised", at=T0 + 24.4, alarm="b", kind="call", counter=2)  # at 24.3
    over = gap(2, "air", first=T0 + 9.5, last=T0 + 26)
    for kill, wide in ((T0 + 25.2, 0), (T0 + 25.5, 1)):
        faults = (*KILL, Fault(kill, "kill"), Fault(kill + 0.1, "start"))
        assert audit(run(RAISED, heard, over, GAPS[1], LATER, faults=faults))["wide_gaps"] == wide


def test_a_gap_that_claims_more_than_the_dead_time_is_an_offence() -> None:
    wide = gap(2, "air", first=T0 - 10, last=T0 + 11)
    assert audit(run(RAISED, wide, GAPS[1], LATER, faults=KILL))["wide_gaps"] == 1
    # Second 0 is when the last link hears, told by a machine that may be busy.
    for first, last, wide in ((-10, 0.01, 0), (-10, 0.4, 0), (-10, 0.6, 1), (0.1, 0.4, 1)):
        at_second_0 = gap(5, "air", first=T0 + first, last=T0 + last)
        assert audit(run(RAISED, *GAPS, LATER, at_second_0, faults=KILL))["wide_gaps"] == wide


def test_a_gap_may_begin_earlier_where_what_was_heard_before_it_was_destroyed() -> None:
    early = gap(2, "air", first=T0 + 5, last=T0 + 11)
    wide = [
        audit(run(RAISED, early, GAPS[1], LATER, faults=(KILL[0], *more, KILL[1])))["wide_gaps"]
        for more in ((), (Fault(T0 + 10.02, "corrupt"),))
    ]
    assert wide == [1, 0]
    earlier = gap(2, "air", first=T0 - 1, last=T0 + 11)
    assert (
        audit(run(RAISED, earlier, GAPS[1], LATER, faults=(KILL[0], Fault(T0 + 10.02, "corrupt"), KILL[1])))[
            "wide_gaps"
        ]
        == 1
    )


def test_what_staff_did_must_reach_the_platform_too() -> None:
    alarms = ({"id": "a", "device": "button", "state": "CLOSED", "acked_by": "liu"},)
    report = audit(run(RAISED, accepted(2, "alarm.acknowledged", at=T0 + 3, alarm="a"), alarms=alarms))
    assert report["untold"] == 1
    assert report["offences"][-1]["missing"] == ["closed"]
    closed = accepted(3, "alarm.closed", at=T0 + 4, alarm="a")
    whole = run(RAISED, accepted(2, "alarm.acknowledged", at=T0 + 3, alarm="a"), closed, alarms=alarms)
    assert reasons(audit(whole)) == []


def test_a_recording_by_a_clock_of_the_gateway_s_own_is_compared_by_the_machine_s() -> None:
    line = Emission(T0 + 5, T0 + 5, "board", "line", n=7, session="x", value={"call": 1})
    clock = {"boot": "b1", "mono_ms": 5_000, "offset_ms": int(T0 * 1000) + 20, "state": "synced"}  # 20 ms fast
    told = accepted(2, "alarm.raised", at=T0 + 5.2, device="board", kind="call", n=7, session="x", clock=clock)

    def early(acked: float) -> int:
        ledgers = run(RAISED, told, emissions=(PRESS, line), acked_at={("board", 7): acked})
        return int(audit(replace(ledgers, scenario={**SCENARIO, "boot": {"id": "b1", "zero": T0}}))["acked_early"])

    assert (early(T0 + 5.135), early(T0 + 5.125)) == (0, 1)


def test_an_alarm_told_anew_as_attended_tells_what_went_with_a_database() -> None:
    alarms = ({"id": "a", "device": "button", "state": "ACKED", "acked_by": "liu"},)
    again = accepted(2, "alarm.raised", at=T0 + 3, alarm="a", kind="call", counter=1, retold=True, state="ACKED")
    destroyed = (Fault(T0 + 2, "corrupt"),)
    assert audit(run(RAISED, again, alarms=alarms, faults=destroyed))["untold"] == 0
    assert audit(run(RAISED, again, alarms=alarms))["untold"] == 1


def test_what_staff_did_may_go_with_a_database_whose_gap_names_the_number() -> None:
    alarms = ({"id": "a", "device": "button", "state": "ACKED", "acked_by": "liu"},)
    acked = accepted(2, "alarm.acknowledged", at=T0 + 3, alarm="a")
    told = {"link": "outbox", "reason": "corrupt", "from": rfc3339(T0), "to": rfc3339(T0 + 8), "dropped": 1}
    ledgers = run(RAISED, alarms=alarms, faults=(Fault(T0 + 4, "corrupt"),))
    here = accepted(3, "gateway.gap", at=T0 + 9, device="gw", sequences=[[2, 2]], **told)
    elsewhere = accepted(3, "gateway.gap", at=T0 + 9, device="gw", sequences=[[7, 8]], **told)

    def unsure(stream: str, highest: int) -> Decision:
        facts = {**told, "dropped": 0, "stream": stream, "highest": highest, "highest_is_sure": False}
        return accepted(3, "gateway.gap", at=T0 + 9, device="gw", sequences=[], **facts)

    gaps = (here, elsewhere, unsure(acked.streamid, 1), unsure(acked.streamid, 2), unsure("another", 1))
    untold = [
        audit(replace(ledgers, decisions={"district": (RAISED, gap), "other": (RAISED, acked)}))["untold"]
        for gap in gaps
    ]
    assert untold == [0, 1, 0, 1, 1]
    assert audit(replace(ledgers, decisions={"district": (RAISED, here)}))["untold"] == 0
    assert audit(replace(ledgers, decisions={"district": (RAISED,)}))["untold"] == 1


@pytest.mark.parametrize(
    ("presses_at", "until", "dropped", "lost"),
    [
        ((12.0, 13.0, 14.0), 17.0, 1, 0),  # three presses, one gap that told of them
        ((12.0,), 17.0, 0, 1),  # no event is named
        ((12.0,), 9.5, 1, 1),  # the window ends before
        ((8.0, 12.0), 17.0, 1, 0),  # of one that was heard and stored, and of a gap
        ((7.0, 8.0, 12.0), 17.0, 1, 1),  # two were heard, and only one event went
        ((16.0,), 17.0, 1, 0),
        ((16.0, 16.5), 17.0, 1, 1),  # it was heard again before
    ],
)
def test_a_gap_that_went_with_a_database_excuses_what_came_while_the_gateway_was_dead(
    presses_at: tuple[float, ...], until: float, dropped: int, lost: int
) -> None:
    presses = tuple(
        Emission(T0 + at, T0 + at + 0.2, "button", "press", counter=9 + n) for n, at in enumerate(presses_at)
    )
    told = {"link": "outbox", "reason": "corrupt", "from": rfc3339(T0 + 5), "to": rfc3339(T0 + until)}
    decisions = (
        RAISED, accepted(3, "telemetry.environment", at=T0 + 15.1),
        accepted(4, "gateway.gap", at=T0 + 20, device="gw", dropped=dropped, sequences=[[2, 2]], **told),
    )  # fmt: skip
    faults = (Fault(T0 + 10, "kill"), Fault(T0 + 10.05, "start"), Fault(T0 + 16, "corrupt"))
    report = audit(run(*decisions, emissions=(PRESS, *presses), faults=faults))
    assert (report["lost"], report["corrupted"]) == (lost, len(presses) - lost)


def test_an_alarm_told_anew_may_be_the_first_that_one_of_two_destinations_hears_of_it() -> None:
    again = replace(accepted(4, "alarm.raised", at=T0 + 60, alarm="a", kind="call", retold=True), streamid="two")
    ledgers = run(RAISED, faults=(Fault(T0 + 4, "corrupt"),))
    known = audit(replace(ledgers, decisions={"district": (RAISED,), "other": (again,)}))
    assert (known["phantom"], known["doubled_by_corruption"]) == (0, 1)
    assert audit(replace(ledgers, decisions={"district": (), "other": (again,)}))["phantom"] == 1

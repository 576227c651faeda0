"""The audit finds each kind of offence, and nothing in a run that has none. Ledgers are written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.audit import audit, percentiles, reasons
from simulator.findings import moment
from simulator.ledgers import Decision, Emission, Fault, Ledgers, PollReply
from simulator.silences import merged

T0 = 1_700_000_000.0  # 2023-11-14T22:13:20Z
STREAM = "stream-1"
RAISED = "cn.eldercare.alarm.raised.v1"
METER = "cn.eldercare.telemetry.meter.v1"
ENVIRONMENT = "cn.eldercare.telemetry.environment.v1"
GAP = "cn.eldercare.gateway.gap.v1"

SCENARIO: dict[str, Any] = {
    "name": "by-hand",
    "seed": 7,
    "seconds": 40.0,
    "devices": [
        {"id": "button", "role": "button", "link": "air"},
        {"id": "pendant", "role": "pendant", "link": "air"},
        {"id": "meter", "role": "meter", "link": "bus-1", "every_s": 2.0},
        {"id": "board", "role": "controller", "link": "wire-1"},
    ],
}


def rfc3339(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).isoformat(timespec="milliseconds")


def decision(
    sequence: int,
    *,
    at: float,
    device: str,
    type_: str,
    lane: str,
    happened: float | None = None,
    status: str = "accepted",
    **data: object,
) -> Decision:
    return Decision(
        t=at,
        id=f"id-{sequence}",
        type=type_,
        device=device,
        status=status,
        lane=lane,
        sequence=sequence,
        deliveryseq=sequence,
        streamid=STREAM,
        event={"time": rfc3339(at - 0.1 if happened is None else happened), "data": data},
    )


def gap(sequence: int, *, link: str, first: float, last: float) -> Decision:
    told = decision(sequence, at=last + 0.2, device="gw-01", type_=GAP, lane="event")
    data = {"link": link, "reason": "restart", "dropped": 0, "from": rfc3339(first), "to": rfc3339(last)}
    return replace(told, event={**told.event, "data": data})


PRESS = Emission(T0 + 1.0, T0 + 2.0, "button", "press", counter=11)
FALL = Emission(T0 + 3.0, T0 + 5.0, "pendant", "fall")
CALL_LINE = Emission(T0 + 4.0, T0 + 4.0, "board", "line", n=1, session="s1", value={"call": 1})
TEMP_LINE = Emission(T0 + 5.0, T0 + 5.0, "board", "line", n=2, session="s1", value={"temp": 21.5})
POLL = PollReply(T0 + 8.0, "meter", "energy_active_import", "", "1234.56")

TAKEN = (
    decision(1, at=T0 + 1.2, device="button", type_=RAISED, lane="alarm", kind="call", counter=11),
    decision(2, at=T0 + 3.3, device="pendant", type_=RAISED, lane="alarm", kind="fall"),
    decision(3, at=T0 + 4.4, device="board", type_=RAISED, lane="alarm", kind="call", n=1, session="s1"),
    decision(
        4,
        at=T0 + 5.2,
        device="board",
        type_=ENVIRONMENT,
        lane="telemetry",
        n=2,
        session="s1",
        registers=[{"quantity": "temperature", "channel": "", "value": "21.5"}],
    ),
    decision(
        5,
        at=T0 + 8.5,
        device="meter",
        type_=METER,
        lane="telemetry",
        happened=T0 + 8.1,
        registers=[{"quantity": "energy_active_import", "channel": "", "value": "1234.56", "unit": "kWh"}],
    ),
)


def status(sequence: int, **pending: int) -> dict[str, Any]:
    return {
        "outbox": {"stream": STREAM, "sequence": sequence, "unstored": 0},
        "destinations": [{"id": "district", "pending": pending, "dead_letters": 0}],
    }


def run(
    *,
    emissions: tuple[Emission, ...] = (PRESS, FALL, CALL_LINE, TEMP_LINE),
    polls: tuple[PollReply, ...] = (POLL,),
    taken: tuple[Decision, ...] = TAKEN,
    faults: tuple[Fault, ...] = (Fault(T0 + 9.0, "stop"),),
    stored: int | None = None,
    pending: int = 0,
) -> Ledgers:
    last = max((one.sequence for one in taken), default=0) if stored is None else stored
    return Ledgers(
        SCENARIO, emissions, polls, {"district": taken}, faults, status=status(last, A=0, B=0, C=pending, D=0)
    )


def without(sequence: int) -> tuple[Decision, ...]:
    return tuple(one for one in TAKEN if one.sequence != sequence)


def renumbered(*taken: Decision) -> tuple[Decision, ...]:
    """Give a hand-made choice of decisions numbers without a hole, in the order in which they stand."""
    return tuple(replace(one, sequence=n, deliveryseq=n) for n, one in enumerate(taken, start=1))


# --- a run without offence -------------------------------------------------------------------------------------------


def test_a_clean_run_has_nothing_said_against_it() -> None:
    report = audit(run())
    assert reasons(report) == []
    counts = {name: report[name] for name in ("emitted", "stored", "accepted", "lost", "unheard", "pending", "resent")}
    assert counts == {
        "emitted": 4,
        "stored": 5,
        "accepted": 5,
        "lost": 0,
        "unheard": 0,
        "pending": 0,
        "resent": 0,
    }
    assert report["alarms"]["pressed"] == 3
    assert report["alarms"]["accepted"] == 3
    assert report["devices"]["board"]["emitted"] == 2
    assert report["devices"]["meter"]["readings"] == 1


def test_latency_is_taken_from_first_emission_to_acceptance() -> None:
    # 200 ms, 300 ms and 400 ms.
    assert audit(run())["alarms"]["latency_ms"] == {"p50": 300.0, "p99": 400.0, "max": 400.0}


def test_an_alarm_that_met_a_cut_or_a_restart_is_not_in_the_latency() -> None:
    faults = (Fault(T0 + 0.5, "cut"), Fault(T0 + 1.1, "heal"), Fault(T0 + 3.1, "kill"), Fault(T0 + 3.2, "start"))
    report = audit(run(faults=(*faults, Fault(T0 + 9.0, "stop"))))
    # The press was accepted first after the heal, the fall first after the start: both belong to the time down.
    assert report["alarms"]["latency_ms"] == {"p50": 400.0, "p99": 400.0, "max": 400.0}
    # By hand there are no gaps in this ledger: that is all that stands against it.
    assert reasons(report) == ["3 dead times of a link that no gap told of"]


def test_an_alarm_that_began_while_its_link_was_deaf_is_not_in_the_latency() -> None:
    report = audit(run(taken=(*TAKEN, gap(6, link="air", first=T0 + 0.5, last=T0 + 1.1))))
    # The press began before the radio heard; fall and wired call did not.
    assert report["alarms"]["latency_ms"] == {"p50": 300.0, "p99": 400.0, "max": 400.0}


def test_a_cut_that_never_healed_leaves_no_latency() -> None:
    report = audit(run(faults=(Fault(T0, "cut"), Fault(T0 + 9.0, "stop"))))
    assert report["alarms"]["latency_ms"] == {"p50": None, "p99": None, "max": None}


def test_an_arrival_answered_duplicate_is_resent_and_no_offence() -> None:
    again = replace(TAKEN[0], t=T0 + 6.0, status="duplicate")
    report = audit(run(taken=(*TAKEN, again)))
    assert (report["resent"], report["duplicated"], reasons(report)) == (1, 0, [])


def test_an_event_that_was_refused_for_a_while_is_accepted_once() -> None:
    refused = replace(TAKEN[0], t=T0 + 1.1, status="retry")
    forgotten = replace(TAKEN[0], t=T0 + 1.15, status="forgotten")
    report = audit(run(taken=(refused, forgotten, *TAKEN)))
    assert (report["resent"], reasons(report)) == (2, [])


# --- lost and unheard ------------------------------------------------------------------------------------------------


def test_a_press_that_nobody_heard_is_lost() -> None:
    report = audit(run(taken=renumbered(*without(1))))
    assert report["lost"] == 1
    assert reasons(report) == ["1 inputs lost"]
    assert report["offences"][0]["offence"] == "lost"
    assert report["offences"][0]["counter"] == 11
    assert report["devices"]["button"]["lost"] == 1


def test_a_press_inside_a_received_gap_is_unheard() -> None:
    report = audit(
        run(taken=renumbered(*without(1), gap(6, link="air", first=T0 + 0.9, last=T0 + 2.1)), stored=5),
    )
    assert (report["lost"], report["unheard"], reasons(report)) == (0, 1, [])


@pytest.mark.parametrize(
    ("link", "first", "last"),
    [
        pytest.param("air", T0 + 1.2, T0 + 2.1, id="it began before the gap"),
        pytest.param("air", T0 + 0.9, T0 + 1.8, id="its last repeat came after the gap"),
        pytest.param("bus-1", T0 + 0.9, T0 + 2.1, id="the gap was on another link"),
    ],
)
def test_a_press_that_does_not_lie_in_a_gap_of_its_link_is_lost(link: str, first: float, last: float) -> None:
    report = audit(run(taken=renumbered(*without(1), gap(6, link=link, first=first, last=last))))
    assert (report["lost"], report["unheard"]) == (1, 0)


def test_a_gap_is_widened_by_50_ms_and_no_more() -> None:
    near = audit(run(taken=renumbered(*without(1), gap(6, link="air", first=T0 + 1.04, last=T0 + 1.96))))
    far = audit(run(taken=renumbered(*without(1), gap(6, link="air", first=T0 + 1.07, last=T0 + 2.0))))
    assert (near["unheard"], far["unheard"]) == (1, 0)


def test_two_gaps_that_touch_are_one_silence() -> None:
    gaps = (
        gap(6, link="air", first=T0 + 0.9, last=T0 + 1.5),
        gap(7, link="air", first=T0 + 1.52, last=T0 + 2.1),
    )
    assert audit(run(taken=renumbered(*without(1), *gaps)))["unheard"] == 1


def test_a_gap_that_the_platform_did_not_receive_excuses_nothing() -> None:
    unsent = replace(gap(6, link="air", first=T0 + 0.9, last=T0 + 2.1), status="retry")
    report = audit(run(taken=(*renumbered(*without(1)), unsent), stored=4))
    assert report["lost"] == 1


def test_a_gap_without_a_beginning_excuses_nothing() -> None:
    open_gap = gap(6, link="air", first=T0, last=T0 + 9.0)
    data = {**open_gap.data, "from": None}
    open_gap = replace(open_gap, event={**open_gap.event, "data": data})
    assert audit(run(taken=renumbered(*without(1), open_gap)))["lost"] == 1


def test_an_acknowledged_call_of_a_bed_is_lost_even_inside_a_gap() -> None:
    bed = Emission(T0 + 1.0, T0 + 2.0, "button", "bed")
    silence = gap(6, link="air", first=T0 + 0.9, last=T0 + 2.1)
    report = audit(run(emissions=(bed, FALL, CALL_LINE, TEMP_LINE), taken=renumbered(*without(1), silence), stored=5))
    assert (report["lost"], report["unheard"]) == (1, 0)


def test_an_acknowledged_input_is_lost_even_inside_a_gap() -> None:
    report = audit(run(taken=renumbered(*without(4), gap(6, link="wire-1", first=T0, last=T0 + 9.0))))
    assert (report["lost"], report["unheard"]) == (1, 0)
    assert report["offences"][0]["n"] == 2


def test_a_wired_call_that_was_only_told_as_telemetry_is_lost() -> None:
    tame = replace(TAKEN[2], type=ENVIRONMENT)
    report = audit(run(taken=(*TAKEN[:2], tame, *TAKEN[3:])))
    assert report["lost"] == 1


def test_without_any_decision_everything_is_lost() -> None:
    ledgers = Ledgers(SCENARIO, (PRESS, FALL), (), {}, (), status=status(0))
    report = audit(ledgers)
    assert (report["lost"], report["accepted"]) == (2, 0)


# --- duplicated and phantom ------------------------------------------------------------------------------------------


def test_one_id_accepted_twice_is_duplicated() -> None:
    report = audit(run(taken=(*TAKEN, replace(TAKEN[0], t=T0 + 6.0))))
    assert (report["duplicated"], report["accepted"]) == (1, 5)
    assert reasons(report) == ["1 events doubled"]


@pytest.mark.parametrize("sequence", [1, 2, 3, 4], ids=["press", "fall", "wired call", "line"])
def test_two_ids_for_one_input_are_duplicated(sequence: int) -> None:
    twin = replace(TAKEN[sequence - 1], id="twin", t=T0 + 8.7, sequence=6, deliveryseq=6)
    report = audit(run(taken=(*TAKEN, twin)))
    assert (report["duplicated"], report["phantom"]) == (1, 0)


def test_a_line_may_be_told_once_as_an_alarm_and_once_as_telemetry() -> None:
    both = replace(CALL_LINE, value={"call": 1, "temp": 20})
    reading = decision(
        6,
        at=T0 + 8.8,
        device="board",
        type_=ENVIRONMENT,
        lane="telemetry",
        happened=T0 + 4.1,
        n=1,
        session="s1",
        registers=[{"quantity": "temperature", "channel": "", "value": "20"}],
    )
    assert reasons(audit(run(emissions=(PRESS, FALL, both, TEMP_LINE), taken=(*TAKEN, reading)))) == []


@pytest.mark.parametrize(
    ("device", "kind", "counter", "at"),
    [
        pytest.param("button", "call", 12, T0 + 1.5, id="a counter that was never sent"),
        pytest.param("button", "fall", 11, T0 + 1.5, id="a fall from a press"),
        pytest.param("button", "call", 11, T0 + 0.5, id="before the press"),
        pytest.param("button", "call", 11, T0 + 33.0, id="half a minute after the press"),
        pytest.param("pendant", "fall", None, T0 + 1.0, id="before the fall"),
        pytest.param("stranger", "call", 1, T0 + 1.0, id="a device that there is not"),
    ],
)
def test_an_alarm_that_no_device_caused_is_a_phantom(device: str, kind: str, counter: int | None, at: float) -> None:
    extra = decision(
        6,
        at=T0 + 40.0,
        device=device,
        type_=RAISED,
        lane="alarm",
        happened=at,
        kind=kind,
        counter=counter,
    )
    report = audit(run(taken=(*TAKEN, extra)))
    assert (report["phantom"], report["duplicated"]) == (1, 0)
    assert reasons(report) == ["1 events that no device caused"]


def test_a_number_of_another_session_is_a_phantom() -> None:
    data = {**TAKEN[3].data, "session": "s2"}
    stranger = replace(TAKEN[3], event={**TAKEN[3].event, "data": data})
    report = audit(run(taken=(*TAKEN[:3], stranger, *TAKEN[4:])))
    assert (report["phantom"], report["lost"]) == (1, 1)


def test_an_eight_bit_counter_that_came_round_again_is_another_press() -> None:
    later = Emission(T0 + 600.0, T0 + 601.0, "button", "press", counter=11)
    alarm = decision(6, at=T0 + 600.4, device="button", type_=RAISED, lane="alarm", kind="call", counter=11)
    poll = replace(POLL, t=T0 + 601.0)
    reading = replace(TAKEN[4], id="id-7", t=T0 + 601.5, sequence=7, deliveryseq=7)
    reading = replace(reading, event={**reading.event, "time": rfc3339(T0 + 601.1)})
    report = audit(
        run(
            emissions=(PRESS, FALL, CALL_LINE, TEMP_LINE, later),
            polls=(POLL, poll),
            taken=(*TAKEN, alarm, reading),
            faults=(Fault(T0 + 602.0, "stop"),),
        )
    )
    assert reasons(report) == []


# --- order and numbers -----------------------------------------------------------------------------------------------


def test_a_lower_sequence_after_a_higher_one_of_the_device_is_reordered() -> None:
    first, second = replace(TAKEN[3], sequence=4), replace(TAKEN[4], device="board", type=ENVIRONMENT)
    report = audit(run(taken=(*TAKEN[:3], second, first)))
    assert report["reordered"] == 1
    assert report["offences"][-1]["after"] == 5


@pytest.mark.parametrize(
    ("device", "lane"), [("meter", "telemetry"), ("board", "alarm")], ids=["other device", "other lane"]
)
def test_what_belongs_to_another_device_or_lane_is_not_reordered(device: str, lane: str) -> None:
    late = replace(TAKEN[0], t=T0 + 8.9, device=device, lane=lane, sequence=4, deliveryseq=4)
    early = replace(TAKEN[3], device="board", lane="telemetry", sequence=5, deliveryseq=5)
    assert audit(run(taken=(early, late)))["reordered"] == 0


@pytest.mark.parametrize(
    ("name", "begun_at", "ended_at", "reordered"),
    [
        ("start-read-only", 0.0, 1.0, 0),
        ("disk-hangs", 4.0, 6.0, 0),
        ("disk-hangs", -9.5, -8.0, 1),
        ("disk-hangs", 5.5, 6.0, 1),
        ("disk-full", 4.0, 6.0, 1),
        ("kill", 5.5, 5.6, 0),
        ("kill", 4.5, 4.6, 1),
        ("kill", 7.5, 7.6, 1),
    ],
)
def test_what_no_disk_had_taken_may_go_before_what_stands_in_a_database_that_cannot_be_read(
    name: str, begun_at: float, ended_at: float, reordered: int
) -> None:
    faults = (Fault(T0 + begun_at, f"begin {name}"), Fault(T0 + ended_at, f"end {name}"))
    faults += (Fault(T0 + begun_at + 0.01, "kill"),) if name == "kill" else ()
    numbered = replace(TAKEN[3], device="board", lane="alarm", sequence=4, deliveryseq=4, t=T0 + 6)
    now = replace(numbered, id="now", sequence=0, deliveryseq=0, t=T0 + 5)
    then = replace(now, sequence=5, deliveryseq=5, t=T0 + 7, status="duplicate")
    assert audit(run(taken=(now, numbered, then), faults=faults))["reordered"] == reordered


def test_a_second_acceptance_does_not_count_for_the_order() -> None:
    assert audit(run(taken=(*TAKEN, replace(TAKEN[0], t=T0 + 8.8, status="duplicate"))))["reordered"] == 0


def test_a_number_missing_within_the_sequence_is_found() -> None:
    far = replace(TAKEN[4], sequence=7, deliveryseq=5)
    report = audit(run(taken=(*TAKEN[:4], far), stored=7))
    assert (report["sequence_gaps"], report["deliveryseq_gaps"]) == (2, 0)
    assert report["offences"][-1]["missing"] == [5, 6]


def test_a_stored_event_that_never_came_is_found() -> None:
    report = audit(run(stored=6))
    assert report["sequence_gaps"] == 1
    assert "6 events stored, but 5 accepted" in reasons(report)


def test_a_number_missing_in_the_delivery_sequence_is_found() -> None:
    far = replace(TAKEN[4], deliveryseq=6)
    report = audit(run(taken=(*TAKEN[:4], far)))
    assert (report["sequence_gaps"], report["deliveryseq_gaps"]) == (0, 1)


def test_one_number_for_two_events_is_a_conflict() -> None:
    report = audit(run(taken=(*TAKEN[:4], replace(TAKEN[4], sequence=4))))
    assert report["conflicts"] == 1


def test_a_second_stream_is_told() -> None:
    report = audit(run(taken=(*TAKEN[:4], replace(TAKEN[4], streamid="stream-2", sequence=1, deliveryseq=1))))
    assert report["streams"] == 2
    assert "2 streams: the database was replaced during the run" in reasons(report)


# --- registers -------------------------------------------------------------------------------------------------------


def reading(value: object, **facts: object) -> tuple[Decision, ...]:
    register = {"quantity": "energy_active_import", "channel": "", "value": value, **facts}
    data = {**TAKEN[4].data, "registers": [register]}
    return (*TAKEN[:4], replace(TAKEN[4], event={**TAKEN[4].event, "data": data}))


@pytest.mark.parametrize(
    "taken",
    [
        pytest.param(reading("1234.57"), id="another value"),
        pytest.param(reading(1234.56), id="a float instead of a decimal string"),
        pytest.param(reading("1234.56", channel="T1"), id="another channel"),
        pytest.param(reading("1234.56", quantity="voltage"), id="another quantity"),
        pytest.param(reading("a lot"), id="no number"),
        pytest.param(reading(None), id="nothing"),
    ],
)
def test_a_register_that_the_meter_never_gave_is_found(taken: tuple[Decision, ...]) -> None:
    report = audit(run(taken=taken))
    assert report["wrong_values"] == 1
    assert reasons(report) == ["1 values that the device never gave"]


def test_a_register_with_other_trailing_zeros_is_the_same_value() -> None:
    assert reasons(audit(run(taken=reading("1234.560")))) == []


def test_a_value_that_the_meter_gave_at_another_time_is_wrong() -> None:
    report = audit(run(polls=(replace(POLL, t=T0 - 1.0), replace(POLL, value="1234.58"))))
    assert report["wrong_values"] == 1


def test_a_measurement_of_a_line_must_come_out_as_it_went_in() -> None:
    data = {**TAKEN[3].data, "registers": [{"quantity": "temperature", "channel": "", "value": "22.5"}]}
    wrong = replace(TAKEN[3], event={**TAKEN[3].event, "data": data})
    assert audit(run(taken=(*TAKEN[:3], wrong, TAKEN[4])))["wrong_values"] == 1


@pytest.mark.parametrize(
    ("taken", "stop"),
    [(TAKEN, T0 + 14.2), (renumbered(*without(5)), T0 + 9.0)],
    ids=["the last reading is older than two polls and 2 s", "no reading at all"],
)
def test_a_meter_that_fell_silent_is_found(taken: tuple[Decision, ...], stop: float) -> None:
    report = audit(run(taken=taken, faults=(Fault(stop, "stop"),)))
    assert report["stale_meters"] == 1
    assert reasons(report) == ["1 meters without a recent accepted reading"]


@pytest.mark.parametrize(("link", "until", "stale"), [("bus-1", 9.0, 0), ("bus-1", 8.0, 1), ("air", 9.0, 1)])
def test_a_meter_whose_link_was_deaf_until_just_now_need_not_have_spoken(link: str, until: float, stale: int) -> None:
    told = gap(6, link=link, first=T0 + 8.3, last=T0 + until)
    report = audit(run(taken=(*TAKEN, told), faults=(Fault(T0 + 14.8, "stop"),)))
    assert report["stale_meters"] == stale


# --- the end of the run ----------------------------------------------------------------------------------------------


def test_what_is_pending_at_the_end_is_counted() -> None:
    report = audit(run(pending=3))
    assert (report["pending"], reasons(report)) == (3, ["3 events still pending at the end"])


def test_an_event_that_could_not_be_stored_is_pending() -> None:
    ledgers = run()
    ledgers = replace(ledgers, status={**status(5), "outbox": {"stream": STREAM, "sequence": 5, "unstored": 2}})
    assert audit(ledgers)["pending"] == 2


def test_a_gateway_that_does_not_answer_at_the_end_is_not_clean() -> None:
    report = audit(replace(run(), status=None))
    assert report["pending"] is None
    assert reasons(report) == ["the gateway did not answer at the end, so nobody knows what is pending"]


def test_an_event_rejected_by_the_platform_is_told_with_its_dead_letter() -> None:
    refused = replace(TAKEN[0], status="rejected")
    ledgers = run(taken=(refused, *TAKEN[1:]))
    ledgers = replace(ledgers, status={**status(5), "destinations": [{"id": "d", "pending": {}, "dead_letters": 1}]})
    report = audit(ledgers)
    assert (report["rejected"], report["lost"], report["sequence_gaps"]) == (1, 1, 0)
    assert reasons(report) == ["1 inputs lost", "1 events rejected by the platform", "1 dead letters"]


def test_a_run_in_which_nothing_happened_proves_nothing() -> None:
    ledgers = Ledgers({"devices": []}, status=status(0))
    assert reasons(audit(ledgers)) == ["no device did anything, so the run proves nothing"]


def test_with_two_destinations_an_input_is_lost_for_the_one_that_did_not_get_it() -> None:
    ledgers = replace(run(), decisions={"district": TAKEN, "street": renumbered(*without(1))})
    report = audit(ledgers)
    assert (report["lost"], report["accepted"]) == (1, 4)


# --- a destination that asked for a part -----------------------------------------------------------------------------

PLATFORMS = [{"id": "district", "types": ["*"]}, {"id": "family", "types": ["alarm.*", "gateway.*"]}]


def with_family(*taken: Decision, faults: tuple[Fault, ...] = (), district: tuple[Decision, ...] = TAKEN) -> Ledgers:
    """A run with a second destination that asked for alarms and gaps; its own numbers run without a hole."""
    told = tuple(replace(one, deliveryseq=n) for n, one in enumerate(taken, start=1))
    ledgers = run(taken=district)
    return replace(
        ledgers, scenario={**SCENARIO, "platforms": PLATFORMS}, decisions={"district": district, "family": told},
        faults=(*ledgers.faults, *faults),
    )  # fmt: skip


def test_a_destination_with_a_filter_misses_nothing_that_it_did_not_ask_for() -> None:
    report = audit(with_family(*TAKEN[:3]))
    assert reasons(report) == []
    assert (report["accepted"], report["stored"]) == (5, 5)
    assert {name: one["accepted"] for name, one in report["destinations"].items()} == {"district": 5, "family": 3}
    assert report["devices"]["button"]["accepted"] == 1


def test_an_event_that_a_destination_did_not_ask_for_is_an_offence() -> None:
    report = audit(with_family(*TAKEN[:4]))
    assert report["unwanted"] == 1
    assert reasons(report) == ["1 events sent to a platform that did not ask for them"]


def test_an_alarm_that_the_filtered_destination_did_not_get_is_lost() -> None:
    report = audit(with_family(TAKEN[0], TAKEN[2]))
    assert (report["lost"], report["accepted"]) == (1, 4)
    assert report["offences"][0]["destination"] == "family"


def test_a_hole_in_its_own_delivery_sequence_is_found() -> None:
    ledgers = with_family(*TAKEN[:3])
    family = (*ledgers.decisions["family"][:2], replace(ledgers.decisions["family"][2], deliveryseq=4))
    report = audit(replace(ledgers, decisions={**ledgers.decisions, "family": family}))
    assert (report["sequence_gaps"], report["deliveryseq_gaps"]) == (0, 1)


def test_a_destination_of_which_there_is_no_ledger_at_all_got_nothing() -> None:
    ledgers = with_family(*TAKEN[:3])
    report = audit(replace(ledgers, decisions={"district": TAKEN}))
    assert (report["lost"], report["accepted"]) == (3, 2)


def test_a_destination_that_is_not_told_of_gaps_is_excused_by_what_another_was_told() -> None:
    heard = (*renumbered(*without(1)), gap(6, link="air", first=T0 + 0.9, last=T0 + 2.1))
    scenario = {**SCENARIO, "platforms": [PLATFORMS[0], {"id": "family", "types": ["alarm.*"]}]}
    ledgers = replace(with_family(*heard[:2], district=heard), scenario=scenario)
    assert (audit(ledgers)["lost"], audit(ledgers)["unheard"]) == (0, 2)


def test_a_cut_of_one_platform_excuses_only_its_own_latency() -> None:
    # Meanwhile the wired call was on its way, 400 ms: for the families' platform it does not count.
    cut = (Fault(T0 + 4.1, "cut", "family"), Fault(T0 + 4.2, "heal", "family"))
    report = audit(with_family(*TAKEN[:3], faults=cut))
    longest = {name: one["latency_ms"]["max"] for name, one in report["destinations"].items()}
    assert longest == {"district": 400.0, "family": 300.0}


def test_raised_is_the_gateways_own_count_of_presses() -> None:
    ledgers = replace(run(), alarms=({"id": "a", "presses": 2}, {"id": "b", "presses": 2}))
    assert audit(ledgers)["alarms"]["raised"] == 4


def test_raised_is_never_less_than_what_the_platform_accepted() -> None:
    assert audit(replace(run(), alarms=({"id": "a", "presses": 1},)))["alarms"]["raised"] == 3


def test_a_line_that_an_interrupt_left_with_its_device_is_held_not_lost() -> None:
    line = Emission(T0 + 8.5, T0 + 8.5, "board", "line", n=3, session="s1", value={"temp": 20.0})
    ledgers = run(emissions=(PRESS, FALL, CALL_LINE, TEMP_LINE, line))
    ended = replace(ledgers, faults=(Fault(T0 + 8.8, "interrupt"), Fault(T0 + 9.0, "stop")))
    report = audit(ended)
    assert (report["held"], report["lost"], reasons(report)) == (1, 0, [])
    # Not without an interrupt, not when it was acknowledged, not when it was older than 2 s.
    assert audit(ledgers)["lost"] == 1
    assert audit(replace(ended, acked=frozenset({("board", 3)})))["lost"] == 1
    assert audit(replace(ended, faults=(Fault(T0 + 10.6, "interrupt"),)))["lost"] == 1


def test_only_the_first_hundred_offences_are_described_but_all_are_counted() -> None:
    presses = tuple(Emission(T0 + n, T0 + n, "button", "press", counter=n) for n in range(250))
    report = audit(Ledgers(SCENARIO, presses, status=status(0)))
    assert (report["lost"], len(report["offences"])) == (250, 100)


def test_the_report_is_json() -> None:
    assert json.loads(json.dumps(audit(run())))["accepted"] == 5


# --- properties ------------------------------------------------------------------------------------------------------


@given(st.sets(st.sampled_from([1, 2, 3, 4, 5])))
def test_whatever_is_missing_the_run_is_not_clean(missing: set[int]) -> None:
    taken = tuple(one for one in TAKEN if one.sequence not in missing)
    found = reasons(audit(run(taken=taken, stored=5)))
    assert bool(found) is bool(missing)


@given(st.permutations(TAKEN[:4]))
def test_order_between_different_devices_does_not_matter(taken: list[Decision]) -> None:
    report = audit(run(taken=(*taken, TAKEN[4])))
    # Two events of the board, but of different lanes.
    assert report["reordered"] == 0
    assert report["lost"] == report["duplicated"] == report["phantom"] == 0


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 20)), max_size=12), st.floats(0, 120))
def test_merged_windows_cover_what_the_single_ones_did(spans: list[tuple[float, float]], at: float) -> None:
    windows = merged([{"link": "air", "from": first, "to": first + length} for first, length in spans]).get("air", [])
    single = any(first <= at <= first + length for first, length in spans)
    assert not single or any(first <= at <= last for first, last in windows)
    assert all(before[1] < after[0] for before, after in pairwise(windows))


@pytest.mark.parametrize(
    ("latencies", "expected"),
    [
        ([], {"p50": None, "p99": None, "max": None}),
        ([0.25], {"p50": 250.0, "p99": 250.0, "max": 250.0}),
        ([n / 1000 for n in range(1, 201)], {"p50": 100.0, "p99": 198.0, "max": 200.0}),
    ],
)
def test_percentiles_are_nearest_ranks_in_milliseconds(latencies: list[float], expected: dict[str, Any]) -> None:
    assert percentiles(latencies) == expected


@pytest.mark.parametrize("text", ["", "yesterday", None, 12.5, "2026-13-01T00:00:00Z"])
def test_what_is_no_time_is_none(text: object) -> None:
    assert moment(text) is None


def test_a_time_is_read_in_utc() -> None:
    assert moment("2023-11-14T22:13:20.250Z") == T0 + 0.25

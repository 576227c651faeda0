"""What the audit believes in a run of chaos, and what it does not: clocks that lie, databases destroyed, events refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from simulator.audit import audit, reasons
from simulator.ledgers import Decision, Emission, Fault, Ledgers

T0 = 1_700_000_000.0
ZERO = T0 - 5_000.0  # when this boot began
FIVE_YEARS = 157_680_000
ENVIRONMENT = "cn.eldercare.telemetry.environment.v1"
RAISED = "cn.eldercare.alarm.raised.v1"
GAP = "cn.eldercare.gateway.gap.v1"
SCENARIO: dict[str, Any] = {
    "name": "by-hand",
    "seed": 1,
    "boot": {"id": "this-boot", "zero": ZERO},
    "devices": [
        {"id": "board", "role": "controller", "link": "wire-1"},
        {"id": "button", "role": "button", "link": "air"},
    ],
}


def iso(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).isoformat(timespec="milliseconds")


def clock(t: float) -> dict[str, Any]:
    return {"state": "synced", "boot": "this-boot", "mono_ms": round((t - ZERO) * 1000)}


def line(n: int, *, at: float) -> Emission:
    return Emission(at, at, "board", "line", n=n, session="s", value={"temp": 20.0})


def taken(n: int, *, at: float, sequence: int | None = None, says: float | None = None, **more: Any) -> Decision:
    """One accepted event of line `n`; `says` is the time that it gives when that is not the true one."""
    body = {"time": iso(at if says is None else says), "recordedtime": iso(at if says is None else says)}
    event = {**body, "data": {"n": n, "session": "s", "registers": [], "clock": clock(at)}}
    number = n if sequence is None else sequence
    made = Decision(at + 0.1, f"id-{n}", ENVIRONMENT, "board", "accepted", "telemetry", number, number, "one", 1, event)
    return replace(made, **more)


def press(*, at: float) -> Emission:
    return Emission(at, at + 0.5, "button", "press", counter=7)


def gap(number: int, *, link: str, first: float, last: float, off: float = 0.0, **more: Any) -> Decision:
    mono = {"from_mono_ms": clock(first)["mono_ms"], "to_mono_ms": clock(last)["mono_ms"], "from_boot": "this-boot"}
    data = {"link": link, "from": iso(first + off), "to": iso(last + off), **mono, "clock": clock(last)}
    event = {"time": iso(last + off), "data": {**data, "reason": "restart", "dropped": 0, **more}}
    return Decision(last + 0.1, f"gap-{number}", GAP, "gw", "accepted", "event", number, number, "one", 1, event)


def judged(
    emissions: tuple[Emission, ...],
    decisions: tuple[Decision, ...],
    *faults: Fault,
    sequence: int | None = None,
    stream: str = "one",
    **more: Any,
) -> dict[str, Any]:
    """Judge, after which `reasons` stand under that name."""
    stored = max((one.sequence for one in decisions), default=0) if sequence is None else sequence
    status = {"outbox": {"stream": stream, "sequence": stored}, "destinations": []}
    ledgers = Ledgers(SCENARIO, emissions, decisions={"district": decisions}, faults=faults, status=status, **more)
    report = audit(ledgers)
    return report | {"reasons": reasons(report)}


def jump(at: float, seconds: float) -> Fault:
    return Fault(at, "clock", facts={"jump_s": seconds})


# -- a clock that lies ----------------------------------------------------------------------------------------------


def test_an_event_under_a_clock_that_lies_is_placed_by_its_boot_time() -> None:
    lying = taken(2, at=T0 + 5, says=T0 + 5 + FIVE_YEARS)
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 5))
    report = judged(inputs, (taken(1, at=T0 + 1), lying), jump(T0 + 4, FIVE_YEARS), jump(T0 + 8, 0))
    assert report["reasons"] == []


def test_a_gap_under_a_clock_that_lies_excuses_what_it_really_covers_and_nothing_else() -> None:
    told = gap(2, link="air", first=T0 + 4, last=T0 + 7, off=FIVE_YEARS)
    jumps = (jump(T0 + 3, FIVE_YEARS), jump(T0 + 8, 0))
    inside = judged((line(1, at=T0 + 1), press(at=T0 + 5)), (taken(1, at=T0 + 1), told), *jumps)
    assert (inside["reasons"], inside["unheard"]) == ([], 1)
    outside = judged((line(1, at=T0 + 1), press(at=T0 + 8)), (taken(1, at=T0 + 1), told), *jumps)
    assert outside["reasons"] == ["1 inputs lost"]


def test_a_time_that_is_neither_true_nor_what_the_clock_said_is_an_offence() -> None:
    wrong = taken(2, at=T0 + 5, says=T0 + 5 + 3_600)
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 5))
    report = judged(inputs, (taken(1, at=T0 + 1), wrong), jump(T0 + 4, FIVE_YEARS), jump(T0 + 8, 0))
    assert report["reasons"] == ["1 events whose time is neither true nor what the clock said"]


def test_a_time_that_nobody_vouches_for_is_none() -> None:
    wrong = taken(2, at=T0 + 5, says=T0 + 5 + 3_600)
    data = {**wrong.data, "clock": {**clock(T0 + 5), "state": "unsynced"}}
    unsynced = replace(wrong, event={**wrong.event, "data": data})
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 5))
    report = judged(inputs, (taken(1, at=T0 + 1), unsynced), jump(T0 + 4, FIVE_YEARS), jump(T0 + 8, 0))
    assert report["reasons"] == []


# -- a database destroyed -------------------------------------------------------------------------------------------

DESTROYED = Fault(T0 + 6, "corrupt")


def test_what_a_destroyed_database_lost_is_excused_when_a_gap_counts_it() -> None:
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 5), line(3, at=T0 + 9))
    new = taken(3, at=T0 + 9, sequence=2, streamid="two")
    told = replace(
        gap(1, link="outbox", first=T0 + 4, last=T0 + 6, reason="corrupt", dropped=1), streamid="two"
    )  # fmt: skip
    report = judged(inputs, (taken(1, at=T0 + 1), told, new), DESTROYED, stream="two")
    assert report["reasons"] == []
    assert (report["corrupted"], report["streams"], report["corruptions"]) == (1, 2, 1)


def test_a_line_that_nobody_took_for_long_is_excused_by_when_it_was_taken() -> None:
    """Written in a dead time of four seconds, held by its device, and gone with the database that took it."""
    inputs = (line(1, at=T0 + 0.1), line(2, at=T0 + 1), line(3, at=T0 + 9))
    new = taken(3, at=T0 + 9, sequence=2, streamid="two")
    told = replace(
        gap(1, link="outbox", first=T0 + 4, last=T0 + 6, reason="corrupt", dropped=1), streamid="two"
    )  # fmt: skip

    def lost(acked: float) -> list[str]:
        decisions = (taken(1, at=T0 + 0.1), told, new)
        return list(judged(inputs, decisions, DESTROYED, stream="two", acked_at={("board", 2): acked})["reasons"])

    assert (lost(T0 + 5), lost(T0 + 1)) == ([], ["1 inputs lost"])


def test_a_gap_excuses_no_more_inputs_than_it_counts() -> None:
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 5), line(3, at=T0 + 5.2))
    told = replace(
        gap(1, link="outbox", first=T0 + 4, last=T0 + 6, reason="corrupt", dropped=1), streamid="two"
    )  # fmt: skip
    report = judged(inputs, (taken(1, at=T0 + 1), told), DESTROYED, stream="two")
    assert report["reasons"] == ["1 inputs lost"]


def test_what_a_destroyed_database_lost_without_a_word_is_lost() -> None:
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 5), line(3, at=T0 + 9))
    new = taken(3, at=T0 + 9, sequence=1, streamid="two")
    report = judged(inputs, (taken(1, at=T0 + 1), new), DESTROYED, stream="two")
    assert report["reasons"] == ["1 inputs lost"]


def test_what_was_sent_before_a_database_could_be_opened_is_of_no_stream_of_its_own() -> None:
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 9))
    unstored = taken(2, at=T0 + 9, sequence=0, streamid="for the time being")
    again = {"sequence": None, "data": {**unstored.event["data"], "stored": False}}
    report = judged(inputs, (taken(1, at=T0 + 1), replace(unstored, event={**unstored.event, **again})))
    assert report["streams"] == 1


def test_a_new_stream_without_a_destroyed_database_is_told() -> None:
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 9))
    new = taken(2, at=T0 + 9, sequence=1, streamid="two")
    report = judged(inputs, (taken(1, at=T0 + 1), new), stream="two")
    assert "2 streams: the database was replaced during the run" in report["reasons"]


def test_an_input_that_comes_again_after_its_number_was_destroyed_is_counted_apart() -> None:
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 5))
    again = replace(taken(2, at=T0 + 9, sequence=1, streamid="two"), id="id-again")
    decisions = (taken(1, at=T0 + 1), taken(2, at=T0 + 5), again)
    report = judged(inputs, decisions, DESTROYED, stream="two", sequence=1)
    assert (report["reasons"], report["doubled_by_corruption"]) == ([], 1)
    assert judged(inputs, decisions, stream="two")["duplicated"] == 1


def test_what_was_brought_back_after_it_had_been_accepted_fills_its_new_number() -> None:
    again = taken(1, at=T0 + 9, sequence=1, streamid="two", status="duplicate")
    decisions = (taken(1, at=T0 + 1), again, taken(2, at=T0 + 10, sequence=2, streamid="two"))
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 10))
    broken = Fault(T0 + 8, "corrupt")
    assert judged(inputs, decisions, broken, sequence=2, stream="two")["reasons"] == []
    report = judged(inputs, (decisions[0], decisions[2]), broken, sequence=2, stream="two")
    assert report["reasons"] == [
        "1 numbers missing in the gateway's sequence",
        "1 numbers missing in the delivery sequence",
    ]


def test_an_input_that_was_stored_anew_before_the_first_was_brought_back_is_counted_apart() -> None:
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 5))
    again = replace(taken(2, at=T0 + 9, sequence=1, streamid="two"), id="id-again")
    back = replace(taken(2, at=T0 + 5, sequence=2, streamid="two"), t=T0 + 10)
    report = judged(inputs, (taken(1, at=T0 + 1), again, back), DESTROYED, stream="two", sequence=2)
    assert (report["reasons"], report["doubled_by_corruption"]) == ([], 1)
    whole = judged(inputs, (taken(1, at=T0 + 1), again, back), replace(DESTROYED, t=T0 + 3), stream="two", sequence=2)
    assert whole["duplicated"] == 1


def test_an_alarm_that_is_told_anew_after_its_database_went_is_no_phantom() -> None:
    first = taken(1, at=T0 + 1)
    first = replace(first, event={**first.event, "correlationid": "one"})
    again = replace(taken(9, at=T0 + 9, sequence=1, streamid="two"), id="id-again", type=RAISED)
    again = replace(again, event={**again.event, "correlationid": "one", "data": {"kind": "call", "retold": True}})
    report = judged((line(1, at=T0 + 1),), (first, again), DESTROYED, stream="two", sequence=1)
    assert (report["phantom"], report["doubled_by_corruption"]) == (0, 1)
    other = replace(again, event={**again.event, "correlationid": "another"})
    assert judged((line(1, at=T0 + 1),), (first, other), DESTROYED, stream="two", sequence=1)["phantom"] == 1


# -- events refused, and events that no disk took -----------------------------------------------------------------


def test_an_event_that_was_never_to_be_accepted_must_be_a_dead_letter() -> None:
    inputs = (line(1, at=T0 + 1), line(2, at=T0 + 5))
    refused = taken(2, at=T0 + 5, status="rejected", code="poisoned")
    kept = judged(inputs, (taken(1, at=T0 + 1), refused), dead=1)
    assert (kept["reasons"], kept["refused"], kept["lost"]) == ([], 1, 0)
    dropped = judged(inputs, (taken(1, at=T0 + 1), refused), dead=0)
    assert dropped["reasons"] == ["1 refused events that are no dead letters"]


def test_a_dead_letter_that_nobody_refused_is_an_offence() -> None:
    report = judged((line(1, at=T0 + 1),), (taken(1, at=T0 + 1),), sequence=2, dead=1)
    assert "1 dead letters" in report["reasons"]


def test_an_event_sent_before_a_disk_took_it_has_the_number_that_comes_with_it_later() -> None:
    first = replace(taken(1, at=T0 + 1, sequence=0), streamid="")
    again = replace(taken(1, at=T0 + 3), status="duplicate")
    report = judged((line(1, at=T0 + 1),), (first, again))
    assert (report["reasons"], report["sequence_gaps"], report["never_stored"]) == ([], 0, 0)


def test_an_input_told_before_a_disk_took_it_and_said_again_after_a_kill_is_counted_apart() -> None:
    unstored = replace(taken(1, at=T0 + 1, sequence=0), streamid="", id="id-unstored")
    report = judged((line(1, at=T0 + 1),), (unstored, taken(1, at=T0 + 4)))
    assert (report["duplicated"], report["told_unstored"], report["never_stored"]) == (0, 1, 1)
    assert report["reasons"] == []


def test_an_event_sent_before_a_disk_took_it_is_not_out_of_order_for_the_number_of_a_later_stream() -> None:
    """The database went before it took it back: in the new one it is numbered behind what was stored there first."""
    first = replace(taken(1, at=T0 + 1, sequence=0), streamid="one")
    second = replace(taken(2, at=T0 + 5, sequence=1), streamid="two")
    again = replace(taken(1, at=T0 + 6, sequence=2), status="duplicate", streamid="two")
    third = replace(taken(3, at=T0 + 7), streamid="two")
    inputs = tuple(line(n, at=T0 + at) for n, at in ((1, 1), (2, 5), (3, 7)))
    faults = (Fault(T0 + 3, "corrupt"),)
    report = judged(inputs, (first, second, again, third), *faults, stream="two")
    assert (report["reasons"], report["reordered"], report["sequence_gaps"]) == ([], 0, 0)
    late = replace(taken(4, at=T0 + 4, sequence=1), streamid="two")
    back = judged((*inputs, line(4, at=T0 + 4)), (first, again, third, late), *faults, stream="two")
    assert back["reordered"] == 1

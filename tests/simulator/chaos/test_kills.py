"""The storm's verdict, from ledgers written by hand: what came again is counted kill by kill, and a loss is unclean."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from simulator.chaos.kills import figures, resent_by_kill
from simulator.ledgers import Decision, Emission, Fault, Ledgers

T0 = 1_700_000_000.0
SCENARIO: dict[str, Any] = {
    "name": "kills",
    "seed": 5,
    "start": T0,
    "platforms": [{"id": "district", "types": ["*"], "also": []}],
    "devices": [{"id": "board", "role": "controller", "link": "wire-1"}],
}


def event(n: int, *, at: float, status: str = "accepted") -> Decision:
    when = datetime.fromtimestamp(at - 0.1, UTC).isoformat(timespec="milliseconds")
    body = {"time": when, "recordedtime": when, "data": {"n": n, "session": "s", "registers": []}}
    kind = "cn.eldercare.telemetry.environment.v1"
    return Decision(at, f"id-{n}", kind, "board", status, "telemetry", n, n, "stream", event=body)


def gap(number: int, *, first: float, last: float) -> Decision:
    times = [datetime.fromtimestamp(t, UTC).isoformat(timespec="milliseconds") for t in (first, last)]
    data = {"link": "wire-1", "from": times[0], "to": times[1], "reason": "restart", "dropped": 0}
    body = {"time": times[1], "recordedtime": times[1], "data": data}
    return Decision(last + 0.1, "gap", "cn.eldercare.gateway.gap.v1", "gw", "accepted", "event", number, number, "stream",
                    event=body)  # fmt: skip


def line(n: int, *, at: float) -> Emission:
    return Emission(at, at, "board", "line", n=n, session="s", value={"temp": 20.0})


def storm(*decisions: Decision, emissions: tuple[Emission, ...], **changes: Any) -> Ledgers:
    acked = {("board", one.n): one.t + 0.25 for one in emissions if one.n is not None}
    facts: dict[str, Any] = {
        "scenario": SCENARIO,
        "emissions": emissions,
        "decisions": {"district": decisions},
        "faults": (Fault(T0 + 2.5, "kill"), Fault(T0 + 2.6, "start")),
        "acked_at": acked,
        "acked": frozenset(acked),
        "status": {"outbox": {"sequence": 4, "stream": "stream"}, "destinations": []},
    }
    return Ledgers(**{**facts, **changes})


def told() -> tuple[Decision, ...]:
    return (
        event(1, at=T0 + 1),
        event(2, at=T0 + 2),
        gap(3, first=T0 + 2.4, last=T0 + 3.0),
        event(4, at=T0 + 9),
    )


def three_lines() -> tuple[Emission, ...]:
    return (line(1, at=T0 + 0.8), line(2, at=T0 + 1.8), line(4, at=T0 + 8.8))


def test_a_storm_that_lost_nothing_is_clean() -> None:
    report = figures(storm(*told(), emissions=three_lines()), took_s=3.0)
    assert report["reasons"] == []
    assert (report["clean"], report["kills"], report["acknowledged_inputs"]) == (True, 1, 3)
    assert report["resent_after_a_kill"] == {"p50": 0, "max": 0, "limit": 290}


def test_a_line_that_was_acknowledged_and_never_arrived_makes_it_unclean() -> None:
    missing = (*three_lines(), line(5, at=T0 + 9.5))
    report = figures(storm(*told(), emissions=missing), took_s=3.0)
    assert report["clean"] is False
    assert report["reasons"] == ["1 inputs lost"]


def test_a_dead_time_without_a_gap_makes_it_unclean() -> None:
    silent = (event(1, at=T0 + 1), event(2, at=T0 + 2), event(3, at=T0 + 9))
    inputs = (line(1, at=T0 + 0.8), line(2, at=T0 + 1.8), line(3, at=T0 + 8.8))
    status = {"outbox": {"sequence": 3, "stream": "stream"}, "destinations": []}
    report = figures(storm(*silent, emissions=inputs, status=status), took_s=3.0)
    assert report["reasons"] == ["1 dead times of a link that no gap told of"]


def test_what_comes_again_is_counted_for_the_kill_before_it() -> None:
    again = [event(1, at=T0 + 3 + n / 1000, status="duplicate") for n in range(7)]
    later = [event(2, at=T0 + 6, status="duplicate")]
    ledgers = storm(*again, *later, emissions=())
    assert resent_by_kill(ledgers, [T0 + 2.5, T0 + 5.0, T0 + 8.0]) == {1: 7, 2: 1}


def test_more_than_a_window_and_a_commit_after_one_kill_makes_it_unclean() -> None:
    again = [event(1, at=T0 + 3 + n / 1000, status="duplicate") for n in range(291)]
    report = figures(storm(*told(), *again, emissions=three_lines()), took_s=3.0)
    assert report["reasons"] == ["1 kills after which more than 290 events came again"]

"""What a person reads of a run: the screen, the line for a log, the ledger with its verdict."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest

from simulator.view import Paint, Platform, Snapshot, colour_allowed, in_place, ledger, line, screen

STATUS: dict[str, Any] = {
    "pid": 4711,
    "uptime_s": 12.4,
    "devices": [
        {
            "id": "call-1",
            "last_heard_s": 0.75,
            "heard": 90,
            "events": 9,
            "repeats": 81,
            "rejects": {"bad-check": 2},
            "polls_failed": 1,
            "alarm": "a-1",
        },
        {"id": "meter-1", "last_heard_s": None, "heard": 0, "events": 0, "repeats": 0, "rejects": {}, "alarm": None},
    ],
    "links": [{"id": "air", "hearing": True}, {"id": "bus-1", "hearing": False}],
    "outbox": {"sequence": 130},
    "destinations": [{"id": "district", "connected": True, "pending": {"A": 1, "B": 0, "C": 4, "D": 20}}],
    "alarms": {"open": 2},
}
SNAPSHOT = Snapshot(
    title="小型中心",
    seed=7,
    elapsed_s=12.34,
    seconds=40.0,
    busy=True,
    platforms=[
        Platform("district", ["mqtt"], {"accepted": 125, "duplicate": 3}),
        Platform("family", ["https"], {"accepted": 60}, {1: "cut"}),
    ],
    status=STATUS,
    done={"call-1": 9, "meter-1": 40},
    devices=[{"id": "call-1"}, {"id": "meter-1"}],
    faults=[(8.4, "cut", "family"), (15.2, "heal", "district")],
    next_fault=(18.0, "kill", ""),
)
PLAIN, COLOUR = Paint("off"), Paint("on")

NOTHING = {"p50": None, "p99": None, "max": None}
REPORT: dict[str, Any] = {
    "emitted": 29,
    "stored": 130,
    "accepted": 130,
    "lost": 0,
    "unheard": 2,
    "duplicated": 0,
    "reordered": 0,
    "resent": 4,
    "pending": 0,
    "alarms": {"pressed": 20, "raised": 18, "accepted": 18, "latency_ms": {"p50": 14.2, "p99": 31.0, "max": 40.5}},
    "destinations": {
        "district": {
            "accepted": 130,
            "resent": 4,
            "alarms": 18,
            "latency_ms": {"p50": 9.0, "p99": 31.0, "max": 40.5},
            "one_way": {"alarms": 0, "latency_ms": NOTHING},
        },
        "family": {
            "accepted": 61,
            "resent": 0,
            "alarms": 18,
            "latency_ms": NOTHING,
            "one_way": {"alarms": 0, "latency_ms": NOTHING},
        },
    },
    "devices": {
        "call-1": {
            "emitted": 9,
            "accepted": 9,
            "lost": 0,
            "unheard": 0,
            "duplicated": 0,
            "polled": 0,
            "readings": 0,
        }
    },
    "gaps": [
        {"link": "air", "from": 100.0, "to": 101.5, "reason": "restart", "destination": "district"},
        {"link": "air", "from": 100.0, "to": 101.5, "reason": "restart", "destination": "family"},
        {"link": "x", "from": None, "to": 1.0},
    ],
    "offences": [{"offence": "lost", "device": "call-1", "t": 1.5, "counter": 3}],
}


def test_the_screen_shows_what_a_person_looks_for() -> None:
    text = screen(SNAPSHOT, PLAIN)
    for words in (
        "小型中心   seed 7   12.3 s of 40 s   devices busy",
        "platform  up   district (mqtt)    125 accepted · 3 duplicate · 0 retry · 0 rejected",
        "platform  CUT  family (https)     60 accepted · 0 duplicate · 0 retry · 0 rejected",
        "pid 4711, up 12 s   links air, bus-1 deaf   district connected",
        "130 stored, pending: A alarms 1  B events 0  C live 4  D backlog 20",
        "alarms    2 open",
        "cut family at 8.4 s, heal district at 15.2 s, next: kill at 18 s",
    ):
        assert words in text
    (row,) = [row for row in text.split("\n") if row.startswith("call-1")]
    assert row.split() == ["call-1", "9", "90", "9", "81", "3", "0.8", "s", "ago", "OPEN"]
    (row,) = [row for row in text.split("\n") if row.startswith("meter-1")]
    assert row.split() == ["meter-1", "40", "0", "0", "0", "0", "never"]


def test_without_colour_there_is_no_escape_sequence() -> None:
    assert "\x1b" not in screen(SNAPSHOT, PLAIN)
    assert "\x1b" not in ledger(REPORT, ["1 inputs lost"], PLAIN)
    assert "\x1b" not in line(SNAPSHOT)


def test_colour_adds_escape_sequences_and_nothing_else() -> None:
    assert re.sub(r"\x1b\[[0-9;]*m", "", screen(SNAPSHOT, COLOUR)) == screen(SNAPSHOT, PLAIN)


def test_a_gateway_that_does_not_answer_is_shown_as_that() -> None:
    text = screen(replace(SNAPSHOT, status=None), PLAIN)
    assert "gateway   does not answer" in text
    assert "outbox    ?" in text


def test_an_endless_run_says_how_it_is_broken_and_ended() -> None:
    text = screen(replace(SNAPSHOT, seconds=None), PLAIN)
    assert "12.3 s until Ctrl-C" in text
    assert "Ways to the platforms break and the gateway is killed, again and again. Ctrl-C ends" in text
    assert "then everything drains and the ledger is drawn up" not in text


@pytest.mark.parametrize(
    ("broken", "state", "said"),
    [
        ({}, "up  ", "up  "),
        ({1: "hang"}, "1/2 ", "1/2 "),
        ({1: "hang", 2: "cut"}, "0/2 ", "0/2 "),
        ({1: "cut", 2: "cut"}, "CUT ", "cut "),
    ],
)
def test_a_platform_with_several_ways_shows_how_many_are_whole(broken: dict[int, str], state: str, said: str) -> None:
    district = Platform("district", ["mqtt", "https"], {"accepted": 7}, broken)
    text = screen(replace(SNAPSHOT, platforms=[district]), PLAIN)
    ways = "".join(f" · way {way} {fault}" for way, fault in broken.items())
    assert f"platform  {state} district (mqtt, https)  7 accepted · 0 duplicate · 0 retry · 0 rejected{ways}\n" in text
    assert f"accepted: district {said}     7  pending" in line(replace(SNAPSHOT, platforms=[district]))


def test_more_devices_than_fit_are_counted() -> None:
    text = screen(replace(SNAPSHOT, devices=[{"id": f"d{n}"} for n in range(30)]), PLAIN)
    assert "d23" in text
    assert "d24" not in text
    assert "and 6 more" in text


def test_a_log_gets_one_line() -> None:
    assert line(SNAPSHOT) == (
        "  12.3 s  gateway up    done   49  accepted: district up     125  family cut     60  "
        "pending A1 B0 C4 D20  alarms open 2  busy"
    )
    assert line(replace(SNAPSHOT, status=None, busy=False)) == (
        "  12.3 s  gateway down  done   49  accepted: district up     125  family cut     60  "
        "pending A0 B0 C0 D0  alarms open ?  draining"
    )


def test_the_ledger_of_a_clean_run_says_so() -> None:
    text = ledger(REPORT, [], PLAIN)
    assert "Clean: nothing lost, nothing doubled, nothing out of order, nothing left behind." in text
    assert re.search(r"^ +unheard +2 ", text, re.MULTILINE)
    assert "20 pressed, 18 raised, 18 accepted" in text
    assert "p50 14.2 ms, p99 31 ms, max 40.5 ms" in text
    assert text.count("gap on air: deaf for 1.50 s (restart)") == 1
    (row,) = [row for row in text.split("\n") if row.startswith("  district")]
    assert row.split() == ["district", "130", "4", "18", "9", "ms", "31", "ms", "40.5", "ms"]
    (row,) = [row for row in text.split("\n") if row.startswith("  family")]
    assert row.split() == ["family", "61", "0", "18", "-", "-", "-"]
    assert "lost call-1" not in text


def test_what_alarms_took_while_one_way_was_broken_is_told_apart() -> None:
    latency = {"p50": 14.0, "p99": 3013.1, "max": 3013.1}
    row = {**REPORT["destinations"]["district"], "one_way": {"alarms": 24, "latency_ms": latency}}
    text = ledger({**REPORT, "destinations": {**REPORT["destinations"], "district": row}}, [], PLAIN)
    (told,) = [one for one in text.split("\n") if "only a part of the ways" in one]
    assert told == (
        "  while only a part of the ways to district stood (24 alarms): p50 14 ms, p99 3013.1 ms, max 3013.1 ms"
    )
    assert "only a part of the ways" not in ledger(REPORT, [], PLAIN)


def test_the_ledger_of_an_unclean_run_gives_the_reasons_and_the_first_offences() -> None:
    text = ledger({**REPORT, "lost": 1}, ["1 inputs lost", "2 events still pending at the end"], PLAIN)
    assert "Not clean: 1 inputs lost; 2 events still pending at the end." in text
    assert "lost call-1: t=1.5 counter=3" in text


def test_what_nobody_knows_is_a_question_mark() -> None:
    nothing = {"p50": None, "p99": None, "max": None}
    report = {**REPORT, "pending": None, "alarms": {**REPORT["alarms"], "latency_ms": nothing}}
    text = ledger(report, [], PLAIN)
    assert re.search(r"^ +pending +\? ", text, re.MULTILINE)
    assert "p50 -, p99 -, max -" in text


def test_a_screen_in_place_never_scrolls_a_small_terminal() -> None:
    drawn = in_place("a\nb\nc\nd", rows=3)
    assert drawn == "\x1b[?7l\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J\x1b[?7h"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "variables", "allowed"),
    [
        (io.StringIO(), {}, False),
        (_Terminal(), {}, True),
        (_Terminal(), {"NO_COLOR": "1"}, False),
        (_Terminal(), {"TERM": "dumb"}, False),
    ],
    ids=["a pipe", "a terminal", "NO_COLOR", "dumb terminal"],
)
def test_colour_only_on_a_terminal_that_wants_it(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, variables: dict[str, str], allowed: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert colour_allowed(stream) is allowed

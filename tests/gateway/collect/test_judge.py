"""What the judge calls new, a repeat or a reset: each rule of its table, restarts, and the edges of levels."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.kit import Counter
from gateway.clock import Stamp
from gateway.collect.judge import Judge, Judged, Verdict
from gateway.outbox import Mark

NEW, REPEAT, RESET = Verdict.NEW, Verdict.REPEAT, Verdict.RESET
BOOT = "boot-1"


def at(seconds: float, boot: str = BOOT) -> Stamp:
    """A moment of a boot; the wall clock plays no part."""
    return Stamp(1_800_000_000_000, int(seconds * 1000), boot)


@dataclass
class Bench:
    """A judge, and a database that keeps the newest mark of each key."""

    judge: Judge = field(default_factory=Judge)
    stored: dict[tuple[str, str], Mark] = field(default_factory=dict)

    def _keep(self, judged: Judged) -> Verdict:
        if judged.mark is not None:
            self.stored[judged.mark.device, judged.mark.key] = judged.mark
        return judged.verdict

    def count(
        self, value: int, seconds: float, *, bits: int = 32, proven: bool = True, boot: str = BOOT, device: str = "b1"
    ) -> Verdict:
        return self._keep(self.judge.counter(device, Counter(value, bits, authenticated=proven), at(seconds, boot)))

    def counts(self, values: list[int], *, bits: int, every_s: float = 1.0) -> list[Verdict]:
        return [self.count(value, number * every_s, bits=bits, proven=bits > 8) for number, value in enumerate(values)]

    def level(self, seconds: float, *, on: bool, boot: str = BOOT, hold_s: float = 25.0, link: str = "") -> Verdict:
        return self._keep(self.judge.level("p1", "fall:", on=on, at=at(seconds, boot), hold_s=hold_s, link=link))

    def restart(self) -> None:
        """Begin anew with what was stored."""
        self.judge = Judge()
        self.judge.load(list(self.stored.values()))


# Counters.


@pytest.mark.parametrize(
    ("bits", "values", "verdicts"),
    [
        pytest.param(32, [7], [NEW], id="the first is new"),
        pytest.param(32, [0], [NEW], id="the first is new, also when it is 0"),
        pytest.param(32, [7, 7, 7], [NEW, REPEAT, REPEAT], id="the same is a repeat"),
        pytest.param(32, [7, 8, 9], [NEW, NEW, NEW], id="the next is new"),
        pytest.param(32, [7, 8, 7, 8], [NEW, NEW, REPEAT, REPEAT], id="late copies are repeats"),
        pytest.param(32, [7, 5_000, 5_000], [NEW, NEW, REPEAT], id="a jump ahead is new"),
        pytest.param(32, [100, 2**31 + 99], [NEW, NEW], id="half the range less one ahead is new"),
        pytest.param(32, [100, 2**31 + 100], [NEW, RESET], id="half the range ahead is behind"),
        pytest.param(32, [2**32 - 1, 0, 2**32 - 1], [NEW, NEW, REPEAT], id="32 bits wrap"),
        pytest.param(8, [255, 0, 255, 1], [NEW, NEW, REPEAT, NEW], id="8 bits wrap"),
        pytest.param(8, [250, 121], [NEW, NEW], id="8 bits: 127 ahead is new"),
        pytest.param(8, [250, 122], [NEW, RESET], id="8 bits: 128 ahead is behind"),
        pytest.param(32, [5, 7, 6, 6, 7], [NEW, NEW, RESET, REPEAT, REPEAT], id="overtaken: raised once, not verified"),
        pytest.param(32, [10, 74, 10], [NEW, NEW, REPEAT], id="64 behind is remembered"),
        pytest.param(32, [10, 75, 10], [NEW, NEW, RESET], id="65 behind is not"),
        pytest.param(32, [1000, 3, 3, 3], [NEW, RESET, REPEAT, REPEAT], id="a reset is raised once"),
        pytest.param(32, [1000, 3, 4, 3, 5], [NEW, RESET, RESET, REPEAT, RESET], id="its stream goes on"),
        pytest.param(32, [1000, 3, 1001, 1000], [NEW, RESET, NEW, REPEAT], id="the mark stays where it was"),
        pytest.param(32, [1000, 3, 1001, 3], [NEW, RESET, NEW, RESET], id="news end the reset stream"),
        pytest.param(32, [1000, 3, 900, 4, 4], [NEW, RESET, RESET, RESET, REPEAT], id="a replay does not silence it"),
    ],
)
def test_table_of_rules(bits: int, values: list[int], verdicts: list[Verdict]) -> None:
    assert Bench().counts(values, bits=bits) == verdicts


def test_repeats_are_repeats_however_late() -> None:
    bench = Bench()
    assert bench.count(7, 0) is NEW
    assert bench.count(7, 3_600) is REPEAT
    assert bench.count(9, 3_601, bits=8, proven=False) is NEW
    assert bench.count(9, 90_000, bits=8, proven=False) is REPEAT


@pytest.mark.parametrize(("silence_s", "verdict"), [(60.0, REPEAT), (60.001, NEW)])
def test_after_a_minute_an_8_bit_counter_may_stand_anywhere(silence_s: float, verdict: Verdict) -> None:
    """Also at a number that was seen: it wraps while nobody listens, and a battery swap begins it again."""
    bench = Bench()
    assert bench.counts([1, 2, 3, 4], bits=8, every_s=0.0) == [NEW] * 4
    assert bench.count(2, silence_s, bits=8, proven=False) is verdict


def test_presses_after_a_change_of_battery_are_heard_though_their_numbers_were_seen() -> None:
    """The most dangerous case: a young button, 30 presses old, gets a new battery and counts from 1 again."""
    bench = Bench()
    assert bench.counts(list(range(1, 31)), bits=32) == [NEW] * 30
    after_swap = [bench.count(value, 1_000 + 20 * value) for value in range(1, 31)]
    assert after_swap == [RESET] * 30
    assert bench.count(31, 2_000) is NEW


def test_a_reset_stream_that_climbs_through_the_old_mark_is_heard_all_the_way() -> None:
    bench = Bench()
    bench.counts(list(range(900, 1001)), bits=32)
    climb = [bench.count(value, 1_000 + value) for value in range(1, 1001)]
    assert climb == [RESET] * 1000
    repeats = [bench.count(value, 2_001) for value in range(990, 1001)]
    assert repeats == [REPEAT] * 11


def test_after_a_quick_change_of_battery_old_numbers_are_repeats_for_a_minute_only() -> None:
    bench = Bench()
    bench.counts(list(range(1, 31)), bits=32, every_s=0.0)
    assert [bench.count(number, 10.0 * number) for number in range(1, 12)] == [REPEAT] * 6 + [RESET] * 5


def test_a_replay_of_a_recording_is_never_verified() -> None:
    bench = Bench()
    bench.counts(list(range(1, 101)), bits=32)
    verdicts = [bench.count(value, 5_000 + 61.0 * number) for number, value in enumerate([30, 90, 99, 30, 100])]
    assert verdicts == [RESET, RESET, RESET, RESET, REPEAT]


def test_a_counter_that_anybody_can_write_moves_no_proven_mark() -> None:
    bench = Bench()
    assert bench.count(1000, 0) is NEW
    for seconds, value in enumerate((29, 30, 200), start=1):
        bench.count(value, seconds, bits=8, proven=False)
    assert bench.count(2**30, 5, proven=False) is NEW
    assert bench.count(1000, 6) is REPEAT
    assert bench.count(1001, 7) is NEW
    assert bench.count(999, 70) is RESET


def test_devices_do_not_know_each_others_counters() -> None:
    bench = Bench()
    assert bench.count(5, 0, device="b1") is NEW
    assert bench.count(5, 0, device="b2") is NEW


def test_everything_is_known_after_a_restart() -> None:
    bench = Bench()
    bench.counts([5, 7, 1000], bits=32)
    bench.count(3, 3)
    bench.count(9, 3, bits=8, proven=False)
    bench.restart()
    assert bench.count(1000, 4) is REPEAT
    assert bench.count(3, 4) is REPEAT
    assert bench.count(9, 4, bits=8, proven=False) is REPEAT
    assert bench.count(4, 5) is RESET
    assert bench.count(1001, 6) is NEW


def test_what_was_seen_behind_the_mark_is_known_after_a_restart() -> None:
    bench = Bench()
    bench.counts([5, 6, 7], bits=32, every_s=0.1)
    bench.restart()
    assert [bench.count(value, 1) for value in (5, 6, 7, 4)] == [REPEAT, REPEAT, REPEAT, RESET]


def test_a_repeat_leaves_no_mark_and_a_new_boot_is_a_lapse() -> None:
    bench = Bench()
    bench.count(5, 100, bits=8, proven=False)
    bench.count(6, 101, bits=8, proven=False)
    assert bench.judge.counter("b1", Counter(6, 8, authenticated=False), at(102)).mark is None
    bench.restart()
    assert bench.count(5, 3, bits=8, proven=False, boot="boot-2") is NEW


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        '{"main":[]}',
        '{"main":["a",0,"b",0],"reset":null}',
        '{"main":[1,2,"b"],"reset":null}',
    ],
)
@pytest.mark.parametrize("key", ["counter:proven:32", "level:fall:"])
def test_a_mark_that_cannot_be_read_makes_the_next_press_new(key: str, value: str) -> None:
    bench = Bench()
    bench.stored["b1", key] = Mark("b1", key, value)
    bench.restart()
    assert bench.count(5, 0) is NEW


@settings(max_examples=300, deadline=None)
@given(
    start=st.integers(0, 2**32 - 1),
    steps=st.lists(st.integers(1, 4), min_size=1, max_size=16),
    shuffle=st.randoms(use_true_random=False),
    repeats=st.integers(0, 20),
    restarts=st.booleans(),
)
def test_each_press_is_raised_once_and_verified_at_most_once(
    start: int, steps: list[int], shuffle: object, repeats: int, *, restarts: bool
) -> None:
    """Counters that only rise, with repeats and reorderings inside the window of 64, within a minute."""
    values = [start]
    for step in steps:
        values.append((values[-1] + step) % 2**32)
    heard = values[1:] + [shuffle.choice(values) for _ in range(repeats)]  # type: ignore[attr-defined]
    shuffle.shuffle(heard)  # type: ignore[attr-defined]
    bench = Bench()
    raised: dict[int, list[Verdict]] = {value: [] for value in values}
    for number, value in enumerate([start, *heard]):
        raised[value].append(bench.count(value, number * 0.1))
        if restarts:
            bench.restart()
    for verdicts in raised.values():
        assert [one for one in verdicts if one is not REPEAT] in ([NEW], [RESET])


# Levels.


def test_a_level_has_two_edges() -> None:
    bench = Bench()
    states = [(0, True), (1, True), (2, True), (3, False), (4, False), (5, True)]
    verdicts = [bench.level(seconds, on=on) for seconds, on in states]
    assert verdicts == [NEW, REPEAT, REPEAT, NEW, REPEAT, NEW]


def test_a_level_that_begins_off_is_no_edge() -> None:
    assert Bench().level(0, on=False) is REPEAT


def test_a_level_ends_by_silence_of_its_hold_time() -> None:
    bench = Bench()
    assert [bench.level(seconds, on=True) for seconds in (0, 25, 50, 75.001)] == [NEW, REPEAT, REPEAT, NEW]


def test_a_level_that_was_silent_too_long_is_still_told_off() -> None:
    bench = Bench()
    assert bench.level(0, on=True) is NEW
    assert bench.level(1_000, on=False) is NEW
    assert bench.level(1_001, on=False) is REPEAT


def test_a_fall_that_lasts_over_a_restart_is_the_same_fall() -> None:
    bench = Bench()
    verdicts = {bench.level(seconds, on=True) for seconds in range(1, 1_000, 10)}
    assert verdicts == {NEW, REPEAT}
    bench.restart()
    assert bench.level(1_020, on=True) is REPEAT
    assert bench.level(1_044, on=True) is REPEAT
    assert bench.level(1_070, on=True) is NEW


def test_a_fall_after_a_restart_is_new_when_the_last_one_was_over() -> None:
    bench = Bench()
    bench.level(0, on=True)
    bench.level(10, on=False)
    bench.restart()
    assert bench.level(12, on=True) is NEW


def test_a_fall_long_after_one_that_nobody_told_off_is_new_after_a_restart_too() -> None:
    bench = Bench()
    assert bench.level(0, on=True) is NEW
    bench.restart()
    assert bench.level(326, on=True) is NEW


def test_a_level_of_another_boot_is_raised_again_and_can_be_told_off() -> None:
    bench = Bench()
    bench.level(500, on=True)
    bench.restart()
    assert bench.level(5, on=True, boot="boot-2") is NEW
    other = Bench()
    other.level(500, on=True)
    other.restart()
    assert other.level(5, on=False, boot="boot-2") is NEW


def test_a_lasting_level_is_stored_again_every_five_minutes_only() -> None:
    judge = Judge()
    marks = [judge.level("p1", "fall:", on=True, at=at(seconds), hold_s=25).mark for seconds in range(0, 1_000, 10)]
    assert [number * 10 for number, mark in enumerate(marks) if mark is not None] == [0, 300, 600, 900]


def test_more_levels_than_a_device_can_have_are_raised_each_time_and_not_remembered() -> None:
    judge = Judge()
    for number in range(64):
        judge.level("p1", f"once:{number}", on=True, at=at(0), hold_s=25)
    assert judge.level("p1", "once:0", on=True, at=at(1), hold_s=25) == Judged(REPEAT)
    assert judge.level("p1", "once:64", on=True, at=at(1), hold_s=25) == Judged(NEW)
    assert judge.level("p1", "once:64", on=True, at=at(2), hold_s=25) == Judged(NEW)


def test_versions_of_marks_rise() -> None:
    judge = Judge()
    marks = [judge.counter("b1", Counter(value, 32, authenticated=True), at(0)).mark for value in (1, 2, 3)]
    versions = [mark.version for mark in marks if mark is not None]
    assert len(versions) == 3
    assert versions == sorted(set(versions))


# Several radios, one of which lags behind: nothing counts, so what one tells may be older than what another has told.

ON, OFF, LATE = True, False, Verdict.LATE


@pytest.mark.parametrize(
    "told",
    [
        pytest.param([("a", 0, ON, NEW), ("b", 3, ON, REPEAT), ("a", 5, OFF, NEW), ("b", 8, OFF, REPEAT)], id="behind"),
        pytest.param(
            [("a", 0, ON, NEW), ("b", 1, OFF, REPEAT), ("a", 2, ON, LATE), ("a", 3, ON, REPEAT)],
            id="an end from before it began",
        ),
        pytest.param(
            [("a", 0, ON, NEW), ("a", 4, OFF, NEW), ("b", 6, ON, LATE), ("b", 9, OFF, REPEAT)], id="all of it"
        ),
        pytest.param([("a", 0, ON, NEW), ("a", 4, OFF, NEW), ("a", 5, ON, NEW)], id="pressed again, heard by the same"),
        pytest.param(
            [("a", 0, ON, NEW), ("a", 4, OFF, NEW), ("b", 5, OFF, REPEAT), ("b", 6, ON, NEW)],
            id="again, heard by another",
        ),
        pytest.param([("a", 0, ON, NEW), ("a", 4, OFF, NEW), ("b", 15, ON, NEW)], id="too late to be the same"),
        pytest.param([("a", 0, ON, NEW), ("b", 11, OFF, NEW)], id="who told the beginning hears no more"),
        pytest.param([("a", 0, ON, NEW), ("b", 1, ON, REPEAT), ("b", 2, OFF, NEW)], id="the end by another that knows"),
        pytest.param([("a", 0, ON, NEW), ("", 1, OFF, NEW)], id="put in order by a counter"),
        pytest.param([("", 0, ON, NEW), ("b", 1, OFF, NEW)], id="begun by a counted message"),
    ],
)
def test_a_level_that_radios_tell_in_their_own_time(told: list[tuple[str, float, bool, Verdict]]) -> None:
    bench = Bench()
    assert [bench.level(seconds, on=on, link=link) for link, seconds, on, _ in told] == [one[3] for one in told]


def test_after_a_restart_whoever_speaks_first_is_believed() -> None:
    bench = Bench()
    assert bench.level(0, on=True, link="a") is NEW
    bench.restart()
    assert bench.level(1, on=False, link="b") is NEW


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
@pytest.mark.parametrize("lag_s", [0.0, 0.4, 3.0, 20.0])
@pytest.mark.parametrize(("bits", "proven"), [(8, False), (16, False), (24, True), (32, True)])
def test_a_press_that_three_radios_bring_at_their_own_time_is_one(
    order: tuple[str, ...], lag_s: float, bits: int, proven: bool
) -> None:  # fmt: skip
    """Each brings three presses, 2 s apart, each a lag later than the one before it; who it is plays no part."""
    bench = Bench()
    presses = [
        (2.0 * press + lag_s * place, value)
        for place, _radio in enumerate(order)
        for press, value in enumerate((250, 251, 252))
    ]
    verdicts = [bench.count(value, when, bits=bits, proven=proven) for when, value in sorted(presses)]
    assert (verdicts.count(NEW), verdicts.count(REPEAT)) == (3, 6)


def test_what_a_radio_replays_after_the_counter_has_moved_on_is_never_new() -> None:
    bench = Bench()
    assert bench.counts([10, 11, 12], bits=32) == [NEW, NEW, NEW]
    assert [bench.count(value, 30) for value in (12, 11, 10)] == [REPEAT, REPEAT, REPEAT]
    assert bench.count(12, 4000) is REPEAT
    # Who counts through old numbers after a battery was changed must be heard: raised, and never verified.
    assert [bench.count(value, 4000) for value in (10, 11)] == [RESET, RESET]


@pytest.mark.parametrize("bits", [8, 32])
def test_a_press_behind_the_mark_is_one_though_the_lapse_ends_between_its_repeats(bits: int) -> None:
    bench = Bench()
    counted = [(192, 0.0), (170, 59.9), (170, 60.1), (170, 90.0)]
    found = [bench.judge.counter("p1", Counter(n, bits, authenticated=False), at(s)).verdict for n, s in counted]
    assert found == [NEW, RESET, REPEAT, REPEAT]
    later = bench.judge.counter("p1", Counter(170, bits, authenticated=False), at(200.0)).verdict
    assert later is (NEW if bits == 8 else RESET)

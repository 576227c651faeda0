"""What silence means: the numbers of its module, for a configured silence of 60 s, by a clock that the test holds."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gateway.links.silence import Ended, Repair, Silence

OURS = "AA:BB:CC:DD:EE:01"
OTHER = "AA:BB:CC:DD:EE:02"
STRANGER = "11:22:33:44:55:66"
RESCAN, CYCLE = Repair.RESCAN, Repair.POWER_CYCLE


def silence() -> Silence:
    return Silence(after_s=60.0, known=lambda address: address.startswith("AA:"), now=0.0)


def rhythm(one: Silence, address: str, every_s: float, *, begin: float, end: float) -> float:
    """Let a device be heard regularly; return when it was heard last."""
    at = begin
    while at + every_s <= end:
        at += every_s
        one.heard(address, at)
    return at


def repairs(one: Silence, *, since: float, for_s: float) -> list[tuple[str, float]]:
    """Do whatever is due, at once and without effect; return what, and how long after the beginning."""
    done = []
    now = since
    while True:
        repair, wait_s = one.next(now)
        now = max(now, now + wait_s)
        if now - since > for_s:
            return done
        done.append((repair.name, round(now - since, 1)))
        one.repaired(repair, now)


# When what is due.


def test_a_place_where_nothing_was_ever_heard_is_scanned_anew_and_after_a_quarter_of_an_hour_switched_off_and_on() -> (
    None
):
    one = silence()
    done = repairs(one, since=0, for_s=3000)
    # The pace of the scans is counted from the last repair, of whichever kind.
    assert done == [
        ("RESCAN", 60), ("RESCAN", 180), ("RESCAN", 420), ("RESCAN", 720), ("POWER_CYCLE", 900), ("RESCAN", 1200),
        ("POWER_CYCLE", 1500), ("RESCAN", 1800), ("RESCAN", 2100), ("RESCAN", 2400), ("RESCAN", 2700), ("RESCAN", 3000),
    ]  # fmt: skip
    assert not one.overdue(3000)


def test_the_power_is_cycled_ever_more_rarely_and_a_day_of_silence_costs_seconds() -> None:
    cycles = [at for repair, at in repairs(silence(), since=0, for_s=86_400) if repair == "POWER_CYCLE"]
    assert cycles == [900, 1500, 5100, 26_700, 48_300, 69_900]


def test_a_device_that_kept_a_rhythm_and_is_overdue_says_that_the_radio_is_deaf() -> None:
    one = silence()
    last = rhythm(one, OURS, 20, begin=0, end=1400)
    assert not one.overdue(last + 79)
    assert one.overdue(last + 81)
    assert repairs(one, since=last, for_s=700) == [
        ("RESCAN", 60), ("POWER_CYCLE", 80), ("RESCAN", 200), ("RESCAN", 440), ("POWER_CYCLE", 680)
    ]  # fmt: skip


def test_a_rhythm_quicker_than_the_configured_silence_waits_for_one_new_scan_first() -> None:
    one = silence()
    last = rhythm(one, OURS, 4, begin=0, end=400)
    assert repairs(one, since=last, for_s=71) == [("RESCAN", 60), ("POWER_CYCLE", 70)]


def test_two_devices_must_be_overdue_where_two_are_known() -> None:
    one = silence()
    for n in range(400):
        one.heard(OURS, n * 10.0)
        if n % 5 == 0:
            one.heard(OTHER, n * 10.0 + 1)
    assert not one.overdue(3990 + 199)
    assert one.overdue(3990 + 201)


def test_59_pauses_are_no_rhythm_and_60_are() -> None:
    one = silence()
    last = rhythm(one, OURS, 20, begin=0, end=1200)  # heard 60 times
    assert not one.overdue(last + 800)
    one.heard(OURS, last + 20)
    assert one.overdue(last + 20 + 81)


def test_a_person_who_presses_again_and_again_is_no_rhythm() -> None:
    """25 presses within three minutes, 6 adverts each; then one more in the afternoon, and the same again."""
    one = silence()
    for start in (0.0, 10_000.0, 20_000.0):
        for press in range(25):
            for repeat in range(6):
                last = start + press * 7 + repeat * 0.24
                one.heard(OURS, last)
        assert not one.overdue(last + 899)


def test_strangers_keep_no_rhythm_that_counts() -> None:
    one = silence()
    last = rhythm(one, STRANGER, 1, begin=0, end=500)
    assert not one.overdue(last + 899)
    assert repairs(one, since=last, for_s=899) == [("RESCAN", 60), ("RESCAN", 180), ("RESCAN", 420), ("RESCAN", 720)]


def test_the_repeats_of_a_press_are_no_rhythm() -> None:
    """A button that sends signs of life every 30 s is pressed 40 times: 6 adverts of 0.24 s each time."""
    one = silence()
    last = rhythm(one, OURS, 30, begin=0, end=2400)
    for press in range(40):
        for repeat in range(6):
            last = 2405 + press * 2 + repeat * 0.24
            one.heard(OURS, last)
    assert not one.overdue(last + 119)
    assert one.overdue(last + 121)


def test_the_adverts_of_a_long_press_are_one_message() -> None:
    one = silence()
    last = rhythm(one, OURS, 0.2, begin=0, end=30)  # held down for half a minute: 150 adverts
    assert not one.overdue(last + 899)


def test_long_nights_are_learned_and_do_not_alarm_the_next_time() -> None:
    """Phones by day, nobody by night: the second night is no news, a silence of a day is."""
    one = silence()
    last = rhythm(one, STRANGER, 2, begin=0, end=8 * 3600)
    assert not one.unsure(last + 899)
    assert one.unsure(last + 901)
    morning = last + 16 * 3600
    assert one.heard(STRANGER, morning)[0] is Ended.USUAL
    evening = rhythm(one, STRANGER, 2, begin=morning, end=morning + 8 * 3600)
    assert not one.unsure(evening + 23.9 * 3600)
    assert one.unsure(evening + 24.1 * 3600)


@pytest.mark.parametrize(("days", "forgotten"), [(7, False), (9, True)])
def test_a_longest_pause_is_forgotten_after_eight_days(days: int, *, forgotten: bool) -> None:
    one = silence()
    one.heard(STRANGER, 0)
    one.heard(STRANGER, 50_000)
    last = rhythm(one, STRANGER, 60, begin=50_000, end=50_000 + days * 86_400)
    assert one.unsure(last + 901) is forgotten


def test_what_is_done_about_silence_does_not_depend_on_what_is_usual() -> None:
    """A radio that needs its power switched is not left alone for a day because week-ends are quiet."""
    one = silence()
    one.heard(STRANGER, 0)
    one.heard(STRANGER, 60 * 3600)
    assert ("POWER_CYCLE", 900) in repairs(one, since=60 * 3600, for_s=901)


# What a repair that ends a silence proves.


def dense(one: Silence) -> float:
    return rhythm(one, STRANGER, 0.5, begin=0, end=301)


@pytest.mark.parametrize(("back_after_s", "deaf"), [(0.2, True), (4.9, True), (5.1, False), (40.0, False)])
def test_a_silence_without_example_that_a_new_scan_ends_at_once_was_deafness(
    back_after_s: float, *, deaf: bool
) -> None:
    one = silence()
    last = dense(one)
    one.repaired(RESCAN, last + 60)
    ended, silent_s = one.heard(STRANGER, last + 60 + back_after_s)
    assert ended is (Ended.DEAFNESS if deaf else Ended.USUAL)
    assert silent_s == pytest.approx(60 + back_after_s)


def test_a_usual_silence_that_ends_just_after_a_new_scan_was_none() -> None:
    one = silence()
    last = rhythm(one, STRANGER, 20, begin=0, end=1000)
    one.repaired(RESCAN, last + 60)
    assert one.heard(STRANGER, last + 60.1)[0] is Ended.USUAL


def test_a_regular_device_proves_it_before_the_place_is_known() -> None:
    one = silence()
    last = rhythm(one, OURS, 2, begin=0, end=130)
    one.repaired(RESCAN, last + 60)
    assert one.heard(OURS, last + 61)[0] is Ended.DEAFNESS


def test_a_silence_that_a_repair_may_have_ended_is_no_example_of_usual_ones() -> None:
    one = silence()
    last = rhythm(one, STRANGER, 1, begin=0, end=100)  # too short to know the place
    one.repaired(RESCAN, last + 60)
    assert one.heard(STRANGER, last + 61)[0] is Ended.DOUBTFUL
    again = rhythm(one, STRANGER, 1, begin=last + 61, end=last + 400)
    one.repaired(RESCAN, again + 60)
    assert one.heard(STRANGER, again + 61)[0] is Ended.DEAFNESS


def test_without_a_repair_nothing_is_proved() -> None:
    one = silence()
    last = dense(one)
    assert one.heard(STRANGER, last + 59)[0] is Ended.USUAL


def test_in_a_place_that_is_not_known_nobody_can_vouch_for_a_silence_that_a_repair_may_have_ended() -> None:
    one = silence()
    last = rhythm(one, STRANGER, 0.5, begin=0, end=299)
    one.repaired(RESCAN, last + 60)
    assert one.heard(STRANGER, last + 60.1)[0] is Ended.DOUBTFUL


def test_a_burst_of_adverts_is_no_knowledge_of_a_place() -> None:
    one = silence()
    one.heard(STRANGER, 0)
    last = rhythm(one, STRANGER, 0.2, begin=60, end=100)
    last = rhythm(one, STRANGER, 0.2, begin=last + 250, end=last + 300)
    one.repaired(RESCAN, last + 1010)
    assert one.heard(STRANGER, last + 1011)[0] is Ended.DOUBTFUL


def test_a_deafness_that_was_claimed_is_not_proved_again_and_teaches_nothing() -> None:
    one = silence()
    last = rhythm(one, OURS, 10, begin=0, end=700)
    one.claimed = True
    one.repaired(CYCLE, last + 70)
    assert one.heard(OURS, last + 71)[0] is Ended.USUAL
    assert not one.claimed
    again = rhythm(one, OURS, 10, begin=last + 71, end=last + 800)
    assert one.overdue(again + 71)


def test_who_went_home_and_came_back_by_himself_teaches_that_he_does_so() -> None:
    """A pendant worn home: the first evening looks like deafness, the next ones do not."""
    one = silence()
    last = rhythm(one, OURS, 4, begin=0, end=8 * 3600)
    one.claimed = one.overdue(last + 70)
    assert one.claimed
    one.repaired(CYCLE, last + 70)
    morning = last + 16 * 3600
    one.heard(OURS, morning)
    evening = rhythm(one, OURS, 4, begin=morning, end=morning + 8 * 3600)
    assert not one.overdue(evening + 16 * 3600)


def test_a_time_in_which_nothing_could_be_heard_is_no_pause_of_anybody() -> None:
    one = silence()
    last = rhythm(one, OURS, 4, begin=0, end=400)
    one.began(last + 3600)
    again = rhythm(one, OURS, 4, begin=last + 3600, end=last + 3700)
    assert one.overdue(again + 71)


def test_silence_is_counted_from_the_beginning_of_a_scan_that_heard_nobody() -> None:
    one = silence()
    one.heard(OURS, 10)
    one.began(500)
    assert one.next(500) == (RESCAN, 60)
    assert one.silent_s(530) == 30


@pytest.mark.parametrize(
    ("after_s", "expected"),
    [(10.0, [("RESCAN", 10), ("POWER_CYCLE", 11.7)]), (3600.0, [("RESCAN", 3600), ("POWER_CYCLE", 4200)])],
)
def test_all_of_it_follows_the_configured_silence(after_s: float, expected: Iterable[tuple[str, float]]) -> None:
    one = Silence(after_s=after_s, known=lambda _: True, now=0.0)
    last = rhythm(one, OURS, after_s / 20, begin=0, end=10.01 * after_s)
    assert repairs(one, since=last, for_s=after_s * 1.3) == list(expected)

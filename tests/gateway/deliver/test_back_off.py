"""How long to wait: between nothing and the bound that the rules name, shorter with an alarm, spread over gateways."""

from __future__ import annotations

import pytest

from gateway.uplinks.back_off import BackOff, jittered, most

DRAWS = 2_000


def longest(waits: list[float], bound: float) -> None:
    """The waits fill the range from nothing to the bound."""
    assert 0 <= min(waits) < bound * 0.05
    assert bound * 0.95 < max(waits) <= bound


@pytest.mark.parametrize(
    ("failures", "alarm", "seconds"),
    [
        (0, False, 1), (1, False, 2), (5, False, 32), (8, False, 256), (9, False, 300), (5000, False, 300),
        (0, True, 1), (2, True, 4), (3, True, 5), (5000, True, 5),
    ],
)  # fmt: skip
def test_waits_double_up_to_a_cap(failures: int, alarm: bool, seconds: float) -> None:
    assert most(failures, alarm=alarm) == seconds
    longest([jittered(failures, alarm=alarm) for _ in range(DRAWS)], seconds)


def failed(times: int, spread_s: float = 60.0) -> BackOff:
    back_off = BackOff(spread_s)
    for _ in range(times):
        back_off.next_wait(established=False, alarm=False)
    return back_off


@pytest.mark.parametrize(
    ("failures", "alarm", "seconds"), [(0, False, 1), (4, False, 16), (20, False, 300), (20, True, 5)]
)
def test_a_connection_that_fails_is_tried_after_the_back_off(failures: int, alarm: bool, seconds: float) -> None:
    longest([failed(failures).next_wait(established=False, alarm=alarm) for _ in range(DRAWS)], seconds)


@pytest.mark.parametrize(
    ("spread", "alarm", "seconds"), [(60, False, 60), (2, False, 2), (60, True, 2), (0.5, True, 0.5)]
)
def test_after_an_established_session_the_first_wait_is_spread(spread: float, alarm: bool, seconds: float) -> None:
    longest([BackOff(spread).next_wait(established=True, alarm=alarm) for _ in range(DRAWS)], seconds)


def test_no_spread_is_no_wait() -> None:
    assert BackOff(0).next_wait(established=True, alarm=False) == 0


def test_sessions_that_end_before_anything_is_accepted_wait_longer_and_longer() -> None:
    back_off = BackOff(1.0)
    waits = [back_off.next_wait(established=True, alarm=False) for _ in range(40)]
    assert max(waits[10:]) > 100


def test_it_begins_anew_when_an_event_was_accepted() -> None:
    def after_success() -> float:
        back_off = failed(20)
        back_off.accepted()
        return back_off.next_wait(established=False, alarm=False)

    longest([after_success() for _ in range(DRAWS)], 1)


def test_a_session_that_another_client_took_over_is_waited_for_longer_each_time_whatever_was_accepted() -> None:
    def contested(times: int, *, alarm: bool = False) -> float:
        back_off = BackOff(0)
        for n in range(times):
            back_off.accepted()
            back_off.contested(float(n))
            wait = back_off.next_wait(established=True, alarm=alarm)
        return wait

    for times, bound in ((1, 2), (4, 16), (20, 300)):
        longest([contested(times) for _ in range(DRAWS)], bound)
    longest([contested(20, alarm=True) for _ in range(DRAWS)], 5)


def test_a_takeover_is_forgotten_by_the_next_loss_and_its_number_after_15_minutes() -> None:
    back_off = BackOff(0)
    for n in range(9):
        back_off.contested(float(n))
        back_off.next_wait(established=True, alarm=False)
    back_off.accepted()
    assert back_off.next_wait(established=True, alarm=False) == 0  # lost for another reason

    def again(at: float) -> float:
        back_off.accepted()
        back_off.contested(at)
        return back_off.next_wait(established=True, alarm=False)

    longest([again(1000.0 * n) for n in range(2, DRAWS + 2)], 2)


def test_an_alarm_never_makes_the_wait_longer() -> None:
    assert max(failed(20).shortened(0.3, established=False) for _ in range(DRAWS)) <= 0.3


@pytest.mark.parametrize(("failures", "established", "seconds"), [(20, False, 5), (1, False, 2), (1, True, 2)])
def test_an_alarm_shortens_a_long_wait(failures: int, established: bool, seconds: float) -> None:
    longest([failed(failures).shortened(250.0, established=established) for _ in range(DRAWS)], seconds)

"""A port that takes no bytes: told after 5 s, opened anew ever more rarely, over when bytes go out again."""

from __future__ import annotations

from gateway.links.stall import Stall


def test_bytes_that_do_not_move_for_five_seconds_are_a_stall() -> None:
    stall = Stall()
    stall.look(written=100, unsent=100, now=10.0)
    stall.look(written=100, unsent=100, now=14.9)
    assert not stall.lasts
    stall.look(written=164, unsent=164, now=15.0)
    assert stall.lasts
    assert stall.waited_s(16.0) == 6.0


def test_a_slow_port_is_no_stall() -> None:
    stall = Stall()
    for second in range(60):
        stall.look(written=10_000, unsent=10_000 - 10 * second, now=float(second))
    assert not stall.lasts


def test_nothing_to_be_sent_is_no_stall() -> None:
    stall = Stall()
    for second in range(60):
        stall.look(written=100, unsent=0, now=float(second))
    assert not stall.lasts


def test_it_is_over_when_bytes_go_out() -> None:
    stall = Stall()
    stall.look(written=100, unsent=100, now=0.0)
    stall.look(written=100, unsent=100, now=6.0)
    assert stall.lasts
    stall.look(written=100, unsent=90, now=7.0)
    assert not stall.lasts


def test_the_port_is_opened_anew_ever_more_rarely() -> None:
    stall = Stall()
    reopened = []
    for second in range(4 * 3600):
        written = second + 1  # somebody goes on writing, and all of it is lost at each reopening
        lost = reopened[-1][1] if reopened else 0
        stall.look(written=written, unsent=written - lost, now=float(second))
        if stall.wants_reopening(float(second)):
            reopened.append((second, written))
            stall.reopened(written=written, now=float(second))
        assert second < 6 or stall.lasts
    assert [second for second, _ in reopened] == [30, 150, 630, 2550, 6150, 9750, 13350]


def test_a_port_that_moved_again_gets_its_first_reopening_early() -> None:
    stall = Stall()
    stall.look(written=1, unsent=1, now=0.0)
    stall.look(written=1, unsent=1, now=30.0)
    stall.reopened(written=1, now=30.0)
    stall.look(written=2, unsent=0, now=31.0)
    assert not stall.lasts
    stall.look(written=2, unsent=0, now=40.0)
    stall.look(written=3, unsent=1, now=40.5)
    stall.look(written=3, unsent=1, now=69.0)
    assert not stall.wants_reopening(69.0)
    assert stall.wants_reopening(70.0)

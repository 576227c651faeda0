"""Whose turn it is: fair among the living, a bounded share for the dead, and few changes of the port's settings."""

from __future__ import annotations

from itertools import pairwise

import pytest

from drivers.kit import Answers, LineSettings, Title
from drivers.kit.framing import LineFramer
from gateway.collect import Desk
from gateway.collect.rota import Rota, Turn

SLOW, FAST = LineSettings(2400, 8, "E", 1), LineSettings(9600, 8, "N", 1)


def _talk(_target: object) -> object:
    raise AssertionError("nobody is asked here")


def turn(name: str, next_at: float, *, settings: LineSettings | None = None, failed: int = 0) -> Turn:
    driver = Answers("meter", Title("", ""), LineFramer, lambda address, raw: address, _talk, ())  # type: ignore[arg-type]  # never called
    return Turn(Desk(name, "meter", "bus", name, "", "", driver, None), 60.0, next_at, settings, failed)


def test_who_has_waited_longest_is_next_and_nobody_before_his_time() -> None:
    rota = Rota([turn("a", 5.0), turn("b", 3.0), turn("c", 9.0)])
    assert [(one.desk.id, wait) for one, wait in (rota.next(2.0), rota.next(6.0))] == [("b", 1.0), ("b", 0.0)]


def test_a_dead_one_has_a_fiftieth_of_the_line_s_time() -> None:
    alive, dead = turn("alive", 0.0), turn("dead", 0.0, failed=1)
    rota = Rota([alive, dead])
    rota.failed(dead, took_s=1.5, now=1.5)
    now, spent, asked = 1.5, 0.0, 0
    while now < 601.5:
        one, wait = rota.next(now)
        now += wait
        if wait:
            continue
        rota.begins(one, now)
        if one is dead:
            now += 1.5
            spent, asked = spent + 1.5, asked + 1
            rota.failed(dead, took_s=1.5, now=now)
        else:
            now += 0.35
            one.next_at = now  # at once again: the line is never free
    assert asked == 8
    assert 0.015 <= spent / 600 <= 0.025


def test_many_dead_ones_have_a_twentieth_of_it_together_and_come_one_by_one() -> None:
    alive, dead = turn("alive", 0.0), [turn(f"dead{n}", 0.0, failed=1) for n in range(20)]
    rota = Rota([alive, *dead])
    rota.failed(dead[0], took_s=1.5, now=0.0)
    now, asked = 0.0, list[str]()
    while now < 1200:
        one, wait = rota.next(now)
        now += wait
        if wait:
            continue
        rota.begins(one, now)
        now += 0.35 if one is alive else 1.5
        one.next_at = now
        if one is not alive:
            asked.append(one.desk.id)
            rota.failed(one, took_s=1.5, now=now)
    assert 0.045 <= len(asked) * 1.5 / 1200 <= 0.055
    assert len(set(asked)) == 20


def kin(name: str, first_s: float, **more: int) -> Turn:
    found = turn(name, 0.0, settings=SLOW, **more)
    found.answered, found.first_s = True, first_s
    return found


def test_who_was_never_heard_is_given_up_when_two_of_his_kind_would_have_begun_to_speak() -> None:
    new = turn("new", 0.0, settings=SLOW)
    assert Rota([new, kin("a", 0.1)]).silence_s(new, 0.0, to=b"") is None
    assert Rota([new, kin("a", 0.1), kin("b", 0.1, failed=1)]).silence_s(new, 0.0, to=b"") is None
    assert Rota([new, kin("a", 0.1), kin("b", 0.12)]).silence_s(new, 0.0, to=b"") == pytest.approx(0.692, abs=0.001)
    assert Rota([new, kin("a", 0.1), kin("b", 0.45)]).silence_s(new, 0.0, to=b"") == 0.9
    other = turn("other", 0.0, settings=FAST)
    assert Rota([other, kin("a", 0.1), kin("b", 0.1)]).silence_s(other, 0.0, to=b"") is None


def test_who_is_known_to_be_slow_is_not_given_up_before_he_would_speak() -> None:
    slow = kin("slow", 1.5, failed=2)
    assert Rota([slow, kin("a", 0.1), kin("b", 0.1)]).silence_s(slow, 0.0, to=b"") == 3.0


def test_at_a_slow_speed_an_m_bus_meter_may_think_for_330_bits() -> None:
    slow = LineSettings(300, 8, "E", 1)
    turns = [turn(name, 0.0, settings=slow) for name in ("new", "a", "b")]
    for one in turns[1:]:
        one.answered, one.first_s = True, 0.2
    assert Rota(turns).silence_s(turns[0], 0.0, to=b"") == pytest.approx(1.933, abs=0.001)


def test_while_nobody_waits_there_is_patience_and_in_each_fourth_poll() -> None:
    def patience(failed: int, *, others_at: float = 0.0) -> float | None:
        doubted, others = turn("x", 0.0, settings=SLOW, failed=failed), [kin("a", 0.1), kin("b", 0.1)]
        for one in others:
            one.next_at = others_at
        return Rota([doubted, *others]).silence_s(doubted, 0.0, to=b"")

    assert [patience(failed) is None for failed in range(7)] == [False, True, False, False, False, True, False]
    assert patience(0, others_at=60.0) is None


def test_a_request_to_which_a_living_meter_was_silent_twice_gets_less_patience_until_it_answers() -> None:
    odd = kin("odd", 0.1)
    rota = Rota([odd, kin("a", 0.1), kin("b", 0.1)])
    odd.was_deaf(b"block")
    assert (odd.is_deaf_to(b"block"), rota.silence_s(odd, 0.0, to=b"block")) == (False, None)
    odd.was_deaf(b"block")
    assert (odd.is_deaf_to(b"block"), rota.silence_s(odd, 0.0, to=b"block") is None) == (True, False)
    assert (odd.is_deaf_to(b"value"), rota.silence_s(odd, 0.0, to=b"value")) == (False, None)
    odd.heard(b"block", 0.2)
    assert (odd.is_deaf_to(b"block"), odd.first_s) == (False, 0.2)
    for n in range(100):
        odd.was_deaf(bytes([n]))
    assert len(odd.deaf_to) == 32


def test_the_dead_use_the_line_while_nobody_else_wants_it() -> None:
    alive, dead = turn("alive", 100.0), turn("dead", 10.0, failed=3)
    rota = Rota([alive, dead])
    rota.failed(dead, took_s=1.5, now=5.0)  # paid for in 28.5 s
    assert rota.next(5.0) == (dead, 5.0)
    assert rota.next(10.0) == (dead, 0.0)
    assert rota.next(10.0)[0] is dead


def test_the_dead_do_not_begin_what_would_keep_a_living_one_waiting() -> None:
    alive, dead = turn("alive", 11.0), turn("dead", 10.0, failed=3)
    rota = Rota([alive, dead])
    rota.failed(dead, took_s=1.5, now=5.0)
    assert rota.next(10.0) == (alive, 1.0)
    alive.next_at = 90.0
    assert rota.next(11.0) == (dead, 0.0)


def test_where_all_are_dead_the_line_is_theirs() -> None:
    one, other = turn("one", 10.0, failed=3), turn("other", 12.0, failed=3)
    rota = Rota([one, other])
    rota.failed(one, took_s=1.5, now=5.0)
    assert rota.next(10.0) == (one, 0.0)


def test_those_with_the_port_s_settings_come_first_but_not_for_ever() -> None:
    slow, fast = [turn(f"s{n}", 1.0, settings=SLOW) for n in (1, 2)], [turn("f", 0.0, settings=FAST)]
    rota = Rota([*slow, *fast])
    order = []
    now = 2.0
    for _ in range(70):
        one, _ = rota.next(now)
        rota.begins(one, now)
        order.append(one.desk.id)
        now += 0.3
        one.next_at = now
    switches = sum(before[0] != after[0] for before, after in pairwise(order))
    assert order[0] == "f"
    assert set(order) == {"f", "s1", "s2"}
    assert switches == 2  # 21 s, each of the two speeds held for 10

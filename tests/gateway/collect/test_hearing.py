"""The deaf times: from when to when, whatever was restarted, set back or refused meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gateway.clock import Boots, Clock, Stamp
from gateway.collect import Hearing
from gateway.collect.hearing import heard_by, last_sign
from gateway.health import Health
from gateway.links.state import LinkState
from gateway.outbox import Mark

ALIVE = Stamp(1_800_000_000_000, 1_000_000, "boot-1", "synced")


def later(seconds: float, stamp: Stamp = ALIVE) -> Stamp:
    ms = int(seconds * 1000)
    return replace(stamp, wall_ms=stamp.wall_ms + ms, mono_ms=stamp.mono_ms + ms)


@dataclass
class Bench:
    """Hearing over a database that can be full."""

    clock: Clock
    full: bool = False
    slow: bool = False
    waiting: list[Callable[[], None]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    marks: dict[tuple[str, str], Mark] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.health = Health(self.clock)

    def store(self, data: Mapping[str, object] | None, at: Stamp, mark: Mark, on_durable: Callable[[], None]) -> bool:
        if self.full:
            return False
        if self.slow:
            self.waiting.append(on_durable)
        else:
            on_durable()
        if data is not None:
            self.gaps.append({**data, "at": at})
        self.marks[mark.device, mark.key] = mark
        return True

    def start(
        self, deaf_since: Stamp = ALIVE, *, links: tuple[tuple[str, str], ...] = (("air", "ble"), ("wire", "serial")),
        radios: tuple[str, ...] = ("air",),
    ) -> Hearing:  # fmt: skip
        hearing = Hearing(
            links, list(self.marks.values()), deaf_since=deaf_since, clock=self.clock,
            health=self.health, store=self.store, radios=radios,
        )  # fmt: skip
        hearing.begin()
        return hearing

    def told(self) -> list[tuple[Any, ...]]:
        """Each gap: link, reason, seconds from ALIVE to its beginning and to its end by the wall clock, dropped."""
        return [
            (one["link"], one["reason"], _seconds(one["from"]), _seconds(one["to"]), one["dropped"])
            for one in self.gaps
        ]


def _seconds(text: str) -> float:
    """Seconds after 2027-01-15T08:00, which is ALIVE."""
    assert text.startswith("2027-01-15T08:")
    return int(text[14:16]) * 60 + float(text[17:23])


@pytest.fixture
def bench(still_clock: Clock) -> Bench:
    return Bench(still_clock)


def hears(link: str, at: Stamp) -> LinkState:
    return LinkState(link, "", hearing=True, at=at)


def deaf(link: str, at: Stamp, problem: str | None = "GW-SER-04", **facts: object) -> LinkState:
    return LinkState(link, "", hearing=False, at=at, problem=problem, facts=facts)


def test_after_a_start_each_link_was_deaf_from_the_last_sign_of_life(bench: Bench) -> None:
    hearing = bench.start()
    hearing.on_state(hears("air", later(3)))
    hearing.on_state(hears("wire", later(4.5)))
    assert bench.told() == [("air", "restart", 0, 3, 0), ("wire", "restart", 0, 4.5, 0)]
    assert bench.gaps[0] == {
        "link": "air", "from": "2027-01-15T08:00:00.000Z", "to": "2027-01-15T08:00:03.000Z", "from_mono_ms": 1_000_000,
        "to_mono_ms": 1_003_000, "from_boot": "boot-1", "reason": "restart", "dropped": 0, "at": later(3),
    }  # fmt: skip


def test_a_link_that_was_lost_is_told_when_it_hears_again_from_when_it_surely_heard(bench: Bench) -> None:
    hearing = bench.start()
    hearing.on_state(hears("wire", later(1)))
    hearing.on_state(deaf("wire", later(10), "GW-SER-04", port="/dev/x"))
    hearing.on_state(deaf("wire", later(10), "GW-SER-01", port="/dev/x"))
    assert bench.told() == [("wire", "restart", 0, 1, 0)]
    hearing.on_state(hears("wire", later(25)))
    assert bench.told()[1:] == [("wire", "link-down", 10, 25, 0)]


def test_the_problem_of_a_link_follows_it(bench: Bench) -> None:
    hearing = bench.start()
    problems = []
    for state in (
        deaf("wire", ALIVE, "GW-SER-01"), deaf("wire", ALIVE, "GW-SER-02"), hears("wire", later(1)),
        deaf("wire", later(2), None),
    ):  # fmt: skip
        hearing.on_state(state)
        problems.append([one.code for one in bench.health.current()])
    assert problems == [["GW-SER-01"], ["GW-SER-02"], [], []]


def test_a_link_that_hears_can_have_a_trouble_that_is_no_gap(bench: Bench) -> None:
    hearing = bench.start()
    problems = []
    for state in (
        hears("air", later(1)), replace(hears("air", later(2)), problem="GW-BLE-10"),
        replace(hears("air", later(3)), problem="GW-BLE-09"), hears("air", later(4)),
    ):  # fmt: skip
        hearing.on_state(state)
        problems.append([one.code for one in bench.health.current()])
    assert problems == [[], ["GW-BLE-10"], ["GW-BLE-09"], []]
    assert bench.told() == [("air", "restart", 0, 1, 0)]


def test_a_deafness_that_is_known_only_when_it_is_over_is_told_whole(bench: Bench) -> None:
    hearing = bench.start()
    hearing.on_state(hears("air", later(1)))
    hearing.on_state(deaf("air", later(100), "GW-BLE-06"))
    hearing.on_state(hears("air", later(162.5)))
    assert bench.told()[1:] == [("air", "link-down", 100, 162.5, 0)]
    assert bench.health.current() == ()


def test_hearing_that_is_told_twice_is_one_gap(bench: Bench) -> None:
    hearing = bench.start()
    hearing.on_state(hears("air", later(1)))
    hearing.on_state(hears("air", later(2)))
    assert len(bench.gaps) == 1


def test_a_link_that_was_deaf_when_the_gateway_died_was_deaf_all_the_while(bench: Bench) -> None:
    """The alive file went on being written: it says that the gateway lived, not that this link heard."""
    hearing = bench.start()
    hearing.on_state(hears("air", later(1)))
    hearing.on_state(hears("wire", later(1)))
    hearing.on_state(deaf("wire", later(60)))
    again = bench.start(deaf_since=later(600))
    again.on_state(hears("air", later(602)))
    again.on_state(hears("wire", later(603)))
    assert bench.told()[2:] == [("air", "restart", 600, 602, 0), ("wire", "link-down", 60, 603, 0)]


def test_a_link_that_never_came_up_was_deaf_over_every_restart(bench: Bench) -> None:
    for seconds in (0, 100, 200, 300):
        bench.start(deaf_since=later(seconds))
    bench.start(deaf_since=later(400)).on_state(hears("wire", later(410)))
    assert bench.told() == [("wire", "restart", 0, 410, 0)]


def test_what_falls_silent_in_an_orderly_end_was_deaf_for_the_restart(bench: Bench) -> None:
    hearing = bench.start()
    hearing.on_state(hears("air", later(1)))
    hearing.end()
    hearing.on_state(deaf("air", later(50), None))
    bench.start(deaf_since=later(49.9)).on_state(hears("air", later(55)))
    assert bench.told()[1:] == [("air", "restart", 50, 55, 0)]


def test_a_clock_that_was_set_changes_no_length(bench: Bench) -> None:
    """Within a boot the boot-time clock measures: the gateway had 1970 when it died, and knows the time now."""
    unsynced = replace(ALIVE, wall_ms=5_000)
    bench.start(deaf_since=unsynced).on_state(hears("air", later(7)))
    assert bench.told() == [("air", "restart", 0, 7, 0)]


def test_over_a_power_cut_the_wall_clock_tells(bench: Bench) -> None:
    bench.start().on_state(hears("air", Stamp(later(90).wall_ms, 20_000, "boot-2")))
    assert bench.told() == [("air", "restart", 0, 90, 0)]


def test_over_a_power_cut_with_a_clock_set_back_the_gap_still_has_this_boot_in_it(bench: Bench) -> None:
    future = replace(ALIVE, wall_ms=ALIVE.wall_ms + 86_400_000)
    bench.start(deaf_since=future).on_state(hears("air", Stamp(later(90).wall_ms, 20_000, "boot-2")))
    assert bench.told() == [("air", "restart", 70, 90, 0)]


def test_what_a_queue_dropped_is_announced_with_its_count(bench: Bench) -> None:
    hearing = bench.start()
    hearing.on_state(hears("air", later(1)))
    hearing.on_overflow("air", 17, first=later(5), last=later(6))
    assert bench.told()[1:] == [("air", "overflow", 5, 6, 17)]


def test_inputs_that_were_refused_are_told_together_once_there_is_room(bench: Bench) -> None:
    hearing = bench.start()
    hearing.on_state(hears("air", later(1)))
    bench.full = True
    for seconds in (5, 5.5, 6):
        hearing.on_refused("air", later(seconds))
    hearing.on_refused("no-such-link", later(6))
    hearing.tick()
    hearing.on_refused("air", later(8))
    bench.full = False
    hearing.tick()
    hearing.tick()
    assert bench.told()[1:] == [("air", "overflow", 5, 8, 4)]


def test_a_gap_that_a_full_queue_refused_is_not_forgotten(bench: Bench) -> None:
    hearing = bench.start()
    bench.full = True
    hearing.on_state(hears("air", later(3)))
    hearing.on_state(deaf("air", later(5)))
    hearing.on_state(hears("air", later(9)))
    assert bench.told() == []
    bench.full = False
    hearing.tick()
    assert bench.told() == [("air", "restart", 0, 9, 0)]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "7",
        "null",
        '{"since":{},"reason":"x"}',
        '{"since":{"wall_ms":"x","mono_ms":1,"boot":""},"reason":"x"}',
    ],
)
def test_a_mark_that_cannot_be_read_leaves_the_last_sign_of_life(bench: Bench, value: str) -> None:
    bench.marks["link:air", "deaf"] = Mark("link:air", "deaf", value)
    bench.start(deaf_since=later(5)).on_state(hears("air", later(6)))
    assert bench.told() == [("air", "restart", 5, 6, 0)]


def test_status_shows_since_when(bench: Bench, still_clock: Any) -> None:
    hearing = bench.start()
    hearing.on_state(hears("air", later(1)))
    hearing.on_state(deaf("wire", ALIVE, "GW-SER-01"))
    still_clock.go_on(11)
    assert hearing.status({"air": 3}) == [
        {"id": "air", "kind": "ble", "hearing": True, "problem": None, "since_s": 10.0, "dropped": 3},
        {"id": "wire", "kind": "serial", "hearing": False, "problem": "GW-SER-01", "since_s": 11.0, "dropped": 0},
    ]


# The last sign of life.

BEGAN = later(1_000)
OTHER_BOOT = Stamp(later(500).wall_ms, 5_000, "boot-0")
THIRD_BOOT = Stamp(later(510).wall_ms, 1_000, "boot-x")
UNSYNCED = replace(ALIVE, wall_ms=0)


@pytest.mark.parametrize(
    ("alive", "recorded", "sign"),
    [
        pytest.param(None, None, BEGAN, id="nothing is known of before"),
        pytest.param(ALIVE, None, ALIVE, id="the alive file"),
        pytest.param(None, ALIVE, ALIVE, id="the database"),
        pytest.param(later(10), ALIVE, later(10), id="the alive file is the newer"),
        pytest.param(ALIVE, later(1.9), ALIVE, id="a record of the same second says nothing more"),
        pytest.param(ALIVE, later(30), later(30), id="a power cut left the file behind"),
        pytest.param(later(900), OTHER_BOOT, later(900), id="of two boots the one that goes on"),
        pytest.param(OTHER_BOOT, later(1), later(1), id="also when the file is of the other"),
        pytest.param(UNSYNCED, later(-5), UNSYNCED, id="within a boot the wall clock does not count"),
        pytest.param(OTHER_BOOT, THIRD_BOOT, THIRD_BOOT, id="else the wall clock"),
        pytest.param(Stamp("x", 1, ""), ALIVE, ALIVE, id="a torn file"),  # type: ignore[arg-type]  # as JSON gives it
        pytest.param(Stamp(10**30, 1, ""), None, BEGAN, id="a moment that no clock shows"),
    ],
)  # fmt: skip
def test_the_last_sign_of_life(alive: Stamp | None, recorded: Stamp | None, sign: Stamp) -> None:
    assert last_sign(alive, recorded, began=BEGAN, tolerance_ms=2_000) == sign


def test_no_sign_of_life_may_be_later_than_a_deaf_time_that_the_disk_has_not_taken(bench: Bench) -> None:
    """Killed before it is stored, the next start tells the deaf time from its beginning."""
    bench.slow = True
    hearing = bench.start()
    assert hearing.not_durable_since == ALIVE
    hearing.on_state(hears("air", later(3)))
    hearing.on_state(hears("wire", later(4)))
    assert hearing.not_durable_since == ALIVE
    for on_durable in bench.waiting:
        on_durable()
    assert hearing.not_durable_since is None


def test_a_gap_that_a_full_queue_refused_holds_the_sign_of_life_too(bench: Bench) -> None:
    hearing = bench.start()
    bench.full = True
    hearing.on_state(hears("air", later(3)))
    assert hearing.not_durable_since == ALIVE
    bench.full = False
    hearing.tick()
    assert hearing.not_durable_since is None


def test_a_boot_before_this_one_is_earlier_whatever_its_clock_says(bench: Bench) -> None:
    before = replace(ALIVE, boot="before", mono_ms=10**12)
    bench.slow = True
    assert bench.start(before).not_durable_since == before


def test_of_two_boots_before_this_one_their_order_tells_and_not_the_wall_clock() -> None:
    boots = Boots()
    for boot in ("boot-x", "boot-0", BEGAN.boot):
        boots.begin(boot, floor_ms=0)
    assert THIRD_BOOT.wall_ms > OTHER_BOOT.wall_ms
    for alive, recorded in ((OTHER_BOOT, THIRD_BOOT), (THIRD_BOOT, OTHER_BOOT)):
        assert last_sign(alive, recorded, began=BEGAN, tolerance_ms=2_000, boots=boots) == OTHER_BOOT


def test_an_event_that_was_stored_proves_nothing_of_another_link_for_the_tick_before_it() -> None:
    """Soon after a start the adverts of a radio lie unread while a press on a line is stored already."""
    stored = Stamp(1_800_000_005_000, 5_000, "boot", "synced")
    assert heard_by(stored) == Stamp(1_800_000_004_000, 4_000, "boot", "synced")
    assert heard_by(Stamp(1_800_000_000_400, 400, "boot", "synced")) == Stamp(1_799_999_999_400, 0, "boot", "synced")
    assert heard_by(None) is None


# Several radios on the same air.

RADIOS = (("hall", "ble"), ("stairs", "ble"), ("wire", "serial"))


def test_the_gap_of_one_radio_names_the_others_that_heard_during_all_of_it(bench: Bench) -> None:
    hearing = bench.start(links=RADIOS, radios=("hall", "stairs"))
    for name, _kind in RADIOS:
        hearing.on_state(hears(name, later(1)))
    hearing.on_state(deaf("hall", later(10)))
    hearing.on_state(hears("hall", later(20)))
    # While both are away at the same time for a while, neither stands in for the other.
    hearing.on_state(deaf("hall", later(30)))
    hearing.on_state(deaf("stairs", later(35)))
    hearing.on_state(hears("hall", later(40)))
    hearing.on_state(hears("stairs", later(41)))
    # One that came back in time stands in.
    hearing.on_state(deaf("stairs", later(50)))
    hearing.on_state(hears("stairs", later(51)))
    hearing.on_state(deaf("wire", later(60)))
    hearing.on_state(hears("wire", later(61)))
    assert [(one["link"], one["reason"], one.get("others_hearing")) for one in bench.gaps] == [
        ("hall", "restart", []), ("stairs", "restart", []), ("wire", "restart", None),
        ("hall", "link-down", ["stairs"]), ("hall", "link-down", []), ("stairs", "link-down", []),
        ("stairs", "link-down", ["hall"]), ("wire", "link-down", None),
    ]  # fmt: skip


def test_the_gap_of_the_only_radio_speaks_of_no_others(bench: Bench) -> None:
    hearing = bench.start()
    hearing.on_state(hears("air", later(1)))
    assert "others_hearing" not in bench.gaps[0]

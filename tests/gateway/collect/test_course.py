"""No single garbled reading moves a register, and none that was believed keeps true ones out."""

from __future__ import annotations

from decimal import Decimal

import pytest

from drivers.kit import QUANTITIES
from gateway.clock import SYNCED, UNSYNCED, Stamp
from gateway.collect.course import Course, Ruling, Shown, most_an_hour

QUARTER_MS = 900_000
ENERGY = "energy_active_import"


def at(n: float, *, boot: str = "boot", clock: str = SYNCED) -> Stamp:
    """So many quarters of an hour after the beginning."""
    ms = int(n * QUARTER_MS)
    return Stamp(1_790_000_000_000 + ms, ms, boot, clock)


def judged(*values: str, quantity: str = ENERGY, every: float = 1) -> tuple[list[str], Decimal]:
    """Return how each reading but the first is judged, and where the register stands in the end."""
    course = Course(Shown(Decimal(values[0]), at(0)))
    rulings = [
        course.judge(quantity, Decimal(value), at(n * every)).ruling.value for n, value in enumerate(values[1:], 1)
    ]
    return rulings, course.last.value


@pytest.mark.parametrize(
    ("values", "rulings", "stands"),
    [
        # A bit that flipped upwards: one reading, and the true ones go on.
        (("5000.0", "305000.1", "5000.2"), ["unconfirmed", "grown"], "5000.2"),
        # Two in a row that say the same: it is what the dial shows now.
        (("5000.0", "305000.1", "305000.2"), ["unconfirmed", "jumped"], "305000.2"),
        # Two that flipped differently say nothing, whichever is higher.
        (("5000.0", "305000.1", "85000.1", "5000.3"), ["unconfirmed", "unconfirmed", "grown"], "5000.3"),
        (("5000.0", "85000.1", "305000.1", "5000.3"), ["unconfirmed", "unconfirmed", "grown"], "5000.3"),
        # A flip that could be: believed, and taken back by the next two.
        (("5000.0", "5080.1", "5000.2", "5000.3"), ["grown", "held", "withdrawn"], "5000.3"),
        # One low reading among true ones changes nothing.
        (("5000.0", "5000.1", "1000.2", "5000.3"), ["grown", "held", "grown"], "5000.3"),
        # It really shows less: held, however often.
        (("5000.0", "5000.1", "0.1", "0.2", "0.3"), ["grown", "held", "held", "held"], "5000.1"),
        # What was believed by several readings is not withdrawn.
        (("5000.0", "5080.1", "5080.2", "5000.3", "5000.4"), ["grown", "grown", "held", "held"], "5080.2"),
        # It begins anew at its end, where two readings say so.
        (("999999.1", "999999.9", "0.4", "0.5"), ["grown", "unconfirmed", "rolled"], "0.5"),
        (("999999.1", "999999.9", "0.0", "999999.9"), ["grown", "unconfirmed", "grown"], "999999.9"),
    ],
)
def test_a_register_goes_where_two_readings_say(values: tuple[str, ...], rulings: list[str], stands: str) -> None:
    assert judged(*values) == (rulings, Decimal(stands))


def test_what_a_site_really_takes_is_believed_however_much_it_is() -> None:
    rulings, stands = judged("0", "400", "800", "1200", "1600", "2000")
    assert rulings == ["unconfirmed", "unconfirmed", "grown", "grown", "grown"]
    assert stands == 2000


def test_steps_of_no_common_rate_are_not_what_a_site_takes() -> None:
    assert judged("0", "400", "5000", "90000")[0] == ["unconfirmed"] * 3


def test_how_much_can_be_depends_on_how_long_it_was() -> None:
    assert judged("5000", "5250")[0] == ["grown"]
    assert judged("5000", "5251")[0] == ["unconfirmed"]
    assert judged("5000", "77000", every=4 * 72)[0] == ["grown"]  # three days at the most that can be
    assert judged("5000", "5200", every=0.001)[0] == ["grown"]  # a meter that renews what it shows every quarter


def test_after_a_boot_nobody_knows_how_long_it_was_unless_both_clocks_were_trusted() -> None:
    for before, after, ruling in (
        (SYNCED, SYNCED, Ruling.UNCONFIRMED), (SYNCED, UNSYNCED, Ruling.GROWN), (UNSYNCED, SYNCED, Ruling.GROWN),
    ):  # fmt: skip
        course = Course(Shown(Decimal(5000), at(0, clock=before)))
        assert course.judge(ENERGY, Decimal(9000), at(1, boot="next", clock=after)).ruling is ruling
    course = Course(Shown(Decimal(5000), at(5)))
    assert course.judge(ENERGY, Decimal(9000), at(1, boot="next")).ruling is Ruling.GROWN  # the clock was set back


def test_a_count_without_a_unit_may_grow_by_any_amount() -> None:
    assert judged("5", "5000000", quantity="heat_cost_units")[0] == ["grown"]


def test_every_register_that_is_billed_by_amount_has_a_most_and_joules_their_own() -> None:
    without = {name for name, one in QUANTITIES.items() if one.cumulative and most_an_hour(name) is None}
    assert without == {"count", "heat_cost_units"}
    assert {QUANTITIES[name].unit: most_an_hour(name) for name in ("energy_heat", "energy_heat_joule")} == {
        "kWh": Decimal(5_000), "GJ": Decimal(18),
    }  # fmt: skip
    assert most_an_hour("volume_gas") == 400
    assert most_an_hour("volume_hot_water") == 200


def test_a_meter_that_renews_what_it_shows_once_a_day_is_believed() -> None:
    day = ["1000"] * 96 + ["4000"] * 96 + ["7000"] * 3
    assert set(judged(*day, quantity="energy_heat")[0]) == {"grown"}


def test_a_flip_at_a_meter_that_stands_still_is_taken_back() -> None:
    rulings, stands = judged(*["1000.0"] * 40, "9000.0", "1000.0", "1000.1")
    assert (rulings[-3:], stands) == (["grown", "held", "withdrawn"], Decimal("1000.1"))

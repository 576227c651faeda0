"""What is known of a time: put right after the synchronisation, bounded where there was none, and how old something is."""

from __future__ import annotations

import pytest

from gateway.clock import Boot, Boots, Stamp, Told

NOON = 1_800_000_000_000
YEAR_MS = 365 * 86_400_000


def three_boots() -> Boots:
    """The first was synchronised, the second never, the third is the present one."""
    boots = Boots()
    boots.begin("first", floor_ms=NOON - 1_000_000)
    boots.synced("first", offset_ms=NOON)
    boots.begin("second", floor_ms=NOON + 60_000)
    boots.begin("third", floor_ms=NOON + 60_000)
    return boots


def test_what_was_stored_before_the_synchronisation_is_put_right_by_the_offset_of_its_boot() -> None:
    boots = three_boots()
    assert boots.told(Stamp(12_345, 7_000, "first", "unsynced")) == Told(NOON + 7_000, "corrected", NOON)
    assert boots.told(Stamp(12_345, 7_000, "first", "floored")) == Told(NOON + 7_000, "corrected", NOON)


def test_what_was_stored_with_a_synchronised_clock_stays() -> None:
    assert three_boots().told(Stamp(NOON + 7_001, 7_000, "first", "synced")) == Told(NOON + 7_001, "synced", NOON + 1)


def test_a_boot_that_never_was_synchronised_is_bounded_by_its_neighbours() -> None:
    boots = three_boots()
    at = Stamp(NOON + 50, 9_000, "second", "unsynced")
    assert boots.told(at) == Told(NOON + 50, "unsynced", None, NOON + 69_000, None)
    boots.synced("third", offset_ms=NOON + 400_000)
    assert boots.told(at) == Told(NOON + 50, "unsynced", None, NOON + 69_000, NOON + 400_000)


def test_of_a_boot_that_nobody_remembers_nothing_is_known() -> None:
    assert three_boots().told(Stamp(5, 6, "other", "unsynced")) == Told(5, "unsynced")


def test_two_boots_that_shared_the_same_minutes_are_told_apart() -> None:
    """After a power cut without a clock chip the second boot began at the wall time of the first."""
    boots = Boots()
    boots.begin("a", floor_ms=NOON)
    boots.begin("b", floor_ms=NOON)
    boots.synced("a", offset_ms=NOON + 10)
    boots.synced("b", offset_ms=NOON + 7_200_000)
    first, second = (boots.told(Stamp(NOON + 500, 500, boot, "unsynced")).wall_ms for boot in ("a", "b"))
    assert (first, second) == (NOON + 510, NOON + 7_200_500)


@pytest.mark.parametrize(
    ("at", "now", "age_ms", "least_ms"),
    [
        pytest.param(
            Stamp(NOON + 10**12, 1_000, "third", "unsynced"), Stamp(5, 61_000, "third", "floored"), 60_000, 60_000,
            id="within a boot no wall clock counts",
        ),
        pytest.param(
            Stamp(1, 1_000, "first", "unsynced"), Stamp(NOON + 90_000, 500, "third", "synced"), 89_000, 89_000,
            id="both ends are trusted",
        ),
        pytest.param(
            Stamp(NOON + 1_000, 1_000, "first", "synced"), Stamp(NOON + 90_000, 500, "third", "unsynced"), None, 500,
            id="the present is not trusted",
        ),
        pytest.param(
            Stamp(NOON + 1_000, 1_000, "second", "unsynced"), Stamp(NOON + 90_000, 500, "third", "synced"), None, 500,
            id="the past is not trusted",
        ),
    ],
)  # fmt: skip
def test_an_age_is_told_only_where_it_is_known(at: Stamp, now: Stamp, age_ms: int | None, least_ms: int) -> None:
    boots = three_boots()
    assert (boots.age_ms(at, now), boots.least_age_ms(at, now)) == (age_ms, least_ms)


def test_the_table_comes_back_as_it_was_stored() -> None:
    boots = Boots()
    boots.load(three_boots().text())
    assert boots.text() == (
        '[{"boot":"first","floor_ms":1799999000000,"offset_ms":1800000000000},'
        '{"boot":"second","floor_ms":1800000060000,"offset_ms":null},'
        '{"boot":"third","floor_ms":1800000060000,"offset_ms":null}]'
    )
    assert (boots.floor_of("third"), boots.floor_of("fourth"), Boots().floor_of("any")) == (
        NOON + 60_000,
        NOON + 60_000,
        0,
    )


@pytest.mark.parametrize("text", ["", "{", "7", "[7]", '[{"boot":"a"}]', '[{"boot":"a","floor_ms":"x"}]', "null"])
def test_a_table_that_cannot_be_read_is_no_reason_not_to_start(text: str) -> None:
    boots = Boots()
    boots.load(text)
    assert boots.text() == "[]"


def test_the_last_256_boots_are_kept() -> None:
    boots = Boots()
    for n in range(300):
        assert boots.begin(f"boot-{n}", floor_ms=n)
    assert not boots.begin("boot-299", floor_ms=5)
    assert boots["boot-43"] is None
    assert boots["boot-44"] is not None


def test_a_table_that_could_be_read_only_later_joins_what_came_since() -> None:
    boots = Boots()
    boots.begin("third", floor_ms=5)
    boots.begin("fourth", floor_ms=NOON + 70_000)
    stored = three_boots()
    stored.synced("third", offset_ms=NOON + 400_000)
    boots.recall(stored.text())
    assert boots["third"] == Boot("third", NOON + 60_000, NOON + 400_000)
    assert boots.told(Stamp(1, 9_000, "second", "unsynced")).not_after_ms == NOON + 400_000
    before = boots.text()
    boots.recall("{")
    boots.recall("")
    assert boots.text() == before


def test_what_only_a_platform_told_is_no_floor_until_a_synchronisation_stands_by_it() -> None:
    boots = three_boots()
    boots.begin("fourth", floor_ms=NOON + 70_000)
    boots.synced("fourth", offset_ms=NOON + YEAR_MS, is_told=True)
    again = Boots()
    again.load(boots.text())
    assert again["fourth"] == Boot("fourth", NOON + 70_000, NOON + YEAR_MS, is_told=True)
    assert again.told(Stamp(1, 9_000, "fourth", "unsynced")).wall_ms == NOON + YEAR_MS + 9_000
    assert again.floor_of("fifth") == NOON + 70_000
    again.recall(three_boots().text())
    assert again.floor_of("fifth") == NOON + 70_000
    again.synced("fourth", offset_ms=NOON + YEAR_MS)
    assert again.floor_of("fifth") == NOON + YEAR_MS
    assert "is_told" not in again.text()

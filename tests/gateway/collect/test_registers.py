"""Registers are money: growing, rolling over, of another meter, held, and never silently anything else."""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from drivers.kit import Answers, Ask, Observation, Reading, Title
from drivers.kit.framing import LineFramer
from gateway.clock import FLOORED, SYNCED, UNSYNCED, Stamp
from gateway.collect import Desk
from gateway.collect.registers import MAX_TOLD_A_DAY, Registers, Taken

DAY_MS = 86_400_000
NOON = int(datetime(2026, 11, 3, 12, tzinfo=UTC).timestamp() * 1000)
ENERGY = "energy_active_import"


def day_of(wall_ms: int) -> date:
    return datetime.fromtimestamp(wall_ms / 1000, UTC).date()


def _talk(_target: str) -> Generator[Ask, bytes, tuple[Observation, ...]]:
    yield Ask(b"", lambda _frame: True)
    return ()


DRIVER = Answers("meter", Title("", ""), LineFramer, lambda address, raw: address, _talk, ())


def desk(**changes: Any) -> Desk:
    return Desk("m1", "meter", "bus", "1", "", "", DRIVER, None, wired=True, **changes)


def kwh(value: str, channel: str = "", when: datetime | None = None) -> Reading:
    return Reading(ENERGY, Decimal(value), channel, when)


class Site:
    """One meter under watch; `poll` moves the time and gives what follows."""

    def __init__(self, desk: Desk) -> None:
        self.registers = Registers(day_of=day_of)
        self.desk = desk
        self.ms = NOON

    def poll(self, *readings: Reading, after_ms: int = 900_000, clock: str = SYNCED) -> Taken:
        self.ms += after_ms
        at = Stamp(self.ms, self.ms - NOON, "boot", clock)
        return self.registers.take(self.desk, readings, at, now=(self.ms - NOON) / 1000)


@pytest.fixture
def site() -> Site:
    return Site(desk(meter_number="000000193600"))


def rows(taken: Taken) -> list[tuple[str, str, Any]]:
    return [(one.day, one.kind, json.loads(one.doc)) for one in taken.days]


def test_the_first_reading_of_each_day_is_kept_with_the_meter_s_number(site: Site) -> None:
    taken = site.poll(kwh("36.30"), kwh("2.56", "T1"), Reading("voltage", Decimal("231.0"), "A"))
    assert rows(taken) == [
        (
            "2026-11-03",
            "read",
            {"t": NOON + 900_000, "meter": "000000193600", "r": {ENERGY: "36.30", f"{ENERGY} T1": "2.56"}},
        )
    ]
    assert taken.more == {}
    assert taken.told == []
    assert site.poll(kwh("36.40")).days == []
    assert [one[:2] for one in rows(site.poll(kwh("37.00"), after_ms=DAY_MS))] == [("2026-11-04", "read")]


def test_a_register_that_runs_backwards_is_held_and_told_once_a_day_until_it_has_caught_up(site: Site) -> None:
    site.poll(kwh("99.995"))
    site.poll(kwh("100.00"))
    taken = site.poll(kwh("99.99"))
    assert [one.value for one in taken.readings] == [Decimal("99.99")]
    assert taken.more == {(ENERGY, ""): ',"quality":"held","highest":"100.00"'}
    assert taken.told == [
        (
            "device.fault",
            {"kind": "register-backwards", "quantity": ENERGY, "channel": "", "value": "99.99", "highest": "100.00"},
        )
    ]
    assert [one[1] for one in rows(taken)] == ["held"]
    again = site.poll(kwh("99.99"))
    assert again.told == []
    assert again.more != {}
    assert [one[1] for one in rows(site.poll(kwh("50.00"), after_ms=DAY_MS))] == ["held"]  # no row of the bill
    caught_up = site.poll(kwh("100.01"))
    assert caught_up.more == {}
    assert [one[1] for one in rows(caught_up)] == ["read"]


def test_one_register_that_is_held_does_not_hold_the_others(site: Site) -> None:
    site.poll(kwh("100.00"), kwh("60.00", "T1"))
    taken = site.poll(kwh("101.00"), kwh("6.00", "T1"), after_ms=DAY_MS)
    assert taken.more == {(ENERGY, "T1"): ',"quality":"held","highest":"60.00"'}
    assert [one[2]["r"] for one in rows(taken) if one[1] == "read"] == [{ENERGY: "101.00"}]


@pytest.mark.parametrize(
    ("last", "first", "rolls"),
    [
        ("999999.10", "0.40", True),
        ("99999.90", "1.00", True),
        ("9999.90", "0.10", False),  # a meter with four digits does not exist: it was cleared, or it is another one
        ("980000.00", "0.40", False),
        ("999999.10", "20000.00", False),
    ],
)
def test_a_register_rolls_over_at_its_end_only(site: Site, last: str, first: str, *, rolls: bool) -> None:
    site.poll(kwh(last))
    site.poll(kwh(last))
    taken = site.poll(kwh(first))
    assert [one[1] for one in rows(taken)] == ["unconfirmed" if rolls else "held"]
    assert site.registers.last("m1")[2][ENERGY] == Decimal(last)  # one reading alone may be garbled
    taken = site.poll(kwh(first))
    assert [one[1] for one in rows(taken)] == (["rollover"] if rolls else [])
    assert site.registers.last("m1")[2][ENERGY] == Decimal(first if rolls else last)


def test_a_register_that_has_counted_past_a_hundredth_when_it_is_read_again_has_rolled_over(site: Site) -> None:
    """One reading a day of a centre that takes 800 kWh."""
    site.poll(kwh("99500"))
    assert site.poll(kwh("300"), after_ms=DAY_MS).more == {(ENERGY, ""): ',"quality":"unconfirmed","highest":"99500"'}
    taken = site.poll(kwh("1100"), after_ms=DAY_MS)
    assert taken.more == {(ENERGY, ""): ',"rollover":true'}
    assert [one[1] for one in rows(taken)] == ["rollover", "read"]


def test_a_rollover_is_believed_though_the_gateway_restarts_between_any_two_readings(site: Site) -> None:
    site.poll(kwh("99900"))
    taken = site.poll(kwh("10"), after_ms=DAY_MS)
    assert taken.mark is not None
    site.registers = Registers(day_of=day_of)
    site.registers.load([taken.mark])
    assert [one[1] for one in rows(site.poll(kwh("110"), after_ms=DAY_MS))] == ["rollover", "read"]


def test_each_register_of_a_meter_that_pushes_them_one_by_one_has_its_row_of_the_day(site: Site) -> None:
    taken = [site.poll(kwh("5", f"T{n}"), after_ms=1000) for n in range(40)]
    kept = [name for one in taken for _day, _kind, doc in rows(one) for name in doc["r"]]
    assert kept == [f"{ENERGY} T{n}" for n in range(40)]


def test_rows_that_a_full_queue_refused_go_with_the_next_reading(site: Site) -> None:
    site.poll(kwh("90000"))
    site.desk.meter_number = "000000193601"
    refused = site.poll(kwh("5"), after_ms=DAY_MS)
    site.registers.refused("m1", refused.days)
    taken = site.poll(kwh("6"))
    assert [one[1] for one in rows(taken)] == ["swap", "read"]
    assert taken.days == refused.days
    assert taken.mark is not None
    assert site.poll(kwh("7")).days == []


def test_another_number_is_another_meter_and_told_with_both_ends(site: Site) -> None:
    site.poll(kwh("5000.00"))
    site.desk.meter_number = "000000200001"
    taken = site.poll(kwh("0.10"))
    assert taken.told == [
        (
            "device.birth",
            {
                "kind": "meter-swapped",
                "old": "000000193600",
                "new": "000000200001",
                "last": {ENERGY: "5000.00"},
            },
        )
    ]
    assert taken.more == {}
    ((_, kind, doc),) = rows(taken)
    assert (kind, doc["last"], doc["first"]) == ("swap", {ENERGY: "5000.00"}, {ENERGY: "0.10"})
    assert site.registers.last("m1")[0] == "000000200001"


def test_what_is_behind_transformers_is_published_as_it_flows_with_the_dial_beside_it() -> None:
    site = Site(desk(ct=Decimal(20), pt=Decimal(100)))
    taken = site.poll(
        kwh("1.50"), Reading("current", Decimal("2.5"), "A"), Reading("voltage", Decimal("57.7"), "A"),
        Reading("frequency", Decimal("50.00")),
    )  # fmt: skip
    assert [one.value for one in taken.readings] == [
        Decimal("3000.00"), Decimal("50.0"), Decimal("5770.0"), Decimal("50.00"),
    ]  # fmt: skip
    assert taken.more == {
        (ENERGY, ""): ',"raw":"1.50","ratio":"2000"',
        ("current", "A"): ',"raw":"2.5","ratio":"20"',
        ("voltage", "A"): ',"raw":"57.7","ratio":"100"',
    }
    ((_, _, doc),) = rows(taken)
    assert (doc["r"], doc["ratio"]) == ({ENERGY: "1.50"}, "2000")


def test_after_an_outage_the_meter_s_own_midnights_are_wanted_once(site: Site) -> None:
    site.poll(kwh("10.00"))
    assert site.registers.missing("m1") == 0
    site.poll(kwh("20.00"), after_ms=3 * DAY_MS)
    assert site.registers.missing("m1") == 3
    site.registers.asked("m1")
    assert site.registers.missing("m1") == 0


def test_a_day_that_begins_with_a_reading_soon_after_midnight_needs_no_midnight_of_the_meter(site: Site) -> None:
    site.poll(kwh("10.00"), after_ms=11 * 3_600_000)  # 23:00
    site.poll(kwh("10.10"), after_ms=3_600_000 + 600_000)  # 00:10
    assert site.registers.missing("m1") == 0
    site.poll(kwh("10.20"), after_ms=DAY_MS + 3 * 3_600_000)  # 03:10 of the next day
    assert site.registers.missing("m1") == 1


def test_what_the_meter_froze_is_kept_under_its_day_and_marked_and_moves_nothing_else(site: Site) -> None:
    site.poll(kwh("30.00"))
    when = datetime(2026, 11, 2, 0, 0, tzinfo=UTC)
    taken = site.poll(kwh("30.10"), kwh("21.00", "D1", when), kwh("4.00", "T1/D1", when), kwh("25.00", "S1"))
    assert rows(taken) == [
        (
            "2026-11-02",
            "freeze",
            {
                "time": "2026-11-02T00:00:00+00:00",
                "meter": "000000193600",
                "r": {ENERGY: "21.00", f"{ENERGY} T1": "4.00"},
            },
        )
    ]
    assert taken.more == {(ENERGY, "D1"): ',"quality":"freeze"', (ENERGY, "T1/D1"): ',"quality":"freeze"'}
    assert site.registers.last("m1")[2] == {ENERGY: Decimal("30.10")}


def test_a_clock_that_nobody_knows_dates_no_row(site: Site) -> None:
    assert site.poll(kwh("30.00"), clock=FLOORED).days == []
    assert [one[1] for one in rows(site.poll(kwh("30.10")))] == ["read"]


def test_what_was_remembered_survives_a_restart(site: Site) -> None:
    mark = site.poll(kwh("5000.00")).mark
    assert mark is not None
    site.registers = Registers(day_of=day_of)
    site.registers.load([mark])
    assert [one[0] for one in site.poll(kwh("4999.00")).told] == ["device.fault"]


@pytest.mark.parametrize("value", ["", "[]", "{}", '{"number":"1","last":{"x":"y"},"ms":1,"day":""}'])
def test_a_mark_that_cannot_be_read_is_none(value: str) -> None:
    from gateway.outbox import Mark

    registers = Registers(day_of=day_of)
    registers.load([Mark("m1", "registers", value)])
    assert registers.last("m1") == ("", 0, {})


def test_a_mark_is_not_stored_with_every_poll(site: Site) -> None:
    marks = [site.poll(kwh(f"{100 + n}.00"), after_ms=60_000).mark is not None for n in range(31)]
    assert marks.count(True) == 3  # at once, and after each quarter of an hour


def dial(site: Site, shown: str) -> tuple[Any, Taken]:
    doc, taken = site.registers.dial(site.desk, {ENERGY: Decimal(shown)}, "li", Stamp(site.ms, 0, "boot", SYNCED))
    return doc["registers"][ENERGY], taken


def test_the_dial_is_stored_with_the_difference_and_ends_a_hold_where_it_shows_the_same(site: Site) -> None:
    site.poll(kwh("100.00"))
    site.poll(kwh("12.00"))
    row, taken = dial(site, "12.05")
    assert row == {"dial": "12.05", "read": "12.00", "difference": "0.05", "from": "100.00", "to": "12.00"}
    assert [one[1] for one in rows(taken)] == ["dial"]
    assert taken.mark is not None
    assert site.poll(kwh("12.06")).more == {}


def test_a_slip_of_the_finger_moves_no_register(site: Site) -> None:
    site.poll(kwh("100.00"))
    site.poll(kwh("100.00"))
    assert dial(site, "1000.0")[0] == {"dial": "1000.0", "read": "100.00", "difference": "900.00"}
    assert site.registers.last("m1")[2] == {ENERGY: Decimal("100.00")}
    site.poll(kwh("12.00"))
    assert "to" not in dial(site, "120.0")[0]
    assert site.poll(kwh("12.06")).more != {}


def test_a_meter_that_rolls_over_all_day_fills_no_store(site: Site) -> None:
    count = 0
    for n in range(120):
        taken = site.poll(kwh("999999.90" if n % 4 < 2 else "0.10"), after_ms=1000)
        count += sum(one.kind == "rollover" for one in taken.days)
    assert count == MAX_TOLD_A_DAY


@pytest.mark.parametrize(
    ("quantity", "ratio"),
    [
        ("energy_active_import", 2000),
        ("energy_harmonic_export", 2000),
        ("energy_iron_loss", 2000),
        ("demand_active_import", 2000),
        ("demand_apparent_export", 2000),
        ("power_reactive_demand", 2000),
        ("power_active_minute", 2000),
        ("current", 20),
        ("voltage", 100),
        ("current_harmonic", 1),
        ("current_distortion", 1),
        ("voltage_harmonic", 1),
        ("power_factor", 1),
        ("energy_credit", 1),
        ("energy_heat", 1),
        ("meter_price", 1),
        ("meter_phase_angle", 1),
    ],
)
def test_only_what_flows_through_transformers_is_multiplied(quantity: str, ratio: int) -> None:
    assert desk(ct=Decimal(20), pt=Decimal(100)).ratio(quantity) == ratio


def test_a_jump_that_cannot_be_waits_for_a_second_reading_and_is_published_as_unconfirmed(site: Site) -> None:
    site.poll(kwh("5000.0"))
    taken = site.poll(kwh("305000.1"))
    assert taken.more == {(ENERGY, ""): ',"quality":"unconfirmed","highest":"5000.0"'}
    assert taken.told == [
        (
            "device.fault",
            {
                "kind": "register-unconfirmed",
                "quantity": ENERGY,
                "channel": "",
                "value": "305000.1",
                "highest": "5000.0",
            },
        )
    ]
    assert [one[1] for one in rows(taken)] == ["unconfirmed"]
    assert rows(site.poll(kwh("5000.2"))) == []
    assert rows(site.poll(kwh("5003.0"), after_ms=DAY_MS))[0][2]["r"] == {ENERGY: "5003.0"}


def test_a_jump_that_is_confirmed_is_told_and_kept_with_both_ends(site: Site) -> None:
    site.poll(kwh("5000.0"))
    site.poll(kwh("305000.1"))
    taken = site.poll(kwh("305000.3"))
    assert taken.told == [
        (
            "device.fault",
            {
                "kind": "register-jumped", "quantity": ENERGY, "channel": "", "value": "305000.3", "from": "5000.0",
                "to": "305000.1",
            },
        )
    ]  # fmt: skip
    assert [(one[1], one[2]["register"], one[2]["from"], one[2]["to"]) for one in rows(taken)] == [
        ("jump", ENERGY, "5000.0", "305000.1")
    ]
    assert taken.more == {}


def test_what_was_falsely_believed_is_withdrawn_and_the_day_gets_a_true_reading(site: Site) -> None:
    site.poll(kwh("5000.0"))
    spike = site.poll(kwh("5080.1"), after_ms=DAY_MS)
    assert [one[1] for one in rows(spike)] == ["read"]
    site.poll(kwh("5003.1"))
    taken = site.poll(kwh("5003.2"))
    (_, kind, withdrawn), (_, more, doc) = rows(taken)
    assert (kind, withdrawn["withdrawn"], withdrawn["of"]) == ("withdrawn", "5080.1", rows(spike)[0][2]["t"])
    assert (more, doc["r"]) == ("more", {ENERGY: "5003.2"})
    assert [(noun, data["kind"], data["withdrawn"]) for noun, data in taken.told] == [
        ("device.fault", "register-withdrawn", "5080.1")
    ]


def test_a_register_that_was_not_in_the_first_reading_of_a_day_follows_with_its_own(site: Site) -> None:
    site.poll(kwh("100.00"), kwh("60.00", "T1"))
    first = site.poll(kwh("101.00"), after_ms=DAY_MS)  # T1 was not answered
    assert [(one[1], one[2]["r"]) for one in rows(first)] == [("read", {ENERGY: "101.00"})]
    second = site.poll(kwh("101.10"), kwh("61.00", "T1"))
    assert [(one[1], one[2]["r"]) for one in rows(second)] == [("more", {f"{ENERGY} T1": "61.00"})]
    assert rows(site.poll(kwh("101.20"), kwh("61.10", "T1"))) == []


def test_a_register_that_is_missing_in_a_day_is_remembered_over_a_restart(site: Site) -> None:
    site.poll(kwh("100.00"), kwh("60.00", "T1"))
    mark = site.poll(kwh("101.00"), after_ms=DAY_MS).mark
    assert mark is not None
    site.registers = Registers(day_of=day_of)
    site.registers.load([mark])
    assert [one[1] for one in rows(site.poll(kwh("101.10"), kwh("61.00", "T1")))] == ["more"]


def test_a_ratio_that_is_changed_is_told_with_what_was_read_under_the_old_one() -> None:
    site = Site(desk(ct=Decimal(20)))
    site.poll(kwh("100.00"))
    mark = site.poll(kwh("101.00"), after_ms=DAY_MS).mark
    assert mark is not None
    site.desk.ct = Decimal(40)
    site.registers = Registers(day_of=day_of)
    site.registers.load([mark])
    taken = site.poll(kwh("101.50"))
    assert taken.told == [
        ("device.birth", {"kind": "ratio-changed", "old": "20", "new": "40", "last": {ENERGY: "101.00"}})
    ]
    ((_, kind, doc),) = rows(taken)
    assert (kind, doc["old"], doc["new"], doc["r"], doc["ratio"]) == ("ratio", "20", "40", {ENERGY: "101.00"}, "20")
    assert taken.readings[0].value == Decimal(2030) * 2
    assert site.poll(kwh("101.60")).told == []


def test_what_happened_while_nobody_knew_the_time_is_dated_when_somebody_does(site: Site) -> None:
    mark = site.poll(kwh("5000.00")).mark
    assert mark is not None
    site.registers = Registers(day_of=day_of)
    site.registers.load([mark])
    site.desk.meter_number = "000000200001"
    taken = site.poll(kwh("3.00"), clock=FLOORED)
    assert (taken.days, taken.mark is not None) == ([], True)
    assert taken.mark is not None
    site.registers = Registers(day_of=day_of)  # ends once more before the time is known
    site.registers.load([taken.mark])
    taken = site.poll(kwh("3.50"), after_ms=2 * DAY_MS)
    assert [one[:2] for one in rows(taken)] == [("2026-11-05", "swap"), ("2026-11-05", "read")]
    assert (rows(taken)[0][2]["last"], rows(taken)[0][2]["first"]) == ({ENERGY: "5000.00"}, {ENERGY: "3.00"})
    assert rows(taken)[0][2]["t"] == rows(taken)[1][2]["t"] - 1


def test_in_the_first_quarter_of_a_boot_a_clock_that_nothing_has_set_dates_nothing(site: Site) -> None:
    def take(mono_ms: int) -> Taken:
        at = Stamp(NOON + mono_ms, mono_ms, "boot", UNSYNCED)
        return site.registers.take(site.desk, [kwh("30.00")], at, now=mono_ms / 1000)

    assert take(60_000).days == []
    assert [one[1] for one in rows(take(900_000))] == ["read"]


def test_a_clock_that_was_ahead_and_came_back_goes_on_dating_days(site: Site) -> None:
    site.poll(kwh("10.00"))
    site.poll(kwh("11.00"), after_ms=4000 * DAY_MS)  # years ahead
    back = site.poll(kwh("11.10"), after_ms=-4000 * DAY_MS)
    assert [(one.day, one.kind, one.wins) for one in back.days] == [("2026-11-03", "read", False)]
    then = site.poll(kwh("12.00"), after_ms=DAY_MS)
    assert [(one.day, one.kind, one.wins) for one in then.days] == [("2026-11-04", "read", True)]
    assert site.registers.missing("m1") == 1


def test_a_gateway_that_remembers_nothing_takes_no_kept_day_s_place(site: Site) -> None:
    assert [one.wins for one in site.poll(kwh("10.00")).days] == [False]


def freeze(value: str, *when: int, channel: str = "D1") -> Reading:
    return kwh(value, channel, datetime(*when, tzinfo=UTC))  # type: ignore[misc,arg-type]  # the parts of a moment


def test_a_freeze_that_is_no_midnight_of_this_meter_here_is_refused_by_name(site: Site) -> None:
    site.poll(kwh("30.00"))
    taken = site.poll(
        kwh("30.10"), freeze("29.00", 2026, 11, 3), freeze("28.00", 2026, 11, 1, 23, 59, channel="D2"),
        freeze("31.00", 2026, 11, 2, channel="D3"), freeze("20.00", 2026, 12, 3, channel="D4"),
        freeze("20.00", 2026, 10, 31, 12, channel="D5"),
    )  # fmt: skip
    # One minute before midnight is the beginning of the next day.
    assert [(one[0], one[2]["r"]) for one in rows(taken)] == [
        ("2026-11-03", {ENERGY: "29.00"}), ("2026-11-02", {ENERGY: "28.00"}),
    ]  # fmt: skip
    assert [(data["kind"], data["detail"]) for _noun, data in taken.told] == [
        ("freeze-refused", "2026-11-02T00:00:00+00:00: more than the register shows"),
        ("freeze-refused", "2026-12-03T00:00:00+00:00: still to come: the clock of the meter is wrong"),
        ("freeze-refused", "2026-10-31T12:00:00+00:00: no midnight at the site"),
    ]


def test_what_a_meter_froze_before_it_took_the_place_of_another_is_not_of_this_place(site: Site) -> None:
    site.poll(kwh("5000.00"))
    site.desk.meter_number = "000000200001"
    site.poll(kwh("700.00"), after_ms=3 * DAY_MS)
    assert site.registers.missing("m1") == 0
    taken = site.poll(kwh("700.10"), freeze("690.00", 2026, 11, 5))
    assert [one[1] for one in rows(taken)] == []
    assert [data["kind"] for _noun, data in taken.told] == ["freeze-refused"]
    site.poll(kwh("720.00"), after_ms=4 * DAY_MS)
    assert site.registers.missing("m1") == 4  # all since then


def test_what_a_meter_froze_before_a_rollover_was_seen_is_on_no_known_side_of_it(site: Site) -> None:
    site.poll(kwh("99900"))
    site.poll(kwh("80"), after_ms=3 * DAY_MS)
    site.poll(kwh("81"))
    assert site.registers.missing("m1") == 3
    taken = site.poll(kwh("82"), freeze("20", 2026, 11, 6))
    assert [one[1] for one in rows(taken)] == []
    assert [data["kind"] for _noun, data in taken.told] == ["freeze-refused"]
    later = site.poll(kwh("90"), freeze("82", 2026, 11, 7), after_ms=DAY_MS)
    assert sorted(one[1] for one in rows(later)) == ["freeze", "read"]


def test_a_mark_that_is_found_late_is_what_the_next_reading_is_judged_by(site: Site) -> None:
    site.poll(kwh("4990.00"))
    mark = site.poll(kwh("5000.00"), after_ms=DAY_MS).mark
    assert mark is not None
    site.registers = Registers(day_of=day_of)
    site.poll(kwh("4999.00"))  # while the database was away
    site.registers.load([mark])
    assert site.poll(kwh("4989.10")).more == {(ENERGY, ""): ',"quality":"held","highest":"5000.00"'}


def test_a_swap_while_the_database_was_away_is_told_when_it_is_found(site: Site) -> None:
    mark = site.poll(kwh("5000.00")).mark
    assert mark is not None
    site.registers = Registers(day_of=day_of)
    site.desk.meter_number = "000000200001"
    site.poll(kwh("3.00"))
    site.registers.load([mark])
    assert [data["kind"] for _noun, data in site.poll(kwh("3.10")).told] == ["meter-swapped"]


def test_a_mark_of_an_older_gateway_is_taken_and_lets_nothing_go_back(site: Site) -> None:
    from gateway.outbox import Mark

    old = '{"number":"000000193600","ms":1793000000000,"day":"2026-11-03","last":{"energy_active_import":"100.00"}}'
    site.registers.load([Mark("m1", "registers", old)])
    for value in ("90.00", "90.10"):
        assert site.poll(kwh(value)).more == {(ENERGY, ""): ',"quality":"held","highest":"100.00"'}


def test_midnights_that_a_failed_poll_did_not_bring_are_wanted_again_though_fewer_and_over_a_restart(
    site: Site,
) -> None:
    site.poll(kwh("10.00"))
    mark = site.poll(kwh("20.00"), after_ms=9 * DAY_MS).mark
    assert mark is not None
    site.registers.not_given("m1")
    assert site.registers.missing("m1") == 4
    for _ in range(3):
        site.registers.not_given("m1")
    assert site.registers.missing("m1") == 0
    site.registers = Registers(day_of=day_of)
    site.registers.load([mark])
    assert site.registers.missing("m1") == 9


def clocked(site: Site, value: str, off_s: int) -> Reading:
    return kwh(value, "", datetime.fromtimestamp(site.ms / 1000 + 900 + off_s, UTC))


def test_a_meter_whose_clock_is_wrong_is_told_and_its_midnights_are_none(site: Site) -> None:
    assert site.poll(clocked(site, "30.00", 599)).told == []
    taken = site.poll(clocked(site, "30.10", -86_400), freeze("29.00", 2026, 11, 2))
    assert [(data["kind"], data.get("seconds")) for _noun, data in taken.told] == [
        ("meter-clock-off", -86_400), ("freeze-refused", None),
    ]  # fmt: skip
    assert [(one[1], one[2].get("seconds")) for one in rows(taken)] == [("clock", -86_400)]
    assert site.poll(clocked(site, "30.20", -86_400)).told == []  # once a day


def test_a_meter_s_clock_is_not_judged_by_one_that_nobody_trusts(site: Site) -> None:
    assert site.poll(clocked(site, "30.00", -86_400), clock=UNSYNCED).told == []


def test_where_the_ratio_was_changed_with_the_meter_the_old_one_counts_up_to_the_old_meter_s_last_reading() -> None:
    site = Site(desk(meter_number="1", ct=Decimal(20)))
    site.poll(kwh("100.00"))
    site.desk.meter_number, site.desk.ct = "2", Decimal(40)
    taken = site.poll(kwh("3.00"))
    assert [(one[1], one[2]["ratio"]) for one in rows(taken)] == [("ratio", "20"), ("swap", "40")]
    assert rows(taken)[0][2]["r"] == rows(taken)[1][2]["last"] == {ENERGY: "100.00"}

"""The month of a meter: sums that outlive gaps, swaps and rollovers, and a name for each gap."""

from __future__ import annotations

import io
import json
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.layout import Paper
from gateway.cli.meter_csv import write_csv
from gateway.cli.meter_month import FREEZE, FUTURE, READ, Month, Use, bounds, month_of
from gateway.cli.meter_notes import notes
from gateway.cli.meter_picture import picture
from gateway.cli.metering import show

ENERGY = "energy_active_import"
METER: dict[str, Any] = {
    "id": "meter-1", "room": "kitchen", "meter": "000000193600", "registers": {ENERGY: "1300.00"}, "t": 0,
    "ratio": "1", "units": {ENERGY: "kWh"},
}  # fmt: skip


def ms(day: int, hour: float = 0.1, month: int = 11) -> float:
    """A moment at the site."""
    return (datetime(2026, month, day).astimezone() + timedelta(hours=hour)).timestamp() * 1000


def read(day: int, value: str, *, hour: float = 0.1, month: int = 11, **more: Any) -> dict[str, Any]:
    return {
        "day": f"2026-{month:02d}-{day:02d}", "kind": "read", "t": ms(day, hour, month), "meter": "", "r": {ENERGY: value},
        **more,
    }  # fmt: skip


def freeze(day: int, value: str) -> dict[str, Any]:
    when = f"2026-11-{day:02d}"
    return {"day": when, "kind": "freeze", "time": f"{when}T00:00:00", "meter": "", "r": {ENERGY: value}}


def month(rows: Sequence[Mapping[str, Any]], *, today: date = date(2026, 12, 20), **meter: Any) -> Month:
    return month_of({**METER, **meter}, rows, "2026-11", today=today)


def whole(*, but: Sequence[int] = ()) -> list[dict[str, Any]]:
    """A month of 10 kWh a day from 1000 on, without some days."""
    rows = [read(day, f"{1000 + 10 * (day - 1)}.00") for day in range(1, 31) if day not in but]
    return [*rows, read(1, "1300.00", month=12)]


def test_a_whole_month_is_the_difference_of_its_ends_and_each_day_its_own() -> None:
    found = month(whole())
    (use,) = found.uses
    assert (use.first, use.last, use.used) == (Decimal("1000.00"), Decimal("1300.00"), Decimal("300.00"))
    assert set(found.days.values()) == {READ}
    assert found.gaps == []
    assert list(found.daily.values()) == [Decimal("10.00")] * 30


def test_a_gap_costs_nothing_of_the_sum_and_is_told_with_its_days() -> None:
    found = month(whole(but=(4, 5, 9)))
    assert found.uses[0].used == Decimal("300.00")
    assert found.gaps == [(date(2026, 11, 4), date(2026, 11, 5)), (date(2026, 11, 9), date(2026, 11, 9))]
    # The 3rd, 4th and 5th are known as a sum of 30.
    assert [found.shared[date(2026, 11, day)] for day in (3, 4, 5)] == [Decimal(10)] * 3
    assert date(2026, 11, 3) not in found.daily


def test_the_meter_s_own_midnights_fill_a_gap_and_go_before_a_late_first_reading() -> None:
    rows = [*whole(but=(4, 5, 6)), freeze(4, "1030.00"), freeze(5, "1040.00"), freeze(6, "1050.00")]
    rows.append(read(6, "1056.00", hour=15))
    found = month(rows)
    assert [found.days[date(2026, 11, day)] for day in (3, 4, 5, 6, 7)] == [READ, FREEZE, FREEZE, FREEZE, READ]
    assert found.gaps == []
    assert found.daily[date(2026, 11, 6)] == Decimal("10.00")
    assert found.uses[0].used == Decimal("300.00")


def test_a_swap_ends_one_stretch_and_begins_another() -> None:
    rows = [row for row in whole() if row["t"] < ms(10)]  # to 1080 on the 9th
    swap = {"last": {ENERGY: "1095.00"}, "first": {ENERGY: "3.00"}, "old": "1", "new": "2", "last_t": 0}
    rows.append({"day": "2026-11-10", "kind": "swap", "t": ms(10, 12), **swap})
    rows += [read(day, f"{3 + 10 * (day - 10)}.00") for day in range(11, 31)]
    rows.append(read(1, "213.00", month=12))
    found = month(rows)
    # 95 of the old one, 210 of the new one.
    assert found.uses[0].used == Decimal("305.00")
    assert [row["kind"] for row in found.told] == ["swap"]


def test_a_register_that_rolls_over_goes_on() -> None:
    rows = [read(1, "999990.00"), read(2, "999998.00")]
    rolled = {"register": ENERGY, "last": "999998.00", "first": "2.00", "at": "1000000"}
    rows.append({"day": "2026-11-02", "kind": "rollover", "t": ms(2, 13), **rolled})
    rows += [read(3, "4.00"), read(30, "60.00"), read(1, "62.00", month=12)]
    found = month(rows)
    assert found.uses[0].used == Decimal("72.00")
    assert found.daily[date(2026, 11, 2)] == Decimal("6.00")


def test_what_was_held_is_not_counted_and_a_comparison_sets_it_going_again() -> None:
    rows: list[dict[str, Any]] = [read(1, "100.00"), read(2, "110.00")]
    held = {"quantity": ENERGY, "channel": "", "value": "12.00", "highest": "110.00"}
    rows.append({"day": "2026-11-03", "kind": "held", "t": ms(3), **held})
    dial = {ENERGY: {"dial": "13.00", "read": "13.00", "difference": "0.00", "from": "110.00", "to": "13.00"}}
    rows.append({"day": "2026-11-04", "kind": "dial", "t": ms(4, 9), "by": "li", "registers": dial})
    rows += [read(5, "20.00"), read(1, "50.00", month=12)]
    found = month(rows)
    assert found.uses[0].used == Decimal("47.00")  # 10 before, 37 after


def test_a_ratio_multiplies_what_was_used_and_leaves_the_dial_as_it_is() -> None:
    found = month([{**row, "ratio": "20"} for row in whole()])
    (use,) = found.uses
    assert (use.first, use.last, use.used, use.ratios) == (
        Decimal("1000.00"), Decimal("1300.00"), Decimal("6000.0000"), (Decimal(20),),
    )  # fmt: skip


def test_a_month_that_is_not_over_ends_with_what_was_read_last() -> None:
    rows = [row for row in whole() if row["day"] <= "2026-11-15"]
    found = month(rows, today=date(2026, 11, 15), t=ms(15, 12), registers={ENERGY: "1146.00"})
    assert found.uses[0].used == Decimal("146.00")
    assert [found.days[date(2026, 11, day)] for day in (15, 16)] == [READ, FUTURE]
    assert found.daily[date(2026, 11, 15)] == Decimal("6.00")
    assert found.gaps == []


def test_a_month_without_a_reading_is_a_gap_from_end_to_end() -> None:
    found = month([])
    assert found.uses == []
    assert found.gaps == [(date(2026, 11, 1), date(2026, 11, 30))]


@pytest.mark.parametrize("written", ["", "2026", "2026-13", "11-2026", "2026-11-01"])
def test_what_is_no_month_is_refused(written: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the date says of it
        bounds(written)


def lines(months: Sequence[Month], lang: str = "en") -> list[str]:
    heard = {day for one in months for day in one.heard}
    return [line for line, _style in notes(Paper(lang, io.StringIO()), months, heard=heard)]


def test_each_gap_has_a_line_that_says_whether_it_was_the_gateway() -> None:
    other = {**METER, "id": "meter-2"}
    months = [month(whole(but=(4, 5))), month_of(other, whole(but=(4, 5, 20)), "2026-11", today=date(2026, 12, 20))]
    told = lines(months)
    assert len(told) == 3
    assert told[0].startswith(
        "meter-1: without a reading 2026-11-04 to 2026-11-05 (2 d), nor of any other meter: the gateway"
    )
    assert told[1].startswith(
        "meter-2: without a reading 2026-11-04 to 2026-11-05 (2 d), nor of any other meter: the gateway"
    )
    assert told[2].startswith("meter-2: without a reading 2026-11-20 (1 d): the meter did not answer")


def test_nothing_missing_is_said_too_and_an_odd_beginning_is_a_line() -> None:
    assert lines([month(whole())]) == ["No day is missing, and nothing happened."]
    late = lines([month([row for row in whole() if row["day"] > "2026-11-05"])])
    assert any("the month begins with the reading of 2026-11-06" in one for one in late)


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_table_shows_dial_and_use(lang: str) -> None:
    out = io.StringIO()
    show(Paper(lang, out), [month(whole())], "title", [])
    shown = out.getvalue()
    assert "1000.00" in shown
    assert "1300.00" in shown
    assert "300.00" in shown
    assert "kWh" in shown


def test_the_csv_has_a_line_for_each_day_the_missing_ones_too(tmp_path: Path) -> None:
    file = tmp_path / "month.csv"
    write_csv(file, [month(whole(but=(4,)))])
    written = file.read_text(encoding="utf-8-sig").splitlines()
    assert len(written) == 31
    assert written[0].startswith("device,room,meter,quantity,channel,unit,day,kind,time,dial,ratio,used_that_day")
    assert written[1].startswith(f"meter-1,kitchen,000000193600,{ENERGY},,kWh,2026-11-01,read,2026-11-01T00:06:00")
    assert written[1].endswith(",1000.00,1,10.00,10.00")
    assert written[3].endswith(",1020.00,1,,20.00")  # the 3rd and the 4th are known as a sum
    assert written[4] == f"meter-1,kitchen,000000193600,{ENERGY},,kWh,2026-11-04,missing,,,,,"


def test_the_picture_is_well_formed_and_shows_days_and_gaps() -> None:
    nasty = {**METER, "id": "meter-1 <&>"}
    found = month_of(nasty, whole(but=(4, 5)), "2026-11", today=date(2026, 12, 20))
    svg = picture([found], title="2026-11 <&>", lines=[], paper=Paper("zh", io.StringIO()))
    root = ET.fromstring(svg)  # noqa: S314 - our own text
    bars = [one for one in root.iter() if one.tag.endswith("rect") and len(one)]
    assert len(bars) == 30
    assert sum(one.get("fill") == "url(#gap)" for one in bars) == 2
    assert "300 kWh" in "".join(root.itertext())
    assert json.dumps(svg)  # text through and through


def of(found: Month, name: str = ENERGY) -> Use:
    (use,) = [one for one in found.uses if one.name == name]
    return use


def both(rows: Sequence[Mapping[str, Any]]) -> None:
    """Whatever is missing: what is used until each next reading is the sum, nothing twice and nothing lost."""
    for use in month(rows).uses:
        if use.used is not None:
            assert sum(one for one, _days in use.until_next.values()) == use.used


def swap(day: int, old: str, new: str, *, hour: float = 0.1, month: int = 11) -> dict[str, Any]:
    return {
        "day": f"2026-{month:02d}-{day:02d}", "kind": "swap", "t": ms(day, hour, month), "old": "1", "new": "2",
        "last": {ENERGY: old}, "first": {ENERGY: new}, "last_t": ms(day - 1 or 1, 12, month),
    }  # fmt: skip


def test_a_swap_seen_by_the_first_poll_of_a_day_leaves_that_day_and_the_next_whole() -> None:
    rows = [read(1, "1000.00", meter="1"), read(2, "1010.00", meter="1"), read(3, "3.00", meter="2")]
    rows += [swap(3, "1018.00", "3.00"), read(4, "13.00", meter="2"), read(1, "283.00", month=12, meter="2")]
    found = month(rows)
    assert of(found).used == Decimal("298.00")  # 18 of the old one, 280 of the new one
    assert [found.daily[date(2026, 11, day)] for day in (1, 2, 3)] == [Decimal(10), Decimal(8), Decimal(10)]
    both(rows)


def test_a_swap_over_the_month_s_end_is_in_the_month_that_ends_with_it() -> None:
    """The gateway was off from the 29th to the 3rd, and another meter hung there then."""
    rows = [read(day, f"{1000 + 10 * day}.00", meter="1") for day in range(1, 30)]
    rows += [swap(3, "1293.00", "7.00", hour=9, month=12), read(3, "7.00", hour=9, month=12, meter="2")]
    found = month(rows, t=ms(3, 9, 12))
    assert of(found).used == Decimal("283.00")
    assert of(found).closing.day == date(2026, 12, 3)
    both(rows)


def test_a_register_of_which_the_new_meter_showed_nothing_at_first_begins_anew_with_what_it_shows() -> None:
    rows = [read(1, "1000.00"), swap(2, "1010.00", "3.00", hour=9)]
    rows[0]["r"][f"{ENERGY} T1"] = "600.00"
    rows[1]["last"][f"{ENERGY} T1"] = "606.00"
    rows += [read(3, "5.00"), read(1, "50.00", month=12)]
    rows[2]["r"][f"{ENERGY} T1"], rows[3]["r"][f"{ENERGY} T1"] = "1.00", "21.00"
    assert of(month(rows), f"{ENERGY} T1").used == Decimal("26.00")
    both(rows)


def test_a_register_that_the_new_meter_shows_later_that_day_counts_from_there_and_not_from_the_next_day() -> None:
    tariff = f"{ENERGY} T1"
    rows = [read(1, "1000.00"), read(2, "1005.00"), swap(2, "1010.00", "3.00", hour=9)]
    rows[0]["r"][tariff], rows[1]["r"][tariff], rows[2]["last"][tariff] = "600.00", "604.00", "606.00"
    rows.append({**read(2, "0", hour=9.25), "kind": "more", "r": {tariff: "1.00"}})
    rows += [read(3, "15.00"), read(1, "50.00", month=12)]
    rows[4]["r"][tariff], rows[5]["r"][tariff] = "11.00", "21.00"
    found = of(month(rows), tariff)
    assert found.used == Decimal("26.00")  # 6 of the old one, 20 of the new one from when it was seen
    assert found.until_next[date(2026, 11, 2)] == (Decimal("12.00"), 1)
    assert sum(one for one, _days in found.until_next.values()) == found.used


def test_a_ratio_that_was_changed_during_an_outage_begins_with_what_was_read_before_it_and_not_behind_its_midnights() -> (
    None
):
    frozen = [{**freeze(3, "1020.00"), "ratio": "40"}, {**freeze(4, "1030.00"), "ratio": "40"}]
    ratio = {"day": "2026-11-04", "kind": "ratio", "t": ms(4, 9), "old": "1", "new": "40", "r": {ENERGY: "1015.00"}}
    rows = [read(1, "1000.00"), read(2, "1010.00"), *frozen, {**ratio, "last_t": ms(2, 18), "ratio": "1"}]
    found = month([*rows, read(5, "1040.00", ratio="40"), read(1, "1300.00", month=12, ratio="40")])
    assert of(found).used == Decimal("11415.00")  # 15 by the old one, 285 by the new one
    assert not found.odd
    assert of(found).daily[date(2026, 11, 2)] == Decimal("205.00")


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_another_number_that_is_read_once_between_two_readings_of_the_old_one_costs_nothing_of_the_sum(
    lang: str,
) -> None:
    rows = [*whole(but=(5,)), read(5, "7777.00", meter="000000193601")]
    there = {**swap(5, "1030.00", "7777.00"), "old": "000000193600", "new": "000000193601", "last_t": ms(4)}
    back = {**swap(6, "7777.00", "1050.00"), "old": "000000193601", "new": "000000193600", "last_t": ms(5)}
    found = month([*rows, there, back])
    assert of(found).used == Decimal("300.00")
    assert found.days[date(2026, 11, 5)] == "missing"
    said = [text for text, _style in notes(Paper(lang, io.StringIO()), [found])]
    assert any("000000193601" in text and "2026-11-05" in text for text in said)
    fallen = {**back, "first": {ENERGY: "2.00"}}
    assert of(month([*rows, there, fallen])).used != Decimal("300.00")  # not the old meter going on


def test_a_jump_that_is_seen_with_another_ratio_is_not_taken_for_use() -> None:
    jump = {"day": "2026-11-02", "kind": "jump", "t": ms(2, 9), "register": ENERGY, "from": "1010.00", "to": "9000.00"}
    ratio = {"day": "2026-11-02", "kind": "ratio", "t": ms(2, 9), "old": "1", "new": "40", "r": {ENERGY: "1010.00"}}
    rows = [
        read(1, "1000.00"),
        {**jump, "ratio": "40"},
        {**ratio, "ratio": "1"},
        read(1, "9001.00", month=12, ratio="40"),
    ]
    assert of(month(rows)).used == Decimal("50.00")  # 10 by the old one, 1 by the new one


def test_each_month_has_what_was_used_until_the_next_reading_and_no_month_twice() -> None:
    """Dead over the month's end, and for longer than a month."""
    rows = [*(row for row in whole() if row["day"] < "2026-11-28"), read(5, "1500.00", hour=14, month=12)]
    found = month(rows)
    assert of(found).used == Decimal("500.00")
    assert lines([found]) == [
        (
            "meter-1: without a reading 2026-11-28 to 2026-11-30: the next reading is of 2026-12-05 14:00; what was used "
            "until then is in this sum, and not in that of the month after"
        )
    ]
    december = month_of(METER, [rows[-1]], "2026-12", today=date(2026, 12, 20))
    assert of(december).used is None
    assert "month begins with the reading of 2026-12-05 14:00" in lines([december])[0]


def test_a_month_that_is_over_and_without_any_later_reading_says_where_it_ends() -> None:
    found = month([row for row in whole() if row["day"] < "2026-11-28"])
    assert of(found).used == Decimal("260.00")
    assert lines([found]) == [
        (
            "meter-1: without a reading 2026-11-28 to 2026-11-30: the month ends with the reading of 2026-11-27 00:06; what "
            "was used after it is not in this sum"
        )
    ]


def test_a_month_that_begins_late_on_its_first_day_says_so() -> None:
    late = [read(1, "1004.00", hour=9.5), *whole()[1:]]
    assert lines([month(late)]) == [
        "meter-1: the month begins with the reading of 2026-11-01 09:30; what was used before it is not in this sum"
    ]
    assert lines([month([*late, freeze(1, "1000.00")])]) == [
        "meter-1: at the beginning of these days nothing was read, the meter's own record of midnight stands for them: 1"
    ]


def test_a_ratio_that_is_changed_within_a_day_counts_from_there() -> None:
    rows = [read(1, "100.00", ratio="20"), read(2, "110.00", ratio="20"), read(3, "120.00", ratio="40")]
    changed = {"old": "20", "new": "40", "r": {ENERGY: "114.00"}, "ratio": "20", "last_t": 0}
    rows += [{"day": "2026-11-02", "kind": "ratio", "t": ms(2, 12), **changed}, read(1, "130.00", month=12, ratio="40")]
    use = of(month(rows))
    assert use.used == 14 * 20 + 16 * 40
    assert use.ratios == (Decimal(20), Decimal(40))
    assert any("the transformer ratio was changed, x20 to x40" in one for one in lines([month(rows)]))
    both(rows)


def test_a_ratio_multiplies_energy_and_not_the_gas_beside_it() -> None:
    rows = [{**row, "ratio": "20", "r": {**row["r"], "volume_gas": f"{n}.5"}} for n, row in enumerate(whole())]
    found = month(rows)
    assert of(found, "volume_gas").used == Decimal("30.0")
    assert of(found, "volume_gas").ratios == (Decimal(1),)
    assert of(found).used == Decimal(6000)


def test_a_jump_is_not_taken_for_use_and_told_with_its_amount() -> None:
    rows = [read(1, "100.00"), read(2, "110.00"), read(3, "5020.00"), read(1, "5300.00", month=12)]
    jump = {"register": ENERGY, "from": "112.00", "to": "5012.00"}
    rows.append({"day": "2026-11-02", "kind": "jump", "t": ms(2, 12), **jump})
    found = month(rows)
    assert of(found).used == Decimal("300.00")
    assert any(
        "jumped from 112.00 to 5012.00, as two readings say: 4900.00 kWh are NOT in the sum" in one
        for one in lines([found])
    )
    both(rows)


def test_what_was_withdrawn_is_no_reading_and_the_day_begins_with_its_next_one() -> None:
    spike = read(5, "1940.00")
    taken_back = {"register": ENERGY, "withdrawn": "1940.00", "of": spike["t"]}
    rows = [*whole(but=(5,)), spike, {"day": "2026-11-05", "kind": "withdrawn", "t": ms(5, 1), **taken_back}]
    rows.append({**read(5, "1041.00", hour=1), "kind": "more"})
    found = month(rows)
    assert of(found).used == Decimal("300.00")
    assert (found.daily[date(2026, 11, 4)], found.daily[date(2026, 11, 5)]) == (Decimal(11), Decimal(9))
    assert [one for one in lines([found]) if "had shown 1940.00" in one]
    both(rows)


def test_a_register_that_was_not_read_with_the_others_at_the_month_s_end_keeps_its_own_ends() -> None:
    tariff = f"{ENERGY} T2"
    rows = whole()
    for n, row in enumerate(rows):
        if row["day"] not in ("2026-11-01", "2026-12-01"):
            row["r"][tariff] = f"{400 + n}.00"
    rows.append({**read(1, "0", hour=7), "kind": "more", "r": {tariff: "400.00"}})
    rows.append({**read(2, "1310.00", month=12), "r": {ENERGY: "1310.00", tariff: "431.00"}})
    found = month(rows)
    assert of(found).used == Decimal("300.00")
    assert (of(found, tariff).first, of(found, tariff).last, of(found, tariff).used) == (400, 431, 31)
    both(rows)


def test_a_register_that_was_missing_while_the_meter_was_read_has_a_line() -> None:
    rows = whole()
    for row in rows:
        if row["day"] not in ("2026-11-07", "2026-11-08", "2026-11-20"):
            row["r"]["volume_gas"] = "5.00"
    assert lines([month(rows)]) == [
        "meter-1: gas: no reading of its own on these days: 7-8, 20; its sum is not affected but at the ends of the month"
    ]


def test_a_fall_that_nothing_explains_is_told_and_not_smoothed_over() -> None:
    found = month([read(1, "1000.00"), read(9, "1100.00"), read(10, "1050.00"), read(1, "1300.00", month=12)])
    assert [
        one for one in lines([found]) if "fell from 1100.00 (2026-11-09 00:06) to 1050.00 (2026-11-10 00:06)" in one
    ]
    assert found.odd


def test_another_number_without_a_swap_on_record_ends_one_stretch_and_is_told() -> None:
    rows = [read(1, "1000.00", meter="1"), read(9, "1080.00", meter="1"), read(10, "7000.00", meter="2")]
    rows.append(read(1, "7210.00", month=12, meter="2"))
    found = month(rows, meter="2")
    assert of(found).used == Decimal("290.00")
    assert [one for one in lines([found]) if "number changed, 1 to 2, and no swap is on record" in one]


def test_rows_of_days_to_come_are_left_out_and_told() -> None:
    rows = [
        *(row for row in whole() if row["day"] < "2026-11-15"),
        {**read(1, "1100.00"), "day": "2036-11-01", "t": 2.1e12},
    ]
    found = month(rows, today=date(2026, 11, 15), t=ms(15, 12), registers={ENERGY: "1146.00"})
    assert of(found).used == Decimal("146.00")
    assert [one for one in lines([found]) if "2036-11-01" in one]


def test_the_month_of_installation_has_its_one_reading_in_the_table() -> None:
    out = io.StringIO()
    found = month([read(30, "7.00", hour=9)])
    show(Paper("en", out), [found], "title", [])
    assert "7.00" in out.getvalue()
    assert of(found).used is None


def test_what_flows_in_stands_for_a_meter_and_not_what_flows_out() -> None:
    rows = whole()
    for row in rows:
        row["r"] = {"energy_active_export": "1.00", f"{ENERGY} T1": "2.00", **row["r"]}
    found = month(rows)
    assert found.main is not None
    assert found.main.name == ENERGY
    assert [one.name for one in found.uses] == [ENERGY, f"{ENERGY} T1", "energy_active_export"]


def test_the_picture_has_the_lines_of_the_gaps_and_keeps_its_width() -> None:
    found = month(whole(but=(4, 5)))
    paper = Paper("zh", io.StringIO())
    svg = picture([found], title="x", lines=notes(paper, [found]), paper=paper)
    assert "2026-11-04 到 2026-11-05" in svg
    root = ET.fromstring(svg)  # noqa: S314 - our own text
    assert root.get("style") == "max-width:100%;height:auto"
    many = [(f"line {n}", "warning") for n in range(261)]
    shown = picture([found], title="x", lines=many, paper=Paper("en", io.StringIO()))
    assert "and 61 lines more" in shown


def test_a_day_that_one_meter_froze_and_another_lost_was_the_gateway_s() -> None:
    frozen = [*whole(but=(4, 5)), freeze(4, "1030.00"), freeze(5, "1040.00")]
    months = [
        month(frozen),
        month_of({**METER, "id": "meter-2"}, whole(but=(4, 5)), "2026-11", today=date(2026, 12, 20)),
    ]
    assert [
        one
        for one in lines(months)
        if one.startswith("meter-2: without a reading 2026-11-04 to 2026-11-05 (2 d), nor of")
    ]
    read_later = [*frozen, read(4, "1031.00", hour=15), read(5, "1041.00", hour=15)]
    months[0] = month(read_later)
    assert [one for one in lines(months) if "the meter did not answer" in one]


def test_a_meter_whose_clock_was_wrong_has_a_line() -> None:
    rows = [*whole(), {"day": "2026-11-07", "kind": "clock", "t": ms(7), "seconds": -5400}]
    assert lines([month(rows)]) == [
        "meter-1: 2026-11-07 the meter's own clock was behind by 1:30:00: its tariffs and midnights are of another time"
    ]


def ten_past(day: date) -> float:
    return (datetime.combine(day, datetime.min.time()).astimezone() + timedelta(minutes=10)).timestamp() * 1000


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_month_in_which_the_clocks_are_changed_has_no_gap_and_each_day_its_own_use(berlin: None) -> None:
    """The 25th of October 2026 has 25 hours."""
    days = [date(2026, 10, 1) + timedelta(days=n) for n in range(32)]
    rows: list[dict[str, Any]] = [
        {
            "day": day.isoformat(), "kind": "read", "t": ten_past(day),
            "meter": "", "r": {ENERGY: f"{1000 + 10 * n}.00"},
        }
        for n, day in enumerate(days)
    ]  # fmt: skip
    found = month_of(METER, rows, "2026-10", today=date(2026, 12, 1))
    assert lines([found]) == ["No day is missing, and nothing happened."]
    assert list(found.daily.values()) == [Decimal(10)] * 31
    assert of(found).used == Decimal(310)


def test_of_a_meter_that_is_alone_nobody_knows_whether_it_or_the_gateway_was_away() -> None:
    found = notes(Paper("en", io.StringIO()), [month(whole(but=(4,)))], is_alone=True)
    assert [line for line, _style in found if "the meter did not answer, or the gateway was away" in line]


def test_a_long_name_does_not_run_into_the_sum_and_a_count_has_no_unit() -> None:
    rows = [{**row, "r": {"heat_cost_units": row["r"][ENERGY]}} for row in whole()]
    named = {**METER, "id": "m" * 60, "room": "二楼东侧走廊尽头的配电间"}
    paper = Paper("zh", io.StringIO())
    drawn = picture([month_of(named, rows, "2026-11", today=date(2026, 12, 20))], title="x", lines=[], paper=paper)
    assert ">热分配表读数 300</text>" in drawn
    assert f">{'m' * 60} · 二楼东侧走廊尽头的…</text>" in drawn

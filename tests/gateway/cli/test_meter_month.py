"""The month of a meter: sums that outlive gaps, swaps and rollovers, and a name for each gap."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.layout import Paper
from gateway.cli.meter_month import FREEZE, FUTURE, READ, Month, bounds, month_of
from gateway.cli.meter_picture import picture
from gateway.cli.metering import notes, show, write_csv

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
    assert (use.first, use.last, use.used, use.ratio) == (
        Decimal("1000.00"), Decimal("1300.00"), Decimal("6000.0000"), Decimal(20),
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
    return [line for line, _style in notes(Paper(lang, io.StringIO()), months)]


def test_each_gap_has_a_line_that_says_whether_it_was_the_gateway() -> None:
    other = {**METER, "id": "meter-2"}
    months = [month(whole(but=(4, 5))), month_of(other, whole(but=(4, 5, 20)), "2026-11", today=date(2026, 12, 20))]
    told = lines(months)
    assert len(told) == 3
    assert told[0].startswith(
        "meter-1: nothing from 2026-11-04 to 2026-11-05 (2 days), nor of any other meter: the gateway"
    )
    assert told[1].startswith(
        "meter-2: nothing from 2026-11-04 to 2026-11-05 (2 days), nor of any other meter: the gateway"
    )
    assert told[2].startswith("meter-2: nothing from 2026-11-20 to 2026-11-20 (1 days): the meter did not answer")


def test_nothing_missing_is_said_too_and_an_odd_beginning_is_a_line() -> None:
    assert lines([month(whole())]) == ["No day is missing, and nothing happened."]
    late = lines([month([row for row in whole() if row["day"] > "2026-11-05"])])
    assert any("the month begins with the reading of 2026-11-06" in one for one in late)


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_table_shows_dial_and_use(lang: str) -> None:
    out = io.StringIO()
    show(Paper(lang, out), [month(whole())], "title")
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
    assert written[1].endswith(",1000.00,1,10.00")
    assert written[4] == f"meter-1,kitchen,000000193600,{ENERGY},,kWh,2026-11-04,missing,,,,"


def test_the_picture_is_well_formed_and_shows_days_and_gaps() -> None:
    nasty = {**METER, "id": "meter-1 <&>"}
    found = month_of(nasty, whole(but=(4, 5)), "2026-11", today=date(2026, 12, 20))
    svg = picture([found], title="2026-11 <&>", say=lambda key, **_: key)
    root = ET.fromstring(svg)  # noqa: S314 - our own text
    bars = [one for one in root.iter() if one.tag.endswith("rect") and len(one)]
    assert len(bars) == 30
    assert sum(one.get("fill") == "url(#gap)" for one in bars) == 2
    assert "300 kWh" in "".join(root.itertext())
    assert json.dumps(svg)  # text through and through

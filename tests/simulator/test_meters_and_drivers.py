"""What the drivers read of simulated meters, whatever is wrong with these: each register that a meter holds, or why not."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from drivers.kit import Decoded, NoReply, Polled, Reading, Signal
from drivers.kit.catalogue import driver
from drivers.kit.shapes import Answers
from simulator.line_meters import LineReader
from simulator.meters import Meter, Quirks
from simulator.meters_698 import Meter698
from simulator.meters_1997 import Meter1997

# 2026-01-01 02:00:00 in China.
NIGHT = 1_767_204_000.0
ADDRESS = "000000193600"
MODELS: dict[str, type[Meter]] = {"dlt645-2007": Meter, "dlt645-1997": Meter1997, "dlt698-45": Meter698}


def poll(model: str, quirks: Quirks, *, address: str = ADDRESS, phases: int = 3, **options: object) -> Polled:
    """Let a driver poll a meter over wires that lose nothing."""
    chosen = driver(model)
    assert isinstance(chosen, Answers)
    meter = MODELS[model](device="m1", address=ADDRESS, seed=1, start=NIGHT, kw=3.0, phases=phases, quirks=quirks)
    talk = chosen.talk(chosen.options(address, options))
    reader = LineReader()
    try:
        ask = next(talk)
        while True:
            (request,) = reader.feed(ask.request)
            answer = meter.answer(request, now=NIGHT)
            if answer is None:
                ask = talk.throw(NoReply())
                continue
            (frame,) = chosen.framer().feed(meter.preamble + answer.frame)
            assert ask.answers(frame)
            ask = talk.send(frame)
    except StopIteration as end:
        found: Any = end.value
        return found  # type: ignore[no-any-return]  # what a poll of a driver gives


def readings(polled: Polled) -> dict[tuple[str, str], Decimal]:
    observations = polled.observations if isinstance(polled, Decoded) else polled
    return {(one.quantity, one.channel): one.value for one in observations if isinstance(one, Reading)}


@pytest.mark.parametrize("quirk", ["", "split", "no_blocks", "mute", "no_blocks mute", "nameless"])
@pytest.mark.parametrize("model", MODELS)
def test_a_meter_gives_the_same_energies_whatever_is_odd_about_it(model: str, quirk: str) -> None:
    quirks = Quirks(**dict.fromkeys(quirk.split(), True))  # type: ignore[arg-type]  # its switches
    address = "AAAAAAAAAAAA" if quirk == "nameless" else ADDRESS
    found = poll(model, quirks, address=address)
    assert isinstance(found, tuple), "nothing was refused"
    read = readings(found)
    held = MODELS[model](device="m1", address=ADDRESS, seed=1, start=NIGHT, kw=3.0)._imports()
    for value in held:
        assert read["energy_active_import", value.channel] == Decimal(value.text())
    assert {channel for quantity, channel in read if quantity == "voltage"} == {"A", "B", "C"}


@pytest.mark.parametrize("model", MODELS)
def test_phases_that_are_not_there_are_no_readings_or_the_zeros_that_a_meter_sends(model: str) -> None:
    read = readings(poll(model, Quirks(), phases=1))
    assert [channel for quantity, channel in read if quantity == "voltage"] == ["A"]
    read = readings(poll(model, Quirks(zeros=True), phases=1))
    assert [read["voltage", channel] for channel in ("B", "C")] == [0, 0]


@pytest.mark.parametrize(
    ("model", "refused"),
    [("dlt645-2007", "voltage B = "), ("dlt645-1997", "voltage B = ")],
)
def test_a_damaged_value_is_told_and_costs_no_other(model: str, refused: str) -> None:
    found = poll(model, Quirks(damaged=True))
    assert isinstance(found, Decoded)
    assert [one.startswith(refused) for one in found.refused] == [True]
    assert {channel for quantity, channel in readings(found) if quantity == "voltage"} == {"A", "C"}


@pytest.mark.parametrize("model", MODELS)
def test_the_clock_of_a_meter_comes_with_its_readings(model: str) -> None:
    found = poll(model, Quirks(), registers=["energy_active_import", "clock"])
    assert isinstance(found, tuple)
    assert {str(one.device_time) for one in found if isinstance(one, Reading)} == {"2026-01-01 02:00:00+08:00"}


@pytest.mark.parametrize(
    ("model", "why"),
    [("dlt645-2007", "no such data (error word 02, on the wire 35)"), ("dlt698-45", "no such object (DAR 6)")],
)
def test_midnights_are_read_with_their_times_and_grow(model: str, why: str) -> None:
    found = poll(model, Quirks(), registers=["energy_active_import"], daily_freezes=4)
    assert isinstance(found, Decoded)
    assert found.refused == (f"daily_freeze_4 = {why}",)
    days = [one for one in found.observations if isinstance(one, Reading) and one.channel in ("D1", "D2", "D3")]
    assert [str(one.device_time) for one in days] == [
        f"{day} 00:00:00+08:00" for day in ("2026-01-01", "2025-12-31", "2025-12-30")
    ]
    # 3 kW for a day are 72 kWh.
    assert all(abs(late.value - early.value - 72) <= Decimal("0.05") for late, early in pairwise(days))
    assert readings(found)["energy_active_import", ""] - days[0].value == pytest.approx(Decimal(6), abs=Decimal("0.7"))


def test_status_words_are_read_as_they_are_set() -> None:
    found = poll("dlt645-2007", Quirks(status=(0b100, 0, 0b10000, 0, 0, 0, 1 << 9)), registers=["status"])
    assert isinstance(found, tuple)
    assert {one.code for one in found if isinstance(one, Signal) and one.level} == {
        "clock-battery",
        "relay-open",
        "meter-cover",
    }

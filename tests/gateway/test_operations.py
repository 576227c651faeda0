"""What the control socket takes from people is bounded where it comes in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drivers.kit import catalogue
from gateway.collect import Desk
from gateway.collect.registers import Registers
from gateway.errors import ControlError
from gateway.operations import METER_BYTES, Operations, dial_of
from gateway.outbox import Mark, MeterDay, Outbox, Route, Write
from tests.gateway.collect.conftest import StillClock


@pytest.mark.parametrize(
    ("written", "shown"),
    [("1312.5", Decimal("1312.5")), ("0", Decimal(0)), ("0.000", Decimal(0)), ("007.25", Decimal("7.25"))],
)
def test_what_a_dial_shows_is_taken(written: str, shown: Decimal) -> None:
    assert dial_of(written) == shown


@pytest.mark.parametrize("written", ["", "abc", "-3", "nan", "inf", "1e99999999", "0e-99999999", "1e-99999999", "1e19"])
def test_a_number_that_no_dial_shows_is_none_however_short_it_is_written(written: str) -> None:
    assert dial_of(written) is None


@pytest.fixture
async def meters(tmp_path: Path) -> AsyncIterator[Any]:
    """One meter that is configured and was never read, and what is kept of another; `ask` asks for it."""
    outbox = Outbox(tmp_path / "outbox.db", [Route("district", ("*",))], clock=StillClock())
    await outbox.open()
    registers = Registers()
    registers.load(
        [Mark("gone", "registers", '{"number":"7","last":{"volume_water":"3.10"},"ms":5,"day":"2026-11-02"}')]
    )
    driver: Any = catalogue.driver("modbus-meter")
    desk = Desk("m1", "modbus-meter", "bus", "1", "kitchen", "", driver, None)
    rooms: Any = SimpleNamespace(
        outbox=outbox, clock=StillClock(), collector=SimpleNamespace(registers=registers, desks={"m1": desk})
    )
    operations = Operations(rooms).by_name()

    async def ask(op: str, **request: Any) -> Any:
        return await operations[op](request)

    yield SimpleNamespace(outbox=outbox, ask=ask)
    await outbox.close()


async def keep(meters: Any, *rows: MeterDay) -> None:
    import asyncio

    meters.outbox.submit(Write(days=rows))
    committing = asyncio.create_task(meters.outbox.run())
    assert await meters.outbox.flush(5)
    committing.cancel()
    await asyncio.wait({committing})


async def test_a_meter_that_was_never_read_and_one_that_is_configured_no_more_are_listed(meters: Any) -> None:
    await keep(meters, MeterDay("older", "2026-11-02", "read", "{}"))
    assert [(one["id"], one["room"], one["registers"], one["gone"]) for one in await meters.ask("meters.list")] == [
        ("m1", "kitchen", {}, False),
        ("gone", "", {"volume_water": "3.10"}, True),
        ("older", "", {}, True),
    ]


async def test_everything_that_is_kept_of_a_meter_comes_in_parts_that_fit_into_an_answer(meters: Any) -> None:
    rows = [MeterDay("m1", "2026-11-05", "held", json.dumps({"n": n, "x": "x" * 3_000}), n=n) for n in range(1_100)]
    for first in range(0, len(rows), 200):
        await keep(meters, *rows[first : first + 200])
    found: list[Any] = []
    after = None
    while True:
        answer = await meters.ask("meters.days", device="m1", first="2026-11-01", last="2026-11-30", after=after)
        assert len(json.dumps(answer)) < 2 * METER_BYTES
        found += answer["rows"]
        after = answer["next"]
        if after is None:
            break
    assert [one["n"] for one in found] == list(range(1_100))


async def test_a_row_that_is_longer_than_an_answer_s_part_comes_alone(meters: Any) -> None:
    long = json.dumps({"x": "x" * METER_BYTES})
    await keep(meters, *(MeterDay("m1", f"2026-11-0{day}", "read", long) for day in (1, 2)))
    first = await meters.ask("meters.days", device="m1", first="2026-11-01", last="2026-11-30")
    assert ([one["day"] for one in first["rows"]], first["next"]) == (["2026-11-01"], ["2026-11-01", "read", 0])


@pytest.mark.parametrize("after", ["", 7, [], ["2026-11-01", "read"], ["2026-11-01", "read", "7"]])
async def test_what_is_no_place_among_the_rows_is_refused(meters: Any, after: object) -> None:
    with pytest.raises(ControlError):
        await meters.ask("meters.days", device="m1", first="2026-11-01", last="2026-11-30", after=after)


async def test_what_a_row_says_of_itself_does_not_hide_what_it_is(meters: Any) -> None:
    await keep(meters, MeterDay("m1", "2026-11-01", "held", '{"kind":"register-backwards","day":"x","t":7}'))
    answer = await meters.ask("meters.days", device="m1", first="2026-11-01", last="2026-11-30")
    assert answer["rows"] == [{"kind": "held", "day": "2026-11-01", "t": 7}]

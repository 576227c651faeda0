"""Simulated meters that speak by themselves: their telegrams by hand, and the real drivers at the other end of the wire."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.kit import Decoded, LineSettings, Reading, Streams, catalogue
from gateway.clock import Stamp, SystemClock
from gateway.links.serial_line import SerialLine
from simulator.bus import BusError, Ledger, push_meters
from simulator.meters import Value
from simulator.push_meters import PushMeter, p1_telegram, sml_telegram

KEY = "0f0e0d0c0b0a09080706050403020100"


def scenario(**device: object) -> dict[str, Any]:
    return {"seed": 5, "start": time.time(), "devices": [{"id": "m1", "role": "push-meter", **device}]}


def meter(run: Path, ledger: Ledger, **device: object) -> PushMeter:
    (made,) = push_meters(run, scenario(**device), ledger)
    return made


def test_a_p1_telegram_ends_with_the_check_of_the_published_ones() -> None:
    # The check of dsmr_parser's TELEGRAM_V4_2 is 6796; this one was worked out with the same routine.
    value = Value("energy_active_import", "T1", 442_600, 4, 2)
    told = p1_telegram((value,), now=1_483_381_202.0).decode()
    assert told.startswith(
        "/SIM5GATEWAY\r\n\r\n1-3:0.2.8(50)\r\n0-0:1.0.0(170102192002W)\r\n1-0:1.8.1(4426.00*kWh)\r\n!"
    )
    assert len(told.rpartition("!")[2]) == 6


def test_an_sml_telegram_is_padded_and_has_its_values() -> None:
    told = sml_telegram((Value("energy_active_import", "", 442_600, 4, 2), Value("voltage", "A", 2305, 2, 1)))
    assert len(told) % 4 == 0
    # 1-0:1.8.0*255, unit 30 (Wh), power of ten 1: the hundredths of a kilowatt hour.
    assert bytes.fromhex("77070100010800ff0101621e5201590000 00000006c0e801") in told
    assert bytes.fromhex("77070100200700ff0101622352ff5900000000000009 0101") in told


@contextlib.asynccontextmanager
async def heard(run: Path, made: PushMeter, driver: Streams, options: object) -> AsyncIterator[list[Decoded]]:
    """What the driver says of all that the gateway's line hears."""
    found: list[Decoded] = []
    framer = driver.framer()

    def on_data(data: bytes, _at: Stamp) -> None:
        found.extend(driver.decode(frame, options) for frame in framer.feed(data))

    line = SerialLine(
        link_id="p1", port=str(run / "tty-m1"), line=LineSettings(driver.line.baud), quiet_ms=0, echo=False,
        on_state=lambda _state: None, clock=SystemClock(), on_data=on_data,
    )  # fmt: skip
    tasks = [asyncio.create_task(made.run()), asyncio.create_task(line.run())]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(("model", "key"), [("p1-port", ""), ("p1-port", KEY), ("sml-meter", "")])
async def test_what_it_says_is_heard_by_the_real_driver(tmp_path: Path, model: str, key: str) -> None:
    driver = catalogue.driver(model)
    assert isinstance(driver, Streams)
    options = driver.options({})
    if driver.keyed is not None:
        options = driver.keyed(options, bytes.fromhex(key) or None)
    with contextlib.closing(Ledger(tmp_path / "bus.jsonl")) as ledger:
        made = meter(tmp_path, ledger, model=model, **({"key": key} if key else {}))
        async with asyncio.timeout(30), heard(tmp_path, made, driver, options) as found:
            while len(found) < 2:
                await asyncio.sleep(0.02)
    rows = [json.loads(line)["value"] for line in (tmp_path / "bus.jsonl").read_text().splitlines()]
    told = {(row["quantity"], row["channel"], Decimal(row["value"])) for row in rows}
    for decoded in found:
        assert decoded.refused == ()
        assert decoded.authenticated is bool(key)
        readings = [one for one in decoded.observations if isinstance(one, Reading)]
        assert len(readings) == (14 if model == "p1-port" else 15)
        # A power that flows in has a channel of its own at a P1 port.
        said = {(one.quantity, one.channel.removesuffix("import").removesuffix("/"), one.value) for one in readings}
        assert said <= told


def test_a_silent_meter_and_a_model_that_pushes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bus.jsonl")
    assert meter(tmp_path, ledger, model="sml-meter", faults={"silent": True}).quirks.silent
    with pytest.raises(BusError, match="pushes nothing"):
        meter(tmp_path, ledger, model="dlt645-2007")
    ledger.close()

"""The simulated 1997 meter speaks as real ones do, and the real driver reads of it what it gave, over a real line."""

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

from drivers.devices.dlt645_1997 import DRIVER
from drivers.kit import LineSettings, NoReply, Observation, Reading
from gateway.clock import SystemClock
from gateway.links.serial_line import SerialLine
from simulator.bus import Ledger, MeterBus
from simulator.meters import Meter, Quirks, Request, RequestReader, Value, frame
from simulator.meters_1997 import Meter1997

# 2026-01-01 02:00:00 in China: the valley tariff, 4.
NIGHT = 1_767_204_000.0
ADDRESS = "000000063295"

# Source, address on the wire, control, data without the offset, the frame.
PUBLISHED = [
    ("KTS-Intek: 9010 = 0.15 kWh", "953206000000", 0x81, "109015000000", "6895320600000068810643c3483333330b16"),
    ("KTS-Intek: B611 = 0 V", "953206000000", 0x81, "11b60000", "6895320600000068810444e93333b516"),
    ("KTS-Intek: no such data", "953206000000", 0xC1, "02", "6895320600000068c101359416"),
    (
        "icprog/dlt698.45: 901F, spare zeros, AA",
        "750000000000",
        0x81,
        "1f90309307012835200084953000815828003703280000000000000000" + "00aa",
        "6875000000000068811f52c363c63a345b685333b7c86333b48b5b336a365b333333333333333333dd5f16",
    ),
    ("cqqqq/godlt645: B613 = 220 V", "111100000000", 0x81, "13b62002", "6811110000000068810446e953352e16"),
    ("KTS-Intek: the question to all, 9010", "999999999999", 0x01, "1090", "6899999999999968010243c36f16"),
]


def meter(**changes: Any) -> Meter1997:
    quirks = Quirks(**changes.pop("quirks", {}))
    return Meter1997(**{"device": "m1", "address": ADDRESS, "seed": 1, "start": NIGHT, "quirks": quirks} | changes)


def ask(of: Meter1997, wire: str) -> str | None:
    (request,) = RequestReader().feed(bytes.fromhex(wire))
    answer = of.answer(request, now=NIGHT)
    return answer.frame.hex() if answer else None


def test_a_question_of_another_protocol_is_none_for_it() -> None:
    """A search asks water meters as well, whose addresses are longer."""
    assert meter().answer(Request(bytes([0xAA] * 7), 0x01, bytes(3), "188"), now=NIGHT) is None


@pytest.mark.parametrize(("source", "address", "control", "data", "wire"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_frames_are_built_as_published(source: str, address: str, control: int, data: str, wire: str) -> None:
    assert frame(bytes.fromhex(address), control, bytes.fromhex(data)).hex() == wire


@pytest.mark.parametrize(
    ("value", "wire", "text"),
    [
        (Value("voltage", "A", 220, 2, 0), "2002", "220"),
        (Value("current", "A", 1234, 2, 2), "3412", "12.34"),
        (Value("voltage", "B", None, 2, 0), "ffff", "0"),
    ],
)
def test_values_have_the_decimals_of_their_edition(value: Value, wire: str, text: str) -> None:
    assert value.encoded().hex() == wire
    assert value.text() == text


def test_it_answers_to_its_address_the_wildcard_and_the_broadcast_and_to_nobody_else() -> None:
    for wire in ("6895320600000068010243c38816", "68aaaaaaaaaaaa68010243c3d516", "6899999999999968010243c36f16"):
        body = bytes.fromhex(wire)[:-2]
        told = ask(meter(), (body + bytes([sum(body) & 0xFF, 0x16])).hex())
        assert told is not None
        assert told.startswith("68953206000000688106" + "43c3")
    assert ask(meter(address="000000063296"), "6895320600000068010243c3a616") is None


def test_it_does_not_know_the_other_edition() -> None:
    assert ask(meter(), "68aaaaaaaaaaaa681300df16") is None
    assert ask(meter(), "68aaaaaaaaaaaa68110433333433ae16") is None


def test_a_register_that_it_does_not_have_is_refused_as_published() -> None:
    body = bytes.fromhex("68aaaaaaaaaaaa680102") + bytes([0x66, 0xF3])
    assert ask(meter(), (body + bytes([sum(body) & 0xFF, 0x16])).hex()) == "6895320600000068c101359416"


@contextlib.asynccontextmanager
async def cable(run: Path, *meters: Meter) -> AsyncIterator[SerialLine]:
    ledger = Ledger(run / "bus.jsonl")
    bus = MeterBus(path=run / "ttyMETER", baud=9600, meters=meters, ledger=ledger)
    line = SerialLine(
        link_id="bus-1", port=str(run / "ttyMETER"), line=LineSettings(baud=9600), quiet_ms=20, echo=False,
        on_state=lambda _state: None, clock=SystemClock(),
    )  # fmt: skip
    tasks = [asyncio.create_task(bus.run()), asyncio.create_task(line.run())]
    try:
        async with asyncio.timeout(30):
            while not (line.is_open and bus.port.held):
                await asyncio.sleep(0.002)
        yield line
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ledger.close()


async def poll(line: SerialLine, address: str) -> tuple[Observation, ...]:
    talk = DRIVER.talk(DRIVER.options(address, {}))
    framer = DRIVER.framer()
    try:
        request = next(talk)
        while True:
            request = talk.send(await line.ask(request, framer))
    except StopIteration as result:
        found: tuple[Observation, ...] = result.value
        return found


@pytest.mark.parametrize("quirks", [{}, {"spare": True}, {"stray": True}, {"foreign": True}], ids=str)
@pytest.mark.parametrize(("phases", "count"), [(1, 9), (3, 15)])
async def test_every_register_that_the_driver_reads_is_what_the_meter_gave(
    tmp_path: Path, quirks: dict[str, bool], phases: int, count: int
) -> None:
    one = Meter1997(device="m1", address=ADDRESS, seed=5, start=time.time(), phases=phases, quirks=Quirks(**quirks))
    async with cable(tmp_path, one) as line:
        found = await poll(line, ADDRESS)
    readings = {(one.quantity, one.channel, one.value) for one in found if isinstance(one, Reading)}
    rows = [json.loads(row)["value"] for row in (tmp_path / "bus.jsonl").read_text().splitlines()]
    assert readings == {(row["quantity"], row["channel"], Decimal(row["value"])) for row in rows}
    assert len(readings) == count
    assert {
        str(one.value).partition(".")[2] for one in found if isinstance(one, Reading) and one.quantity == "voltage"
    } == {""}


@pytest.mark.parametrize("address", ["AAAAAAAAAAAA", "999999999999"])
async def test_the_only_meter_is_found_without_its_address(tmp_path: Path, address: str) -> None:
    async with cable(tmp_path, Meter1997(device="m1", address=ADDRESS, seed=5, start=time.time())) as line:
        assert len(await poll(line, address)) == 15


async def test_both_editions_live_on_one_bus(tmp_path: Path) -> None:
    old = Meter1997(device="m1", address=ADDRESS, seed=5, start=time.time())
    new = Meter(device="m2", address="111111111111", seed=5, start=time.time())
    async with cable(tmp_path, new, old) as line:
        assert len(await poll(line, ADDRESS)) == 15
        with pytest.raises(NoReply):
            await poll(line, "111111111111")

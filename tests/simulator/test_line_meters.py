"""Simulated meters of other kinds: their frames against published ones, and the real drivers on the same wires."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from drivers.kit import Answers, Decoded, LineSettings, NoReply, Reading, catalogue
from gateway.clock import SystemClock
from gateway.links.serial_line import SerialLine
from gateway.links.state import LinkState
from simulator.bus import Ledger, MeterBus
from simulator.line_meters import HeatMeter, LineReader, ModbusMeter, WaterMeter, crc16
from simulator.meters import Meter, Quirks

START = 1_767_204_000.0
OPTIONS = {"cjt188": {"meter": "cold-water"}, "mbus": {}, "modbus-meter": {"meter": "eastron-sdm630"}}
MODELS: Mapping[str, type[Meter]] = {"cjt188": WaterMeter, "mbus": HeatMeter, "modbus-meter": ModbusMeter}
ADDRESSES = {"cjt188": "00000051327643", "mbus": "7", "modbus-meter": "3"}


def meter(model: str, address: str | None = None, **quirks: object) -> Meter:
    return MODELS[model](
        device=model,
        address=address or ADDRESSES[model],
        seed=5,
        start=START,
        quirks=Quirks(**quirks),  # type: ignore[arg-type]  # what the test names
    )


def ask(of: Meter, wire: str, *, after_s: float = 0.0) -> bytes | None:
    (request,) = LineReader().feed(bytes.fromhex(wire))
    answer = of.answer(request, now=START + after_s)
    return answer.frame if answer else None


def test_the_sum_of_modbus_is_that_of_published_frames() -> None:
    # Tasmota's SDM drivers, a CH57x firmware, an SDM220 on an unbiased bus.
    for published in ("010404436633341b38", "0104044365e6663455", "01040443696978106e", "0104200000027a0b"):
        raw = bytes.fromhex(published)
        assert crc16(raw[:-2]) == raw[-2:]


def test_a_water_meter_answers_in_the_form_of_a_published_reply() -> None:
    # aixiwang/python_cjt188: the request; its reply has 16 bytes of length, units 2C, and the identifier as it was asked.
    reply = ask(meter("cjt188", "00000000000012"), "fefefe6810120000000000000103901f003d16")
    assert reply is not None
    assert reply[:14].hex() == "681012000000000000" + "8116901f00"
    assert (reply[18], reply[23], reply[-1], len(reply)) == (0x2C, 0x2C, 0x16, 35)
    assert sum(reply[:-2]) % 256 == reply[-2]
    assert ask(meter("cjt188"), "fefe6810aaaaaaaaaaaaaa0103901faa7b16") is not None
    assert ask(meter("cjt188", spare=True), "fefe6810aaaaaaaaaaaaaa0103901faa7b16") is None


def test_a_heat_meter_is_selected_by_its_number_and_answers_then_only() -> None:
    one = meter("mbus", "12345678")
    assert ask(one, "107bfd7816") is None
    assert ask(one, "680b0b6853fd5278563412ffffffffb216") == b"\xe5"
    reply = ask(one, "107bfd7816")
    assert reply is not None
    assert reply[4:8].hex() == "08007278"
    assert ask(one, "680b0b6853fd5279563412ffffffffb316") is None
    assert ask(one, "107bfd7816") is None, "another one was selected"
    assert ask(meter("mbus", "1"), "1040014116") == b"\xe5"


def test_a_modbus_meter_refuses_what_it_does_not_have() -> None:
    one = meter("modbus-meter", "1")
    assert ask(one, "0104200000027a0b") == bytes.fromhex("018402c2c1")
    reply = ask(one, "01040000000271cb")
    assert reply is not None
    assert reply[:3].hex() == "010404"


def test_a_modbus_meter_has_a_number_of_its_own() -> None:
    said = [ask(meter("modbus-meter", "1"), "0103fc000002f45b") for _ in range(2)]
    assert said[0] == said[1]
    assert said[0] is not None
    assert (said[0][:3].hex(), len(said[0])) == ("010304", 9)


class Cable:
    """A bus with meters at one end and a line at the other."""

    def __init__(self, run: Path, meters: Sequence[Meter], *, echo: bool = False) -> None:
        self.run = run
        self.states: list[LinkState] = []
        self.ledger = Ledger(run / "bus.jsonl")
        self.bus = MeterBus(path=run / "ttyMETER", baud=9600, meters=meters, ledger=self.ledger, echo=echo)
        self.line = SerialLine(
            link_id="bus-1",
            port=str(run / "ttyMETER"),
            line=LineSettings(baud=9600),
            quiet_ms=20,
            echo=echo,
            on_state=self.states.append,
            clock=SystemClock(),
        )

    async def poll(self, model: str, address: str) -> list[Reading]:
        """One poll as the gateway makes it: the driver asks through the line."""
        driver = catalogue.driver(model)
        assert isinstance(driver, Answers)
        framer = driver.framer()
        talk = driver.talk(driver.options(address, OPTIONS[model]))
        try:
            asked = next(talk)
            while True:
                try:
                    asked = talk.send(await self.line.ask(asked, framer))
                except NoReply as silence:
                    asked = talk.throw(silence)
        except StopIteration as end:
            found = end.value.observations if isinstance(end.value, Decoded) else end.value
            return [one for one in found if isinstance(one, Reading)]

    def told(self) -> set[tuple[str, str, Decimal]]:
        """What the meters' ledger says that they gave."""
        rows = [json.loads(line)["value"] for line in (self.run / "bus.jsonl").read_text().splitlines()]
        return {(row["quantity"], row["channel"], Decimal(row["value"])) for row in rows}


@contextlib.asynccontextmanager
async def plugged(cable: Cable) -> AsyncIterator[Cable]:
    tasks = [asyncio.create_task(cable.bus.run()), asyncio.create_task(cable.line.run())]
    try:
        async with asyncio.timeout(60):
            while not cable.line.is_open:
                await asyncio.sleep(0.01)
            yield cable
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        cable.ledger.close()


def live(model: str, address: str | None = None, **quirks: object) -> Meter:
    return MODELS[model](
        device=model,
        address=address or ADDRESSES[model],
        seed=5,
        start=time.time(),
        quirks=Quirks(**quirks),  # type: ignore[arg-type]  # what the test names
    )


@pytest.mark.parametrize("quirks", [{}, {"stray": True}, {"foreign": True}], ids=["plain", "stray", "foreign"])
@pytest.mark.parametrize("echo", [False, True], ids=["", "echo"])
async def test_meters_of_all_kinds_on_one_bus_are_read_as_they_say(
    tmp_path: Path, quirks: dict[str, object], echo: bool
) -> None:
    async with plugged(Cable(tmp_path, [live(model, **quirks) for model in MODELS], echo=echo)) as cable:
        read = {
            (one.quantity, one.channel, one.value)
            for model in MODELS
            for one in await cable.poll(model, ADDRESSES[model])
        }
        told = cable.told()
    assert len(told) == 2 + 4 + 13
    # Zeros of the registers that the simulated SDM630 does not keep stand in the readings only.
    assert told <= read
    assert {one for one in read - told if one[2]} <= {
        one for one in read if one[0] in ("status_word", "records_unread")
    }


async def test_a_heat_meter_is_read_by_its_number_beside_another(tmp_path: Path) -> None:
    meters = [live("mbus", "12345678"), live("mbus", "87654321")]
    async with plugged(Cable(tmp_path, meters)) as cable:
        first = await cable.poll("mbus", "12345678")
        second = await cable.poll("mbus", "87654321")
    assert {one.quantity for one in first} == {one.quantity for one in second}


async def test_a_water_meter_that_knows_the_other_order_is_read(tmp_path: Path) -> None:
    async with plugged(Cable(tmp_path, [live("cjt188", spare=True)])) as cable:
        found = await cable.poll("cjt188", ADDRESSES["cjt188"])
    assert [one.quantity for one in found][:2] == ["volume_water", "volume_water"]
    assert found[0].device_time is not None


@pytest.mark.parametrize(
    ("model", "address"),
    [("cjt188", "1"), ("mbus", "0"), ("mbus", "251"), ("mbus", "1234567a"), ("modbus-meter", "248")],
)
def test_an_address_that_no_such_meter_has_is_refused(model: str, address: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        meter(model, address)

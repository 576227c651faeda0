"""The simulated meter of DL/T 698.45 speaks as real ones do: its frames are compared with frames that others published."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path

import pytest

from drivers.devices.dlt698_45 import DRIVER
from drivers.kit import Polled, Reading
from gateway.links.serial_line import SerialLine
from simulator.line_meters import LineReader
from simulator.meters import Meter, Quirks, Request
from simulator.meters_698 import Meter698, Reader698, frame_698
from simulator.meters_1997 import Meter1997
from tests.simulator.test_meters_1997 import cable, poll

# 2026-01-01 02:00:00 in China: the valley tariff, 4.
NIGHT = 1_767_204_000.0


def meter(**changes: object) -> Meter698:
    arguments: dict[str, object] = {"device": "m1", "address": "202407030001", "seed": 1, "start": NIGHT} | changes
    return Meter698(**arguments)


def ask(of: Meter698, wire: str) -> bytes | None:
    (request,) = Reader698().feed(bytes.fromhex(wire))
    answer = of.answer(request, now=NIGHT)
    return answer.frame if answer else None


def test_frames_are_built_as_published() -> None:
    # Python 698.45 tool, FrameParser example: 228.3 V on phase A of the meter 202407030001.
    apdu = bytes.fromhex("85010020000200010103" + "1208eb" + "120000" * 2 + "0000")
    assert (
        frame_698(0xC3, 5, bytes.fromhex("010003072420"), 0x10, apdu).hex()
        == "682400c305010003072420100956850100200002000101031208eb1200001200000000fbff16"
    )


def test_the_published_question_for_the_address_is_answered_with_it() -> None:
    reply = ask(meter(), "6817004345aaaaaaaaaaaa10da5f0501004001020000ed0316")
    assert reply is not None
    assert reply[5:11].hex() == "010003072420"
    assert reply[14:-3].hex() == "85010040010200" + "01" + "0906202407030001" + "0000"


def test_requests_are_found_in_any_cut_and_behind_garbage() -> None:
    wire = bytes.fromhex("fefefefe681700430501000307242010a2ff0501002000020000e5be16")
    reader = LineReader()
    found: list[Request] = []
    for at in range(len(wire)):
        found += reader.feed(wire[at : at + 1])
    assert [(one.protocol, one.data.hex()) for one in found] == [("698", "0510" + "0501002000020000")]
    assert len(reader.feed(b"\x68\x00\x01\xff\x68\x99" + wire)) == 1
    broken = wire[:-3] + b"\0\0\x16"
    assert reader.feed(broken) == []
    assert len(reader.feed(wire)) == 1


def test_what_it_does_not_have_is_undefined_and_what_does_not_read_is_not_answered() -> None:
    request = Request(bytes.fromhex("010003072420"), 0x43, bytes.fromhex("0510" + "0501004104020000"), "698")
    answer = meter().answer(request, now=NIGHT)
    assert answer is not None
    assert answer.data.hex() == "85010041040200" + "0004" + "0000"
    for apdu in ("0601004000020000", "0701004000020000", "0502000120000200"[:12]):
        data = bytes.fromhex("0510" + apdu)
        assert meter().answer(Request(request.address, 0x43, data, "698"), now=NIGHT) is None
    other = Request(bytes.fromhex("020003072420"), 0x43, request.data, "698")
    assert meter().answer(other, now=NIGHT) is None


def test_a_meter_that_knows_no_lists_is_silent_to_them() -> None:
    asked = Request(bytes.fromhex("010003072420"), 0x43, bytes.fromhex("0510" + "05020101" + "20000200" + "00"), "698")
    assert meter().answer(asked, now=NIGHT) is not None
    assert meter(quirks=Quirks(no_blocks=True)).answer(asked, now=NIGHT) is None


async def polled(line: SerialLine, address: str) -> Polled:
    talk = DRIVER.talk(DRIVER.options(address, {}))
    framer = DRIVER.framer()
    try:
        request = next(talk)
        while True:
            request = talk.send(await line.ask(request, framer))
    except StopIteration as result:
        found: Polled = result.value
        return found


@pytest.mark.parametrize("quirks", [{}, {"stray": True}, {"foreign": True}, {"late_s": 0.3}], ids=str)
@pytest.mark.parametrize(("phases", "count"), [(1, 9), (3, 15)])
async def test_every_register_that_the_driver_reads_is_what_the_meter_gave(
    tmp_path: Path, quirks: dict[str, bool], phases: int, count: int
) -> None:
    one = Meter698(
        device="m1", address="202407030001", seed=5, start=time.time(), phases=phases, quirks=Quirks(**quirks)
    )
    async with cable(tmp_path, one) as line:
        found = await polled(line, "202407030001")
    assert isinstance(found, tuple)
    readings = {(one.quantity, one.channel, one.value) for one in found if isinstance(one, Reading)}
    rows = [json.loads(row)["value"] for row in (tmp_path / "bus.jsonl").read_text().splitlines()]
    assert readings == {(row["quantity"], row["channel"], Decimal(row["value"])) for row in rows}
    assert len(readings) == count


async def test_meters_of_three_protocols_live_on_one_bus(tmp_path: Path) -> None:
    new = Meter698(device="m1", address="202407030001", seed=5, start=time.time())
    old = Meter1997(device="m2", address="000000063295", seed=5, start=time.time())
    other = Meter(device="m3", address="111111111111", seed=5, start=time.time())
    async with cable(tmp_path, new, old, other) as line:
        assert len(await polled(line, "AAAAAAAAAAAA")) == 15
        assert len(await poll(line, "000000063295")) == 15

"""Meters on a bus, and the simulator's process that plays a scenario."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from simulator.bus import BusError, Ledger, MeterBus, main
from simulator.meters import Meter, Quirks

READ_ENERGY = bytes.fromhex("fefefefe68003619000000681104333234330016")
WHO_IS_THERE = bytes.fromhex("68aaaaaaaaaaaa681300df16")


class Master:
    """Who asks on the bus."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    async def ask(self, request: bytes, *, for_s: float = 0.35) -> tuple[bytes, float]:
        """Send a request; return what came within a while, and after how many seconds the first byte came."""
        os.write(self.fd, request)
        began, first, got = time.monotonic(), 0.0, b""
        while time.monotonic() - began < for_s:
            with contextlib.suppress(BlockingIOError):
                got += os.read(self.fd, 4096)
                first = first or time.monotonic() - began
            await asyncio.sleep(0.001)
        return got, first


def meter(device: str = "meter-main", address: str = "000000193600", **changes: Any) -> Meter:
    return Meter(device=device, address=address, seed=1, start=time.time(), quirks=Quirks(**changes))


@contextlib.asynccontextmanager
async def bus(run: Path, meters: Sequence[Meter], *, echo: bool = False) -> AsyncIterator[Master]:
    ledger = Ledger(run / "bus.jsonl")
    wires = MeterBus(path=run / "ttyMETER", baud=9600, meters=meters, ledger=ledger, echo=echo)
    task = asyncio.create_task(wires.run())
    await asyncio.sleep(0)
    master = Master(run / "ttyMETER")
    try:
        async with asyncio.timeout(30):
            while not wires.port.held:
                await asyncio.sleep(0.001)
        yield master
    finally:
        os.close(master.fd)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        ledger.close()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_a_reply_is_whole_in_time_and_each_of_its_registers_is_in_the_ledger(tmp_path: Path) -> None:
    one = meter()
    async with bus(tmp_path, [one]) as master:
        got, first = await master.ask(READ_ENERGY)
    reply = got[got.index(b"\x68") :]
    assert got[: -len(reply)] == one.preamble
    assert reply[:10].hex() == "68003619000000689118"
    assert len(reply) == 36
    # 20 bytes take 20.8 ms at 9600 baud, then the meter thinks for 20 to 60 ms.
    assert 0.040 < first < 0.2
    written = rows(tmp_path / "bus.jsonl")
    assert [(row["kind"], row["counter"], row["device"]) for row in written] == [("poll", 1, "meter-main")] * 5
    assert [row["value"]["channel"] for row in written] == ["", "T1", "T2", "T3", "T4"]
    assert {row["value"]["quantity"] for row in written} == {"energy_active_import"}
    digits = bytes((byte - 0x33) & 0xFF for byte in reply[14:18])[::-1].hex()
    assert written[0]["value"]["value"] == f"{int(digits[:6])}.{digits[6:]}"


async def test_the_ledger_counts_replies(tmp_path: Path) -> None:
    async with bus(tmp_path, [meter()]) as master:
        await master.ask(READ_ENERGY, for_s=0.2)
        await master.ask(READ_ENERGY, for_s=0.2)
    assert [row["counter"] for row in rows(tmp_path / "bus.jsonl")] == [1] * 5 + [2] * 5


async def test_a_reply_that_nobody_held_the_port_for_is_not_in_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bus.jsonl")
    wires = MeterBus(path=tmp_path / "ttyMETER", baud=9600, meters=[meter(late_s=0.5)], ledger=ledger)
    task = asyncio.create_task(wires.run())
    await asyncio.sleep(0)
    master = Master(tmp_path / "ttyMETER")
    await asyncio.sleep(0.05)
    os.write(master.fd, READ_ENERGY)
    await asyncio.sleep(0.1)  # it is read, and its reply not yet begun
    os.close(master.fd)
    async with asyncio.timeout(10):
        while not wires.port.discarded:
            await asyncio.sleep(0.01)
    assert rows(tmp_path / "bus.jsonl") == []
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    ledger.close()


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ({"silent": True}, ""),
        ({"answers": 0.0}, ""),
        ({"stray": True}, "00ff00 own ff00"),
        ({"foreign": True}, "stranger own"),
    ],
)
async def test_quirks_show_on_the_wire(tmp_path: Path, faults: Mapping[str, Any], expected: str) -> None:
    one = meter(**faults)
    async with bus(tmp_path, [one]) as master:
        got, _ = await master.ask(READ_ENERGY)
    shape = got.hex()
    if "68003619000000689118" in shape:
        at = shape.index("68003619000000689118")
        shape = shape[: at - 2 * len(one.preamble)] + " own " + shape[at + 72 :]
    if shape.startswith("68999999999998689118"):
        shape = "stranger" + shape[72:]
    assert shape.strip() == expected


async def test_a_late_meter_answers_after_the_master_gave_up(tmp_path: Path) -> None:
    async with bus(tmp_path, [meter(late_s=0.3)]) as master:
        assert (await master.ask(READ_ENERGY, for_s=0.2))[0] == b""
        await asyncio.sleep(0.3)
        assert b"\x68\x00\x36\x19" in os.read(master.fd, 4096)


async def test_an_echoing_adapter_returns_the_request_before_the_reply(tmp_path: Path) -> None:
    async with bus(tmp_path, [meter()], echo=True) as master:
        got, _ = await master.ask(READ_ENERGY)
    assert got.startswith(READ_ENERGY)
    assert bytes.fromhex("68003619000000689118") in got


async def test_two_meters_that_answer_at_once_garble_each_other(tmp_path: Path) -> None:
    meters = [meter("m1", "000000193600"), meter("m2", "111111111111")]
    async with bus(tmp_path, meters) as master:
        got, _ = await master.ask(WHO_IS_THERE)
    # Bit by bit the zeros of 68 003619000000 68 93 06 33694c... and 68 111111111111 68 93 06 444444... win.
    assert got.hex().startswith("68001011000000689306")
    assert rows(tmp_path / "bus.jsonl") == []


# The process.


def scenario(port: int) -> dict[str, Any]:
    return {
        "seed": 7,
        "seconds": 10,
        "start": time.time(),
        "links": {"bus": {"id": "bus-1", "path": "ttyMETER", "baud": 9600}},
        "devices": [
            {"id": "meter-main", "role": "meter", "link": "bus-1", "address": "000000193600"},
            {"id": "board", "role": "controller", "link": "wire-1", "address": "", "port": port, "map": {"number": "nr"}},
            {"id": "call-1", "role": "button", "link": "air", "address": "A4:C1:38:00:00:01"},
        ],
        "emissions": [
            {"at_s": 0.3, "device": "board", "kind": "line", "value": {"temp": 20.5}},
            {"at_s": 0.0, "device": "call-1", "kind": "press", "code": "press", "for_s": 0.8},
            {"at_s": 0.1, "device": "board", "kind": "line", "value": {"call": 1}},
        ],
    }  # fmt: skip


async def test_the_process_plays_meters_and_controllers_until_it_is_told_to_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    (tmp_path / "scenario.json").write_text(json.dumps(scenario(port)), encoding="utf-8")
    play = "import asyncio,sys; from pathlib import Path; from simulator.bus import main; asyncio.run(main(Path(sys.argv[1])))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", play, str(tmp_path))
    try:
        async with asyncio.timeout(30):
            while not (tmp_path / "ttyMETER").exists():
                await asyncio.sleep(0.01)
            master = Master(tmp_path / "ttyMETER")
            await asyncio.sleep(0.05)
            got, _ = await master.ask(READ_ENERGY)
            assert bytes.fromhex("68003619000000689118") in got
            os.close(master.fd)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            lines = [json.loads(await reader.readline()) for _ in range(2)]
            assert [(line["nr"], line.get("call"), line.get("temp")) for line in lines] == [
                (1, 1, None),
                (2, None, 20.5),
            ]
            assert "dev" not in lines[0]
            writer.write(b'{"ack":1}\n{"ack":2}\n')
            while len(rows(tmp_path / "lines.jsonl")) < 4:
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
            writer.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    told = rows(tmp_path / "lines.jsonl")
    assert [(row["device"], row["n"], row["value"]) for row in told if "kind" in row] == [
        ("board", 1, {"call": 1}),
        ("board", 2, {"temp": 20.5}),
    ]
    assert [row["acked"] for row in told if "acked" in row] == [1, 2]
    assert told[0]["session"] == lines[0]["s"]
    assert not (tmp_path / "ttyMETER").is_symlink()


async def test_a_meter_without_a_proper_address_and_a_taken_port_are_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        score = scenario(taken.getsockname()[1])
        (tmp_path / "scenario.json").write_text(json.dumps(score), encoding="utf-8")
        with pytest.raises(BusError, match=rf"port {taken.getsockname()[1]} of 127.0.0.1: .*in use"):
            await main(tmp_path)
    score["devices"][0]["address"] = "12"
    (tmp_path / "scenario.json").write_text(json.dumps(score), encoding="utf-8")
    with pytest.raises(BusError, match=r"device meter-main: .*12 digits"):
        await main(tmp_path)
    score["devices"][0] |= {"address": "000000193600", "faults": {"lazy": True}}
    (tmp_path / "scenario.json").write_text(json.dumps(score), encoding="utf-8")
    with pytest.raises(BusError, match=r"device meter-main: .*lazy"):
        await main(tmp_path)

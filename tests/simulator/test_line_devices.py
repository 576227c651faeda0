"""Sources of JSON lines: nothing is forgotten before it is acknowledged, and everything comes in order."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from simulator import line_load
from simulator.line_devices import WINDOW, LinePort, LineSource, PtyLinePort, TcpPort
from tests.stolen_time import stolen_time


class Gateway:
    """The other end of a TCP line, driven by the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def line(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await asyncio.wait_for(self._reader.readline(), 5))
        return found

    async def numbers(self, count: int) -> list[int]:
        return [(await self.line())["n"] for _ in range(count)]

    def acknowledge(self, *numbers: int, **more: object) -> None:
        for n in numbers:
            self.writer.write(json.dumps({"ack": n, **more}).encode() + b"\n")


class Board:
    """A source on TCP with its ledger."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.source = LineSource(device="board-1", address="b1", session="5f3a", record=self.rows.append)
        self.port = TcpPort(port=0, source=self.source)
        self.gateways: list[Gateway] = []

    async def connect(self) -> Gateway:
        self.gateways.append(Gateway(*await asyncio.open_connection("127.0.0.1", self.port.port)))
        return self.gateways[-1]

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.writer.transport.abort()

    @property
    def acked(self) -> list[int]:
        return [row["acked"] for row in self.rows if "acked" in row]


async def until(condition: Callable[[], object], *, timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def running(source: LineSource, port: LinePort) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(source.run()), asyncio.create_task(port.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def board() -> AsyncIterator[Board]:
    there = Board()
    await there.port.listen()
    async with running(there.source, there.port):
        yield there
        there.close()


async def test_a_line_carries_device_number_and_session_and_is_in_the_ledger_from_its_birth(board: Board) -> None:
    before = time.time()
    assert board.source.emit({"call": 1}) == 1
    assert board.rows == [board.rows[0]]
    row = board.rows[0]
    assert {key: row[key] for key in ("device", "kind", "n", "session", "value", "counter")} == {
        "device": "board-1",
        "kind": "line",
        "n": 1,
        "session": "5f3a",
        "value": {"call": 1},
        "counter": None,
    }
    assert before <= row["t"] == row["t_last"] <= time.time()
    gateway = await board.connect()
    assert await gateway.line() == {"dev": "b1", "n": 1, "s": "5f3a", "call": 1}
    gateway.acknowledge(1)
    await until(lambda: board.acked == [1])
    assert board.source.unacknowledged == 0


async def test_what_happens_while_nobody_is_connected_waits_and_comes_in_order(board: Board) -> None:
    for value in range(300):
        board.source.emit({"temp": value})
    await asyncio.sleep(0.05)
    gateway = await board.connect()
    # No more than 256 are under way; each acknowledgement lets another one go.
    assert await gateway.numbers(WINDOW) == list(range(1, 257))
    gateway.acknowledge(*range(1, 45))
    assert await gateway.numbers(44) == list(range(257, 301))


async def test_what_is_not_acknowledged_comes_again_after_a_second_in_order(board: Board) -> None:
    gateway = await board.connect()
    for _ in range(4):
        board.source.emit({"call": 1})
    assert await gateway.numbers(4) == [1, 2, 3, 4]
    began = time.monotonic()
    async with stolen_time() as stolen:
        gateway.acknowledge(2)
        assert await gateway.numbers(3) == [1, 3, 4]
    assert 0.9 < time.monotonic() - began < 2.0 + stolen.seconds
    assert board.source.resent == 3


async def test_after_a_reconnection_the_oldest_unacknowledged_comes_first(board: Board) -> None:
    first = await board.connect()
    for _ in range(5):
        board.source.emit({"call": 1})
    assert await first.numbers(5) == [1, 2, 3, 4, 5]
    first.acknowledge(1, 2)
    await until(lambda: board.acked == [1, 2])
    first.writer.transport.abort()
    await until(lambda: not board.port.connected)
    board.source.emit({"call": 1})
    second = await board.connect()
    assert await second.numbers(4) == [3, 4, 5, 6]
    second.acknowledge(3, 4, 5, 6)
    await until(lambda: board.source.unacknowledged == 0)
    assert board.acked == [1, 2, 3, 4, 5, 6]


async def test_a_new_connection_replaces_the_old_one(board: Board) -> None:
    first = await board.connect()
    board.source.emit({"call": 1})
    assert await first.numbers(1) == [1]
    second = await board.connect()
    assert await second.numbers(1) == [1]
    assert board.port.connected
    assert board.port.connections == 2
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(first._reader.read(), 3) == b""


async def test_only_an_acknowledgement_of_this_session_and_of_a_known_number_counts(board: Board) -> None:
    gateway = await board.connect()
    board.source.emit({"call": 1})
    assert await gateway.numbers(1) == [1]
    gateway.acknowledge(1, s="former")
    gateway.acknowledge(2)
    gateway.writer.write(b'not json\n[]\n{"ack":"1"}\n{}\n' + b"x" * 5000 + b"\n")
    await until(lambda: board.source.unmatched_acks >= 7)
    assert board.acked == []
    gateway.acknowledge(1, s="5f3a")
    await until(lambda: board.acked == [1])
    gateway.acknowledge(1)
    await until(lambda: board.source.unmatched_acks >= 8)
    assert board.acked == [1]


async def test_fields_can_be_named_as_the_device_map_has_it() -> None:
    rows: list[Mapping[str, Any]] = []
    names = {"address": "id", "number": "seq", "session": "boot"}
    source = LineSource(device="x", address="7", session="aa", record=rows.append, names=names)
    port = TcpPort(port=0, source=source)
    await port.listen()
    async with running(source, port):
        gateway = Gateway(*await asyncio.open_connection("127.0.0.1", port.port))
        source.emit({"call": 1})
        assert await gateway.line() == {"id": "7", "seq": 1, "boot": "aa", "call": 1}
        gateway.acknowledge(1, boot="bb")
        gateway.acknowledge(1, boot="aa")
        await until(lambda: source.unacknowledged == 0)
        assert source.unmatched_acks == 1
        gateway.writer.transport.abort()


async def test_a_source_on_a_serial_cable_does_the_same(tmp_path: Path) -> None:
    rows: list[Mapping[str, Any]] = []
    source = LineSource(device="x", address="", session="aa", record=rows.append)
    port = PtyLinePort(path=tmp_path / "ttyBOARD", baud=115200, source=source)
    async with running(source, port):
        source.emit({"call": 1})
        await until((tmp_path / "ttyBOARD").exists)
        holder = os.open(tmp_path / "ttyBOARD", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        got = b""
        async with asyncio.timeout(30):
            while not got.endswith(b"\n"):
                with contextlib.suppress(BlockingIOError):
                    got += os.read(holder, 4096)
                await asyncio.sleep(0.002)
        assert got == b'{"n":1,"s":"aa","call":1}\n'
        os.write(holder, b'{"ack":1}\n')
        await until(lambda: source.unacknowledged == 0)
        os.close(holder)


# The load.


def options(tmp_path: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    line_load.add_arguments(parser)
    return parser.parse_args(["--report", str(tmp_path / "report.json"), *words])


async def consume(port: int, *, acknowledge: Callable[[int], bool] = lambda _: True) -> list[dict[str, Any]]:
    """Be a gateway that acknowledges at once, until the other side closes."""
    async with asyncio.timeout(30):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                await asyncio.sleep(0.01)
    seen = []
    with contextlib.suppress(ConnectionResetError):
        while line := await reader.readline():
            seen.append(json.loads(line))
            if not acknowledge(seen[-1]["n"]):
                break
            writer.write(b'{"ack":%d}\n' % seen[-1]["n"])
    writer.close()
    return seen


async def test_a_load_goes_as_fast_as_it_is_acknowledged_and_reports(tmp_path: Path, unused_tcp_port: int) -> None:
    words = [
        "--port",
        str(unused_tcp_port),
        "--count",
        "5000",
        "--devices",
        "3",
        "--window",
        "100",
        "--value",
        '{"t":1}',
    ]
    gateway = asyncio.create_task(consume(unused_tcp_port))
    assert await line_load.main(options(tmp_path, *words)) == 0
    seen = await gateway
    assert [line["n"] for line in seen] == list(range(1, 5001))
    assert {line["dev"] for line in seen} == {"dev-1", "dev-2", "dev-3"}
    assert {line["t"] for line in seen} == {1}
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["acked"], report["finished"], report["resent"], report["connections"]) == (5000, True, 0, 1)
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"] <= report["latency_ms"]["max"]
    assert report["lines_per_s"] == pytest.approx(5000 / report["seconds"], rel=0.02)


async def test_a_load_at_a_rate_takes_its_time(tmp_path: Path, unused_tcp_port: int) -> None:
    gateway = asyncio.create_task(consume(unused_tcp_port))
    words = ["--port", str(unused_tcp_port), "--count", "200", "--rate", "400"]
    async with stolen_time() as stolen:
        assert await line_load.main(options(tmp_path, *words)) == 0
    await gateway
    report = json.loads((tmp_path / "report.json").read_text())
    assert 0.49 <= report["seconds"] < 1.0 + stolen.seconds


async def test_a_load_sends_again_what_a_lost_connection_left_unacknowledged(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    words = ["--port", str(unused_tcp_port), "--count", "300", "--window", "50"]
    load = asyncio.create_task(line_load.main(options(tmp_path, *words)))
    first = await consume(unused_tcp_port, acknowledge=lambda n: n <= 120)
    second = await consume(unused_tcp_port)
    assert await load == 0
    assert first[-1]["n"] == 121
    numbers = [line["n"] for line in second]
    assert numbers == list(range(numbers[0], 301))
    assert numbers[0] <= 121
    assert json.loads((tmp_path / "report.json").read_text())["connections"] == 2


async def test_a_load_that_nobody_takes_gives_up_and_says_so(tmp_path: Path, unused_tcp_port: int) -> None:
    words = ["--port", str(unused_tcp_port), "--count", "10", "--timeout-s", "0.05"]
    assert await line_load.main(options(tmp_path, *words)) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["acked"], report["finished"], report["lines_per_s"]) == (0, False, None)


@pytest.mark.parametrize(
    "words", [["--count", "0"], ["--count", "5", "--devices", "0"], ["--count", "5", "--value", "[1]"]]
)
async def test_a_load_that_makes_no_sense_is_refused(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(ValueError, match="--"):
        await line_load.main(options(tmp_path, "--port", "1", *words))

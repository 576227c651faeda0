"""Ports over RFC 2217: a server with pyserial's own telnet behind it, and servers that refuse, fall silent or talk nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from drivers.kit import Answers, Ask, LineSettings, NoReply, Title
from drivers.kit.framing import LineFramer
from drivers.kit.searching import Search, Searching
from gateway.clock import Stamp, SystemClock
from gateway.links import line_ear, serial_server
from gateway.links.bus_scan import Scan, Step, scan
from gateway.links.com_port import ComPort
from gateway.links.line_ear import listen
from gateway.links.serial_line import SerialLine
from gateway.links.state import LinkState
from simulator.com_port_server import ComPortServer
from simulator.uart import Framing

EVERY = bytes(range(256))


class Line:
    def __init__(self, port: int, settings: LineSettings | None = None) -> None:
        self.states: list[LinkState] = []
        self.heard = b""
        self.line = SerialLine(
            link_id="bus-1", port=f"rfc2217://127.0.0.1:{port}", line=settings or LineSettings(115200, 8, "E", 1),
            quiet_ms=5, echo=False, on_state=self.states.append, clock=SystemClock(), on_data=self._hear,
        )  # fmt: skip

    def _hear(self, data: bytes, _stamp: Stamp) -> None:
        self.heard += data

    @property
    def told(self) -> list[str | None]:
        return [None if one.hearing else one.problem for one in self.states]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(*works: object) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work.run()) for work in works]  # type: ignore[attr-defined]  # servers and lines run
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def opened(*, refuses: str = "") -> AsyncIterator[tuple[Line, ComPortServer, bytearray]]:
    got = bytearray()
    server = ComPortServer(port=0, on_data=got.extend, refuses=refuses)
    async with running(server):
        await server.listening.wait()
        line = Line(server.port)
        async with running(line.line):
            await until(lambda: line.line.is_open)
            yield line, server, got


async def test_the_port_is_set_before_it_counts_as_open_and_passes_all_bytes() -> None:
    async with opened() as (line, server, got):
        assert server.framing == Framing(115200, 8, "E", 1)
        assert line.told == [None]
        assert line.line.write(EVERY)
        await until(lambda: len(got) >= 256)
        assert bytes(got) == EVERY
        assert await server.send(EVERY, framing=server.framing)
        await until(lambda: len(line.heard) >= 256)
        assert line.heard == EVERY


async def test_speed_and_parity_are_set_anew_and_a_refused_parity_is_told_with_what_is_there_instead() -> None:
    async with opened(refuses="O") as (line, server, _):
        await line.line.be_set(LineSettings(2400, 8, "N", 1))
        assert server.framing == Framing(2400, 8, "N", 1)
        with pytest.raises(NoReply, match="cannot be set to 9600 8O1: the serial server has set 9600 8N1 instead"):
            await line.line.be_set(LineSettings(9600, 8, "O", 1))
        await line.line.be_set(LineSettings(2400, 8, "N", 1))  # half of the refused ones was set
        assert server.framing == Framing(2400, 8, "N", 1)
        assert line.line.is_open


async def test_a_server_that_refuses_the_parity_at_the_opening_is_told_by_name() -> None:
    server = ComPortServer(port=0, refuses="E")
    async with running(server):
        await server.listening.wait()
        line = Line(server.port)
        async with running(line.line):
            await until(lambda: line.states)
            assert line.told[0] == "GW-SER-05"
            assert line.states[0].facts["detail"] == "the serial server has set 115200 8N1 instead"


async def test_a_connection_that_is_cut_is_told_and_made_anew_with_its_settings() -> None:
    async with opened() as (line, server, _):
        server.settings.baudrate = 300
        server.cut()
        await until(lambda: line.told == [None, "GW-SER-04", None])
        assert server.framing == Framing(115200, 8, "E", 1)


@contextlib.asynccontextmanager
async def serving(said: bytes, *, closes: bool = False) -> AsyncIterator[int]:
    """A server that says one thing and then nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        if closes:
            writer.close()
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(
    ("said", "closes", "code", "detail"),
    [
        (b"", False, "GW-SER-11", "it does not answer telnet: is its port a raw TCP one?"),
        (b"\x68\x03\x00", False, "GW-SER-11", "it does not answer telnet: is its port a raw TCP one?"),
        (bytes.fromhex("fffe2c"), False, "GW-SER-11", "it does not let its port be set (RFC 2217)"),
        (bytes.fromhex("fffc00"), False, "GW-SER-11", "it passes no eight bits (telnet without BINARY)"),
        (
            bytes.fromhex("fffd00fffd2c"),
            False,
            "GW-SER-06",
            "the serial server does not confirm the settings of its port",
        ),
        (b"", True, "GW-SER-06", "closed by the serial server: "),
    ],
)
async def test_a_server_that_will_not_or_cannot_is_told_by_name_within_its_time(
    said: bytes, closes: bool, code: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_server, "AGREE_S", 0.3)
    monkeypatch.setattr(serial_server, "SET_S", 0.3)
    async with serving(said, closes=closes) as port:
        line = Line(port)
        async with running(line.line):
            await until(lambda: line.states)
            assert line.told[0] == code
            assert str(line.states[0].facts["detail"]).startswith(detail)
            assert not line.line.is_open


async def test_a_server_that_is_gone_in_the_moment_it_confirms_is_told_and_tried_again() -> None:
    confirms = bytes.fromhex("fffa2c6500002580fff0" + "fffa2c6608fff0" + "fffa2c6701fff0" + "fffa2c6801fff0")
    wishes = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal wishes
        writer.write(bytes.fromhex("fffd00fffd2c"))
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\xff\xf0")
            wishes += 1
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # What it asks for last is answered into a connection that is no more.
            writer.write(confirms + bytes.fromhex("fffd63"))
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    line = Line(server.sockets[0].getsockname()[1], LineSettings(9600))
    try:
        async with running(line.line):
            await until(lambda: wishes >= 2)
            assert line.told[0] == "GW-SER-06"
            assert not line.line.is_open
    finally:
        server.close()


async def test_a_flood_of_commands_is_taken_in_slices_so_that_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed: list[int] = []
    feed = ComPort.feed

    def noted(com: ComPort, data: bytes) -> bytes:
        fed.append(len(data))
        return feed(com, data)

    monkeypatch.setattr(ComPort, "feed", noted)
    async with serving(bytes.fromhex("fff1") * 100_000) as port, running(Line(port).line):
        await until(lambda: sum(fed) >= 200_000)
    assert max(fed) <= 4096


async def test_a_server_that_falls_silent_when_it_is_set_anew_is_cut_off_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened() as (line, server, _):
        monkeypatch.setattr(serial_server, "SET_S", 0.2)
        monkeypatch.setattr(server._client, "data_received", lambda _data: None)
        with pytest.raises(NoReply, match="does not confirm"):
            await line.line.be_set(LineSettings(2400, 8, "N", 1))
        await until(lambda: line.told[:3] == [None, "GW-SER-04", None])
        assert server.framing == Framing(115200, 8, "E", 1)


async def _knows_no_even_parity(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve, and say nothing where even parity is asked for."""
    writer.write(bytes.fromhex("fffd00fffd2c"))
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            command = (await reader.readuntil(b"\xff\xf0")).rpartition(b"\xff\xfa\x2c")[2]
            if command[:2] != b"\x03\x03":
                writer.write(b"\xff\xfa\x2c" + bytes([command[0] + 100]) + command[1:])
    writer.close()


def _one_question() -> Search:
    yield Ask(b"?", lambda _frame: True, 0.05, retries=0)


async def test_a_setting_that_a_server_does_not_confirm_costs_that_setting_and_not_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serial_server, "SET_S", 1.0)
    server = await asyncio.start_server(_knows_no_even_parity, "127.0.0.1", 0)
    searching = Searching(_one_question, (), questions=1, timeout_s=0.05)
    driver = Answers("m", Title("", ""), LineFramer, lambda address, _raw: address, lambda _target: _one_question(), ())  # type: ignore[arg-type,return-value]  # never polled
    even, plain = LineSettings(2400, 8, "E", 1), LineSettings(2400, 8, "N", 1)
    into = Scan()
    try:
        await scan(
            f"rfc2217://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            [Step(driver, searching, settings, 0.1) for settings in (even, plain)],
            into, quiet_ms=5, on_step=lambda _step: None, on_found=lambda _device: None, on_asked=lambda: None,
        )  # fmt: skip
    finally:
        server.close()
    assert (into.refused, into.asked) == ([even], 1)


async def test_a_setting_that_a_server_does_not_confirm_is_left_out_by_who_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line_ear, "SET_S", 1.0)
    monkeypatch.setattr(line_ear, "SILENT_S", 0.01)
    monkeypatch.setattr(line_ear, "SETTINGS", (LineSettings(9600, parity="E"), LineSettings(2400)))
    server = await asyncio.start_server(_knows_no_even_parity, "127.0.0.1", 0)
    try:
        hearing = listen(f"rfc2217://127.0.0.1:{server.sockets[0].getsockname()[1]}", seconds=20)
        assert await asyncio.to_thread(next, hearing) == line_ear.Listened(LineSettings(2400), b"")
        await asyncio.to_thread(hearing.close)
    finally:
        server.close()


async def test_who_speaks_behind_a_server_is_listened_for_at_each_setting() -> None:
    server = ComPortServer(port=0, refuses="O")
    async with running(server):
        await server.listening.wait()

        def first() -> list[tuple[LineSettings | None, bytes]]:
            hearing = listen(f"rfc2217://127.0.0.1:{server.port}", seconds=20)
            with contextlib.closing(hearing):
                return [(one.settings, one.data) for one in (next(hearing), next(hearing))]

        speaking = asyncio.create_task(asyncio.to_thread(first))
        while not speaking.done():
            await server.send(b"hello", framing=Framing(9600))
            await asyncio.sleep(0.6)
        (one, heard), (other, noise) = await speaking
        assert (one, set(heard)) == (LineSettings(9600), set(b"hello"))
        assert other == LineSettings(115200)
        assert set(noise) != set(b"hello")

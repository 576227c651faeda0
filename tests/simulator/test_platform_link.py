"""The faulty line, between a real client and a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from simulator.platform.link import Link

HOST = "127.0.0.1"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Far:
    """The platform's end: echoes, and notes who came and how they went."""

    def __init__(self) -> None:
        self.port = 0
        self.came = 0
        self.received = bytearray()
        self.ends: asyncio.Queue[str] = asyncio.Queue()
        self.reading = asyncio.Event()
        self.reading.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        try:
            while True:
                await self.reading.wait()
                data = await reader.read(65536)
                if not data:
                    self.ends.put_nowait("end")
                    return
                self.received += data
                writer.write(data)
                await writer.drain()
        except ConnectionResetError:
            self.ends.put_nowait("reset")
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def line() -> AsyncIterator[tuple[Link, Far]]:
    far = Far()
    server = await asyncio.start_server(far.serve, HOST, 0, limit=4096)
    far.port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(30), Link(far.port) as link:
            yield link, far
    finally:
        server.close()


async def connect(link: Link) -> Connection:
    return await asyncio.open_connection(HOST, link.port)


async def hang_up(*connections: Connection) -> None:
    for _, writer in connections:
        writer.transport.abort()
    await asyncio.sleep(0)


async def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


async def test_bytes_pass_both_ways_and_are_counted() -> None:
    async with line() as (link, _far):
        reader, writer = await connect(link)
        writer.write(b"call for help")
        assert await reader.readexactly(13) == b"call for help"
        assert (link.stats()["open"], link.stats()["bytes_up"], link.stats()["bytes_down"]) == (1, 13, 13)
        await hang_up((reader, writer))


async def test_the_line_adds_no_wait_of_its_own() -> None:
    """With Nagle's algorithm an answer in two writes came 40 ms late."""
    async with line() as (link, _far):
        reader, writer = await connect(link)
        writer.write(b"a")
        await reader.readexactly(1)
        (near,) = link._connections.values()
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        await hang_up((reader, writer))


async def test_an_end_passes_after_the_last_byte() -> None:
    async with line() as (link, far):
        reader, writer = await connect(link)
        writer.write(b"x" * 300_000)
        writer.close()
        assert await far.ends.get() == "end"
        assert len(far.received) == 300_000
        await until(lambda: link.stats()["open"] == 0)
        await hang_up((reader, writer))


async def test_cut_resets_both_sides_and_refuses_new_ones_until_healed() -> None:
    async with line() as (link, far):
        reader, writer = await connect(link)
        writer.write(b"a")
        await reader.readexactly(1)
        await link.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        assert await far.ends.get() == "reset"
        assert (link.stats()["cut"], link.stats()["open"]) == (True, 0)
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await connect(link)
        link.heal()
        again = await connect(link)
        again[1].write(b"b")
        assert await again[0].readexactly(1) == b"b"
        await hang_up((reader, writer), again)


async def test_nobody_can_take_the_port_while_the_line_is_cut() -> None:
    async with line() as (link, _far):
        await link.cut()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((HOST, link.port))


async def test_a_port_that_is_taken_is_said_so() -> None:
    async with line() as (link, far):
        with pytest.raises(OSError, match="in use"):
            await Link(far.port, port=link.port).start()


async def test_a_stalled_line_stays_up_and_passes_nothing_until_released() -> None:
    async with line() as (link, far):
        reader, writer = await connect(link)
        writer.write(b"1")
        await reader.readexactly(1)
        link.stall()
        writer.write(b"2")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        assert bytes(far.received) == b"1"
        assert (link.stats()["stalled"], link.stats()["open"]) == (True, 1)
        link.unstall()
        assert await reader.readexactly(1) == b"2"
        await hang_up((reader, writer))


async def test_not_even_an_end_passes_a_stalled_line() -> None:
    async with line() as (link, far):
        reader, writer = await connect(link)
        writer.write(b"1")
        await reader.readexactly(1)
        link.stall()
        await hang_up((reader, writer))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(far.ends.get(), 0.1)
        link.heal()
        assert await far.ends.get() == "end"


async def test_who_connects_during_a_stall_is_served_afterwards_unless_gone() -> None:
    async with line() as (link, far):
        link.stall()
        gone, patient = await connect(link), await connect(link)
        gone[1].write(b"ghost")
        patient[1].write(b"here")
        await until(lambda: link.stats()["open"] == 2)
        gone[1].close()
        await until(lambda: link.given_up == 1)
        assert far.came == 0
        link.unstall()
        assert await patient[0].readexactly(4) == b"here"
        assert (far.came, bytes(far.received)) == (1, b"here")
        await hang_up(gone, patient)


async def test_delay_holds_bytes_back_both_ways_in_order() -> None:
    async with line() as (link, _far):
        reader, writer = await connect(link)
        link.delay(50)
        loop = asyncio.get_running_loop()
        began = loop.time()
        writer.write(b"1")
        await asyncio.sleep(0.01)
        writer.write(b"2")
        assert await reader.readexactly(1) == b"1"
        assert loop.time() - began >= 0.1
        link.delay(0)
        writer.write(b"3")
        assert await reader.readexactly(2) == b"23"
        await hang_up((reader, writer))


@pytest.mark.parametrize("ms", [-1, 60_001, True, float("nan")])
async def test_a_delay_out_of_its_limits_is_refused(ms: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 60000"):
        Link(1).delay(ms)


async def test_a_sender_must_wait_when_too_much_is_on_its_way() -> None:
    async with line() as (link, far):
        reader, writer = await connect(link)
        far.reading.clear()
        sent = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while sent < 200_000_000:
                    writer.write(b"x" * 65536)
                    sent += 65536
                    await writer.drain()
        # What the kernel's four socket buffers and ours hold together, far below what was offered.
        assert sent < 50_000_000
        await hang_up((reader, writer))


async def test_one_connection_too_many_is_reset() -> None:
    async with line() as (link, _far):
        held = [await connect(link) for _ in range(64)]
        await until(lambda: link.stats()["open"] == 64)
        extra = await connect(link)
        with pytest.raises(ConnectionResetError):
            await extra[0].read(1)
        assert link.refused == 1
        await hang_up(*held, extra)


async def test_a_platform_that_is_not_there_ends_the_connection() -> None:
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))
        async with asyncio.timeout(30), Link(nobody.getsockname()[1]) as link:
            reader, writer = await connect(link)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(1) == b""
            await hang_up((reader, writer))

"""The far end of the cable: paced, deaf while nobody holds it, forgetful when a holder dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from simulator.pty_port import PENDING_BYTES, PtyPort
from tests.stolen_time import stolen_time


async def until(condition: Callable[[], object], *, timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


class Holder:
    """Who holds the slave: opened raw, not blocking, as the gateway does."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def read(self) -> bytes:
        try:
            return os.read(self.fd, 65536)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self.fd)


@contextlib.asynccontextmanager
async def running(port: PtyPort) -> AsyncIterator[PtyPort]:
    task = asyncio.create_task(port.run())
    try:
        await until(port.path.exists)
        yield port
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def port_at(path: Path, *, baud: int = 115200, on_data: Callable[[bytes], None] = lambda _: None) -> PtyPort:
    return PtyPort(path=path / "ttyMETER", baud=baud, on_data=on_data)


async def test_bytes_pass_both_ways_unchanged(tmp_path: Path) -> None:
    heard: list[bytes] = []
    async with running(port_at(tmp_path, on_data=heard.append)) as port:
        holder = Holder(port.path)
        await until(lambda: port.held)
        every = bytes(range(256))
        os.write(holder.fd, every)
        await until(lambda: b"".join(heard) == every)
        assert await port.send(every)
        got = b""
        async with asyncio.timeout(30):
            while got != every:
                got += holder.read()
                await asyncio.sleep(0.001)
        holder.close()


@pytest.mark.parametrize(("baud", "count", "seconds"), [(2400, 120, 0.5), (9600, 480, 0.5)])
async def test_what_is_sent_takes_the_time_that_it_takes_on_a_line(
    tmp_path: Path, baud: int, count: int, seconds: float
) -> None:
    async with running(port_at(tmp_path, baud=baud)) as port, stolen_time() as stolen:
        holder = Holder(port.path)
        await until(lambda: port.held)
        began = time.monotonic()
        sending = asyncio.create_task(port.send(b"x" * count))
        got, first = b"", 0.0
        while len(got) < count:
            new = holder.read()
            if new and not got:
                first = time.monotonic() - began
            got += new
            assert len(got) / count <= (time.monotonic() - began) / seconds + 0.03, "a byte came before its time"
            await asyncio.sleep(0.001)
        took = time.monotonic() - began
        assert await sending
        assert first < 0.1 + stolen.seconds
        assert seconds <= took < seconds + 0.15 + stolen.seconds
        holder.close()


@pytest.mark.parametrize(("baud", "count", "seconds"), [(2400, 120, 0.5), (9600, 480, 0.5)])
async def test_what_is_received_takes_its_time_too(tmp_path: Path, baud: int, count: int, seconds: float) -> None:
    heard: list[bytes] = []
    async with running(port_at(tmp_path, baud=baud, on_data=heard.append)) as port, stolen_time() as stolen:
        holder = Holder(port.path)
        await until(lambda: port.held)
        began = time.monotonic()
        os.write(holder.fd, b"x" * count)
        await until(lambda: sum(map(len, heard)) == count)
        assert seconds <= time.monotonic() - began < seconds + 0.15 + stolen.seconds
        holder.close()


async def test_what_is_sent_while_nobody_holds_the_port_is_gone(tmp_path: Path) -> None:
    async with running(port_at(tmp_path)) as port:
        assert not await port.send(b"nobody listens")
        assert port.discarded == 14
        holder = Holder(port.path)
        await until(lambda: port.held)
        assert await port.send(b"now")
        await until(lambda: holder.read() == b"now")
        holder.close()
        await until(lambda: not port.held)
        assert not await port.send(b"gone")
        assert port.discarded == 18


async def test_nothing_that_a_killed_holder_left_unread_reaches_the_next_one(tmp_path: Path) -> None:
    async with running(port_at(tmp_path)) as port:
        code = "import os,sys,time; os.open(sys.argv[1], os.O_RDWR); time.sleep(60)"
        reader = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(port.path))
        await until(lambda: port.held)
        assert await port.send(b"unread" * 100)
        reader.kill()
        await reader.wait()
        await until(lambda: not port.held)
        holder = Holder(port.path)
        await until(lambda: port.holders == 2)
        assert holder.read() == b""
        assert await port.send(b"fresh")
        await until(lambda: holder.read() == b"fresh")
        holder.close()


async def test_a_reply_that_spans_two_holders_did_not_go_whole(tmp_path: Path) -> None:
    async with running(port_at(tmp_path, baud=9600)) as port:
        first = Holder(port.path)
        await until(lambda: port.held)
        sending = asyncio.create_task(port.send(b"r" * 300))
        await asyncio.sleep(0.1)
        first.close()
        await until(lambda: not port.held)
        second = Holder(port.path)
        await until(lambda: port.held)
        assert not await sending
        assert b"r" in second.read()
        second.close()


async def test_the_port_can_be_pulled_and_plugged_in_again(tmp_path: Path) -> None:
    changes: list[bool] = []
    port = PtyPort(
        path=tmp_path / "ttyX", baud=115200, on_data=lambda _: None, on_held=lambda: changes.append(port.held)
    )
    async with running(port):
        first = Holder(port.path)
        await until(lambda: port.held)
        port.unplug()
        assert not port.path.is_symlink()
        with pytest.raises(OSError, match="Input/output error"):
            os.write(first.fd, b"x")
        first.close()
        port.plug()
        second = Holder(port.path)
        await until(lambda: port.held)
        assert await port.send(b"again")
        await until(lambda: second.read() == b"again")
        second.close()
        await until(lambda: not port.held)
        assert changes == [True, False, True, False]


async def test_the_tty_does_not_echo_nor_change_line_ends(tmp_path: Path) -> None:
    heard: list[bytes] = []
    async with running(port_at(tmp_path, on_data=heard.append)) as port:
        holder = Holder(port.path)
        await until(lambda: port.held)
        os.write(holder.fd, b"\r\n\x03\x04\x11")
        await until(lambda: b"".join(heard) == b"\r\n\x03\x04\x11")
        await asyncio.sleep(0.02)
        assert holder.read() == b""
        assert await port.send(b"\n\r\x03\x00")
        await until(lambda: holder.read() == b"\n\r\x03\x00")
        holder.close()


async def test_a_holder_at_the_wrong_speed_hears_noise_and_is_not_understood(tmp_path: Path) -> None:
    heard: list[bytes] = []
    async with running(port_at(tmp_path, baud=9600, on_data=heard.append)) as port:
        holder = Holder(port.path)
        attributes = termios.tcgetattr(holder.fd)
        attributes[4] = attributes[5] = termios.B2400
        termios.tcsetattr(holder.fd, termios.TCSANOW, attributes)
        await until(lambda: port.held)
        assert not await port.send(b"hello")
        await asyncio.sleep(0.01)
        noise = holder.read()
        assert len(noise) == 5
        assert noise != b"hello"
        os.write(holder.fd, b"question")
        await until(lambda: sum(map(len, heard)) == 8)
        assert b"".join(heard) != b"question"
        assert port.garbled == 13
        holder.close()


async def test_a_holder_that_does_not_read_loses_bytes_and_more_than_64_kib_do_not_wait(tmp_path: Path) -> None:
    async with running(port_at(tmp_path, baud=4_000_000)) as port:
        holder = Holder(port.path)
        await until(lambda: port.held)
        assert not await port.send(b"x" * 60_000)
        assert 30_000 < port.overrun < 60_000
        before = port.overrun
        assert not await port.send(b"x" * (PENDING_BYTES + 1))
        assert port.overrun - before == PENDING_BYTES + 1
        holder.close()

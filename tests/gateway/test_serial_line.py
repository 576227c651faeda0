"""A serial line over real ptys and sockets: open, lost, reopened; asked in turns; honest about each."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import grp
import os
import pwd
import socket
import subprocess
import sys
import termios
import time
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from drivers.kit import Ask, LineSettings, NoReply, Reason
from gateway.clock import Stamp, SystemClock
from gateway.errors import LinkDown
from gateway.links.serial_line import PENDING_BYTES, SerialLine
from gateway.links.state import LinkState
from tests.stolen_time import stolen_time

FAST = LineSettings(baud=115200)


class Master:
    """The other end of the cable: a raw pty under a fixed name, driven by the test byte for byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        self.plug()

    def plug(self) -> None:
        self.fd, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self.fd, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(slave))
        os.close(slave)

    def unplug(self) -> None:
        if self.fd >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self.fd)
            self.fd = -1

    def write(self, data: bytes) -> int:
        return os.write(self.fd, data)

    async def read(self, count: int, *, timeout_s: float = 3.0) -> bytes:
        """Read exactly `count` bytes."""
        found = b""
        async with asyncio.timeout(timeout_s):
            while len(found) < count:
                try:
                    found += os.read(self.fd, count - len(found))
                except OSError as error:
                    if error.errno not in (errno.EAGAIN, errno.EIO):
                        raise
                    await asyncio.sleep(0.001)
        return found

    def unread(self) -> bytes:
        """Whatever the line has sent by now."""
        try:
            return os.read(self.fd, 65536)
        except OSError:
            return b""


class LengthPrefixed:
    """Frames of one length byte and so many others; a length of 0, or above 40, is no frame."""

    def __init__(self) -> None:
        self.limit = 64
        self.skipped = 0
        self.rejects: dict[Reason, int] = {}
        self._held = b""

    def feed(self, data: bytes) -> list[bytes]:
        held = self._held + data
        frames = []
        while held:
            if not 0 < held[0] <= 40:
                held = held[1:]
                self.skipped += 1
            elif len(held) > held[0]:
                frames.append(held[: held[0] + 1])
                held = held[held[0] + 1 :]
            else:
                break
        self._held = held
        return frames

    def reset(self) -> None:
        self._held = b""


class Watched:
    """A line with everything it has told."""

    def __init__(self, port: str | Path, *, streams: bool = False, **changes: object) -> None:
        self.states: list[LinkState] = []
        self.heard: list[tuple[bytes, Stamp]] = []
        self.clock = SystemClock()
        arguments: dict[str, object] = {"quiet_ms": 5, "echo": False, "line": FAST} | changes
        self.line = SerialLine(
            link_id="bus-1",
            port=str(port),
            on_state=self.states.append,
            clock=self.clock,
            on_data=(lambda data, stamp: self.heard.append((data, stamp))) if streams else None,
            **arguments,  # type: ignore[arg-type]  # the test's own defaults
        )

    @property
    def told(self) -> list[str]:
        """The states in short: "open", or the problem."""
        return ["open" if state.hearing else str(state.problem) for state in self.states]

    @property
    def bytes_heard(self) -> bytes:
        return b"".join(data for data, _ in self.heard)


async def until(condition: Callable[[], object], *, timeout_s: float = 30.0) -> None:
    """Wait for a condition, at most so long."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def running(watched: Watched) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(watched.line.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    there = Master(tmp_path / "ttyBUS")
    yield there
    there.unplug()


def reply_is(expected: bytes) -> Callable[[bytes], bool]:
    return lambda frame: frame == expected


# Opening and losing.


async def test_an_open_port_is_told_once_and_its_bytes_arrive_stamped(master: Master) -> None:
    watched = Watched(master.path, streams=True)
    async with running(watched):
        await until(lambda: watched.told == ["open"])
        before = watched.clock.stamp()
        master.write(b"\x00\xff\x0d\x0a\x03\x11\x13")
        await until(lambda: watched.bytes_heard == b"\x00\xff\x0d\x0a\x03\x11\x13")
    assert watched.states[0].link == "bus-1"
    assert watched.states[0].kind == "serial"
    assert watched.line.rx_bytes == 7
    assert watched.line.last_rx == watched.heard[-1][1]
    assert 0 <= watched.heard[-1][1].mono_ms - before.mono_ms < 1000


async def test_a_pulled_port_is_lost_at_once_and_opened_again_when_it_is_back(master: Master) -> None:
    watched = Watched(master.path, streams=True)
    async with running(watched):
        await until(lambda: watched.told == ["open"])
        master.write(b"before")
        await until(lambda: watched.bytes_heard == b"before")
        pulled = time.monotonic()
        master.unplug()
        await until(lambda: "GW-SER-04" in watched.told)
        assert time.monotonic() - pulled < 0.2
        await until(lambda: "GW-SER-01" in watched.told)
        await asyncio.sleep(0.6)
        master.plug()
        back = time.monotonic()
        await until(lambda: watched.told[-1] == "open")
        assert time.monotonic() - back < 1.0
        master.write(b" after")
        await until(lambda: watched.bytes_heard == b"before after")
    assert watched.told == ["open", "GW-SER-04", "GW-SER-01", "open"]
    assert watched.states[1].facts["port"] == str(master.path)


async def test_a_lost_line_says_since_when_it_is_deaf(master: Master) -> None:
    watched = Watched(master.path, streams=True)
    async with running(watched):
        await until(lambda: watched.told == ["open"])
        # Two looks of 0.5 s must pass, so that the opening itself is not the last moment known.
        await asyncio.sleep(1.3)
        gone = watched.clock.stamp()
        master.unplug()
        await until(lambda: len(watched.states) == 3)
    opened, lost, missing = watched.states
    assert opened.at.mono_ms < lost.at.mono_ms <= gone.mono_ms
    assert gone.mono_ms - lost.at.mono_ms < 1200
    assert missing.at == lost.at


async def test_a_byte_heard_is_a_moment_surely_heard(master: Master) -> None:
    watched = Watched(master.path, streams=True)
    async with running(watched):
        await until(lambda: watched.told == ["open"])
        master.write(b"x")
        await until(lambda: watched.heard)
        master.unplug()
        await until(lambda: "GW-SER-04" in watched.told)
    assert watched.states[1].at == watched.heard[0][1]


async def test_a_port_that_is_not_there_is_a_problem_and_opens_within_a_second_of_its_coming(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "ttyLATER", streams=True)
    async with running(watched):
        await until(lambda: watched.told == ["GW-SER-01"])
        await asyncio.sleep(1.5)
        there = Master(tmp_path / "ttyLATER")
        came = time.monotonic()
        await until(lambda: watched.told == ["GW-SER-01", "open"])
        assert time.monotonic() - came < 1.0
        there.unplug()


@pytest.fixture
def holder(master: Master) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has locked the port until its standard input is closed."""
    hold = "import fcntl,os,sys; fd=os.open(sys.argv[1],os.O_RDWR); fcntl.flock(fd,2); print(1); sys.stdin.read()"
    command = [sys.executable, "-u", "-c", hold, str(master.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


async def test_a_port_held_by_another_process_names_it_and_is_taken_when_it_is_free(
    master: Master, holder: subprocess.Popen[bytes]
) -> None:
    watched = Watched(master.path, streams=True)
    async with running(watched):
        await until(lambda: watched.told == ["GW-SER-03"])
        assert watched.states[0].facts["pid"] == holder.pid
        assert "fcntl" in str(watched.states[0].facts["command"])
        holder.kill()
        await until(lambda: watched.told == ["GW-SER-03", "open"])


async def test_two_lines_on_one_port_exclude_each_other_and_the_second_says_who(master: Master) -> None:
    first, second = Watched(master.path), Watched(master.path)
    async with running(first):
        await until(lambda: first.told == ["open"])
        async with running(second):
            await until(lambda: second.told == ["GW-SER-03"])
    assert second.states[0].facts["pid"] == os.getpid()


@pytest.fixture
def forbidden(master: Master) -> Iterator[Path]:
    """A port that this process may not open, in its group's hands.

    Root may open everything: it becomes nobody meanwhile, which is to the port what the daemon's user is.
    """
    device = Path(os.path.realpath(master.path))
    if os.geteuid() != 0:
        device.chmod(0o060)
        yield device
        return
    os.chown(device, 0, grp.getgrnam("tty").gr_gid)
    device.chmod(0o660)
    os.seteuid(65534)
    yield device
    os.seteuid(0)


async def test_a_port_that_we_may_not_open_names_user_and_group(forbidden: Path) -> None:
    watched = Watched(forbidden)
    async with running(watched):
        await until(lambda: watched.told == ["GW-SER-02"])
    facts = watched.states[0].facts
    assert facts["user"] == pwd.getpwuid(os.geteuid()).pw_name
    assert facts["group"] == "tty"
    assert str(facts["mode"]) in ("c---rw----", "crw-rw----")


async def test_settings_that_the_port_refuses_are_told_as_such(master: Master) -> None:
    # Linux ptys know no parity: the second time that it is asked for, tcsetattr answers EINVAL.
    watched = Watched(master.path, line=LineSettings(baud=2400, parity="E"))
    async with running(watched):
        await until(lambda: "GW-SER-05" in watched.told or watched.told == ["open"])
    if watched.told == ["open"]:
        watched = Watched(master.path, line=LineSettings(baud=2400, parity="E"))
        async with running(watched):
            await until(lambda: watched.told == ["GW-SER-05"])
    assert watched.states[-1].problem == "GW-SER-05"
    assert "Invalid argument" in str(watched.states[-1].facts["detail"])


async def test_a_file_that_is_no_serial_port_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no port")
    watched = Watched(tmp_path / "file")
    async with running(watched):
        await until(lambda: watched.told == ["GW-SER-07"])
    assert "\n" not in str(watched.states[0].facts["detail"])


@pytest.mark.parametrize(
    "port", ["ttyUSB0", "socket://host", "tcp://host:1", "", "socket://host:0", "socket://h:99999"]
)
def test_a_port_that_is_neither_path_nor_socket_is_refused_at_once(port: str) -> None:
    with pytest.raises(ValueError, match="socket"):
        Watched(port)


async def test_the_port_is_set_as_configured(master: Master) -> None:
    watched = Watched(master.path, line=LineSettings(baud=2400))
    async with running(watched):
        await until(lambda: watched.told == ["open"])
        assert termios.tcgetattr(master.fd)[4:6] == [termios.B2400, termios.B2400]


async def test_the_end_of_run_frees_the_port_quickly_even_when_the_other_side_takes_nothing(master: Master) -> None:
    watched = Watched(master.path, streams=True)
    async with running(watched) as task:
        await until(lambda: watched.told == ["open"])
        while watched.line.write(b"x" * 4096):
            pass
        began = time.monotonic()
        async with stolen_time() as stolen:
            task.cancel()
            await asyncio.wait({task})
        assert time.monotonic() - began < 2.3 + stolen.seconds
    descriptor = os.open(master.path, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


async def test_an_error_of_the_one_who_takes_the_bytes_is_not_swallowed(master: Master) -> None:
    def broken(data: bytes, stamp: Stamp) -> None:
        raise ZeroDivisionError(data)

    line = SerialLine(
        link_id="x", port=str(master.path), line=FAST, quiet_ms=0, echo=False, on_state=lambda _: None,
        clock=SystemClock(), on_data=broken,
    )  # fmt: skip
    task = asyncio.create_task(line.run())
    await until(lambda: line.is_open)
    master.write(b"\x01")
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(task, 30)


# Streams.


async def test_writes_are_bounded_and_never_block(master: Master) -> None:
    watched = Watched(master.path, streams=True)
    assert not watched.line.write(b"too early")
    async with running(watched):
        await until(lambda: watched.told == ["open"])
        assert watched.line.write(b"hello")
        assert await master.read(5) == b"hello"
        taken = 0
        began = time.monotonic()
        while watched.line.write(b"y" * 1000):
            taken += 1000
        assert time.monotonic() - began < 10.0  # nobody reads: where one blocked it was for ever
        # What the kernel of a pty takes (about 20 KB) comes on top of our own limit.
        assert PENDING_BYTES - 1000 < taken < PENDING_BYTES + 40_000
        assert watched.line.write_refused == 2
        assert await master.read(taken, timeout_s=5) == b"y" * taken
        await until(lambda: watched.line.write(b"z"))
        assert await master.read(1) == b"z"


async def test_a_paused_line_reads_nothing_and_loses_nothing_that_the_kernel_holds(master: Master) -> None:
    watched = Watched(master.path, streams=True)
    async with running(watched):
        await until(lambda: watched.told == ["open"])
        watched.line.pause()
        master.write(b"a" * 3000)
        await asyncio.sleep(0.1)
        assert watched.heard == []
        watched.line.resume()
        await until(lambda: len(watched.bytes_heard) == 3000)


async def test_a_paused_line_notices_that_it_was_pulled_and_stays_paused_when_it_is_back(master: Master) -> None:
    watched = Watched(master.path, streams=True)
    async with running(watched):
        await until(lambda: watched.told == ["open"])
        watched.line.pause()
        master.unplug()
        await until(lambda: "GW-SER-04" in watched.told)
        master.plug()
        await until(lambda: watched.told[-1] == "open")
        master.write(b"later")
        await asyncio.sleep(0.1)
        assert watched.heard == []
        watched.line.resume()
        await until(lambda: watched.bytes_heard == b"later")


async def test_a_flood_of_garbage_arrives_whole_in_streams_mode(master: Master) -> None:
    watched = Watched(master.path, streams=True)
    flood = bytes(range(256)) * 2000
    async with running(watched):
        await until(lambda: watched.told == ["open"])
        sent = 0
        while sent < len(flood):
            try:
                sent += master.write(flood[sent : sent + 4096])
            except BlockingIOError:
                await asyncio.sleep(0.001)
        await until(lambda: watched.line.rx_bytes == 512_000, timeout_s=10)
        assert watched.bytes_heard == flood


# Sockets.


class Peer:
    """A TCP server with one connection."""

    def __init__(self) -> None:
        self.server: asyncio.Server | None = None
        self.port = 0
        self.connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def listen(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append((reader, writer))

    def drop(self) -> None:
        for _, writer in self.connections:
            writer.transport.abort()

    def close(self) -> None:
        self.drop()
        if self.server is not None:
            self.server.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    there = Peer()
    await there.listen()
    yield there
    there.close()


async def test_a_socket_line_carries_bytes_both_ways_with_keep_alive_on(peer: Peer) -> None:
    watched = Watched(f"socket://127.0.0.1:{peer.port}", streams=True)
    async with running(watched):
        await until(lambda: watched.told == ["open"] and peer.connections)
        reader, writer = peer.connections[0]
        assert watched.line.write(b"to the peer")
        assert await asyncio.wait_for(reader.readexactly(11), 30) == b"to the peer"
        writer.write(b"from the peer")
        await until(lambda: watched.bytes_heard == b"from the peer")
        transport = watched.line._wire.live()  # type: ignore[union-attr]  # it is open
        sock = transport.get_extra_info("socket")  # type: ignore[union-attr]  # it is open
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15000
        assert watched.line._wire.peer_silent_ms() < 1000  # type: ignore[operator,union-attr]  # it is open


async def test_a_socket_that_the_peer_drops_is_lost_and_connected_again(peer: Peer) -> None:
    watched = Watched(f"socket://127.0.0.1:{peer.port}", streams=True)
    async with running(watched):
        await until(lambda: len(peer.connections) == 1 and watched.told == ["open"])
        peer.drop()
        await until(lambda: watched.told == ["open", "GW-SER-04", "open"])
        await until(lambda: len(peer.connections) == 2)


async def test_a_socket_that_refuses_is_a_problem_told_once_until_it_accepts() -> None:
    there = Peer()
    await there.listen()
    there.close()
    watched = Watched(f"socket://127.0.0.1:{there.port}", streams=True)
    async with running(watched):
        await until(lambda: watched.told == ["GW-SER-06"])
        await asyncio.sleep(0.7)
        assert watched.told == ["GW-SER-06"]
        await there.listen()
        await until(lambda: watched.told == ["GW-SER-06", "open"], timeout_s=5)
    there.close()


async def test_a_paused_socket_reads_nothing_even_when_it_was_paused_before_it_opened(peer: Peer) -> None:
    watched = Watched(f"socket://127.0.0.1:{peer.port}", streams=True)
    watched.line.pause()
    async with running(watched):
        await until(lambda: peer.connections and watched.told == ["open"])
        peer.connections[0][1].write(b"wait")
        await asyncio.sleep(0.1)
        assert watched.heard == []
        watched.line.resume()
        await until(lambda: watched.bytes_heard == b"wait")


# Asking.


@contextlib.asynccontextmanager
async def asking(master: Master, **changes: object) -> AsyncIterator[Watched]:
    watched = Watched(master.path, **changes)  # type: ignore[arg-type]  # `streams` is never among them
    async with running(watched):
        await until(lambda: watched.told == ["open"])
        yield watched


async def test_a_request_goes_out_and_the_frame_that_answers_comes_back(master: Master) -> None:
    async with asking(master) as watched:
        question = asyncio.create_task(watched.line.ask(Ask(b"\x02?a", reply_is(b"\x02=a")), LengthPrefixed()))
        assert await master.read(3) == b"\x02?a"
        master.write(b"\x02=")
        master.write(b"a")
        assert await asyncio.wait_for(question, 30) == b"\x02=a"
        assert (watched.line.asks, watched.line.replies, watched.line.timeouts) == (1, 1, 0)
        assert not watched.line.echo_seen


async def test_silence_ends_in_no_reply_after_the_retries_and_takes_as_long_as_was_said(master: Master) -> None:
    # 20 bytes of 10 bits at 2400 baud take 83 ms; with 100 ms of patience and 5 ms of quiet a try takes 183 to 188 ms.
    async with asking(master, line=LineSettings(baud=2400)) as watched, stolen_time() as stolen:
        began = time.monotonic()
        with pytest.raises(NoReply):
            await watched.line.ask(Ask(b"x" * 20, reply_is(b""), timeout_s=0.1, retries=2), LengthPrefixed())
        took = time.monotonic() - began
        assert 0.55 <= took < 0.9 + stolen.seconds
        assert await master.read(60) == b"x" * 60
        assert (watched.line.asks, watched.line.replies, watched.line.timeouts) == (3, 0, 3)


async def test_a_retry_can_succeed(master: Master) -> None:
    async with asking(master) as watched:
        question = asyncio.create_task(
            watched.line.ask(Ask(b"\x01?", reply_is(b"\x01!"), timeout_s=0.1, retries=1), LengthPrefixed())
        )
        assert await master.read(4) == b"\x01?\x01?"
        master.write(b"\x01!")
        assert await asyncio.wait_for(question, 30) == b"\x01!"
        assert (watched.line.asks, watched.line.replies, watched.line.timeouts) == (2, 1, 1)


@pytest.mark.parametrize("echo", [True, False])
async def test_the_own_echo_is_stripped_and_noticed_whether_expected_or_not(master: Master, *, echo: bool) -> None:
    async with asking(master, echo=echo) as watched:
        # An echo that would itself pass for the reply can only be told when it is expected.
        accepted = (b"\x02?a", b"\x02=a") if echo else (b"\x02=a",)
        question = asyncio.create_task(watched.line.ask(Ask(b"\x02?a", accepted.__contains__), LengthPrefixed()))
        assert await master.read(3) == b"\x02?a"
        for part in (b"\x02", b"?a\x02", b"=a"):
            master.write(part)
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(question, 30) == b"\x02=a"
        assert watched.line.echo_seen
        assert watched.line.foreign == 0
        assert watched.line.trimmed == 0


async def test_a_reply_that_equals_the_request_is_a_reply_where_no_echo_is_expected(master: Master) -> None:
    async with asking(master) as watched:
        question = asyncio.create_task(watched.line.ask(Ask(b"\x02ab", reply_is(b"\x02ab")), LengthPrefixed()))
        await master.read(3)
        master.write(b"\x02ab")
        assert await asyncio.wait_for(question, 30) == b"\x02ab"
        assert not watched.line.echo_seen


async def test_where_an_expected_echo_does_not_come_the_reply_is_read_all_the_same(master: Master) -> None:
    async with asking(master, echo=True) as watched:
        question = asyncio.create_task(watched.line.ask(Ask(b"\x02?a", reply_is(b"\x02=a")), LengthPrefixed()))
        await master.read(3)
        master.write(b"\x02=a")
        assert await asyncio.wait_for(question, 30) == b"\x02=a"
        assert not watched.line.echo_seen


async def test_a_foreign_frame_and_stray_bytes_before_the_reply_are_counted_and_skipped(master: Master) -> None:
    async with asking(master) as watched:
        question = asyncio.create_task(watched.line.ask(Ask(b"\x01?", reply_is(b"\x02me")), LengthPrefixed()))
        await master.read(2)
        master.write(b"\x00\xff\x03you\x00\x02me")
        assert await asyncio.wait_for(question, 30) == b"\x02me"
        assert watched.line.foreign == 1
        assert watched.line.trimmed == 3


async def test_the_late_reply_of_a_former_turn_is_not_taken_for_the_next_one(master: Master) -> None:
    def any_frame(frame: bytes) -> bool:
        return bool(frame)

    async with asking(master, quiet_ms=50) as watched:
        framer = LengthPrefixed()
        with pytest.raises(NoReply):
            await watched.line.ask(Ask(b"\x01A", any_frame, timeout_s=0.05, retries=0), framer)
        await master.read(2)
        # It lies in the kernel when the next turn begins; even an asker that takes any frame must not get it.
        master.write(b"\x04late")
        question = asyncio.create_task(watched.line.ask(Ask(b"\x01B", any_frame, retries=0), framer))
        assert await master.read(2) == b"\x01B"
        master.write(b"\x02B!")
        assert await asyncio.wait_for(question, 30) == b"\x02B!"
        assert watched.line.unasked == 5


async def test_the_quiet_time_is_kept_after_the_last_byte_on_the_line(master: Master) -> None:
    async with asking(master, quiet_ms=80) as watched:
        first = asyncio.create_task(watched.line.ask(Ask(b"\x01A", reply_is(b"\x01a")), LengthPrefixed()))
        assert await master.read(2) == b"\x01A"
        second = asyncio.create_task(watched.line.ask(Ask(b"\x01B", reply_is(b"\x01b")), LengthPrefixed()))
        master.write(b"\x01a")
        replied = time.monotonic()
        assert await master.read(2) == b"\x01B"
        assert 0.08 <= time.monotonic() - replied < 0.4
        master.write(b"\x01b")
        assert await first == b"\x01a"
        assert await second == b"\x01b"


async def test_a_line_that_is_never_quiet_is_asked_all_the_same(master: Master) -> None:
    async with asking(master, quiet_ms=500) as watched, stolen_time() as stolen:

        async def babble() -> None:
            while True:
                master.write(b"\x00")
                await asyncio.sleep(0.005)

        noise = asyncio.create_task(babble())
        began = time.monotonic()
        question = asyncio.create_task(
            watched.line.ask(Ask(b"\x01?", reply_is(b"\x01!"), timeout_s=0.2, retries=0), LengthPrefixed())
        )
        assert await master.read(2) == b"\x01?"
        assert 0.6 < time.monotonic() - began < 2.0 + stolen.seconds
        master.write(b"\x01!")
        assert await asyncio.wait_for(question, 30) == b"\x01!"
        noise.cancel()


async def test_many_askers_take_turns_and_each_gets_its_own_reply(master: Master) -> None:
    async with asking(master, quiet_ms=1) as watched:

        async def answer() -> None:
            for _ in range(20):
                request = await master.read(2)
                assert master.unread() == b"", "a second request came before the first was answered"
                master.write(b"\x02" + request[1:] + b"!")

        meter = asyncio.create_task(answer())
        asks = [
            watched.line.ask(Ask(bytes([1, 65 + n]), reply_is(bytes([2, 65 + n, 33]))), LengthPrefixed())
            for n in range(20)
        ]
        replies = await asyncio.wait_for(asyncio.gather(*asks), 30)
        assert replies == [bytes([2, 65 + n, 33]) for n in range(20)]
        await meter


async def test_an_asker_that_gives_up_makes_room_for_the_next(master: Master) -> None:
    async with asking(master) as watched:
        patient = asyncio.create_task(
            watched.line.ask(Ask(b"\x01A", reply_is(b"\x01a"), timeout_s=5, retries=0), LengthPrefixed())
        )
        await master.read(2)
        waiting = watched.line.ask(Ask(b"\x01B", reply_is(b"\x01b")), LengthPrefixed())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting, 0.05)
        patient.cancel()
        third = asyncio.create_task(watched.line.ask(Ask(b"\x01C", reply_is(b"\x01c")), LengthPrefixed()))
        assert await master.read(2) == b"\x01C"
        master.write(b"\x01c")
        assert await asyncio.wait_for(third, 30) == b"\x01c"


async def test_a_line_that_is_down_says_so_instead_of_waiting(tmp_path: Path, master: Master) -> None:
    watched = Watched(tmp_path / "nothing")
    async with running(watched):
        await until(lambda: watched.told == ["GW-SER-01"])
        with pytest.raises(LinkDown) as down:
            await watched.line.ask(Ask(b"\x01?", reply_is(b"")), LengthPrefixed())
        assert down.value.code == "GW-SER-01"
        assert down.value.subject == "bus-1"
    async with asking(master) as other:
        question = asyncio.create_task(other.line.ask(Ask(b"\x01?", reply_is(b""), timeout_s=10), LengthPrefixed()))
        await master.read(2)
        master.unplug()
        with pytest.raises(LinkDown):
            await asyncio.wait_for(question, 1)


async def test_bytes_that_nobody_asked_for_are_counted(master: Master) -> None:
    async with asking(master) as watched:
        master.write(b"\x03abc")
        await until(lambda: watched.line.unasked == 4)


async def test_garbage_without_end_costs_a_turn_its_time_and_no_memory(master: Master) -> None:
    async with asking(master) as watched:
        framer = LengthPrefixed()
        question = asyncio.create_task(watched.line.ask(Ask(b"\x01?", reply_is(b""), timeout_s=0.4, retries=0), framer))
        await master.read(2)
        while not question.done():
            with contextlib.suppress(BlockingIOError):
                master.write(b"\xff" * 4096)
            await asyncio.sleep(0)
        with pytest.raises(NoReply):
            await question
        assert len(framer._held) <= 64
        assert watched.line.trimmed > 4_096  # more than one turn; how much more is the machine's


async def test_an_error_of_the_asker_reaches_the_asker_and_not_the_line(master: Master) -> None:
    def broken(frame: bytes) -> bool:
        raise KeyError(frame)

    async with asking(master) as watched:
        question = asyncio.create_task(watched.line.ask(Ask(b"\x01?", broken), LengthPrefixed()))
        await master.read(2)
        master.write(b"\x01!")
        with pytest.raises(KeyError):
            await asyncio.wait_for(question, 30)
        assert watched.line.is_open


async def test_a_streaming_line_is_not_asked(master: Master) -> None:
    watched = Watched(master.path, streams=True)
    with pytest.raises(RuntimeError):
        await watched.line.ask(Ask(b"", reply_is(b"")), LengthPrefixed())

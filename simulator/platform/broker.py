"""The platform's MQTT broker: rumqttd 0.20 (inside `iotcore`), in a process of its own.

One listener speaks MQTT 5, a second one MQTT 3.1.1, both on loopback, without TLS or login. The broker keeps everything
in memory: `restart` forgets retained states and sessions, and no will is sent for those who were connected. What it can
do, measured on two slow cores: up in 0.1 to 0.3 s; more than 10,000 QoS 1 messages/s.

Limits that it is given here: a packet of 1 MiB (a longer one ends the connection without a word), 1,000 messages in
flight, 1,000 connections, 5 s for CONNECT, and for each subscription filter a log of 8 segments of 16 MiB: a subscriber
that falls 128 MiB behind loses the oldest silently, so ours reads all the time.
What it is by nature: a keep-alive of 0 is refused; a will goes out after 1.5 times the keep-alive; when a client comes
back under the same id while its old connection still stands, the will of the NEW connection is published, and from then
on it has none; a publish to a topic that nobody has subscribed to is lost (a retained one is kept).
Its one dangerous fault: when a connection fails between CONNECT and CONNACK, the next CONNECT with the same client id
makes the listener panic, and from then on it drops everybody. So our own clients never use an id twice, the line in front
of it lets no handshake fail, and `watch` restarts a broker that has panicked, five times at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import socket
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any, Final, Self

HOST: Final = "127.0.0.1"
READY_LIMIT_S: Final = 15.0
_POLL_S: Final = 0.02
_STOP_LIMIT_S: Final = 5.0
_PORT_ATTEMPTS: Final = 5
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_MAX_CRASHES: Final = 5
_probes = itertools.count(1)

_SETTINGS: Final = """\
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 1000
max_segment_size = 16777216
max_segment_count = 8
"""
# dynamic_filters: without it a publish that no subscription matches ends the publisher's connection.
_LISTENER: Final = """\
[v{version}.1]
name = "v{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[v{version}.1.connections]
connection_timeout_ms = 5000
max_payload_size = 1048576
max_inflight_count = 1000
dynamic_filters = true
"""


class BrokerError(Exception):
    """The broker did not come up, or ended by itself: the message says which port, and what it last said."""


class Broker:
    """The broker's process. `port` speaks MQTT 5, `port_v4` MQTT 3.1.1; 0 asks for a free one."""

    def __init__(self, *, port: int = 0, port_v4: int = 0) -> None:
        self._wanted = (port, port_v4)
        self.port = port
        self.port_v4 = port_v4
        self.restarts = 0
        self.crashes = 0
        self.last_crash = ""
        self._panicked = asyncio.Event()
        self._changing = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._said: deque[str] = deque(maxlen=20)
        self._listener: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start, and return once both listeners accept CONNECT. Raises BrokerError."""
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self.port, self.port_v4 = _free_ports(*self._wanted)
            try:
                await self._start_once()
            except BrokerError:
                # Somebody may take a free port between our look and the broker's; a given port is given.
                if 0 not in self._wanted or attempt == _PORT_ATTEMPTS:
                    raise
            else:
                return

    async def restart(self) -> None:
        """Kill and start again on the same ports. Everything that it held is gone. Raises BrokerError."""
        async with self._changing:
            await self.stop()
            await self._start_once()
            self.restarts += 1

    async def stop(self) -> None:
        """Kill the process and wait for its end. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            async with asyncio.timeout(_STOP_LIMIT_S):
                await process.wait()
        listener, self._listener = self._listener, None
        if listener is not None:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await listener  # ends with the pipe

    async def watch(self) -> None:
        """Restart the broker when it has panicked. Raises BrokerError when it ends by itself, or panics too often."""
        while True:
            async with self._changing:
                process = self._process
            if process is None:
                await asyncio.sleep(_POLL_S)
                continue
            waits = [asyncio.create_task(process.wait()), asyncio.create_task(self._panicked.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if process is not self._process or self._changing.locked():
                continue  # somebody restarts it
            if process.returncode is not None:
                raise BrokerError(f"the broker ended by itself (code {process.returncode}): {self._last_words()}")
            self.crashes += 1
            self.last_crash = self._last_words()
            if self.crashes > _MAX_CRASHES:
                raise BrokerError(f"the broker panicked {self.crashes} times, the last time: {self.last_crash}")
            await self.restart()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Stop."""
        await self.stop()

    async def _start_once(self) -> None:
        self._said.clear()
        self._panicked.clear()
        with tempfile.TemporaryDirectory(prefix="platform-broker-") as folder:
            settings = Path(folder) / "rumqttd.toml"
            settings.write_text(
                _SETTINGS
                + _LISTENER.format(version=5, host=HOST, port=self.port)
                + _LISTENER.format(version=4, host=HOST, port=self.port_v4),
                encoding="utf-8",
            )
            # Its own session: a Ctrl+C at the terminal is for us, who end it last.
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                __file__,
                str(settings),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "RUST_BACKTRACE": "0"},
            )
            self._listener = asyncio.create_task(self._listen(process), name="broker-stderr")
            try:
                async with asyncio.timeout(READY_LIMIT_S):
                    while not await self._ready(process):
                        await asyncio.sleep(_POLL_S)
            except TimeoutError:
                await self.stop()
                raise BrokerError(
                    f"the broker accepts no CONNECT on {HOST}:{self.port} and {HOST}:{self.port_v4} "
                    f"after {READY_LIMIT_S:g} s: {self._last_words()}"
                ) from None
            except BaseException:
                await self.stop()
                raise

    async def _ready(self, process: asyncio.subprocess.Process) -> bool:
        if process.returncode is not None:
            if self._listener is not None:
                await self._listener  # its last words are still in the pipe
            raise BrokerError(
                f"the broker on {HOST}:{self.port} and {HOST}:{self.port_v4} ended at once "
                f"(code {process.returncode}): {self._last_words()}"
            )
        return await _accepts(self.port, level=5) and await _accepts(self.port_v4, level=4)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 - we asked for the pipe
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:  # a line longer than the reader's 64 KiB: skipped
                continue
            if not line:
                return
            self._said.append(line.decode(errors="replace").rstrip())
            if b"panicked at" in line:
                self._panicked.set()

    def _last_words(self) -> str:
        return " / ".join(self._said)[-1000:] or "it said nothing"


async def _accepts(port: int, *, level: int) -> bool:
    """Does a broker answer CONNECT on this port?

    It hangs up without DISCONNECT: rumqttd takes a polite goodbye twice, and the second may hit who has just come.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(_connect(level))
            answer = await reader.readexactly(4)
            # CONNACK: 0x20, length, flags, and 0 for success (MQTT 3.1.1 section 3.2.2.3, MQTT 5.0 section 3.2.2.2).
            return answer[0] == 0x20 and answer[3] == 0
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    finally:
        if writer is not None:
            writer.close()


def _connect(level: int) -> bytes:
    """Return CONNECT of protocol level 4 or 5: clean start, keep-alive 5 s, a client id that was never used before."""
    client_id = f"ready-{os.getpid()}-{next(_probes)}".encode()
    # MQTT 3.1.1 and 5.0, section 3.1: name, level, flags, keep-alive, in 5.0 the length of the properties, client id.
    body = b"\x00\x04MQTT" + bytes([level]) + b"\x02\x00\x05" + (b"\x00" if level == 5 else b"")
    body += len(client_id).to_bytes(2, "big") + client_id
    return b"\x10" + bytes([len(body)]) + body


def _free_ports(*wanted: int) -> tuple[int, int]:
    """Return the wanted ports, with a free one for each 0. Raises BrokerError when a given one is taken."""
    with contextlib.ExitStack() as held:
        ports = []
        for port in wanted:
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                if port:
                    probe.listen()  # two bound sockets may share a port with SO_REUSEADDR, two listeners may not
            except OSError as error:
                raise BrokerError(f"the broker cannot have {HOST}:{port}: {error.strerror}") from error
            ports.append(int(probe.getsockname()[1]))
        return ports[0], ports[1]


def _serve(settings: str, parent: int) -> None:
    """The broker's own process: ends with the thread that started it, even when that one is killed."""
    import logging

    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        return  # it died before the line above
    logging.disable(logging.CRITICAL)  # rumqttd logs each packet, as errors
    from iotcore.iotcore import IotCoreBroker

    IotCoreBroker(config_path=settings).run_forever()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))

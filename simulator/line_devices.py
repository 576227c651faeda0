"""Microcontrollers that write JSON lines and keep each line until the gateway has acknowledged it.

    {"dev": "b1", "n": 7, "s": "5f3a09c1", "call": 1}     the device
    {"ack": 7, "s": "5f3a09c1"}                           the gateway, once the event is durable

`n` counts from 1 in each session (each start of the simulator). A line that is not acknowledged within 1 s is sent
again, as are all of them, in order, after a reconnection. Lines that are born while nobody is connected wait in memory:
that is what such a source does, and why none of them may ever be lost.

Limits: 256 lines unacknowledged on the wire, the others wait behind them (as many as the schedule has); 4096 bytes of
an acknowledgement; one connection at a time, a new one replaces the old.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from simulator.pty_port import PtyPort

WINDOW: Final = 256
RESEND_S: Final = 1.0
ACK_BYTES: Final = 4096
SEND_TIMEOUT_S: Final = 2.0

# What a device's `map` may call its fields, and what they are called unless it does (drivers.devices.json_lines).
FIELD_NAMES: Final = {"address": "dev", "number": "n", "session": "s"}

Record = Callable[[Mapping[str, Any]], None]


class LinePort(Protocol):
    """The way to the gateway. `connected` may change at any time; `send` never takes longer than 2 s."""

    connected: bool

    async def run(self) -> None:
        """Serve until cancelled."""

    async def send(self, data: bytes) -> bool:
        """Send whole lines; False when they surely did not all go out."""


@dataclass(slots=True)
class _Line:
    n: int
    data: bytes
    sent_at: float | None = None
    times_sent: int = 0


class LineSource:
    """One microcontroller. Give it a port (`attach`), run it, and let things happen to it (`emit`).

    `names` maps "address", "number" and "session" to the field names that the device's `map` gives them.
    """

    def __init__(
        self, *, device: str, address: str, session: str, record: Record, names: Mapping[str, str] | None = None
    ) -> None:
        """Prepare a source. `record` takes the ledger's rows."""
        self.device = device
        self.session = session
        self.resent = 0
        self.unmatched_acks = 0
        self._address = address
        self._record = record
        self._names = {**FIELD_NAMES, **(names or {})}
        self._born = 0
        self._waiting: deque[_Line] = deque()
        self._outstanding: dict[int, _Line] = {}
        self._work = asyncio.Event()
        self._held = b""
        self._port: LinePort | None = None
        self._connections = 0

    @property
    def unacknowledged(self) -> int:
        """How many lines are not acknowledged yet, sent or not."""
        return len(self._waiting) + len(self._outstanding)

    def attach(self, port: LinePort) -> None:
        """Set the port; it must call `heard` and `connection_changed`."""
        self._port = port

    def emit(self, fields: Mapping[str, Any]) -> int:
        """Let something happen: a new line, entered in the ledger, sent as soon as it can be. Returns its n."""
        self._born += 1
        numbers = {self._names["number"]: self._born, self._names["session"]: self.session}
        named = {self._names["address"]: self._address} if self._address else {}
        text = json.dumps({**named, **numbers, **fields}, ensure_ascii=False, separators=(",", ":"))
        self._waiting.append(_Line(self._born, text.encode() + b"\n"))
        now = time.time()
        row = {"t": now, "t_last": now, "device": self.device, "kind": "line", "counter": None}
        self._record({**row, "n": self._born, "session": self.session, "value": dict(fields)})
        self._work.set()
        return self._born

    def connection_changed(self) -> None:
        """Begin again with the oldest line when a connection is new."""
        self._held = b""
        self._connections += 1
        if self._port is not None and self._port.connected:
            for line in self._outstanding.values():
                line.sent_at = None
        self._work.set()

    def heard(self, data: bytes) -> None:
        """Take bytes from the gateway."""
        *lines, self._held = (self._held + data).split(b"\n")
        if len(self._held) > ACK_BYTES:
            self.unmatched_acks += 1
            self._held = b""
        for line in lines:
            self._acknowledged(line)

    async def run(self) -> None:
        """Send and send again until cancelled."""
        while True:
            self._work.clear()
            if self._port is not None and self._port.connected:
                await self._send_due(self._port)
            try:
                async with asyncio.timeout(RESEND_S / 4):
                    await self._work.wait()
            except TimeoutError:
                continue

    async def _send_due(self, port: LinePort) -> None:
        connection = self._connections
        for line in self._due():
            # After a reconnection the oldest line comes first again.
            if not await port.send(line.data) or connection != self._connections:
                return
            line.sent_at = asyncio.get_running_loop().time()
            self.resent += line.times_sent > 0
            line.times_sent += 1

    def _due(self) -> list[_Line]:
        """Return what is to be sent now, in order: the unacknowledged ones whose time has come, and new ones."""
        while self._waiting and len(self._outstanding) < WINDOW:
            line = self._waiting.popleft()
            self._outstanding[line.n] = line
        late = asyncio.get_running_loop().time() - RESEND_S
        return [line for line in self._outstanding.values() if line.sent_at is None or line.sent_at <= late]

    def _acknowledged(self, text: bytes) -> None:
        try:
            fields = json.loads(text)
            n, session = fields["ack"], fields.get(self._names["session"], self.session)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.unmatched_acks += 1
            return
        # An acknowledgement of a former session must not finish a line of this one.
        if session != self.session or not isinstance(n, int) or self._outstanding.pop(n, None) is None:
            self.unmatched_acks += 1
            return
        self._record({"t": time.time(), "device": self.device, "acked": n})
        if self._waiting:
            self._work.set()


class TcpPort:
    """A device server on 127.0.0.1: the gateway connects to it."""

    def __init__(self, *, port: int, source: LineSource) -> None:
        """Serve `source` on a TCP port; 0 lets the kernel choose: see `port` after `listen`."""
        self.port = port
        self.connected = False
        self.connections = 0
        self._source = source
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        source.attach(self)

    async def listen(self) -> None:
        """Take the port. OSError when another has it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def run(self) -> None:
        """Serve until cancelled."""
        if self._server is None:
            await self.listen()
        try:
            await asyncio.Event().wait()
        finally:
            if self._server is not None:
                self._server.close()
            self.drop()

    def drop(self) -> None:
        """Cut the connection off, as a cable does that is pulled."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def send(self, data: bytes) -> bool:
        """Write to the connection, if there is one. A peer that reads nothing holds us up for 2 s at most."""
        writer = self._writer
        if writer is None or writer.is_closing():
            return False
        try:
            writer.write(data)
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await writer.drain()
        except (OSError, TimeoutError):
            writer.transport.abort()
            return False
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.drop()
        self._writer = writer
        self.connected = True
        self.connections += 1
        self._source.connection_changed()
        try:
            while data := await reader.read(ACK_BYTES):
                if self._writer is writer:
                    self._source.heard(data)
        except OSError:
            pass
        finally:
            writer.close()
            if self._writer is writer:
                self._writer = None
                self.connected = False
                self._source.connection_changed()


class PtyLinePort:
    """The same on a serial cable: the gateway opens DIR/NAME."""

    def __init__(self, *, path: Path, baud: int, source: LineSource) -> None:
        """Serve `source` on a pty with the name `path`."""
        self.connected = False
        self._source = source
        self.pty = PtyPort(path=path, baud=baud, on_data=source.heard, on_held=self._held_changed)
        source.attach(self)

    async def run(self) -> None:
        """Move bytes until cancelled."""
        await self.pty.run()

    async def send(self, data: bytes) -> bool:
        """Send at the line's pace."""
        return await self.pty.send(data)

    def _held_changed(self) -> None:
        self.connected = self.pty.held
        self._source.connection_changed()

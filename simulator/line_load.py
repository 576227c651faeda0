"""A source of JSON lines that goes as fast as it is acknowledged, or at a fixed rate, and measures the way back.

It listens on 127.0.0.1; the gateway connects with `socket://`. A line's time runs from its sending, or at a fixed rate
from when it was due (so that a stall is seen by all lines that it held up), to the arrival of its acknowledgement.

Limits: 2,000,000 lines a run, all latencies in memory; `window` lines unacknowledged (1,000 unless told otherwise);
everything unacknowledged is sent again after a reconnection, and when nothing was acknowledged for 5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, Final, cast

MAX_LINES: Final = 2_000_000
RESEND_S: Final = 5.0
PACE_S: Final = 0.005
HELD_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Load:
    """What to send. `rate` in lines a second, 0 for as fast as acknowledged; devices are PREFIX1, PREFIX2, ..."""

    count: int
    rate: float = 0.0
    devices: int = 1
    window: int = 1000
    prefix: str = "dev-"
    value: dict[str, Any] = field(default_factory=lambda: {"temp": 21.5})


class LineLoad(asyncio.Protocol):
    """One run of a load. It serves one connection at a time; `done` is set when every line is acknowledged."""

    def __init__(self, load: Load) -> None:
        """Prepare a run."""
        self.done = asyncio.Event()
        self.connected = asyncio.Event()
        self.connections = self.resent = self.unmatched_acks = 0
        self._load = load
        self._session = secrets.token_hex(4)
        self._tail = "," + json.dumps(load.value, separators=(",", ":"))[1:] + "\n" if load.value else "}\n"
        self._transport: asyncio.Transport | None = None
        self._writable = False
        self._born = 0
        self._due: dict[int, float] = {}
        self._latencies: list[float] = []
        self._held = b""
        self._began: float | None = None
        self._heard_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send everything unacknowledged again, then go on."""
        if self._transport is not None:
            self._transport.abort()
        self._transport = cast(asyncio.Transport, transport)  # a stream server hands over nothing else
        self._writable = True
        self._held = b""
        self.connections += 1
        self.connected.set()
        self._resend()
        self.fill()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Wait for the next connection."""
        if self._transport is not None and self._transport.is_closing():
            self._transport = None
            self._writable = False

    def pause_writing(self) -> None:
        """Send nothing more for now."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        self.fill()

    def data_received(self, data: bytes) -> None:
        """Take acknowledgements."""
        now = asyncio.get_running_loop().time()
        *lines, self._held = (self._held + data).split(b"\n")
        if len(self._held) > HELD_BYTES:
            self._held = b""
        for line in lines:
            due = self._due.pop(_acknowledged(line), None)
            if due is None:
                self.unmatched_acks += 1
            else:
                self._latencies.append(now - due)
        self._heard_at = now
        if len(self._latencies) == self._load.count:
            self.done.set()
        else:
            self.fill()

    def fill(self) -> None:
        """Send what may be sent: within the window, within the rate."""
        if self._transport is None or not self._writable:
            return
        load, now = self._load, asyncio.get_running_loop().time()
        if self._began is None:
            self._began = self._heard_at = now
        limit = load.count if load.rate == 0 else min(load.count, int((now - self._began) * load.rate) + 1)
        last = min(limit, self._born + load.window - len(self._due))
        if last <= self._born:
            return
        numbers = range(self._born + 1, last + 1)
        for n in numbers:
            self._due[n] = now if load.rate == 0 else self._began + (n - 1) / load.rate
        self._born = last
        self._transport.write(b"".join(map(self._line, numbers)))

    def close(self) -> None:
        """Let the connection go."""
        if self._transport is not None:
            self._transport.abort()

    async def keep_pace(self) -> None:
        """Fill at the rate, and send again what is not acknowledged, until cancelled."""
        while True:
            await asyncio.sleep(PACE_S)
            self.fill()
            now = asyncio.get_running_loop().time()
            if self._due and now - self._heard_at > RESEND_S:
                self._heard_at = now
                self._resend()

    def report(self) -> dict[str, Any]:
        """Return what was measured so far; seconds from the first sending to the last acknowledgement."""
        seconds = self._heard_at - self._began if self._began is not None else 0.0
        ranked = sorted(self._latencies)
        shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        return {
            "lines": self._load.count,
            "sent": self._born,
            "acked": len(ranked),
            "finished": self.done.is_set(),
            "devices": self._load.devices,
            "window": self._load.window,
            "rate": self._load.rate,
            "seconds": round(seconds, 3),
            "lines_per_s": round(len(ranked) / seconds, 1) if seconds > 0 else None,
            "latency_ms": {
                name: round(1000 * ranked[ceil(share * len(ranked)) - 1], 3) if ranked else None
                for name, share in shares.items()
            },
            "resent": self.resent,
            "connections": self.connections,
            "unmatched_acks": self.unmatched_acks,
        }

    def _resend(self) -> None:
        if self._transport is not None and self._due:
            self.resent += len(self._due)
            self._transport.write(b"".join(map(self._line, sorted(self._due))))

    def _line(self, n: int) -> bytes:
        device = f"{self._load.prefix}{n % self._load.devices + 1}"
        return f'{{"dev":"{device}","n":{n},"s":"{self._session}"{self._tail}'.encode()


def _acknowledged(line: bytes) -> int:
    """Return the number that a line acknowledges, -1 when it is no acknowledgement."""
    try:
        n = json.loads(line)["ack"]
    except (ValueError, KeyError, TypeError):
        return -1
    return n if isinstance(n, int) else -1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `simulator load`."""
    parser.add_argument("--port", type=int, required=True, help="TCP port of 127.0.0.1 to listen on")
    parser.add_argument("--count", type=int, required=True, help="lines to send")
    parser.add_argument("--rate", type=float, default=0.0, help="lines a second; 0: as fast as they are acknowledged")
    parser.add_argument("--devices", type=int, default=1, help="how many devices share the line")
    parser.add_argument("--prefix", default="dev-", help="their addresses are PREFIX1, PREFIX2, ...")
    parser.add_argument("--window", type=int, default=1000, help="lines that may be unacknowledged")
    parser.add_argument("--value", type=json.loads, default={"temp": 21.5}, help="fields of each line, as JSON")
    parser.add_argument("--report", type=Path, required=True, help="file for the result, as JSON")
    parser.add_argument("--timeout-s", type=float, default=600.0, help="give up after so many seconds")


async def main(options: argparse.Namespace) -> int:
    """Run a load and write its report. Returns 0 when every line was acknowledged, 1 otherwise."""
    wrong = _wrong(options)
    if wrong:
        raise ValueError(wrong)
    load = Load(options.count, options.rate, options.devices, options.window, options.prefix, options.value)
    report = await run(load, port=options.port, timeout_s=options.timeout_s)
    options.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if report["finished"] else 1


async def run(load: Load, *, port: int, timeout_s: float) -> dict[str, Any]:
    """Serve a load until it is through, SIGTERM comes, or the time is over. Returns the report."""
    loop = asyncio.get_running_loop()
    line_load = LineLoad(load)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: line_load, "127.0.0.1", port)
    pace = loop.create_task(line_load.keep_pace(), name="pace")
    waits = [loop.create_task(event.wait()) for event in (line_load.done, stop)]
    try:
        await asyncio.wait([*waits, pace], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.close()
        line_load.close()
        await _end([pace, *waits])
        loop.remove_signal_handler(signal.SIGTERM)
    return line_load.report()


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _wrong(options: argparse.Namespace) -> str:
    """Say what is wrong with the options, "" for nothing."""
    if not 0 < options.count <= MAX_LINES:
        return f"--count {options.count}: from 1 to {MAX_LINES}"
    if options.devices < 1 or options.window < 1 or options.rate < 0:
        return "--devices and --window: at least 1; --rate: 0 or more"
    if not isinstance(options.value, dict):
        return "--value: expected a JSON object"
    return ""

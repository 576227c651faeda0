"""The real daemon as a process of its own: started, asked over its control socket, and read from its log."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from simulator.scenario import free_ports
from tests.json_board import Board, listening_board

ROOT = Path(__file__).parents[2]


class Silent(Exception):
    """The daemon does not answer (yet)."""


@dataclass
class Gateway:
    """One configuration, and the processes that run it one after the other. Everything they say is in one file.

    `prefix`: a command that runs them as somebody else, or somewhere apart.
    """

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    process: asyncio.subprocess.Process | None = None

    @property
    def config(self) -> Path:
        return self.folder / "gateway.toml"

    @property
    def control(self) -> Path:
        return self.folder / "control.sock"

    @property
    def log(self) -> Path:
        return self.folder / "gateway.log"

    def configure(self, text: str, **values: object) -> None:
        self.config.write_text(text.format(folder=self.folder, **values), encoding="utf-8")

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.prefix, sys.executable, "-m", "gateway", "run", "--config", str(self.config),
                cwd=ROOT, env={**os.environ, "NO_COLOR": "1", **self.env}, stdout=log, stderr=log,
            )  # fmt: skip

    async def end(self, number: int = signal.SIGTERM, *, within_s: float = 15.0) -> tuple[int, float]:
        """Send a signal; return the exit status and how many seconds the end took."""
        assert self.process is not None
        began = time.monotonic()
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            async with asyncio.timeout(within_s):
                await self.process.wait()
        finally:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        assert self.process.returncode is not None
        return self.process.returncode, time.monotonic() - began

    async def ended(self, *, within_s: float = 45.0) -> int:
        """Wait until it ends by itself."""
        assert self.process is not None
        async with asyncio.timeout(within_s):
            return await self.process.wait()

    async def ask(self, op: str, **arguments: object) -> Any:
        """Ask once. Raises Silent."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.control, limit=4_000_000)
        except OSError as error:
            raise Silent(str(error)) from error
        try:
            async with asyncio.timeout(45):
                writer.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
                answer = json.loads(await reader.readline())
        except (OSError, ValueError) as error:
            raise Silent(str(error)) from error
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        assert answer["ok"], answer
        return answer["result"]

    async def until(self, what: str, condition: Callable[[dict[str, Any]], bool], *, within_s: float = 45.0) -> Any:
        """Look at its status until something is so; return that status."""
        status: dict[str, Any] = {}
        end = time.monotonic() + within_s
        while True:
            with suppress(Silent):
                status = await self.ask("status")
                if condition(status):
                    return status
            assert time.monotonic() < end, f"not {what}; status {json.dumps(status, ensure_ascii=False)}\n{self.said()}"
            await asyncio.sleep(0.02)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def entries(self) -> list[dict[str, Any]]:
        """Every log line that is JSON."""
        return [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]

    def turns(self) -> list[tuple[str, str, str]]:
        """Each problem that came or went, in order: code, subject, "on" or "off"."""
        return [(one["code"], one["subject"], one["turn"]) for one in self.entries() if "turn" in one]


def problems(status: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Codes and subjects of the problems in a status."""
    return {(one["code"], one["subject"]) for one in status["problems"]}


@pytest.fixture
async def board() -> AsyncIterator[Board]:
    """A board that listens for the gateway."""
    async with listening_board() as here:
        yield here


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway in an empty folder. Whatever happens, no process stays behind."""
    here = Gateway(tmp_path)
    yield here
    if here.process is not None and here.process.returncode is None:
        await here.end(signal.SIGKILL)


@pytest.fixture
def problems_of() -> Callable[[Mapping[str, Any]], set[tuple[str, str]]]:
    """Return codes and subjects of the problems in a status."""
    return problems


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return a TCP port that nobody listens on."""
    return lambda: free_ports(["it"])["it"]


Eventually = Callable[[Callable[[], bool], str], Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    """Wait until something is so, 15 s at most."""

    async def wait(condition: Callable[[], bool], why: str) -> None:
        end = time.monotonic() + 45
        while not condition():
            assert time.monotonic() < end, why
            await asyncio.sleep(0.02)

    return wait

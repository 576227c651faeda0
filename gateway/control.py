"""The local control socket: how people and other programs on this machine ask the daemon and tell it things.

One JSON object a line, answered by one JSON object a line; `listen` streams until the client goes. Mode 0660: the group
may use it without being root. Limits: a request of 64 KiB, `MAX_CLIENTS` at a time, 60 s of silence ends a connection, a
listener that does not read loses what does not fit into 1,000 lines, and is told how many.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.errors import ControlError
from gateway.problems import describe

MAX_LINE: Final = 64 * 1024
MAX_CLIENTS: Final = 32
IDLE_S: Final = 60.0
MAX_LISTEN_LINES: Final = 1_000

_log = structlog.get_logger("control")

Operation = Callable[[Mapping[str, Any]], Awaitable[object]]
Listen = Callable[[Callable[[Mapping[str, object]], None]], Callable[[], None]]


class ControlServer:
    """Serves the operations that `app` gives it. `listen` subscribes a callback and returns how to unsubscribe it."""

    def __init__(self, path: Path, operations: Mapping[str, Operation], *, listen: Listen, lang: str) -> None:
        self._path = path
        self._operations = operations
        self._listen = listen
        self._lang = lang
        self._clients = 0

    async def run(self) -> None:
        """Serve for ever. A socket file left by a dead daemon is replaced. Raises OSError when the path cannot be used."""
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._client, self._path, limit=MAX_LINE)
        try:
            self._path.chmod(0o660)
            async with server:
                await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= MAX_CLIENTS:
                await self._serve(reader, writer)
        except (OSError, TimeoutError):
            pass  # the client went away, or sleeps
        except asyncio.CancelledError:
            pass  # the daemon ends; a task of the stream server must not carry this further
        finally:
            self._clients -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE_S):
                try:
                    line = await reader.readline()
                except ValueError:  # longer than MAX_LINE
                    await self._send(writer, self._refusal(ControlError("GW-CTL-03", reason="request too long")))
                    return
            if not line:
                return
            request = _parse(line)
            if request.get("op") == "listen":
                await self._stream(reader, writer)
                return
            await self._send(writer, await self._answer(request))

    async def _answer(self, request: Mapping[str, Any]) -> Mapping[str, object]:
        operation = self._operations.get(str(request.get("op")))
        try:
            if operation is None:
                raise ControlError("GW-CTL-03", str(request.get("op", "")), reason="unknown request")
            return {"ok": True, "result": await operation(request)}
        except ControlError as error:
            return self._refusal(error)
        except (KeyError, TypeError, ValueError) as error:
            return self._refusal(ControlError("GW-CTL-03", reason=f"request not understood: {error}"))

    def _refusal(self, error: ControlError) -> Mapping[str, object]:
        facts = {"reason": "", **error.facts}
        message = describe(error.code, self._lang, error.subject, facts).title
        return {"ok": False, "error": {"code": error.code, "message": f"{message}: {facts['reason']}"}}

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines: deque[Mapping[str, object]] = deque()
        wake = asyncio.Event()
        lost = 0

        def take(item: Mapping[str, object]) -> None:
            nonlocal lost
            if len(lines) >= MAX_LISTEN_LINES:
                lost += 1
                return
            lines.append(item)
            wake.set()

        stop = self._listen(take)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await self._send(writer, {"ok": True, "result": "listening"})
            while not gone.done():
                waiting = asyncio.ensure_future(wake.wait())
                await asyncio.wait({gone, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                wake.clear()
                while lines:
                    await self._send(writer, lines.popleft())
                if lost:
                    lost, count = 0, lost
                    await self._send(writer, {"lost": count})
        finally:
            stop()
            gone.cancel()

    async def _send(self, writer: asyncio.StreamWriter, answer: Mapping[str, object]) -> None:
        writer.write(json.dumps(answer, ensure_ascii=False, default=str).encode() + b"\n")
        async with asyncio.timeout(IDLE_S):
            await writer.drain()


def _parse(line: bytes) -> Mapping[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return request if isinstance(request, dict) else {}

"""The local control socket: how people and other programs on this machine ask the daemon and tell it things.

One JSON object a line, answered by one JSON object a line; `listen` streams until the client goes. Mode 0660: the group
may use it without being root. Limits: a request of 64 KiB, `MAX_CLIENTS` at a time, 60 s of silence ends a connection, a
listener that does not read loses what does not fit into 1,000 lines, and is told how many. An answer takes at most
`ANSWER_S`. Ends within `CLOSE_S`, whoever is connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.errors import ControlError, GatewayError
from gateway.problems import describe

MAX_LINE: Final = 64 * 1024
MAX_CLIENTS: Final = 32
IDLE_S: Final = 60.0
MAX_LISTEN_LINES: Final = 1_000
ANSWER_S: Final = 8.0
CLOSE_S: Final = 1.0

_log = structlog.get_logger("control")

Operation = Callable[[Mapping[str, Any]], Awaitable[object]]
Listen = Callable[[Callable[[Mapping[str, object]], None], Mapping[str, Any]], Callable[[], None]]


class ControlServer:
    """Serves the operations that `app` gives it.

    `listen` subscribes a callback, as the request asks, and returns how to unsubscribe it.
    """

    def __init__(
        self, path: Path, operations: Mapping[str, Operation], *, listen: Listen, lang: str,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._path = path
        self._operations = operations
        self._listen = listen
        self._lang = lang
        self._on_ready = on_ready
        self._clients: set[asyncio.Task[None]] = set()
        self._closing = False

    async def run(self) -> None:
        """Serve for ever. A socket file left by a dead daemon is replaced, a live one's is not.

        Raises OSError when the path cannot be used.
        """
        if await self._is_served():
            raise OSError(errno.EADDRINUSE, "another daemon answers there")
        listener = _listening(self._path)
        ours = self._path.stat().st_ino
        server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_LINE)
        self._closing = False
        try:
            self._on_ready()
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            self._closing = True
            server.close()
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == ours:
                    self._path.unlink()
            # Not `wait_closed`: from Python 3.12 on it waits for every client to leave.
            for task in self._clients:
                task.cancel()
            if self._clients:
                await asyncio.wait(self._clients, timeout=CLOSE_S)

    async def _is_served(self) -> bool:
        try:
            async with asyncio.timeout(CLOSE_S):
                _, writer = await asyncio.open_unix_connection(self._path)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this as a task
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)
        try:
            if self._closing:
                return  # it was in the door when that was shut
            if len(self._clients) > MAX_CLIENTS:
                await self._send(writer, self._refusal(ControlError("GW-CTL-03", reason="@refusal.clients")))
            else:
                await self._serve(reader, writer)
        except (OSError, TimeoutError):
            pass  # the client went away, or sleeps
        except asyncio.CancelledError:
            pass  # only `run` cancels it, at the end; the stream server of Python 3.11 would log it as an error
        except Exception as bug:  # noqa: BLE001 - a request must not end more than its own connection
            _log.error("a control client was dropped", exc_info=bug)
        finally:
            await _let_go(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE_S):
                try:
                    line = await reader.readline()
                except ValueError:  # longer than MAX_LINE
                    await self._send(writer, self._refusal(ControlError("GW-CTL-03", reason="@refusal.too-long")))
                    return
            if not line:
                return
            request = _parse(line)
            if request.get("op") == "listen":
                await self._stream(reader, writer, request)
                return
            await self._send(writer, await self._answer(request))

    async def _answer(self, request: Mapping[str, Any]) -> Mapping[str, object]:
        operation = self._operations.get(str(request.get("op")))
        try:
            if operation is None:
                raise ControlError("GW-CTL-03", str(request.get("op", ""))[:80], reason="@refusal.unknown")
            async with asyncio.timeout(ANSWER_S):
                return {"ok": True, "result": await operation(request)}
        except GatewayError as error:
            return self._refusal(error)
        except (KeyError, TypeError, ValueError) as error:
            return self._refusal(ControlError("GW-CTL-03", reason="@refusal.not-understood", error=repr(error)[:200]))
        except TimeoutError:
            return self._refusal(ControlError("GW-CTL-03", reason="@refusal.too-slow"))
        except Exception as bug:  # noqa: BLE001 - whoever asks must be answered
            _log.error("a control request failed", op=str(request.get("op"))[:80], exc_info=bug)
            return self._refusal(ControlError("GW-RUN-03", detail=f"{type(bug).__name__}: {bug}"[:200]))

    def _refusal(self, error: GatewayError) -> Mapping[str, object]:
        """Code, subject and facts, so that whoever asks reads it in a language of their own; the words in ours."""
        message = describe(error.code, self._lang, error.subject, error.facts).title
        told = {"code": error.code, "subject": error.subject, "facts": error.facts, "message": message}
        return {"ok": False, "error": told}

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Mapping[str, Any]
    ) -> None:
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

        async def until_gone() -> None:
            with contextlib.suppress(OSError):
                await reader.read(1)
            wake.set()

        stop = self._listen(take, request)
        gone = asyncio.create_task(until_gone(), name="control-listener")
        try:
            await self._send(writer, {"ok": True, "result": "listening"})
            while not gone.done():
                await wake.wait()
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
        # A request may carry half a surrogate pair, and its refusal repeats it: "\\udc00" is what JSON calls it too.
        text = json.dumps(answer, ensure_ascii=False, default=str)
        writer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        async with asyncio.timeout(IDLE_S):
            await writer.drain()


def _listening(path: Path) -> socket.socket:
    """Return a socket that listens at `path`; a dead one there is replaced.

    It is made beside and moved there: who sees it can connect, and finds its mode set. Raises OSError.
    """
    if path.exists() and not path.is_socket():
        raise OSError(errno.EADDRINUSE, "is there already, and is no socket")
    beside = path.with_name(f"{path.name}~")
    beside.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(beside))
        beside.chmod(0o660)
        listener.listen()
        beside.replace(path)
    except BaseException:
        listener.close()
        raise
    return listener


async def _let_go(writer: asyncio.StreamWriter) -> None:
    """Close a connection; a client that does not read what it was sent is cut off."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSE_S):
            await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()
    except OSError:
        pass
    except asyncio.CancelledError:
        writer.transport.abort()
        raise


def _parse(line: bytes) -> Mapping[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return request if isinstance(request, dict) else {}

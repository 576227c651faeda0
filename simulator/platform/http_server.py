"""uvicorn inside our own event loop, and one request with the ways to answer it, good and bad.

uvicorn handles neither signals nor logs here: both belong to whoever runs the platform. It turns whatever an application
raises into a 500 and goes on; a platform that cannot write its ledger must not, so the front hears of it by itself.
Limits: a head of 16 KiB (uvicorn's), a body of 1 MiB in 60 s, an idle connection 75 s (a common server's habit).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from typing import Any, Final, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HOST: Final = "127.0.0.1"
MAX_BODY_BYTES: Final = 1024 * 1024
BODY_LIMIT_S: Final = 60.0
IDLE_LIMIT_S: Final = 75
_BACKLOG: Final = 128
_SILENT: Final = logging.CRITICAL + 1

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[str, str]]


class BodyTooBig(Exception):
    """More than 1 MiB: what came of it is thrown away."""


class Gone(Exception):
    """The client has left before its request was whole."""


class Connection(H11Protocol):
    """One connection, known to its requests: they may end it, and it knows what kinds of events it has carried."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.app_state = {"connection": self}
        self.carried: set[str] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin, writing through what gathers."""
        super().connection_made(_Gathering(transport))


class _Gathering(asyncio.Transport):
    """A transport that writes once a turn of the loop: uvicorn writes head and body apart, and a packet costs 0.1 ms."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Gather."""
        if not data:
            return
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(bytes(data))

    def close(self) -> None:
        """Write what was gathered, and close."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._gathered.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Is it closed, or about to be?"""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Pause."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection."""
        return self._transport.get_extra_info(name, default)

    def _flush(self) -> None:
        if self._gathered:
            data, self._gathered = b"".join(self._gathered), []
            self._transport.write(data)


class Exchange:
    """One request, and its answer: exactly one of `reply`, `half`, `close` and `silence` must be called."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.connection: Connection = scope["state"]["connection"]
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._receive = receive
        self._send = send

    @property
    def gone(self) -> bool:
        """Has the client left?"""
        return bool(self.connection.transport.is_closing())

    def header(self, name: str) -> str:
        """Return a header, "" without it."""
        wanted = name.encode()
        return next((value.decode("latin-1") for key, value in self._headers if key == wanted), "")

    async def body(self) -> bytes:
        """Read the body. Raises BodyTooBig, Gone, TimeoutError."""
        taken = bytearray()
        async with asyncio.timeout(BODY_LIMIT_S):
            while True:
                part = await self._receive()
                if part["type"] != "http.request":
                    raise Gone
                taken += part["body"]
                if len(taken) > MAX_BODY_BYTES:
                    raise BodyTooBig
                if not part["more_body"]:
                    return bytes(taken)

    async def reply(self, status: int, body: bytes = b"", *, headers: Headers = ()) -> None:
        """Answer, whole."""
        await self._head(status, len(body), headers)
        await self._send({"type": "http.response.body", "body": body})

    async def half(self, status: int, body: bytes, *, headers: Headers = ()) -> None:
        """Promise the whole body, send half of it, and end the connection."""
        await self._head(status, len(body), headers)
        await self._send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        self.connection.transport.close()
        await self.silence()

    async def close(self) -> None:
        """End the connection without a byte."""
        self.connection.transport.abort()
        await self.silence()

    async def silence(self) -> None:
        """Say nothing, until the client has had enough."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _head(self, status: int, length: int, headers: Headers) -> None:
        # RFC 9110 section 8.6: no Content-Length with 204.
        counted = [] if status == 204 else [("content-length", str(length))]
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in (*counted, *headers)]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})


class HttpServer:
    """A server on a free port of 127.0.0.1 while entered and running. `handle` answers each request."""

    def __init__(self, handle: Callable[[Exchange], Awaitable[None]], *, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.ready = asyncio.Event()
        self._handle = handle
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._socket = socket.socket(proto=socket.IPPROTO_TCP)  # named: or asyncio leaves Nagle's algorithm on
        self._server = _Server(
            uvicorn.Config(
                self._call,
                http=Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level=_SILENT,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=IDLE_LIMIT_S,
                ssl_context_factory=None if tls is None else lambda _config, _default: tls,
            ),
            self.ready,
        )

    async def __aenter__(self) -> Self:
        """Take a port."""
        self._socket.bind((HOST, 0))
        self.port = int(self._socket.getsockname()[1])
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Give the port back."""
        self._socket.close()

    async def run(self) -> None:
        """Serve until cancelled. Raises what `handle` raises: then the platform must not go on."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._server.serve(sockets=[self._socket]), name="http-server")
                await self._broken
        finally:
            await self._server.end()
            self._broken.cancel()

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._handle(Exchange(scope, receive, send))
        except Exception as error:
            if not self._broken.done():
                self._broken.set_exception(error)
            raise


class _Server(uvicorn.Server):
    """uvicorn's server without its hand on the process, and with a quick end."""

    def __init__(self, config: uvicorn.Config, ready: asyncio.Event) -> None:
        super().__init__(config)
        self._ready = ready
        self.servers: list[asyncio.Server] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._ready.set()

    async def end(self) -> None:
        """Stop listening, drop every connection and every request."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # the connections hear of it
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""Connections to a platform over HTTP/1.1: one request at a time on each, kept open between them; all that knows httpx.

Each line is a client of its own with one connection, so that it is known which connection is warm, and a doubtful one can
be given up alone. The last one used is used again first: as long as it is used at all, it stays warm. Nothing is taken
from the environment (no proxy), no redirect is followed, no cookie kept, nothing decompressed. A peer that vanished is
seen by the kernel after 35 s of silence and its line is not used again. Limits: every request has a time limit of its
caller's for the whole of it, connecting included; an answer has at most 1 MiB; `keep` lines wait idle at most, and none
for more than 90 s; where the platform cuts off the first request of all, its reason is listened for for 1 s at most.
"""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx

from gateway.errors import SessionError

MAX_ANSWER_BYTES: Final = 1024 * 1024
IDLE_S: Final = 90.0
CONNECT_S: Final = 5.0  # for TCP, and again for TLS
_LISTEN_S: Final = 1.0
_SOCKET_OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000),
)


if importlib.util.find_spec("sniffio") is None:
    # httpcore tries to import it for each lock of each request, and what is not there is looked for on the disk each time:
    # half a dozen searches a request, 2 ms of an alarm on its way. None says "not there" (language reference, 5.3.1).
    sys.modules["sniffio"] = None  # type: ignore[assignment]  # typeshed knows modules only


class NoAnswer(SessionError):
    """The connection stood, and the platform did not answer in time."""


@dataclass(frozen=True, slots=True)
class Wire:
    """What every connection to one platform has in common. `tls` is None for plain HTTP (loopback only)."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    method: str
    url: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `whole` is False where its body was too long or encoded, and `body` holds nothing of use."""

    status: int
    body: bytes
    whole: bool
    retry_after: str
    date: str
    location: str


def host_and_port(url: str) -> tuple[str, int]:
    """Return where a URL leads, the name as DNS wants it. Raises SessionError GW-NET-01 for a name that cannot be one."""
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise SessionError("GW-NET-01", url, error=str(error)) from error
    return host, parsed.port or (80 if parsed.scheme == "http" else 443)


class Lines:
    """The connections of one kind of traffic."""

    def __init__(self, wire: Wire, *, keep: int) -> None:
        self._wire = wire
        self._keep = keep
        self._idle: list[_Line] = []  # the last one used stands last
        self._closed = False
        self.answered_at = float("-inf")

    async def ask(self, ask: Ask, *, limit_s: float, fresh: bool = False) -> Answer:
        """Send a request and read its answer. Raises SessionError with the code of the layer that broke.

        `fresh`: over a new connection; those that wait idle are given up, for they go the same way as the doubtful one.
        """
        if fresh:
            await self._give_up(self._idle)
        line = self._idle.pop() if self._idle else _Line(self._wire)
        try:
            answer = await line.ask(ask, limit_s=max(limit_s, 0.05))
        except SessionError as error:
            await line.close()
            was_cut_off = line.heard_nothing and error.code == "GW-NET-05" and not isinstance(error, NoAnswer)
            refusal = await self._refusal() if was_cut_off and self.answered_at == float("-inf") else None
            if refusal is not None:
                raise refusal from error
            raise
        except BaseException:
            await line.close()
            raise
        self.answered_at = line.used_at
        if not line.is_of(self._wire):
            await line.close()
            return answer
        self._idle.append(line)
        if self._closed or len(self._idle) > self._keep:
            await self._give_up(self._idle[:1])
        return answer

    async def _refusal(self) -> SessionError | None:
        """Shake hands once more and say nothing: is it our certificate that the platform does not like?

        TLS 1.3 refuses it after the handshake, with an alert (RFC 8446 section 4.4.2.4). Where bytes of ours are unread by
        then the connection is reset; asyncio closes the socket at the first write that fails, and the alert in it is lost.
        """
        wire = self._wire
        if wire.tls is None:
            return None
        try:
            async with asyncio.timeout(_LISTEN_S):
                reader, writer = await asyncio.open_connection(wire.host, wire.port, ssl=wire.tls)
                try:
                    await reader.read(1)
                finally:
                    writer.transport.abort()
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            if type(error) is ssl.SSLError:
                return SessionError("GW-NET-03", wire.host, port=wire.port, error=str(error))
        return None

    async def renew(self, wire: Wire) -> None:
        """Make connections otherwise from now on; those that stand are given up, as soon as nobody uses them."""
        self._wire = wire
        await self._give_up(self._idle)

    @property
    def is_doubtful(self) -> bool:
        """Has an idle connection ended, or said something unasked?"""
        return any(line.is_doubtful for line in self._idle)

    async def trim(self) -> None:
        """Give up lines that nobody has used for long."""
        now = asyncio.get_running_loop().time()
        await self._give_up([line for line in self._idle if now - line.used_at > IDLE_S])

    async def close(self) -> None:
        """Give up all lines, those that are in use as soon as they are not."""
        self._closed = True
        await self._give_up(self._idle)

    async def _give_up(self, lines: list[_Line]) -> None:
        given_up = list(lines)
        self._idle = [line for line in self._idle if line not in given_up]
        for line in given_up:
            await line.close()


class _Line:
    """One client with one connection. httpx opens it anew when the server has closed it while it waited."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._phase = ""
        self._stream: Any = None
        self.used_at = 0.0
        self.heard_nothing = True
        transport = httpx.AsyncHTTPTransport(
            # For plain HTTP a context that trusts nobody: httpx would read the system's authorities for each client.
            verify=wire.tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_S),
            socket_options=_SOCKET_OPTIONS,
        )
        self._client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            headers={**wire.headers, "accept-encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )

    def is_of(self, wire: Wire) -> bool:
        """Was it made so?"""
        return self._wire is wire

    @property
    def is_doubtful(self) -> bool:
        """Is there something to be read although nothing was asked: the other end is gone, or the kernel gave it up."""
        return self._stream is not None and bool(self._stream.get_extra_info("is_readable"))

    async def ask(self, ask: Ask, *, limit_s: float) -> Answer:
        """Send a request and read its answer. Raises SessionError; then the line must be closed."""
        self._phase = ""
        try:
            # httpx limits each read and write only: a server that trickles could keep us for ever.
            async with asyncio.timeout(limit_s):
                answer = await self._exchange(ask, limit_s)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise self._failure(error, limit_s) from error
        self.used_at = asyncio.get_running_loop().time()
        return answer

    async def _exchange(self, ask: Ask, limit_s: float) -> Answer:
        timeout = httpx.Timeout(limit_s, connect=min(CONNECT_S, limit_s))
        async with self._client.stream(
            ask.method, ask.url, content=ask.body, headers={"content-type": ask.content_type}, timeout=timeout,
            extensions={"trace": self._trace},
        ) as response:  # fmt: skip
            heads = response.headers
            body, whole = b"", heads.get("content-encoding", "identity").strip().lower() == "identity"
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    body, whole = b"", False
                    break
            return Answer(
                response.status_code, body if whole else b"", whole,
                heads.get("retry-after", ""), heads.get("date", ""), heads.get("location", ""),
            )  # fmt: skip

    async def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        self._phase = name
        if name == "http11.receive_response_headers.complete":
            self.heard_nothing = False
        if name == "connection.connect_tcp.complete":
            self._stream = info["return_value"]

    async def close(self) -> None:
        """Let go of the connection, at once: nothing that waits to be sent is waited for."""
        try:
            await self._client.aclose()
        finally:
            if self._stream is not None:  # httpcore 1.0 forgets it when it is cancelled amid the TLS handshake
                await self._stream.aclose()

    def _failure(self, error: Exception, limit_s: float) -> SessionError:
        host, port = self._wire.host, self._wire.port
        chain = list(_chain(error))
        said = next((text for one in reversed(chain) if (text := str(one))), type(error).__name__)
        if any(isinstance(one, socket.gaierror | UnicodeError | httpx.InvalidURL) for one in chain):
            return SessionError("GW-NET-01", host, port=port, error=said)
        for one in chain:
            # Its other subclasses tell of the line (an end, a read that has to wait), and stand in many a chain.
            if isinstance(one, ssl.SSLCertVerificationError) or type(one) is ssl.SSLError:
                said = getattr(one, "verify_message", "") or str(one)
                return SessionError("GW-NET-03", host, port=port, error=said)
        timed_out = isinstance(error, TimeoutError | httpx.TimeoutException)
        if self._phase.startswith("connection."):
            amid = "TLS handshake: " if "start_tls" in self._phase else ""
            return SessionError("GW-NET-02", host, port=port, error=amid + ("no answer in time" if timed_out else said))
        if timed_out:
            return NoAnswer("GW-NET-05", host, port=port, error=f"no answer within {limit_s:.3g} s")
        return SessionError("GW-NET-05", host, port=port, error=said)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Go from an error to what it came from; httpcore keeps the cause in the context only."""
    for _ in range(12):
        if error is None:
            return
        yield error
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = inner or error.__cause__ or error.__context__

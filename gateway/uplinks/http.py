"""A platform over HTTPS, natively: birth and sign of life by PUT, alarms as single POSTs, telemetry in batches.

Alarms have connections of their own; the sign of life goes over the one that they use, so that a press finds it open.
What a request can meet is judged in `http_answers`, lines are kept in `http_lines`, a session's life is `http_session`, and what
is said stands in `http_speech`, natively or as a profile has it.
Limits: 16 messages at a time, of 1 MiB each (a platform that takes less says 413, and gets smaller batches).
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import structlog

from gateway import __version__
from gateway.clock import PlatformTime
from gateway.credentials import Credential, in_thread
from gateway.errors import SessionError
from gateway.events import Lane, Origin
from gateway.profiles import Profile
from gateway.profiles.profile import Place
from gateway.tls import Tls, outdated, tls_context
from gateway.uplinks.http_courtesy import Courtesy
from gateway.uplinks.http_lines import Lines, Wire, host_and_port
from gateway.uplinks.http_pace import Pace
from gateway.uplinks.http_session import HttpSession
from gateway.uplinks.http_speech import NativeSpeech, Places, ProfileSpeech, Speech
from gateway.uplinks.uplink import UplinkEvents

WINDOW: Final = 16
MAX_BYTES: Final = 1024 * 1024
_KEPT_FOR_ALARMS: Final = WINDOW  # a burst must not shake hands for each; what is not used for 90 s goes
_KEPT_FOR_THE_REST: Final = 4
# What h11 would not take as a value it quotes in its error: a secret must not get there.
_CREDENTIAL: Final = re.compile(r"[\x21-\x7e]+ [\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_log = structlog.get_logger("uplink")


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """Where a platform is and how to get in. `url` may have a base path; `tls` is None for http:// (loopback only).

    `authorization` returns the header's value, "" for none; it may block, and is asked anew for each session.
    """

    url: str
    authorization: Callable[[], str]
    tls: Tls | None = None


class HttpUplink:
    """One path to one platform over HTTP."""

    def __init__(
        self, endpoint: HttpEndpoint, origin: Origin, *, destination: str, pace: Pace | None = None,
        profile: Profile | None = None, parameters: Mapping[str, str] | None = None,
        on_time: Callable[[PlatformTime], None] | None = None,
    ) -> None:  # fmt: skip
        self._endpoint = endpoint
        self._authorization = Credential(endpoint.authorization, destination=destination)
        self._destination = destination
        self._pace = pace or Pace()
        self._courtesy = Courtesy()
        self._session: HttpSession | None = None
        self._context: ssl.SSLContext | None = None
        self._source = origin.source
        url = endpoint.url.rstrip("/")
        self._speech: Speech = NativeSpeech(_places(url, origin))
        if profile is not None and not profile.is_native:
            self._speech = ProfileSpeech(profile, Place(origin, parameters or {}), url=url, destination=destination)
        # Without TLS anybody may be the one that tells the time; what other platforms' clocks are called nobody knows.
        tells_time = endpoint.tls is not None and isinstance(self._speech, NativeSpeech)
        self._on_time = on_time if tells_time else None
        self.unreadable_answers = 0

    @property
    def window(self) -> int:
        """How many messages may be on the wire; none while the platform has asked even alarms to wait."""
        if self._session is None:
            return WINDOW
        return 0 if self._courtesy.alarm_wait(asyncio.get_running_loop().time()) else WINDOW

    @property
    def max_bytes(self) -> int:
        """How long a message may be."""
        return MAX_BYTES

    @property
    def max_events(self) -> int:
        """How many events a message may hold."""
        return self._speech.max_events

    async def open(self, events: UplinkEvents, *, epoch: int, birth: Mapping[str, object]) -> None:
        """Log in and announce the gateway. Raises SessionError with the code of the broken layer."""
        await self.close()
        host, port = host_and_port(self._endpoint.url)
        wait = self._courtesy.session_wait(asyncio.get_running_loop().time())
        if wait:
            raise SessionError("GW-PLT-04", host, port=port, error=f"Retry-After: {wait:.0f} s")
        wire, secret = await self._wire(host, port)
        session = HttpSession(
            self._speech, source=self._source, alarms=Lines(wire, keep=_KEPT_FOR_ALARMS),
            bulk=Lines(wire, keep=_KEPT_FOR_THE_REST),
            events=events, epoch=epoch, destination=self._destination, host=host, secret=secret,
            courtesy=self._courtesy, pace=self._pace, unreadable=self._not_read,
            on_time=self._on_time, time_url=f"{self._endpoint.url.rstrip('/')}/v1/time",
            renewed=lambda: self._renewed(wire.headers),
        )  # fmt: skip
        try:
            await session.open(dict(birth))
        except SessionError as refusal:
            told = self._authorization.explained(refusal)
            if told is refusal:
                raise
            raise told from refusal
        self._session = session

    def send(self, lane: Lane, texts: list[str]) -> int:
        """Send one message."""
        if self._session is None or not self._session.stands:
            raise SessionError("GW-NET-05", self._destination, error="no session")
        return self._session.post(lane, texts)

    async def close(self) -> None:
        """Say offline, within two seconds, and let go of every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.end()

    async def _wire(self, host: str, port: int) -> tuple[Wire, str]:
        """Read what is needed, and look whether the name is known: httpx would not tell it from a dead line in time."""
        endpoint = self._endpoint
        authorization = await self._authorization.text(host=host, port=port, limit_s=self._pace.open)
        self._context = None if endpoint.tls is None else await self._judging(endpoint.tls, host, port)
        if authorization and not _CREDENTIAL.fullmatch(authorization):
            raise SessionError("GW-NET-04", host, port=port, error="the credential is empty or no header can carry it")
        try:
            async with asyncio.timeout(self._pace.open):
                await in_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except TimeoutError as error:
            raise SessionError("GW-NET-01", host, port=port, error="the name server does not answer") from error
        except (OSError, UnicodeError) as error:
            raise SessionError("GW-NET-01", host, port=port, error=str(error)) from error
        headers = {"user-agent": f"daycare-gateway/{__version__}", "accept": "application/json"}
        if authorization:
            headers["authorization"] = authorization
        return Wire(host, port, self._context, headers), authorization.partition(" ")[2]

    async def _judging(self, tls: Tls, host: str, port: int) -> ssl.SSLContext:
        try:
            async with asyncio.timeout(self._pace.open):
                return await in_thread(lambda: tls_context(tls, host=host, port=port))
        except TimeoutError as error:
            raise SessionError("GW-NET-03", host, port=port, error="certificates cannot be read in time") from error

    async def _renewed(self, headers: Mapping[str, str]) -> Wire | None:
        """Return how connections are to be made when another clock judges certificates than when the session began."""
        tls, context = self._endpoint.tls, self._context
        if tls is None or context is None or not outdated(context, tls):
            return None
        host, port = host_and_port(self._endpoint.url)
        self._context = await self._judging(tls, host, port)
        return Wire(host, port, self._context, headers)

    def _not_read(self, number: int) -> None:
        if not self.unreadable_answers:
            _log.warning("the platform sends answers that cannot be read", destination=self._destination)
        self.unreadable_answers += number


def _places(url: str, origin: Origin) -> Places:
    own = f"{url}/v1/gateways/{quote(origin.gateway, safe='')}"
    return Places(f"{own}/birth", f"{own}/state", f"{url}/v1/events", f"{url}/v1/events:batch", origin.source)

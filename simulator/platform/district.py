"""One pretended district platform: its application, and its ways in: a line in front, and behind it what speaks the transport.

  mqtt         line -> broker (MQTT 5) <- session of the application
  mqtt-3.1.1   the same, to the broker's older listener; a CONNECT of MQTT 5 is sent away as an old broker would
  mqtts        line -> TLS -> broker (MQTT 5)
  http, https  line -> HTTP server -> application

The gateway connects to the line, wherever it leads, so that every transport meets the same faults. Ways are numbered from
1; each has a line and a conduct of its own, so that one may be cut or silent while another stands. An event that comes over
several is accepted once: there is one application, and one ledger. If a broker, a server or the application ends without
having been told to, the whole platform ends with an error: a silent platform would look like a deaf gateway.
Limits: 4 ways.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from simulator.platform.application import Application, Entrance
from simulator.platform.broker import Broker
from simulator.platform.certificates import server_context
from simulator.platform.conduct import Conduct
from simulator.platform.link import Link
from simulator.platform.mqtt_front import MqttFront
from simulator.platform.mqtt_link import LEVEL_3_1_1, MqttLink

READY_LIMIT_S: Final = 10.0
MAX_WAYS: Final = 4
SPEAKS: Final = ("mqtt", "mqtt-3.1.1", "mqtts", "http", "https")
_TLS: Final = ("mqtts", "https")
_HTTP: Final = ("http", "https")


class Front(Protocol):
    """What brings messages to an application's entrance and answers them."""

    @property
    def ready(self) -> asyncio.Event:
        """Set while the way in is open."""

    async def run(self) -> None:
        """Bring and answer until cancelled."""

    def operations(self) -> Mapping[str, Callable[..., Awaitable[None] | None]]:
        """Return what can be asked of this front alone."""

    def stats(self) -> dict[str, Any]:
        """Return what was counted here, as JSON values."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way in: `number` from 1, where the gateway connects (`port`), and how the application behaves there."""

    number: int
    transport: str
    link: Link
    front: Front
    conduct: Conduct
    tls: ssl.SSLContext | None = None

    @property
    def port(self) -> int:
        """Where the gateway connects: the line's port."""
        return self.link.port

    def stats(self) -> dict[str, Any]:
        """Return everything that is known of this way, as JSON values."""
        return {
            "way": self.number,
            "transport": self.transport,
            "port": self.port,
            **self.front.stats(),
            "conduct": self.conduct.stats(),
            "link": self.link.stats(),
        }


class District:
    """A platform that runs. What has no way in its name is that of the first."""

    def __init__(self, *, destination: str, ways: Sequence[Way], application: Application) -> None:
        self.destination = destination
        self.ways = tuple(ways)
        self.transport = ways[0].transport
        self.link = ways[0].link
        self.front = ways[0].front
        self.conduct = ways[0].conduct
        self.application = application
        self.started = time.time()

    @property
    def port(self) -> int:
        """Where the gateway connects."""
        return self.link.port

    @property
    def broker(self) -> Broker:
        """The broker behind the line."""
        return self._mqtt().broker

    async def restart_broker(self) -> None:
        """Kill the broker, start it again, and wait for the application to be back. Raises BrokerError."""
        await self._mqtt().restart_broker()

    def stats(self) -> dict[str, Any]:
        """Return everything that is known, as JSON values; `ways` has each, what several ways count is added up."""
        ways = [way.stats() for way in self.ways]
        return {
            "destination": self.destination,
            "transport": self.transport,
            "t": time.time(),
            "started": self.started,
            "port": self.port,
            **self.application.stats(),
            "conduct": ways[0]["conduct"],
            "connections": sum(way["link"]["open"] for way in ways),
            "connections_total": sum(way["link"]["total"] for way in ways),
            "link": ways[0]["link"],
            "ways": ways,
        }

    def _mqtt(self) -> MqttFront:
        if not isinstance(self.front, MqttFront):
            raise TypeError(f"a platform that speaks {self.transport} has no broker")
        return self.front


@asynccontextmanager
async def district(
    run: Path,
    *,
    destination: str = "district",
    port: int = 0,
    speaks: str = "mqtt",
    also: Sequence[tuple[str, int]] = (),
    tls_dir: Path | None = None,
    authorization: str = "",
) -> AsyncIterator[District]:
    """Run a platform; its ledger is RUN/platform-DESTINATION.jsonl. Ready when entered, gone when left.

    `also`: more ways in, each what it speaks and its port. `tls_dir` is where the certificates lie or are made (RUN/tls
    without it). `authorization`: the only value of that header that its HTTP ways take; "" takes any.
    Raises ValueError for what does not fit together, BrokerError, LedgerError, CertificateError, or OSError when a port
    is taken.
    """
    asked = [(speaks, port), *also]
    _check(asked, authorization=authorization)
    application = Application(run / f"platform-{destination}.jsonl")
    try:
        async with AsyncExitStack() as parts:
            ways = [
                await _open(
                    parts,
                    application.open_entrance(),
                    word,
                    number,
                    tls_dir or run / "tls",
                    authorization=authorization,
                )
                for word, number in asked
            ]
            platform = District(destination=destination, ways=ways, application=application)
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(way.front.run(), name=f"front-{way.number}") for way in ways]
                running.append(tasks.create_task(application.keep(), name="application-ledger"))
                try:
                    async with asyncio.timeout(READY_LIMIT_S):
                        for way in ways:
                            await way.front.ready.wait()
                    yield platform
                finally:
                    for task in running:
                        task.cancel()
    except BaseExceptionGroup as group:
        raise _only(group) from None
    finally:
        application.close()


def _check(asked: Sequence[tuple[str, int]], *, authorization: str) -> None:
    if len(asked) > MAX_WAYS:
        raise ValueError(f"{len(asked)} ways in: {MAX_WAYS} at most")
    for speaks, _ in asked:
        if speaks not in SPEAKS:
            raise ValueError(f"speaks = {speaks!r}: one of {', '.join(SPEAKS)}")
    if authorization and not any(speaks in _HTTP for speaks, _ in asked):
        raise ValueError(f"authorization: a platform that speaks {asked[0][0]} asks for none")


async def _open(
    parts: AsyncExitStack, entrance: Entrance, speaks: str, port: int, tls_dir: Path, *, authorization: str
) -> Way:
    """Put one way in together; `parts` closes what it is made of."""
    tls = server_context(tls_dir) if speaks in _TLS else None
    front: Front
    if speaks in _HTTP:
        from simulator.platform.http_front import HttpFront

        front = web = await parts.enter_async_context(HttpFront(entrance, authorization=authorization, tls=tls))
        link = Link(web.port, port=port)
    else:
        front = mqtt = await parts.enter_async_context(MqttFront(entrance))
        if speaks == "mqtt-3.1.1":
            link = MqttLink(mqtt.broker.port_v4, port=port, only=LEVEL_3_1_1)
        elif tls is None:
            link = MqttLink(mqtt.broker.port, port=port)
        else:
            # The faults are in the outer line, where everything is encrypted; the inner one only ends the TLS.
            inner = await parts.enter_async_context(MqttLink(mqtt.broker.port, tls=tls))
            link = Link(inner.port, port=port)
    return Way(entrance.way, speaks, await parts.enter_async_context(link), front, entrance.conduct, tls)


def _only(error: BaseException) -> BaseException:
    """Return the one error that a group holds: whoever runs a platform wants its name, not its nesting."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error

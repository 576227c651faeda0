"""One pretended district platform: broker, the line in front of it, and the application behind it.

The gateway connects to the line; the application talks to the broker directly. If the broker or the application ends
without having been told to, the whole platform ends with an error: a silent platform would look like a deaf gateway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from simulator.platform.application import Application
from simulator.platform.broker import Broker, BrokerError
from simulator.platform.link import Link

READY_LIMIT_S: Final = 10.0


class District:
    """A platform that runs. `port` is the line's: that is where the gateway connects."""

    def __init__(self, *, destination: str, broker: Broker, link: Link, application: Application) -> None:
        self.destination = destination
        self.broker = broker
        self.link = link
        self.application = application
        self.conduct = application.conduct
        self.started = time.time()

    @property
    def port(self) -> int:
        """Where the gateway connects, MQTT 5."""
        return self.link.port

    async def restart_broker(self) -> None:
        """Kill the broker, start it again, and wait for the application to be back. Raises BrokerError."""
        await self.broker.restart()
        try:
            async with asyncio.timeout(READY_LIMIT_S):
                await self.application.ready.wait()
        except TimeoutError:
            raise BrokerError(f"the application is not back {READY_LIMIT_S:g} s after the broker's restart") from None

    def stats(self) -> dict[str, Any]:
        """Return everything that is known, as JSON values."""
        link = self.link.stats()
        return {
            "destination": self.destination,
            "t": time.time(),
            "started": self.started,
            "port": self.port,
            **self.application.stats(),
            "connections": link["open"],
            "connections_total": link["total"],
            "link": link,
            "broker": {
                "port": self.broker.port,
                "port_v4": self.broker.port_v4,
                "pid": self.broker.pid,
                "restarts": self.broker.restarts,
                "crashes": self.broker.crashes,
                "last_crash": self.broker.last_crash,
            },
        }


@asynccontextmanager
async def district(run: Path, *, destination: str = "district", port: int = 0) -> AsyncIterator[District]:
    """Run a platform; its ledger is RUN/platform-DESTINATION.jsonl. Ready when entered, gone when left.

    Raises BrokerError, LedgerError, or OSError when `port` is taken.
    """
    async with Broker() as broker, Link(broker.port, port=port) as link:
        application = Application(broker.port, run / f"platform-{destination}.jsonl")
        platform = District(destination=destination, broker=broker, link=link, application=application)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(application.run(), name="application")
                watching = tasks.create_task(broker.watch(), name="broker-watch")
                try:
                    async with asyncio.timeout(READY_LIMIT_S):
                        await application.ready.wait()
                    yield platform
                finally:
                    watching.cancel()
                    running.cancel()
        except BaseExceptionGroup as group:
            raise _only(group) from None
        finally:
            application.close()


def _only(error: BaseException) -> BaseException:
    """Return the one error that a group holds: whoever runs a platform wants its name, not its nesting."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error

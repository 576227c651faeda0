"""The way in over MQTT: a session with the platform's own broker, and one down/ack message for each message that came.

Births and states go to the roster at once, also while the application is stalled: the broker takes them, not it.
Limits: 100,000 messages or 64 MiB wait while the application is stalled or slow (what comes then is forgotten, and the
ledger says so).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn, Self

from simulator.platform.application import Entrance, Message
from simulator.platform.broker import Broker, BrokerError
from simulator.platform.contract import LANES, Address, read_message
from simulator.platform.session import Session, SessionLost

HOST: Final = "127.0.0.1"
FILTERS: Final = ("eldercare/v1/+/+/+/up/#", "eldercare/v1/+/+/+/state")
MAX_WAITING: Final = 100_000
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
BACK_LIMIT_S: Final = 10.0
_EVENTS_A_TURN: Final = 16
_TOPIC: Final = re.compile(
    r"eldercare/v1/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/(state|up/birth|up/alarm|up/event|up/telemetry)"
)
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


class MqttFront:
    """A broker of our own, and the application's session with it. Entered: the broker is up; `run` does the rest."""

    def __init__(self, entrance: Entrance) -> None:
        self.broker = Broker()
        self.ready = asyncio.Event()
        self.sessions = 0
        self.unanswered = 0
        self.strange_topics = 0
        self._entrance = entrance
        self._conduct = entrance.conduct
        self._waiting: deque[tuple[Address, bytes]] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._session: Session | None = None
        entrance.accounts.append(self.stats)

    async def __aenter__(self) -> Self:
        """Start the broker. Raises BrokerError."""
        await self.broker.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Stop the broker."""
        await self.broker.stop()

    async def run(self) -> None:
        """Connect, bring and answer until cancelled. Raises BrokerError when the broker ends by itself."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.broker.watch(), name="broker-watch")
            tasks.create_task(self._stay_connected(), name="application-session")
            tasks.create_task(self._work(), name="application-decisions")

    async def restart_broker(self) -> None:
        """Kill the broker, start it again, and wait for the application to be back. Raises BrokerError."""
        await self.broker.restart()
        try:
            async with asyncio.timeout(BACK_LIMIT_S):
                await self.ready.wait()
        except TimeoutError:
            raise BrokerError(f"the application is not back {BACK_LIMIT_S:g} s after the broker's restart") from None

    def operations(self) -> Mapping[str, Callable[..., Awaitable[None] | None]]:
        """Return what can be asked of this front alone."""
        return {"restart-broker": self.restart_broker}

    def stats(self) -> dict[str, Any]:
        """Return what was counted here, as JSON values."""
        return {
            "waiting": len(self._waiting),
            "unanswered": self.unanswered,
            "strange_topics": self.strange_topics,
            "connected": self._session is not None,
            "sessions": self.sessions,
            "broker": {
                "port": self.broker.port,
                "port_v4": self.broker.port_v4,
                "pid": self.broker.pid,
                "restarts": self.broker.restarts,
                "crashes": self.broker.crashes,
                "last_crash": self.broker.last_crash,
            },
        }

    async def _stay_connected(self) -> NoReturn:
        pause = 0.05
        while True:
            session = Session(HOST, self.broker.port, client_id="district-application", on_message=self._received)
            try:
                await session.open(list(FILTERS))
                self._session, pause = session, 0.05
                self.sessions += 1
                self.ready.set()
                await session.lost.wait()
            except SessionLost:
                pause = min(pause * 2, 1.0)
            finally:
                self._session = None
                self.ready.clear()
                self._entrance.roster.all_lost()
                await session.close()
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - spreads retries, guards nothing

    def _received(self, topic: str, payload: bytes) -> None:
        match = _TOPIC.fullmatch(topic)
        if match is None:
            self.strange_topics += 1
            return
        org, site, gateway, kind = match.groups()
        address = Address(org, site, gateway, kind.removeprefix("up/"))
        if address.lane not in LANES:
            roster = self._entrance.roster
            (roster.state if kind == "state" else roster.birth)(address, _decoded(payload))
            return
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + len(payload) > MAX_WAITING_BYTES:
            self._entrance.forget(_message(address, payload))
            return
        self._waiting.append((address, payload))
        self._waiting_bytes += len(payload)
        self._arrived.set()

    async def _work(self) -> NoReturn:
        done = 0
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            if self._conduct.slow_s:
                await asyncio.sleep(self._conduct.slow_s)
            await self._conduct.released.wait()
            address, payload = self._waiting.popleft()
            self._waiting_bytes -= len(payload)
            message = _message(address, payload)
            self._handle(message)
            done += max(1, len(message.events))
            if done >= _EVENTS_A_TURN:  # the line carries on meanwhile what comes
                done = 0
                await asyncio.sleep(0)

    def _handle(self, message: Message) -> None:
        if self._conduct.forgets():
            self._entrance.forget(message)
        else:
            self._answer(message.address, self._entrance.decide(message))

    def _answer(self, address: Address, acks: list[dict[str, object]]) -> None:
        topic = f"eldercare/v1/{address.org}/{address.site}/{address.gateway}/down/ack"
        payload = _encode({"acks": acks}).encode()
        for _ in range(2 if self._conduct.doubling else 1):
            if self._conduct.mutes() or self._session is None or not self._session.publish(topic, payload):
                self.unanswered += 1


def _message(address: Address, payload: bytes) -> Message:
    return Message(address, *read_message(payload, batch=address.lane == "telemetry"))


def _decoded(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None

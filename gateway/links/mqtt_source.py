"""Another gateway's broker as a source: zigbee2mqtt, ESPHome, Tasmota and the like say there what their devices say.

The broker keeps our session while we are away, so that what is published with QoS 1 comes later; what comes with QoS 0 does
not, and a bridge between the broker and its devices may be dead while the broker lives. So the link hears only while the
broker is connected, every topic is subscribed, and the bridge, if one is configured, has said that it is online; every other
time is a gap. Where the broker refuses a topic the others are heard as well as they can be: it is a problem and a gap until it
is granted. A message is acknowledged when its taker says so: after the commit. One that is not acknowledged comes again on the
next connection, marked as such.
Limits: a connection within 15 s, each subscription within 10 s, asked for again every `ASK_AGAIN_S`; back-off with full jitter,
0.5 s to 5 s (30 s after a refused login); `MOST` unacknowledged messages; the broker is asked to keep our session for a week.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from drivers.protocols import published
from gateway.clock import Clock, Stamp
from gateway.credentials import Credential
from gateway.errors import SessionError
from gateway.links.state import LinkState, StateCallback
from gateway.mqtt_session import Delivery, Endpoint, Inbox, MqttSession, NotSpoken, Version

MOST: Final = 64
KEEP_S: Final = 7 * 86_400
RETRY_MIN_S: Final = 0.5
RETRY_CAP_S: Final = 5.0
REFUSED_CAP_S: Final = 30.0
# A connection that lived for so long was worth making: the back-off starts anew.
WORTH_S: Final = 10.0
ASK_AGAIN_S: Final = 30.0
UNREACHABLE: Final = "GW-MQS-01"
REFUSED: Final = "GW-MQS-02"
NO_RIGHT: Final = "GW-MQS-03"
BRIDGE_OFFLINE: Final = "GW-MQS-04"
_LOGIN: Final = "GW-NET-04"
Acknowledge = Callable[[], None]
"""Tells the broker that a message is safe. On a connection that has ended it does nothing: the message comes again."""
_log = structlog.get_logger("broker")
_random = random.Random()  # noqa: S311 - jitter, not a secret


class MqttSource:
    """The connection to one broker that we listen to. `run` holds it; `on_message` is called in the event loop."""

    def __init__(
        self, *, link_id: str, endpoint: Endpoint, password: Callable[[], str], topics: Sequence[str], bridge: str,
        on_message: Callable[[Delivery, Stamp, Acknowledge], None], on_state: StateCallback, clock: Clock,
        on_anew: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`bridge`: the topic on which the bridge says whether it is online, "" for none. `on_anew`: the broker has kept no
        session of ours, and counts its messages from the beginning.
        """
        self.link_id = link_id
        self.received = self.redelivered = 0
        self._endpoint = endpoint
        self._password = Credential(password, destination=link_id)
        self._topics = tuple(dict.fromkeys([*topics, *([bridge] if bridge else [])]))
        self._bridge = bridge
        self._on_message = on_message
        self._on_state = on_state
        self._on_anew = on_anew
        self._clock = clock
        self._session: MqttSession | None = None
        self._lost: asyncio.Future[SessionError] | None = None
        self._is_subscribed = False
        self._refused: SessionError | None = None
        self._is_bridge_online = False
        self.failed = 0
        self._told: tuple[bool, str | None] | None = None
        self._version: Version = "3.1.1" if endpoint.version == "3.1.1" else "5"

    async def run(self) -> None:
        """Listen until cancelled. Raises only the error of a callback, which is a bug."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                try:
                    problem = await self._live()
                except SessionError as refusal:
                    problem = refusal
                self._tell_down(problem)
            finally:
                await self._close()
            failures = 0 if loop.time() - began >= WORTH_S else failures + 1
            cap = REFUSED_CAP_S if problem.code == _LOGIN else RETRY_CAP_S
            await asyncio.sleep(_random.uniform(RETRY_MIN_S / 2, min(cap, RETRY_MIN_S * 2.0 ** min(failures, 10))))

    async def _live(self) -> SessionError:
        """Connect, subscribe and listen; return why it ended. Raises SessionError where it did not begin."""
        self._lost = asyncio.get_running_loop().create_future()
        self._is_bridge_online = False
        end = self._endpoint
        password = await self._password.text(host=end.host, port=end.port) if end.username else ""
        session = await self._connected(replace(end, password=password))
        if not session.session_present:
            self._on_anew()
        self._refused = None
        missing = await self._subscribed(session, self._topics)
        self._is_subscribed = True
        self._tell_state()
        while missing:
            done, _ = await asyncio.wait({self._lost}, timeout=ASK_AGAIN_S)
            if done:
                break
            missing = await self._subscribed(session, missing)
            self._tell_state()
        return await self._lost

    async def _subscribed(self, session: MqttSession, topics: Sequence[str]) -> list[str]:
        """Subscribe; return the topics that the broker refuses. Raises SessionError for anything else."""
        missing, self._refused = [], None
        for topic in topics:
            try:
                await session.subscribe(topic)
            except SessionError as refusal:
                if not _is_refusal(refusal):
                    raise
                missing.append(topic)
                self._refused = refusal
        return missing

    async def _connected(self, end: Endpoint) -> MqttSession:
        other: Version = "5" if self._version == "3.1.1" else "3.1.1"
        try:
            return await self._opened(end, self._version)
        except NotSpoken:
            if end.version != "auto":
                raise
            session = await self._opened(end, other)
        self._version = other
        return session

    async def _opened(self, end: Endpoint, version: Version) -> MqttSession:
        def lost(error: SessionError) -> None:
            if self._lost is not None and not self._lost.done():
                self._lost.set_result(error)

        def came(delivery: Delivery) -> None:
            self._came(delivery, lambda: session.acknowledge(delivery.number) if delivery.qos else None)

        session = self._session = MqttSession(
            end, will=None, on_message=lambda _topic, _payload: None, on_puback=lambda _mid, _reason: None, on_lost=lost,
            version=version, inbox=Inbox(came, keep_s=KEEP_S, most=MOST),
        )  # fmt: skip
        await session.open()
        return session

    def _came(self, delivery: Delivery, acknowledge: Acknowledge) -> None:
        self.received += 1
        self.redelivered += delivery.again
        if self._bridge and delivery.topic == self._bridge:
            self._is_bridge_online = published.says_online(delivery.payload) is True
            self._tell_state()
        # Before all subscriptions stand: what the broker has kept of an earlier connection comes at once.
        try:
            self._on_message(delivery, self._clock.stamp(), acknowledge)
        except Exception as bug:  # noqa: BLE001 - through paho, which would then read this message for ever and no other
            self.failed += 1
            if self.failed == 1:
                _log.error("a message could not be taken", link=self.link_id, exc_info=bug)
            acknowledge()

    def _tell_state(self) -> None:
        if not self._is_subscribed:
            return
        if self._refused is not None:
            self._tell_down(self._refused)
        elif self._is_bridge_online or not self._bridge:
            self._tell(hearing=True, problem=None, facts={})
        else:
            self._tell(hearing=False, problem=BRIDGE_OFFLINE, facts={"topic": self._bridge})

    def _tell_down(self, why: SessionError) -> None:
        code = UNREACHABLE
        if why.code == _LOGIN:
            code = NO_RIGHT if _is_refusal(why) else REFUSED
        end = self._endpoint
        self._tell(
            hearing=False, problem=code,
            facts={"host": end.host, "port": end.port, "error": str(why.facts.get("error", why.code))},
        )  # fmt: skip

    def _tell(self, *, hearing: bool, problem: str | None, facts: dict[str, Any]) -> None:
        if (hearing, problem) == self._told:
            return
        self._told = (hearing, problem)
        at = self._clock.stamp()
        if not hearing and problem != BRIDGE_OFFLINE and self._session is not None:
            ago_ms = round(1000 * self._session.silent_s)
            at = replace(at, wall_ms=at.wall_ms - ago_ms, mono_ms=at.mono_ms - ago_ms)
        self._on_state(LinkState(self.link_id, "mqtt", hearing=hearing, at=at, problem=problem, facts=facts))

    async def _close(self) -> None:
        self._is_subscribed = False
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _is_refusal(why: SessionError) -> bool:
    """Has the broker refused a subscription, and nothing else?"""
    return "SUBACK reason" in str(why.facts.get("error", ""))

"""A platform over MQTT: the connection, what it is greeted with, and the application's acknowledgements.

What is said stands in `mqtt_speech`, natively or as a profile has it.

With version "auto" MQTT 5 is tried first and 3.1.1 at once afterwards, within the same `open`, where the server refuses
the version, hangs up on CONNECT or answers nonsense; never after a refused login, nor after silence (a line that eats
everything would cost twice the time: for a broker that is silent to MQTT 5 the configuration names "3.1.1"). What worked
is remembered for `REMEMBER_S`, in memory: a restart, or the first connection after that time, begins with 5 again.
Limits: `window` messages in flight at most, or the broker's Receive Maximum when that is lower, less what else of ours
it has not confirmed yet; an acknowledgement message longer than 256 KiB is not read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Final, Literal

import structlog

from gateway.credentials import Credential
from gateway.errors import SessionError
from gateway.events import Lane, Origin
from gateway.mqtt_session import Endpoint, MqttSession, NotSpoken, Version
from gateway.profiles import Profile
from gateway.profiles.profile import Place
from gateway.uplinks.mqtt_speech import Published, parse_acks, refused, speech_of
from gateway.uplinks.uplink import Ack, UplinkEvents

__all__ = ["MqttUplink", "client_id", "parse_acks"]

REMEMBER_S: Final = 3600.0
_WINDOW: Final = 40
_LONGEST: Final = 256 * 1024 * 1024
_PACKET_HEAD: Final = 32  # fixed header, topic length and last level, packet identifier, properties
_UNSENT: Final = 1_000_000  # tokens of messages that were never sent lie beyond every packet identifier
_NO_SUBSCRIBER: Final = 0x10  # MQTT 5.0 section 3.4.2.1
_UNREACHABLE: Final = ("GW-NET-01", "GW-NET-02")
_log = structlog.get_logger("uplink")


def client_id(origin: Origin, path: int = 1) -> str:
    """Return the client id of a path, counted from 1: two connections of one id throw each other out."""
    return f"{origin.org}-{origin.site}-{origin.gateway}" + (f"-{path}" if path > 1 else "")


class MqttUplink:
    """The path of one destination over MQTT."""

    def __init__(
        self, endpoint: Endpoint, origin: Origin, *, destination: str, password: Callable[[], str] | None = None,
        profile: Profile | None = None, parameters: Mapping[str, str] | None = None, finish: Literal["L1", "L2"] = "L2",
    ) -> None:  # fmt: skip
        """`password` is asked anew for each session, and may block; without it the endpoint's own holds for ever.

        With `finish` "L1" an event that the broker took and nobody has subscribed to is not delivered.
        """
        self._endpoint = endpoint
        self._password = Credential(password, destination=destination) if password is not None else None
        self._destination = destination
        self._needs_subscriber = finish == "L1"
        self._speech = speech_of(profile, Place(origin, parameters or {}), destination=destination)
        self._unsent = count(_UNSENT)
        self._is_refused = False
        self._session: MqttSession | None = None
        self._events: UplinkEvents | None = None
        self._epoch = 0
        self._greetings: set[int] = set()
        self._speaks_old_until = 0.0
        self._refused: set[str] = set()
        self.malformed_acks = 0

    @property
    def window(self) -> int:
        """How many messages may be on the wire."""
        if self._session is None:
            return _WINDOW
        return max(0, min(_WINDOW, self._session.receive_maximum - len(self._greetings)))

    @property
    def max_bytes(self) -> int:
        """How long a message may be."""
        session = self._session
        if session is None:
            return _LONGEST
        return max(1, session.maximum_packet - self._speech.longest_topic - _PACKET_HEAD)

    @property
    def max_events(self) -> int:
        """How many events a message may hold."""
        return self._speech.max_events

    @property
    def is_shared(self) -> bool:
        """Alarms go over the one connection."""
        return True

    async def open(self, events: UplinkEvents, *, epoch: int, birth: Mapping[str, object]) -> None:
        """Connect, subscribe to the acknowledgements, publish state and birth.

        The password is read anew: one that was renewed since the last login was refused is used for the next one, and
        one that cannot be read now is the last that could.
        """
        self._epoch = epoch
        self._refused.clear()
        self._is_refused = False
        if self._password is not None:
            end = self._endpoint
            self._endpoint = replace(end, password=await self._password.text(host=end.host, port=end.port))
        self._events = events
        self._session = session = await self._let_in(events)
        try:
            if self._speech.answers:
                await session.subscribe(self._speech.answers)
            greetings = self._speech.greetings(birth, epoch=epoch)
            self._greetings = {_publish(session, one) for one in greetings}
        except BaseException:
            await self.close()
            raise

    async def _let_in(self, events: UplinkEvents) -> MqttSession:
        try:
            return await self._connected(events)
        except SessionError as refusal:
            told = self._password.explained(refusal) if self._password is not None else refusal
            if told is refusal:
                raise
            raise told from refusal

    async def _connected(self, events: UplinkEvents) -> MqttSession:
        """Connect in the version that is configured, or in the first of both that the broker speaks."""
        if self._endpoint.version != "auto":
            return await self._connected_in(self._endpoint.version, events)
        versions: tuple[Version, Version] = ("5", "3.1.1")
        if asyncio.get_running_loop().time() < self._speaks_old_until:
            versions = ("3.1.1", "5")
        try:
            return await self._connected_in(versions[0], events)
        except NotSpoken as first:
            try:
                session = await self._connected_in(versions[1], events)
            except SessionError as second:
                if isinstance(second, NotSpoken) or second.code in _UNREACHABLE:
                    raise first from second
                raise
        version = versions[1]
        old = version == "3.1.1"
        self._speaks_old_until = asyncio.get_running_loop().time() + REMEMBER_S if old else 0.0
        _log.info("the broker speaks another version", destination=self._destination, version=version)
        return session

    async def _connected_in(self, version: Version, events: UplinkEvents) -> MqttSession:
        session = MqttSession(
            self._endpoint,
            will=self._speech.will(self._epoch),
            on_message=lambda topic, payload: self._message(topic, payload, events),
            on_puback=lambda mid, reason: self._confirmed(mid, reason, events),
            on_lost=events.lost,
            version=version,
        )
        await session.open()
        return session

    def announce(self) -> None:
        """Say again that the gateway is there: somebody may have heard otherwise of another connection."""
        state = self._speech.state(epoch=self._epoch, online=True)
        if self._session is not None and state is not None:
            self._greetings.add(_publish(self._session, state))

    def send(self, lane: Lane, texts: list[str]) -> int:
        """Publish one message."""
        if self._session is None:
            raise SessionError("GW-NET-05", self._destination, error="no session")
        message = self._speech.message(lane, texts)
        return self._not_sent(message) if isinstance(message, Ack) else _publish(self._session, message)

    def _not_sent(self, refusal: Ack) -> int:
        """An event that cannot be put into words: it is refused as if the platform had done so, in the next turn."""
        token = next(self._unsent)
        events = self._events
        if events is not None:
            loop = asyncio.get_running_loop()
            loop.call_soon(events.acks, [refusal])
            loop.call_soon(events.sent, token, True)  # noqa: FBT003 - the callback's
        return token

    async def close(self) -> None:
        """Publish offline (a clean DISCONNECT suppresses the will) and disconnect."""
        session, self._session = self._session, None
        if session is None:
            return
        state = self._speech.state(epoch=self._epoch, online=False)
        with contextlib.suppress(SessionError):  # already gone: then the broker publishes the will
            if state is not None:
                _publish(session, state)
        await session.close()

    def _confirmed(self, mid: int, reason: int, events: UplinkEvents) -> None:
        ok = reason < 0x80  # MQTT 5.0 section 2.4: reason codes from 0x80 are failures
        if reason == _NO_SUBSCRIBER and self._needs_subscriber and mid not in self._greetings:
            ok = False  # nobody will tell that it is lost
        if not ok:
            what = "state or birth" if mid in self._greetings else "an event"
            if what not in self._refused:  # once a session
                self._refused.add(what)
                _log.error("the broker refuses what we publish", destination=self._destination, what=what,
                           reason=f"0x{reason:02X}")  # fmt: skip
        self._greetings.discard(mid)
        events.sent(mid, ok)

    def _message(self, _topic: str, payload: bytes, events: UplinkEvents) -> None:
        heard = self._speech.heard(payload)
        if heard.unread:
            if not self.malformed_acks:
                _log.warning("the platform sends acknowledgements that cannot be read", destination=self._destination)
            self.malformed_acks += heard.unread
        if heard.acks:
            events.acks(list(heard.acks))
        if heard.refusal and not self._is_refused:
            self._is_refused = True  # said once
            events.lost(refused(heard.refusal, self._endpoint.host))


def _publish(session: MqttSession, message: Published) -> int:
    return session.publish(message.topic, message.payload, retain=message.retain)

"""The native profile over MQTT: topics, birth, state, and the application's acknowledgements.

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
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import structlog

from gateway.errors import SessionError
from gateway.events import Lane, Origin
from gateway.mqtt_session import Endpoint, MqttSession, NotSpoken, Version, Will
from gateway.uplinks.credentials import secret_text
from gateway.uplinks.uplink import Ack, AckStatus, UplinkEvents

_TOPIC_OF_LANE: Final = {Lane.A: "alarm", Lane.B: "event", Lane.C: "telemetry", Lane.D: "telemetry"}
REMEMBER_S: Final = 3600.0
_WINDOW: Final = 40
_LONGEST: Final = 256 * 1024 * 1024
_PACKET_HEAD: Final = 32  # fixed header, topic length and last level, packet identifier, properties
_MAX_RETRY_AFTER_S: Final = 3600.0
_UNREACHABLE: Final = ("GW-NET-01", "GW-NET-02")
_log = structlog.get_logger("uplink")


def client_id(origin: Origin, path: int = 1) -> str:
    """Return the client id of a path, counted from 1: two connections of one id throw each other out."""
    return f"{origin.org}-{origin.site}-{origin.gateway}" + (f"-{path}" if path > 1 else "")


class MqttUplink:
    """The path of one destination over MQTT."""

    def __init__(
        self, endpoint: Endpoint, origin: Origin, *, destination: str, password: Callable[[], str] | None = None
    ) -> None:
        """`password` is asked anew for each session, and may block; without it the endpoint's own holds for ever."""
        self._endpoint = endpoint
        self._password = password
        self._destination = destination
        self._root = f"eldercare/v1/{origin.org}/{origin.site}/{origin.gateway}"
        self._session: MqttSession | None = None
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
        return _LONGEST if session is None else max(1, session.maximum_packet - len(self._root) - _PACKET_HEAD)

    async def open(self, events: UplinkEvents, *, epoch: int, birth: Mapping[str, object]) -> None:
        """Connect, subscribe to the acknowledgements, publish state and birth.

        The password is read anew: one that was renewed since the last login was refused is used for the next one.
        """
        self._epoch = epoch
        self._refused.clear()
        if self._password is not None:
            end = self._endpoint
            self._endpoint = replace(end, password=await secret_text(self._password, host=end.host, port=end.port))
        self._session = session = await self._connected(events)
        try:
            await session.subscribe(f"{self._root}/down/ack")
            text = json.dumps({"epoch": epoch, **birth}, ensure_ascii=False)
            self._greetings = {
                session.publish(f"{self._root}/state", self._state(online=True), retain=True),
                session.publish(f"{self._root}/up/birth", text.encode()),
            }
        except BaseException:
            await self.close()
            raise

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
            will=Will(f"{self._root}/state", self._state(online=False)),
            on_message=lambda topic, payload: self._message(topic, payload, events),
            on_puback=lambda mid, reason: self._confirmed(mid, reason, events),
            on_lost=events.lost,
            version=version,
        )
        await session.open()
        return session

    def announce(self) -> None:
        """Say again that the gateway is there: somebody may have heard otherwise of another connection."""
        if self._session is not None:
            self._greetings.add(self._session.publish(f"{self._root}/state", self._state(online=True), retain=True))

    def send(self, lane: Lane, texts: list[str]) -> int:
        """Publish one message."""
        if self._session is None:
            raise SessionError("GW-NET-05", self._destination, error="no session")
        topic = _TOPIC_OF_LANE[lane]
        payload = f"[{','.join(texts)}]" if topic == "telemetry" else texts[0]
        return self._session.publish(f"{self._root}/up/{topic}", payload.encode())

    async def close(self) -> None:
        """Publish offline (a clean DISCONNECT suppresses the will) and disconnect."""
        session, self._session = self._session, None
        if session is None:
            return
        with contextlib.suppress(SessionError):  # already gone: then the broker publishes the will
            session.publish(f"{self._root}/state", self._state(online=False), retain=True)
        await session.close()

    def _confirmed(self, mid: int, reason: int, events: UplinkEvents) -> None:
        ok = reason < 0x80  # MQTT 5.0 section 2.4: reason codes from 0x80 are failures
        if not ok:
            what = "state or birth" if mid in self._greetings else "an event"
            if what not in self._refused:  # once a session
                self._refused.add(what)
                _log.error("the broker refuses what we publish", destination=self._destination, what=what,
                           reason=f"0x{reason:02X}")  # fmt: skip
        self._greetings.discard(mid)
        events.sent(mid, ok)

    def _state(self, *, online: bool) -> bytes:
        return json.dumps({"online": online, "epoch": self._epoch}).encode()

    def _message(self, _topic: str, payload: bytes, events: UplinkEvents) -> None:
        acks, bad = parse_acks(payload)
        if bad:
            if not self.malformed_acks:
                _log.warning("the platform sends acknowledgements that cannot be read", destination=self._destination)
            self.malformed_acks += bad
        if acks:
            events.acks(acks)


def parse_acks(payload: bytes) -> tuple[list[Ack], int]:
    """Read a down/ack message; return what could be read and the number of entries that could not."""
    try:
        entries = json.loads(payload)["acks"]
        if not isinstance(entries, list):
            return [], 1
    except (ValueError, KeyError, TypeError, RecursionError):
        return [], 1
    acks, bad = [], 0
    for entry in entries:
        try:
            delay = entry.get("retry_after_ms")
            after = None if delay is None else min(max(0.0, float(delay) / 1000), _MAX_RETRY_AFTER_S)  # NaN gives 0
            acks.append(Ack(str(entry["id"]), AckStatus(entry["status"]), str(entry.get("code") or "")[:200], after))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            bad += 1
    return acks, bad

"""The native profile over MQTT 5: topics, birth, state, and the application's acknowledgements.

Limits: `window` messages in flight at most, or the broker's Receive Maximum when that is lower, less what else of ours
it has not confirmed yet; an acknowledgement message longer than 256 KiB is not read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Final

import structlog

from gateway.errors import SessionError
from gateway.events import Lane, Origin
from gateway.mqtt_session import Endpoint, MqttSession, Will
from gateway.uplinks.uplink import Ack, AckStatus, UplinkEvents

_TOPIC_OF_LANE: Final = {Lane.A: "alarm", Lane.B: "event", Lane.C: "telemetry", Lane.D: "telemetry"}
_WINDOW: Final = 40
_LONGEST: Final = 256 * 1024 * 1024
_PACKET_HEAD: Final = 32  # fixed header, topic length and last level, packet identifier, properties
_MAX_RETRY_AFTER_S: Final = 3600.0
_log = structlog.get_logger("uplink")


class MqttUplink:
    """The path of one destination over MQTT."""

    def __init__(self, endpoint: Endpoint, origin: Origin, *, destination: str) -> None:
        self._endpoint = endpoint
        self._destination = destination
        self._root = f"eldercare/v1/{origin.org}/{origin.site}/{origin.gateway}"
        self._session: MqttSession | None = None
        self._epoch = 0
        self._greetings: set[int] = set()
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
        """Connect, subscribe to the acknowledgements, publish state and birth."""
        self._epoch = epoch
        session = MqttSession(
            self._endpoint,
            will=Will(f"{self._root}/state", self._state(online=False)),
            on_message=lambda topic, payload: self._message(topic, payload, events),
            on_puback=lambda mid, reason: self._confirmed(mid, reason, events),
            on_lost=lambda why: events.lost(SessionError("GW-NET-05", self._endpoint.host, error=why)),
        )
        await session.open()
        self._session = session
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
        if mid in self._greetings:
            self._greetings.discard(mid)
            if not ok:
                _log.error("the broker refuses state or birth", destination=self._destination, reason=f"0x{reason:02X}")
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

"""What is said over MQTT and what comes back: natively, or as a profile has it. `mqtt` keeps the connection.

Pure: no IO. Limits: of a profile's messages the last `MOST_ASKED` are remembered until they are answered; they are
numbered from a random number below 2^31.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol

import structlog

from gateway.errors import SessionError
from gateway.events import Lane, Origin
from gateway.mqtt_session import Will
from gateway.profiles import MappingError, Meaning, Profile
from gateway.profiles.answers import found
from gateway.profiles.mapping import rendered_text
from gateway.profiles.profile import Place
from gateway.uplinks.uplink import STATUSES, Ack, AckStatus, unsaid

MOST_ASKED: Final = 1_000
_FIRST_NUMBERS: Final = 2**31  # Alink takes up to 2^32 - 1: room for as many messages again
_MAX_RETRY_AFTER_S: Final = 3600.0
_TOPIC_OF_LANE: Final = {Lane.A: "alarm", Lane.B: "event", Lane.C: "telemetry", Lane.D: "telemetry"}
_STATUSES: Final = {
    Meaning.OK: AckStatus.ACCEPTED,
    Meaning.DUPLICATE: AckStatus.DUPLICATE,
    Meaning.RETRY: AckStatus.RETRY,
    Meaning.AUTH: AckStatus.RETRY,
    Meaning.POISON: AckStatus.REJECTED,
}
_log = structlog.get_logger("uplink")


@dataclass(frozen=True, slots=True)
class Published:
    """One message: where to, what, and whether the broker keeps it for those who come later."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What a message from the platform says. `refusal`: it does not take our login any more."""

    acks: Sequence[Ack] = ()
    unread: int = 0
    refusal: str = ""


class Speech(Protocol):
    """One way of speaking to a platform over MQTT."""

    @property
    def max_events(self) -> int:
        """How many events a message may hold."""

    @property
    def longest_topic(self) -> int:
        """How many bytes of a packet the topic takes, about."""

    @property
    def answers(self) -> str:
        """The topic filter of the platform's answers; "" where there are none."""

    def will(self, epoch: int) -> Will | None:
        """What the broker says when we vanish."""

    def greetings(self, birth: Mapping[str, object], *, epoch: int) -> list[Published]:
        """What is said at the beginning of a session."""

    def state(self, *, epoch: int, online: bool) -> Published | None:
        """What tells that we are there, or that we go; None where there is nothing."""

    def message(self, lane: Lane, texts: Sequence[str]) -> Published | Ack:
        """Put one message into words; an Ack that refuses its event where that cannot be done."""

    def heard(self, payload: bytes) -> Heard:
        """Read an answer."""


class NativeSpeech:
    """Events as they are (northbound, "Topics and endpoints")."""

    max_events = 100

    def __init__(self, origin: Origin) -> None:
        self._root = f"eldercare/v1/{origin.org}/{origin.site}/{origin.gateway}"
        self.longest_topic = len(self._root)
        self.answers = f"{self._root}/down/ack"

    def will(self, epoch: int) -> Will | None:
        """Offline, retained."""
        gone = self.state(epoch=epoch, online=False)
        return Will(gone.topic, gone.payload)

    def greetings(self, birth: Mapping[str, object], *, epoch: int) -> list[Published]:
        """State and birth."""
        text = json.dumps({"epoch": epoch, **birth}, ensure_ascii=False)
        return [self.state(epoch=epoch, online=True), Published(f"{self._root}/up/birth", text.encode())]

    def state(self, *, epoch: int, online: bool) -> Published:
        """Retained."""
        return Published(f"{self._root}/state", json.dumps({"online": online, "epoch": epoch}).encode(), retain=True)

    def message(self, lane: Lane, texts: Sequence[str]) -> Published | Ack:
        """Alarms and states alone, telemetry together."""
        topic = _TOPIC_OF_LANE[lane]
        payload = f"[{','.join(texts)}]" if topic == "telemetry" else texts[0]
        return Published(f"{self._root}/up/{topic}", payload.encode())

    def heard(self, payload: bytes) -> Heard:
        """Read down/ack."""
        return Heard(*parse_acks(payload))


class ProfileSpeech:
    """Events as a profile says them, one a message. An answer names the message by its number."""

    max_events = 1
    longest_topic = 512

    def __init__(self, profile: Profile, place: Place, *, destination: str) -> None:
        self._profile = profile
        self._place = place
        self._destination = destination
        # Never used again, nor by the process before or by another path at the same broker, which hear the same topic:
        # a late or a strange answer must not confirm another event.
        self._numbers = count(secrets.randbelow(_FIRST_NUMBERS))
        self._asked: dict[str, str] = {}
        self.answers = rendered_text(profile.reply_topic, place.values(), profile.words)

    def will(self, epoch: int) -> Will | None:  # noqa: ARG002 - a profile has none
        """None: such platforms see for themselves who is connected."""
        return None

    def greetings(self, birth: Mapping[str, object], *, epoch: int) -> list[Published]:  # noqa: ARG002 - as above
        """None; what was asked on the connection before is not answered on this one."""
        self._asked.clear()
        return []

    def state(self, *, epoch: int, online: bool) -> Published | None:  # noqa: ARG002 - as above
        """None."""
        return None

    def message(self, lane: Lane, texts: Sequence[str]) -> Published | Ack:  # noqa: ARG002 - the profile goes by types
        """Say an event; one that cannot be said is refused (northbound rule 19)."""
        [text] = texts
        number = str(next(self._numbers))
        try:
            said = self._profile.said(text, self._place, message=number)
            payload = said.text.encode()
            if len(payload) > self._profile.max_bytes:
                raise MappingError(f"{len(payload)} bytes, {self._profile.max_bytes} allowed")
            if "+" in said.to or "#" in said.to or "\0" in said.to:  # MQTT 5.0 section 4.7.1
                raise MappingError(f"not a topic: {said.to}"[:100])
        except Exception as error:  # noqa: BLE001 - whatever one event leads to must not end the delivery of all
            return unsaid(text, error, destination=self._destination)
        if self.answers:
            self._asked[number] = str(json.loads(text)["id"])
            while len(self._asked) > MOST_ASKED:
                del self._asked[next(iter(self._asked))]
        return Published(said.to, payload)

    def heard(self, payload: bytes) -> Heard:
        """Read an answer: its message's number, and its business code."""
        rule = self._profile.rule
        try:
            content = json.loads(payload)
        except (ValueError, RecursionError):
            return Heard(unread=1)
        number = found(content, self._profile.reply_id)
        event_id = self._asked.get(str(number)) if isinstance(number, str | int) else None
        if rule is None or event_id is None:
            return Heard(unread=1)
        decision = rule.decide(content, ())
        if decision.meaning is None:
            return Heard(unread=1)
        del self._asked[str(number)]
        if decision.meaning is Meaning.AUTH:
            return Heard(refusal=decision.code)
        code = "" if decision.meaning is Meaning.OK else decision.code
        return Heard([Ack(event_id, _STATUSES[decision.meaning], code)])


def speech_of(profile: Profile | None, place: Place, *, destination: str) -> Speech:
    """Return how a platform is spoken to."""
    if profile is None or profile.is_native:
        return NativeSpeech(place.origin)
    return ProfileSpeech(profile, place, destination=destination)


def refused(code: str, host: str) -> SessionError:
    """Return why a session ends that the platform's application does not take any more."""
    return SessionError("GW-NET-04", host, error=code)


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
            acks.append(Ack(str(entry["id"]), STATUSES[entry["status"]], str(entry.get("code") or "")[:200], after))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            bad += 1
    return acks, bad

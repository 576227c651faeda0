"""What is said over HTTP and what the answers mean: natively, or as a profile has it. `http_session` carries it.

Pure: no IO. Limits: those of the profile; a message that its words make too long goes in halves, one event that is too long
alone is refused. An answer without a code that can be read is no acceptance, nor is one with results of which none can be
read, or that counts as many failures as there were events.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from gateway.events import Lane, id_and_device
from gateway.profiles import Decision, MappingError, Meaning, Profile
from gateway.profiles.profile import Place, Said
from gateway.uplinks.http_answers import Verdict, read_results, verdict
from gateway.uplinks.http_lines import Answer, Ask
from gateway.uplinks.uplink import Ack, AckStatus, unsaid

_SINGLE: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch+json"
_JSON: Final = "application/json"
_NATIVE_EVENTS: Final = 100
_NATIVE_BYTES: Final = 1024 * 1024
_log = structlog.get_logger("uplink")


@dataclass(frozen=True, slots=True)
class Worded:
    """One event in the words of the platform; `id` and `device` are ours, whatever they are called there."""

    id: str
    device: str
    said: Said


Part = list[Worded]
"""The events of one request."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What an answer says of a request: of it as a whole, and of single events. `code` is the platform's, "" for the status."""

    verdict: Verdict
    acks: Sequence[Ack] = ()
    unread: int = 0
    code: str = ""


class Speech(Protocol):
    """One way of speaking to a platform over HTTP."""

    @property
    def max_events(self) -> int:
        """How many events a request may hold."""

    @property
    def max_bytes(self) -> int:
        """How long a request may be."""

    @property
    def is_announced(self) -> bool:
        """Does a session begin with a word that the platform has to take? Else it begins with a probe of a page."""

    def words(self, texts: Sequence[str]) -> tuple[Part, list[Ack]]:
        """Put events into words; return them, and those that cannot be said as refused."""

    def url(self, lane: Lane, part: Part) -> str:
        """Return where a part goes."""

    def ask(self, lane: Lane, part: Part) -> Ask:
        """Return the request that carries a part."""

    def judge(self, answer: Answer, part: Part) -> Judged:
        """Say what an answer means."""

    def hello(self, birth: dict[str, object], *, epoch: int) -> Ask:
        """Return the request that begins a session."""

    def sign(self, *, epoch: int, online: bool) -> Ask | None:
        """Return the request that tells that we are there, or that we go; None where there is none."""


@dataclass(frozen=True, slots=True)
class Places:
    """The URLs of one gateway at one native platform, and how it signs."""

    birth: str
    state: str
    event: str
    batch: str
    source: str


class NativeSpeech:
    """Events as they are (northbound, "Topics and endpoints")."""

    max_events = _NATIVE_EVENTS
    max_bytes = _NATIVE_BYTES
    is_announced = True

    def __init__(self, places: Places) -> None:
        self._places = places

    def words(self, texts: Sequence[str]) -> tuple[Part, list[Ack]]:
        """Leave them as they are."""
        return [_worded(text) for text in texts], []

    def url(self, lane: Lane, part: Part) -> str:  # noqa: ARG002 - the same for all
        """One for single events, one for batches."""
        return self._places.event if lane in (Lane.A, Lane.B) else self._places.batch

    def ask(self, lane: Lane, part: Part) -> Ask:
        """Alarms and states alone, telemetry together."""
        if lane in (Lane.A, Lane.B):
            return Ask("POST", self._places.event, _SINGLE, part[0].said.text.encode())
        body = f"[{','.join(one.said.text for one in part)}]"
        return Ask("POST", self._places.batch, _BATCH, body.encode())

    def judge(self, answer: Answer, part: Part) -> Judged:
        """The status, and the application's results."""
        found = verdict(answer.status)
        if found is not Verdict.TAKEN:
            return Judged(found)
        acks, unread = read_results(answer.body, {one.id for one in part})
        return Judged(found, acks, unread)

    def hello(self, birth: dict[str, object], *, epoch: int) -> Ask:
        """PUT birth."""
        return _put(self._places.birth, {"epoch": epoch, "source": self._places.source, **birth})

    def sign(self, *, epoch: int, online: bool) -> Ask | None:
        """PUT state."""
        return _put(self._places.state, {"online": online, "epoch": epoch, "source": self._places.source})


class ProfileSpeech:
    """Events as a profile says them, to a platform below `url`."""

    is_announced = False

    def __init__(self, profile: Profile, place: Place, *, url: str, destination: str) -> None:
        self._profile = profile
        self._place = place
        self._url = url
        self._destination = destination

    @property
    def max_events(self) -> int:
        """As the profile says; one where it has no batch."""
        return self._profile.max_events

    @property
    def max_bytes(self) -> int:
        """As the profile says."""
        return self._profile.max_bytes

    def words(self, texts: Sequence[str]) -> tuple[Part, list[Ack]]:
        """Say each; one that cannot be said is refused, and the others go (northbound rule 19)."""
        part: Part = []
        refused: list[Ack] = []
        for text in texts:
            try:
                said = self._profile.said(text, self._place)
                if len(said.text.encode()) > self._profile.max_bytes:
                    raise MappingError(f"{len(said.text.encode())} bytes, {self._profile.max_bytes} allowed")
            except Exception as error:  # noqa: BLE001 - whatever one event leads to must not end the delivery of all
                refused.append(unsaid(text, error, destination=self._destination))
            else:
                part.append(_worded(text, said))
        return part, refused

    def url(self, lane: Lane, part: Part) -> str:
        """As the profile says: of the batch where there is one, else of the event."""
        alone = lane in (Lane.A, Lane.B) or self._profile.batch is None
        return self._url + (part[0].said.to if alone else self._profile.batch_to(self._place))

    def ask(self, lane: Lane, part: Part) -> Ask:
        """Telemetry together where the profile has a batch, everything else alone."""
        if lane in (Lane.A, Lane.B) or self._profile.batch is None:
            to, text = part[0].said.to, part[0].said.text
        else:
            to, text = self._profile.together([one.said for one in part], self._place)
        return Ask("POST", self._url + to, _JSON, text.encode())

    def judge(self, answer: Answer, part: Part) -> Judged:
        """The status first; of a 2xx the business code says what it means (northbound rules 10 and 11)."""
        found = verdict(answer.status)
        rule = self._profile.rule
        if found is not Verdict.TAKEN or rule is None:
            return Judged(found)
        try:
            content = json.loads(answer.body)
        except (ValueError, RecursionError):
            return Judged(found, unread=1)
        names = {one.said.name: one.id for one in part}
        decision = rule.decide(content, names)
        if decision.failed >= len(part) and decision.meaning is Meaning.OK and not decision.results:
            return Judged(Verdict.LATER, (), decision.unread, f"failed: {decision.failed} of {len(part)}")
        if decision.failed:
            _log.warning(
                "a platform took a message and says that some of its events failed, not which",
                destination=self._destination, events=len(part), failed=decision.failed,
            )  # fmt: skip
        return _judged(decision, names)

    def hello(self, birth: dict[str, object], *, epoch: int) -> Ask:  # noqa: ARG002 - a profile has no birth
        """GET the probe."""
        return Ask("GET", self._url + self._profile.probe, _JSON, b"")

    def sign(self, *, epoch: int, online: bool) -> Ask | None:  # noqa: ARG002 - nor a state
        """GET the probe; nobody is told that we go."""
        return self.hello({}, epoch=0) if online else None


def _worded(text: str, said: Said | None = None) -> Worded:
    event_id, device = id_and_device(text)
    return Worded(event_id, device, said or Said(event_id, "", text))


def _judged(decision: Decision, names: dict[str, str]) -> Judged:
    acks = [_ack(names[name], meaning, code) for name, (meaning, code) in decision.results.items()]
    meaning, code = decision.meaning, decision.code
    if meaning is None or acks:  # what single events were told counts; those that were told nothing wait
        return Judged(Verdict.TAKEN, acks, decision.unread, code)
    if meaning in (Meaning.OK, Meaning.DUPLICATE):
        if decision.unread:  # it did say something of single events, which may be that they failed
            return Judged(Verdict.TAKEN, (), decision.unread, code)
        return Judged(Verdict.TAKEN, [_ack(one, meaning, code) for one in names.values()], decision.unread, code)
    verdicts = {
        Meaning.RETRY: Verdict.LATER,
        Meaning.AUTH: Verdict.NO_ENTRY,
        Meaning.POISON: Verdict.REFUSED,
    }
    return Judged(verdicts[meaning], (), decision.unread, code)


def _ack(event_id: str, meaning: Meaning, code: str) -> Ack:
    statuses = {
        Meaning.OK: AckStatus.ACCEPTED,
        Meaning.DUPLICATE: AckStatus.DUPLICATE,
        Meaning.RETRY: AckStatus.RETRY,
        Meaning.AUTH: AckStatus.RETRY,  # of one event among others: it is not the login that is wrong
        Meaning.POISON: AckStatus.REJECTED,
    }
    return Ack(event_id, statuses[meaning], "" if meaning is Meaning.OK else code)


def _put(url: str, content: dict[str, object]) -> Ask:
    return Ask("PUT", url, _JSON, json.dumps(content, ensure_ascii=False).encode())

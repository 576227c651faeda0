"""The district platform's application: it decides on every event and answers each message with one down/ack.

Accepted means in the ledger: the line is handed to the operating system before the answer leaves. In one message the
events are decided in order, and after a `retry` for an event of a device its later events in that message get `retry`
too. An id is accepted once; later arrivals are `duplicate`, also after a restart, for the ledger is read again.
Limits: 10,000 events/s and more when batched; 100,000 messages or 64 MiB wait while it is stalled or slow (what comes
then is forgotten, and the ledger says so); 2,000,000 ids are remembered (then new ones get `retry`, code "full").
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from simulator.platform.conduct import Conduct
from simulator.platform.contract import (
    LANES,
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_MESSAGE_BYTES,
    Address,
    defect,
    noun_of,
    number,
)
from simulator.platform.gateways import Roster
from simulator.platform.ledger import Decision, Ledger, Status, read_ledger
from simulator.platform.session import Session, SessionLost

HOST: Final = "127.0.0.1"
FILTERS: Final = ("eldercare/v1/+/+/+/up/#", "eldercare/v1/+/+/+/state")
MAX_WAITING: Final = 100_000
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
MAX_IDS: Final = 2_000_000
_MESSAGES_A_TURN: Final = 16
_SHOWN: Final = 2_000
_TOPIC: Final = re.compile(
    r"eldercare/v1/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/(state|up/birth|up/alarm|up/event|up/telemetry)"
)
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_SOURCE: Final = re.compile(r"urn:eldercare:([^:]+):([^:]+):([^:]+)")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a gateway, as it came."""

    address: Address
    payload: bytes


class Application:
    """One application over one ledger. `run` it in a task; everything else may be called meanwhile."""

    def __init__(self, port: int, ledger: Path, *, conduct: Conduct | None = None) -> None:
        self._port = port
        self.conduct = conduct or Conduct()
        self.roster = Roster()
        self.ready = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.by_type: dict[str, Counter[str]] = {}
        self.sessions = 0
        self.unanswered = 0
        self.strange_topics = 0
        self._ids: dict[int, int] = {}
        self._last_event: float | None = None
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._session: Session | None = None
        for decision in read_ledger(ledger):
            self._recall(decision)
        self._ledger = Ledger(ledger)

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, decide and answer until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stay_connected(), name="application-session")
            tasks.create_task(self._work(), name="application-decisions")
            tasks.create_task(self._ledger.keep_flushing(), name="application-ledger")

    def close(self) -> None:
        """Flush and close the ledger, after `run`."""
        self._ledger.close()

    async def _stay_connected(self) -> NoReturn:
        pause = 0.05
        while True:
            session = Session(HOST, self._port, client_id="district-application", on_message=self._received)
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
                self.roster.all_lost()
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
            (self.roster.state if kind == "state" else self.roster.birth)(address, _decoded(payload))
            return
        message = Message(address, payload)
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + len(payload) > MAX_WAITING_BYTES:
            self._forget(message)
            return
        self._waiting.append(message)
        self._waiting_bytes += len(payload)
        self._arrived.set()

    async def _work(self) -> NoReturn:
        done = 0
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            if self.conduct.slow_s:
                await asyncio.sleep(self.conduct.slow_s)
            await self.conduct.released.wait()
            message = self._waiting.popleft()
            self._waiting_bytes -= len(message.payload)
            self._handle(message)
            done += 1
            if done % _MESSAGES_A_TURN == 0:
                await asyncio.sleep(0)

    # -- decisions ----------------------------------------------------------------------------------------------

    def _handle(self, message: Message) -> None:
        if self.conduct.forgets():
            self._forget(message)
            return
        events, whole = _events_of(message)
        held: set[str] = set()
        acks = [self._decide(event, whole, address=message.address, held=held) for event in events]
        self._ledger.flush()
        self._answer(message.address, acks)

    def _forget(self, message: Message) -> None:
        for event in _events_of(message)[0]:
            self._note(_line(event, Status.FORGOTTEN, lane=message.address.lane), message.address)

    def _decide(self, event: object, whole: str | None, *, address: Address, held: set[str]) -> dict[str, object]:
        status, code = self._judge(event, whole, address=address, held=held)
        decision = _line(event, status, lane=address.lane, code=code)
        if status is Status.RETRY:
            held.add(decision.device)
        self._note(decision, address)
        ack: dict[str, object] = {"id": decision.id, "status": status.value}
        if code:
            ack["code"] = code
        if status is Status.RETRY and self.conduct.retry_after_ms is not None:
            ack["retry_after_ms"] = self.conduct.retry_after_ms
        return ack

    def _judge(self, event: object, whole: str | None, *, address: Address, held: set[str]) -> tuple[Status, str]:
        """Return the decision and its code. The order of the questions is part of the contract."""
        conduct = self.conduct
        if conduct.refusing:
            return Status.RETRY, "refusing"
        fault = whole or defect(event, address)
        if fault or not isinstance(event, dict):
            return Status.REJECTED, fault or "not-an-object"
        if event["partitionkey"] in held:
            return Status.RETRY, "after-retry"
        known = self._ids.get(_key(event["id"]))
        if known is not None:
            # The same id with another number is another event: somebody minted an id twice.
            given = number(event.get("sequence"))
            return (Status.REJECTED, "id-reused") if known and given and known != given else (Status.DUPLICATE, "")
        if conduct.rejects(event["id"], event["type"]):
            return Status.REJECTED, conduct.reject_code
        if conduct.refuses():
            return Status.RETRY, "busy"
        if len(self._ids) >= MAX_IDS:
            return Status.RETRY, "full"
        return Status.ACCEPTED, ""

    def _note(self, decision: Decision, address: Address) -> None:
        self._ledger.write(decision)
        self._count(decision, address)

    def _count(self, decision: Decision, address: Address) -> None:
        status = decision.status
        self._last_event = decision.t
        self.counts[status.value] += 1
        self.by_type.setdefault(noun_of(decision.type), Counter())[status.value] += 1
        sequence = number(decision.sequence)
        if status is Status.ACCEPTED:
            self._ids[_key(decision.id)] = sequence or 0
        self.roster[address].note(decision, sequence)

    def _recall(self, decision: Decision) -> None:
        match = _SOURCE.fullmatch(str(decision.event.get("source", "")))
        org, site, gateway = match.groups() if match else ("", "", "")
        self._count(decision, Address(org, site, gateway, decision.lane))

    def _answer(self, address: Address, acks: list[dict[str, object]]) -> None:
        topic = f"eldercare/v1/{address.org}/{address.site}/{address.gateway}/down/ack"
        payload = _encode({"acks": acks}).encode()
        for _ in range(2 if self.conduct.doubling else 1):
            if self.conduct.mutes() or self._session is None or not self._session.publish(topic, payload):
                self.unanswered += 1

    # -- what is told -------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return everything that was counted, as JSON values."""
        counts = self.counts
        return {
            **self.roster.stats(),
            "accepted": counts["accepted"],
            "duplicates": counts["duplicate"],
            "retried": counts["retry"],
            "rejected": counts["rejected"],
            "forgotten": counts["forgotten"],
            "by_type": {noun: dict(each) for noun, each in sorted(self.by_type.items())},
            "last_event_age_s": None if self._last_event is None else round(time.time() - self._last_event, 3),
            "waiting": len(self._waiting),
            "unanswered": self.unanswered,
            "strange_topics": self.strange_topics,
            "connected": self._session is not None,
            "sessions": self.sessions,
            "conduct": self.conduct.stats(),
        }


def _events_of(message: Message) -> tuple[Sequence[object], str | None]:
    """Return the events of a message, and what is wrong with the message as a whole."""
    payload, lane = message.payload, message.address.lane
    try:
        content = json.loads(payload, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return [{"malformed": payload[:_SHOWN].decode(errors="replace")}], "not-json"
    if lane != "telemetry":
        return [content], "too-big" if len(payload) > MAX_MESSAGE_BYTES else None
    if not isinstance(content, list):
        return [content], "not-a-batch"
    if not content:
        return [{"malformed": "[]"}], "empty-batch"
    too_big = len(content) > MAX_BATCH_EVENTS or len(payload) > MAX_BATCH_BYTES
    return content, "batch-too-big" if too_big else None


def _line(event: object, status: Status, *, lane: str, code: str = "") -> Decision:
    """Make a ledger line of whatever came; what an event does not say is empty."""
    if not isinstance(event, dict):
        event = {"malformed": json.dumps(event)[:_SHOWN]}
    return Decision(
        t=time.time(),
        id=_said(event, "id"),
        type=_said(event, "type"),
        device=_said(event, "partitionkey"),
        sequence=_said(event, "sequence") or None,
        deliveryseq=_said(event, "deliveryseq") or None,
        streamid=_said(event, "streamid"),
        status=status,
        lane=lane,
        event=event,
        code=code,
    )


def _said(event: dict[str, Any], name: str) -> str:
    value = event.get(name)
    return value if isinstance(value, str) else ""


def _key(event_id: str) -> int:
    return int(event_id.replace("-", ""), 16)


def _decoded(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are not JSON (RFC 8259 section 6)

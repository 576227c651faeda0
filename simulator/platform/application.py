"""The district platform's application: it decides on every event. It knows no transport; the fronts bring and answer.

Each way in has an `Entrance` of its own: there the application may behave badly, while it behaves well at the others.

Accepted means in the ledger: the line is handed to the operating system before `decide` returns, so before any answer
can leave. In one message the events are decided in order, and after a `retry` for an event of a device its later events
in that message get `retry` too. An id is accepted once, whichever way it comes; later arrivals are `duplicate`, also
after a restart, for the ledger is read again.
Limits: 10,000 events/s and more when batched; 2,000,000 ids are remembered (then new ones get `retry`, code "full").
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from simulator.platform.conduct import Conduct
from simulator.platform.contract import Address, defect, noun_of, number, sender_of
from simulator.platform.gateways import Roster
from simulator.platform.ledger import Decision, Ledger, Status, read_ledger

MAX_IDS: Final = 2_000_000
_STREAM: Final = 0xFFFFFFFF
_SHOWN: Final = 2_000


@dataclass(frozen=True, slots=True)
class Message:
    """What came, read: its events, and what is wrong with it as a whole (then each of them is rejected for that)."""

    address: Address
    events: Sequence[object]
    defect: str | None = None


class Entrance:
    """The application as one way in meets it. `way` is its number, from 1, `conduct` how the application behaves there.

    `accounts` is where the front adds what it has counted itself: one place tells everything.
    """

    def __init__(self, application: Application, *, way: int) -> None:
        self.way = way
        self.conduct = Conduct()
        self.roster = application.roster
        self.accounts = application.accounts
        self._application = application

    def decide(self, message: Message) -> list[dict[str, object]]:
        """Decide on each event and return the acknowledgements. OSError (disk full): the platform must not go on."""
        return self._application.decide(message, self)

    def is_poisoned(self, message: Message) -> bool:
        """Does a message hold an event that will never be accepted here?"""
        return any(isinstance(event, dict) and self._application.poisons(event, self) for event in message.events)

    def forget(self, message: Message) -> None:
        """Note what came and was lost: neither stored nor to be answered."""
        self._application.forget(message, self)


class Application:
    """One application over one ledger. `keep` it in a task; the entrances and `stats` may be used meanwhile."""

    def __init__(self, ledger: Path) -> None:
        self.entrances: list[Entrance] = []
        self.roster = Roster()
        self.counts: Counter[str] = Counter()
        self.by_type: dict[str, Counter[str]] = {}
        self.accounts: list[Callable[[], Mapping[str, Any]]] = []
        self._ids: dict[int, int] = {}
        self._last_event: float | None = None
        for decision in read_ledger(ledger):
            self._recall(decision)
        self._ledger = Ledger(ledger)

    async def keep(self) -> None:
        """Flush the ledger until cancelled."""
        await self._ledger.keep_flushing()

    def close(self) -> None:
        """Flush and close the ledger, after `keep`."""
        self._ledger.close()

    def open_entrance(self) -> Entrance:
        """Return the entrance of one more way in."""
        self.entrances.append(Entrance(self, way=len(self.entrances) + 1))
        return self.entrances[-1]

    # -- decisions ----------------------------------------------------------------------------------------------

    def decide(self, message: Message, entrance: Entrance) -> list[dict[str, object]]:
        """Decide on each event and return the acknowledgements. OSError (disk full): the platform must not go on."""
        held: set[str] = set()
        acks = [self._decide(event, message, entrance, held=held) for event in message.events]
        self._ledger.flush()
        return acks

    def forget(self, message: Message, entrance: Entrance) -> None:
        """Note what came and was lost: neither stored nor to be answered."""
        for event in message.events:
            self._note(_line(event, Status.FORGOTTEN, message.address.lane, way=entrance.way), message.address)

    def poisons(self, event: Mapping[str, Any], entrance: Entrance) -> bool:
        """Is this an event that one entrance never accepts? What was accepted before is not."""
        event_id, type_ = _said(event, "id"), _said(event, "type")
        try:
            known = _key(event_id) in self._ids
        except ValueError:
            return False
        return not known and entrance.conduct.poisons(event_id, type_)

    def _decide(self, event: object, message: Message, entrance: Entrance, *, held: set[str]) -> dict[str, object]:
        conduct = entrance.conduct
        status, code = self._judge(event, message, conduct, held=held)
        decision = _line(event, status, message.address.lane, way=entrance.way, code=code)
        if status is Status.RETRY:
            held.add(decision.device)
        self._note(decision, message.address)
        ack: dict[str, object] = {"id": decision.id, "status": status.value}
        if code:
            ack["code"] = code
        if status is Status.RETRY and conduct.retry_after_ms is not None:
            ack["retry_after_ms"] = conduct.retry_after_ms
        return ack

    def _judge(self, event: object, message: Message, conduct: Conduct, *, held: set[str]) -> tuple[Status, str]:
        """Return the decision and its code. The order of the questions is part of the contract."""
        if conduct.refusing:
            return Status.RETRY, "refusing"
        fault = message.defect or defect(event, message.address)
        if fault or not isinstance(event, dict):
            return Status.REJECTED, fault or "not-an-object"
        if event["partitionkey"] in held:
            return Status.RETRY, "after-retry"
        known = self._ids.get(_key(event["id"]))
        if known is not None:
            # The same id with another number is another event: somebody minted an id twice. In another stream it is the same,
            # brought back from a database that had to be replaced.
            given = _place(number(event.get("sequence")), _said(event, "streamid"))
            reused = known and given and known != given and known & _STREAM == given & _STREAM
            return (Status.REJECTED, "id-reused") if reused else (Status.DUPLICATE, "")
        if conduct.poisons(event["id"], event["type"]):
            return Status.REJECTED, "poisoned"
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

    def _count(self, decision: Decision, address: Address | None) -> None:
        status = decision.status
        self._last_event = decision.t
        self.counts[status.value] += 1
        self.by_type.setdefault(noun_of(decision.type), Counter())[status.value] += 1
        sequence = number(decision.sequence)
        if status is Status.ACCEPTED:
            self._ids[_key(decision.id)] = _place(sequence, decision.streamid)
        if address is not None and address.gateway:
            self.roster[address].note(decision, sequence)

    def _recall(self, decision: Decision) -> None:
        self._count(decision, sender_of(decision.event.get("source"), decision.lane))

    # -- what is told -------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return everything that was counted, as JSON values; what several fronts count is added up."""
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
            **_together([account() for account in self.accounts]),
        }


def _together(accounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers are added, and what all must be is not so when one is not; of anything else the first front's stands."""
    found: dict[str, Any] = {}
    for account in accounts:
        for name, value in account.items():
            if name not in found:
                found[name] = value
            elif isinstance(value, bool):
                found[name] = found[name] and value
            elif isinstance(value, int):
                found[name] += value
    return found


def _line(event: object, status: Status, lane: str, *, way: int, code: str = "") -> Decision:
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
        way=way,
    )


def _said(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name)
    return value if isinstance(value, str) else ""


def _place(sequence: int | None, stream: str) -> int:
    """A number and the stream that it is of in one figure; 0 where there is no number."""
    return sequence << 32 | crc32(stream.encode()) if sequence else 0


def _key(event_id: str) -> int:
    return int(event_id.replace("-", ""), 16)

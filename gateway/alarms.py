"""The care lifecycle of an alarm: ACTIVE, ACKED, CLOSED. A pure state machine: no IO, the clock is handed in.

Raising never fails. A repeat press counts up; after an acknowledgement it makes the alarm ACTIVE again. An emergency never
closes by itself: only a person closes it, with a name and a reason. Priority "emergency" is a danger to life, "urgent" is
what somebody must go and see to. Limits: one open alarm for each (device, kind),
and those that an unreadable database gave back late; the last `KEPT_CLOSED` closed ones are remembered; how far an alarm
has come at the platforms is known for its newest event.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final

import structlog

from gateway.clock import Boots, Stamp, iso
from gateway.errors import ControlError
from gateway.events import Event, Origin, encoded, new_event, new_id

KEPT_CLOSED: Final = 200
UNDELIVERED_AFTER_MS: Final = 30_000
_ON_THE_WAY: Final = frozenset({"QUEUED", "SENT"})
MAX_TEXT: Final = 200
# Fewer characters of an id are typed by mistake sooner than meant.
MIN_PREFIX: Final = 8

# In which order people see them: who has fallen first, then who calls, then fire and poison; the rest after these.
_RANKS: Final = {kind: rank for rank, kind in enumerate(("fall", "call", "smoke", "gas", "carbon_monoxide"))}
# A pendant, a radar, fire and poison; whatever else raises an alarm (water, a door that must stay shut) is "urgent".
_EMERGENCIES: Final = frozenset({"call", "fall", "smoke", "gas", "carbon_monoxide"})

_log = structlog.get_logger("alarms")


class AlarmState(StrEnum):
    """Where an alarm stands on the care axis."""

    ACTIVE = "ACTIVE"
    ACKED = "ACKED"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm. `raised` is the stamp of the first press; `doubts` say why it is not verified."""

    id: str
    kind: str
    device: str
    room: str
    bed: str
    raised: Stamp
    state: AlarmState = AlarmState.ACTIVE
    presses: int = 1
    verified: bool = True
    doubts: tuple[str, ...] = ()
    code: str = ""
    channel: str = ""
    acked_by: str = ""
    closed_by: str = ""
    why: str = ""
    last_event: str = ""

    @property
    def priority(self) -> str:
        """ "emergency" or "urgent"."""
        return "emergency" if self.kind in _EMERGENCIES else "urgent"


@dataclass(frozen=True, slots=True)
class Call:
    """A signal that calls for help, judged. `facts` go into the event (counter, number)."""

    kind: str
    device: str
    room: str
    bed: str
    at: Stamp
    code: str = ""
    channel: str = ""
    doubts: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """What an action did: the alarm as it is now, and the event that tells it (None: nothing changed)."""

    alarm: Alarm
    event: Event | None


class AlarmBook:
    """Every open alarm and the last closed ones. `destinations` are the platforms that want alarms."""

    def __init__(self, origin: Origin, destinations: Iterable[str] = ()) -> None:
        self._origin = origin
        self._destinations = tuple(destinations)
        self._open: dict[tuple[str, str], Alarm] = {}
        self._closed: dict[str, Alarm] = {}
        self._by_event: dict[str, str] = {}
        self._delivery: dict[str, dict[str, str]] = {}
        self._told: dict[str, Stamp] = {}

    def load(self, documents: Iterable[str]) -> list[Alarm]:
        """Take the stored alarms back, oldest first, and return those that are open: they are announced again.

        Two of one device and kind are there where `recall` brought the older one back: it goes on standing beside.
        One that cannot be read is logged whole and left out: it must not keep the others from being announced.
        """
        for document in documents:
            try:
                alarm = _parse(document)
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
                _log.error("a stored alarm cannot be read", error=repr(error), document=document)
                continue
            if alarm.state is AlarmState.CLOSED:
                self._remember_closed(alarm)
            else:
                self._take(alarm)
                self._by_event[alarm.last_event] = alarm.id
        return list(self._open.values())

    def recall(self, documents: Iterable[str]) -> list[Alarm]:
        """Take stored alarms that could not be read at the start; return those that are open and were not known.

        An alarm of the same device that was raised since stays, and the older one stands beside it until it is closed.
        """
        newer, ours = self._open, {alarm.id for alarm in (*self._open.values(), *self._closed.values())}
        self._open = {}
        found = [alarm for alarm in self.load(documents) if alarm.id not in ours]
        self._open = {}
        for alarm in (*found, *newer.values()):
            self._take(alarm)
        return found

    def _take(self, alarm: Alarm) -> None:
        """Take an open alarm; presses count for the newest of its device and kind, an older one stands beside it."""
        key = (alarm.device, alarm.kind)
        older = self._open.pop(key, None)
        if older is not None and older.id != alarm.id:
            self._open[older.device, f"{older.kind} {older.id}"] = older
        self._open[key] = alarm

    # -- transitions --------------------------------------------------------------------------------------------

    def raise_alarm(self, call: Call) -> Change:
        """A call for help: a new alarm, or one more press of an open one. Help goes where the device is now."""
        key = (call.device, call.kind)
        before = self._open.get(key)
        if before is None:
            alarm = Alarm(
                id=new_id(), kind=call.kind, device=call.device, room=call.room, bed=call.bed, raised=call.at,
                verified=not call.doubts, doubts=call.doubts, code=call.code, channel=call.channel,
            )  # fmt: skip
        else:
            alarm = replace(
                before, state=AlarmState.ACTIVE, presses=before.presses + 1, acked_by="", room=call.room, bed=call.bed,
                verified=before.verified or not call.doubts, code=call.code, channel=call.channel,
            )  # fmt: skip
        facts = {**call.facts, "code": call.code, "channel": call.channel, "verified": not call.doubts}
        if call.doubts:
            facts["doubts"] = call.doubts
        if before is not None and before.state is AlarmState.ACKED:
            facts["reopened"] = True
        return self._changed(alarm, "alarm.raised", call.at, facts)

    def retell(self, at: Stamp) -> list[Change]:
        """Tell every open alarm once more: the database that held their events is gone. No press is added."""
        return [self._told_again(alarm, at) for alarm in list(self._open.values())]

    def retell_one(self, alarm_id: str, at: Stamp) -> Change | None:
        """Tell once more how an alarm stands, be it open or closed; None for one that is not known."""
        alarm = next((one for one in (*self._open.values(), *self._closed.values()) if one.id == alarm_id), None)
        return None if alarm is None else self._told_again(alarm, at)

    def _told_again(self, alarm: Alarm, at: Stamp) -> Change:
        if alarm.state is AlarmState.CLOSED:
            return self._changed(alarm, "alarm.closed", at, {"by": alarm.closed_by, "why": alarm.why, "retold": True})
        facts: dict[str, object] = {"code": alarm.code, "channel": alarm.channel, "retold": True}
        return self._changed(alarm, "alarm.raised", at, facts)

    def revive(self, event: Event) -> Change | None:
        """Take up an alarm of which nothing is left but its newest event; None where that says that it is over.

        A newer one of its device and kind stays the one that presses count for. Nothing is told: the event was.
        """
        try:
            alarm = _of_event(event, json.loads(event.body)["data"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.error(
                "an alarm cannot be taken up from its event", error=repr(error), id=event.id, document=event.body
            )
            return None
        if alarm.state is AlarmState.CLOSED:
            return None
        newer = self._open.pop((alarm.device, alarm.kind), None)
        self._take(alarm)
        if newer is not None:
            self._take(newer)
        self._by_event[event.id] = alarm.id
        return Change(alarm, None)

    def acknowledge(self, prefix: str, by: str, at: Stamp) -> Change:
        """Somebody has taken notice. Raises ControlError for an unknown, ambiguous or closed alarm."""
        alarm = self._find(prefix)
        if alarm.state is AlarmState.CLOSED:
            raise ControlError("GW-CTL-03", prefix, reason="@refusal.closed")
        if alarm.state is AlarmState.ACKED:
            return Change(alarm, None)
        by = _said(by, "by")
        return self._changed(replace(alarm, state=AlarmState.ACKED, acked_by=by), "alarm.acknowledged", at, {"by": by})

    def close(self, prefix: str, by: str, why: str, *, at: Stamp) -> Change:
        """Somebody was there. Who and why are required. Raises ControlError as `acknowledge` does."""
        alarm = self._find(prefix)
        if alarm.state is AlarmState.CLOSED:
            raise ControlError("GW-CTL-03", prefix, reason="@refusal.closed")
        by, why = _said(by, "by"), _said(why, "why")
        closed = replace(alarm, state=AlarmState.CLOSED, closed_by=by, why=why)
        return self._changed(closed, "alarm.closed", at, {"by": by, "why": why})

    def _changed(self, alarm: Alarm, noun: str, at: Stamp, facts: dict[str, object]) -> Change:
        event_id = new_id()
        # Only the newest counts: a flood of one alarm must not push out those of others.
        self._by_event.pop(alarm.last_event, None)
        alarm = replace(alarm, last_event=event_id)
        data = {
            "kind": alarm.kind, "state": alarm.state.value, "priority": alarm.priority, "presses": alarm.presses,
            "room": alarm.room, "bed": alarm.bed, "test": False, "verified": alarm.verified, **facts,
        }  # fmt: skip
        event = new_event(
            noun, self._origin, device=alarm.device, at=at, data=data, correlation=alarm.id, event_id=event_id
        )
        key = next((key for key, one in self._open.items() if one.id == alarm.id), (alarm.device, alarm.kind))
        if alarm.state is AlarmState.CLOSED:
            self._open.pop(key, None)
            self._remember_closed(alarm)
        else:
            self._open[key] = alarm
        self._by_event[event_id] = alarm.id
        while len(self._by_event) > 4 * KEPT_CLOSED:
            del self._by_event[next(iter(self._by_event))]
        self._delivery[alarm.id] = dict.fromkeys(self._destinations, "QUEUED")
        self._told[alarm.id] = at
        return Change(alarm, event)

    def _remember_closed(self, alarm: Alarm) -> None:
        self._closed[alarm.id] = alarm
        while len(self._closed) > KEPT_CLOSED:
            oldest = next(iter(self._closed))
            del self._closed[oldest]
            self._delivery.pop(oldest, None)
            self._told.pop(oldest, None)

    def _find(self, prefix: str) -> Alarm:
        if len(prefix) < MIN_PREFIX:
            raise ControlError("GW-CTL-03", prefix, reason="@refusal.too-short", least=MIN_PREFIX)
        alarms = [*self._open.values(), *self._closed.values()]
        found = [alarm for alarm in alarms if alarm.id.startswith(prefix)]
        if len(found) > 1:  # a short prefix means the alarm that is still open
            found = [alarm for alarm in found if alarm.state is not AlarmState.CLOSED] or found
        if len(found) != 1:
            reason = "@refusal.ambiguous" if found else "@refusal.unknown-alarm"
            raise ControlError("GW-CTL-03", prefix, reason=reason, count=len(found))
        return found[0]

    def seed_delivery(self, destination: str, pending: Collection[str], *, finish: str) -> None:
        """After a start: the newest event of an open alarm is either among what is still pending, or was taken."""
        for alarm in self._open.values():
            level = "QUEUED" if alarm.last_event in pending else finish
            self._delivery.setdefault(alarm.id, {})[destination] = level

    # -- what others ask ----------------------------------------------------------------------------------------

    def delivered(self, destination: str, event_id: str, level: str) -> None:
        """Note how far the newest event of an alarm has come at a destination."""
        alarm_id = self._by_event.get(event_id)
        if alarm_id is None:
            return
        alarm = next((one for one in self._open.values() if one.id == alarm_id), self._closed.get(alarm_id))
        if alarm is not None and alarm.last_event == event_id:
            self._delivery.setdefault(alarm_id, {})[destination] = level

    def open_of(self, device: str) -> Alarm | None:
        """Return an open alarm of a device."""
        return next((alarm for (owner, _kind), alarm in self._open.items() if owner == device), None)

    def is_active(self, device: str, kind: str, *, verified: bool) -> bool:
        """Has nobody taken its alarm yet? An alarm that is not verified is not what a verified call repeats."""
        alarm = self._open.get((device, kind))
        return alarm is not None and alarm.state is AlarmState.ACTIVE and (alarm.verified or not verified)

    def id_of(self, device: str, kind: str) -> str:
        """Return the id of the alarm that is open of a device and kind; "" where none is."""
        alarm = self._open.get((device, kind))
        return alarm.id if alarm else ""

    @property
    def open_count(self) -> int:
        """How many alarms are open."""
        return len(self._open)

    def _delivery_of(self, alarm: Alarm, now: Stamp) -> dict[str, str]:
        """How far the newest event of an alarm has come; one that has not come far in time is UNDELIVERED."""
        told = self._told.get(alarm.id, alarm.raised)
        late = told.boot != now.boot or now.mono_ms - told.mono_ms > UNDELIVERED_AFTER_MS
        levels = self._delivery.get(alarm.id, {})
        return {name: "UNDELIVERED" if late and level in _ON_THE_WAY else level for name, level in levels.items()}

    def listed(self, now: Stamp, *, with_closed: bool, boots: Boots | None = None) -> list[dict[str, Any]]:
        """Return the alarms for people: falls, calls, the rest, oldest first, with their times as `boots` lets them be known.

        Closed ones stand before, in the order in which they were closed.
        """
        told = (boots or Boots()).told

        def rank(alarm: Alarm) -> tuple[int, int]:
            return _RANKS.get(alarm.kind, len(_RANKS)), told(alarm.raised).wall_ms

        alarms = sorted(self._open.values(), key=rank)
        if with_closed:
            alarms = [*self._closed.values(), *alarms]
        return [
            {
                "id": one.id, "kind": one.kind, "priority": one.priority, "device": one.device, "room": one.room, "bed": one.bed,
                "state": one.state.value, "raised_at": iso(told(one.raised).wall_ms), "clock": told(one.raised).state,
                "presses": one.presses, "verified": one.verified, "doubts": one.doubts, "acked_by": one.acked_by,
                "closed_by": one.closed_by, "why": one.why, "delivery": self._delivery_of(one, now),
            }
            for one in alarms
        ]  # fmt: skip


def document(alarm: Alarm) -> str:
    """Return an alarm as the JSON text that is stored; `asdict`, which copies all that it finds, would take longer than that."""
    whole = {name: getattr(alarm, name) for name in _FIELDS}
    whole["raised"] = {name: getattr(alarm.raised, name) for name in _STAMP_FIELDS}
    return encoded(whole)


_FIELDS: Final = tuple(one.name for one in fields(Alarm))
_STAMP_FIELDS: Final = tuple(one.name for one in fields(Stamp))


def _parse(text: str) -> Alarm:
    """Read what `document` wrote; what a newer gateway added is left out. Raises what bad JSON leads to."""
    known = {name: value for name, value in json.loads(text).items() if name in _FIELDS}
    raised = Stamp(**known.pop("raised"))
    iso(raised.wall_ms)  # must be a time that can be shown
    state = AlarmState(known.pop("state"))
    presses = int(known.pop("presses"))
    return Alarm(**{**known, "doubts": tuple(known["doubts"])}, raised=raised, state=state, presses=presses)


def _of_event(event: Event, data: dict[str, Any]) -> Alarm:
    """Read what `AlarmBook` once told of an alarm. Raises what missing fields lead to."""
    return Alarm(
        id=event.correlation, kind=str(data["kind"]), device=event.device, room=str(data["room"]), bed=str(data["bed"]),
        raised=event.at, state=AlarmState(data["state"]), presses=int(data["presses"]), verified=bool(data["verified"]),
        doubts=tuple(map(str, data.get("doubts", ()))), code=str(data.get("code", "")),
        channel=str(data.get("channel", "")), acked_by=str(data.get("by", "")), last_event=event.id,
    )  # fmt: skip


def _said(text: str, what: str) -> str:
    """Return what a person said, in one line. Half a surrogate pair could not be stored, an escape not be shown."""
    text = "".join(one if one.isprintable() else "?" for one in " ".join(text.split()))
    if not text or len(text) > MAX_TEXT:
        raise ControlError("GW-CTL-03", what, reason="@refusal.length", what=what, most=MAX_TEXT)
    return text

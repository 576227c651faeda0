"""What the control socket can be asked: each operation by its name, answered from the rooms that `app` has built.

Contract with the asking side: a request is a JSON object with `op`; an answer is what the operation returns, or a
ControlError. Nothing here waits for a disk but the reading of the outbox's figures.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import structlog

from drivers.kit import QUANTITIES
from gateway import __version__
from gateway.alarms import AlarmBook, Change
from gateway.clock import Stamp, SystemClock, iso
from gateway.collect import Collector, Hearing
from gateway.collect.listening import Heard
from gateway.control import Operation
from gateway.deliver import Deliverer
from gateway.errors import ControlError
from gateway.events import Origin
from gateway.health import Health
from gateway.outbox import DeadLetters, Letter, Outbox, Replays
from gateway.problems import describe

MAX_PAIRING: Final = 256
METER_ROWS: Final = 200
"""So many rows of a meter an answer, or as many as make up `METER_BYTES`; whoever asks goes on behind the last."""
METER_BYTES: Final = 256 * 1024
MAX_DIALS: Final = 16
MAX_DIAL_DIGITS: Final = 18
_log = structlog.get_logger("control")


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the operations look into. `dropped`: for each radio how many adverts a full queue has cost it; `buses`: figures."""

    origin: Origin
    lang: str
    began: Stamp
    clock: SystemClock
    health: Health
    outbox: Outbox
    alarms: AlarmBook
    collector: Collector
    hearing: Hearing
    deliverers: Sequence[Deliverer]
    dropped: Callable[[], Mapping[str, int]]
    buses: Callable[[], Sequence[Mapping[str, Any]]]


class Operations:
    """The operations on one gateway."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._letters = DeadLetters(rooms.outbox, rooms.clock)
        self._replays = Replays(rooms.outbox)

    def by_name(self) -> Mapping[str, Operation]:
        """Return each operation by the word that asks for it."""
        return {
            "status": self._status,
            "alarms.list": self._alarms,
            "alarms.ack": self._acknowledge,
            "alarms.close": self._close,
            "outbox": self._outbox,
            "outbox.dead": self._dead,
            "outbox.show": self._show,
            "outbox.requeue": self._requeue,
            "outbox.replay": self._replay,
            "meters.list": self._meters,
            "meters.days": self._meter_days,
            "meters.compare": self._compare,
        }

    def listen(self, take: Callable[[Mapping[str, object]], None], request: Mapping[str, Any]) -> Callable[[], None]:
        """Show to `take` everything that is heard; return how to end it.

        `pairing` in the request: the ids of the adverts whose senders are to be shown with their whole address.
        """
        wanted = request.get("pairing")
        ids = [one for one in wanted if isinstance(one, int)] if isinstance(wanted, list) else []

        def show(heard: Heard) -> None:
            take(heard.item())

        return self._rooms.collector.listeners.add(show, pairing=frozenset(ids[:MAX_PAIRING]))

    async def _status(self, _request: Mapping[str, Any]) -> object:
        rooms = self._rooms
        origin, clock = rooms.origin, rooms.clock
        return {
            "gateway": {"id": origin.gateway, "org": origin.org, "site": origin.site},
            "version": __version__,
            "pid": os.getpid(),
            "started_at": iso(rooms.began.wall_ms),
            "uptime_s": round((clock.stamp().mono_ms - rooms.began.mono_ms) / 1000, 1),
            "cpu_s": round(time.process_time(), 3),
            "clock": _clock_of(clock),
            "devices": [desk.status(clock, self._alarm_of(desk.id)) for desk in rooms.collector.desks.values()],
            "links": rooms.hearing.status(rooms.dropped()),
            "buses": rooms.buses(),
            "outbox": {**await rooms.outbox.status(), "requeued": self._letters.requeued},
            "destinations": [one.status() for one in rooms.deliverers],
            "alarms": {"open": rooms.alarms.open_count},
            "problems": self._problems(),
        }

    def _problems(self) -> list[dict[str, object]]:
        now = self._rooms.clock.monotonic()
        problems: list[dict[str, object]] = []
        for one in self._rooms.health.current():
            text = describe(one.code, self._rooms.lang, one.subject, one.facts)
            problems.append({
                "code": one.code, "subject": one.subject, "severity": one.severity, "hidden": one.hidden,
                "since_s": round(now - one.since_monotonic, 1), "title": text.title, "remedy": text.remedy,
                "facts": dict(one.facts),
            })  # fmt: skip
        return problems

    def _alarm_of(self, device: str) -> str | None:
        alarm = self._rooms.alarms.open_of(device)
        return alarm.id if alarm else None

    async def _alarms(self, request: Mapping[str, Any]) -> object:
        rooms = self._rooms
        return rooms.alarms.listed(rooms.clock.stamp(), with_closed=bool(request.get("all")), boots=rooms.outbox.boots)

    async def _acknowledge(self, request: Mapping[str, Any]) -> object:
        change = self._rooms.collector.acknowledge(_text(request, "id"), _text(request, "by"))
        return _attended(change, by=change.alarm.acked_by)

    async def _close(self, request: Mapping[str, Any]) -> object:
        change = self._rooms.collector.close(_text(request, "id"), _text(request, "by"), _text(request, "why"))
        return _attended(change, by=change.alarm.closed_by)

    async def _outbox(self, request: Mapping[str, Any]) -> object:
        outbox = self._rooms.outbox
        answer = await outbox.status()
        answer["requeued"] = self._letters.requeued
        answer["destinations"] = [one.status() for one in self._rooms.deliverers]
        if request.get("dead"):
            answer["dead"] = [_shown(letter) for letter in await self._letters.listed()]
        return answer

    async def _dead(self, request: Mapping[str, Any]) -> object:
        """The newest dead letters, and how many there are in all."""
        destination = self._destination(request)
        names = [destination] if destination else [one.name for one in self._rooms.deliverers]
        counts = {name: (await self._letters.left(name))[0] for name in names}
        return {"counts": counts, "dead": [_shown(one) for one in await self._letters.listed(destination)]}

    async def _show(self, request: Mapping[str, Any]) -> object:
        letters = await self._letters.found(_text(request, "id"), self._destination(request))
        return [{**_shown(one), "event": _content(one.body)} for one in letters]

    async def _requeue(self, request: Mapping[str, Any]) -> object:
        destination = self._destination(request)
        if request.get("all") is True:
            if not destination:
                raise ControlError("GW-CTL-03", reason="@refusal.which-destination")
            upto = request.get("upto")
            upto = upto if isinstance(upto, int) else self._rooms.outbox.sequence
            count, left = await self._letters.requeue_all(destination, upto=upto)
        else:
            count, left, upto = await self._letters.requeue(_text(request, "id"), destination), 0, None
        _log.info("dead letters go again", destination=destination, count=count, left=left)
        for name in [destination] if destination else [one.name for one in self._rooms.deliverers]:
            await self._settle_problems(name)
        return {"requeued": count, "left": left, "upto": upto}

    async def _replay(self, request: Mapping[str, Any]) -> object:
        destination = self._destination(request)
        if not destination:
            raise ControlError("GW-CTL-03", reason="@refusal.which-destination")
        first, last = _number(request, "from"), _number(request, "to")
        deliverer = next(one for one in self._rooms.deliverers if one.name == destination)
        done = await self._replays.replay(destination, first, last, reread=deliverer.reread)
        _log.info("delivered events go again", destination=destination, first=first, last=last, count=done.count)
        return {
            "stream": self._rooms.outbox.streamid, "destination": destination, "from": first, "to": last,
            "replayed": done.count, "missing": done.missing,
        }  # fmt: skip

    async def _meters(self, _request: Mapping[str, Any]) -> object:
        """Return the meters, with what their registers showed last: those never read, and those no longer configured, too."""
        registers, desks = self._rooms.collector.registers, self._rooms.collector.desks
        kept = await self._rooms.outbox.read(lambda reader: reader.metered())
        found = []
        for desk in desks.values():
            number, ms, last = registers.last(desk.id)
            if last or desk.is_meter or desk.id in kept:
                told = {"id": desk.id, "model": desk.model, "room": desk.room, "address": desk.address, "meter": number}
                ratio = format(desk.ratio("energy_active_import"), "f")
                found.append({**told, "t": ms, "registers": _written(last), "ratio": ratio, "gone": False})
        for device in sorted({*kept, *registers.known()} - desks.keys()):
            number, ms, last = registers.last(device)
            told = {"id": device, "model": "", "room": "", "address": "", "meter": number}
            found.append({**told, "t": ms, "registers": _written(last), "ratio": registers.ratio(device), "gone": True})
        return found

    async def _meter_days(self, request: Mapping[str, Any]) -> object:
        """Return what is kept of one meter from one day to another, behind `after`; `next`: what to go on behind, or null."""
        device, first, last = (_text(request, name) for name in ("device", "first", "last"))
        after = _place(request.get("after"))
        rows = await self._rooms.outbox.read(
            lambda reader: reader.meter_days(device, first, last, after=after, limit=METER_ROWS)
        )
        size, count = 0, 0
        while count < len(rows) and (size := size + len(rows[count].doc.encode())) <= METER_BYTES:
            count += 1
        taken = rows[: max(1, count)]
        is_all = len(taken) == len(rows) < METER_ROWS
        return {
            "rows": [{**_dict(one.doc), "day": one.day, "kind": one.kind} for one in taken],
            "next": None if is_all or not taken else [taken[-1].day, taken[-1].kind, taken[-1].n],
        }

    async def _compare(self, request: Mapping[str, Any]) -> object:
        """Store what a person has read off a meter. Raises ControlError."""
        device, by = _text(request, "device"), _text(request, "by")
        written = request.get("registers")
        shown = {}
        for name, value in (written if isinstance(written, dict) else {}).items():
            number = dial_of(str(value))
            if number is None or str(name).partition(" ")[0] not in QUANTITIES:
                raise ControlError("GW-CTL-03", device, reason="@refusal.no-reading", what=f"{name} = {value}"[:80])
            shown[str(name)] = number
        if not shown or len(shown) > MAX_DIALS:
            raise ControlError("GW-CTL-03", device, reason="@refusal.no-reading", what="registers")
        return self._rooms.collector.compare(device, shown, by)

    async def _settle_problems(self, destination: str) -> None:
        """What was told of refusals is over when nobody's letters are left; a new refusal is told anew."""
        count, alarms = await self._letters.left(destination)
        if not count:
            self._rooms.health.off("GW-PLT-02", destination)
        if not alarms:
            self._rooms.health.off("GW-PLT-06", destination)

    def _destination(self, request: Mapping[str, Any]) -> str:
        """Return the destination that is asked for, "" for none. Raises ControlError for one that does not run."""
        name = _text(request, "destination")
        names = [one.name for one in self._rooms.deliverers]
        if name and name not in names:
            raise ControlError("GW-CTL-03", name, reason="@refusal.unknown-destination", names=", ".join(names))
        return name


def dial_of(written: str) -> Decimal | None:
    """Return what a dial shows, None where no dial shows that: before or behind the point it has `MAX_DIAL_DIGITS` at most.

    "1e99999999" is a finite number, too, and written out it is as long as it says.
    """
    try:
        value = Decimal(written)
    except InvalidOperation:
        return None
    return value if value.is_finite() and value >= 0 and abs(value.adjusted()) <= MAX_DIAL_DIGITS else None


def _written(registers: Mapping[str, Decimal]) -> dict[str, str]:
    return {name: format(value, "f") for name, value in registers.items()}


def _place(asked: object) -> tuple[str, str, int]:
    """Return behind which row to go on: none, where nothing was asked. Raises ControlError."""
    match asked:
        case None:
            return "", "", 0
        case [str(day), str(kind), int(n)]:
            return day, kind, n
    raise ControlError("GW-CTL-03", "after", reason="@refusal.no-text", what="after")


def _clock_of(clock: SystemClock) -> dict[str, object]:
    """`time` is the gateway's own; `doubt` says why that is not the machine's: "before", "ahead" or "jumped"."""
    now, trust = clock.stamp(), clock.trust
    return {
        "state": clock.state(), "time": iso(now.wall_ms), "boot": now.boot, "mono_ms": now.mono_ms, "by": trust.by,
        "offset_ms": trust.trusted_ms, "doubt": trust.doubt.value, "steps": clock.steps,
    }  # fmt: skip


def _attended(change: Change, *, by: str) -> dict[str, object]:
    """Tell whoever acknowledged or closed an alarm which one it was, and whether that changed anything."""
    one = change.alarm
    return {
        "id": one.id, "state": one.state.value, "kind": one.kind, "device": one.device, "room": one.room, "bed": one.bed,
        "by": by, "acked_by": one.acked_by, "changed": change.event is not None,
    }  # fmt: skip


def _shown(letter: Letter) -> dict[str, object]:
    """Return a dead letter without its body, with its time as text."""
    return {
        "destination": letter.destination, "sequence": letter.seq, "id": letter.id, "type": letter.noun,
        "device": letter.device, "code": letter.code, "reason": letter.reason, "at": iso(letter.at_ms),
    }  # fmt: skip


def _dict(doc: str) -> dict[str, object]:
    """Return a stored document; {} where it is none."""
    content = _content(doc)
    return content if isinstance(content, dict) else {}


def _content(body: str) -> object:
    """Return an event as it was stored; as text where it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return body


def _number(request: Mapping[str, Any], name: str) -> int:
    """Return a whole number of the request. Raises ControlError for anything else."""
    value = request.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ControlError("GW-CTL-03", name, reason="@refusal.no-number", what=name)
    return value


def _text(request: Mapping[str, Any], name: str) -> str:
    """Return a text of the request, "" where it is left out. Raises ControlError for anything but a text."""
    value = request.get(name, "")
    if not isinstance(value, str):
        raise ControlError("GW-CTL-03", name, reason="@refusal.no-text", what=name)
    return value

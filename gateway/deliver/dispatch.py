"""What one destination has on its way: reads the lanes ahead, fills the window, and finishes what the platform confirmed.

Lane A overtakes everything and has slots of its own; the others share the rest of the window, and of telemetry only
`WIRE_BYTES` are under way, for on one connection an alarm waits behind every byte that was written before it, and
`FRESH_BATCHES` unanswered, for it waits behind whatever the platform has still to work on: one that it works on, one that
is there when it is through. A batch that is unanswered for `FRESH_S` counts no more: it may never be answered. Of one
device one message is on the wire in a lane class, so that a lost or refused message cannot be overtaken by its
successor. The cursor moves in memory and costs no fsync. An alarm that a failing disk does not take goes out all the
same, without a number, and again when it has one. Limits: `Uplink.window` messages in flight, 100 events or
64 KiB a message, acknowledgement within 10 s (A) or 30 s, else the same ids go again: over a new connection if not even
the transport has confirmed them, in smaller batches if it has.

Everything goes over the path in use, alarms over another one as well where that is needed (`alarm_paths`), and what a
lost path carried goes again over the next. A path that leaves something unanswered is passed over, if another one stands.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.deliver.alarm_paths import ALARM_LIMIT_S, COPY_AFTER_S, AlarmPaths
from gateway.deliver.drain import Drain
from gateway.deliver.flights import CLASS_OF_LANE, Flight, Flights
from gateway.deliver.lane_queue import LaneQueue
from gateway.deliver.lanes import Lanes
from gateway.deliver.wording import Wording, fits
from gateway.errors import SessionError
from gateway.events import Event, Lane, Stored
from gateway.health import Health
from gateway.outbox import DeadLetter, Outbox
from gateway.uplinks import Ack, AckStatus
from gateway.uplinks.back_off import jittered
from gateway.uplinks.paths import Paths, PathsEvents, path_of

ACK_LIMIT_S: Final = {Lane.A: ALARM_LIMIT_S, Lane.B: 30.0, Lane.C: 30.0, Lane.D: 30.0}
BATCH_EVENTS: Final = 100
BATCH_BYTES: Final = 63 * 1024  # and the brackets and commas stay below 64 KiB
WIRE_BYTES: Final = 64 * 1024
FRESH_BATCHES: Final = 2
FRESH_S: Final = 1.0
RESERVED_FOR_ALARMS: Final = 8

_log = structlog.get_logger("deliver")
_TELEMETRY: Final = (Lane.C, Lane.D)


class Dispatch:
    """The lanes of one destination, over one session after the other.

    `delivered` gets the event id and the level ("SENT", "L1", "L2"), `accepted` is called for each accepted event.
    """

    def __init__(
        self, name: str, paths: Paths, outbox: Outbox, *, finish: str, clock: Clock, health: Health,
        delivered: Callable[[str, str], None], accepted: Callable[[], None],
    ) -> None:  # fmt: skip
        self._name = name
        self._paths = paths
        self._outbox = outbox
        self._finish = finish
        self._clock = clock
        self._health = health
        self._delivered = delivered
        self._on_accepted = accepted
        self._wake = asyncio.Event()
        self._lost: SessionError | None = None
        self._words = Wording(name, clock, outbox.boots)
        self._words.begin_stream(outbox.streamid)
        self._lanes = Lanes(name, outbox, clock)
        self._flights = Flights()
        self._alarm_paths = AlarmPaths(name, paths, self._flights, words=self._words, clock=clock)
        self._drain = Drain()
        self._unanswered: dict[str, int] = {}
        self._taken_unstored: set[str] = set()
        self.accepted = self.rejected = self.dead_letters = 0
        self.last_accepted: float | None = None

    @property
    def inflight(self) -> int:
        """Messages on the wire."""
        return len(self._flights)

    @property
    def resent(self) -> int:
        """How often an event went out again."""
        return self._words.resent

    def begin(self) -> PathsEvents:
        """A session is about to be made; return what its paths have to call."""
        self._lost = None
        return PathsEvents(acks=self._on_acks, sent=self._on_sent, gone=self._on_gone, lost=self._on_lost)

    def wake(self) -> None:
        """Something was stored, or something changed: look again."""
        if self._words.streamid != self._outbox.streamid:
            self._begin_stream()
        self._wake.set()

    def reread(self) -> None:
        """Confirmations were taken back: read the lanes anew. What is on the wire may go twice, with the same ids."""
        self._lanes.begin_stream()
        self._wake.set()

    def _begin_stream(self) -> None:
        """The database was replaced: no answer to a row of the old one may confirm a row of the new one."""
        self.forget_session()
        self._words.begin_stream(self._outbox.streamid)
        self._unanswered.clear()
        self._lanes.begin_stream()
        self._end("the database was replaced; the platform must learn of the new stream")

    @property
    def alarms_pending(self) -> bool:
        """Is there an alarm that the platform does not have, stored or not?"""
        return self._outbox.alarms_pending(self._name) or bool(self._unstored())

    def _unstored(self) -> list[Event]:
        return [one for one in self._outbox.unstored_alarms(self._name) if one.id not in self._taken_unstored]

    def loaded(self, lane: Lane) -> int:
        """Up to which sequence a lane may be on its way."""
        return self._lanes[lane].read_to

    def forget_session(self) -> None:
        """No connection stands any more: everything that was not confirmed goes again."""
        self._flights.clear()
        self._alarm_paths.clear()
        self._lanes.reset()

    # -- sending ------------------------------------------------------------------------------------------------

    async def deliver(self) -> None:
        """Send what is there and what comes. Raises SessionError when no path stands any more."""
        self._words.begin_session()
        self._drain.begin_session()
        while self._stands():
            self._wake.clear()
            self._expire()
            self._copy_alarms()
            await self._lanes.refill()
            if self._stands() and not self._pump():
                await self._sleep()
        assert self._lost is not None  # noqa: S101 - that is what ended the loop
        raise self._lost

    def _stands(self) -> bool:
        return self._lost is None

    async def _sleep(self) -> None:
        now = self._clock.monotonic()
        stale_at = self._flights.next_stale(_TELEMETRY, since=now - FRESH_S)
        if stale_at is not None:
            stale_at += FRESH_S
        due_at = (self._lanes.next_try(), self._flights.next_time(), self._drain.next_time(now), stale_at)
        times = [due for due in due_at if due is not None]
        times += [one.copy_at for one in self._flights.alarms() if self._alarm_paths.beside(one) is not None]
        wait = max(0.0, min(times) - now) if times else None
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _pump(self) -> bool:
        """Fill the window; True when a lane ran dry although more is stored, so that it is worth reading on at once."""
        for lane in Lane:
            if lane is Lane.D and (self._backlog_waits() or not self._lanes[Lane.C].is_dry):
                continue
            while self._has_room(lane) and self._send_next(lane):
                pass
            if lane is Lane.A:
                self._send_unstored()
        return any(
            self._lanes[lane].is_dry and self._has_room(lane) and self._lanes.may_read(self._lanes[lane])
            for lane in Lane
        )

    def _backlog_waits(self) -> bool:
        pending = self.alarms_pending
        new = pending and any(
            self._words.tried(one) <= 1 for flight in self._flights.alarms() for one in flight.waiting
        )
        return self._drain.waits(self._clock.monotonic(), alarm_pending=pending, alarm_is_new=new)

    def _has_room(self, lane: Lane) -> bool:
        if lane is Lane.A:
            return self._alarm_paths.have_room
        path = self._paths.in_use
        window = self._paths.window(path)
        if self._flights.over(path) >= min(window, max(1, window - RESERVED_FOR_ALARMS)):
            return False
        if lane not in _TELEMETRY:
            return True
        if lane is Lane.D and self._flights.count(lane) >= self._drain.window:
            return False
        since = self._clock.monotonic() - FRESH_S
        if self._flights.fresh(_TELEMETRY, path=path, since=since) >= FRESH_BATCHES:
            return False
        return self._flights.bytes_under_way(_TELEMETRY, path=path) < WIRE_BYTES

    def _send_unstored(self) -> None:
        for event in self._unstored():
            if self._has_room(Lane.A) and not self._flights.is_busy(CLASS_OF_LANE[Lane.A], event.device):
                now_ms = self._clock.stamp().wall_ms
                self._send(
                    Lane.A, [Stored(0, Lane.A, event.id, event.noun, event.device, now_ms, event.at, {}, event.body)]
                )

    def _send_next(self, lane: Lane) -> bool:
        queue = self._lanes[lane]
        rows = queue.take(
            lambda device: self._flights.is_busy(CLASS_OF_LANE[lane], device),
            count=self._batch_events(queue) if lane in _TELEMETRY else 1,
            size=min(BATCH_BYTES, self._paths.max_bytes(self._paths.in_use) - 1024),
        )
        if rows:
            self._send(lane, rows)
        return bool(rows)

    def _send(self, lane: Lane, rows: list[Stored]) -> None:
        now = self._clock.monotonic()
        path = self._alarm_paths.best(rows[0].device) if lane is Lane.A else self._paths.in_use
        most = self._paths.max_bytes(path)
        texts = {row.id: text for row in rows if (text := self._text(row, most=most))}
        rows = [row for row in rows if row.id in texts]
        if not rows:
            return
        try:
            token = self._paths.send(lane, list(texts.values()), over=path)
        except SessionError:
            if not self._paths.standing():
                raise
            self._send(lane, rows)
            return
        flight = Flight(
            lane, now + ACK_LIMIT_S[lane], {row.id: row for row in rows}, tuple(dict.fromkeys(row.device for row in rows)),
            sum(len(text) for text in texts.values()), now + COPY_AFTER_S if lane is Lane.A else math.inf,
        )  # fmt: skip
        self._flights.add(flight, token, path=path, now=now)
        if lane is Lane.A:
            self._delivered(rows[0].id, "SENT")

    def _batch_events(self, queue: LaneQueue) -> int:
        """A batch that was never answered may hold one event that the platform chokes on: halve it each time."""
        most = min(BATCH_EVENTS, self._paths.max_events(self._paths.in_use))
        return max(1, most >> min(7, self._unanswered.get(queue.head_id, 0)))

    def _text(self, row: Stored, *, most: int) -> str:
        """Return a row as it goes out; "" for one that cannot: it is dead-lettered, so that the others go on."""
        try:
            text = self._words.text(row)
        except Exception as error:  # noqa: BLE001 - northbound rule 19: one row must not end the delivery of all
            self._dead(row, "unsendable", repr(error), heard_over=None)
            return ""
        if not fits(text, most):
            self._dead(row, "too-big", f"{len(text.encode())} bytes, {most} allowed", heard_over=None)
            return ""
        return text

    def _copy_alarms(self) -> None:
        """Send alarms that were not answered soon over one more path."""
        now = self._clock.monotonic()
        for flight in self._flights.alarms():
            if flight.copy_at <= now:
                self._alarm_paths.copy(flight)

    # -- what comes back ----------------------------------------------------------------------------------------

    def _on_lost(self, error: SessionError) -> None:
        self._lost = error
        self._wake.set()

    def _end(self, why: str) -> None:
        self._on_lost(SessionError("GW-NET-05", self._name, error=why))

    def _on_gone(self, path: int) -> None:
        """One path is lost, another stands: what the lost one carried alone goes again."""
        for flight in self._flights.drop_path(path):
            self._give_up(flight)
        self._wake.set()

    def _pass_over(self, path: int) -> None:
        """A path is connected and silent: what it alone carries need not wait until its own time is up."""
        if not self._paths.pass_over(path):
            return
        for flight in self._flights.only_over(path):
            if flight.lane is not Lane.A:
                self._give_up(flight)
            elif not flight.minimal:
                self._alarm_paths.copy(flight)
        self._wake.set()

    def _on_sent(self, token: int, ok: bool) -> None:  # noqa: FBT001 - the transport's callback
        self._wake.set()  # there is room again
        flight = self._flights.by_token(token)
        if flight is None:
            return
        path = path_of(token)
        flight.arrived.add(path)
        if not ok:
            self._answer(flight, [Ack(one, AckStatus.RETRY, "transport refused") for one in flight.waiting], path)
        elif self._finish == "L1":
            self._answer(flight, [Ack(one, AckStatus.ACCEPTED) for one in flight.waiting], path)
        elif flight.lane is Lane.A and not flight.minimal:  # that one counts when it is accepted
            for event_id in flight.waiting:
                self._delivered(event_id, "L1")

    def _on_acks(self, acks: list[Ack], path: int) -> None:
        with self._lanes.together():
            for ack in acks:
                flight = self._flights.of_event(ack.id)
                if flight is not None:
                    self._answer(flight, [ack], path)

    def _answer(self, flight: Flight, acks: list[Ack], path: int) -> None:
        for ack in acks:
            is_alarm_to_wait = ack.status is AckStatus.RETRY and flight.lane is Lane.A and ack.id in flight.waiting
            if is_alarm_to_wait and self._goes_elsewhere(flight, ack, path):
                continue
            row = flight.waiting.pop(ack.id, None)
            if row is None:
                # An answer after the time limit: the row waits for its next try. Only good news counts.
                row = next((one for one in flight.again if one.id == ack.id), None)
                if row is None or ack.status is AckStatus.RETRY:
                    continue
            if ack.status is AckStatus.RETRY:
                self._retry_later(flight, row, ack)
            else:
                self._finished(flight, row, ack, path)
        if not flight.waiting and self._flights.is_aloft(flight):
            if flight.lane is Lane.D and not flight.again:
                self._drain.taken(flight.sent_at, self._clock.monotonic())
            self._land(flight)

    def _goes_elsewhere(self, flight: Flight, ack: Ack, heard_over: int) -> bool:
        """An alarm's path asks to wait: obey it, and send the alarm over another one at once if there is one."""
        if flight.minimal:
            return True  # until its time is up
        path = heard_over if heard_over in flight.carriers else flight.first_path
        flight.refused.add(path)
        row = flight.waiting[ack.id]
        self._alarm_paths.asked_to_wait(path, row.device, until=self._clock.monotonic() + self._delay(row, ack))
        self._health.on("GW-PLT-03", self._name, reason=ack.code)
        return self._alarm_paths.copy(flight)

    def _finished(self, flight: Flight, row: Stored, ack: Ack, path: int) -> None:
        if flight.minimal:
            self._minimal_answered(row, ack)
            return
        if ack.status is AckStatus.REJECTED:
            reason = ack.reason or "refused by the platform"
            self._dead(row, ack.code or "rejected", reason, heard_over=None if ack.reason else path)
            return
        self.accepted += bool(row.seq)
        self.last_accepted = self._clock.monotonic()
        self._on_accepted()
        if not self._flights.holds:
            self._health.off("GW-PLT-03", self._name)
        if row.lane is Lane.A:
            self._delivered(row.id, self._finish)
            if row.seq:
                self._outbox.accepted(self._name, row)
        self._done(row)
        if len(flight.carriers) > 1 and not flight.refused and path != flight.first_path:
            self._pass_over(flight.first_path)

    def _minimal_answered(self, row: Stored, ack: Ack) -> None:
        self._words.finished(row.id)
        self._flights.forget(row.id)
        if ack.status is AckStatus.REJECTED:
            _log.error("an alarm is refused in minimal form, too", destination=self._name, id=row.id, code=ack.code)
        else:
            self._delivered(row.id, self._finish)

    def _dead(self, row: Stored, code: str, reason: str, *, heard_over: int | None) -> None:
        """A row does not go again. `heard_over` is the path whose platform refused it."""
        if row.lane is Lane.A:
            self._delivered(row.id, "DEAD_LETTER")
        if not row.seq:  # it will be refused again when it is stored: then it can be kept
            _log.error("an alarm that is not stored was refused", destination=self._name, id=row.id, code=code)
            self._done(row)
            return
        self.rejected += 1
        self.dead_letters += 1
        # Handed over before the row is confirmed: the outbox makes it durable no later.
        self._outbox.dead_letter(DeadLetter(self._name, row, code, reason, self._clock.stamp().wall_ms))
        self._health.on("GW-PLT-02", self._name, reason=code, count=self.rejected)
        self._done(row)
        if row.lane is Lane.A:
            self._health.on("GW-PLT-06", self._name, device=row.device, reason=code)
            self._alarm_paths.send_minimal(row, not_over=heard_over)

    def _done(self, row: Stored) -> None:
        self._words.finished(row.id)
        if row.lane is Lane.A:
            self._alarm_paths.finished(row.device)
        self._unanswered.pop(row.id, None)
        if not self._unanswered:
            self._health.off("GW-PLT-01", self._name)
        self._flights.forget(row.id)
        if not row.seq:
            self._taken_unstored.add(row.id)
            return
        self._taken_unstored.discard(row.id)
        self._lanes.done(row)

    def _retry_later(self, flight: Flight, row: Stored, ack: Ack) -> None:
        """The platform asks to wait: this device waits, in order; the others go on."""
        if flight.lane is Lane.D:
            self._drain.put_off(flight.sent_at, self._clock.monotonic())
        flight.again.append(row)
        until = self._clock.monotonic() + self._delay(row, ack)
        if flight.lane is Lane.A:  # until the first of its paths may be asked again
            until = self._alarm_paths.may_go_at(flight.refused, row.device, default=until)
        self._flights.hold(flight.kind, row.device, until=until)
        self._lanes.park(flight.kind, row.device)
        self._health.on("GW-PLT-03", self._name, reason=ack.code)

    def _delay(self, row: Stored, ack: Ack) -> float:
        return max(jittered(max(1, self._words.tried(row.id)), alarm=row.lane is Lane.A), ack.retry_after_s or 0.0)

    def _land(self, flight: Flight) -> None:
        """Every row of a message is answered or given up: let its devices go on."""
        free = self._flights.land(flight)
        self._lanes.put_back(flight.lane, flight.again)
        for device in reversed(free):  # each goes to the front: the oldest row last
            self._release(flight.kind, device)
        self._wake.set()

    def _give_up(self, flight: Flight) -> None:
        """What was not answered goes again."""
        if flight.minimal:
            [row] = flight.waiting.values()
            self._flights.land(flight)
            self._alarm_paths.send_minimal(row, not_over=next(iter(flight.barred), None))
            return
        flight.again.extend(flight.waiting.values())
        flight.waiting.clear()
        self._land(flight)

    def _release(self, kind: str, device: str) -> None:
        self._flights.release(kind, device)
        self._lanes.release(kind, device)

    def _expire(self) -> None:
        now = self._clock.monotonic()
        for flight in self._flights.overdue(now):
            if not self._flights.is_aloft(flight):
                continue  # its path was given up a moment ago
            limit_s = ACK_LIMIT_S[flight.lane]
            dead = flight.dead_paths(now - limit_s)
            first = flight.first_path
            if not flight.minimal:
                self._health.on("GW-PLT-01", self._name, pending=len(flight.waiting))
            for event_id in flight.waiting:
                self._unanswered[event_id] = self._unanswered.get(event_id, 0) + 1
            self._give_up(flight)
            for path in dead:
                # Not the application is slow, the line is dead: the keep-alive would need a minute to see it.
                self._paths.fail(path, f"no confirmation of a message within {limit_s:g} s")
            if not dead and first not in flight.refused:
                self._pass_over(first)
        for key in self._flights.ended_holds(now):
            self._release(*key)

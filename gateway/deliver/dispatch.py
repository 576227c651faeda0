"""What one destination has on its way: reads the lanes ahead, fills the window, and finishes what the platform confirmed.

Lane A overtakes everything and has slots of its own; the others share the rest of the window, and of telemetry only
`WIRE_BYTES` are under way, for on one connection an alarm waits behind every byte that was written before it. Of one
device one message is on the wire in a lane class, so that a lost or refused message cannot be overtaken by its
successor. The cursor moves in memory and costs no fsync. An alarm that a failing disk does not take goes out all the
same, without a number, and again when it has one. Limits: `Uplink.window` messages in flight, 100 events or
64 KiB a message, acknowledgement within 10 s (A) or 30 s, else the same ids go again: over a new connection if not even
the transport has confirmed them, in smaller batches if it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.deliver.back_off import jittered
from gateway.deliver.flights import CLASS_OF_LANE, Flight, Flights
from gateway.deliver.lane_queue import LaneQueue
from gateway.errors import SessionError, StoreError
from gateway.events import Event, Lane, Sending, Stored, sending_text
from gateway.health import Health
from gateway.outbox import DeadLetter, Outbox
from gateway.uplinks import Ack, AckStatus, Uplink, UplinkEvents

ACK_LIMIT_S: Final = {Lane.A: 10.0, Lane.B: 30.0, Lane.C: 30.0, Lane.D: 30.0}
BATCH_EVENTS: Final = 100
BATCH_BYTES: Final = 63 * 1024  # and the brackets and commas stay below 64 KiB
WIRE_BYTES: Final = 64 * 1024
FETCH_ROWS: Final = 1_000
UNREADABLE_S: Final = 1.0
RESERVED_FOR_ALARMS: Final = 8
BUFFERED_AFTER_MS: Final = 5_000
HISTORIC_AFTER_MS: Final = 600_000

_log = structlog.get_logger("deliver")
_TELEMETRY: Final = (Lane.C, Lane.D)
# A last, right before sending: what was stored while the disk was read for the others must not wait for them.
_REFILL_ORDER: Final = (Lane.B, Lane.C, Lane.D, Lane.A)


class Dispatch:
    """The lanes of one destination, over one connection after the other.

    `delivered` gets the event id and the level ("SENT", "L1", "L2"), `accepted` is called for each accepted event.
    """

    def __init__(
        self, name: str, uplink: Uplink, outbox: Outbox, *, finish: str, clock: Clock, health: Health,
        delivered: Callable[[str, str], None], accepted: Callable[[], None],
    ) -> None:  # fmt: skip
        self._name = name
        self._uplink = uplink
        self._outbox = outbox
        self._finish = finish
        self._clock = clock
        self._health = health
        self._delivered = delivered
        self._on_accepted = accepted
        self._wake = asyncio.Event()
        self._lost: SessionError | None = None
        self._session_began_ms = 0
        self._stream = outbox.streamid
        self._queues = {lane: self._queue(lane) for lane in Lane}
        self._flights = Flights()
        self._attempts: dict[str, int] = {}
        self._unanswered: dict[str, int] = {}
        self._unreadable: dict[Lane, float] = {}
        self._taken_unstored: set[str] = set()
        self.accepted = self.rejected = self.resent = self.dead_letters = 0
        self.last_accepted: float | None = None

    def _queue(self, lane: Lane) -> LaneQueue:
        cursor, ahead = self._outbox.cursor(self._name, lane)
        return LaneQueue(lane, self._name, cursor=cursor, ahead=ahead)

    @property
    def inflight(self) -> int:
        """Messages on the wire."""
        return len(self._flights)

    def begin(self) -> UplinkEvents:
        """A connection is about to be made; return what its transport has to call."""
        self._lost = None
        return UplinkEvents(acks=self._on_acks, sent=self._on_sent, lost=self._on_lost)

    def wake(self) -> None:
        """Something was stored, or something changed: look again."""
        if self._stream != self._outbox.streamid:
            self._begin_stream()
        self._wake.set()

    def _begin_stream(self) -> None:
        """The database was replaced: no answer to a row of the old one may confirm a row of the new one."""
        self._stream = self._outbox.streamid
        self.forget_session()
        self._attempts.clear()
        self._unanswered.clear()
        self._queues = {lane: self._queue(lane) for lane in Lane}
        self._end("the database was replaced; the platform must learn of the new stream")

    @property
    def alarms_pending(self) -> bool:
        """Is there an alarm that the platform does not have, stored or not?"""
        return self._outbox.alarms_pending(self._name) or bool(self._unstored())

    def _unstored(self) -> list[Event]:
        return [one for one in self._outbox.unstored_alarms(self._name) if one.id not in self._taken_unstored]

    def loaded(self, lane: Lane) -> int:
        """Up to which sequence a lane may be on its way."""
        return self._queues[lane].read_to

    def forget_session(self) -> None:
        """The connection is gone: everything that was not confirmed goes again."""
        self._flights.clear()
        for queue in self._queues.values():
            queue.reset()

    # -- sending ------------------------------------------------------------------------------------------------

    async def deliver(self) -> None:
        """Send what is there and what comes. Raises SessionError when the connection is lost."""
        self._session_began_ms = self._clock.stamp().mono_ms
        while self._stands():
            self._wake.clear()
            self._expire()
            for lane in _REFILL_ORDER:
                await self._refill(self._queues[lane])
            if self._stands() and not self._pump():
                await self._sleep()
        assert self._lost is not None  # noqa: S101 - that is what ended the loop
        raise self._lost

    def _stands(self) -> bool:
        return self._lost is None

    async def _sleep(self) -> None:
        now = self._clock.monotonic()
        times = [due for due in self._unreadable.values() if due > now]
        due = self._flights.next_time()
        if due is not None:
            times.append(due)
        wait = max(0.0, min(times) - now) if times else None
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _may_read(self, queue: LaneQueue) -> bool:
        due = self._unreadable.get(queue.lane, 0.0) <= self._clock.monotonic()
        return due and queue.room > 0 and queue.loaded_to < self._outbox.last(queue.lane)

    async def _refill(self, queue: LaneQueue) -> None:
        if not queue.wants_more or not self._may_read(queue):
            return
        # Before the await: a row that is stored meanwhile must not count as read.
        after, last = queue.loaded_to, self._outbox.last(queue.lane)
        try:
            rows = await self._outbox.fetch(queue.lane, after, min(queue.room, FETCH_ROWS))
        except StoreError as error:
            if queue.lane not in self._unreadable:
                _log.error("a lane cannot be read", destination=self._name, lane=queue.lane.name, error=str(error))
            self._unreadable[queue.lane] = self._clock.monotonic() + UNREADABLE_S
            return
        self._unreadable.pop(queue.lane, None)
        if queue.loaded_to != after or queue is not self._queues[queue.lane]:
            return  # a device was released, or the stream replaced: reading begins again, elsewhere
        before = queue.cursor
        if rows:
            queue.load(rows)
        else:  # the lane's last row has left the database already
            queue.exhausted(last)
        if queue.cursor != before:
            self._outbox.confirm(self._name, queue.lane, seq=queue.cursor, ahead=queue.ahead, done=0)

    def _pump(self) -> bool:
        """Fill the window; True when a lane ran dry although more is stored, so that it is worth reading on at once."""
        for lane in Lane:
            if lane is Lane.D and (self.alarms_pending or not self._queues[Lane.C].is_dry):
                continue
            while self._has_room(lane) and self._send_next(lane):
                pass
            if lane is Lane.A:
                self._send_unstored()
        return any(
            queue.is_dry and self._has_room(queue.lane) and self._may_read(queue) for queue in self._queues.values()
        )

    def _has_room(self, lane: Lane) -> bool:
        window = self._uplink.window
        if lane is not Lane.A:
            window = min(window, max(1, window - RESERVED_FOR_ALARMS))
        if len(self._flights) >= window:
            return False
        return lane not in _TELEMETRY or self._flights.bytes_under_way(_TELEMETRY) < WIRE_BYTES

    def _send_unstored(self) -> None:
        for event in self._unstored():
            if self._has_room(Lane.A) and not self._flights.is_busy(CLASS_OF_LANE[Lane.A], event.device):
                now_ms = self._clock.stamp().wall_ms
                self._send(
                    Lane.A, [Stored(0, Lane.A, event.id, event.noun, event.device, now_ms, event.at, {}, event.body)]
                )

    def _send_next(self, lane: Lane) -> bool:
        queue = self._queues[lane]
        rows = queue.take(
            lambda device: self._flights.is_busy(CLASS_OF_LANE[lane], device),
            count=self._batch_events(queue) if lane in _TELEMETRY else 1,
            size=min(BATCH_BYTES, self._uplink.max_bytes - 1024),
        )
        if rows:
            self._send(lane, rows)
        return bool(rows)

    def _send(self, lane: Lane, rows: list[Stored]) -> None:
        most = self._uplink.max_bytes
        texts = {row.id: text for row in rows if (text := self._text(row, most=most))}
        rows = [row for row in rows if row.id in texts]
        if not rows:
            return
        token = self._uplink.send(lane, list(texts.values()))
        self._flights.add(
            Flight(
                token, lane, self._clock.monotonic() + ACK_LIMIT_S[lane], {row.id: row for row in rows},
                tuple(dict.fromkeys(row.device for row in rows)), sum(len(text) for text in texts.values()),
            )
        )  # fmt: skip
        if lane is Lane.A:
            self._delivered(rows[0].id, "SENT")

    def _batch_events(self, queue: LaneQueue) -> int:
        """A batch that was never answered may hold one event that the platform chokes on: halve it each time."""
        return max(1, BATCH_EVENTS >> min(7, self._unanswered.get(queue.head_id, 0)))

    def _text(self, row: Stored, *, most: int) -> str:
        """Return a row as it goes out; "" for one that cannot: it is dead-lettered, so that the others go on."""
        now = self._clock.stamp()
        age_ms = max(0, now.mono_ms - row.at.mono_ms if row.at.boot == now.boot else now.wall_ms - row.at.wall_ms)
        attempt = self._attempts[row.id] = self._attempts.get(row.id, 0) + 1
        if attempt > 1:
            self.resent += 1
        buffered = age_ms > BUFFERED_AFTER_MS or row.at.boot != now.boot or row.at.mono_ms < self._session_began_ms
        historic = row.lane is Lane.A and age_ms > HISTORIC_AFTER_MS
        how = Sending(self._name, self._stream, age_ms, attempt, buffered=buffered, historic=historic)
        try:
            text = sending_text(row, how)
        except Exception as error:  # noqa: BLE001 - northbound rule 19: one row must not end the delivery of all
            self._dead(row, "unsendable", repr(error))
            return ""
        if len(text) * 4 > most and len(text.encode()) > most - 2:  # the brackets of a batch
            self._dead(row, "too-big", f"{len(text.encode())} bytes, {most} allowed")
            return ""
        return text

    # -- what comes back ----------------------------------------------------------------------------------------

    def _on_lost(self, error: SessionError) -> None:
        self._lost = error
        self._wake.set()

    def _end(self, why: str) -> None:
        self._on_lost(SessionError("GW-NET-05", self._name, error=why))

    def _on_sent(self, token: int, ok: bool) -> None:  # noqa: FBT001 - the transport's callback
        self._wake.set()  # there is room again
        flight = self._flights.by_token(token)
        if flight is None:
            return
        flight.arrived = True
        if not ok:
            self._answer(flight, [Ack(one, AckStatus.RETRY, "transport refused") for one in flight.waiting])
        elif self._finish == "L1":
            self._answer(flight, [Ack(one, AckStatus.ACCEPTED) for one in flight.waiting])
        elif flight.lane is Lane.A:
            for event_id in flight.waiting:
                self._delivered(event_id, "L1")

    def _on_acks(self, acks: list[Ack]) -> None:
        for ack in acks:
            flight = self._flights.of_event(ack.id)
            if flight is not None:
                self._answer(flight, [ack])

    def _answer(self, flight: Flight, acks: list[Ack]) -> None:
        for ack in acks:
            row = flight.waiting.pop(ack.id, None)
            if row is None:
                # An answer after the time limit: the row waits for its next try. Only good news counts.
                row = next((one for one in flight.again if one.id == ack.id), None)
                if row is None or ack.status is AckStatus.RETRY:
                    continue
            if ack.status is AckStatus.RETRY:
                self._retry_later(flight, row, ack)
            else:
                self._finished(row, ack)
        if not flight.waiting and self._flights.is_aloft(flight):
            self._land(flight)

    def _finished(self, row: Stored, ack: Ack) -> None:
        if ack.status is AckStatus.REJECTED:
            self._dead(row, ack.code or "rejected", "refused by the platform")
            return
        self.accepted += bool(row.seq)
        self.last_accepted = self._clock.monotonic()
        self._on_accepted()
        if not self._flights.holds:
            self._health.off("GW-PLT-03", self._name)
        if row.lane is Lane.A:
            self._delivered(row.id, self._finish)
        self._done(row)

    def _dead(self, row: Stored, code: str, reason: str) -> None:
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

    def _done(self, row: Stored) -> None:
        self._attempts.pop(row.id, None)
        self._unanswered.pop(row.id, None)
        if not self._unanswered:
            self._health.off("GW-PLT-01", self._name)
        self._flights.forget(row.id)
        if not row.seq:
            self._taken_unstored.add(row.id)
            return
        self._taken_unstored.discard(row.id)
        queue = self._queues[row.lane]
        if queue.done(row.seq):
            self._outbox.confirm(self._name, row.lane, seq=queue.cursor, ahead=queue.ahead, done=1)

    def _retry_later(self, flight: Flight, row: Stored, ack: Ack) -> None:
        """The platform asks to wait: this device waits, in order; the others go on."""
        flight.again.append(row)
        delay = jittered(self._attempts.get(row.id, 1), alarm=flight.lane is Lane.A)
        until = self._clock.monotonic() + max(delay, ack.retry_after_s or 0.0)
        self._flights.hold(flight.kind, row.device, until=until)
        for queue in self._of_class(flight.kind):
            queue.park(row.device)
        self._health.on("GW-PLT-03", self._name, reason=ack.code)

    def _land(self, flight: Flight) -> None:
        """Every row of a message is answered or given up: let its devices go on."""
        free = self._flights.land(flight)
        self._queues[flight.lane].put_back(row for row in flight.again if row.seq)
        for device in reversed(free):  # each goes to the front: the oldest row last
            self._release(flight.kind, device)
        self._wake.set()

    def _release(self, kind: str, device: str) -> None:
        self._flights.release(kind, device)
        for queue in self._of_class(kind):
            queue.release(device)

    def _of_class(self, kind: str) -> list[LaneQueue]:
        return [queue for lane, queue in self._queues.items() if CLASS_OF_LANE[lane] == kind]

    def _expire(self) -> None:
        now = self._clock.monotonic()
        for flight in self._flights.overdue(now):
            self._health.on("GW-PLT-01", self._name, pending=len(flight.waiting))
            if not flight.arrived:
                # Not the application is slow, the line is dead: the keep-alive would need a minute to see it.
                self._end(f"no confirmation of a message within {ACK_LIMIT_S[flight.lane]:g} s")
            for event_id in flight.waiting:
                self._unanswered[event_id] = self._unanswered.get(event_id, 0) + 1
            flight.again.extend(flight.waiting.values())
            flight.waiting.clear()
            self._land(flight)
        for key in self._flights.ended_holds(now):
            self._release(*key)

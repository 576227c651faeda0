"""One destination: connects, sends by lane, and finishes a row only when the platform confirmed it at the agreed level.

Lane A overtakes everything and has slots of its own; the others share the rest of the window. Of one device one
message is on the wire in a lane class, so that a lost or refused message cannot be overtaken by its successor. The cursor
moves in memory and costs no fsync. Limits: `Uplink.window` messages in flight, 100 events or 64 KiB a message,
acknowledgement within 10 s (A) or 30 s, else the same ids go again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from gateway.clock import Clock
from gateway.deliver.lane_queue import LaneQueue
from gateway.errors import SessionError
from gateway.events import Lane, Sending, Stored, sending_text
from gateway.health import Health
from gateway.outbox import DeadLetter, Outbox
from gateway.uplinks import Ack, AckStatus, Uplink, UplinkEvents

ACK_LIMIT_S: Final = {Lane.A: 10.0, Lane.B: 30.0, Lane.C: 30.0, Lane.D: 30.0}
BATCH_EVENTS: Final = 100
BATCH_BYTES: Final = 63 * 1024  # and the brackets and commas stay below 64 KiB
RESERVED_FOR_ALARMS: Final = 8
BACKOFF_CAP_S: Final = 300.0
BACKOFF_CAP_ALARM_S: Final = 5.0
LIVE_LIMIT: Final = 500
BUFFERED_AFTER_MS: Final = 5_000
HISTORIC_AFTER_MS: Final = 600_000

_log = structlog.get_logger("deliver")
_CLASS_OF_LANE: Final = {Lane.A: "A", Lane.B: "B", Lane.C: "T", Lane.D: "T"}


@dataclass(slots=True)
class Flight:
    """One message on the wire and the rows that it still waits for."""

    token: int
    lane: Lane
    deadline: float
    waiting: dict[str, Stored]
    devices: set[str]
    again: list[Stored] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DeliveryCallbacks:
    """What the rest of the gateway wants to hear. `delivered` gets the event id and the level ("SENT", "L1", "L2")."""

    delivered: Callable[[str, str], None]
    birth: Callable[[], Mapping[str, object]]


class Deliverer:
    """The loop out for one destination."""

    def __init__(
        self, name: str, uplink: Uplink, outbox: Outbox, *, finish: str, reconnect_spread_s: float,
        clock: Clock, health: Health, callbacks: DeliveryCallbacks,
    ) -> None:  # fmt: skip
        self.name = name
        self._uplink = uplink
        self._outbox = outbox
        self._finish = finish
        self._spread_s = reconnect_spread_s
        self._clock = clock
        self._health = health
        self._callbacks = callbacks
        self._wake = asyncio.Event()
        self._alarm = asyncio.Event()
        self._lost: str | None = None
        self.connected = False
        self.epoch = 0
        self._session_began_ms = 0
        self._failures = 0
        self._queues = {lane: self._queue(lane) for lane in Lane}
        self._flights: dict[int, Flight] = {}
        self._flight_of: dict[str, Flight] = {}
        self._busy: set[tuple[str, str]] = set()
        self._holds: dict[tuple[str, str], float] = {}
        self._attempts: dict[str, int] = {}
        self.accepted = self.rejected = self.resent = self.dead_letters = 0
        self._last_accepted: float | None = None

    def _queue(self, lane: Lane) -> LaneQueue:
        cursor, ahead = self._outbox.cursor(self.name, lane)
        return LaneQueue(lane, self.name, cursor=cursor, ahead=ahead)

    def wake(self) -> None:
        """Something was stored, or something changed: look again."""
        if self._outbox.alarms_pending(self.name):
            self._alarm.set()
        self._wake.set()

    @property
    def is_live(self) -> bool:
        """Can new telemetry go out at once?"""
        return self.connected and self._outbox.pending(self.name)["C"] < LIVE_LIMIT

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver for ever."""
        try:
            while True:
                established = await self._connect_and_deliver()
                self._forget_session()
                await self._back_off(established=established)
        finally:
            self.connected = False
            await self._uplink.close()

    async def _connect_and_deliver(self) -> bool:
        """One session, from connecting to its loss; True if it was established."""
        self._lost = None
        events = UplinkEvents(acks=self._on_acks, sent=self._on_sent, lost=self._on_lost)
        try:
            self.epoch = await self._outbox.next_epoch(self.name)
            await self._uplink.open(events, epoch=self.epoch, birth=self._callbacks.birth())
        except SessionError as error:
            self._network_trouble(error)
            return False
        for code in ("GW-NET-01", "GW-NET-02", "GW-NET-03", "GW-NET-04", "GW-NET-05"):
            self._health.off(code, self.name)
        self.connected = True
        self._session_began_ms = self._clock.stamp().mono_ms
        _log.info("connected", destination=self.name, epoch=self.epoch)
        try:
            await self._deliver()
        except SessionError as error:
            self._network_trouble(error)
        finally:
            self.connected = False
            await self._uplink.close()
        return True

    def _network_trouble(self, error: SessionError) -> None:
        for code in ("GW-NET-01", "GW-NET-02", "GW-NET-03", "GW-NET-04", "GW-NET-05"):
            if code != error.code:
                self._health.off(code, self.name)
        facts = {"host": error.subject, **error.facts}
        self._health.on(error.code, self.name, **facts)

    async def _back_off(self, *, established: bool) -> None:
        """Wait before the next attempt (northbound rules 4 and 5); an alarm that comes meanwhile shortens the wait."""
        pending = self._outbox.alarms_pending(self.name)
        wait = self._jittered(self._failures, alarm=pending) if self._failures or not established else 0.0
        if established:
            first = min(2.0, self._spread_s) if pending else self._spread_s
            wait = max(wait, random.uniform(0, first))  # noqa: S311 - jitter
        self._failures += 1
        if not pending:
            self._alarm.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._alarm.wait()
            except TimeoutError:
                return
            wait = random.uniform(0, min(2.0, self._spread_s) if established else BACKOFF_CAP_ALARM_S)  # noqa: S311
        await asyncio.sleep(wait)

    @staticmethod
    def _jittered(failures: int, *, alarm: bool) -> float:
        cap = BACKOFF_CAP_ALARM_S if alarm else BACKOFF_CAP_S
        return random.uniform(0, min(cap, 2.0 ** min(failures, 10)))  # noqa: S311 - jitter

    def _forget_session(self) -> None:
        self._flights.clear()
        self._flight_of.clear()
        self._busy.clear()
        self._holds.clear()
        for queue in self._queues.values():
            queue.reset()

    async def drain_alarms(self, limit_s: float) -> None:
        """Wait until lane A is confirmed, for an orderly end."""
        try:
            async with asyncio.timeout(limit_s):
                while self.connected and self._outbox.alarms_pending(self.name):  # noqa: ASYNC110 - once, at the end
                    await asyncio.sleep(0.02)
        except TimeoutError:
            _log.warning("alarms were still unconfirmed at the end", destination=self.name)

    # -- sending ------------------------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        while self._lost is None:
            self._wake.clear()
            self._expire()
            for lane in Lane:
                await self._refill(self._queues[lane])
            if not self._pump():
                await self._sleep()
        raise SessionError("GW-NET-05", self.name, error=self._lost)

    async def _sleep(self) -> None:
        now = self._clock.monotonic()
        times = [flight.deadline for flight in self._flights.values()] + list(self._holds.values())
        wait = max(0.005, min(times) - now) if times else None
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _refill(self, queue: LaneQueue) -> None:
        if queue.wants_more and queue.loaded_to < self._outbox.last(queue.lane):
            rows = await self._outbox.fetch(queue.lane, queue.loaded_to, min(queue.room, 1000))
            before = queue.cursor
            queue.load(rows)
            if not rows:  # the lane's last row has left the database already
                queue.loaded_to = self._outbox.last(queue.lane)
            if queue.cursor != before:
                self._outbox.confirm(self.name, queue.lane, seq=queue.cursor, ahead=queue.ahead, done=0)

    def _pump(self) -> bool:
        """Fill the window; True when a lane ran dry although more is stored, so that it is worth reading on at once."""
        window = self._uplink.window
        for lane in (Lane.A, Lane.B, Lane.C, Lane.D):
            limit = window if lane is Lane.A else max(1, window - RESERVED_FOR_ALARMS)
            if lane is Lane.D and (self._outbox.alarms_pending(self.name) or not self._queues[Lane.C].is_dry):
                continue
            while len(self._flights) < limit and self._send_next(lane):
                pass
        return any(
            queue.is_dry
            and queue.room > 0
            and queue.loaded_to < self._outbox.last(queue.lane)
            and len(self._flights) < window
            for queue in self._queues.values()
        )

    def _send_next(self, lane: Lane) -> bool:
        batched = lane in (Lane.C, Lane.D)
        kind = _CLASS_OF_LANE[lane]
        rows = self._queues[lane].take(
            lambda device: (kind, device) in self._busy, count=BATCH_EVENTS if batched else 1, size=BATCH_BYTES
        )
        if not rows:
            return False
        token = self._uplink.send(lane, [self._text(row) for row in rows])
        flight = Flight(
            token, lane, self._clock.monotonic() + ACK_LIMIT_S[lane],
            {row.id: row for row in rows}, {row.device for row in rows},
        )  # fmt: skip
        self._flights[token] = flight
        for row in rows:
            self._flight_of[row.id] = flight
            self._busy.add((kind, row.device))
            if lane is Lane.A:
                self._callbacks.delivered(row.id, "SENT")
        return True

    def _text(self, row: Stored) -> str:
        now = self._clock.stamp()
        age_ms = max(0, now.mono_ms - row.at.mono_ms if row.at.boot == now.boot else now.wall_ms - row.at.wall_ms)
        attempt = self._attempts[row.id] = self._attempts.get(row.id, 0) + 1
        if attempt > 1:
            self.resent += 1
        buffered = age_ms > BUFFERED_AFTER_MS or row.at.boot != now.boot or row.at.mono_ms < self._session_began_ms
        historic = row.lane is Lane.A and age_ms > HISTORIC_AFTER_MS
        how = Sending(self.name, self._outbox.streamid, age_ms, attempt, buffered=buffered, historic=historic)
        return sending_text(row, how)

    # -- what comes back ----------------------------------------------------------------------------------------

    def _on_lost(self, why: str) -> None:
        self._lost = why
        self._wake.set()

    def _on_sent(self, token: int, ok: bool) -> None:  # noqa: FBT001 - the transport's callback
        flight = self._flights.get(token)
        if flight is None:
            return
        if not ok:
            self._answer(flight, [Ack(one, AckStatus.RETRY, "transport refused") for one in flight.waiting])
        elif self._finish == "L1":
            self._answer(flight, [Ack(one, AckStatus.ACCEPTED) for one in flight.waiting])
        elif flight.lane is Lane.A:
            for event_id in flight.waiting:
                self._callbacks.delivered(event_id, "L1")

    def _on_acks(self, acks: list[Ack]) -> None:
        for ack in acks:
            flight = self._flight_of.get(ack.id)
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
                self._finished(flight, row, ack)
        if not flight.waiting and flight.token in self._flights:
            self._land(flight)

    def _finished(self, flight: Flight, row: Stored, ack: Ack) -> None:
        if ack.status is AckStatus.REJECTED:
            self.rejected += 1
            self.dead_letters += 1
            at_ms = self._clock.stamp().wall_ms
            self._outbox.dead_letter(
                DeadLetter(self.name, row, ack.code or "rejected", "refused by the platform", at_ms)
            )
            self._health.on("GW-PLT-02", self.name, reason=ack.code, count=self.rejected)
        else:
            self.accepted += 1
            self._last_accepted = self._clock.monotonic()
            self._failures = 0
            self._health.off("GW-PLT-01", self.name)
            self._health.off("GW-PLT-03", self.name)
            if row.lane is Lane.A:
                self._callbacks.delivered(row.id, self._finish)
        self._attempts.pop(row.id, None)
        self._flight_of.pop(row.id, None)
        queue = self._queues[flight.lane]
        if queue.done(row.seq):
            self._outbox.confirm(self.name, flight.lane, seq=queue.cursor, ahead=queue.ahead, done=1)

    def _retry_later(self, flight: Flight, row: Stored, ack: Ack) -> None:
        """The platform asks to wait: this device waits, in order; the others go on."""
        flight.again.append(row)
        key = (_CLASS_OF_LANE[flight.lane], row.device)
        delay = self._jittered(self._attempts.get(row.id, 1), alarm=flight.lane is Lane.A)
        until = self._clock.monotonic() + max(delay, ack.retry_after_s or 0.0)
        self._holds[key] = max(until, self._holds.get(key, 0.0))
        self._health.on("GW-PLT-03", self.name, reason=ack.code)

    def _land(self, flight: Flight) -> None:
        """Every row of a message is answered or given up: let its devices go on."""
        del self._flights[flight.token]
        kind = _CLASS_OF_LANE[flight.lane]
        self._queues[flight.lane].put_back(flight.again)
        for device in flight.devices:
            if (kind, device) not in self._holds:
                self._release(kind, device)
        self._wake.set()

    def _release(self, kind: str, device: str) -> None:
        self._busy.discard((kind, device))
        for lane, lane_kind in _CLASS_OF_LANE.items():
            if lane_kind == kind:
                self._queues[lane].release(device)

    def _expire(self) -> None:
        now = self._clock.monotonic()
        for flight in [one for one in self._flights.values() if one.deadline <= now]:
            self._health.on("GW-PLT-01", self.name, pending=len(flight.waiting))
            flight.again.extend(flight.waiting.values())
            flight.waiting.clear()
            self._land(flight)
        for key in [one for one, until in self._holds.items() if until <= now]:
            if not any(key[1] in one.devices and _CLASS_OF_LANE[one.lane] == key[0] for one in self._flights.values()):
                del self._holds[key]
                self._release(*key)

    def status(self) -> dict[str, Any]:
        """Return the figures for `gateway status`."""
        last = self._last_accepted
        return {
            "id": self.name,
            "connected": self.connected,
            "epoch": self.epoch,
            "pending": self._outbox.pending(self.name),
            "inflight": len(self._flights),
            "accepted": self.accepted,
            "rejected": self.rejected,
            "resent": self.resent,
            "dead_letters": self.dead_letters,
            "last_accepted_s": None if last is None else round(self._clock.monotonic() - last, 1),
        }

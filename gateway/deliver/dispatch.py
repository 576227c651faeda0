"""What one destination has on its way: reads the lanes ahead, and fills the window. `answers` is what comes back.

Lane A overtakes everything and has slots of its own; the others share the rest of the window, and of telemetry there is only
so much under way as `batches` says. Of one device one message is on the wire in a lane class, so that a lost or refused
message cannot be overtaken by its successor. An alarm that a failing disk does not take goes out all the same, without a
number, and again when it has one. Limits: `Uplink.window` messages in flight, 100 events or 64 KiB a message.

Everything goes over the path in use, alarms over another one as well where that is needed (`alarm_paths`), and what a
lost path carried goes again over the next.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from gateway.clock import Clock, Stamp
from gateway.deliver.alarm_paths import COPY_AFTER_S, AlarmPaths
from gateway.deliver.answers import ACK_LIMIT_S, Answers
from gateway.deliver.batches import FRESH_S, TELEMETRY, Cut, cut, has_room
from gateway.deliver.drain import Drain
from gateway.deliver.flights import CLASS_OF_LANE, Flight, Flights
from gateway.deliver.lanes import Lanes
from gateway.deliver.wording import Wording, fits
from gateway.errors import SessionError
from gateway.events import Event, Lane, Stored
from gateway.health import Health
from gateway.outbox import Outbox
from gateway.uplinks.paths import Paths, PathsEvents

RESERVED_FOR_ALARMS: Final = 8
LANES: Final = tuple(Lane)


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
        self._clock = clock
        self._delivered = delivered
        self._wake = asyncio.Event()
        self._lost: SessionError | None = None
        self._called_at = -math.inf
        self._words = Wording(name, clock, outbox.boots)
        self._words.begin_stream(outbox.streamid)
        self._lanes = Lanes(name, outbox, clock)
        self._flights = Flights()
        self._alarm_paths = AlarmPaths(name, paths, self._flights, words=self._words, clock=clock)
        self._drain = Drain()
        self.answers = Answers(
            name, paths, outbox, finish=finish, clock=clock, health=health, delivered=delivered, accepted=accepted,
            words=self._words, lanes=self._lanes, flights=self._flights, alarm_paths=self._alarm_paths,
            drain=self._drain, wake=self._wake.set, go_on=self._go_on,
        )  # fmt: skip

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
        answers = self.answers
        return PathsEvents(acks=answers.acks, sent=answers.sent, gone=answers.gone, lost=self._on_lost)

    def wake(self) -> None:
        """Something was stored, or something changed: look again, unless all that was stored is for others."""
        if self._words.streamid != self._outbox.streamid:
            self._begin_stream()
        if self._lanes.has_news or self._outbox.is_failing:
            self._wake.set()

    def _go_on(self) -> None:
        """There is room again, or a device may go on: look again if anything waits for that."""
        may_copy = bool(self._flights.alarms()) and len(self._paths.standing()) > 1
        if self._lanes.has_waiting or may_copy or self._outbox.is_failing:
            self._wake.set()

    def reread(self) -> None:
        """Confirmations were taken back: read the lanes anew. What is on the wire may go twice, with the same ids."""
        self._lanes.begin_stream()
        self._wake.set()

    def _begin_stream(self) -> None:
        """The database was replaced: no answer to a row of the old one may confirm a row of the new one."""
        self.forget_session()
        self._words.begin_stream(self._outbox.streamid)
        self.answers.begin_stream()
        self._lanes.begin_stream()
        self._end("the database was replaced; the platform must learn of the new stream")

    @property
    def alarms_pending(self) -> bool:
        """Is there an alarm that the platform does not have, stored or not?"""
        return self._outbox.alarms_pending(self._name) or bool(self._unstored())

    def _unstored(self) -> list[Event]:
        return [one for one in self._outbox.unstored_alarms(self._name) if one.id not in self.answers.taken_unstored]

    def loaded(self, lane: Lane) -> int:
        """Up to which sequence a lane may be on its way."""
        return self._lanes[lane].read_to

    def forget_session(self) -> None:
        """No connection stands any more: everything that was not confirmed goes again."""
        self._flights.clear()
        self._alarm_paths.clear()
        self._lanes.reset()

    async def close(self) -> None:
        """Let go of what is being read. Never raises."""
        await self._lanes.close()

    # -- sending ------------------------------------------------------------------------------------------------

    async def deliver(self) -> None:
        """Send what is there and what comes. Raises SessionError when no path stands any more."""
        self._words.begin_session()
        self._drain.begin_session()
        while self._stands():
            self._wake.clear()
            self.answers.expire()
            self._copy_alarms()
            await self._lanes.refill(then=self._wake.set)
            if self._stands() and not self._pump():
                await self._sleep()
        assert self._lost is not None  # noqa: S101 - that is what ended the loop
        raise self._lost

    def _stands(self) -> bool:
        return self._lost is None

    async def _sleep(self) -> None:
        now = self._clock.monotonic()
        stale_at = self._flights.next_stale(TELEMETRY, since=now - FRESH_S)
        if stale_at is not None:
            stale_at += FRESH_S
        due_at = (self._lanes.next_try(), self._flights.next_time(), self._drain.next_time(now), stale_at)
        times = [due for due in due_at if due is not None]
        times += [one.copy_at for one in self._flights.alarms() if self._alarm_paths.beside(one) is not None]
        # Not a time-out, which costs several times as much: this is done for each message.
        loop = asyncio.get_running_loop()
        timer = loop.call_later(max(0.0, min(times) - now), self._wake.set) if times else None
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _pump(self) -> bool:
        """Fill the window; True when a lane ran dry although more is stored, so that it is worth reading on at once."""
        for lane in LANES:
            if lane is Lane.D and (self._backlog_waits() or not self._lanes[Lane.C].is_dry):
                continue
            while not self._lanes[lane].is_dry and self._has_room(lane) and self._send_next(lane):
                pass
            if lane is Lane.A:
                self._send_unstored()
        return any(
            self._lanes[lane].is_dry and self._lanes.may_read(self._lanes[lane]) and self._has_room(lane)
            for lane in LANES
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
        if lane not in TELEMETRY:
            return True
        if lane is Lane.D and self._flights.count(lane) >= self._drain.window:
            return False
        return has_room(self._cut, self._flights, path=path, now=self._clock.monotonic())

    @property
    def _cut(self) -> Cut:
        quiet_s = self._clock.monotonic() - self._called_at
        return cut(is_shared=self._paths.is_shared(self._paths.in_use), quiet_s=quiet_s)

    def _send_unstored(self) -> None:
        for event in self._unstored():
            if self._has_room(Lane.A) and not self._flights.is_busy(CLASS_OF_LANE[Lane.A], event.device):
                now_ms = self._clock.stamp().wall_ms
                self._send(
                    Lane.A, [Stored(0, Lane.A, event.id, event.noun, event.device, now_ms, event.at, {}, event.body)]
                )

    def _send_next(self, lane: Lane) -> bool:
        path, cut, is_telemetry = self._paths.in_use, self._cut, lane in TELEMETRY
        rows = self._lanes[lane].take(
            lambda device: self._flights.is_busy(CLASS_OF_LANE[lane], device),
            count=min(cut.events, self._paths.max_events(path)) if is_telemetry else 1,
            size=min(cut.size, self._paths.max_bytes(path) - 1024),
            parts=cut.messages if is_telemetry else 1,
            most=self._most_with,
        )
        if rows:
            self._send(lane, rows)
        return bool(rows)

    def _send(self, lane: Lane, rows: list[Stored]) -> None:
        now = self._clock.monotonic()
        path = self._alarm_paths.best(rows[0].device) if lane is Lane.A else self._paths.in_use
        most = self._paths.max_bytes(path)
        stamp = self._clock.stamp()
        texts: dict[str, str] = {}
        waiting: dict[str, Stored] = {}
        again = []  # an event that was rescued twice has two rows: the answer finishes the first, and the other goes after it
        for row in rows:
            if row.id in waiting:
                again.append(row)
            elif text := self._text(row, stamp, most=most):
                texts[row.id], waiting[row.id] = text, row
        rows = [*waiting.values(), *again]
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
            lane, now + ACK_LIMIT_S[lane], waiting, tuple(dict.fromkeys(row.device for row in rows)),
            sum(len(text) for text in texts.values()), now + COPY_AFTER_S if lane is Lane.A else math.inf, again=again,
        )  # fmt: skip
        self._flights.add(flight, token, path=path, now=now)
        if lane is Lane.A:
            if not self._words.has_waited(rows[0], now=stamp):
                self._called_at = now
            self._delivered(rows[0].id, "SENT")

    def _most_with(self, row: Stored) -> int:
        """A batch that was never answered may hold one event that the platform chokes on: halve it each time."""
        return max(1, self._cut.events >> min(7, self.answers.unanswered.get(row.id, 0)))

    def _text(self, row: Stored, now: Stamp, *, most: int) -> str:
        """Return a row as it goes out; "" for one that cannot: it is dead-lettered, so that the others go on."""
        try:
            text = self._words.text(row, now=now)
        except Exception as error:  # noqa: BLE001 - northbound rule 19: one row must not end the delivery of all
            self.answers.dead(row, "unsendable", repr(error), heard_over=None)
            return ""
        if not fits(text, most):
            self.answers.dead(row, "too-big", f"{len(text.encode())} bytes, {most} allowed", heard_over=None)
            return ""
        return text

    def _copy_alarms(self) -> None:
        """Send alarms that were not answered soon over one more path."""
        now = self._clock.monotonic()
        for flight in self._flights.alarms():
            if flight.copy_at <= now:
                self._alarm_paths.copy(flight)

    # -- the end of a session ----------------------------------------------------------------------------------------

    def _on_lost(self, error: SessionError) -> None:
        self._lost = error
        self._wake.set()

    def _end(self, why: str) -> None:
        self._on_lost(SessionError("GW-NET-05", self._name, error=why))

"""What a platform's answers do to what is on the wire: each row is finished, put off, refused for good, or goes again.

A confirmation of the transport (L1) or of the application (L2), whichever the profile demands, finishes a row: the cursor moves
in memory and costs no fsync. What is put off holds its device, in order, and nobody else. What is not answered within
`ACK_LIMIT_S` goes again with the same ids: over a new connection if not even the transport has confirmed it, in smaller
batches if it has. What is no alarm and was not answered `PATIENCE` times, and so went alone, is put off as well: the rows of
its device would take all the room of the others. A path that leaves something unanswered is passed over, if another one stands.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.deliver.alarm_paths import ALARM_LIMIT_S, AlarmPaths
from gateway.deliver.drain import Drain
from gateway.deliver.flights import Flight, Flights
from gateway.deliver.lanes import Lanes
from gateway.deliver.wording import Wording
from gateway.events import Lane, Stored
from gateway.health import Health
from gateway.outbox import DeadLetter, Outbox
from gateway.uplinks import Ack, AckStatus
from gateway.uplinks.back_off import jittered
from gateway.uplinks.paths import Paths, path_of

ACK_LIMIT_S: Final = {Lane.A: ALARM_LIMIT_S, Lane.B: 30.0, Lane.C: 30.0, Lane.D: 30.0}
PATIENCE: Final = 8

_log = structlog.get_logger("deliver")


class Answers:
    """The answers of one destination. `unanswered` counts by event how often a message with it was never answered.

    `taken_unstored` are alarms that were finished before the disk took them. `wake` is called when something has to go or
    other times hold, `go_on` when something may go that waited for room or for its device.
    """

    def __init__(
        self, name: str, paths: Paths, outbox: Outbox, *, finish: str, clock: Clock, health: Health,
        delivered: Callable[[str, str], None], accepted: Callable[[], None], words: Wording, lanes: Lanes, flights: Flights,
        alarm_paths: AlarmPaths, drain: Drain, wake: Callable[[], None], go_on: Callable[[], None],
    ) -> None:  # fmt: skip
        self._name = name
        self._paths = paths
        self._outbox = outbox
        self._finish = finish
        self._clock = clock
        self._health = health
        self._delivered = delivered
        self._on_accepted = accepted
        self._words = words
        self._lanes = lanes
        self._flights = flights
        self._alarm_paths = alarm_paths
        self._drain = drain
        self._wake = wake
        self._go_on = go_on
        self.unanswered: dict[str, int] = {}
        self.taken_unstored: set[str] = set()
        self.accepted = self.rejected = self.dead_letters = 0
        self.last_accepted: float | None = None

    def begin_stream(self) -> None:
        """The rows are of a new stream."""
        self.unanswered.clear()

    # -- what comes back ----------------------------------------------------------------------------------------

    def gone(self, path: int) -> None:
        """One path is lost, another stands: what the lost one carried alone goes again."""
        for flight in self._flights.drop_path(path):
            self._give_up(flight)
        self._wake()

    def _pass_over(self, path: int) -> None:
        """A path is connected and silent: what it alone carries need not wait until its own time is up."""
        if not self._paths.pass_over(path):
            return
        for flight in self._flights.only_over(path):
            if flight.lane is not Lane.A:
                self._give_up(flight)
            elif not flight.minimal:
                self._alarm_paths.copy(flight)
        self._wake()

    def sent(self, token: int, ok: bool) -> None:  # noqa: FBT001 - the transport's callback
        flight = self._flights.by_token(token)
        path = path_of(token)
        if flight is not None:
            flight.arrived.add(path)
        self._go_on()
        if flight is None:
            return
        if not ok:
            self._answer(flight, [Ack(one, AckStatus.RETRY, "transport refused") for one in flight.waiting], path)
        elif self._finish == "L1":
            self._answer(flight, [Ack(one, AckStatus.ACCEPTED) for one in flight.waiting], path)
        elif flight.lane is Lane.A and not flight.minimal:  # that one counts when it is accepted
            for event_id in flight.waiting:
                self._delivered(event_id, "L1")

    def acks(self, acks: list[Ack], path: int) -> None:
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
            self.dead(row, ack.code or "rejected", reason, heard_over=None if ack.reason else path)
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

    def dead(self, row: Stored, code: str, reason: str, *, heard_over: int | None) -> None:
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
        self.unanswered.pop(row.id, None)
        if not self.unanswered:
            self._health.off("GW-PLT-01", self._name)
        self._flights.forget(row.id)
        if not row.seq:
            self.taken_unstored.add(row.id)
            return
        self.taken_unstored.discard(row.id)
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
        if flight.again:
            self._wake()
        else:
            self._go_on()

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

    def _put_off_swallowed(self, flight: Flight, now: float) -> None:
        """The platform never says anything to it: the others go on for as long as was waited for it, then it is tried again."""
        until = now + ACK_LIMIT_S[flight.lane] * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        for row in flight.waiting.values():
            if self.unanswered[row.id] >= PATIENCE:
                self._flights.hold(flight.kind, row.device, until=until)
                self._lanes.park(flight.kind, row.device)

    def _release(self, kind: str, device: str) -> None:
        self._flights.release(kind, device)
        self._lanes.release(kind, device)

    def expire(self) -> None:
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
                self.unanswered[event_id] = self.unanswered.get(event_id, 0) + 1
            if not dead and flight.lane is not Lane.A:
                self._put_off_swallowed(flight, now)
            self._give_up(flight)
            for path in dead:
                # Not the application is slow, the line is dead: the keep-alive would need a minute to see it.
                self._paths.fail(path, f"no confirmation of a message within {limit_s:g} s")
            if not dead and first not in flight.refused:
                self._pass_over(first)
        for key in self._flights.ended_holds(now):
            self._release(*key)

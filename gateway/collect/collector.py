"""Turns judged observations into events: what calls for help goes to the alarms first, everything to the outbox.

An alarm is announced before it is stored: announcing waits for neither disk nor network, and must not fail for either.
Which signals are new is judged in `levels`.
Limits: readings that a device advertises are published at most every `every_s` (900 s) for each device, because the radio
repeats them for ever, and those of a stream as often as its driver says; a value that a device repeats and that cannot be taken
is told again after `REFUSED_HOLD_S`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import structlog

from drivers.kit import (
    RAISING,
    Advert,
    Advertises,
    Counter,
    Decoded,
    Observation,
    Reading,
    Reason,
    Rejected,
    Signal,
    SignalKind,
)
from gateway.alarms import AlarmBook, Call, Change
from gateway.clock import Clock, Stamp
from gateway.collect.batch import Batch, alarm_row
from gateway.collect.desk import Desk
from gateway.collect.judge import Judge, Verdict
from gateway.collect.levels import SILENCING, Levels
from gateway.collect.listening import UNREAD, Listeners
from gateway.collect.registers import Registers
from gateway.collect.undeciphered import FAULT, UNDECIPHERABLE, Undeciphered
from gateway.collect.whose import Whose
from gateway.errors import ControlError
from gateway.events import Origin, new_event
from gateway.health import Health
from gateway.links.state import HeardAdvert
from gateway.outbox import Mark, Number, Outbox, Write

REFUSED_HOLD_S: Final = 3_600.0
_PROBLEM_OF_DOUBT: Final = {
    "bad-key": "GW-SEC-01", "counter-reset": "GW-SEC-02", "downgrade": "GW-SEC-03", "number-reused": "GW-SEC-04",
}  # fmt: skip
_log = structlog.get_logger("collect")


class Collector:
    """Takes what links and drivers say of configured devices."""

    def __init__(
        self, origin: Origin, desks: Mapping[str, Desk], *, outbox: Outbox, alarms: AlarmBook, judge: Judge,
        health: Health, clock: Clock, announce: Callable[[Change], None],
    ) -> None:  # fmt: skip
        self._origin = origin
        self.desks = desks
        self._whose = Whose(desks.values())
        self._raised = 0
        self._outbox = outbox
        self._alarms = alarms
        self._judge = judge
        self._health = health
        self._clock = clock
        self._announce = announce
        self.listeners = Listeners()
        self._undeciphered = Undeciphered(
            origin, alarms=alarms, judge=judge, clock=clock, raises=self._signal, submit=self._submit
        )  # fmt: skip
        self._levels = Levels(alarms=alarms, judge=judge, clock=clock, says=self._signal)
        self.registers = Registers()
        # Called with link and stamp when a full queue costs an input that nobody sends again.
        self.on_refused: Callable[[str, Stamp], None] = lambda _link, _at: None

    # -- what was heard -----------------------------------------------------------------------------------------

    def wants(self, address: str) -> bool:
        """Is an advert of this address of interest, whoever hears it? Strangers are, while somebody listens."""
        return bool(self.listeners) or self._whose.may_be(address)

    def knows(self, address: str) -> bool:
        """Is an address on the air one of ours?"""
        return self._whose.is_known(address)

    def of_advert(self, advert: Advert) -> Desk | None:
        """Return whose advert it is."""
        return self._whose.desk_of(advert)

    def on_advert(self, heard: HeardAdvert, on_durable: Callable[[], None] | None = None) -> bool:
        """Take one advert: find its device, decode, judge, store. Tell whether it raised an alarm.

        `on_durable` is called once everything of it is committed, or where nothing is to be.
        """
        before = self._raised
        if not self._advert(heard, on_durable) and on_durable is not None:
            on_durable()
        return self._raised != before

    def _advert(self, heard: HeardAdvert, on_durable: Callable[[], None] | None) -> bool:
        """Take one advert; False when nothing of it waits for the disk."""
        advert = heard.advert
        desk = self._whose.desk_of(advert)
        if desk is None:
            self.listeners.tell_advert(heard, None, None)
            return False
        driver = desk.driver
        assert isinstance(driver, Advertises)  # noqa: S101 - by construction of `Whose`
        desk.hear_by(heard.link, advert.rssi, self._clock)
        try:
            decoded = driver.decode(advert, desk.key)
        except Rejected as rejected:
            desk.reject(rejected.reason)
            self.listeners.tell_advert(heard, desk, rejected)
            if rejected.reason is Reason.KEY_IN_CLEAR:
                self._health.on("GW-SEC-05", desk.id)
            if rejected.reason in (Reason.BAD_KEY, Reason.NO_KEY):
                self._health.on("GW-DEV-03", desk.id, reason=rejected.reason.value)
                if not rejected.harmless or desk.alarms_on:
                    doubt, counter = rejected.reason.value, rejected.counter
                    return self._undeciphered.on_air(desk, doubt, heard.at, on_durable, counter=counter)
            return False
        except Exception as bug:  # noqa: BLE001 - one crafted advert must not deafen us, and it may be a call
            self.fault(desk, bug)
            self.listeners.tell_advert(heard, desk, bug)
            return self._undeciphered.on_air(desk, FAULT, heard.at, on_durable)
        if decoded.counter or decoded.observations:  # a mere sign of life says nothing of the key
            self._health.off("GW-DEV-03", desk.id)
        self.listeners.tell_advert(heard, desk, decoded)
        try:
            return self.take(desk, decoded, heard.at, on_durable, on_failed=on_durable, along=(), link=heard.link)
        except Exception as bug:  # noqa: BLE001 - a call that cannot be judged is raised
            self.fault(desk, bug)
            return bool(_raising(desk, decoded)) and self._undeciphered.on_air(desk, FAULT, heard.at, on_durable)

    def fault(self, desk: Desk, bug: Exception) -> None:
        """A message met a bug, the driver's or ours: it is counted, the next one is taken all the same."""
        first = not desk.rejects["fault"]
        desk.reject("fault")
        self._health.on("GW-RUN-03", desk.id, detail=f"{type(bug).__name__}: {bug}"[:200])
        if first:
            _log.error("a message could not be handled", device=desk.id, exc_info=bug)

    def unreadable(
        self, desk: Desk, bug: Exception, at: Stamp, on_durable: Callable[[], None] | None = None, *,
        decoded: Decoded | None = None,
    ) -> bool:  # fmt: skip
        """A message of a line or a broker met a bug: it is counted, and may be a call. False when nothing is to be stored.

        Such a message is not repeated by the air, so each may be a press; `on_durable` is as in `take`. `decoded`: what it
        says, where the bug is not its driver's.
        """
        self.fault(desk, bug)
        if decoded is not None and not _raising(desk, decoded):
            return False
        try:
            return self._undeciphered.on_line(desk, at, on_durable)
        except Exception as another:  # noqa: BLE001 - the bug may be in what raises: the next message must be heard
            self.fault(desk, another)
            return False

    def take(
        self, desk: Desk, decoded: Decoded, at: Stamp, on_durable: Callable[[], None] | None = None, *,
        on_failed: Callable[[], None] | None = None, number: Number | None = None, doubts: tuple[str, ...] = (),
        marks: tuple[Mark, ...] = (), along: tuple[Mark, ...] | None = None, each_level_calls: bool = False, link: str = "",
    ) -> bool:  # fmt: skip
        """Judge what a device said and store what is new; False when a full queue refused it.

        `on_durable` is called once everything of it, or what it repeats, is committed, `on_failed` if it was taken and turns
        out not to be storable. Whether a numbered input is new is for the caller to find out: `number` and `marks` are what
        to store of it, `doubts` what was found, `link` the radio. `each_level_calls`: whoever sends this sends it for a reason,
        so that a call that is on may be another press. False also when a bug left nothing to store. `along`: marks that are
        worth storing only with something else; where there is nothing else, and nothing of the device waits that it may
        repeat, `on_durable` is called at once and the card is left alone.
        """
        desk.meter_number = decoded.meter or desk.meter_number
        counted = decoded.counter is not None
        batch = Batch(desk, at, self._origin, each_level_calls=each_level_calls, link=link, counted=counted)
        batch.number(decoded.source_number, number)
        batch.marks += marks
        verdict = self._judge_counter(batch, decoded.counter) if decoded.counter else Verdict.NEW
        if verdict is Verdict.REPEAT:
            desk.repeats += 1
            return self._submit(batch, on_durable, on_failed, along=along)
        batch.doubts = (*doubts, *self._doubts(desk, decoded, verdict))
        try:
            self._observe(batch, decoded, verdict)
        except Exception as bug:  # noqa: BLE001 - an alarm that is raised already must be stored whatever follows it
            self.fault(desk, bug)
            if not batch.alarms and not self._raise_unjudged(batch, decoded):
                return False
        return self._submit(batch, on_durable, on_failed, along=along)

    def _raise_unjudged(self, batch: Batch, decoded: Decoded) -> bool:
        """Judging met a bug of ours: whatever in the message calls for help is raised, unverified. False: nothing does."""
        batch.doubts = (FAULT, *batch.doubts)
        for one in _raising(batch.desk, decoded):
            try:
                self._signal(batch, one)
            except Exception as bug:  # noqa: BLE001 - what is raised already must be stored
                self.fault(batch.desk, bug)
        return bool(batch.alarms)

    def _observe(self, batch: Batch, decoded: Decoded, verdict: Verdict) -> None:
        readings, refused = [], list(decoded.refused)
        observations: Sequence[Observation] = decoded.observations
        if len(observations) > 1:
            observations = sorted(observations, key=lambda one: not _is_urgent(batch.desk, one))
        for observation in observations:
            if isinstance(observation, Reading):
                if not observation.is_finite:
                    refused.append(f"{observation.quantity} = {observation.value}")
                    continue
                readings.append(observation)
                if observation.quantity == "battery":
                    batch.desk.battery_percent = float(observation.value)
            else:
                self._levels.take(batch, observation, counted=decoded.counter is not None)
        if readings and verdict is not Verdict.RESET:
            self._readings(batch, readings)
        for detail in refused:
            batch.desk.reject(UNREAD)
            what, now = f"refused {detail.partition(' = ')[0]}", self._clock.monotonic()
            if batch.numbers or batch.desk.is_due(what, now, every_s=REFUSED_HOLD_S):
                batch.tell("device.fault", {"kind": UNREAD, "detail": detail})

    def _judge_counter(self, batch: Batch, counter: Counter) -> Verdict:
        judged = self._judge.counter(batch.desk.id, counter, batch.at)
        batch.facts["counter"] = batch.desk.counter = counter.value
        batch.keep(judged.mark)
        return judged.verdict

    def stands(self, desk: Desk, decoded: Decoded) -> bool:
        """Is everything in it that calls for help an alarm that nobody has taken yet?"""
        raising = {one.kind for one in decoded.observations if isinstance(one, Signal) and desk.raises(one.kind)}
        verified = not self._doubts(desk, decoded, Verdict.NEW)
        return all(self._alarms.is_active(desk.id, kind.value, verified=verified) for kind in raising)

    def has_open_alarm(self, device: str) -> bool:
        """Has a device an alarm that nobody has closed?"""
        return any(self._alarms.id_of(device, kind.value) for kind in RAISING)

    @staticmethod
    def _doubts(desk: Desk, decoded: Decoded, verdict: Verdict) -> tuple[str, ...]:
        if desk.wired and not (desk.by_radio and not decoded.authenticated):
            return ()
        doubts = []
        if verdict is Verdict.RESET:
            doubts.append("counter-reset")
        if not decoded.authenticated:
            doubts.append("downgrade" if desk.key and not decoded.unprovable else "unauthenticated")
        return tuple(doubts)

    # -- signals and readings -----------------------------------------------------------------------------------

    def _signal(self, batch: Batch, signal: Signal) -> None:
        desk = batch.desk
        if signal.kind is SignalKind.CALL and not _calls(desk, signal.code):
            desk.ignored += 1
        elif desk.raises(signal.kind):
            call = Call(
                signal.kind.value, desk.id, desk.room, desk.bed, batch.at, code=signal.code, channel=signal.channel,
                doubts=batch.doubts, facts=batch.facts | ({"detail": signal.detail} if signal.detail else {}),
            )  # fmt: skip
            self._changed(batch, self._alarms.raise_alarm(call))
            self._security(batch)
        elif signal.kind in SILENCING and batch.doubts:
            desk.ignored += 1
        else:
            batch.tell_signal(signal)

    def _security(self, batch: Batch) -> None:
        if any(event.noun == "gateway.security" for event in batch.events):
            return  # two buttons in one message
        for doubt in batch.doubts:
            code = _PROBLEM_OF_DOUBT.get(doubt)
            if code:
                self._health.on(code, batch.desk.id)
                batch.tell("gateway.security", {"kind": doubt, "code": code})

    def _readings(self, batch: Batch, readings: list[Reading]) -> None:
        desk = batch.desk
        every_s = 0.0 if batch.numbers else desk.readings_every_s
        if every_s:
            # An advert carries now one reading, now another: together they are one. The messages of a stream have types.
            kinds = "" if isinstance(desk.driver, Advertises) else f" {sorted({one.quantity for one in readings})}"
            if not desk.is_due(f"readings{kinds}", self._clock.monotonic(), every_s=every_s):
                return
        if batch.numbers or isinstance(desk.driver, Advertises):
            batch.tell_readings(readings)  # a source that resends, or the radio: no meter whose registers are a bill
            return
        taken = self.registers.take(desk, readings, batch.at, now=self._clock.monotonic())
        if desk.meter_number:
            batch.facts["meter"] = desk.meter_number
        batch.tell_readings(taken.readings, taken.more)
        for noun, data in taken.told:
            batch.tell(noun, data)
        batch.days += taken.days
        batch.keep(taken.mark)

    def compare(self, device: str, shown: Mapping[str, Decimal], by: str) -> dict[str, Any]:
        """A person has read the dial of a meter: store it with the difference to what was read. Raises ControlError."""
        desk = self.desks.get(device)
        if desk is None or isinstance(desk.driver, Advertises):
            raise ControlError("GW-CTL-03", device, reason="@refusal.unknown-meter")
        at = self._clock.stamp()
        doc, taken = self.registers.dial(desk, shown, by, at)
        batch = Batch(desk, at, self._origin)
        batch.tell("test.completed", {"kind": "dial-compared", "test": False, "by": by, "registers": doc["registers"]})
        batch.days += taken.days
        batch.keep(taken.mark)
        if not self._submit(batch, None):
            raise ControlError("GW-CTL-03", device, reason="@refusal.not-stored")
        return doc

    def _changed(self, batch: Batch, change: Change) -> None:
        self._raised += 1
        if change.event is not None:
            batch.events.append(change.event)
            batch.alarms.append(alarm_row(change))
        self._tell_staff(change)

    def _tell_staff(self, change: Change) -> None:
        try:
            self._announce(change)
        except Exception as bug:  # noqa: BLE001 - an alarm that cannot be announced must still be stored and sent
            _log.error("an alarm could not be announced", id=change.alarm.id, exc_info=bug)

    def _submit(
        self, batch: Batch, on_durable: Callable[[], None] | None, on_failed: Callable[[], None] | None = None, *,
        along: tuple[Mark, ...] | None = None,
    ) -> bool:  # fmt: skip
        """Hand over one write. Even an empty one goes through the queue when its durability matters.

        What it repeats may still be in the queue before it, and must not be acknowledged earlier.
        """
        if batch.is_empty and on_durable is None:
            return True
        if batch.is_empty and on_durable is not None and along is not None:
            if not self._outbox.is_waiting_for(batch.desk.id):
                on_durable()
                return True
        else:
            batch.marks += along or ()
        if not self._outbox.submit(batch.write(on_durable, on_failed)):
            batch.desk.reject("queue-full")
            if batch.days:
                self.registers.refused(batch.desk.id, batch.days)
            if batch.events and not batch.numbers:
                self.on_refused(batch.link or batch.desk.link, batch.at)
            return False
        batch.desk.events += len(batch.events)
        return True

    # -- what people and the gateway itself say ---------------------------------------------------------------------

    def acknowledge(self, prefix: str, by: str) -> Change:
        """A person has taken notice of an alarm. Raises ControlError."""
        return self._by_person(self._alarms.acknowledge(prefix, by, self._clock.stamp()))

    def close(self, prefix: str, by: str, why: str) -> Change:
        """A person closes an alarm. Raises ControlError."""
        return self._by_person(self._alarms.close(prefix, by, why, at=self._clock.stamp()))

    def _by_person(self, change: Change) -> Change:
        if change.event is not None:
            self._tell_staff(change)
            self._outbox.submit(Write((change.event,), alarms=(alarm_row(change),)))  # alarms are never refused
            desk = self.desks.get(change.alarm.device)
            if desk is not None:  # else it has left the configuration; its alarm has not left the world
                desk.events += 1
        return change

    def store_again(self) -> None:
        """The database was replaced: store what must outlive a restart, and tell the open alarms to the platforms anew."""
        changes = self._alarms.retell(self._clock.stamp())
        events = tuple(change.event for change in changes if change.event is not None)
        rows = tuple(alarm_row(change) for change in changes)
        if events:
            self._outbox.submit(Write(events, alarms=rows))
        self._outbox.submit(Write(marks=(*self._judge.marks(), *self.registers.marks())))

    def keep_registers(self) -> None:
        """The gateway ends: what meters showed last is what a ratio that is changed now will begin from."""
        marks, days = self.registers.marks(), self.registers.unstored()
        if marks:
            self._outbox.submit(Write(marks=tuple(marks), days=tuple(days)))

    def silent_since(self, moment: float) -> tuple[int, int]:
        """Return how many devices have not been heard since a moment of the monotonic clock, and how many there are."""
        heard = [desk.last_heard for desk in self.desks.values()]
        return sum(1 for last in heard if last is None or last < moment), len(heard)

    def store_gap(
        self, data: Mapping[str, object] | None, at: Stamp, mark: Mark, on_durable: Callable[[], None]
    ) -> bool:
        """Store what `Hearing` has to tell (None: nothing yet) with its mark; False when a full queue refused it."""
        gap = () if data is None else (
            new_event("gateway.gap", self._origin, device=self._origin.gateway, at=at, data=data),
        )  # fmt: skip
        return self._outbox.submit(Write(gap, (mark,), on_commit=lambda _rows: on_durable(), on_failed=on_durable))


def _is_urgent(desk: Desk, one: Observation) -> bool:
    return isinstance(one, Signal) and desk.raises(one.kind)


def _raising(desk: Desk, decoded: Decoded) -> list[Signal]:
    """Return what in a message raises an alarm at this device."""
    signals = [one for one in decoded.observations if isinstance(one, Signal)]
    return [one for one in signals if one.level is not False and desk.raises(one.kind)]


def _calls(desk: Desk, code: str) -> bool:
    """Does a button's code raise a call? `calls_on` speaks of buttons: a fall is not its business."""
    return code != "none" and (desk.calls_on is None or code in desk.calls_on or code == UNDECIPHERABLE)

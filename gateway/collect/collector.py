"""Turns judged observations into events: what calls for help goes to the alarms first, everything to the outbox.

An alarm is announced before it is stored: announcing waits for neither disk nor network. Limits: readings that a device
advertises are published at most every `every_s` (900 s) for each device, because the radio repeats them for ever; an
advert that cannot be decrypted raises at most one call in `UNDECIPHERABLE_S`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

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
from gateway.alarms import AlarmBook, Call, Change, document
from gateway.clock import Clock, Stamp
from gateway.collect.desk import Desk, Heard
from gateway.collect.judge import Judge, Verdict
from gateway.events import Event, Origin, new_event
from gateway.health import Health
from gateway.links.state import HeardAdvert
from gateway.outbox import AlarmRow, Mark, Number, Outbox, Write

ADVERT_READINGS_S: Final = 900.0
UNDECIPHERABLE_S: Final = 10.0
_METER: Final = ("energy_", "voltage", "current", "power_", "frequency")
_NOUN_OF_SIGNAL: Final = {
    SignalKind.TAMPER: "device.tamper",
    SignalKind.LOW_BATTERY: "device.battery",
    SignalKind.BED_EXIT: "bed.occupancy",
    SignalKind.RESTORED: "device.restored",
    SignalKind.RECOVERED: "device.restored",
    SignalKind.CANCEL: "device.restored",
}
# Silencing fails closed: these count only from a proven and fresh sender.
_SILENCING: Final = frozenset({SignalKind.CANCEL, SignalKind.RECOVERED, SignalKind.RESTORED})
_PROBLEM_OF_DOUBT: Final = {"bad-key": "GW-SEC-01", "counter-reset": "GW-SEC-02", "downgrade": "GW-SEC-03"}
_log = structlog.get_logger("collect")


@dataclass(slots=True)
class _Batch:
    """What one message leads to, before it is handed to the outbox as one write."""

    desk: Desk
    at: Stamp
    doubts: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    alarms: list[AlarmRow] = field(default_factory=list)
    numbers: tuple[Number, ...] = ()


class Collector:
    """Takes what links and drivers say of configured devices."""

    def __init__(
        self, origin: Origin, desks: Mapping[str, Desk], *, outbox: Outbox, alarms: AlarmBook, judge: Judge,
        health: Health, clock: Clock, announce: Callable[[Change], None],
    ) -> None:  # fmt: skip
        self._origin = origin
        self.desks = desks
        self._by_address = {
            (desk.link, desk.address.upper()): desk for desk in desks.values() if isinstance(desk.driver, Advertises)
        }
        self._outbox = outbox
        self._alarms = alarms
        self._judge = judge
        self._health = health
        self._clock = clock
        self._announce = announce
        self.listeners: set[Callable[[Heard], None]] = set()

    # -- what was heard -----------------------------------------------------------------------------------------

    def wants(self, link: str, address: str) -> bool:
        """Is an advert of this address of interest? Strangers are, while somebody listens."""
        return bool(self.listeners) or (link, address) in self._by_address

    def on_advert(self, heard: HeardAdvert) -> None:
        """Take one advert: find its device, decode, judge, store."""
        advert = heard.advert
        desk = self._by_address.get((heard.link, advert.address))
        if desk is None:
            self._tell_advert(heard, "", "")
            return
        driver = desk.driver
        assert isinstance(driver, Advertises)  # noqa: S101 - by construction of `_by_address`
        desk.heard += 1
        desk.last_heard = self._clock.monotonic()
        try:
            decoded = driver.decode(advert, desk.key)
        except Rejected as rejected:
            desk.reject(rejected.reason)
            self._tell_advert(heard, desk.id, str(rejected))
            self._undecipherable(desk, rejected, heard.at)
            return
        self._health.off("GW-DEV-03", desk.id)
        self._tell_advert(heard, desk.id, in_words(decoded.observations))
        self.take(desk, decoded, heard.at)

    def _undecipherable(self, desk: Desk, rejected: Rejected, at: Stamp) -> None:
        """An encrypted advert that no key opens may be a call: raising fails open, once for each counter value."""
        if rejected.reason not in (Reason.BAD_KEY, Reason.NO_KEY):
            return
        self._health.on("GW-DEV-03", desk.id, reason=rejected.reason.value)
        if not desk.may_call:
            return
        now = self._clock.monotonic()
        if desk.last_undecipherable is not None and now - desk.last_undecipherable < UNDECIPHERABLE_S:
            desk.repeats += 1
            return
        counter = rejected.counter
        if counter is not None:
            # Anybody can write this counter: it must not move the mark of the proven ones.
            judged = self._judge.counter(f"{desk.id}#unproven", counter, at)
            if judged.verdict is Verdict.REPEAT:
                desk.repeats += 1
                return
        desk.last_undecipherable = now
        batch = _Batch(desk, at, doubts=("bad-key",), facts={"counter": counter.value} if counter else {})
        self._signal(batch, Signal(SignalKind.CALL, code="undecipherable"))
        self._submit(batch, None)

    def take(self, desk: Desk, decoded: Decoded, at: Stamp, on_durable: Callable[[], None] | None = None) -> bool:
        """Judge what a device said and store what is new; False when the outbox refused it.

        `on_durable` is called once everything of it is committed. A numbered input must be judged by the caller.
        """
        batch = _Batch(desk, at)
        verdict = Verdict.NEW
        if decoded.counter is not None:
            verdict = self._judge_counter(batch, decoded.counter)
            if verdict is Verdict.REPEAT:
                desk.repeats += 1
                return True
        batch.doubts = self._doubts(desk, decoded, verdict)
        number = decoded.source_number
        if number is not None:
            batch.numbers = (Number(desk.id, number.session, number.n),)
            batch.facts["n"] = number.n
            if number.session:
                batch.facts["session"] = number.session
        readings = []
        for observation in decoded.observations:
            if isinstance(observation, Reading):
                readings.append(observation)
            else:
                self._judge_signal(batch, observation)
        if readings and verdict is not Verdict.RESET:
            self._readings(batch, readings)
        return self._submit(batch, on_durable)

    def _judge_counter(self, batch: _Batch, counter: Counter) -> Verdict:
        judged = self._judge.counter(batch.desk.id, counter, batch.at)
        batch.facts["counter"] = counter.value
        if judged.mark:
            batch.marks.append(judged.mark)
        return judged.verdict

    @staticmethod
    def _doubts(desk: Desk, decoded: Decoded, verdict: Verdict) -> tuple[str, ...]:
        if desk.wired:
            return ()
        doubts = []
        if verdict is Verdict.RESET:
            doubts.append("counter-reset")
        if not decoded.authenticated:
            doubts.append("downgrade" if desk.key else "unauthenticated")
        return tuple(doubts)

    # -- signals and readings -----------------------------------------------------------------------------------

    def _judge_signal(self, batch: _Batch, signal: Signal) -> None:
        desk = batch.desk
        if signal.level is not None:
            name = f"{signal.kind.value}:{signal.channel}"
            judged = self._judge.level(desk.id, name, on=signal.level, at=batch.at, hold_s=desk.level_hold_s)
            if judged.verdict is Verdict.REPEAT:
                desk.repeats += signal.level
                return
            if judged.mark:
                batch.marks.append(judged.mark)
            if not signal.level:
                self._level_ended(batch, signal)
                return
        self._signal(batch, signal)

    def _level_ended(self, batch: _Batch, signal: Signal) -> None:
        """A fall or call is latched: only a person ends it. A fault that a device shows ends when the device says so."""
        if signal.kind not in RAISING and not batch.doubts:
            self._event(batch, "device.restored", {"kind": signal.kind.value, "channel": signal.channel})

    def _signal(self, batch: _Batch, signal: Signal) -> None:
        desk = batch.desk
        if signal.kind in RAISING:
            if signal.code == "none" or (
                desk.calls_on is not None and signal.code not in (*desk.calls_on, "undecipherable")
            ):
                desk.ignored += 1
                return
            call = Call(
                signal.kind.value, desk.id, desk.room, desk.bed, batch.at, code=signal.code, channel=signal.channel,
                doubts=batch.doubts, facts=batch.facts,
            )  # fmt: skip
            self._changed(batch, self._alarms.raise_alarm(call))
            self._security(batch)
            return
        if signal.kind in _SILENCING and batch.doubts:
            desk.ignored += 1
            return
        data = {"kind": signal.kind.value, "code": signal.code, "channel": signal.channel}
        self._event(batch, _NOUN_OF_SIGNAL[signal.kind], data)

    def _security(self, batch: _Batch) -> None:
        for doubt in batch.doubts:
            code = _PROBLEM_OF_DOUBT.get(doubt)
            if code:
                self._health.on(code, batch.desk.id)
                self._event(batch, "gateway.security", {"kind": doubt, "code": code})

    def _readings(self, batch: _Batch, readings: list[Reading]) -> None:
        desk = batch.desk
        if isinstance(desk.driver, Advertises):
            now = self._clock.monotonic()
            if desk.last_readings is not None and now - desk.last_readings < (desk.every_s or ADVERT_READINGS_S):
                return
            desk.last_readings = now
        meter = all(reading.quantity.startswith(_METER) for reading in readings)
        self._event(batch, "telemetry.meter" if meter else "telemetry.environment", {
            "registers": [_register(reading) for reading in readings],
        })  # fmt: skip

    def _event(self, batch: _Batch, noun: str, data: Mapping[str, object]) -> None:
        desk = batch.desk
        full = {**data, "room": desk.room, "bed": desk.bed, "verified": not batch.doubts, **batch.facts}
        batch.events.append(new_event(noun, self._origin, device=desk.id, at=batch.at, data=full))

    def _changed(self, batch: _Batch, change: Change) -> None:
        alarm = change.alarm
        if change.event is not None:
            batch.events.append(change.event)
            batch.alarms.append(AlarmRow(alarm.id, alarm.state != "CLOSED", alarm.raised.wall_ms, document(alarm)))
        self._announce(change)

    def _submit(self, batch: _Batch, on_durable: Callable[[], None] | None) -> bool:
        if not batch.events and not batch.marks and not batch.numbers:
            if on_durable:
                on_durable()
            return True
        callback = None if on_durable is None else lambda _rows: on_durable()
        write = Write(tuple(batch.events), tuple(batch.marks), batch.numbers, tuple(batch.alarms), on_commit=callback)
        if not self._outbox.submit(write):
            return False
        batch.desk.events += len(batch.events)
        return True

    # -- what people and the gateway itself say ---------------------------------------------------------------------

    def acknowledge(self, prefix: str, by: str) -> Change:
        """A person has taken notice of an alarm."""
        at = self._clock.stamp()
        return self._by_person(self._alarms.acknowledge(prefix, by, at), at)

    def close(self, prefix: str, by: str, why: str) -> Change:
        """A person closes an alarm."""
        at = self._clock.stamp()
        return self._by_person(self._alarms.close(prefix, by, why, at=at), at)

    def _by_person(self, change: Change, at: Stamp) -> Change:
        desk = self.desks.get(change.alarm.device)
        if desk is None:  # the device has left the configuration; its alarm has not left the world
            desk = Desk(change.alarm.device, "", "", "", change.alarm.room, change.alarm.bed, _NO_DRIVER, None)
        if change.event is not None:
            batch = _Batch(desk, at)
            self._changed(batch, change)
            self._submit(batch, None)
        return change

    def gateway_event(self, noun: str, data: Mapping[str, object], at: Stamp) -> None:
        """Store an event of the gateway itself."""
        event = new_event(noun, self._origin, device=self._origin.gateway, at=at, data=data)
        if not self._outbox.submit(Write((event,))):
            _log.error("an event of the gateway was refused by a full queue", type=noun, data=dict(data))

    # -- listen -------------------------------------------------------------------------------------------------

    def tell(self, heard: Heard) -> None:
        """Show something to whoever listens."""
        for listener in list(self.listeners):
            listener(heard)

    def _tell_advert(self, heard: HeardAdvert, device: str, text: str) -> None:
        if not self.listeners:
            return
        advert = heard.advert
        address = advert.address if device else _masked(advert.address)
        self.tell(Heard(heard.link, heard.at, address, device, text, _raw(advert), advert.rssi))


_NO_DRIVER: Final = Advertises("", title=None, decode=None, vectors=())  # type: ignore[arg-type]  # never decodes


def _register(reading: Reading) -> dict[str, object]:
    register: dict[str, object] = {
        "quantity": reading.quantity,
        "channel": reading.channel,
        "value": format(reading.value, "f"),
        "unit": reading.unit,
    }
    if reading.device_time is not None:
        register["device_time"] = reading.device_time.isoformat()
    return register


def in_words(observations: tuple[Observation, ...]) -> str:
    """Return observations for people."""
    parts = []
    for one in observations:
        if isinstance(one, Reading):
            parts.append(f"{one.quantity}{f'[{one.channel}]' if one.channel else ''}={one.value}{one.unit}")
        else:
            level = "" if one.level is None else f"={int(one.level)}"
            parts.append(f"{one.kind.value}{f'[{one.channel}]' if one.channel else ''}{level} {one.code}".rstrip())
    return ", ".join(parts)


def _masked(address: str) -> str:
    """Hide the half of a stranger's address that names the device: the maker's half is enough to recognise a kind."""
    return f"{address[:8]}:··:··:··"


def _raw(advert: Advert) -> str:
    parts = [f"service {key:04x}={value.hex()}" for key, value in advert.service_data.items()]
    parts += [f"maker {key:04x}={value.hex()}" for key, value in advert.manufacturer_data.items()]
    return " ".join(parts)

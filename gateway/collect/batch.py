"""What one message leads to, gathered until it is handed to the outbox as one write: all of it becomes durable, or nothing.

Pure: no IO. Which noun an observation becomes, and in what words, stands here; whether it is told at all is judged before.
Limit: what one message of a driver says, so at most some dozens of events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from drivers.kit import QUANTITIES, Answers, Reading, Signal, SignalKind, SourceNumber
from gateway.alarms import Change, document
from gateway.clock import Stamp
from gateway.collect.desk import Desk
from gateway.events import Event, Origin, encoded, event_of, new_event, quoted
from gateway.outbox import AlarmRow, Mark, MeterDay, Number, Write

_METER: Final = (
    "energy_",
    "voltage",
    "current",
    "power_",
    "frequency",
    "volume",
    "mass",
    "flow",
    "heat_cost",
    "count",
    "demand_",
    "meter_",
    "status_word",
)
_NOUN_OF_SIGNAL: Final = {
    SignalKind.TAMPER: "device.tamper",
    SignalKind.LOW_BATTERY: "device.battery",
    SignalKind.BED_EXIT: "bed.occupancy",
    SignalKind.RESTORED: "device.restored",
    SignalKind.RECOVERED: "device.restored",
    SignalKind.CANCEL: "device.restored",
    SignalKind.OCCUPANCY: "bed.occupancy",
    SignalKind.PROBLEM: "device.fault",
}
# A noun for all that a sensor finds: what is not above, and that a hazard has passed.
_FOUND: Final = "sensor.changed"
_NOTHING: Final[Mapping[tuple[str, str], str]] = {}


@dataclass(slots=True)
class Batch:
    """One message of a device, judged. `doubts` say why it is not verified; `facts` (counter, number) go into every event.

    `each_level_calls`: a call that is on in it may be another press, although it was on before.
    `link`: the radio that heard it; "" for a device that has its line or its topic. `counted`: a counter tells its order.
    """

    desk: Desk
    at: Stamp
    origin: Origin
    doubts: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    alarms: list[AlarmRow] = field(default_factory=list)
    numbers: tuple[Number, ...] = ()
    each_level_calls: bool = False
    link: str = ""
    counted: bool = False
    days: list[MeterDay] = field(default_factory=list)

    @property
    def unordered_by(self) -> str:
        """The radio, where nothing but the order in which it tells things says what was first; else ""."""
        return "" if self.counted else self.link

    @property
    def is_empty(self) -> bool:
        """Is there nothing to store?"""
        return not (self.events or self.marks or self.numbers or self.days)

    def keep(self, mark: Mark | None) -> None:
        """Store what was judged, if something was."""
        if mark is not None:
            self.marks.append(mark)

    def number(self, source: SourceNumber | None, number: Number | None) -> None:
        """Store the number of an input that its source resends; `number` where more is known of it."""
        if source is None:
            return
        self.numbers = (number or Number(self.desk.id, source.session, source.n),)
        self.facts["n"] = source.n
        if source.session:
            self.facts["session"] = source.session

    def tell(self, noun: str, data: Mapping[str, object], *, correlation: str = "") -> None:
        """Add an event of the device; `correlation` is the alarm that it belongs to."""
        full = {**data, "room": self.desk.room, "bed": self.desk.bed, "verified": not self.doubts, **self.facts}
        event = new_event(noun, self.origin, device=self.desk.id, at=self.at, data=full, correlation=correlation)
        self.events.append(event)

    def tell_signal(self, signal: Signal, *, correlation: str = "") -> None:
        """Add the event of a signal that calls nobody, or of a hazard that has passed."""
        data: dict[str, object] = {"kind": signal.kind.value, "code": signal.code, "channel": signal.channel}
        noun = _NOUN_OF_SIGNAL.get(signal.kind, _FOUND)
        if signal.level is not None and noun == "bed.occupancy":
            data["occupied"] = signal.level is (signal.kind is SignalKind.OCCUPANCY)
        elif signal.level is not None and noun == _FOUND:
            data["state"] = "on" if signal.level else "off"
        if signal.detail:
            data["detail"] = signal.detail
        self.tell(noun, data, correlation=correlation)

    def tell_readings(self, readings: Sequence[Reading], more: Mapping[tuple[str, str], str] = _NOTHING) -> None:
        """Add one event for all readings of the message; `more`: JSON members of a register, by quantity and channel.

        They are nearly all that comes, so their text is put together from pieces; `tell` would give the same.
        """
        # What is asked on a bus is a meter, temperatures of a heat meter among its registers or not.
        is_meter = isinstance(self.desk.driver, Answers) or all(_is_of_meter(one.quantity) for one in readings)
        registers = ",".join([_register(one, more.get((one.quantity, one.channel), "")) for one in readings])
        place = _place(self.desk.room, self.desk.bed, not self.doubts)
        facts = "".join([f",{quoted(name)}:{_text(fact)}" for name, fact in self.facts.items()])
        noun = "telemetry.meter" if is_meter else "telemetry.environment"
        members = f'"registers":[{registers}],{place}{facts}'
        self.events.append(event_of(noun, self.origin, device=self.desk.id, at=self.at, members=members))

    def write(self, on_durable: Callable[[], None] | None, on_failed: Callable[[], None] | None = None) -> Write:
        """Return all of it as one write."""
        callback = None if on_durable is None else lambda _rows: on_durable()
        return Write(
            tuple(self.events), tuple(self.marks), self.numbers, tuple(self.alarms), days=tuple(self.days),
            on_commit=callback, on_failed=on_failed,
        )  # fmt: skip


def alarm_row(change: Change) -> AlarmRow:
    """Return an alarm as it is stored."""
    alarm = change.alarm
    return AlarmRow(alarm.id, alarm.state != "CLOSED", alarm.raised.wall_ms, document(alarm))


@lru_cache(maxsize=256)
def _is_of_meter(quantity: str) -> bool:
    return quantity.startswith(_METER)


@lru_cache(maxsize=1024)
def _place(room: str, bed: str, verified: bool) -> str:  # noqa: FBT001 - a key of the cache
    return encoded({"room": room, "bed": bed, "verified": verified})[1:-1]


def _text(fact: object) -> str:
    if type(fact) is int:
        return str(fact)
    return quoted(fact) if isinstance(fact, str) else encoded(fact)


def _register(reading: Reading, more: str) -> str:
    before, after = _around(reading.quantity, reading.channel)
    value = format(reading.value, "f")  # digits, a sign and a point
    if reading.device_time is None:
        return f"{before}{value}{after}{more}}}"
    return f'{before}{value}{after},"device_time":{encoded(reading.device_time.isoformat())}{more}}}'


@lru_cache(maxsize=1024)
def _around(quantity: str, channel: str) -> tuple[str, str]:
    """Return what stands before the value of a register, and after it."""
    before = f'{{"quantity":{quoted(quantity)},"channel":{quoted(channel)},"value":"'
    return before, f'","unit":{quoted(QUANTITIES[quantity].unit)}'

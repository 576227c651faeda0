"""One configured device and what was counted of it.

Limits: `MAX_TOLD` things are remembered as told a short while ago; a radio counts among those that hear a device as long as
it has heard it within `NEAR_S` of whoever heard it last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from drivers.kit import (
    QUANTITIES,
    RAISING,
    Advertises,
    Answers,
    Decoded,
    LineSettings,
    Reading,
    Reason,
    SignalKind,
    Streams,
)
from drivers.kit.quantities import is_transformed
from gateway.clock import Clock

ADVERT_READINGS_S: Final = 900.0
MAX_TOLD: Final = 64
NEAR_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """How a radio heard a device last: `at` on the monotonic clock, the strength in dBm where it is known; and how often."""

    at: float
    rssi: int | None
    heard: int


@dataclass(slots=True)
class Desk:
    """A device as `collect` works with it. `options` is what its driver made of the configuration."""

    id: str
    model: str
    link: str
    address: str
    room: str
    bed: str
    driver: Advertises | Streams | Answers
    options: object
    key: bytes | None = None
    calls_on: tuple[str, ...] | None = None
    alarms_on: tuple[str, ...] = ()
    every_s: float | None = None
    # How its line is set while it is asked, where a line serves several; None: as the line was opened.
    line: LineSettings | None = None
    # Current and voltage transformers before the meter, as ratios.
    ct: Decimal = Decimal(1)
    pt: Decimal = Decimal(1)
    # What the meter calls itself in its replies; "" while nobody knows.
    meter_number: str = ""
    wired: bool = False
    # The driver's options as they stand in the configuration, for people who want to see a frame as its driver does.
    map: Mapping[str, object] = field(default_factory=dict)
    heard: int = 0
    events: int = 0
    repeats: int = 0
    ignored: int = 0
    polls: int = 0
    polls_failed: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    last_heard: float | None = None
    # When what was told last, by what it is about: what a device repeats is told again after a while only.
    last_told: dict[str, float] = field(default_factory=dict)
    last_undecipherable: float | None = None
    receivers: dict[str, Receiver] = field(default_factory=dict)
    battery_percent: float | None = None
    counter: int | None = None

    @property
    def may_call(self) -> bool:
        """May a message that cannot be read be a call for help, or what this device raises an alarm for?"""
        return not isinstance(self.driver, Answers) and (self.driver.may_call or bool(self.alarms_on))

    @property
    def is_meter(self) -> bool:
        """Is it a meter by its kind, whether or not it has ever been read?"""
        if not isinstance(self.driver, Streams):
            return isinstance(self.driver, Answers)
        taken = (vector.expect for vector in self.driver.vectors if isinstance(vector.expect, Decoded))
        said = (one for decoded in taken for one in decoded.observations)
        counts = any(isinstance(one, Reading) and QUANTITIES[one.quantity].cumulative for one in said)
        return counts and self.driver.readings_every_s > 0 and not self.driver.may_call

    def raises(self, kind: SignalKind) -> bool:
        """Does a signal of this kind raise an alarm here?"""
        return kind in RAISING or kind.value in self.alarms_on

    @property
    def by_radio(self) -> bool:
        """Does a receiver on the wire only pass on what it hears in the air?"""
        return isinstance(self.driver, Streams) and self.driver.radio

    @property
    def level_hold_s(self) -> float:
        """How long a level lasts that is not repeated."""
        return 25.0 if isinstance(self.driver, Answers) else self.driver.level_hold_s

    def ratio(self, quantity: str) -> Decimal:
        """By what a reading of this quantity is to be multiplied, for the transformers before the meter."""
        # Not their distortions and harmonics, which are shares.
        if quantity == "current":
            return self.ct
        if quantity == "voltage":
            return self.pt
        return self.ct * self.pt if is_transformed(quantity) else Decimal(1)

    def hear(self, clock: Clock) -> None:
        """Note that the device has spoken."""
        self.heard += 1
        self.last_heard = clock.monotonic()

    def hear_by(self, link: str, rssi: int | None, clock: Clock) -> None:
        """Note that a radio has heard the device."""
        self.hear(clock)
        before = self.receivers.get(link)
        self.receivers[link] = Receiver(clock.monotonic(), rssi, 1 if before is None else before.heard + 1)

    @property
    def best_first(self) -> list[str]:
        """The radios that hear the device now, the one that hears it best first."""
        last = max((one.at for one in self.receivers.values()), default=0.0)
        near = [name for name, one in self.receivers.items() if last - one.at <= NEAR_S]
        return sorted(near, key=lambda name: (-(self.receivers[name].rssi or -999), name))

    @property
    def rssi(self) -> int | None:
        """How strong the device is at the radio that hears it best, in dBm."""
        best = self.best_first
        return self.receivers[best[0]].rssi if best else None

    @property
    def readings_every_s(self) -> float:
        """How often readings that come unasked are published at most; 0: each."""
        if isinstance(self.driver, Advertises):
            return self.every_s or ADVERT_READINGS_S
        return self.driver.readings_every_s if isinstance(self.driver, Streams) else 0.0

    def is_due(self, what: str, now: float, *, every_s: float) -> bool:
        """Is something to be told, or was it told a short while ago? What is due counts as told."""
        last = self.last_told.get(what)
        if last is not None and now - last < every_s:
            return False
        if len(self.last_told) >= MAX_TOLD:
            self.last_told.clear()
        self.last_told[what] = now
        return True

    def reject(self, reason: Reason | str) -> None:
        """Count a refusal: the driver's reason, or "queue-full" or "fault", which are the gateway's own."""
        self.rejects[str(reason)] += 1

    def status(self, clock: Clock, alarm: str | None) -> dict[str, Any]:
        """Return the figures for `gateway status`."""
        return {
            "id": self.id,
            "model": self.model,
            "link": self.link,
            "room": self.room,
            "bed": self.bed,
            "address": self.address,
            "last_heard_s": None if self.last_heard is None else round(clock.monotonic() - self.last_heard, 1),
            "heard": self.heard,
            "events": self.events,
            "repeats": self.repeats,
            "rejects": dict(self.rejects),
            "polls": self.polls,
            "polls_failed": self.polls_failed,
            "rssi": self.rssi,
            "receivers": [
                {
                    "link": name,
                    "rssi": self.receivers[name].rssi,
                    "last_heard_s": round(clock.monotonic() - self.receivers[name].at, 1),
                    "heard": self.receivers[name].heard,
                }
                for name in self.best_first
            ],
            "battery_percent": self.battery_percent,
            "counter": self.counter,
            "alarm": alarm,
        }

"""One configured device and what was counted of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from drivers.kit import Advertises, Answers, Reason, Streams
from gateway.clock import Clock


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
    every_s: float | None = None
    wired: bool = False
    heard: int = 0
    events: int = 0
    repeats: int = 0
    ignored: int = 0
    polls: int = 0
    polls_failed: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    last_heard: float | None = None
    last_readings: float | None = None
    last_undecipherable: float | None = None

    @property
    def may_call(self) -> bool:
        """May an advert that cannot be decrypted be a call for help?"""
        return isinstance(self.driver, Advertises) and self.driver.may_call

    @property
    def level_hold_s(self) -> float:
        """How long a level lasts that is not repeated."""
        return 25.0 if isinstance(self.driver, Answers) else self.driver.level_hold_s

    def hear(self, clock: Clock) -> None:
        """Note that the device has spoken."""
        self.heard += 1
        self.last_heard = clock.monotonic()

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
            "last_heard_s": None if self.last_heard is None else round(clock.monotonic() - self.last_heard, 1),
            "heard": self.heard,
            "events": self.events,
            "repeats": self.repeats,
            "rejects": dict(self.rejects),
            "polls": self.polls,
            "polls_failed": self.polls_failed,
            "alarm": alarm,
        }

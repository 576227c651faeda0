"""One path of a destination: how it stands, how long it has, and how far it is trusted.

Pure: no IO, the time is handed in. A path that did not last `STEADY_S` in use has to stand twice as long before it is
used again instead of a later one: `PROBATION_S` at first, `LONGEST_PROBATION_S` at most.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import SessionError
from gateway.mqtt_session import TAKEN_OVER
from gateway.uplinks.back_off import BackOff
from gateway.uplinks.uplink import Uplink

PROBATION_S: Final = 60.0
LONGEST_PROBATION_S: Final = 3600.0
STEADY_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class PlatformPath:
    """One configured path: its transport at work, and what people are told of it."""

    uplink: Uplink
    host: str
    transport: str


@dataclass(slots=True, eq=False)
class Line:
    """One path and how it stands. `ended` is done when its connection is; `tried`: it stood or failed since it was reset."""

    number: int
    path: PlatformPath
    back_off: BackOff
    since: float
    standing: bool = False
    tried: bool = False
    error: SessionError | None = None
    ended: asyncio.Future[SessionError] | None = None
    used_since: float = 0.0
    proves_at: float = 0.0
    silent_until: float = 0.0
    probation_s: float = PROBATION_S
    may_begin: asyncio.Event = field(default_factory=asyncio.Event)
    alarm: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self, now: float) -> None:
        """Every connection is about to be made anew, or has ended with the others."""
        if self.standing:
            self.standing, self.since, self.error = False, now, None
        self.tried = False
        self.silent_until = 0.0
        self.may_begin.clear()

    def stands(self, now: float) -> None:
        """It is connected."""
        self.standing = self.tried = True
        self.error, self.since = None, now
        self.silent_until = 0.0
        self.proves_at = now + self.probation_s

    def failed(self, error: SessionError) -> None:
        """It cannot be connected."""
        self.tried, self.error = True, error

    def lost(self, error: SessionError, now: float) -> None:
        """Its connection is gone."""
        if now - self.since >= PROBATION_S:
            self.back_off.accepted()
        if error.code == TAKEN_OVER:
            self.back_off.contested(now)
        self.standing, self.error, self.since = False, error, now

    def used(self, now: float) -> None:
        """It is the path in use."""
        self.used_since = now
        self.silent_until, self.error = 0.0, None

    def released(self, now: float) -> None:
        """It is the path in use no longer."""
        steady = now - self.used_since >= STEADY_S
        self.probation_s = PROBATION_S if steady else min(2 * self.probation_s, LONGEST_PROBATION_S)

    def silent(self, now: float) -> None:
        """It is connected, and nothing comes back."""
        self.silent_until = self.proves_at = now + self.probation_s
        self.error = SessionError("GW-PLT-01", self.path.host, error="@hint.path-silent")

    def answers(self) -> bool:
        """The platform answers over it; True if it had been silent."""
        if not self.standing or self.error is None:
            return False
        self.silent_until, self.error = 0.0, None
        return True

    def order(self, now: float) -> tuple[bool, int]:
        """Return by what paths are preferred: the lowest first."""
        return now < self.silent_until, self.number

    def status(self, now: float, *, in_use: bool, cold: bool = False) -> dict[str, Any]:
        """Return how it stands, for `gateway status`. `cold`: it is not dialled while another one stands."""
        state = "in use" if in_use else "standby"
        return {
            "url_host": self.path.host,
            "transport": self.path.transport,
            "state": state if self.standing or cold else "down",
            "code": self.error.code if self.error is not None and not cold else "",
            "since_s": round(now - self.since, 1),
        }

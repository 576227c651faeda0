"""What a platform has asked of us over HTTP, kept from one session to the next: waits, and how much at a time.

Pure: no IO, the time is handed in. An alarm waits for what was said to an alarm, not for what was said to a batch; a
batch waits for both. Limits: without a Retry-After an alarm waits 5 s at most and everything else 300 s, with full
jitter (northbound rule 4); a batch has between 1 and 100 events, is halved when one was too much, and grows by 10 with
each that was taken whole.
"""

from __future__ import annotations

import random
from typing import Final

from gateway.uplinks.back_off import jittered

MOST_EVENTS: Final = 100
_GROWTH: Final = 10
_random = random.Random()  # noqa: S311 - jitter, not a secret


class Courtesy:
    """Waits in seconds on whatever clock `now` is of."""

    def __init__(self) -> None:
        self.part_events = MOST_EVENTS
        self._alarm_until = self._bulk_until = self._session_until = 0.0
        self._refusals = self._misplacements = 0

    def alarm_wait(self, now: float) -> float:
        """How long alarms have to wait still."""
        return max(0.0, self._alarm_until - now)

    def bulk_wait(self, now: float) -> float:
        """How long everything else has to wait still."""
        return max(0.0, self._bulk_until - now, self._alarm_until - now)

    def session_wait(self, now: float) -> float:
        """How long a new session has to wait still; only where the platform named a time."""
        return max(0.0, self._session_until - now)

    def refused(self, now: float, *, after_s: float | None, alarm: bool) -> None:
        """The platform is overloaded: everything waits, alarms only if it said so to an alarm."""
        self._refusals += 1
        if alarm:
            hold = jittered(self._refusals, alarm=True) if after_s is None else after_s
            self._alarm_until = max(self._alarm_until, now + hold)
        # Hundreds of gateways were told the same time: a tenth of it lies between the first and the last to return.
        hold = jittered(self._refusals, alarm=False) if after_s is None else after_s * _random.uniform(1.0, 1.1)
        self._bulk_until = max(self._bulk_until, now + hold)

    def misplaced(self, now: float) -> bool:
        """The address for batches is wrong: they wait, longer each time; True when that is news."""
        self._misplacements += 1
        self._bulk_until = max(self._bulk_until, now + jittered(self._misplacements, alarm=False))
        return self._misplacements == 1

    def placed(self) -> None:
        """A batch was taken at its address."""
        self._misplacements = 0

    def not_now(self, now: float, *, after_s: float | None) -> None:
        """The platform takes no session at the moment."""
        self._session_until = now + (after_s or 0.0)

    def alarms_may_go(self) -> None:
        """The wait for alarms is over; timers may be a clock tick early."""
        self._alarm_until = 0.0

    def taken(self, events: int) -> None:
        """The platform has taken a message with so many events."""
        self._refusals = 0
        if events >= self.part_events:
            self.part_events = min(MOST_EVENTS, self.part_events + _GROWTH)

    def too_much(self, events: int) -> None:
        """So many events in one message were too many."""
        self.part_events = max(1, min(self.part_events, events // 2))

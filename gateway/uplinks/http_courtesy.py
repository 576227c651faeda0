"""What a platform has asked of us over HTTP, kept from one session to the next: waits, and how much at a time.

Pure: no IO, the time is handed in. An alarm waits for what was said to an alarm, not for what was said to a batch; a
batch waits for both. Limits: without a Retry-After an alarm waits 5 s at most and everything else 300 s, with full
jitter (northbound rule 4); a batch has between 1 and 100 events, is halved when one was too much, and grows by 10 with
each that was taken whole. An address that refuses us (it is not there, or is closed to this login) holds up what goes there
and nothing else, up to 300 s at a time; the last `MOST_PLACES` such addresses are remembered.
"""

from __future__ import annotations

import random
from typing import Final

from gateway.uplinks.back_off import jittered

MOST_EVENTS: Final = 100
MOST_PLACES: Final = 64
_GROWTH: Final = 10
_random = random.Random()  # noqa: S311 - jitter, not a secret


class Courtesy:
    """Waits in seconds on whatever clock `now` is of."""

    def __init__(self) -> None:
        self.part_events = MOST_EVENTS
        self._alarm_until = self._bulk_until = self._session_until = 0.0
        self._refusals = 0
        self._shut: dict[str, tuple[int, float]] = {}  # how often in a row, and until when, by address
        self._asked_anew: set[str] = set()

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

    def place_wait(self, url: str, now: float) -> float:
        """How long what goes to an address has to wait still, because that address refused us."""
        return max(0.0, self._shut.get(url, (0, 0.0))[1] - now)

    def shut(self, url: str, now: float) -> bool:
        """An address refuses us: what goes there waits, longer each time; True when that is news."""
        times = self._shut.pop(url, (0, 0.0))[0] + 1
        self._shut[url] = (times, now + jittered(times, alarm=False))
        while len(self._shut) > MOST_PLACES:
            del self._shut[next(iter(self._shut))]
        return times == 1

    def logs_in_anew(self, url: str) -> bool:
        """An address is closed to our login: is it the first time, so that the credential is to be read anew (rule 7)?"""
        is_first = url not in self._asked_anew
        if len(self._asked_anew) >= MOST_PLACES:
            self._asked_anew.clear()
        self._asked_anew.add(url)
        return is_first

    def open(self, url: str) -> bool:
        """Something was taken at an address; True when it had refused us before."""
        self._asked_anew.discard(url)
        return self._shut.pop(url, None) is not None

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

"""How long to wait before the next attempt (northbound rules 4 and 5): full jitter, shorter while an alarm is pending.

`uniform(0, min(cap, 1 s * 2^n))` with a cap of 300 s, of 5 s while an alarm is pending. After an established session the
first wait is `uniform(0, spread)` instead, 2 s at most with an alarm: hundreds of gateways come back to one platform.
Two clients that throw each other out would do so for ever, each with success in between: after a session that another
client took over, the wait doubles by the number of such losses within 15 minutes.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

CAP_S: Final = 300.0
CAP_ALARM_S: Final = 5.0
FIRST_ALARM_S: Final = 2.0
CONTEST_MEMORY_S: Final = 900.0
_random = random.Random()  # noqa: S311 - jitter, not a secret


class BackOff:
    """The waits of one destination. It begins anew when an event was accepted, not when a connection stood."""

    def __init__(self, spread_s: float) -> None:
        self._spread_s = spread_s
        self._failures = 0
        self._contests = 0
        self._contested_at: float | None = None
        self._is_contested = False

    def accepted(self) -> None:
        """The platform takes events: the next failure is the first again."""
        self._failures = 0

    def contested(self, now: float) -> None:
        """Another client has taken the session over, at `now` in seconds."""
        recent = self._contested_at is not None and now - self._contested_at < CONTEST_MEMORY_S
        self._contests = self._contests + 1 if recent else 1
        self._contested_at = now
        self._is_contested = True

    async def sleep(self, *, established: bool, pending: bool, alarm: asyncio.Event) -> None:
        """Wait before the next attempt; an `alarm` that comes meanwhile shortens the wait (`pending`: it is there)."""
        wait = self.next_wait(established=established, alarm=pending)
        if not pending:
            alarm.clear()
            time = asyncio.get_running_loop().time
            until = time() + wait
            try:
                async with asyncio.timeout(wait):
                    await alarm.wait()
            except TimeoutError:
                return
            wait = self.shortened(until - time(), established=established)
        await asyncio.sleep(wait)

    def next_wait(self, *, established: bool, alarm: bool) -> float:
        """Return how long to wait in seconds, after one more failed attempt or one lost session."""
        wait = _random.uniform(0, self._most(established=established, alarm=alarm))
        if established and self._failures:  # sessions that end before anything is accepted are failures, too
            wait = max(wait, jittered(self._failures, alarm=alarm))
        if self._is_contested:
            self._is_contested = False
            wait = max(wait, jittered(self._contests, alarm=alarm))
        self._failures += 1
        return wait

    def shortened(self, remaining_s: float, *, established: bool) -> float:
        """Return how long to wait still when an alarm comes meanwhile: never longer than it would have been."""
        return min(remaining_s, _random.uniform(0, self._most(established=established, alarm=True)))

    def _most(self, *, established: bool, alarm: bool) -> float:
        if established:
            return min(FIRST_ALARM_S, self._spread_s) if alarm else self._spread_s
        return most(self._failures, alarm=alarm)


def most(failures: int, *, alarm: bool) -> float:
    """Return the longest wait after so many failures, in seconds."""
    return min(CAP_ALARM_S if alarm else CAP_S, 2.0 ** min(failures, 10))


def jittered(failures: int, *, alarm: bool) -> float:
    """Return a wait after so many failures, in seconds."""
    return _random.uniform(0, most(failures, alarm=alarm))

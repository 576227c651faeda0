"""How politely a backlog is drained (northbound rule 16): it makes way for alarms, and goes no faster than it is taken.

Pure: no IO, the time is handed in. While an alarm is pending nothing of the backlog is sent, but for `PAUSE_S` at most:
an alarm that a platform keeps putting off would stop it for ever. After that it waits only while an alarm is on the wire
for the first time. Messages under way: one more for each window that was taken in time, half as many when a message was
put off or took longer than `SLOW_S` and four times the quickest; between `LEAST` and `MOST`, from `FIRST` on. One that is
never answered is no sign of haste (its batch is halved): it must not take the place of all others, so `LEAST` is two.
"""

from __future__ import annotations

import math
from typing import Final

PAUSE_S: Final = 60.0
FIRST: Final = 8.0
LEAST: Final = 2.0
MOST: Final = 64.0
SLOW_S: Final = 1.0
_SLOW_TIMES: Final = 4.0


class Drain:
    """The backlog of one destination."""

    def __init__(self) -> None:
        self._window = FIRST
        self._quickest = math.inf
        self._halved_at = -math.inf
        self._paused_since: float | None = None

    @property
    def window(self) -> int:
        """How many messages of the backlog may be under way."""
        return int(self._window)

    def waits(self, now: float, *, alarm_pending: bool, alarm_is_new: bool) -> bool:
        """Must it make way? `alarm_is_new`: one is on the wire for the first time."""
        if not alarm_pending:
            self._paused_since = None
            return False
        if self._paused_since is None:
            self._paused_since = now
        return alarm_is_new or now < self._paused_since + PAUSE_S

    def next_time(self, now: float) -> float | None:
        """Return when it may go on although an alarm is pending; None where that is no matter of time."""
        until = None if self._paused_since is None else self._paused_since + PAUSE_S
        return until if until is not None and until > now else None

    def taken(self, sent_at: float, now: float) -> None:
        """A message was answered whole."""
        seconds = now - sent_at
        if seconds > max(SLOW_S, _SLOW_TIMES * self._quickest):
            self._halve(sent_at, now)
        elif sent_at >= self._halved_at:
            self._window = min(MOST, self._window + 1 / self._window)
        self._quickest = min(self._quickest, seconds)

    def put_off(self, sent_at: float, now: float) -> None:
        """The platform asked to wait with something of a message."""
        self._halve(sent_at, now)

    def begin_session(self) -> None:
        """Another connection, perhaps over another path."""
        self._quickest, self._paused_since = math.inf, None

    def _halve(self, sent_at: float, now: float) -> None:
        if sent_at >= self._halved_at:  # what was on its way before it was halved has been answered by that already
            self._window = max(LEAST, self._window / 2)
            self._halved_at = now

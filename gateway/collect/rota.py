"""Whose turn it is on a bus: who has waited longest beyond his time, with the dead ones held to their share of the line.

The theoretical cycle of one exchange takes (request + reply) * bits a byte / baud, the time that the meter thinks, and the
quiet time of the bus. A meter that does not answer costs its whole time-out instead, ten times as much at 2400 baud: so
who has failed is asked only while the failures have had less than `DOUBTFUL_SHARE` of the line's time, or while nobody
else wants the line for as long as it takes. Where meters have settings of their own, those with the settings that the port
has now come first, for `HOLD_S` at most while others wait.

Pure: no clock, no IO. Limit: what a first round costs with meters that have never answered is not bounded by the share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from drivers.kit import LineSettings
from gateway.collect.desk import Desk

DOUBTFUL_SHARE: Final = 0.05
HOLD_S: Final = 10.0
# What a poll that failed is taken to cost before one was measured.
COST_S: Final = 2.0


@dataclass(slots=True)
class Turn:
    """One device of a bus: when it is next, on the monotonic clock, and how often in a row it has failed."""

    desk: Desk
    every_s: float
    next_at: float
    settings: LineSettings | None = None
    failed: int = 0
    answered: bool = False
    cost_s: float = COST_S

    @property
    def doubtful(self) -> bool:
        """Did its last poll fail?"""
        return self.failed > 0


class Rota:
    """The turns of one bus."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.turns = tuple(turns)
        self._settings: LineSettings | None = None
        self._since = 0.0
        # From when on the failures have had no more than their share.
        self._paid_at = 0.0

    def next(self, now: float) -> tuple[Turn, float]:
        """Return who is next, and in how many seconds (0: now)."""
        due = [one for one in self.turns if one.next_at <= now and self._may(one, now)]
        if not due:
            soonest = min(self.turns, key=self._when)
            return soonest, max(0.001, self._when(soonest) - now)
        longest = min(due, key=lambda one: one.next_at)
        same = [one for one in due if one.settings == self._settings]
        if same and now - self._since < HOLD_S:
            return min(same, key=lambda one: one.next_at), 0.0
        return longest, 0.0

    def begins(self, turn: Turn, now: float) -> None:
        """Note that a device is asked now."""
        if turn.settings != self._settings or now - self._since >= HOLD_S:
            self._settings, self._since = turn.settings, now

    def failed(self, turn: Turn, *, took_s: float, now: float) -> None:
        """Note what a poll has cost that brought nothing."""
        turn.cost_s = took_s
        self._paid_at = max(self._paid_at, now - took_s) + took_s / DOUBTFUL_SHARE

    def _when(self, turn: Turn) -> float:
        """When a device may be asked: a doubtful one later than it wants to, unless the line is free for as long as it takes."""
        if not turn.doubtful or turn.next_at >= self._paid_at:
            return turn.next_at
        free_until = min((one.next_at for one in self.turns if not one.doubtful), default=math.inf)
        return turn.next_at if free_until - turn.next_at >= turn.cost_s else self._paid_at

    def _may(self, turn: Turn, now: float) -> bool:
        if not turn.doubtful or now >= self._paid_at:
            return True
        free_until = min((one.next_at for one in self.turns if not one.doubtful), default=math.inf)
        return free_until - now >= turn.cost_s

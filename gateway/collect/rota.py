"""Whose turn it is on a bus: who has waited longest beyond his time, with the dead ones held to their share of the line.

The theoretical cycle of one exchange takes (request + reply) * bits a byte / baud, the time that the meter thinks, and the
quiet time of the bus. A meter that does not answer costs its whole time-out instead, ten times as much at 2400 baud: so
who has failed is asked only while the failures have had less than their share of the line's time (`LEAST_SHARE`, more
where that would not do for a question each `ROUND_S`, `MOST_SHARE` at most), or while nobody else wants the line for as long as
it takes. While somebody does, who is doubted is given up as soon as a meter of his kind would surely have begun to speak:
`silence_s`, learned from `WITNESSES` of them at least, never less than a standard allows for thinking, nor than twice what the
doubted one himself took when he answered. But the second of four polls is always made in full: a meter may be slower than all
others. A request to which a meter that answers others was silent `DEAF_POLLS` times is asked once a poll, and given up so
soon, too (of `DEAF_REQUESTS` of them that is kept in mind).

Where meters have settings of their own, those with the settings that the port has now come first, for `HOLD_S` at most
while others wait.

Pure: no clock, no IO. Limit: what a first round costs with meters that have never answered is not bounded by the share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from drivers.kit import LineSettings
from gateway.collect.desk import Desk

LEAST_SHARE: Final = 0.02
MOST_SHARE: Final = 0.05
ROUND_S: Final = 300.0
WITNESSES: Final = 2
DEAF_POLLS: Final = 2
DEAF_REQUESTS: Final = 32
# DL/T 645-2007, 5.4: a meter thinks for 500 ms at most; EN 13757-2, 5.7.1: for 330 bit times and 50 ms. The rest is for an
# adapter and this machine.
SILENCE_S: Final = 0.6
THINKING_BITS: Final = 330
# A reply begins as its request did (FE FE FE FE 68, the address, 68): until then it may be an echo, and is not heard.
ALIKE_BITS: Final = 20 * 11
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
    # The longest that it ever took to begin its answer.
    first_s: float = 0.0
    # Requests without a reply, and how often in a row: some meters are silent to blocks, and answer for single values.
    deaf_to: dict[bytes, int] = field(default_factory=dict)

    @property
    def doubtful(self) -> bool:
        """Did its last poll fail?"""
        return self.failed > 0

    @property
    def in_full(self) -> bool:
        """Is it to be asked with all patience, whoever else waits?"""
        return (self.answered and not self.failed) or self.failed % 4 == 1

    def is_deaf_to(self, request: bytes) -> bool:
        """Was it silent to this request `DEAF_POLLS` times in a row, while it answered others?"""
        return self.answered and not self.failed and self.deaf_to.get(request, 0) >= DEAF_POLLS

    def was_deaf(self, request: bytes) -> None:
        """Note that a request had no reply."""
        if len(self.deaf_to) < DEAF_REQUESTS or request in self.deaf_to:
            self.deaf_to[request] = self.deaf_to.get(request, 0) + 1

    def heard(self, request: bytes, first_s: float) -> None:
        """Note that a request had a reply, and how long it took to begin."""
        self.deaf_to.pop(request, None)
        self.first_s = max(self.first_s, first_s)


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
        doubtful = sum(one.doubtful or one is turn for one in self.turns)
        wait_s = min(took_s / LEAST_SHARE, ROUND_S / doubtful)
        self._paid_at = now - took_s + max(wait_s, took_s / MOST_SHARE)

    def silence_s(self, turn: Turn, now: float, *, to: bytes) -> float | None:
        """Return after how long without a byte a request is given up now, in seconds; None: after its whole time-out."""
        in_full = turn.in_full and not turn.is_deaf_to(to)
        if in_full or not self._is_awaited(turn, now):
            return None
        kin = [one.first_s for one in self.turns if one.answered and not one.doubtful and self._is_kin(one, turn)]
        if len(kin) < WITNESSES or turn.settings is None:
            return None
        baud = turn.settings.baud
        # Who is known to be slow is not judged by the quick.
        slowest = max(*kin, turn.first_s)
        return max(SILENCE_S + ALIKE_BITS / baud, 0.1 + (THINKING_BITS + ALIKE_BITS) / baud, 2 * slowest)

    def _is_awaited(self, turn: Turn, now: float) -> bool:
        """Does anybody who is not doubted want the line before this device is given up?"""
        until = now + turn.cost_s
        return any(one.next_at <= until for one in self.turns if one is not turn and not one.doubtful)

    @staticmethod
    def _is_kin(one: Turn, other: Turn) -> bool:
        return one.desk.model == other.desk.model and one.settings == other.settings

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

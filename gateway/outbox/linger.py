"""For how long a commit may wait, because another one soon costs the card twice as much.

Telemetry that nobody waits for may wait for company; confirmations ride on the next commit, or go by themselves after a
while: those of alarms and faults soon, those of telemetry later, because all that their loss costs is that a few rows
are sent again after a crash. What anybody waits for takes everything along at once, but begins no sooner than `SPACING_S`
after the commit before: one that comes alone waits for nothing, of a stream several share a commit. Alarms never wait. What
is what is judged by `Intake`.

Rows that may leave are no part of a commit that holds an alarm, which would take several times as long: they go in one of
their own soon after, or along with the next alarm where these come so thick that there is no time for that.

Pure: no IO, the time is given. Limits: `SPACING_S`; `CURSOR_LINGER_S`; confirmed telemetry, up to `CURSOR_ROWS`,
`TELEMETRY_LINGERS` times as long as telemetry itself; `DELETE_PAUSE_S` between the steps of a deletion, and for one that an
alarm went before; `KEPT_BACK_S`, then an alarm waits for it.
"""

from __future__ import annotations

from typing import Final

# About what a commit takes on a card: a sender that waits for each acknowledgement gains little where this is left out.
SPACING_S: Final = 0.02
CURSOR_LINGER_S: Final = 1.0
CURSOR_ROWS: Final = 20
TELEMETRY_LINGERS: Final = 6
DELETE_PAUSE_S: Final = 0.1
KEPT_BACK_S: Final = 1.0


class Linger:
    """Since when what lingers. `telemetry_s` is how long telemetry may wait; 0: not at all."""

    def __init__(self, telemetry_s: float) -> None:
        self._telemetry_s = telemetry_s
        self._submitted_at = self._confirmed_at = 0.0
        self._committed_at = -SPACING_S
        self._kept_back_at: float | None = None
        self._rows = 0

    def submitted(self, now: float) -> None:
        """Something was submitted while nothing waited."""
        self._submitted_at = now

    def confirmed(self, rows: int, *, now: float, is_first: bool) -> bool:
        """Rows were confirmed, the first since the last commit or more of them; is there less time from now on?"""
        if is_first:
            self._confirmed_at, self._rows = now, 0
        before, self._rows = self._rows, self._rows + rows
        return is_first or before <= CURSOR_ROWS < self._rows

    def committed(self, now: float) -> None:
        """A commit begins: what is left to be deleted after it waits from here on."""
        self._committed_at = self._confirmed_at = now
        self._rows = 0

    def keeps_back(self, now: float, *, is_deletable: bool, is_urgent: bool) -> bool:
        """A commit begins that could delete rows, or could not: is that to be left to a later one?"""
        if not (is_deletable and is_urgent):
            self._kept_back_at = None
            return False
        if self._kept_back_at is None:
            self._kept_back_at = now
        if now < self._kept_back_at + KEPT_BACK_S:
            return True
        self._kept_back_at = None
        return False

    def spacing_s(self, now: float) -> float:
        """Return how long the next commit waits for others to come, if somebody waits for it."""
        return min(SPACING_S, max(0.0, self._committed_at + SPACING_S - now))

    def left_s(
        self, now: float, *, is_waiting: bool, is_confirmed: bool, is_deletable: bool, is_soon: bool
    ) -> float | None:
        """Return how long the next commit can wait, None: for ever. `is_soon`: what is confirmed is not telemetry alone."""
        ends = []
        if is_waiting:
            ends.append(self._submitted_at + self._telemetry_s)
        if is_confirmed or is_deletable:
            is_late = is_confirmed and not is_soon and self._rows <= CURSOR_ROWS
            late_s = max(CURSOR_LINGER_S, TELEMETRY_LINGERS * self._telemetry_s)
            ends.append(self._confirmed_at + (late_s if is_late else CURSOR_LINGER_S))
        if is_deletable and self._kept_back_at is not None:
            ends.append(self._kept_back_at + DELETE_PAUSE_S)
        return max(0.0, min(ends) - now) if ends else None

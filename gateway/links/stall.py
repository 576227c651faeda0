"""Notices that a port takes no bytes any more: a stuck USB adapter, a peer that holds its flow control, a full far end.

The line may still be heard, so it is not lost; but nobody on it is asked or acknowledged. Opening the port anew frees some
adapters and costs a fraction of a second of hearing, so it is done, but ever more rarely.
Limits: told after 5 s; opened anew after 30 s, then 2 min, 8 min, 32 min, then every hour.
"""

from __future__ import annotations

from typing import Final

TOLD_AFTER_S: Final = 5.0
FIRST_REOPENING_S: Final = 30.0
SLOWEST_REOPENING_S: Final = 3600.0
_SLOWER: Final = 4.0


class Stall:
    """Fed with what was written and what is still unsent, now and then; times are seconds of a monotonic clock.

    `lasts` says that the port takes nothing; it outlives a reopening, until bytes have gone out again.
    """

    def __init__(self) -> None:
        self.lasts = False
        self._sent = -1
        self._since = 0.0
        self._reopen_after_s = FIRST_REOPENING_S

    def look(self, *, written: int, unsent: int, now: float) -> None:
        """Judge by how many bytes were ever written, and how many of them wait."""
        sent = written - unsent
        if sent != self._sent or not unsent:
            moved = sent > self._sent
            self._sent, self._since = sent, now
            if moved:
                self.lasts = False
                self._reopen_after_s = FIRST_REOPENING_S
        elif now - self._since >= TOLD_AFTER_S:
            self.lasts = True

    def waited_s(self, now: float) -> float:
        """How long nothing has gone out."""
        return now - self._since

    def wants_reopening(self, now: float) -> bool:
        """Whether it is time to open the port anew."""
        return self.lasts and now - self._since >= self._reopen_after_s

    def reopened(self, *, written: int, now: float) -> None:
        """The port is opened anew; what was unsent is gone."""
        self._sent, self._since = written, now
        self._reopen_after_s = min(self._reopen_after_s * _SLOWER, SLOWEST_REOPENING_S)

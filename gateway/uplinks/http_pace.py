"""How long a session over HTTP waits, and for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """The times of a session in seconds. Alarms and the others end within what a deliverer waits: 10 s and 30 s."""

    open: float = 15.0
    alarm: float = 8.0
    hedge: float = 3.0  # an alarm unanswered for so long goes over a fresh connection, too
    bulk: float = 20.0
    probe: float = 5.0
    brief: float = 5.0  # a wait that a message makes here; for a longer one it goes back
    sign_of_life: float = 60.0
    look: float = 5.0  # how often an idle connection is looked at: one that was cut is tried at once,
    early: float = 20.0  # but so long after the last sign of life at the earliest
    jitter: float = 5.0  # together less than the 75 s after which nginx closes an idle connection
    farewell: float = 1.0  # how long a refused alarm waits for the answers to others before the session ends
    goodbye: float = 2.0

"""How the application behaves: well, or in one of the ways in which real platforms behave badly. Switched at run time.

Several ways can be on at once. `accept` ends refusing and rejecting, `remember` forgetting, `unstall` stalling.
Limits: chances from 0 to 1, delays from 0 to 60,000 ms, 1,000 types and 1,000 ids to reject.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from simulator.platform.contract import noun_of

MAX_MS: Final = 60_000
MAX_PATTERNS: Final = 1_000
MAX_SECONDS: Final = 24 * 3600.0


class Conduct:
    """The modes. Every method that sets one raises ValueError for a number out of its limits."""

    def __init__(self) -> None:
        self.refusing = False
        self.retry_after_ms: int | None = None
        self.released = asyncio.Event()
        self.released.set()
        self.slow_s = 0.0
        self.doubling = False
        self._refuse_chance = 0.0
        self._forget_chance = 0.0
        self._forget_until = float("inf")
        self._mute_chance = 0.0
        self._chance = random.Random(0)  # noqa: S311 - a rehearsal that can be repeated
        self._types: tuple[str, ...] = ()
        self._ids: frozenset[str] = frozenset()
        self.reject_code = "unwanted"
        self._to_poison = 0
        self._poisoned: set[str] = set()

    # -- what can be switched -----------------------------------------------------------------------------------

    def refuse(self, *, retry_after_ms: int | None = None) -> None:
        """Answer `retry` to everything."""
        self.retry_after_ms = None if retry_after_ms is None else int(within("retry_after_ms", retry_after_ms, MAX_MS))
        self.refusing = True

    def refuse_some(self, p: float, *, seed: int = 0, retry_after_ms: int | None = None) -> None:
        """Answer `retry` to an event with chance `p`."""
        self.retry_after_ms = None if retry_after_ms is None else int(within("retry_after_ms", retry_after_ms, MAX_MS))
        self._refuse_chance = within("p", p, 1)
        self._chance.seed(seed)

    def reject(self, *, types: Sequence[str] = (), ids: Sequence[str] = (), code: str = "unwanted") -> None:
        """Answer `rejected` to these types (patterns over "alarm.raised") and these ids."""
        types, ids = _words("types", types), _words("ids", ids)
        self._types, self._ids, self.reject_code = types, frozenset(ids), str(code)

    def poison(self, n: int = 1) -> None:
        """Never accept the next `n` events of telemetry: over HTTP the whole batch that holds one is answered 400."""
        self._to_poison = int(within("n", n, MAX_PATTERNS))

    def accept(self) -> None:
        """End `refuse`, `refuse_some` and `reject`."""
        self.refusing = False
        self._refuse_chance = 0.0
        self.reject()

    def stall(self) -> None:
        """Receive, but decide and answer nothing until `unstall`."""
        self.released.clear()

    def unstall(self) -> None:
        """Go on, with what has waited first."""
        self.released.set()

    def forget(self, p: float = 1.0, *, seconds: float | None = None, seed: int = 0) -> None:
        """Lose a whole message with chance `p`, for `seconds` or until `remember`: neither stored nor answered."""
        self._forget_chance = within("p", p, 1)
        self._forget_until = (
            float("inf") if seconds is None else time.monotonic() + within("seconds", seconds, MAX_SECONDS)
        )
        self._chance.seed(seed)

    def remember(self) -> None:
        """End `forget`."""
        self._forget_chance = 0.0

    def slow(self, ms: float) -> None:
        """Take so long for each message; 0 ends it."""
        self.slow_s = within("ms", ms, MAX_MS) / 1000

    def double_acks(self, *, on: bool) -> None:
        """Send every answer twice."""
        self.doubling = on

    def mute(self, p: float = 1.0, *, seed: int = 0) -> None:
        """Decide and store, but lose the answer with chance `p`; 0 ends it."""
        self._mute_chance = within("p", p, 1)
        self._chance.seed(seed)

    # -- what the application asks ------------------------------------------------------------------------------

    def forgets(self) -> bool:
        """Is this message lost?"""
        return (
            self._forget_chance > 0
            and time.monotonic() < self._forget_until
            and self._chance.random() < self._forget_chance
        )

    def refuses(self) -> bool:
        """Is this event to be sent again (by chance)?"""
        return self._refuse_chance > 0 and self._chance.random() < self._refuse_chance

    def rejects(self, event_id: str, type_: str) -> bool:
        """Is this event unwanted?"""
        if event_id in self._ids:
            return True
        return bool(self._types) and any(fnmatchcase(noun_of(type_), pattern) for pattern in self._types)

    def poisons(self, event_id: str, type_: str) -> bool:
        """Is this event one that is never accepted? Once so, it stays so."""
        if self._to_poison and event_id not in self._poisoned and noun_of(type_).startswith("telemetry."):
            self._to_poison -= 1
            self._poisoned.add(event_id)
        return event_id in self._poisoned

    def mutes(self) -> bool:
        """Is this answer lost?"""
        return self._mute_chance > 0 and self._chance.random() < self._mute_chance

    def stats(self) -> dict[str, Any]:
        """Return what is switched on."""
        return {
            "refusing": self.refusing,
            "refuse_p": self._refuse_chance,
            "reject_types": list(self._types),
            "reject_ids": len(self._ids),
            "poisoned": len(self._poisoned),
            "stalled": not self.released.is_set(),
            "forget_p": self._forget_chance if time.monotonic() < self._forget_until else 0.0,
            "mute_p": self._mute_chance,
            "slow_ms": round(self.slow_s * 1000, 3),
            "double_acks": self.doubling,
        }


def within(name: str, value: object, limit: float) -> float:
    """Return a number from 0 to `limit`. ValueError, naming it, for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
        raise ValueError(f"{name} = {value!r}: a number from 0 to {limit:g}")
    return float(value)


def _words(name: str, value: object) -> tuple[str, ...]:
    if (
        not isinstance(value, list | tuple)
        or len(value) > MAX_PATTERNS
        or not all(isinstance(word, str) for word in value)
    ):
        raise ValueError(f"{name}: a list of at most {MAX_PATTERNS} texts")
    return tuple(value)

"""Judges the numbers of inputs that a source resends until they are acknowledged: new, a repeat, or used again.

A number that is durable comes again because its acknowledgement was lost. Not so in two cases; then it is another event,
and the source is told of as one that uses its numbers again (GW-SEC-04):

- it says something else than before;
- it has no session, and its acknowledgement had surely been received: a source repeats what was not acknowledged at
  least every `SETTLED_S`, so one that went on for so long on the same connection, and did not, had it. A device that
  counts from 1 after each start says the same of each press: only this tells its second first press from a repeat.

From then on all its other numbers are new, too, also those that come before the first of them is durable.
What says the same within `SETTLED_S`, or after a connection that has lasted less, is taken as a repeat; with a session it
always is.
Limits: a source without a session has at most 4,096 numbers of the last `SETTLED_S` in memory; the oldest give way.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from enum import Enum
from hashlib import blake2b
from typing import Final

from drivers.kit import Decoded, Reading
from gateway.clock import Clock
from gateway.outbox import Number, NumberState, Outbox

SETTLED_S: Final = 60.0
MAX_RECENT: Final = 4_096

Key = tuple[str, str, int]
"""Device, session, number."""


class Standing(Enum):
    """What a numbered input is. WAITING: it is on its way to the disk."""

    NEW = "new"
    WAITING = "waiting"
    DURABLE = "durable"
    REUSED = "reused"


class Numbering:
    """The numbers of one line."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._waiting: dict[Key, set[int]] = {}
        # By device: what was durable or repeated lately, the oldest first, with when, and the digest.
        self._recent: dict[str, OrderedDict[int, tuple[float, int]]] = {}
        self._settled: dict[str, int] = {}
        # How many numbers that are used again are on their way to the disk, by device and session.
        self._anew: Counter[tuple[str, str]] = Counter()
        self._is_live = True

    def standing(self, key: Key, digest: int) -> Standing:
        """Judge a number that came, and what it says."""
        device, session, n = key
        waiting = self._waiting.get(key)
        if waiting is not None:
            return Standing.WAITING if digest in waiting else Standing.REUSED
        if self._anew[device, session]:
            return Standing.NEW  # what the disk knows is void as soon as that one is there
        settled = self._settle(device) if not session else -1
        state = self._outbox.number_state(device, session, n, digest=digest)
        if state is NumberState.REUSED:
            return Standing.REUSED
        if state is not NumberState.DURABLE:
            return Standing.NEW
        if session:
            return Standing.DURABLE
        recent = self._recent.setdefault(device, OrderedDict())
        if n <= settled and n not in recent:
            return Standing.REUSED
        self._note(recent, n, digest)
        return Standing.DURABLE

    def begin(self, key: Key, digest: int, *, anew: bool) -> Number:
        """A number goes to the disk; return what is stored of it. `anew`: its source uses its numbers again."""
        device, session, n = key
        self._waiting.setdefault(key, set()).add(digest)
        if anew:
            self._anew[device, session] += 1
            if not session:
                self._recent.pop(device, None)
                self._settled[device] = -1
        settled = -1 if session or anew else self._settled.get(device, -1)
        return Number(device, session, n, digest, settled, anew)

    def end(self, number: Number, *, durable: bool) -> None:
        """It is on the disk, or was refused."""
        device, session, n, digest = number.device, number.session, number.n, number.digest
        key = (device, session, n)
        if number.anew:
            self._anew[device, session] -= 1
            self._anew += Counter()  # forgets what has come down to nothing
        waiting = self._waiting.get(key, set())
        waiting.discard(digest)
        if not waiting:
            self._waiting.pop(key, None)
        if durable and not session:
            self._note(self._recent.setdefault(device, OrderedDict()), n, digest)

    def lost(self) -> None:
        """The line is gone, or not read for a while: what is settled by now stays so, for the rest no time passes."""
        if self._is_live:
            self._is_live = False
            for device in list(self._recent):
                self._settle(device)

    def regained(self) -> None:
        """The line is there again: what was not acknowledged may come from now on."""
        self._is_live = True
        now = self._clock.monotonic()
        for recent in self._recent.values():
            for n, (_at, digest) in recent.items():
                recent[n] = (now, digest)

    def _note(self, recent: OrderedDict[int, tuple[float, int]], n: int, digest: int) -> None:
        recent[n] = (self._clock.monotonic(), digest)
        recent.move_to_end(n)
        if len(recent) > MAX_RECENT:
            recent.popitem(last=False)

    def _settle(self, device: str) -> int:
        """Settle what was not repeated for long enough; return up to where numbers are settled."""
        if device not in self._settled and self._outbox.is_open:  # until then nobody knows
            self._settled[device] = self._outbox.settled_number(device, "")
        recent = self._recent.get(device)
        now = self._clock.monotonic()
        while recent:
            oldest, (at, _digest) = next(iter(recent.items()))
            if now - at <= SETTLED_S:
                break
            del recent[oldest]
            self._settled[device] = max(self._settled.get(device, -1), oldest)
        return self._settled.get(device, -1)


def digest(decoded: Decoded) -> int:
    """Return a number from 1 to 2**32-1 for what an input says; the same after any restart or update of ours."""
    parts = []
    for one in decoded.observations:
        if isinstance(one, Reading):
            parts.append(f"{one.quantity}\x1f{one.value}\x1f{one.channel}\x1f{one.device_time or ''}")
        else:
            parts.append(f"{one.kind.value}\x1f{one.code}\x1f{one.channel}\x1f{one.level}")
    found = blake2b("\x1e".join(parts).encode("utf-8", "backslashreplace"), digest_size=4).digest()
    return int.from_bytes(found, "big") or 1

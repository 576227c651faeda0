"""The one place that decides what is new: repeats, counters, replays, levels. One table of rules, no IO.

A press is repeated many times, by several receivers, sometimes minutes late. What makes it one press is (device, protocol
counter), never its payload or the moment. Rules, first match wins; `d` is (new - mark) modulo 2^bits:

    no mark yet                          new
    d = 0                                repeat
    0 < d < 2^(bits-1)                   new, the mark moves up
    behind, within 64, already seen      repeat (late from a cache, or replayed)
    8 bits, 60 s without an advert       new, the mark moves there (an 8-bit counter wraps while nobody listens)
    behind, as in the reset stream       repeat
    behind                               reset: raised, not verified; the mark stays (a battery swap, or a replay)

A level has edges instead: it begins when it was off, or was not repeated for the driver's hold time, and ends when it is
told off. Limits: 64 counters behind the mark are remembered, bit by bit.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from drivers.kit import Counter
from gateway.clock import Stamp
from gateway.outbox import Mark

LAPSE_MS: Final = 60_000
SEEN_BITS: Final = 64
_SEEN_MASK: Final = (1 << SEEN_BITS) - 1


class Verdict(Enum):
    """What a message is, by its counter."""

    NEW = "new"
    REPEAT = "repeat"
    RESET = "reset"


@dataclass(slots=True)
class _Stream:
    """A run of counters: the highest, and which of the 64 before it were seen (bit 0: the one before)."""

    value: int
    seen: int = 0

    def forward(self, value: int, delta: int) -> None:
        self.seen = ((self.seen << delta) | (1 << (delta - 1))) & _SEEN_MASK if delta <= SEEN_BITS else 0
        self.value = value

    def knows(self, back: int) -> bool:
        return back == 0 or (back <= SEEN_BITS and bool(self.seen >> (back - 1) & 1))

    def note(self, back: int) -> None:
        if 0 < back <= SEEN_BITS:
            self.seen |= 1 << (back - 1)


@dataclass(slots=True)
class _CounterMark:
    main: _Stream
    reset: _Stream | None = None
    heard_ms: int = 0
    boot: str = ""


@dataclass(slots=True)
class _Level:
    on: bool
    heard_ms: int
    boot: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, and the mark to be committed with the event that it admits."""

    verdict: Verdict
    mark: Mark | None = None


@dataclass(slots=True)
class _Known:
    counter: _CounterMark | None = None
    levels: dict[str, _Level] = field(default_factory=dict)


class Judge:
    """Judges the messages of every device; its memory is what was stored, plus what has been admitted since."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._versions = itertools.count(1)

    def load(self, marks: list[Mark], now: Stamp) -> None:
        """Take the stored marks back. A mark that cannot be read is forgotten: the next press is then new."""
        for mark in marks:
            known = self._known.setdefault(mark.device, _Known())
            try:
                fields = json.loads(mark.value)
                if mark.key == "counter":
                    reset = _Stream(*fields["reset"]) if fields["reset"] else None
                    known.counter = _CounterMark(_Stream(*fields["main"]), reset, fields["ms"], fields["boot"])
                elif mark.key.startswith("level:") and fields["boot"] == now.boot:
                    # The hold time begins anew: the same fall must not be raised twice because we were restarted.
                    known.levels[mark.key] = _Level(fields["on"], now.mono_ms, now.boot)
            except (ValueError, KeyError, TypeError):
                continue

    def counter(self, device: str, counter: Counter, at: Stamp) -> Judged:
        """Judge a message by its counter."""
        known = self._known.setdefault(device, _Known())
        mark = known.counter
        if mark is None:
            mark = known.counter = _CounterMark(_Stream(counter.value))
            verdict = Verdict.NEW
        else:
            verdict = self._rule(mark, counter, at)
        mark.heard_ms, mark.boot = at.mono_ms, at.boot
        if verdict is Verdict.REPEAT:
            return Judged(verdict)
        reset = [mark.reset.value, mark.reset.seen] if mark.reset else None
        value = {"main": [mark.main.value, mark.main.seen], "reset": reset, "ms": at.mono_ms, "boot": at.boot}
        return Judged(verdict, self._mark(device, "counter", value))

    @staticmethod
    def _rule(mark: _CounterMark, counter: Counter, at: Stamp) -> Verdict:
        size, half = 1 << counter.bits, 1 << (counter.bits - 1)
        delta = (counter.value - mark.main.value) % size
        if 0 < delta < half:
            mark.main.forward(counter.value, delta)
            mark.reset = None
            return Verdict.NEW
        back = (mark.main.value - counter.value) % size
        if mark.main.knows(back):
            return Verdict.REPEAT
        if counter.bits <= 8 and (at.boot != mark.boot or at.mono_ms - mark.heard_ms > LAPSE_MS):
            mark.main, mark.reset = _Stream(counter.value), None
            return Verdict.NEW
        mark.main.note(back)
        if mark.reset is None:
            mark.reset = _Stream(counter.value)
            return Verdict.RESET
        delta = (counter.value - mark.reset.value) % size
        if 0 < delta < half:
            mark.reset.forward(counter.value, delta)
            return Verdict.RESET
        back = (mark.reset.value - counter.value) % size
        if mark.reset.knows(back):
            return Verdict.REPEAT
        mark.reset.note(back)
        if back > SEEN_BITS:
            mark.reset = _Stream(counter.value)
        return Verdict.RESET

    def level(self, device: str, name: str, *, on: bool, at: Stamp, hold_s: float) -> Judged:
        """Judge a repeated state; NEW at each edge (also at the falling one), REPEAT between."""
        key = f"level:{name}"
        known = self._known.setdefault(device, _Known())
        level = known.levels.get(key)
        held = level is not None and level.on and level.boot == at.boot and at.mono_ms - level.heard_ms <= hold_s * 1000
        known.levels[key] = _Level(on, at.mono_ms, at.boot)
        if held == on or (level is None and not on):
            return Judged(Verdict.REPEAT)
        return Judged(Verdict.NEW, self._mark(device, key, {"on": on, "boot": at.boot}))

    def _mark(self, device: str, key: str, value: Mapping[str, object]) -> Mark:
        return Mark(device, key, json.dumps(value, separators=(",", ":")), next(self._versions))

"""The one place that decides what is new: repeats, counters, replays, levels. One table of rules, no IO.

A press is repeated many times, by several receivers, sometimes minutes late. What makes it one press is (device, protocol
counter), never its payload or the moment. Counters that a key proved and counters that anybody can write, and counters of
different widths, are strangers to each other: each kind has marks of its own. Rules, first match wins; `d` is
(new - mark) modulo 2^bits, *fresh* means within 60 s after the mark last moved:

    no mark yet                            new
    0 < d < 2^(bits-1)                     new, the mark moves up, a reset stream ends
    d = 0                                  repeat (unless not fresh, and a reset stream has climbed to within 64)
    8 bits, the mark not fresh             new, the mark moves there (it wraps unheard, and a battery swap resets it)
    fresh, within 64 behind, seen          repeat (late from a cache)
    fresh, within 64 behind, not seen      reset: raised, not verified (overtaken on its way)
    behind, no reset stream                reset: raised, not verified (a battery swap, or a replay); a reset stream begins
    behind, with a reset stream            the same rules against its mark, but what they call new is a reset

After the 60 s a counter that was seen is no longer called a repeat (but for the last one behind, for 60 s of its own: a press
may be repeated just then): after a battery swap a device counts through its old
numbers, and those presses must be heard. A replay of an old recording is therefore raised too, never verified.

What counts itself within a message (how often a button was pressed so far) has a mark of its own and the same rules; the
first count heard is where counting begins.
A level has edges instead: it begins when it was off or was not repeated for its hold time, and ends when it is told off.
Where nothing counts, the order is not sure: one radio tells what a device says in its order, but one lags behind another
by seconds (a queue, a network), so what it tells may be older than what another told before it. *Recently* is within 10 s:

    on, and it is on                                      repeat
    off, and it is off                                    repeat
    off; another radio said on recently, this one never   repeat: it is from before the beginning
    on; another radio said off recently, this one never   late: the same once more, but new where no alarm of it is open
    on again, after such an off; no alarm of it is open   late, once: it may have ended, and be another one
    off, and it is on; on, and it is off or has lapsed    new

A message of a broker is a repeat when the broker marks it as sent again and it is among the last `MAX_DELIVERIES` of its
device that were stored: what was stored before its acknowledgement got through. The mark is stored with what it admits.
Limits: 64 counters behind a mark are remembered, bit by bit; 64 levels a device, more are raised each time. The mark of a
level that lasts is stored anew every 5 min (a seventh of its hold time if that is longer), so that after a restart it is
known as the same, and one that ended unheard is not. What is shown for its hold time at most (a press without a counter) is
after a restart the same for that long only, from when it began.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from drivers.kit import Counter
from gateway.clock import Stamp
from gateway.outbox import Mark

LAPSE_MS: Final = 60_000
SEEN_BITS: Final = 64
NARROW_BITS: Final = 8
MAX_LEVELS: Final = 64
# As many as the link lets a broker have unacknowledged: all of them may have been stored when the connection ends.
MAX_DELIVERIES: Final = 64
LEVEL_REFRESH_MS: Final = 300_000
LATE_MS: Final = 10_000
_SEEN_MASK: Final = (1 << SEEN_BITS) - 1
_COUNTER: Final = "counter:"
_LEVEL: Final = "level:"
_DELIVERY: Final = "delivery"


class Verdict(Enum):
    """What a message is, by its counter."""

    NEW = "new"
    REPEAT = "repeat"
    RESET = "reset"
    LATE = "late"


@dataclass(slots=True)
class _Stream:
    """A run of counters: the highest, when it came, and which of the 64 before it were seen (bit 0: the one before)."""

    value: int
    ms: int
    boot: str
    seen: int = 0
    # Which of those behind came last, and when: the lapse may end between two repeats of it.
    late_value: int | None = None
    late_ms: int = 0

    def forward(self, value: int, at: Stamp, *, delta: int) -> None:
        self.seen = ((self.seen << delta) | (1 << (delta - 1))) & _SEEN_MASK if delta <= SEEN_BITS else 0
        self.value, self.ms, self.boot = value, at.mono_ms, at.boot

    def is_fresh(self, at: Stamp) -> bool:
        return self.boot == at.boot and at.mono_ms - self.ms <= LAPSE_MS

    def was_late(self, value: int, at: Stamp) -> bool:
        """Was this the last one behind, a moment ago?"""
        return self.late_value == value and self.boot == at.boot and at.mono_ms - self.late_ms <= LAPSE_MS

    def late(self, back: int, value: int, at: Stamp) -> Verdict:
        """Judge, and note, a counter within the 64 behind."""
        self.late_value, self.late_ms = value, at.mono_ms
        bit = 1 << (back - 1)
        known = bool(self.seen & bit)
        self.seen |= bit
        return Verdict.REPEAT if known else Verdict.RESET

    def stored(self) -> list[object]:
        return [self.value, self.ms, self.boot, self.seen]

    @classmethod
    def loaded(cls, fields: Any) -> _Stream:
        value, ms, boot, seen = fields
        return cls(int(value), int(ms), str(boot), int(seen) & _SEEN_MASK)


@dataclass(slots=True)
class _CounterMark:
    main: _Stream
    reset: _Stream | None = None


@dataclass(slots=True)
class _Level:
    """`grace_ms`: how much longer it may have been repeated after its mark was stored; 0 once it is heard again.

    `told_by`: the radios that have said so since it is so; "" for what needs none; nobody where that was before the start.
    `may_have_ended`: another radio said so, and it was taken for older news.
    """

    on: bool
    ms: int
    boot: str
    stored_ms: int
    grace_ms: int = 0
    told_by: set[str] = field(default_factory=set)
    may_have_ended: bool = False

    def is_news_to(self, link: str, at: Stamp) -> bool:
        """Was it said a moment ago, and not by this radio?"""
        if not link or not self.told_by or self.told_by & {"", link}:
            return False
        return self.boot == at.boot and at.mono_ms - self.ms <= LATE_MS


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, and the mark to be committed: with the event that it admits, or to keep a level's mark fresh.

    `resumed`: a level that was on when the gateway ended, or its link was lost (`doubt`), and is at the first hearing after
    it. Whether it was on all the time nobody knows.
    """

    verdict: Verdict
    mark: Mark | None = None
    resumed: bool = False


@dataclass(slots=True)
class _Known:
    counters: dict[str, _CounterMark] = field(default_factory=dict)
    levels: dict[str, _Level] = field(default_factory=dict)
    deliveries: list[str] = field(default_factory=list)
    has_deliveries: bool = False
    """Something was judged by them, or they were forgotten: what an older database held of them is void."""


class Judge:
    """Judges the messages of every device; its memory is what was stored, plus what has been admitted since."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._versions = itertools.count(1)

    def load(self, marks: list[Mark]) -> None:
        """Take the stored marks back. A mark that cannot be read is forgotten: the next press is then new."""
        for mark in marks:
            try:
                fields = json.loads(mark.value)
                if mark.key == _DELIVERY:
                    self._of(mark.device).deliveries = [str(one) for one in fields["last"]][-MAX_DELIVERIES:]
                elif mark.key.startswith(_COUNTER):
                    reset = _Stream.loaded(fields["reset"]) if fields["reset"] else None
                    known = _CounterMark(_Stream.loaded(fields["main"]), reset)
                    self._of(mark.device).counters[mark.key] = known
                elif mark.key.startswith(_LEVEL):
                    ms = int(fields["ms"])
                    level = _Level(bool(fields["on"]), ms, str(fields["boot"]), ms, int(fields["grace"]))
                    self._of(mark.device).levels[mark.key] = level
            except (ValueError, KeyError, TypeError, OverflowError):
                continue

    def recall(self, marks: list[Mark]) -> None:
        """Take stored marks that could not be read at the start; what was judged since is newer."""
        self.load([one for one in marks if not self._knows(one)])

    def _knows(self, mark: Mark) -> bool:
        known = self._known.get(mark.device)
        if known is None:
            return False
        if mark.key == _DELIVERY:
            return known.has_deliveries or bool(known.deliveries)
        return mark.key in known.counters or mark.key in known.levels

    def marks(self) -> list[Mark]:
        """Return every mark as it is now: what was stored of them is gone."""
        found = []
        for device, known in self._known.items():
            found += [self._counter_mark(device, key, mark) for key, mark in known.counters.items()]
            found += [self._level_mark(device, key, level, level.grace_ms) for key, level in known.levels.items()]
            found += [self._mark(device, _DELIVERY, {"last": known.deliveries})] if known.deliveries else []
        return found

    def _of(self, device: str) -> _Known:
        return self._known.setdefault(device, _Known())

    # -- counters -----------------------------------------------------------------------------------------------

    def counter(
        self, device: str, counter: Counter, at: Stamp, *, of: str = "", first: Verdict = Verdict.NEW
    ) -> Judged:  # fmt: skip
        """Judge a message by its counter, or what a counter in it counts (`of`). `first`: what the first one heard is."""
        key = f"{_COUNTER}{of}{'proven' if counter.authenticated else 'claimed'}:{counter.bits}"
        marks = self._of(device).counters
        mark = marks.get(key)
        if mark is None:
            mark = marks[key] = _CounterMark(_Stream(counter.value, at.mono_ms, at.boot))
            return Judged(first, self._counter_mark(device, key, mark))
        verdict = self._rule(mark, counter, at)
        return Judged(verdict, None if verdict is Verdict.REPEAT else self._counter_mark(device, key, mark))

    def _counter_mark(self, device: str, key: str, mark: _CounterMark) -> Mark:
        reset = mark.reset.stored() if mark.reset else None
        return self._mark(device, key, {"main": mark.main.stored(), "reset": reset})

    @staticmethod
    def _rule(mark: _CounterMark, counter: Counter, at: Stamp) -> Verdict:
        size, half = 1 << counter.bits, 1 << (counter.bits - 1)
        main = mark.main
        ahead = (counter.value - main.value) % size
        if 0 < ahead < half:
            main.forward(counter.value, at, delta=ahead)
            mark.reset = None
            return Verdict.NEW
        fresh = main.is_fresh(at)
        if ahead == 0 and (fresh or mark.reset is None or (main.value - mark.reset.value) % size > SEEN_BITS):
            return Verdict.REPEAT
        if not fresh and main.was_late(counter.value, at):
            return Verdict.REPEAT
        if ahead and counter.bits <= NARROW_BITS and not fresh:
            mark.main, mark.reset = _Stream(counter.value, at.mono_ms, at.boot), None
            return Verdict.NEW
        if fresh and size - ahead <= SEEN_BITS:
            return main.late(size - ahead, counter.value, at)
        return _rule_of_reset(mark, counter.value, at, size=size)

    # -- levels -------------------------------------------------------------------------------------------------

    def level(
        self, device: str, name: str, *, on: bool, at: Stamp, hold_s: float, link: str = "", lasts: bool = True
    ) -> Judged:
        """Judge a repeated state; NEW at each edge (also at the falling one), REPEAT between, LATE as the rules say.

        A REPEAT may carry a mark as well: it keeps the stored one fresh. `link`: the radio, where the order is not sure.
        `lasts` False: it is shown for about its hold time and no longer, so it cannot have gone on through the time in which
        its mark may be old.
        """
        key = _LEVEL + name
        levels = self._of(device).levels
        before = levels.get(key)
        if before is None and len(levels) >= MAX_LEVELS:
            return Judged(Verdict.NEW if on else Verdict.REPEAT)
        was_on = before is not None and before.on
        hold_ms = int(hold_s * 1000)
        held = (
            before is not None
            and was_on
            and before.boot == at.boot
            and at.mono_ms - before.ms <= hold_ms + before.grace_ms
        )
        refresh_ms = max(LEVEL_REFRESH_MS, hold_ms // 7)
        if before is not None and on != was_on and before.is_news_to(link, at):
            before.may_have_ended = not on
            return Judged(Verdict.LATE if on else Verdict.REPEAT)
        grace_ms = refresh_ms if lasts else 0
        if on == (held if on else was_on):
            if before is None:
                return Judged(Verdict.REPEAT)
            before.told_by.add(link)
            if not on:
                return Judged(Verdict.REPEAT)
            resumed = before.grace_ms > 0
            before.ms, before.grace_ms = at.mono_ms, 0
            verdict = Verdict.LATE if before.may_have_ended else Verdict.REPEAT
            before.may_have_ended = False
            if at.mono_ms - before.stored_ms < refresh_ms:
                return Judged(verdict, resumed=resumed)
            before.stored_ms = at.mono_ms
            return Judged(verdict, self._level_mark(device, key, before, grace_ms), resumed=resumed)
        level = levels[key] = _Level(on, at.mono_ms, at.boot, at.mono_ms, told_by={link})
        return Judged(Verdict.NEW, self._level_mark(device, key, level, grace_ms))

    def doubt(self, device: str) -> None:
        """Nobody heard the device for a while: whether a level lasted all the time is as unknown as after a restart."""
        for level in self._of(device).levels.values():
            if level.on:
                level.grace_ms = max(level.grace_ms, 1)

    def _level_mark(self, device: str, key: str, level: _Level, grace_ms: int) -> Mark:
        return self._mark(device, key, {"on": level.on, "ms": level.ms, "boot": level.boot, "grace": grace_ms})

    # -- deliveries of a broker ---------------------------------------------------------------------------------

    def delivery(self, device: str, token: str, *, is_again: bool) -> Judged:
        """Judge a message of a broker by what tells it from others. `is_again`: the broker says that it has sent it before."""
        self._of(device).has_deliveries = True
        known = self._of(device).deliveries
        if is_again and token in known:
            return Judged(Verdict.REPEAT)
        known.append(token)
        del known[:-MAX_DELIVERIES]
        return Judged(Verdict.NEW, self._mark(device, _DELIVERY, {"last": known}))

    def forget_deliveries(self, device: str) -> Mark | None:
        """Whoever numbers the messages of a device has begun anew. Return what is to be stored of that; None: nothing.

        After a restart a number of before would hide a message that the broker sends again because it was not stored.
        """
        known = self._of(device)
        known.has_deliveries = True
        if not known.deliveries:
            return None
        known.deliveries.clear()
        return self._mark(device, _DELIVERY, {"last": []})

    def _mark(self, device: str, key: str, value: Mapping[str, object]) -> Mark:
        return Mark(device, key, json.dumps(value, separators=(",", ":")), next(self._versions))


def _rule_of_reset(mark: _CounterMark, value: int, at: Stamp, *, size: int) -> Verdict:
    """Judge a counter far behind the mark, or within its 64 when that is no longer fresh."""
    reset = mark.reset
    if reset is not None:
        ahead = (value - reset.value) % size
        if ahead == 0:
            return Verdict.REPEAT
        if ahead < size // 2:
            reset.forward(value, at, delta=ahead)
            return Verdict.RESET
        if reset.is_fresh(at) and size - ahead <= SEEN_BITS:
            return reset.late(size - ahead, value, at)
    mark.reset = _Stream(value, at.mono_ms, at.boot)
    return Verdict.RESET

"""Tells a quiet place from a deaf radio, as far as that can be told, and when which repair is due.

Silence proves nothing: at night a press button's neighbourhood may say nothing for hours. What would prove something:
a configured device that kept a rhythm (most send signs of life) and is overdue, together with everybody else; or a
silence without example that a repair ended at once. So the cheap repair, a new scan, which costs milliseconds, is made
early and without a word; deafness is claimed only on one of those proofs; and where neither can be had, "nothing is
heard, nobody can say why" is said as what it is, and the adapter is switched off and on all the same.

With T for the configured silence (60 s as a rule), nothing heard from anybody:
- a new scan after T, again 2 T, 4 T, then every 5 T later (1 min, then 2, 4, 5, 5 ...);
- overdue: 4 times the longest pause of the second most regular device (of the only one, where there is one), but not
  before T + T/6: the radio is deaf, and is switched off and on;
- switched off and on in any case after 15 T (15 min), then 10 T, 60 T, and every 360 T later (10 min, 1 h, every 6 h): 2 s
  each, 0.3 % of the time at worst, so that the cure never is the disease;
- unsure, and said to be so: after 15 T, or 4 times the longest silence known where that is more, at most 24 h (or 15 T);
- an advert within T/12 (5 s) of a repair, after a silence of more than 4 times the longest known of anybody or of the
  regular devices: it was deaf. Where nothing is known yet, nobody can vouch for that silence: it is told as a gap, and not
  as a problem. (By chance so: once in 60 silences, and then a gap is told that was none.)
A device is regular after 60 pauses (those shorter than T/60, 1 s, are repeats of one message), a place is known after 20
pauses and 5 T; both only when the longest pause is at most an eighth of the time they are known, so that somebody who
presses a button again and again is no rhythm. What is known is of the last 8 days: nights and week-ends are in it.
Nothing of it outlives the process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

_REGULAR_PAUSES: Final = 60
_KNOWN_PAUSES: Final = 20
_SHARE: Final = 8.0
_FACTOR: Final = 4.0
_ENDLESS: Final = float("inf")
_HOUR_S: Final = 3600.0
_DAY_S: Final = 24 * _HOUR_S
_KEPT_HOURS: Final = 8 * 24
# In units of the configured silence.
_SAME_MESSAGE: Final = 1 / 60
_PROMPT: Final = 1 / 12
_PATIENCE: Final = 1 / 6
_KNOWN: Final = 5.0
_RESCAN_MOST: Final = 5.0
_UNSURE: Final = 15.0
_CYCLES: Final = (10.0, 60.0, 360.0)


class Repair(Enum):
    """What can be done about silence; and a new start that has nothing to do with it."""

    NEW_START = "start anew"
    RESCAN = "scan anew"
    POWER_CYCLE = "switch the adapter off and on"


class Ended(Enum):
    """What an advert ended: a usual silence, one that nobody can vouch for, or deafness that nobody had claimed."""

    USUAL = "usual"
    DOUBTFUL = "doubtful"
    DEAFNESS = "deafness"


@dataclass(slots=True)
class _Longest:
    """The longest pause of the last 8 days, kept by the hour: 193 numbers at most."""

    count: int = 0
    total: float = 0.0
    by_hour: dict[int, float] = field(default_factory=dict)

    def add(self, pause: float, now: float) -> None:
        self.count += 1
        self.total += pause
        hour = int(now // _HOUR_S)
        self.by_hour[hour] = max(pause, self.by_hour.get(hour, 0.0))
        if len(self.by_hour) > _KEPT_HOURS + 1:
            self.by_hour = {one: longest for one, longest in self.by_hour.items() if one >= hour - _KEPT_HOURS}

    def longest(self, now: float) -> float:
        oldest = int(now // _HOUR_S) - _KEPT_HOURS
        return max((longest for hour, longest in self.by_hour.items() if hour >= oldest), default=0.0)

    def tells(self, now: float, *, pauses: int, span: float) -> bool:
        """Whether it has been seen often and long enough to know what is usual."""
        return self.count >= pauses and self.total >= max(span, _SHARE * self.longest(now))


@dataclass(slots=True)
class _Rhythm:
    """One configured device: when it was last heard, and its pauses."""

    last: float | None = None
    pauses: _Longest = field(default_factory=_Longest)


class Silence:
    """What one radio has heard and when; all times are seconds of a monotonic clock.

    `known(address)` says whether an address is a configured device. `claimed`: the radio counts as deaf until heard.
    """

    def __init__(self, *, after_s: float, known: Callable[[str], bool], now: float) -> None:
        self.after_s = after_s
        self.claimed = False
        self._known = known
        self._anybody = _Longest()
        self._rhythms: dict[str, _Rhythm] = {}
        self._since = now
        self._anybody_heard = False
        self._rescans = self._cycles = 0
        self._repaired = self._cycled = now

    @property
    def cycles(self) -> int:
        """How often the adapter was switched off and on in this silence."""
        return self._cycles

    def silent_s(self, now: float) -> float:
        """How long nobody was heard."""
        return now - self._since

    def began(self, now: float) -> None:
        """A scan begins after a time in which nothing could be heard, and everybody knows why."""
        self._start_anew(now)
        self._anybody_heard = False
        self._forget_moments()

    def repaired(self, repair: Repair, now: float) -> None:
        """A repair is through: it scans again."""
        if repair is Repair.NEW_START:
            return
        self._repaired = now
        if repair is Repair.POWER_CYCLE:
            self._cycles += 1
            self._cycled = now
        else:
            self._rescans += 1

    def heard(self, address: str, now: float) -> tuple[Ended, float]:
        """An advert came. Return what it ended, and how long that was."""
        pause = now - self._since
        prompt = bool(self._rescans or self._cycles) and now - self._repaired <= self.after_s * _PROMPT
        ended = Ended.USUAL
        if prompt and not self.claimed:
            example_s = self._example_s(now)
            ended = Ended.DOUBTFUL if example_s is None else Ended.DEAFNESS if pause > example_s else Ended.USUAL
        if prompt:
            # Proved or not: what a repair may have ended teaches nothing about what is usual here.
            self._forget_moments()
        elif self._anybody_heard:
            # Also after a claim: who came back by himself may have been away, and the next time nobody is alarmed.
            self._anybody.add(pause, now)
        if self._known(address):
            self._note(address, now)
        self._start_anew(now)
        self._anybody_heard = True
        return ended, pause

    def overdue(self, now: float) -> bool:
        """Whether devices that kept a rhythm say that the radio is deaf."""
        return self.silent_s(now) >= self._overdue_s(now)

    def unsure(self, now: float) -> bool:
        """Whether the silence is too long for this place, though nothing proves that the radio is deaf."""
        usual = min(_FACTOR * self._anybody.longest(now), _DAY_S)
        return self.silent_s(now) >= max(_UNSURE * self.after_s, usual)

    def next(self, now: float) -> tuple[Repair, float]:
        """Return the next repair and in how many seconds it is due (0 or less: now)."""
        rescan_s = self._rescan_at() - now
        cycle_s = self._cycle_at(now) - now
        return (Repair.POWER_CYCLE, cycle_s) if cycle_s <= max(rescan_s, 0.0) else (Repair.RESCAN, rescan_s)

    def _rescan_at(self) -> float:
        if not self._rescans:
            return self._since + self.after_s
        return self._repaired + self.after_s * min(2.0 ** min(self._rescans, 10), _RESCAN_MOST)

    def _cycle_at(self, now: float) -> float:
        if self._cycles:
            return self._cycled + self.after_s * _CYCLES[min(self._cycles, len(_CYCLES)) - 1]
        return self._since + min(self._overdue_s(now), _UNSURE * self.after_s)

    def _overdue_s(self, now: float) -> float:
        """Return the silence after which regular devices are overdue; without any it is endless."""
        return max(self._regular_s(now), self.after_s * (1 + _PATIENCE))

    def _regular_s(self, now: float) -> float:
        """Return the silence that regular devices do not leave."""
        regular = sorted(
            rhythm.pauses.longest(now)
            for rhythm in self._rhythms.values()
            if rhythm.pauses.tells(now, pauses=_REGULAR_PAUSES, span=0.0)
        )
        # The battery of one device may be empty: two must be overdue where two are known.
        longest = regular[min(1, len(regular) - 1)] if regular else _ENDLESS
        return _FACTOR * longest

    def _example_s(self, now: float) -> float | None:
        """Return the longest silence that is like one known here; None where the place is not known yet."""
        known = self._anybody.tells(now, pauses=_KNOWN_PAUSES, span=_KNOWN * self.after_s)
        anybody = _FACTOR * self._anybody.longest(now) if known else _ENDLESS
        least = min(anybody, self._regular_s(now))
        return None if least == _ENDLESS else least

    def _note(self, address: str, now: float) -> None:
        rhythm = self._rhythms.setdefault(address, _Rhythm())
        if rhythm.last is None:
            rhythm.last = now
        elif now - rhythm.last >= self.after_s * _SAME_MESSAGE:
            rhythm.pauses.add(now - rhythm.last, now)
            rhythm.last = now

    def _start_anew(self, now: float) -> None:
        self._since = self._repaired = self._cycled = now
        self._rescans = self._cycles = 0
        self.claimed = False

    def _forget_moments(self) -> None:
        """No pause may span a deaf time: it would teach that such pauses are usual."""
        for rhythm in self._rhythms.values():
            rhythm.last = None

"""Whether a register goes on from what it showed: growth that can be, and what waits for a second reading to say the same.

The checks of meter protocols are weak: of telegrams that were garbled, a sum of 8 bits lets one in 256 pass. So no single
reading moves a register to where it cannot be, and none that was believed keeps true ones out. A reading that is not plain
growth waits; the next either goes on from what stood before, and what waited was false, or goes on from what waits. Then

    it had rolled over            (within a hundredth of a power of ten, from `LEAST_ROLLOVER` on): counted on
    it lies between the last two  that were believed: the last of these was false, and is withdrawn
    it lies above what can be     a jump: the register goes on there, what lies between is not taken for use
    it lies below both            it stays held until it has caught up or a person has compared the dial

What can be is data (`MOST_AN_HOUR`): more than any centre takes, as the dial shows it, so that only what is false or another
meter exceeds it. Where three readings in a row rise at one rate beyond it that is how the site is: believed, and remembered.
How long it took counts from when the register began to show what it shows, for some meters renew it once a day; it is known
within a boot, or between two moments of a clock that was trusted; else nothing is called a jump.
Pure: no IO. Limit: `KEPT` readings wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from typing import Final

from gateway.clock import SYNCED, Stamp

# As the dial shows it, so behind transformers what flows may be a thousand times more. A supply of 1,000 kVA, a water main of
# 80 mm at 10 m/s, a boiler house of 5 MW: what a centre with a hundred beds takes is a tenth of it.
MOST_AN_HOUR: Final[Mapping[str, Decimal]] = {
    "energy_heat_joule": Decimal(18),
    "energy_cooling_joule": Decimal(18),
    "energy_other_joule": Decimal(18),
    "energy_heat": Decimal(5_000),
    "energy_cooling": Decimal(5_000),
    "energy_other": Decimal(5_000),
    "energy_": Decimal(1_000),
    "volume_heating": Decimal(1_000),
    "volume_gas": Decimal(400),
    "volume": Decimal(200),
    "mass": Decimal(1_000_000),
}
"""By how a quantity begins, the first that fits; what is not here (counts without a unit) may grow by any amount."""
# Meters show whole units: less time than this counts as this.
LEAST_HOURS: Final = Decimal("0.25")
LEAST_ROLLOVER: Final = Decimal(100_000)
KEPT: Final = 2
_ROLLED: Final = Decimal("0.01")
_ONE_RATE: Final = 2


class Ruling(Enum):
    """What a reading is. Of what waits: HELD shows less than before, UNCONFIRMED more than can be, or a beginning anew."""

    GROWN = "grown"
    HELD = "held"
    UNCONFIRMED = "unconfirmed"
    ROLLED = "rolled"
    JUMPED = "jumped"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Shown:
    """A reading, and the moment since when it is shown."""

    value: Decimal
    at: Stamp


@dataclass(frozen=True, slots=True)
class Judged:
    """A ruling. `before`: what was believed last until then; `first`: the reading that waited and was confirmed."""

    ruling: Ruling
    before: Shown
    first: Shown

    @property
    def is_believed(self) -> bool:
        """Does the register stand where this reading says?"""
        return self.ruling not in (Ruling.HELD, Ruling.UNCONFIRMED)


@dataclass(slots=True)
class Course:
    """One register: the last two readings that were believed, and those that wait. `rate`: an hour's growth that was seen.

    `anew_ms`: when this process learnt that it had rolled over or jumped.
    """

    last: Shown
    before: Decimal | None = None
    rate: Decimal | None = None
    waiting: list[Shown] = field(default_factory=list)
    anew_ms: int = 0

    def judge(self, quantity: str, value: Decimal, at: Stamp) -> Judged:
        """Judge the next reading, and go on to it where it is believed."""
        now, last = Shown(value, at), self.last
        most = most_an_hour(quantity)
        if value >= last.value and (self._can_be(last, now, most) or self._is_at_one_rate(now)):
            # Some meters renew what they show once a day: what it shows next has grown since it began to show this.
            stands = last if value == last.value else now
            return self._believed(Ruling.GROWN, stands, first=now, before=last.value)
        first = self.waiting[-1] if self.waiting else None
        rolls = has_rolled(last.value, value)
        if first is not None and first.value <= value and self._can_be(first, now, most):
            if value > last.value:
                return self._believed(Ruling.JUMPED, now, first=first, before=first.value)
            if has_rolled(last.value, first.value):  # by now it may have counted past a hundredth
                return self._believed(Ruling.ROLLED, now, first=first, before=first.value)
            if self.before is None or self.before <= first.value:
                return self._believed(Ruling.WITHDRAWN, now, first=first, before=first.value)
        self.waiting = [*(one for one in self.waiting if one.value <= value), now][-KEPT:]
        ruling = Ruling.HELD if value < last.value and not rolls else Ruling.UNCONFIRMED
        return Judged(ruling, last, now)

    def go_on_from_waiting(self) -> None:
        """A person has seen that what waits is what the dial shows."""
        shown = self.waiting[-1]
        self.last, self.before, self.waiting = shown, shown.value, []

    def _believed(self, ruling: Ruling, now: Shown, *, first: Shown, before: Decimal) -> Judged:
        judged = Judged(ruling, self.last, first)
        self.last, self.before, self.waiting = now, before, []
        if ruling in (Ruling.ROLLED, Ruling.JUMPED):
            self.anew_ms = now.at.wall_ms
        return judged

    def _can_be(self, since: Shown, now: Shown, most: Decimal | None) -> bool:
        hours = hours_between(since.at, now.at)
        if most is None or hours is None:
            return True
        return now.value - since.value <= max(most, self.rate or most) * max(hours, LEAST_HOURS)

    def _is_at_one_rate(self, now: Shown) -> bool:
        """Do three readings in a row rise beyond what can be, but as evenly as nothing false does?"""
        steps = [self.last, *self.waiting, now]
        if len(steps) < KEPT + 2:
            return False
        rates = []
        for since, then in pairwise(steps):
            hours = hours_between(since.at, then.at)
            if not hours or then.value <= since.value:
                return False
            rates.append((then.value - since.value) / hours)
        if max(rates) > _ONE_RATE * min(rates):
            return False
        self.rate = _ONE_RATE * max(rates)
        return True


def most_an_hour(quantity: str) -> Decimal | None:
    """Return by how much a register of this quantity can grow in an hour; None: by any amount."""
    return next((most for prefix, most in MOST_AN_HOUR.items() if quantity.startswith(prefix)), None)


def rollover_of(last: Decimal) -> Decimal:
    """Return where a register that shows this begins anew: the next power of ten."""
    return Decimal(10) ** (last.adjusted() + 1)


def has_rolled(last: Decimal, value: Decimal) -> bool:
    """Was a register at its end, and is it at its beginning now?"""
    whole = rollover_of(last)
    return whole >= LEAST_ROLLOVER and whole - last <= _ROLLED * whole and value <= _ROLLED * whole


def hours_between(since: Stamp, at: Stamp) -> Decimal | None:
    """Return how long it was from one moment to another; None where nobody knows."""
    if since.boot and since.boot == at.boot and at.mono_ms >= since.mono_ms:
        return Decimal(at.mono_ms - since.mono_ms) / 3_600_000
    if since.clock == at.clock == SYNCED and at.wall_ms >= since.wall_ms:
        return Decimal(at.wall_ms - since.wall_ms) / 3_600_000
    return None

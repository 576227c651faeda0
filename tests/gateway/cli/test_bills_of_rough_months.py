"""Meters read rarely, that roll over, of which a register is missing now and then, behind a queue that is full: by seed.

What is billed is compared with what each dial truly did between the two moments that the report itself names, and each
month ends where the next begins.
"""

from __future__ import annotations

import json
import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Final

import pytest

from drivers.kit import Answers, Ask, Observation, Reading, Title
from drivers.kit.framing import LineFramer
from gateway.cli.meter_month import LAST, midnight_ms, month_of
from gateway.clock import FLOORED, SYNCED, Stamp
from gateway.collect import Desk
from gateway.collect.registers import Registers
from gateway.outbox import Mark

ENERGY: Final = "energy_active_import"
CHANNELS: Final = ("", "T1")
END: Final = Decimal(100_000)
HOUR_MS: Final = 3_600_000
APART: Final = 5


def _talk(_target: str) -> Generator[Ask, bytes, tuple[Observation, ...]]:
    yield Ask(b"", lambda _frame: True)
    return ()


DRIVER = Answers("meter", Title("", ""), LineFramer, lambda address, raw: address, _talk, ())


@dataclass
class Gateway:
    """What is committed, and what is known beside that until it crashes."""

    rows: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    mark: Mark | None = None
    registers: Registers = field(default_factory=Registers)
    desk: Desk = field(default_factory=lambda: Desk("m1", "meter", "bus", "1", "", "", DRIVER, None, wired=True))
    boot: int = 0
    began_ms: float = 0.0

    def crash(self, ms: float, *, boots: bool) -> None:
        self.registers = Registers()
        self.registers.load([self.mark] if self.mark else [])
        self.desk.last_told.clear()
        if boots:
            self.boot, self.began_ms = self.boot + 1, ms

    def poll(self, ms: float, shown: Mapping[str, Decimal], *, clock: str, is_full: bool) -> None:
        at = Stamp(int(ms), int(ms - self.began_ms), f"boot-{self.boot}", clock)
        readings = [Reading(ENERGY, value, channel) for channel, value in shown.items()]
        taken = self.registers.take(self.desk, readings, at, now=ms / 1000)
        if is_full:
            self.registers.refused("m1", taken.days)
            return
        self.mark = taken.mark or self.mark
        for one in taken.days:
            if one.wins or (one.day, one.kind, one.n) not in self.rows:
                self.rows[one.day, one.kind, one.n] = json.loads(one.doc)

    def stored(self) -> list[dict[str, Any]]:
        return [{**doc, "day": day, "kind": kind} for (day, kind, _n), doc in sorted(self.rows.items())]


@dataclass
class Dial:
    """One register as it truly is. `counted`: what has flowed since the beginning, ratio included, at each reading."""

    shown: Decimal
    read: Decimal | None = None
    flowed: Decimal = Decimal(0)
    counted: dict[int, Decimal] = field(default_factory=dict)
    trusted: int = 0

    def flowed_at(self, ms: float) -> Decimal:
        return self.counted[max(one for one in self.counted if one <= ms)]

    def is_read(self, ms: float, ratio: Decimal) -> None:
        if self.read is not None:
            self.flowed += (self.shown - self.read + (END if self.shown < self.read else 0)) * ratio
        self.read = self.shown
        self.counted[int(ms)] = self.flowed
        self.trusted += 1


def garbled(value: Decimal, dice: random.Random) -> Decimal:
    """A reading that a weak check let through."""
    digits = [int(one) for one in f"{int(value * 100):07d}"]
    at = dice.randrange(7)
    digits[at] = (digits[at] ^ (1 << dice.randrange(4))) % 10
    flipped = Decimal("".join(map(str, digits))).scaleb(-2)
    return dice.choice(
        [flipped, flipped, Decimal(0), Decimal("99999.99"), Decimal(dice.randrange(9_999_999)).scaleb(-2)]
    )


@cache
def play(seed: int) -> tuple[Gateway, dict[str, Dial], float]:
    """Play the gateway, its meter and its accidents from the middle of September to the first days of December."""
    dice = random.Random(seed)  # noqa: S311 - a seed that can be played again
    gateway = Gateway()
    gateway.desk.meter_number = "000000000001"
    step_ms = dice.choice([900_000, 6 * HOUR_MS, 24 * HOUR_MS])
    an_hour = dice.choice([2, 8])
    dials = {channel: Dial(Decimal(dice.randrange(9_300_000, 9_990_000)).scaleb(-2)) for channel in CHANNELS}
    ms, end = midnight_ms(date(2026, 9, 15)) + 120_000, midnight_ms(date(2026, 12, 4))
    gateway.began_ms = ms
    polls = (end - ms) / step_ms
    swaps_at, ratio_at = dice.uniform(ms, end), dice.uniform(ms, end)
    crashes, full = (dice.choice([0.0, 0.01, 0.5]) if step_ms > HOUR_MS else 0.003), 0
    was_full, calm = False, 0
    while ms < end:
        long = dice.random() < 2 / polls
        gone = int(dice.uniform(2, 4)) * step_ms if long else step_ms
        ms += gone
        for one in dials.values():
            one.shown = (one.shown + Decimal(round(dice.uniform(0, an_hour) * gone / HOUR_MS * 100)).scaleb(-2)) % END
        calm = 0 if long else calm + 1
        if dice.random() < crashes or long:
            gateway.crash(ms, boots=long)
        was_full |= any(one.shown < 1000 for one in dials.values())  # nor between the two that confirm a rollover
        if swaps_at and ms > swaps_at and not was_full:
            swaps_at, calm = 0.0, 0
            gateway.desk.meter_number = "000000000002"
            for one in dials.values():
                one.shown, one.read, one.trusted = Decimal(dice.randrange(0, 9_990_000)).scaleb(-2), None, 0
        elif ratio_at and ms > ratio_at and not was_full:
            ratio_at, calm = 0.0, 0
            gateway.crash(ms, boots=False)
            gateway.desk.ct = Decimal(40)
        shown = {name: one.shown for name, one in dials.items() if dice.random() > 0.05} or {"": dials[""].shown}
        near = any(edge and edge - ms < 4 * step_ms for edge in (swaps_at, ratio_at, end))
        near |= datetime.fromtimestamp(ms / 1000).astimezone().day == 1  # what could be true would begin a month
        victim = dice.choice(CHANNELS)
        is_false = (
            victim in shown and dials[victim].trusted > APART and calm > APART and not near and dice.random() < 0.05
        )
        is_slip = calm > APART and not near and not is_false and dice.random() < 8 / polls
        if is_slip and all(1000 < one.shown < 99_000 and one.trusted > APART for one in dials.values()):
            number, gateway.desk.meter_number = gateway.desk.meter_number, "000000000009"
            gateway.poll(ms, shown, clock=SYNCED, is_full=False)
            gateway.desk.meter_number, calm = number, 0
            continue
        clock = FLOORED if long and dice.random() < 0.5 else SYNCED
        for name in shown:
            if is_false and name == victim:
                shown[name], dials[name].trusted = garbled(dials[name].shown, dice), 0
                dials[name].counted[int(ms)] = Decimal("NaN")  # no month may begin or end with it
            else:
                dials[name].is_read(ms, gateway.desk.ct)
        full = full - 1 if full > 0 else dice.randrange(1, 4) if dice.random() < 0.01 else 0
        was_full = full > 0 and not near and calm > 1  # what a swap or a ratio showed first must be committed once
        gateway.poll(ms, shown, clock=clock, is_full=was_full)
    return gateway, dials, ms


def billed_of(seed: int) -> list[tuple[Decimal, Decimal]]:
    """Return of each register and month what is billed and what has flowed."""
    gateway, dials, ms = play(seed)
    number, t, last = gateway.registers.last("m1")
    registers = {name: f"{value}" for name, value in last.items()}
    meter = {"id": "m1", "room": "", "meter": number, "t": t, "registers": registers, "ratio": f"{gateway.desk.ct}"}
    today = datetime.fromtimestamp(ms / 1000, UTC).astimezone().date()
    found, ended = [], dict.fromkeys(CHANNELS, 0.0)
    for name in ("2026-09", "2026-10", "2026-11", "2026-12"):
        rows = [row for row in gateway.stored() if row["day"] >= f"{name}-01"]
        month = month_of(meter, rows, name, today=today)
        assert not month.odd
        for use in month.uses:
            channel = use.name.partition(" ")[2]
            assert ended[channel] in (0.0, use.opening.t) or use.opening.kind == LAST
            ended[channel] = use.closing.t
            assert use.used is not None
            assert sum(one for one, _days in use.until_next.values()) == use.used
            dial = dials[channel]
            found.append((use.used, dial.flowed_at(use.closing.t) - dial.flowed_at(use.opening.t)))
    return found


@pytest.mark.parametrize("seed", [*range(12), 300])
def test_what_is_billed_of_rough_months_is_what_the_dials_did(seed: int) -> None:
    """Of 215 seeds played by hand all were exact but 300: a swap that was dated late, then another ratio. It is exact now."""
    found = billed_of(seed)
    assert len(found) == 8
    assert [used for used, _flowed in found] == [flowed for _used, flowed in found]


def test_the_rough_months_meet_what_they_are_for() -> None:
    kinds = {kind for seed in range(12) for _day, kind, _n in play(seed)[0].rows}
    assert kinds >= {"swap", "ratio", "held", "unconfirmed", "withdrawn", "rollover", "more"}
    numbers = {row.get("new") for seed in range(12) for row in play(seed)[0].rows.values()}
    assert "000000000009" in numbers

"""Garbled readings, outages, crashes, a swap and another ratio, drawn by seed: what is billed is what the dials did."""

from __future__ import annotations

import json
import random
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import Any

import pytest

from drivers.kit import Answers, Ask, Observation, Reading, Title
from drivers.kit.framing import LineFramer
from gateway.cli.meter_month import midnight_ms, month_of
from gateway.clock import FLOORED, SYNCED, Stamp
from gateway.collect import Desk
from gateway.collect.registers import Registers
from gateway.outbox import Mark

ENERGY = "energy_active_import"
POLL_MS = 900_000
APART = 5


def _talk(_target: str) -> Generator[Ask, bytes, tuple[Observation, ...]]:
    yield Ask(b"", lambda _frame: True)
    return ()


DRIVER = Answers("meter", Title("", ""), LineFramer, lambda address, raw: address, _talk, ())


def flipped(value: Decimal, dice: random.Random) -> Decimal | None:
    """One bit of eight packed digits, two behind the point; None where that is no digit any more, which drivers refuse."""
    digits = [int(one) for one in f"{int(value * 100):08d}"]
    at = dice.randrange(8)
    digits[at] ^= 1 << dice.randrange(4)
    return None if digits[at] > 9 else Decimal("".join(map(str, digits))).scaleb(-2)


@dataclass
class Site:
    """A gateway and its meter from the 31st of October to the first reading of December that is dated."""

    dice: random.Random
    rows: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    mark: Mark | None = None
    registers: Registers = field(default_factory=Registers)
    desk: Desk = field(default_factory=lambda: Desk("m1", "meter", "bus", "1", "", "", DRIVER, None, wired=True))
    boot: int = 0
    began_ms: float = 0.0

    def restart(self, ms: float, *, boots: bool) -> None:
        """A crash: what is known is what was stored."""
        self.registers = Registers()
        self.registers.load([self.mark] if self.mark else [])
        self.desk.last_told.clear()
        if boots:
            self.boot, self.began_ms = self.boot + 1, ms

    def poll(self, ms: float, value: Decimal, *, clock: str = SYNCED) -> None:
        at = Stamp(int(ms), int(ms - self.began_ms), f"boot-{self.boot}", clock)
        taken = self.registers.take(self.desk, [Reading(ENERGY, value)], at, now=ms / 1000)
        self.mark = taken.mark or self.mark
        for one in taken.days:
            if one.wins or (one.day, one.kind, one.n) not in self.rows:
                self.rows[one.day, one.kind, one.n] = json.loads(one.doc)

    def stored(self) -> list[dict[str, Any]]:
        return [
            {**doc, "day": day, "kind": kind} for (day, kind, _n), doc in sorted(self.rows.items(), key=lambda i: i[0])
        ]


@cache
def play(seed: int) -> tuple[Decimal, Decimal, list[str]]:
    """Return what is billed of November, what the dials did between the same two readings, and what kinds of rows there are."""
    dice = random.Random(seed)  # noqa: S311 - a seed that can be played again
    site = Site(dice)
    site.desk.meter_number = "000000000001"
    ms = midnight_ms(date(2026, 10, 31))
    site.began_ms = ms
    shown = Decimal(dice.randrange(100, 400_000)).scaleb(-1)
    first, beyond = midnight_ms(date(2026, 11, 1)), midnight_ms(date(2026, 12, 1))
    swap_at, ratio_at = (dice.uniform(first, beyond) for _ in range(2))
    since_flip, before, billed, opened = 0, None, Decimal(0), False
    while True:
        step = POLL_MS if dice.random() > 0.004 else int(dice.uniform(1, 4 * 86_400_000))
        ms += step
        shown += Decimal(round(dice.uniform(0, 12) * step / 3_600_000 * 100)).scaleb(-2)
        off = step > POLL_MS
        if off or dice.random() < 0.003:
            site.restart(ms, boots=off)
        if swap_at and ms > swap_at:
            swap_at, shown, before = 0, Decimal(dice.randrange(0, 3000)).scaleb(-2), None
            site.desk.meter_number = "000000000002"
        ratio = site.desk.ct
        if ratio_at and ms > ratio_at:
            ratio_at = 0
            site.restart(ms, boots=False)
            site.desk.ct = Decimal(40)
            ratio = site.desk.ct
        since_flip += 1
        near = any(abs(ms - edge) < 8 * POLL_MS for edge in (first, beyond, swap_at, ratio_at)) or before is None
        if not near and not off and since_flip > APART and dice.random() < 0.05:
            since_flip = 0
            wrong = flipped(shown, dice)
            if wrong is not None:
                site.poll(ms, wrong)
            continue
        clock = FLOORED if off and dice.random() < 0.5 else SYNCED
        site.poll(ms, shown, clock=clock)
        dated = clock == SYNCED
        if dated and opened and ms >= beyond and before is not None:
            billed += (shown - before) * ratio
            opened, before = False, None
            break
        if opened and before is not None:
            billed += (shown - before) * ratio
        if dated and not opened and ms >= first:
            opened = True
        before = shown
    meter = {
        "id": "m1",
        "room": "",
        "meter": site.desk.meter_number,
        "t": ms,
        "registers": {ENERGY: f"{shown}"},
        "ratio": "40",
    }
    month = month_of(meter, site.stored(), "2026-11", today=datetime.fromtimestamp(ms / 1000, UTC).astimezone().date())
    (use,) = month.uses
    assert use.used is not None
    assert not month.odd
    assert sum(one for one, _days in use.until_next.values()) == use.used
    return use.used, billed, [row["kind"] for row in month.told]


@pytest.mark.parametrize("seed", range(12))
def test_what_is_billed_is_what_the_dials_did(seed: int) -> None:
    """Of 260 seeds played by hand 257 were exact. In three a stretch began or ended with a garbled reading that could be true."""
    used, true, _kinds = play(seed)
    assert used == true


def test_the_seeds_meet_what_they_are_for() -> None:
    kinds = {kind for seed in range(12) for kind in play(seed)[2]}
    assert kinds >= {"swap", "ratio", "held", "unconfirmed", "withdrawn"}

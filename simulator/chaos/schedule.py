"""The schedule of a chaos run: which fault, on whom, when and for how long. Pure: the same seed gives the same schedule.

Faults that work on the same thing never overlap: one line, one conduct of an application, the gateway's process and disk,
its clock. Everything else may: a kill while a platform is slow and the other one's line is dead is what the run is for.
A schedule is JSON, so that a run that was not clean can be played again, in full or with some of its faults only.

Limits: a fault about every `EVERY_S`, 1,000 at most; the first after `FIRST_S`, the last ended at `LAST_SHARE` of the run, while
devices still work; each lasts from a fraction of a second to `LONGEST_S`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

EVERY_S: Final = 2.2
FIRST_S: Final = 1.0
LAST_SHARE: Final = 0.8
LONGEST_S: Final = 7.0
MAX_FAULTS: Final = 1_000
DISTRICT, FAMILY = "district", "family"
GATEWAY: Final = ""
_REST_S: Final = 0.3
_ATTEMPTS: Final = 50
DAY_S: Final = 86_400
JUMPS_S: Final = (90, -90, 3_600, -3_600, 40 * DAY_S, -40 * DAY_S, 5 * 365 * DAY_S, -5 * 365 * DAY_S)


class ScheduleError(Exception):
    """A schedule that cannot be played: says which entry, and what was expected."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of a schedule. `number` from 1, in order of time; `on`: a platform, or "" for the gateway's own world.

    `facts` are what the fault needs to know beside that: milliseconds, statuses, seconds of a jump.
    """

    number: int
    at_s: float
    for_s: float
    fault: str
    on: str = GATEWAY
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault: how long it lasts, on what it works, what it needs, and how its facts are drawn."""

    lasts_s: tuple[float, float]
    works_on: str
    platforms: tuple[str, ...] = (GATEWAY,)
    needs: str = ""
    weight: int = 1
    draw: Callable[[random.Random], dict[str, Any]] = lambda _rng: {}


_BOTH: Final = (DISTRICT, FAMILY)

# `works_on`: faults with the same word on the same platform never overlap. `needs`: see stage.ABILITIES.
KINDS: Final[Mapping[str, Kind]] = {
    "kill": Kind((0.0, 0.0), "gateway", weight=4),
    "kill-twice": Kind((0.0, 1.2), "gateway", weight=2),
    "disk-full": Kind((1.0, 4.0), "gateway", needs="disk"),
    "disk-hangs": Kind((0.5, 3.0), "gateway", needs="disk"),
    "disk-read-only": Kind((1.5, 4.0), "gateway", needs="disk"),
    "start-read-only": Kind((1.5, 4.0), "gateway", needs="disk"),
    "corrupt-running": Kind((0.5, 1.5), "gateway", needs="corrupt", draw=lambda rng: {"pages": rng.randint(1, 4)}),
    "corrupt-dead": Kind((0.0, 0.0), "gateway", needs="corrupt", draw=lambda rng: {"pages": rng.randint(1, 4)}),
    "corrupt-wal": Kind((0.0, 0.0), "gateway", needs="corrupt"),
    # Nobody plans it, for no gateway can stand it: it shows that the ledgers tell.
    "lose-database": Kind((0.0, 0.0), "gateway", weight=0),
    "clock": Kind((2.0, 6.0), "clock", needs="clock", weight=2, draw=lambda rng: {"jump_s": rng.choice(JUMPS_S)}),
    "cut": Kind((0.5, 4.0), "line", _BOTH, weight=2),
    "half-open": Kind((1.0, 6.0), "line", _BOTH, weight=2),
    "broker-restart": Kind((0.0, 0.0), "line", (DISTRICT,), weight=2),
    "certificate-same-authority": Kind((0.0, 0.0), "line", (FAMILY,)),
    "certificate-other-authority": Kind((2.0, 5.0), "line", (FAMILY,)),
    "mute-then-cut": Kind((0.5, 2.0), "line", _BOTH, weight=2),
    "slow": Kind((1.0, 5.0), "pace", _BOTH, draw=lambda rng: {"ms": rng.randint(50, 1200)}),
    "answers-twice": Kind((1.0, 5.0), "doubling", _BOTH),
    "answers-lost": Kind((1.0, 3.0), "line", _BOTH),
    "messages-lost": Kind((0.5, 2.0), "memory", _BOTH, draw=lambda rng: {"p": rng.choice((0.3, 0.7, 1.0))}),
    "retry-some": Kind((1.0, 4.0), "verdict", _BOTH, draw=lambda rng: {"p": rng.choice((0.2, 0.5)), "after_ms": 300}),
    "retry-all": Kind((1.0, 3.0), "verdict", _BOTH, draw=lambda rng: {"after_ms": rng.choice((200, 1_000))}),
    "one-event-refused": Kind((0.0, 0.0), "poison", _BOTH),
    "status-500": Kind((1.0, 4.0), "status", (FAMILY,), draw=lambda rng: {"decided": rng.random() < 0.5}),
    "status-429": Kind((1.0, 4.0), "status", (FAMILY,), draw=lambda rng: {"retry_after": rng.choice(("1", "2"))}),
    "status-413": Kind((1.0, 5.0), "size", (FAMILY,), draw=lambda rng: {"bytes": rng.choice((4_096, 8_192))}),
    "business-error": Kind((1.0, 4.0), "status", (FAMILY,)),
    "answer-broken-off": Kind(
        (0.5, 3.0), "status", (FAMILY,), draw=lambda rng: {"how": rng.choice(("half", "close", "garbage", "bare"))}
    ),
}


def draw(seed: int, seconds: float) -> tuple[Planned, ...]:
    """Draw the schedule of a seed. It is the same on every machine: what one cannot do is left out of it afterwards."""
    rng = random.Random(f"chaos {seed}")  # noqa: S311 - a rehearsal that can be repeated, nothing secret hangs on it
    names = [name for name, kind in KINDS.items() for _ in range(kind.weight)]
    busy: dict[tuple[str, str], list[tuple[float, float]]] = {}
    found: list[Planned] = []
    for _ in range(max(1, round(seconds / EVERY_S))):
        for _attempt in range(_ATTEMPTS):
            one = _draw_one(rng, rng.choice(names), seconds=seconds)
            spells = busy.setdefault((KINDS[one.fault].works_on, one.on), [])
            if all(one.at_s + one.for_s + _REST_S <= a or b + _REST_S <= one.at_s for a, b in spells):
                spells.append((one.at_s, one.at_s + one.for_s))
                found.append(one)
                break
    return _numbered(found)


def _draw_one(rng: random.Random, name: str, *, seconds: float) -> Planned:
    kind = KINDS[name]
    for_s = round(min(rng.uniform(*kind.lasts_s), LAST_SHARE * seconds / 4), 2)
    at_s = round(rng.uniform(FIRST_S, max(FIRST_S, LAST_SHARE * seconds - for_s)), 2)
    return Planned(0, at_s, for_s, name, rng.choice(kind.platforms), kind.draw(rng))


def _numbered(faults: Iterable[Planned]) -> tuple[Planned, ...]:
    ordered = sorted(faults, key=lambda one: (one.at_s, one.fault, one.on))
    return tuple(
        Planned(n, one.at_s, one.for_s, one.fault, one.on, one.facts) for n, one in enumerate(ordered, start=1)
    )


def without(schedule: Sequence[Planned], faults: Collection[str]) -> tuple[Planned, ...]:
    """Return a schedule without such faults. The others keep their numbers."""
    return tuple(one for one in schedule if one.fault not in faults)


def only(schedule: Sequence[Planned], numbers: Collection[int]) -> tuple[Planned, ...]:
    """Return the faults with these numbers, which they keep. ScheduleError for a number that is not there."""
    unknown = sorted(set(numbers) - {one.number for one in schedule})
    if unknown:
        raise ScheduleError(f"the schedule has {len(schedule)} faults; there is no {', '.join(map(str, unknown))}")
    return tuple(one for one in schedule if one.number in numbers)


def dump(schedule: Sequence[Planned]) -> list[dict[str, Any]]:
    """Return a schedule as JSON values."""
    return [asdict(one) | {"facts": dict(one.facts)} for one in schedule]


def parse(text: str) -> tuple[Planned, ...]:
    """Read a schedule, or the report of a run, which holds one. ScheduleError names what does not fit."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ScheduleError(f"not JSON: {error}") from error
    rows = document.get("schedule") if isinstance(document, dict) else document
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_FAULTS:
        raise ScheduleError(f"expected a list of 1 to {MAX_FAULTS} faults, or a report with one under `schedule`")
    return tuple(_planned(row, at) for at, row in enumerate(rows, start=1))


def _planned(row: Any, at: int) -> Planned:
    try:
        one = Planned(
            int(row["number"]), float(row["at_s"]), float(row["for_s"]), str(row["fault"]), str(row["on"]),
            dict(row["facts"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ScheduleError(f"fault {at} of the schedule: {error!r}") from error
    kind = KINDS.get(one.fault)
    if kind is None or one.on not in kind.platforms:
        raise ScheduleError(f"fault {at} of the schedule: there is no {one.fault!r} on {one.on!r}")
    if one.at_s < 0 or not 0 <= one.for_s <= 10 * LONGEST_S:
        raise ScheduleError(f"fault {at} of the schedule: at_s from 0, for_s from 0 to {10 * LONGEST_S:g}")
    return one


def words(one: Planned) -> str:
    """Say a fault in one line."""
    facts = " ".join(f"{name}={value}" for name, value in one.facts.items())
    spell = f" for {one.for_s:g} s" if one.for_s else ""
    return f"{one.number:3}  {one.at_s:6.2f} s  {one.fault} {one.on}{spell}  {facts}".rstrip()

"""What became of each press: pure functions over what devices did and what the platform's application accepted.

    heard      at least one advert was put on the bus while the gateway scanned
    deaf       an advert that the radio did not lose found nobody who scanned

A press that was heard is one `alarm.raised`, with the right device, counter and kind, verified where a key proves it: no more
and no fewer, or everything of it lies inside a received `gateway.gap`. A press that was not heard raises nothing; one that met
a deaf gateway lies in a gap. What an attacker sends again raises at most one alarm a time, and none that is verified: unless
the gateway heard nothing of the press itself, for then this is the first that it hears of a press that was made (`by_echo`).
A counter of 8 bits that nobody proves can be used up by an attacker: a press with the number that somebody said within the
`MASKS_S` before counts as that one's repeat, and as `masked` here.

Limits: an event may give a time 50 ms before its advert (two clocks). A gap begins with what was read last, and what was put
on the bus after that dies with it: so it is widened by `TOLERANCE_S` at both ends, and at its beginning by the time that the last
`LAGGING` alarms before it had taken from the bus to the gateway, which on a busy machine may be seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

EARLY_S: Final = 0.05
TOLERANCE_S: Final = 0.25
LAGGING: Final = 5
# How long the gateway takes an equal number of an unproven device for the same press, and how late it may read one.
MASKS_S: Final = 62.0
MAX_FACTS: Final = 20
OFFENCES: Final = {
    "lost": "heard, raised by nothing, outside every gap",
    "doubled": "alarms beyond the one of their press",
    "phantom": "alarms that no press and no attacker caused",
    "wrong": "alarms of another kind or trust than their press",
    "replay_verified": "alarms of an attacker that were taken for proven",
    "deaf_untold": "adverts that met a deaf gateway outside every gap",
}
_COUNTED: Final = (
    "presses", "heard", "once", "in_a_gap", "by_echo", "masked", "unheard", "radio_loss", "met_deaf", "replays", "replays_raised",
    "replays_repeat", "raised",
)  # fmt: skip

Window = tuple[float, float]


@dataclass(slots=True, eq=False)
class Said:
    """One press, or one time that an attacker said an old one again (`of`). Wall-clock seconds."""

    device: str
    protocol: str
    kind: str
    counter: int | None
    proves: bool
    began: float
    of: float | None = None
    told: list[float] = field(default_factory=list)
    aside: list[float] = field(default_factory=list)
    """Put on the bus while nothing but a monitor listened: it may be heard, and need not."""
    deaf: list[float] = field(default_factory=list)
    lost: int = 0

    @property
    def is_replay(self) -> bool:
        """Was it an attacker?"""
        return self.of is not None


@dataclass(frozen=True, slots=True)
class Raised:
    """One `alarm.raised` that was accepted: when its advert came, when it was stored, and when the platform had it."""

    device: str
    kind: str
    counter: int | None
    verified: bool
    alarm: str
    at: float
    recorded: float
    accepted: float


def judge(said: Sequence[Said], raised: Iterable[Raised], gaps: Iterable[Window]) -> dict[str, Any]:
    """Return counts, offences with the first facts of each, figures per protocol, and latencies in milliseconds."""
    book = _Book()
    told: dict[int, list[Raised]] = defaultdict(list)
    sayings = _index(said)
    for one in sorted(raised, key=lambda each: each.at):
        book.counts["raised"] += 1
        found = _cause(one, sayings, told)
        if found is None:
            book.offence("phantom", one.device, at=one.at, counter=one.counter, verified=one.verified)
        else:
            told[id(found)].append(one)
    latencies: dict[str, list[float]] = defaultdict(list)
    windows = _merged(_widened(gaps, _lags(said, told)))
    for press in said:
        alarms = told[id(press)]
        if press.is_replay:
            _judge_replay(press, alarms, book)
        else:
            attacker = "by_echo" if _is_echoed(press, sayings) else "masked" if _is_masked(press, sayings) else ""
            _judge_press(press, alarms, windows, book, attacker=attacker)
            if press.told and alarms:
                first = min(press.told)
                latencies["heard"].append(alarms[0].at - first)
                latencies["stored"].append(alarms[0].recorded - first)
                latencies["accepted"].append(alarms[0].accepted - first)
    return book.report() | {
        "gaps": len(windows),
        "gap_s": round(sum(end - begin for begin, end in windows), 1),
        "latency_ms": {name: _quantiles(values) for name, values in latencies.items()},
    }


class _Book:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.protocols: dict[str, Counter[str]] = defaultdict(Counter)
        self._facts: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def offence(self, what: str, device: str, **facts: object) -> None:
        self.counts[what] += 1
        if len(self._facts[what]) < MAX_FACTS:
            self._facts[what].append({"device": device, **facts})

    def count(self, press: Said, what: str) -> None:
        self.counts[what] += 1
        self.protocols[press.protocol][what] += 1

    def report(self) -> dict[str, Any]:
        return {
            **{name: self.counts[name] for name in (*_COUNTED, *OFFENCES)},
            "protocols": {name: dict(counts) for name, counts in sorted(self.protocols.items())},
            "facts": dict(self._facts),
        }


def _index(said: Iterable[Said]) -> dict[tuple[str, int | None], list[Said]]:
    found: dict[tuple[str, int | None], list[Said]] = defaultdict(list)
    for one in said:
        found[one.device, one.counter].append(one)
    for sayings in found.values():
        sayings.sort(key=lambda one: one.began)
    return found


def _cause(
    one: Raised, sayings: dict[tuple[str, int | None], list[Said]], told: dict[int, list[Raised]]
) -> Said | None:
    """Find what an alarm tells of. A key tells presses from attackers; without one only the moment does."""
    candidates = sayings.get((one.device, one.counter), [])
    at = bisect_right(candidates, one.at + EARLY_S, key=lambda each: each.began)
    before = candidates[:at]
    if not before:
        return None
    if before[-1].proves:
        # A counter of 32 bits comes once: what is proven is the press, and what is not can only be said again.
        others = [each for each in before if each.is_replay != one.verified]
        return next((each for each in reversed(others) if not told[id(each)]), before[-1])
    spoken = [each for each in before if any(t <= one.at + EARLY_S for t in (*each.told, *each.aside))]
    return (spoken or before)[-1]


def _is_echoed(press: Said, sayings: dict[tuple[str, int | None], list[Said]]) -> bool:
    """Was a press that has a number heard when it was said again?"""
    again = sayings[press.device, press.counter] if press.counter is not None else ()
    return any(one.of == press.began and one.told for one in again)


def _is_masked(press: Said, sayings: dict[tuple[str, int | None], list[Said]]) -> bool:
    """Did an attacker say the number of a press shortly before, that nobody can prove?"""
    if press.proves or press.counter is None or not press.told:
        return False
    first = press.told[0]
    others = (one for one in sayings[press.device, press.counter] if one.is_replay and one.told)
    return any(first - MASKS_S <= one.told[-1] < first for one in others)


def _judge_press(
    press: Said, alarms: Sequence[Raised], windows: Sequence[Window], book: _Book, *, attacker: str
) -> None:
    book.count(press, "presses")
    facts = {"protocol": press.protocol, "began": press.began, "counter": press.counter, "told": len(press.told)}
    untold = [t for t in press.deaf if not _inside(t, windows)]
    if untold:
        book.offence("deaf_untold", press.device, t=untold[0], **facts)
    if press.deaf:
        book.count(press, "met_deaf")
    if press.told:
        book.count(press, "heard")
    for extra in alarms[1:]:
        book.offence("doubled", press.device, at=extra.at, alarm=extra.alarm, **facts)
    if alarms and (alarms[0].kind != press.kind or alarms[0].verified != press.proves):
        book.offence("wrong", press.device, kind=alarms[0].kind, verified=alarms[0].verified, **facts)
    became = _became(press, alarms, windows, attacker=attacker)
    if became == "lost":
        book.offence("lost", press.device, t=press.told[0], **facts)
    elif became == "phantom":
        book.offence("phantom", press.device, at=alarms[0].at, **facts)
    else:
        book.count(press, became)
        if became == "unheard" and not press.deaf:
            book.count(press, "radio_loss")


def _became(press: Said, alarms: Sequence[Raised], windows: Sequence[Window], *, attacker: str) -> str:
    """Say what became of a press: the name under which it is counted. `attacker`: what one may have made of it."""
    if alarms:
        return "once" if press.told or press.aside else "by_echo" if attacker == "by_echo" else "phantom"
    if not press.told:
        return "unheard"
    if all(_inside(t, windows) for t in press.told):
        return "in_a_gap"
    return attacker or "lost"  # who says it again may have been heard before it


def _judge_replay(press: Said, alarms: Sequence[Raised], book: _Book) -> None:
    if not press.told:
        if alarms and not press.aside:
            book.offence("phantom", press.device, at=alarms[0].at, replay=True, counter=press.counter)
        return
    book.count(press, "replays")
    book.count(press, "replays_raised" if alarms else "replays_repeat")
    for extra in alarms[1:]:
        book.offence("doubled", press.device, at=extra.at, replay=True, counter=press.counter)
    for one in alarms:
        if one.verified:
            book.offence("replay_verified", press.device, at=one.at, counter=press.counter)


def _lags(said: Iterable[Said], told: Mapping[int, Sequence[Raised]]) -> list[tuple[float, float]]:
    """Return when each alarm was read, and how long it had been on its way then, in order."""
    return sorted(
        (alarms[0].at, alarms[0].at - min(one.told)) for one in said if one.told and (alarms := told.get(id(one), ()))
    )


def _widened(gaps: Iterable[Window], lags: Sequence[tuple[float, float]]) -> Iterator[Window]:
    for begin, end in gaps:
        at = bisect_right(lags, begin + EARLY_S, key=lambda one: one[0])
        yield begin - max((lag for _, lag in lags[max(0, at - LAGGING) : at]), default=0.0), end


def _merged(gaps: Iterable[Window]) -> list[Window]:
    found: list[Window] = []
    for begin, end in sorted(gaps):
        if found and begin <= found[-1][1] + TOLERANCE_S:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def _inside(t: float, windows: Sequence[Window]) -> bool:
    at = bisect_right(windows, t + TOLERANCE_S, key=lambda one: one[0]) - 1
    return at >= 0 and t <= windows[at][1] + TOLERANCE_S


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    ranked = sorted(values)
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(1000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))], 1) for name, share in at.items()}

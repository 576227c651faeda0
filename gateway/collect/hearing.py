"""Knows when each link could hear, and says so: every deaf time becomes a `gateway.gap` event.

So that no data never looks like no alarm. After a start each link was deaf from the last sign of life until it hears
again. A gap is told when it ends, because only then is its length known; while it lasts, its problem is shown, and its
beginning stands in the database, so that a gateway that ends meanwhile tells it from there. A gap that a full queue
refused is kept, one for each link, and grows until it can be told. Limit: `TICK_S` between two tries.
Of radios that hear the same air the gap of one names those that heard during all of it (`others_hearing`). It is a gap all
the same: whether they reach what only this one reached nobody knows.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from gateway.clock import Boots, Clock, Stamp, iso
from gateway.health import Health
from gateway.links.state import LinkState
from gateway.outbox import Mark

TICK_S: Final = 1.0
_OWNER: Final = "link:"
_KEY: Final = "deaf"

# Stores the data of a gap event that happened at a time (None: no event), and a mark, and says when both are durable; False
# when the queue is full.
Store = Callable[[Mapping[str, object] | None, Stamp, Mark, Callable[[], None]], bool]


@dataclass(frozen=True, slots=True)
class _Gap:
    """A deaf time that is over, or what was dropped in it."""

    start: Stamp
    end: Stamp
    reason: str
    dropped: int


@dataclass(slots=True)
class _Link:
    kind: str
    hearing: bool
    since: Stamp
    reason: str
    problem: str | None = None
    untold: _Gap | None = None


class Hearing:
    """The hearing of every link that runs. `marks` are those of the last run, `deaf_since` its last sign of life."""

    def __init__(
        self, links: Iterable[tuple[str, str]], marks: Iterable[Mark], *, deaf_since: Stamp, clock: Clock,
        health: Health, store: Store, radios: Collection[str] = (),
    ) -> None:  # fmt: skip
        """`radios`: the links that hear the same air, and may stand in for one another."""
        self._radios = frozenset(radios)
        self._links = {name: _Link(kind, hearing=False, since=deaf_since, reason="restart") for name, kind in links}
        self._clock = clock
        self._health = health
        self._store = store
        self._versions = itertools.count(1)
        self._ending = False
        self._not_durable: dict[int, Stamp] = {}
        for name, since, reason in self._known(marks):
            link = self._links[name]
            link.since, link.reason = since, reason

    def _known(self, marks: Iterable[Mark]) -> Iterator[tuple[str, Stamp, str]]:
        for mark in marks:
            name = mark.device.removeprefix(_OWNER)
            known = _parse(mark.value) if mark.key == _KEY and name in self._links else None
            if known:
                yield name, *known

    def recall(self, marks: Iterable[Mark], *, until: Stamp) -> None:
        """Take marks that could not be read at the start, `until`: a link may have been deaf for longer than was told."""
        for name, since, reason in self._known(marks):
            link = self._links[name]
            if link.hearing:
                self._add(name, _Gap(since, until, reason, 0))
                self._tell(name)
            else:
                link.since, link.reason = since, reason

    def begin(self) -> None:
        """Make the beginning of each deaf time durable: a link may stay deaf until the next restart."""
        for name, link in self._links.items():
            self._note(name, None, link.since, since=self._clock.stamp() if link.hearing else link.since)

    @property
    def not_durable_since(self) -> Stamp | None:
        """The beginning of the earliest deaf time that no disk has taken yet; None when all of them are durable.

        A sign of life later than that would hide it from the next start.
        """
        waiting = [*self._not_durable.values(), *(one.untold.start for one in self._links.values() if one.untold)]
        boot = self._clock.stamp().boot
        return min(waiting, key=lambda at: (at.boot == boot, at.mono_ms), default=None)

    def end(self) -> None:
        """The gateway ends: what falls silent from here on is its doing."""
        self._ending = True

    def tick(self) -> None:
        """Tell what could not be told yet; to be called every `TICK_S`."""
        for name, link in self._links.items():
            if link.untold is not None:
                self._tell(name)

    def on_state(self, state: LinkState) -> None:
        """A link began or ceased to hear, or its trouble changed."""
        link = self._links[state.link]
        if link.problem and link.problem != state.problem:
            self._health.off(link.problem, state.link)
        if state.problem:
            self._health.on(state.problem, state.link, **state.facts)
        link.problem = state.problem
        if state.hearing and not link.hearing:
            gap = _Gap(link.since, state.at, link.reason, 0)
            link.hearing, link.since = True, state.at
            self._add(state.link, gap)
            self._tell(state.link)
        elif link.hearing and not state.hearing:
            link.hearing, link.since = False, state.at
            link.reason = "restart" if self._ending else "link-down"
            self._note(state.link, None, state.at, since=state.at)

    def on_overflow(self, name: str, count: int, *, first: Stamp, last: Stamp) -> None:
        """A link heard more than could be taken: what was dropped is announced. A count of 0: nobody could count it."""
        self._add(name, _Gap(first, last, "overflow", count))
        self._tell(name)

    def on_refused(self, name: str, at: Stamp) -> None:
        """The queue was too full for one input: told together with the others of this second."""
        if name in self._links:
            self._add(name, _Gap(at, at, "overflow", 1))

    def _add(self, name: str, gap: _Gap) -> None:
        link = self._links[name]
        before = link.untold
        if before is not None:
            gap = replace(before, end=gap.end, dropped=before.dropped + gap.dropped)
        link.untold = gap

    def _tell(self, name: str) -> None:
        link = self._links[name]
        gap = link.untold
        if gap is None:
            return
        link.untold = None
        data = _data(name, gap)
        if name in self._radios and len(self._radios) > 1:
            data["others_hearing"] = self._others_hearing(name, gap)
        if not self._note(name, data, gap.end, since=gap.start):
            link.untold = gap

    def _others_hearing(self, name: str, gap: _Gap) -> list[str]:
        """Return the other radios that heard from before a gap until now."""
        start = gap.start
        return [
            other for other, link in self._links.items()
            if other in self._radios and other != name and link.hearing and link.untold is None
            and link.since.boot == start.boot and link.since.mono_ms <= start.mono_ms
        ]  # fmt: skip

    def _note(self, name: str, data: Mapping[str, object] | None, at: Stamp, *, since: Stamp) -> bool:
        """Store what is to be told of a link, and how it stands; False when a full queue refused it."""
        mark = self._mark(name)
        self._not_durable[mark.version] = since
        if self._store(data, at, mark, lambda: self._is_durable(mark.version)):
            return True
        self._is_durable(mark.version)
        return False

    def _is_durable(self, version: int) -> None:
        self._not_durable.pop(version, None)

    def _mark(self, name: str) -> Mark:
        link = self._links[name]
        value: dict[str, object] | None = None
        if link.untold:
            value = {"since": asdict(link.untold.start), "reason": link.untold.reason}
        elif not link.hearing:
            value = {"since": asdict(link.since), "reason": link.reason}
        return Mark(_OWNER + name, _KEY, json.dumps(value, separators=(",", ":")), next(self._versions))

    def status(self, dropped: Mapping[str, int]) -> list[dict[str, Any]]:
        """Return the figures for `gateway status`."""
        now = self._clock.stamp()
        return [
            {
                "id": name, "kind": link.kind, "hearing": link.hearing, "problem": link.problem,
                "since_s": round((now.wall_ms - _start_ms(link.since, now)) / 1000, 1), "dropped": dropped.get(name, 0),
            }
            for name, link in self._links.items()
        ]  # fmt: skip


def heard_by(recorded: Stamp | None) -> Stamp | None:
    """Return up to when every link was surely read, by the event that was stored last: a tick before it.

    It proves that one of them was, or only the staff; what has come to another may have lain unread in the kernel.
    """
    if recorded is None:
        return None
    ms = round(1000 * TICK_S)
    return replace(recorded, wall_ms=recorded.wall_ms - ms, mono_ms=max(0, recorded.mono_ms - ms))


def last_sign(
    alive: Stamp | None, recorded: Stamp | None, *, began: Stamp, tolerance_ms: int, boots: Boots | None = None
) -> Stamp:
    """Return the last sign of life before `began`: the alive file, unless a power cut left it behind the database.

    Of two boots the later is the one that goes on; where neither does, the order of `boots` tells, and without that only
    the wall clock can. Without any sign nothing is known of before.
    """
    signs = [one for one in (alive, recorded) if one is not None and _plausible(one)]
    if not signs:
        return began
    if len(signs) == 1 or alive is None or recorded is None:
        return signs[0]
    if alive.boot == recorded.boot:
        behind_ms = recorded.mono_ms - alive.mono_ms
    elif began.boot in (alive.boot, recorded.boot):
        return alive if alive.boot == began.boot else recorded
    elif boots is not None and (later := boots.later(alive.boot, recorded.boot)) is not None:
        return alive if alive.boot == later else recorded
    else:
        behind_ms = recorded.wall_ms - alive.wall_ms
    return alive if behind_ms <= tolerance_ms else recorded


def _data(name: str, gap: _Gap) -> dict[str, object]:
    return {
        "link": name, "from": iso(_start_ms(gap.start, gap.end)), "to": iso(gap.end.wall_ms),
        "from_mono_ms": gap.start.mono_ms, "to_mono_ms": gap.end.mono_ms, "from_boot": gap.start.boot,
        "reason": gap.reason, "dropped": gap.dropped,
    }  # fmt: skip


def _start_ms(start: Stamp, end: Stamp) -> int:
    """Return when a time that ends at `end` began, by the wall clock of its end, and never later.

    Within a boot the length is sure, whatever was done to the wall clock. Across boots the clock may have been set back;
    what is sure then is that nothing was heard before this boot.
    """
    if start.boot == end.boot:
        return end.wall_ms - max(0, end.mono_ms - start.mono_ms)
    return min(start.wall_ms, end.wall_ms - end.mono_ms)


def _parse(text: str) -> tuple[Stamp, str] | None:
    """Read a stored beginning; None when the link heard, or when it cannot be read."""
    try:
        fields = json.loads(text)
        since = Stamp(**fields["since"])
        return (since, str(fields["reason"])) if _plausible(since) else None
    except (ValueError, KeyError, TypeError):
        return None


def _plausible(stamp: Stamp) -> bool:
    """Can it be shown and compared? A file that a power cut has torn may hold anything, whatever its type says."""
    try:
        iso(stamp.wall_ms)
        iso(stamp.mono_ms)
    except (TypeError, ValueError, OverflowError, OSError):
        return False
    return True

"""Knows when each link could hear, and says so: every deaf time becomes a `gateway.gap` event.

So that no data never looks like no alarm. After a start each link was deaf from the last sign of life until it hears
again. A gap is told when it ends, because only then is its length known; while it lasts, its problem is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock, Stamp, iso
from gateway.health import Health
from gateway.links.state import LinkState

GapCallback = Callable[[Mapping[str, object], Stamp], None]


@dataclass(slots=True)
class _Link:
    kind: str
    hearing: bool
    since: Stamp
    reason: str
    problem: str | None = None


class Hearing:
    """The hearing of every configured link. `say` gets the data of a gap event and its time."""

    def __init__(
        self, links: Iterable[tuple[str, str]], *, deaf_since: Stamp, clock: Clock, health: Health, say: GapCallback
    ) -> None:
        self._links = {name: _Link(kind, hearing=False, since=deaf_since, reason="restart") for name, kind in links}
        self._clock = clock
        self._health = health
        self._say = say

    def on_state(self, state: LinkState) -> None:
        """A link began or ceased to hear, or its trouble changed."""
        link = self._links[state.link]
        if link.problem and link.problem != state.problem:
            self._health.off(link.problem, state.link)
        if state.problem:
            self._health.on(state.problem, state.link, **state.facts)
        link.problem = state.problem
        if state.hearing and not link.hearing:
            self._gap(state.link, link.since, state.at, reason=link.reason, dropped=0)
            link.hearing, link.since = True, state.at
        elif link.hearing and not state.hearing:
            link.hearing, link.since, link.reason = False, state.at, "link-down"

    def on_overflow(self, name: str, count: int, *, first: Stamp, last: Stamp) -> None:
        """A link heard more than could be taken: what was dropped is announced."""
        self._gap(name, first, last, reason="overflow", dropped=count)

    def _gap(self, name: str, start: Stamp, end: Stamp, *, reason: str, dropped: int) -> None:
        data = {
            "link": name, "from": iso(start.wall_ms), "to": iso(end.wall_ms), "from_mono_ms": start.mono_ms,
            "to_mono_ms": end.mono_ms, "from_boot": start.boot, "reason": reason, "dropped": dropped,
        }  # fmt: skip
        self._say(data, end)

    def status(self, dropped: Mapping[str, int]) -> list[dict[str, Any]]:
        """Return the figures for `gateway status`."""
        now = self._clock.stamp()
        return [
            {
                "id": name, "kind": link.kind, "hearing": link.hearing, "problem": link.problem,
                "since_s": round(max(0, now.wall_ms - link.since.wall_ms) / 1000, 1), "dropped": dropped.get(name, 0),
            }
            for name, link in self._links.items()
        ]  # fmt: skip

"""Which problems are on now, since when, and which of them only follow from another.

Whoever finds a trouble says `on`, whoever sees it gone says `off`; saying it again changes nothing but the facts.
What only happens, and has no end of its own, ends by itself when it has not been said again for its `lasts_s`.
Each turn is logged once and announced once. Limits: 1,000 troubles at a time. Beyond that a new one takes the place
of the youngest of a lower severity, or else is not kept; what is lost that way is counted in `uncounted`, and logged
once for each time that the list fills up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from gateway.clock import Clock, Stamp
from gateway.problems import SEVERITIES, Severity, describe, problem

LIMIT: Final = 1000

_LEVEL: Final[Mapping[str, str]] = {"problem": "error", "warning": "warning", "notice": "info"}
# A trouble of a device also hides behind one of the link or platform that its facts name.
_PARENT_FACTS: Final = ("link", "destination", "folder")

log = structlog.get_logger("gateway.health")


@dataclass(frozen=True, slots=True)
class Trouble:
    """A problem that is on, or was until `until`. `since_monotonic` is in seconds, for ages; `hidden`: it follows from
    another trouble that is on.
    """

    code: str
    subject: str
    severity: Severity
    since: Stamp
    since_monotonic: float
    facts: Mapping[str, object] = field(default_factory=dict)
    hidden: bool = False
    until: Stamp | None = None


class Health:
    """The list of troubles. `announce` is told each turn: a Trouble whose `until` is None has come, another is gone."""

    def __init__(self, clock: Clock, announce: Callable[[Trouble], None] | None = None) -> None:
        self._clock = clock
        self._announce = announce
        self._troubles: dict[tuple[str, str], Trouble] = {}
        self._renewed: dict[tuple[str, str], float] = {}
        self.uncounted = 0
        self._crowded = False

    def on(self, code: str, subject: str = "", /, **facts: object) -> None:
        """A problem is there. `subject` says with what (a device, link, destination); `facts` fill its text."""
        key = (code, subject)
        self._age_out()
        if problem(code).lasts_s is not None:
            self._renewed[key] = self._clock.monotonic()
        known = self._troubles.get(key)
        if known is not None:
            self._troubles[key] = replace(known, facts=facts)
            return
        trouble = Trouble(code, subject, problem(code).severity, self._clock.stamp(), self._clock.monotonic(), facts)
        trouble = replace(trouble, hidden=self._is_hidden(trouble))
        if len(self._troubles) >= LIMIT and not self._make_room(trouble):
            self.uncounted += 1
            return
        self._troubles[key] = trouble
        self._log(trouble, "on")
        if self._announce is not None:
            self._announce(trouble)

    def off(self, code: str, subject: str = "") -> None:
        """A problem is gone. Nothing happens when it was not on."""
        self._renewed.pop((code, subject), None)
        trouble = self._troubles.pop((code, subject), None)
        if trouble is None:
            return
        self._crowded = False
        trouble = replace(trouble, until=self._clock.stamp())
        self._log(trouble, "off", lasted_s=round(self._clock.monotonic() - trouble.since_monotonic, 1))
        if self._announce is not None:
            self._announce(trouble)

    def current(self) -> tuple[Trouble, ...]:
        """Return what is on: the worst first, then the oldest; `hidden` is judged anew."""
        self._age_out()
        judged = [replace(trouble, hidden=self._is_hidden(trouble)) for trouble in self._troubles.values()]
        return tuple(sorted(judged, key=lambda one: (SEVERITIES.index(one.severity), one.since_monotonic)))

    def _age_out(self) -> None:
        """End what only happened and did not happen again: nobody else will ever say that it is gone."""
        now = self._clock.monotonic()
        for key, at in list(self._renewed.items()):
            lasts_s = problem(key[0]).lasts_s
            if lasts_s is not None and now - at > lasts_s:
                self.off(*key)

    def _is_hidden(self, trouble: Trouble) -> bool:
        parents = {trouble.subject, "", *(str(trouble.facts.get(name, "")) for name in _PARENT_FACTS)}
        return any((code, parent) in self._troubles for code in problem(trouble.code).depends_on for parent in parents)

    def _make_room(self, newcomer: Trouble) -> bool:
        """Drop the youngest of the lowest severity if the newcomer is worse."""
        if not self._crowded:  # once for each time that the list fills up
            log.error("too many troubles at once", limit=LIMIT, code=newcomer.code, subject=newcomer.subject)
            self._crowded = True
        rank = SEVERITIES.index(newcomer.severity)
        lowest = max(self._troubles.values(), key=lambda one: (SEVERITIES.index(one.severity), one.since_monotonic))
        if SEVERITIES.index(lowest.severity) <= rank:
            return False
        del self._troubles[lowest.code, lowest.subject]
        self._renewed.pop((lowest.code, lowest.subject), None)
        self.uncounted += 1
        return True

    @staticmethod
    def _log(trouble: Trouble, turn: str, **more: object) -> None:
        title = describe(trouble.code, "en", trouble.subject, trouble.facts).title
        # A finder may name a fact like one of the log's own words: nested, it cannot collide.
        level = _LEVEL[trouble.severity] if turn == "on" else "info"
        details = {"code": trouble.code, "subject": trouble.subject, "turn": turn, "facts": dict(trouble.facts), **more}
        getattr(log, level)(title, **details)

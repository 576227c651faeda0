"""One cause, one line: what the daemon knows joins what was probed, and what follows from something else steps back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from gateway.diagnose.report import SECTIONS, Line, Section, bad, verdict_of
from gateway.problems import problem

_SECTION_OF: Final[Mapping[str, str]] = {
    "CFG": "service", "CTL": "service", "RUN": "service", "PWR": "power", "CLK": "clock", "STO": "storage",
    "ANN": "alarm", "SER": "serial", "BLE": "bluetooth", "RCV": "bluetooth", "MQS": "devices", "DEV": "devices", "NET": "network",
    "PLT": "platform", "SEC": "security", "VER": "version",
}  # fmt: skip
# A line also hides behind one of the link or platform that its facts name, as in `health`.
_PARENT_FACTS: Final = ("link", "destination", "folder")


def merged(found: Iterable[tuple[str, Line]], problems: Sequence[Mapping[str, Any]]) -> tuple[Section, ...]:
    """Return the sections in their order from probed lines (section, line) and the daemon's problems."""
    lines = [replace(line, section=line.section or section) for section, line in found]
    for one in problems:
        lines = _with(lines, one)
    lines = [replace(line, hidden_by=_cause(line, lines)) for line in lines]
    return tuple(
        Section(name, tuple(line for line in lines if line.section == name))
        for name in SECTIONS
        if any(line.section == name for line in lines)
    )


def _with(lines: list[Line], told: Mapping[str, Any]) -> list[Line]:
    """Add what the daemon tells, unless a line tells it already; then that one learns since when."""
    code, subject = str(told.get("code") or ""), str(told.get("subject") or "")
    since = told.get("since_s")
    since_s = float(since) if isinstance(since, (int, float)) else None
    for at, line in enumerate(lines):
        same = (line.code, line.subject) == (code, subject)
        if line.verdict.is_bad and (same or (code, subject) in line.covers):
            # The youngest of several that are one cause says least; the oldest is when it began.
            oldest = max((one for one in (line.since_s, since_s) if one is not None), default=None)
            return [*lines[:at], replace(line, since_s=oldest), *lines[at + 1 :]]
    facts = told.get("facts")
    known = {str(name): value for name, value in facts.items()} if isinstance(facts, dict) else {}
    made = replace(
        bad(code, "told-by-daemon", subject=subject),
        facts=known,
        since_s=since_s,
        section=_SECTION_OF.get(code[3:6], "service"),
        verdict=verdict_of(problem(code).severity),
    )
    # It knows better than a probe that met nothing bad, for it does the work.
    kept = [line for line in lines if (line.code, line.subject) != (code, subject) or line.verdict.is_bad]
    after = [at for at, line in enumerate(kept) if line.section == made.section]
    place = after[-1] + 1 if after else len(kept)
    return [*kept[:place], made, *kept[place:]]


def _cause(line: Line, lines: Sequence[Line]) -> str:
    """Return "CODE subject" of the bad line that this one follows from, "" for none."""
    if not line.verdict.is_bad:
        return ""
    parents = {line.subject, "", *(str(line.facts.get(name) or "") for name in _PARENT_FACTS)}
    causes = problem(line.code).depends_on
    for other in lines:
        if other is line or not other.verdict.is_bad:
            continue
        if (other.code in causes and other.subject in parents) or other.code in line.follows:
            return f"{other.code} {other.subject}".strip()
    return ""

"""What a diagnosis says: lines with verdicts, in sections of a fixed order, and what follows from all of them together.

A line that is well carries the code that it would have if it failed first. Nothing is worded here but by key, so one
diagnosis can be read in either language. Limits: the code for the telephone names the three worst codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol, runtime_checkable

from gateway.problems import Description, describe, problem
from gateway.texts import text

SECTIONS: Final = (
    "service", "power", "clock", "storage", "alarm", "serial", "bluetooth", "devices", "network", "platform", "security",
    "version",
)  # fmt: skip
READ_MORE: Final = "docs/reference/problems.md"
# Somebody waits for help: that goes before every repair.
FIRST_OF_ALL: Final = "GW-ANN-02"
_CODES_READ_OUT: Final = 3


class Verdict(StrEnum):
    """What was found out of one thing."""

    SKIPPED = "skipped"
    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"

    @property
    def rank(self) -> int:
        """How bad it is: what is skipped says nothing, what is unknown is not known to be well."""
        return tuple(Verdict).index(self)

    @property
    def is_bad(self) -> bool:
        """Is something to be done?"""
        return self in (Verdict.WARNING, Verdict.PROBLEM)


@runtime_checkable
class Amount(Protocol):
    """A fact that reads differently in each language."""

    def say(self, lang: str, /) -> str:
        """Return it for people."""

    def plain(self) -> object:
        """Return it for JSON."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at.

    `what` is the text "diagnose.WHAT"; `value`, `threshold` and `why` (of what is skipped or unknown) are texts as they
    stand, or "@key" to be filled with `facts`, which also fill the texts of the problem. `covers`: problems of the
    daemon, as (code, subject), that this line tells already. `follows`: codes that this one is a consequence of,
    beside those that its declaration names. `section` is where it is shown, "" for the one of the probe that found it.
    """

    code: str
    what: str
    verdict: Verdict
    subject: str = ""
    value: str = ""
    threshold: str = ""
    why: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    covers: frozenset[tuple[str, str]] = frozenset()
    follows: tuple[str, ...] = ()
    since_s: float | None = None
    hidden_by: str = ""
    section: str = ""

    def description(self, lang: str) -> Description:
        """Return the texts of the problem."""
        return describe(self.code, lang, self.subject, said(self.facts, lang))

    def words(self, template: str, lang: str) -> str:
        """Return `value`, `threshold` or `why` in a language."""
        if not template.startswith("@"):
            return template
        # Every part of such a text may be missing: the first that is there must not begin with what divides them.
        return text(template[1:], lang, **said(self.facts, lang)).lstrip("；; ")


@dataclass(frozen=True, slots=True)
class Section:
    """The lines about one part of the gateway."""

    name: str
    lines: tuple[Line, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of the lines."""
        return worst(self.lines)


@dataclass(frozen=True, slots=True)
class Report:
    """One diagnosis. `gateway` is "id org/site" where it is known, `asked` the sections that were asked for."""

    at: datetime
    took_s: float
    version: str
    gateway: str
    daemon: str
    sections: tuple[Section, ...]
    is_full: bool = False
    asked: tuple[str, ...] = SECTIONS

    @property
    def lines(self) -> tuple[Line, ...]:
        """Every line, in order."""
        return tuple(line for section in self.sections for line in section.lines)

    @property
    def verdict(self) -> Verdict:
        """The worst of everything."""
        return worst(self.lines)

    @property
    def exit_status(self) -> int:
        """0 well, 1 warnings or things that could not be found out, 2 problems."""
        return {Verdict.PROBLEM: 2, Verdict.WARNING: 1, Verdict.UNKNOWN: 1}.get(self.verdict, 0)

    @property
    def causes(self) -> tuple[Line, ...]:
        """What is bad and follows from nothing else: what to do first comes first."""
        bad = [line for line in self.lines if line.verdict.is_bad and not line.hidden_by]
        # While nothing runs, what keeps it from running goes before everything that is only wrong.
        keeps_down = {line.hidden_by for line in self.lines if line.code.startswith("GW-CTL")}

        def order(line: Line) -> tuple[bool, bool, int]:
            name = f"{line.code} {line.subject}".strip()
            return line.code != FIRST_OF_ALL, name not in keeps_down, -line.verdict.rank

        return tuple(sorted(bad, key=order))

    @property
    def first(self) -> Line | None:
        """The first thing to see to."""
        return next(iter(self.causes), None)

    @property
    def phone_code(self) -> str:
        """What is read out on the telephone."""
        return phone_code([line.code for line in self.causes])


def worst(lines: Iterable[Line]) -> Verdict:
    """Return the worst verdict; "skipped" where nothing else is."""
    return max((line.verdict for line in lines), key=lambda one: one.rank, default=Verdict.SKIPPED)


def phone_code(codes: Sequence[str]) -> str:
    """Return the worst codes and two check digits: "SER01 NET02 +1 *47". ISO 7064 MOD 97-10, as an IBAN has it.

    The check catches each wrong character and each exchange of two that are next to each other.
    """
    short = list(dict.fromkeys(code.removeprefix("GW-").replace("-", "") for code in codes))
    words = short[:_CODES_READ_OUT] or ["OK"]
    if len(short) > _CODES_READ_OUT:
        words.append(f"+{len(short) - _CODES_READ_OUT}")
    digits = "".join(str(int(one, 36)) for one in re.sub(r"[^0-9A-Z]", "", "".join(words)))
    return f"{' '.join(words)} *{98 - int(digits + '00') % 97:02d}"


def said(facts: Mapping[str, object], lang: str) -> dict[str, object]:
    """Return facts with every amount worded."""
    return {name: one.say(lang) if isinstance(one, Amount) else one for name, one in facts.items()}


# -- making lines ------------------------------------------------------------------------------------------------


def ok(code: str, what: str, value: str = "", *, threshold: str = "", subject: str = "", **facts: object) -> Line:
    """A thing that is well."""
    return Line(code, what, Verdict.OK, subject, value, threshold, facts=facts)


def bad(code: str, what: str, value: str = "", *, threshold: str = "", subject: str = "", **facts: object) -> Line:
    """A thing that is not well, as bad as its code is declared."""
    return Line(code, what, verdict_of(problem(code).severity), subject, value, threshold, facts=facts)


def skipped(code: str, what: str, why: str, *, subject: str = "", **facts: object) -> Line:
    """A thing that there is no reason or no way to look at here."""
    return Line(code, what, Verdict.SKIPPED, subject, why=why, facts=facts)


def unknown(code: str, what: str, why: str, *, subject: str = "", **facts: object) -> Line:
    """A thing that should have been found out and was not."""
    return Line(code, what, Verdict.UNKNOWN, subject, why=why, facts=facts)


def verdict_of(severity: str) -> Verdict:
    """Return the verdict for the severity of a problem; a notice asks for nothing."""
    return {"problem": Verdict.PROBLEM, "warning": Verdict.WARNING}.get(severity, Verdict.OK)


# -- JSON --------------------------------------------------------------------------------------------------------


def as_document(report: Report, lang: str) -> dict[str, Any]:
    """Return the report as report.schema.json describes it, worded in `lang`."""
    first = report.first
    return {
        "schema": 1,
        "at": report.at.isoformat(timespec="seconds"),
        "took_s": round(report.took_s, 2),
        "lang": lang,
        "version": report.version,
        "gateway": report.gateway,
        "daemon": report.daemon,
        "mode": "full" if report.is_full else "quick",
        "verdict": report.verdict.value,
        "exit_status": report.exit_status,
        "phone_code": report.phone_code,
        "first": None if first is None else {"code": first.code, "subject": first.subject},
        "sections": [
            {
                "id": section.name,
                "title": text(f"section.{section.name}", lang),
                "verdict": section.verdict.value,
                "lines": [_line(line, lang) for line in section.lines],
            }
            for section in report.sections
        ],
    }


def _line(line: Line, lang: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "code": line.code,
        "subject": line.subject,
        "verdict": line.verdict.value,
        "what": text(f"diagnose.{line.what}", lang),
        "value": line.words(line.value, lang),
        "threshold": line.words(line.threshold, lang),
        "why": line.words(line.why, lang),
        "measured": {name: _plain(one) for name, one in line.facts.items()},
        "since_s": line.since_s,
        "hidden_by": line.hidden_by,
    }
    if line.verdict.is_bad:
        described = line.description(lang)
        document |= {"title": described.title, "meaning": described.meaning, "remedy": described.remedy}
        document["read_more"] = read_more(line.code)
    return document


def read_more(code: str) -> str:
    """Return where the reference speaks of a code."""
    return f"{READ_MORE}#{code.lower()}"


def _plain(fact: object) -> object:
    if isinstance(fact, Amount):
        return fact.plain()
    if isinstance(fact, (list, tuple, set, frozenset)):
        return [_plain(one) for one in fact]
    return fact if fact is None or isinstance(fact, (bool, int, float, str)) else str(fact)

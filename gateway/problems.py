"""Every problem that an operator can meet, as a declaration: code, severity, and what it hides behind.

Titles, meanings for the elders and remedies stand in `texts` under "problem.CODE". A code never changes its meaning
and is never used again: people read it out on the phone. `depends_on`: while one of those is on, at the same subject
or for the whole gateway, this one follows from it and is shown under it only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gateway.texts import text

Severity = Literal["problem", "warning", "notice"]
SEVERITIES: Final[tuple[Severity, ...]] = ("problem", "warning", "notice")

# Codes of the configuration that tell of a thing that works, but not as well or not as meant.
_CONFIG_WARNINGS: Final = frozenset({30, 33, 35, 37, 38})
_CONFIG_CODES: Final = range(1, 40)

_SERIAL_DOWN: Final = tuple(f"GW-SER-{n:02d}" for n in range(1, 8))
_NO_SESSION: Final = tuple(f"GW-NET-{n:02d}" for n in range(1, 6))


@dataclass(frozen=True, slots=True)
class Problem:
    """What can go wrong. "problem": people may go without help; "warning": see to it soon; "notice": know it."""

    code: str
    severity: Severity
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """What people read of a problem: what is wrong, what it means for the elders, what to do."""

    title: str
    meaning: str
    remedy: str


def _declarations() -> Iterator[Problem]:
    for n in _CONFIG_CODES:
        yield Problem(f"GW-CFG-{n:02d}", "warning" if n in _CONFIG_WARNINGS else "problem")
    for code in _SERIAL_DOWN:
        yield Problem(code, "problem")
    yield Problem("GW-DEV-01", "problem", depends_on=_SERIAL_DOWN)
    yield Problem("GW-DEV-02", "warning")
    yield Problem("GW-DEV-03", "problem")
    yield Problem("GW-BLE-01", "problem")
    yield Problem("GW-BLE-02", "problem", depends_on=("GW-BLE-01",))
    yield Problem("GW-BLE-03", "problem", depends_on=("GW-BLE-01", "GW-BLE-02"))
    yield Problem("GW-BLE-04", "problem", depends_on=("GW-BLE-01", "GW-BLE-02", "GW-BLE-03"))
    yield Problem("GW-BLE-05", "problem")
    yield Problem("GW-BLE-06", "problem", depends_on=("GW-BLE-01", "GW-BLE-02", "GW-BLE-03", "GW-BLE-04"))
    yield Problem("GW-BLE-07", "problem")
    for code in _NO_SESSION:
        yield Problem(code, "problem")
    yield Problem("GW-PLT-01", "problem", depends_on=_NO_SESSION)
    yield Problem("GW-PLT-02", "problem")
    yield Problem("GW-PLT-03", "warning", depends_on=_NO_SESSION)
    yield Problem("GW-STO-01", "problem", depends_on=("GW-STO-03", "GW-RUN-02"))
    yield Problem("GW-STO-02", "problem")
    yield Problem("GW-STO-03", "problem")
    yield Problem("GW-STO-04", "problem")
    yield Problem("GW-STO-05", "problem")
    yield Problem("GW-SEC-01", "warning")
    yield Problem("GW-SEC-02", "warning")
    yield Problem("GW-SEC-03", "warning")
    for n in range(1, 6):
        yield Problem(f"GW-CTL-{n:02d}", "problem")
    for n in range(1, 4):
        yield Problem(f"GW-RUN-{n:02d}", "problem")


PROBLEMS: Final[Mapping[str, Problem]] = {problem.code: problem for problem in _declarations()}


def problem(code: str) -> Problem:
    """Return the declaration of a code. One that nobody declared counts as a problem: it must not go unseen."""
    return PROBLEMS.get(code) or Problem(code, "problem")


def describe(code: str, lang: str, subject: str = "", facts: Mapping[str, object] | None = None) -> Description:
    """Return the texts of a problem. Never raises: a code that nobody declared is shown itself, a fact as "?"."""
    known = facts or {}
    # What an operating system or library said goes by two names: a finder's `error` is a text's {detail}.
    values = {"detail": known.get("error"), **known, "code": code, "subject": subject}
    if code not in PROBLEMS:
        return Description(title=f"{code} {subject}".strip(), meaning="", remedy="")
    title, meaning, remedy = (text(f"problem.{code}.{part}", lang, **values) for part in ("title", "meaning", "remedy"))
    return Description(title, meaning, remedy)

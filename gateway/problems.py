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
_CONFIG_WARNINGS: Final = frozenset({30, 33, 35, 37, 42, 44, 45, 48, 53})
_CONFIG_CODES: Final = (*range(1, 52), 53)  # 52 was used once: the next is 54

_BROKER_DOWN: Final = tuple(f"GW-MQS-{n:02d}" for n in range(1, 5))
_RECEIVER_DOWN: Final = tuple(f"GW-RCV-{n:02d}" for n in range(1, 7))
_SERIAL_DOWN: Final = tuple(f"GW-SER-{n:02d}" for n in (*range(1, 8), 11))
_NO_NETWORK: Final = ("GW-NET-10", "GW-NET-11")
_POWER: Final[tuple[Severity, ...]] = ("problem", "warning", "warning", "problem", "problem")
_DAY_S: Final = 86_400.0
_NO_SESSION: Final = (*(f"GW-NET-{n:02d}" for n in range(1, 7)), "GW-PLT-04")


@dataclass(frozen=True, slots=True)
class Problem:
    """What can go wrong. "problem": people may go without help; "warning": see to it soon; "notice": know it.

    `lasts_s`: it only happens, so nobody sees it gone; it ends when it has not happened again for so long.
    """

    code: str
    severity: Severity
    depends_on: tuple[str, ...] = ()
    lasts_s: float | None = None


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
    yield Problem("GW-SER-08", "problem")
    yield Problem("GW-SER-09", "problem", depends_on=_SERIAL_DOWN)
    yield Problem("GW-SER-10", "notice")
    yield Problem("GW-DEV-01", "problem", depends_on=(*_SERIAL_DOWN, "GW-SER-08"))
    yield Problem("GW-DEV-02", "warning")
    yield Problem("GW-DEV-03", "problem")
    yield Problem("GW-DEV-04", "warning", lasts_s=_DAY_S)
    yield Problem("GW-DEV-05", "warning", lasts_s=_DAY_S)
    yield Problem("GW-DEV-06", "problem", lasts_s=_DAY_S)
    for code in _BROKER_DOWN:
        yield Problem(code, "problem")
    yield Problem("GW-MQS-05", "problem", depends_on=_BROKER_DOWN)
    yield Problem("GW-MQS-06", "warning", lasts_s=_DAY_S)
    yield Problem("GW-MQS-07", "problem", lasts_s=_DAY_S)
    yield Problem("GW-MQS-08", "problem", lasts_s=_DAY_S)
    yield Problem("GW-MQS-09", "problem", lasts_s=_DAY_S)
    for code in _RECEIVER_DOWN:
        yield Problem(code, "problem")
    yield Problem("GW-BLE-01", "problem")
    yield Problem("GW-BLE-02", "problem", depends_on=("GW-BLE-01",))
    yield Problem("GW-BLE-03", "problem", depends_on=("GW-BLE-01", "GW-BLE-02"))
    yield Problem("GW-BLE-04", "problem", depends_on=("GW-BLE-01", "GW-BLE-02", "GW-BLE-03"))
    yield Problem("GW-BLE-05", "problem")
    yield Problem("GW-BLE-06", "problem", depends_on=("GW-BLE-01", "GW-BLE-02", "GW-BLE-03", "GW-BLE-04"))
    yield Problem("GW-BLE-07", "problem")
    yield Problem("GW-BLE-08", "problem", depends_on=("GW-BLE-01", "GW-BLE-02", "GW-BLE-03"))
    yield Problem("GW-BLE-09", "warning")
    yield Problem("GW-BLE-10", "warning")
    for code in _NO_SESSION:
        yield Problem(code, "problem", depends_on=_NO_NETWORK)
    yield Problem("GW-PLT-01", "problem", depends_on=_NO_SESSION)
    yield Problem("GW-PLT-02", "problem")
    yield Problem("GW-PLT-03", "warning", depends_on=_NO_SESSION)
    yield Problem("GW-NET-07", "warning", depends_on=_NO_SESSION)
    yield Problem("GW-PLT-05", "problem", depends_on=(*_NO_SESSION, "GW-PLT-01"))
    yield Problem("GW-PLT-06", "problem")
    yield Problem("GW-PLT-07", "problem")
    yield Problem("GW-PLT-08", "warning", depends_on=_NO_SESSION)
    yield Problem("GW-STO-01", "problem", depends_on=("GW-STO-03", "GW-RUN-02", "GW-STO-08"))
    yield Problem("GW-STO-02", "problem")
    yield Problem("GW-STO-03", "problem")
    yield Problem("GW-STO-04", "problem")
    yield Problem("GW-STO-05", "problem")
    for n in range(1, 6):
        yield Problem(f"GW-SEC-{n:02d}", "warning", lasts_s=_DAY_S)
    for n in range(1, 6):
        yield Problem(f"GW-CTL-{n:02d}", "problem")
    for n in range(1, 5):
        yield Problem(f"GW-RUN-{n:02d}", "problem")
    yield Problem("GW-RUN-05", "problem", depends_on=("GW-STO-01", "GW-STO-02", "GW-STO-03"))
    yield from _found_by_diagnose()


def _found_by_diagnose() -> Iterator[Problem]:
    """What nobody sees but who looks at the machine."""
    deaf = (*_SERIAL_DOWN, *(f"GW-BLE-{n:02d}" for n in range(1, 8)))
    yield Problem("GW-DEV-20", "warning", depends_on=(*deaf, "GW-DEV-03"))
    yield Problem("GW-DEV-21", "warning")
    yield Problem("GW-DEV-22", "warning")
    yield Problem("GW-BLE-20", "warning")
    yield Problem("GW-NET-10", "problem")
    yield Problem("GW-NET-11", "problem", depends_on=("GW-NET-10",))
    yield Problem("GW-NET-12", "problem")
    yield Problem("GW-NET-13", "problem")
    for n, severity in enumerate(_POWER, 1):
        yield Problem(f"GW-PWR-{n:02d}", severity)
    yield Problem("GW-CLK-01", "warning")
    yield Problem("GW-CLK-02", "problem")
    yield Problem("GW-CLK-03", "warning", depends_on=("GW-CLK-01",))
    yield Problem("GW-CLK-04", "warning", depends_on=("GW-CLK-01", "GW-CLK-02"))
    yield Problem("GW-CLK-05", "warning")
    yield Problem("GW-STO-06", "warning")
    for n in range(7, 11):
        yield Problem(f"GW-STO-{n:02d}", "problem")
    yield Problem("GW-STO-11", "warning")
    yield Problem("GW-STO-12", "problem")
    yield Problem("GW-STO-13", "warning")
    yield Problem("GW-STO-14", "warning", depends_on=("GW-PLT-02",))
    yield Problem("GW-STO-15", "warning", depends_on=("GW-STO-02",))
    yield Problem("GW-STO-16", "problem")
    yield Problem("GW-ANN-01", "notice")
    yield Problem("GW-ANN-02", "problem")
    yield Problem("GW-SEC-10", "warning")
    yield Problem("GW-SEC-11", "warning")
    yield Problem("GW-SEC-12", "notice")
    yield Problem("GW-SEC-13", "warning")
    yield Problem("GW-SEC-14", "warning")
    yield Problem("GW-VER-01", "warning")
    yield Problem("GW-VER-02", "problem")
    yield Problem("GW-VER-03", "problem", depends_on=("GW-VER-02",))
    yield Problem("GW-VER-04", "warning")
    yield Problem("GW-VER-05", "warning")
    yield Problem("GW-VER-06", "warning")


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

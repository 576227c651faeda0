"""Collecting what is wrong: the codes of the configuration by name, and one finding for each with its place and value.

Limits: 500 findings; more are counted and told as one. A value is shown in at most 80 characters, control characters
escaped; what may be a secret is never shown, nor is the value of a key that nobody knows (it may be a mistyped secret).
The nearest word is sought among the first 200 known ones, so that a file of thousands of entries costs no minutes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final

from gateway.config.positions import KeyPath, line_of
from gateway.errors import Finding
from gateway.problems import problem

FILE_MISSING: Final = "GW-CFG-01"
FILE_UNREADABLE: Final = "GW-CFG-02"
NOT_UTF_8: Final = "GW-CFG-03"
SYNTAX: Final = "GW-CFG-04"
MISSING_KEY: Final = "GW-CFG-05"
UNKNOWN_KEY: Final = "GW-CFG-06"
BAD_VALUE: Final = "GW-CFG-07"
DUPLICATE: Final = "GW-CFG-08"
DUPLICATE_ADDRESS: Final = "GW-CFG-09"
UNKNOWN_MODEL: Final = "GW-CFG-10"
UNKNOWN_LINK: Final = "GW-CFG-11"
WRONG_LINK: Final = "GW-CFG-12"
LINE_CONFLICT: Final = "GW-CFG-13"
UNKNOWN_ROOM: Final = "GW-CFG-14"
BAD_OPTION: Final = "GW-CFG-15"
BAD_BLE_ADDRESS: Final = "GW-CFG-16"
KEY_NEEDED: Final = "GW-CFG-17"
PLAIN_NOT_ALLOWED: Final = "GW-CFG-18"
BAD_KEY: Final = "GW-CFG-19"
BAD_REFERENCE: Final = "GW-CFG-20"
SECRET_UNAVAILABLE: Final = "GW-CFG-21"  # noqa: S105 - a code
SECRET_TOO_OPEN: Final = "GW-CFG-22"  # noqa: S105 - a code
CREDENTIAL_UNAVAILABLE: Final = "GW-CFG-23"
BAD_URL: Final = "GW-CFG-24"
PLAIN_TEXT_REFUSED: Final = "GW-CFG-25"
ALARMS_UNTAKEN: Final = "GW-CFG-26"
TOO_MANY_PATHS: Final = "GW-CFG-27"
UNKNOWN_PROFILE: Final = "GW-CFG-28"
BAD_PORT: Final = "GW-CFG-29"
UNSTABLE_PORT: Final = "GW-CFG-30"
NO_DESTINATION: Final = "GW-CFG-31"
LINK_SET_ASIDE: Final = "GW-CFG-32"
UNKNOWN_BED: Final = "GW-CFG-33"
SECRET_IN_URL: Final = "GW-CFG-34"  # noqa: S105 - a code
NO_EFFECT: Final = "GW-CFG-35"
CERTIFICATE_UNUSABLE: Final = "GW-CFG-36"
NO_CALLS: Final = "GW-CFG-37"
NO_DEVICES: Final = "GW-CFG-38"
MORE_FINDINGS: Final = "GW-CFG-39"
NO_PATH: Final = "GW-CFG-40"
ALARMS_WAIT: Final = "GW-CFG-41"
UNCHECKED: Final = "GW-CFG-42"
LOGIN: Final = "GW-CFG-43"
NO_PASSWORD: Final = "GW-CFG-44"  # noqa: S105 - a code
SAME_PATH: Final = "GW-CFG-45"
SECRET_UNUSABLE: Final = "GW-CFG-46"  # noqa: S105 - a code
SAME_BROKER: Final = "GW-CFG-47"
NO_LOGIN: Final = "GW-CFG-48"
BAD_PROFILE: Final = "GW-CFG-49"
PROFILE_TRANSPORT: Final = "GW-CFG-50"
PROFILE_PARAMETERS: Final = "GW-CFG-51"
OTHER_RADIOS: Final = "GW-CFG-53"

FATAL: Final = "fatal"
SET_ASIDE: Final = "set-aside"
KEPT: Final = "kept"

LIMIT: Final = 500
_NAMED: Final = 8
_SHOWN_CHARACTERS: Final = 80
_COMPARED_WORDS: Final = 200
_BARE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNSHOWN: Final = object()


class Findings:
    """What is wrong in one file. `add` locates each finding by its key path; `all` returns them in the file's order.

    `running`: whoever asks is about to run on this file. A check by hand may be made by somebody who cannot see what the
    service will: a secret out of reach is a problem of the former, and no more than a remark for the latter.
    """

    def __init__(self, file: str, *, running: bool) -> None:
        self._file = file
        self._running = running
        self._found: list[tuple[KeyPath, Finding]] = []
        self._aside: set[KeyPath] = set()
        self._unchecked: list[str] = []
        self._uncounted = 0
        self.lines: Mapping[KeyPath, int] = {}
        # The id of each entry that has a readable one: people know "call-201" better than "the third device".
        self.ids: dict[KeyPath, str] = {}

    def add(
        self,
        code: str,
        at: KeyPath = (),
        *,
        effect: str,
        value: object = _UNSHOWN,
        line: int | None = None,
        **facts: Any,
    ) -> None:
        """Note one finding. `value` is what stands there; leave it out where it is absent or may be a secret."""
        if not self._running and _out_of_reach(code, facts):
            self._unchecked.append(str(facts.get("reference") or facts.get("path")))
            return
        if effect == SET_ASIDE:
            self._aside.add(_entries(at)[-1])
        if len(self._found) >= LIMIT and effect != FATAL:
            self._uncounted += 1
            return
        where = self.where(at)
        line = line or line_of(self.lines, at)
        shown = "" if value is _UNSHOWN else show(value)
        known = {"file": self._file, "line": line, "where": where, "key": _last_key(at), "value": shown}
        severity = problem(code).severity
        finding = Finding(code, severity, effect, self._file, line, where, shown, {**known, **facts})
        self._found.append((at, finding))

    def set_aside(self, at: KeyPath) -> None:
        """Note that an entry does not run for what has been told inside it."""
        self._aside.add(at)

    def line(self, at: KeyPath) -> int | None:
        """Return the line of a key path."""
        return line_of(self.lines, at)

    def all(self) -> tuple[Finding, ...]:
        """Return every finding, first those without a line, then by line.

        What would have been kept in an entry that another finding sets aside is set aside with it: it `follows`.
        """
        settled = [self._settled(at, finding) for at, finding in self._found]
        if self._unchecked:
            more = ("…",) if len(self._unchecked) > _NAMED else ()
            facts = {"count": len(self._unchecked), "references": (*self._unchecked[:_NAMED], *more)}
            rerun = self._file if os.geteuid() else None
            settled.append(self._of_file(UNCHECKED, rerun=rerun, **facts))
        ordered = sorted(settled, key=lambda finding: finding.line or 0)
        if self._uncounted:
            ordered.append(self._of_file(MORE_FINDINGS, count=self._uncounted))
        return tuple(ordered)

    def _settled(self, at: KeyPath, finding: Finding) -> Finding:
        aside = next((entry for entry in _entries(at) if entry in self._aside), None)
        if aside is None or finding.effect == FATAL:
            return finding
        facts = dict(finding.facts)
        if len(_entries(at)) > 1:  # inside a path of a destination: which of the two is it that does not run?
            facts["entry"] = self.where(aside)
        if finding.effect == KEPT:
            facts["follows"] = True
        return replace(finding, effect=SET_ASIDE, facts=facts)

    def _of_file(self, code: str, **facts: Any) -> Finding:
        known = {"file": self._file, **facts}
        return Finding(code, problem(code).severity, KEPT, self._file, None, "", "", known)

    def where(self, at: KeyPath) -> str:
        """Return a key path as people read it: "device[2] (call-201).address"."""
        where = ""
        for position, part in enumerate(at):
            if isinstance(part, int):
                where += f"[{part + 1}]"
                name = self.ids.get(at[: position + 1])
                where += f" ({name})" if name else ""
            else:
                where += ("." if where else "") + _bare(part)
        return where


def show(value: object) -> str:
    """Show a value as it may stand in TOML, short and without control characters."""
    if isinstance(value, (str, bool, int, float, list, dict)):
        shown = json.dumps(value, ensure_ascii=False, default=str)
    else:
        shown = str(value)
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in shown)
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[: _SHOWN_CHARACTERS - 1] + "…"


def close_to(word: str, known: Iterable[str]) -> dict[str, Any]:
    """Return the facts that hint at the nearest known word, if one is near."""
    near = get_close_matches(word[:64], list(islice(known, _COMPARED_WORDS)), n=1, cutoff=0.6)
    return {"hint": "@hint.close", "close": near[0]} if near else {"hint": ""}


def _out_of_reach(code: str, facts: Mapping[str, object]) -> bool:
    """Is it only this user who cannot read a secret or certificate?"""
    if code in (SECRET_UNAVAILABLE, CERTIFICATE_UNUSABLE):
        return facts.get("reason") == "@hint.no-permission"
    return code == CREDENTIAL_UNAVAILABLE


def _entries(at: KeyPath) -> tuple[KeyPath, ...]:
    """The entries that a key path lies in, outermost first: one that is set aside takes along what is in it."""
    if at[:1] == ("destination",) and at[2:3] == ("path",) and len(at) > 3:
        return at[:2], at[:4]
    return (at[:2],)


def _bare(name: str) -> str:
    return name if _BARE.fullmatch(name) else show(name)


def _last_key(at: KeyPath) -> str:
    """The key with the index of the item in it: "types[2]"."""
    suffix = ""
    for part in reversed(at):
        if isinstance(part, str):
            return _bare(part) + suffix
        suffix = f"[{part + 1}]{suffix}"
    return ""

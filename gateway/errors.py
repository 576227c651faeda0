"""The exception tree.

GatewayError
├── ConfigError        what is wrong in the configuration, all of it at once
├── SecretError        a secret that a reference names cannot be had
├── LinkDown           the port or radio is not there at the moment
├── StoreError         the database refuses
├── SessionError       no session with a platform
├── ControlError       the control socket: nobody answers, or the request was refused
└── ProfileError       what is wrong in a platform profile, all of it at once
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class GatewayError(Exception):
    """Root of everything that the gateway raises on purpose. `code` names a problem of `gateway.problems`."""

    def __init__(self, code: str, subject: str = "", **facts: object) -> None:
        super().__init__(code, subject, facts)
        self.code = code
        self.subject = subject
        self.facts: dict[str, Any] = facts

    def __str__(self) -> str:
        """Code, subject and facts in one line, for logs."""
        facts = " ".join(f"{key}={value}" for key, value in self.facts.items())
        return " ".join(part for part in (self.code, self.subject, facts) if part)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong in the configuration, and where.

    `where` is the dotted key ("device[2] (call-201).address", counted from 1), `value` what stands there ("" where it
    is absent or may be a secret). `effect`: "fatal" (nothing runs), "set-aside" (this entry does not run) or "kept"
    (it runs, with a default in place of what is wrong). `facts` holds all of this too: it fills the texts of the
    problem.
    """

    code: str
    severity: str
    effect: str
    file: str
    line: int | None
    where: str
    value: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


class ConfigError(GatewayError):
    """The configuration leaves nothing to run. `findings` is all that is wrong in it, not only what is fatal."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        first = next((finding for finding in findings if finding.effect == "fatal"), findings[0])
        super().__init__(first.code, first.where or first.file, **first.facts)
        self.findings = findings


class SecretError(GatewayError):
    """A secret that a reference names cannot be had: syntax, missing, unreadable, empty, too large, directory unset."""


class LinkDown(GatewayError):
    """The port or radio is not there at the moment."""


class StoreError(GatewayError):
    """The database refuses."""


class SessionError(GatewayError):
    """No session with a platform."""


class ControlError(GatewayError):
    """The control socket: nobody answers, or the request was refused."""


@dataclass(frozen=True, slots=True)
class ProfileFault:
    """One thing that is wrong in a platform profile: the dotted key, why (the key of a text), and what would fit."""

    at: str
    reason: str
    detail: str = ""


class ProfileError(GatewayError):
    """A platform profile cannot be used. `faults` is all that is wrong in it."""

    def __init__(self, faults: list[ProfileFault]) -> None:
        super().__init__("GW-CFG-49", faults[0].at)
        self.faults = tuple(faults)

"""What every probe may look at: the configuration, the daemon's answer, the database, the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.config import Settings
from gateway.diagnose.daemon import Daemon
from gateway.diagnose.machine import Machine
from gateway.diagnose.report import Line
from gateway.errors import Finding, StoreError
from gateway.outbox.inspect import Inspection

PROBE_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Site:
    """One gateway as it stands. `database` is None where there is none; a StoreError says why it cannot be read.

    `settings` is None where the configuration leaves nothing to run; then `findings` says why. `now_ms` is the wall
    clock of the whole diagnosis.
    """

    config: Path
    control: Path
    data_dir: Path
    settings: Settings | None
    findings: tuple[Finding, ...]
    daemon: Daemon
    database: Inspection | StoreError | None
    now_ms: int
    machine: Machine = field(default_factory=Machine)
    is_full: bool = False

    @property
    def inspection(self) -> Inspection | None:
        """What stands in the database, where it could be read."""
        return self.database if isinstance(self.database, Inspection) else None


Look = Callable[[Site], Iterable[Line]]


@dataclass(frozen=True, slots=True)
class Probe:
    """One look at one thing, in a thread of its own. `code` and `what` stand for it when it throws or is too late."""

    section: str
    what: str
    code: str
    look: Look
    subject: str = ""
    limit_s: float = PROBE_S

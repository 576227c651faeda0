"""Runs a diagnosis: first the daemon, the configuration and the database, then every probe at once, each with its limit.

A probe that throws or is too late gives a line that says so. Limits: `FIRST_S` for what every probe needs, then the
longest limit of a probe: quick is over within 10 s whatever hangs. Nothing is changed, and nothing is sent but by
`is_full`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from gateway import __version__
from gateway.config import Settings, inspect
from gateway.diagnose.checks import probes
from gateway.diagnose.daemon import Daemon, DaemonState, look_at_daemon
from gateway.diagnose.machine import Machine, Timely
from gateway.diagnose.merge import merged
from gateway.diagnose.report import SECTIONS, Line, Report, unknown
from gateway.diagnose.site import Probe, Site
from gateway.errors import Finding, StoreError
from gateway.outbox.inspect import Inspection, inspect_database
from gateway.texts.amounts import Age

FIRST_S: Final = 4.0  # more than the daemon is waited for: a machine under load is slow to say so
FIGURES_S: Final = 2.0
CHECK_S: Final = 1.5
FULL_CHECK_S: Final = 60.0
_NEVER_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Request:
    """What to diagnose. `data_dir` is what the configuration says, or the usual place where it says nothing."""

    config: Path
    control: Path
    data_dir: Path
    sections: tuple[str, ...] = ()
    is_full: bool = False
    machine: Machine = field(default_factory=Machine)


def diagnose(request: Request) -> tuple[Site, Report]:
    """Look at everything and return what was found. Never raises for what it finds."""
    began = time.monotonic()
    site = look_around(request)
    asked = tuple(one for one in SECTIONS if not request.sections or one in request.sections)
    # What a section hides behind, and what of it the daemon tells, may stand in another: all of them are looked at.
    found = _probed(site, list(probes(site)))
    sections = tuple(one for one in merged(found, site.daemon.of("problems")) if one.name in asked)
    gateway = site.settings.gateway if site.settings else None
    report = Report(
        at=datetime.fromtimestamp(site.now_ms / 1000).astimezone(), took_s=time.monotonic() - began, version=__version__,
        gateway=f"{gateway.id} {gateway.org}/{gateway.site}" if gateway else "", daemon=site.daemon.state.value,
        sections=sections, is_full=request.is_full, asked=asked,
    )  # fmt: skip
    return site, report


def look_around(request: Request) -> Site:
    """Return what every probe needs to know."""
    daemon = Timely(lambda: look_at_daemon(request.control, request.data_dir, request.machine), "diagnose-daemon")
    config = Timely(lambda: inspect(request.config), "diagnose-config")
    database = Timely(lambda: _database(request), "diagnose-database")
    deadline = time.monotonic() + FIRST_S
    settings, findings = _configuration(config, request.config, deadline)
    return Site(
        request.config, request.control, request.data_dir, settings, findings, _daemon(daemon, request, deadline),
        _stored(database, request, deadline + (FULL_CHECK_S if request.is_full else 0)), time.time_ns() // 1_000_000,
        request.machine, request.is_full,
    )  # fmt: skip


def _configuration(
    work: Timely[tuple[Settings | None, tuple[Finding, ...]]], path: Path, deadline: float
) -> tuple[Settings | None, tuple[Finding, ...]]:
    try:
        return work.result(max(_NEVER_S, deadline - time.monotonic()))
    except TimeoutError:
        detail = f"no answer within {FIRST_S:g} s"
    except Exception as bug:  # noqa: BLE001 - a configuration that breaks its reader is told, not a traceback
        detail = f"{type(bug).__name__}: {bug}"[:200]
    file = str(path)
    facts = {"file": file, "reason": detail}
    return None, (Finding("GW-CFG-02", "problem", "fatal", file, None, "", facts=facts),)


def _daemon(work: Timely[Daemon], request: Request, deadline: float) -> Daemon:
    try:
        return work.result(max(_NEVER_S, deadline - time.monotonic()))
    except Exception as error:  # noqa: BLE001 - whatever it sent, it did not answer as a daemon does
        pid = request.machine.holder_of_lock(request.data_dir / "lock")
        return Daemon(DaemonState.HUNG, pid=pid, code="GW-CTL-05", detail=type(error).__name__)


def _database(request: Request) -> Inspection | StoreError | None:
    path = request.data_dir / "outbox.db"
    try:
        settings, _ = inspect(request.config)
        names = [one.id for one in (*settings.destinations, *settings.set_aside_destinations)] if settings else []
        if not path.exists():
            return None
        check_s = FULL_CHECK_S if request.is_full else CHECK_S
        return inspect_database(path, names, limit_s=FIGURES_S, check_s=check_s)
    except StoreError as error:
        return error
    except OSError as error:
        return StoreError("GW-STO-01", str(path), path=str(path), detail=error.strerror or str(error))


def _stored(
    work: Timely[Inspection | StoreError | None], request: Request, deadline: float
) -> Inspection | StoreError | None:
    path = str(request.data_dir / "outbox.db")
    try:
        return work.result(max(_NEVER_S, deadline - time.monotonic()))
    except TimeoutError:
        return StoreError("GW-STO-01", path, path=path, detail="the disk does not answer")
    except Exception as bug:  # noqa: BLE001 - a database that breaks its reader is told, not a traceback
        return StoreError("GW-STO-01", path, path=path, detail=f"{type(bug).__name__}: {bug}"[:200])


def _probed(site: Site, todo: Sequence[Probe]) -> Iterable[tuple[str, Line]]:
    began = time.monotonic()
    works = [Timely(lambda one=one: list(one.look(site)), f"diagnose-{one.what}") for one in todo]  # type: ignore[misc]  # a default keeps the loop's value
    for probe, work in zip(todo, works, strict=True):
        try:
            lines = work.result(max(_NEVER_S, began + probe.limit_s - time.monotonic()))
        except TimeoutError:
            lines = [_lost(probe, "@diagnose.why-late", limit=Age(probe.limit_s))]
        except Exception as error:  # noqa: BLE001 - a probe that fails is a line, never a traceback
            lines = [_lost(probe, "@diagnose.why-failed", error=f"{type(error).__name__}: {error}"[:200])]
        for line in lines:
            yield probe.section, line


def _lost(probe: Probe, why: str, **facts: object) -> Line:
    return replace(unknown(probe.code, probe.what, why, subject=probe.subject), facts=facts)

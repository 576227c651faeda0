"""The service: does the daemon answer, is its unit installed and begun at boot, what is wrong in its configuration."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.diagnose.daemon import DaemonState
from gateway.diagnose.machine import UNIT, USER
from gateway.diagnose.report import Line, Verdict, bad, ok, skipped, unknown, verdict_of
from gateway.diagnose.site import Probe, Site
from gateway.errors import Finding
from gateway.texts.amounts import Age

MANY_RESTARTS: Final = 3
_AT_BOOT: Final = ("enabled", "enabled-runtime", "static", "linked", "generated", "alias")
# What only the service may read says nothing of the configuration when a technician looks.
_OUT_OF_REACH: Final = "GW-CFG-23"
_UNREADABLE: Final = ("GW-CFG-02", "GW-CFG-21", "GW-CFG-36")
_SETTLE_S: Final = 2.0
_FILES: Final = ("lock", "outbox.db", "outbox.db-wal", "outbox.db-shm", "alive")


def probes(_site: Site) -> Iterator[Probe]:
    """Yield the probes of this section."""
    yield Probe("service", "daemon", "GW-CTL-01", _daemon)
    yield Probe("service", "unit", "GW-VER-02", _unit)
    yield Probe("service", "configuration", "GW-CFG-01", _configuration)
    yield Probe("service", "data-dir", "GW-RUN-02", _data_dir)


def _daemon(site: Site) -> Iterable[Line]:
    daemon = site.daemon
    if daemon.runs:
        uptime = Age(float(daemon.status.get("uptime_s") or 0))
        return [ok("GW-CTL-01", "daemon", "@diagnose.daemon-runs", pid=daemon.pid, uptime=uptime)]
    if daemon.state is DaemonState.DENIED:
        return [unknown(daemon.code, "daemon", "@diagnose.why-denied", path=str(site.control))]
    follows = tuple(one.code for one in site.findings if one.effect == "fatal")
    value = "@diagnose.daemon-hung" if daemon.state is DaemonState.HUNG else ""
    subject = str(site.control) if daemon.code == "GW-CTL-04" else ""
    facts = {"path": str(site.control), "detail": daemon.detail, "pid": daemon.pid}
    return [
        Line(
            daemon.code, "daemon", Verdict.PROBLEM, subject, value, facts=facts,
            follows=(*follows, "GW-VER-02", "GW-RUN-02", "GW-STO-08") if daemon.state is DaemonState.DEAD else (),
        )
    ]  # fmt: skip


def _unit(site: Site) -> Iterable[Line]:
    machine = site.machine
    shown = machine.run("systemctl", "show", UNIT, "--property=LoadState,ActiveState,SubState,UnitFileState,NRestarts")
    if shown is None or shown.status != 0 or not machine.path("run/systemd/system").is_dir():
        return [skipped("GW-VER-02", "unit", "@diagnose.why-no-systemd")]
    said = dict(line.partition("=")[::2] for line in shown.out.splitlines())
    if said.get("LoadState") != "loaded":
        if site.daemon.runs:
            return [bad("GW-VER-03", "unit", said.get("LoadState", ""), state=said.get("LoadState"))]
        return [bad("GW-VER-02", "unit", said.get("LoadState", ""), unit=UNIT)]
    lines = []
    state, restarts = f"{said.get('ActiveState')} ({said.get('SubState')})", int(said.get("NRestarts") or 0)
    if said.get("UnitFileState") not in _AT_BOOT:
        lines.append(bad("GW-VER-03", "at-boot", said.get("UnitFileState", ""), state=said.get("UnitFileState")))
    if said.get("ActiveState") == "failed" or restarts >= MANY_RESTARTS:
        lines.append(bad("GW-VER-04", "unit", state, threshold=f"< {MANY_RESTARTS}", restarts=restarts, state=state))
    return lines or [ok("GW-VER-02", "unit", "@diagnose.unit-well", state=state, restarts=restarts)]


# -- configuration -----------------------------------------------------------------------------------------------


def _configuration(site: Site) -> Iterable[Line]:
    lines = [_finding(one) for one in site.findings]
    changed = _changed_since_start(site)
    if changed is not None:
        lines.append(
            bad("GW-VER-06", "configuration-in-use", "@diagnose.changed-ago", ago=changed, path=str(site.config))
        )
    if lines:
        return lines
    settings = site.settings
    count = 0 if settings is None else len(settings.devices)
    return [ok("GW-CFG-01", "configuration", "@diagnose.config-well", path=str(site.config), devices=count)]


def _finding(one: Finding) -> Line:
    where = one.where or one.file
    private = one.facts.get("reason") == "@hint.no-permission"
    if one.code == _OUT_OF_REACH or (one.code in _UNREADABLE and private):
        # The daemon reads it as another user; if it cannot, it says so itself.
        return unknown(one.code, "configuration", "@diagnose.why-private", subject=where, path=one.facts.get("path"))
    value = f"{one.file}:{one.line}" if one.line is not None else one.file
    return Line(
        one.code, "configuration", verdict_of(one.severity), one.where, value, facts=dict(one.facts),
        covers=frozenset({(one.code, one.where)}),
    )  # fmt: skip


def _changed_since_start(site: Site) -> Age | None:
    """Return how long ago the file was changed, if that was after the daemon read it."""
    try:
        began = datetime.fromisoformat(str(site.daemon.status["started_at"]))
        changed = datetime.fromtimestamp(site.config.stat().st_mtime, UTC)
    except (KeyError, ValueError, OSError, OverflowError):
        return None
    if (changed - began).total_seconds() < _SETTLE_S:
        return None
    return Age(max(0.0, site.now_ms / 1000 - changed.timestamp()))


# -- data directory ----------------------------------------------------------------------------------------------


def _data_dir(site: Site) -> Iterable[Line]:
    folder = site.data_dir
    try:
        status = folder.stat()
    except FileNotFoundError:
        return [skipped("GW-RUN-02", "data-dir", "@diagnose.why-not-begun", subject=str(folder))]
    except OSError as error:
        return [unknown("GW-RUN-02", "data-dir", error.strerror or str(error), subject=str(folder))]
    user = site.machine.service_user()
    name = USER if user else str(os.geteuid())
    value = f"{stat.filemode(status.st_mode)} {_owner(folder)}"
    may = stat.S_ISDIR(status.st_mode) and site.machine.service_may(folder, rights=0o3)
    foreign = _foreign(site, folder) if may else ""
    make = ok if may and not foreign else bad
    return [make("GW-RUN-02", "data-dir", foreign or value, subject=str(folder), detail=foreign or value, user=name)]


def _foreign(site: Site, folder: Path) -> str:
    """Return the first file of the gateway that the service may not write: `sudo gateway run` leaves such behind."""
    for name in _FILES:
        path = folder / name
        with contextlib.suppress(OSError):
            if path.exists() and not site.machine.service_may(path, rights=0o6):
                return f"{name}: {stat.filemode(path.stat().st_mode)} {_owner(path)}"
    return ""


def _owner(folder: Path) -> str:
    try:
        return f"{folder.owner()}:{folder.group()}"
    except (KeyError, OSError):
        return ""

"""Security: the gateway's own certificates, who can read secrets and configuration, plain devices, the unit's hardening.

Limits: certificates are told of at 30 and 7 days; `systemd-analyze security` must not exceed `MAX_EXPOSURE`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from gateway.diagnose.checks.network import certificate
from gateway.diagnose.machine import UNIT
from gateway.diagnose.report import Line, bad, ok, skipped, unknown
from gateway.diagnose.site import Probe, Site

MAX_EXPOSURE: Final = 1.8
_EXPOSURE: Final = re.compile(r"Overall exposure level for \S+: ([0-9.]+)")
_MAX_CERTIFICATE_BYTES: Final = 64 * 1024


def probes(_site: Site) -> Iterator[Probe]:
    """Yield the probes of this section."""
    yield Probe("security", "certificate-own", "GW-SEC-10", _certificates)
    yield Probe("security", "secrets", "GW-CFG-22", _secrets)
    yield Probe("security", "config-file", "GW-SEC-11", _config_file)
    yield Probe("security", "plain-devices", "GW-SEC-12", _plain_devices)
    yield Probe("security", "user", "GW-SEC-13", _user)
    yield Probe("security", "hardening", "GW-SEC-14", _hardening)


def _certificates(site: Site) -> Iterable[Line]:
    now = datetime.fromtimestamp(site.now_ms / 1000, UTC)
    lines: list[Line] = []
    for destination in site.settings.destinations if site.settings else ():
        files = dict.fromkeys(path.cert_file for path in destination.path if path.cert_file is not None)
        lines += [_own_certificate(file, now, destination.id) for file in files]
    return lines or [skipped("GW-SEC-10", "certificate-own", "@diagnose.why-no-certificate")]


def _own_certificate(file: Path, now: datetime, subject: str) -> Line:
    try:
        with file.open("rb") as opened:
            found = x509.load_pem_x509_certificate(opened.read(_MAX_CERTIFICATE_BYTES))
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or type(error).__name__
        return unknown("GW-SEC-10", "certificate-own", f"{file}: {detail}", subject=subject)
    return certificate("certificate-own", found.not_valid_after_utc, now, subject, str(file))


def _secrets(site: Site) -> Iterable[Line]:
    """A file that is too open is a finding of the configuration and stands there."""
    settings = site.settings
    if settings is None:
        return [skipped("GW-CFG-22", "secrets", "@diagnose.why-no-config")]
    references = settings.secrets
    if not references:
        return [skipped("GW-CFG-22", "secrets", "@diagnose.why-no-secrets")]
    # Told as GW-CFG-22 in the section of the service, each with its file.
    opened = sum(one.too_open for one in references)
    if opened:
        return [skipped("GW-CFG-22", "secrets", "@diagnose.why-told-above", count=opened)]
    return [ok("GW-CFG-22", "secrets", "@diagnose.secrets-closed", count=len(references))]


def _config_file(site: Site) -> Iterable[Line]:
    try:
        status = site.config.stat()
    except OSError as error:
        return [skipped("GW-SEC-11", "config-file", error.strerror or str(error))]
    make = bad if status.st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP) else ok
    mode = stat.filemode(status.st_mode)
    return [make("GW-SEC-11", "config-file", mode, threshold="-rw-r-----", path=str(site.config), mode=mode)]


def _plain_devices(site: Site) -> Iterable[Line]:
    devices = site.settings.devices if site.settings else ()
    # Each has been let in by its `allow_plain`; one that has not is a finding of the configuration.
    names = [one.id for one in devices if one.key is None and one.allow_plain]
    if not names:
        return [ok("GW-SEC-12", "plain-devices", "0")]
    return [ok("GW-SEC-12", "plain-devices", "@diagnose.plain-now", count=len(names), names=", ".join(names))]


def _user(site: Site) -> Iterable[Line]:
    pid = site.daemon.pid
    if pid is None:
        return [skipped("GW-SEC-13", "user", "@diagnose.why-no-daemon")]
    uid = _uid_of(site, pid)
    if uid is None:
        return [unknown("GW-SEC-13", "user", "@diagnose.why-no-figure")]
    make = bad if uid == 0 else ok
    return [make("GW-SEC-13", "user", f"uid {uid}", threshold="!= 0", pid=pid)]


def _uid_of(site: Site, pid: int) -> int | None:
    for line in (site.machine.read(f"proc/{pid}/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "Uid":
            return int(value.split()[1])  # proc_pid_status(5): real, effective, saved, file system
    return None


def _hardening(site: Site) -> Iterable[Line]:
    machine = site.machine
    if not machine.path("run/systemd/system").is_dir():
        return [skipped("GW-SEC-14", "hardening", "@diagnose.why-no-systemd")]
    shown = machine.run("systemd-analyze", "security", "--no-pager", UNIT)
    found = _EXPOSURE.search(shown.out) if shown is not None else None
    if found is None:
        return [skipped("GW-SEC-14", "hardening", "@diagnose.why-no-score")]
    make = ok if float(found[1]) <= MAX_EXPOSURE else bad
    return [make("GW-SEC-14", "hardening", found[1], threshold=f"<= {MAX_EXPOSURE}", score=found[1])]

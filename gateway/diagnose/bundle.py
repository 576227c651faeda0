"""The archive that a technician sends to support: the report, and what explains it, without secrets, names or events.

In it: the report in Chinese, in English and as JSON; the configuration without what is private; figures of the database
and of the running gateway; the last `JOURNAL_LINES` lines of the unit's journal. Nothing else, above all no event, no
name of a room or person, no environment. The file is made anew, for its owner alone (0600); one that is there already is
not touched.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from gateway.diagnose.machine import UNIT
from gateway.diagnose.redaction import Redactor, redacted_lines
from gateway.diagnose.report import Report, as_document
from gateway.diagnose.site import Site
from gateway.errors import GatewayError
from gateway.texts import LANGUAGES

JOURNAL_LINES: Final = 500
JOURNAL_S: Final = 5.0
CANNOT_WRITE: Final = "GW-STO-16"
# Of the daemon's status: figures and ids, no problem's facts and no alarm.
_STATUS: Final = ("version", "started_at", "uptime_s", "cpu_s", "clock", "devices", "links", "outbox", "destinations")

Render = Callable[[Report, str], str]


def default_name(report: Report) -> Path:
    """Return where the bundle goes unless somebody says otherwise: here, named after gateway and time."""
    name = report.gateway.partition(" ")[0] or "gateway"
    return Path(f"diagnose-{name}-{report.at:%Y%m%dT%H%M%S}.tar.gz").absolute()


def write_bundle(target: Path, site: Site, report: Report, render: Render) -> None:
    """Write the archive. Raises GatewayError GW-STO-16: it cannot be written, or the file is there already."""
    redactor = Redactor(site.config, site.settings)
    contents = {name: redactor.text(text) for name, text in _reports(report, render).items()}
    contents["report.json"] = _json(redactor.value(as_document(report, "en")))
    contents["configuration.json"] = _json(redactor.configuration())
    contents["database.json"] = _json(redactor.value(_database(site)))
    contents["status.json"] = _json(redactor.value({name: site.daemon.status.get(name) for name in _STATUS}))
    contents["journal.txt"] = _journal(site, redactor)
    folder = target.name.removesuffix(".tar.gz")
    try:
        _write(target, {f"{folder}/{name}": text for name, text in contents.items()}, report.at)
    except OSError as error:
        detail = error.strerror or str(error)
        raise GatewayError(CANNOT_WRITE, str(target), path=str(target), detail=detail) from error


def _reports(report: Report, render: Render) -> Mapping[str, str]:
    return {f"report.{lang}.txt": render(report, lang) for lang in LANGUAGES}


def _database(site: Site) -> Mapping[str, Any]:
    if site.inspection is None:
        return {"unread": str(site.database) if site.database is not None else None}
    figures = asdict(site.inspection)
    figures["open_alarms"] = len(site.inspection.open_alarms)
    figures["counters"] = sorted(site.inspection.counters)
    return figures


def _journal(site: Site, redactor: Redactor) -> str:
    said = site.machine.run(
        "journalctl",
        f"--unit={UNIT}",
        f"--lines={JOURNAL_LINES}",
        "--no-pager",
        "--output=short-iso",
        limit_s=JOURNAL_S,
    )
    if said is None or said.status != 0:
        return "no journal\n"
    return redacted_lines(redactor, said.out.splitlines())


def _json(document: object) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2, default=str) + "\n"


def _write(target: Path, contents: Mapping[str, str], at: datetime) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in contents.items():
                content = text.encode("utf-8", "replace")
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.mtime = len(content), 0o600, int(at.timestamp())
                archive.addfile(entry, io.BytesIO(content))
    except BaseException:
        target.unlink(missing_ok=True)
        raise

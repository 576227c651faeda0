"""`gateway diagnose`: runs the diagnosis, shows it, and packs it for support when asked to. Decides nothing else."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.cli import reports
from gateway.cli.diagnosis import show
from gateway.cli.layout import Paper
from gateway.diagnose.bundle import default_name, write_bundle
from gateway.diagnose.report import Report, as_document
from gateway.diagnose.run import Request, diagnose

if TYPE_CHECKING:
    from gateway.diagnose.site import Site

WATCH_EVERY_S: Final = 10.0
NOT_DONE: Final = 3
_CLEAR: Final = "\x1b[H\x1b[2J"


def run(arguments: argparse.Namespace, paper: Paper, *, config: Path, control: Path, data_dir: Path) -> int:
    """Diagnose as the command line says; return the exit status of what was found. Raises GatewayError."""
    if arguments.schema:
        schema = resources.files("gateway.diagnose").joinpath("report.schema.json").read_text(encoding="utf-8")
        paper.print(schema.rstrip())
        return 0
    request = Request(config, control, data_dir, tuple(arguments.section), is_full=arguments.full)
    if arguments.watch:
        return _watch(arguments, paper, request)
    site, report = diagnose(request)
    _shown(arguments, paper, report)
    if arguments.bundle is None:
        return report.exit_status
    return _bundled(arguments, paper, site, report)


def _watch(arguments: argparse.Namespace, paper: Paper, request: Request) -> int:
    status = NOT_DONE
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            _, report = diagnose(request)
            status = report.exit_status
            if paper.is_terminal:
                paper.out.write(_CLEAR)
            _shown(arguments, paper, report)
            paper.out.flush()
            time.sleep(WATCH_EVERY_S)
    return status


def _shown(arguments: argparse.Namespace, paper: Paper, report: Report) -> None:
    if arguments.json:
        reports.as_json(paper, as_document(report, paper.lang), compact=arguments.watch)
    else:
        show(paper, report)


def _bundled(arguments: argparse.Namespace, paper: Paper, site: Site, report: Report) -> int:
    target = Path(arguments.bundle).absolute() if arguments.bundle else default_name(report)
    # Beside JSON nothing but the path goes to standard output.
    asking = Paper(paper.lang, sys.stderr) if arguments.json else paper
    if not arguments.yes:
        if not (sys.stdin.isatty() and asking.is_terminal):
            asking.print(asking.say("bundle-needs-yes"))
            return NOT_DONE
        asking.out.write(asking.say("bundle-ask", path=str(target)))
        asking.out.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes", "是"):
            asking.print(asking.say("bundle-no"))
            return NOT_DONE
    write_bundle(target, site, report, _rendered)
    paper.print(str(target))
    return report.exit_status


def _rendered(report: Report, lang: str) -> str:
    page = Paper(lang, io.StringIO())
    show(page, report)
    return page.out.getvalue() if isinstance(page.out, io.StringIO) else ""

"""`gateway scan PORT`: finds what is on a bus, reads only, and prints configuration that the loader has read before.

What was found so far is printed when it is interrupted. Nothing is written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from drivers.kit import Answers, LineSettings, catalogue
from gateway.cli.layout import Paper, clean
from gateway.cli.reports import as_json
from gateway.errors import LinkDown
from gateway.links import ports
from gateway.links.bus_scan import Device, Scan, Step, plan, scan

# A configuration that lacks nothing, to see what the loader says of the devices alone.
_FRAME: Final = """[gateway]
id = "scan"
org = "scan"
site = "scan"
[[destination]]
id = "scan"
[[destination.path]]
url = "mqtt://127.0.0.1"

"""


class _Progress:
    """One line on a terminal: how far, what is asked now, and how long it takes still."""

    def __init__(self, paper: Paper, steps: Sequence[Step]) -> None:
        self._paper = paper
        self._whole_s = self._left_s = sum(one.seconds for one in steps)
        self._step: Step | None = None
        self._asked = 0

    def step(self, step: Step) -> None:
        """Another step begins."""
        self._left_s -= self._step.seconds if self._step is not None else 0.0
        self._step, self._asked = step, 0
        self.show()

    def asked(self) -> None:
        """One more question was asked."""
        self._asked += 1
        self.show()

    def show(self) -> None:
        """Show it, where somebody looks on."""
        if not self._paper.is_terminal or self._step is None:
            return
        done = min(1.0, self._asked / max(1, self._step.searching.questions))
        left_s = max(0.0, self._left_s - done * self._step.seconds)
        share = 100 if not self._whole_s else round(100 * (1 - left_s / self._whole_s))
        title = _title(self._paper, self._step.driver)
        told = {"percent": share, "settings": _named(self._step.settings), "name": title}
        line = self._paper.say("scan-progress", left=self._paper.age(left_s), **told)
        self._paper.out.write(f"\r\x1b[K{line}")
        self._paper.out.flush()

    def clear(self) -> None:
        """Make room for a line that stays."""
        if self._paper.is_terminal:
            self._paper.out.write("\r\x1b[K")
            self._paper.out.flush()


def run(arguments: argparse.Namespace, paper: Paper, *, config: Path) -> bool:
    """Scan and print; True where something was found.

    Raises LinkDown (what was found before is printed), ValueError (the port).
    """
    errors = Paper(paper.lang, sys.stderr)
    ports.socket_address(arguments.port)
    steps = plan(
        _drivers(arguments.model),
        is_settable=ports.is_settable(arguments.port),
        quiet_s=arguments.quiet / 1000,
        lines=arguments.line,
    )
    if arguments.baud:
        steps = [one for one in steps if one.settings is None or one.settings.baud in arguments.baud]
    whole_s = sum(one.seconds for one in steps)
    count = len({one.settings for one in steps})
    errors.print(errors.say("scan-begin", port=arguments.port, settings=count, time=errors.age(whole_s)))
    progress, result = _Progress(errors, steps), Scan()
    lost: LinkDown | None = None

    def found(device: Device) -> None:
        progress.clear()
        errors.print(errors.style(_words(errors, device), "good"))

    try:
        asyncio.run(
            scan(arguments.port, steps, result, quiet_ms=arguments.quiet, on_step=progress.step, on_found=found,
                 on_asked=progress.asked)
        )  # fmt: skip
    except KeyboardInterrupt:
        progress.clear()
        errors.print(errors.style(errors.say("scan-interrupted"), "warning"))
    except LinkDown as down:  # what was found before the port was lost is worth a page
        if not result.devices:
            raise
        lost = down
    progress.clear()
    _notes(errors, result)
    block = tables(paper, result, port=ports.lasting_name(arguments.port), config=config)
    if arguments.json:
        as_json(paper, {"devices": [_item(one) for one in result.devices], "config": block})
    elif result.devices:
        paper.print(paper.say("pair-paste", file=config))
        paper.print()
        paper.print(block)
        against = findings(block)
        if against:
            paper.print(paper.style(paper.say("pair-against", findings="; ".join(against)), "problem"))
    else:
        errors.print(errors.style(errors.say("scan-nothing"), "warning"))
    if lost is not None:
        raise lost
    return bool(result.devices)


def _drivers(models: Sequence[str]) -> list[Answers]:
    found = (catalogue.driver(model) for model in catalogue.models() if not models or model in models)
    return [one for one in found if isinstance(one, Answers) and one.search is not None]


def searched() -> tuple[str, ...]:
    """Return the models that a scan can find."""
    return tuple(one.model for one in _drivers(()))


def _notes(paper: Paper, result: Scan) -> None:
    for step in result.crowded:
        told = {"settings": _named(step.settings), "name": _title(paper, step.driver)}
        paper.print(paper.style(paper.say("scan-crowd", **told), "warning"))
    for settings in dict.fromkeys(result.refused):
        paper.print(paper.style(paper.say("scan-refused", settings=_named(settings)), "warning"))
    if result.echo:
        paper.print(paper.style(paper.say("scan-echo"), "notice"))


def tables(paper: Paper, result: Scan, *, port: str, config: Path) -> str:
    """Return the [[serial]] and its [[device]] tables, to be pasted; a device that nobody knows stands in comments."""
    known = _taken(config)
    link = _free("bus", known)
    parts = ["[[serial]]", f'id = "{link}"', f"port = {json.dumps(port)}"]
    if result.echo:
        parts.append("echo = true")
    for device in result.devices:
        found, driver = device.found, device.driver
        rows = [f'id = "{_free(driver.model, known)}"', f'model = "{driver.model}"', f'link = "{link}"']
        rows.append(f"address = {json.dumps(found.address)}")
        rows += _settings(driver, device.settings)
        rows.append(f'room = ""  # {paper.say("find-room")}')
        if found.options:
            options = ", ".join(f"{name} = {json.dumps(value)}" for name, value in found.options.items())
            rows.append(f"map = {{ {options} }}")
        if found.about:
            rows.append(f"# {clean(found.about)}")
        mark = "" if found.complete else "# "
        parts += ["", *(f"{mark}{row}" for row in ("[[device]]", *rows))]
    return "\n".join(parts) + "\n"


def findings(block: str) -> list[str]:
    """Return what the loader says against what was found."""
    from gateway.config import inspect

    with NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as copy:
        copy.write(_FRAME + block)
        copy.flush()
        found = inspect(Path(copy.name))[1]
    return [f"{one.code} {one.where}" for one in found if one.where.startswith(("device", "serial"))]


def _settings(driver: Answers, settings: LineSettings | None) -> list[str]:
    if settings is None:
        return []
    usual, rows = driver.line, []
    for name in ("baud", "bits", "parity", "stop"):
        value = getattr(settings, name)
        if value != getattr(usual, name):
            rows.append(f"{name} = {json.dumps(value)}")
    return rows


def _taken(config: Path) -> set[str]:
    try:
        written = tomllib.loads(config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return set()
    rows = [one for rows in written.values() if isinstance(rows, list) for one in rows if isinstance(one, dict)]
    return {str(one.get("id", "")) for one in rows}


def _free(stem: str, known: set[str]) -> str:
    name = next(found for n in range(1, len(known) + 2) if (found := f"{stem}-{n}") not in known)
    known.add(name)
    return name


def _item(device: Device) -> dict[str, object]:
    found = device.found
    told = {"model": device.driver.model, "settings": _named(device.settings), "address": found.address}
    return {**told, "options": dict(found.options), "about": found.about, "complete": found.complete}


def _words(paper: Paper, device: Device) -> str:
    name, settings = _title(paper, device.driver), _named(device.settings)
    told = {"name": name, "settings": settings, "address": clean(device.found.address)}
    return paper.say("scan-found", **told, about=clean(device.found.about))


def _named(settings: LineSettings | None) -> str:
    return "-" if settings is None else f"{settings.baud} {settings.bits}{settings.parity}{settings.stop}"


def _title(paper: Paper, driver: Answers) -> str:
    return clean(driver.title.zh if paper.lang == "zh" else driver.title.en)

"""`gateway listen PORT`: finds out who speaks on a port that nobody has configured, and prints what to configure.

The port is opened here and not by the daemon, is only listened to, and is heard at one setting after another until what comes is
of a protocol that the gateway knows (`drivers.kit.line_recognition`), twice. Nothing is written: what is printed was read by the
configuration's own loader before.
Limits: `KEPT_BYTES` a setting are judged together; `STAY` times in a row one setting is heard; `SHOWN_BYTES` of what nobody
knows are shown; as many devices as addresses were heard, `MOST_DEVICES` at most.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from drivers.kit import LineSettings, Strangers, Streams, catalogue
from drivers.kit.line_recognition import Spoken, recognise_line, with_parity
from gateway.cli import listening, pairing
from gateway.cli.devices import written
from gateway.cli.layout import Paper, clean
from gateway.cli.reports import as_json
from gateway.clock import iso
from gateway.links.line_ear import Hearing, Listened

KEPT_BYTES: Final = 8_192
STAY: Final = 5
SHOWN_BYTES: Final = 64
MOST_DEVICES: Final = 8
# So many frames make it sure: one may be noise that looks like one.
SURE: Final = 2


@dataclass(slots=True)
class Search:
    """What has been heard on one port, setting by setting, and the best guess so far."""

    drivers: tuple[Streams, ...]
    heard: dict[LineSettings | None, bytes] = field(default_factory=dict)
    best: tuple[Spoken, LineSettings | None] | None = None
    stayed: int = 0

    def take(self, listened: Listened) -> tuple[Spoken, ...]:
        """Take what came; return what it may be, with all that came at this setting before."""
        data = (self.heard.get(listened.settings, b"") + listened.data)[-KEPT_BYTES:]
        found = recognise_line(data, self.drivers)
        if not found and listened.data:  # noise of before must not hide what is clear now
            data = listened.data
            found = recognise_line(data, self.drivers)
        self.heard[listened.settings] = data
        if found and (self.best is None or found[0].read >= self.best[0].read):
            settings = listened.settings
            self.best = found[0], settings if settings is None else with_parity(b"".join(found[0].frames), settings)
        self.stayed = self.stayed + 1 if found else 0
        return found

    @property
    def is_sure(self) -> bool:
        """Is it known?"""
        return self.best is not None and self.best[0].read >= SURE


@cache
def on_lines() -> tuple[Streams, ...]:
    """Return the drivers of everything that speaks by itself on a line."""
    found = (catalogue.driver(model) for model in catalogue.models())
    return tuple(one for one in found if isinstance(one, Streams) and one.topics is None)


def find(
    paper: Paper, hearing: Hearing, *, port: str, config: Path, form: str = "words",
    recording: listening.Recording | None = None,
) -> bool:  # fmt: skip
    """Listen and say what is there; False where nobody was known. LinkDown as `line_ear.listen`; OSError of the paper."""
    search = Search(on_lines())
    try:
        _search(paper, hearing, search, port=port, form=form, recording=recording)
    except KeyboardInterrupt:
        pass
    finally:
        hearing.close()
    if search.best is None:
        if form == "words":
            key = "find-unknown" if any(search.heard.values()) else "find-silent"
            paper.print(paper.style(paper.say(key), "warning"))
        return False
    spoken, settings = search.best
    block = tables(paper, spoken, settings, port=port, taken=_taken(config))
    if form == "json":
        facts = {"model": spoken.driver.model, "sure": search.is_sure, "frames": spoken.read, "config": block}
        as_json(paper, {**facts, "settings": _named(settings)}, compact=True)
        return True
    if form == "vectors":
        _vectors(paper, spoken)
        return True
    _result(paper, search, block, config)
    return True


def _search(
    paper: Paper, hearing: Hearing, search: Search, *, port: str, form: str, recording: listening.Recording | None
) -> None:  # fmt: skip
    stays: bool | None = None
    while not search.is_sure:
        try:
            listened = hearing.send(stays)
        except StopIteration:
            return
        found = search.take(listened)
        stays = bool(found) and search.stayed < STAY
        if listened.data:
            _show(paper, listened, found, port=port, form=form, recording=recording)


def _show(
    paper: Paper, listened: Listened, found: tuple[Spoken, ...], *, port: str, form: str,
    recording: listening.Recording | None,
) -> None:  # fmt: skip
    item = {
        "t": iso(round(time.time() * 1000)), "link": port, "kind": "noise", "settings": _named(listened.settings),
        "models": [one.driver.model for one in found], "capture": {"bytes": listened.data.hex()},
    }  # fmt: skip
    if recording is not None:
        recording.keep(item)
    if form == "json":
        as_json(paper, item, compact=True)
    elif form == "words":
        paper.print(_words(paper, listened, found))
    paper.out.flush()


def _words(paper: Paper, listened: Listened, found: tuple[Spoken, ...]) -> str:
    head = f"{_named(listened.settings) or '-'}  {paper.say('listen-size', count=len(listened.data))}"
    shown = listened.data[:SHOWN_BYTES].hex(" ") + (" …" if len(listened.data) > SHOWN_BYTES else "")
    from gateway.collect.listening import told

    if not found:
        return f"{head}  {paper.say('find-nobody')}  {paper.style(shown, 'dim')}"
    first = found[0]
    said = [listening.said(paper, told(one)) for one in first.said]
    like = paper.style(paper.say("listen-like", model=first.driver.model, name=_title(paper, first.driver)), "good")
    return "  ".join([head, like, *said, paper.style(shown, "dim")])


def _result(paper: Paper, search: Search, block: str, config: Path) -> None:
    assert search.best is not None  # noqa: S101 - called only where something was found
    spoken, settings = search.best
    key = "find-found" if search.is_sure else "find-probably"
    paper.print()
    paper.print(
        paper.say(key, model=spoken.driver.model, name=_title(paper, spoken.driver), count=spoken.read,
                  settings=_named(settings) or "-", percent=round(100 * spoken.share))
    )  # fmt: skip
    if spoken.driver.note is not None:
        note = spoken.driver.note
        paper.print(paper.style(note.zh if paper.lang == "zh" else note.en, "warning"))
    if spoken.driver.strangers is Strangers.IGNORED:
        paper.print(paper.style(paper.say("find-neighbours"), "warning"))
    paper.print(paper.say("pair-paste", file=config))
    paper.print()
    paper.print(block)
    if written(config) is None:
        paper.print(paper.style(paper.say("pair-unchecked", file=config), "warning"))
    elif against := pairing.findings(config, block):
        paper.print(paper.style(paper.say("pair-against", findings="; ".join(against)), "problem"))
    paper.print(paper.say("find-then"))


def _vectors(paper: Paper, spoken: Spoken) -> None:
    from drivers.kit import vectors

    options = spoken.driver.vectors[0].options if spoken.needs_map else {}
    for frame in spoken.frames:
        made = vectors.of_frame(spoken.driver, frame, source="captured: ...", options=options)
        paper.print(f"{vectors.source_of(made)},")


def tables(paper: Paper, spoken: Spoken, settings: LineSettings | None, *, port: str, taken: Iterable[str]) -> str:
    """Return the [[serial]] and its [[device]] tables, to be pasted."""
    driver, known = spoken.driver, set(taken)
    link = _free("line", known)
    lines = ["[[serial]]", f'id = "{link}"', f"port = {json.dumps(port)}", *_settings(driver, settings)]
    addresses = spoken.addresses[:MOST_DEVICES]
    hosts = [""] if not addresses or driver.strangers is Strangers.RAISED else []
    for address in (*hosts, *addresses):
        name = _free(driver.model, known)
        lines += ["", "[[device]]", f'id = "{name}"', f'model = "{driver.model}"', f'link = "{link}"']
        lines += [f"address = {json.dumps(address, ensure_ascii=False)}"] if address else []
        lines += (
            [f'room = ""  # {paper.say("find-room")}'] if address or driver.strangers is not Strangers.RAISED else []
        )
        lines += _map(paper, spoken, address) if spoken.needs_map else []
    return "\n".join(lines) + "\n"


def _settings(driver: Streams, settings: LineSettings | None) -> list[str]:
    if settings is None:
        return []
    usual, lines = driver.line, []
    if settings.baud != usual.baud:
        lines.append(f"baud = {settings.baud}")
    if settings.bits != usual.bits:
        lines.append(f"bits = {settings.bits}")
    if settings.parity != usual.parity:
        lines.append(f'parity = "{settings.parity}"')
    return lines


def _map(paper: Paper, spoken: Spoken, address: str) -> list[str]:
    """Return a rule made of what was heard: whether that calls, only whoever pastes it knows."""
    name, value = _field(spoken, address)
    equals = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool | int) else ""
    rule = [f"  field = {json.dumps(name, ensure_ascii=False)}", *([f"  equals = {equals}"] if equals else [])]
    owner = [] if address else ['  address = ""'] if spoken.driver.model == "json-lines" else []
    head = ["  [device.map]", *owner] if owner else []
    return [*head, f"  [[device.map.signal]]  # {paper.say('find-map')}", *rule, '  is = "call"']


def _field(spoken: Spoken, address: str) -> tuple[str, object]:
    """Return the field of the first object heard that is likeliest to say what happened: a text before a number."""
    for frame in spoken.frames:
        try:
            fields = json.loads(frame)
        except ValueError:
            continue
        if not isinstance(fields, dict):
            continue
        rest = {name: value for name, value in fields.items() if isinstance(name, str) and name and name not in _NAMING}
        rest = {name: value for name, value in rest.items() if str(value) != address}
        for kind in (str, bool, int, float):
            found = next(((name, value) for name, value in rest.items() if type(value) is kind), None)
            if found is not None:
                return found
    return "event", "press"


# What names the sender, or the moment, and no event.
_NAMING: Final = frozenset({"time", "model", "id", "dev", "s", "n", "mic", "protocol", "channel", "mod", "rssi", "snr"})


def _free(stem: str, known: set[str]) -> str:
    name = next(found for n in range(1, len(known) + 2) if (found := f"{stem}-{n}") not in known)
    known.add(name)
    return name


def _taken(config: Path) -> list[str]:
    """Return the ids of the configuration, whatever they name."""
    try:
        tables_ = tomllib.loads(config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return []
    rows = [one for rows in tables_.values() if isinstance(rows, list) for one in rows if isinstance(one, dict)]
    return [str(one.get("id", "")) for one in rows]


def _named(settings: LineSettings | None) -> str:
    """Say how a line is set, "" for a serial server's."""
    return "" if settings is None else f"{settings.baud} {settings.bits}{settings.parity}{settings.stop}"


def _title(paper: Paper, driver: Streams) -> str:
    return clean(driver.title.zh if paper.lang == "zh" else driver.title.en)

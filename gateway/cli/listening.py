"""`gateway listen`: shows, writes down, and turns into test vectors what the daemon hears.

Three forms: in words, in the language of whoever reads; as test vectors, in the form of the drivers' own (`--raw`); as
JSON (`--json`). `--record FILE` keeps besides what the simulator can play again: configured devices only, unless
strangers are asked for, whose addresses stay masked. No key is ever in any of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from drivers.kit.recognition import recognise
from gateway.cli.layout import Paper, clean
from gateway.cli.reports import as_json, local_time
from gateway.texts import text

# What a recording keeps of each thing that was heard: nothing of what it meant, nobody's name.
_KEPT: Final = ("t", "link", "kind", "model", "address", "rssi", "options")


@dataclass(slots=True)
class Recording:
    """A capture on disk, a JSON object a line, each flushed: what stands in it can be used whatever happens next."""

    path: Path
    with_strangers: bool
    count: int = 0
    _file: TextIO | None = field(default=None, repr=False)

    def open(self) -> None:
        """Make the file, readable by its owner only. OSError; FileExistsError where there is one."""
        self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")

    def keep(self, item: Mapping[str, Any]) -> None:
        """Write one thing down. OSError."""
        ours = item.get("device") or item.get("kind") == "noise" or self.with_strangers
        if self._file is None or not ours or "capture" not in item:
            return
        row = {name: item[name] for name in _KEPT if item.get(name) not in (None, "", {})}
        row |= {"source": f"captured {str(item.get('t'))[:10]}", **item["capture"]}
        self._file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        self._file.flush()
        self.count += 1

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def show(paper: Paper, items: Iterator[dict[str, Any]], *, form: str, known: bool, recording: Recording | None) -> None:
    """Print what comes, until it ends: "words", "vectors" or "json". OSError of the paper or the recording."""
    for item in items:
        if recording is not None:
            recording.keep(item)
        if known and "lost" not in item and not item.get("device"):
            continue
        if form == "json":
            as_json(paper, item, compact=True)
        elif form == "vectors":
            paper.print(vector(paper, item))
        else:
            paper.print(words(paper, item))
        paper.out.flush()


def words(paper: Paper, item: Mapping[str, Any]) -> str:
    """Say one thing that was heard in one line."""
    if "lost" in item:
        return paper.style(paper.say("listen-lost", count=clean(item["lost"])), "warning")
    parts = [local_time(item.get("t"), clock_only=True), clean(item.get("link"))]
    device, address = clean(item.get("device")), clean(item.get("address"))
    parts.append(f"{device} {address}".strip() if device else paper.style(_stranger(item, address), "dim"))
    heard = item.get("said")
    parts += [said(paper, one) for one in heard] if isinstance(heard, list) else []
    if reason := clean(item.get("reason")):
        known = f"{paper.word('reason', reason)}{_detail(paper, item)}"
        parts.append(paper.style(known, "dim" if reason in ("stranger", "nothing-of-interest") else "warning"))
    if like := _like(paper, item):
        parts.append(paper.style(like, "good"))
    capture = item.get("capture")
    if isinstance(capture, Mapping):
        parts.append(paper.style(_bytes(paper, item, capture), "dim"))
    if isinstance(item.get("rssi"), int):
        parts.append(f"{item['rssi']} dBm")
    return "  ".join(part for part in parts if part)


def vector(paper: Paper, item: Mapping[str, Any]) -> str:
    """Write one thing that was heard as a vector to be pasted, or as a comment where it cannot be one."""
    try:
        made = _vector(item)
    except Exception as error:  # noqa: BLE001 - a driver of another version, or one that cannot stand it: show the bytes
        made = f"# {type(error).__name__}: {clean(error)}"
    if made is not None:
        return made
    return "\n".join(f"# {line}" for line in words(paper, item).splitlines())


def _vector(item: Mapping[str, Any]) -> str | None:
    """Return the Python source of a vector; None for what is none."""
    from drivers.kit import Advert, Advertises, Answers, Streams, catalogue, vectors

    capture, kind = item.get("capture"), item.get("kind")
    if not isinstance(capture, Mapping) or kind == "noise":
        return None
    source = f"captured {clean(item.get('t'))[:10]}: ..."
    options = item.get("options") or {}
    if kind == "advert":
        address = clean(capture["mac"]).replace("··", "00")
        services, makers = (_ids(capture[name]) for name in ("service_data", "manufacturer_data"))
        advert = Advert(address, clean(capture["name"]), service_data=services, manufacturer_data=makers)
        if not item.get("model"):
            return f"# {vectors.source_of(advert)}"
        driver = catalogue.driver(str(item["model"]))
        assert isinstance(driver, Advertises)  # noqa: S101 - a fault of the daemon is shown as a comment
        return f"{vectors.source_of(vectors.of_advert(driver, advert, source=source, options=options))},"
    if not item.get("model"):
        return None
    driver = catalogue.driver(str(item["model"]))
    if kind == "frame" and isinstance(driver, Streams):
        frame = bytes.fromhex(str(capture["bytes"]))
        return f"{vectors.source_of(vectors.of_frame(driver, frame, source=source, options=options))},"
    assert isinstance(driver, Answers)  # noqa: S101 - a fault of the daemon is shown as a comment
    exchange = [
        (bytes.fromhex(asked), None if reply is None else bytes.fromhex(reply)) for asked, reply in capture["exchange"]
    ]
    made = vectors.of_exchange(driver, exchange, address=str(item["address"]), source=source, options=options)
    return None if made is None else f"{vectors.source_of(made)},"


def _ids(data: Mapping[str, str]) -> dict[int, bytes]:
    return {int(key, 16): bytes.fromhex(value) for key, value in data.items()}


def _stranger(item: Mapping[str, Any], address: str) -> str:
    """Show a stranger's address; on the air half of it at most: it may be a visitor's telephone, whatever daemon answers."""
    if item.get("kind") != "frame" and len(address) > 8:  # a frame on a wire names what somebody wrote on a label
        return f"{address[:8]}:··:··:··"
    return address or "?"


def _like(paper: Paper, item: Mapping[str, Any]) -> str:
    """Say what a stranger on the air may be, "" where nobody knows."""
    if item.get("kind") != "advert" or item.get("device"):
        return ""
    from gateway.cli import pairing

    advert = pairing.advert_of(item)
    found = recognise(advert, pairing.on_air()) if advert else ()
    if not found:
        return ""
    title = found[0].driver.title
    name = title.zh if paper.lang == "zh" else title.en
    return paper.say("listen-locked" if found[0].locked else "listen-like", model=found[0].driver.model, name=name)


def said(paper: Paper, one: Mapping[str, Any]) -> str:
    """Say one reading or signal."""
    from drivers.kit import QUANTITIES

    channel = f"[{clean(one['channel'])}]" if one.get("channel") else ""
    if "quantity" in one:
        quantity = QUANTITIES.get(str(one["quantity"]))
        name = clean(one["quantity"]) if quantity is None else quantity.zh if paper.lang == "zh" else quantity.en
        unit = clean(one.get("unit"))
        return f"{name}{channel} {clean(one['value'])}{'' if unit == '1' else f' {unit}'}"
    name, code = paper.word("signal", one["signal"]), clean(one.get("code"))
    if isinstance(one.get("level"), bool):
        name = f"{name}={paper.say('listen-yes' if one['level'] else 'listen-no')}"
    return f"{name}{channel}{'' if code in ('', one['signal']) else f' ({code})'}"


def _detail(paper: Paper, item: Mapping[str, Any]) -> str:
    detail = clean(item.get("detail"))
    if item.get("reason") == "no-frame":
        return text("cli.listen-bytes", paper.lang, count=detail)
    return f": {detail}" if detail and item.get("reason") != "no-reply" else ""


def _bytes(paper: Paper, item: Mapping[str, Any], capture: Mapping[str, Any]) -> str:
    """Show the bytes: of a poll as pairs, of a line that is text as text, of a stranger's advert only how many."""
    if "exchange" in capture:
        pairs = capture["exchange"]
        answered = sum(reply is not None for _asked, reply in pairs)
        told = paper.say("listen-poll", asked=len(pairs), answered=answered)
        if item.get("reason"):
            last, reply = pairs[-1]
            told += f"  {clean(last)} → {clean(reply) if reply is not None else '-'}"
        return told
    if "bytes" in capture:
        data = bytes.fromhex(str(capture["bytes"]))
        line = data.decode("utf-8", "replace").strip()
        return line if line and line.isprintable() and "�" not in line else data.hex()
    known = bool(item.get("device"))
    parts = [clean(capture.get("name"))] if known else []
    for word, name in (("service", "service_data"), ("maker", "manufacturer_data")):
        for key, value in (capture.get(name) or {}).items():
            parts.append(
                f"{word} {clean(key)}={clean(value) if known else paper.say('listen-size', count=len(value) // 2)}"
            )
    return " ".join(part for part in parts if part)

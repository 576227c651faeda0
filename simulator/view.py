"""What a person sees of a run: a screen redrawn in place on a terminal, elsewhere a line now and then, and the ledger.

Pure text from a `Snapshot`; nothing is measured here. Colour only where the caller allows it. Limits: 24 device rows.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

MAX_ROWS: Final = 24
LANES: Final = {"A": "alarms", "B": "events", "C": "live", "D": "backlog"}
_COLOURS: Final = {"good": "32", "bad": "31;1", "warn": "33", "quiet": "2", "title": "1"}


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform: how it is spoken to over each way, what it decided so far, and which ways are broken now, and how."""

    id: str
    speaks: Sequence[str]
    decided: Mapping[str, int] = field(default_factory=dict)
    broken: Mapping[int, str] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Return "up", what has broken all of it, or how many of its ways are whole."""
        if not self.broken:
            return "up"
        if len(self.broken) == len(self.speaks) and len(set(self.broken.values())) == 1:
            return next(iter(self.broken.values()))
        return f"{len(self.speaks) - len(self.broken)}/{len(self.speaks)}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one drawing needs. `status` is the gateway's answer, None while it does not answer."""

    title: str
    seed: int
    elapsed_s: float
    seconds: float | None
    busy: bool
    platforms: Sequence[Platform] = ()
    status: Mapping[str, Any] | None = None
    done: Mapping[str, int] = field(default_factory=dict)
    devices: Sequence[Mapping[str, Any]] = ()
    faults: Sequence[tuple[float, str, str]] = ()
    next_fault: tuple[float, str, str] | None = None


def colour_allowed(stream: TextIO) -> bool:
    """Colour is for terminals, and not for those who said no (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def in_place(text: str, *, rows: int) -> str:
    """Return the text so that a terminal of so many rows draws it over what stood there, without flicker or wrapping.

    ECMA-48 CUP, EL and ED; the private mode 7 (wrapping) is what every terminal since the VT100 has.
    """
    lines = text.split("\n")[: max(1, rows - 1)]
    return "\x1b[?7l\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J\x1b[?7h"


class Paint:
    """Puts words into colour, or leaves them as they are. `colour` is "on" or "off"."""

    def __init__(self, colour: str) -> None:
        self._on = colour == "on"

    def __call__(self, kind: str, text: str) -> str:
        """Return the text in the colour of its kind: good, bad, warn, quiet, title."""
        return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m" if self._on else text


def screen(snapshot: Snapshot, paint: Paint) -> str:
    """The whole screen as lines of text."""
    lines = [_headline(snapshot, paint), ""]
    lines += [*_platforms(snapshot, paint), _gateway(snapshot, paint), _outbox(snapshot, paint)]
    lines += [_alarms(snapshot, paint), _fault_line(snapshot, paint), ""]
    lines += _device_table(snapshot, paint)
    return "\n".join([*lines, "", paint("quiet", _footer(snapshot))])


def line(snapshot: Snapshot) -> str:
    """The same in one line, for a log."""
    pending = _pending(snapshot.status)
    lanes = " ".join(f"{lane}{pending.get(lane, 0)}" for lane in LANES)
    gateway = "up" if snapshot.status is not None else "down"
    open_alarms = "?" if snapshot.status is None else snapshot.status["alarms"]["open"]
    platforms = "  ".join(f"{one.id} {one.state:4} {one.decided.get('accepted', 0):5}" for one in snapshot.platforms)
    return (
        f"{snapshot.elapsed_s:6.1f} s  gateway {gateway:4}  done {sum(snapshot.done.values()):4}  "
        f"accepted: {platforms}  pending {lanes}  alarms open {open_alarms}  {'busy' if snapshot.busy else 'draining'}"
    )


def ledger(report: Mapping[str, Any], reasons: Sequence[str], paint: Paint) -> str:
    """The ledger of a finished run, and the verdict in plain words."""
    alarms, latency = report["alarms"], report["alarms"]["latency_ms"]
    rows = [
        ("emitted by devices", report["emitted"], "presses, falls and numbered lines"),
        ("stored", report["stored"], "events that the gateway committed, meter readings and its own included"),
        ("accepted", report["accepted"], "events that every platform took which asked for them, each once"),
        ("lost", report["lost"], "inputs that reached nobody, without excuse"),
        ("unheard", report["unheard"], "one-shot inputs while the gateway was deaf, inside a gap that it reported"),
        ("duplicated", report["duplicated"], "accepted twice, or told twice"),
        ("reordered", report["reordered"], "accepted behind a later one"),
        ("resent", report["resent"], "arrivals of an event that had come before: answered, not counted twice"),
        ("pending", report["pending"], "still to be delivered when the run ended"),
    ]
    lines = [paint("title", "The ledger"), ""]
    lines += [f"  {name:<20}{_number(value):>8}   {paint('quiet', words)}" for name, value, words in rows]
    lines += [
        "",
        f"  alarms: {alarms['pressed']} pressed, {alarms['raised']} raised, {alarms['accepted']} accepted",
        "  from press to acceptance, link up: " + _latencies(latency),
        *_one_way(report),
        "",
        *_destination_table(report, paint),
        "",
        *_ledger_table(report, paint),
        "",
    ]
    whole = [gap for gap in report["gaps"] if gap["from"] is not None and gap["to"] is not None]
    told = [f"  gap on {gap['link']}: deaf for {gap['to'] - gap['from']:.2f} s ({gap['reason']})" for gap in whole]
    lines += dict.fromkeys(told)  # each platform was told of it
    lines.append("")
    if not reasons:
        lines.append(paint("good", "Clean: nothing lost, nothing doubled, nothing out of order, nothing left behind."))
    else:
        lines.append(paint("bad", "Not clean: " + "; ".join(reasons) + "."))
        lines += [f"  {_offence(offence)}" for offence in report["offences"][:10]]
    return "\n".join(lines)


def _one_way(report: Mapping[str, Any]) -> list[str]:
    """Say what alarms took while one way into a platform was broken and another one stood."""
    return [
        f"  while only a part of the ways to {name} stood ({row['one_way']['alarms']} alarms): "
        + _latencies(row["one_way"]["latency_ms"])
        for name, row in report["destinations"].items()
        if row["one_way"]["alarms"]
    ]


def _destination_table(report: Mapping[str, Any], paint: Paint) -> list[str]:
    columns = ("accepted", "resent", "alarms", "p50", "p99", "max")
    lines = [paint("quiet", "  " + _pad("platform", 20) + "".join(f"{column:>11}" for column in columns))]
    for name, row in report["destinations"].items():
        shown = [str(row[column]) for column in ("accepted", "resent", "alarms")]
        shown += [_ms(row["latency_ms"][share]) for share in ("p50", "p99", "max")]
        lines.append("  " + _pad(name, 20) + "".join(f"{cell:>11}" for cell in shown))
    return lines


def _ledger_table(report: Mapping[str, Any], paint: Paint) -> list[str]:
    columns = ("emitted", "accepted", "lost", "unheard", "duplicated", "polled", "readings")
    lines = [paint("quiet", "  " + _pad("device", 20) + "".join(f"{column:>11}" for column in columns))]
    for device, row in report["devices"].items():
        lines.append("  " + _pad(device, 20) + "".join(f"{row[column]:>11}" for column in columns))
    return lines


def _headline(snapshot: Snapshot, paint: Paint) -> str:
    length = "until Ctrl-C" if snapshot.seconds is None else f"of {snapshot.seconds:g} s"
    phase = paint("good", "devices busy") if snapshot.busy else paint("warn", "draining")
    when = f"seed {snapshot.seed}   {snapshot.elapsed_s:.1f} s {length}   {phase}"
    return f"{paint('title', snapshot.title)}   {when}"


def _platforms(snapshot: Snapshot, paint: Paint) -> list[str]:
    lines = []
    for one in snapshot.platforms:
        state = paint("bad", f"{one.state.upper():4}") if one.broken else paint("good", f"{one.state:4}")
        words = [f"{one.decided.get(name, 0)} {name}" for name in ("accepted", "duplicate", "retry", "rejected")]
        words += [f"way {way} {fault}" for way, fault in one.broken.items() if len(one.speaks) > 1]
        name = f"{one.id} ({', '.join(one.speaks)})"
        lines.append(f"platform  {state} {_pad(name, 18)} {' · '.join(words)}")
    return lines


def _gateway(snapshot: Snapshot, paint: Paint) -> str:
    status = snapshot.status
    if status is None:
        return f"gateway   {paint('bad', 'does not answer')}"
    links = [
        paint("good", link["id"]) if link["hearing"] else paint("bad", f"{link['id']} deaf") for link in status["links"]
    ]
    session = [
        paint("good", f"{one['id']} connected") if one["connected"] else paint("bad", f"{one['id']} not connected")
        for one in status["destinations"]
    ]
    return (
        f"gateway   {paint('good', 'up ')}  pid {status['pid']}, up {status['uptime_s']:.0f} s   "
        f"links {', '.join(links)}   {', '.join(session)}"
    )


def _outbox(snapshot: Snapshot, paint: Paint) -> str:
    if snapshot.status is None:
        return "outbox    ?"
    pending = _pending(snapshot.status)
    lanes = [
        paint("warn" if pending.get(lane) else "quiet", f"{lane} {name} {pending.get(lane, 0)}")
        for lane, name in LANES.items()
    ]
    return f"outbox    {snapshot.status['outbox']['sequence']} stored, pending: {'  '.join(lanes)}"


def _alarms(snapshot: Snapshot, paint: Paint) -> str:
    if snapshot.status is None:
        return "alarms    ?"
    count = snapshot.status["alarms"]["open"]
    text = paint("warn" if count else "quiet", f"{count} open")
    return f"alarms    {text}" + paint("quiet", "   (staff acknowledge and close them after a few seconds)")


def _fault_line(snapshot: Snapshot, paint: Paint) -> str:
    past = [f"{_fault(name, platform)} at {at:.1f} s" for at, name, platform in snapshot.faults[-4:]]
    if snapshot.next_fault is not None:
        at, name, platform = snapshot.next_fault
        past.append(paint("quiet", f"next: {_fault(name, platform)} at {at:.0f} s"))
    return f"faults    {', '.join(past) or 'none yet'}"


def _fault(name: str, platform: str) -> str:
    return f"{name} {platform}".rstrip()


def _device_table(snapshot: Snapshot, paint: Paint) -> list[str]:
    head = (
        _pad("device", 20)
        + f"{'did':>6}{'heard':>8}{'events':>8}{'repeats':>9}{'rejects':>9}{'last heard':>12}   alarm"
    )
    lines = [paint("quiet", head)]
    told = {row["id"]: row for row in (snapshot.status or {}).get("devices", ())}
    for device in snapshot.devices[:MAX_ROWS]:
        row = told.get(device["id"])
        text = _pad(device["id"], 20) + f"{snapshot.done.get(device['id'], 0):>6}"
        if row is not None:
            last = "never" if row["last_heard_s"] is None else f"{row['last_heard_s']:.1f} s ago"
            rejects = sum(row["rejects"].values()) + row.get("polls_failed", 0)
            text += f"{row['heard']:>8}{row['events']:>8}{row['repeats']:>9}{rejects:>9}{last:>12}"
            text += f"   {paint('warn', 'OPEN') if row['alarm'] else ''}"
        lines.append(text.rstrip())
    hidden = len(snapshot.devices) - MAX_ROWS
    return lines + ([paint("quiet", f"and {hidden} more")] if hidden > 0 else [])


def _footer(snapshot: Snapshot) -> str:
    if snapshot.seconds is None:
        return "Ways to the platforms break and the gateway is killed, again and again. Ctrl-C ends with the ledger."
    return (
        "Ways to the platforms break and the gateway is killed once; then everything drains and the ledger is drawn up."
    )


def _pending(status: Mapping[str, Any] | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in (status or {}).get("destinations", ()):
        for lane, count in one["pending"].items():
            found[lane] = found.get(lane, 0) + count
    return found


def _pad(text: str, width: int) -> str:
    """Pad to columns of a terminal: a Chinese character takes two."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return text + " " * max(1, width - len(text) - wide)


def _number(value: object) -> str:
    return "?" if value is None else str(value)


def _latencies(values: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {_ms(value)}" for name, value in values.items())


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:g} ms"


def _offence(offence: Mapping[str, Any]) -> str:
    facts = " ".join(f"{key}={value}" for key, value in offence.items() if key not in ("offence", "device"))
    return f"{offence['offence']} {offence['device']}: {facts}"

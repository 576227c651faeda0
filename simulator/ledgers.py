"""The ledgers of one run, read back: what devices did, what the platform decided, what broke, what the gateway said.

A writer flushes each line whole, but one that is killed can leave half a line as its last: such a line is counted in
`torn` and not used. A line that is broken elsewhere is an error, for then nothing that follows proves anything.
Limits: the files of a 24 h run (about 200 MB) are held in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EMITTED_KINDS = ("press", "fall", "line", "bed")


class LedgerError(Exception):
    """A ledger is missing or broken: names the file and the line."""


@dataclass(frozen=True, slots=True)
class Emission:
    """One thing that a device did, from `t` to `t_last` (its last repeat), wall-clock seconds."""

    t: float
    t_last: float
    device: str
    kind: str
    counter: int | None = None
    n: int | None = None
    session: str = ""
    value: Any = None


@dataclass(frozen=True, slots=True)
class PollReply:
    """One register that a meter put whole on the wire."""

    t: float
    device: str
    quantity: str
    channel: str
    value: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What the application of one platform decided about one arrival of an event, and over which way in it came."""

    t: float
    id: str
    type: str
    device: str
    status: str
    lane: str = ""
    sequence: int = 0
    deliveryseq: int = 0
    streamid: str = ""
    way: int = 1
    event: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""

    @property
    def data(self) -> Mapping[str, Any]:
        """The event's data; empty when it has none."""
        data = self.event.get("data")
        return data if isinstance(data, Mapping) else {}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done to the gateway or to one platform, or a mark of the run ("stop", "interrupt").

    `way`: to which way into the platform, from 1; 0: to all of it. `facts` are its whole line.
    """

    t: float
    fault: str
    platform: str = ""
    way: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ledgers:
    """All of one run. `acked`: (device, n) of the lines that the gateway has acknowledged, `acked_at` when.

    `status`, `alarms` and `dead` (how many dead letters are stored) are the gateway's own words at the end; None when it
    did not answer.
    """

    scenario: Mapping[str, Any]
    emissions: tuple[Emission, ...] = ()
    polls: tuple[PollReply, ...] = ()
    decisions: Mapping[str, tuple[Decision, ...]] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    acked: frozenset[tuple[str, int]] = frozenset()
    acked_at: Mapping[tuple[str, int], float] = field(default_factory=dict)
    status: Mapping[str, Any] | None = None
    alarms: tuple[Mapping[str, Any], ...] | None = None
    dead: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    torn: int = 0


def read(run: Path) -> Ledgers:
    """Read the ledgers of a run directory. LedgerError when one is missing or broken."""
    torn: list[Path] = []
    scenario = _document(run / "scenario.json")
    emissions: list[Emission] = []
    polls: list[PollReply] = []
    acked: dict[tuple[str, int], float] = {}
    for name in ("air.jsonl", "lines.jsonl", "bus.jsonl"):
        for where, row in _rows(run / name, torn):
            try:
                if row.get("kind") in EMITTED_KINDS:
                    emissions.append(_emission(row))
                elif row.get("kind") == "poll":
                    polls.append(_poll(row))
                elif "acked" in row:
                    acked.setdefault((str(row["device"]), int(row["acked"])), float(row["t"]))
            except (KeyError, TypeError, ValueError) as error:
                raise LedgerError(f"{where}: {error!r}") from error
    decisions = {
        path.stem.removeprefix("platform-"): tuple(_decision(row, where) for where, row in _rows(path, torn))
        for path in sorted(run.glob("platform-*.jsonl"))
    }
    faults = tuple(
        Fault(float(row["t"]), str(row["fault"]), str(row.get("platform") or ""), int(row.get("way") or 0), row)
        for _, row in _rows(run / "faults.jsonl", torn)
    )
    final = _document(run / "gateway.json") if (run / "gateway.json").exists() else {}
    alarms = final.get("alarms")
    return Ledgers(
        scenario=scenario,
        emissions=tuple(sorted(emissions, key=lambda emission: emission.t)),
        polls=tuple(sorted(polls, key=lambda poll: poll.t)),
        decisions=decisions,
        faults=tuple(sorted(faults, key=lambda fault: fault.t)),
        acked=frozenset(acked),
        acked_at=acked,
        status=final.get("status"),
        alarms=None if alarms is None else tuple(alarms),
        dead=None if final.get("dead") is None else len(final["dead"]),
        versions=final.get("versions", {}),
        torn=len(torn),
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LedgerError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise LedgerError(f"{path}: not a JSON object")
    return document


def _rows(path: Path, torn: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file:line, object) of a JSON-lines file. A file that was never begun has no rows."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # no newline after it: its writer was killed
                torn.append(path)
                return
            raise LedgerError(f"{path}:{number}: {error}") from error
        if not isinstance(row, dict):
            raise LedgerError(f"{path}:{number}: not a JSON object")
        yield f"{path}:{number}", row


def _emission(row: Mapping[str, Any]) -> Emission:
    t = float(row["t"])
    last = row.get("t_last")
    return Emission(
        t=t,
        t_last=t if last is None else float(last),
        device=str(row["device"]),
        kind=str(row["kind"]),
        counter=row.get("counter"),
        n=row.get("n"),
        session=str(row.get("session") or ""),
        value=row.get("value"),
    )


def _poll(row: Mapping[str, Any]) -> PollReply:
    value = row["value"]
    return PollReply(
        float(row["t"]),
        str(row["device"]),
        str(value["quantity"]),
        str(value.get("channel") or ""),
        str(value["value"]),
    )


def _decision(row: Mapping[str, Any], where: str) -> Decision:
    try:
        return Decision(
            t=float(row["t"]),
            id=str(row["id"]),
            type=str(row["type"]),
            device=str(row["device"]),
            status=str(row["status"]),
            lane=str(row.get("lane") or ""),
            sequence=int(row.get("sequence") or 0),
            deliveryseq=int(row.get("deliveryseq") or 0),
            streamid=str(row.get("streamid") or ""),
            way=int(row.get("way") or 1),
            event=row.get("event") or {},
            code=str(row.get("code") or ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"{where}: {error!r}") from error

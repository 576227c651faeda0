"""The platform's ledger: one JSON line for each decision of its application, DIR/platform-DEST.jsonl.

It is the proof that the audit reads, and the application's memory: a restarted application knows from it which ids it
has accepted. A line is written whole or, when its writer was killed, torn as the last one; a torn line was never
answered, because an answer leaves only after `flush`, so it is cut off when the file is opened again.
Limits: buffered for 50 ms or 256 KiB at most; no fsync (a killed process loses nothing, a power cut would).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

FLUSH_EVERY_S: Final = 0.05
FLUSH_BYTES: Final = 256 * 1024
_BLOCK: Final = 64 * 1024
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


class LedgerError(Exception):
    """A ledger cannot be opened, or is broken elsewhere than at its end: names the file and the line."""


class Status(StrEnum):
    """What the application decided. FORGOTTEN: received and neither stored nor answered."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    RETRY = "retry"
    REJECTED = "rejected"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class Decision:
    """One line. `t`: wall-clock seconds at the decision. `sequence` and `deliveryseq` as the event wrote them, or None.

    `event` is the whole event; for what was no JSON object it is {"malformed": its beginning}. `code` says why an event
    was rejected or must be sent again, and is left out of the line when empty. `way`: over which way in it came, from 1.
    """

    t: float
    id: str
    type: str
    device: str
    sequence: str | None
    deliveryseq: str | None
    streamid: str
    status: Status
    lane: str
    event: Mapping[str, Any]
    code: str = ""
    way: int = 1


class Ledger:
    """The file while it is written. One writer a file; opening cuts off a torn last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut_torn_line(path)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise LedgerError(f"{path}: cannot be opened: {error}") from error
        self._lines: list[str] = []
        self._bytes = 0
        self.written = 0

    def write(self, decision: Decision) -> None:
        """Add a line; it reaches the file with the next `flush`, or now when 256 KiB have gathered."""
        row: dict[str, object] = {
            "t": decision.t,
            "id": decision.id,
            "type": decision.type,
            "device": decision.device,
            "sequence": decision.sequence,
            "deliveryseq": decision.deliveryseq,
            "streamid": decision.streamid,
            "status": decision.status.value,
            "lane": decision.lane,
            "way": decision.way,
        }
        if decision.code:
            row["code"] = decision.code
        row["event"] = decision.event
        line = _encode(row)
        self._lines.append(line)
        self._bytes += len(line)
        self.written += 1
        if self._bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system. OSError (disk full) is the caller's: the platform must not go on."""
        if not self._lines:
            return
        block = memoryview(("\n".join(self._lines) + "\n").encode())
        self._lines.clear()
        self._bytes = 0
        while block:
            block = block[self._file.write(block) :]

    async def keep_flushing(self) -> None:
        """Flush each 50 ms, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            self.flush()

    def close(self) -> None:
        """Flush and close. May be called twice."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        """Give the open ledger."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """Flush and close."""
        self.close()


def read_ledger(path: Path) -> Iterator[Decision]:
    """Yield the decisions in the order in which they were made. A torn last line is left out; a missing file has none.

    LedgerError for a line that is broken elsewhere: what follows it would prove nothing.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield _decision(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise LedgerError(f"{path}:{number}: {error!r}") from error


def _decision(row: Mapping[str, Any]) -> Decision:
    return Decision(
        t=float(row["t"]),
        id=str(row["id"]),
        type=str(row["type"]),
        device=str(row["device"]),
        sequence=row["sequence"],
        deliveryseq=row["deliveryseq"],
        streamid=str(row["streamid"]),
        status=Status(row["status"]),
        lane=str(row["lane"]),
        event=row["event"],
        code=str(row.get("code", "")),
        way=int(row.get("way", 1)),
    )


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        start = end
        while start:
            step = min(_BLOCK, start)
            start -= step
            file.seek(start)
            newline = file.read(step).rfind(b"\n")
            if newline >= 0:
                start += newline + 1
                break
        if start != end:
            file.truncate(start)

"""60 GHz fall radars on a serial cable: Andar's report fall and presence again and again, and answer; Micradar's answer.

    01 IIII LLLL TTTT H D... C      Andar: head and data, each with the complement of its exclusive or
    53 59 C M LL D... S 54 43       Micradar: the sum of everything before it. A fall is said only when it is asked for

The frames are built here, not by `drivers`: with one encoder at both ends, both would share one error. The tests
compare them with frames that others published.

An Andar radar reports both states every `REPORT_S`, point clouds between them with the quirk `cloud`, and answers the question
for its parameters within 30 ms. Limits: 512 bytes of half a question are kept.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import xor
from pathlib import Path
from random import Random
from typing import Any, Final

from simulator.pty_port import PtyPort

BAUD: Final = 115200
REPORT_S: Final = 0.5
ANSWER_S: Final = 0.02
FALL: Final = 0x0E02
PRESENCE: Final = 0x0F09
PARAMETERS: Final = 0x0E06
POINT_CLOUD: Final = 0x0A08
HEAD: Final = 8
MAX_HELD: Final = 512

Record = Callable[[Mapping[str, Any]], None]


def check(data: bytes) -> int:
    """Return the complement of the exclusive or of some bytes."""
    return reduce(xor, data, 0xFF)


def frame(kind: int, data: bytes = b"", *, number: int = 0) -> bytes:
    """Build a frame; without data there is no second check."""
    head = struct.pack(">BHHH", 1, number & 0xFFFF, len(data), kind)
    return head + bytes([check(head)]) + (data + bytes([check(data)]) if data else b"")


@dataclass(frozen=True, slots=True)
class RadarQuirks:
    """What can be wrong. `silent`: it says nothing; `cloud`: it sends point clouds; `height_m`: what it thinks it hangs at.

    `no_falls`: a Micradar that watches something else than falls.
    """

    silent: bool = False
    cloud: bool = False
    height_m: float = 2.6
    no_falls: bool = False


class FallRadar:
    """One radar on a pty with the name `path`. `fall` lets somebody fall; `record` takes the ledger's rows."""

    def __init__(
        self, *, device: str, path: Path, seed: int, record: Record, quirks: RadarQuirks | None = None
    ) -> None:
        """Prepare a radar; `port` can be unplugged and plugged."""
        self.device = device
        self.quirks = quirks or RadarQuirks()
        self.port = PtyPort(path=path, baud=BAUD, on_data=self._heard)
        self.fallen_until = 0.0
        self.occupied = True
        self.answered = 0
        self._record = record
        self._random = Random(f"{seed}/{device}")  # noqa: S311 - a rehearsal that can be repeated
        self._number = 0
        self._held = b""
        self._answers: set[asyncio.Task[bool]] = set()

    @property
    def fallen(self) -> bool:
        """Whether somebody lies there now."""
        return asyncio.get_running_loop().time() < self.fallen_until

    def fall(self, for_s: float) -> None:
        """Let somebody fall and lie for a while: entered in the ledger, reported at once."""
        self.fallen_until = asyncio.get_running_loop().time() + for_s
        now = time.time()
        # Until then at least one more report says so; who begins to hear later may have heard the last of them.
        row = {
            "t": now,
            "t_last": now + max(0.0, for_s - REPORT_S),
            "device": self.device,
            "kind": "fall",
            "counter": None,
        }
        self._record({**row, "n": None, "session": None, "value": None})

    async def run(self) -> None:
        """Report until cancelled."""
        moving = asyncio.create_task(self.port.run(), name=f"radar {self.device}")
        try:
            while not moving.done():
                if not self.quirks.silent:
                    await self.port.send(b"".join(self.reports()))
                # Short steps: a fall is reported when it happens, as real ones do.
                fallen, until = self.fallen, asyncio.get_running_loop().time() + REPORT_S
                while asyncio.get_running_loop().time() < until and self.fallen == fallen:
                    await asyncio.sleep(REPORT_S / 20)
            await moving
        finally:
            moving.cancel()
            await asyncio.wait({moving})
            for answer in list(self._answers):
                answer.cancel()

    def reports(self) -> list[bytes]:
        """Return what it says now."""
        found = [self._next(FALL, bytes([self.fallen])), self._next(PRESENCE, bytes([self.occupied]))]
        if self.quirks.cloud:
            points = self._random.randrange(1, 20)
            cloud = b"".join(
                struct.pack("<i4f", 1, *(self._random.uniform(-2, 2) for _ in range(4))) for _ in range(points)
            )
            found.insert(1, self._next(POINT_CLOUD, struct.pack("<i", points) + cloud))
        return found

    def parameters(self) -> bytes:
        """Return the answer to the question for its parameters."""
        return self._next(PARAMETERS, struct.pack("<ffI", self.quirks.height_m, 0.3, 15))

    def _next(self, kind: int, data: bytes) -> bytes:
        self._number += 1
        return frame(kind, data, number=self._number)

    def _heard(self, data: bytes) -> None:
        self._held = (self._held + data)[-MAX_HELD:]
        question = frame(PARAMETERS)
        while (at := self._held.find(question)) >= 0:
            self._held = self._held[at + len(question) :]
            if not self.quirks.silent:
                self._begin_answer(self.parameters())

    def _begin_answer(self, data: bytes) -> None:
        task = asyncio.create_task(self._answer(data), name=f"answer of {self.device}")
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, data: bytes) -> bool:
        await asyncio.sleep(ANSWER_S)
        self.answered += 1
        return await self.port.send(data)


def micradar_frame(control: int, command: int, data: bytes) -> bytes:
    """Build a frame of Micradar's."""
    content = bytes([0x53, 0x59, control, command]) + len(data).to_bytes(2, "big") + data
    return content + bytes([sum(content) & 0xFF]) + b"\x54\x43"


class MicradarRadar(FallRadar):
    """A C1001: it reports presence and movement by itself, and says whether somebody fell when it is asked (83 81)."""

    def reports(self) -> list[bytes]:
        """Return what it says now by itself."""
        moves = self._random.randrange(0, 60) if self.occupied else 0
        return [micradar_frame(0x80, 0x01, bytes([self.occupied])), micradar_frame(0x80, 0x03, bytes([moves]))]

    def _heard(self, data: bytes) -> None:
        self._held = (self._held + data)[-MAX_HELD:]
        questions = {
            micradar_frame(0x83, 0x81, b"\x0f"): (0x83, 0x81),
            micradar_frame(0x02, 0xA8, b"\x0f"): (0x02, 0xA8),
        }
        for question, (control, command) in questions.items():
            while (at := self._held.find(question)) >= 0:
                self._held = self._held[:at] + self._held[at + len(question) :]
                if not self.quirks.silent:
                    state = self.fallen if control == 0x83 else not self.quirks.no_falls
                    self._begin_answer(micradar_frame(control, command, bytes([state])))

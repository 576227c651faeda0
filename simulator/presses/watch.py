"""Reads what the platform's application accepted while it comes, and lets the staff close each alarm soon after.

Closing makes the next press a new alarm. Over the gateway's control socket; while the gateway is down it waits.
Limits: closes 0.2 to 0.8 s after it has read of an alarm, `HANDS` at a time.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from simulator.control_client import NoAnswer, Refused, ask
from simulator.presses.judge import Raised, Window

HANDS: Final = 6
LOOK_S: Final = 0.05
CLOSE_AFTER_S: Final = (0.2, 0.8)
AGAIN_S: Final = 0.5
_RAISED: Final = "cn.eldercare.alarm.raised.v1"
_GAP: Final = "cn.eldercare.gateway.gap.v1"


class Watch:
    """`raised` and `gaps` are what the platform knows; `open` how many alarms nobody has closed yet."""

    def __init__(self, ledger: Path, socket: Path, *, link: str, seed: int, closes: bool = True) -> None:
        """`closes` False: the run is over, nobody closes anything."""
        self.raised: list[Raised] = []
        self.gaps: list[Window] = []
        self.closed = self.resent = 0
        self._ledger = ledger
        self._socket = socket
        self._link = link
        self._rng = random.Random(f"{seed}/staff")  # noqa: S311 - people's slowness, nothing secret
        self._closes = closes
        self._read = 0
        self._open: set[str] = set()
        self._due: asyncio.Queue[str] = asyncio.Queue()

    @property
    def open(self) -> int:
        """How many alarms the staff know of and have not closed."""
        return len(self._open)

    async def work(self) -> None:
        """Read and close until cancelled."""
        async with asyncio.TaskGroup() as group:
            for hand in range(HANDS):
                group.create_task(self._close(), name=f"staff {hand}")
            while True:
                self.look()
                await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Read what the ledger has gained."""
        if not self._ledger.exists():
            return
        with self._ledger.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self._take(json.loads(line))

    def _take(self, row: Mapping[str, Any]) -> None:
        if row["status"] == "duplicate":
            self.resent += 1
        if row["status"] != "accepted" or row["type"] not in (_RAISED, _GAP):
            return
        event, data = row["event"], row["event"]["data"]
        if row["type"] == _GAP:
            if data["link"] == self._link:
                self.gaps.append((_t(data["from"]), _t(data["to"])))
            return
        alarm = str(event["correlationid"])
        self.raised.append(
            Raised(
                device=str(row["device"]),
                kind=str(data["kind"]),
                counter=data.get("counter"),
                verified=bool(data["verified"]),
                alarm=alarm,
                at=_t(event["time"]),
                recorded=_t(event["recordedtime"]),
                accepted=float(row["t"]),
            )
        )
        if self._closes and alarm not in self._open:
            self._open.add(alarm)
            delay = self._rng.uniform(*CLOSE_AFTER_S)
            asyncio.get_running_loop().call_later(delay, self._due.put_nowait, alarm)

    async def _close(self) -> None:
        while True:
            alarm = await self._due.get()
            try:
                await ask(self._socket, "alarms.close", id=alarm, by="liu", why="went there; all is well")
                self.closed += 1
            except Refused:
                pass  # closed before, in a life of which no answer came
            except NoAnswer:
                asyncio.get_running_loop().call_later(AGAIN_S, self._due.put_nowait, alarm)
                continue
            self._open.discard(alarm)


def _t(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()

"""Somebody at the centre: acknowledges each open alarm after a while and closes it a little later, as the rules ask.

Closing makes the next press a new alarm. Works over the gateway's control socket; while the gateway is down it waits.
Limits: looks every 0.3 s; acknowledges 1.0 to 2.5 s after it first saw the alarm, closes 1.0 to 2.0 s after that.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simulator.control_client import NoAnswer, Refused, ask

LOOK_EVERY_S: Final = 0.3
ACK_AFTER_S: Final = (1.0, 2.5)
CLOSE_AFTER_S: Final = (1.0, 2.0)
NAME: Final = "liu"
WHY: Final = "went there; all is well"


@dataclass(slots=True)
class _Seen:
    """An alarm in one state, and when to do something about it (monotonic seconds)."""

    state: str
    act_at: float


class Staff:
    """`acked` and `closed` count what the gateway took."""

    def __init__(self, socket: Path, *, seed: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._socket = socket
        self._monotonic = monotonic
        self._rng = random.Random(seed)  # noqa: S311 - people's slowness, nothing secret
        self._seen: dict[str, _Seen] = {}
        self.acked = 0
        self.closed = 0

    async def work(self, done: asyncio.Event) -> None:
        """Attend alarms until `done` is set."""
        while not done.is_set():
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look at the open alarms once, and do what is due."""
        try:
            alarms = await ask(self._socket, "alarms.list", all=False)
            now = self._monotonic()
            self._seen = {alarm["id"]: self._notice(alarm, now=now) for alarm in alarms if alarm["state"] != "CLOSED"}
            for alarm in alarms:
                if alarm["id"] in self._seen and self._seen[alarm["id"]].act_at <= now:
                    await self._act(alarm)
        except (NoAnswer, Refused):
            # The gateway is down or the alarm has changed meanwhile: people look again.
            return

    def _notice(self, alarm: dict[str, Any], *, now: float) -> _Seen:
        known = self._seen.get(alarm["id"])
        if known and known.state == alarm["state"]:
            return known
        wait = ACK_AFTER_S if alarm["state"] == "ACTIVE" else CLOSE_AFTER_S
        return _Seen(alarm["state"], now + self._rng.uniform(*wait))

    async def _act(self, alarm: dict[str, Any]) -> None:
        if alarm["state"] == "ACTIVE":
            await ask(self._socket, "alarms.ack", id=alarm["id"], by=NAME)
            self.acked += 1
        else:
            await ask(self._socket, "alarms.close", id=alarm["id"], by=NAME, why=WHY)
            self.closed += 1

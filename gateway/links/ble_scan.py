"""One run of one scanner, and what may end it. Nothing here speaks to a radio."""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.links import ble_problems
from gateway.links.bluez_adapters import AdapterState
from gateway.links.silence import Repair

# States that end a scan. UNKNOWN and DENIED say that the watch cannot look, not that the scan is over.
ENDING: Final = frozenset(
    {
        AdapterState.NO_BUS,
        AdapterState.NO_DAEMON,
        AdapterState.NO_ADAPTER,
        AdapterState.SWITCHED_OFF,
        AdapterState.BLOCKED,
    }
)
# What a call into bleak may find, and the watch sees too.
WATCHED: Final = frozenset(state.problem for state in ENDING)
# A connection that broke, by whomever; and what nobody gave a name.
VAGUE: Final = frozenset({ble_problems.NO_BUS, ble_problems.OTHER})


class Scan:
    """One run of one scanner: since when it scans, and what ended it: a problem (code, text), or a repair."""

    def __init__(self, adapter: str) -> None:
        self.adapter = adapter
        self.over = asyncio.Event()
        self.since: float | None = None
        self.connection: object | None = None
        self.spoilt = False
        """The connection must not be used again. Not said lightly: other radios may be scanning on it."""
        self.problem: tuple[str, str] | None = None
        self.repair: Repair | None = None

    def end(self, code: str, text: str) -> None:
        """End it; the first reason counts."""
        if not self.over.is_set():
            self.problem = (code, text)
            self.over.set()

    def end_for(self, repair: Repair) -> None:
        """End it without a problem, so that something can be done about silence."""
        if not self.over.is_set():
            self.repair = repair
            self.over.set()

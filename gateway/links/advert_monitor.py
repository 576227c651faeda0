"""Registers a passive advertisement monitor beside the active scan, where bluetoothd offers that (--experimental).

Why: in an active scan the kernel lets the controller filter repeats, and some controllers take every later advert of an
address for a repeat, whatever is in it: of two presses within ten seconds the second would not be heard. While a monitor
exists the kernel leaves that filter off (hci_active_scan_sync). What the monitor matches does not matter for that, and
its own reports are not used: bleak hears all devices while it scans.
It lives on the watch's connection, not on bleak's: whatever becomes of it, the scan is not touched. Hearing through
monitors alone, while bluetoothd refuses to scan, is not attempted: bleak gives adverts to a running scanner only, a
passive scanner of bleak's holds the lock that the active one needs for its start, and such a time is short (retries
within 5 s) and told as a gap.
Limits: one call of 5 s; a refusal is logged once and not repeated before bluetoothd, adapter or bus are new.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from bleak.args.bluez import OrPattern
from bleak.assigned_numbers import AdvertisementDataType
from bleak.backends.bluezdbus.advertisement_monitor import AdvertisementMonitor
from dbus_fast import MessageType
from dbus_fast.aio import MessageBus

from gateway.links import ble_problems
from gateway.links.bluez_adapters import MONITORS
from gateway.links.bluez_watch import BluezWatch

_CALL_TIMEOUT_S: Final = 5.0
_PATH: Final = "/org/daycare/gateway/monitor/"
# The flags that nearly every advert begins with (Core Specification Supplement, part A, 1.3).
_PATTERNS: Final = [OrPattern(0, AdvertisementDataType.FLAGS, bytes((flags,))) for flags in (2, 4, 5, 6, 0x18, 0x1A)]

_log = structlog.get_logger(__name__)


class AdvertMonitor:
    """`wake` it after each start of a scan; `run` does the rest beside it."""

    def __init__(self, watch: BluezWatch, *, link: str) -> None:
        self._watch = watch
        self._link = link
        self._wake = asyncio.Event()
        self._tried: tuple[int, str] | None = None
        self._exported: tuple[MessageBus, str] | None = None
        self._told = False

    @property
    def registered(self) -> bool:
        """Whether bluetoothd has our monitor."""
        return self._exported is not None and self._tried == (self._watch.generation, self._watch.adapter)

    def wake(self) -> None:
        """A scan has begun: see whether the monitor is still there."""
        self._wake.set()

    async def run(self) -> None:
        """Keep one monitor registered, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            facts, bus = self._watch.facts, self._watch.bus
            now = (self._watch.generation, self._watch.adapter)
            if facts is None or bus is None or not facts.monitors or now == self._tried:
                continue
            self._tried = now
            self._withdraw(bus)
            refusal = await self._register(bus, facts.name)
            if refusal and not self._told:
                self._told = True
                _log.info("no passive monitor, the active scan goes on", link=self._link, detail=refusal)

    async def _register(self, bus: MessageBus, adapter: str) -> str:
        """Return "" when it was done, else why not."""
        path = f"{_PATH}{adapter}_{self._watch.generation}"
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                reply = await self._watch.call(adapter, MONITORS, "RegisterMonitor", "o", [path])
            if reply.message_type is MessageType.ERROR:
                return str(reply.error_name)
            # After the answer: bluetoothd takes a monitor for its own when it appears, not before (as bleak does it).
            bus.export(path, AdvertisementMonitor(_PATTERNS))
        except Exception as error:  # noqa: BLE001 - nothing that happens here may touch the scan
            return ble_problems.text_of(error)
        self._exported = (bus, path)
        return ""

    def _withdraw(self, bus: MessageBus) -> None:
        """Take back what was shown to a bluetoothd that is gone."""
        exported, self._exported = self._exported, None
        if exported is not None and exported[0] is bus:
            bus.unexport(exported[1])

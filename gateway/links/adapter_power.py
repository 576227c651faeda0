"""Switches an adapter: on when somebody switched off what calls for help are heard with, off and on when it seems deaf.

A gateway that has a radio configured needs it on. So an adapter that is off is switched on, whoever switched it off: a
technician at his tools gets 5 s, and whoever wants it off for good takes it out of the configuration. This also mends
what a gateway leaves behind that was killed between its own off and on. rfkill cannot be overruled from here: it is
told, and tried again all the same.
Limits: on after 5 s, then again after 10, 20, 40, then every 60 s (a look costs microseconds, every 0.25 s); a cycle waits
10 s for each of its answers and asks three times for "on", then it is left to the former.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Final

import structlog

from gateway.links.bluez_adapters import AdapterState
from gateway.links.bluez_watch import BluezWatch

_LOOK_S: Final = 0.25
_GRACE_S: Final = 5.0
_SLOWEST_S: Final = 60.0
_OFF: Final = frozenset({AdapterState.SWITCHED_OFF, AdapterState.BLOCKED})
_ON_AGAIN_S: Final = (0.0, 0.5, 1.5)
_READY_S: Final = 5.0
_GOODBYE_S: Final = 2.0

_log = structlog.get_logger(__name__)


class AdapterPower:
    """The switch of a radio's adapter. `refusal`: why it could not be switched on the last time, "" if it could."""

    def __init__(self, watch: BluezWatch, *, adapter: str, link: str, grace_s: float = _GRACE_S) -> None:
        self.cycling = False
        """Off is our own doing, and is over soon."""
        self.refusal = ""
        self._watch = watch
        self._configured = adapter
        self._link = link
        self._grace_s = grace_s
        self._ready = asyncio.Event()

    def on_state(self, state: AdapterState) -> None:
        """The watch has seen a change."""
        if state is AdapterState.READY:
            self._ready.set()
        else:
            self._ready.clear()

    async def run(self) -> None:
        """Switch the configured adapter on when it is off, for ever; also while another one stands in for it."""
        loop = asyncio.get_running_loop()
        wait_s, due = self._grace_s, 0.0
        while True:
            await asyncio.sleep(_LOOK_S)
            if self.cycling or self._watch.own_state not in _OFF:
                wait_s, due, self.refusal = self._grace_s, 0.0, ""
                continue
            due = due or loop.time() + wait_s * random.uniform(0.8, 1.0)  # noqa: S311 - jitter, nothing secret
            if loop.time() < due:
                continue
            refusal = await self._watch.set_powered(self._configured, on=True)
            if refusal and refusal != self.refusal:
                _log.warning("the adapter cannot be switched on", link=self._link, detail=refusal)
            self.refusal = refusal
            wait_s, due = min(wait_s * 2, _SLOWEST_S), 0.0

    async def cycle(self) -> None:
        """Switch the adapter in use off and on, and return when one can be used, or when that takes too long."""
        adapter = self._watch.adapter
        self.cycling = off_asked = True
        try:
            refusal = await self._watch.set_powered(adapter, on=False)
            if refusal:
                _log.warning("the adapter could not be switched off", link=self._link, adapter=adapter, detail=refusal)
            for pause_s in _ON_AGAIN_S:
                await asyncio.sleep(pause_s)
                if not await self._watch.set_powered(adapter, on=True):
                    off_asked = False
                    await self._ready_within(_READY_S)
                    return
        finally:
            self.cycling = False
            if off_asked:
                # Cancelled on the way: nobody else may ever switch on what we switched off.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_GOODBYE_S):
                        await self._watch.set_powered(adapter, on=True)

    async def _ready_within(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()

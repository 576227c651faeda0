"""What keeps the outbox in order beside its deliveries: its space, the age of its rows, what is overdue, what was rescued.

A bug in one of them ends neither the others nor the hearing of calls: it is begun anew after a while, at most `KEEP_CAP_S`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from gateway.alarms import AlarmBook, Change
from gateway.app.brought_back import settle_alarms
from gateway.app.outward import Outward
from gateway.app.overdue import Overdue
from gateway.clock import Clock
from gateway.config import Settings
from gateway.events import Event, Lane, Origin
from gateway.health import Health
from gateway.outbox import Expiry, Outbox, Quota, Rescue

KEEP_CAP_S: Final = 300.0
SOUND_AFTER_S: Final = 1_800.0

_log = structlog.get_logger("gateway")


@dataclass(frozen=True, slots=True)
class Keepers:
    """The keepers of one outbox. `announce` is told an alarm that only its event still knew."""

    settings: Settings
    origin: Origin
    outbox: Outbox
    outward: Outward
    alarms: AlarmBook
    clock: Clock
    health: Health
    announce: Callable[[Change], None]

    def by_name(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return what is to run for ever, by the name of its task."""
        return {
            name: self._keep(name, make)
            for name, make in (
                ("quota", lambda: self._quota().run()), ("expiry", lambda: self._expiry().run()),
                ("rescue", lambda: self._rescue().run()), ("overdue", lambda: self._overdue().run()),
            )
        }  # fmt: skip

    async def _keep(self, name: str, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run one for ever; a bug in it is logged whole, and it begins anew from what is stored."""
        failures = 0
        while True:
            sound = asyncio.get_running_loop().call_later(SOUND_AFTER_S, self.health.off, "GW-RUN-03", name)
            try:
                await make()
                return  # there is nothing to do any more
            except Exception as bug:  # noqa: BLE001 - an old row that nobody thought of must not end the hearing of calls
                if not failures:
                    _log.error("a keeper of the outbox failed and is begun anew", keeper=name, exc_info=bug)
                self.health.on("GW-RUN-03", name, detail=f"{type(bug).__name__}: {bug}"[:200])
            finally:
                sound.cancel()
            failures += 1
            cap_s = min(KEEP_CAP_S, 2.0 ** min(failures, 10))
            await asyncio.sleep(random.uniform(0.5, 1.0) * cap_s)  # noqa: S311 - jitter, not a secret

    def _loaded(self, lane: Lane) -> Mapping[str, int]:
        return {one.name: one.loaded(lane) for one in self.outward.deliverers}

    def _quota(self) -> Quota:
        def trouble(share: float | None) -> None:
            if share is None:
                self.health.off("GW-STO-04")
            else:
                self.health.on("GW-STO-04", "", percent=round(100 * share))

        return Quota(
            self.outbox, self.origin, max_bytes=self.settings.outbox.max_mb * 1024 * 1024, clock=self.clock,
            loaded=self._loaded, trouble=trouble,
        )  # fmt: skip

    def _expiry(self) -> Expiry:
        def loaded(lane: Lane) -> Mapping[str, int]:
            """Whoever is away sends nothing: what is too old for it must not stay because it would be next."""
            return {one.name: one.loaded(lane) for one in self.outward.deliverers if one.connected}

        return Expiry(self.outbox, self.origin, clock=self.clock, loaded=loaded)

    def _rescue(self) -> Rescue:
        def settle(events: list[Event]) -> None:
            settle_alarms(events, book=self.alarms, outbox=self.outbox, clock=self.clock, announce=self.announce)

        return Rescue(self.outbox, self.origin, clock=self.clock, on_alarms=settle)

    def _overdue(self) -> Overdue:
        names = [one.id for one in (*self.settings.destinations, *self.settings.set_aside_destinations)]
        return Overdue(names, outbox=self.outbox, clock=self.clock, health=self.health)

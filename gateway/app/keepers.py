"""What keeps the outbox in order beside its deliveries: its space, the age of its rows, what is overdue, what was rescued."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.alarms import AlarmBook, Change
from gateway.app.brought_back import settle_alarms
from gateway.app.outward import Outward
from gateway.app.overdue import Overdue
from gateway.clock import Clock
from gateway.config import Settings
from gateway.events import Event, Lane, Origin
from gateway.health import Health
from gateway.outbox import Expiry, Outbox, Quota, Rescue


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
            "quota": self._quota().run(), "expiry": self._expiry().run(), "rescue": self._rescue().run(),
            "overdue": self._overdue().run(),
        }  # fmt: skip

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
        return Expiry(self.outbox, self.origin, clock=self.clock, loaded=self._loaded)

    def _rescue(self) -> Rescue:
        def settle(events: list[Event]) -> None:
            settle_alarms(events, book=self.alarms, outbox=self.outbox, clock=self.clock, announce=self.announce)

        return Rescue(self.outbox, self.origin, clock=self.clock, on_alarms=settle)

    def _overdue(self) -> Overdue:
        names = [one.id for one in (*self.settings.destinations, *self.settings.set_aside_destinations)]
        return Overdue(names, outbox=self.outbox, clock=self.clock, health=self.health)

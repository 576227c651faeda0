"""The way out, built: one deliverer for each destination, with the transport that its URL names.

Where a bug ends a delivery, the deliverer is built anew from what is stored; the others do not notice. The problem that
tells of it goes when the new one has run for `SOUND_AFTER_S`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from gateway import __version__
from gateway.alarms import AlarmBook
from gateway.app.transports import paths_of
from gateway.clock import PlatformTime, SystemClock
from gateway.config import Destination, Settings
from gateway.deliver import Deliverer, DeliveryCallbacks
from gateway.events import Origin
from gateway.health import Health
from gateway.outbox import Outbox

REBUILD_CAP_S: Final = 60.0
SOUND_AFTER_S: Final = 600.0
_TELEMETRY: Final = (
    "telemetry.meter", "telemetry.environment", "telemetry.vital", "checkin.card", "bed.occupancy", "sensor.changed",
)  # fmt: skip

_log = structlog.get_logger("gateway")


class Outward:
    """The deliverers of one gateway, in the order of the configuration."""

    def __init__(
        self,
        settings: Settings,
        origin: Origin,
        *,
        outbox: Outbox,
        alarms: AlarmBook,
        clock: SystemClock,
        health: Health,
        on_time: Callable[[str, PlatformTime], None],
    ) -> None:
        self._settings = settings
        self._origin = origin
        self._outbox = outbox
        self._alarms = alarms
        self._clock = clock
        self._health = health
        self._on_time = on_time
        self._bugs: set[tuple[str, str]] = set()
        self._deliverers = [self._deliverer(destination) for destination in settings.destinations]
        self._of_telemetry = [
            at
            for at, destination in enumerate(settings.destinations)
            if any(destination.takes(noun) for noun in _TELEMETRY)
        ]

    @property
    def deliverers(self) -> Sequence[Deliverer]:
        """The deliverers as they are now."""
        return self._deliverers

    def is_live(self) -> bool:
        """Can new telemetry go out at once, wherever it is wanted?"""
        return all(self._deliverers[at].is_live for at in self._of_telemetry)

    def wake(self) -> None:
        """Something was stored. A bug in one deliverer keeps none of the others asleep: it is told, and tried again next time."""
        for deliverer in self._deliverers:
            try:
                deliverer.wake()
            except Exception as bug:  # noqa: BLE001 - an alarm for another destination must not wait for this one
                self._untold(deliverer.name, "it was stored", bug)

    async def run(self, at: int) -> None:
        """Deliver for ever. A bug in it is logged whole, and the deliverer built anew from what is stored."""
        destination = self._settings.destinations[at]
        failures = 0
        while True:
            sound = asyncio.get_running_loop().call_later(SOUND_AFTER_S, self._health.off, "GW-RUN-03", destination.id)
            try:
                await self._deliverers[at].run()
            except Exception as bug:  # noqa: BLE001 - a platform's answer must not end the hearing of calls
                _log.error("a delivery failed and is begun anew", destination=destination.id, exc_info=bug)
                self._health.on("GW-RUN-03", destination.id, detail=f"{type(bug).__name__}: {bug}"[:200])
            finally:
                sound.cancel()
            failures += 1
            await asyncio.sleep(random.uniform(0, min(REBUILD_CAP_S, 2.0 ** min(failures, 10))))  # noqa: S311 - jitter
            self._deliverers[at] = self._deliverer(destination)

    def _deliverer(self, destination: Destination) -> Deliverer:
        paths = paths_of(
            destination, self._origin, clock=self._clock, health=self._health,
            on_time=lambda said: self._on_time(destination.id, said),
        )  # fmt: skip
        return Deliverer(
            destination.id, paths, self._outbox,
            finish=destination.finish, reconnect_spread_s=destination.reconnect_spread_s, clock=self._clock,
            health=self._health,
            callbacks=DeliveryCallbacks(
                delivered=lambda event_id, level: self._delivered(destination.id, event_id, level),
                birth=lambda: self._birth(destination),
            ),
        )  # fmt: skip

    def _delivered(self, destination: str, event_id: str, level: str) -> None:
        try:
            self._alarms.delivered(destination, event_id, level)
        except Exception as bug:  # noqa: BLE001 - the row has been answered, and is to be confirmed whatever is shown of it
            self._untold(destination, "it was delivered", bug)

    def _untold(self, destination: str, what: str, bug: Exception) -> None:
        """Somebody could not be told: logged whole the first time, a problem each time."""
        if (destination, what) not in self._bugs:
            self._bugs.add((destination, what))
            _log.error("somebody could not be told of an event", destination=destination, what=what, exc_info=bug)
        self._health.on("GW-RUN-03", destination, detail=f"{type(bug).__name__}: {bug}"[:200])

    def _birth(self, destination: Destination) -> Mapping[str, object]:
        settings = self._settings
        return {
            "gateway": self._origin.gateway,
            "version": __version__,
            "profile": destination.profile,
            "streamid": self._outbox.streamid,
            "devices": [
                {"id": one.id, "model": one.model, "room": one.room, "bed": one.bed} for one in settings.devices
            ],
            "rooms": [{"id": one.id} for one in settings.rooms],
        }

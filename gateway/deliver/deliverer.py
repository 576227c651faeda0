"""One destination: connects, hands the connection to its `Dispatch`, and waits before it connects again.

A session stands as long as one of the destination's paths does. The waits are those of `back_off`; an alarm that comes
meanwhile shortens them. A problem is raised that names the broken layer, and taken back when the next session stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from gateway.clock import Clock
from gateway.deliver.dispatch import Dispatch
from gateway.errors import SessionError
from gateway.events import Lane
from gateway.health import Health
from gateway.mqtt_session import TAKEN_OVER
from gateway.outbox import Outbox
from gateway.uplinks.back_off import BackOff
from gateway.uplinks.paths import Paths

LIVE_LIMIT: Final = 500

_log = structlog.get_logger("deliver")
_NO_SESSION: Final = (*(f"GW-NET-{n:02d}" for n in range(1, 7)), "GW-PLT-04")


@dataclass(frozen=True, slots=True)
class DeliveryCallbacks:
    """What the rest of the gateway wants to hear. `delivered` gets the event id and the level ("SENT", "L1", "L2")."""

    delivered: Callable[[str, str], None]
    birth: Callable[[], Mapping[str, object]]


class Deliverer:
    """The loop out for one destination."""

    def __init__(
        self, name: str, paths: Paths, outbox: Outbox, *, finish: str, reconnect_spread_s: float,
        clock: Clock, health: Health, callbacks: DeliveryCallbacks,
    ) -> None:  # fmt: skip
        self.name = name
        self._paths = paths
        paths.urgent = lambda: self._dispatch.alarms_pending
        self._outbox = outbox
        self._back_off = BackOff(reconnect_spread_s)
        self._clock = clock
        self._health = health
        self._callbacks = callbacks
        self._alarm = asyncio.Event()
        self.connected = False
        self.epoch = 0
        self._dispatch = Dispatch(
            name, paths, outbox, finish=finish, clock=clock, health=health, delivered=callbacks.delivered,
            accepted=self._back_off.accepted,
        )  # fmt: skip

    def wake(self) -> None:
        """Something was stored, or something changed: look again."""
        self._dispatch.wake()
        if self._dispatch.alarms_pending:
            self._alarm.set()
            self._paths.hurry()

    def reread(self) -> None:
        """Confirmations were taken back: read the lanes anew."""
        self._dispatch.reread()

    def loaded(self, lane: Lane) -> int:
        """Up to which sequence a lane may be on its way."""
        return self._dispatch.loaded(lane)

    @property
    def is_live(self) -> bool:
        """Can new telemetry go out at once?"""
        return self.connected and self._outbox.pending_in(self.name, Lane.C) < LIVE_LIMIT

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver for ever."""
        try:
            while True:
                established = await self._connect_and_deliver()
                self._dispatch.forget_session()
                pending = self._dispatch.alarms_pending
                await self._back_off.sleep(established=established, pending=pending, alarm=self._alarm)
        finally:
            self.connected = False
            await self._dispatch.close()
            await self._paths.close()

    async def _connect_and_deliver(self) -> bool:
        """One session, from connecting to its loss; True if it was established."""
        events = self._dispatch.begin()
        try:
            self.epoch = await self._outbox.next_epoch(self.name)
            await self._paths.open(events, epoch=self.epoch, birth=self._callbacks.birth())
        except SessionError as error:
            self._network_trouble(error)
            return False
        for code in _NO_SESSION:
            self._health.off(code, self.name)
        self.connected = True
        _log.info("connected", destination=self.name, epoch=self.epoch)
        try:
            await self._dispatch.deliver()
        except SessionError as error:
            self._network_trouble(error)
        finally:
            self.connected = False
            await self._paths.close()
        return True

    def _network_trouble(self, error: SessionError) -> None:
        if error.code == TAKEN_OVER:
            self._back_off.contested(self._clock.monotonic())
        for code in _NO_SESSION:
            if code != error.code:
                self._health.off(code, self.name)
        facts = {"host": error.subject, **error.facts}
        facts["detail"] = facts.pop("error", "")  # what the texts of the problems call it
        self._health.on(error.code, self.name, **facts)

    async def drain_alarms(self, limit_s: float) -> None:
        """Wait until lane A is confirmed, for an orderly end."""
        try:
            async with asyncio.timeout(limit_s):
                while self.connected and self._dispatch.alarms_pending:  # noqa: ASYNC110 - once, at the end
                    await asyncio.sleep(0.02)
        except TimeoutError:
            _log.warning("alarms were still unconfirmed at the end", destination=self.name)

    def status(self) -> dict[str, Any]:
        """Return the figures for `gateway status`."""
        dispatch, answers = self._dispatch, self._dispatch.answers
        last = answers.last_accepted
        return {
            "id": self.name,
            "connected": self.connected,
            "epoch": self.epoch,
            "pending": self._outbox.pending(self.name),
            "paths": self._paths.status(),
            "inflight": dispatch.inflight,
            "accepted": answers.accepted,
            "rejected": answers.rejected,
            "resent": dispatch.resent,
            "dead_letters": answers.dead_letters,
            "last_accepted_s": None if last is None else round(self._clock.monotonic() - last, 1),
        }

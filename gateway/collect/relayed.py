"""The adverts that a receiver publishes on a broker: they join those that the radios hear.

Whose an advert is, whether it is new and what it means is found out as for one of a radio's own. What is retained was on the
air at some time: it is left out, and a technician is told. So is what cannot be read as adverts, and a device of ours of which
only what the receiver made of it comes, and no data: its presses would be lost. Both are told once, and when it happens again
after `TOLD_AGAIN_S`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivers.kit import Advert, Rejected
from drivers.protocols import published_adverts
from drivers.protocols.published_adverts import Form
from gateway.clock import Clock
from gateway.collect.collector import Collector
from gateway.health import Health
from gateway.mqtt_session import Delivery

TOLD_AGAIN_S: Final = 60.0
RETAINED: Final = "GW-MQS-06"
UNREADABLE: Final = "GW-MQS-08"
NO_DATA: Final = "GW-MQS-09"


@dataclass(frozen=True, slots=True)
class Relay:
    """Where a receiver publishes (a topic filter), and in what form."""

    pattern: str
    form: Form


class RelayedAdverts:
    """Reads the messages of one receiver. `refused` counts those that could not be read."""

    def __init__(self, link: str, relay: Relay, *, collector: Collector, clock: Clock, health: Health) -> None:
        self.refused = 0
        self._link = link
        self._relay = relay
        self._collector = collector
        self._clock = clock
        self._health = health
        self._told: dict[str, float] = {}

    @property
    def pattern(self) -> str:
        """What is to be subscribed to."""
        return self._relay.pattern

    def covers(self, topic: str) -> bool:
        """Are the messages of a topic the receiver's?"""
        return published_adverts.fits(topic, self._relay.pattern)

    def read(self, delivery: Delivery) -> list[Advert]:
        """Return the adverts of a message that are of interest. Raises Rejected."""
        try:
            adverts = published_adverts.adverts(delivery.payload, self._relay.form)
        except Rejected as refusal:
            self.refused += 1
            facts = {"topic": delivery.topic, "reason": refusal.detail or refusal.reason.value, "count": self.refused}
            self._tell(UNREADABLE, self._link, **facts)
            raise
        wanted = [one for one in adverts if self._collector.wants(one.address)]
        return [one for one in wanted if self._counts(one, retained=delivery.retained)]

    def _counts(self, advert: Advert, *, retained: bool) -> bool:
        is_bare = not advert.service_data and not advert.manufacturer_data
        if not retained and not is_bare:
            return True
        desk = self._collector.of_advert(advert)
        if desk is not None and retained:
            desk.ignored += 1
            self._tell(RETAINED, desk.id, link=self._link)
        elif desk is not None:
            desk.hear_by(self._link, advert.rssi, self._clock)  # it lives, and is near
            self._tell(NO_DATA, desk.id, link=self._link, address=advert.address)
        return False

    def _tell(self, code: str, subject: str, **facts: object) -> None:
        now, key = self._clock.monotonic(), f"{code} {subject}"
        if key not in self._told or now - self._told[key] >= TOLD_AGAIN_S:
            self._told[key] = now
            self._health.on(code, subject, **facts)

"""Who sits where: each configured device with what its driver, its link and its place say of it."""

from __future__ import annotations

from decimal import Decimal

from drivers.kit import Advertises
from gateway.collect import Desk
from gateway.config import Settings


def desks_of(settings: Settings) -> dict[str, Desk]:
    """Return a desk for each device of a configuration, by its id."""
    # A wire is hard to speak on for strangers, and a broker with a login too. What was on the air is no wire's word.
    lines = {line.id: line for line in settings.serial}
    trusted = set(lines) | {one.id for one in settings.mqtt if one.is_proven}
    return {
        one.id: Desk(
            one.id, one.model, one.link, one.address, one.room, one.bed, one.driver, one.options, one.key_bytes,
            one.calls_on, one.alarms_on, one.every_s, map=one.map,
            wired=one.link in trusted and not isinstance(one.driver, Advertises),
            line=one.line(lines[one.link]) if one.link in lines else None,
            ct=Decimal(str(one.ct)), pt=Decimal(str(one.pt)),
        )
        for one in settings.devices
    }  # fmt: skip

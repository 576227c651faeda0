"""Knows whose an advert is: by its address, or by what it says of itself, for tags that change their address.

All radios hear for all devices: which of them a device is nearest to changes with a door, a person in the way or a dead
adapter, and a press that any of them hears counts. So a radio is no part of what a device is known by.
Cost: one look-up for an address; where a device is known by what it says, each advert of a stranger is read for that
(about 5 us each on a fast core).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from drivers.kit import Advert, Advertises
from gateway.collect.desk import Desk

Identify = Callable[[Advert], tuple[str, ...]]


class Whose:
    """The devices that are heard on the air."""

    def __init__(self, desks: Iterable[Desk]) -> None:
        self._by_address: dict[str, Desk] = {}
        self._by_identity: dict[str, Desk] = {}
        self._identify: list[Identify] = []
        for desk in desks:
            if isinstance(desk.driver, Advertises):
                self._add(desk, desk.driver)

    def _add(self, desk: Desk, driver: Advertises) -> None:
        if desk.address or driver.identify is None:
            self._by_address[desk.address.upper()] = desk
            return
        if driver.identify not in self._identify:
            self._identify.append(driver.identify)
        self._by_identity.update(dict.fromkeys(driver.identities, desk))

    def is_known(self, address: str) -> bool:
        """Is it the address of one of ours?"""
        return address in self._by_address

    def may_be(self, address: str) -> bool:
        """May an advert of this address be one of ours?"""
        return address in self._by_address or bool(self._identify)

    def desk_of(self, advert: Advert) -> Desk | None:
        """Return whose advert it is; an address goes before what it says."""
        desk = self._by_address.get(advert.address)
        if desk is not None:
            return desk
        for identify in self._identify:
            for identity in identify(advert):
                if identity in self._by_identity:
                    return self._by_identity[identity]
        return None

"""Knows whose an advert is: by its address, or by what it says of itself, for tags that change their address.

Cost: one look-up for an address; where a device of the link is known by what it says, each advert of a stranger is read
for that (about 5 us each on a fast core).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from drivers.kit import Advert, Advertises
from gateway.collect.desk import Desk

Identify = Callable[[Advert], tuple[str, ...]]


class Whose:
    """The devices that are heard on the air."""

    def __init__(self, desks: Iterable[Desk]) -> None:
        self._by_address: dict[tuple[str, str], Desk] = {}
        self._by_identity: dict[tuple[str, str], Desk] = {}
        self._identify: dict[str, list[Identify]] = {}
        for desk in desks:
            if isinstance(desk.driver, Advertises):
                self._add(desk, desk.driver)

    def _add(self, desk: Desk, driver: Advertises) -> None:
        if desk.address or driver.identify is None:
            self._by_address[desk.link, desk.address.upper()] = desk
            return
        known = self._identify.setdefault(desk.link, [])
        if driver.identify not in known:
            known.append(driver.identify)
        self._by_identity.update({(desk.link, identity): desk for identity in driver.identities})

    def may_be(self, link: str, address: str) -> bool:
        """May an advert of this address be one of ours?"""
        return (link, address) in self._by_address or link in self._identify

    def desk_of(self, link: str, advert: Advert) -> Desk | None:
        """Return whose advert it is; an address goes before what it says."""
        desk = self._by_address.get((link, advert.address))
        if desk is not None:
            return desk
        for identify in self._identify.get(link, ()):
            for identity in identify(advert):
                if (link, identity) in self._by_identity:
                    return self._by_identity[link, identity]
        return None

"""Devices that nobody configured and that must be heard: the beds of a call system whose addresses stand in no [[device]].

Each address gets a desk of its own, so that two such beds are two alarms. It has neither room nor bed; its id follows from the
line's device and the address alone, so it is the same after a restart, and after it gave way to another.
Limit: `MAX_STRANGERS` addresses a line; the one heard longest ago that has no open alarm gives way. Where all of them have one,
whoever comes next is taken as the line's own device, and shares its alarm: the caller is told, to say so.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final
from zlib import crc32

from gateway.collect.desk import Desk

MAX_STRANGERS: Final = 1_024
MAX_ID: Final = 64
_NO_ID: Final = re.compile(r"[^a-z0-9]+")


class Strangers:
    """The desks of one line's strangers. `host` is the device that stands for the line, `taken` the ids in use.

    `is_open`: has the device of this id an open alarm?
    """

    def __init__(self, host: Desk, taken: Collection[str], is_open: Callable[[str], bool]) -> None:
        self._host = host
        self._taken = frozenset(taken)
        self._is_open = is_open
        self._desks: OrderedDict[str, Desk] = OrderedDict()

    def desk(self, address: str) -> Desk | None:
        """Return the desk of an address; None where there are too many that call."""
        found = self._desks.get(address)
        if found is None:
            if len(self._desks) >= MAX_STRANGERS and not self._make_room():
                return None
            found = self._desks[address] = replace(
                self._host, id=self._id(address), address=address, room="", bed="", heard=0, events=0, repeats=0,
                ignored=0, rejects=type(self._host.rejects)(), last_heard=None, last_told={}, last_undecipherable=None,
                receivers={},
            )  # fmt: skip
        self._desks.move_to_end(address)
        return found

    def _make_room(self) -> bool:
        for address, desk in self._desks.items():
            if not self._is_open(desk.id):
                del self._desks[address]
                return True
        return False

    def _id(self, address: str) -> str:
        name = _NO_ID.sub("-", address.lower()).strip("-")
        plain = f"{self._host.id}-{name}"
        if name == address and len(plain) <= MAX_ID and plain not in self._taken:
            return plain
        sure = f"-{crc32(address.encode('utf-8', 'backslashreplace')):08x}"
        return plain[: MAX_ID - len(sure)] + sure

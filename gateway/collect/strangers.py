"""Devices that nobody configured and that must be heard: the beds of a call system whose addresses stand in no [[device]].

Each address gets a desk of its own, so that two such beds are two alarms. It has neither room nor bed; its id is the line's
device and the address, and the same after a restart.
Limit: `MAX_STRANGERS` addresses a line; what comes from others is taken as the line's own device.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Final
from zlib import crc32

from gateway.collect.desk import Desk

MAX_STRANGERS: Final = 64
MAX_ID: Final = 64
_NO_ID: Final = re.compile(r"[^a-z0-9]+")


class Strangers:
    """The desks of one line's strangers. `host` is the device that stands for the line, `taken` the ids in use."""

    def __init__(self, host: Desk, taken: Collection[str]) -> None:
        self._host = host
        self._taken = set(taken)
        self._desks: dict[str, Desk] = {}

    def desk(self, address: str) -> Desk:
        """Return the desk of an address."""
        found = self._desks.get(address)
        if found is None:
            if len(self._desks) >= MAX_STRANGERS:
                return self._host
            found = self._desks[address] = replace(
                self._host, id=self._id(address), address=address, room="", bed="", heard=0, events=0, repeats=0,
                ignored=0, rejects=type(self._host.rejects)(), last_heard=None, last_told={},
            )  # fmt: skip
        return found

    def _id(self, address: str) -> str:
        name = _NO_ID.sub("-", address.lower()).strip("-")
        plain = f"{self._host.id}-{name}"
        if name == address and len(plain) <= MAX_ID and plain not in self._taken:
            self._taken.add(plain)
            return plain
        sure = f"-{crc32(address.encode('utf-8', 'backslashreplace')):08x}"
        return plain[: MAX_ID - len(sure)] + sure

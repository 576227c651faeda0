"""Tells a message that comes again from a new one where neither a counter nor a number does: by what it says, and when.

A sender whose acknowledgement was missed says the same within seconds; a radio repeats one press for as long as it lasts.
Each repeat extends the time. Whether an equal message may be left out at all is for the caller to judge: a call may be only
while nobody has taken its alarm.
Limit: `MAX_RECENT` messages a line are remembered, the oldest give way (their repeats are new then).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from drivers.kit import Decoded, Observation

MAX_RECENT: Final = 256

Said = tuple[str, tuple[Observation, ...]]


class Repeats:
    """What was said on one line within the last `within_s`."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._said: OrderedDict[Said, float] = OrderedDict()

    def is_repeat(self, device: str, decoded: Decoded, now: float) -> bool:
        """Was the same said a short while ago? It is noted as said now, either way."""
        if not self._within_s or not decoded.observations:
            return False
        said = (device, decoded.observations)
        before = self._said.pop(said, None)
        self._said[said] = now
        if len(self._said) > MAX_RECENT:
            self._said.popitem(last=False)
        return before is not None and now - before <= self._within_s

    def forget(self, device: str, decoded: Decoded) -> None:
        """It could not be stored: when it comes again it is new."""
        self._said.pop((device, decoded.observations), None)

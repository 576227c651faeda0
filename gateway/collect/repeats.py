"""Tells a message that comes again from a new one where neither a counter nor a number does: by what it says, and when.

A sender whose acknowledgement was missed says the same within seconds; a radio repeats one press for as long as it lasts.
Each repeat extends the time; another message of the same device ends it, so a door that opens, shuts and opens is told
three times. A state is no business of this: its edges are judged (`judge`). Whether an equal message may be left out at all is
for the caller to judge: a call may be only while nobody has taken its alarm.
Limit: the last message of `MAX_DEVICES` devices a line; the one heard longest ago gives way (its repeat is new then).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from drivers.kit import Decoded, Observation, Signal

MAX_DEVICES: Final = 256


class Repeats:
    """What each device of one line said last, and when."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._last: OrderedDict[str, tuple[tuple[Observation, ...], float]] = OrderedDict()

    def is_repeat(self, device: str, decoded: Decoded, now: float) -> bool:
        """Was the same the last thing said, and a short while ago? It is noted as said now, either way."""
        said = decoded.observations
        if not self._within_s or not said:
            return False
        before, at = self._last.pop(device, ((), 0.0))
        self._last[device] = (said, now)
        if len(self._last) > MAX_DEVICES:
            self._last.popitem(last=False)
        is_state = any(isinstance(one, Signal) and one.level is not None for one in said)
        return not is_state and before == said and now - at <= self._within_s

    def forget(self, device: str) -> None:
        """What it said last could not be stored: when it comes again it is new."""
        self._last.pop(device, None)

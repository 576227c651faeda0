"""How telemetry is cut into messages, and how much of it is under way before the platform has answered.

An alarm waits behind what was sent before it: behind every byte that is still on its connection, and behind whatever the
platform has still to work on. So there is a bound for both, and it is counted in whole messages' worth (by events or bytes,
whichever is more), however the events are cut: a profile that sends each alone may have as many events under way as another.
On a connection that alarms share (MQTT) a message is small and three are under way, 93 KiB and 150 events at most: one that
the platform works on, one that is there when it is through, and one between; an alarm waits for less than behind two large
ones. Where alarms have connections of their own (HTTP), two of 100 events and 63 KiB; two of half that for `CALLS_S` after an
alarm that came while the platform was there: whoever calls is called for, acknowledged, attended and closed in the next
minutes, and each of these waits for what is being worked on here and there. Always halves would cost a drain a third of its
rate. A message that is unanswered for `FRESH_S` counts no more among what the platform works on: it may never be answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.deliver.flights import Flights
from gateway.events import Lane

FRESH_S: Final = 1.0
CALLS_S: Final = 60.0
TELEMETRY: Final = (Lane.C, Lane.D)


@dataclass(frozen=True, slots=True)
class Cut:
    """A message holds `events` and `size` bytes at most (brackets and commas come on top), and `messages` are under way."""

    events: int
    size: int
    messages: int


SHARED: Final = Cut(50, 31 * 1024, 3)
OF_ITS_OWN: Final = Cut(100, 63 * 1024, 2)
AMID_CALLS: Final = Cut(50, 31 * 1024, 2)


def cut(*, is_shared: bool, quiet_s: float) -> Cut:
    """Return how telemetry is cut. `quiet_s`: since when no alarm has come; inf where none has."""
    if is_shared:
        return SHARED
    return AMID_CALLS if quiet_s < CALLS_S else OF_ITS_OWN


def has_room(cut: Cut, flights: Flights, *, path: int, now: float) -> bool:
    """May one more message of telemetry go over a path?"""
    most = cut.messages - 1
    if flights.bytes_under_way(TELEMETRY, path=path) > most * cut.size:
        return False
    fresh = flights.fresh(TELEMETRY, path=path, since=now - FRESH_S)
    worth = sum(max(one.events * cut.size, one.size * cut.events) for one in fresh)
    return worth <= most * cut.size * cut.events

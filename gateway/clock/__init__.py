"""Wall, boot-time and monotonic clocks, injected; whether the wall clock can be trusted; what is known of earlier boots."""

from gateway.clock.boots import Boot, Boots, Told
from gateway.clock.stamp import FLOORED, SYNCED, UNSYNCED, Clock, PlatformTime, Stamp, iso
from gateway.clock.system import SystemClock
from gateway.clock.trust import BUILT_MS, Doubt, Trust

__all__ = [
    "BUILT_MS", "FLOORED", "SYNCED", "UNSYNCED", "Boot", "Boots", "Clock", "Doubt", "PlatformTime", "Stamp", "SystemClock",
    "Told", "Trust", "iso",
]  # fmt: skip

"""The one D-Bus connection that bleak keeps for each event loop: how to drop it, and how to learn that it broke.

bleak 3.1 holds its connection and what it learned from it (adapters, devices) in a private manager, one for each event
loop, and lets go of it only when the socket breaks. Four things in the field need more: after bluetoothd died the
cache is stale; a StartDiscovery that bluetoothd never answered stays booked for our connection; every discovery
belongs to the connection, so a fresh one is the only start that is surely clean; and a device that appears while bleak
takes over the list of all objects is forgotten again, and whatever it says later is dropped without a word, for as long
as bluetoothd keeps it (for a device with signs of life: for ever). Hence the private attributes here, and only here
(checked by the tests against the installed bleak).
Limits: waits 2 s at most for the old connection to close.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from bleak.backends.bluezdbus import manager as bleak_manager
from dbus_fast import Message
from dbus_fast.aio import MessageBus

_CLOSE_TIMEOUT_S: Final = 2.0
_ADVERTISED: Final = frozenset({"RSSI", "ManufacturerData", "ServiceData"})


def current() -> object | None:
    """Return what stands for bleak's connection of this event loop, for `drop`; None when there is none."""
    return bleak_manager._global_instances.get(asyncio.get_running_loop())  # noqa: SLF001 - see module


def alive(held: object | None) -> bool:
    """Tell whether calls can be made on a connection: on a dead one they fail with a traceback, or never return."""
    manager: Any = held
    return manager is not None and manager._bus is not None and manager._bus.connected  # noqa: SLF001 - see module


async def drop(held: object | None) -> None:
    """Close the connection `held` and forget what was known through it; the next scan opens a new one.

    Does nothing when bleak has a newer one already: of several radios that share a connection, each finds out that it
    is no good, and the second must not close what the first has just opened. A scan of another radio on it goes deaf;
    that radio learns it through `on_lost`.
    """
    manager: Any = held
    if held is None or current() is not held:
        return
    del bleak_manager._global_instances[asyncio.get_running_loop()]  # noqa: SLF001 - see module
    if manager._bus is None:  # noqa: SLF001 - see module
        return
    manager._bus.disconnect()  # noqa: SLF001 - see module
    watcher: asyncio.Task[None] | None = manager._bus_watcher_task  # noqa: SLF001 - see module
    if watcher is not None:
        # `wait`, not `await`: a wait that is cancelled must not cancel bleak's own task.
        await asyncio.wait({watcher}, timeout=_CLOSE_TIMEOUT_S)


def on_lost(tell: Callable[[], None]) -> None:
    """Call `tell` once when the connection that bleak uses now has ended, by whomever; at once when there is none."""
    manager: Any = current()
    watcher: asyncio.Task[None] | None = None if manager is None else manager._bus_watcher_task  # noqa: SLF001
    if watcher is None:
        tell()
        return

    def ended(_task: asyncio.Task[None]) -> None:
        tell()

    watcher.add_done_callback(ended)


def on_missed(tell: Callable[[], None]) -> Callable[[], None]:
    """Call `tell` for each advert of a device that bleak does not know; return how to end that."""
    manager: Any = current()
    bus: MessageBus | None = None if manager is None else manager._bus  # noqa: SLF001 - see module
    if bus is None:
        return lambda: None

    def look(message: Message) -> None:
        if message.member != "PropertiesChanged" or message.path in manager._properties:  # noqa: SLF001 - see module
            return
        interface, changed = message.body[:2]
        if interface == "org.bluez.Device1" and not _ADVERTISED.isdisjoint(changed):
            tell()

    bus.add_message_handler(look)
    return lambda: bus.remove_message_handler(look)

"""Watches, on a D-Bus connection of its own, whether one Bluetooth adapter can be used.

bleak says nothing when the adapter is switched off or pulled out, nor when bluetoothd dies: a scan just hears nothing
more. The signals that tell it exist on the bus, and this listens to them: the owner of org.bluez, the adapter's object,
its Powered property.
Limits: one adapter; while there is no bus it knocks every 0.05 to 0.3 s (a local socket: well under 1 ms of work); each
call waits 10 s at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from gateway.links import ble_problems

_BLUEZ: Final = "org.bluez"
_ADAPTER: Final = "org.bluez.Adapter1"
_FIRST_KNOCK_S: Final = 0.1
_SLOWEST_KNOCK_S: Final = 0.3


class AdapterState(Enum):
    """What is known of the adapter; the value is the problem code, None when there is none to report."""

    UNKNOWN = "unknown"
    READY = "ready"
    NO_BUS = ble_problems.NO_BUS
    NO_DAEMON = ble_problems.NO_DAEMON
    NO_ADAPTER = ble_problems.NO_ADAPTER
    SWITCHED_OFF = ble_problems.SWITCHED_OFF
    DENIED = ble_problems.DENIED

    @property
    def problem(self) -> str | None:
        """The problem code of the state; None for READY and UNKNOWN."""
        return None if self in {AdapterState.UNKNOWN, AdapterState.READY} else str(self.value)


class BluezWatch:
    """`state` is the newest knowledge; `on_change(state)` is called, on the event loop, at each change of it.

    A change that was undone at once (off and on again) is told as two changes: a scan does not survive it.
    """

    def __init__(
        self, *, adapter: str, on_change: Callable[[AdapterState], None], call_timeout_s: float = 10.0
    ) -> None:
        self.state = AdapterState.UNKNOWN
        self._path = f"/org/bluez/{adapter}"
        self._on_change = on_change
        self._timeout_s = call_timeout_s
        self._look = asyncio.Event()
        self._signals = 0

    async def run(self) -> None:
        """Watch for ever; never raises but CancelledError."""
        knock_s = _FIRST_KNOCK_S
        while True:
            try:
                await self._watch_one_connection()
                knock_s = _FIRST_KNOCK_S
                self._set(AdapterState.NO_BUS)
            except Exception as error:  # noqa: BLE001 - dbus-fast raises what it meets; the watch must outlive all of it
                denied = ble_problems.code_of(error) == ble_problems.DENIED
                self._set(AdapterState.DENIED if denied else AdapterState.NO_BUS)
            # Jitter over the upper half: a lower one would only make the bus of a starting machine busier.
            await asyncio.sleep(knock_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, nothing secret
            knock_s = min(knock_s * 2, _SLOWEST_KNOCK_S)

    def look(self) -> None:
        """Look anew: something that no signal tells (a changed bus policy) may have changed."""
        self._look.set()

    async def _watch_one_connection(self) -> None:
        """Connect, look, and listen; returns when the connection ended."""
        bus = MessageBus(bus_type=BusType.SYSTEM)
        async with asyncio.timeout(self._timeout_s):
            await bus.connect()
        lost = asyncio.create_task(_until_lost(bus), name="bluez-watch-lost")
        try:
            bus.add_message_handler(self._on_message)
            for rule in self._rules():
                await self._call(bus, "org.freedesktop.DBus", "/org/freedesktop/DBus", "AddMatch", [rule])
            self._look.set()
            while not lost.done():
                if self._look.is_set():
                    await self._look_at_adapter(bus)
                look = asyncio.create_task(self._look.wait(), name="bluez-watch-look")
                try:
                    await asyncio.wait({lost, look}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    look.cancel()
        finally:
            bus.disconnect()
            # dbus-fast closes its socket only when the reader has seen the end of it, one turn of the loop later.
            await asyncio.wait({lost}, timeout=self._timeout_s)
            lost.cancel()

    def _rules(self) -> tuple[str, ...]:
        """Return match rules that bring the few signals wanted, and none of the hundreds a second of the devices."""
        ours = f"type='signal',sender='{_BLUEZ}'"
        return (
            f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{_BLUEZ}'",
            f"{ours},path='/',interface='org.freedesktop.DBus.ObjectManager',arg0path='{self._path}'",
            f"{ours},path='{self._path}',member='PropertiesChanged',arg0='{_ADAPTER}'",
        )

    async def _look_at_adapter(self, bus: MessageBus) -> None:
        """Ask for Powered. An answer that a signal has overtaken is thrown away, and the question put again."""
        self._look.clear()
        signals = self._signals
        try:
            reply = await self._call(
                bus, _BLUEZ, self._path, "Get", [_ADAPTER, "Powered"], interface="org.freedesktop.DBus.Properties"
            )
        except TimeoutError:
            # A bluetoothd that does not answer tells nothing; the scanner meets the same silence and reports it.
            return
        if signals != self._signals:
            self._look.set()
        elif reply is None:
            return  # the connection ended
        elif reply.message_type is MessageType.ERROR:
            self._set(_state_of_error(str(reply.error_name)))
        else:
            self._set(_powered(reply.body[0]))

    async def _call(
        self, bus: MessageBus, to: str, path: str, member: str, body: list[Any], *, interface: str = ""
    ) -> Message | None:
        """Call and wait for the answer, an error message included; None when the connection ended meanwhile."""
        message = Message(
            destination=to, path=path, interface=interface or to, member=member, signature="s" * len(body), body=body
        )
        async with asyncio.timeout(self._timeout_s):
            # None is what dbus-fast hands to those who still wait when a connection is closed in good order.
            reply: Message | None = await bus.call(message)
        return reply

    def _on_message(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL or message.member is None:
            return
        self._signals += 1
        body = message.body
        if message.member == "NameOwnerChanged" and body[0] == _BLUEZ:
            # A new owner directly after the old one is a new daemon as well: no scan of ours lives in it.
            self._set(AdapterState.NO_DAEMON)
            if body[2]:
                self._look.set()
        elif message.member == "InterfacesRemoved" and body[0] == self._path and _ADAPTER in body[1]:
            self._set(AdapterState.NO_ADAPTER)
        elif message.member == "InterfacesAdded" and body[0] == self._path and _ADAPTER in body[1]:
            self._set(_powered(body[1][_ADAPTER].get("Powered")))
        elif message.member == "PropertiesChanged" and message.path == self._path and "Powered" in body[1]:
            self._set(_powered(body[1]["Powered"]))

    def _set(self, state: AdapterState) -> None:
        if state is not self.state:
            self.state = state
            self._on_change(state)


async def _until_lost(bus: MessageBus) -> None:
    """Return when the connection has ended; how it ended does not matter."""
    with contextlib.suppress(Exception):
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call] # dbus-fast leaves the annotation out


def _powered(value: Variant | None) -> AdapterState:
    return AdapterState.READY if value is not None and value.value is True else AdapterState.SWITCHED_OFF


def _state_of_error(name: str) -> AdapterState:
    """Return what the error reply to a question for Powered tells of the adapter."""
    if name == "org.freedesktop.DBus.Error.UnknownMethod":
        return AdapterState.NO_ADAPTER  # bluetoothd answers so for an object path that it does not have
    code = ble_problems.code_of_name(name)
    return next((state for state in AdapterState if state.problem == code), AdapterState.UNKNOWN)

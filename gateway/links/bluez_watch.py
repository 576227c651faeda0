"""Watches, on a D-Bus connection of its own, which Bluetooth adapter one radio can use, and switches it.

bleak says nothing when the adapter is switched off or pulled out, nor when bluetoothd dies: a scan just hears nothing
more. The signals that tell it exist on the bus, and this listens to them: the owner of org.bluez, the adapters' objects,
their properties. What must be asked of an adapter is asked here too: nothing that hangs then hangs the scan.
Limits: adapters as in `bluez_adapters`; while there is no bus it knocks every 0.05 to 0.3 s (a local socket: well under
1 ms of work); each call waits 10 s at most; another adapter stands in after 2 s; a scan that bluetoothd no longer knows
of is told after 1 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Final

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from gateway.links import ble_problems
from gateway.links.bluez_adapters import (
    ADAPTER,
    MONITORS,
    AdapterFacts,
    AdapterState,
    all_of,
    name_of,
    names,
    seen,
    stand_in,
)

_BLUEZ: Final = "org.bluez"
_BUS: Final = "org.freedesktop.DBus"
_OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_FIRST_KNOCK_S: Final = 0.1
_SLOWEST_KNOCK_S: Final = 0.3
# bluetoothd shows its adapters one after the other: the first to come is not yet the only one.
STAND_IN_AFTER_S: Final = 2.0
# The end of our own last scan may be told on this connection when the next one runs already on bleak's.
IDLE_AFTER_S: Final = 1.0


class BluezWatch:
    """`state` is the newest knowledge of `adapter`, the one in use: `on_change(state)` is called at each change of either.

    `on_idle()` is called when the adapter in use could be used and says, for 1 s, that nobody scans with it. A change that
    was undone at once (off and on again) is told as two changes: a scan does not survive it. All on the event loop.
    """

    def __init__(
        self,
        *,
        adapter: str,
        on_change: Callable[[AdapterState], None],
        on_idle: Callable[[], None],
        taken: Collection[str] = (),
        call_timeout_s: float = 10.0,
    ) -> None:
        self.state = AdapterState.UNKNOWN
        self.adapter = adapter
        self.generation = 0
        """Another number means that bluetoothd has forgotten what it was told on this connection."""
        self._configured = adapter
        self._taken = frozenset(taken)
        self._on_change = on_change
        self._on_idle = on_idle
        self._timeout_s = call_timeout_s
        self._adapters: dict[str, AdapterFacts] = {}
        self._unusable_since: float | None = None
        self._bus: MessageBus | None = None
        self._look = asyncio.Event()
        self._signals = 0

    @property
    def facts(self) -> AdapterFacts | None:
        """What is known of the adapter in use; None when it is not there."""
        return self._adapters.get(self.adapter)

    @property
    def own_state(self) -> AdapterState:
        """Whether the configured adapter can be used, also while another one stands in."""
        own = self._adapters.get(self._configured)
        return AdapterState.NO_ADAPTER if own is None else own.state

    @property
    def bus(self) -> MessageBus | None:
        """The connection, while there is one."""
        return self._bus

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

    def expect_scan(self, *, after_s: float = IDLE_AFTER_S) -> None:
        """A scan has begun: see whether bluetoothd knows of it, and look anew where no signal would tell what changed."""
        self._judge_idle_later(self.adapter, after_s)
        if self.state is not AdapterState.READY:
            self._look.set()

    async def set_powered(self, adapter: str, *, on: bool) -> str:
        """Switch an adapter. Return "" when it was done, else why not, in one line."""
        try:
            reply = await self.call(adapter, _PROPERTIES, "Set", "ssv", [ADAPTER, "Powered", Variant("b", on)])
        except Exception as error:  # noqa: BLE001 - a connection that dies raises what it meets
            return ble_problems.text_of(error)
        if reply.message_type is not MessageType.ERROR:
            return ""
        name = str(reply.error_name)
        facts = self._adapters.get(adapter)
        if ble_problems.code_of_name(name) == ble_problems.BLOCKED and facts is not None:
            self._adapters[facts.name] = replace(facts, blocked=True)
            self._judge()
        return f"{name}: {reply.body[0] if reply.body else ''}"[:200]

    async def call(self, adapter: str, interface: str, member: str, signature: str, body: list[Any]) -> Message:
        """Call a method of an adapter and return the answer, which may be an error. OSError without a connection."""
        if self._bus is None:
            raise ConnectionError("no connection to D-Bus")
        path = AdapterFacts(adapter).path
        reply = await self._call(self._bus, Message(_BLUEZ, path, interface, member, signature=signature, body=body))
        if reply is None:
            raise ConnectionError("the connection to D-Bus ended")
        return reply

    async def _watch_one_connection(self) -> None:
        bus = MessageBus(bus_type=BusType.SYSTEM)
        try:
            async with asyncio.timeout(self._timeout_s):
                await bus.connect()
                welcome = await bus.call(Message(_BUS, "/org/freedesktop/DBus", _BUS, "GetId"))
        except (EOFError, ConnectionResetError) as error:
            bus.disconnect()
            raise PermissionError("the bus closed the connection before it was one") from error
        except BaseException:
            bus.disconnect()
            raise
        if welcome is None:
            raise PermissionError("the bus closed the connection before it answered")
        lost = asyncio.create_task(_until_lost(bus), name="bluez-watch-connection")
        try:
            bus.add_message_handler(self._on_message)
            for rule in _rules(self._configured):
                await self._call(
                    bus, Message(_BUS, "/org/freedesktop/DBus", _BUS, "AddMatch", signature="s", body=[rule])
                )
            self._bus = bus
            self._adapters = {}
            self.generation += 1
            self._look.set()
            while not lost.done():
                if self._look.is_set():
                    await self._look_at_adapters(bus)
                look = asyncio.create_task(self._look.wait(), name="bluez-watch-look")
                try:
                    await asyncio.wait({lost, look}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    look.cancel()
        finally:
            self._bus = None
            self._adapters = {}
            bus.disconnect()
            # dbus-fast closes its socket only when the reader has seen the end of it, one turn of the loop later.
            await asyncio.wait({lost}, timeout=self._timeout_s)
            lost.cancel()

    async def _look_at_adapters(self, bus: MessageBus) -> None:
        """Ask for all objects. An answer that a signal has overtaken is thrown away, and the question put again."""
        self._look.clear()
        signals = self._signals
        try:
            reply = await self._call(bus, Message(_BLUEZ, "/", _OBJECT_MANAGER, "GetManagedObjects"))
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
            self._adapters = all_of(reply.body[0], self._configured)
            self._judge()
            # A scan that ended before this answer came is told by no signal any more.
            self._judge_idle_later(self.adapter, IDLE_AFTER_S)

    async def _call(self, bus: MessageBus, message: Message) -> Message | None:
        """Call and wait for the answer, an error message included; None when the connection ended meanwhile."""
        async with asyncio.timeout(self._timeout_s):
            # None is what dbus-fast hands to those who still wait when a connection is closed in good order.
            reply: Message | None = await bus.call(message)
        return reply

    def _on_message(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL or message.member is None:
            return
        if message.member == "NameOwnerChanged":
            self._on_owner(*message.body)
        elif message.member in ("InterfacesAdded", "InterfacesRemoved") and name_of(message.body[0]):
            self._on_interfaces(name_of(message.body[0]), message.member, message.body[1])
        elif message.member == "PropertiesChanged" and message.body[0] == ADAPTER and name_of(message.path or ""):
            self._on_properties(name_of(message.path or ""), message.body[1])

    def _on_owner(self, name: str, _before: str, now: str) -> None:
        if name != _BLUEZ:
            return
        self._signals += 1
        self.generation += 1
        self._adapters = {}
        # A new owner directly after the old one is a new daemon as well: no scan of ours lives in it.
        self._set(AdapterState.NO_DAEMON)
        if now:
            self._look.set()

    def _on_interfaces(self, name: str, member: str, interfaces: Any) -> None:
        self._signals += 1
        known = self._adapters.get(name)
        if member == "InterfacesAdded":
            if known is None and ADAPTER in interfaces:
                self.generation += 1
            if known is not None or ADAPTER in interfaces:
                self._adapters[name] = seen(known or AdapterFacts(name), interfaces)
        elif ADAPTER in interfaces:
            self._adapters.pop(name, None)
        elif known is not None and MONITORS in interfaces:
            self._adapters[name] = replace(known, monitors=False)
        self._judge()

    def _on_properties(self, name: str, changed: dict[str, Variant]) -> None:
        self._signals += 1
        known = self._adapters.get(name)
        if known is None:
            return  # the list of all objects is on its way, and newer than this
        self._adapters[name] = facts = known.changed(changed)
        self._judge()
        if known.scans and not facts.scans and facts.powered and name == self.adapter:
            self._judge_idle_later(name, IDLE_AFTER_S)

    def _judge_idle_later(self, name: str, after_s: float) -> None:
        asyncio.get_running_loop().call_later(after_s + 0.01, self._judge_idle, name)

    def _judge_idle(self, name: str) -> None:
        facts = self._adapters.get(name)
        if facts is not None and name == self.adapter and self.state is AdapterState.READY and not facts.scans:
            self._on_idle()

    def _judge(self) -> None:
        """Choose the adapter to use by what is known of all."""
        own = self._adapters.get(self._configured)
        if own is not None and own.powered:
            self._unusable_since = None
            self._set(AdapterState.READY, self._configured)
            return
        loop = asyncio.get_running_loop()
        if self._unusable_since is None:
            self._unusable_since = loop.time()
            loop.call_later(STAND_IN_AFTER_S + 0.01, self._judge_again)  # timers may fire a little early
        other = stand_in(self._adapters, self._configured, self._taken)
        if other is not None and loop.time() - self._unusable_since >= STAND_IN_AFTER_S:
            self._set(AdapterState.READY, other.name)
        else:
            self._set(AdapterState.NO_ADAPTER if own is None else own.state, self._configured)

    def _judge_again(self) -> None:
        if self.state in {AdapterState.NO_ADAPTER, AdapterState.SWITCHED_OFF, AdapterState.BLOCKED}:
            self._judge()

    def _set(self, state: AdapterState, adapter: str = "") -> None:
        if (state, adapter or self.adapter) != (self.state, self.adapter):
            self.state, self.adapter = state, adapter or self.adapter
            self._on_change(state)


def _rules(configured: str) -> list[str]:
    """Return match rules that bring the few signals wanted, and none of the hundreds a second of the devices."""
    ours = f"type='signal',sender='{_BLUEZ}'"
    rules = [f"type='signal',sender='{_BUS}',member='NameOwnerChanged',arg0='{_BLUEZ}'"]
    for path in (AdapterFacts(name).path for name in names(configured)):
        rules.append(f"{ours},path='/',interface='{_OBJECT_MANAGER}',arg0path='{path}'")
        rules.append(f"{ours},path='{path}',member='PropertiesChanged',arg0='{ADAPTER}'")
    return rules


async def _until_lost(bus: MessageBus) -> None:
    """Return when the connection has ended; how it ended does not matter."""
    with contextlib.suppress(Exception):
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call] # dbus-fast leaves the annotation out


def _state_of_error(name: str) -> AdapterState:
    """Return what the error reply to the question for all objects tells."""
    code = ble_problems.code_of_name(name)
    return next((state for state in AdapterState if state.problem == code), AdapterState.UNKNOWN)

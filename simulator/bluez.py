"""A pretended bluetoothd: `org.bluez` on a D-Bus daemon, true enough for an unmodified BLE stack to scan against it.

It can be powered off, unplugged, crashed, deafened, and made to refuse or to hang: what happens to radios in the field.
Scanning only: no connections, no GATT. Adverts are one-shot: a report that no client scans for is gone.
Limits: a device object expires 30 s after its last report; at most 5,000 messages wait for a slow bus, reports beyond
that vanish and are counted in `lost`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from dbus_fast import Message, MessageType, RequestNameReply, Variant, unpack_variants
from dbus_fast.aio import MessageBus

from simulator.bluez_objects import ADAPTER, DEVICE, MONITORS, NO, YES, Adapter, Device, Duplicates, Heals, Report
from simulator.bluez_wire import BluezError, PatientSocket, Refusal, bus_call, sent

OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_MONITOR: Final = "org.bluez.AdvertisementMonitor1"
_CALL_TIMEOUT_S: Final = 10.0
_TEMPORARY_TIMEOUT_S: Final = 30.0
_SWEEP_S: Final = 5.0
_BACKLOG: Final = 5_000

# An error reply (name, text), no reply at all, or a reply that comes so many seconds late.
Fault = tuple[str, str] | Literal["hang"] | float


class FakeBluez:
    """`faults["Adapter1.StartDiscovery"] = [("InProgress", "why"), "hang", 0.5]` are used up one a call; `sticky` ones stay.

    `experimental` offers passive scanning (AdvertisementMonitorManager1); `version`, `dual_mode` and `controller` decide
    which repeats of an advert are told (see `bluez_objects`). `lost` counts reports that a full bus cost.
    """

    def __init__(
        self,
        address: str,
        *,
        experimental: bool = False,
        device_timeout_s: float = _TEMPORARY_TIMEOUT_S,
        version: tuple[int, int] = (5, 82),
        dual_mode: bool = True,
        controller: Duplicates = "told",
    ) -> None:
        self._address = address
        self._experimental = experimental
        self._version = version
        self._dual_mode = dual_mode
        self._controller: Duplicates = controller
        self._device_timeout_s = device_timeout_s
        self._bus: MessageBus | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._adapters: dict[str, Adapter] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.sticky: dict[str, Fault] = {}
        self.lost = 0
        self._methods: dict[tuple[str, str], Callable[[Adapter, Message], Message]] = {
            (ADAPTER, "SetDiscoveryFilter"): self._set_filter,
            (ADAPTER, "StartDiscovery"): self._start_discovery,
            (ADAPTER, "StopDiscovery"): self._stop_discovery,
        }
        if experimental:
            self._methods[MONITORS, "RegisterMonitor"] = self._register_monitor
            self._methods[MONITORS, "UnregisterMonitor"] = self._unregister_monitor

    # Its life.

    async def start(self) -> None:
        """Connect and own org.bluez. BluezError when the bus is not there or the name is taken."""
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                bus = await MessageBus(bus_address=self._address, negotiate_unix_fd=True).connect()
        except (OSError, TimeoutError) as error:
            raise BluezError(f"no D-Bus at {self._address}: {error!r}") from error
        # Two private attributes: there is no other way to cure the loss of a whole connection by one full buffer.
        if bus._writer is not None and bus._sock is not None:  # noqa: SLF001 - see above
            bus._writer.sock = PatientSocket(bus._sock)  # type: ignore[assignment]  # noqa: SLF001 - see above
        self._bus = bus
        bus.add_message_handler(self._on_message)
        async with asyncio.timeout(_CALL_TIMEOUT_S):
            await bus.call(
                bus_call("AddMatch", "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'")
            )
            reply = await bus.request_name("org.bluez")
        if reply is not RequestNameReply.PRIMARY_OWNER:
            await self.crash()
            raise BluezError(f"org.bluez is already owned on {self._address}")
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    async def crash(self) -> None:
        """Vanish from the bus without a word, as a killed bluetoothd does. What clients had begun is forgotten."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        bus, self._bus = self._bus, None
        for adapter in self._adapters.values():
            adapter.sessions.clear()
            adapter.filters.clear()
            adapter.monitors.clear()
            adapter.devices.clear()
        if bus is not None:
            bus.disconnect()
            with contextlib.suppress(Exception):  # how the connection ended does not matter once it has ended
                async with asyncio.timeout(_CALL_TIMEOUT_S):
                    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call] # dbus-fast leaves it out

    async def stop(self) -> None:
        """Leave in good order: objects are taken back first. Safe to call twice."""
        for adapter in list(self._adapters.values()):
            self._withdraw(adapter)
        await self.crash()

    async def wait_lost(self) -> None:
        """Return when the bus connection has ended, whoever ended it."""
        if self._bus is not None:
            with contextlib.suppress(Exception):  # how it ended does not matter
                ended = self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call] # dbus-fast leaves it out
                await asyncio.shield(ended)

    # The hardware under it.

    def add_adapter(self, name: str = "hci0", *, powered: bool = True, address: str = "00:1A:7D:DA:71:13") -> None:
        """Plug a controller in."""
        adapter = Adapter(
            name, address, self._experimental, powered=powered, dual_mode=self._dual_mode,
            coarse_rssi=self._version >= (5, 88), has_power_state=self._version >= (5, 65), controller=self._controller,
        )  # fmt: skip
        self._adapters[name] = adapter
        self._emit("/", OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", [adapter.path, adapter.interfaces()])

    def remove_adapter(self, name: str = "hci0") -> None:
        """Pull a controller out."""
        self._withdraw(self._adapters.pop(name))

    def power(self, name: str = "hci0", *, on: bool) -> None:
        """Switch a controller on or off; switching it off ends every discovery."""
        adapter = self._adapters[name]
        adapter.powered = on
        adapter.deaf = adapter.deaf and adapter.heals == "never"
        changed = {"Powered": Variant("b", on), **adapter.power_state()}
        if adapter.sessions and not on:
            adapter.sessions.clear()
            changed["Discovering"] = NO
        self._changed(adapter.path, ADAPTER, changed)

    def block(self, name: str = "hci0", *, on: bool) -> None:
        """Let rfkill block a controller, which switches it off, or unblock it, which switches it on as bluetoothd does."""
        self._adapters[name].blocked = on
        self.power(name, on=not on)

    def wedge(self, name: str = "hci0", *, heals: Heals = "scan", deaf: bool = True) -> None:
        """Make a controller deaf although it says that it scans, until what heals it is done; or let it hear again."""
        self._adapters[name].deaf = deaf
        self._adapters[name].heals = heals

    def end_discovery(self, name: str = "hci0") -> None:
        """End every client's discovery behind its back: bluetoothd says so, and nobody is asked."""
        self._adapters[name].sessions.clear()
        self._discovery_ended(self._adapters[name])

    def scanning(self, name: str = "hci0") -> bool:
        """Tell whether any client discovers or monitors on this controller."""
        adapter = self._adapters.get(name)
        return adapter is not None and bool(adapter.sessions or any(adapter.monitors.values()))

    def powered(self, name: str = "hci0") -> bool:
        """Tell whether a controller is on."""
        return self._adapters[name].powered

    def monitors(self, name: str = "hci0") -> int:
        """Tell how many passive monitors are active on this controller."""
        return sum(1 for patterns in self._adapters[name].monitors.values() if patterns)

    def invalidate_rssi(self, name: str = "hci0") -> None:
        """Take RSSI back from all devices, as bluetoothd does when a discovery ends: told, but not an advert."""
        for device in self._adapters[name].devices.values():
            device.rssi = None
            self._changed(device.path, DEVICE, {}, invalidated=["RSSI"])

    def listens(self) -> bool:
        """Tell whether somebody scans and would be told: a bus, a controller and a discovery are there."""
        connected = self._bus is not None and self._bus.connected
        return connected and any(one.powered and not one.deaf and bool(one.sessions) for one in self._adapters.values())

    def hear(self, report: Report, *, by: str = "") -> bool:
        """Hand a report to every controller, or to the one that is near (`by`); tell whether bluetoothd said it on the bus."""
        if self._bus is None or not self._bus.connected:
            return False
        # Private: dbus-fast does not tell how much it still has to write.
        if self._bus._writer is None or len(self._bus._writer.messages) > _BACKLOG:  # noqa: SLF001 - see above
            self.lost += 1
            return False
        now = asyncio.get_running_loop().time()
        near = [adapter for name, adapter in self._adapters.items() if by in ("", name)]
        heard = [adapter for adapter in near if adapter.hears(report, now)]
        told = [self._take(adapter, report) for adapter in heard]
        return any(told)

    def _take(self, adapter: Adapter, report: Report) -> bool:
        """Take a report in; tell whether it is said on the bus."""
        loop = asyncio.get_running_loop()
        device = adapter.devices.get(report.address)
        fresh = device is None
        if device is None:
            path = f"{adapter.path}/dev_{report.address.replace(':', '_')}"
            device = adapter.devices[report.address] = Device(path, adapter.path, report.address, loop.time())
        device.heard_at = loop.time()
        changed = device.take(report, duplicates=adapter.duplicates(), every_rssi=adapter.every_rssi())
        if fresh:
            self._emit(
                "/", OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", [device.path, {DEVICE: device.properties()}]
            )
        elif changed:
            if not device.pending:
                loop.call_soon(self._flush, device)
            device.pending.update(changed)
        return fresh or bool(changed)

    def _flush(self, device: Device) -> None:
        pending, device.pending = device.pending, {}
        self._changed(device.path, DEVICE, pending)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for adapter in self._adapters.values():
            old = loop.time() - self._device_timeout_s
            for device in [device for device in adapter.devices.values() if device.heard_at < old]:
                del adapter.devices[device.address]
                self._emit("/", OBJECT_MANAGER, "InterfacesRemoved", "oas", [device.path, [DEVICE]])
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)

    def _withdraw(self, adapter: Adapter) -> None:
        for device in adapter.devices.values():
            self._emit("/", OBJECT_MANAGER, "InterfacesRemoved", "oas", [device.path, [DEVICE]])
        adapter.devices.clear()
        self._emit("/", OBJECT_MANAGER, "InterfacesRemoved", "oas", [adapter.path, list(adapter.interfaces())])

    # The bus.

    def _on_message(self, message: Message) -> Message | bool | None:
        if message.message_type is MessageType.SIGNAL:
            self._on_signal(message)
            return None
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        interface, member = message.interface or "", message.member or ""
        if interface in {"org.freedesktop.DBus.Peer", "org.freedesktop.DBus.Introspectable"}:
            return None
        try:
            key = f"{interface.rpartition('.')[2]}.{member}"
            waiting = self.faults.get(key)
            fault = waiting.pop(0) if waiting else self.sticky.get(key)
            if fault == "hang":
                return True  # handled, and never answered
            if isinstance(fault, float):
                asyncio.get_running_loop().call_later(fault, self._answer_late, message)
                return True
            if fault is not None:
                raise Refusal(*fault)
            return self._answer(interface, member, message)
        except Refusal as refusal:
            return Message.new_error(message, refusal.name, refusal.text)

    def _answer_late(self, message: Message) -> None:
        try:
            self._send(self._answer(message.interface or "", message.member or "", message))
        except Refusal as refusal:
            self._send(Message.new_error(message, refusal.name, refusal.text))

    def _answer(self, interface: str, member: str, message: Message) -> Message:
        path = message.path or ""
        if interface == OBJECT_MANAGER and member == "GetManagedObjects" and path == "/":
            return Message.new_method_return(message, "a{oa{sa{sv}}}", [self._objects()])
        if interface == PROPERTIES:
            return self._property_call(member, message)
        adapter = self._adapter(path)
        method = self._methods.get((interface, member))
        if method is None:
            raise Refusal("org.freedesktop.DBus.Error.UnknownMethod", f'Method "{member}" does not exist')
        return method(adapter, message)

    def _adapter(self, path: str) -> Adapter:
        for adapter in self._adapters.values():
            if adapter.path == path:
                return adapter
        raise Refusal("org.freedesktop.DBus.Error.UnknownObject", f"No such object path '{path}'")

    def _objects(self) -> dict[str, dict[str, dict[str, Variant]]]:
        known: dict[str, dict[str, dict[str, Variant]]] = {}
        for adapter in self._adapters.values():
            known[adapter.path] = adapter.interfaces()
            known |= {device.path: {DEVICE: device.properties()} for device in adapter.devices.values()}
        return known

    def _property_call(self, member: str, message: Message) -> Message:
        held = self._objects().get(message.path or "", {}).get(message.body[0])
        if held is None:
            raise Refusal(
                "org.freedesktop.DBus.Error.UnknownObject", f"No such object or interface at '{message.path}'"
            )
        if member == "GetAll":
            return Message.new_method_return(message, "a{sv}", [held])
        name = message.body[1]
        if name not in held:
            raise Refusal("org.freedesktop.DBus.Error.InvalidArgs", f"No such property '{name}'")
        if member == "Set" and name == "Powered":
            adapter, on = self._adapter(message.path or ""), bool(message.body[2].value)
            if on and adapter.blocked:
                raise Refusal("Blocked", "Blocked through rfkill")
            if on is not adapter.powered:
                self.power(adapter.name, on=on)
            return Message.new_method_return(message)
        if member == "Get":
            return Message.new_method_return(message, "v", [held[name]])
        raise Refusal("org.freedesktop.DBus.Error.PropertyReadOnly", f"{name} cannot be set")

    def _set_filter(self, adapter: Adapter, message: Message) -> Message:
        adapter.filters[message.sender or ""] = unpack_variants(message.body[0])
        return Message.new_method_return(message)

    def _start_discovery(self, adapter: Adapter, message: Message) -> Message:
        client = message.sender or ""
        if not adapter.powered:
            raise Refusal("NotReady", "Resource Not Ready")
        if client in adapter.sessions:
            raise Refusal("InProgress", "Operation already in progress")
        adapter.deaf = adapter.deaf and adapter.heals != "scan"
        adapter.sessions.add(client)
        if len(adapter.sessions) == 1:
            adapter.begun = asyncio.get_running_loop().time()
            adapter.reported.clear()
            self._changed(adapter.path, ADAPTER, {"Discovering": YES})
        return Message.new_method_return(message)

    def _stop_discovery(self, adapter: Adapter, message: Message) -> Message:
        client = message.sender or ""
        if client not in adapter.sessions:
            raise Refusal("Failed", "No discovery started")
        adapter.sessions.discard(client)
        self._discovery_ended(adapter)
        return Message.new_method_return(message)

    def _discovery_ended(self, adapter: Adapter) -> None:
        if not adapter.sessions:
            self.invalidate_rssi(adapter.name)
            self._changed(adapter.path, ADAPTER, {"Discovering": NO})

    def _register_monitor(self, adapter: Adapter, message: Message) -> Message:
        # The client exports its monitor after our reply and says so by a signal: ask the bus for that signal first.
        self._match("AddMatch", message.sender or "")
        adapter.monitors[message.sender or "", message.body[0]] = None
        return Message.new_method_return(message)

    def _unregister_monitor(self, adapter: Adapter, message: Message) -> Message:
        if adapter.monitors.pop((message.sender or "", message.body[0]), False) is False:
            raise Refusal("DoesNotExist", "Does Not Exist")
        self._match("RemoveMatch", message.sender or "")
        return Message.new_method_return(message)

    def _match(self, member: str, client: str) -> None:
        self._send(bus_call(member, f"type='signal',sender='{client}',member='InterfacesAdded'"))

    def _on_signal(self, message: Message) -> None:
        if message.member == "NameOwnerChanged" and message.sender == "org.freedesktop.DBus":
            name, _, owner = message.body
            if name.startswith(":") and not owner:
                for adapter in self._adapters.values():
                    if adapter.forget_client(name):
                        self._discovery_ended(adapter)
        elif message.member == "InterfacesAdded" and message.sender:
            path, interfaces = message.body
            offered = interfaces.get(_MONITOR)
            for adapter in self._adapters.values():
                if offered and (message.sender, path) in adapter.monitors:
                    patterns = tuple((start, kind, bytes(data)) for start, kind, data in offered["Patterns"].value)
                    adapter.monitors[message.sender, path] = patterns
                    self._send(Message(destination=message.sender, path=path, interface=_MONITOR, member="Activate"))

    def _changed(
        self, path: str, interface: str, changed: dict[str, Variant], *, invalidated: Iterable[str] = ()
    ) -> None:
        self._emit(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, changed, list(invalidated)])

    def _emit(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        self._send(Message.new_signal(path, interface, member, signature, body))

    def _send(self, message: Message) -> None:
        if self._bus is not None and self._bus.connected:
            try:
                self._bus.send(message).add_done_callback(sent)
            except OSError:  # the bus is dying, and dbus-fast has not been told yet
                self.lost += 1

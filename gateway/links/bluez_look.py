"""One look at a Bluetooth adapter, for `diagnose`: is bluetoothd there, the adapter, is it on, does somebody scan?

bluetoothd is never started by asking: activation of a service that cannot start blocks a caller for 25 s. Limits:
`limit_s` for everything together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dbus_fast import BusType, Message, MessageFlag, MessageType, Variant
from dbus_fast.aio import MessageBus

from gateway.links import ble_problems

_BLUEZ: Final = "org.bluez"
_ADAPTER: Final = "org.bluez.Adapter1"
_UNKNOWN_METHOD: Final = "org.freedesktop.DBus.Error.UnknownMethod"


@dataclass(frozen=True, slots=True)
class AdapterLook:
    """What BlueZ says of an adapter. `problem` is a code of `gateway.problems`, "" when it is there and on."""

    problem: str = ""
    detail: str = ""
    discovering: bool = False


def look_at_adapter(adapter: str, *, limit_s: float) -> AdapterLook:
    """Ask BlueZ. Blocks up to `limit_s`; to be called where no event loop runs. Never raises."""
    try:
        return asyncio.run(_look(adapter, limit_s))
    except TimeoutError:
        return AdapterLook(ble_problems.OTHER, f"no answer within {limit_s:g} s")
    except Exception as error:  # noqa: BLE001 - dbus-fast hands through whatever the wire or the kernel says
        return AdapterLook(ble_problems.code_of(error), ble_problems.text_of(error))


async def _look(adapter: str, limit_s: float) -> AdapterLook:
    async with asyncio.timeout(limit_s):
        bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        try:
            return await _ask(bus, adapter)
        finally:
            bus.disconnect()


async def _ask(bus: MessageBus, adapter: str) -> AdapterLook:
    owned = await _call(bus, "org.freedesktop.DBus", "/org/freedesktop/DBus", "NameHasOwner", [_BLUEZ])
    if isinstance(owned, str) or not owned:
        return AdapterLook(ble_problems.NO_DAEMON, owned if isinstance(owned, str) else "")
    found = await _call(
        bus, _BLUEZ, f"/org/bluez/{adapter}", "GetAll", [_ADAPTER], interface="org.freedesktop.DBus.Properties"
    )
    if isinstance(found, str):
        code = ble_problems.NO_ADAPTER if found == _UNKNOWN_METHOD else ble_problems.code_of_name(found)
        return AdapterLook(code, found)
    properties: Mapping[str, Variant] = found
    on, scans = (name in properties and properties[name].value is True for name in ("Powered", "Discovering"))
    return AdapterLook("" if on else ble_problems.SWITCHED_OFF, discovering=scans)


async def _call(bus: MessageBus, to: str, path: str, member: str, body: list[Any], *, interface: str = "") -> Any:
    """Call and return the first value of the answer, or the name of the error."""
    message = Message(
        destination=to, path=path, interface=interface or to, member=member, signature="s" * len(body), body=body,
        flags=MessageFlag.NO_AUTOSTART,
    )  # fmt: skip
    reply = await bus.call(message)
    if reply is None:
        raise EOFError("the bus ended the connection")
    return str(reply.error_name) if reply.message_type is MessageType.ERROR else reply.body[0]

"""What systemd-timedated knows of the clock: has anybody synchronised it?

It reads in the kernel what a unit with ProtectClock=yes may not (adjtimex(2)); with chrony there is no other witness. It is
started by being asked, and ends by itself. Limits: `limit_s` for everything together.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

_NAME: Final = "org.freedesktop.timedate1"


async def is_synchronised(*, limit_s: float) -> bool | None:
    """Ask timedated; None where it gives no answer. Never raises but for cancellation."""
    try:
        async with asyncio.timeout(limit_s):
            return await _ask()
    except Exception:  # noqa: BLE001 - dbus-fast hands through whatever the wire or the kernel says
        return None


async def _ask() -> bool | None:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    try:
        reply = await bus.call(
            Message(
                destination=_NAME, path="/org/freedesktop/timedate1", interface="org.freedesktop.DBus.Properties",
                member="Get", signature="ss", body=[_NAME, "NTPSynchronized"],
            )
        )  # fmt: skip
    finally:
        bus.disconnect()
    said: Any = None if reply.message_type is MessageType.ERROR else reply.body[0].value
    return said if isinstance(said, bool) else None

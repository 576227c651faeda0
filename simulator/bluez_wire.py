"""What the pretended bluetoothd needs of D-Bus itself: refusals as error replies, and a socket that waits when it is full."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any

from dbus_fast import Message


class BluezError(Exception):
    """The pretended bluetoothd cannot live: no bus, or somebody else owns the name."""


class Refusal(Exception):
    """A D-Bus error reply. A short name stands for org.bluez.Error.NAME."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name if "." in name else f"org.bluez.Error.{name}"
        self.text = text


class PatientSocket:
    """dbus-fast 5.2 drops a connection whose socket buffer is full; a send of nothing makes it wait instead."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner

    def send(self, data: bytes) -> int:
        try:
            return self._inner.send(data)
        except BlockingIOError:
            return 0

    def sendmsg(self, buffers: Iterable[bytes], ancillary: Any) -> int:
        try:
            return self._inner.sendmsg(buffers, ancillary)
        except BlockingIOError:
            return 0


def sent(future: asyncio.Future[Any]) -> None:
    """Look at the outcome: a bus that died is noticed by `wait_lost`, not once for each message."""
    if not future.cancelled():
        future.exception()


def bus_call(member: str, rule: str) -> Message:
    return Message(
        destination="org.freedesktop.DBus",
        path="/org/freedesktop/DBus",
        interface="org.freedesktop.DBus",
        member=member,
        signature="s",
        body=[rule],
    )

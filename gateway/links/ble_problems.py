"""Which problem an error of the Bluetooth stack is.

bleak hands through what it meets: errors of the operating system, of the D-Bus daemon, of bluetoothd, and its own.
Limits: an error's text is kept to one line of 200 characters; an error that is not known here is GW-BLE-07.
"""

from __future__ import annotations

from typing import Final

from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakError,
)
from dbus_fast.errors import AuthError, InvalidAddressError

NO_BUS: Final = "GW-BLE-01"
NO_DAEMON: Final = "GW-BLE-02"
NO_ADAPTER: Final = "GW-BLE-03"
SWITCHED_OFF: Final = "GW-BLE-04"
DENIED: Final = "GW-BLE-05"
DEAF: Final = "GW-BLE-06"
OTHER: Final = "GW-BLE-07"
BLOCKED: Final = "GW-BLE-08"
# These two are warnings: it hears, or may do so.
STANDS_IN: Final = "GW-BLE-09"
SILENT: Final = "GW-BLE-10"

_TEXT_MAX: Final = 200

# D-Bus error names (D-Bus specification, "Message Bus Messages"; BlueZ doc/org.bluez.Adapter).
_BY_NAME: Final[dict[str, str]] = {
    "org.freedesktop.DBus.Error.ServiceUnknown": NO_DAEMON,
    "org.freedesktop.DBus.Error.NameHasNoOwner": NO_DAEMON,
    # The bus daemon says so when the one who should have answered left the bus.
    "org.freedesktop.DBus.Error.NoReply": NO_DAEMON,
    "org.freedesktop.DBus.Error.TimedOut": NO_DAEMON,
    "org.freedesktop.systemd1.NoSuchUnit": NO_DAEMON,
    "org.freedesktop.DBus.Error.UnknownObject": NO_ADAPTER,
    "org.freedesktop.DBus.Error.UnknownInterface": NO_ADAPTER,
    "org.bluez.Error.NotReady": SWITCHED_OFF,
    "org.bluez.Error.Blocked": BLOCKED,
    "org.freedesktop.DBus.Error.AccessDenied": DENIED,
    "org.bluez.Error.NotAuthorized": DENIED,
    "org.bluez.Error.NotPermitted": DENIED,
}
_NAME_PREFIXES: Final = (("org.freedesktop.DBus.Error.Spawn.", NO_DAEMON), ("org.freedesktop.systemd1.", NO_DAEMON))
_BY_REASON: Final = {
    BleakBluetoothNotAvailableReason.NO_BLUETOOTH: NO_ADAPTER,
    BleakBluetoothNotAvailableReason.POWERED_OFF: SWITCHED_OFF,
    BleakBluetoothNotAvailableReason.DENIED_BY_SYSTEM: DENIED,
    BleakBluetoothNotAvailableReason.DENIED_BY_USER: DENIED,
    BleakBluetoothNotAvailableReason.DENIED_BY_UNKNOWN: DENIED,
}


def code_of_name(name: str) -> str:
    """Return the problem code for a D-Bus error name."""
    for prefix, code in _NAME_PREFIXES:
        if name.startswith(prefix):
            return code
    return _BY_NAME.get(name, OTHER)


def code_of(error: BaseException) -> str:
    """Return the problem code for what a call into bleak or dbus-fast raised."""
    # TimeoutError is an OSError since Python 3.11: it must be looked at first. It says nothing of who is silent.
    if isinstance(error, TimeoutError):
        return OTHER
    # BrokenPipeError and AuthError: the bus closed the door while we said who we are; it does so to users it refuses.
    if isinstance(error, PermissionError | BrokenPipeError | AuthError):
        return DENIED
    if isinstance(error, OSError | EOFError | InvalidAddressError):
        return NO_BUS
    if isinstance(error, BleakDBusError):
        return code_of_name(error.dbus_error)
    if isinstance(error, BleakBluetoothNotAvailableError):
        return _BY_REASON.get(error.reason, OTHER)
    # bleak 3.1 has no class of its own for this; the words are those of BlueZManager._check_adapter.
    if isinstance(error, BleakError) and str(error).startswith("adapter ") and str(error).endswith(" not found"):
        return NO_ADAPTER
    return OTHER


def spoils_connection(error: BaseException) -> bool:
    """Tell whether the D-Bus connection that met this error should not be used again.

    An answer of bluetoothd spoils nothing, with one exception: InProgress says that a discovery is still booked for us.
    bleak's own refusals spoil nothing either; anything else may come from a connection that is dying.
    """
    if isinstance(error, BleakDBusError):
        return error.dbus_error == "org.bluez.Error.InProgress"
    return not isinstance(error, BleakError)


def text_of(error: BaseException) -> str:
    """Return an error in one line."""
    said = " ".join(str(error).split())
    kind = type(error).__name__
    return f"{kind}: {said}"[:_TEXT_MAX] if said else kind

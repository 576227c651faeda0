"""Which problem an error of the Bluetooth stack is."""

from __future__ import annotations

import pytest
from bleak.exc import BleakBluetoothNotAvailableError, BleakBluetoothNotAvailableReason, BleakDBusError, BleakError

from gateway.links import ble_problems


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError(2, "No such file or directory"), "GW-BLE-01"),
        (ConnectionRefusedError(111, "Connection refused"), "GW-BLE-01"),
        (EOFError(), "GW-BLE-01"),
        (BrokenPipeError(32, "Broken pipe"), "GW-BLE-05"),
        (PermissionError(13, "Permission denied"), "GW-BLE-05"),
        (TimeoutError(), "GW-BLE-07"),
        (BleakDBusError("org.freedesktop.DBus.Error.ServiceUnknown", ["gone"]), "GW-BLE-02"),
        (BleakDBusError("org.freedesktop.DBus.Error.Spawn.ChildExited", ["exited"]), "GW-BLE-02"),
        (BleakDBusError("org.freedesktop.DBus.Error.UnknownObject", ["hci0"]), "GW-BLE-03"),
        (BleakDBusError("org.bluez.Error.NotReady", ["Resource Not Ready"]), "GW-BLE-04"),
        (BleakDBusError("org.bluez.Error.Blocked", ["Blocked through rfkill"]), "GW-BLE-08"),
        (BleakDBusError("org.freedesktop.DBus.Error.AccessDenied", ["no"]), "GW-BLE-05"),
        (BleakDBusError("org.bluez.Error.Failed", ["?"]), "GW-BLE-07"),
        (BleakError("adapter 'hci7' not found"), "GW-BLE-03"),
        (BleakError("something else"), "GW-BLE-07"),
        (BleakBluetoothNotAvailableError("no", BleakBluetoothNotAvailableReason.NO_BLUETOOTH), "GW-BLE-03"),
        (BleakBluetoothNotAvailableError("off", BleakBluetoothNotAvailableReason.POWERED_OFF), "GW-BLE-04"),
        (BleakBluetoothNotAvailableError("no", BleakBluetoothNotAvailableReason.DENIED_BY_SYSTEM), "GW-BLE-05"),
        (AttributeError("'NoneType' object has no attribute 'message_type'"), "GW-BLE-07"),
    ],
)
def test_errors_of_the_bluetooth_stack_are_problems_with_a_code(error: Exception, code: str) -> None:
    assert ble_problems.code_of(error) == code


def test_an_error_is_told_in_one_short_line() -> None:
    assert ble_problems.text_of(ValueError("two\nlines  here")) == "ValueError: two lines here"
    assert ble_problems.text_of(EOFError()) == "EOFError"
    assert len(ble_problems.text_of(ValueError("x" * 5000))) == 200

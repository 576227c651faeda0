"""The configuration: one TOML file in, typed frozen settings out, every finding at once with line and remedy."""

from gateway.config.loading import inspect, load
from gateway.config.secret import Secret
from gateway.config.settings import (
    CONTROL_SOCKET,
    DATA_DIR,
    Ble,
    Destination,
    DestinationPath,
    Device,
    Gateway,
    Mqtt,
    Outbox,
    Receiver,
    Room,
    Serial,
    Settings,
)
from gateway.errors import Finding

__all__ = [
    "CONTROL_SOCKET",
    "DATA_DIR",
    "Ble",
    "Destination",
    "DestinationPath",
    "Device",
    "Finding",
    "Gateway",
    "Mqtt",
    "Outbox",
    "Receiver",
    "Room",
    "Secret",
    "Serial",
    "Settings",
    "inspect",
    "load",
]

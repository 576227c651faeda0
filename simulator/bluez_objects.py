"""The objects that a pretended bluetoothd exports: adapters and the devices that they have lately heard.

Pure state and its D-Bus form; who may call what, and when a signal goes out, is `simulator.bluez`.
How reports become property changes follows bluetoothd up to 5.87 on a dual-mode adapter (all Raspberry Pi):
with a client that asked for DuplicateData every report is told whole; without one only what changed is told, company
ids accumulate, and RSSI is told each time; with passive monitors alone RSSI is told from 8 dB of difference on.
Limits: none of its own; a device object holds the last report only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dbus_fast import Variant

ADAPTER: Final = "org.bluez.Adapter1"
DEVICE: Final = "org.bluez.Device1"
YES: Final = Variant(signature="b", value=True)
NO: Final = Variant(signature="b", value=False)
MONITORS: Final = "org.bluez.AdvertisementMonitorManager1"
_PASSIVE_RSSI_STEP_DB: Final = 8
_BASE_UUID: Final = "0000{:04x}-0000-1000-8000-00805f9b34fb"


@dataclass(frozen=True, slots=True)
class Report:
    """One advertising report as a controller hands it up. `address`: upper case, colons; `rssi` in dBm."""

    address: str
    rssi: int
    name: str = ""
    service_data: Mapping[int, bytes] = field(default_factory=dict)
    manufacturer_data: Mapping[int, bytes] = field(default_factory=dict)

    def structures(self) -> list[tuple[int, bytes]]:
        """Return its AD structures (type, data), which passive monitors match against."""
        found = [(0x01, b"\x06")]
        found += [(0x16, uuid.to_bytes(2, "little") + data) for uuid, data in self.service_data.items()]
        found += [(0xFF, company.to_bytes(2, "little") + data) for company, data in self.manufacturer_data.items()]
        if self.name:
            found.append((0x09, self.name.encode()))
        return found


@dataclass(slots=True)
class Device:
    """A device object, which lives while it is heard. `pending` collects changes until the loop is idle, like gdbus."""

    path: str
    adapter: str
    address: str
    heard_at: float
    name: str = ""
    rssi: int | None = None
    manufacturer_data: dict[int, bytes] = field(default_factory=dict)
    service_data: dict[int, bytes] = field(default_factory=dict)
    pending: dict[str, Variant] = field(default_factory=dict)

    def take(self, report: Report, *, duplicates: bool, active: bool) -> dict[str, Variant]:
        """Take in a report; return the properties that bluetoothd tells of it (none: the report stays unheard)."""
        changed: dict[str, Variant] = {}
        if report.name and report.name != self.name:
            self.name = report.name
            changed |= {"Name": Variant("s", self.name), "Alias": Variant("s", self.name)}
        if _merge(self.manufacturer_data, report.manufacturer_data, duplicates=duplicates):
            changed["ManufacturerData"] = self._manufacturer_variant()
        if _merge(self.service_data, report.service_data, duplicates=duplicates):
            changed["ServiceData"] = self._service_variant()
        if active or self.rssi is None or abs(report.rssi - self.rssi) >= _PASSIVE_RSSI_STEP_DB:
            self.rssi = report.rssi
            changed["RSSI"] = Variant("n", self.rssi)
        return changed

    def properties(self) -> dict[str, Variant]:
        """Return everything that Device1 tells."""
        known: dict[str, Variant] = {
            "Address": Variant("s", self.address),
            "AddressType": Variant("s", "random"),
            "Alias": Variant("s", self.name or self.address.replace(":", "-")),
            "Adapter": Variant("o", self.adapter),
            "UUIDs": Variant("as", []),
        }
        for flag in ("Paired", "Bonded", "Trusted", "Blocked", "LegacyPairing", "Connected", "ServicesResolved"):
            known[flag] = NO
        if self.name:
            known["Name"] = Variant("s", self.name)
        if self.rssi is not None:
            known["RSSI"] = Variant("n", self.rssi)
        if self.manufacturer_data:
            known["ManufacturerData"] = self._manufacturer_variant()
        if self.service_data:
            known["ServiceData"] = self._service_variant()
        return known

    def _manufacturer_variant(self) -> Variant:
        return Variant("a{qv}", {company: Variant("ay", data) for company, data in self.manufacturer_data.items()})

    def _service_variant(self) -> Variant:
        known = {_BASE_UUID.format(uuid): Variant("ay", data) for uuid, data in self.service_data.items()}
        return Variant("a{sv}", known)


def _merge(held: dict[int, bytes], fresh: Mapping[int, bytes], *, duplicates: bool) -> bool:
    """Put fresh data into what is held; say whether bluetoothd would tell it."""
    if duplicates:
        if fresh:
            held.clear()
        held.update(fresh)
        return bool(fresh)
    differs = any(held.get(key) != value for key, value in fresh.items())
    held.update(fresh)
    return differs


Pattern = tuple[int, int, bytes]  # start position, AD type, content


@dataclass(slots=True)
class Adapter:
    """One controller. Sessions, filters and monitors belong to D-Bus clients (unique names)."""

    name: str
    address: str
    experimental: bool
    powered: bool = True
    deaf: bool = False
    heals_on_start: bool = False
    sessions: set[str] = field(default_factory=set)
    filters: dict[str, dict[str, Any]] = field(default_factory=dict)
    monitors: dict[tuple[str, str], tuple[Pattern, ...] | None] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Its D-Bus object path."""
        return f"/org/bluez/{self.name}"

    def duplicates(self) -> bool:
        """Tell whether a discovering client wants every report whole."""
        return any(self.filters.get(client, {}).get("DuplicateData", False) for client in self.sessions)

    def hears(self, report: Report) -> bool:
        """Tell whether anybody scans for such a report: one that nobody scans for is gone for good."""
        if not self.powered or self.deaf:
            return False
        if self.sessions:
            return True
        structures = report.structures() if self.monitors else []
        return any(_matches(patterns, structures) for patterns in self.monitors.values() if patterns)

    def properties(self) -> dict[str, Variant]:
        """Return everything that Adapter1 tells."""
        return {
            "Address": Variant("s", self.address),
            "AddressType": Variant("s", "public"),
            "Name": Variant("s", self.name),
            "Alias": Variant("s", self.name),
            "Powered": Variant("b", self.powered),
            "Discovering": Variant("b", bool(self.sessions)),
            "Discoverable": NO,
            "Pairable": NO,
            "Roles": Variant("as", ["central", "peripheral"]),
            "UUIDs": Variant("as", []),
        }

    def interfaces(self) -> dict[str, dict[str, Variant]]:
        """Return all interfaces of the object with their properties."""
        offered = {ADAPTER: self.properties()}
        if self.experimental:
            offered[MONITORS] = {
                "SupportedMonitorTypes": Variant("as", ["or_patterns"]),
                "SupportedFeatures": Variant("as", []),
            }
        return offered

    def forget_client(self, client: str) -> bool:
        """Drop everything of a client that left the bus; tell whether its discovery ended with it."""
        self.filters.pop(client, None)
        for key in [key for key in self.monitors if key[0] == client]:
            del self.monitors[key]
        discovered = client in self.sessions
        self.sessions.discard(client)
        return discovered


def _matches(patterns: tuple[Pattern, ...], structures: list[tuple[int, bytes]]) -> bool:
    """Tell whether one of the patterns stands in one of the AD structures at its position."""
    return any(
        kind == ad_type and data[start : start + len(content)] == content
        for start, ad_type, content in patterns
        for kind, data in structures
    )

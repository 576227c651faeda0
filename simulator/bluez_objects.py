"""The objects that a pretended bluetoothd exports: adapters and the devices that they have lately heard.

Pure state and its D-Bus form; who may call what, and when a signal goes out, is `simulator.bluez`.
How reports become property changes follows bluetoothd: with a client that asked for DuplicateData every report is told
whole; without one only what changed is told, company ids accumulate, and RSSI is told each time (up to 5.87, on a
dual-mode adapter as all Raspberry Pi have), or from 8 dB of difference on (from 5.88, on an LE-only adapter, and with
passive monitors alone). An LE-only adapter scans 10.24 s and rests 5 s when no client filters its discovery. In an active
scan a controller may drop what it takes for duplicates, unless a monitor exists.
Limits: none of its own; a device object holds the last report only; a controller remembers duplicates until its scan
is started anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dbus_fast import Variant

ADAPTER: Final = "org.bluez.Adapter1"
DEVICE: Final = "org.bluez.Device1"
YES: Final = Variant(signature="b", value=True)
NO: Final = Variant(signature="b", value=False)
MONITORS: Final = "org.bluez.AdvertisementMonitorManager1"
_RSSI_STEP_DB: Final = 8
_REGULAR_SCAN_S: Final = 10.24
_REGULAR_IDLE_S: Final = 5.0
# What makes a discovery a filtered one (BlueZ src/adapter.c, merge_discovery_filters); Transport does on dual-mode only.
_FILTERS: Final = frozenset({"DuplicateData", "RSSI", "Pathloss", "UUIDs"})
Heals = Literal["scan", "power", "never"]
Duplicates = Literal["told", "by address", "by data"]
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

    def take(self, report: Report, *, duplicates: bool, every_rssi: bool) -> dict[str, Variant]:
        """Take in a report; return the properties that bluetoothd tells of it (none: the report stays unheard)."""
        changed: dict[str, Variant] = {}
        if report.name and report.name != self.name:
            self.name = report.name
            changed |= {"Name": Variant("s", self.name), "Alias": Variant("s", self.name)}
        if _merge(self.manufacturer_data, report.manufacturer_data, duplicates=duplicates):
            changed["ManufacturerData"] = self._manufacturer_variant()
        if _merge(self.service_data, report.service_data, duplicates=duplicates):
            changed["ServiceData"] = self._service_variant()
        if every_rssi or self.rssi is None or abs(report.rssi - self.rssi) >= _RSSI_STEP_DB:
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
    blocked: bool = False
    deaf: bool = False
    heals: Heals = "scan"
    dual_mode: bool = True
    coarse_rssi: bool = False
    has_power_state: bool = True
    controller: Duplicates = "told"
    sessions: set[str] = field(default_factory=set)
    filters: dict[str, dict[str, Any]] = field(default_factory=dict)
    monitors: dict[tuple[str, str], tuple[Pattern, ...] | None] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    begun: float = 0.0
    reported: set[tuple[str, ...]] = field(default_factory=set)

    @property
    def path(self) -> str:
        """Its D-Bus object path."""
        return f"/org/bluez/{self.name}"

    def duplicates(self) -> bool:
        """Tell whether a discovering client wants every report whole."""
        return any(self.filters.get(client, {}).get("DuplicateData", False) for client in self.sessions)

    def every_rssi(self) -> bool:
        """Tell whether each report's RSSI is told, however little it differs."""
        asked = {name for client in self.sessions for name in self.filters.get(client, {})}
        if self.coarse_rssi:
            return bool(asked & {"RSSI", "Pathloss"})
        return bool(self.sessions) and (self.dual_mode or not self._regular())

    def hears(self, report: Report, now: float) -> bool:
        """Tell whether anybody scans for such a report: one that nobody scans for is gone for good."""
        if not self.powered or self.deaf:
            return False
        if self.sessions:
            return not self._rests(now) and not self._is_duplicate(report)
        structures = report.structures() if self.monitors else []
        return any(_matches(patterns, structures) for patterns in self.monitors.values() if patterns)

    def _regular(self) -> bool:
        """Tell whether a client discovers without any filter that counts as one."""
        return any(
            not any(self.filters.get(client, {}).get(name, False) for name in _FILTERS) for client in self.sessions
        )

    def _rests(self, now: float) -> bool:
        if self.dual_mode or not self._regular():
            return False
        return (now - self.begun) % (_REGULAR_SCAN_S + _REGULAR_IDLE_S) > _REGULAR_SCAN_S

    def _is_duplicate(self, report: Report) -> bool:
        """Tell whether the controller takes it for one; the kernel lets it, unless there is a monitor."""
        if self.controller == "told" or any(self.monitors.values()):
            return False
        data = repr(sorted(report.structures())) if self.controller == "by data" else ""
        key = (report.address, data)
        known = key in self.reported
        self.reported.add(key)
        return known

    def properties(self) -> dict[str, Variant]:
        """Return everything that Adapter1 tells."""
        return {
            "Address": Variant("s", self.address),
            "AddressType": Variant("s", "public"),
            "Name": Variant("s", self.name),
            "Alias": Variant("s", self.name),
            "Powered": Variant("b", self.powered),
            **self.power_state(),
            "Discovering": Variant("b", bool(self.sessions)),
            "Discoverable": NO,
            "Pairable": NO,
            "Roles": Variant("as", ["central", "peripheral"]),
            "UUIDs": Variant("as", []),
        }

    def power_state(self) -> dict[str, Variant]:
        """Return the property PowerState, where it has one."""
        state = "on" if self.powered else "off-blocked" if self.blocked else "off"
        return {"PowerState": Variant("s", state)} if self.has_power_state else {}

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

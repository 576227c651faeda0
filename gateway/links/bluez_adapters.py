"""The adapters that bluetoothd has, as it tells of them, and which of them a radio uses.

The configured one, if it can be used. A USB adapter that is plugged in again may come back under another number, and of
two adapters one may break: hearing with the wrong antenna is better than not hearing, so one that is on, and that no
other radio of the configuration claims, stands in, and that is told. The configured one is taken back once it can be used.
Limits: hci0 to hci7 are looked at, and the configured one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from gateway.links import ble_problems

ADAPTER: Final = "org.bluez.Adapter1"
MONITORS: Final = "org.bluez.AdvertisementMonitorManager1"
_ROOT: Final = "/org/bluez/"
_MOST: Final = 8


class AdapterState(Enum):
    """What is known of the adapter; the value is the problem code, None when there is none to report."""

    UNKNOWN = "unknown"
    READY = "ready"
    NO_BUS = ble_problems.NO_BUS
    NO_DAEMON = ble_problems.NO_DAEMON
    NO_ADAPTER = ble_problems.NO_ADAPTER
    SWITCHED_OFF = ble_problems.SWITCHED_OFF
    BLOCKED = ble_problems.BLOCKED
    DENIED = ble_problems.DENIED

    @property
    def problem(self) -> str | None:
        """The problem code of the state; None for READY and UNKNOWN."""
        return None if self in {AdapterState.UNKNOWN, AdapterState.READY} else str(self.value)


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """One adapter. `blocked`: rfkill keeps it off; `scans`: bluetoothd says so; `monitors`: it offers passive monitors."""

    name: str
    powered: bool = False
    blocked: bool = False
    scans: bool = False
    monitors: bool = False

    @property
    def path(self) -> str:
        """Its D-Bus object path."""
        return _ROOT + self.name

    @property
    def state(self) -> AdapterState:
        """Whether it can be used."""
        if self.powered:
            return AdapterState.READY
        return AdapterState.BLOCKED if self.blocked else AdapterState.SWITCHED_OFF

    def changed(self, properties: Mapping[str, Any]) -> AdapterFacts:
        """Return it with changed properties of Adapter1 (BlueZ doc/org.bluez.Adapter)."""
        powered = _value(properties, "Powered", default=self.powered) is True
        # Old releases have no PowerState: there a refusal said that it is blocked, until it is switched on.
        blocked = self.blocked and not powered
        if "PowerState" in properties:
            blocked = _value(properties, "PowerState", default="") == "off-blocked"
        scans = _value(properties, "Discovering", default=self.scans) is True
        return replace(self, powered=powered, blocked=blocked, scans=scans)


def names(configured: str) -> tuple[str, ...]:
    """Return the adapters that are looked at."""
    return tuple(dict.fromkeys((configured, *(f"hci{number}" for number in range(_MOST)))))


def name_of(path: str) -> str:
    """Return the adapter of an object path, "" for any other object."""
    name = path.removeprefix(_ROOT)
    return name if path.startswith(_ROOT) and "/" not in name else ""


def seen(known: AdapterFacts, interfaces: Mapping[str, Mapping[str, Any]]) -> AdapterFacts:
    """Return what is known of an adapter after it showed interfaces."""
    facts = known.changed(interfaces[ADAPTER]) if ADAPTER in interfaces else known
    return replace(facts, monitors=True) if MONITORS in interfaces else facts


def all_of(objects: Mapping[str, Mapping[str, Mapping[str, Any]]], configured: str) -> dict[str, AdapterFacts]:
    """Return the adapters among bluetoothd's objects (the answer of GetManagedObjects)."""
    wanted = names(configured)
    return {
        name: seen(AdapterFacts(name), interfaces)
        for path, interfaces in objects.items()
        if (name := name_of(path)) in wanted and ADAPTER in interfaces
    }


def stand_in(adapters: Mapping[str, AdapterFacts], configured: str, taken: Collection[str]) -> AdapterFacts | None:
    """Return the adapter that can be used while the configured one cannot; none that is off: somebody may want it so."""
    free = (adapters[name] for name in names(configured) if name in adapters and name not in {configured, *taken})
    return next((one for one in free if one.powered), None)


def _value(properties: Mapping[str, Any], name: str, *, default: object) -> object:
    variant = properties.get(name)
    return default if variant is None else variant.value

"""Power and heat: an under-volted Pi loses USB adapters and SD writes long before it stops.

Sources: the kernel's hwmon driver of the Raspberry Pi (`rpi_volt`), the firmware's throttling word where the kernel
shows it, thermal zones, and power supplies. None of them needs a command or a privilege.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from gateway.diagnose.report import Line, bad, ok, skipped
from gateway.diagnose.site import Probe, Site

HOT_C: Final = 80.0  # the firmware slows a Pi down from 80 degrees on
BATTERY_LOW_PERCENT: Final = 30
_THROTTLED: Final = "sys/devices/platform/soc/soc:firmware/get_throttled"
# Raspberry Pi documentation, "get_throttled": bit 0 under-voltage, 1 frequency capped, 2 throttled, 3 soft temperature
# limit, all now; the same from bit 16 on since boot.
_UNDER_VOLTAGE_NOW: Final = 1 << 0
_SLOWED_NOW: Final = 0b1110
_UNDER_VOLTAGE_SEEN: Final = 1 << 16
_SLOWED_SEEN: Final = 0b1110 << 16


def probes(_site: Site) -> Iterator[Probe]:
    """Yield the probes of this section."""
    yield Probe("power", "voltage", "GW-PWR-01", _voltage)
    yield Probe("power", "temperature", "GW-PWR-03", _temperature)
    yield Probe("power", "supply", "GW-PWR-04", _supply)


def _voltage(site: Site) -> Iterable[Line]:
    machine = site.machine
    alarm = next(
        (
            machine.number(one / "in0_lcrit_alarm")
            for one in machine.entries("sys/class/hwmon")
            if machine.read(one / "name") == "rpi_volt"
        ),
        None,
    )
    try:
        # The kernel shows the word in hexadecimal, with or without its prefix.
        bits: int | None = int(machine.read(_THROTTLED) or "", 16)
    except ValueError:
        bits = None
    if alarm is None and bits is None:
        return [skipped("GW-PWR-01", "voltage", "@diagnose.why-no-voltage")]
    word = f"0x{bits:x}" if bits is not None else f"in0_lcrit_alarm={alarm}"
    bits = bits or 0
    if alarm or bits & _UNDER_VOLTAGE_NOW:
        return [bad("GW-PWR-01", "voltage", word)]
    if bits & (_SLOWED_NOW | _UNDER_VOLTAGE_SEEN | _SLOWED_SEEN):
        return [bad("GW-PWR-02", "voltage", word, threshold="0x0")]
    return [ok("GW-PWR-01", "voltage", word)]


def _temperature(site: Site) -> Iterable[Line]:
    machine = site.machine
    zones = [machine.number(one / "temp") for one in machine.entries("sys/class/thermal") if (one / "temp").exists()]
    known = [zone / 1000 for zone in zones if zone is not None]
    if not known:
        return [skipped("GW-PWR-03", "temperature", "@diagnose.why-no-temperature")]
    make = bad if max(known) >= HOT_C else ok
    celsius = f"{max(known):.0f}"
    return [make("GW-PWR-03", "temperature", f"{celsius} °C", threshold=f"< {HOT_C:.0f} °C", celsius=celsius)]


def _supply(site: Site) -> Iterable[Line]:
    machine = site.machine
    supplies = list(machine.entries("sys/class/power_supply"))
    lines: list[Line] = []
    for one in supplies:
        kind = machine.read(one / "type")
        if kind == "Mains":
            online = machine.number(one / "online")
            make = ok if online else bad
            lines.append(make("GW-PWR-04", "supply", f"online={online}", subject=one.name))
        elif kind in ("Battery", "UPS"):
            lines += _battery(site, one.name)
    return lines or [skipped("GW-PWR-04", "supply", "@diagnose.why-no-supply")]


def _battery(site: Site, name: str) -> Iterator[Line]:
    folder = f"sys/class/power_supply/{name}"
    capacity, state = site.machine.number(f"{folder}/capacity"), site.machine.read(f"{folder}/status") or "?"
    value = f"{capacity} %, {state}"
    if capacity is None:
        yield skipped("GW-PWR-05", "battery", "@diagnose.why-no-figure", subject=name)
        return
    make = bad if capacity < BATTERY_LOW_PERCENT else ok
    threshold = f">= {BATTERY_LOW_PERCENT} %"
    yield make("GW-PWR-05", "battery", value, threshold=threshold, subject=name, percent=capacity)
    if state == "Discharging":
        yield bad("GW-PWR-04", "supply", value, subject=name)

"""Each device: when it was last heard, how strong, its battery, what was rejected of it, its counter, its last test.

Limits of what counts as well: a polled device has answered within three intervals (60 s at least); what speaks by radio, on
the air or to a receiver on a line, and only when it is pressed, has been heard within `PRESSED_S` (a test a week), any
other within `HEARD_S`; a battery has `BATTERY_PERCENT`; a radio is heard at `RSSI_DBM` or better. There is no walk test in this
version, so "last tested" is never.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from drivers.kit import Advertises, Answers, Streams
from gateway.config import Device
from gateway.diagnose.report import Line, bad, ok, skipped, unknown
from gateway.diagnose.site import Probe, Site
from gateway.texts.amounts import Age

HEARD_S: Final = 4 * 3600.0
POLLED_S: Final = 60.0
PRESSED_S: Final = 8 * 86_400.0
DEFAULT_EVERY_S: Final = 900.0
BATTERY_PERCENT: Final = 20
RSSI_DBM: Final = -90


def probes(_site: Site) -> Iterator[Probe]:
    """Yield the probe of this section."""
    yield Probe("devices", "device", "GW-DEV-20", _devices)


def _devices(site: Site) -> Iterable[Line]:
    devices = site.settings.devices if site.settings else ()
    if not devices:
        return [skipped("GW-DEV-20", "device", "@diagnose.why-no-devices")]
    if site.daemon.runs:
        return [line for one in devices for line in _running(site, one)]
    return [_stored(site, one) for one in devices]


def _running(site: Site, device: Device) -> Iterator[Line]:
    status = site.daemon.one_of("devices", device.id)
    if not status:  # added to the configuration after the start
        yield skipped("GW-DEV-20", "device", "@diagnose.why-not-loaded", subject=device.id)
        return
    facts = _facts(device, status)
    code, limit_s = _normal(device)
    threshold, value = f"<= {Age(limit_s).say('en')}", "@diagnose.device-now"
    silent_s = float(status["last_heard_s"]) if status.get("last_heard_s") is not None else None
    uptime_s = float(site.daemon.status.get("uptime_s") or 0)
    if silent_s is None and uptime_s <= limit_s:
        yield unknown(code, "device", "@diagnose.why-not-heard-yet", subject=device.id, uptime=Age(uptime_s), **facts)
    elif silent_s is None or silent_s > limit_s:
        silent = Age(uptime_s if silent_s is None else silent_s)
        yield bad(code, "device", value, threshold=threshold, subject=device.id, silent=silent, **facts)
    else:
        yield ok(code, "device", value, threshold=threshold, subject=device.id, **facts)
    yield from _weak(device, status, facts)


def _normal(device: Device) -> tuple[str, float]:
    """Return what it is when a device is silent, and after how many seconds it is."""
    driver = device.driver
    if isinstance(driver, Answers):
        return "GW-DEV-01", max(POLLED_S, 3 * float(device.every_s or DEFAULT_EVERY_S))
    if isinstance(driver, Streams) and driver.radio and not driver.beats and device.address:
        return "GW-DEV-20", PRESSED_S
    if isinstance(driver, Advertises) and driver.only_when_used:
        return "GW-DEV-20", PRESSED_S
    if isinstance(driver, Streams) and driver.poll is not None:
        return "GW-DEV-01", max(POLLED_S, 3 * float(device.every_s or driver.poll.every_s))
    return "GW-DEV-20", HEARD_S


def _weak(device: Device, status: Mapping[str, Any], facts: Mapping[str, object]) -> Iterator[Line]:
    battery, rssi = status.get("battery_percent"), status.get("rssi")
    if battery is not None and float(battery) < BATTERY_PERCENT:
        threshold = f">= {BATTERY_PERCENT} %"
        yield bad("GW-DEV-21", "battery", f"{battery:g} %", threshold=threshold, subject=device.id, **facts)
    if rssi is not None and float(rssi) < RSSI_DBM:
        threshold = f">= {RSSI_DBM} dBm"
        yield bad("GW-DEV-22", "signal", f"{rssi} dBm", threshold=threshold, subject=device.id, **facts)


def _facts(device: Device, status: Mapping[str, Any]) -> dict[str, object]:
    last, battery, rejects = status.get("last_heard_s"), status.get("battery_percent"), status.get("rejects") or {}
    return {
        "link": device.link, "room": device.room, "model": device.model,
        "last": None if last is None else Age(float(last)),
        "battery": None if battery is None else f"{battery:g}",
        "rssi": status.get("rssi"),
        "rejects": " ".join(f"{reason}:{count}" for reason, count in rejects.items()),
        "counter": status.get("counter"),
        "failed": status.get("polls_failed") or None, "polls": status.get("polls") or None,
        "tested": None, "note": _note(device),
    }  # fmt: skip


def _note(device: Device) -> Mapping[str, str] | None:
    """What its driver has to say to whoever looks for a fault, in both languages."""
    note = device.driver.note if isinstance(device.driver, Streams) else None
    return {"zh": note.zh, "en": note.en} if note else None


def _stored(site: Site, device: Device) -> Line:
    """Without a daemon only what was stored last is known."""
    inspection = site.inspection
    last_ms = inspection.last_ms.get(device.id) if inspection else None
    last = None if last_ms is None else Age(max(0.0, (site.now_ms - last_ms) / 1000))
    kept = "@diagnose.counter-kept" if inspection and device.id in inspection.counters else ""
    why = "@diagnose.why-no-daemon-device"
    return unknown("GW-DEV-20", "device", why, subject=device.id, last=last, kept=kept, link=device.link)

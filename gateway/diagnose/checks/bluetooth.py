"""Bluetooth: is the adapter there, on, and not blocked; does bluetoothd answer; does the gateway hear adverts?

Of receivers elsewhere only the daemon knows: what it hears through each is shown here, what keeps it from hearing it tells
itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from gateway.config import Ble
from gateway.diagnose.report import Line, bad, ok, skipped
from gateway.diagnose.site import Probe, Site
from gateway.links.bluez_look import look_at_adapter
from gateway.texts.amounts import Age

_LOOK_S: Final = 3.0
_SWITCHED_OFF: Final = "GW-BLE-04"
_BLOCKED: Final = "GW-BLE-08"


def probes(site: Site) -> Iterator[Probe]:
    """Yield the probes of this section: one for each adapter."""
    radios = site.settings.ble if site.settings else ()
    for one in radios:
        yield Probe("bluetooth", "adapter", "GW-BLE-03", lambda there, one=one: _adapter(there, one), one.id)  # type: ignore[misc]  # a default keeps the loop's value
    others = [one for one in site.settings.radios if one not in {ble.id for ble in radios}] if site.settings else []
    for name in others:
        yield Probe("bluetooth", "adverts", "GW-RCV-06", lambda there, name=name: _elsewhere(there, name), name)  # type: ignore[misc]  # as above
    if not radios and not others:
        yield Probe("bluetooth", "adapter", "GW-BLE-03", _none)


def _none(_site: Site) -> Iterable[Line]:
    return [skipped("GW-BLE-03", "adapter", "@diagnose.why-no-ble")]


def _adapter(site: Site, radio: Ble) -> Iterable[Line]:
    blocked = _rfkill(site, radio.adapter)
    seen = look_at_adapter(radio.adapter, limit_s=_LOOK_S)
    facts = {"adapter": radio.adapter, "detail": seen.detail, "blocked": blocked}
    if blocked and seen.problem in ("", _SWITCHED_OFF):
        return [_covering(bad(_BLOCKED, "adapter", f"rfkill: {blocked}", subject=radio.id, **facts), radio.id)]
    if seen.problem:
        value = f"rfkill: {blocked}" if blocked else seen.detail
        # Deaf is what every one of these looks like to the gateway; a restart of its scan is no cure for them.
        line = bad(seen.problem, "adapter", value, subject=radio.id, **facts)
        return [_covering(line, radio.id)]
    lines = [ok("GW-BLE-04", "adapter", "@diagnose.adapter-on", subject=radio.id, **facts)]
    if site.daemon.runs:
        lines.append(_heard(site, radio.id, "GW-BLE-06"))
    elif seen.discovering and site.daemon.pid is None:
        lines.append(bad("GW-BLE-20", "other-scanner", "Discovering=true", subject=radio.id, **facts))
    return lines


def _covering(line: Line, radio: str) -> Line:
    return replace(line, covers=frozenset((f"GW-BLE-{n:02d}", radio) for n in range(1, 9)))


def _rfkill(site: Site, adapter: str) -> str:
    """Return "hard" (a switch) or "soft" (a command) where the kernel blocks the adapter."""
    machine = site.machine
    for one in machine.entries("sys/class/rfkill"):
        if machine.read(one / "type") == "bluetooth" and machine.read(one / "name") in (adapter, None):
            if machine.read(one / "hard") == "1":
                return "hard"
            if machine.read(one / "soft") == "1":
                return "soft"
    return ""


def _elsewhere(site: Site, radio: str) -> Iterable[Line]:
    link = site.daemon.one_of("links", radio)
    return [_heard(site, radio, "GW-RCV-06")] if site.daemon.runs and link.get("hearing") else []


def _heard(site: Site, radio: str, code: str) -> Line:
    link = site.daemon.one_of("links", radio)
    receivers = [receiver for device in site.daemon.of("devices") for receiver in device.get("receivers") or ()]
    ours = [one for one in receivers if one.get("link") == radio]
    ages = [float(one["last_heard_s"]) for one in ours if one.get("last_heard_s") is not None]
    last = Age(min(ages)) if ages else None
    uptime_s = max(1.0, float(site.daemon.status.get("uptime_s") or 0))
    heard = sum(int(one.get("heard") or 0) for one in ours)
    facts = {"last": last, "rate": f"{60 * heard / uptime_s:.1f}", "dropped": link.get("dropped", 0)}
    value = "@diagnose.adverts-now" if last else "@diagnose.adverts-none"
    return ok(code, "adverts", value, subject=radio, **facts)

"""One probe a file; each gives the probes of its section for a site."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.diagnose.checks import (
    alarm,
    bluetooth,
    clock,
    devices,
    network,
    platform,
    power,
    security,
    serial,
    service,
    storage,
    version,
)
from gateway.diagnose.site import Probe, Site

_MODULES = (service, power, clock, storage, alarm, serial, bluetooth, devices, network, platform, security, version)


def probes(site: Site) -> Iterator[Probe]:
    """Yield every probe, in the order of the sections."""
    for module in _MODULES:
        yield from module.probes(site)

"""Which versions of everything are at work, and whether what runs is what is installed."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from gateway import __version__
from gateway.diagnose.report import Line, bad, ok
from gateway.diagnose.site import Probe, Site
from gateway.outbox.inspect import SQLITE_VERSION

_TESTED_PYTHONS: Final = ((3, 11), (3, 13))
_LIBRARIES: Final = ("bleak", "cryptography", "dbus-fast", "httpx", "paho-mqtt", "pydantic", "pyserial", "serialx")


def probes(_site: Site) -> Iterator[Probe]:
    """Yield the probes of this section."""
    yield Probe("version", "gateway-version", "GW-VER-01", _gateway)
    yield Probe("version", "python", "GW-VER-05", _python)
    yield Probe("version", "system", "GW-VER-05", _system)


def _gateway(site: Site) -> Iterable[Line]:
    running = site.daemon.status.get("version")
    if running is None or running == __version__:
        return [ok("GW-VER-01", "gateway-version", __version__)]
    threshold = __version__
    return [
        bad("GW-VER-01", "gateway-version", str(running), threshold=threshold, running=running, installed=__version__)
    ]


def _python(_site: Site) -> Iterable[Line]:
    make = ok if sys.version_info[:2] in _TESTED_PYTHONS else bad
    shown = platform.python_version()
    tested = ", ".join(f"{major}.{minor}" for major, minor in _TESTED_PYTHONS)
    libraries = ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES)
    value = f"Python {shown}; {libraries}; SQLite {SQLITE_VERSION}"
    return [make("GW-VER-05", "python", value, threshold=tested, python=shown, tested=tested)]


def _system(site: Site) -> Iterable[Line]:
    machine = site.machine
    release = dict(line.partition("=")[::2] for line in (machine.read("etc/os-release") or "").splitlines())
    name = release.get("PRETTY_NAME", "?").strip('"')
    model = machine.read("proc/device-tree/model") or platform.machine()
    bluez = machine.run("bluetoothctl", "--version", limit_s=2.0)
    said = bluez.out.removeprefix("bluetoothctl: ").strip() if bluez is not None and bluez.status == 0 else ""
    kernel = platform.release()
    shown = [name, f"Linux {kernel}", model, f"BlueZ {said}" if said else ""]
    value = "; ".join(one for one in shown if one)
    return [ok("GW-VER-05", "system", value, os=name, kernel=kernel, model=model, bluez=said)]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"

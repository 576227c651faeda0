"""Serial lines: the ports that are there against the ports that are configured, who may use them and who holds them.

No port is opened: opening raises DTR and resets many microcontrollers. A serial server on the network is only connected
to while no gateway runs: most take one client, and the gateway is that one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from gateway.config import Serial
from gateway.diagnose.machine import USER
from gateway.diagnose.report import Line, bad, ok, skipped
from gateway.diagnose.site import Probe, Site
from gateway.links import ports

_CONNECT_S: Final = 2.0


def probes(site: Site) -> Iterator[Probe]:
    """Yield the probes of this section: one for each line, and one for what is plugged in."""
    lines = site.settings.serial if site.settings else ()
    for one in lines:
        yield Probe("serial", "line", "GW-SER-01", lambda there, one=one: _line(there, one), one.id)  # type: ignore[misc]  # a default keeps the loop's value
    yield Probe("serial", "ports-found", "GW-SER-01", _found)


def _line(site: Site, line: Serial) -> Iterable[Line]:
    return _port(site, line) if line.port.startswith("/") else _server(site, line)


# -- ports of this machine ---------------------------------------------------------------------------------------


def _port(site: Site, line: Serial) -> Iterable[Line]:
    found = ports.check(line.port)
    if found is None or found.code in (ports.DENIED, ports.HELD):
        found = _rights(site, line) or _held(site, line.port, found)
    if found is None:
        return [ok("GW-SER-01", "line", "@diagnose.port-names", subject=line.id, **_names(line.port))]
    return [
        bad(found.code, "line", str(found.facts.get("detail") or ""), subject=line.id, **dict[str, Any](found.facts))
    ]


def _rights(site: Site, line: Serial) -> ports.PortProblem | None:
    """The service's rights count, not those of whoever asks."""
    path = Path(line.port)
    if site.machine.service_may(path, rights=os.R_OK | os.W_OK):
        return None
    user = site.machine.service_user()
    try:
        group = path.group()
    except KeyError:
        group = str(path.stat().st_gid)
    facts = {"port": line.port, "group": group, "user": USER if user else str(os.geteuid())}
    return ports.PortProblem(ports.DENIED, facts)


def _held(site: Site, port: str, found: ports.PortProblem | None) -> ports.PortProblem | None:
    """The gateway holds its own ports."""
    if found is None or found.code != ports.HELD:
        other = ports.holder(port)
        found = None if other is None else ports.PortProblem(ports.HELD, {"port": port, **other})
    if found is None or (site.daemon.pid is not None and found.facts.get("pid") == site.daemon.pid):
        return None
    return found


def _names(port: str) -> dict[str, Any]:
    real = os.path.realpath(port)
    here = next((one for one in ports.present() if os.path.realpath(one.device) == real), None)
    return {"port": port, "device": real, "by_id": here.by_id if here else "", "by_path": here.by_path if here else ""}


def _found(site: Site) -> Iterable[Line]:
    """Tell what is plugged in and used by no line: the adapter that somebody is looking for may be among it."""
    used = {os.path.realpath(one.port) for one in (site.settings.serial if site.settings else ())}
    free = [one for one in ports.present() if os.path.realpath(one.device) not in used]
    if not free and not used:
        return [skipped("GW-SER-01", "ports-found", "@diagnose.why-no-serial")]
    if not free:
        return [ok("GW-SER-01", "ports-found", "@diagnose.no-free-port")]
    return [
        ok(
            "GW-SER-01", "ports-found", "@diagnose.port-names", subject=one.device, port=one.by_id or one.device,
            by_id=one.by_id, by_path=one.by_path, description="" if one.description == "n/a" else one.description,
        )
        for one in free
    ]  # fmt: skip


# -- serial servers ----------------------------------------------------------------------------------------------


def _server(site: Site, line: Serial) -> Iterable[Line]:
    address = ports.socket_address(line.port)
    if site.daemon.runs:
        hearing = site.daemon.one_of("links", line.id).get("hearing")
        if hearing is True:
            return [ok("GW-SER-06", "line", "@diagnose.connected", subject=line.id, port=line.port)]
        return [skipped("GW-SER-06", "line", "@diagnose.why-gateway-tells", subject=line.id, port=line.port)]
    if site.daemon.pid is not None or address is None:
        return [skipped("GW-SER-06", "line", "@diagnose.why-gateway-tells", subject=line.id, port=line.port)]
    try:
        socket.create_connection(address, timeout=_CONNECT_S).close()
    except OSError as error:
        problem = ports.explain(line.port, error)
        return [bad(problem.code, "line", subject=line.id, **dict[str, Any](problem.facts))]
    return [ok("GW-SER-06", "line", "@diagnose.connected", subject=line.id, port=line.port)]

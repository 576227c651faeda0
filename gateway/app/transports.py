"""From a configured destination to its paths at work: the transport that each URL names, with its credentials.

HTTP's library is loaded only where a path needs it: it costs memory that a small gateway has better use for.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from gateway.clock import BUILT_MS, SYNCED, Doubt, PlatformTime, SystemClock
from gateway.config import Destination
from gateway.config.secret import Secret
from gateway.config.settings import DestinationPath, WayIn
from gateway.events import Origin
from gateway.health import Health
from gateway.mqtt_session import Endpoint
from gateway.profiles import load_profile
from gateway.profiles.profile import Place
from gateway.tls import Moment, Tls
from gateway.uplinks import Uplink
from gateway.uplinks.mqtt import MqttUplink, client_id
from gateway.uplinks.path import PlatformPath
from gateway.uplinks.paths import Paths


def paths_of(
    destination: Destination, origin: Origin, *, clock: SystemClock, health: Health,
    on_time: Callable[[PlatformTime], None],
) -> Paths:  # fmt: skip
    """Return the paths of a destination, in the order of its configuration. `on_time` is told what its clock says."""
    made = []
    for number, path in enumerate(destination.path, start=1):
        if path.transport == "http":
            uplink = _http(path, origin, destination, clock=clock, on_time=on_time)
        else:
            uplink = _mqtt(path, origin, destination, number=number, clock=clock)
        made.append(PlatformPath(uplink, path.host, path.transport))
    return Paths(
        destination.id, made, reconnect_spread_s=destination.reconnect_spread_s, clock=clock, health=health,
        one_at_a_time=bool(load_profile(destination.profile).client),
    )  # fmt: skip


def authorization(path: DestinationPath) -> str:
    """Return the value of an HTTP path's Authorization header, "" for none (RFC 6750, RFC 7617). Raises SecretError."""
    if path.token is not None:
        return f"Bearer {said(path.token)}"
    if path.username:
        pair = f"{path.username}:{said(path.password)}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"
    return ""


def _mqtt(
    path: DestinationPath, origin: Origin, destination: Destination, *, number: int, clock: SystemClock
) -> Uplink:
    profile = load_profile(destination.profile)
    name = profile.client_id(Place(origin, destination.parameters)) or client_id(origin, number)
    endpoint = Endpoint(
        path.host, path.port, name, path.username, tls=tls_of(path, clock),
        version=path.mqtt_version,
    )  # fmt: skip
    return MqttUplink(
        endpoint, origin, destination=destination.id, password=lambda: said(path.password), profile=profile,
        parameters=destination.parameters, finish=destination.finish,
    )  # fmt: skip


def _http(
    path: DestinationPath, origin: Origin, destination: Destination, *, clock: SystemClock,
    on_time: Callable[[PlatformTime], None],
) -> Uplink:  # fmt: skip
    from gateway.uplinks.http import HttpEndpoint, HttpUplink

    host = f"[{path.host}]" if ":" in path.host else path.host
    url = f"{'https' if path.tls else 'http'}://{host}:{path.port}{path.base}"
    endpoint = HttpEndpoint(url, lambda: authorization(path), tls_of(path, clock))
    return HttpUplink(
        endpoint, origin, destination=destination.id, profile=load_profile(destination.profile),
        parameters=destination.parameters, on_time=on_time,
    )  # fmt: skip


def tls_of(path: WayIn, clock: SystemClock) -> Tls | None:
    """Return how a way in is encrypted, None where it is not."""
    return Tls(path.ca_file, path.cert_file, path.key_file, lambda: moment_of(clock)) if path.tls else None


def moment_of(clock: SystemClock) -> Moment | None:
    """Return the time to judge certificates by; None where a synchronisation stands by the machine's clock.

    Else the earliest of what is known, not before the build: a platform or a clock chip that runs ahead must not make
    every certificate an expired one, for over the connection that is then refused nobody could put the time right.
    """
    at, trust = clock.stamp(), clock.trust
    if trust.by == "ntp" and trust.doubt is Doubt.NONE:
        return None
    known = [at.wall_ms, at.mono_ms + trust.raw_ms]
    if at.clock != SYNCED:
        known.append(at.mono_ms + trust.floor_ms)  # both others may be the machine's clock, which may run ahead
    return Moment(max(BUILT_MS, min(known)) / 1000, is_sure=False)


def said(secret: Secret | None) -> str:
    """Return a secret, "" where none is configured. Raises SecretError: a login without it would hide the cause."""
    return secret.text() if secret else ""

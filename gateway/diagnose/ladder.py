"""The way to a platform, rung by rung: link, IP, DNS, TCP, TLS; it stops at the first that is broken and says whose it is.

A session that only shakes hands and goes sends nothing of ours. An HTTP path is asked for `HEAD /`, which changes
nothing and brings the platform's clock. Limits: `DNS_S`, `TCP_S`, `TLS_S`, `HEAD_S`, together less than a probe has; of
a name that has many addresses the first two are tried.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from gateway.diagnose.machine import Machine, Timely
from gateway.errors import SessionError
from gateway.texts import text
from gateway.tls import Tls, tls_context

DNS_S: Final = 1.5
TCP_S: Final = 1.5
TLS_S: Final = 1.5
HEAD_S: Final = 0.5
_ADDRESSES: Final = 2
RUNGS: Final = (
    "rung-link", "rung-ip", "rung-dns", "rung-tcp", "rung-tls", "rung-login", "rung-publish", "rung-accepted",
)  # fmt: skip
SITE, CARRIER, PLATFORM = "@diagnose.whose-site", "@diagnose.whose-carrier", "@diagnose.whose-platform"
# Linux, net/ethernet: an interface without carrier detection says "unknown" and works.
_UP: Final = ("up", "unknown")
# ssl.SSLCertVerificationError.verify_code: X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED (OpenSSL x509_vfy.h),
# and those of an authority that is not known here.
_NOT_YET, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY: Final = (2, 18, 19, 20, 21)


@dataclass(frozen=True, slots=True)
class Rung:
    """One step: `state` is "ok", "broken" or "skipped"."""

    name: str
    state: str
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class Ladder:
    """How far the way leads. `code` is the problem of the broken rung ("" if none), `whose` the one to call."""

    rungs: tuple[Rung, ...] = ()
    code: str = ""
    whose: str = ""
    detail: str = ""
    is_standby: bool = False
    certificate_ends: datetime | None = None
    platform_time: datetime | None = None

    def step(self, name: str, ms: float | None = None) -> Ladder:
        """Return the ladder with one more rung that holds."""
        return replace(self, rungs=(*self.rungs, Rung(name, "ok", ms)))

    def broken(self, name: str, code: str, whose: str, detail: str) -> Ladder:
        """Return the ladder with the rung that does not."""
        return replace(self, rungs=(*self.rungs, Rung(name, "broken")), code=code, whose=whose, detail=detail[:200])

    def skipped(self, name: str) -> Ladder:
        """Return the ladder with a rung that nobody looked at."""
        return replace(self, rungs=(*self.rungs, Rung(name, "skipped")))

    @property
    def ends_early(self) -> bool:
        """Does nobody know whether a login would succeed?"""
        return any(one.name == "rung-login" and one.state == "skipped" for one in self.rungs)

    def say(self, lang: str) -> str:
        """Return it for people: each rung with a word or its time."""
        return " > ".join(f"{text(f'diagnose.{one.name}', lang)} {_mark(one, lang)}" for one in self.rungs)

    def plain(self) -> object:
        """Return it for JSON."""
        return [{"rung": one.name.removeprefix("rung-"), "state": one.state, "ms": one.ms} for one in self.rungs]


def _mark(rung: Rung, lang: str) -> str:
    if rung.ms is not None:
        return f"{rung.ms:.0f} ms"
    return {"ok": text("verdict.ok", lang), "broken": text("diagnose.broken", lang)}.get(rung.state, "-")


@dataclass(frozen=True, slots=True)
class Goal:
    """Where the way is to lead. `tls` None: plain text, which stays on this machine."""

    host: str
    port: int
    tls: Tls | None
    http: bool = False
    clock_set: bool = True
    machine: Machine = field(default_factory=Machine)


def climb(goal: Goal) -> Ladder:
    """Climb up to TLS. Never raises for what a network does."""
    ladder = Ladder() if _is_loopback(goal.host) else _below(Ladder(), goal)
    if ladder.code:
        return ladder
    ladder, addresses = _resolve(ladder, goal)
    if ladder.code:
        return ladder
    ladder, line = _connect(ladder, goal, addresses)
    if line is None:
        return ladder
    with line:
        if goal.tls is not None:
            ladder, secured = _shake_hands(ladder, goal, line)
            if secured is None:
                return ladder
            with secured:
                return _asked(ladder, goal, secured)
        return _asked(ladder, goal, line)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# -- the site ----------------------------------------------------------------------------------------------------


def _below(ladder: Ladder, goal: Goal) -> Ladder:
    machine = goal.machine
    links = [one.name for one in machine.entries("sys/class/net") if one.name != "lo"]
    up = [one for one in links if machine.read(f"sys/class/net/{one}/operstate") in _UP]
    if links and not up:
        return ladder.broken("rung-link", "GW-NET-10", SITE, ", ".join(links))
    ladder = ladder.step("rung-link")
    if not _routes(machine):
        return ladder.broken("rung-ip", "GW-NET-11", SITE, ", ".join(up))
    return ladder.step("rung-ip")


def _routes(machine: Machine) -> bool:
    """Is there any route but those of this machine itself? proc_net(5): IPv4 lists no local ones, IPv6 does."""
    four = (machine.read("proc/net/route") or "").splitlines()[1:]
    six = [line.split() for line in (machine.read("proc/net/ipv6_route") or "").splitlines()]
    beyond = [line for line in six if line and line[-1] != "lo" and not line[0].startswith(("fe80", "ff00"))]
    return bool(four or beyond)


# -- the way -----------------------------------------------------------------------------------------------------


def _resolve(ladder: Ladder, goal: Goal) -> tuple[Ladder, Sequence[Any]]:
    began = time.monotonic()
    try:
        ask = Timely(lambda: socket.getaddrinfo(goal.host, goal.port, type=socket.SOCK_STREAM), "diagnose-dns")
        found = ask.result(DNS_S)
    except TimeoutError:
        return ladder.broken("rung-dns", "GW-NET-01", CARRIER, f"no answer within {DNS_S:g} s"), ()
    except (OSError, UnicodeError) as error:
        # Only "no such name" comes from a name server that was reached; everything else is between it and us.
        nobody = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
        detail = getattr(error, "strerror", None) or str(error)
        return ladder.broken("rung-dns", "GW-NET-01", SITE if nobody else CARRIER, detail), ()
    is_name = not _is_address(goal.host)
    return (ladder.step("rung-dns", _ms(began)) if is_name else ladder), found[:_ADDRESSES]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _connect(ladder: Ladder, goal: Goal, addresses: Sequence[Any]) -> tuple[Ladder, socket.socket | None]:
    failed: OSError = OSError("no address")
    for family, kind, protocol, _, address in addresses:
        began = time.monotonic()
        line = socket.socket(family, kind, protocol)
        line.settimeout(TCP_S / len(addresses))
        try:
            line.connect(address)
        except OSError as error:
            line.close()
            failed = error
        else:
            return ladder.step("rung-tcp", _ms(began)), line
    if failed.errno in (errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return ladder.broken("rung-ip", "GW-NET-11", SITE, failed.strerror or ""), None
    # Refused: the other machine is there, and nobody listens. Silence: something on the way swallows us.
    whose = PLATFORM if failed.errno == errno.ECONNREFUSED else CARRIER
    detail = "timed out" if isinstance(failed, TimeoutError) else failed.strerror or str(failed)
    return ladder.broken("rung-tcp", "GW-NET-02", whose, f"{goal.port}: {detail}"), None


def _shake_hands(ladder: Ladder, goal: Goal, line: socket.socket) -> tuple[Ladder, ssl.SSLSocket | None]:
    assert goal.tls is not None  # noqa: S101 - by its caller
    line.settimeout(TLS_S)
    began = time.monotonic()
    try:
        context = tls_context(goal.tls, host=goal.host, port=goal.port)
        secured = context.wrap_socket(line, server_hostname=goal.host)
    except SessionError as error:
        return ladder.broken("rung-tls", "GW-NET-03", SITE, str(error.facts.get("error"))), None
    except ssl.SSLCertVerificationError as error:
        whose = _whose_certificate(error.verify_code, clock_set=goal.clock_set)
        detail = error.verify_message or error.reason or "certificate verify failed"
        return ladder.broken("rung-tls", "GW-NET-03", whose, detail), None
    except (OSError, ValueError) as error:
        detail = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or "timed out"
        return ladder.broken("rung-tls", "GW-NET-03", PLATFORM, detail), None
    ends = _ends(secured.getpeercert() or {})
    return replace(ladder.step("rung-tls", _ms(began)), certificate_ends=ends), secured


def _whose_certificate(code: int, *, clock_set: bool) -> str:
    if code in (_NOT_YET, _EXPIRED):
        return PLATFORM if clock_set else SITE
    return SITE if code in _UNKNOWN_AUTHORITY else PLATFORM


def _ends(certificate: Mapping[str, Any]) -> datetime | None:
    written = certificate.get("notAfter")
    return None if written is None else datetime.fromtimestamp(ssl.cert_time_to_seconds(str(written)), UTC)


def _asked(ladder: Ladder, goal: Goal, line: socket.socket) -> Ladder:
    """Ask an HTTP server for its clock; whatever it says beside is its own business."""
    if not goal.http:
        return ladder
    line.settimeout(HEAD_S)
    host = f"[{goal.host}]" if ":" in goal.host else goal.host
    try:
        line.sendall(f"HEAD / HTTP/1.1\r\nHost: {host}:{goal.port}\r\nConnection: close\r\n\r\n".encode("ascii"))
        head = line.recv(8192).decode("latin-1")
    except (OSError, UnicodeError):
        return ladder
    for one in head.split("\r\n")[1:]:
        name, _, value = one.partition(":")
        if name.strip().lower() == "date":
            try:
                return replace(ladder, platform_time=parsedate_to_datetime(value.strip()))
            except ValueError:
                return ladder
    return ladder


def _ms(began: float) -> float:
    return round(1000 * (time.monotonic() - began), 1)

"""What a TLS connection to a platform needs, whichever transport it carries: TLS 1.2 or later, name and authority checked.

There is no switch that turns the checks off. The rules are the same on every Python: 3.13 would also refuse a platform's
certificate that has no Authority Key Identifier (VERIFY_X509_STRICT), so that a gateway went silent when its system was
upgraded; and it accepts an authority's intermediate certificate as the anchor (VERIFY_X509_PARTIAL_CHAIN), which 3.11 is told.

OpenSSL judges a certificate's dates by the machine's clock, and Python's ssl cannot give it another time. After a power
cut that clock may stand years back, and no certificate would be valid yet. So while NTP does not stand by it OpenSSL is told to
leave the dates (X509_V_FLAG_NO_CHECK_TIME: name, authority and signatures are checked as ever), and the platform's own
certificate is held against the earliest time that can be at the end of each handshake, before a byte of ours is sent:
expired is refused in any case; not yet valid only by a clock that is trusted. Limit: the dates of the authorities above
it are not looked at then; Python 3.11 does not hand them out. A context made so is `outdated` as soon as NTP stands by the
clock: who keeps it makes another, or has the certificate of the connection that stands judged again (`judge_again`).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.errors import SessionError

_NO_CHECK_TIME: Final = 0x200000  # openssl/x509_vfy.h; ssl.VerifyFlags has no name for it


@dataclass(frozen=True, slots=True)
class Moment:
    """A time to judge by, seconds since 1970. Not `is_sure`: the earliest that can be, the true one may be later."""

    wall_s: float
    is_sure: bool


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates: the platform's authority (None: the system's), and the gateway's own pair for mutual TLS.

    `moment` gives the time to judge dates by, where NTP does not stand by the machine's clock; None: by that clock.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    moment: Callable[[], Moment | None] = field(default=lambda: None, compare=False)


def tls_context(tls: Tls, *, host: str, port: int) -> ssl.SSLContext:
    """Read the certificates; blocks on the disk. `host` and `port` are only named in what is raised.

    Raises SessionError GW-NET-03: a file that is missing is not a platform that is away.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file)
        if tls.moment() is not None:
            _judge_dates(context, tls.moment)
    except (OSError, ValueError) as error:
        raise SessionError("GW-NET-03", host, port=port, error=f"certificates: {error}") from error
    return context


def outdated(context: ssl.SSLContext, tls: Tls) -> bool:
    """Was a context made to judge dates by another clock than would be right now?"""
    return bool(context.verify_flags & _NO_CHECK_TIME) != (tls.moment() is not None)


def judge_again(line: ssl.SSLSocket) -> None:
    """Hold the certificate of a connection that stands against the machine's clock, which NTP stands by now.

    Raises SSLCertVerificationError for one whose time is over, or has not come yet.
    """
    _refuse_by_date(line.getpeercert(), None)


def _judge_dates(context: ssl.SSLContext, moment: Callable[[], Moment | None]) -> None:
    """Let the end of each handshake look at the dates, over a socket (MQTT) and over memory (HTTP) alike."""

    class DatedSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as ssl declares it
            super().do_handshake(block)
            _refuse_by_date(self.getpeercert(), moment())

    class DatedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            _refuse_by_date(self.getpeercert(), moment())

    context.verify_flags = ssl.VerifyFlags(context.verify_flags | _NO_CHECK_TIME)
    context.sslsocket_class = DatedSocket
    context.sslobject_class = DatedObject


def _refuse_by_date(certificate: Any, moment: Moment | None) -> None:
    """Raise SSLCertVerificationError for a certificate whose time is over, or has surely not come yet."""
    moment = moment or Moment(time.time(), is_sure=True)  # the clock was set since the context was made
    begin, end = (ssl.cert_time_to_seconds(certificate[name]) for name in ("notBefore", "notAfter"))
    why = ""
    if end < moment.wall_s:
        why = f"certificate has expired on {certificate['notAfter']}"
    elif moment.is_sure and begin > moment.wall_s:
        why = f"certificate is not valid before {certificate['notBefore']}"
    if why:
        sure = "the gateway's own time" if moment.is_sure else "a clock that nobody has synchronised: see to that first"
        refusal = ssl.SSLCertVerificationError(1, f"{why}, by {sure}")
        refusal.verify_message = f"{why}, by {sure}"
        raise refusal

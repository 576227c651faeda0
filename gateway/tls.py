"""What a TLS connection to a platform needs, whichever transport it carries: TLS 1.2 or later, name and authority checked.

There is no switch that turns the checks off. The rules are the same on every Python: 3.13 would also refuse a platform's
certificate that has no Authority Key Identifier (VERIFY_X509_STRICT), so that a gateway went silent when its system was
upgraded; and it accepts an authority's intermediate certificate as the anchor (VERIFY_X509_PARTIAL_CHAIN), which 3.11 is told.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import SessionError


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates: the platform's authority (None: the system's), and the gateway's own pair for mutual TLS."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


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
    except (OSError, ValueError) as error:
        raise SessionError("GW-NET-03", host, port=port, error=f"certificates: {error}") from error
    return context

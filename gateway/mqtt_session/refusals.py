"""How a connection is refused or fails to come about, and which problem that is."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from gateway.errors import SessionError
from gateway.mqtt_session.endpoint import Endpoint

TAKEN_OVER: Final = "GW-PLT-07"
# MQTT 5.0 section 2.4; paho gives the return codes of 3.1.1 (section 3.2.2.3) as the same numbers.
REFUSED: Final = 0x80
PROTOCOL_ERROR: Final = 0x82
BAD_VERSION: Final = 0x84
NOT_AUTHORIZED: Final = 0x87
SESSION_TAKEN_OVER: Final = 0x8E
LOGIN_REFUSED: Final = {0x85, 0x86, NOT_AUTHORIZED, 0x8C}


class NotSpoken(SessionError):
    """The server does not answer CONNECT as MQTT of this version: it refuses the version, hangs up, or says nonsense."""


class Unspoken(OSError):
    """The server took CONNECT and did not answer it with a CONNACK that we understand."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


def connect_error(error: OSError | ValueError, end: Endpoint) -> SessionError:
    """Name the layer that broke while connecting: the name (GW-NET-01), TLS (GW-NET-03), or the line (GW-NET-02)."""
    if isinstance(error, socket.gaierror | UnicodeError):  # UnicodeError: a name that IDNA does not know
        code = "GW-NET-01"
    elif isinstance(error, ssl.SSLError | ssl.CertificateError):
        code = "GW-NET-03"
    else:
        code = "GW-NET-02"
    return SessionError(code, end.host, port=end.port, error=str(error) or type(error).__name__)

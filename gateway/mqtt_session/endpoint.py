"""Where a broker is and what is to be said to it at first. Nothing here connects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gateway.tls import Tls

Version = Literal["5", "3.1.1"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a platform's broker is, and what is needed to get in. `tls` is None for plain text (loopback only).

    `version` "auto": 5, and 3.1.1 where the broker does not speak 5.
    """

    host: str
    port: int
    client_id: str
    username: str = ""
    password: str = ""
    tls: Tls | None = None
    version: Version | Literal["auto"] = "auto"


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the gateway vanishes."""

    topic: str
    payload: bytes

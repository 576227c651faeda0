"""What a deliverer and a transport promise each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, runtime_checkable

import structlog

from gateway.errors import SessionError
from gateway.events import Lane
from gateway.profiles import MappingError

UNSAID: Final = "the profile cannot say it"
_log = structlog.get_logger("uplink")


class AckStatus(StrEnum):
    """The platform's application on one event (L2)."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    RETRY = "retry"
    REJECTED = "rejected"


STATUSES: Final = {one.value: one for one in AckStatus}
"""By its word: to call the class for each event would take three times as long."""


@dataclass(frozen=True, slots=True)
class Ack:
    """One decision of the platform's application. `retry_after_s` is None where it names no delay.

    `reason` is "" for the platform's own; else why an event was refused before it came there.
    """

    id: str
    status: AckStatus
    code: str = ""
    retry_after_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UplinkEvents:
    """What a transport tells its deliverer, in the event loop.

    `sent` is L1: the message with this token has reached the platform's side (`ok` False: its transport refused it). It is
    said of each message, before its answers or after them; where neither comes in time the line counts as dead.
    `lost`: the connection is gone, with the code of the layer that broke; it is said once, and nothing after it.
    `doubted`: the session stands, and part of it is refused, as the error says; None: nothing of it is any more.
    """

    acks: Callable[[list[Ack]], None]
    sent: Callable[[int, bool], None]
    lost: Callable[[SessionError], None]
    doubted: Callable[[SessionError | None], None] = lambda _error: None


class Uplink(Protocol):
    """One path to one platform. `open` may be called again after `close` or a loss; each time is a new connection."""

    @property
    def window(self) -> int:
        """How many messages may be on the wire; it may change while connected, `sent` is then called."""

    @property
    def max_bytes(self) -> int:
        """How long a message may be; a longer one would end the connection."""

    async def open(self, events: UplinkEvents, *, epoch: int, birth: Mapping[str, object]) -> None:
        """Connect, subscribe, announce. Raises SessionError with the code of the broken layer."""

    def send(self, lane: Lane, texts: list[str]) -> int:
        """Send one message (several events only in C and D); return its token. Raises SessionError when it is gone."""

    async def close(self) -> None:
        """Say goodbye. Never raises."""


@runtime_checkable
class Limited(Protocol):
    """An uplink that takes fewer events in one message than a deliverer would send."""

    @property
    def max_events(self) -> int:
        """How many events a message may hold."""


@runtime_checkable
class SharedLine(Protocol):
    """An uplink whose alarms go over the connection that carries everything else."""

    @property
    def is_shared(self) -> bool:
        """Do they? Where an uplink does not say they have connections of their own."""


@runtime_checkable
class Announcing(Protocol):
    """An uplink that can say again, over the connection that stands, that the gateway is there."""

    def announce(self) -> None:
        """Say it with the epoch of this connection. Raises SessionError when the connection is gone."""


def unsaid(text: str, error: Exception, *, destination: str) -> Ack:
    """Return the refusal of an event that a profile cannot say. Raises ValueError for a text that is no event at all."""
    event_id = str(json.loads(text)["id"])
    why = str(error) if isinstance(error, MappingError) else repr(error)
    _log.error("a profile cannot say an event", destination=destination, id=event_id, error=why)
    return Ack(event_id, AckStatus.REJECTED, f"profile: {why}"[:200], reason=UNSAID)

"""What is on the wire to one destination: messages, the devices that they keep busy, and who has to wait longer.

Pure: no IO, the time is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from gateway.events import Lane, Stored

# Telemetry is one class: what is in C must not overtake what is in D.
CLASS_OF_LANE: Final = {Lane.A: "A", Lane.B: "B", Lane.C: "T", Lane.D: "T"}


@dataclass(slots=True)
class Flight:
    """One message on the wire and the rows that it still waits for. `arrived`: its transport has confirmed it (L1).

    `devices` are those of its rows, each once, the oldest row's first.
    """

    token: int
    lane: Lane
    deadline: float
    waiting: dict[str, Stored]
    devices: tuple[str, ...]
    size: int
    arrived: bool = False
    again: list[Stored] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The class of its lane."""
        return CLASS_OF_LANE[self.lane]


class Flights:
    """The messages on the wire, and the devices that the platform asked to wait."""

    def __init__(self) -> None:
        self._by_token: dict[int, Flight] = {}
        self._of_event: dict[str, Flight] = {}
        self._busy: set[tuple[str, str]] = set()
        self.holds: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        """How many messages are on the wire."""
        return len(self._by_token)

    def add(self, flight: Flight) -> None:
        """A message was sent."""
        self._by_token[flight.token] = flight
        for event_id in flight.waiting:
            self._of_event[event_id] = flight
        self._busy.update((flight.kind, device) for device in flight.devices)

    def by_token(self, token: int) -> Flight | None:
        """Return the message on the wire that has this token."""
        return self._by_token.get(token)

    def of_event(self, event_id: str) -> Flight | None:
        """Return the message that last carried an event; it may have been given up meanwhile."""
        return self._of_event.get(event_id)

    def forget(self, event_id: str) -> None:
        """An event is finished."""
        self._of_event.pop(event_id, None)

    def is_aloft(self, flight: Flight) -> bool:
        """Is it still on the wire? Its token alone would not do: transports use them again."""
        return self._by_token.get(flight.token) is flight

    def land(self, flight: Flight) -> list[str]:
        """Every row of a message is answered or given up; return the devices that may go on."""
        del self._by_token[flight.token]
        return [device for device in flight.devices if (flight.kind, device) not in self.holds]

    def is_busy(self, kind: str, device: str) -> bool:
        """Must a device's next message wait?"""
        return (kind, device) in self._busy

    def release(self, kind: str, device: str) -> None:
        """A device may go on."""
        self._busy.discard((kind, device))

    def hold(self, kind: str, device: str, *, until: float) -> None:
        """A device has to wait, and so do its later rows."""
        self.holds[kind, device] = max(until, self.holds.get((kind, device), 0.0))

    def overdue(self, now: float) -> list[Flight]:
        """Return the messages whose time is up."""
        return [one for one in self._by_token.values() if one.deadline <= now]

    def ended_holds(self, now: float) -> list[tuple[str, str]]:
        """End the holds that are over; a device of which a message is still on the wire goes on when that one lands."""
        ended = [key for key, until in self.holds.items() if until <= now]
        for key in ended:
            del self.holds[key]
        aloft = self._aloft() if ended else set()
        return [key for key in ended if key not in aloft]

    def next_time(self) -> float | None:
        """Return when the next message or hold is due."""
        return min([*(one.deadline for one in self._by_token.values()), *self.holds.values()], default=None)

    def bytes_under_way(self, lanes: Iterable[Lane]) -> int:
        """Return how many bytes of these lanes the transport has not confirmed yet."""
        wanted = tuple(lanes)
        return sum(one.size for one in self._by_token.values() if not one.arrived and one.lane in wanted)

    def clear(self) -> None:
        """The connection is gone, and everything on it."""
        self._by_token.clear()
        self._of_event.clear()
        self._busy.clear()
        self.holds.clear()

    def _aloft(self) -> set[tuple[str, str]]:
        return {(one.kind, device) for one in self._by_token.values() for device in one.devices}

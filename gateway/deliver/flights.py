"""What is on the wire to one destination: messages, the devices that they keep busy, and who has to wait longer.

Pure: no IO, the time is handed in. A message may go over several paths; it is one flight all the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gateway.events import Lane, Stored

# Telemetry is one class: what is in C must not overtake what is in D.
CLASS_OF_LANE: Final = {Lane.A: "A", Lane.B: "B", Lane.C: "T", Lane.D: "T"}


class Carrier(NamedTuple):
    """One path that carries a message: the token that it has there, and when it went."""

    token: int
    at: float


@dataclass(slots=True, eq=False)
class Flight:
    """One message on the wire and the rows that it still waits for.

    `devices` are those of its rows, each once, the oldest row's first. `carriers` are by path, the first one
    first; `arrived` are the paths whose transport has confirmed it (L1), `refused` those whose platform asked to wait,
    `barred` those that cannot take it. `copy_at`: an alarm that is unanswered by then goes over another path, too.
    `minimal`: it is what is left of an alarm that was refused; its row is finished already. `events`: how many it holds.
    """

    lane: Lane
    deadline: float
    waiting: dict[str, Stored]
    devices: tuple[str, ...]
    size: int
    copy_at: float = math.inf
    minimal: bool = False
    carriers: dict[int, Carrier] = field(default_factory=dict)
    arrived: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    barred: set[int] = field(default_factory=set)
    again: list[Stored] = field(default_factory=list)
    events: int = field(init=False)

    def __post_init__(self) -> None:
        """Count them: those that wait become fewer."""
        self.events = len(self.waiting)

    @property
    def kind(self) -> str:
        """The class of its lane."""
        return CLASS_OF_LANE[self.lane]

    @property
    def sent_at(self) -> float:
        """When it went first, of those paths that still carry it."""
        return next(iter(self.carriers.values())).at

    @property
    def first_path(self) -> int:
        """The path over which it went first, of those that still carry it."""
        return next(iter(self.carriers))

    def dead_paths(self, since: float) -> list[int]:
        """Return the paths over which it went at `since` or before, and whose transport did not confirm it."""
        return [path for path, carrier in self.carriers.items() if carrier.at <= since and path not in self.arrived]


class Flights:
    """The messages on the wire, and the devices that the platform asked to wait."""

    def __init__(self) -> None:
        self._aloft: dict[Flight, None] = {}
        self._by_token: dict[int, Flight] = {}
        self._of_event: dict[str, Flight] = {}
        self._over: Counter[int] = Counter()
        self._busy: set[tuple[str, str]] = set()
        self.holds: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        """How many messages are on the wire."""
        return len(self._aloft)

    def count(self, lane: Lane) -> int:
        """How many of them are of one lane."""
        return sum(one.lane is lane for one in self._aloft)

    def over(self, path: int) -> int:
        """How many of them went over a path."""
        return self._over[path]

    def add(self, flight: Flight, token: int, *, path: int, now: float) -> None:
        """A message was sent, or sent over one more path."""
        if flight not in self._aloft:
            self._aloft[flight] = None
            for event_id in flight.waiting:
                self._of_event[event_id] = flight
            self._busy.update((flight.kind, device) for device in flight.devices)
        self._by_token[token] = flight
        flight.carriers[path] = Carrier(token, now)
        self._over[path] += 1

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
        return flight in self._aloft

    def land(self, flight: Flight) -> list[str]:
        """Every row of a message is answered or given up; return the devices that may go on."""
        del self._aloft[flight]
        for path in list(flight.carriers):
            self._unload(flight, path)
        return [device for device in flight.devices if (flight.kind, device) not in self.holds]

    def drop_path(self, path: int) -> list[Flight]:
        """A path is gone; return the messages that no other one carries. They are still on the wire here."""
        carried = [one for one in self._aloft if path in one.carriers]
        for flight in carried:
            # At once: the next connection of this path begins with the same tokens.
            self._unload(flight, path)
        return [one for one in carried if not one.carriers]

    def _unload(self, flight: Flight, path: int) -> None:
        token = flight.carriers.pop(path).token
        if self._by_token.get(token) is flight:
            del self._by_token[token]
        self._over[path] -= 1
        flight.arrived.discard(path)

    def only_over(self, path: int) -> list[Flight]:
        """Return the messages that nothing but this path carries."""
        return [one for one in self._aloft if one.carriers.keys() == {path}]

    def alarms(self) -> list[Flight]:
        """Return the messages of lane A."""
        return [one for one in self._aloft if one.lane is Lane.A]

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
        return [one for one in self._aloft if one.deadline <= now]

    def ended_holds(self, now: float) -> list[tuple[str, str]]:
        """End the holds that are over; a device of which a message is still on the wire goes on when that one lands."""
        ended = [key for key, until in self.holds.items() if until <= now]
        for key in ended:
            del self.holds[key]
        aloft = self._devices_aloft() if ended else set()
        return [key for key in ended if key not in aloft]

    def next_time(self) -> float | None:
        """Return when the next message or hold is due."""
        return min([*(one.deadline for one in self._aloft), *self.holds.values()], default=None)

    def bytes_under_way(self, lanes: Collection[Lane], *, path: int) -> int:
        """Return how many bytes of these lanes the transport of a path has not confirmed yet."""
        return sum(
            one.size for one in self._aloft if one.lane in lanes and path in one.carriers and path not in one.arrived
        )

    def fresh(self, lanes: Collection[Lane], *, path: int, since: float) -> list[Flight]:
        """Return the messages of these lanes that went over a path after `since` and are not wholly answered."""
        return [
            one for one in self._aloft if one.lane in lanes and path in one.carriers and one.carriers[path].at > since
        ]

    def next_stale(self, lanes: Collection[Lane], *, since: float) -> float | None:
        """Return when the oldest of the messages of these lanes went that went after `since`."""
        times = [carrier.at for one in self._aloft if one.lane in lanes for carrier in one.carriers.values()]
        return min((at for at in times if at > since), default=None)

    def clear(self) -> None:
        """Every connection is gone, and everything on them."""
        self._aloft.clear()
        self._by_token.clear()
        self._over.clear()
        self._of_event.clear()
        self._busy.clear()
        self.holds.clear()

    def _devices_aloft(self) -> set[tuple[str, str]]:
        return {(one.kind, device) for one in self._aloft for device in one.devices}

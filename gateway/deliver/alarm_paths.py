"""An alarm and the paths of its destination: over which it goes, when over one more, and what goes of a refused one.

It goes over the path in use. It goes over another path that stands as well, with the same id: when it is unanswered after
`COPY_AFTER_S`, and at once when its path asks to wait, refuses the message or has no room. It is done when any of them
confirms. On the others no telemetry is in its way. Limits: over each path once in `ALARM_LIMIT_S`, after which it goes
again as a whole.
An alarm that a platform refuses for good is a dead letter and a problem; what matters of it goes out in minimal form over
another path that stands, or over the same where it was too long or could not be put into words: `MINIMAL_TRIES` times at
most, and not after the end of the session, for it is no longer among what waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.deliver.flights import Flight, Flights
from gateway.deliver.wording import Wording, fits, minimal
from gateway.errors import SessionError
from gateway.events import Lane, Stored
from gateway.uplinks.paths import MAX_PATHS, Paths

ALARM_LIMIT_S: Final = 10.0
COPY_AFTER_S: Final = 3.0
MINIMAL_TRIES: Final = 3

_log = structlog.get_logger("deliver")


class AlarmPaths:
    """The paths of one destination, as alarms see them."""

    def __init__(self, name: str, paths: Paths, flights: Flights, *, words: Wording, clock: Clock) -> None:
        self._name = name
        self._paths = paths
        self._flights = flights
        self._words = words
        self._clock = clock
        self._asked: dict[tuple[int, str], float] = {}

    # -- which ---------------------------------------------------------------------------------------------------

    def takes(self, path: int) -> bool:
        """Is there room on a path for one more alarm?"""
        return self._flights.over(path) < self._paths.window(path)

    @property
    def have_room(self) -> bool:
        """Is there room on any path that stands?"""
        return any(self.takes(path) for path in self._paths.standing())

    def best(self, device: str) -> int:
        """Return the first path that has room and was not asked to wait for this device."""
        with_room = [path for path in self._paths.standing() if self.takes(path)]
        free = [path for path in with_room if not self._waits(path, device)]
        return (free or with_room or [self._paths.in_use])[0]

    def beside(self, flight: Flight) -> int | None:
        """Return a path that could take what a message carries, and does not carry it yet."""
        shut = flight.carriers.keys() | flight.barred
        for path in self._paths.standing():
            if path not in shut and self.takes(path) and not any(self._waits(path, one) for one in flight.devices):
                return path
        return None

    def asked_to_wait(self, path: int, device: str, *, until: float) -> None:
        """The platform behind a path asked to wait with what comes of this device."""
        self._asked[path, device] = until

    def _waits(self, path: int, device: str) -> bool:
        return self._asked.get((path, device), 0.0) > self._clock.monotonic()

    def may_go_at(self, paths: Iterable[int], device: str, *, default: float) -> float:
        """Return when the first of these paths may be asked again."""
        return min((self._asked.get((path, device), default) for path in paths), default=default)

    def finished(self, device: str) -> None:
        """Something of this device was taken or refused for good: nobody asks to wait any more."""
        for path in range(MAX_PATHS):
            self._asked.pop((path, device), None)

    def clear(self) -> None:
        """The paths begin anew."""
        self._asked.clear()

    # -- one more -----------------------------------------------------------------------------------------------

    def copy(self, flight: Flight) -> bool:
        """Send an alarm over one more path; False when there is none that takes it."""
        [row] = flight.waiting.values()
        while (path := self.beside(flight)) is not None:
            text = self._words.text(row)
            if not fits(text, self._paths.max_bytes(path)):
                flight.barred.add(path)
            elif self._sent(flight, text, path):
                flight.copy_at = self._clock.monotonic() + COPY_AFTER_S
                _log.warning("an alarm goes over another path, too", destination=self._name, path=path + 1, id=row.id)
                return True
        return False

    def send_minimal(self, row: Stored, *, not_over: int | None) -> None:
        """Send what matters of an alarm that was refused for good; `not_over` the path whose platform refused it."""
        if self._words.tried(row.id) >= MINIMAL_TRIES:
            _log.error("nobody answers to an alarm in minimal form", destination=self._name, id=row.id)
            self._words.finished(row.id)
            return
        try:
            text = self._words.text(minimal(row))
        except Exception as error:  # noqa: BLE001 - northbound rule 19: one row must not end the delivery of all
            _log.error("an alarm has no minimal form", destination=self._name, id=row.id, error=repr(error))
            self._words.finished(row.id)
            return
        for path in self._paths.standing():
            if path == not_over or not self.takes(path) or not fits(text, self._paths.max_bytes(path)):
                continue
            deadline = self._clock.monotonic() + ALARM_LIMIT_S
            flight = Flight(Lane.A, deadline, {row.id: row}, (), len(text), minimal=True)
            flight.barred.update(() if not_over is None else (not_over,))
            if self._sent(flight, text, path):
                _log.warning("a refused alarm goes in minimal form", destination=self._name, path=path + 1, id=row.id)
                return
        self._words.finished(row.id)

    def _sent(self, flight: Flight, text: str, path: int) -> bool:
        try:
            token = self._paths.send(Lane.A, [text], over=path)
        except SessionError:
            return False  # it does not stand any more
        self._flights.add(flight, token, path=path, now=self._clock.monotonic())
        return True

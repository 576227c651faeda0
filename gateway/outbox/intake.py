"""What waits for the disk: alarms and dead letters before the rest, each in the order in which it was submitted.

Telemetry that nobody waits for may linger for company, up to `MAX_LINGERING` events; whatever else comes takes it along,
at once if it is urgent, else together with what comes in the next milliseconds (`linger`), again up to so many events.
Pure: no IO. Limits: `MAX_QUEUED` writes; beyond that telemetry is refused, at `MAX_QUEUED_STATUS` faults and status, too;
alarms and dead letters never. With something urgent at most `BESIDE_URGENT` events of the rest are committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from gateway.clock import Stamp
from gateway.events import Event, Lane
from gateway.outbox.rows import Write

MAX_QUEUED: Final = 20_000
BESIDE_URGENT: Final = 20
MAX_QUEUED_STATUS: Final = 5 * MAX_QUEUED
MAX_LINGERING: Final = 100
MOST_LOOKED_AT: Final = 200

Entry = tuple[Write, tuple[Lane, ...]]
"""A write, and the lane of each of its events."""


class Intake:
    """The writes that are not durable yet. `batch` is what is being committed, or will be tried again.

    `is_suspect`: one of the batch cannot be stored, and is looked for.
    """

    def __init__(self) -> None:
        self.batch: list[Entry] = []
        self.is_suspect = False
        self._urgent: deque[Entry] = deque()
        self._rest: deque[Entry] = deque()
        self._resting = 0  # how many events these are, a write without any counted as one
        self._is_hurried = False

    def __len__(self) -> int:
        """How many writes wait, those of the commit in progress included."""
        return len(self._urgent) + len(self._rest) + len(self.batch)

    def __iter__(self) -> Iterator[Entry]:
        """Every write that waits, in the order in which they will be committed."""
        return chain(self.batch, self._urgent, self._rest)

    @property
    def is_urgent(self) -> bool:
        """Does something urgent wait beyond the batch?"""
        return bool(self._urgent)

    @property
    def holds_alarm(self) -> bool:
        """Does the batch hold an alarm, or an alarm's state?"""
        return any(write.alarms or Lane.A in lanes for write, lanes in self.batch)

    @property
    def is_empty(self) -> bool:
        """Does nothing wait beyond the batch?"""
        return not self._urgent and not self._rest

    @property
    def is_pressing(self) -> bool:
        """Is what waits to be committed at once: because something of it is urgent, or there is enough of it?"""
        return bool(self._urgent) or self._resting >= MAX_LINGERING

    @property
    def may_linger(self) -> bool:
        """Is everything that waits telemetry that nobody waits for, and not much of it? Then it may wait for company."""
        return not self._is_hurried and not self.is_pressing

    def refuses(self, write: Write) -> bool:
        """Is there no room for such a write?"""
        if len(self._rest) < min(MAX_QUEUED, MAX_QUEUED_STATUS):
            return False
        limit = MAX_QUEUED_STATUS if any(event.lane is Lane.B for event in write.events) else MAX_QUEUED
        is_urgent = write.alarms or write.dead or any(event.lane is Lane.A for event in write.events)
        return not is_urgent and len(self._rest) >= limit

    def put(self, write: Write, lanes: tuple[Lane, ...]) -> bool:
        """Take a write, whatever room there is; True if whoever waits to commit has to look again how long."""
        # A dead letter hurries, too: the confirmation that lets its row go must not be durable before it.
        if write.alarms or write.dead or Lane.A in lanes:
            self._urgent.append((write, lanes))
            return True
        was_few = self._resting < MAX_LINGERING
        self._rest.append((write, lanes))
        self._resting += max(1, len(lanes))
        is_more_hurried = not self._is_hurried and not _may_linger(write)
        self._is_hurried |= is_more_hurried
        return is_more_hurried or len(self._rest) == 1 or (was_few and self.is_pressing)

    def gather(self, most: int) -> None:
        """Move what comes next into the batch, until it has at least `most` events.

        What hurries takes only `BESIDE_URGENT` of the rest along: it would wait for their storing as well.
        """
        events = sum(max(1, len(write.events)) for write, _lanes in self.batch)
        for queue in (self._urgent, self._rest):
            if queue is self._rest and self.batch:
                most = min(most, events + BESIDE_URGENT)
            while queue and events < most:
                entry = queue.popleft()
                events += max(1, len(entry[0].events))
                self._resting -= max(1, len(entry[1])) if queue is self._rest else 0
                self.batch.append(entry)
        self._is_hurried = not self.is_empty  # what is left was held up already

    def narrow(self) -> Entry | None:
        """The batch failed for what is in it: return the one to blame if it was tried alone, else let fewer be tried."""
        if not self.is_suspect:  # first see whether the batch is to blame at all
            self.is_suspect = True
            return None
        if len(self.batch) == 1:
            return self.batch[0]
        self._is_hurried = True
        half = len(self.batch) // 2
        self._urgent.extendleft(reversed(self.batch[half:]))  # before everything else
        self.batch = self.batch[:half]
        return None

    def settle(self) -> None:
        """The batch is stored, or set aside."""
        self.batch, self.is_suspect = [], False

    def revise(self, revised: Callable[[Write, tuple[Lane, ...]], Entry]) -> None:
        """Look at everything that waits once more: it goes into another database than was thought."""
        for queue in (self.batch, self._urgent, self._rest):
            for at, (write, lanes) in enumerate(queue):
                queue[at] = revised(write, lanes)
        self._resting = sum(max(1, len(lanes)) for _write, lanes in self._rest)

    def has(self, device: str) -> bool:
        """Does anything of a device wait? Also True where too much waits to look at each message: `MOST_LOOKED_AT`."""
        if len(self) > MOST_LOOKED_AT:
            return True
        for write, _lanes in self:
            devices = [one.device for one in write.events] + [one.device for one in write.marks]
            devices += [one.device for one in write.numbers] + [one.device for one in write.days]
            if device in devices:
                return True
        return False

    def oldest(self) -> Stamp | None:
        """When the oldest event that waits happened; each queue is in the order in which things happened."""
        heads = (next((entry for entry in queue if entry[0].events), None) for queue in (self._urgent, self._rest))
        entries = [*self.batch, *(entry for entry in heads if entry is not None)]
        stamps = [event.at for write, _lanes in entries for event in write.events]
        return min(stamps, key=lambda at: at.mono_ms, default=None)

    def alarms(self) -> list[Event]:
        """Every alarm and alarm state that waits."""
        entries = chain(self.batch, self._urgent)
        return [event for write, _lanes in entries for event in write.events if event.lane is Lane.A]


def _may_linger(write: Write) -> bool:
    """Telemetry, with nothing but what was judged of its device; whoever waits for a number's acknowledgement waits for this."""
    if write.on_commit or write.numbers or not write.events:  # nearly all there is
        return False
    if write.alarms or write.dead or write.facts or write.drops or write.letters:
        return False
    return all(event.noun.startswith("telemetry.") for event in write.events)

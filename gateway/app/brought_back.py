"""Alarms whose events a corrupt database gave back: how they stand now is told behind what they were then.

What is brought back gets a higher sequence than what is new, and a platform goes by the sequence: an acknowledgement of before
would silence an alarm that was raised again since, and a call of before would reopen one that is closed. So each of these alarms
is told once more, as it stands. One that nobody here remembers, because the page with its state was lost, is taken up again
as its newest event has it: raising fails open. Limit: a platform may take an old state for the present one until then, which
is as long as going once through the pages takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.alarms import AlarmBook, Change
from gateway.clock import Clock
from gateway.collect.batch import alarm_row
from gateway.events import Event
from gateway.outbox import Outbox, Write


def settle_alarms(
    events: Iterable[Event], *, book: AlarmBook, outbox: Outbox, clock: Clock, announce: Callable[[Change], None]
) -> None:
    """Settle the alarms that these events are of; the events in the order in which they were told."""
    newest = {event.correlation: event for event in events if event.correlation}
    for alarm, event in newest.items():
        change = book.retell_one(alarm, clock.stamp())
        if change is None:
            change = book.revive(event)
            if change is None:
                continue
            announce(change)
        told = () if change.event is None else (change.event,)
        outbox.submit(Write(told, alarms=(alarm_row(change),)))

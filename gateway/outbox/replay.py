"""Sends again what a platform has accepted before, by ranges of the sequence: with the same ids and numbers.

What every destination has stays for a while: the last `KEPT` sequences of the stream (some 5 MB; all of it is counted at
each start, so more would cost time there), unless the space is needed: the quota takes them before anything else, and
they were delivered, so it is no gap. A replay takes confirmations back, durably:
after a restart it goes on. Limits: `MOST` sequences a request, and `MOST_ALARMS` alarms together with those that wait for
the destination already, for an alarm that is raised meanwhile goes behind those that are replayed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.errors import ControlError
from gateway.events import Lane
from gateway.outbox.numbers import Ranges
from gateway.outbox.outbox import Outbox

KEPT: Final = 5_000
MOST: Final = 100_000
MOST_ALARMS: Final = 100
FLUSH_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many events go again, and which sequences of the range are no longer there, or never were for anybody."""

    count: int
    missing: Ranges


class Replays:
    """The replays of one outbox, one after the other."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._one_at_a_time = asyncio.Lock()

    async def replay(self, destination: str, first: int, last: int, *, reread: Callable[[], None]) -> Replayed:
        """Let a destination have a range again. `reread` is called when its lanes have to be read anew.

        Raises ControlError for a range that is none or too long, and where the disk does not answer; StoreError.
        """
        outbox = self._outbox
        if not 1 <= first <= last <= outbox.sequence:
            raise ControlError("GW-CTL-03", f"{first}-{last}", reason="@refusal.no-range", last=outbox.sequence)
        if last - first >= MOST:
            raise ControlError("GW-CTL-03", f"{first}-{last}", reason="@refusal.range-too-long", most=MOST)
        async with self._one_at_a_time:
            stock = outbox.stock
            stock.held_from = first
            try:
                # A deletion that had begun is over then, and no other begins.
                if not await outbox.flush(FLUSH_S):
                    raise ControlError("GW-CTL-03", destination, reason="@refusal.not-stored")
                found = await outbox.read(lambda reader: reader.between(first, last, destination))
                if stock is not outbox.stock:
                    raise ControlError("GW-CTL-03", destination, reason="@refusal.not-stored")
                wanted = {lane: [seq for seq, is_wanted in rows if is_wanted] for lane, rows in found.items()}
                alarms = len(stock.confirmed(destination, Lane.A, wanted[Lane.A]))
                waiting = stock.pending.get((destination, Lane.A), 0)  # what an earlier replay put back is among them
                if alarms and alarms + waiting > MOST_ALARMS:
                    facts = {"count": alarms, "most": MOST_ALARMS} | ({"waiting": waiting} if waiting else {})
                    raise ControlError("GW-CTL-03", f"{first}-{last}", reason="@refusal.too-many-alarms", **facts)
                count = sum(stock.rewind(destination, lane, first, last, wanted=wanted[lane]) for lane in Lane)
            finally:
                stock.held_from = None
            if count:
                outbox.rewound(destination)
                reread()  # in the same turn: an older cursor must not be confirmed meanwhile
        there = sorted(seq for rows in found.values() for seq, _is_wanted in rows)
        return Replayed(count, _between(there, first, last))


def _between(there: list[int], first: int, last: int) -> Ranges:
    """Return the inclusive ranges of first to last that are not there."""
    ranges: Ranges = []
    expected = first
    for seq in [*there, last + 1]:
        if seq > expected:
            ranges.append((expected, seq - 1))
        expected = seq + 1
    return ranges

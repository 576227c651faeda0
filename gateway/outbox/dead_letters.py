"""What a destination refused for good, for a technician to list, read whole and send again.

A requeued event keeps its id and is stored anew for that one destination: with a sequence and a delivery number behind
everything that is stored, so that no order changes. Its letter leaves in the same transaction. Limits: `LISTED` letters
a list, `STEP` letters a transaction, `MOST_AT_ONCE` a request; an id may be cut to `MIN_PREFIX` characters.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from gateway.clock import Clock, Stamp
from gateway.errors import ControlError
from gateway.events import Event
from gateway.outbox.outbox import Outbox
from gateway.outbox.rows import Key, Letter, Write

LISTED: Final = 100
STEP: Final = 100
MOST_AT_ONCE: Final = 100
MIN_PREFIX: Final = 8


class DeadLetters:
    """The dead letters of one outbox. `requeued` counts what went back since the start."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._under_way: set[Key] = set()
        self.requeued = 0

    async def listed(self, destination: str = "") -> list[Letter]:
        """Return the newest letters, of one destination or of all. Raises StoreError."""
        return await self._outbox.read(lambda reader: reader.letters(destination=destination, limit=LISTED))

    async def found(self, prefix: str, destination: str = "") -> list[Letter]:
        """Return the letters whose id begins like this: one for each destination that refused that event.

        Raises ControlError for too short, unknown or ambiguous ids, StoreError.
        """
        if len(prefix) < MIN_PREFIX:
            raise ControlError("GW-CTL-03", prefix, reason="@refusal.too-short", least=MIN_PREFIX)
        letters = await self._outbox.read(
            lambda reader: reader.letters(destination=destination, prefix=prefix, limit=LISTED)
        )
        ids = {letter.id for letter in letters}
        if len(ids) != 1:
            reason = "@refusal.ambiguous-letter" if ids else "@refusal.unknown-letter"
            raise ControlError("GW-CTL-03", prefix, reason=reason, count=len(ids))
        return letters

    async def requeue(self, prefix: str, destination: str = "") -> int:
        """Send one event again to whoever refused it, or to one of them; return how many letters that were.

        Raises ControlError as `found` does, and where the outbox takes nothing at the moment; StoreError.
        """
        async with self._one_at_a_time:
            before = frozenset(self._under_way)
            return await self._again(await self.found(prefix, destination), before)

    async def requeue_all(self, destination: str, *, upto: int) -> tuple[int, int]:
        """Send again what a destination refused up to a sequence, oldest first; return how many, and how many are left.

        `MOST_AT_ONCE` letters at most, and none while that many alarms wait: a new one goes behind them. Raises as
        `requeue` does.
        """
        room = max(0, MOST_AT_ONCE - self._outbox.pending(destination)["A"])
        async with self._one_at_a_time:
            before = frozenset(self._under_way)
            letters = await self._outbox.read(
                lambda reader: reader.letters(destination=destination, upto=upto, limit=room, newest=False)
            )
            count = await self._again(letters, before)
            left, _alarms = await self._outbox.read(lambda reader: reader.count_letters(destination, upto=upto))
            return count, left

    async def left(self, destination: str) -> tuple[int, int]:
        """Return how many letters a destination has, and how many of them are of alarms. Raises StoreError."""
        return await self._outbox.read(lambda reader: reader.count_letters(destination))

    async def _again(self, letters: Sequence[Letter], before: Collection[Key]) -> int:
        """`before`: what was under way when the letters were read; an earlier request was given up, its writes were not."""
        asked = [one for one in letters if one.key not in self._under_way and one.key not in before]
        count = 0
        for start in range(0, len(asked), STEP):
            done = await asyncio.gather(*[self._submitted(one) for one in asked[start : start + STEP]])
            count += sum(done)
            if not all(done):
                raise ControlError("GW-CTL-03", asked[start].destination, reason="@refusal.not-stored", count=count)
        return count

    def _submitted(self, letter: Letter) -> asyncio.Future[bool]:
        """Store the event anew; the future says whether it was."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def settle(*, ok: bool) -> None:
            self._under_way.discard(letter.key)
            self.requeued += ok
            if not done.done():
                done.set_result(ok)

        event = event_of(letter, self._clock.stamp())
        write = Write(
            (event,), only=letter.destination, letters=(letter.key,),
            on_commit=lambda _rows: settle(ok=True), on_failed=lambda: settle(ok=False),
        )  # fmt: skip
        self._under_way.add(letter.key)
        if self._outbox.is_failing or not self._outbox.submit(write):
            settle(ok=False)
        return done


def event_of(letter: Letter, now: Stamp) -> Event:
    """Return the event as it was before it was stored; when it happened stands in its body, else it is `now`."""
    try:
        content: dict[str, Any] = json.loads(letter.body)
        clock = content["data"]["clock"]
        wall_ms = round(datetime.fromisoformat(content["time"]).timestamp() * 1000)
        at = Stamp(wall_ms, int(clock["mono_ms"]), str(clock["boot"]), clock["state"])
    except (ValueError, KeyError, TypeError, OverflowError):
        at = now
    return Event(letter.id, letter.noun, letter.device, at, letter.body)

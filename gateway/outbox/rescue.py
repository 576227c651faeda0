"""Brings what a corrupt database still held back into the new one, while the gateway already hears and delivers.

Alarms first, then faults and status, then telemetry and what meters showed day by day; each event keeps its id and gets a
new sequence. How far that has come is stored with what it brought, so that a gateway that ends meanwhile goes on there. At
the end a `gateway.gap` names what could not be found; its window ends when the database was set aside. Limits: a step is
`wreck.STEP_PAGES` pages, and the next is read when it is durable; `LIMIT_S` in all, then the rest counts as lost and is told
so. Where nobody knows the last number that was given, that is told as well, and so is a broken commit at the end of the WAL.
A database that was not finished when the next one had to be set aside comes first, then that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from gateway.clock import Clock, Stamp, iso
from gateway.events import Event, Lane, Origin, new_event
from gateway.outbox.epochs import settle
from gateway.outbox.numbers import Ranges
from gateway.outbox.outbox import Outbox
from gateway.outbox.quarantine import forget_note
from gateway.outbox.reading import ReadingThread
from gateway.outbox.rows import MeterDay, Write
from gateway.outbox.salvage import TORN, UNTOLD, salvage
from gateway.outbox.wreck import Rescued, Wreck, steps

LIMIT_S: Final = 1_800.0
LOOK_S: Final = 1.0
PAUSE_S: Final = 0.05
DAYS_A_WRITE: Final = 100
FACT: Final = "rescue"
CORRUPT: Final = "corrupt"

_log = structlog.get_logger("outbox")
T = TypeVar("T")


class Rescue:
    """Looks after the databases that one outbox has set aside. `rescued` counts events since the start.

    `on_alarms` is told, in order, the alarms and alarm states that came back: a newer state of these alarms stands before them.
    """

    def __init__(
        self,
        outbox: Outbox,
        origin: Origin,
        *,
        clock: Clock,
        on_alarms: Callable[[list[Event]], None] = lambda _events: None,
    ) -> None:
        self._outbox = outbox
        self._origin = origin
        self._clock = clock
        self._on_alarms = on_alarms
        self._thread = ReadingThread("outbox-rescue")
        self.rescued = 0

    async def run(self) -> None:
        """Rescue whatever there is to be rescued, for ever."""
        try:
            await self._run()
        finally:
            self._thread.shutdown()

    async def _run(self) -> None:
        while True:
            if self._outbox.is_torn and not self._outbox.is_failing:
                await self.tell_torn()
            if self._outbox.to_rescue and not self._outbox.is_failing:
                try:
                    await self.once()
                except Exception as error:  # noqa: BLE001 - what is old must not end the hearing of what is new
                    _log.error("what a corrupt database held could not be brought back", exc_info=error)
                    await self._finish({}, [], is_complete=False, place=json.loads(self._outbox.to_rescue or "{}"))
            await asyncio.sleep(LOOK_S)

    async def tell_torn(self) -> None:
        """Tell that the last commit before the start is broken: it may have been accepted. No more than that is known."""
        outbox, now = self._outbox, self._clock.stamp()
        since = outbox.last_recorded or now
        data = {
            "link": "outbox", "from": iso(since.wall_ms), "to": iso(now.wall_ms), "from_mono_ms": since.mono_ms,
            "to_mono_ms": now.mono_ms, "from_boot": since.boot, "to_boot": now.boot, "reason": CORRUPT, "dropped": 0,
            "exact": False, "complete": False, "rescued": 0, "sequences": [], "stream": outbox.streamid,
            "highest": outbox.sequence, "highest_is_sure": False,
        }  # fmt: skip
        is_told = await self._durable(  # it may stand there still at the next start
            events=(new_event("gateway.gap", self._origin, device=self._origin.gateway, at=now, data=data),),
            facts=((TORN, " ".join(outbox.torn)), (UNTOLD, "")),
        )
        if is_told:  # else it is still to be told, by the next look or the next start
            outbox.is_torn = False
            _log.warning(
                "the last commit before the start is broken; it may have been accepted", sequence=outbox.sequence
            )

    async def once(self) -> None:
        """Rescue what the oldest database that was set aside still holds. Raises OSError when it cannot be read at all."""
        place = json.loads(self._outbox.to_rescue)
        path = self._outbox.path.with_name(str(place["file"]))
        done = bool(place.get("telemetry")), int(place.get("page", 0))
        salvaged = await self._in_thread(lambda: salvage(path))
        sequence = int(place.get("sequence", 0))
        destinations = self._outbox.stock.destinations
        wreck = await self._in_thread(lambda: Wreck(path, salvaged, destinations=destinations, sequence=sequence))
        try:
            is_complete = await self._bring_back(wreck, place, done)
            missing = await self._in_thread(wreck.missing)
        finally:
            self._thread.submit(wreck.close)  # not waited for: at the end of the process a reading may hang before it
        facts: dict[str, object] = {
            "stream": salvaged.facts.get("streamid", ""), "highest": wreck.highest, "highest_is_sure": bool(sequence),
        }  # fmt: skip
        # What was lost may have come behind all that was found, but not after the database was set aside.
        first_at, last_at = wreck.first, Stamp(**place["at"]) if "at" in place else wreck.last
        if first_at is not None and last_at is not None:
            facts |= {
                "from": iso(first_at.wall_ms), "to": iso(last_at.wall_ms), "from_mono_ms": first_at.mono_ms,
                "to_mono_ms": last_at.mono_ms, "from_boot": first_at.boot, "to_boot": last_at.boot,
            }  # fmt: skip
        await self._finish(facts, missing, is_complete=is_complete, place=place)

    async def _bring_back(self, wreck: Wreck, place: dict[str, Any], done: tuple[bool, int]) -> bool:
        """Go through all pages; False when that could not be finished."""
        deadline = self._clock.monotonic() + LIMIT_S
        # A gateway that ended meanwhile goes through them all once more: which alarms came back before it is known to nobody.
        alarms: list[Rescued] | None = None if done[0] else []
        for urgent, first in steps(wreck):
            if not urgent and alarms is not None:
                self._settle(alarms)
                alarms = None
            if self._clock.monotonic() > deadline or self._is_superseded(place):
                self._settle(alarms or [])
                return False
            found = await self._in_thread(partial(wreck.step, first, urgent=urgent))
            if alarms is not None:
                alarms += [one for one in found if one.event.lane is Lane.A]
            if not urgent and (True, first) > done:
                await self._store_days(await self._in_thread(partial(wreck.days, first)))
            if found and (not urgent, first) > done:
                await self._store(found, {**place, "telemetry": not urgent, "page": first})
        return True

    def _settle(self, alarms: list[Rescued]) -> None:
        if not alarms:
            return
        try:
            self._on_alarms([one.event for one in sorted(alarms, key=lambda one: one.seq)])
        except Exception as bug:  # noqa: BLE001 - the rest must be brought back all the same
            _log.error("alarms that were brought back could not be settled", exc_info=bug)

    def _is_superseded(self, place: dict[str, object]) -> bool:
        """Has the next database had to be replaced meanwhile? Then that one is to be rescued, and this one is left."""
        now = json.loads(self._outbox.to_rescue or "{}")
        return bool(now.get("file", place.get("file")) != place.get("file"))

    async def _store(self, found: Sequence[Rescued], place: dict[str, object]) -> None:
        for one in found:
            await self._submit(Write((one.event,), only=one.only))
        await self._durable(facts=((FACT, json.dumps({**place, **self._then(place)})),))
        self.rescued += len(found)

    async def _store_days(self, days: Sequence[MeterDay]) -> None:
        """Store what meters showed, a few rows a commit: an alarm waits for it. What comes twice is the same row."""
        for first in range(0, len(days), DAYS_A_WRITE):
            await self._durable(days=tuple(days[first : first + DAYS_A_WRITE]))

    async def _finish(
        self, facts: dict[str, object], missing: Ranges, *, is_complete: bool, place: dict[str, object]
    ) -> None:
        """Tell what could not be found, and that it is over: one transaction."""
        _log.warning("a corrupt database was gone through", rescued=self.rescued, missing=missing, complete=is_complete)
        events: tuple[Event, ...] = ()
        if missing or not is_complete or not facts.get("highest_is_sure"):
            now = self._clock.stamp()
            known: dict[str, object] = {
                "from": iso(now.wall_ms), "to": iso(now.wall_ms), "from_mono_ms": now.mono_ms, "to_mono_ms": now.mono_ms,
            }  # fmt: skip
            data = {
                "link": "outbox", **known, **facts, "reason": CORRUPT, "dropped": sum(b - a + 1 for a, b in missing),
                "exact": False, "complete": is_complete, "rescued": self.rescued, "sequences": missing,
            }  # fmt: skip
            events = (new_event("gateway.gap", self._origin, device=self._origin.gateway, at=now, data=data),)
        then = self._then(place).get("then")
        rest = json.dumps(then) if then else ""
        is_last = not self._is_superseded(place)
        await self._durable(events=events, facts=((FACT, rest),) if is_last else ())
        with contextlib.suppress(OSError, KeyError):  # at worst it is gone through once more
            aside = self._outbox.path.with_name(str(place["file"]))
            await self._in_thread(lambda: forget_note(aside))
        if not self._is_superseded(place):
            then = self._then(place).get("then")  # a database may have had to be replaced meanwhile
            self._outbox.to_rescue = json.dumps(then) if then else ""

    def _then(self, place: dict[str, object]) -> dict[str, object]:
        """What is to be gone through after it, as it is known now."""
        now = json.loads(self._outbox.to_rescue or "{}")
        return {"then": now["then"]} if now.get("file") == place.get("file") and "then" in now else {}

    async def _durable(self, **more: Any) -> bool:
        """Return whether it was stored: False for what no disk will ever take."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stored = False

        def committed() -> None:
            nonlocal stored
            stored = True
            settle(done)

        await self._submit(Write(**more, on_commit=lambda _rows: committed(), on_failed=lambda: settle(done)))
        await done
        return stored

    async def _submit(self, write: Write) -> None:
        while not self._outbox.submit(write, live=False):  # noqa: ASYNC110 - the queue tells nobody that it has room
            await asyncio.sleep(PAUSE_S)

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

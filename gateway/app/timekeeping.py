"""Keeps what is known of the clock over restarts, tells platforms the offset of this boot, and staff what is wrong.

The offset goes out as `gateway.health` with kind "clock", once it is known and again when it was corrected by more than
`TELL_MS`; the table of boots is stored in the same transaction. `gateway.health`, because it is the gateway that speaks of
its own state: `gateway.birth` would say that there is a new inventory, `gateway.link` tells of lines. Every later event of
the boot carries the offset as well, for platforms whose filter lets no `gateway.health` through.

Limits: timedated is asked every `ASK_S` where nobody else can tell, and has `ASK_LIMIT_S` to answer.
"""

from __future__ import annotations

import asyncio
import importlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from gateway.clock import BUILT_MS, SYNCED, Doubt, PlatformTime, Stamp, SystemClock, iso
from gateway.events import Origin, new_event
from gateway.health import Health
from gateway.outbox import Outbox, Write

TELL_MS: Final = 1_000
SKEW_MS: Final = 60_000
ASK_S: Final = 30.0
ASK_LIMIT_S: Final = 5.0
_FACT: Final = "boots"
_SKEWED: Final = "GW-CLK-04"
_BEFORE: Final = "GW-CLK-02"
_NOT_FOLLOWED: Final = "GW-CLK-05"

_log = structlog.get_logger("clock")


async def _ask_timedated() -> bool | None:
    # Where it is asked at all: the library for D-Bus takes some tenths of a second of a Pi, in which the event loop must hear.
    timedate = await asyncio.to_thread(importlib.import_module, "gateway.links.timedate")
    is_synchronised: Callable[..., Awaitable[bool | None]] = timedate.is_synchronised
    return await is_synchronised(limit_s=ASK_LIMIT_S)


class Timekeeping:
    """The clock of one run. `alive` is the last sign of life; `tick` is to be called about once a second."""

    def __init__(
        self, clock: SystemClock, origin: Origin, *, outbox: Outbox, health: Health,
        alive: Stamp | None, ask: Callable[[], Awaitable[bool | None]] = _ask_timedated,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._origin = origin
        self._outbox = outbox
        self._health = health
        self._ask = ask
        self._told_ms: int | None = None
        self._alive = alive
        self._is_telling = False
        self._steps = clock.steps
        self._take_over()  # a database that cannot be opened must not find the clock in 1970

    def begin(self) -> None:
        """The database was opened, if it could be: take over what it knows."""
        floor_ms = self._take_over()
        if self._outbox.boots.begin(self._clock.boot, floor_ms=floor_ms):
            self.store_again()

    def found(self) -> None:
        """A database that could not be opened at the start is there: what it remembers joins what came since."""
        self._take_over()
        self.store_again()

    def _take_over(self) -> int:
        boots, recorded, boot = self._outbox.boots, self._outbox.last_recorded, self._clock.boot
        own = boots[boot]
        trusted_ms = None if own is None else own.offset_ms
        if self._told_ms is None:
            self._told_ms = trusted_ms
        floors, leasts = [BUILT_MS, boots.floor_of(boot)], [0]
        for last in (self._alive, recorded):
            if last is None:
                continue
            if last.boot != boot:
                known = boots[last.boot]
                is_floor = last.clock == SYNCED and known is not None and known.is_floor
                (floors if is_floor else leasts).append(last.wall_ms)
            elif last is self._alive:  # the time of a commit belongs to no event's boot time
                offset_ms = last.wall_ms - last.mono_ms
                leasts.append(offset_ms)
                if last.clock == SYNCED and trusted_ms is None:
                    trusted_ms = offset_ms  # told again: the database that knew it is gone
        by = "platform" if own is not None and own.is_told else "stored"
        self._clock.know(floor_ms=max(floors), least_ms=max(leasts), trusted_ms=trusted_ms, by=by)
        return max(floors)

    def store_again(self) -> None:
        """Store the table of boots: it has changed, or the database is a new one."""
        self._outbox.submit(Write(facts=((_FACT, self._outbox.boots.text()),)))

    async def run(self) -> None:
        """Ask timedated, for ever, where nobody else can tell."""
        while True:
            if self._clock.wants_bus:
                said = await self._ask()
                if said is not None:
                    self._clock.bus_says(synced=said)
            await asyncio.sleep(ASK_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret

    def platform_says(self, destination: str, said: PlatformTime) -> None:
        """A platform has told its time; it errs by half its round trip at most."""
        at_ms, error_ms = (said.asked_ms + said.answered_ms) // 2, (said.answered_ms - said.asked_ms) // 2
        self._clock.platform_says(said.wall_ms, at_ms=at_ms)
        skew_ms = said.wall_ms - at_ms - self._clock.trust.offset_ms
        if self._clock.trust.by == "ntp" and abs(skew_ms) > SKEW_MS + error_ms:
            self._health.on(_SKEWED, destination, skew=round(skew_ms / 1000))
        else:
            self._health.off(_SKEWED, destination)

    def tick(self) -> None:
        """See what has become of the clock."""
        now, trust = self._clock.stamp(), self._clock.trust
        if self._clock.steps != self._steps:
            self._steps = self._clock.steps
            _log.warning("the clock was set", says=_shown(now.mono_ms + trust.raw_ms), gateway=iso(now.wall_ms))
        offset_ms = trust.trusted_ms
        is_new = offset_ms is not None and (self._told_ms is None or abs(offset_ms - self._told_ms) > TELL_MS)
        if offset_ms is not None and is_new and not self._is_telling:
            self._tell(now, offset_ms)
        elif not is_new and trust.by == "ntp":
            self._confirm()
        self._judge(now)

    def _confirm(self) -> None:
        """Note that a synchronisation stands by what a platform had told: nothing to tell, but a floor from now on."""
        boots, boot = self._outbox.boots, self._clock.boot
        own = boots[boot]
        if own is not None and own.is_told and own.offset_ms is not None:
            boots.synced(boot, offset_ms=own.offset_ms)
            self.store_again()

    def _tell(self, now: Stamp, offset_ms: int) -> None:
        data: dict[str, object] = {"kind": "clock", "by": self._clock.trust.by}
        if self._told_ms is not None:
            data["corrected_from_ms"] = self._told_ms
        gateway = self._origin.gateway
        event = new_event("gateway.health", self._origin, device=gateway, at=now, data=data)
        before = self._outbox.boots[self._clock.boot]
        is_told = self._clock.trust.by == "platform"
        self._outbox.boots.synced(self._clock.boot, offset_ms=offset_ms, is_told=is_told)

        def stored() -> None:
            self._is_telling, self._told_ms = False, offset_ms

        def failed() -> None:
            self._is_telling = False

        self._is_telling = self._outbox.submit(
            Write(
                (event,), facts=((_FACT, self._outbox.boots.text()),), on_commit=lambda _rows: stored(),
                on_failed=failed,
            )
        )  # fmt: skip
        _log.info(
            "the clock is trusted", by=self._clock.trust.by, time=iso(now.wall_ms), offset_ms=offset_ms,
            before=None if before is None else before.offset_ms,
        )  # fmt: skip

    def _judge(self, now: Stamp) -> None:
        trust = self._clock.trust
        doubt, says = trust.doubt, _shown(now.mono_ms + trust.raw_ms)
        if doubt is Doubt.BEFORE:
            self._health.on(_BEFORE, "", now=says, floor=iso(now.mono_ms + trust.floor_ms))
        else:
            self._health.off(_BEFORE)
        if doubt in (Doubt.AHEAD, Doubt.JUMPED):
            self._health.on(_NOT_FOLLOWED, "", now=says, gateway=iso(now.wall_ms))
        else:
            self._health.off(_NOT_FOLLOWED)


def _shown(wall_ms: int) -> str:
    """A clock may be set to what no calendar has a name for."""
    try:
        return iso(wall_ms)
    except (ValueError, OverflowError, OSError):
        return f"{wall_ms / 1000:.0f} s"

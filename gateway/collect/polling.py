"""The master of one bus: asks each meter in turn, and lets no dead one starve the others.

Turns are fair: the device that has waited longest beyond its time is next. A device that does not answer is asked less
and less often, up to `MAX_SLOWDOWN` times its interval but never more rarely than every `SLOWEST_S` for it, and becomes a
problem after `FAILED_POLLS` polls in a row. Limits: one poll takes at most `POLL_LIMIT_S` and `MAX_ASKS` requests.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from drivers.kit import Answers, Decoded, NoReply, Polled, Rejected
from gateway.clock import Clock
from gateway.collect.collector import Collector
from gateway.collect.desk import Desk
from gateway.collect.listening import Exchange, Said
from gateway.errors import LinkDown
from gateway.health import Health
from gateway.links.serial_line import SerialLine

POLL_LIMIT_S: Final = 60.0
MAX_ASKS: Final = 100
FAILED_POLLS: Final = 3
MAX_SLOWDOWN: Final = 16
SLOWEST_S: Final = 300.0
LINK_DOWN_S: Final = 0.5


@dataclass(slots=True)
class _Turn:
    desk: Desk
    every_s: float
    next_at: float
    failed: int = 0


class BusMaster:
    """Polls the devices of one line for ever."""

    def __init__(
        self, line: SerialLine, desks: Sequence[Desk], *, collector: Collector, clock: Clock, health: Health
    ) -> None:
        self._line = line
        self._collector = collector
        self._clock = clock
        self._health = health
        now = clock.monotonic()
        self._turns = []
        for desk in desks:
            driver = desk.driver
            assert isinstance(driver, Answers)  # noqa: S101 - the configuration sets one shape a line
            every = desk.every_s or driver.every_s
            # A phase of its own, so that a hundred gateways do not read their meters in the same second.
            self._turns.append(_Turn(desk, every, now + random.uniform(0, min(every, 2.0))))  # noqa: S311

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            turn = min(self._turns, key=lambda one: one.next_at)
            wait = turn.next_at - self._clock.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            await self._poll(turn)

    async def _poll(self, turn: _Turn) -> None:
        desk = turn.desk
        desk.polls += 1
        exchange: list[tuple[bytes, bytes | None]] = []
        try:
            async with asyncio.timeout(POLL_LIMIT_S):
                polled = await self._talk(desk, exchange)
        except LinkDown:
            turn.next_at = self._clock.monotonic() + LINK_DOWN_S  # the line reopens by itself; nobody is at fault here
            desk.polls -= 1
            return
        except (NoReply, Rejected, TimeoutError) as error:
            self._show(desk, exchange, error)
            self._failed(turn, error)
            return
        except Exception as bug:  # noqa: BLE001 - a reply that a driver cannot stand must not silence the whole bus
            self._show(desk, exchange, bug)
            self._collector.fault(desk, bug)
            self._failed(turn, bug)
            return
        turn.failed = 0
        turn.next_at += turn.every_s
        if turn.next_at < self._clock.monotonic():
            turn.next_at = self._clock.monotonic() + turn.every_s
        self._health.off("GW-DEV-01", desk.id)
        desk.hear(self._clock)
        decoded = polled if isinstance(polled, Decoded) else Decoded(polled)
        decoded = replace(decoded, address=desk.address)
        self._show(desk, exchange, decoded)
        try:
            self._collector.take(desk, decoded, self._clock.stamp())
        except Exception as bug:  # noqa: BLE001 - a bug behind one good reply must not end the asking of all meters
            self._collector.fault(desk, bug)

    def _failed(self, turn: _Turn, error: Exception) -> None:
        desk = turn.desk
        desk.polls_failed += 1
        turn.failed += 1
        if isinstance(error, Rejected):
            desk.reject(error.reason)
        slowdown = min(2 ** min(turn.failed - 1, 10), MAX_SLOWDOWN)
        wait = max(turn.every_s, min(turn.every_s * slowdown, SLOWEST_S))
        turn.next_at = self._clock.monotonic() + wait * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
        if turn.failed >= FAILED_POLLS:
            what = str(error) or type(error).__name__
            self._health.on("GW-DEV-01", desk.id, link=desk.link, failures=turn.failed, detail=what[:200])

    async def _talk(self, desk: Desk, exchange: list[tuple[bytes, bytes | None]]) -> Polled:
        driver = desk.driver
        assert isinstance(driver, Answers)  # noqa: S101 - see __init__
        talk = driver.talk(desk.options)
        framer = driver.framer()
        try:
            ask = next(talk)
            for _ in range(MAX_ASKS):
                try:
                    frame = await self._line.ask(ask, framer)
                except NoReply as silence:
                    exchange.append((ask.request, None))
                    ask = talk.throw(silence)
                    continue
                exchange.append((ask.request, frame))
                ask = talk.send(frame)
        except StopIteration as end:
            found: Polled = end.value
            return found
        finally:
            talk.close()
        raise NoReply(f"no end after {MAX_ASKS} requests")

    def _show(self, desk: Desk, exchange: Exchange, said: Said) -> None:
        self._collector.listeners.tell_poll(desk.link, self._clock.stamp(), exchange, desk=desk, said=said)

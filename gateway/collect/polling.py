"""The master of one bus: asks each meter in turn, and lets no dead one starve the others.

Whose turn it is stands in `rota`. A device that does not answer is asked again after `SOON_S`, then less and less often, up
to `MAX_SLOWDOWN` times its interval but never more rarely than every `SLOWEST_S` for it, with one try instead of several
until it answers, and becomes a problem after `FAILED_POLLS` polls in a row. A reply that came only to a repeated request may
be followed by the late one to the first: the line is heard out before the same device is asked for something else, so that
no register gets another's value. A line on which somebody speaks all the time, unasked, is a problem that names him where
his frames do.
Limits: one poll takes at most `POLL_LIMIT_S` and `MAX_ASKS` requests.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from drivers.kit import Answers, Ask, Decoded, Framer, Names, NoReply, Polled, Rejected
from gateway.clock import Clock
from gateway.collect.collector import Collector
from gateway.collect.desk import Desk
from gateway.collect.listening import Exchange, Said
from gateway.collect.rota import Rota, Turn
from gateway.collect.unasked import Unasked
from gateway.errors import LinkDown
from gateway.health import Health
from gateway.links.serial_line import CannotBeSet, SerialLine

POLL_LIMIT_S: Final = 60.0
MAX_ASKS: Final = 100
FAILED_POLLS: Final = 3
MAX_SLOWDOWN: Final = 16
SLOWEST_S: Final = 300.0
# A poll that failed once may have met a disturbance: a quarter of an hour is too long to wait for the next.
SOON_S: Final = 30.0
LINK_DOWN_S: Final = 0.5
# Fewer bytes than that are a disturbance, and nobody's reply.
NOISE_BYTES: Final = 4
# So many requests in a row that found no quiet moment to be sent in.
RESTLESS_ASKS: Final = 3


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
            phase = random.uniform(0, min(every, 2.0))  # noqa: S311 - jitter, nothing secret
            self._turns.append(Turn(desk, every, now + phase, desk.line))
        self._rota = Rota(self._turns)
        self._unasked = Unasked(desks)
        self._echo_told = False
        line.on_unasked = self._unasked.take

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            turn, wait = self._rota.next(self._clock.monotonic())
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            await self._poll(turn)
            self._look_at_line(turn)

    def status(self) -> dict[str, Any]:
        """Return the figures of the line for `gateway status`."""
        line = self._line
        return {
            "id": line.link_id, "asks": line.asks, "replies": line.replies, "timeouts": line.timeouts,
            "foreign": line.foreign, "trimmed": line.trimmed, "unasked": line.unasked, "echo": line.echo_seen,
            "switches": line.switches,
        }  # fmt: skip

    def _look_at_line(self, turn: Turn) -> None:
        """Tell what the line shows beside replies: an echo, and somebody who speaks all the time."""
        line = self._line
        if line.echo_seen and not line.echo_expected and not self._echo_told:
            self._echo_told = True
            self._health.on("GW-SER-10", line.link_id)
        if line.restless >= RESTLESS_ASKS:
            named = self._unasked.loudest
            who = {"address": named} if named else {"last": turn.desk.id}
            self._health.on("GW-SER-09", line.link_id, bytes=line.unasked, **who)
        elif not line.restless:
            self._health.off("GW-SER-09", line.link_id)
            self._unasked.forget()

    async def _poll(self, turn: Turn) -> None:
        desk = turn.desk
        desk.polls += 1
        began = self._clock.monotonic()
        self._rota.begins(turn, began)
        exchange: list[tuple[bytes, bytes | None]] = []
        target, days = self._target(desk)
        taken = self._line.taken
        try:
            async with asyncio.timeout(POLL_LIMIT_S):
                polled = await self._talk(turn, exchange, target)
        except LinkDown:
            turn.next_at = self._clock.monotonic() + LINK_DOWN_S  # the line reopens by itself; nobody is at fault here
            desk.polls -= 1
            return
        except (NoReply, Rejected, TimeoutError) as error:
            self._show(desk, exchange, error)
            came = self._line.taken - taken if isinstance(error, NoReply) else 0
            self._failed(turn, error, began=began, days=days, came=came)
            return
        except Exception as bug:  # noqa: BLE001 - a reply that a driver cannot stand must not silence the whole bus
            self._show(desk, exchange, bug)
            self._collector.fault(desk, bug)
            self._failed(turn, bug, began=began, days=days)
            return
        if days:
            self._collector.registers.asked(desk.id)
        turn.failed, turn.answered = 0, True
        turn.next_at += turn.every_s
        if turn.next_at < self._clock.monotonic():
            turn.next_at = self._clock.monotonic() + turn.every_s
        self._health.off("GW-DEV-01", desk.id)
        desk.hear(self._clock)
        decoded = polled if isinstance(polled, Decoded) else Decoded(polled)
        decoded = replace(decoded, address=desk.address)
        desk.meter_number = decoded.meter or desk.meter_number
        self._show(desk, exchange, decoded)
        try:
            self._collector.take(desk, decoded, self._clock.stamp())
        except Exception as bug:  # noqa: BLE001 - a bug behind one good reply must not end the asking of all meters
            self._collector.fault(desk, bug)

    def _failed(self, turn: Turn, error: Exception, *, began: float, days: int, came: int = 0) -> None:
        desk = turn.desk
        if days:
            self._collector.registers.not_given(desk.id)
        now = self._clock.monotonic()
        self._rota.failed(turn, took_s=now - began, now=now)
        desk.polls_failed += 1
        turn.failed += 1
        if isinstance(error, Rejected):
            desk.reject(error.reason)
        slowdown = min(2 ** min(turn.failed - 1, 10), MAX_SLOWDOWN)
        wait = max(turn.every_s, min(turn.every_s * slowdown, SLOWEST_S))
        if turn.failed < FAILED_POLLS:
            wait = min(wait, SOON_S * turn.failed)
        turn.next_at = now + wait * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
        if turn.failed >= FAILED_POLLS:
            what = str(error) or type(error).__name__
            # Silence and something that nobody can read have different causes.
            heard = {"bytes": came} if came >= NOISE_BYTES else {}
            self._health.on("GW-DEV-01", desk.id, link=desk.link, failures=turn.failed, detail=what[:200], **heard)

    async def _talk(self, turn: Turn, exchange: list[tuple[bytes, bytes | None]], target: Any) -> Polled:
        driver = turn.desk.driver
        assert isinstance(driver, Answers)  # noqa: S101 - see __init__
        talk = driver.talk(target)
        framer = driver.framer()
        # Who is not known to be there is not asked three times.
        proven = turn.answered and not turn.doubtful
        try:
            ask = next(talk)
            named = False
            for _ in range(MAX_ASKS):
                silent = self._line.timeouts
                try:
                    frame = await self._ask(turn, ask, framer, proven=proven)
                except CannotBeSet:
                    raise  # a driver for which silence is no end would ask on
                except NoReply as silence:
                    exchange.append((ask.request, None))
                    ask = talk.throw(silence)
                    continue
                exchange.append((ask.request, frame))
                named = named or self._note_number(turn.desk, driver, frame)
                proven = True
                asked = ask
                ask = talk.send(frame)
                if self._line.timeouts != silent:
                    await self._hear_out(asked, ask)
        except StopIteration as end:
            found: Polled = end.value
            return found
        finally:
            talk.close()
        raise NoReply(f"no end after {MAX_ASKS} requests")

    async def _ask(self, turn: Turn, ask: Ask, framer: Framer, *, proven: bool) -> bytes:
        """Ask once; with one try and less patience who has not shown in this poll that he is there, or is silent to this."""
        line = self._line
        silent_s = None
        if not proven or turn.is_deaf_to(ask.request):
            ask = replace(ask, retries=0)
            silent_s = self._rota.silence_s(turn, self._clock.monotonic(), to=ask.request)
        try:
            frame = await line.ask(ask, framer, turn.settings, silent_s=silent_s)
        except CannotBeSet:
            raise
        except NoReply:
            turn.was_deaf(ask.request)
            raise
        turn.heard(ask.request, line.first_s or 0.0)
        return frame

    def _target(self, desk: Desk) -> tuple[Any, int]:
        """Return what is asked, and how many of its own midnights a meter is asked for beside that: after an outage."""
        driver = desk.driver
        assert isinstance(driver, Answers)  # noqa: S101 - see __init__
        days = self._collector.registers.missing(desk.id) if driver.history is not None else 0
        return (driver.history(desk.options, days), days) if days and driver.history else (desk.options, 0)

    @staticmethod
    def _note_number(desk: Desk, driver: Answers, frame: bytes) -> bool:
        """Keep what the meter calls itself, say whether it did; a reply with a wildcard in it says nothing."""
        number = driver.sender(frame) if driver.sender is not None and driver.names is Names.METER else ""
        if number and "AA" not in number.upper():
            desk.meter_number = number
        return bool(number)

    async def _hear_out(self, asked: Ask, then: Ask) -> None:
        """Let a late reply to the first of several tries pass, before something else is asked of the same device."""
        if then.request != asked.request:
            await self._line.hear_out(at_most_s=asked.timeout_s)

    def _show(self, desk: Desk, exchange: Exchange, said: Said) -> None:
        self._collector.listeners.tell_poll(desk.link, self._clock.stamp(), exchange, desk=desk, said=said)

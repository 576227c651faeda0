"""The paths of one destination: the first that stands is used, the others are kept connected, and none is in the way.

Paths are numbered from 0 in the order of the configuration; an earlier one is preferred. `open` gives each a head start
of `HEAD_START_S` before the next (none where the earlier ones have failed) and is done when one stands. The others go on
in the background, each with a back-off of its own. When the path in use is lost another one takes over at once; an
earlier one takes it back when it has stood for `PROBATION_S`, twice that each time it did not last `STEADY_S` in use, an
hour at most. A path that is connected and silent is passed over in the same way, but stays connected; people are told
until it answers again or is used again.

What the platform hears of it: all connections between `open` and `close` carry one epoch, with a client id each. By the
rule "a state of an older epoch is ignored, of an equal one it counts", the will of one connection says "offline" while
another stands, and no order of epochs could prevent it without silencing the will of the one that is left. So whenever a
connection ends while another stands, the standing ones say "online" again: at once, after 2 s and 60 s (a will is due 1.5
times the keep-alive of 30 s after the last packet, and mosquitto looks every 5 s), 300 s and 1,000 s (a goodbye that a
dead line delivers before TCP's patience ends, 924 s). The last connection's will is of the same epoch: it counts. HTTP
says "online" every minute by itself.

Where a platform gives one client id, two connections would throw each other out: `one_at_a_time`. Then a path is dialled when
no other one stands or is being tried, so that a later one is a cold standby; whose turn it is stands in `turn`.

Limits: 4 paths, `OPEN_LIMIT_S` for an attempt, `CLOSE_LIMIT_S` for all goodbyes together. With a single path nothing of
this happens: it is opened, used, and closed when it is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from gateway.clock import Clock
from gateway.errors import SessionError
from gateway.events import Lane
from gateway.health import Health
from gateway.mqtt_session import TAKEN_OVER
from gateway.uplinks.back_off import BackOff
from gateway.uplinks.path import Line, PlatformPath
from gateway.uplinks.turn import Turn
from gateway.uplinks.uplink import Ack, Announcing, Limited, SharedLine, UplinkEvents

MAX_PATHS: Final = 4
MAX_EVENTS: Final = 100
HEAD_START_S: Final = 3.0
OPEN_LIMIT_S: Final = 45.0
CLOSE_LIMIT_S: Final = 3.0
CALM_S: Final = 300.0  # so long nobody else took a session of ours: the problem is over
ANNOUNCE_AFTER_S: Final = (0.0, 2.0, 60.0, 300.0, 1000.0)
# A path that stood for so long was worth dialling: after it the earliest is tried first again.
STOOD_S: Final = 10.0
NO_TOKEN: Final = -1
PATH_DOWN: Final = "GW-NET-07"
PARTLY_REFUSED: Final = "GW-PLT-08"

_log = structlog.get_logger("uplink")
_GONE: Final = "the destination's session has ended"


@dataclass(frozen=True, slots=True)
class PathsEvents:
    """What the paths tell their deliverer, in the event loop. Tokens are told apart by `path_of`.

    `acks` comes with the path over which it was heard. `gone`: this path was lost while another stands; what it carried
    goes again. `lost`: no path stands any more; it is said once, and nothing after it.
    """

    acks: Callable[[list[Ack], int], None]
    sent: Callable[[int, bool], None]
    gone: Callable[[int], None]
    lost: Callable[[SessionError], None]


def path_of(token: int) -> int:
    """Return the path over which the message with this token went."""
    return token % MAX_PATHS


class Paths:
    """All paths to one platform, as one. `urgent` (set by the deliverer) says whether an alarm is pending."""

    def __init__(
        self,
        destination: str,
        paths: Sequence[PlatformPath],
        *,
        reconnect_spread_s: float,
        clock: Clock,
        health: Health,
        one_at_a_time: bool = False,
    ) -> None:
        if not 1 <= len(paths) <= MAX_PATHS:
            raise ValueError(f"1 to {MAX_PATHS} paths, not {len(paths)}")
        self._destination = destination
        self._clock = clock
        self._health = health
        now = clock.monotonic()
        self._lines = [Line(n, path, BackOff(reconnect_spread_s), now) for n, path in enumerate(paths)]
        # Asked for each message, and slow to answer: a protocol is looked at member by member.
        self._limited = [one.uplink if isinstance(one.uplink, Limited) else None for one in paths]
        self._shared = [isinstance(one.uplink, SharedLine) and one.uplink.is_shared for one in paths]
        self._turn = Turn() if one_at_a_time and len(paths) > 1 else None
        self._in_use: Line | None = None
        self._events: PathsEvents | None = None
        self._first: asyncio.Future[None] | None = None
        self._bug: BaseException | None = None
        self._epoch = 0
        self._birth: Mapping[str, object] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.urgent: Callable[[], bool] = lambda: False

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self, events: PathsEvents, *, epoch: int, birth: Mapping[str, object]) -> None:
        """Return when one path stands. Raises SessionError, that of the first path, when none can be had."""
        loop = asyncio.get_running_loop()
        self._events, self._epoch, self._birth = events, epoch, birth
        self._first = loop.create_future()
        for line in self._lines:
            line.reset(self._clock.monotonic())
        self._lines[0].may_begin.set()
        for line in self._lines:
            task = loop.create_task(self._keep(line), name=f"path {self._destination}/{line.number + 1}")
            task.add_done_callback(self._keeper_ended)
            self._keepers.append(task)
        try:
            await self._first
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Say goodbye over all of them. Raises nothing but what a bug raised that ended one of their tasks."""
        self._events = None
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        keepers, self._keepers = self._keepers, []
        for _ in range(2):  # the second time it is the goodbye itself that is given up
            for task in keepers:
                task.cancel()
            if keepers:
                _, waiting = await asyncio.wait(keepers, timeout=CLOSE_LIMIT_S)
                keepers = list(waiting)
        self._in_use = None
        for line in self._lines:
            line.reset(self._clock.monotonic())
            self._health.off(PATH_DOWN, self._subject(line))
            self._health.off(PARTLY_REFUSED, self._subject(line))
        bug, self._bug = self._bug, None
        if bug is not None:
            raise bug

    async def _keep(self, line: Line) -> None:
        """Connect one path, and again whenever it is lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAD_START_S * line.number):
                await line.may_begin.wait()
        while True:
            async with contextlib.nullcontext() if self._turn is None else self._turn.of(line.number):
                established = await self._connect_once(line)
            await line.back_off.sleep(established=established, pending=self.urgent(), alarm=line.alarm)

    async def _connect_once(self, line: Line) -> bool:
        """One connection, from its beginning to its end; True if it stood."""
        line.ended = asyncio.get_running_loop().create_future()
        uplink = line.path.uplink
        try:
            async with asyncio.timeout(OPEN_LIMIT_S):
                await uplink.open(self._events_of(line, line.ended), epoch=self._epoch, birth=self._birth)
        except TimeoutError:
            self._failed(line, SessionError("GW-NET-02", line.path.host, error="no session in time"))
            await uplink.close()
            return False
        except SessionError as error:
            self._failed(line, error)
            return False
        try:
            if line.ended.done():  # while it was being opened
                self._failed(line, line.ended.result())
            else:
                self._stands(line)
                since = self._clock.monotonic()
                await line.ended
                if self._turn is not None and self._clock.monotonic() - since >= STOOD_S:
                    self._turn.begin_anew()
        finally:
            await uplink.close()
        self._announce_again()
        return True

    def _keeper_ended(self, task: asyncio.Task[None]) -> None:
        bug = None if task.cancelled() else task.exception()
        if bug is None:
            return
        if self._first is not None and not self._first.done():
            self._first.set_exception(bug)
            return
        self._bug = bug
        self._end(SessionError("GW-NET-05", self._destination, error=f"{type(bug).__name__}: {bug}"[:200]))

    # -- traffic ------------------------------------------------------------------------------------------------

    def standing(self) -> list[int]:
        """Return the paths that stand: the one in use, then the others by preference."""
        first = self._in_use
        rest = self._by_preference(one for one in self._lines if one is not first)
        return [one.number for one in ([first] if first is not None else []) + rest]

    @property
    def in_use(self) -> int:
        """The path for everything that is not an alarm."""
        return 0 if self._in_use is None else self._in_use.number

    def window(self, path: int) -> int:
        """How many messages may be on the wire of a path."""
        return self._lines[path].path.uplink.window

    def max_bytes(self, path: int) -> int:
        """How long a message may be on a path."""
        return self._lines[path].path.uplink.max_bytes

    def max_events(self, path: int) -> int:
        """How many events a message may hold on a path."""
        uplink = self._limited[path]
        return MAX_EVENTS if uplink is None else uplink.max_events

    def is_shared(self, path: int) -> bool:
        """Do alarms go over the connection of a path that carries everything else?"""
        return self._shared[path]

    def send(self, lane: Lane, texts: list[str], *, over: int) -> int:
        """Send one message over a path; return its token. Raises SessionError when that path is gone."""
        line = self._lines[over]
        if not line.standing:
            raise SessionError("GW-NET-05", self._destination, error=_GONE)
        try:
            token = line.path.uplink.send(lane, texts)
        except SessionError as error:
            # The sender is in the midst of something: it is told in the next turn what it has to send again.
            if self._left(line, error):
                asyncio.get_running_loop().call_soon(self._tell_gone, line, self._events)
            raise
        return token * MAX_PATHS + over

    def fail(self, path: int, why: str) -> None:
        """A path does not do what it should: end its connection."""
        line = self._lines[path]
        self._lost(line, SessionError("GW-NET-05", line.path.host, error=why))

    def pass_over(self, path: int) -> bool:
        """A path is silent although it is connected: use another one, if there is one that has not been silent.

        True when another one is used now.
        """
        line, now = self._lines[path], self._clock.monotonic()
        others = self._by_preference(one for one in self._lines if one is not line and now >= one.silent_until)
        if line is not self._in_use or not others:
            return False
        line.released(now)
        line.silent(now)
        self._use(others[0], why="the platform does not answer on the path before")
        self._arrange()
        return True

    def hurry(self) -> None:
        """An alarm is pending: whoever waits before an attempt waits less."""
        for line in self._lines:
            line.alarm.set()

    def _events_of(self, line: Line, ended: asyncio.Future[SessionError]) -> UplinkEvents:
        events = self._events

        def acks(told: list[Ack]) -> None:
            if self._events is events is not None:
                if line.answers():
                    self._arrange()
                events.acks(told, line.number)

        def sent(token: int, ok: bool) -> None:  # noqa: FBT001 - the transport's callback
            if self._events is events is not None:
                events.sent(token * MAX_PATHS + line.number, ok)

        def lost(error: SessionError) -> None:
            if not ended.done():
                self._lost(line, error) if line.standing else ended.set_result(error)

        def doubted(error: SessionError | None) -> None:
            if self._events is events is not None and not ended.done():
                self._doubt(line, error)

        return UplinkEvents(acks=acks, sent=sent, lost=lost, doubted=doubted)

    def _doubt(self, line: Line, error: SessionError | None) -> None:
        """Tell people what is refused on a path that stands, and when it is not any more."""
        if error is None:
            self._health.off(PARTLY_REFUSED, self._subject(line))
            return
        self._health.on(
            PARTLY_REFUSED, self._subject(line), destination=self._destination, host=line.path.host,
            url=error.facts.get("url", ""), cause=error.code, detail=error.facts.get("error", ""),
        )  # fmt: skip

    # -- coming and going ---------------------------------------------------------------------------------------

    def _stands(self, line: Line) -> None:
        line.stands(self._clock.monotonic())
        if self._in_use is None:
            self._use(line)
        self._arrange()
        self._after("calm", CALM_S, lambda: self._health.off(TAKEN_OVER, self._destination))
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        elif self._events is not None:
            self._events.sent(NO_TOKEN, True)  # noqa: FBT003 - there is room that was not there before

    def _failed(self, line: Line, error: SessionError) -> None:
        line.failed(error)
        self._arrange()
        if self._first is not None and not self._first.done() and all(one.tried for one in self._lines):
            self._first.set_exception(self._lines[0].error or error)

    def _lost(self, line: Line, error: SessionError) -> None:
        if self._left(line, error):
            self._tell_gone(line, self._events)

    def _left(self, line: Line, error: SessionError) -> bool:
        """Note that a connection is lost, and let another path take over; True if this is news."""
        if not line.standing or line.ended is None or line.ended.done():
            return False
        now = self._clock.monotonic()
        line.lost(error, now)
        line.ended.set_result(error)
        self._doubt(line, None)
        if error.code == TAKEN_OVER:
            self._after("calm", None, self._arrange)
            self._health.on(TAKEN_OVER, self._destination, host=line.path.host, detail=error.facts.get("error", ""))
        if line is self._in_use:
            line.released(now)
            self._in_use = None
            others = self._by_preference(self._lines)
            if others:
                self._use(others[0], why=str(error))
        self._arrange()
        return True

    def _tell_gone(self, line: Line, events: PathsEvents | None) -> None:
        if events is None or events is not self._events:
            return
        if self._in_use is None:
            self._end(line.error or SessionError("GW-NET-05", self._destination, error=_GONE))
        else:
            events.gone(line.number)

    def _end(self, error: SessionError) -> None:
        events, self._events = self._events, None
        if events is not None:
            events.lost(error)

    def _use(self, line: Line, *, why: str = "") -> None:
        self._in_use = line
        line.used(self._clock.monotonic())
        if why:
            _log.warning(
                "another path is used", destination=self._destination, path=line.number + 1, host=line.path.host,
                why=why,
            )  # fmt: skip

    def _by_preference(self, lines: Iterable[Line]) -> list[Line]:
        now = self._clock.monotonic()
        return sorted((one for one in lines if one.standing), key=lambda one: one.order(now))

    def _arrange(self) -> None:
        """After every change: who may begin, what people are told, and when the next path has proved itself."""
        for at, line in enumerate(self._lines):
            if self._in_use is not None or all(one.tried for one in self._lines[:at]):
                line.may_begin.set()
            if self._in_use is None or line.error is None or not line.tried:
                self._health.off(PATH_DOWN, self._subject(line))
            else:
                # In a text {code} is the problem's own: the path's goes by a second name.
                self._health.on(
                    PATH_DOWN, self._subject(line), destination=self._destination, host=line.path.host,
                    code=line.error.code, cause=line.error.code, detail=line.error.facts.get("error", ""),
                )  # fmt: skip
        waiting = [one.proves_at for one in self._lines if one.standing and self._awaits_proof(one)]
        self._after("proof", min(waiting) - self._clock.monotonic() if waiting else None, self._prove)

    def _awaits_proof(self, line: Line) -> bool:
        current = self._in_use
        return current is not None and line.number < current.number

    def _prove(self) -> None:
        """Go back to an earlier path that has stood long enough."""
        now = self._clock.monotonic()
        proved = [one for one in self._lines if one.standing and self._awaits_proof(one) and one.proves_at <= now]
        if proved:
            if self._in_use is not None:
                self._in_use.released(now)
            self._use(proved[0], why="it is preferred and has stood long enough")
            if self._events is not None:
                self._events.sent(NO_TOKEN, True)  # noqa: FBT003 - its window is another one
        self._arrange()

    # -- what is said of it -------------------------------------------------------------------------------------

    def _announce_again(self) -> None:
        if self._in_use is not None and self._events is not None:
            for number, delay in enumerate(ANNOUNCE_AFTER_S):
                self._after(f"announce {number}", delay, self._announce)

    def _announce(self) -> None:
        for line in self._lines:
            uplink = line.path.uplink
            if line.standing and isinstance(uplink, Announcing):
                with contextlib.suppress(SessionError):  # its loss is told by itself
                    uplink.announce()

    def _after(self, name: str, delay_s: float | None, then: Callable[[], None]) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        if delay_s is not None:
            self._timers[name] = asyncio.get_running_loop().call_later(max(0.0, delay_s), then)

    def _subject(self, line: Line) -> str:
        return f"{self._destination}/{line.number + 1}"

    def status(self) -> list[dict[str, Any]]:
        """Return how each path stands, for `gateway status`."""
        now = self._clock.monotonic()
        cold = self._turn is not None and self._in_use is not None
        return [
            line.status(now, in_use=line is self._in_use, cold=cold and line is not self._in_use and not line.tried)
            for line in self._lines
        ]

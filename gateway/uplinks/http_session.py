"""One session over HTTP: alarms on connections of their own, everything else on others, and what the answers mean.

There is no connection whose end tells that the platform is gone, so the session is lost when it refuses us, when we
cannot reach it, or when it does not answer and the sign of life does not pass either. What happens to one message while
the sign of life passes is that message's trouble: it is tried again later, a batch in smaller parts. Limits: those of
`Pace`; a message makes at most 40 requests, the events that are left then come again later. Of a device nothing goes after
what has to come again of the same message.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Final

import structlog

from gateway.clock import PlatformTime
from gateway.errors import SessionError
from gateway.events import Lane
from gateway.uplinks.http_answers import Verdict, quote, retry_after, verdict
from gateway.uplinks.http_asking import asked_surely, asked_twice
from gateway.uplinks.http_courtesy import Courtesy
from gateway.uplinks.http_lines import Answer, Ask, Lines, NoAnswer, Wire
from gateway.uplinks.http_objections import OUT_OF_SERVICE, objection
from gateway.uplinks.http_pace import Pace
from gateway.uplinks.http_speech import Judged, Part, Speech
from gateway.uplinks.http_time import keep_asking
from gateway.uplinks.uplink import Ack, AckStatus, UplinkEvents

MOST_REQUESTS: Final = 40
STRIKES: Final = 3
_NO_TOKEN: Final = -1
_TAKEN: Final = True
_random = random.Random()  # noqa: S311 - jitter, not a secret
_log = structlog.get_logger("uplink")


async def unchanged() -> None:
    """Connections are made as before."""


class HttpSession:
    """One session. `post` while it stands, then `end`; never reused."""

    def __init__(
        self, speech: Speech, *, source: str, alarms: Lines, bulk: Lines, events: UplinkEvents, epoch: int, destination: str,
        host: str, secret: str, courtesy: Courtesy, pace: Pace, unreadable: Callable[[int], None],
        on_time: Callable[[PlatformTime], None] | None = None, time_url: str = "",
        renewed: Callable[[], Awaitable[Wire | None]] = unchanged,
    ) -> None:  # fmt: skip
        """`renewed` is asked now and then for what connections are to be made of from then on; None: as before."""
        self._speech = speech
        self._source = source
        self._alarms = alarms
        self._bulk = bulk
        self._events = events
        self._epoch = epoch
        self._destination = destination
        self._host = host
        self._secret = secret
        self._courtesy = courtesy
        self._pace = pace
        self._unreadable = unreadable
        self._on_time = on_time
        self._time_url = time_url
        self._renewed = renewed
        self._loop = asyncio.get_running_loop()
        self._tokens = count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._urgent: set[asyncio.Task[None]] = set()
        self._put_off: dict[str, Ack] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ended = self._disliked = False
        self._broken_alarms = self._ailing = 0
        self._doubts: dict[str, SessionError] = {}

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self, birth: dict[str, object]) -> None:
        """Announce the gateway over the alarms' connection, and keep that warm. Raises SessionError.

        Whatever a probe is answered, the platform is there, and what it says of that page may be true of that page alone:
        only the answer to an alarm tells what becomes of alarms.
        """
        hello = self._speech.hello(birth, epoch=self._epoch)
        try:
            answer = await self._alarms.ask(hello, limit_s=self._pace.open)
            error = self._misgivings(answer, hello.url)
            if error is not None and self._speech.is_announced:
                if error.code == OUT_OF_SERVICE:
                    self._courtesy.not_now(self._loop.time(), after_s=_after(answer))
                raise error
            self._doubt(hello.url, error)
        except BaseException:
            self._ended = True  # nobody was told that we are there: no goodbye
            await self.end()
            raise
        self._wake_later()
        self._start(self._live(), "http-sign-of-life")
        if self._on_time is not None:
            self._start(keep_asking(self._bulk, self._time_url, self._on_time), "http-time")

    @property
    def stands(self) -> bool:
        """May anything be sent?"""
        return not self._ended

    def post(self, lane: Lane, texts: Sequence[str]) -> int:
        """Send one message; return its token."""
        token = next(self._tokens)
        task = self._start(self._carry(token, lane, texts), f"http-message-{token}")
        if lane is Lane.A:
            self._urgent.add(task)
            task.add_done_callback(self._urgent.discard)
        return token

    async def end(self) -> None:
        """Say offline if the session stands, and let go of everything. Never raises."""
        stood, self._ended = not self._ended, True
        try:
            tasks = self._cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=self._pace.goodbye / 4)
            goodbye = self._speech.sign(epoch=self._epoch, online=False)
            if stood and goodbye is not None:
                await self._alarms.ask(goodbye, limit_s=self._pace.goodbye)
        except SessionError as error:
            _log.info("the platform did not hear our goodbye", destination=self._destination, error=str(error))
        finally:
            await self._alarms.close()
            await self._bulk.close()

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            _log.error("a request failed by a fault of the gateway", destination=self._destination, exc_info=bug)
            self._lose(SessionError("GW-NET-05", self._host, error=f"{type(bug).__name__}: {bug}"[:200]))

    def _cancel(self) -> set[asyncio.Task[None]]:
        if self._timer is not None:
            self._timer.cancel()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    def _lose(self, error: SessionError) -> None:
        if not self._ended:
            self._ended = True
            self._cancel()
            self._events.lost(error)

    # -- the sign of life ---------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Say now and then that we are there. It goes over the alarms' connection: so that one is open when needed."""
        pace = self._pace
        phase = zlib.crc32(self._source.encode()) / 2**32
        await self._rest(phase * pace.sign_of_life)
        while True:
            await self._renew()
            await self._sign()
            await self._alarms.trim()
            await self._bulk.trim()
            await self._rest(pace.sign_of_life + _random.uniform(-pace.jitter, pace.jitter))

    async def _renew(self) -> None:
        """Connections that were judged by a clock which was not the right one are made anew, the warm one at once."""
        try:
            wire = await self._renewed()
        except SessionError as error:
            self._lose(error)
            return
        if wire is not None:
            await self._alarms.renew(wire)
            await self._bulk.renew(wire)

    async def _rest(self, seconds: float) -> None:
        """Wait for the next sign of life; less long when the platform's end of an idle connection is gone."""
        pace, began = self._pace, self._loop.time()
        until = began + seconds
        while (now := self._loop.time()) < until:
            if now >= began + pace.early and self._alarms.is_doubtful:
                return
            await asyncio.sleep(min(pace.look, until - now))

    async def _sign(self) -> None:
        sign = self._speech.sign(epoch=self._epoch, online=True)
        if sign is None:
            return
        try:
            answer = await self._surely(sign, until=self._loop.time() + self._pace.alarm)
        except SessionError as error:
            self._lose(error)
            return
        misgiving = self._misgivings(answer, sign.url)
        if not self._speech.is_announced:
            self._doubt(sign.url, misgiving)
            return
        self._back_off(answer, alarm=False)
        self._ailing = self._ailing + 1 if misgiving else 0
        if misgiving and (misgiving.code != OUT_OF_SERVICE or self._ailing >= STRIKES):
            await self._turned_away(misgiving)

    def _misgivings(self, answer: Answer, url: str) -> SessionError | None:
        """Why this answer to a PUT means that there is no session; None where there is one.

        A platform that dislikes the content of birth or state has let us in: alarms must not wait for an inventory.
        """
        found = verdict(answer.status)
        if found in (Verdict.TOO_BIG, Verdict.REFUSED) and not self._disliked:
            self._disliked = True
            _log.error(
                "the platform refuses state or birth", destination=self._destination, status=answer.status,
                said=quote(answer.body, secret=self._secret),
            )  # fmt: skip
        if found in (Verdict.TAKEN, Verdict.TOO_BIG, Verdict.REFUSED):
            return None
        if found is Verdict.MISPLACED and not self._speech.is_announced:
            return None  # the probe may be a page that nobody has made
        return objection(found, answer, url=url, host=self._host, secret=self._secret)

    # -- messages -----------------------------------------------------------------------------------------------

    async def _carry(self, token: int, lane: Lane, texts: Sequence[str]) -> None:
        """Carry a message to its end: each event of it is answered, or its request was taken at least."""
        until = self._loop.time() + (self._pace.alarm if lane is Lane.A else self._pace.bulk)
        part, refused = self._speech.words(texts)
        self._tell(refused)
        whole = part
        todo: list[Part] = [part] if part else []
        requests = 0
        while todo:
            part, now = self._in_order(todo.pop(), whole), self._loop.time()
            if not part:
                continue
            most = min(self._courtesy.part_events, self._speech.max_events)
            if len(part) > most:
                todo += [part[most:], part[:most]]
                continue
            wait = 0.0 if lane is Lane.A else self._wait(lane, part, now)
            if wait > self._pace.brief:
                self._later(part, "on hold", wait)
            elif requests == MOST_REQUESTS or (requests and now + wait > until - self._pace.bulk / 4):
                self._later(part, "not yet sent")
            else:
                await asyncio.sleep(wait)
                requests += 1
                todo += await self._deliver(lane, part, until=until)
        for one in whole:
            self._put_off.pop(one.id, None)
        if not self._ended:
            self._events.sent(token, _TAKEN)

    def _in_order(self, part: Part, whole: Part) -> Part:
        """Leave out the devices of which an earlier part of the message comes again: nothing may overtake that."""
        if not self._put_off:
            return part
        why = {one.device: self._put_off[one.id] for one in whole if one.id in self._put_off}
        self._tell(replace(why[one.device], id=one.id) for one in part if one.device in why)
        return [one for one in part if one.device not in why]

    async def _deliver(self, lane: Lane, part: Part, *, until: float) -> list[Part]:
        """Make one request; return what has to be sent anew in smaller parts, what comes first last."""
        began = self._loop.time()
        ask = self._speech.ask(lane, part)
        if len(ask.body) > self._speech.max_bytes and len(part) > 1:
            return _halves(part)
        try:
            asking = self._surely(ask, until=until) if lane is Lane.A else asked_twice(self._bulk, ask, until=until)
            answer = await asking
        except SessionError as error:
            await self._troubled(lane, part, error, began=began)
            return []
        if lane is Lane.A:
            self._broken_alarms = 0
        judged = self._speech.judge(answer, part)
        found = judged.verdict
        if found is Verdict.TAKEN:
            self._taken(part, answer, judged)
            if self._courtesy.open(ask.url):
                self._doubt(ask.url, None)
        elif found is Verdict.LATER:
            self._later(part, judged.code or f"http-{answer.status}", _after(answer))
            self._back_off(answer, alarm=lane is Lane.A)
        elif found in (Verdict.NO_ENTRY, Verdict.MISPLACED):
            refusal = objection(found, answer, url=ask.url, host=self._host, secret=self._secret)
            await self._not_let_in(lane, part, refusal, ask.url)
        elif len(part) > 1:
            if found is Verdict.TOO_BIG:
                self._courtesy.too_much(len(part))
            return _halves(part)
        else:
            said = quote(answer.body, secret=self._secret) if found is Verdict.REFUSED else ""
            code = judged.code or f"http-{answer.status}{': ' if said else ''}{said}"
            self._tell(Ack(one.id, AckStatus.REJECTED, code) for one in part)
        return []

    def _taken(self, part: Part, answer: Answer, judged: Judged) -> None:
        self._courtesy.taken(len(part))
        if judged.unread or not answer.whole:
            self._unreadable(max(1, judged.unread))
            told = {ack.id for ack in judged.acks}
            self._put_off |= {one.id: Ack(one.id, AckStatus.RETRY, "no answer") for one in part if one.id not in told}
        self._tell(judged.acks)

    def _later(self, part: Part, code: str, after_s: float | None = None) -> None:
        self._tell(Ack(one.id, AckStatus.RETRY, code, after_s) for one in part)

    def _tell(self, acks: Iterable[Ack]) -> None:
        told = list(acks)
        self._put_off |= {ack.id: ack for ack in told if ack.status is AckStatus.RETRY}
        if told:
            self._events.acks(told)

    # -- trouble ------------------------------------------------------------------------------------------------

    async def _not_let_in(self, lane: Lane, part: Part, error: SessionError, url: str) -> None:
        """An address is not there, or is closed to our login. Of an alarm's the session ends: another may do.

        What telemetry or a fault is told must not cut off the alarms: what goes there waits. Only the first time that a
        login is refused ends the session, because the next one reads the credential anew (northbound rule 7).
        """
        is_login = error.code == "GW-NET-04"
        if lane is Lane.A or (is_login and self._courtesy.logs_in_anew(url)):
            await self._turned_away(error, alarm=lane is Lane.A)
            return
        now = self._loop.time()
        if self._courtesy.shut(url, now):
            _log.error("an address refuses what goes there", destination=self._destination, url=url, error=str(error))
        self._doubt(url, error)
        self._later(part, f"http-{error.facts['status']}", self._courtesy.place_wait(url, now))

    def _wait(self, lane: Lane, part: Part, now: float) -> float:
        """How long a part has to wait: for the whole platform, or for the address that it goes to."""
        url = self._speech.url(lane, part)
        return max(self._courtesy.bulk_wait(now), self._courtesy.place_wait(url, now))

    def _doubt(self, url: str, error: SessionError | None) -> None:
        """Tell what is refused although the session stands, and when nothing is any more."""
        before = next(iter(self._doubts.values()), None)
        if error is not None:
            self._doubts[url] = error
        else:
            self._doubts.pop(url, None)
        after = next(iter(self._doubts.values()), None)
        if not self._ended and str(before) != str(after):
            self._events.doubted(after)

    def _back_off(self, answer: Answer, *, alarm: bool) -> None:
        if answer.status in (429, 503):
            self._courtesy.refused(self._loop.time(), after_s=_after(answer), alarm=alarm)
            self._wake_later()

    def _wake_later(self) -> None:
        """Wake the deliverer when alarms may go again: it saw a window of nothing, and waits for a word."""
        wait = self._courtesy.alarm_wait(self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
        if wait and not self._ended:
            self._timer = self._loop.call_later(wait, self._wake)

    def _wake(self) -> None:
        self._courtesy.alarms_may_go()
        self._events.sent(_NO_TOKEN, _TAKEN)

    async def _turned_away(self, error: SessionError, *, alarm: bool = False) -> None:
        """The session is refused. What one message was told must not cut off the alarms that are just being answered.

        An alarm that was refused itself waits `Pace.farewell` at most: another session or path is what it needs.
        """
        task = asyncio.current_task()
        if alarm and task is not None:
            self._urgent.discard(task)  # of two that are refused neither waits for the other
        if self._urgent:
            await asyncio.wait(set(self._urgent), timeout=self._pace.farewell if alarm else self._pace.alarm)
        self._lose(error)

    async def _troubled(self, lane: Lane, part: Part, error: SessionError, *, began: float) -> None:
        """No answer: is it the path or the message? The path is lost, the message comes again."""
        if not await self._path_stands(lane, error, began=began):
            self._lose(error)
            return
        if len(part) > 1:
            self._courtesy.too_much(len(part))
        self._later(part, "no answer" if isinstance(error, NoAnswer) else "connection broke")

    async def _surely(self, ask: Ask, *, until: float) -> Answer:
        return await asked_surely(self._alarms, ask, until=until, hedge_s=self._pace.hedge)

    async def _path_stands(self, lane: Lane, error: SessionError, *, began: float) -> bool:
        if self._alarms.answered_at > began or (lane is not Lane.A and self._bulk.answered_at > began):
            return True
        if lane is Lane.A:
            self._broken_alarms += 1
            slow = isinstance(error, NoAnswer) or self._loop.time() - began > self._pace.hedge
            # It has waited long enough on this path: a new session, or another path, is its better chance.
            if slow or self._broken_alarms >= STRIKES:
                return False
        sign = self._speech.sign(epoch=self._epoch, online=True)
        if sign is None:
            return False
        try:
            answer = await self._surely(sign, until=self._loop.time() + self._pace.probe)
        except SessionError:
            return False
        return not self._speech.is_announced or verdict(answer.status) not in (Verdict.NO_ENTRY, Verdict.MISPLACED)


def _after(answer: Answer) -> float | None:
    return retry_after(answer.retry_after, date=answer.date)


def _halves(part: Part) -> list[Part]:
    """What comes first last, for it is taken from the end."""
    half = (len(part) + 1) // 2
    return [part[half:], part[:half]]

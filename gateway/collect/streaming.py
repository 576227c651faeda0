"""One line that speaks by itself: bytes -> frames -> devices, acknowledged only after the commit.

A numbered input that is already durable is acknowledged at once and not stored again; one that is on its way to the disk
is left alone, its acknowledgement follows the commit; one whose number was used before is an event of its own
(`numbering`). When more than `HIGH_WATER` writes wait for the disk the line is paused where that loses nothing: the memory
of a sender that repeats is the buffer then, and a socket holds any sender back. On a serial port the kernel keeps only some
KiB of what comes meanwhile, so the time of the pause is announced as a gap. A pause ends after `PAUSE_LIMIT_S`, and there is
no other before the disk has caught up: a call may be behind what is held back, and is raised also where no disk answers.
More than `GARBAGE_BYTES` without a frame
that can be read are a problem, until the line has been clean for `CLEAN_S`. A device that is asked and says nothing for
`SILENT_POLLS` intervals, and `SILENT_S` at least, is a problem: no data must not look like no alarm. Who speaks without
being configured is told, heard all the same, or left to the neighbours, as the driver says (`Strangers` of the kit). Limit:
4,096 numbers of a source on their way at a time (the source's own limit).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from drivers.kit import Decoded, Reason, Rejected, Reply, Streams
from drivers.kit import Strangers as Worth
from gateway.clock import Clock, Stamp
from gateway.collect.collector import Collector
from gateway.collect.desk import Desk
from gateway.collect.numbering import Numbering, Standing, digest
from gateway.collect.repeats import Repeats
from gateway.collect.strangers import MAX_STRANGERS, Strangers
from gateway.health import Health
from gateway.links.serial_line import SerialLine
from gateway.outbox import Outbox

HIGH_WATER: Final = 4_000
LOW_WATER: Final = 1_000
PAUSE_LIMIT_S: Final = 2.0
GARBAGE_BYTES: Final = 1_024
CLEAN_S: Final = 10.0
SILENT_S: Final = 60.0
SILENT_POLLS: Final = 3
REUSED: Final = "number-reused"
SHOWN_ADDRESS: Final = 64
# What a wrong speed or a bad cable makes of a frame. A sound frame with an odd value in it is no garbage.
_GARBLED: Final = frozenset({Reason.MALFORMED, Reason.BAD_CHECK, Reason.TOO_LONG, Reason.TOO_SHORT})
# A sound frame of the device's own, of which nothing could be taken: it lives all the same.
_ODD: Final = frozenset({Reason.UNSUPPORTED, Reason.IMPLAUSIBLE})


class StreamReader:
    """Reads one line for the devices on it. `on_deaf` is told from when to when bytes may have been lost, if they can."""

    def __init__(
        self, link: str, desks: list[Desk], *, collector: Collector, outbox: Outbox, clock: Clock, health: Health,
        on_deaf: Callable[[Stamp, Stamp], None] | None = None,
    ) -> None:  # fmt: skip
        self._link = link
        self._desks = {desk.address: desk for desk in desks}
        self._only = desks[0] if len(desks) == 1 and not desks[0].address else None
        driver = desks[0].driver
        assert isinstance(driver, Streams)  # noqa: S101 - the configuration sets one shape a line
        self._driver = driver
        self._framer = driver.framer()
        # Who stands for the line: takes what names nobody, and lends its options to what no device has.
        self._host = self._desks.get("", desks[0])
        self._nobody = _nobody(link, self._host, alone=len(desks) == 1, taken=collector.desks)
        self._strangers: Strangers | None = None
        if driver.strangers is Worth.RAISED:
            self._strangers = Strangers(self._host, collector.desks, collector.has_open_alarm)
        self._repeats = Repeats(driver.repeat_s)
        self._collector = collector
        self._outbox = outbox
        self._clock = clock
        self._health = health
        self._on_deaf = on_deaf
        self._line: SerialLine | None = None
        self._numbering = Numbering(outbox, clock)
        self._paused_at: Stamp | None = None
        self._was_paused = False
        self._is_down = False
        # Does losing a byte lose nothing, because its sender holds it or brings it again?
        self._may_pause = on_deaf is None
        self._replies: list[bytes] = []
        self.strangers = 0
        self._skipped = 0
        self._refused: dict[Reason, int] = {}
        self._garbage = 0
        self._garbage_at = clock.monotonic()
        self._asked_since = clock.monotonic()
        self._heard_before = 0
        self._unanswered = 0

    def attach(self, line: SerialLine) -> None:
        """Give the line that replies go to."""
        self._line = line

    def reopened(self) -> None:
        """The line was opened anew: half a frame of the old one is void."""
        self._framer.reset()
        self._is_down = False
        if self._paused_at is None:
            self._numbering.regained()

    def lost(self) -> None:
        """The line cannot hear."""
        self._is_down = True
        self._numbering.lost()

    def on_data(self, data: bytes, at: Stamp) -> None:
        """Take bytes in any cut."""
        try:
            frames = self._framer.feed(data)
        except Exception as bug:  # noqa: BLE001 - whatever is on the line, the next frame must be heard
            self._framer = self._driver.framer()
            self._skipped, self._refused = 0, {}
            frames = []
            self._collector.unreadable(self._nobody, bug, at)
        for frame in frames:
            self._frame(frame, at)
        self._flush_replies()
        self._judge_garbage(data, at)
        if self._outbox.waiting > HIGH_WATER and self._may_pause and not self._was_paused and self._line is not None:
            self._paused_at, self._was_paused = at, True
            self._numbering.lost()
            self._line.pause()

    async def keep_asking(self) -> None:
        """Send the poll that the driver declares, for ever; return at once where it declares none.

        A receiver of radio is asked where it is configured itself: its answers are no sign of life of what it hears.
        """
        poll = None if self._driver.radio and "" not in self._desks else self._driver.poll
        while poll is not None:
            every_s = self._desk_of_line.every_s or poll.every_s
            self.ask(poll.request, every_s=every_s)
            await asyncio.sleep(every_s)

    def ask(self, request: bytes, *, every_s: float) -> None:
        """Send one poll, and see whether anything came since the last."""
        desk, now = self._desk_of_line, self._clock.monotonic()
        if self._unanswered and desk.heard == self._heard_before:
            desk.polls_failed += 1
            silent_s = now - max(self._asked_since, desk.last_heard or 0.0)
            if silent_s >= max(SILENT_S, SILENT_POLLS * every_s):
                self._health.on(
                    "GW-DEV-01", desk.id, link=self._link, failures=self._unanswered, silent_s=round(silent_s)
                )
        else:
            self._unanswered = 0
        self._heard_before = desk.heard
        if self._line is not None and self._line.write(request):
            desk.polls += 1
            self._unanswered += 1
        else:  # the line is down, which is its own trouble: whoever is on it gets its time anew
            self._asked_since, self._unanswered = now, 0

    def on_stored(self) -> None:
        """A commit is through: its acknowledgements go out together, and the line may go on. Harmless at any time."""
        self._flush_replies()
        has_caught_up = self._outbox.waiting < LOW_WATER
        if self._paused_at is not None and self._line is not None:
            now = self._clock.stamp()
            if has_caught_up or now.mono_ms - self._paused_at.mono_ms >= 1000 * PAUSE_LIMIT_S:
                since, self._paused_at = self._paused_at, None
                if not self._is_down:
                    self._numbering.regained()
                self._line.resume()
                if self._on_deaf is not None:
                    self._on_deaf(since, now)
        if has_caught_up:
            self._was_paused = False

    @property
    def _desk_of_line(self) -> Desk:
        return self._host

    def _frame(self, frame: bytes, at: Stamp) -> None:
        desk: Desk | None = self._nobody
        try:
            desk, address = self._owner(frame)
            if desk is None:
                self._stranger(address, frame)
                self._collector.listeners.tell_frame(self._link, at, frame, desk=None, said=address)
            else:
                self._frame_of(desk, frame, at)
        except Exception as bug:  # noqa: BLE001 - whatever is on the line, the next frame must be heard, and this may call
            if desk is None:
                self._collector.fault(self._host, bug)
            else:
                self._collector.unreadable(desk, bug, at)

    def _frame_of(self, desk: Desk, frame: bytes, at: Stamp) -> None:
        listeners = self._collector.listeners
        try:
            decoded = self._driver.decode(frame, desk.options)
        except Rejected as rejected:
            desk.reject(rejected.reason)
            if rejected.reason in _GARBLED:
                self._garbage += len(frame)
            elif rejected.reason in _ODD:
                self._hear(desk)
            listeners.tell_frame(self._link, at, frame, desk=desk, said=rejected)
            self._reply(list(rejected.replies))
            return
        self._hear(desk)
        listeners.tell_frame(self._link, at, frame, desk=desk, said=decoded)
        self._reply([reply for reply in decoded.replies if reply.when == "now"])
        try:
            self._take(desk, decoded, at)
        except Exception as bug:  # noqa: BLE001 - as in `_frame`
            self._collector.unreadable(desk, bug, at, decoded=decoded)

    def _stranger(self, address: str, frame: bytes) -> None:
        """Somebody speaks who is not configured: most likely one of ours whose address is mistyped, and nobody hears it."""
        self.strangers += 1
        if address and self._driver.strangers is not Worth.IGNORED:
            self._health.on("GW-DEV-04", self._link, address=address[:SHOWN_ADDRESS], count=self.strangers)
        if self._driver.radio:
            self._answer_receiver(frame)

    def _answer_receiver(self, frame: bytes) -> None:
        """A receiver that waits for its answer before it goes on gets it, whoever was heard: the next may be a call."""
        try:
            replies = self._driver.decode(frame, self._host.options).replies
        except Rejected as rejected:
            replies = rejected.replies
        self._reply([reply for reply in replies if reply.when == "now"])

    def _owner(self, frame: bytes) -> tuple[Desk | None, str]:
        """Return whose frame it is, and its address; None for a stranger's, and for one that names nobody."""
        is_shared = self._strangers is not None or self._driver.radio
        if self._driver.address_of is None or (self._only is not None and not is_shared):
            return self._host, ""
        try:
            address = self._driver.address_of(frame, self._host.options)
        except Rejected:
            address = ""
        desk = self._desks.get(address)
        if desk is None and self._strangers is not None:
            return (self._unlisted(self._strangers, address) if address else self._host), address
        if desk is None and not address and not self._driver.radio:
            self._garbage += len(frame)
        return desk, address

    def _unlisted(self, strangers: Strangers, address: str) -> Desk:
        """A bed of a call system that no device has: it is heard, and its room is to be found out."""
        self.strangers += 1
        self._health.on("GW-DEV-05", self._link, address=address[:SHOWN_ADDRESS], count=self.strangers)
        desk = strangers.desk(address)
        if desk is None:
            self._health.on("GW-DEV-06", self._link, address=address[:SHOWN_ADDRESS], most=MAX_STRANGERS)
        return desk or self._host

    def _take(self, desk: Desk, decoded: Decoded, at: Stamp) -> None:
        replies = [reply for reply in decoded.replies if reply.when == "committed"]
        source = decoded.source_number
        if source is None:
            self._take_unnumbered(desk, decoded, at, replies)
            return
        self._may_pause = True
        key, said = (desk.id, source.session, source.n), digest(decoded)
        standing = self._numbering.standing(key, said)
        if standing in (Standing.WAITING, Standing.DURABLE):
            desk.repeats += 1
            if standing is Standing.DURABLE:
                self._reply(replies)
            return
        anew = standing is Standing.REUSED
        if anew:
            self._health.on("GW-SEC-04", desk.id, n=source.n)
        number = self._numbering.begin(key, said, anew=anew)
        doubts = (REUSED,) if anew else ()

        def durable() -> None:
            self._numbering.end(number, durable=True)
            self._reply(replies)

        def failed() -> None:
            self._numbering.end(number, durable=False)  # not acknowledged, so the source brings it again

        is_taken = False
        try:
            is_taken = self._collector.take(desk, decoded, at, durable, on_failed=failed, number=number, doubts=doubts)
        finally:
            if not is_taken:
                failed()

    def _take_unnumbered(self, desk: Desk, decoded: Decoded, at: Stamp, replies: list[Reply]) -> None:
        """Take what has no number. A repeat is acknowledged like the first, after whatever is in the queue before it."""
        new = decoded
        if self._repeats.is_repeat(desk.id, decoded, self._clock.monotonic()) and self._collector.stands(desk, decoded):
            desk.repeats += 1
            new = replace(decoded, observations=(), refused=())

        def failed() -> None:
            self._repeats.forget(desk.id)

        durable = (lambda: self._reply(replies)) if replies else None
        is_taken = False
        try:
            is_taken = self._collector.take(desk, new, at, durable, on_failed=failed)
        finally:
            if not is_taken:
                failed()

    def _hear(self, desk: Desk) -> None:
        desk.hear(self._clock)
        if self._strangers is not None:  # one call system speaks for all of its beds
            for one in self._desks.values():
                one.last_heard = desk.last_heard
        self._garbage = 0
        if self._driver.poll is not None:
            self._health.off("GW-DEV-01", desk.id)

    def _reply(self, replies: list[Reply]) -> None:
        self._replies += [reply.data for reply in replies]

    def _flush_replies(self) -> None:
        if self._replies and self._line is not None:
            data, self._replies = b"".join(self._replies), []
            self._line.write(data)  # refused while the line is down: the source asks again

    def _judge_garbage(self, data: bytes, at: Stamp) -> None:
        skipped, self._skipped = self._framer.skipped - self._skipped, self._framer.skipped
        self._garbage += skipped
        if skipped:
            self._collector.listeners.tell_noise(self._link, at, data, skipped=skipped)
        if self._refused != self._framer.rejects:
            for reason, count in self._framer.rejects.items():
                self._desk_of_line.rejects[str(reason)] += count - self._refused.get(reason, 0)
            self._refused = dict(self._framer.rejects)
        now = self._clock.monotonic()
        if self._garbage:
            self._garbage_at = now
        if self._garbage > GARBAGE_BYTES:
            self._health.on("GW-DEV-02", self._link, bytes=self._garbage)
        elif now - self._garbage_at >= CLEAN_S:
            self._health.off("GW-DEV-02", self._link)


def _nobody(link: str, host: Desk, *, alone: bool, taken: Collection[str]) -> Desk:
    """Return whom a call counts for whose device a bug keeps from being known: the line itself, in no room."""
    if alone or not host.address:
        return host
    return replace(
        host, id=host.id if link in taken else link, room="", bed="", heard=0, events=0, repeats=0, last_told={}
    )  # fmt: skip

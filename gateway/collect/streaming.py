"""One line that speaks by itself: bytes -> frames -> devices, acknowledged only after the commit.

A numbered input that is already durable is acknowledged at once and not stored again; one that is on its way to the disk
is left alone, its acknowledgement follows the commit. When more than `HIGH_WATER` writes wait for the disk the line is
paused: the sender's own memory is the buffer then. Limit: 4,096 numbers of a source on their way at a time (the source's
own limit).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from drivers.kit import Decoded, Observation, Reason, Rejected, Reply, Streams
from gateway.clock import Clock, Stamp
from gateway.collect.collector import Collector, in_words
from gateway.collect.desk import Desk, Heard
from gateway.health import Health
from gateway.links.serial_line import SerialLine
from gateway.outbox import NumberState, Outbox

HIGH_WATER: Final = 4_000
LOW_WATER: Final = 1_000
GARBAGE_BYTES: Final = 1_024


class StreamReader:
    """Reads one line for the devices on it."""

    def __init__(
        self, link: str, desks: list[Desk], *, collector: Collector, outbox: Outbox, clock: Clock, health: Health
    ) -> None:
        self._link = link
        self._desks = {desk.address: desk for desk in desks}
        self._only = desks[0] if len(desks) == 1 and not desks[0].address else None
        driver = desks[0].driver
        assert isinstance(driver, Streams)  # noqa: S101 - the configuration sets one shape a line
        self._driver = driver
        self._framer = driver.framer()
        self._probe = desks[0].options
        self._collector = collector
        self._outbox = outbox
        self._clock = clock
        self._health = health
        self._line: SerialLine | None = None
        self._on_the_way: set[tuple[str, str, int]] = set()
        self._paused = False
        self._replies: list[bytes] = []
        self.strangers = 0
        self.skipped_before_good = 0

    def attach(self, line: SerialLine) -> None:
        """Give the line that replies go to."""
        self._line = line

    def reopened(self) -> None:
        """The line was opened anew: half a frame of the old one is void."""
        self._framer.reset()

    def on_data(self, data: bytes, at: Stamp) -> None:
        """Take bytes in any cut."""
        for frame in self._framer.feed(data):
            self._frame(frame, at)
        self._flush_replies()
        self._judge_garbage()
        if not self._paused and self._outbox.waiting > HIGH_WATER and self._line is not None:
            self._paused = True
            self._line.pause()

    def on_stored(self) -> None:
        """A commit is through: its acknowledgements go out together, and the line may go on."""
        self._flush_replies()
        if self._paused and self._outbox.waiting < LOW_WATER and self._line is not None:
            self._paused = False
            self._line.resume()

    def _frame(self, frame: bytes, at: Stamp) -> None:
        desk = self._owner(frame)
        if desk is None:
            self.strangers += 1
            self._show(frame, at, "", "")
            return
        desk.heard += 1
        desk.last_heard = self._clock.monotonic()
        try:
            decoded = self._driver.decode(frame, desk.options)
        except Rejected as rejected:
            desk.reject(rejected.reason)
            self._show(frame, at, desk.id, str(rejected))
            return
        self.skipped_before_good = self._framer.skipped
        self._show(frame, at, desk.id, decoded.observations)
        self._reply([reply for reply in decoded.replies if reply.when == "now"])
        self._take(desk, decoded, at)

    def _owner(self, frame: bytes) -> Desk | None:
        if self._only is not None or self._driver.address_of is None:
            return self._only or next(iter(self._desks.values()))
        try:
            return self._desks.get(self._driver.address_of(frame, self._probe))
        except Rejected:
            return None

    def _take(self, desk: Desk, decoded: Decoded, at: Stamp) -> None:
        replies = [reply for reply in decoded.replies if reply.when == "committed"]
        number = decoded.source_number
        if number is None:
            self._collector.take(desk, decoded, at, lambda: self._reply(replies))
            return
        key = (desk.id, number.session, number.n)
        if key in self._on_the_way:
            desk.repeats += 1
        elif self._outbox.number_state(*key) is NumberState.DURABLE:
            desk.repeats += 1
            self._reply(replies)
        elif not self._collector.take(desk, decoded, at, self._when_durable(key, replies)):
            desk.reject(Reason.TOO_LONG)  # the queue is full: not acknowledged, so the source brings it again
        else:
            self._on_the_way.add(key)

    def _when_durable(self, key: tuple[str, str, int], replies: list[Reply]) -> Callable[[], None]:
        def done() -> None:
            self._on_the_way.discard(key)
            self._reply(replies)

        return done

    def _reply(self, replies: list[Reply]) -> None:
        self._replies += [reply.data for reply in replies]

    def _flush_replies(self) -> None:
        if self._replies and self._line is not None:
            data, self._replies = b"".join(self._replies), []
            self._line.write(data)  # refused while the line is down: the source asks again

    def _judge_garbage(self) -> None:
        skipped = self._framer.skipped - self.skipped_before_good
        if skipped > GARBAGE_BYTES:
            self._health.on("GW-DEV-02", self._link, reason="no frame", count=skipped)
        else:
            self._health.off("GW-DEV-02", self._link)

    def _show(self, frame: bytes, at: Stamp, device: str, said: str | tuple[Observation, ...]) -> None:
        if self._collector.listeners:
            text = said if isinstance(said, str) else in_words(said)
            self._collector.tell(Heard(self._link, at, "", device, text, frame.hex()))

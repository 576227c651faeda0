"""The messages of one broker: topic -> devices, acknowledged to the broker only after the commit.

The broker sends a message again that it has no acknowledgement for, on the next connection and marked so. What was stored
before that is a repeat: the marks of a device hold what it said last (`judge`). A message that was retained says how things
stood at some time; a press in it is as old as that, so only states and readings of it count, and a technician is told.
A device that is said to be offline by whoever speaks for it is a problem, until it says something or is said to be online.
While the disk has `HIGH_WATER` writes to do, what calls for no help waits here and is tried again: the broker sends it once
a connection only, and holds the rest back while so much is unacknowledged.
Limits: as many messages wait as the broker may have unacknowledged (64), and `MOST_WAITING` in all, with those that need no
acknowledgement (QoS 0): of these, what comes beyond that is dropped, counted, and announced as a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final

from drivers.kit import RAISING, Decoded, Rejected, Signal, Streams
from drivers.protocols import published
from gateway.clock import Clock, Stamp
from gateway.collect.collector import Collector
from gateway.collect.desk import Desk
from gateway.collect.judge import Judge, Verdict
from gateway.health import Health
from gateway.mqtt_session import Delivery
from gateway.outbox import Mark, Outbox

HIGH_WATER: Final = 4_000
MOST_WAITING: Final = 256
OFFLINE: Final = "GW-MQS-05"
RETAINED: Final = "GW-MQS-06"

Acknowledge = Callable[[], None]


@dataclass(slots=True)
class _Message:
    """One message, and for how many of its devices it is not durable yet."""

    delivery: Delivery
    at: Stamp
    acknowledge: Acknowledge
    missing: int

    def is_durable(self) -> None:
        """One device's share is on the disk: the last one acknowledges."""
        self.missing -= 1
        if not self.missing:
            self.acknowledge()


class MessageReader:
    """Takes the messages of one broker for the devices that it speaks for."""

    def __init__(
        self, link: str, desks: list[Desk], *, collector: Collector, judge: Judge, clock: Clock, health: Health,
        outbox: Outbox, on_dropped: Callable[[Stamp], None],
    ) -> None:  # fmt: skip
        """`on_dropped` is told when a message was dropped that nobody will send again."""
        self._link = link
        self._by_topic: dict[str, list[Desk]] = {}
        for desk in desks:
            assert isinstance(desk.driver, Streams)  # noqa: S101 - the configuration sees to it
            for topic in desk.driver.topics(desk.address, desk.options) if desk.driver.topics else ():
                self._by_topic.setdefault(topic, []).append(desk)
        self._collector = collector
        self._judge = judge
        self._clock = clock
        self._health = health
        self._outbox = outbox
        self._on_dropped = on_dropped
        self._waiting: deque[tuple[_Message, Desk, Decoded]] = deque()

    @property
    def topics(self) -> tuple[str, ...]:
        """What is to be subscribed to."""
        return tuple(self._by_topic)

    def on_message(self, delivery: Delivery, at: Stamp, acknowledge: Acknowledge) -> None:
        """Take one message."""
        desks = self._by_topic.get(delivery.topic, ())
        if not desks:
            acknowledge()  # the bridge's own, or a subscription of before that the broker has kept
            return
        message = _Message(delivery, at, acknowledge, len(desks))
        frame = published.frame(delivery.topic, delivery.payload)
        for desk in desks:
            try:
                self._decode(desk, message, frame)
            except Exception as bug:  # noqa: BLE001 - whatever somebody publishes, the next message must be heard
                self._collector.fault(desk, bug)
                message.is_durable()

    def retry(self) -> None:
        """Take what waits, as far as the disk has caught up. Harmless at any time."""
        while self._waiting and self._outbox.waiting < HIGH_WATER:
            message, desk, decoded = self._waiting.popleft()
            self._take(desk, message, decoded)

    def _decode(self, desk: Desk, message: _Message, frame: bytes) -> None:
        driver = desk.driver
        assert isinstance(driver, Streams)  # noqa: S101 - as above
        at, listeners = message.at, self._collector.listeners
        try:
            decoded = driver.decode(frame, desk.options)
        except Rejected as rejected:
            desk.reject(rejected.reason)
            listeners.tell_frame(self._link, at, frame, desk=desk, said=rejected)
            message.is_durable()
            return
        listeners.tell_frame(self._link, at, frame, desk=desk, said=decoded)
        if decoded.reachable is False:
            self._health.on(OFFLINE, desk.id, link=self._link)
        elif decoded.reachable or not message.delivery.retained:
            self._health.off(OFFLINE, desk.id)
            desk.hear(self._clock)
        if message.delivery.retained:
            decoded = self._as_it_stood(desk, decoded)
        self._place(desk, message, decoded)

    def _as_it_stood(self, desk: Desk, decoded: Decoded) -> Decoded:
        """Leave out of a retained message what happens once: nobody knows when it did."""
        standing = tuple(one for one in decoded.observations if not isinstance(one, Signal) or one.level is not None)
        if len(standing) < len(decoded.observations):
            desk.ignored += 1
            self._health.on(RETAINED, desk.id, link=self._link)
        return replace(decoded, observations=standing)

    def _place(self, desk: Desk, message: _Message, decoded: Decoded) -> None:
        calls = any(isinstance(one, Signal) and one.kind in RAISING for one in decoded.observations)
        if calls or self._outbox.waiting < HIGH_WATER:
            self._take(desk, message, decoded)
        elif message.delivery.qos or len(self._waiting) < MOST_WAITING:
            self._waiting.append((message, desk, decoded))
        else:
            desk.reject("queue-full")
            self._on_dropped(message.at)

    def _take(self, desk: Desk, message: _Message, decoded: Decoded) -> None:
        mark: Mark | None = None
        delivery = message.delivery
        if delivery.qos and decoded.observations:
            judged = self._judge.delivery(desk.id, _token(self._link, delivery), is_again=delivery.again)
            mark = judged.mark
            if judged.verdict is Verdict.REPEAT:
                desk.repeats += 1
                decoded = replace(decoded, observations=())
        # What cannot be stored, ever, is counted by the outbox: sent again it would fare no better.
        done = message.is_durable
        if not self._collector.take(desk, decoded, message.at, done, on_failed=done, marks=(mark,) if mark else ()):
            done()


def _token(link: str, delivery: Delivery) -> str:
    """Return what tells one delivery from another: the broker keeps the number when it sends again (MQTT 5.0, 4.4)."""
    said = blake2b(delivery.topic.encode() + b"\0" + delivery.payload, digest_size=6).hexdigest()
    return f"{link}:{delivery.number}:{said}"

"""The messages of one broker: topic -> devices, acknowledged to the broker only after the commit.

The broker sends a message again that it has no acknowledgement for, on the next connection and marked so. What was stored
before that is a repeat: the marks of a device hold what it said last (`judge`). A message that was retained says how things
stood at some time; a press in it is as old as that, so only states and readings of it count, and a technician is told.
A device that is said to be offline by whoever speaks for it is a problem, until it says something or is said to be online.
While the disk has `HIGH_WATER` writes to do, what raises no alarm waits here and is tried again. What a device said first is
judged first: what raises an alarm takes the states before it along.
A broker sends no more while so much is unacknowledged (mosquitto: 20 messages, or 1), and a call may be behind that. So where
the disk does not answer, a message is acknowledged after `HELD_S`, one that raises an alarm after `CALL_HELD_S`: it is in the
memory then, and if we end before it is stored the gap of the next start begins before it.
A message of which nothing is to be stored is acknowledged at once, and costs the card nothing, unless something of its device
is not durable yet.
A message that is longer than any device's is not read: it is counted, told, and a gap, and costs nothing but itself.
Limits: of those that need no acknowledgement (QoS 0) `MOST_WAITING` wait, of all `MOST_OWED`: what comes beyond that is
dropped, counted, and announced as a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final

import structlog

from drivers.kit import Decoded, Reason, Rejected, Signal, Streams
from drivers.protocols import published
from gateway.clock import Clock, Stamp
from gateway.collect.collector import Collector
from gateway.collect.desk import Desk
from gateway.collect.judge import Judge, Verdict
from gateway.collect.relayed import Relay, RelayedAdverts
from gateway.health import Health
from gateway.links.state import HeardAdvert
from gateway.mqtt_session import Delivery
from gateway.outbox import Mark, Outbox, Write

HIGH_WATER: Final = 4_000
MOST_WAITING: Final = 256
MOST_OWED: Final = 1_024
HELD_S: Final = 2.0
CALL_HELD_S: Final = 10.0
OFFLINE: Final = "GW-MQS-05"
RETAINED: Final = "GW-MQS-06"
TOO_LONG: Final = "GW-MQS-07"

Acknowledge = Callable[[], None]
_log = structlog.get_logger("broker")


@dataclass(slots=True, eq=False)
class _Message:
    """One message, and for how many of its devices it is not durable yet. `raises`: an alarm, for one of them."""

    delivery: Delivery
    at: Stamp
    acknowledge: Acknowledge
    missing: int
    raises: bool = False
    is_acknowledged: bool = False

    def is_durable(self) -> None:
        """One device's share is on the disk: the last one acknowledges."""
        self.missing -= 1
        if not self.missing:
            self.tell()

    def tell(self) -> None:
        """Acknowledge, once: its number may be another message's by the next time."""
        if not self.is_acknowledged:
            self.is_acknowledged = True
            self.acknowledge()

    def is_same(self, other: Delivery) -> bool:
        """Is that the same message, sent again?"""
        mine = self.delivery
        return (mine.number, mine.topic, mine.payload) == (other.number, other.topic, other.payload)


class MessageReader:
    """Takes the messages of one broker for the devices that it speaks for."""

    def __init__(
        self, link: str, desks: list[Desk], *, collector: Collector, judge: Judge, clock: Clock, health: Health,
        outbox: Outbox, on_dropped: Callable[[Stamp], None], relay: Relay | None = None,
    ) -> None:  # fmt: skip
        """`on_dropped` is told when a message was dropped that nobody will send again. `relay`: adverts come, too."""
        self._link = link
        self._by_topic: dict[str, list[Desk]] = {}
        for desk in desks:
            assert isinstance(desk.driver, Streams)  # noqa: S101 - the configuration sees to it
            for topic in desk.driver.topics(desk.address, desk.options) if desk.driver.topics else ():
                self._by_topic.setdefault(topic, []).append(desk)
        self._devices = sorted({desk.id for desk in desks})
        self._collector = collector
        self._judge = judge
        self._clock = clock
        self._health = health
        self._outbox = outbox
        self._on_dropped = on_dropped
        self._waiting: deque[tuple[_Message, Desk, Decoded]] = deque()
        self._owed: list[_Message] = []
        self._unread: dict[tuple[str, str], bytes] = {}
        self._relay_failures = 0
        self._relayed = (
            RelayedAdverts(link, relay, collector=collector, clock=clock, health=health) if relay is not None else None
        )

    @property
    def topics(self) -> tuple[str, ...]:
        """What is to be subscribed to."""
        return (*self._by_topic, *([self._relayed.pattern] if self._relayed else ()))

    def lost(self) -> None:
        """The broker or its bridge is away. What it says with QoS 0 meanwhile is lost, the end of a call among it."""
        for device in self._devices:
            self._judge.doubt(device)

    def begin_anew(self) -> None:
        """The broker counts its messages anew: a number of before says nothing of what it sends again now."""
        marks = [self._judge.forget_deliveries(device) for device in self._devices]
        if any(marks):  # where the queue is full it is stored with the next message
            self._outbox.submit(Write(marks=tuple(mark for mark in marks if mark is not None)))

    def on_message(self, delivery: Delivery, at: Stamp, acknowledge: Acknowledge) -> None:
        """Take one message."""
        desks = self._by_topic.get(delivery.topic, ())
        if not desks and self._relayed is not None and self._relayed.covers(delivery.topic):
            self._relay(self._relayed, delivery, at, acknowledge)
            return
        if not desks:
            acknowledge()  # the bridge's own, or a subscription of before that the broker has kept
            return
        message = _Message(delivery, at, acknowledge, len(desks))
        if delivery.qos:
            self._owed.append(message)
        frame = published.frame(delivery.topic, delivery.payload)
        for desk in desks:
            self._decode(desk, message, frame)

    def _relay(self, relayed: RelayedAdverts, delivery: Delivery, at: Stamp, acknowledge: Acknowledge) -> None:
        """Take the adverts of a message, each as if a radio of our own had heard it; the last that is stored acknowledges."""
        try:
            adverts = relayed.read(delivery)
        except Rejected as refusal:
            frame = published.frame(delivery.topic, delivery.payload)
            self._collector.listeners.tell_frame(self._link, at, frame, desk=None, said="")
            if refusal.reason is Reason.TOO_LONG and not delivery.retained:
                self._on_dropped(at)
            acknowledge()
            return
        except Exception as bug:  # noqa: BLE001 - whatever is in it, the next message must be heard
            self._relay_failed(bug)
            self._on_dropped(at)
            acknowledge()
            return
        if not adverts:
            acknowledge()
            return
        message = _Message(delivery, at, acknowledge, len(adverts))
        durable = message.is_durable if delivery.qos else None
        if delivery.qos:
            self._owed.append(message)
        for advert in adverts:
            try:
                message.raises |= self._collector.on_advert(HeardAdvert(self._link, advert, at), durable)
            except Exception as bug:  # noqa: BLE001 - whatever is in it, the next advert must be heard
                self._relay_failed(bug)
                message.is_durable()

    def _relay_failed(self, bug: Exception) -> None:
        if not self._relay_failures:
            _log.error("a relayed advert could not be handled", link=self._link, exc_info=bug)
        self._relay_failures += 1
        self._health.on("GW-RUN-03", self._link, detail=f"{type(bug).__name__}: {bug}"[:200])

    def retry(self) -> None:
        """Take what waits, as far as the disk has caught up, and let go what holds up the broker. Harmless at any time."""
        while self._waiting and self._outbox.waiting < HIGH_WATER:
            self._take_fenced(*self._waiting.popleft())
        now_ms = self._clock.stamp().mono_ms
        self._owed = [one for one in self._owed if not one.is_acknowledged]
        for one in self._owed:
            if now_ms - one.at.mono_ms >= 1000 * (CALL_HELD_S if one.raises else HELD_S):
                one.tell()

    def _take_fenced(self, message: _Message, desk: Desk, decoded: Decoded) -> None:
        try:
            self._take(desk, message, decoded)
        except Exception as bug:  # noqa: BLE001 - as for one that has just come
            self._unreadable(desk, message, bug, decoded)

    def _unreadable(self, desk: Desk, message: _Message, bug: Exception, decoded: Decoded | None = None) -> None:
        """A message met a bug: it may be a call. One that was retained is heard once, and not with each connection."""
        payload, key = message.delivery.payload, (desk.id, message.delivery.topic)
        if message.delivery.retained and self._unread.get(key) == payload:
            self._collector.fault(desk, bug)
            message.is_durable()
            return
        if message.delivery.retained:
            self._unread[key] = payload
        message.raises = True
        if not self._collector.unreadable(desk, bug, message.at, message.is_durable, decoded=decoded):
            message.is_durable()

    def _decode(self, desk: Desk, message: _Message, frame: bytes) -> None:
        driver = desk.driver
        assert isinstance(driver, Streams)  # noqa: S101 - as above
        at, listeners = message.at, self._collector.listeners
        try:
            decoded = driver.decode(frame, desk.options)
        except Rejected as rejected:
            desk.reject(rejected.reason)
            if rejected.reason is Reason.TOO_LONG:
                self._too_long(desk, message)
            listeners.tell_frame(self._link, at, frame, desk=desk, said=rejected)
            message.is_durable()
            return
        except Exception as bug:  # noqa: BLE001 - whatever somebody publishes, the next message must be heard
            self._unreadable(desk, message, bug)
            return
        listeners.tell_frame(self._link, at, frame, desk=desk, said=decoded)
        try:
            self._decoded(desk, message, decoded)
        except Exception as bug:  # noqa: BLE001 - a message that cannot be judged may call, and the next is heard
            self._unreadable(desk, message, bug, decoded)

    def _decoded(self, desk: Desk, message: _Message, decoded: Decoded) -> None:
        if decoded.reachable is False:
            self._health.on(OFFLINE, desk.id, link=self._link)
        elif decoded.reachable or not message.delivery.retained:
            self._health.off(OFFLINE, desk.id)
        if message.delivery.retained:  # said at some time: nothing that was heard now
            decoded = self._as_it_stood(desk, decoded)
        elif decoded.reachable is not False:
            desk.hear(self._clock)
        self._place(desk, message, decoded)

    def _too_long(self, desk: Desk, message: _Message) -> None:
        """What it said is lost, and told: a retained one comes again with each connection, and was lost the first time."""
        size = len(message.delivery.payload)
        self._health.on(TOO_LONG, desk.id, link=self._link, bytes=size, most=published.MAX_MESSAGE)
        if not message.delivery.retained:
            self._on_dropped(message.at)

    def _as_it_stood(self, desk: Desk, decoded: Decoded) -> Decoded:
        """Leave out of a retained message what happens once: nobody knows when it did."""
        standing = tuple(one for one in decoded.observations if not isinstance(one, Signal) or one.level is not None)
        if len(standing) < len(decoded.observations):
            desk.ignored += 1
            self._health.on(RETAINED, desk.id, link=self._link)
        return replace(decoded, observations=standing)

    def _place(self, desk: Desk, message: _Message, decoded: Decoded) -> None:
        signals = [one for one in decoded.observations if isinstance(one, Signal)]
        raises = any(one.level is not False and desk.raises(one.kind) for one in signals)
        message.raises |= raises
        if raises:
            self._take_states(desk)
        if raises or (self._outbox.waiting < HIGH_WATER and not any(one is desk for _, one, _ in self._waiting)):
            self._take(desk, message, decoded)
        elif self._replaces(message, desk, decoded):
            pass
        elif len(self._waiting) < (MOST_OWED if message.delivery.qos else MOST_WAITING):
            self._waiting.append((message, desk, decoded))
        else:
            desk.reject("queue-full")
            self._on_dropped(message.at)
            message.is_durable()

    def _take_states(self, desk: Desk) -> None:
        """Take what a device said of its states before: judged after what comes now, an old end would end a new alarm's level."""
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            if entry[1] is desk and any(isinstance(one, Signal) for one in entry[2].observations):
                self._take_fenced(*entry)
            else:
                self._waiting.append(entry)

    def _replaces(self, message: _Message, desk: Desk, decoded: Decoded) -> bool:
        """Put a message that was sent again in the place where it waits: the connection that it came on before has ended."""
        if not message.delivery.again:
            return False
        for at, (earlier, owner, _) in enumerate(self._waiting):
            if owner is desk and earlier.is_same(message.delivery):
                self._waiting[at] = (message, desk, decoded)
                return True
        return False

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
        marks = (mark,) if mark else ()
        # A press that changed nothing must still be known when it comes again after its alarm was closed. Of the rest, a
        # broker's talk of nothing new, what says nothing costs the card nothing either.
        signals = [one for one in decoded.observations if isinstance(one, Signal)]
        calls = any(one.level is not False and desk.raises(one.kind) for one in signals)
        marks, along = (marks, None) if calls else ((), marks)
        anew = not delivery.retained
        if not self._collector.take(
            desk, decoded, message.at, done, on_failed=done, marks=marks, along=along, each_level_calls=anew
        ):
            done()


def _token(link: str, delivery: Delivery) -> str:
    """Return what tells one delivery from another: the broker keeps the number when it sends again (MQTT 5.0, 4.4)."""
    said = blake2b(delivery.topic.encode() + b"\0" + delivery.payload, digest_size=6).hexdigest()
    return f"{link}:{delivery.number}:{said}"

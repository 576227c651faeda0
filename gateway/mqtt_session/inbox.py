"""Messages that must not be lost: each is acknowledged by hand, once it is safe, and comes again where it was not.

Limits: one message at most `MAX_MESSAGE_BYTES`. An `Inbox` gets the beginning of a longer one, of whatever length it is, and the
rest is read past (in memory: `KEPT_BYTES` and 100 reads of `READ_BYTES`): a broker of 3.1.1 would send it again first of all on
each connection that follows, and nothing else would ever be heard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from paho.mqtt.client import MQTTMessage

MAX_MESSAGE_BYTES: Final = 256 * 1024
# What is kept of a longer one: room for a topic and properties before that.
KEPT_BYTES: Final = 512 * 1024
READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message that came. `number` acknowledges it where `qos` is 1; 2 does not occur, since we subscribe with 1.

    `again`: it was sent before on a connection that ended, and may have been taken then (MQTT 5.0 section 3.3.1.1);
    `retained`: it was said at some time before we subscribed (section 3.3.1.3). A `payload` of more than `MAX_MESSAGE_BYTES` is
    the beginning of a longer one.
    """

    topic: str
    payload: bytes
    number: int
    qos: int
    again: bool
    retained: bool


@dataclass(frozen=True, slots=True)
class Inbox:
    """For who receives what must not be lost: each message is acknowledged by hand, and the broker keeps our session.

    `keep_s`: for how long it does after the connection has ended; `most`: how many messages may be unacknowledged.
    Both are for MQTT 5; a broker of 3.1.1 has its own limits.
    """

    on_delivery: Callable[[Delivery], None]
    keep_s: int = 86_400
    most: int = 64


def delivery_of(message: MQTTMessage) -> Delivery:
    """Return what paho has read, or its beginning where it is longer than may be."""
    return Delivery(
        message.topic,
        bytes(message.payload[: MAX_MESSAGE_BYTES + 1]),
        message.mid,
        message.qos,
        bool(message.dup),
        bool(message.retain),
    )

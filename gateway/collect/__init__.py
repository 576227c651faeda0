"""The loop in: link + driver -> events -> alarms and outbox. Repeats, replays, levels and trust are judged here, once."""

from gateway.collect.collector import Collector
from gateway.collect.desk import Desk
from gateway.collect.hearing import Hearing
from gateway.collect.polling import BusMaster
from gateway.collect.publishing import MessageReader
from gateway.collect.relayed import Relay
from gateway.collect.streaming import StreamReader

__all__ = ["BusMaster", "Collector", "Desk", "Hearing", "MessageReader", "Relay", "StreamReader"]

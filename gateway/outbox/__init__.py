"""The only room that touches SQLite: what it has committed is accepted, and stays until every destination took it."""

from gateway.outbox.dead_letters import DeadLetters
from gateway.outbox.expiry import Expiry
from gateway.outbox.numbers import NumberState
from gateway.outbox.outbox import Outbox
from gateway.outbox.quota import Quota
from gateway.outbox.replay import Replays
from gateway.outbox.rescue import Rescue
from gateway.outbox.rows import AlarmRow, CursorRow, DeadLetter, Drop, Letter, Mark, MeterDay, Number, Route, Write

__all__ = [
    "AlarmRow", "CursorRow", "DeadLetter", "DeadLetters", "Drop", "Expiry", "Letter", "Mark", "MeterDay", "Number",
    "NumberState", "Outbox", "Quota", "Replays", "Rescue", "Route", "Write",
]  # fmt: skip

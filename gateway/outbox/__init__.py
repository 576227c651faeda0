"""The only room that touches SQLite: what it has committed is accepted, and stays until every destination took it."""

from gateway.outbox.numbers import NumberState
from gateway.outbox.outbox import Outbox
from gateway.outbox.rows import AlarmRow, CursorRow, DeadLetter, Mark, Number, Route, Write

__all__ = ["AlarmRow", "CursorRow", "DeadLetter", "Mark", "Number", "NumberState", "Outbox", "Route", "Write"]

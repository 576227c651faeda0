"""What cannot be read, and may be a call for help: raising fails open, and is not verified.

An advert whose key does not fit, or a message that met a bug of ours. The air repeats an advert, so it is one call for each value
of its counter, or until it was silent for its hold time; a message of a line or a broker is not repeated, so each may be a press.
Limit: one call in `UNDECIPHERABLE_S` while its alarm is active. Once a person has taken or closed it the next press must be
heard: a flood then costs one reopening each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from drivers.kit import Counter, Signal, SignalKind
from gateway.alarms import AlarmBook
from gateway.clock import Clock, Stamp
from gateway.collect.batch import Batch
from gateway.collect.desk import Desk
from gateway.collect.judge import Judge, Verdict
from gateway.events import Origin
from gateway.outbox import Mark

UNDECIPHERABLE_S: Final = 10.0
UNDECIPHERABLE: Final = "undecipherable"
# The doubt of what met a bug.
FAULT: Final = "fault"

Durable = Callable[[], None] | None
Raise = Callable[[Batch, Signal], None]
Submit = Callable[[Batch, Durable, Durable], bool]


class Undeciphered:
    """Raises calls for what nobody can read. `raises` and `submit` are the collector's."""

    def __init__(
        self, origin: Origin, *, alarms: AlarmBook, judge: Judge, clock: Clock, raises: Raise, submit: Submit
    ) -> None:  # fmt: skip
        self._origin = origin
        self._alarms = alarms
        self._judge = judge
        self._clock = clock
        self._raises = raises
        self._submit = submit

    def on_line(self, desk: Desk, at: Stamp, on_durable: Durable) -> bool:
        """A message of a line or a broker; False when nothing is to be stored."""
        return desk.may_call and not self._is_untaken(desk) and self._call(desk, FAULT, at, on_durable)

    def on_air(
        self, desk: Desk, doubt: str, at: Stamp, on_durable: Durable, *, counter: Counter | None = None
    ) -> bool:  # fmt: skip
        """An advert; False when nothing of it waits for the disk."""
        if not desk.may_call:
            return False
        if self._is_untaken(desk):
            return self._submit(Batch(desk, at, self._origin), on_durable, on_durable)
        if counter is not None:
            # Anybody can write this counter: it must not move the mark of the proven ones.
            judged = self._judge.counter(desk.id, replace(counter, authenticated=False), at)
        else:
            judged = self._judge.level(desk.id, UNDECIPHERABLE, on=True, at=at, hold_s=desk.level_hold_s, lasts=False)
        if judged.verdict is Verdict.REPEAT:
            desk.repeats += 1
            return self._submit(Batch(desk, at, self._origin), on_durable, on_durable)
        return self._call(desk, doubt, at, on_durable, mark=judged.mark, counter=counter)

    def _is_untaken(self, desk: Desk) -> bool:
        """Was it raised a short while ago that something cannot be read, and has nobody come yet?"""
        last = desk.last_undecipherable
        is_recent = last is not None and self._clock.monotonic() - last < UNDECIPHERABLE_S
        if not is_recent or not self._alarms.is_active(desk.id, SignalKind.CALL.value, verified=False):
            return False
        desk.repeats += 1
        return True

    def _call(
        self, desk: Desk, doubt: str, at: Stamp, on_durable: Durable, *, mark: Mark | None = None,
        counter: Counter | None = None,
    ) -> bool:  # fmt: skip
        desk.last_undecipherable = self._clock.monotonic()
        facts: dict[str, object] = {"counter": counter.value} if counter else {}
        batch = Batch(desk, at, self._origin, doubts=(doubt,), facts=facts)
        batch.keep(mark)
        self._raises(batch, Signal(SignalKind.CALL, code=UNDECIPHERABLE))
        return self._submit(batch, on_durable, on_durable)

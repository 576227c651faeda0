"""Lets a signal through at its edge: what was on already is nothing new to those who came, what lasts on may be.

A fall is a level in most protocols. While its alarm is active a level that flickers adds one press in `FLICKER_S`; once a
person has taken or closed the alarm every new edge counts. A level that lasts on after its alarm was closed raises no
other one, but a call that lasts on does after `AGAIN_S`, and at once where each message is sent for a reason (a broker's): a
button may never let go. After a restart, when nobody knows whether it was on all the time, each does; while its alarm is open
it adds a press then, for an acknowledgement that no disk took is forgotten, and this may be another fall. What a sensor finds
(smoke, an open door that is to raise an alarm) has passed when the sensor says so, which is told and ends no alarm, or
when it was not repeated for `FOUND_HOLD_S`, or for longer where its driver says so; where it lasts on after its alarm was
closed it raises another one after `AGAIN_S`, for the word that it had passed may have been lost, and come again with a
second fire.
Limits: as above; a fault that a device shows in every message is told again after `FAULT_HOLD_S` of silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from drivers.kit import HAZARDS, Advertises, Counter, Signal, SignalKind
from gateway.alarms import AlarmBook
from gateway.clock import Clock
from gateway.collect.batch import Batch
from gateway.collect.desk import Desk
from gateway.collect.judge import Judge, Judged, Verdict

FLICKER_S: Final = 10.0
FOUND_HOLD_S: Final = 600.0
AGAIN_S: Final = 600.0
FAULT_HOLD_S: Final = 7 * 86_400.0
# Silencing fails closed: these count only from a proven and fresh sender.
SILENCING: Final = frozenset({SignalKind.CANCEL, SignalKind.RECOVERED, SignalKind.RESTORED, SignalKind.OCCUPANCY})
# The device's own button, and what a radar sees: their levels end by silence. What a sensor finds is said to have passed.
_BRIEF: Final = frozenset({SignalKind.CALL, SignalKind.FALL})
_DOUBTFUL: Final = ":doubtful"
_TOLD_AT_BOTH_EDGES: Final = HAZARDS | {
    SignalKind.OCCUPANCY, SignalKind.BED_EXIT, SignalKind.OPENING, SignalKind.MOTION, SignalKind.VIBRATION,
}  # fmt: skip


class Levels:
    """Judges what is on, goes off and lasts on. `says` is the collector's: it raises or tells what is new."""

    def __init__(
        self, *, alarms: AlarmBook, judge: Judge, clock: Clock, says: Callable[[Batch, Signal], None]
    ) -> None:  # fmt: skip
        self._alarms = alarms
        self._judge = judge
        self._clock = clock
        self._says = says

    def take(self, batch: Batch, signal: Signal, *, counted: bool) -> None:
        """Let a signal through at its edge. The air repeats a press; without a counter only silence ends it."""
        desk = batch.desk
        if signal.count is not None:
            self._count(batch, signal, signal.count)
            return
        if signal.level is not None:
            name, level = f"{signal.kind.value}:{signal.channel}", signal.level
            # What anybody may have said must not hide the edge that is proven.
            name += _DOUBTFUL if batch.doubts and _is_found(desk, signal.kind) else ""
        elif isinstance(desk.driver, Advertises) and not counted:
            name, level = f"once:{signal.kind.value}:{signal.channel}:{signal.code}", True
        else:
            self._says(batch, signal)
            return
        hold_s, lasts = _hold_s(desk, signal), signal.level is not None
        judged = self._judge.level(
            desk.id, name, on=level, at=batch.at, hold_s=hold_s, link=batch.unordered_by, lasts=lasts
        )  # fmt: skip
        batch.keep(judged.mark)
        if not level:
            if self._is_end(batch, signal, name, judged):
                self._ended(batch, signal)
        elif self._is_said_again(batch, signal, judged):
            desk.repeats += 1
        else:
            self._says(batch, signal)

    def _is_end(self, batch: Batch, signal: Signal, name: str, judged: Judged) -> bool:
        """Did a level end? What is proven ends also what anybody may have said."""
        if batch.doubts or not _is_found(batch.desk, signal.kind):
            return judged.verdict is Verdict.NEW
        hold_s = _hold_s(batch.desk, signal)
        other = self._judge.level(
            batch.desk.id, name + _DOUBTFUL, on=False, at=batch.at, hold_s=hold_s, link=batch.unordered_by
        )
        batch.keep(other.mark)
        return Verdict.NEW in (judged.verdict, other.verdict)

    def _ended(self, batch: Batch, signal: Signal) -> None:
        """A level went off. What is latched stays: only a person ends an alarm. A fault that a device shows ends with it."""
        if signal.kind in HAZARDS:
            self._passed(batch, signal)
        elif signal.kind is SignalKind.BED_EXIT and batch.doubts:
            batch.desk.ignored += 1  # somebody is said to be back in bed
        elif signal.kind in SILENCING:
            self._says(batch, signal)
        elif signal.kind in _TOLD_AT_BOTH_EDGES:
            batch.tell_signal(signal)
        elif signal.kind not in _BRIEF and not batch.doubts:
            batch.tell("device.restored", {"kind": signal.kind.value, "channel": signal.channel})

    def _passed(self, batch: Batch, signal: Signal) -> None:
        """Tell that a hazard has passed, once for each time that it was raised."""
        desk = batch.desk
        if desk.is_due(f"passed {signal.kind.value}:{signal.channel}", self._clock.monotonic(), every_s=FLICKER_S):
            batch.tell_signal(signal, correlation=self._alarms.id_of(desk.id, signal.kind.value))
        else:
            desk.repeats += 1

    def _is_said_again(self, batch: Batch, signal: Signal, judged: Judged) -> bool:
        """Is a level that is on what those who came, or are told, know already?"""
        desk = batch.desk
        if judged.verdict is Verdict.LATE:
            return not desk.raises(signal.kind) or bool(self._alarms.id_of(desk.id, signal.kind.value))
        if judged.verdict is Verdict.REPEAT:
            return self._lasts_on(batch, signal, judged)
        return self._flickers(batch, signal)

    def _lasts_on(self, batch: Batch, signal: Signal, judged: Judged) -> bool:
        """Is a level that was on already nothing new to those who came?"""
        desk, kind = batch.desk, signal.kind
        if signal.level is None or not desk.raises(kind):
            return True
        # On before the gateway was away, and on after it: it may be another fall, of which nobody who came knows. That its
        # alarm is active is no proof: somebody may have taken it when no disk took that.
        if judged.resumed:
            desk.is_due(f"edge {kind.value}:{signal.channel}", self._clock.monotonic(), every_s=0.0)  # told now
            return False
        if kind is SignalKind.CALL and batch.each_level_calls:
            return self._alarms.is_active(desk.id, kind.value, verified=not batch.doubts)
        if kind is SignalKind.FALL or self._alarms.id_of(desk.id, kind.value):
            return True
        return not desk.is_due(f"edge {kind.value}:{signal.channel}", self._clock.monotonic(), every_s=AGAIN_S)

    def _count(self, batch: Batch, signal: Signal, count: Counter) -> None:
        """Let a counted signal through when its count has risen: the adverts that told of it may all have been lost."""
        first = Verdict.NEW if signal.level else Verdict.REPEAT
        of = f"{signal.kind.value}:{signal.channel}:{signal.code}:"
        judged = self._judge.counter(batch.desk.id, count, batch.at, of=of, first=first)
        batch.keep(judged.mark)
        if judged.verdict is Verdict.REPEAT:
            batch.desk.repeats += bool(signal.level)
            return
        batch.facts.setdefault("counter", count.value)
        if judged.verdict is Verdict.RESET and not batch.desk.wired and "counter-reset" not in batch.doubts:
            batch.doubts = ("counter-reset", *batch.doubts)
        self._says(batch, signal)

    def _flickers(self, batch: Batch, signal: Signal) -> bool:
        """Is it a level that has just been raised, went off and on, while its alarm is still untaken?"""
        desk = batch.desk
        if signal.level is None or not desk.raises(signal.kind):
            return False
        name = f"{signal.kind.value}:{signal.channel}"
        due = desk.is_due(f"edge {name}", self._clock.monotonic(), every_s=FLICKER_S)
        if not due and self._alarms.is_active(desk.id, signal.kind.value, verified=not batch.doubts):
            return True
        desk.last_told.pop(f"passed {name}", None)
        return False


def _is_found(desk: Desk, kind: SignalKind) -> bool:
    """Is it what a sensor finds, and raises an alarm for?"""
    return kind not in _BRIEF and desk.raises(kind)


def _hold_s(desk: Desk, signal: Signal) -> float:
    """How long a signal counts as on that is not repeated."""
    if signal.level is None or signal.kind in _BRIEF:
        return desk.level_hold_s
    return max(FOUND_HOLD_S, desk.level_hold_s) if desk.raises(signal.kind) else FAULT_HOLD_S

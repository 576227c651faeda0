"""Tells the counts of each hour and each day as a `gateway.counts` event, for platforms that get numbers and no events.

A period ends when the clock of the boot passes a multiple of its length, shifted by a phase that the gateway's name gives:
hundreds of gateways must not speak at once, and a wall clock that is set changes nothing. The event and what the next
period is counted from are one transaction: after a crash either both are there or neither. A gateway that was off tells
one longer period; its bounds stand in it, by both clocks. Limit: one event of each period on its way at a time.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import structlog

from gateway.clock import Clock, Stamp, iso
from gateway.events import Origin, new_event
from gateway.outbox import Outbox, Write
from gateway.tally import NOUN, base_of, between

PERIODS_MS: Final[Mapping[str, int]] = {"hour": 3_600_000, "day": 86_400_000}

Silent = Callable[[float], tuple[int, int]]

_log = structlog.get_logger("gateway")


@dataclass(frozen=True, slots=True)
class _Base:
    """What a period is counted from: the stream, the moment, and the numbers."""

    stream: str
    at: Stamp
    numbers: Mapping[str, Any]

    def text(self) -> str:
        return json.dumps(
            {"stream": self.stream, "at": asdict(self.at), "numbers": self.numbers}, separators=(",", ":")
        )


class Counting:
    """The periods of one gateway. `silent` tells how many devices were not heard since a moment, and how many there are."""

    def __init__(self, origin: Origin, outbox: Outbox, *, clock: Clock, began: Stamp, silent: Silent) -> None:
        self._origin = origin
        self._outbox = outbox
        self._clock = clock
        self._began = began
        self._silent = silent
        self._share = zlib.crc32(origin.source.encode()) / 2**32
        self._on_its_way: set[str] = set()
        self._bases: dict[str, _Base] = {}
        self._first: _Base | None = None
        if outbox.is_open:
            self.found()

    def found(self) -> None:
        """There is a database: go on where it says that each period began. To be called before anything is stored in it."""
        bases = {name: _parse(text) for name, text in self._outbox.bases.items()}
        self._bases = {name: base for name, base in bases.items() if base is not None}
        # What an older gateway has stored was never counted: the first period begins here.
        self._first = _Base(self._outbox.streamid, self._clock.stamp(), base_of(self._outbox.totals(), {}))

    def tick(self) -> None:
        """End the periods that are over; to be called about once a second. Without a database nothing is known to count from."""
        if self._first is None:
            if not self._outbox.is_open:
                return
            self.found()
        if not self._outbox.is_counted:
            return  # what waits is not all known: what was delivered would be told too high
        for name, length_ms in PERIODS_MS.items():
            if name in self._on_its_way:
                continue
            base = self._bases.get(name)
            if base is None or base.stream != self._outbox.streamid:
                self._begin(name)
            elif self._number(self._clock.stamp(), length_ms) != self._number_of(base.at, length_ms):
                self._end(name, base)

    def _number(self, at: Stamp, length_ms: int) -> int:
        return (at.mono_ms - int(self._share * length_ms)) // length_ms

    def _number_of(self, begin: Stamp, length_ms: int) -> int:
        """Which period of this boot it is; one that began in another boot goes on until the first that begins in this."""
        return self._number(begin, length_ms) if begin.boot == self._clock.stamp().boot else -1

    def _begin(self, name: str) -> None:
        """Begin the first period of a database; one that was replaced while running counts from nothing."""
        stream = self._outbox.streamid
        first = self._first
        if first is None or first.stream != stream:
            first = _Base(stream, self._clock.stamp(), {})
        self._submit(name, first, None)

    def _end(self, name: str, base: _Base) -> None:
        now, totals = self._clock.stamp(), self._outbox.totals()
        numbers = base_of(totals, base.numbers)
        since_ms = now.mono_ms - (base.at.mono_ms if base.at.boot == now.boot else 0)
        heard_ms = min(since_ms, now.mono_ms - self._began.mono_ms)
        silent, devices = self._silent(self._clock.monotonic() - heard_ms / 1000)
        data = {
            "period": name, **_bounds(base.at, now), **between(base.numbers, totals, numbers),
            "devices": {"configured": devices, "silent": silent, "listened_s": heard_ms // 1000},
        }  # fmt: skip
        self._submit(name, _Base(self._outbox.streamid, now, numbers), data)

    def _submit(self, name: str, base: _Base, data: Mapping[str, object] | None) -> None:
        def settled(*, ok: bool) -> None:
            self._on_its_way.discard(name)
            if ok:
                self._bases[name] = base
            else:
                _log.error("the counts of a period cannot be stored", period=name)

        events = () if data is None else (
            new_event(NOUN, self._origin, device=self._origin.gateway, at=base.at, data=data),
        )  # fmt: skip
        self._on_its_way.add(name)
        write = Write(
            events, facts=((f"counts:{name}", base.text()),), on_commit=lambda _rows: settled(ok=True),
            on_failed=lambda: settled(ok=False),
        )  # fmt: skip
        if not self._outbox.submit(write):
            self._on_its_way.discard(name)  # the queue is full: the next tick tries again


def _bounds(begin: Stamp, end: Stamp) -> dict[str, object]:
    """Return from when to when, by both clocks; within a boot the length is sure, whatever was done to the wall clock."""
    begin_ms = begin.wall_ms if begin.boot != end.boot else end.wall_ms - (end.mono_ms - begin.mono_ms)
    return {
        "from": iso(min(begin_ms, end.wall_ms)), "to": iso(end.wall_ms), "from_mono_ms": begin.mono_ms,
        "to_mono_ms": end.mono_ms, "from_boot": begin.boot, "to_boot": end.boot,
    }  # fmt: skip


def _parse(text: str) -> _Base | None:
    """Read a base; None for one that cannot be read: the period then begins anew."""
    try:
        known = json.loads(text)
        base = _Base(str(known["stream"]), Stamp(**known["at"]), dict(known["numbers"]))
        iso(base.at.wall_ms)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None
    return base

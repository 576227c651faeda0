"""DL/T 645-1997 electricity meters on the same bus: the frames and the load of `meters`, the registers of the older edition.

A meter answers to its address, to the wildcard AA and to the broadcast address 999999999999, as some real ones do, and
not to the question for its address (13H), which its edition does not know. Checked in the tests against published frames.

Limits: currents end at 99.99 A, which is all that two bytes hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from simulator.meters import ANY, MORE, PART_BYTES, Answer, Meter, Request, Value

READ_1997: Final = 0x01
NEXT_1997: Final = 0x02
BLOCK: Final = 0x0F
BLOCK_END: Final = b"\xaa"
BROADCAST: Final = b"\x99" * 6
_SPARE: Final = bytes(8)
_MAX_CURRENT: Final = 9999
# What both editions keep: the identifier here -> that of 2007.
_KEPT: Final = {0xC010: 0x04000101, 0xC011: 0x04000102, 0xC032: 0x04000402}


class Meter1997(Meter):
    """One meter. With the quirk `spare` its blocks of energy end with zeros and AA."""

    def __init__(self, **options: Any) -> None:
        """Make a meter with the options of `Meter`."""
        super().__init__(**options)
        self._given = 0
        # DI1 and the upper half of DI0 -> the group's values, in the order of the lower half from its first on.
        self._groups_1997: Mapping[int, tuple[Callable[[], tuple[Value, ...]], int]] = {
            0x9000: (self._combined, 0),
            0x9010: (self._imports, 0),
            0x9020: (self._exports, 0),
            0xB610: (self._whole_volts, 1),
            0xB620: (self._short_currents, 1),
            0xB630: (self._powers, 0),
        }

    def answer(self, request: Request, *, now: float) -> Answer | None:
        """Return the reply to a request at `now` (seconds since 1970), None when it is not for this meter."""
        if request.protocol != "645" or request.control not in (READ_1997, NEXT_1997):
            return None
        if request.address != BROADCAST and not self._is_for_me(request.address):
            return None
        self._called = request.address if self.quirks.nameless and ANY in request.address else self.address
        if request.control == NEXT_1997:
            return self._next_1997(request.data)
        identifier = int.from_bytes(request.data[:2], "little")
        values = self.values(identifier, now=now) if len(request.data) == 2 else None
        kept = self.records.data(_KEPT.get(identifier, 0), now=now) if values is None else None
        if values is None and kept is None:
            return self._refused(READ_1997)
        end = b""
        if self.quirks.spare and request.data[0] & BLOCK == BLOCK:
            end = (_SPARE if request.data[1] == 0x90 else b"") + BLOCK_END
        data = self.packed(values or ()) + end if kept is None else kept
        if not self.quirks.split or len(data) <= PART_BYTES:
            return self._answer(READ_1997, request.data + data, values or ())
        self._parts = [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]
        self._of, self._given = (request.data, values or ()), 1
        return self._answer(READ_1997 | MORE, request.data + self._parts[0])

    def _next_1997(self, asked: bytes) -> Answer | None:
        """Answer 02: the part after the one that was given last; parts have no numbers."""
        of, values = self._of
        if asked != of or self._given >= len(self._parts):
            return self._refused(NEXT_1997)
        part = self._parts[self._given]
        self._given += 1
        last = self._given == len(self._parts)
        return self._answer(NEXT_1997 | (0 if last else MORE), asked + part, values if last else ())

    def values(self, identifier: int, *, now: float) -> tuple[Value, ...] | None:
        """Return the registers of a data identifier, None when this meter has none. 0x901F: a block."""
        group = self._groups_1997.get(identifier & 0xFFF0)
        if group is None:
            return None
        self._advance(int(now))
        build, first = group
        whole, part = build(), identifier & 0x0F
        if part == BLOCK:
            return None if self.quirks.no_blocks else whole
        one = whole[part - first] if 0 <= part - first < len(whole) else None
        return None if one is None or one.number is None else (one,)

    def _whole_volts(self) -> tuple[Value, ...]:
        return tuple(
            Value("voltage", one.channel, None if one.number is None else one.number // 10, 2, 0)
            for one in self._voltages()[1:]
        )

    def _short_currents(self) -> tuple[Value, ...]:
        return tuple(
            Value("current", one.channel, None if one.number is None else min(_MAX_CURRENT, one.number // 10), 2, 2)
            for one in self._currents()[1:]
        )

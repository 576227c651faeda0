"""DL/T 645-1997 electricity meters on the same bus: the frames and the load of `meters`, the registers of the older edition.

A meter answers to its address, to the wildcard AA and to the broadcast address 999999999999, as some real ones do, and
not to the question for its address (13H), which its edition does not know. Checked in the tests against published frames.

Limits: currents end at 99.99 A, which is all that two bytes hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from simulator.meters import FROM_METER, NO_SUCH_DATA, REFUSED, Answer, Meter, Request, Value, frame

READ_1997: Final = 0x01
BLOCK: Final = 0x0F
BLOCK_END: Final = b"\xaa"
BROADCAST: Final = b"\x99" * 6
_SPARE: Final = bytes(8)
_MAX_CURRENT: Final = 9999


class Meter1997(Meter):
    """One meter. With the quirk `spare` its blocks of energy end with zeros and AA."""

    def __init__(self, **options: Any) -> None:
        """Make a meter with the options of `Meter`."""
        super().__init__(**options)
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
        if request.control != READ_1997 or not (request.address == BROADCAST or self._is_for_me(request.address)):
            return None
        values = self.values(int.from_bytes(request.data[:2], "little"), now=now) if len(request.data) == 2 else None
        if values is None:
            return self._reply(READ_1997 | REFUSED, bytes([NO_SUCH_DATA]))
        end = b""
        if self.quirks.spare and request.data[0] & BLOCK == BLOCK:
            end = (_SPARE if request.data[1] == 0x90 else b"") + BLOCK_END
        return self._reply(READ_1997, request.data + b"".join(value.encoded() for value in values) + end, values)

    def _reply(self, function: int, data: bytes, values: tuple[Value, ...] = ()) -> Answer:
        return Answer(frame(self.address, function | FROM_METER, data), data, values)

    def values(self, identifier: int, *, now: float) -> tuple[Value, ...] | None:
        """Return the registers of a data identifier, None when this meter has none. 0x901F: a block."""
        group = self._groups_1997.get(identifier & 0xFFF0)
        if group is None:
            return None
        self._advance(int(now))
        build, first = group
        whole, part = build(), identifier & 0x0F
        if part == BLOCK:
            return whole
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

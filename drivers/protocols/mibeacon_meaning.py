"""How the objects of MiBeacon are read: each reader takes the data of one object and says what happened.

Ids below 4800 are defined for all products (the maker's list of objects), those from 4800 on by each product for itself:
which reader an id has stands in `drivers.protocols.mibeacon_products`.

Limits: what cannot be is refused, never guessed: percentages above 100, -60 to 120 Cel, 0 to 200,000 lx, numbers that are
none. A button whose code or number nobody knows is a call all the same, and a hazard is on for any value but 0.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Final

from drivers.kit import Observation, Reading, Reason, Rejected, Signal, SignalKind

Reader = Callable[[bytes], Sequence[Observation]]

# A motion sensor says how long nobody has moved; the maker's own program takes up to 30 s for somebody who moves.
MOVES_WITHIN_S: Final = 30
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "battery": (0, 100),
    "humidity": (0, 100),
    "moisture": (0, 100),
    "temperature": (-60, 120),
    "illuminance": (0, 200_000),
}
_PRESSES: Final = ("press", "double", "long")


def nothing(_data: bytes) -> Sequence[Observation]:
    """Read past what calls nobody and is no quantity of ours."""
    return ()


# -- numbers --------------------------------------------------------------------------------------------------------


def whole(quantity: str, size: int, *, tenths: bool = False, signed: bool = False) -> Reader:
    """A whole number of `size` bytes, in units or tenths."""

    def read(data: bytes) -> Sequence[Observation]:
        number = Decimal(int.from_bytes(_exactly(data, size), "little", signed=signed))
        return (_reading(quantity, number / 10 if tenths else number),)

    return read


def real(quantity: str) -> Reader:
    """A number of 4 bytes after IEEE 754; two decimals are told."""

    def read(data: bytes) -> Sequence[Observation]:
        number: float = struct.unpack("<f", _exactly(data, 4))[0]
        if not math.isfinite(number):
            raise Rejected(Reason.IMPLAUSIBLE, quantity)
        return (_reading(quantity, Decimal(f"{number:.2f}")),)

    return read


def climate(data: bytes) -> Sequence[Observation]:
    """Temperature and humidity in one, both in tenths."""
    whole_data = _exactly(data, 4)
    return (
        *whole("temperature", 2, tenths=True, signed=True)(whole_data[:2]),
        *whole("humidity", 2, tenths=True)(whole_data[2:]),
    )


# -- states ---------------------------------------------------------------------------------------------------------


def state(kind: SignalKind, *, channel: str = "", on: Collection[int] = (), off: Collection[int] = (0,)) -> Reader:
    """A state of one byte: on for the values `on` (none: for any that is not `off`), off for `off`, else nothing."""

    def read(data: bytes) -> Sequence[Observation]:
        value = _first(data)
        if value in off:
            return (Signal(kind, channel=channel, level=False),)
        return (Signal(kind, channel=channel, level=True),) if not on or value in on else ()

    return read


def empty_bed(*, empty: int, taken: int) -> Reader:
    """A bed or a seat of one byte, that is left or taken."""
    return state(SignalKind.BED_EXIT, on=(empty,), off=(taken,))


def opening(*, opened: int, closed: int, left_open: int = -1) -> Reader:
    """A door or window of one byte. That it was left open is said apart, and that it is open once more."""

    def read(data: bytes) -> Sequence[Observation]:
        value = _first(data)
        if value == closed:
            return (Signal(SignalKind.OPENING, level=False), Signal(SignalKind.TAMPER, level=False))
        if value == opened:
            return (Signal(SignalKind.OPENING, level=True),)
        if value == left_open:
            return (Signal(SignalKind.OPENING, level=True), Signal(SignalKind.OPENING, "left-open"))
        return ()

    return read


def forced(data: bytes) -> Sequence[Observation]:
    """The part at the frame was torn off: the door counts as open until it is closed."""
    if _first(data) != 1:
        return ()
    return (Signal(SignalKind.OPENING, level=True), Signal(SignalKind.TAMPER, level=True))


def lock_door(data: bytes) -> Sequence[Observation]:
    """What the door of a lock does: 0 opened, 1 closed, 2 left open, 4 prised open; knocks and jams call nobody."""
    value = _first(data)
    if value == 4:
        return (Signal(SignalKind.OPENING, level=True), Signal(SignalKind.TAMPER, level=True))
    return opening(opened=0, closed=1, left_open=2)(data)


def water_event(data: bytes) -> Sequence[Observation]:
    """SJWS02LM: 0 wet and 1 dry at the bottom, 2 splashed and 3 dry on top."""
    value = _first(data)
    if value > 3:
        return ()
    return (Signal(SignalKind.WATER_LEAK, channel="bottom" if value < 2 else "splash", level=value in (0, 2)),)


# -- motion ---------------------------------------------------------------------------------------------------------


def moved(_data: bytes) -> Sequence[Observation]:
    """Somebody moved, and the device will say when nobody does any more; what the data tells of light is read past."""
    return (Signal(SignalKind.MOTION, level=True),)


def moved_once(_data: bytes) -> Sequence[Observation]:
    """Somebody moved; the device never says that nobody does."""
    return (Signal(SignalKind.MOTION, "moved"),)


def moved_in_light(reader: Reader) -> Reader:
    """Somebody moved, and how bright it is. That somebody moved counts where the brightness cannot be."""

    def read(data: bytes) -> Sequence[Observation]:
        try:
            return (*moved(data), *reader(data))
        except Rejected:
            return moved(data)

    return read


def still_for(size: int) -> Reader:
    """For how many seconds nobody has moved."""

    def read(data: bytes) -> Sequence[Observation]:
        seconds = int.from_bytes(_exactly(data, size), "little")
        return (Signal(SignalKind.MOTION, level=seconds <= MOVES_WITHIN_S),)

    return read


def still(_data: bytes) -> Sequence[Observation]:
    """Nobody has moved for the time that was set."""
    return (Signal(SignalKind.MOTION, level=False),)


# -- buttons --------------------------------------------------------------------------------------------------------


def press(code: str, channels: Mapping[int, Sequence[str]] | None = None) -> Reader:
    """A press that the id itself names; the data says which of the buttons. One that nobody knows is button ""."""

    def read(data: bytes) -> Sequence[Observation]:
        found = channels.get(data[0], ("",)) if channels and data else ("",)
        return [Signal(SignalKind.CALL, code, channel) for channel in found]

    return read


def coded_press(codes: Mapping[int, str]) -> Reader:
    """A press of the only button, whose way stands in the data."""

    def read(data: bytes) -> Sequence[Observation]:
        return (Signal(SignalKind.CALL, _word(codes, data[0]) if data else "press"),)

    return read


def old_button(channels: Mapping[int, Sequence[str]] | None = None, *, codes: Sequence[str] = _PRESSES) -> Reader:
    """1001: button, a byte of no use, way of pressing. `codes` are the ways 0, 1 and 2; 5 and 6 are short and long."""
    words = {**dict(enumerate(codes)), 5: "press", 6: "long"}

    def read(data: bytes) -> Sequence[Observation]:
        if len(data) < 3:
            return (Signal(SignalKind.CALL, "unknown"),)
        found = channels.get(data[0], ("",)) if channels else ("",)
        return [Signal(SignalKind.CALL, _word(words, data[2]), channel) for channel in found]

    return read


def dimmer(data: bytes) -> Sequence[Observation]:
    """1001 of a dimmer: way 3 a press (button 0) or a long one (1); 4 is turning, which calls nobody."""
    if len(data) < 3 or data[2] not in (3, 4):
        return (Signal(SignalKind.CALL, "unknown"),)
    if data[2] == 4:
        return ()
    return (Signal(SignalKind.CALL, _word({0: "press", 1: "long"}, data[0])),)


def pillow(data: bytes) -> Sequence[Observation]:
    """MJZNZ018H 5A16: 1 in bed, 2 out of bed, 3 a hand struck it twice."""
    return (Signal(SignalKind.CALL, "double"),) if _first(data) == 3 else empty_bed(empty=2, taken=1)(data)


def pillow_sleep(data: bytes) -> Sequence[Observation]:
    """MJZNZ018H 4810, 5010: 0 awake, 1 asleep, 2 a hand struck it twice."""
    return (Signal(SignalKind.CALL, "double"),) if _first(data) == 2 else ()


def once(value: int, reader: Reader) -> Reader:
    """An event that says nothing but that it happened: 1, read as the state `value`."""

    def read(data: bytes) -> Sequence[Observation]:
        return reader(bytes([value])) if _first(data) == 1 else ()

    return read


def _word(words: Mapping[int, str], value: int) -> str:
    return words.get(value, f"unknown-{value:02x}")


def _first(data: bytes) -> int:
    if not data:
        raise Rejected(Reason.TOO_SHORT, "no data")
    return data[0]


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise Rejected(Reason.MALFORMED, f"{len(data)} bytes, {size} needed")
    return data


def _reading(quantity: str, value: Decimal) -> Reading:
    low, high = _RANGES[quantity]
    if not low <= value <= high:
        raise Rejected(Reason.IMPLAUSIBLE, f"{quantity} = {value}")
    return Reading(quantity, value)

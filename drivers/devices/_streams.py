"""Template of a device that speaks by itself on a serial line: an invented fall radar. Copy it, then change everything.

Frame, a letter a byte:

    A5 02 F0 01 56
    S  L  T  D  X

    S  start, A5; it may also occur inside a frame
    L  bytes of T and D, 1 to 32
    T  type: F0 fall 0/1, E0 bed left 0/1, others are read past
    D  data
    X  exclusive or of all bytes before it

The radar reports a state again and again: the signals carry a level, and the gateway finds the edges.
Options: `bed = true` where the radar hangs over a bed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drivers.kit import (
    BadOption,
    Decoded,
    LineSettings,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Streams,
    StreamVector,
    Title,
)
from drivers.kit.checks import xor8
from drivers.kit.framing import LengthFramer
from drivers.kit.options import known_keys

_START = 0xA5
_MAX_CONTENT = 32
_OVERHEAD = 3
_FALL, _BED = 0xF0, 0xE0


@dataclass(frozen=True, slots=True)
class Options:
    """`bed`: whether leaving the bed is reported."""

    bed: bool


def options(raw: Mapping[str, object]) -> Options:
    """Check the device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("bed",))
    bed = raw.get("bed", False)
    if not isinstance(bed, bool):
        raise BadOption("map.bed", bed, "true or false", zh="true 或 false")
    return Options(bed)


def inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at an A5, for LengthFramer."""
    if len(data) - start < 2:
        return None
    length = data[start + 1]
    if not 1 <= length <= _MAX_CONTENT:
        return Reason.NOT_MINE
    size = length + _OVERHEAD
    if len(data) - start < size:
        return None
    return size if xor8(data[start : start + size]) == 0 else Reason.BAD_CHECK


def framer() -> LengthFramer:
    """Return a framer for the radar's line."""
    return LengthFramer(inspect, start=_START, limit=_MAX_CONTENT + _OVERHEAD)


def decode(frame: bytes, options: Options) -> Decoded:
    """Read one frame. Raises Rejected."""
    if not frame or frame[0] != _START or inspect(frame, 0) != len(frame):
        raise Rejected(Reason.BAD_CHECK, "no whole frame")
    kind, data = frame[2], frame[3:-1]
    if kind not in (_FALL, _BED):
        return Decoded()
    if data not in (b"\x00", b"\x01"):
        raise Rejected(Reason.IMPLAUSIBLE, f"state {data.hex()}")
    level = data == b"\x01"
    if kind == _FALL:
        return Decoded((Signal(SignalKind.FALL, "fall", level=level),))
    return Decoded((Signal(SignalKind.BED_EXIT, level=level),)) if options.bed else Decoded()


DRIVER = Streams(
    model="my-radar",
    title=Title(zh="示例雷达", en="example radar"),
    framer=framer,
    options=options,
    decode=decode,
    line=LineSettings(baud=115200),
    may_call=True,
    vectors=(
        StreamVector(
            source="synthetic: invented for this template",
            frame=bytes.fromhex("a502f00156"),
            expect=Decoded((Signal(SignalKind.FALL, "fall", level=True),)),
        ),
        StreamVector(
            source="synthetic: invented for this template",
            frame=bytes.fromhex("a502e00047"),
            options={"bed": True},
            expect=Decoded((Signal(SignalKind.BED_EXIT, level=False),)),
        ),
        StreamVector(
            source="synthetic: invented for this template",
            frame=bytes.fromhex("a502f00750"),
            expect=Reason.IMPLAUSIBLE,
        ),
    ),
)

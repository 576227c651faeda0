"""Hi-Link LD2450 tracking radar on a serial port, 256000 8N1. Presence only: no sensor of falls.

Report, a letter a byte; numbers are little-endian, and a highest bit of 1 means positive (they are no two's complement):

    AA FF 03 00  3 x (XX YY VV RR)  55 CC

    X  mm to the side, Y  mm ahead, V  cm/s, R  resolution (mm); a target that is not there is all zeros

Somebody is there while any of the three targets is: a level, the gateway tells its edges. The distance of the nearest one is
published every 15 min. The radar sees what moves: who sits or lies still vanishes after a while, so nobody there is no
proof that the room is empty, and somebody on the floor is no fall to it.
Limits: 30 bytes a report; 8 m. No option. Not tried on a real module. Source: the vendor's serial protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import hypot
from typing import Final

from drivers.kit import (
    Decoded,
    LineSettings,
    Reading,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Streams,
    StreamVector,
    Title,
)
from drivers.kit.options import known_keys
from drivers.protocols.hilink import Report

_REPORT: Final = Report(bytes.fromhex("aaff0300"), bytes.fromhex("55cc"), limit=30, has_length=False)
_TARGET: Final = 8
_TARGETS: Final = 3
_MAX_MM: Final = 8_000


def options(raw: Mapping[str, object]) -> None:
    """Check the device's `map`: there is nothing to set. Raises BadOption."""
    known_keys(raw, name="map", allowed=())


def decode(frame: bytes, options: None) -> Decoded:  # noqa: ARG001 - the radar has no options; the shape has
    """Read one report. Raises Rejected."""
    content = _REPORT.content(frame)
    if _REPORT.head in content:
        raise Rejected(Reason.MALFORMED, "a report within a report")
    targets = [content[n * _TARGET : (n + 1) * _TARGET] for n in range(_TARGETS)]
    there = [hypot(_signed(target[0:2]), _signed(target[2:4])) for target in targets if any(target)]
    presence = Signal(SignalKind.OCCUPANCY, "presence", level=bool(there))
    if not there:
        return Decoded((presence,))
    nearest_mm = round(min(there))
    if nearest_mm > _MAX_MM:
        return Decoded((presence,), refused=(f"target_distance = {nearest_mm} mm",))
    return Decoded((presence, Reading("target_distance", Decimal(nearest_mm // 10).scaleb(-2))))


def _signed(field: bytes) -> int:
    value = int.from_bytes(field, "little")
    return value & 0x7FFF if value & 0x8000 else -value


DRIVER = Streams(
    model="ld2450",
    title=Title(zh="HLK-LD2450 人员追踪雷达（不测跌倒）", en="HLK-LD2450 tracking radar (no falls)"),
    framer=_REPORT.framer,
    options=options,
    decode=decode,
    line=LineSettings(baud=256000),
    readings_every_s=900.0,
    note=Title(
        zh="只测有人无人，不测跌倒；久躺不动会当成无人",
        en="presence only: it sees no falls, and who lies still vanishes",
    ),
    vectors=(
        StreamVector(
            source="the vendor's serial protocol: its example of a target (x -782 mm, y 1713 mm)",
            frame=bytes.fromhex("aaff03000e03b186100040010000000000000000000000000000000055cc"),
            expect=Decoded(
                (
                    Signal(SignalKind.OCCUPANCY, "presence", level=True),
                    Reading("target_distance", Decimal("1.88")),
                )
            ),
        ),
        StreamVector(
            source="synthetic: nobody",
            frame=bytes.fromhex("aaff0300") + bytes(24) + bytes.fromhex("55cc"),
            expect=Decoded((Signal(SignalKind.OCCUPANCY, "presence", level=False),)),
        ),
        StreamVector(
            source="synthetic: a speed within which a report was cut and glued to the end of another",
            frame=bytes.fromhex("aaff0300" + "00" * 20 + "aaff0300" + "55cc"),
            expect=Reason.MALFORMED,
        ),
    ),
)

"""Hi-Link LD2410 presence radars (LD2410, B, C, LD2412) on a serial port, 256000 8N1. Presence only: no sensor of falls.

Report, a letter a byte; numbers are little-endian:

    F4 F3 F2 F1  LL  T AA  S  MM m  SS s  DD  ...  55 C  F8 F7 F6 F5

    L  length of what stands between it and F8
    T  02 report, 01 report with the figures of each gate (engineering mode), which are read past
    S  0 nobody, 1 somebody moves, 2 is still, 3 both, 4 to 6 the module calibrates itself: says nothing
    M  distance (cm) of what moves, m its energy; S, s the same of what is still; D distance of the target
    C  a byte of no meaning, 00

With nobody there the distances are what was left from before: they are not read. Answers to commands (FD FC FB FA) are not
looked for: nothing is ever asked. The state is a level, the gateway tells its edges.
Limits: 64 bytes a report; distances to 15 m, published every 15 min. No option. Somebody who lies on the floor is present:
do not take it for a sensor of falls. Not tried on a real module. Source: the vendor's serial protocol, published captures.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
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

_REPORT: Final = Report(bytes.fromhex("f4f3f2f1"), bytes.fromhex("f8f7f6f5"), limit=64)
_LEAST: Final = 13
_MARK: Final = 0xAA
_LD2420_BYTES: Final = 35
_MAX_DISTANCE_CM: Final = 1500
_CALIBRATING: Final = frozenset({4, 5, 6})


def options(raw: Mapping[str, object]) -> None:
    """Check the device's `map`: there is nothing to set. Raises BadOption."""
    known_keys(raw, name="map", allowed=())


def decode(frame: bytes, options: None) -> Decoded:  # noqa: ARG001 - the radar has no options; the shape has
    """Read one report. Raises Rejected."""
    content = _REPORT.content(frame)
    if len(content) == _LD2420_BYTES and content[1] != _MARK:
        raise Rejected(Reason.UNSUPPORTED, "a report of an LD2420 or S3KM1110: another module in the same frame")
    if len(content) < _LEAST or content[1] != _MARK or content[-2] != 0x55:
        raise Rejected(Reason.MALFORMED, f"content {content[:16].hex()}")
    if content[0] not in (1, 2):
        raise Rejected(Reason.UNSUPPORTED, f"report type {content[0]:02x}")
    state = content[2]
    if state in _CALIBRATING:
        return Decoded()
    if state > max(_CALIBRATING):
        return Decoded(refused=(f"presence = {state:02x}",))
    presence = Signal(SignalKind.OCCUPANCY, "presence", level=state != 0)
    if not state:
        return Decoded((presence,))
    # Only the distance of what is there now: that of what moved once stays in the report.
    distance = int.from_bytes(content[6:8] if state == 2 else content[3:5], "little")
    if not distance:
        return Decoded((presence,))
    if distance > _MAX_DISTANCE_CM:
        return Decoded((presence,), refused=(f"target_distance = {distance} cm",))
    return Decoded((presence, Reading("target_distance", Decimal(distance).scaleb(-2))))


DRIVER = Streams(
    model="ld2410",
    title=Title(zh="HLK-LD2410 存在雷达（不测跌倒）", en="HLK-LD2410 presence radar (no falls)"),
    framer=_REPORT.framer,
    options=options,
    decode=decode,
    line=LineSettings(baud=256000),
    readings_every_s=900.0,
    note=Title(
        zh="只测有人无人，不测跌倒",
        en="presence only: it sees no falls",
    ),
    vectors=(
        StreamVector(
            source="a published capture: nobody; the distance is what was left",
            frame=bytes.fromhex("f4f3f2f10d0002aa0045003e00003a00005500f8f7f6f5"),
            expect=Decoded((Signal(SignalKind.OCCUPANCY, "presence", level=False),)),
        ),
        StreamVector(
            source="bl_hilink_format test: somebody is still",
            frame=bytes.fromhex("f4f3f2f10d0002aa02c40100dd0124d3015500f8f7f6f5"),
            expect=Decoded(
                (
                    Signal(SignalKind.OCCUPANCY, "presence", level=True),
                    Reading("target_distance", Decimal("4.77")),
                )
            ),
        ),
        StreamVector(
            source="synthetic: a type of report that nobody has described",
            frame=bytes.fromhex("f4f3f2f10d0003aa02c40100dd0124d3015500f8f7f6f5"),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

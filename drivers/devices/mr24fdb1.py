"""Seeed MR24FDB1, an obsolete 24 GHz fall radar that is still hung up here and there, on a serial port, 9600 8N1.

Frame, a letter a byte:

    55  LL  F A B  D...  CC

    L  length of everything behind the 55, itself included; little-endian
    F A B  function and two address codes;  D  data
    C  CRC16 of Modbus over everything before it, low byte first; the other order is taken, too

    06 01 01  S    fall: 00 suspected, 01 fall, 02 none (firmware that writes a 04 before it is understood as well)
    06 01 02  S    somebody does not move for long: 00 none, 01 to 04 first to fourth warning
    03|04 03 05    surroundings: 00 FF FF nobody, 01 00 FF somebody is still, 01 01 01 somebody moves
    03|04 03 01    the same as a heartbeat, every minute

A fall is a level, and so is a suspected one (code "suspected"): both call for help. Somebody who does not move calls as
"stationary", unless `map.stationary = "none"`. Everything else that it says is read past. It is not
asked; a fall that it says again after 25 s of silence is another one.
Limits: 64 bytes a frame. Mount it on the ceiling or as its manual says, away from fans. Not tried on a real module, and no
whole frame of one has been published. Sources: Seeed's user manual; limengdu/Seeed-Studio-MR24FDB1-Sensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivers.kit import (
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
from drivers.kit.checks import crc16_modbus
from drivers.kit.framing import LengthFramer
from drivers.kit.options import choice, known_keys

_START: Final = 0x55
_MAX_FRAME: Final = 64
_LEAST: Final = 8
_FALL, _STATIONARY = b"\x06\x01\x01", b"\x06\x01\x02"
_PROACTIVE: Final = b"\x04"
_SURROUNDINGS: Final = frozenset({b"\x03\x03\x05", b"\x04\x03\x05", b"\x03\x03\x01", b"\x04\x03\x01"})
_PRESENCE: Final[Mapping[bytes, bool]] = {b"\x00\xff\xff": False, b"\x01\x00\xff": True, b"\x01\x01\x01": True}


@dataclass(frozen=True, slots=True)
class Options:
    """`stationary_calls`: somebody who does not move for long is a call."""

    stationary_calls: bool


def options(raw: Mapping[str, object]) -> Options:
    """Check the device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("stationary",))
    return Options(choice({"stationary": "call", **raw}, "stationary", name="map", among=("call", "none")) == "call")


def inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at a 55, for LengthFramer."""
    if len(data) - start < 3:
        return None
    size = int.from_bytes(data[start + 1 : start + 3], "little") + 1
    if not _LEAST <= size <= _MAX_FRAME:
        return Reason.NOT_MINE
    if len(data) - start < size:
        # A garbled length must not hold a fall back: a whole frame within ends the wait.
        later = range(start + 1, len(data) - _LEAST + 1)
        is_inside = any(data[at] == _START and isinstance(_whole(data, at), int) for at in later)
        return Reason.NOT_MINE if is_inside else None
    return _whole(data, start)


def _whole(data: bytes, start: int) -> int | Reason | None:
    size = int.from_bytes(data[start + 1 : start + 3], "little") + 1
    if not _LEAST <= size <= _MAX_FRAME or len(data) - start < size:
        return None
    check = data[start + size - 2 : start + size]
    found = crc16_modbus(data[start : start + size - 2]).to_bytes(2, "little")
    return size if check in (found, found[::-1]) else Reason.BAD_CHECK


def framer() -> LengthFramer:
    """Return a framer for the radar's line."""
    return LengthFramer(inspect, start=_START, limit=_MAX_FRAME)


def decode(frame: bytes, options: Options) -> Decoded:
    """Read one frame. Raises Rejected."""
    if frame[:1] != bytes([_START]) or _whole(frame, 0) != len(frame):
        raise Rejected(Reason.BAD_CHECK, "no whole frame")
    content = frame[3:-2]
    alarm = content.removeprefix(_PROACTIVE)
    if alarm[:3] in (_FALL, _STATIONARY):
        if len(alarm) != 4:
            raise Rejected(Reason.MALFORMED, f"an alarm of {len(alarm)} bytes")
        return _fall(alarm[3]) if alarm[:3] == _FALL else _stationary(alarm[3], options)
    if content[:3] in _SURROUNDINGS:
        there = _PRESENCE.get(content[3:6])
        if there is None:
            return Decoded(refused=(f"presence = {content[3:9].hex()}",))
        return Decoded((Signal(SignalKind.OCCUPANCY, "presence", level=there),))
    if content[0] not in (3, 4, 5, 6):
        raise Rejected(Reason.UNSUPPORTED, f"function {content[0]:02x}")
    return Decoded()


def _fall(state: int) -> Decoded:
    if state > 2:
        return Decoded(refused=(f"fall = {state:02x}",))
    return Decoded((Signal(SignalKind.FALL, ("suspected", "fall", "fall")[state], level=state != 2),))


def _stationary(state: int, options: Options) -> Decoded:
    if state > 4:
        return Decoded(refused=(f"stationary = {state:02x}",))
    if not options.stationary_calls:
        return Decoded()
    return Decoded((Signal(SignalKind.CALL, "stationary", "stationary", level=state != 0),))


DRIVER = Streams(
    model="mr24fdb1",
    title=Title(zh="MR24FDB1 跌倒雷达（已停产）", en="MR24FDB1 fall radar (obsolete)"),
    framer=framer,
    options=options,
    decode=decode,
    line=LineSettings(baud=9600),
    note=Title(
        zh="只有按说明书安装、远离风扇和窗帘才测跌倒；已停产",
        en="falls only as its manual mounts it, away from fans and curtains; obsolete",
    ),
    may_call=True,
    vectors=(
        StreamVector(
            source="limengdu/Seeed-Studio-MR24FDB1-Sensor README: its example of a check, a setting that is echoed",
            frame=bytes.fromhex("550800050104030c80"),
            expect=Decoded(),
        ),
        StreamVector(
            source="synthetic: Seeed's user manual, page 20, a fall",
            frame=bytes.fromhex("550800060101018e55"),
            expect=Decoded((Signal(SignalKind.FALL, "fall", level=True),)),
        ),
        StreamVector(
            source="synthetic: a function that nobody has described",
            frame=bytes.fromhex("550800090101018d41"),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

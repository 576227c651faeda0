"""60 GHz radars of Andar's making on a serial port, 115200 8N1: HLK-LD6002C and Seeed MR60FDA2 see falls.

The HLK-LD6002, LD6002B and Seeed MR60BHA2 speak the same and see no falls: presence, breath and heart only.

What is read, a letter a byte of the data (the frame around it: `drivers.protocols.tinyframe`):

    0E02  F                fall: 0 no, 1 yes; other values are no state
    0F09  P                somebody is there: 0 no, 1 yes
    0E06  HHHH TTTT SSSS   height of installation (m) and threshold (m), float32; sensitivity, uint32
    0E0C  LLLL RRRR FFFF BBBB   borders of the watched area: left, right, front, back (m), float32
    0E0E  HHHH             height of the target (m), float32; sent by a radar that was told to
    0A0A  1111 2222 3333 4444   somebody is in zone 1 to 4 (LD6002B and C), uint32: 0 no, 1 yes
    0A11  S                how it hangs: 0 under the ceiling, 1 at a wall
    0A14  RRRR             breaths a minute, float32; 0A15 heart beats (LD6002, MR60BHA2); one byte is a mode, not a breath
    0A16  VVVV DDDD        is the distance valid (uint32), distance (cm), float32

Point clouds and positions (0A04, 0A08, 0A17), phases (0A13), zones and settings that are told (0A0B to 0A12), answers to
settings (0201 to 0205, 0E04, 0E08, 0E0A), logs (010E, 0100) and the version (FFFF) are read past; every other type is
refused as unsupported, by its number. A type without data is the receipt for a question, or the question itself.

The radar repeats a state: the signals carry a level, and the gateway finds the edges. A fall that ends only means that
the radar no longer sees it; the alarm stays until a person closes it. The radar is asked for its parameters (0E06)
every 20 s, which also shows that it lives. It is never set, reset or updated by us.

Mount it on the ceiling, level within 5 degrees, 2 to 3 m high; it sees falls within 2 m around. A radar that believes to hang
lower or higher, that calls a fall what is more than 0.6 m high, or that hangs at a wall is told as a problem until it says
otherwise; 2.2 m is what the factory sets: put in what was measured.
Limits: states of 1 to 4 bytes; heights from 0.5 to 10 m, thresholds from 0 to 3 m, areas within 20 m, sensitivities from
1 to 1,000; parameters are published every 15 min. No option. Sources: as in `tinyframe`, and the vendor's manual.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final

from drivers.kit import (
    Decoded,
    LineSettings,
    Observation,
    Poll,
    Reading,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Streams,
    StreamVector,
    Title,
)
from drivers.kit.framing import LengthFramer
from drivers.kit.options import known_keys
from drivers.protocols import tinyframe

FALL: Final = 0x0E02
PRESENCE: Final = 0x0F09
PARAMETERS: Final = 0x0E06
AREA: Final = 0x0E0C
TARGET_HEIGHT: Final = 0x0E0E
ZONES: Final = 0x0A0A
INSTALL_SITE: Final = 0x0A11
BREATH: Final = 0x0A14
HEART: Final = 0x0A15
DISTANCE: Final = 0x0A16
_READ_PAST: Final = frozenset(
    {0x0A04, 0x0A08, 0x0A0B, 0x0A0C, 0x0A0D, 0x0A0E, 0x0A0F, 0x0A10, 0x0A12, 0x0A13, 0x0A17}
    | {0x0201, 0x0202, 0x0203, 0x0204, 0x0205, 0x0E04, 0x0E08, 0x0E0A, 0x010E, 0x0100, 0xFFFF}
)

_MAX_STATE_BYTES: Final = 4
_MAX_SENSITIVITY: Final = 1000
_Length = tuple[str, float, float]
# Names, lowest and highest, in metres: what a radar under a ceiling can mean.
_HEIGHT: Final[_Length] = ("install_height", 0.5, 10.0)
_THRESHOLD: Final[_Length] = ("fall_threshold", 0.0, 3.0)
_TARGET: Final[_Length] = ("target_height", -1.0, 10.0)
_DISTANCE: Final[_Length] = ("target_distance", 0.0, 20.0)
# Within these a radar can see a fall; beyond, it can be set so, and should not be.
_FIT_HEIGHT: Final = (2.0, 3.0)
_FIT_THRESHOLD: Final = (0.0, 0.6)
_MAX_RATE: Final = 250
_BORDER: Final[_Length] = ("alarm_area", -20.0, 20.0)


def options(raw: Mapping[str, object]) -> None:
    """Check the device's `map`: there is nothing to set. Raises BadOption."""
    known_keys(raw, name="map", allowed=())


def framer() -> LengthFramer:
    """Return a framer for the radar's line; a fall waits behind nothing."""
    return tinyframe.framer(urgent=(FALL,))


def decode(frame: bytes, options: None) -> Decoded:  # noqa: ARG001 - the radar has no options; the shape has
    """Read one frame. Raises Rejected."""
    found = tinyframe.parse(frame)
    if found.type in _READ_PAST:
        return Decoded()
    read = _TYPES.get(found.type)
    if read is None:
        raise Rejected(Reason.UNSUPPORTED, f"type {found.type:04x}")
    if not found.data:
        raise Rejected(Reason.NOT_MINE, f"a question for {found.type:04x}, not an answer")
    return read(found.data)


def _fall(data: bytes) -> Decoded:
    level = _state(data)
    if level is None:
        return Decoded(refused=(f"fall = {data.hex()}",))
    return Decoded((Signal(SignalKind.FALL, "fall", level=level),))


def _presence(data: bytes) -> Decoded:
    level = _state(data)
    if level is None:
        return Decoded(refused=(f"presence = {data.hex()}",))
    return Decoded((Signal(SignalKind.OCCUPANCY, "presence", level=level),))


def _state(data: bytes) -> bool | None:
    """Read a state; None for what is neither 0 nor 1."""
    if len(data) > _MAX_STATE_BYTES:
        raise Rejected(Reason.MALFORMED, f"a state of {len(data)} bytes")
    return {0: False, 1: True}.get(int.from_bytes(data, "little"))


def _parameters(data: bytes) -> Decoded:
    height, threshold, sensitivity = _unpacked("<ffI", data)
    found, refused = _metres((_HEIGHT, "", height), (_THRESHOLD, "", threshold))
    unfit = (
        ("install-height", _fits(height, _FIT_HEIGHT), _HEIGHT[0]),
        ("fall-threshold", _fits(threshold, _FIT_THRESHOLD), _THRESHOLD[0]),
    )
    # What cannot be is refused; that it does not fit need not be said as well.
    taken = {one.quantity for one in found if isinstance(one, Reading)}
    found += tuple(
        Signal(SignalKind.PROBLEM, name, name, level=not fits) for name, fits, quantity in unfit if quantity in taken
    )
    if 1 <= sensitivity <= _MAX_SENSITIVITY:
        return Decoded((*found, Reading("sensitivity", Decimal(int(sensitivity)))), refused=refused)
    return Decoded(found, refused=(*refused, f"sensitivity = {sensitivity}"))


def _area(data: bytes) -> Decoded:
    left, right, front, back = _unpacked("<4f", data)
    found, refused = _metres(
        (_BORDER, "left", left), (_BORDER, "right", right), (_BORDER, "front", front), (_BORDER, "back", back)
    )
    return Decoded(found, refused=refused)


def _target_height(data: bytes) -> Decoded:
    found, refused = _metres((_TARGET, "", _unpacked("<f", data)[0]))
    return Decoded(found, refused=refused)


def _zones(data: bytes) -> Decoded:
    states = _unpacked("<4I", data)
    found = [
        Signal(SignalKind.OCCUPANCY, "presence", f"zone-{n}", level=bool(state))
        for n, state in enumerate(states, 1)
        if state in (0, 1)
    ]
    return Decoded(tuple(found), refused=tuple(f"zone = {state}" for state in states if state not in (0, 1)))


def _install_site(data: bytes) -> Decoded:
    level = _state(data)
    if level is None:
        return Decoded(refused=(f"install_site = {data.hex()}",))
    return Decoded((Signal(SignalKind.PROBLEM, "install-site", "install-site", level=level),))


def _rate(quantity: str) -> Callable[[bytes], Decoded]:
    def read(data: bytes) -> Decoded:
        if len(data) == 1:  # another model's mode of work
            return Decoded()
        (value,) = _unpacked("<f", data)
        if not (math.isfinite(value) and 0 <= value <= _MAX_RATE):
            return Decoded(refused=(f"{quantity} = {value:g}",))
        return Decoded((Reading(quantity, Decimal(f"{value:.0f}")),) if value else ())

    return read


def _distance(data: bytes) -> Decoded:
    is_valid, distance_cm = _unpacked("<If", data)
    if not is_valid:
        return Decoded()
    found, refused = _metres((_DISTANCE, "", distance_cm / 100))
    return Decoded(found, refused=refused)


def _fits(value: float, bounds: tuple[float, float]) -> bool:
    # A hundredth is what a float32 of a metre may miss.
    return bounds[0] - 0.01 <= value <= bounds[1] + 0.01


def _unpacked(layout: str, data: bytes) -> tuple[float, ...]:
    if len(data) != struct.calcsize(layout):
        raise Rejected(Reason.MALFORMED, f"{len(data)} bytes where {struct.calcsize(layout)} belong")
    return struct.unpack(layout, data)


def _metres(*values: tuple[_Length, str, float]) -> tuple[tuple[Observation, ...], tuple[str, ...]]:
    """Return lengths to the centimetre, and by name those that cannot be."""
    found: list[Observation] = []
    refused: list[str] = []
    for (quantity, low, high), channel, value in values:
        if math.isfinite(value) and low <= value <= high:
            found.append(Reading(quantity, Decimal(f"{value:.2f}"), channel))
        else:
            refused.append(f"{quantity}{f' {channel}' if channel else ''} = {value:g} m")
    return tuple(found), tuple(refused)


_TYPES: Final[Mapping[int, Callable[[bytes], Decoded]]] = {
    FALL: _fall,
    PRESENCE: _presence,
    PARAMETERS: _parameters,
    AREA: _area,
    TARGET_HEIGHT: _target_height,
    ZONES: _zones,
    INSTALL_SITE: _install_site,
    BREATH: _rate("breath_rate"),
    HEART: _rate("heart_rate"),
    DISTANCE: _distance,
}


DRIVER = Streams(
    model="andar-radar",
    title=Title(zh="HLK-LD6002C / MR60FDA2 跌倒雷达", en="HLK-LD6002C / MR60FDA2 fall radar"),
    framer=framer,
    options=options,
    decode=decode,
    line=LineSettings(baud=115200),
    poll=Poll(tinyframe.question(PARAMETERS), every_s=20.0),
    readings_every_s=900.0,
    note=Title(
        zh="要装在天花板上才测跌倒：倾斜不超过 5°，高 2～3 m，半径 2 m 以内；量好的安装高度要设进去",
        en="falls only from the ceiling: level within 5°, 2 to 3 m high, within 2 m around; put in the measured height",
    ),
    may_call=True,
    vectors=(
        StreamVector(
            source="laoyang-kingdom-cum-project/ld6002c-fall-detection tests/test_ld6002c_parser.py: the vendor's example",
            frame=bytes.fromhex("01000000010e02f301fe"),
            expect=Decoded((Signal(SignalKind.FALL, "fall", level=True),)),
        ),
        StreamVector(
            source="laoyang-kingdom-cum-project/ld6002c-fall-detection tests/test_ld6002c_parser.py: the vendor's example",
            frame=bytes.fromhex("01000100010f09f801fe"),
            expect=Decoded((Signal(SignalKind.OCCUPANCY, "presence", level=True),)),
        ),
        StreamVector(
            source="jcmendez/mr60fda2-proto src/frame.rs parses_parameters",
            frame=bytes.fromhex("010000000c0e06fa666626409a99993e0f00000032"),
            expect=Decoded(
                (
                    Reading("install_height", Decimal("2.60")),
                    Reading("fall_threshold", Decimal("0.30")),
                    Signal(SignalKind.PROBLEM, "install-height", "install-height", level=False),
                    Signal(SignalKind.PROBLEM, "fall-threshold", "fall-threshold", level=False),
                    Reading("sensitivity", Decimal(15)),
                )
            ),
        ),
        StreamVector(
            source="synthetic: a state that is none",
            frame=bytes.fromhex("01000000010e02f307f8"),
            expect=Decoded(refused=("fall = 07",)),
        ),
        StreamVector(
            source="limengdu/MR60FDA2_ESPHome_external_components seeed_mr60fda2.cpp: our own question, come back",
            frame=bytes.fromhex("01000000000e06f6"),
            expect=Reason.NOT_MINE,
        ),
        StreamVector(
            source="synthetic: a type that nobody has described",
            frame=bytes.fromhex("01000000010e77867788"),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

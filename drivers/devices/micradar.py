"""Micradar fall and presence radars on a serial port, 115200 8N1: DFRobot C1001 (SEN0623), Seeed MR60FDA1, R60ABD1.

What is read, control word and command, a letter a byte of the data (the frame around it: `drivers.protocols.micradar`);
an answer, whose command has the highest bit, means the same as the report:

    83 01  F     fall: 0 no, 1 yes
    83 05  R     somebody has not moved for long (stationary residency): 0 no, 1 yes
    83 00  S     detection of falls: 0 off, 1 on
    02 28  M     answer only (02 A8): what the module does: 1 falls, 2 sleep
    80 01  P     somebody is there: 0 no, 1 yes
    80 02  M     nobody, still, moving: 0, 1, 2
    80 03  B     how much the body moves: 0 to 100
    80 04  DD    distance, cm
    84 01  B     bed: 0 left, 1 taken, 2 no bed is watched
    81 02  R     breaths a minute, 85 02  H  heart beats a minute; 0: not measured
    81 07, 81 08, 81 05   presence, distance, movement of the older MR60BHA1
    01 01  0F    heartbeat

What else the modules say under these control words (01, 02, 05, 07, 80 to 85) is read past; other control words are refused
as unsupported. A module is asked for falls (83 81) every 2 s, because a C1001 does not say them by itself, and for what it
does (02 A8): one that watches sleep answers "no fall" for ever, and that is told as a problem, as is one whose detection of
falls is off. Its answers show that it lives. It is never set, reset or updated by us.

A fall is a level: it ends when the radar no longer sees it, and the alarm stays until a person closes it. Stationary
residency calls as well (modules report it only when it was switched on). Mount it on the ceiling, level, 2 to 3 m high: it
sees falls within 2 m around, and none from a table or a wall.

    [device.map]
    stationary = "call"    # left out: a call; "none": where people rest, it means nothing
    falls = true           # false: a module without falls, whose sleep mode is no fault

Limits: distances to 20 m, 120 breaths and 250 beats a minute; readings are published every 15 min. Not tried on a real
module: no fall frame of one has been published, the frames of falls in the tests are built from the makers' code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from drivers.kit import (
    BadOption,
    Decoded,
    LineSettings,
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
from drivers.kit.options import choice, known_keys
from drivers.protocols import micradar

ASK_S: Final = 2.0
FALL: Final = (0x83, 0x01)
MODE: Final = (0x02, 0x28)
_KNOWN: Final = frozenset({0x01, 0x02, 0x05, 0x07, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85})
_FALL_MODE: Final = 1
# Commands of one byte that the newer modules give more bytes and another meaning.
_ONE_BYTE: Final = frozenset({(0x81, 0x05), (0x81, 0x07)})


@dataclass(frozen=True, slots=True)
class Options:
    """`stationary_calls`: somebody who does not move for long is a call; `falls`: the module ought to watch for falls."""

    stationary_calls: bool
    falls: bool


def options(raw: Mapping[str, object]) -> Options:
    """Check the device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("stationary", "falls"))
    stationary = choice({"stationary": "call", **raw}, "stationary", name="map", among=("call", "none"))
    falls = raw.get("falls", True)
    if not isinstance(falls, bool):
        raise BadOption("map.falls", falls, "true or false", zh="true 或 false")
    return Options(stationary == "call", falls)


def decode(frame: bytes, options: Options) -> Decoded:
    """Read one frame. Raises Rejected."""
    found = micradar.parse(frame)
    if found.command & micradar.ASKED and found.data == micradar.QUESTION:
        raise Rejected(Reason.NOT_MINE, f"a question for {found.control:02x} {found.command:02x}, not an answer")
    key = (found.control, found.command & ~micradar.ASKED)
    read = _READ.get(key)
    if read is None or (key == MODE and not found.command & micradar.ASKED):
        if found.control not in _KNOWN:
            raise Rejected(Reason.UNSUPPORTED, f"{found.control:02x} {found.command:02x}")
        return Decoded()
    if key in _ONE_BYTE and len(found.data) != 1:
        return Decoded()
    return read(found.data, options)


def _state(data: bytes, *, most: int = 1) -> int | None:
    """Read a state of one byte; None for one that is none. Raises Rejected for another length."""
    if len(data) != 1:
        raise Rejected(Reason.MALFORMED, f"a state of {len(data)} bytes")
    return data[0] if data[0] <= most else None


def _level(kind: SignalKind, code: str, *, channel: str = "") -> Callable[[bytes, Options], Decoded]:
    def read(data: bytes, _options: Options) -> Decoded:
        state = _state(data)
        if state is None:
            return Decoded(refused=(f"{code} = {data.hex()}",))
        return Decoded((Signal(kind, code, channel, level=bool(state)),))

    return read


def _stationary(data: bytes, options: Options) -> Decoded:
    if not options.stationary_calls:
        return Decoded()
    return _level(SignalKind.CALL, "stationary", channel="stationary")(data, options)


def _detection(data: bytes, options: Options) -> Decoded:
    is_on = _state(data) != 0
    return _sees_no_falls("fall-detection-off", "fall-detection", level=not is_on) if options.falls else Decoded()


def _mode(data: bytes, options: Options) -> Decoded:
    mode = _state(data, most=0xFF)
    return _sees_no_falls("work-mode", "work-mode", level=mode != _FALL_MODE) if options.falls else Decoded()


def _sees_no_falls(code: str, channel: str, *, level: bool) -> Decoded:
    return Decoded((Signal(SignalKind.PROBLEM, code, channel, level=level),))


def _bed(data: bytes, _options: Options) -> Decoded:
    state = _state(data, most=2)
    if state is None:
        return Decoded(refused=(f"bed = {data.hex()}",))
    return Decoded() if state == 2 else Decoded((Signal(SignalKind.OCCUPANCY, "bed", "bed", level=bool(state)),))


def _number(
    quantity: str, *, most: int, size: int = 1, decimals: int = 0, zero_is_none: bool = False
) -> Callable[[bytes, Options], Decoded]:
    def read(data: bytes, _options: Options) -> Decoded:
        if len(data) != size:
            raise Rejected(Reason.MALFORMED, f"{quantity} of {len(data)} bytes")
        value = int.from_bytes(data, "big")
        if value > most:
            return Decoded(refused=(f"{quantity} = {value}",))
        if zero_is_none and not value:
            return Decoded()
        return Decoded((Reading(quantity, Decimal(value).scaleb(-decimals)),))

    return read


_PRESENCE: Final = _level(SignalKind.OCCUPANCY, "presence")
_MOVEMENT: Final = _number("body_movement", most=100)
_DISTANCE: Final = _number("target_distance", most=2000, size=2, decimals=2)
_READ: Final[Mapping[tuple[int, int], Callable[[bytes, Options], Decoded]]] = {
    FALL: _level(SignalKind.FALL, "fall"),
    (0x83, 0x05): _stationary,
    (0x83, 0x00): _detection,
    MODE: _mode,
    (0x80, 0x01): _PRESENCE,
    (0x80, 0x02): _number("motion", most=2),
    (0x80, 0x03): _MOVEMENT,
    (0x80, 0x04): _DISTANCE,
    (0x84, 0x01): _bed,
    (0x81, 0x02): _number("breath_rate", most=120, zero_is_none=True),
    (0x85, 0x02): _number("heart_rate", most=250, zero_is_none=True),
    (0x81, 0x05): _MOVEMENT,
    (0x81, 0x07): _PRESENCE,
    (0x81, 0x08): _DISTANCE,
}


DRIVER = Streams(
    model="micradar",
    title=Title(
        zh="C1001 / MR60FDA1 / R60ABD1 跌倒与存在雷达", en="C1001 / MR60FDA1 / R60ABD1 fall and presence radar"
    ),
    framer=micradar.framer,
    options=options,
    decode=decode,
    line=LineSettings(baud=115200),
    poll=Poll(micradar.question(*FALL) + micradar.question(*MODE), every_s=ASK_S),
    readings_every_s=900.0,
    note=Title(
        zh="要装在天花板上才测跌倒：水平，高 2～3 m，半径 2 m 以内；放桌上或挂墙上测不到",
        en="falls only from the ceiling: level, 2 to 3 m high, within 2 m around; none from a table or a wall",
    ),
    may_call=True,
    vectors=(
        StreamVector(
            source="synthetic: DFRobot/DFRobot_HumanDetection getFallData(), bytes built here",
            frame=bytes.fromhex("53598381000101b25443"),
            expect=Decoded((Signal(SignalKind.FALL, "fall", level=True),)),
        ),
        StreamVector(
            source="a published capture of an MR60FDA1: movement of the body",
            frame=bytes.fromhex("53598003000106365443"),
            expect=Decoded((Reading("body_movement", Decimal(6)),)),
        ),
        StreamVector(
            source="synthetic: the maker's code table, a module without anybody",
            frame=bytes.fromhex("535980010001002e5443"),
            expect=Decoded((Signal(SignalKind.OCCUPANCY, "presence", level=False),)),
        ),
        StreamVector(
            source="synthetic: the maker's code table, somebody does not move",
            frame=bytes.fromhex("53598305000101365443"),
            expect=Decoded((Signal(SignalKind.CALL, "stationary", "stationary", level=True),)),
        ),
        StreamVector(
            source="DFRobot/DFRobot_HumanDetection: our own question, come back",
            frame=bytes.fromhex("5359838100010fc05443"),
            expect=Reason.NOT_MINE,
        ),
        StreamVector(
            source="synthetic: a control word that nobody has described",
            frame=bytes.fromhex("53599901000101485443"),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

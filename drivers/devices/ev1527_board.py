"""433 MHz decoder boards that write each EV1527 code to a serial port, 9600 8N1: the "FD ... DF" boards.

Frame, a letter a byte:

    FD  CC CC CC  O  DF

    C  code: id and key (`drivers.protocols.ev1527`, which says what the `map` of a device may hold)
    O  the transmitter's oscillator, which drifts: read past

There is no check: that 24 bits stand between FD and DF is all, and only a configured id counts. A frame of other bytes is
none, and the search goes on at the next byte. A code that comes again within 2 s is the same press: the board repeats it while
the key is held, when its jumper says so.
Limits: 6 bytes a frame. Not tried on a real board; its frame is from sellers' pages, no manual was found.
"""

from __future__ import annotations

from typing import Final

from drivers.kit import (
    Decoded,
    LineSettings,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Strangers,
    Streams,
    StreamVector,
    Title,
)
from drivers.kit.framing import LengthFramer
from drivers.protocols import ev1527
from drivers.protocols.ev1527 import Keys

_START, _END = 0xFD, 0xDF
_SIZE: Final = 6


def inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at an FD, for LengthFramer."""
    if len(data) - start < _SIZE:
        return None
    return _SIZE if data[start + _SIZE - 1] == _END else Reason.NOT_MINE


def framer() -> LengthFramer:
    """Return a framer for the board's line."""
    return LengthFramer(inspect, start=_START, limit=_SIZE)


def address_of(frame: bytes, options: Keys) -> str:  # noqa: ARG001 - an id is an id under any options
    """Say whose code it is; "" for what is no frame."""
    try:
        return ev1527.address(_code(frame))
    except Rejected:
        return ""


def decode(frame: bytes, options: Keys) -> Decoded:
    """Read one frame. Raises Rejected."""
    code = _code(frame)
    return Decoded(ev1527.signals(code, options), address=ev1527.address(code))


def _code(frame: bytes) -> bytes:
    if len(frame) != _SIZE or frame[0] != _START or frame[-1] != _END:
        raise Rejected(Reason.NOT_MINE, "no FD ... DF frame")
    if frame[1:4] in (b"\x00\x00\x00", b"\xff\xff\xff"):
        raise Rejected(Reason.IMPLAUSIBLE, f"code {frame[1:4].hex()}")
    return frame[1:4]


DRIVER = Streams(
    model="ev1527-board",
    title=Title(zh="433 MHz 解码板（EV1527，FD…DF）", en="433 MHz decoder board (EV1527, FD…DF)"),
    framer=framer,
    options=ev1527.options,
    decode=decode,
    address_of=address_of,
    line=LineSettings(baud=9600),
    repeat_s=ev1527.REPEAT_S,
    strangers=Strangers.IGNORED,
    radio=True,
    note=ev1527.NOTE,
    may_call=True,
    vectors=(
        StreamVector(
            source="synthetic: the recorded id 840811 of merbanan/rtl_433 in the frame of sellers' pages",
            frame=bytes.fromhex("fdcd46be5adf"),
            expect=Decoded((Signal(SignalKind.CALL, "key-E"),), address="CD46B"),
        ),
        StreamVector(
            source="synthetic: the same, a contact of Kerui's",
            frame=bytes.fromhex("fdcd46b761df"),
            options={"keys": {"E": "opening", "7": "closed"}},
            expect=Decoded((Signal(SignalKind.OPENING, "key-7", level=False),), address="CD46B"),
        ),
        StreamVector(
            source="synthetic: a code that no transmitter has",
            frame=bytes.fromhex("fd00000055df"),
            expect=Reason.IMPLAUSIBLE,
        ),
    ),
)

"""Sonoff RF Bridge (EFM8BB1) on a serial port, 19200 8N1: 433 MHz codes of remotes and sensors.

Frames, a letter a byte; numbers are big-endian:

    AA A4  SS LL HH CC CC CC  55     a code: times (µs) of sync, low and high; id and key (`drivers.protocols.ev1527`)
    AA A6  N P D...           55     a code by its protocol (Portisch firmware): of three bytes it is one like A4's
    AA B1  N  N x TT  Y...    55     a raw reception: N times (µs), then two symbols a byte, each the number of its time
    AA A0|A2|A3..., 55               acknowledgements and learning: read past

A code is answered with AA A0 55 at once; the bridge waits for that before the next, which may be another call.
Times drift from press to press, symbols do not: times of which the shorter is more than 70 % of the longer are one; a long
pulse before a short pause is a 1, a short one before a long a 0. 24 bits are an id and a key, as above; another number of
bits is a transmitter whose `address` is "BITS:DIGITS" (18:3F3C3), whose one key is 0. `gateway listen` shows both.

The `map` of a device is that of `drivers.protocols.ev1527`. A code that comes again within 2 s is the same press.
Limits: 128 bytes a frame, 8 times, 64 bits. Not tried on a real bridge. Sources: esphome components/rf_bridge; Tasmota's
documentation of the Sonoff RF Bridge.
"""

from __future__ import annotations

from typing import Final

from drivers.kit import (
    Decoded,
    LineSettings,
    Reason,
    Rejected,
    Reply,
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

_START, _END = 0xAA, 0x55
_CODE, _BY_PROTOCOL, _RAW = 0xA4, 0xA6, 0xB1
_OTHERS: Final = frozenset({0xA0, 0xA1, 0xA2, 0xA3})
_MAX_FRAME: Final = 128
_CODE_SIZE: Final = 12
_MAX_TIMES: Final = 8
_MAX_BITS: Final = 64
_MIN_BITS: Final = 8
_GOT_IT: Final = Reply(b"\xaa\xa0\x55")


def inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at an AA, for LengthFramer."""
    if len(data) - start < 3:
        return None
    kind, count = data[start + 1], data[start + 2]
    if kind == _CODE:
        return _ending(data, start, _CODE_SIZE)
    if kind == _BY_PROTOCOL:
        return _ending(data, start, count + 4) if 1 <= count <= 64 else Reason.NOT_MINE
    if kind == _RAW:
        if not 1 <= count <= _MAX_TIMES:
            return Reason.NOT_MINE
        # Behind the times the first 55 ends the frame: a symbol of a time beyond the fifth twice over does not occur.
        end = data.find(_END, start + 3 + 2 * count, start + _MAX_FRAME)
        if end < 0:
            return None if len(data) - start < _MAX_FRAME else Reason.TOO_LONG
        return end + 1 - start
    if kind in _OTHERS:
        # An acknowledgement, or times and a code that were learned.
        return 3 if count == _END else _ending(data, start, _CODE_SIZE)
    return Reason.NOT_MINE


def _ending(data: bytes, start: int, size: int) -> int | Reason | None:
    if len(data) - start < size:
        return None
    return size if data[start + size - 1] == _END else Reason.MALFORMED


def framer() -> LengthFramer:
    """Return a framer for the bridge's line."""
    return LengthFramer(inspect, start=_START, limit=_MAX_FRAME)


def address_of(frame: bytes, options: Keys) -> str:  # noqa: ARG001 - an id is an id under any options
    """Say whose code it is; "" for what has none."""
    try:
        return _transmission(frame)[0]
    except Rejected:
        return ""


def decode(frame: bytes, options: Keys) -> Decoded:
    """Read one frame. Raises Rejected."""
    address, code = _transmission(frame)
    if code is None:
        return Decoded()
    replies = (_GOT_IT,) if frame[1] == _CODE else ()
    return Decoded(ev1527.signals(code, options), address=address, replies=replies)


def _transmission(frame: bytes) -> tuple[str, bytes | None]:
    """Return address and code; None for what is no transmission. Raises Rejected."""
    if frame[:1] != bytes([_START]) or inspect(frame, 0) != len(frame):
        raise Rejected(Reason.NOT_MINE, "no whole frame")
    kind = frame[1]
    if kind == _CODE:
        return ev1527.address(frame[8:11]), frame[8:11]
    if kind == _BY_PROTOCOL:
        code = frame[4:-1]
        return ev1527.address(code), code
    if kind == _RAW:
        bits = _bits(frame)
        if len(bits) == 8 * ev1527.CODE_BYTES:
            code = int(bits, 2).to_bytes(ev1527.CODE_BYTES, "big")
            return ev1527.address(code), code
        return f"{len(bits)}:{int(bits, 2):0{(len(bits) + 3) // 4}X}", bytes(ev1527.CODE_BYTES)
    return "", None


def _bits(frame: bytes) -> str:
    """Read the bits of a raw reception. Raises Rejected."""
    count = frame[2]
    times = [int.from_bytes(frame[3 + 2 * n : 5 + 2 * n], "big") for n in range(count)]
    # The highest bit of a symbol says whether it is a pulse or a pause, in newer firmware.
    symbols = [half & 7 for byte in frame[3 + 2 * count : -1] for half in (byte >> 4, byte & 15)]
    if any(symbol >= count for symbol in symbols) or min(times) == 0:
        raise Rejected(Reason.MALFORMED, "a symbol without a time")
    classes = _classes(times)
    pause = max(classes)
    bits = ""
    for pulse, gap in zip(symbols[::2], symbols[1::2], strict=False):
        high, low = classes[pulse], classes[gap]
        if pause >= 2 and low == pause:  # the pause between two repeats
            bits += "1" if high == 1 else "0" if len(bits) % 8 else ""
        elif {high, low} == {0, 1}:
            bits += str(high)
        else:
            raise Rejected(Reason.UNSUPPORTED, "pulses of another modulation")
    if not _MIN_BITS <= len(bits) <= _MAX_BITS:
        raise Rejected(Reason.UNSUPPORTED, f"{len(bits)} bits")
    return bits


def _classes(times: list[int]) -> list[int]:
    """Number the times by how long they are, 0 for the shortest; nearly equal ones have the same number."""
    numbers: dict[int, int] = {}
    before, n = 0, -1
    for time in sorted(set(times)):
        n += time * 7 > before * 10
        before = time
        numbers[time] = n
    return [numbers[time] for time in times]


DRIVER = Streams(
    model="sonoff-rf-bridge",
    title=Title(zh="Sonoff RF Bridge 433 MHz 接收器", en="Sonoff RF Bridge, 433 MHz"),
    framer=framer,
    options=ev1527.options,
    decode=decode,
    address_of=address_of,
    line=LineSettings(baud=19200),
    repeat_s=ev1527.REPEAT_S,
    strangers=Strangers.IGNORED,
    radio=True,
    note=ev1527.NOTE,
    may_call=True,
    vectors=(
        StreamVector(
            source="synthetic: the layout of esphome components/rf_bridge",
            frame=bytes.fromhex("aaa42828015403fcd0fc3855"),
            expect=Decoded((Signal(SignalKind.CALL, "key-8"),), address="D0FC3", replies=(Reply(b"\xaa\xa0\x55"),)),
        ),
        StreamVector(
            source="Tasmota's documentation of the Sonoff RF Bridge: a key that was recorded",
            frame=bytes.fromhex("aab10307f9012437dc01010101010110100101010110101010010255"),
            options={"keys": {"0": "call"}},
            expect=Decoded((Signal(SignalKind.CALL, "key-0"),), address="18:3F3C3"),
        ),
        StreamVector(
            source="esphome components/rf_bridge: an acknowledgement",
            frame=bytes.fromhex("aaa055"),
            expect=Decoded(),
        ),
        StreamVector(
            source="synthetic: a raw reception with a symbol that has no time",
            frame=bytes.fromhex("aab10207f901240102021055"),
            expect=Reason.MALFORMED,
        ),
    ),
)

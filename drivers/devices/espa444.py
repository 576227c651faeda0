"""An existing nurse-call system that hands its calls over by ESPA 4.4.4, usually 9600 8N1 (7E1 and 8E1 are met as well).

Records of a call (header 1; the frame around it: `drivers.protocols.espa444`):

    1  call address: which bed, room or pager. It is the `address` of a [[device]]
    2  text for the display, ISO 8859-1: goes into the event as `detail`, at most 200 characters
    3  beeps: read past
    4  call type: 1 reset, 2 speech, 3 standard; whatever is not 1 calls
    5  number of transmissions: read past
    6  priority: 1 alarm, 2 high, 3 normal; it is the signal's code ("unknown" for others, "" without one)

A block is acknowledged when the call is on the disk, and not before; one with a wrong check is asked for again (NAK), and
raises nothing. An equal call within 5 s, while nobody has taken its alarm, is the same one: its acknowledgement was missed.
A call type of 1 is told and closes nothing: only a person closes an alarm.

Each call address may be a [[device]] on the line. A call with an address that no device has is raised as well, with its
address as the channel and without a room, and told as a problem. A [[device]] without an address takes what names
nobody, and its options apply to those strangers.

    [device.map]
    is = "call"          # what a call to this address is: call (left out), fall, bed_exit ..., or "none": read past, for the
                         # address that a call system calls now and then to see whether we live
    station = "2"        # our address on a line that others share; left out: every selection is answered. `station`,
    control = "1"        # `control` and `polled` count where they stand at the device without an address, or else at the
    polled = "eot"       # first device of the line. "ack": for a system that polls where it ought to select

Status information and requests (headers 2 and 3) and calls to subscriber lines (4) are acknowledged and read past: no status
is given back. Header 5 is whatever the maker wants: acknowledged, and refused as unsupported. Any other header is a call.
Limits: addresses of at most 64 characters. Not tried on a real nurse-call system: on published blocks only.
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
    Reply,
    Signal,
    SignalKind,
    Strangers,
    Streams,
    StreamVector,
    Title,
)
from drivers.kit.options import MAX_NAME, choice, known_keys, text
from drivers.protocols import espa444
from drivers.protocols.espa444 import ACK, EOT, Block, Inquiry

REPEAT_S: Final = 5.0
NOTHING: Final = "none"
_ADDRESS, _TEXT, _TYPE, _PRIORITY = "1", "2", "4", "6"
_RESET: Final = "1"
_PRIORITIES: Final[Mapping[str, str]] = {"": "", "1": "alarm", "2": "high", "3": "normal"}
_READ_PAST: Final = frozenset({"2", "3", "4"})
_ANYTHING: Final = "5"


@dataclass(frozen=True, slots=True)
class Options:
    """`kind` None: a call to this address means nothing. `station` "": every selection is ours."""

    kind: SignalKind | None
    station: str
    control: str
    polled: int


def options(raw: Mapping[str, object]) -> Options:
    """Check a device's `map`. Raises BadOption."""
    known_keys(raw, name="map", allowed=("is", "station", "control", "polled"))
    kinds = [*(kind.value for kind in SignalKind), NOTHING]
    kind = choice({"is": "call", **raw}, "is", name="map", among=kinds)
    polled = choice({"polled": "eot", **raw}, "polled", name="map", among=("eot", "ack"))
    return Options(
        None if kind == NOTHING else SignalKind(kind),
        text(raw, "station", name="map", default=""),
        text(raw, "control", name="map", default="1"),
        EOT if polled == "eot" else ACK,
    )


def address_of(frame: bytes, options: Options) -> str:  # noqa: ARG001 - an address is an address under any options
    """Say which call address a block has; "" for an inquiry, and for what cannot be read: `decode` then says why."""
    try:
        found = espa444.parse(frame)
    except Rejected:
        return ""
    return found.records.get(_ADDRESS, "")[:MAX_NAME] if isinstance(found, Block) else ""


def decode(frame: bytes, options: Options) -> Decoded:
    """Read one frame. Raises Rejected."""
    found = espa444.parse(frame)
    if isinstance(found, Inquiry):
        return Decoded(replies=_answer(found, frame, options))
    now = espa444.answer(ACK, frame)
    if found.header == _ANYTHING:
        raise Rejected(Reason.UNSUPPORTED, "header 5", replies=(now,))
    address = found.records.get(_ADDRESS, "")[:MAX_NAME]
    if found.header in _READ_PAST or options.kind is None:
        return Decoded(address=address, replies=(now,))
    signal = _signal(found, options.kind, address)
    return Decoded((signal,), address=address, replies=(espa444.answer(ACK, frame, when="committed"),))


def _signal(block: Block, kind: SignalKind, address: str) -> Signal:
    records = block.records
    detail = records.get(_TEXT, "")
    if records.get(_TYPE) == _RESET:
        return Signal(SignalKind.CANCEL, "reset", address, detail=detail)
    return Signal(kind, _PRIORITIES.get(records.get(_PRIORITY, ""), "unknown"), address, detail=detail)


def _answer(inquiry: Inquiry, frame: bytes, options: Options) -> tuple[Reply, ...]:
    ours = inquiry.address in ("", options.station) if options.station else inquiry.address != options.control
    if not ours:
        return ()
    return (espa444.answer(options.polled if inquiry.is_poll else ACK, frame),)


DRIVER = Streams(
    model="espa444",
    title=Title(zh="ESPA 4.4.4 护理呼叫系统", en="ESPA 4.4.4 nurse-call system"),
    framer=espa444.framer,
    options=options,
    decode=decode,
    address_of=address_of,
    line=LineSettings(baud=9600),
    repeat_s=REPEAT_S,
    strangers=Strangers.RAISED,
    may_call=True,
    vectors=(
        StreamVector(
            source="wiki.zenitel.com/wiki/ESPA_4.4.4: a logged block, with the space before its first record; check ours",
            frame=bytes.fromhex("01310220311f3535301e321f43414c4c204d45203130311e331f331e341f331e351f331e361f330303"),
            expect=Decoded(
                (Signal(SignalKind.CALL, "normal", "550", detail="CALL ME 101"),),
                address="550",
                replies=(Reply(b"\x06", when="committed"),),
            ),
        ),
        StreamVector(
            source="northplane ESPA adapter tests TestESPA444CallFrame, framed here",
            frame=bytes.fromhex(
                "013102311f303831351e321f4665756572205a696d6d65722031321e331f321e341f331e351f311e361f310342"
            ),
            options={"is": "fall"},
            expect=Decoded(
                (Signal(SignalKind.FALL, "alarm", "0815", detail="Feuer Zimmer 12"),),
                address="0815",
                replies=(Reply(b"\x06", when="committed"),),
            ),
        ),
        StreamVector(
            source="gscott.me.uk ESPA 4.4.4, 4.3: record 4 of a call that is reset; framed here",
            frame=bytes.fromhex("013102311f31321e341f310319"),
            expect=Decoded(
                (Signal(SignalKind.CANCEL, "reset", "12"),), address="12", replies=(Reply(b"\x06", when="committed"),)
            ),
        ),
        StreamVector(
            source="gscott.me.uk ESPA 4.4.4, 3.2: we are selected",
            frame=b"2\x05",
            expect=Decoded(replies=(Reply(b"\x06"),)),
        ),
        StreamVector(
            source="northplane ESPA adapter tests TestESPA444CorruptBCCGetsNAK, framed here",
            frame=bytes.fromhex(
                "013102311f303831351e321f4665756572205a696d6d65722031321e331f321e341f331e351f311e361f310343"
            ),
            expect=Reason.BAD_CHECK,
        ),
    ),
)

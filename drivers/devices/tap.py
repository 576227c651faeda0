"""A call system that hands its messages to a paging terminal by TAP, 1200 to 9600 bauds, usually 7E1: we are the terminal.

    STX pager <CR> text <CR> ETX check <CR>       the frame, the log-on and the answers: `drivers.protocols.tap`

Each pager may be a [[device]] whose `address` is the pager; a call for a pager that no device has is raised as well, with
the pager as its channel and without a room, and told as a problem. A [[device]] without an address takes what names nobody. The
text is carried as `detail`, at most 200 characters.

    [device.map]
    is = "call"          # what a message to this pager is: call (left out), fall, bed_exit ..., or "none": read past

A message is acknowledged when it is on the disk, and not before; one with a wrong check is asked for again (NAK), and raises
nothing. An equal message within 5 s, while nobody has taken its alarm, is the same one: its acknowledgement was missed. TAP has
no word for the end of a call. The rest of a message in several blocks calls as well, as the line's own device.
Limits: pagers of at most 64 characters. Not tried on a real call system: on the example of the specification.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from drivers.kit.options import MAX_NAME, choice, known_keys
from drivers.protocols import tap
from drivers.protocols.espa444 import line
from drivers.protocols.tap import Message

REPEAT_S: Final = 5.0
NOTHING: Final = "none"


def options(raw: Mapping[str, object]) -> SignalKind | None:
    """Check a device's `map`: return what a message means, None for nothing. Raises BadOption."""
    known_keys(raw, name="map", allowed=("is",))
    kinds = [*(kind.value for kind in SignalKind), NOTHING]
    kind = choice({"is": "call", **raw}, "is", name="map", among=kinds)
    return None if kind == NOTHING else SignalKind(kind)


def address_of(frame: bytes, options: SignalKind | None) -> str:  # noqa: ARG001 - a pager is one under any options
    """Say which pager is called; "" for a line, and for what cannot be read: `decode` then says why."""
    try:
        found = tap.parse(frame)
    except Rejected:
        return ""
    return line(found.pager)[:MAX_NAME] if isinstance(found, Message) else ""


def decode(frame: bytes, options: SignalKind | None) -> Decoded:
    """Read one frame. Raises Rejected."""
    found = tap.parse(frame)
    if not isinstance(found, Message):
        return Decoded(replies=(found,) if found else ())
    pager = line(found.pager)[:MAX_NAME]
    if options is None:
        return Decoded(address=pager, replies=(tap.TAKEN,))
    return Decoded((Signal(options, "", pager, detail=line(found.text)),), address=pager, replies=(tap.STORED,))


DRIVER = Streams(
    model="tap",
    title=Title(zh="TAP 寻呼协议的呼叫系统", en="call system that pages by TAP"),
    framer=tap.framer,
    options=options,
    decode=decode,
    address_of=address_of,
    line=LineSettings(baud=1200, bits=7, parity="E"),
    repeat_s=REPEAT_S,
    strangers=Strangers.RAISED,
    shows=tap.shows,
    may_call=True,
    vectors=(
        StreamVector(
            source="TAP specification 1.8: its example of a sum",
            frame=b"\x02123\rABC\r\x0317;\r",
            expect=Decoded(
                (Signal(SignalKind.CALL, "", "123", detail="ABC"),),
                address="123",
                replies=(Reply(b"\r\x06\r", when="committed"),),
            ),
        ),
        StreamVector(
            source="synthetic: the log-on of the specification",
            frame=b"\x1bPG1\r",
            expect=Decoded(replies=(Reply(b"\r\x06\r\x1b[p\r"),)),
        ),
        StreamVector(
            source="synthetic: a wrong sum",
            frame=b"\x02301\rHELP\r\x03000\r",
            expect=Reason.BAD_CHECK,
        ),
    ),
)

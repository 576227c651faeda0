"""M-Bus (EN 13757-2), the two-wire bus of European heat and water meters: its frames, and what may be sent to a meter.

A letter a byte:

    E5                              a meter has understood
    10 C A S 16                     short: from the master only
    68 L L 68 C A I D... S 16       long; L counts from C to the last D

    C   control: bit 6 from the master; 08, with bits 4 and 5 of a meter's own, is its answer
    A   primary address 1-250; 253 whoever is selected by its secondary address, 254 the only one
    I   what D is (`mbus_records`)
    S   sum from C to the last D, modulo 256

The start byte 68 is also that of DL/T 645 and CJ/T 188; here L follows twice, and 68 again.

What can be built: to reset a meter's link (40), to ask for its data (5B or 7B, turn about, so that it knows whether its last
answer arrived), and to select one by its secondary address (53 with 52). A reset of the link changes nothing a meter counts
or keeps. No function here takes a control code or data: setting an address, a speed or a clock cannot be written.

Limits: 261 bytes a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.checks import sum8
from drivers.kit.framing import LengthFramer
from drivers.protocols.meter_frame import see_whole

ACK: Final = 0xE5
SHORT: Final = 0x10
LONG: Final = 0x68
END: Final = 0x16
MAX_FRAME: Final = 261
SELECTED: Final = 253
ANYBODY: Final = 254
MAX_PRIMARY: Final = 250

_RESET, _REQUEST, _SELECT, _CI_SELECT = 0x40, 0x5B, 0x53, 0x52
_TURN: Final = 0x20
_FROM_MASTER, _ANSWER = 0x40, 0x08


def reset_request(address: int) -> bytes:
    """Build SND_NKE: the meter begins its turns anew; at 253 whoever is selected no longer is."""
    return _short(_RESET, address)


def data_request(address: int, *, turn: bool) -> bytes:
    """Build REQ_UD2. `turn` (FCB) changes with each new question; the same one repeats the answer before."""
    return _short(_REQUEST | (_TURN if turn else 0), address)


def select_request(secondary: str) -> bytes:
    """Build the selection of a meter by 16 hexadecimal digits: number 8, maker 4, version 2, medium 2; F fits any.

    The number is as printed; maker, version and medium are hexadecimal, as `mbus_records.Header.secondary` shows them.
    """
    number, maker, version, medium = secondary[:8], secondary[8:12], secondary[12:14], secondary[14:16]
    body = bytes([_SELECT, SELECTED, _CI_SELECT]) + bytes.fromhex(number)[::-1] + bytes.fromhex(maker)[::-1]
    body += bytes.fromhex(version + medium)
    return bytes([LONG, len(body), len(body), LONG]) + body + bytes([sum8(body), END])


def _short(control: int, address: int) -> bytes:
    body = bytes([control, address])
    return bytes([SHORT]) + body + bytes([sum8(body), END])


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole long frame. `information` is the byte that says what `data` is."""

    control: int
    address: int
    information: int
    data: bytes

    @property
    def is_answer(self) -> bool:
        """Is it a meter's data? False for what a master sends, and for its echo."""
        return not self.control & _FROM_MASTER and self.control & 0x0F == _ANSWER


def inspect(data: bytes, start: int) -> int | Reason | None:
    """Say what stands at a start byte, for LengthFramer."""
    if data[start] == ACK:
        return 1
    available = len(data) - start
    if data[start] == SHORT:
        if available < 5:
            return Reason.NOT_MINE if available == 4 and not _is_short(data, start) else None
        return 5 if data[start + 4] == END and _is_short(data, start) else Reason.NOT_MINE
    if available >= 3 and (data[start + 1] != data[start + 2] or data[start + 1] < 3):
        return Reason.NOT_MINE
    if available < 4:
        return None
    if data[start + 3] != LONG:
        return Reason.NOT_MINE
    size = data[start + 1] + 6
    if available < size:
        return None
    body = data[start + 4 : start + size - 2]
    return size if data[start + size - 1] == END and sum8(body) == data[start + size - 2] else Reason.BAD_CHECK


def _is_short(data: bytes, start: int) -> bool:
    return sum8(data[start + 1 : start + 3]) == data[start + 3]


def framer() -> LengthFramer:
    """Return a framer for either direction."""
    return LengthFramer(inspect, start=bytes([ACK, SHORT, LONG]), limit=MAX_FRAME)


def parse(frame: bytes) -> Frame:
    """Take one whole long frame apart. Raises Rejected."""
    see_whole(frame, inspect, least=9, name="long M-Bus")
    return Frame(frame[4], frame[5], frame[6], frame[7:-2])


def is_ack(frame: bytes) -> bool:
    """Say whether a frame is the single byte of a meter that has understood."""
    return frame == bytes([ACK])


def answers(frame: bytes, *, address: int) -> bool:
    """Say whether a whole frame is the answer to a data request: a meter's, and of this primary address where one was asked."""
    try:
        reply = parse(frame)
    except Rejected:
        return False
    return reply.is_answer and (address in (SELECTED, ANYBODY) or reply.address == address)

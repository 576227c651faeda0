r"""TAP 1.8 (Telocator Alphanumeric Protocol): how a call system hands messages to a paging terminal; we are the terminal.

A letter or a name is a byte, <CR> 0D:

    <CR>                              the other side begins: we ask ID=
    ESC PG1 [password] <CR>           it logs on:           <CR> ACK <CR> ESC [p <CR>
    STX P... <CR> T... <CR> ETX K K K <CR>     a message:   <CR> ACK <CR>, <CR> NAK <CR> (say it again), <CR> RS <CR> (give it up)
    EOT <CR>                          it logs off:          <CR> ESC EOT <CR>

    P  pager, T text (further fields belong to it); ETB or US instead of ETX: more of the message follows
    K  sum of the seven bits of every byte from STX to ETX, in three characters of four bits each, the highest first, 30 added

A block that was cut holds nobody up for long: three CR in a row within one end it, for they are somebody who begins anew.
Usual lines are 7E1: read with eight bits they show the parity as the highest bit, which is taken off.
Limits: 1,024 bytes a block, 64 a line. Source: TAP specification 1.8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected, Reply
from drivers.protocols.iso1745 import BlockFramer, Grammar

STX, ETX, EOT, ETB, CR, ESC, US = 0x02, 0x03, 0x04, 0x17, 0x0D, 0x1B, 0x1F
MAX_BLOCK: Final = 1024
MAX_LINE: Final = 64
ASK_ID: Final = Reply(b"ID=")
WELCOME: Final = Reply(b"\r\x06\r\x1b[p\r")
GOODBYE: Final = Reply(b"\r\x1b\x04\r")
SAY_AGAIN: Final = Reply(b"\r\x15\r")
GIVE_UP: Final = Reply(b"\r\x1e\r")
STORED: Final = Reply(b"\r\x06\r", when="committed")
TAKEN: Final = Reply(b"\r\x06\r")
_BEGIN: Final = re.compile(rb"[\x02\x82\r\x8d]")
_END: Final = re.compile(rb"[\x03\x17\x1f\x97\x9f\x02\x82\x04\x84]")
# Three empty fields in a row are none: somebody whose block was cut, or noise with an STX in it, begins anew and is not heard.
_BEGINS_ANEW: Final = re.compile(rb"[\r\x8d]{3}")
_CHECK: Final = 4


def _line_before(_buffer: bytes, at: int, end: int) -> int:
    return max(at, end - MAX_LINE)


_GRAMMAR: Final = Grammar(
    begins=_BEGIN, unit=_line_before, is_unit=(CR, CR | 0x80), ends=dict.fromkeys((STX, STX | 0x80), _END),
    closes=(ETX, ETB, ETB | 0x80, US, US | 0x80), check=_CHECK, anew=_BEGINS_ANEW,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """One block: whom it calls, and what it says."""

    pager: str
    text: str


def framer() -> BlockFramer:
    """Return a framer for the line: blocks, also those with a wrong check, and lines."""
    return BlockFramer(_GRAMMAR, limit=MAX_BLOCK)


def parse(frame: bytes) -> Message | Reply | None:
    """Take one whole frame apart: a message, or what a line is answered with (None: nothing). Raises Rejected."""
    plain = bytes(byte & 0x7F for byte in frame)
    if plain[:1] != bytes([STX]):
        if plain[-1:] != b"\r" or len(plain) > MAX_LINE:
            raise Rejected(Reason.NOT_MINE, "neither a block nor a line")
        return _line(plain[:-1])
    if len(plain) < 2 + _CHECK or plain[-1] != CR or plain[-_CHECK - 1] not in (ETX, ETB, US):
        raise Rejected(Reason.MALFORMED, "a block without its end", replies=(SAY_AGAIN,))
    # A system of eight bits may sum them all.
    if plain[-_CHECK:-1] not in (_check(plain[:-_CHECK]), _check(frame[:-_CHECK])):
        raise Rejected(Reason.BAD_CHECK, f"check {plain[-_CHECK:-1]!r}", replies=(SAY_AGAIN,))
    has_parity = all(byte.bit_count() % 2 == 0 for byte in frame)
    pager, *fields = (plain if has_parity else frame)[1 : -_CHECK - 1].decode("latin-1").split("\r")
    if not fields:  # the rest of a message whose first block named the pager
        return Message("", pager.strip())
    return Message(pager.strip(), " ".join(field.strip() for field in fields if field.strip()))


def shows(frame: bytes) -> bool:
    """Is a frame a block, a log-on, or the bare CR with which the other side begins? Any text may have lines."""
    found = parse(frame)
    return isinstance(found, Message) or found in (WELCOME, GOODBYE) or frame in (b"\r", b"\x8d")


def _line(text: bytes) -> Reply | None:
    text = text.lstrip(b"\n \x00")
    if not text:
        return ASK_ID
    if text.endswith(bytes([EOT])):
        return GOODBYE
    return WELCOME if text[:1] == bytes([ESC]) or text[:2] in (b"PG", b"ID") else None


def _check(data: bytes) -> bytes:
    total = sum(data) & 0xFFF
    return bytes(0x30 + (total >> shift & 15) for shift in (8, 4, 0))

r"""ESPA 4.4.4 (November 1984): how a nurse-call system hands its calls to paging equipment; ISO 1745 on the line.

A letter or a name is a byte; we are the paging system, asked and selected by the other side:

    EOT A ENQ                          the control station polls station A (3.1: a poll always follows an EOT)
    A ENQ                              whoever was polled selects A, to send it something (3.2)
    SOH H STX I US V RS I US V ETX B   a block (4.1)

    A  address of a station, one character; a call system is "1" and paging equipment "2" where two are connected (3.1)
    H  header: 1 call to pager, 2 status information, 3 status request, 4 call to a subscriber line, 5 anything (4.2)
    I  what a record is; V its value. They come in any order, some write spaces before I or a last RS before ETX (4.3)
    B  exclusive or of everything after SOH up to and including ETX; it may look like any control character

A station that is selected answers ACK, one that is polled and has nothing to send EOT, a block is answered ACK or NAK.
A line of 7E1 that is read with eight bits shows the parity as the highest bit: such frames (SOH is 81 then) are
understood, and answered likewise. A block that is interrupted by SOH, EOT or ENQ is void; what interrupts it by ENQ is not
answered, since an ACK to it might be taken for that of the block.

Limits: 1,024 bytes a block, 32 records, values of at most 200 characters. Sources: the proposal, annotated at
gscott.me.uk/ESPA.4.4.4; wiki.zenitel.com/wiki/ESPA_4.4.4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivers.kit import MAX_DETAIL, Reason, Rejected, Reply
from drivers.kit.checks import xor8
from drivers.protocols.iso1745 import BlockFramer, Grammar

SOH, STX, ETX, EOT, ENQ, ACK, NAK = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x15
RS, US = "\x1e", "\x1f"
MAX_BLOCK: Final = 1024
MAX_RECORDS: Final = 32
_SOH_WITH_PARITY: Final = 0x81
_BEGINNING: Final = re.compile(rb"[\x01\x81\x05]")
_END: Final = {SOH: re.compile(rb"[\x01\x03\x04\x05]"), _SOH_WITH_PARITY: re.compile(rb"[\x81\x03\x84\x05]")}
# What may stand before an ENQ: the EOT of a poll, and one address.
_BEFORE_ENQ: Final = re.compile(rb"[\x04\x84]?[\x20-\x7e\xa0-\xfe]?\Z")


def _inquiry(buffer: bytes, at: int, end: int) -> int:
    """Return where the EOT and the address begin that stand before an ENQ, `end` - 1 where there are none."""
    found = _BEFORE_ENQ.search(buffer[max(at, end - 3) : end - 1])
    return max(at, end - 3) + found.start() if found else end - 1


_GRAMMAR: Final = Grammar(
    begins=_BEGINNING, unit=_inquiry, is_unit=(ENQ,), ends=_END, closes=(ETX,), check=1, swallows=(ENQ,)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A poll, or a selection, of the station `address` ("" where none is named)."""

    address: str
    is_poll: bool


@dataclass(frozen=True, slots=True)
class Block:
    """One whole block whose check is right. `records` by their identifiers; of two equal ones the first with a value."""

    header: str
    records: Mapping[str, str]


def framer() -> BlockFramer:
    """Return a framer for the line: inquiries and blocks, also those with a wrong check."""
    return BlockFramer(_GRAMMAR, limit=MAX_BLOCK)


def parse(frame: bytes) -> Inquiry | Block:
    """Take one whole frame apart. Raises Rejected, with the NAK that a broken block is answered with."""
    plain = _plain(frame)
    if plain[-1:] == bytes([ENQ]) and plain[:1] != bytes([SOH]) and len(plain) <= 3:
        return Inquiry(plain[:-1].lstrip(b"\x04").decode("latin-1"), is_poll=plain[0] == EOT)
    if len(plain) < 4 or plain[0] != SOH:
        raise Rejected(Reason.NOT_MINE, "neither an inquiry nor a block")
    again = (answer(NAK, frame),)
    if plain[-2] != ETX:
        raise Rejected(Reason.MALFORMED, "a block without its end", replies=again)
    if xor8(plain[1:]):
        raise Rejected(Reason.BAD_CHECK, f"block check {plain[-1]:02x}", replies=again)
    header, separator, body = plain[1:-2].decode("latin-1").partition(chr(STX))
    if not separator:
        raise Rejected(Reason.MALFORMED, "a block without STX", replies=again)
    return Block(header.strip(), _records(body))


def answer(control: int, frame: bytes, *, when: str = "now") -> Reply:
    """Make the answer to a frame: one control character, with the parity bit where the frame has it."""
    has_parity = frame[:1] == bytes([_SOH_WITH_PARITY]) or _is_parity_inquiry(frame)
    return Reply(bytes([control | (0x80 if has_parity and control.bit_count() % 2 else 0)]), when=when)


def _records(body: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for record in body.split(RS)[:MAX_RECORDS]:
        name, _, value = record.partition(US)
        name, said = name.strip(), line(value)
        if name and not found.get(name):
            found[name] = said
    return found


def line(value: str) -> str:
    """Return a text as one printable line of at most `MAX_DETAIL` characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in value).split())[:MAX_DETAIL]


def _plain(frame: bytes) -> bytes:
    if frame[:1] == bytes([_SOH_WITH_PARITY]) or _is_parity_inquiry(frame):
        return bytes(byte & 0x7F for byte in frame)
    return frame


def _is_parity_inquiry(frame: bytes) -> bool:
    return len(frame) <= 3 and frame[-1:] == bytes([ENQ]) and any(byte >= 0x80 for byte in frame)

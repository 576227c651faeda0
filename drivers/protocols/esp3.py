"""EnOcean Serial Protocol 3: what a USB 300, TCM 310 or TCM 515 says of the telegrams that it hears.

Packet, a letter a byte; lengths are big-endian:

    55  LL O T H  D...  P...  C

    L  length of D, O of P;  T  packet type;  H  CRC8 of L, O and T
    D  data, P  optional data;  C  CRC8 of D and P

55 stands inside packets as well: a head whose check is wrong was none, and the search goes on at the next byte. A whole
packet inside what is still waited for ends the wait.

Data of a radio telegram (type 1): `R  V...  SSSS  X`: choice (RORG), 1 to 14 bytes, id of the sender, status. The optional
data (receiver, signal, security) are not read.

Limits: 512 bytes of data. This module builds one question (which version is the receiver). Source: EnOcean Serial Protocol 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.kit.checks import crc8
from drivers.kit.framing import LengthFramer, eager

SYNC: Final = 0x55
MAX_DATA: Final = 512
RADIO, RESPONSE, EVENT = 1, 2, 4
VERSION: Final = bytes.fromhex("5500010005700309")
_HEAD: Final = 6
_OVERHEAD: Final = _HEAD + 1
_MAX_PACKET: Final = _OVERHEAD + MAX_DATA + 255
_LEAST_TELEGRAM: Final = 7


@dataclass(frozen=True, slots=True)
class Packet:
    """One whole packet."""

    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Telegram:
    """One radio telegram. `sender` is 8 hexadecimal digits, upper case."""

    choice: int
    data: bytes
    sender: str
    status: int


def framer() -> LengthFramer:
    """Return a framer; a whole packet is never waited over."""
    return LengthFramer(eager(_inspect, start=SYNC), start=SYNC, limit=_MAX_PACKET)


def parse(packet: bytes) -> Packet:
    """Take one whole packet apart. Raises Rejected."""
    look = _inspect(packet, 0) if packet[:1] == bytes([SYNC]) else Reason.NOT_MINE
    if isinstance(look, Reason):
        raise Rejected(look, "no ESP3 packet")
    if look != len(packet):
        raise Rejected(Reason.TOO_SHORT if look is None else Reason.TOO_LONG, f"{len(packet)} bytes")
    return Packet(packet[4], packet[_HEAD : _HEAD + int.from_bytes(packet[1:3], "big")])


def telegram(packet: Packet) -> Telegram:
    """Take the radio telegram of a packet of type 1 apart. Raises Rejected."""
    data = packet.data
    if len(data) < _LEAST_TELEGRAM:
        raise Rejected(Reason.TOO_SHORT, f"a telegram of {len(data)} bytes")
    return Telegram(data[0], data[1:-5], data[-5:-1].hex().upper(), data[-1])


def _inspect(data: bytes, start: int) -> int | Reason | None:
    head = data[start : start + _HEAD]
    if len(head) < _HEAD:
        return None
    if crc8(head[1:5]) != head[5]:
        return Reason.NOT_MINE  # nearly always a 55 that is no start
    length = int.from_bytes(head[1:3], "big")
    if length > MAX_DATA:
        return Reason.TOO_LONG
    size = _OVERHEAD + length + head[3]
    if len(data) - start < size:
        return None
    return size if crc8(data[start + _HEAD : start + size - 1]) == data[start + size - 1] else Reason.BAD_CHECK

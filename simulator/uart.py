"""What one UART reads of what another one sends: bit by bit, so that speed, data bits and parity matter as on a wire.

A pty knows none of this. The model is Linux's at its default: a byte with a wrong parity or stop bit is read as 00, and the
receiver then waits for the line to rest.

Limit: of another speed nothing is modelled but that it is noise, as many bytes as were sent and always the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass

_IDLE_BITS = 16


@dataclass(frozen=True, slots=True)
class Framing:
    """How a UART is set. `parity`: "N", "E" or "O"."""

    baud: int = 9600
    bits: int = 8
    parity: str = "N"
    stop: int = 1

    @property
    def bits_a_byte(self) -> int:
        """Start bit, data, parity, stop bits."""
        return 1 + self.bits + (self.parity != "N") + self.stop


def arriving(data: bytes, *, sent: Framing, heard: Framing) -> bytes:
    """Return what a UART that is set as `heard` reads of bytes that leave another without a pause."""
    if sent.baud != heard.baud:
        return noise(data)
    if sent == heard:
        return data
    line = [bit for byte in data for bit in _sent(byte, sent)] + [1] * _IDLE_BITS
    read, at = bytearray(), 0
    last = len(line) - heard.bits_a_byte
    while at <= last:
        if line[at]:
            at += 1
            continue
        at, byte = _read(line, at + 1, heard)
        read.append(byte)
    return bytes(read)


def noise(data: bytes) -> bytes:
    """What a receiver at the wrong speed makes of bytes: as many others, always the same ones."""
    return bytes((byte * 37 + 0x5B) & 0xFF for byte in data)


def _sent(byte: int, framing: Framing) -> list[int]:
    data = [byte >> index & 1 for index in range(framing.bits)]
    parity = [] if framing.parity == "N" else [_parity(data, framing.parity)]
    return [0, *data, *parity, *[1] * framing.stop]


def _read(line: list[int], at: int, framing: Framing) -> tuple[int, int]:
    """Read the byte whose data begin at `at`; return where the line is looked at next, and what is read."""
    data = line[at : at + framing.bits]
    at += framing.bits
    is_well = True
    if framing.parity != "N":
        is_well = line[at] == _parity(data, framing.parity)
        at += 1
    if not line[at]:
        while at < len(line) and not line[at]:
            at += 1
        return at, 0
    return at + 1, sum(bit << index for index, bit in enumerate(data)) if is_well else 0


def _parity(data: list[int], kind: str) -> int:
    return (sum(data) + (kind == "O")) & 1

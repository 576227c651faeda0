r"""Receivers on a serial cable, and what they pass on: EnOcean telegrams, 433-MHz codes, what rtl_433 and Ingics' gateways write.

    55 LLLL O T H  D... P...  C            ESP3: lengths, type, CRC8 of these four; data, optional data, CRC8 of both
    FD CC CC CC O DF                       a decoder board: id and key, the oscillator
    AA A4 SSSS LLLL HHHH CCCCCC 55         Sonoff RF Bridge: three times, id and key
    AA B1 N  N x TTTT  Y...  55            the same, raw: N times, two symbols a byte
    {"model": ..., "id": ...}\n            rtl_433
    $GPRP,SENDER,GATEWAY,-60,ADVERT\r\n    Ingics iGS
    F4F3F2F1 LLLL 02 AA S ... 55 00 F8F7F6F5        LD2410: who is there
    AAFF0300 3 x (XXYYVVRR) 55CC           LD2450: where three targets are
    55 LLLL F A B D... CCCC                MR24FDB1: CRC16 of Modbus

The bytes are made here, not by `drivers`: with one encoder at both ends, both would share one error. The tests compare them
with what others published.

`say` puts one message on the wire, `times` over, `REPEAT_S` apart: a remote repeats its code while it is held, a repeater its
telegram, a radar its state. An ESP3 stick answers the question for its version; a Sonoff bridge holds the next code back until
it got AA A0 55, or for `PATIENCE_S`. Limits: 64 bytes of half a question are kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from simulator.pty_port import PtyPort

REPEAT_S: Final = 0.1
PATIENCE_S: Final = 1.0
MAX_HELD: Final = 64
# What a gateway asks an ESP3 receiver (CO_RD_VERSION), and what a USB 300 answered in kipe/enocean's tests.
ESP3_QUESTION: Final = bytes.fromhex("5500010005700309")
ESP3_ANSWER: Final = bytes.fromhex("5500050002ce00ff800000da")
SONOFF_GOT_IT: Final = bytes.fromhex("aaa055")


def crc8(data: bytes) -> int:
    """Return the CRC8 of ESP3: polynomial 07, beginning with 0."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1) ^ (0x107 if value & 0x80 else 0)
    return value & 0xFF


def crc16(data: bytes) -> int:
    """Return the CRC16 of Modbus: polynomial A001 reflected, beginning with FFFF."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0xA001 if value & 1 else 0)
    return value


def esp3(choice: int, data: bytes, *, sender: str, status: int) -> bytes:
    """Return the packet of a radio telegram: choice (RORG), data, sender (8 digits), status; received at -55 dBm."""
    telegram = bytes([choice]) + data + bytes.fromhex(sender) + bytes([status])
    optional = bytes.fromhex("01ffffffff3700")
    head = len(telegram).to_bytes(2, "big") + bytes([len(optional), 1])
    return b"\x55" + head + bytes([crc8(head)]) + telegram + optional + bytes([crc8(telegram + optional)])


def rocker(sender: str, *, pressed: bool) -> bytes:
    """Return what a rocker (F6-02) says: key BI down, or let go."""
    return esp3(0xF6, b"\x50" if pressed else b"\x00", sender=sender, status=0x30 if pressed else 0x20)


def board(code: str) -> bytes:
    """Return the frame of a decoder board; `code` is id and key, six digits."""
    return b"\xfd" + bytes.fromhex(code) + b"\x5a\xdf"


def sonoff(code: str) -> bytes:
    """Return the frame of a Sonoff RF Bridge."""
    return bytes.fromhex("aaa4" + "2828" + "0154" + "03fc" + code + "55")


def sonoff_raw(code: str) -> bytes:
    """Return the same code as a raw reception: the pause between two repeats, then a pulse and a pause for each bit."""
    times = (0x0154, 0x03FC, 0x2828)
    bits = f"{int(code, 16):0{4 * len(code)}b}"
    symbols = "02" + "".join("10" if bit == "1" else "01" for bit in bits)
    return bytes.fromhex("aab103" + "".join(f"{time:04x}" for time in times) + symbols + "55")


def rtl433(**fields: object) -> bytes:
    """Return a line of rtl_433."""
    return json.dumps({"time": "2026-03-01 08:00:00", **fields}).encode() + b"\n"


def ingics_line(sender: str, company: int, data: bytes) -> bytes:
    """Return the line of an Ingics gateway that heard an advert with manufacturer data."""
    structure = company.to_bytes(2, "little") + data
    advert = bytes.fromhex("020106") + bytes([len(structure) + 1, 0xFF]) + structure
    return f"$GPRP,{sender},CAEE00112233,-60,{advert.hex().upper()}\r\n".encode()


def ld2410(state: int, *, still_cm: int = 0) -> bytes:
    """Return a report of an LD2410: 0 nobody, 1 somebody moves, 2 is still, 3 both."""
    content = (
        bytes((2, 0xAA, state)) + bytes(3) + still_cm.to_bytes(2, "little") + bytes((0x64,)) + bytes(2) + b"\x55\x00"
    )
    return bytes.fromhex("f4f3f2f1") + len(content).to_bytes(2, "little") + content + bytes.fromhex("f8f7f6f5")


def ld2450(*targets: tuple[int, int]) -> bytes:
    """Return a report of an LD2450: (x, y) of up to three targets in mm; the highest bit of a number means positive."""
    found = b"".join(_signed(x) + _signed(y) + _signed(-16) + (320).to_bytes(2, "little") for x, y in targets)
    return bytes.fromhex("aaff0300") + found.ljust(24, b"\0") + bytes.fromhex("55cc")


def _signed(value: int) -> bytes:
    return (value | 0x8000 if value > 0 else -value).to_bytes(2, "little")


def mr24(function: int, address: bytes, data: bytes) -> bytes:
    """Return a frame of an MR24FDB1. Its length counts what stands behind the 55."""
    content = bytes([function]) + address + data
    frame = b"\x55" + (len(content) + 4).to_bytes(2, "little") + content
    return frame + crc16(frame).to_bytes(2, "little")


def mr24_fall(*, fallen: bool) -> bytes:
    """Return what an MR24FDB1 says of falls."""
    return mr24(6, b"\x01\x01", b"\x01" if fallen else b"\x02")


class Receiver:
    """One receiver on a pty with the name `path`. `answered`: questions of the gateway; `acknowledged`: codes that it took."""

    def __init__(self, *, path: Path, baud: int, is_sonoff: bool = False) -> None:
        """Prepare a receiver; `port` can be unplugged and plugged."""
        self.port = PtyPort(path=path, baud=baud, on_data=self._heard)
        self.answered = self.acknowledged = 0
        self._is_sonoff = is_sonoff
        self._got_it = asyncio.Event()
        self._held = b""
        self._answers: set[asyncio.Task[bool]] = set()

    async def run(self) -> None:
        """Move bytes until cancelled."""
        try:
            await self.port.run()
        finally:
            for answer in list(self._answers):
                answer.cancel()

    async def say(self, message: bytes, *, times: int = 3) -> bool:
        """Put a message on the wire; tell whether one of them went whole to a holder."""
        went = False
        for turn in range(times):
            if turn:
                await asyncio.sleep(REPEAT_S)
            self._got_it.clear()
            went = await self.port.send(message) or went
            if self._is_sonoff:
                await self._until_taken()
        return went

    async def say_all(self, messages: Sequence[bytes]) -> None:
        """Put several messages on the wire, one after the other, each a few times."""
        for message in messages:
            await self.say(message)

    async def _until_taken(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._got_it.wait()
        except TimeoutError:
            return

    def _heard(self, data: bytes) -> None:
        self._held = (self._held + data)[-MAX_HELD:]
        while (at := self._held.find(ESP3_QUESTION)) >= 0:
            self._held = self._held[at + len(ESP3_QUESTION) :]
            self.answered += 1
            task = asyncio.create_task(self.port.send(ESP3_ANSWER), name="answer of an ESP3 stick")
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
        while (at := self._held.find(SONOFF_GOT_IT)) >= 0:
            self._held = self._held[at + len(SONOFF_GOT_IT) :]
            self.acknowledged += 1
            self._got_it.set()

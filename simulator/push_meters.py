"""Electricity meters that speak by themselves: one with a P1 port, encrypted where it has a key, and a German one with SML.

A telegram every `EVERY_S`. The frames are built here, not by `drivers`: with one encoder at both ends, both would share one
error. What flows is what a `meters.Meter` counts.

Limits: nothing that is sent to them is heard.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

from simulator.meters import Meter, Value
from simulator.pty_port import PtyPort

EVERY_S: Final = 1.0
P1_BAUD: Final = 115_200
SML_BAUD: Final = 9_600
_WINTER: Final = timezone(timedelta(hours=1))
_TITLE: Final = b"SIMGATE1"
_AUTHENTICATION_KEY: Final = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
_ADDRESS: Final = "000000000000"
_PHASES: Final = {"A": 20, "B": 40, "C": 60}

Record = Callable[[Mapping[str, Any]], None]


def _reflected(data: bytes, crc: int, polynomial: int) -> int:
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ polynomial if crc & 1 else crc >> 1
    return crc


def p1_telegram(values: tuple[Value, ...], *, now: float) -> bytes:
    """Build a telegram of DSMR 5."""
    local = datetime.fromtimestamp(int(now), tz=_WINTER)
    lines = ["/SIM5GATEWAY", "", "1-3:0.2.8(50)", f"0-0:1.0.0({local.strftime('%y%m%d%H%M%S')}W)"]
    body = "\r\n".join([*lines, *map(_line, values), "!"]).encode()
    return body + f"{_reflected(body, 0, 0xA001):04X}\r\n".encode()


def _line(value: Value) -> str:
    phase = _PHASES.get(value.channel[:1], 0)
    code, unit = {
        "energy_active_import": (f"1-0:1.8.{value.channel[1:] or 0}", "kWh"),
        "power_active": (f"1-0:{1 + phase}.7.0", "kW"),
        "voltage": (f"1-0:{12 + phase}.7.0", "V"),
        "current": (f"1-0:{11 + phase}.7.0", "A"),
    }[value.quantity]
    return f"{code}({value.text()}*{unit})"


def sealed(plain: bytes, key: bytes, *, counter: int) -> bytes:
    """Wrap a telegram as Luxembourg's meters do."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import GCM

    frame_counter = counter.to_bytes(4, "big")
    encryptor = Cipher(AES(key), GCM(_TITLE + frame_counter)).encryptor()
    encryptor.authenticate_additional_data(b"\x30" + _AUTHENTICATION_KEY)
    content = b"\x30" + frame_counter + encryptor.update(plain) + encryptor.finalize() + encryptor.tag[:12]
    return b"\xdb\x08" + _TITLE + b"\x82" + len(content).to_bytes(2, "big") + content


def sml_telegram(values: tuple[Value, ...]) -> bytes:
    """Build a telegram of SML 1.04: an opening, the values, a closing."""
    entries = b"".join(_entry(value) for value in values)
    server = b"\x0b\x0a\x01SIM\x00\x00\x00\x00\x01"
    listed = b"\x77\x01" + server + b"\x01\x01" + bytes([0x70 | len(values)]) + entries + b"\x01\x01"
    parts = (
        b"\x63\x01\x01\x76\x01\x01\x02\x31" + server + b"\x01\x01",
        b"\x63\x07\x01" + listed,
        b"\x63\x02\x01\x71\x01",
    )
    content = b""
    for number, part in enumerate(parts):
        message = b"\x76\x05\x00\x00\x00" + bytes([number + 1]) + b"\x62\x00\x62\x00\x72" + part
        content += message + b"\x63" + _x25(message) + b"\x00"
    padding = -len(content) % 4
    escape = b"\x1b" * 4
    # What looks like an escape in the data is sent twice.
    whole = (
        escape + b"\x01" * 4 + content.replace(escape, escape * 2) + bytes(padding) + escape + bytes([0x1A, padding])
    )
    return whole + _x25(whole)


def _x25(data: bytes) -> bytes:
    return (_reflected(data, 0xFFFF, 0x8408) ^ 0xFFFF).to_bytes(2, "little")


def _entry(value: Value) -> bytes:
    phase = _PHASES.get(value.channel[:1], 0)
    code, unit, scaler = {
        "energy_active_import": ((1, 8, int(value.channel[1:] or 0)), 30, 3 - value.decimals),
        "power_active": ((16 + phase, 7, 0), 27, 3 - value.decimals),
        "voltage": ((12 + phase, 7, 0), 35, -value.decimals),
        "current": ((11 + phase, 7, 0), 33, -value.decimals),
    }[value.quantity]
    number = b"\x59" + (value.number or 0).to_bytes(8, "big", signed=True)
    head = b"\x77\x07\x01\x00" + bytes(code) + b"\xff\x01\x01\x62" + bytes([unit, 0x52])
    return head + scaler.to_bytes(1, "big", signed=True) + number + b"\x01"


class PushMeter(Meter):
    """One meter on a port of its own. `key`: it encrypts (P1 only)."""

    def __init__(self, *, path: Path, record: Record, model: str, key: bytes | None = None, **options: Any) -> None:
        """Make a meter with the options of `Meter`. ValueError for a model that pushes nothing."""
        if model not in ("p1-port", "sml-meter"):
            raise ValueError(f"{model} pushes nothing")
        super().__init__(address=_ADDRESS, **options)
        self._is_p1 = model == "p1-port"
        self._record = record
        self._key = key
        self.port = PtyPort(path=path, baud=P1_BAUD if self._is_p1 else SML_BAUD, on_data=lambda _data: None)

    def telegram(self, now: float) -> tuple[bytes, tuple[Value, ...]]:
        """Return what it says at `now` (seconds since 1970), and the registers in it."""
        self._advance(int(now))
        # A P1 port has energies by tariff only.
        energies = self._imports()[1:] if self._is_p1 else self._imports()
        groups = (energies, self._powers(), self._voltages()[1:], self._currents()[1:])
        values = tuple(value for group in groups for value in group if value.number is not None)
        if not self._is_p1:
            return sml_telegram(values), values
        plain = p1_telegram(values, now=now)
        return plain if self._key is None else sealed(plain, self._key, counter=self.replies + 1), values

    async def run(self) -> None:
        """Speak until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.port.run())
            while True:
                await asyncio.sleep(EVERY_S)
                if not self.quirks.silent:
                    await self._speak()

    async def _speak(self) -> None:
        now = time.time()
        telegram, values = self.telegram(now)
        if not await self.port.send(telegram):
            return
        self.replies += 1
        for value in values:
            row = {"t": now, "t_last": time.time(), "device": self.device, "kind": "push", "counter": self.replies}
            told = {"quantity": value.quantity, "channel": value.channel, "value": value.text()}
            self._record({**row, "n": None, "session": None, "value": told})

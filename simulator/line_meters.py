"""Meters of other kinds on the same bus: water over CJ/T 188, heat over M-Bus, electricity over Modbus RTU (an Eastron SDM630).

The frames are built here, not by `drivers`: with one encoder at both ends, both would share one error. The tests compare them
with frames that others published, or with those worked out by hand.

A meter's state is a function of seed, device id and time alone: what a `meters.Meter` counts in watt seconds makes its litres
and its heat. Limits: 512 bytes of a request are held; an M-Bus meter answers in one telegram.
"""

from __future__ import annotations

import struct
import zlib
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from simulator.meters import ANY, MAX_HELD, Answer, Meter, Request, RequestReader, Value
from simulator.meters_698 import Reader698

CJT188, MBUS, MODBUS = "188", "m-bus", "modbus"
_CHINA: Final = timezone(timedelta(hours=8))
_DUMMY: Final = "000000000000"
_ACK: Final = b"\xe5"
_SELECTED, _ANYBODY = 253, 254


class _Reader:
    """Finds requests whose first byte, length and check are a protocol's own. Half a frame is kept, up to 512 bytes."""

    protocol = ""

    def __init__(self) -> None:
        """Hold nothing."""
        self._held = b""

    def forget(self) -> None:
        """Drop half a frame: the master paused."""
        self._held = b""

    def feed(self, data: bytes) -> list[Request]:
        """Take bytes in any cut, return the whole requests."""
        held = (self._held + data)[-MAX_HELD:]
        found: list[Request] = []
        at = 0
        while at < len(held):
            size = self.size(held[at:])
            if size is None:
                break
            if size:
                found.append(self.request(held[at : at + size]))
            at += size or 1
        self._held = held[at:]
        return found

    def size(self, held: bytes) -> int | None:
        """Return how long the request is that stands at the front, 0 for none, None where more bytes are needed."""
        raise NotImplementedError

    def request(self, frame: bytes) -> Request:
        """Take a whole request apart."""
        raise NotImplementedError


class ReaderCjt188(_Reader):
    """68 T A7 C L D... S 16 of a master."""

    def size(self, held: bytes) -> int | None:
        """See `_Reader`."""
        if held[0] != 0x68:
            return 0
        if len(held) < 11:
            return None
        size = 13 + held[10]
        if held[9] & 0x80 or held[10] > 20:
            return 0
        if len(held) < size:
            return None
        return size if held[size - 1] == 0x16 and sum(held[: size - 2]) & 0xFF == held[size - 2] else 0

    def request(self, frame: bytes) -> Request:
        """Address in wire order, behind the type."""
        return Request(frame[1:9], frame[9], frame[11:-2], CJT188)


class ReaderMbus(_Reader):
    """10 C A S 16, and the selection 68 0B 0B 68 53 FD 52 ... S 16."""

    def size(self, held: bytes) -> int | None:
        """See `_Reader`."""
        if held[0] == 0x10:
            if len(held) < 5:
                return None
            return 5 if held[4] == 0x16 and sum(held[1:3]) & 0xFF == held[3] else 0
        if held[0] != 0x68:
            return 0
        if len(held) < 17:
            return None if held[1:4] == b"\x0b\x0b\x68"[: len(held) - 1] or len(held) == 1 else 0
        is_selection = held[1:4] == b"\x0b\x0b\x68" and held[16] == 0x16 and sum(held[4:15]) & 0xFF == held[15]
        return 17 if is_selection else 0

    def request(self, frame: bytes) -> Request:
        """What a selection asks for is the data of its request."""
        if frame[0] == 0x10:
            return Request(frame[2:3], frame[1], b"", MBUS)
        return Request(frame[5:6], frame[4], frame[7:15], MBUS)


class ReaderModbus(_Reader):
    """U F AAAA NNNN and its CRC, for the functions 03 and 04."""

    def size(self, held: bytes) -> int | None:
        """See `_Reader`."""
        if not 1 <= held[0] <= 247 or (len(held) > 1 and held[1] not in (3, 4)):
            return 0
        if len(held) < 8:
            return None
        return 8 if crc16(held[:8]) == b"\0\0" else 0

    def request(self, frame: bytes) -> Request:
        """The data are first register and count."""
        return Request(frame[:1], frame[1], frame[2:6], MODBUS)


def crc16(data: bytes) -> bytes:
    """Return CRC-16/MODBUS, low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc.to_bytes(2, "little")


def _long(body: bytes) -> bytes:
    return bytes([0x68, len(body), len(body), 0x68]) + body + bytes([sum(body) & 0xFF, 0x16])


class LineReader:
    """Finds the requests of every protocol that the meters of a line speak."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._readers = (RequestReader(), Reader698(), ReaderCjt188(), ReaderMbus(), ReaderModbus())

    def forget(self) -> None:
        """Drop half a frame: the master paused."""
        for reader in self._readers:
            reader.forget()

    def feed(self, data: bytes) -> list[Request]:
        """Take bytes in any cut, return the whole requests."""
        return [request for reader in self._readers for request in reader.feed(data)]


class WaterMeter(Meter):
    """A cold water meter: 14 digits. With the quirk `spare` it knows the identifier as 1F 90 only."""

    def __init__(self, *, address: str, **options: Any) -> None:
        """Make a meter with the options of `Meter`. ValueError for an address that is not 14 digits."""
        if len(address) != 14 or not address.isdigit():
            raise ValueError(f"meter {options['device']}: address = {address!r}: expected 14 digits")
        super().__init__(address=_DUMMY, **options)
        self.address = b"\x10" + bytes.fromhex(address)[::-1]

    def answer(self, request: Request, *, now: float) -> Answer | None:
        """Return the reply to a request at `now` (seconds since 1970), None when it is not for this meter."""
        fits = request.protocol == CJT188 and all(
            one in (own, ANY) for one, own in zip(request.address, self.address, strict=True)
        )
        if not fits or request.control != 0x01 or len(request.data) != 3:
            return None
        order = request.data[:2]
        if order not in (b"\x90\x1f", b"\x1f\x90") or (self.quirks.spare and order == b"\x90\x1f"):
            return None
        self._advance(int(now))
        litres = sum(self._energy) // 360_000
        values = (
            Value("volume_water", "", litres // 10 % 10**8, 4, 2),
            Value("volume_water", "S1", litres // 20 % 10**8, 4, 2),
        )
        local = datetime.fromtimestamp(int(now), tz=_CHINA)
        clock = bytes.fromhex(local.strftime("%Y%m%d%H%M%S"))[::-1]
        data = request.data + b"".join(value.encoded() + b"\x2c" for value in values) + clock + b"\0\0"
        body = b"\x68" + self.address + bytes([0x81, len(data)]) + data
        return Answer(body + bytes([sum(body) & 0xFF, 0x16]), data, values)


class HeatMeter(Meter):
    """A heat meter on an M-Bus, by its primary address, 1 to 250, or by its number, 8 digits: then it has no primary address."""

    def __init__(self, *, address: str, **options: Any) -> None:
        """Make a meter with the options of `Meter`. ValueError for an address of another form."""
        is_number = len(address) == 8
        if not address.isdigit() or not (is_number or 1 <= int(address) <= 250):
            raise ValueError(f"meter {options['device']}: address = {address!r}: expected 1 to 250, or 8 digits")
        super().__init__(address=_DUMMY, **options)
        self.preamble = b""
        self._primary = 0 if is_number else int(address)
        number = address if is_number else f"{self.random.randrange(10**8):08d}"
        # Number, maker "SIM", version 1, medium 4 (heat).
        self._secondary = bytes.fromhex(number)[::-1] + b"\x2d\x4d\x01\x04"
        self._is_selected = False

    def answer(self, request: Request, *, now: float) -> Answer | None:
        """Return the reply to a request at `now` (seconds since 1970), None when it is not for this meter."""
        if request.protocol != MBUS:
            return None
        if request.control == 0x53:
            self._is_selected = self._fits(request.data)
            return Answer(_ACK, b"") if self._is_selected else None
        (asked,) = request.address
        is_mine = asked in (self._primary, _ANYBODY) or (asked == _SELECTED and self._is_selected)
        if request.control == 0x40:
            if asked == _SELECTED:
                self._is_selected = False
            return Answer(_ACK, b"") if is_mine else None
        return self._data(now) if is_mine and request.control in (0x5B, 0x7B) else None

    def _fits(self, asked: bytes) -> bool:
        digits = zip(asked.hex(), self._secondary.hex(), strict=True)
        return all(one in ("f", own) for one, own in digits)

    def _data(self, now: float) -> Answer:
        self._advance(int(now))
        watt_seconds = sum(self._energy)
        values = (
            Value("energy_heat", "", watt_seconds // 3_600_000 % 10**8, 4, 0),
            Value("volume_heating", "", watt_seconds // 90_000 % 10**8, 4, 3),
            Value("temperature", "supply", 652, 2, 1),
            Value("temperature", "return", 418, 2, 1),
        )
        local = datetime.fromtimestamp(int(now), tz=_CHINA)
        year = local.year - 2000
        clock = bytes([local.minute, local.hour, local.day | (year & 7) << 5, local.month | (year >> 3) << 4])
        heads = (b"\x0c\x06", b"\x0c\x13", b"\x0a\x5a", b"\x0a\x5e")
        records = b"".join(head + value.encoded() for head, value in zip(heads, values, strict=True))
        header = self._secondary + bytes([self.replies & 0xFF, 0, 0, 0])
        body = bytes([0x08, self._primary, 0x72]) + header + records + b"\x04\x6d" + clock
        return Answer(_long(body), body, values)


class ModbusMeter(Meter):
    """An Eastron SDM630: its unit, 1 to 247, and a number of its own. It refuses what it does not have with exception 2."""

    _function = 4
    _blocks: tuple[range, ...] = (range(0x5A), range(0x156, 0x17E))
    # Function, first register and how many: what a meter is asked for its number with.
    _asked_for_number: bytes = b"\x03\xfc\x00\x00\x02"

    def __init__(self, *, address: str, **options: Any) -> None:
        """Make a meter with the options of `Meter`. ValueError for a unit out of bounds."""
        if not address.isdigit() or not 1 <= int(address) <= 247:
            raise ValueError(f"meter {options['device']}: address = {address!r}: expected a unit from 1 to 247")
        super().__init__(address=_DUMMY, **options)
        self.preamble = b""
        self._unit = int(address)
        self.number = 20_000_000 + zlib.crc32(self._salt.encode()) % 1_000_000

    def answer(self, request: Request, *, now: float) -> Answer | None:
        """Return the reply to a request at `now` (seconds since 1970), None when it is not for this meter."""
        if request.protocol != MODBUS or request.address[0] != self._unit:
            return None
        self._advance(int(now))
        if bytes([request.control]) + request.data[:4] == self._asked_for_number:
            body = bytes([self._unit, request.control, 4]) + self.number.to_bytes(4, "big")
            return Answer(body + crc16(body), body)
        shown = self._shown()
        first, count = (int.from_bytes(request.data[at : at + 2], "big") for at in (0, 2))
        has_all = all(any(one in block for block in self._blocks) for one in range(first, first + count))
        if request.control != self._function or not count or not has_all:
            body = bytes([self._unit, request.control | 0x80, 2])
            return Answer(body + crc16(body), body)
        registers = b""
        for register in range(first, first + count):
            value, factor = shown.get(register & ~1, (None, 1.0))
            number = 0.0 if value is None else (value.number or 0) / 10**value.decimals * factor
            registers += struct.pack(">f", number)[2 * (register & 1) :][:2]
        body = bytes([self._unit, self._function, len(registers)]) + registers
        told = tuple(value for register, (value, _) in shown.items() if first <= register < first + count and value)
        return Answer(body + crc16(body), body, told)

    def _shown(self) -> dict[int, tuple[Value | None, float]]:
        """Return what stands at each register, and what the meter multiplies it by (watts for kilowatts)."""
        shown: dict[int, tuple[Value | None, float]] = {}
        for first, values, factor in (
            (0x00, self._voltages()[1:], 1.0),
            (0x06, self._currents()[1:], 1.0),
            (0x0C, self._powers()[1:], 1000.0),
        ):
            for step, value in enumerate(values):
                shown[first + 2 * step] = (value if value.number is not None else None, factor)
        total, hertz = self._imports()[0], self._frequencies()[0]
        shown[0x34] = (self._powers()[0], 1000.0)
        shown[0x46], shown[0x48] = (hertz, 1.0), (total, 1.0)
        shown[0x156] = (Value("energy_active_combined", "", total.number, 4, 2), 1.0)
        return shown


class ChintMeter(ModbusMeter):
    """A Chint DDSU666, single phase, whose floats stand among the holding registers. Its unit: see `ModbusMeter`."""

    _function = 3
    _asked_for_number = b""
    _blocks = (range(0x2000, 0x2020), range(0x4000, 0x4010))

    def __init__(self, **options: Any) -> None:
        """Make a meter with the options of `Meter`, of one phase."""
        super().__init__(**{**options, "phases": 1})

    def _shown(self) -> dict[int, tuple[Value | None, float]]:
        """See `ModbusMeter`; this one speaks of kilowatts."""
        total = self._imports()[0]
        return {
            0x2000: (self._voltages()[1], 1.0),
            0x2002: (self._currents()[1], 1.0),
            0x2004: (self._powers()[1], 1.0),
            0x200A: (Value("power_factor", "A", 1000, 2, 3), 1.0),
            0x200E: (self._frequencies()[0], 1.0),
            0x4000: (total, 1.0),
            0x400A: (Value("energy_active_export", "", 0, 4, 2), 1.0),
        }

"""DL/T 645-2007 electricity meters, as they behave on an RS-485 bus: registers that grow, replies, and their quirks.

The frames are built here, not by `drivers`: with one encoder at both ends, both would share one error. The tests
compare them with frames that others published.

A meter's state is a function of seed, device id and time alone. Limits: a reply delay of 20 to 60 ms (the standard
allows 20 to 500); energy is counted in whole watt-seconds, a register in 0.01 kWh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Final
from zlib import crc32

OFFSET: Final = 0x33
READ: Final = 0x11
READ_NEXT: Final = 0x12
READ_ADDRESS: Final = 0x13
FROM_METER: Final = 0x80
REFUSED: Final = 0x40
MORE: Final = 0x20
PART_BYTES: Final = 8
NO_SUCH_DATA: Final = 0x02
ANY: Final = 0xAA
MAX_HELD: Final = 512
DELAY_S: Final = (0.020, 0.060)
# Which tariff an hour of the day belongs to in China (UTC+8): 1 sharp, 2 peak, 3 flat, 4 valley.
TARIFF_OF_HOUR: Final = "444444432223333333211234"
_UTC_PLUS_8_S: Final = 8 * 3600
_WATT_SECONDS_PER_COUNT: Final = 36_000  # 0.01 kWh
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Request:
    """What a master asks. `address` in wire order, `data` without the offset."""

    address: bytes
    control: int
    data: bytes
    protocol: str = "645"


@dataclass(frozen=True, slots=True)
class Value:
    """One register in a reply: `number` counts units of its last decimal, None where the meter has no such value."""

    quantity: str
    channel: str
    number: int | None
    size: int
    decimals: int

    def text(self) -> str:
        """Return the value as a meter shows it: every decimal, no exponent."""
        if not self.decimals:
            return str(self.number or 0)
        whole, part = divmod(self.number or 0, 10**self.decimals)
        return f"{whole}.{part:0{self.decimals}d}"

    def encoded(self) -> bytes:
        """Return packed digits, low byte first; FF where there is no value."""
        if self.number is None:
            return b"\xff" * self.size
        return bytes.fromhex(f"{self.number:0{2 * self.size}d}")[::-1]


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply: the bytes from the first 68 to 16, its data without the offset, and the registers that it carries."""

    frame: bytes
    data: bytes
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Quirks:
    """What can be wrong with a meter or its wires.

    `stray` puts 00 and FF around each reply; `late_s` comes on top of the reply delay; `foreign` sends another meter's
    reply first; `answers` is the share of requests that it answers at all; `spare` ends the blocks of a 1997 meter with
    zeros for tariffs that it does not have. `split` gives what is longer than 8 bytes in several frames; `no_blocks` refuses
    blocks (a 698.45 meter: lists); `mute` is silent to what it does not know, instead of refusing it; `zeros` fills phases that
    it does not have with zeros instead of FF; `damaged` has a nibble above 9 in each second voltage; `nameless` answers a
    wildcard with the wildcard; `status` are the bits that are set in its seven status words. `garbled` is the share of its
    replies in which a byte arrives as another one (what a UART makes of a wrong parity bit, or of a power cable beside the bus);
    `jabbers` says its last reply again and again without being asked, as a meter with water in it does.
    """

    silent: bool = False
    stray: bool = False
    late_s: float = 0.0
    foreign: bool = False
    answers: float = 1.0
    spare: bool = False
    split: bool = False
    no_blocks: bool = False
    mute: bool = False
    zeros: bool = False
    damaged: bool = False
    nameless: bool = False
    status: Sequence[int] = (0,) * 7
    garbled: float = 0.0
    jabbers: bool = False


class Records:
    """What a meter keeps beside its registers: its name and clock, its status, and the energies of past midnights.

    Limit: 62 midnights; the three before `start` are reckoned from the mean load.
    """

    def __init__(self, address: bytes, status: Sequence[int], energy: list[int], *, watts: int, start: int) -> None:
        """Reckon what was before `start`."""
        self._address = address
        self._status = b"".join((word & 0xFFFF).to_bytes(2, "little") for word in status)
        self._midnights: list[tuple[int, list[int]]] = []
        midnight = (start + _UTC_PLUS_8_S) // _DAY_S * _DAY_S - _UTC_PLUS_8_S
        past, at = list(energy), start
        while len(self._midnights) < 3:
            hour = (at - 1 + _UTC_PLUS_8_S) // 3600 * 3600 - _UTC_PLUS_8_S
            past[int(TARIFF_OF_HOUR[(hour + _UTC_PLUS_8_S) // 3600 % 24]) - 1] -= watts * (at - hour)
            at = hour
            if at == midnight:
                self._midnights.insert(0, (at, list(past)))
                midnight -= _DAY_S

    def freeze(self, midnight: int, energy: list[int]) -> None:
        """Keep the energies of a midnight."""
        self._midnights = [*self._midnights, (midnight, list(energy))][-62:]

    def frozen(self, identifier: int) -> tuple[Value, ...] | None:
        """Return the energies of a past midnight: 05060101 is the last."""
        back = identifier & 0xFF
        if identifier >> 8 != 0x050601 or not 1 <= back <= len(self._midnights):
            return None
        counts = [one // _WATT_SECONDS_PER_COUNT for one in self._midnights[-back][1]]
        pairs = zip(("", "T1/", "T2/", "T3/", "T4/"), (sum(counts), *counts), strict=True)
        return tuple(Value("energy_active_import", f"{tariff}D{back}", count, 4, 2) for tariff, count in pairs)

    def data(self, identifier: int, *, now: float) -> bytes | None:
        """Return what stands under an identifier that is no register; None where there is nothing."""
        local = datetime.fromtimestamp(int(now), tz=timezone(timedelta(seconds=_UTC_PLUS_8_S)))
        back = identifier & 0xFF
        if identifier >> 8 == 0x050600 and 1 <= back <= len(self._midnights):
            then = datetime.fromtimestamp(self._midnights[-back][0], tz=local.tzinfo)
            return bytes.fromhex(then.strftime("%y%m%d%H%M"))[::-1]
        if 0x04000501 <= identifier <= 0x04000507:
            return self._status[2 * back - 2 : 2 * back]
        return {
            0x04000101: bytes.fromhex(local.strftime("%y%m%d0%w"))[::-1],
            0x04000102: bytes.fromhex(local.strftime("%H%M%S"))[::-1],
            0x04000401: self._address,
            0x04000402: self._address,
            0x04000404: b"\0\0V022",
            0x040005FF: self._status,
        }.get(identifier)


def frame(address: bytes, control: int, data: bytes) -> bytes:
    """Build a frame (7.1): both 68, 33H on each byte of data, the sum from the first 68 on, 16."""
    body = bytes([0x68]) + address + bytes([0x68, control, len(data)]) + bytes((byte + OFFSET) & 0xFF for byte in data)
    return body + bytes([sum(body) & 0xFF, 0x16])


class RequestReader:
    """Finds requests in what the master sends. Half a frame is kept up to 512 bytes, then forgotten from its front."""

    def __init__(self) -> None:
        self._held = b""

    def forget(self) -> None:
        """Drop half a frame: the master paused for longer than 500 ms (5.4)."""
        self._held = b""

    def feed(self, data: bytes) -> list[Request]:
        """Take bytes in any cut, return the whole requests; frames from meters are left out."""
        held = (self._held + data)[-MAX_HELD:]
        found: list[Request] = []
        while (start := held.find(0x68)) >= 0:
            held = held[start:]
            if len(held) >= 8 and held[7] != 0x68:
                held = held[1:]
                continue
            size = 12 + held[9] if len(held) >= 10 else MAX_HELD
            if len(held) < size:
                break
            if held[size - 1] != 0x16 or sum(held[: size - 2]) & 0xFF != held[size - 2]:
                held = held[1:]
                continue
            if not held[8] & FROM_METER:
                found.append(Request(held[1:7], held[8], bytes((byte - OFFSET) & 0xFF for byte in held[10 : size - 2])))
            held = held[size:]
        else:
            held = b""
        self._held = held
        return found


class Meter:
    """One meter. `kw` is its mean load, by default a centre with a kitchen: 18 to 36, so that registers move soon."""

    def __init__(
        self,
        *,
        device: str,
        address: str,
        seed: int,
        start: float,
        kw: float | None = None,
        phases: int = 3,
        quirks: Quirks | None = None,
        baud: int | None = None,
        parity: str | None = None,
    ) -> None:
        """Make a meter at `start` (seconds since 1970). ValueError for an address that is not 12 digits.

        `baud`, `parity`: its own, where they differ from those of its bus.
        """
        if len(address) != 12 or not address.isdigit():
            raise ValueError(f"meter {device}: address = {address!r}: expected 12 digits")
        self.device = device
        self.address = bytes.fromhex(address)[::-1]
        self.quirks = quirks or Quirks()
        self.baud = baud
        self.parity = parity
        # S311: a rehearsal that can be repeated, nothing secret hangs on it.
        self.random = Random(f"{seed}/{device}")  # noqa: S311
        self.preamble = b"\xfe" * self.random.choice((0, 1, 2, 4))
        self.replies = 0
        self._salt = f"{seed}/{device}/"
        self._phases = phases
        self._watts = int(1000 * (kw if kw is not None else self.random.uniform(18, 36)))
        self._second = int(start)
        # Data identifier without its third byte (DI1: tariff or phase) -> the group's values, in the order of DI1.
        self._groups: Mapping[int, Callable[[], tuple[Value, ...]]] = {
            0x00000000: self._combined,
            0x00010000: self._imports,
            0x00020000: self._exports,
            0x02010000: self._voltages,
            0x02020000: self._currents,
            0x02030000: self._powers,
            0x02800002: self._frequencies,
        }
        self._energy = [self.random.randrange(10_000, 90_000) * _WATT_SECONDS_PER_COUNT for _ in range(4)]
        self._called = self.address
        self._parts: list[bytes] = []
        self._of: tuple[bytes, tuple[Value, ...]] = (b"", ())
        self.records = Records(self.address, self.quirks.status, self._energy, watts=self._watts, start=int(start))

    def answer(self, request: Request, *, now: float) -> Answer | None:
        """Return the reply to a request at `now` (seconds since 1970), None when it is not for this meter."""
        if request.protocol != "645" or not self._is_for_me(request.address):
            return None
        self._called = request.address if self.quirks.nameless and ANY in request.address else self.address
        if request.control == READ_ADDRESS:
            return self._answer(READ_ADDRESS, self.address)
        if request.control == READ_NEXT:
            return self._next(request.data)
        if request.control != READ:
            return None
        identifier = int.from_bytes(request.data[:4], "little")
        values = self.values(identifier, now=now) if len(request.data) == 4 else None
        kept = self.records.data(identifier, now=now) if values is None and len(request.data) == 4 else None
        if values is None and kept is None:
            return self._refused(READ)
        return self._whole(request.data, self.packed(values or ()) if kept is None else kept, values or ())

    def _refused(self, function: int) -> Answer | None:
        return None if self.quirks.mute else self._answer(function | REFUSED, bytes([NO_SUCH_DATA]))

    def packed(self, values: tuple[Value, ...]) -> bytes:
        """Return values as they are sent, with what is wrong with this meter's memory."""
        fields = [value.encoded() for value in values]
        for at, value in enumerate(values):
            if value.number is None and self.quirks.zeros:
                fields[at] = bytes(value.size)
            if (
                self.quirks.damaged
                and value.quantity == "voltage"
                and value.channel == "B"
                and value.number is not None
            ):
                fields[at] = bytes([fields[at][0] | 0x0A]) + fields[at][1:]
        return b"".join(fields)

    def _whole(self, asked: bytes, data: bytes, values: tuple[Value, ...]) -> Answer:
        """Answer in one frame, or begin an answer of several."""
        if not self.quirks.split or len(data) <= PART_BYTES:
            return self._answer(READ, asked + data, values)
        self._parts = [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]
        self._of = (asked, values)
        return self._answer(READ | MORE, asked + self._parts[0])

    def _next(self, data: bytes) -> Answer | None:
        """Answer 12H: the part of that number, which stands behind it."""
        asked, values = self._of
        if len(data) != 5 or data[:4] != asked or not 1 <= data[4] < len(self._parts):
            return self._refused(READ_NEXT)
        last = data[4] == len(self._parts) - 1
        content = asked + self._parts[data[4]] + data[4:]
        return self._answer(READ_NEXT | (0 if last else MORE), content, values if last else ())

    def _is_for_me(self, asked: bytes) -> bool:
        return all(one in (own, ANY) for one, own in zip(asked, self.address, strict=True))

    def _answer(self, function: int, data: bytes, values: tuple[Value, ...] = ()) -> Answer:
        return Answer(frame(self._called, function | FROM_METER, data), data, values)

    def values(self, identifier: int, *, now: float) -> tuple[Value, ...] | None:
        """Return the registers of a data identifier (annex A), None when this meter has none. 0x0001FF00: a block."""
        group, part = identifier & 0xFFFF00FF, identifier >> 8 & 0xFF
        self._advance(int(now))
        if (frozen := self.records.frozen(identifier)) is not None:
            return frozen
        build = self._groups.get(group)
        if build is None:
            return None
        whole = build()
        if part == 0xFF and self.quirks.no_blocks:
            return None
        if part == 0xFF and len(whole) > 1:
            # Voltage and current have no total: their blocks begin with phase A.
            return whole if whole[0].number is not None or whole[0].channel else whole[1:]
        one = whole[part] if part < len(whole) else None
        return None if one is None or one.number is None else (one,)

    def delay_s(self) -> float:
        """Draw how long this meter thinks before its next reply, in seconds."""
        return self.random.uniform(*DELAY_S) + self.quirks.late_s

    def _advance(self, now: int) -> None:
        """Let energy flow until `now`, second by second, each into the tariff of its hour."""
        for second in range(self._second, now):
            hour = (second + _UTC_PLUS_8_S) // 3600 % 24
            self._energy[int(TARIFF_OF_HOUR[hour]) - 1] += self._load(second)
            if (second + 1 + _UTC_PLUS_8_S) % _DAY_S == 0:
                self.records.freeze(second + 1, self._energy)
        self._second = max(self._second, now)

    def _load(self, second: int) -> int:
        """Watts in one second: the mean, give or take a tenth."""
        return self._watts * (900 + self._draw("load", second) % 201) // 1000

    def _draw(self, what: str, second: int) -> int:
        return crc32(f"{self._salt}{what}/{second}".encode())

    def _imports(self) -> tuple[Value, ...]:
        counts = [energy // _WATT_SECONDS_PER_COUNT for energy in self._energy]
        totals = [sum(counts), *counts]
        channels = ("", "T1", "T2", "T3", "T4")
        pairs = zip(channels, totals, strict=True)
        return tuple(Value("energy_active_import", channel, count % 10**8, 4, 2) for channel, count in pairs)

    def _exports(self) -> tuple[Value, ...]:
        return tuple(Value("energy_active_export", channel, 0, 4, 2) for channel in ("", "T1", "T2", "T3", "T4"))

    def _combined(self) -> tuple[Value, ...]:
        return tuple(Value("energy_active_combined", one.channel, one.number, 4, 2) for one in self._imports())

    def _volts(self) -> list[int]:
        """Tenths of a volt for each phase in use."""
        return [2240 + self._draw(f"volt{phase}", self._second) % 121 for phase in range(self._phases)]

    def _loads(self) -> list[int]:
        """Watts for each phase in use; together the load."""
        load = self._load(self._second)
        share = load // self._phases
        return [load - share * (self._phases - 1), *[share] * (self._phases - 1)]

    def _voltages(self) -> tuple[Value, ...]:
        return self._by_phase("voltage", [None, *self._volts()], size=2, decimals=1)

    def _currents(self) -> tuple[Value, ...]:
        amperes = [watts * 10_000 // volts for watts, volts in zip(self._loads(), self._volts(), strict=True)]
        return self._by_phase("current", [None, *amperes], size=3, decimals=3)

    def _powers(self) -> tuple[Value, ...]:
        tenths = [watts * 10 for watts in self._loads()]
        return self._by_phase("power_active", [sum(tenths), *tenths], size=3, decimals=4)

    def _by_phase(self, quantity: str, numbers: list[int | None], *, size: int, decimals: int) -> tuple[Value, ...]:
        """Put numbers to total, A, B, C; a phase that is not connected has no value."""
        padded = [*numbers, *[None] * (4 - len(numbers))]
        pairs = zip(("", "A", "B", "C"), padded, strict=True)
        return tuple(Value(quantity, channel, number, size, decimals) for channel, number in pairs)

    def _frequencies(self) -> tuple[Value, ...]:
        return (Value("frequency", "", 4995 + self._draw("hertz", self._second) % 11, 2, 2),)

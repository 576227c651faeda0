"""DL/T 698.45 electricity meters on the same bus: the load of `meters`, asked by object and attribute.

The frames are built here, not by `drivers`, and their check bit by bit: with one encoder at both ends, both would share one
error. A meter answers GET for one attribute, for several and for the midnights that it froze, and says "object undefined"
(DAR 4) to what it does not have; to every other service it is silent. Checked in the tests against published frames.

Limits: 2,048 bytes of a request are held; 200 bytes an APDU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from simulator.meters import ANY, MAX_HELD, Answer, Meter, Request, Value

PROTOCOL: Final = "698"
UNDEFINED: Final = 4
NO_RECORD: Final = 6
_CHINA: Final = timezone(timedelta(hours=8))
_DOUBLE_LONG_UNSIGNED, _DOUBLE_LONG, _LONG_UNSIGNED = b"\x06", b"\x05", b"\x12"


def check(data: bytes) -> bytes:
    """Return CRC-16/X-25, low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x8408 if crc & 1 else crc >> 1
    return (crc ^ 0xFFFF).to_bytes(2, "little")


def frame_698(control: int, flag: int, server: bytes, client: int, apdu: bytes) -> bytes:
    """Build a link frame; `server` in wire order."""
    head = (9 + len(server) + len(apdu)).to_bytes(2, "little") + bytes([control, flag]) + server + bytes([client])
    body = head + check(head) + apdu
    return b"\x68" + body + check(body) + b"\x16"


class Reader698:
    """Finds requests of DL/T 698.45 in what the master sends."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._held = b""

    def forget(self) -> None:
        """Drop half a frame."""
        self._held = b""

    def feed(self, data: bytes) -> list[Request]:
        """Take bytes in any cut, return the whole requests. In `data` of a request: flag, client, APDU."""
        held = (self._held + data)[-4 * MAX_HELD :]
        found: list[Request] = []
        while (start := held.find(0x68)) >= 0:
            held = held[start:]
            if len(held) < 5:
                break
            size, end = int.from_bytes(held[1:3], "little"), 6 + (held[4] & 0x0F)
            if size > 2 * MAX_HELD or (len(held) >= end + 3 and check(held[1 : end + 1]) != held[end + 1 : end + 3]):
                held = held[1:]
                continue
            if len(held) < max(size + 2, end + 3):
                break
            body = held[1 : size - 1]
            if held[size + 1] != 0x16 or check(body) != held[size - 1 : size + 1]:
                held = held[1:]
                continue
            if not held[3] & 0x80:
                content = bytes([held[4], held[end]]) + held[end + 3 : size - 1]
                found.append(Request(held[5:end], held[3], content, PROTOCOL))
            held = held[size + 2 :]
        else:
            held = b""
        self._held = held
        return found


class Meter698(Meter):
    """One meter. With the quirk `no_blocks` it does not know lists, and is silent to them."""

    def __init__(self, **options: Any) -> None:
        """Make a meter with the options of `Meter`."""
        super().__init__(**options)
        # Attribute without its index -> the values in the order of the index, the type of each, by what its count is multiplied.
        self._attributes: Mapping[int, tuple[Callable[[], tuple[Value, ...]], bytes]] = {
            0x001002: (self._imports, _DOUBLE_LONG_UNSIGNED),
            0x002002: (self._exports, _DOUBLE_LONG_UNSIGNED),
            0x200002: (lambda: self._voltages()[1:], _LONG_UNSIGNED),
            0x200102: (lambda: self._currents()[1:], _DOUBLE_LONG),
            0x200402: (self._powers, _DOUBLE_LONG),
            0x200F02: (self._frequencies, _LONG_UNSIGNED),
        }

    def answer(self, request: Request, *, now: float) -> Answer | None:
        """Return the reply to a request at `now` (seconds since 1970), None when it is not for this meter."""
        if request.protocol != PROTOCOL or not self._is_called(request.address, request.data[0] >> 6):
            return None
        apdu = request.data[2:]
        if apdu[:2] == b"\x05\x03" and len(apdu) > 10:
            return self._record(request, now=now)
        if len(apdu) < 8 or apdu[0] != 5 or apdu[1] not in (1, 2) or (apdu[1] == 2 and self.quirks.no_blocks):
            return None
        first = 4 if apdu[1] == 2 else 3
        values: tuple[Value, ...] = ()
        content = bytes([0x85, apdu[1], apdu[2]]) + apdu[3:first]
        for at in range(first, len(apdu) - 1, 4):
            data, told = self._attribute(int.from_bytes(apdu[at : at + 4], "big"), now=now)
            content += apdu[at : at + 4] + data
            values += told
        return self._sealed(content + b"\0\0", request, values)

    def _sealed(self, content: bytes, request: Request, values: tuple[Value, ...]) -> Answer:
        wire = frame_698(0xC3, len(self.address) - 1, self.address, request.data[1], content)
        return Answer(wire, content, values)

    def _record(self, request: Request, *, now: float) -> Answer | None:
        """Answer for what was frozen at a past midnight: its time, the energies that were imported then."""
        apdu = request.data[2:]
        self._advance(int(now))
        head, back, count = apdu[2:7], apdu[8], apdu[9]
        columns = [apdu[at + 1 : at + 5] for at in range(10, 10 + 5 * count, 5)]
        shown = b"".join(b"\0" + column for column in columns)
        begun = b"\x85\x03" + head + bytes([count]) + shown
        frozen = self.records.frozen(0x05060100 | back)
        when = self.records.data(0x05060000 | back, now=now)
        if head[1:] != b"\x50\x04\x02\0" or apdu[7] != 9 or frozen is None or when is None:
            return self._sealed(begun + bytes([0, NO_RECORD]) + b"\0", request, ())
        _minute, _hour, day, month, year = (int(f"{one:02x}") for one in when)
        known = {
            b"\x20\x21\x02\0": b"\x1c" + (2000 + year).to_bytes(2, "big") + bytes([month, day, 0, 0, 0]),
            b"\0\x10\x02\0": bytes([1, len(frozen)])
            + b"".join(self._datum(one, _DOUBLE_LONG_UNSIGNED) for one in frozen),
        }
        row = b"".join(known.get(column, b"\0") for column in columns)
        return self._sealed(begun + b"\x01\x01" + row + b"\0", request, frozen)

    def _is_called(self, asked: bytes, kind: int) -> bool:
        if kind not in (0, 1) or len(asked) != len(self.address):
            return False
        return all(one == own or (kind == 1 and one == ANY) for one, own in zip(asked, self.address, strict=True))

    def _attribute(self, oad: int, *, now: float) -> tuple[bytes, tuple[Value, ...]]:
        """Return what follows a descriptor in a reply, and the registers in it."""
        local = datetime.fromtimestamp(int(now), tz=_CHINA)
        if oad == 0x40000200:
            parts = (local.month, local.day, local.hour, local.minute, local.second)
            return b"\x01\x1c" + local.year.to_bytes(2, "big") + bytes(parts), ()
        if oad in (0x40010200, 0x40020200):
            return b"\x01\x09\x06" + self.address[::-1], ()
        known = self._attributes.get(oad >> 8)
        if known is None:
            return bytes([0, UNDEFINED]), ()
        self._advance(int(now))
        build, tag = known
        values, index = build(), oad & 0xFF
        if index > len(values):
            return bytes([0, UNDEFINED]), ()
        shown = values[index - 1 : index] if index else values
        data = b"".join(self._datum(value, tag) for value in shown)
        alone = index or oad >> 8 == 0x200F02
        return b"\x01" + (data if alone else bytes([1, len(shown)]) + data), shown

    def _datum(self, value: Value, tag: bytes) -> bytes:
        """Return one number with its type; a phase that is not there has no type, or is zero."""
        if value.number is None and not self.quirks.zeros:
            return b"\x00"
        return tag + (value.number or 0).to_bytes(2 if tag == _LONG_UNSIGNED else 4, "big")

"""What `fuzz` throws at the Chinese electricity meters: replies sealed with right checks, and codecs that no driver exhausts."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import ModuleType

from drivers.kit.checks import crc16_x25
from drivers.protocols import dlt645_1997, dlt645_1997_tables, dlt645_2007, dlt645_2007_tables, gdw3761

Case = Callable[[], str]


def sealed_dlt645(rng: random.Random, request: bytes) -> bytes:
    """Any content with a right sum, most of it from the meter and for the identifier that was asked."""
    asked = request[4:]
    size, read = (4 if asked[8] > 0x10 else 2), asked[8] | 0x80
    tail = asked[14:15] if asked[8] == 0x12 else b""
    data = rng.randbytes(rng.randrange(20))
    if rng.random() < 0.7:
        digits = [rng.choice(b"\x00\x12\x99\x80\xff\x0a") for _ in range(rng.choice((2, 3, 4, 6, 8, 9, 12, 20)))]
        data = (
            asked[10 : 10 + size]
            + bytes((byte + 0x33) & 0xFF for byte in (*digits, *rng.choice((b"", b"\xaa"))))
            + tail
        )
    control = rng.choice((read, read, read, read | 0x20, read | 0x40, rng.randrange(256)))
    frame = asked[:8] + bytes([control, len(data)]) + data
    return frame + bytes([sum(frame) & 0xFF, 0x16])


def sealed_dlt698(rng: random.Random, request: bytes) -> bytes:
    """Any content with right checks, most of it an answer to what was asked."""
    asked = request[4:]
    end = 6 + (asked[4] & 0x0F)
    question = asked[end + 3 : -3]
    kind, piid = question[1], question[2]
    oads = [question[at : at + 4] for at in range(3 + (kind == 2), len(question) - 1, 4)]
    results = b"".join(
        oad + rng.choice((b"\x00\x04", b"\x01" + dlt698_datum(rng, 0), rng.randbytes(3))) for oad in oads
    )
    if kind == 3:
        columns = question[10:-1]
        rows = b"".join(dlt698_datum(rng, 0) for _ in range(columns.count(b"\x02\0")))
        results = question[3:7] + bytes([question[9]]) + columns + rng.choice((b"\x01\x01", b"\0", b"\x01\x02")) + rows
    count = bytes([rng.choice((len(oads), rng.randrange(256)))]) if kind == 2 else b""
    apdu = rng.choice((bytes([0x85, kind, piid]) + count + results + b"\0\0", rng.randbytes(rng.randrange(30))))
    if rng.random() < 0.2:
        apdu = b"\x90\x00" + bytes([len(apdu) & 0x7F]) + apdu + b"\x01\x00\x04" + rng.randbytes(4)
    size = 2 + 1 + (end - 4) + 1 + 2 + len(apdu) + 2
    control = rng.choice((0xC3, 0xC3, 0xC3, rng.randrange(256)))
    head = size.to_bytes(2, "little") + bytes([control]) + asked[4 : end + 1]
    body = head + crc16_x25(head).to_bytes(2, "little") + apdu
    return b"\x68" + body + crc16_x25(body).to_bytes(2, "little") + b"\x16"


def dlt698_datum(rng: random.Random, depth: int) -> bytes:
    """A datum of any type, or bytes that only begin like one."""
    tag = rng.choice((0, 1, 1, 2, 4, 5, 6, 9, 0x0A, 0x10, 0x12, 0x14, 0x15, 0x19, 0x1C, rng.randrange(256)))
    if tag in (1, 2) and depth < 10:
        parts = [dlt698_datum(rng, depth + 1) for _ in range(rng.randrange(4))]
        return bytes([tag, rng.choice((len(parts), rng.randrange(256)))]) + b"".join(parts)
    size = {5: 4, 6: 4, 0x10: 2, 0x12: 2, 0x14: 8, 0x15: 8, 0x19: 10, 0x1C: 7}.get(tag, rng.randrange(6))
    return bytes([tag]) + rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size))


def sealed_gdw3761(rng: random.Random) -> bytes:
    """Any body in the frame of a concentrator, most of it a forwarding."""
    body = rng.choice((b"\xa8", b"\x4b", rng.randbytes(1))) + rng.randbytes(5) + rng.choice((b"\x10", rng.randbytes(1)))
    body += (
        rng.randbytes(1) + rng.choice((bytes.fromhex("00000100"), rng.randbytes(4))) + rng.randbytes(rng.randrange(40))
    )
    if rng.random() < 0.5:
        inner = rng.randbytes(rng.randrange(30))
        head = rng.randbytes(1 if body[0] & 0x80 else 4) + len(inner).to_bytes(2, "little")
        body = body[:1] + body[1:6] + b"\x10\xe0\0\0\1\0" + head + inner + rng.choice((b"", rng.randbytes(8)))
    length = (len(body) << 2 | 2).to_bytes(2, "little")
    return b"\x68" + length * 2 + b"\x68" + body + bytes([sum(body) & 0xFF, 0x16])


def codec_case(name: str, rng: random.Random) -> Case:
    """One frame, or the data of one identifier, into a codec that no driver reaches with everything it can read."""

    def gdw3761_case() -> str:
        data = sealed_gdw3761(rng) if rng.random() < 0.7 else rng.randbytes(rng.randrange(80))
        case.last = data  # type: ignore[attr-defined]  # shown when it crashes
        gdw3761.parse(data)
        return "decoded"

    def tables_case() -> str:
        old = name == "dlt645-1997-tables"
        digits = bytes(
            rng.choice(b"\x00\x12\x99\x80\xff\x0a") for _ in range(rng.choice((2, 3, 4, 6, 7, 8, 9, 12, 14, 20, 24)))
        )
        value = rng.choice((digits, digits, rng.randbytes(rng.randrange(40))))
        known = dlt645_1997_ids if old else dlt645_2007_ids
        id_ = rng.choice((rng.choice(known), rng.choice(known), rng.getrandbits(16 if old else 32)))
        case.last = (id_, value)  # type: ignore[attr-defined]  # as above
        codec = dlt645_1997 if old else dlt645_2007
        codec.decode(id_, value)
        return "decoded"

    def texts_case() -> str:
        texts = list(dlt645_2007_tables.TEXTS)
        id_, value = (
            rng.choice(texts),
            rng.choice((rng.randbytes(rng.randrange(40)), b"\0" + bytes(rng.randrange(32, 127) for _ in range(5)))),
        )
        case.last = (id_, value)  # type: ignore[attr-defined]  # as above
        if rng.random() < 0.5:
            dlt645_2007.clock(rng.randbytes(rng.choice((3, 4, 4))), rng.randbytes(3))
        dlt645_2007.text(id_, value)
        return "decoded"

    case = {"gdw3761": gdw3761_case, "dlt645-texts": texts_case}.get(name, tables_case)
    return case


def _identifiers(tables: ModuleType, bits: int) -> list[int]:
    """Return identifiers of every table, blocks among them."""
    found = list(tables.SINGLES)
    if bits == 16:
        return found + [group | digit for group in tables.GROUPS for digit in (0, 1, 4, 15)]
    found += [
        kind << 16 | part << 8 | tail for kind in tables.ENERGIES for part in (0, 1, 63, 255) for tail in (0, 1, 12)
    ]
    found += [1 << 24 | kind << 16 | part << 8 for kind in tables.DEMANDS for part in (0, 4, 255)]
    found += [2 << 24 | kind << 16 | part << 8 for kind in tables.VARIABLES for part in (0, 1, 3, 255)]
    found += [2 << 24 | kind << 16 | part << 8 | tail for kind in (10, 11) for part in (1, 3) for tail in (1, 21, 255)]
    found += [5 << 24 | kind << 16 | part << 8 | 1 for kind in range(8) for part in (0, 1, 2, 8, 9, 10, 16)]
    return [*found, tables.STATUS_BLOCK, *tables.STATUS_WORDS]


dlt645_2007_ids = _identifiers(dlt645_2007_tables, 32)
dlt645_1997_ids = _identifiers(dlt645_1997_tables, 16)
CODECS = ("dlt645-2007-tables", "dlt645-1997-tables", "dlt645-texts", "gdw3761")

r"""Lines of Ingics' BLE gateways (iGS01S, iGS02, iGS03): one advert a line, over TCP or a serial line.

Layout:

    $GPRP,E856715A54F5,CAEE00112233,-60,02010612FF590080BC3A0108FFFF0000000006030000[,1574927085.12]\r\n
    kind  sender       gateway      dBm AD structures, hexadecimal                   seconds since 1970

Kinds that carry an advert: GPRP, LRAD (long range), 1MAD (extended), and the answers to a scan SRRP, LRSR, 1MSR, RSPR.
An AD structure is a length byte, a type and data (Bluetooth Core, Vol 3 Part C 11); of them type FF, manufacturer data, is
read; one that is cut off ends the list. Limits: a line of 1,024 bytes. The time is not used: most of these gateways have
no clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from drivers.kit import Reason, Rejected

LIMIT: Final = 1024

_KINDS = ("GPRP", "LRAD", "1MAD", "SRRP", "LRSR", "1MSR", "RSPR")
_ADDRESS = re.compile(r"[0-9A-F]{12}")
_LEAST_FIELDS, _MOST_FIELDS = 5, 6
_MANUFACTURER_DATA = 0xFF


@dataclass(frozen=True, slots=True)
class Line:
    """One advert as a gateway heard it. `address`: 12 hexadecimal digits in capitals. `rssi` in dBm."""

    address: str
    rssi: int
    manufacturer_data: dict[int, bytes]


def parse(frame: bytes) -> Line:
    """Read one line. Raises Rejected; what names its sender readably carries the address."""
    try:
        text = frame.decode("ascii").strip()
    except UnicodeDecodeError:
        raise Rejected(Reason.MALFORMED, "a line that is not ASCII") from None
    if not text.startswith("$"):
        raise Rejected(Reason.NOT_MINE, "a line without $")
    fields = text[1:].split(",")
    if fields[0] not in _KINDS:
        raise Rejected(Reason.NOT_MINE, f"a line of the kind {fields[0][:8]!r}")
    if not _LEAST_FIELDS <= len(fields) <= _MOST_FIELDS:
        raise Rejected(Reason.MALFORMED, f"{len(fields)} fields, {_LEAST_FIELDS} or {_MOST_FIELDS} expected")
    address = fields[1].upper()
    if not _ADDRESS.fullmatch(address):
        raise Rejected(Reason.MALFORMED, "the sender is no address of 12 hexadecimal digits")
    try:
        rssi, data = int(fields[3]), bytes.fromhex(fields[4])
    except ValueError:
        raise Rejected(
            Reason.MALFORMED, "no number where the RSSI stands, or no hexadecimal digits", address=address
        ) from None
    if not -128 <= rssi <= 127:
        raise Rejected(Reason.IMPLAUSIBLE, f"RSSI {rssi} dBm", address=address)
    return Line(address, rssi, _manufacturer_data(data))


def _manufacturer_data(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        size = data[at]
        part = data[at + 1 : at + 1 + size]
        if size == 0 or len(part) < size:
            break
        if part[0] == _MANUFACTURER_DATA and len(part) >= 3:
            found[int.from_bytes(part[1:3], "little")] = part[3:]
        at += 1 + size
    return found

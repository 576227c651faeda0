"""Replies and telegrams of meters other than those of DL/T: any content, sealed with a right check. See `fuzz.py`."""

from __future__ import annotations

import random
import struct

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.cmac import CMAC

from drivers.kit.checks import crc16_arc, crc16_modbus, crc16_x25

MBUS_KEY = bytes(16)


def sealed_cjt188(rng: random.Random, request: bytes) -> bytes:
    """A reply with a right sum: the units of water or heat before or behind any digits, now and then with a byte of another."""
    asked = request[4:]
    is_heat = asked[1] >> 4 == 2 if rng.random() < 0.9 else rng.random() < 0.5
    units = b"\x05\x05\x17\x35\x2c" if is_heat else b"\x2c\x2c"
    if rng.random() < 0.2:
        units = bytes(rng.choice(b"\x01\x02\x08\x0a\x0b\x0e\x11\x13\x14\x1a\x29\x32\xff") for _ in units)
    unit_first, data = rng.random() < 0.5, bytearray()
    for unit in units:
        digits = bytes(rng.choice(b"\x00\x00\x12\x20\x99\xff") for _ in range(4))
        data += bytes([unit]) + digits if unit_first else digits + bytes([unit])
    data += bytes(rng.choice(b"\x00\x01\x12\x20\x59\x80\xff") for _ in range((9 if is_heat else 0) + 9))
    if rng.random() < 0.2:
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.1:
        data += rng.randbytes(7)
    control = rng.choice((0x81, 0x81, 0x81, 0x81, 0xC1, rng.randrange(256)))
    kind = rng.choice((asked[1], asked[1], asked[1], 0xAA, 0x22, 0x25, rng.randrange(256)))
    frame = bytes([0x68, kind]) + asked[2:9] + bytes([control, len(data) + 3]) + asked[11:14] + bytes(data)
    return frame + bytes([sum(frame) & 0xFF, 0x16])


def sealed_mbus(rng: random.Random, request: bytes) -> bytes:
    """An acknowledgement where one is waited for, else any records with a right sum, most of them of a known form."""
    if request[1] == 0x40 or request[0] == 0x68:
        return b"\xe5"
    records = b""
    for _ in range(rng.randrange(1, 9)):
        dif = rng.choice(
            (0x01, 0x02, 0x04, 0x05, 0x06, 0x07, 0x0A, 0x0C, 0x0D, 0x0E, 0x42, 0x84, 0x14, rng.randrange(256))
        )
        records += bytes([dif]) + (bytes([rng.randrange(128)]) if dif & 0x80 else b"")
        vif = rng.choice((0x06, 0x13, 0x2B, 0x3B, 0x5A, 0x6C, 0x6D, 0xFD, 0xFB, 0x86, 0x7C, rng.randrange(256)))
        records += bytes([vif]) + (bytes([rng.randrange(256) & rng.choice((0x7F, 0xFF))]) if vif & 0x80 else b"")
        records += rng.choice(
            (rng.randbytes(rng.randrange(9)), bytes(rng.choice(b"\x00\x12\xff\x80") for _ in range(4)))
        )
    if rng.random() < 0.2:
        return _mbus_frame(rng, request, _sealed_with_key(rng, records))
    header = bytes.fromhex("7856341224400107") + rng.randbytes(2) + rng.choice((b"\x00\x00", rng.randbytes(2)))
    information = rng.choice((0x72, 0x72, 0x72, 0x76, 0x73, 0x77, 0x78, 0x7A, 0x70, rng.randrange(256)))
    content = (header if information & 0xFB == 0x72 else b"") + records + rng.choice((b"", b"", b"\x1f", b"\x0f\x01"))
    if information & 0xFB == 0x73:
        content = rng.randbytes(16)
    return _mbus_frame(rng, request, bytes([information]) + content)


def _mbus_frame(rng: random.Random, request: bytes, content: bytes) -> bytes:
    body = bytes([rng.choice((0x08, 0x08, 0x18, rng.randrange(256))), request[2]]) + content[:251]
    return bytes([0x68, len(body), len(body), 0x68]) + body + bytes([sum(body) & 0xFF, 0x16])


def _sealed_with_key(rng: random.Random, records: bytes) -> bytes:
    """Records encrypted in mode 5 or 7, from the CI on; now and then with one byte changed."""
    plain = b"\x2f\x2f" + records
    plain += b"\x2f" * (-len(plain) % 16)
    mode, blocks = rng.choice((5, 7)), len(plain) // 16
    header = bytes.fromhex("78563412244001075500") + bytes([(blocks << 4) & 0xFF, mode])
    if mode == 5:
        begin = header[4:6] + header[:4] + header[6:8] + header[8:9] * 8
        sent = b"\x72" + header + _encrypted(MBUS_KEY, begin, plain)
    else:
        end = b"\x01\x00\x00\x00" + header[:4] + b"\x07" * 7
        message = b"\x72" + header + b"\x10" + _encrypted(_cmac(MBUS_KEY, b"\x00" + end), bytes(16), plain)
        tag = _cmac(_cmac(MBUS_KEY, b"\x01" + end), b"\x25" + end[:4] + message)[:8]
        sent = b"\x90\x0f\x00\x2c\x25" + end[:4] + tag + message
    if rng.random() < 0.3:
        at = rng.randrange(len(sent))
        sent = sent[:at] + rng.randbytes(1) + sent[at + 1 :]
    return sent


def _encrypted(key: bytes, begin: bytes, plain: bytes) -> bytes:
    encryptor = Cipher(AES(key), CBC(begin)).encryptor()
    return encryptor.update(plain) + encryptor.finalize()


def _cmac(key: bytes, content: bytes) -> bytes:
    made = CMAC(AES(key))
    made.update(content)
    return made.finalize()


def sealed_modbus(rng: random.Random, request: bytes) -> bytes:
    """Registers of the right number with a right sum, most of them floats of a supply; now and then an exception."""
    count = int.from_bytes(request[4:6], "big")
    numbers = (0.0, 0.5, 1.0, 5.0, 50.0, 230.0, 231.5, 1000.0, rng.uniform(-1e6, 1e6))
    data = b"".join(struct.pack(">f", rng.choice(numbers)) for _ in range((count + 1) // 2))[: 2 * count]
    if rng.random() < 0.3:
        at = rng.randrange(len(data))
        data = data[:at] + rng.randbytes(1) + data[at + 1 :]
    if rng.random() < 0.2:
        data = rng.choice((b"\0" * len(data), rng.randbytes(len(data)), data[: rng.randrange(len(data))]))
    body = request[:2] + bytes([len(data)]) + data
    if rng.random() < 0.1:
        body = bytes([request[0], request[1] | 0x80, rng.randrange(13)])
    return body + crc16_modbus(body).to_bytes(2, "little")


P1_CODES = (
    *("1-0:1.8.1", "1-0:2.8.0", "1-0:32.7.0", "0-1:24.2.1", "0-2:24.3.0", "0-1:24.1.0", "0-0:1.0.0"),
    *("1-0:1.6.0", "1-3:0.2.8", "0-1:24.2.3"),
)
P1_VALUES = (
    *("(000004.426*kWh)", "(170102192002W)", "(00.1*m3)", "(999999999999S)", "()", "(-1*W)", "(003)", "(x)"),
    *("(1*GJ)", "(1)(m3)"),
)


def sealed_p1(rng: random.Random) -> bytes:
    """Any lines of a telegram with a right check; now and then in the frame of an encrypted one, which no key opens."""
    rows = [rng.choice(P1_CODES) + "".join(rng.choices(P1_VALUES, k=rng.randrange(4))) for _ in range(rng.randrange(8))]
    body = ("/A5\r\n\r\n" + "\r\n".join(rows) + "\r\n!").encode()
    if rng.random() < 0.2:
        content = b"\x30" + rng.randbytes(4) + body + bytes(12)
        return b"\xdb\x08" + rng.randbytes(8) + b"\x82" + len(content).to_bytes(2, "big") + content
    return body + (f"{crc16_arc(body):04X}" if rng.random() < 0.9 else "").encode() + b"\r\n"


def _sml_value(rng: random.Random) -> bytes:
    code = b"\x01\x00" + bytes([rng.choice((1, 2, 16, 32, 14, 96))])
    code += rng.choice((b"\x08\x00\xff", b"\x07\x00\xff", b"\x08\x01\xff", rng.randbytes(3)))
    sent = (
        b"\x59" + rng.randbytes(8),
        b"\x53" + rng.randbytes(2),
        b"\x01",
        b"\x65" + rng.randbytes(4),
        rng.randbytes(3),
    )
    unit = b"\x62" + rng.choice((b"\x1e", b"\x1b", b"\x23", b"\x2c", rng.randbytes(1)))
    scaler = b"\x52" + rng.choice((b"\xff", b"\x00", rng.randbytes(1)))
    return b"\x77\x07" + code + b"\x01\x01" + unit + scaler + rng.choice(sent) + b"\x01"


def sealed_sml(rng: random.Random) -> bytes:
    """Any list of values with a right check."""
    count = rng.randrange(6)
    values = b"".join(_sml_value(rng) for _ in range(count))
    time = rng.choice((b"\x01", b"\x72\x62\x02\x65" + rng.randbytes(4), b"\x65" + rng.randbytes(4)))
    server = b"\x06\x0a\x01" + rng.choice((b"DZG", b"ISK"))
    body = b"\x77\x01" + server + b"\x01" + time + bytes([0x70 | count]) + values + b"\x01\x01"
    message = bytes.fromhex("7605000000016200620072630701") + body + b"\x63\x00\x00\x00"
    if rng.random() < 0.2:
        at = rng.randrange(len(message))
        message = message[:at] + rng.randbytes(1) + message[at + rng.randrange(3) :]
    escape = b"\x1b" * 4
    padding = -len(message) % 4
    whole = escape + b"\x01" * 4 + message + bytes(padding) + escape + bytes([0x1A, padding])
    return whole + crc16_x25(whole).to_bytes(2, "little")

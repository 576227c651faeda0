"""The data of M-Bus meters (EN 13757-3): header and records of the variable structure, and the old fixed one.

A letter a byte, after the byte CI that says what follows:

    72 NNNNNNNN MM V D A S GG R...    header of 12: number, maker, version, medium, access number, status, signature; records
    7A A S GG R...                    header of 4
    78 R...                           no header
    73 NNNNNNNN A S UU CCCC CCCC      fixed: number, access number, status, medium and units, two counters
    70 E                              the meter cannot: an application error

    90 ...                            a layer around the others, for a tag; it, and what is encrypted: `mbus_security`

A record R: DIF (function, storage, size), up to 10 DIFE (storage, tariff, unit), VIF (what it is), up to 10 VIFE (how), data.
76 and 77 are 72 and 73 with the high byte first.

What a value is: packed digits with a sign in the top half byte (type A), whole numbers (B), 32-bit floats (H), dates (F, G, I),
text and long numbers (LVAR). The most negative whole number, other half bytes above 9, and NaN are no values (`invalid`): a
meter shows with them that it cannot tell. A record of which a part is missing makes the whole telegram refused: nothing of
a cut reply is believed.

Limits: 254 bytes of data, one record takes two at least; numbers of 28 digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from drivers.kit import Reason, Rejected
from drivers.protocols import mbus_security
from drivers.protocols.mbus_meaning import (
    ADDED,
    DATE,
    DATE_TIME,
    ERRORS,
    FB,
    FD,
    FIXED,
    FIXED_HISTORIC,
    FIXED_MEDIA,
    FURTHER,
    MAKERS_OWN,
    MULTIPLIED,
    NEUTRAL,
    NON_METRIC,
    PHASES,
    PRIMARY,
    PROFILES,
    STANDARD_FLAGS,
    TOLD_APART,
    Meaning,
)
from drivers.protocols.mbus_security import Lock
from drivers.protocols.mbus_values import Value, digits, long_value, real, time, whole

MOST_EXTENSIONS: Final = 10
LONG_HEADER, SHORT_HEADER, NO_HEADER, FIXED_HEADER, ERROR = 0x72, 0x7A, 0x78, 0x73, 0x70
_HIGH_FIRST: Final = 0x04
_EXTENDED: Final = 0x80
_SIZES: Final = {0x0: 0, 0x1: 1, 0x2: 2, 0x3: 3, 0x4: 4, 0x5: 4, 0x6: 6, 0x7: 8, 0x9: 1, 0xA: 2, 0xB: 3, 0xC: 4, 0xE: 6}
_REAL, _LVAR, _SELECTION, _SPECIAL = 0x5, 0xD, 0x8, 0xF
_MAKERS, _MAKERS_AND_MORE, _IDLE, _ALL_READOUT = 0x0F, 0x1F, 0x2F, 0x7F
FUNCTIONS: Final = ("", "max", "min", "error")
APPLICATION_ERRORS: Final = (
    "unspecified error",
    "unimplemented CI field",
    "buffer too long",
    "too many records",
    "premature end of record",
    "more than 10 DIFE",
    "more than 10 VIFE",
    "reserved",
    "application too busy",
    "too many readouts",
)


@dataclass(frozen=True, slots=True)
class Header:
    """Who answers. `number`: 8 digits as printed, hexadecimal where a meter sends such; `medium` as in table 3."""

    number: str = ""
    maker: str = ""
    version: int = 0
    medium: int = 0
    access: int = 0
    status: int = 0
    signature: int = 0
    secondary: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `value` is in the unit of `meaning`; None: the meter has none, and `invalid` says why.

    `function`: "", "max", "min", or "error" (while an error lasted). `marks`: how it is told apart from the plain value
    ("negative", a phase). `foreign`: codes behind the VIF that change its meaning in a way that is not known here. `real`: the
    value was sent as a float.
    """

    meaning: Meaning | None
    value: Value
    raw: bytes
    function: str = ""
    storage: int = 0
    tariff: int = 0
    unit: int = 0
    marks: tuple[str, ...] = ()
    foreign: bytes = b""
    invalid: str = ""
    real: bool = False


@dataclass(frozen=True, slots=True)
class Telegram:
    """One reply: who, its records in order, what its maker put behind them, and whether another telegram follows."""

    header: Header
    records: tuple[Record, ...]
    makers: bytes = b""
    more: bool = False

    def says_the_same(self, before: Telegram) -> bool:
        """Say whether this is the one before once more. The access number counts every telegram, so it tells nothing."""
        return self == replace(before, header=replace(before.header, access=self.header.access))


def read(information: int, data: bytes, *, key: bytes | None = None) -> Telegram:
    """Read what a reply says. Raises Rejected.

    UNSUPPORTED for another structure and for what the meter calls an error, NO_KEY and BAD_KEY where it is encrypted, MALFORMED
    where a record is cut or its information has more than 10 extensions.
    """
    message = _message(information, data)
    if message.fixed is not None:
        return message.fixed
    records = message.records
    if message.lock.locks(records, is_keyed=key is not None):
        records = message.lock.opened(records, key)
    return _Reader(records, high_first=message.high_first).telegram(message.header)


def header_of(information: int, data: bytes) -> Header:
    """Return who answers, encrypted or not. Raises Rejected."""
    message = _message(information, data)
    return message.header if message.fixed is None else message.fixed.header


@dataclass(frozen=True, slots=True)
class _Message:
    """A reply behind its layers: the records as sent, or what the fixed structure says."""

    header: Header
    records: bytes
    lock: Lock
    high_first: bool = False
    fixed: Telegram | None = None


def _message(information: int, data: bytes) -> _Message:
    layer = None
    if information == mbus_security.AUTHENTICATED:
        layer = mbus_security.layer(data)
        information, data = layer.message[0] if layer.message else NO_HEADER, layer.message[1:]
    if information == ERROR:
        word = data[0] if data else 0
        name = APPLICATION_ERRORS[word] if word < len(APPLICATION_ERRORS) else "unknown"
        raise Rejected(Reason.UNSUPPORTED, f"the meter answers with error {word}: {name}")
    high_first = bool(information & _HIGH_FIRST) and information in (LONG_HEADER | 4, FIXED_HEADER | 4)
    structure = information & ~_HIGH_FIRST if high_first else information
    fixed = None
    if structure == FIXED_HEADER:
        fixed = _fixed(data, high_first=high_first)
        header, rest = fixed.header, b""
    elif structure == LONG_HEADER:
        header, rest = _long_header(data, high_first=high_first), data[12:]
    elif structure == SHORT_HEADER and len(data) >= 4:
        header, rest = Header(access=data[0], status=data[1], signature=int.from_bytes(data[2:4], "little")), data[4:]
    elif structure == NO_HEADER:
        header, rest = Header(), data
    else:
        raise Rejected(Reason.UNSUPPORTED, f"CI {information:02x} with {len(data)} bytes")
    # Number and maker stand in the key as low byte first, however they were sent.
    who = bytes.fromhex(header.secondary)
    lock = Lock(header.signature, who[3::-1], who[5:3:-1], header.version, header.medium, header.access, layer)
    return _Message(header, rest, lock, high_first, fixed)


def _long_header(data: bytes, *, high_first: bool) -> Header:
    if len(data) < 12:
        raise Rejected(Reason.TOO_SHORT, f"a header of {len(data)} bytes")
    order = -1 if not high_first else 1
    number, maker = data[:4][::order], data[4:6][::order]
    secondary = number.hex() + maker.hex() + data[6:8].hex()
    signature = int.from_bytes(data[10:12][::order], "big")
    return Header(
        number.hex(), maker_name(int.from_bytes(maker, "big")), data[6], data[7], data[8], data[9], signature, secondary
    )  # fmt: skip


def maker_name(code: int) -> str:
    """Return the three letters of a maker's code (table 2)."""
    return "".join(chr((code >> shift & 0x1F) + 64) for shift in (10, 5, 0))


class _Reader:
    """Reads records one after the other."""

    def __init__(self, data: bytes, *, high_first: bool) -> None:
        self._data = data
        self._high_first = high_first
        self._at = 0
        self._index = 0

    def telegram(self, header: Header) -> Telegram:
        records: list[Record] = []
        while self._at < len(self._data):
            dif = self._data[self._at]
            if dif in (_MAKERS, _MAKERS_AND_MORE):
                return Telegram(header, tuple(records), self._data[self._at + 1 :], more=dif == _MAKERS_AND_MORE)
            if dif == _IDLE:
                self._at += 1
                continue
            records.append(self._record())
            self._index += 1
        return Telegram(header, tuple(records))

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise Rejected(Reason.MALFORMED, f"record {self._index} is cut")
        self._at += count
        return taken

    def _byte(self) -> int:
        return self._take(1)[0]

    def _extensions(self, first: int) -> list[int]:
        found: list[int] = []
        last = first
        while last & _EXTENDED:
            if len(found) >= MOST_EXTENSIONS:
                raise Rejected(Reason.MALFORMED, f"record {self._index} has more than {MOST_EXTENSIONS} extensions")
            last = self._byte()
            found.append(last)
        return found

    def _record(self) -> Record:
        dif = self._byte()
        storage, tariff, unit = dif >> 6 & 1, 0, 0
        for step, dife in enumerate(self._extensions(dif)):
            storage |= (dife & 0x0F) << (4 * step + 1)
            tariff |= (dife >> 4 & 3) << (2 * step)
            unit |= (dife >> 6 & 1) << step
        kind = dif & 0x0F
        if kind in (_SELECTION, _SPECIAL):
            raise Rejected(Reason.MALFORMED, f"record {self._index} has the data field {dif:02x}")
        meaning, codes = self._information()
        raw = self._variable() if kind == _LVAR else self._take(_SIZES[kind])
        value, invalid = self._value(kind, raw, meaning)
        told = _Told(meaning, value, invalid)
        told.apply(codes)
        return Record(
            told.meaning, told.value, raw, FUNCTIONS[dif >> 4 & 3], storage, tariff, unit, tuple(told.marks), told.foreign,
            told.invalid, kind == _REAL,
        )  # fmt: skip

    def _information(self) -> tuple[Meaning | None, list[int]]:
        """Read VIF and VIFE: what is measured, None for what is in no table, and the codes that change it.

        What follows a maker's own VIF is the maker's own too: it comes back behind FF, as it would behind another VIF.
        """
        vif = self._byte()
        code = vif & 0x7F
        text = None
        if code == 0x7C:
            # Text: its length stands before the extensions in some meters, behind them by the standard.
            text, extensions = self._text_information(vif)
        else:
            extensions = self._extensions(vif)
        if text is not None:
            return Meaning(f'"{text}"'), extensions  # in words of the meter: "volume" is no cubic metres
        if vif in (0xFB, 0xFD):
            if not extensions:
                return None, []
            table = FB if vif == 0xFB else FD
            return table.get(extensions[0] & 0x7F), extensions[1:]
        if code == MAKERS_OWN:
            return None, [MAKERS_OWN, *extensions]
        return PRIMARY.get(code), extensions

    def _text_information(self, vif: int) -> tuple[str, list[int]]:
        length = self._byte()
        text = self._take(length)[::-1].decode("latin-1")
        return "".join(one for one in text if one.isprintable()), self._extensions(vif)

    def _variable(self) -> bytes:
        length = self._byte()
        if length <= 0xBF:
            size = length
        elif length <= 0xC9 or 0xD0 <= length <= 0xD9 or 0xE0 <= length <= 0xEF:
            size = length & 0x0F
        elif 0xF0 <= length <= 0xF4:
            size = 4 * (length - 0xEC)
        else:
            raise Rejected(Reason.MALFORMED, f"record {self._index} has the length {length:02x}")
        return bytes([length]) + self._take(size)

    def _value(self, kind: int, raw: bytes, meaning: Meaning | None) -> tuple[Value, str]:
        if kind == _LVAR:
            return long_value(raw, high_first=self._high_first)
        if self._high_first:
            raw = raw[::-1]
        if not raw:
            return None, ""
        if meaning is not None and meaning.quantity in (DATE, DATE_TIME):
            return time(raw)
        if kind == _REAL:
            return real(raw)
        return digits(raw) if kind & 0x8 else whole(raw)


class _Told:
    """A value on its way through the codes that stand behind its VIF."""

    def __init__(self, meaning: Meaning | None, value: Value, invalid: str) -> None:
        self.meaning = meaning
        self.value = value
        self.invalid = invalid
        self.marks: list[str] = []
        self.foreign = b""
        if isinstance(value, Decimal) and meaning is not None:
            self.value = value.scaleb(meaning.exponent) * meaning.factor

    def apply(self, codes: list[int]) -> None:
        is_further = False
        for at, sent in enumerate(codes):
            code = sent & 0x7F
            if is_further:
                self._further(code)
            elif code == MAKERS_OWN:
                self.foreign += bytes(codes[at:])
                return
            elif code != FURTHER:
                self._apply(code)
            is_further = code == FURTHER and not is_further

    def _further(self, code: int) -> None:
        if code in PHASES:
            self.marks.append(PHASES[code])
        else:
            self.foreign += bytes([FURTHER, code])

    def _apply(self, code: int) -> None:
        if code in TOLD_APART:
            self.marks.append(TOLD_APART[code])
        elif code in MULTIPLIED:
            if isinstance(self.value, Decimal):
                self.value = self.value.scaleb(MULTIPLIED[code])
        elif code in ADDED:
            if isinstance(self.value, Decimal):
                self.value += Decimal(1).scaleb(ADDED[code])
        elif code in PROFILES:
            self.foreign += bytes([code])
        elif code == STANDARD_FLAGS:
            pass
        elif code == NON_METRIC:
            self.value, self.invalid = None, "in a unit that is not metric"
        elif NEUTRAL < code < 0x20:
            self.value, self.invalid = None, ERRORS.get(code, f"record error {code:02x}")
        elif code != NEUTRAL:
            self.foreign += bytes([code])


def _fixed(data: bytes, *, high_first: bool) -> Telegram:
    """Read the fixed structure: two counters, in packed digits or whole numbers."""
    if len(data) != 16:
        raise Rejected(Reason.MALFORMED, f"a fixed structure of {len(data)} bytes")
    order = 1 if high_first else -1
    number, access, status, first, second = data[:4][::order].hex(), data[4], data[5], data[6], data[7]
    medium = FIXED_MEDIA.get(first >> 6 | second >> 6 << 2, 0x0F)
    header = Header(number, medium=medium, access=access, status=status)
    is_binary, is_stored = bool(status & 0x01), bool(status & 0x02)
    return Telegram(
        header,
        tuple(_counters(data, (first & 0x3F, second & 0x3F), order=order, binary=is_binary, stored=is_stored)),
    )


def _counters(data: bytes, codes: tuple[int, int], *, order: int, binary: bool, stored: bool) -> Iterator[Record]:
    plain = codes[0] if codes[1] == FIXED_HISTORIC else codes[1]
    for index, code in enumerate((codes[0], plain)):
        raw = data[8 + 4 * index : 12 + 4 * index]
        low_first = raw[:: 1 if order == -1 else -1]
        value, invalid = whole(low_first) if binary else digits(low_first)
        meaning = FIXED.get(code)
        if value is not None and meaning is not None:
            value = value.scaleb(meaning.exponent)
        is_kept = stored or (index == 1 and codes[1] == FIXED_HISTORIC)
        yield Record(meaning, value, raw, storage=1 if is_kept else 0, invalid=invalid)

"""Heat, water, gas and electricity meters on an M-Bus (EN 13757): primary and secondary addresses, replies of several telegrams.

One poll; a letter a byte (all of it: `drivers.protocols.mbus`, what the data means: `mbus_records` and `mbus_meaning`):

    10 40 A S 16 -> E5                            the meter begins its turns anew (at 253: nobody is selected any more)
    68 0B 0B 68 53 FD 52 N... S 16 -> E5          selected, where the address is a secondary one
    10 7B A S 16 -> 68 L L 68 08 A 72 D... S 16   the data; 5B and 7B turn about while the meter says that more follows (1F)

Addresses: "0" to "250" (0 as meters leave the works); "254" for the only meter on a line; 8 digits of the number on the meter,
or 16 hexadecimal digits: number, maker, version, medium as `gateway scan` shows them; F in place of any digit fits all.

What a record is published as, and its channel: `mbus_readings`. The date of a storage goes with its readings. Whatever is no
quantity here (numbers, versions, what a maker marks with codes of its own) is counted as `records_unread`; a record that is
no number is told as refused. Bits of the status byte are told as low battery and as problem. The meter is never written to: the
protocol module can build resets of the link, questions and selections.

An encrypted telegram (security modes 5 and 7) is opened with the device's `key`, 32 hexadecimal digits. A frame names its meter
by the secondary address: a meter that jabbers is named, and one that was replaced is noticed (unless AA stands in that address).

Options: `utc_offset_h`, hours that the meter's clock is ahead of UTC (8); `timeout_s`, how long an answer may take, 1 to 20 s
(4; at 300 baud 12). Many battery meters allow one reading an hour only, so that is how often one is asked.

Not tried on hardware. Limits: 16 telegrams a reply, 2 tries each: a dead meter takes 10 s.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Final

from drivers.kit import (
    Answers,
    AnswerVector,
    Ask,
    BadOption,
    Decoded,
    LineSettings,
    NoReply,
    Reading,
    Reason,
    Rejected,
    Signal,
    SignalKind,
    Title,
)
from drivers.kit.options import known_keys, number
from drivers.kit.searching import Searching, lines
from drivers.protocols import mbus, mbus_readings, mbus_records, mbus_search, mbus_security
from drivers.protocols.mbus_records import Header, Telegram

MOST_TELEGRAMS: Final = 16
RESET_TIMEOUT_S: Final = 0.5
ACK_TIMEOUT_S: Final = 1.0
EVERY_S: Final = 3_600.0
ADDRESS: Final = Title(
    zh="主地址 0 到 250（线上只有一块表时可写 254），或表号 8 位，或二级地址 16 位十六进制（F 表示任意）",
    en="a primary address from 0 to 250 (254 for the only meter), the meter's 8 digits, or 16 hexadecimal digits (F fits any)",
)


@dataclass(frozen=True, slots=True)
class Target:
    """A meter: the primary address to ask at, the secondary address to select before ("" for none), its ways, and its key."""

    address: int
    secondary: str
    zone: timezone
    timeout_s: float
    key: bytes | None = field(default=None, repr=False)


def options(address: str, raw: Mapping[str, object]) -> Target:
    """Check address and options. Raises BadOption."""
    known_keys(raw, name="map", allowed=("utc_offset_h", "timeout_s"))
    raw = {"utc_offset_h": 8, "timeout_s": 4, **raw}
    hours = number(raw, "utc_offset_h", name="map", least=-12, most=14)
    timeout_s = number(raw, "timeout_s", name="map", least=1, most=20)
    zone = timezone(timedelta(hours=hours))
    if re.fullmatch("[0-9]{1,3}", address) and (int(address) <= mbus.MAX_PRIMARY or int(address) == mbus.ANYBODY):
        return Target(int(address), "", zone, timeout_s)
    secondary = address.upper() + ("FFFFFFFF" if len(address) == 8 else "")
    if not re.fullmatch("[0-9A-F]{16}", secondary):
        raise BadOption("address", address, ADDRESS.en, zh=ADDRESS.zh)
    return Target(mbus.SELECTED, secondary, zone, timeout_s)


def keyed(target: Target, key: bytes | None) -> Target:
    """Return the target with the device's key."""
    return replace(target, key=key)


def talk(target: Target) -> Generator[Ask, bytes, Decoded]:
    """Poll once. Raises Rejected where the meter refuses, another answers, or its reply is no reading; NoReply passes."""
    with suppress(NoReply):  # nobody need be selected, and not every meter says that it has understood
        yield Ask(mbus.reset_request(target.address), mbus.is_ack, RESET_TIMEOUT_S, retries=0)
    if target.secondary:
        reply = yield Ask(mbus.select_request(target.secondary), mbus.is_ack, ACK_TIMEOUT_S, retries=2)
        if not mbus.is_ack(reply):
            raise Rejected(Reason.NOT_MINE, "no acknowledgement of the selection")
    telegrams: list[Telegram] = []
    missing = ""
    while not telegrams or telegrams[-1].more:
        ask = Ask(
            mbus.data_request(target.address, turn=len(telegrams) % 2 == 0),
            lambda frame: mbus.answers(frame, address=target.address),
            target.timeout_s,
            retries=1,
        )
        try:
            reply = yield ask
        except NoReply:
            if not telegrams:
                raise
            missing = "no answer"
            break
        if not mbus.answers(reply, address=target.address):
            raise Rejected(Reason.NOT_MINE, "no answer to the question for data")
        if len(telegrams) == MOST_TELEGRAMS:
            missing = "one too many"
            break
        frame = mbus.parse(reply)
        telegram = mbus_records.read(frame.information, frame.data, key=target.key)
        _same_meter(target, telegram.header, telegrams)
        if telegrams and telegram.says_the_same(telegrams[-1]):
            missing = "the one before once more"
            break
        telegrams.append(telegram)
    return mbus_readings.readings(telegrams, zone=target.zone, missing=missing)


def _same_meter(target: Target, header: Header, before: list[Telegram]) -> None:
    """See that who answers is who was selected, and who answered before. Raises Rejected."""
    if before and header.number != before[0].header.number:
        raise Rejected(Reason.NOT_MINE, f"meter {header.number} goes on where {before[0].header.number} began")
    if target.secondary and header.secondary:
        pairs = zip(target.secondary, header.secondary.upper(), strict=True)
        if not all(asked in ("F", said) for asked, said in pairs):
            raise Rejected(Reason.NOT_MINE, f"meter {header.secondary} answers for {target.secondary}")


def sender(frame: bytes) -> str:
    """Return the secondary address of the meter that has sent a whole frame; its number where that is all; "" where none has."""
    try:
        parsed = mbus.parse(frame)
        header = mbus_records.header_of(parsed.information, parsed.data)
    except Rejected:
        return ""
    return (header.secondary or header.number).upper() if parsed.is_answer else ""


def _hex(data: str) -> bytes:
    return bytes.fromhex(data)


_ITRON: Final = datetime(2012, 1, 24, 13, 29, tzinfo=timezone(timedelta(hours=8)))
_WELL: Final = (
    Signal(SignalKind.LOW_BATTERY, level=False),
    Signal(SignalKind.PROBLEM, "permanent", "permanent", level=False),
    Signal(SignalKind.PROBLEM, "temporary", "temporary", level=False),
)

DRIVER = Answers(
    model="mbus",
    title=Title(zh="M-Bus 仪表（热、水、气、电）", en="M-Bus meter: heat, water, gas, electricity"),
    framer=mbus.framer,
    options=options,
    talk=talk,
    line=LineSettings(baud=2400, bits=8, parity="E", stop=1),
    sender=sender,
    keyed=keyed,
    key_bytes=mbus_security.KEY_BYTES,
    search=Searching(
        mbus_search.meters,
        lines("2400 8E1", "2400 8N1", "300 8E1", "9600 8E1"),
        questions=253,
        timeout_s=mbus_search.SEARCH_TIMEOUT_S,
    ),
    every_s=EVERY_S,
    vectors=(
        AnswerVector(
            source="libmbus (BSD-3-Clause, Raditex Control AB) itron_bm_+m.hex, water meter 11490378 (the requests are ours)",
            address="8",
            exchange=(
                (_hex("1040084816"), _hex("e5")),
                (
                    _hex("107b088316"),
                    _hex(
                        "683c3c680808727803491177040e16290000000c7878034911041331d40000426c000044130000"
                        "0000046d1d0d98110227000009fd0e0209fd0f060f00008f13e816"
                    ),
                ),
            ),
            expect=Decoded(
                (
                    Reading("volume_water", Decimal("54.321"), "", _ITRON),
                    Reading("volume_water", Decimal("0.000"), "S1"),
                    Reading("operating_time", Decimal(0), "", _ITRON),
                    Reading("status_word", Decimal(0)),
                    Reading("records_unread", Decimal(3)),
                    *_WELL,
                )
            ),
        ),
        AnswerVector(
            source="libmbus sen_pollusonic_2.hex: fixed structure, heat meter 91929393 that does not answer the reset",
            address="1",
            exchange=(
                (_hex("1040014116"), None),
                (_hex("107b017c16"), _hex("68131368080173939291901000056931650000690000003f16")),
            ),
            expect=Decoded(
                (
                    Reading("energy_heat", Decimal(6531)),
                    Reading("volume_heating", Decimal("0.069")),
                    Reading("status_word", Decimal(0)),
                    *_WELL,
                )
            ),
        ),
        AnswerVector(
            source="synthetic: a secondary address and two telegrams",
            address="12345678",
            exchange=(
                (_hex("1040fd3d16"), _hex("e5")),
                (_hex("680b0b6853fd5278563412ffffffffb216"), _hex("e5")),
                (_hex("107bfd7816"), _hex("68151568080572785634122440010755080000" + "0313153100" + "1fd716")),
                (_hex("105bfd5816"), _hex("68131368080572785634122440010756080000" + "02052a00" + "8e16")),
            ),
            expect=Decoded(
                (
                    Reading("volume_water", Decimal("12.565")),
                    Reading("energy_other", Decimal("4.2")),
                    Reading("status_word", Decimal(8)),
                    Signal(SignalKind.LOW_BATTERY, level=False),
                    Signal(SignalKind.PROBLEM, "permanent", "permanent", level=True),
                    Signal(SignalKind.PROBLEM, "temporary", "temporary", level=False),
                )
            ),
        ),
        AnswerVector(
            source="libmbus error/application_busy.hex, asked at 1",
            address="1",
            exchange=((_hex("1040014116"), _hex("e5")), (_hex("107b017c16"), _hex("68040468080170088116"))),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

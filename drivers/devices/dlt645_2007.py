"""Electricity meters that answer DL/T 645-2007 on RS-485, single-phase and three-phase.

One poll reads each configured register; a letter a byte (all of it: `drivers.protocols.dlt645`):

    FE FE FE FE 68 AAAAAA AAAAAA 68 11 04 IIII S 16            asked, I the identifier plus 33H
    68 AAAAAA AAAAAA 68 91 L IIII VVVV VVVV ... S 16           answered, V packed digits plus 33H
    68 AAAAAA AAAAAA 68 D1 01 E S 16                           refused, E the error word plus 33H

A register is asked as a block first (total and all tariffs, all phases); a meter that refuses the block is asked value
by value. What a meter refuses or has no value for (FF) is left out; a poll that brought nothing at all is rejected. The
meter is never written to: the protocol module cannot build such a frame.

Options: `registers`, the names of REGISTERS to read; `voltage_a` and `current_a` suit single-phase meters that fill the
phases they lack with zeros. The address is the 12 digits on the meter; AAAAAAAAAAAA asks the only meter on a line.

Limits: at most 6 requests a register and 1.5 s a request, so that a poll of the four default registers makes 4 requests
with most meters and 15 at worst.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from decimal import Decimal
from typing import Final

from drivers.kit import Answers, AnswerVector, Ask, LineSettings, Observation, Reading, Reason, Title
from drivers.protocols import dlt645
from drivers.protocols.dlt645_poll import Edition, Register, Target
from drivers.protocols.dlt645_poll import options as checked
from drivers.protocols.dlt645_poll import poll as polled


def _tariffs(kind: int) -> Register:
    return Register(kind | 0xFF00, tuple(kind | tariff << 8 for tariff in range(5)))


def _phases(kind: int, *, first: int) -> Register:
    return Register(kind | 0xFF00, tuple(kind | part << 8 for part in range(first, 4)))


REGISTERS: Final[Mapping[str, Register]] = {
    "energy_active_import": _tariffs(0x00010000),
    "energy_active_export": _tariffs(0x00020000),
    "energy_active_combined": _tariffs(0x00000000),
    "energy_reactive_1": _tariffs(0x00030000),
    "energy_reactive_2": _tariffs(0x00040000),
    "voltage": _phases(0x02010000, first=1),
    "voltage_a": Register(0x02010100),
    "current": _phases(0x02020000, first=1),
    "current_a": Register(0x02020100),
    "current_neutral": Register(0x02800001),
    "power_active": Register(0x02030000),
    "power_active_phases": _phases(0x02030000, first=0),
    "power_reactive": Register(0x02040000),
    "power_reactive_phases": _phases(0x02040000, first=0),
    "power_apparent": Register(0x02050000),
    "power_apparent_phases": _phases(0x02050000, first=0),
    "power_factor": Register(0x02060000),
    "power_factor_phases": _phases(0x02060000, first=0),
    "frequency": Register(0x02800002),
}
DEFAULT_REGISTERS: Final = ("energy_active_import", "voltage", "current", "power_active")

ADDRESS: Final = Title(
    zh="表上的 12 位表号；线上只有这一块表时可写 AAAAAAAAAAAA",
    en="the 12 digits on the meter, or AAAAAAAAAAAA for the only one",
)

# 20 bytes out and 40 back take 275 ms at 2400 baud; the meter may think for 500 ms (DL/T 645-2007, 5.4).
TIMEOUT_S: Final = 1.5

EDITION: Final = Edition(
    REGISTERS,
    dlt645.read_request,
    dlt645.answers,
    dlt645.readings,
    dlt645.Frame.refusal,
    digits=8,
    timeout_s=TIMEOUT_S,
)


def options(address: str, raw: Mapping[str, object]) -> Target:
    """Check address and options. Raises BadOption."""
    return checked(address, raw, registers=REGISTERS, default=DEFAULT_REGISTERS, expected=ADDRESS)


def talk(target: Target) -> Generator[Ask, bytes, tuple[Observation, ...]]:
    """Poll once. Raises Rejected where nothing could be read, or a reply is no reading; NoReply passes."""
    return polled(target, EDITION)


def _hex(data: str) -> bytes:
    return bytes.fromhex(data)


DRIVER = Answers(
    model="dlt645-2007",
    title=Title(zh="DL/T 645-2007 电能表", en="DL/T 645-2007 electricity meter"),
    framer=dlt645.framer,
    options=options,
    talk=talk,
    line=LineSettings(baud=2400, bits=8, parity="E", stop=1),
    vectors=(
        AnswerVector(
            source="C source of a PLC collector, serial log of 2014-11-28, meter 000000193600",
            address="000000193600",
            options={"registers": ["energy_active_import"]},
            exchange=(
                (
                    _hex("fefefefe68003619000000681104333234330016"),
                    _hex("680036190000006891183332343363693333893533334c3333336b3333334a663333e916"),
                ),
            ),
            expect=(
                Reading("energy_active_import", Decimal("36.30")),
                Reading("energy_active_import", Decimal("2.56"), "T1"),
                Reading("energy_active_import", Decimal("0.19"), "T2"),
                Reading("energy_active_import", Decimal("0.38"), "T3"),
                Reading("energy_active_import", Decimal("33.17"), "T4"),
            ),
        ),
        AnswerVector(
            source="Python HPLC minute-collection test, single-phase meter 231214000134: FF where there is no phase",
            address="231214000134",
            options={"registers": ["voltage"]},
            exchange=(
                (
                    _hex("fefefefe68340100141223681104333234353116"),
                    _hex("6834010014122368910a33323435a456323232327916"),
                ),
            ),
            expect=(Reading("voltage", Decimal("237.1"), "A"),),
        ),
        AnswerVector(
            source="WKJay/DLT645 issue #10: a meter that answers the wildcard with the wildcard",
            address="AAAAAAAAAAAA",
            options={"registers": ["voltage_a"]},
            exchange=(
                (_hex("fefefefe68aaaaaaaaaaaa68110433343435b116"), _hex("68aaaaaaaaaaaa6891063334343533339916")),
            ),
            expect=(Reading("voltage", Decimal("0.0"), "A"),),
        ),
        AnswerVector(
            source="Java AmmeterUtils of an NB-IoT platform, meter 111111111111: no such data",
            address="111111111111",
            options={"registers": ["voltage_a"]},
            exchange=((_hex("fefefefe68111111111111681104333434351b16"), _hex("fefefefe6811111111111168d101353d16")),),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

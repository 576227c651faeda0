"""Electricity meters that answer DL/T 645-1997 on RS-485: old ones, and many submeters that know nothing newer.

One poll reads each configured register; a letter a byte (all of it: `drivers.protocols.dlt645_1997`):

    FE FE FE FE 68 AAAAAA AAAAAA 68 01 02 II S 16      asked, I the identifier plus 33H
    68 AAAAAA AAAAAA 68 81 L II VV VV ... S 16         answered, V packed digits plus 33H
    68 AAAAAA AAAAAA 68 C1 01 E S 16                   refused, E the error word

A register is asked as a block first (total and all tariffs, all phases); a meter that refuses the block is asked value
by value. What a meter refuses or has no value for (FF) is left out; a poll that brought nothing at all is rejected. The
meter is never written to: the protocol module cannot build such a frame.

Options: `registers`, the names of REGISTERS to read. The address is the 12 digits on the meter; AAAAAAAAAAAA asks the
only meter on a line, 999999999999 one that does not answer to that. A meter may speak both editions: try dlt645-2007 first.

Limits: at most 6 requests a register and 2 s a request, so that a poll of the four default registers makes 4 requests
with most meters and 17 at worst.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from decimal import Decimal
from typing import Final

from drivers.kit import Answers, AnswerVector, Ask, LineSettings, Observation, Reading, Reason, Title
from drivers.protocols import dlt645, dlt645_1997
from drivers.protocols.dlt645_poll import Edition, Register, Target
from drivers.protocols.dlt645_poll import options as checked
from drivers.protocols.dlt645_poll import poll as polled


def _tariffs(kind: int) -> Register:
    return Register(kind | 0x0F, tuple(kind | tariff for tariff in range(5)))


def _phases(kind: int, *, first: int) -> Register:
    return Register(kind | 0x0F, tuple(kind | part for part in range(first, 4)))


REGISTERS: Final[Mapping[str, Register]] = {
    "energy_active_import": _tariffs(0x9010),
    "energy_active_export": _tariffs(0x9020),
    "energy_active_combined": _tariffs(0x9000),
    "energy_reactive_import": _tariffs(0x9110),
    "energy_reactive_export": _tariffs(0x9120),
    "voltage": _phases(0xB610, first=1),
    "current": _phases(0xB620, first=1),
    "power_active": _phases(0xB630, first=0),
}
DEFAULT_REGISTERS: Final = ("energy_active_import", "voltage", "current", "power_active")
ADDRESS: Final = Title(
    zh="表上的 12 位表号；线上只有这一块表时可写 AAAAAAAAAAAA 或 999999999999",
    en="the 12 digits on the meter; AAAAAAAAAAAA or 999999999999 for the only one",
)

# 43 bytes back take 394 ms at 1200 baud; the meter may think for 500 ms.
TIMEOUT_S: Final = 2.0

EDITION: Final = Edition(
    REGISTERS,
    dlt645_1997.read_request,
    dlt645_1997.answers,
    dlt645_1997.readings,
    dlt645_1997.refusal,
    digits=4,
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


_LOG: Final = "KTS-Intek/DLT645 test-exchange-dlt645-97.log"

DRIVER = Answers(
    model="dlt645-1997",
    title=Title(zh="DL/T 645-1997 电能表", en="DL/T 645-1997 electricity meter"),
    framer=dlt645.framer,
    options=options,
    talk=talk,
    line=LineSettings(baud=1200, bits=8, parity="E", stop=1),
    vectors=(
        AnswerVector(
            source=f"{_LOG}, DTSD22",
            address="000000063295",
            options={"registers": ["energy_active_import"]},
            exchange=(
                (
                    _hex("fefefefe6895320600000068010252c3b516"),
                    _hex("6895320600000068811652c36c33333333333333363333335733333345333333b716"),
                ),
            ),
            expect=(
                Reading("energy_active_import", Decimal("0.39")),
                Reading("energy_active_import", Decimal("0.00"), "T1"),
                Reading("energy_active_import", Decimal("0.03"), "T2"),
                Reading("energy_active_import", Decimal("0.24"), "T3"),
                Reading("energy_active_import", Decimal("0.12"), "T4"),
            ),
        ),
        AnswerVector(
            source="icprog/dlt698.45 cjdeal/read485.c:1551: spare zeros and the end of a block",
            address="AAAAAAAAAAAA",
            options={"registers": ["energy_active_import"]},
            exchange=(
                (
                    _hex("fefefefe68aaaaaaaaaaaa68010252c3e416"),
                    _hex("6875000000000068811f52c363c63a345b685333b7c86333b48b5b336a365b333333333333333333dd5f16"),
                ),
            ),
            expect=(
                Reading("energy_active_import", Decimal("10793.30")),
                Reading("energy_active_import", Decimal("2035.28"), "T1"),
                Reading("energy_active_import", Decimal("3095.84"), "T2"),
                Reading("energy_active_import", Decimal("2858.81"), "T3"),
                Reading("energy_active_import", Decimal("2803.37"), "T4"),
            ),
        ),
        AnswerVector(
            source=f"{_LOG}, DTSD22: the block is refused (frame of another identifier), one phase is given",
            address="999999999999",
            options={"registers": ["voltage"]},
            exchange=(
                (_hex("fefefefe6899999999999968010252e9a416"), _hex("6895320600000068c101359416")),
                (_hex("fefefefe6899999999999968010244e99616"), _hex("6895320600000068810444e93333b516")),
                (_hex("fefefefe6899999999999968010245e99716"), _hex("6895320600000068c101359416")),
                (_hex("fefefefe6899999999999968010246e99816"), _hex("6895320600000068c101359416")),
            ),
            expect=(Reading("voltage", Decimal(0), "A"),),
        ),
        AnswerVector(
            source=f"{_LOG}, DTSF22: no such data (the requests are ours)",
            address="201708176934",
            options={"registers": ["power_active"]},
            exchange=tuple(
                (_hex(request), _hex("fefefefe6834691708172068c10135ba16"))
                for request in (
                    "fefefefe6834691708172068010272e92116",
                    "fefefefe6834691708172068010263e91216",
                    "fefefefe6834691708172068010264e91316",
                    "fefefefe6834691708172068010265e91416",
                    "fefefefe6834691708172068010266e91516",
                )
            ),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

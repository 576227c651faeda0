"""Electricity meters that answer DL/T 645-1997 on RS-485: old ones, and many submeters that know nothing newer.

One poll reads each configured register; a letter a byte (all of it: `drivers.protocols.dlt645_1997`):

    FE FE FE FE 68 AAAAAA AAAAAA 68 01 02 II S 16      asked, I the identifier plus 33H
    68 AAAAAA AAAAAA 68 81 L II VV VV ... S 16         answered, V packed digits plus 33H
    68 AAAAAA AAAAAA 68 C1 01 E S 16                   refused, E the error word

A register is asked as a block first (total and all tariffs, all phases); a meter that refuses the block is asked value
by value. A value that the meter does not have (FF) is left out; a register that cannot be read is told by its name and why. The
meter is never written to: the protocol module cannot build such a frame.

Options: `registers`, the names of REGISTERS to read (or identifiers of the tables, 4 hexadecimal digits), first one that the
meter surely has; among them "clock" puts the meter's own time to each reading. The address is the 12 digits on the meter;
AAAAAAAAAAAA asks the only meter on a line, 999999999999 one that does not answer to that. A meter may speak both editions: try
dlt645-2007 first.

Limits: 2 s a request; the four default registers take 4 requests with most meters and 17 at worst, any poll 60.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from decimal import Decimal
from functools import partial
from typing import Final

from drivers.kit import Answers, AnswerVector, Ask, LineSettings, Polled, Reading, Reason, Title
from drivers.kit.searching import Searching, lines
from drivers.protocols import dlt645, dlt645_1997, meter_search
from drivers.protocols import dlt645_1997_tables as tables
from drivers.protocols.dlt645_poll import Edition, Register, Target
from drivers.protocols.dlt645_poll import options as checked
from drivers.protocols.dlt645_poll import poll as polled


def _blocks() -> dict[str, Register]:
    """Name what is split by tariffs or phases, now; before, "..._month_1" and "..._month_2"."""
    found = {}
    for group, (field, channels, first) in tables.GROUPS.items():
        by_tariff = len(channels) == len(tables.TARIFFS)
        singles = range(5) if by_tariff else range(first, 4)
        month = f"_month_{group >> 10 & 3}" if by_tariff and group >> 10 & 3 else ""
        name = field.quantity.removeprefix("meter_") + month
        found[name] = Register(group | tables.ALL, tuple(group | digit for digit in singles))
    return found


REGISTERS: Final[Mapping[str, Register]] = {
    **_blocks(),
    "programmings": Register(0xB212),
    "demand_resets": Register(0xB213),
    "battery_time": Register(0xB214),
    "status_meter": Register(0xC020),
    "status_grid": Register(0xC021),
    "constant_active": Register(0xC030),
    "constant_reactive": Register(0xC031),
}
DEFAULT_REGISTERS: Final = ("energy_active_import", "voltage", "current", "power_active")
ADDRESS: Final = Title(
    zh="表上的 12 位表号；线上只有这一块表时可写 AAAAAAAAAAAA 或 999999999999",
    en="the 12 digits on the meter; AAAAAAAAAAAA or 999999999999 for the only one",
)

# 43 bytes back take 394 ms at 1200 baud; the meter may think for 500 ms.
TIMEOUT_S: Final = 2.0


def _next_part(address: str, identifier: int, _part: int) -> tuple[bytes, Callable[[bytes], bool]]:
    pairs = partial(dlt645_1997.answers_next, address=address, identifier=identifier)
    return dlt645_1997.next_request(address, identifier), pairs


EDITION: Final = Edition(
    registers=REGISTERS,
    read_request=dlt645_1997.read_request,
    answers=dlt645_1997.answers,
    next_part=_next_part,
    numbered=False,
    value_of=dlt645_1997.value_of,
    decode=dlt645_1997.decode,
    layout=tables.layout,
    clock=dlt645_1997.clock,
    clock_identifiers=(tables.DATE, tables.TIME),
    refusal=dlt645_1997.refusal,
    digits=4,
    timeout_s=TIMEOUT_S,
)


def described() -> Iterator[tuple[str, str, str]]:
    """Name each register with its identifier and what it holds, for the reference."""
    for name, register in REGISTERS.items():
        yield name, f"{register.identifier:04X}", tables.layout(register.identifier).fields[0].quantity


def options(address: str, raw: Mapping[str, object]) -> Target:
    """Check address and options. Raises BadOption."""
    return checked(address, raw, edition=EDITION, default=DEFAULT_REGISTERS, expected=ADDRESS)


def talk(target: Target) -> Generator[Ask, bytes, Polled]:
    """Poll once. Raises Rejected where nothing could be read, or a reply is not the meter's; NoReply passes."""
    found = yield from polled(target, EDITION)
    return found.end(tuple(found.readings.values()))


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
    sender=dlt645.sender,
    search=Searching(
        meter_search.dlt645_1997_meters,
        lines("1200 8E1", "2400 8E1", "9600 8E1", "2400 8N1", "9600 8N1"),
        questions=2,
        timeout_s=meter_search.TIMEOUT_S,
    ),
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
                (_hex("fefefefe6895320600000068010244e9cd16"), _hex("6895320600000068810444e93333b516")),
                (_hex("fefefefe6895320600000068010245e9ce16"), _hex("6895320600000068c101359416")),
                (_hex("fefefefe6895320600000068010246e9cf16"), _hex("6895320600000068c101359416")),
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

"""Electricity meters that answer DL/T 645-2007 on RS-485, single-phase and three-phase.

One poll reads each configured register; a letter a byte (all of it: `drivers.protocols.dlt645_2007`):

    FE FE FE FE 68 AAAAAA AAAAAA 68 11 04 IIII S 16            asked, I the identifier plus 33H
    68 AAAAAA AAAAAA 68 91 L IIII VVVV VVVV ... S 16           answered, V packed digits plus 33H
    68 AAAAAA AAAAAA 68 D1 01 E S 16                           refused, E the error word plus 33H

A register is asked as a block first (total and all tariffs, all phases); a meter that refuses the block is asked value
by value. A value that the meter does not have (FF) is left out; a register that cannot be read is told by its name and why. The
meter is never written to: the protocol module cannot build such a frame.

Options: `registers`, the names of REGISTERS to read (or identifiers of the tables, 8 hexadecimal digits), first one that the
meter surely has; among them "clock" puts the meter's own time to each reading, "status" reads its status words and tells faults
and opened covers. `daily_freezes`: how many days back the meter's own midnight readings are read, each with its time.
`voltage_a` and `current_a` suit single-phase meters that fill the phases they lack with zeros. The address is the 12 digits on
the meter; AA stands for any two: AAAAAAAAAAAA asks the only meter on a line, AAAAAAAA3600 the one whose number ends so.

Limits: 1.5 s a request; the four default registers take 4 requests with most meters and 15 at worst, any poll 60.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Final

from drivers.kit import Answers, AnswerVector, Ask, LineSettings, Polled, Reading, Reason, Rejected, Title
from drivers.kit.options import number
from drivers.kit.searching import Searching, lines
from drivers.protocols import dlt645, dlt645_2007, meter_search
from drivers.protocols import dlt645_2007_tables as tables
from drivers.protocols.dlt645_layout import Field, stamp
from drivers.protocols.dlt645_poll import MAX_DAILY_FREEZES, Conversation, Edition, Register, Target
from drivers.protocols.dlt645_poll import options as checked
from drivers.protocols.dlt645_poll import poll as polled
from drivers.protocols.dlt645_status import signals


def _tariffs(identifier: int) -> Register:
    return Register(identifier | 0xFF00, tuple(identifier | tariff << 8 for tariff in range(5)))


def _phases(identifier: int, *, first: int) -> Register:
    return Register(identifier | 0xFF00, tuple(identifier | part << 8 for part in range(first, 4)))


def _energies(group: int, table: Mapping[int, tuple[Field, str]]) -> dict[str, Register]:
    """Name the energies, or the demands: in total by tariffs, by phase "..._a" and so on."""
    found = {}
    for kind, (field, phase) in table.items():
        identifier = group << 24 | kind << 16
        name = f"{field.quantity}_{phase.lower()}" if phase else field.quantity
        found[name] = _tariffs(identifier) if kind <= 0x0A else Register(identifier)
    return found


def _variables() -> dict[str, Register]:
    """Name the variables: the block of all phases, and single ones "..._a" and so on."""
    found = {}
    for kind, (field, channels) in tables.VARIABLES.items():
        identifier, first = 0x02000000 | kind << 16, 4 - len(channels)
        name = field.quantity.removeprefix("meter_")
        found[name if first else f"{name}_phases"] = _phases(identifier, first=first)
        found |= {f"{name}_{'abc'[part - 1]}": Register(identifier | part << 8) for part in range(1, 4)}
        if not first:
            found[name] = Register(identifier)
    for kind, name in ((0x0A, "voltage_harmonics"), (0x0B, "current_harmonics")):
        found |= {f"{name}_{'abc'[part - 1]}": Register(0x020000FF | kind << 16 | part << 8) for part in range(1, 4)}
    return found


STATUS: Final = "status"
REGISTERS: Final[Mapping[str, Register]] = {
    **_energies(0x00, tables.ENERGIES),
    **_variables(),
    "current_neutral": Register(0x02800001),
    "frequency": Register(0x02800002),
    "power_active_minute": Register(0x02800003),
    "power_active_demand": Register(0x02800004),
    "power_reactive_demand": Register(0x02800005),
    "power_apparent_demand": Register(0x02800006),
    "temperature": Register(0x02800007),
    "battery_clock": Register(0x02800008),
    "battery_readout": Register(0x02800009),
    "battery_time": Register(0x0280000A),
    "price": Register(0x0280000B),
    "energy_credit": Register(0x00900100),
    "energy_overdraft": Register(0x00900101),
    "credit": Register(0x00900200),
    "overdraft": Register(0x00900201),
    "constant_active": Register(0x04000409),
    "constant_reactive": Register(0x0400040A),
    "power_failures": Register(0x03110000),
    "programmings": Register(0x03300000),
    "clearings": Register(0x03300100),
    "demand_resets": Register(0x03300200),
    "clock_settings": Register(0x03300400),
    "cover_openings": Register(0x03300D00),
    "terminal_openings": Register(0x03300E00),
    **_energies(0x01, tables.DEMANDS),
    STATUS: Register(tables.STATUS_BLOCK, tables.STATUS_WORDS),
}
DEFAULT_REGISTERS: Final = ("energy_active_import", "voltage", "current", "power_active")

ADDRESS: Final = Title(
    zh="表上的 12 位表号；线上只有这一块表时可写 AAAAAAAAAAAA",
    en="the 12 digits on the meter, or AAAAAAAAAAAA for the only one",
)

# 20 bytes out and 40 back take 275 ms at 2400 baud; the meter may think for 500 ms (DL/T 645-2007, 5.4).
TIMEOUT_S: Final = 1.5


def _next_part(address: str, identifier: int, part: int) -> tuple[bytes, Callable[[bytes], bool]]:
    pairs = partial(dlt645_2007.answers_next, address=address, identifier=identifier, part=part)
    return dlt645_2007.next_request(address, identifier, part), pairs


EDITION: Final = Edition(
    registers=REGISTERS,
    read_request=dlt645_2007.read_request,
    answers=dlt645_2007.answers,
    next_part=_next_part,
    numbered=True,
    value_of=dlt645_2007.value_of,
    decode=dlt645_2007.decode,
    layout=tables.layout,
    clock=dlt645_2007.clock,
    clock_identifiers=(tables.DATE, tables.TIME),
    refusal=dlt645.Frame.refusal,
    digits=8,
    timeout_s=TIMEOUT_S,
)


def described() -> Iterator[tuple[str, str, str]]:
    """Name each register with its identifier and what it holds, for the reference."""
    for name, register in REGISTERS.items():
        yield name, f"{register.identifier:08X}", tables.layout(register.identifier).fields[0].quantity


def options(address: str, raw: Mapping[str, object]) -> Target:
    """Check address and options. Raises BadOption."""
    allowed = ("registers", "daily_freezes")
    target = checked(address, raw, edition=EDITION, default=DEFAULT_REGISTERS, expected=ADDRESS, allowed=allowed)
    days = number(raw, "daily_freezes", name="map", least=0, most=MAX_DAILY_FREEZES, default=0)
    return replace(target, daily_freezes=int(days))


def talk(target: Target) -> Generator[Ask, bytes, Polled]:
    """Poll once. Raises Rejected where nothing could be read, or a reply is not the meter's; NoReply passes."""
    found = yield from polled(target, EDITION)
    if target.daily_freezes:
        yield from _freezes(found, target)
    readings = tuple(found.readings.values())
    return found.end((*readings, *signals(readings)))


def history(target: Target, days: int) -> Target:
    """Return the target that reads the last `days` midnights, too."""
    return replace(target, daily_freezes=max(target.daily_freezes, min(days, MAX_DAILY_FREEZES)))


def _freezes(found: Conversation, target: Target) -> Generator[Ask, bytes, None]:
    """Read the energies that the meter froze at midnight, each with the time of its freeze.

    All of it moves by a day when midnight comes: then the time of the last freeze is another after than before, and nothing
    of what was read in between is sure.
    """
    kinds = [0x01, *([0x02] if "energy_active_export" in target.registers else [])]
    first, before = None, dict(found.readings)
    for back in range(1, target.daily_freezes + 1):
        name = f"daily_freeze_{back}"
        if found.is_over():
            found.refused.append(f"{name} = not asked any more")
            break
        when = yield from found.data(tables.DAILY | back)
        first = when if back == 1 else first
        try:
            at = None if when is None else stamp(when)
        except Rejected as rejected:
            at, found.why = None, rejected.detail
        if at is None:
            found.refused.append(f"{name} = {found.why or 'the meter has none'}")
            continue
        for kind in kinds:
            identifier = tables.DAILY | kind << 8 | back
            value = yield from found.data(identifier)
            if value is None:
                found.refused.append(f"{name} = {found.why}")
            else:
                found.take(identifier, value, name, at)
    if first is not None and (yield from found.data(tables.DAILY | 1)) != first:
        found.readings = before
        found.refused.append("daily_freezes = a day ended while they were read")


def _hex(data: str) -> bytes:
    return bytes.fromhex(data)


DRIVER = Answers(
    model="dlt645-2007",
    title=Title(zh="DL/T 645-2007 电能表", en="DL/T 645-2007 electricity meter"),
    framer=dlt645.framer,
    options=options,
    talk=talk,
    line=LineSettings(baud=2400, bits=8, parity="E", stop=1),
    sender=dlt645.sender,
    search=Searching(
        meter_search.dlt645_2007_meters,
        lines("2400 8E1", "9600 8E1", "1200 8E1", "4800 8E1", "2400 8N1", "9600 8N1"),
        questions=2,
        timeout_s=meter_search.TIMEOUT_S,
    ),
    history=history,
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

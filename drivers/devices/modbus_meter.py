"""Electricity meters that answer Modbus RTU: Eastron SDM, Chint DTSU666 and DDSU666, Acrel ADL and DTSD. Read only.

One poll reads the blocks of the map; a letter a byte (all of it: `drivers.protocols.modbus`, the maps: `modbus_maps`):

    U F AAAA NNNN SS        asked: unit, function 03 or 04, first register, how many, CRC-16
    U F L D... SS           answered
    U F+80 E SS             refused, by name

Nothing is published before the probe of the map has passed: voltages, frequency and power factor are those of a supply,
power is no more than voltage times current, totals are sums. Registers that are floats elsewhere, words in another order,
and the map of a sister model do not pass it. A meter that keeps a transformer ratio is refused until the configuration says
that its registers were compared with the dial.

A meter that has a number in its registers (SDM120, SDM230, SDM630) is asked for it last: then one that was replaced is noticed. A
reply names no more than the unit, which is who jabbers.

Options: `meter`, the map (MAPS); `transformers = "settled"`, once the registers were compared with the dial and `ct` and `pt` of
the device are set so that they agree (1 where the meter multiplies itself). The address is the unit, 1 to 247.

Not tried on hardware. Limits: 4 requests a poll, each tried 3 times (the last once), 1 s a try.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Final

from drivers.kit import (
    Answers,
    AnswerVector,
    Ask,
    BadOption,
    Decoded,
    LineSettings,
    Names,
    NoReply,
    Polled,
    Reading,
    Reason,
    Rejected,
    Title,
)
from drivers.kit.options import choice, known_keys
from drivers.kit.searching import Found, Search, Searching, lines
from drivers.protocols import modbus, modbus_maps
from drivers.protocols.modbus_maps import MAPS, RegisterMap

ADDRESS: Final = Title(zh="设备地址 1 到 247", en="a unit from 1 to 247")
# 165 bytes back take 189 ms at 9600 baud, 755 ms at 2400; meters answer within 100 ms.
TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """A meter: its unit, its map, and whether what its transformers mean is known."""

    unit: int
    map: RegisterMap
    settled: bool


def options(address: str, raw: Mapping[str, object]) -> Target:
    """Check address and options. Raises BadOption."""
    if not re.fullmatch("[0-9]{1,3}", address) or not 1 <= int(address) <= modbus.MAX_UNIT:
        raise BadOption("address", address, ADDRESS.en, zh=ADDRESS.zh)
    known_keys(raw, name="map", allowed=("meter", "transformers"))
    chosen = MAPS[choice(raw, "meter", name="map", among=MAPS)]
    if "transformers" in raw:
        choice(raw, "transformers", name="map", among=("settled",))
    return Target(int(address), chosen, settled="transformers" in raw)


def talk(target: Target) -> Generator[Ask, bytes, Polled]:
    """Poll once. Raises Rejected where the meter refuses or the probe does not pass; NoReply passes."""
    registers: dict[int, bytes] = {}
    for block in target.map.blocks:

        def answers(frame: bytes, block: modbus.Block = block) -> bool:
            return modbus.answers(frame, unit=target.unit, function=block.function, count=block.count)

        reply = yield Ask(
            modbus.read_request(target.unit, block.function, block.first, block.count), answers, TIMEOUT_S
        )  # fmt: skip
        if not answers(reply):
            raise Rejected(Reason.NOT_MINE, f"no reply to the registers from {block.first:04X} on")
        said = modbus.parse(reply)
        if said.exception == modbus.ILLEGAL_ADDRESS and block.optional:
            continue
        if said.exception:
            raise Rejected(Reason.UNSUPPORTED, f"registers from {block.first:04X} on: {said.refusal()}")
        for index in range(block.count):
            registers[block.first + index] = said.registers[2 * index : 2 * index + 2]
    readings = modbus_maps.read(target.map, registers, settled=target.settled)
    number = "" if target.map.serial is None else (yield from _number(target, target.map.serial))
    return Decoded(readings, meter=number) if number else readings


def _number(target: Target, block: modbus.Block) -> Generator[Ask, bytes, str]:
    """Ask for the meter's own number, once; "" where it has none or says nothing, for all else was read."""
    there = partial(modbus.answers, unit=target.unit, function=block.function, count=block.count)
    try:
        reply = yield Ask(
            modbus.read_request(target.unit, block.function, block.first, block.count), there, TIMEOUT_S, retries=0
        )
    except NoReply:
        return ""
    return modbus_maps.number_of(modbus.parse(reply).registers) if there(reply) else ""


def _hex(data: str) -> bytes:
    return bytes.fromhex(data)


SEARCH_TIMEOUT_S: Final = 0.2


def _search() -> Search:
    """Ask each unit for one register: whoever is there answers, if only that he has none. Then see which map fits him."""
    for unit in range(1, modbus.MAX_UNIT + 1):
        there = partial(modbus.answers, unit=unit, function=3, count=1)
        heard = yield Ask(modbus.read_request(unit, 3, 0, 1), there, SEARCH_TIMEOUT_S, retries=0)
        if heard.frame is not None:
            yield from _recognised(unit)


def _recognised(unit: int) -> Search:
    """Try each map. Of those that fit the one that shows most is the meter's: a map of one phase fits a meter of three, too."""
    fitting: dict[str, int] = {}
    for name, chosen in MAPS.items():
        talking = talk(Target(unit, chosen, settled=True))
        try:
            ask = next(talking)
            while True:
                heard = yield replace(ask, retries=1)
                ask = talking.send(heard.frame) if heard.frame is not None else talking.throw(NoReply())
        except StopIteration as end:
            polled: Polled = end.value
            observations = polled.observations if isinstance(polled, Decoded) else polled
            fitting[name] = sum(isinstance(one, Reading) and one.value != 0 for one in observations)
        except (NoReply, Rejected):
            continue
    if fitting:
        first, *others = sorted(fitting, key=lambda name: -fitting[name])
        also = f"also fits: {', '.join(others)}" if others else ""
        yield Found(str(unit), {"meter": first}, about=also)
    else:
        yield Found(str(unit), about="no register map fits", complete=False)


DRIVER = Answers(
    model="modbus-meter",
    title=Title(
        zh="Modbus RTU 电能表（安科瑞、正泰、Eastron）", en="Modbus RTU electricity meter: Acrel, Chint, Eastron"
    ),
    framer=modbus.framer,
    options=options,
    talk=talk,
    line=LineSettings(baud=9600, bits=8, parity="N", stop=1),
    sender=modbus.sender,
    names=Names.PLACE,
    search=Searching(
        _search,
        lines("9600 8N1", "2400 8N1", "9600 8E1", "19200 8N1"),
        questions=modbus.MAX_UNIT,
        timeout_s=SEARCH_TIMEOUT_S,
    ),
    vectors=(
        AnswerVector(
            source="synthetic, around the recorded 4365E666 = 229.9 V at 2000 of a CH57x firmware: Chint DDSU666",
            address="1",
            options={"meter": "chint-ddsu666"},
            exchange=(
                (
                    _hex("0103200000104fc6"),
                    _hex("0103204365e6663f9df3b63e8fdf3b3d4ccccd000000003f7d70a40000000042480a3dcfc0"),
                ),
                (_hex("01034000000c500f"), _hex("010318449a51ec000000000000000000000000000000003df5c28fc54e")),
            ),
            expect=(
                Reading("voltage", Decimal("229.9"), "A"),
                Reading("current", Decimal("1.234"), "A"),
                Reading("power_active", Decimal("0.281"), "A"),
                Reading("power_reactive", Decimal("0.05"), "A"),
                Reading("power_factor", Decimal("0.99"), "A"),
                Reading("frequency", Decimal("50.01")),
                Reading("energy_active_import", Decimal("1234.56")),
                Reading("energy_active_export", Decimal("0.12")),
            ),
        ),
        AnswerVector(
            source="synthetic: an Eastron SDM72, of which the sum of energies is all that proves it",
            address="2",
            options={"meter": "eastron-sdm72"},
            exchange=(
                (_hex("0204003400023036"), _hex("02040444bb8000cd91")),
                (_hex("02040048000471ec"), _hex("020408444b200040500000c73f")),
                (_hex("02040156000691d7"), _hex("02040c444bf0004120000000000000b75e")),
            ),
            expect=(
                Reading("power_active", Decimal("1.5")),
                Reading("energy_active_import", Decimal("812.5")),
                Reading("energy_active_export", Decimal("3.25")),
                Reading("energy_active_combined", Decimal("815.75")),
            ),
        ),
        AnswerVector(
            source="synthetic: the words of each float exchanged",
            address="1",
            options={"meter": "chint-ddsu666"},
            exchange=(
                (
                    _hex("0103200000104fc6"),
                    _hex("010320e6664365f3b63f9ddf3b3e8fcccd3d4c0000000070a43f7d000000000a3d42488ea3"),
                ),
                (_hex("01034000000c500f"), _hex("01031851ec449a00000000000000000000000000000000c28f3df5a78a")),
            ),
            expect=Reason.IMPLAUSIBLE,
        ),
        AnswerVector(
            source="synthetic: no such registers",
            address="1",
            options={"meter": "chint-ddsu666"},
            exchange=((_hex("0103200000104fc6"), _hex("018302c0f1")),),
            expect=Reason.UNSUPPORTED,
        ),
    ),
)

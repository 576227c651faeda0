"""Register maps of Modbus meters as data, one reader for all of them, and the probe that decides whether a map fits.

A wrong map gives numbers, too: floats with their words exchanged, the registers of a sister model, an energy before its
transformer. So nothing is published before the probe passes, at every poll:

- every float is 0 or of a size that a meter shows;
- every voltage that is not zero lies within 80-300 V, and one at least is not zero;
- the frequency within 45-65 Hz, a power factor within -1 and 1;
- no energy is negative; a total is the sum of its tariffs, and of import and export, where the map has them;
- active power is no more than voltage times current (and a tenth), on each phase that has all three;
- the meter keeps no transformer ratio, or the configuration says that this is settled (`transformers`): whether registers are
  multiplied already differs, and what they are multiplied by is the gateway's to do (`ct` and `pt` of a device).

Sources: Eastron: volkszaehler/mbmd sdm.go, ESPHome sdm_meter (which reads 80 registers at once of every model). Chint: mbmd
dtsu666.go, gerontec/dtsu666 README, Tasmota xnrg_11_ddsu666. Acrel: manuals of ADL3000-E and DDSY1352, aggsoft.com.
None was tried on a meter here; `source` of each map says where it is from.

Limits: 3 blocks a map, 64 fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from drivers.kit import Reading, Reason, Rejected
from drivers.kit.fields import real32
from drivers.protocols.modbus import READ_HOLDING, READ_INPUT, Block

KILO: Final = Decimal("0.001")
# Floats with their words exchanged are mostly far below or beyond.
LEAST, MOST = Decimal("1E-30"), Decimal("1E12")
ONE: Final = Decimal(1)


@dataclass(frozen=True, slots=True)
class Field:
    """One value: its first register, how it is written ("f32", "u32", "s32", "u16", "s16", high word first), what it is.

    `factor`: what a number is multiplied by to be in the unit of its quantity.
    """

    register: int
    kind: str
    quantity: str
    channel: str = ""
    factor: Decimal = ONE


@dataclass(frozen=True, slots=True)
class Own:
    """A transformer ratio that the meter itself keeps: its register, and what it says when there is none."""

    ratio: str
    register: int
    kind: str
    none: int


@dataclass(frozen=True, slots=True)
class RegisterMap:
    """One model or variant. `total`: the quantity that import and export add up to, see `_sums`; "" for none.

    `serial`: two registers with the number of the meter, high word first, which not every meter of the model has.
    """

    source: str
    blocks: tuple[Block, ...]
    fields: tuple[Field, ...]
    own: tuple[Own, ...] = ()
    total: str = ""
    serial: Block | None = None


_PHASES: Final = ("A", "B", "C")


def _each(register: int, kind: str, quantity: str, *, step: int, factor: Decimal) -> tuple[Field, ...]:
    """Return a field for each phase, from `register` on."""
    return tuple(Field(register + step * index, kind, quantity, phase, factor) for index, phase in enumerate(_PHASES))


def _float(register: int, quantity: str, channel: str = "", factor: Decimal = ONE) -> Field:
    return Field(register, "f32", quantity, channel, factor)


def _floats(register: int, quantity: str, factor: Decimal = ONE) -> tuple[Field, ...]:
    return _each(register, "f32", quantity, step=2, factor=factor)


def _words(register: int, kind: str, quantity: str, factor: str) -> tuple[Field, ...]:
    return _each(register, kind, quantity, step=1, factor=Decimal(factor))


_SDM_ENERGY: Final = (
    _float(0x0046, "frequency"),
    _float(0x0048, "energy_active_import"),
    _float(0x004A, "energy_active_export"),
    _float(0x004C, "energy_reactive_import"),
    _float(0x004E, "energy_reactive_export"),
    _float(0x0156, "energy_active_combined"),
)
# nmakel/sdm_modbus, issue 28 and pull request 18: tried by others on SDM120, SDM230 and SDM630.
_SDM_SERIAL: Final = Block(READ_HOLDING, 0xFC00, 2)
_SDM_SINGLE: Final = RegisterMap(
    source="Eastron SDM120, SDM220, SDM230",
    blocks=(Block(READ_INPUT, 0x0000, 80), Block(READ_INPUT, 0x0156, 4, optional=True)),
    fields=(
        _float(0x0000, "voltage", "A"),
        _float(0x0006, "current", "A"),
        _float(0x000C, "power_active", "A", KILO),
        _float(0x0012, "power_apparent", "A", KILO),
        _float(0x0018, "power_reactive", "A", KILO),
        _float(0x001E, "power_factor", "A"),
        *_SDM_ENERGY,
    ),
    total="energy_active_combined",
    serial=_SDM_SERIAL,
)
_SDM_THREE: Final = RegisterMap(
    source="Eastron SDM630",
    blocks=(Block(READ_INPUT, 0x0000, 80), Block(READ_INPUT, 0x0156, 22, optional=True)),
    fields=(
        *_floats(0x0000, "voltage"),
        *_floats(0x0006, "current"),
        *_floats(0x000C, "power_active", KILO),
        *_floats(0x0012, "power_apparent", KILO),
        *_floats(0x0018, "power_reactive", KILO),
        *_floats(0x001E, "power_factor"),
        _float(0x0034, "power_active", "", KILO),
        _float(0x0038, "power_apparent", "", KILO),
        _float(0x003C, "power_reactive", "", KILO),
        _float(0x003E, "power_factor"),
        *_SDM_ENERGY,
        *_floats(0x015A, "energy_active_import"),
        *_floats(0x0160, "energy_active_export"),
    ),
    total="energy_active_combined",
    serial=_SDM_SERIAL,
)
_SDM72: Final = RegisterMap(
    source="Eastron SDM72 (which shows no voltages: the sum of its energies is all that proves it)",
    blocks=(Block(READ_INPUT, 0x0034, 2), Block(READ_INPUT, 0x0048, 4), Block(READ_INPUT, 0x0156, 6)),
    fields=(
        _float(0x0034, "power_active", "", KILO),
        _float(0x0048, "energy_active_import"),
        _float(0x004A, "energy_active_export"),
        _float(0x0156, "energy_active_combined"),
    ),
    total="energy_active_combined",
)


def _dtsu666(energy: int) -> RegisterMap:
    """Return Chint's three-phase meter; its energies stand at 101E or 401E, by the variant."""
    tenth, thousandth = Decimal("0.1"), Decimal("0.001")
    return RegisterMap(
        source=f"Chint DTSU666, energy at {energy:04X}",
        blocks=(
            Block(READ_HOLDING, 0x0006, 2),
            Block(READ_HOLDING, 0x2000, 70),
            Block(READ_HOLDING, energy, 12),
        ),
        fields=(
            *_floats(0x2006, "voltage", tenth),
            *_floats(0x200C, "current", thousandth),
            Field(0x2012, "f32", "power_active", "", tenth * KILO),
            *_floats(0x2014, "power_active", tenth * KILO),
            Field(0x201A, "f32", "power_reactive", "", tenth * KILO),
            *_floats(0x201C, "power_reactive", tenth * KILO),
            Field(0x202A, "f32", "power_factor", "", thousandth),
            *_floats(0x202C, "power_factor", thousandth),
            Field(0x2044, "f32", "frequency", "", Decimal("0.01")),
            Field(energy, "f32", "energy_active_import", "", ONE),
            Field(energy + 10, "f32", "energy_active_export", "", ONE),
        ),
        own=(Own("ct", 0x0006, "u16", 1), Own("pt", 0x0007, "u16", 10)),
    )


_DDSU666: Final = RegisterMap(
    source="Chint DDSU666",
    blocks=(Block(READ_HOLDING, 0x2000, 16), Block(READ_HOLDING, 0x4000, 12)),
    fields=(
        _float(0x2000, "voltage", "A"),
        _float(0x2002, "current", "A"),
        _float(0x2004, "power_active", "A"),
        _float(0x2006, "power_reactive", "A"),
        _float(0x200A, "power_factor", "A"),
        _float(0x200E, "frequency"),
        _float(0x4000, "energy_active_import"),
        _float(0x400A, "energy_active_export"),
    ),
)
_HUNDREDTH: Final = Decimal("0.01")


def _tariffs(register: int, quantity: str) -> tuple[Field, ...]:
    """Return a total and four tariffs of two registers each, in hundredths of a kilowatt hour."""
    channels = ("", "T1", "T2", "T3", "T4")
    return tuple(
        Field(register + 2 * index, "u32", quantity, channel, _HUNDREDTH) for index, channel in enumerate(channels)
    )


_ACREL_THREE: Final = RegisterMap(
    source="Acrel ADL3000, ADL400, DTSD1352",
    blocks=(Block(READ_HOLDING, 0x0000, 30), Block(READ_HOLDING, 0x0061, 23)),
    fields=(
        *_tariffs(0x0000, "energy_active_combined"),
        *_tariffs(0x000A, "energy_active_import"),
        *_tariffs(0x0014, "energy_active_export"),
        *_words(0x0061, "u16", "voltage", "0.1"),
        *_words(0x0064, "u16", "current", "0.01"),
        *_words(0x0067, "s16", "power_active", "0.001"),
        Field(0x006A, "s16", "power_active", "", KILO),
        *_words(0x006B, "s16", "power_reactive", "0.001"),
        Field(0x006E, "s16", "power_reactive", "", KILO),
        *_words(0x006F, "u16", "power_apparent", "0.001"),
        Field(0x0072, "u16", "power_apparent", "", KILO),
        *_words(0x0073, "s16", "power_factor", "0.001"),
        Field(0x0076, "s16", "power_factor", "", KILO),
        Field(0x0077, "u16", "frequency", "", _HUNDREDTH),
    ),
    total="energy_active_combined",
)
_ACREL_SINGLE: Final = RegisterMap(
    source="Acrel DDSY1352",
    blocks=(Block(READ_HOLDING, 0x0000, 17),),
    fields=(
        *_tariffs(0x0000, "energy_active_combined"),
        Field(0x000B, "u16", "voltage", "A", Decimal("0.1")),
        Field(0x000C, "u16", "current", "A", _HUNDREDTH),
        Field(0x000D, "s16", "power_active", "A", KILO),
        Field(0x000F, "u16", "power_apparent", "A", KILO),
        Field(0x0010, "s16", "power_factor", "A", KILO),
    ),
)

MAPS: Final[Mapping[str, RegisterMap]] = {
    "eastron-sdm120": _SDM_SINGLE,
    "eastron-sdm230": _SDM_SINGLE,
    "eastron-sdm630": _SDM_THREE,
    "eastron-sdm72": _SDM72,
    "chint-dtsu666": _dtsu666(0x101E),
    "chint-dtsu666-401e": _dtsu666(0x401E),
    "chint-ddsu666": _DDSU666,
    "acrel-dtsd1352": _ACREL_THREE,
    "acrel-ddsy1352": _ACREL_SINGLE,
}

Registers = Mapping[int, bytes]
"""Register -> its two bytes, for those that were read."""
_SIZES: Final = {"f32": 2, "u32": 2, "s32": 2, "u16": 1, "s16": 1}


def read(chosen: RegisterMap, registers: Registers, *, settled: bool) -> tuple[Reading, ...]:
    """Return the readings of a map, once the probe has passed. `settled`: what the meter's own transformers mean is known.

    Fields whose block the meter does not have are left out. Raises Rejected(IMPLAUSIBLE) where the probe does not pass,
    MALFORMED where nothing was read.
    """
    if not settled:
        _own_ratios(chosen, registers)
    found: dict[tuple[str, str], Decimal] = {}
    for one in chosen.fields:
        raw = _raw(registers, one.register, _SIZES[one.kind])
        if raw is None:
            continue
        number = _number(one.kind, raw)
        if number is None or (number and not LEAST <= abs(number) <= MOST):
            raise Rejected(Reason.IMPLAUSIBLE, f"{one.quantity} {one.channel} = {raw.hex()} is no number of a meter")
        found[one.quantity, one.channel] = number * one.factor
    if not found:
        raise Rejected(Reason.MALFORMED, "no register was read")
    probe(chosen, found)
    return tuple(Reading(quantity, value, channel) for (quantity, channel), value in found.items())


def number_of(registers: bytes) -> str:
    """Return a meter's number from its two registers, "" where it has none."""
    number = int.from_bytes(registers, "big")
    return "" if number in (0, 0xFFFFFFFF) else str(number)


def _raw(registers: Registers, first: int, count: int) -> bytes | None:
    words = [registers.get(first + index) for index in range(count)]
    return None if None in words else b"".join(word or b"" for word in words)


def _number(kind: str, raw: bytes) -> Decimal | None:
    return real32(raw) if kind == "f32" else Decimal(int.from_bytes(raw, "big", signed=kind[0] == "s"))


def _own_ratios(chosen: RegisterMap, registers: Registers) -> None:
    """See that the meter has no transformer of which the configuration says nothing. Raises Rejected."""
    for own in chosen.own:
        raw = _raw(registers, own.register, 1)
        said = None if raw is None else int.from_bytes(raw, "big")
        if said not in (None, own.none):
            raise Rejected(
                Reason.IMPLAUSIBLE,
                f"the meter keeps {own.ratio} = {said}, not {own.none}: compare with its dial, then set map.transformers",
            )


def probe(chosen: RegisterMap, found: Mapping[tuple[str, str], Decimal]) -> None:
    """See that values are those of a meter on a supply. Raises Rejected(IMPLAUSIBLE) with what is not."""
    volts = {key: value for key, value in found.items() if key[0] == "voltage"}
    if volts and not any(volts.values()):
        raise _odd("every voltage is 0")
    for (_, channel), value in volts.items():
        if value and not 80 <= value <= 300:
            raise _odd(f"voltage {channel} = {value} V")
    for (quantity, channel), value in found.items():
        if quantity == "frequency" and not 45 <= value <= 65:
            raise _odd(f"frequency = {value} Hz")
        if quantity == "power_factor" and abs(value) > Decimal("1.001"):
            raise _odd(f"power factor {channel} = {value}")
        if quantity.startswith("energy_") and value < 0:
            raise _odd(f"{quantity} {channel} = {value}")
    _powers(found)
    _sums(chosen, found)


def _powers(found: Mapping[tuple[str, str], Decimal]) -> None:
    for phase in _PHASES:
        power = found.get(("power_active", phase))
        volts, amperes = found.get(("voltage", phase)), found.get(("current", phase))
        if power is None or volts is None or amperes is None:
            continue
        most = abs(volts * amperes) * KILO
        # Small loads are below what a current shows.
        if abs(power) > most * Decimal("1.1") + volts * KILO * Decimal("0.05"):
            raise _odd(f"power {phase} = {power} kW of {volts} V and {amperes} A")


def _sums(chosen: RegisterMap, found: Mapping[tuple[str, str], Decimal]) -> None:
    """See that totals are sums: of tariffs, and of import and export (or their difference, or import alone, as it is set)."""
    for (quantity, channel), total in found.items():
        parts = [found[quantity, f"T{tariff}"] for tariff in range(1, 5) if (quantity, f"T{tariff}") in found]
        if channel == "" and parts and abs(sum(parts) - total) > Decimal("0.05") + total * Decimal("0.0001"):
            raise _odd(f"{quantity} = {total} kWh, its tariffs are {sum(parts)} kWh together")
    total_of = found.get((chosen.total, "")) if chosen.total else None
    one, other = found.get(("energy_active_import", "")), found.get(("energy_active_export", ""))
    if total_of is None or one is None or other is None:
        return
    # Registers of one float are read one after the other, and a float of 10^6 kWh has steps of 0.06.
    margin = Decimal("0.5") + total_of * Decimal("0.0001")
    if not any(_near(total_of, wanted, margin) for wanted in (one + other, one - other, one)):
        raise _odd(f"total {total_of} kWh, import {one} kWh, export {other} kWh")


def _near(one: Decimal, other: Decimal, margin: Decimal) -> bool:
    return abs(one - other) <= margin


def _odd(what: str) -> Rejected:
    return Rejected(Reason.IMPLAUSIBLE, f"the probe does not pass: {what}; is it this model, and this variant?")


def covered(chosen: RegisterMap) -> Sequence[int]:
    """Return the registers of fields and ratios that no block of the map reads: none, in a map that is whole."""
    read = {block.first + index for block in chosen.blocks for index in range(block.count)}
    wanted = {one.register + index for one in chosen.fields for index in range(_SIZES[one.kind])}
    return sorted((wanted | {own.register for own in chosen.own}) - read)

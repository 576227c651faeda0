"""What BTHome objects mean here, the same for a button, a detector and a sensor: a maker may put any object into any of them.

    3A button                                     a call, whatever its code
    29 smoke · 1C gas · 17 carbon monoxide        a hazard, on or off
    20 moisture (flag)                            a water leak, on or off
    11 opening · 1A door · 1B garage · 2D window  an opening, on while open
    21 motion · 22 moving · 2C vibration          told, on or off
    23 occupancy · 25 presence                    somebody is there
    15 battery low · 2B tamper · 26 problem       a fault of the device
    28 safety                                     a problem while it is NOT safe (bthome.io: 0 unsafe, 1 safe)
    01 battery, temperatures, humidity, light, pressure, air quality, soil moisture, voltage, current, power: readings

Where several ids have one kind, the channel is the object's name; where an object stands there several times, its number
follows, as for buttons. The rest (locks, plugs, heat, cold, sound, counts, masses, volumes, energy of no known direction,
times, texts) is read past: nobody is called by it, and no quantity of ours is sure to be meant.

Home Assistant reads 28 the other way round; we hold to the specification.
Limits: a percentage above 100 is refused, the rest of the packet stands.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from drivers.kit import Advert, Decoded, Observation, Reading, Signal, SignalKind
from drivers.protocols import bthome

_SAFETY: Final = 0x28
# The second is the channel, where several ids share a kind.
_STATES: Final[Mapping[int, tuple[SignalKind, str]]] = {
    0x11: (SignalKind.OPENING, "opening"),
    0x1A: (SignalKind.OPENING, "door"),
    0x1B: (SignalKind.OPENING, "garage_door"),
    0x2D: (SignalKind.OPENING, "window"),
    0x15: (SignalKind.LOW_BATTERY, ""),
    0x17: (SignalKind.CARBON_MONOXIDE, ""),
    0x1C: (SignalKind.GAS, ""),
    0x20: (SignalKind.WATER_LEAK, ""),
    0x21: (SignalKind.MOTION, ""),
    0x22: (SignalKind.VIBRATION, "moving"),
    0x2C: (SignalKind.VIBRATION, "vibration"),
    0x23: (SignalKind.OCCUPANCY, "occupancy"),
    0x25: (SignalKind.OCCUPANCY, "presence"),
    0x26: (SignalKind.PROBLEM, "problem"),
    _SAFETY: (SignalKind.PROBLEM, "safety"),
    0x29: (SignalKind.SMOKE, ""),
    0x2B: (SignalKind.TAMPER, ""),
}
# Our quantity by the name of an object, and what one of its units is in ours.
_QUANTITIES: Final[Mapping[str, tuple[str, Decimal]]] = {
    "power": ("power_active", Decimal("0.001")),
    **{
        name: (name, Decimal(1))
        for name in (
            "battery", "temperature", "humidity", "illuminance", "dew_point", "pressure", "co2", "pm2_5", "pm10", "tvoc",
            "moisture", "voltage", "current",
        )
    },
}  # fmt: skip
_PERCENTAGES: Final = frozenset({"battery", "humidity", "moisture"})
_FULL: Final = 100


def decode(advert: Advert, key: bytes | None) -> Decoded:
    """Read one advert. Raises Rejected; what is encrypted and cannot be read carries its counter."""
    packet = bthome.parse(advert, key)
    found: list[Observation] = [Signal(SignalKind.CALL, code, channel) for channel, code in packet.presses()]
    refused: list[str] = []
    many = Count(_thing(item) for item in packet.items)
    seen: Count[str] = Count()
    for item in packet.items:
        thing = _thing(item)
        seen[thing] += 1
        number = str(seen[thing]) if many[thing] > 1 else ""
        if state := _STATES.get(item.id):
            kind, name = state
            found.append(Signal(kind, channel=f"{name}{number}", level=bool(item.value) is (item.id != _SAFETY)))
        elif (quantity := _QUANTITIES.get(item.name)) and isinstance(item.value, Decimal):
            if item.name in _PERCENTAGES and item.value > _FULL:
                refused.append(f"{item.name} = {item.value} %")
            else:
                found.append(Reading(quantity[0], _scaled(item.value, quantity[1]), number))
    return Decoded(tuple(found), packet.counter, packet.authenticated, refused=tuple(refused))


def _thing(item: bthome.Item) -> str:
    """Return what items must share to be told apart by number: a quantity may stand there under two ids."""
    return item.name if item.name in _QUANTITIES else f"{item.id:02x}"


def _scaled(value: Decimal, factor: Decimal) -> Decimal:
    return value if factor == 1 else value * factor

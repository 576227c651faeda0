"""The house of a run: call buttons and tags of nine protocols, how each is pressed, and how long it rests after that.

Device time is compressed: many devices press side by side, each as often as its protocol lets two presses be told apart. A
protocol that counts is pressed every few seconds; a tag that only shows a state rests until its state must have ended
(`level_hold_s` of its driver: 25 s; a beacon slot of 6 s and 5 s more), and as long again as a busy machine may hold up an
advert before the gateway reads it.
Limits: 1 to 4,000 devices; addresses are drawn from the seed, keys too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from simulator.ble_devices import BleDevice, BthomeButton, IngicsPendant
from simulator.ble_mibeacon import MibeaconButton
from simulator.ble_tags import BeaconTag, EnoceanSwitch, HolyiotButton, MinewButton, MokoButton

MAX_DEVICES: Final = 4_000
_LEVEL_REST_S: Final = (35.0, 42.0)
_SLOT_REST_S: Final = (22.0, 27.0)
_COUNTED_REST_S: Final = (2.0, 5.0)
_COUNTER: Final = 1_000


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a kind of device is pressed.

    `counts`: its events carry a counter; `proves`: a key proves what it says. `share` of a house of 100 devices; `codes` it
    is pressed with; `ends`: adverts with which it says that the press is over; `falls`: it can fall, too.
    """

    name: str
    model: str
    share: int
    make: Callable[[str, bytes, random.Random], BleDevice]
    counts: bool = True
    proves: bool = False
    rest_s: tuple[float, float] = _COUNTED_REST_S
    codes: tuple[str, ...] = ("press",)
    ends: int = 0
    falls: bool = False
    retells: bool = False
    """Each sign of life tells the last press again, with its count."""
    map: Mapping[str, Any] = field(default_factory=dict)


def _beacon_map(uuid: str) -> Mapping[str, Any]:
    return {"slot_s": 6, "slot": [{"is": "content-change", "uuid": uuid, "major": 1, "minor": 2}]}


_BEACON: Final = _beacon_map("7777772e-6b6b-6d63-6e2e-636f6d000001")

PROTOCOLS: Final = (
    Protocol("BTHome, encrypted", "bthome-button", 20, lambda address, key, _: BthomeButton(address, key=key, counter=_COUNTER),
             proves=True, codes=("press", "double", "long", "hold")),
    Protocol("BTHome, plain", "bthome-button", 8,
             lambda address, _, rng: BthomeButton(address, key=None, counter=rng.randrange(256)), codes=("press", "triple")),
    Protocol("MiBeacon, encrypted", "xiaomi-mibeacon", 10,
             lambda address, key, _: MibeaconButton(address, key=key, counter=_COUNTER), proves=True,
             codes=("press", "double", "long")),
    Protocol("EnOcean PTM", "enocean-ptm", 10, lambda address, key, _: EnoceanSwitch(address, key=key, sequence=_COUNTER),
             proves=True),
    Protocol("MOKO, counting", "moko-tag", 6, lambda address, _, rng: MokoButton(address, presses=rng.randrange(1 << 15)),
             retells=True),
    Protocol("iBeacon slot", "beacon-button", 14, lambda address, _key, _rng: BeaconTag.of(address, _BEACON), counts=False,
             rest_s=_SLOT_REST_S, codes=("press", "double", "long"), map=_BEACON),
    Protocol("Ingics, state", "ingics-ibs", 16, lambda address, _key, _rng: IngicsPendant(address), counts=False,
             rest_s=_LEVEL_REST_S, ends=5, falls=True),
    Protocol("Minew, state", "minew-tag", 8, lambda address, _key, _rng: MinewButton(address), counts=False,
             rest_s=_LEVEL_REST_S, ends=5),
    Protocol("HolyIOT, state", "holyiot-tag", 8, lambda address, _key, _rng: HolyiotButton(address), counts=False,
             rest_s=_LEVEL_REST_S, ends=5),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """One device of the house. `loss`: the share of its adverts that the radio loses."""

    id: str
    protocol: Protocol
    device: BleDevice
    key: str | None
    loss: float
    rssi: float


def furnish(count: int, *, seed: int) -> list[Member]:
    """Draw a house of about `count` devices, at least one of each protocol. ValueError beyond the limits."""
    rng = random.Random(seed)  # noqa: S311 - a rehearsal that can be repeated
    if not 0 < count <= MAX_DEVICES:
        raise ValueError(f"{count} devices: from 1 to {MAX_DEVICES}")
    members = []
    for number, protocol in enumerate(PROTOCOLS):
        for seat in range(max(1, round(protocol.share * count / 100))):
            address = (
                f"E2:{number:02X}:{seat >> 8:02X}:{seat & 0xFF:02X}:{rng.randrange(256):02X}:{rng.randrange(256):02X}"
            )
            key = rng.randbytes(16)
            members.append(
                Member(
                    id=f"{protocol.model}-{number}-{seat}",
                    protocol=protocol,
                    device=protocol.make(address, key, rng),
                    key=key.hex() if protocol.proves else None,
                    loss=rng.choice((0.0, 0.1, 0.3, 0.5, 0.7)),
                    rssi=rng.uniform(-85, -50),
                )
            )
    return members

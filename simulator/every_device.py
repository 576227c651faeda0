"""Every kind of device that the gateway hears, each used once: pressed, fallen in front of, opened, smoked at.

What the simulator can build itself it builds; of the others the frame that was published stands for the device (the vector of
its driver, whose `source` says where it is from). A use says what must come of it: one event of one type and kind, no more.
Not here: meters, which are asked (`bus`), and what comes from a broker (`mqtt-topic`, `zigbee2mqtt`).
Limit: each device is used once, so its repeats are those of one use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from drivers.kit import Advert, Advertises, Decoded, Signal, catalogue
from simulator import receivers
from simulator.ble_devices import (
    BTHOME_UUID,
    BleDevice,
    BthomeButton,
    IngicsPendant,
    Payload,
    bthome_encrypted,
    bthome_plain,
    ingics,
)
from simulator.ble_mibeacon import MIBEACON, MibeaconButton, mibeacon
from simulator.ble_tags import BeaconTag, EnoceanSwitch, HolyiotButton, MinewButton, MokoButton
from simulator.bluez_objects import Report

ALARM: Final = "alarm.raised"
CHANGED: Final = "sensor.changed"
BED: Final = "bed.occupancy"
_KEY: Final = bytes(range(16))
_UUID: Final = "7777772e-6b6b-6d63-6e2e-636f6d000001"
_BEACON: Final = {"slot_s": 1, "slot": [{"is": "content-change", "uuid": _UUID, "major": 1, "minor": 2}]}
_PS1BB: Final = 0x3F4C
_ADVERT_S: Final = 0.08


@dataclass(frozen=True, slots=True)
class Use:
    """One device and its one use. `told` and `kind`: the event that must come of it, once.

    On the air: `rest` is what it says before, `says` what it says then, 4 times over. On a line of its own (`baud`): `frames`,
    each 3 times over; or `system`, the name of what holds a conversation there.
    """

    device: str
    model: str
    kind: str = "call"
    told: str = ALARM
    address: str = ""
    key: bytes | None = None
    map: Mapping[str, Any] = field(default_factory=dict)
    rest: Payload | None = None
    says: Payload | None = None
    frames: Sequence[bytes] = ()
    baud: int = 0
    system: str = ""

    @property
    def is_air(self) -> bool:
        """Is it heard by radio?"""
        return self.says is not None


def uses() -> list[Use]:
    """Return every device, the air first."""
    own = [*_buttons(), *_sensors()]
    return [*own, *_published({one.model for one in own}), *_receivers(), *_systems()]


def _buttons() -> list[Use]:
    shelly = BthomeButton("A4:C1:38:E0:00:01", key=_KEY, counter=100)
    xiaomi = MibeaconButton("18:C2:3C:E0:00:03", key=_KEY, counter=500)
    enocean = EnoceanSwitch("E2:15:00:E0:00:04", key=_KEY, sequence=900)
    beacon = BeaconTag.of("AC:23:3F:E0:00:05", _BEACON)
    moko = MokoButton("E0:00:00:E0:00:06", presses=40)
    pendant = IngicsPendant("E8:56:71:E0:00:07")
    minew, holyiot = MinewButton("AC:23:31:E0:00:08"), HolyiotButton("C6:B5:45:E0:00:09")
    plain = BthomeButton("A4:C1:38:E0:00:02", key=None, counter=7)
    pressed: tuple[tuple[str, BleDevice, bytes | None, Mapping[str, Any]], ...] = (
        ("bthome-button", shelly, _KEY, {}), ("xiaomi-mibeacon", xiaomi, _KEY, {}), ("enocean-ptm", enocean, _KEY, {}),
        ("beacon-button", beacon, None, _BEACON), ("moko-tag", moko, None, {}), ("minew-tag", minew, None, {}),
        ("holyiot-tag", holyiot, None, {}),
    )  # fmt: skip
    found = [
        Use(
            device=model,
            model=model,
            address=device.address,
            key=key,
            map=options,
            rest=device.heartbeat(),
            says=device.press("press"),
        )
        for model, device, key, options in pressed
    ]
    return [
        *found,
        Use("bthome-button-plain", "bthome-button", address=plain.address, says=plain.press("long")),
        Use("ingics-ibs", "ingics-ibs", kind="fall", address=pendant.address, rest=pendant.heartbeat(), says=pendant.fall()),
    ]  # fmt: skip


def _sensors() -> list[Use]:
    """Sensors that speak BTHome: smoke, water, gas and carbon monoxide behind a key, a door. A pad that says a bed is left."""
    found = []
    kinds = (
        ("smoke", "smoke", "29"),
        ("water", "water_leak", "20"),
        ("gas", "gas", "1c"),
        ("co", "carbon_monoxide", "17"),
    )
    for seat, (name, kind, object_id) in enumerate(kinds):
        address = f"A4:C1:38:E0:01:{seat:02X}"
        rest, says = (_sealed(address, object_id, level, count=1 + level) for level in (0, 1))
        found.append(Use(f"bthome-{name}", "bthome-detector", kind, address=address, key=_KEY, rest=rest, says=says))
    door, bed = "A4:C1:38:E0:01:09", "18:C2:3C:E0:01:0A"
    return [
        *found,
        Use("bthome-door", "bthome-sensor", "opening", CHANGED, door, rest=_plain("1a00", 1), says=_plain("1a01", 2)),
        Use(
            "xiaomi-bed", "xiaomi-mibeacon", "bed_exit", BED, bed, _KEY, rest=_pad(bed, 1, 700), says=_pad(bed, 0, 701)
        ),
    ]


def _pad(address: str, level: int, counter: int) -> Payload:
    """Return what a PS1BB under a mattress says: object 483C, 1 while it is pressed."""
    objects = bytes.fromhex("3c4801") + bytes([level])
    return Payload(service_data={MIBEACON: mibeacon(_PS1BB, objects, address=address, key=_KEY, counter=counter)})


def _sealed(address: str, object_id: str, level: int, *, count: int) -> Payload:
    objects = bytes.fromhex(object_id) + bytes([level])
    return Payload(service_data={BTHOME_UUID: bthome_encrypted(objects, address=address, key=_KEY, counter=count)})


def _plain(objects: str, packet: int) -> Payload:
    return Payload(service_data={BTHOME_UUID: bthome_plain(bytes((0, packet)) + bytes.fromhex(objects))})


# What of a model's published frames stands for the device, and what must come of it. What comes before it is the next.
_PUBLISHED: Final = (
    ("xiaomi-mibeacon", "xiaomi-smoke", ALARM, "smoke"),
    ("xiaomi-mibeacon", "xiaomi-door", CHANGED, "opening"),
    ("blueup-tag", "blueup-tag", ALARM, "call"),
    ("ela-puck", "ela-puck", ALARM, "call"),
    ("mikrotik-tg-bt5", "mikrotik-tg-bt5", ALARM, "fall"),
    ("nodon-niu", "nodon-niu", ALARM, "call"),
    ("qingping-sensor", "qingping-door", CHANGED, "opening"),
    ("switchbot-sensor", "switchbot-leak", ALARM, "water_leak"),
    ("teltonika-eye", "teltonika-door", CHANGED, "opening"),
)


def _published(own: set[str]) -> list[Use]:
    """Take the published adverts of the devices that are not built here. LookupError: a model that nobody uses."""
    named = {model for model, *_ in _PUBLISHED}
    advertising = {model for model in catalogue.models() if isinstance(catalogue.driver(model), Advertises)}
    if left_out := advertising - named - own:
        raise LookupError(f"nobody uses {', '.join(sorted(left_out))}: add them to simulator.every_device")
    return [_of_vector(*one, seat=seat) for seat, one in enumerate(_PUBLISHED)]


def _of_vector(model: str, device: str, told: str, kind: str, *, seat: int) -> Use:
    driver = catalogue.driver(model)
    assert isinstance(driver, Advertises)  # noqa: S101 - the list above names such only
    for vector in driver.vectors:
        if isinstance(vector.expect, Decoded) and any(
            isinstance(one, Signal) and one.kind.value == kind and one.level is not False
            for one in vector.expect.observations
        ):
            # A key fits one address; where there is none, devices of one published address must be told apart.
            address = vector.advert.address if vector.key else f"E8:E8:E8:E0:02:{seat:02X}"
            return Use(
                device=device,
                model=model,
                kind=kind,
                told=told,
                address=address,
                key=vector.key,
                map=vector.options,
                says=_payload(vector.advert),
            )
    raise LookupError(f"{model} has no vector of {kind}")


def _payload(advert: Advert) -> Payload:
    return Payload(advert.name, advert.service_data, advert.manufacturer_data)


def _receivers() -> list[Use]:
    beacon = [
        receivers.ingics_line("E856715A54F5", 0x0059, ingics("ibs01g", battery_centivolts=314, events=events))
        for events in (0, 1)
    ]
    water = {"signal": [{"field": "code", "equals": 983141, "is": "water_leak", "code": "wet"}]}
    return [
        Use("esp3-rocker", "enocean-esp3", address="00298979", baud=57600,
            frames=(receivers.rocker("00298979", pressed=True), receivers.rocker("00298979", pressed=False))),
        Use("board-remote", "ev1527-board", address="CD46B", baud=9600, frames=(receivers.board("cd46be"),)),
        Use("sonoff-remote", "sonoff-rf-bridge", address="D0FC3", baud=19200, frames=(receivers.sonoff("d0fc38"),)),
        Use("sonoff-door", "sonoff-rf-bridge", "opening", CHANGED, "A1B2C", map={"keys": {"E": "opening", "7": "closed"}},
            baud=19200, frames=(receivers.sonoff_raw("a1b2ce"),)),
        Use("rtl433-water", "rtl433", "water_leak", address="DY-SQ100B-WaterLeak-EV1527/983141", map=water, baud=115200,
            frames=(receivers.rtl433(model="DY-SQ100B-WaterLeak-EV1527", data="0f0065", code=983141),)),
        Use("ingics-gateway", "ingics-gateway", address="E856715A54F5", baud=115200, frames=beacon),
        Use("ld2410", "ld2410", "occupancy", BED, baud=256000, frames=(receivers.ld2410(0), receivers.ld2410(2, still_cm=477))),
        Use("ld2450", "ld2450", "occupancy", BED, baud=256000, frames=(receivers.ld2450(), receivers.ld2450((-782, 1713)))),
        Use("mr24fdb1", "mr24fdb1", "fall", baud=9600,
            frames=(receivers.mr24_fall(fallen=False), receivers.mr24_fall(fallen=True))),
    ]  # fmt: skip


def _systems() -> list[Use]:
    call = {"signal": [{"field": "call", "equals": 1, "is": "call", "code": "wired"}]}
    return [
        Use("espa-bed", "espa444", address="3011", baud=9600, system="espa444"),
        Use("tap-bed", "tap", address="301", baud=1200, system="tap"),
        Use("andar-radar", "andar-radar", kind="fall", baud=115200, system="andar-radar"),
        Use("micradar", "micradar", kind="fall", baud=115200, system="micradar"),
        Use("json-board", "json-lines", address="b1", map=call, baud=115200, system="json-lines"),
    ]


async def say(use: Use, hear: Callable[[Report], object]) -> None:
    """Let a device of the air do its one thing."""
    for payload, times in ((use.rest, 2), (use.says, 4)):
        for turn in range(times if payload is not None else 0):
            assert payload is not None  # noqa: S101 - as the line above says
            rssi = -60 - turn
            hear(Report(use.address, rssi, payload.name, payload.service_data, payload.manufacturer_data))
            await asyncio.sleep(_ADVERT_S)

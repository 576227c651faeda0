"""BTHome adverts published by others: every line is right, refused by name, or listed here with the reason.

Lines of `tests/data/captures/bthome-button/`; `source` in each says where it is from.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.devices.bthome_button import DRIVER
from drivers.kit import Advert, Reading, Reason, Rejected, Signal, SignalKind
from drivers.protocols import bthome

CAPTURES = Path(__file__).parents[1] / "data" / "captures" / "bthome-button"
Line = dict[str, Any]

# What publishers call our items. The rest of their names are ours.
NAMES = {
    "mass": ("mass_kg", "mass_lb"),
    "pm25": ("pm2_5",),
    "carbon_dioxide": ("co2",),
    "distance": ("distance_mm",),
    "volume": ("volume_l", "volume_ml"),
    "packet": ("packet_id",),
    "batt": ("battery",),
    "tempc": ("temperature",),
    "hum": ("humidity",),
    "lux": ("illuminance",),
    "open": ("window",),
    "rot": ("rotation",),
    "binary:power": ("power_on",),
    "isGasDetected": ("gas_detected",),
    "isMotionDetected": ("motion",),
    "isTamperDetected": ("tamper",),
    "isOccupancyDetected": ("occupancy", "presence"),
    "relativeHumidity": ("humidity",),
    "isContactDetected": ("door",),
}
CODES = {
    "press": "press",
    "double_press": "double",
    "double press": "double",
    "triple_press": "triple",
    "hold_press": "hold",
}
READ = {
    **{
        name: name
        for name in (
            "battery", "temperature", "humidity", "illuminance", "dew_point", "pressure", "co2", "pm2_5", "pm10", "tvoc",
            "moisture", "voltage", "current",
        )
    },
    "power": "power_active",
}  # fmt: skip
STATES = {
    "opening": SignalKind.OPENING,
    "door": SignalKind.OPENING,
    "garage_door": SignalKind.OPENING,
    "window": SignalKind.OPENING,
    "battery_low": SignalKind.LOW_BATTERY,
    "carbon_monoxide": SignalKind.CARBON_MONOXIDE,
    "gas_detected": SignalKind.GAS,
    "moisture_detected": SignalKind.WATER_LEAK,
    "motion": SignalKind.MOTION,
    "moving": SignalKind.VIBRATION,
    "vibration": SignalKind.VIBRATION,
    "occupancy": SignalKind.OCCUPANCY,
    "presence": SignalKind.OCCUPANCY,
    "problem": SignalKind.PROBLEM,
    "smoke": SignalKind.SMOKE,
    "tamper": SignalKind.TAMPER,
}
# Says what the device is, not what the advert says.
NOT_IN_THE_BYTES = {"type", "cont", "mac", "_decrypted"}

# Lines whose expectation is another than ours, on purpose: source -> why.
DIFFERENT = {
    (
        "tests/test_parser_v2.py::test_identical_packet_id",
        "400008",
    ): "expects the parser to remember 9; we keep no state",
    ("tests/test_parser_v2.py::test_downgrade_detected_flag_v2", "4004138a01"): (
        "expects plain data under a key to be ignored; we read it unauthenticated and the gateway judges"
    ),
    ("bthome.test.js:30 DOOR", "401a00"): "expects contact, which is the opposite of our open door",
    ("tests/test_parser_v2.py::test_bthome_event_dimmer_rotate_left_3_steps", "403c0103"): (
        "expects a dimmer event; we pass it by its size, a dimmer calls nobody"
    ),
    (
        "tests/test_parser_v2.py::test_bthome_timestamp",
        "44505d396164",
    ): "expects a date; we give its seconds, 1684093277",
}


def lines(name: str) -> list[Line]:
    return [json.loads(line) for line in (CAPTURES / name).read_text().splitlines()]


def advert(line: Line) -> Advert:
    data = {int(service, 16): bytes.fromhex(payload) for service, payload in line["service_data"].items()}
    return Advert(line.get("mac", "00:00:00:00:00:00"), line.get("name", ""), service_data=data)


def key(line: Line) -> bytes | None:
    return bytes.fromhex(line["key"]) if "key" in line else None


def why_different(line: Line) -> str | None:
    data = line["service_data"].get("fcd2")
    return next(
        (why for (source, bytes_), why in DIFFERENT.items() if source in line["source"] and data == bytes_), None
    )


def same(value: Decimal | bool | bytes, expected: object) -> bool:
    if isinstance(expected, list):
        (expected,) = expected
    if isinstance(value, bytes):
        return value.decode() == expected
    if isinstance(value, bool):
        return value == bool(expected)
    return value == Decimal(str(expected))


def check_items(packet: bthome.Packet, expected: Line) -> None:
    taken: list[bthome.Item] = []
    presses = dict(packet.presses())
    for published, value in expected.items():
        if published in NOT_IN_THE_BYTES:
            continue
        name, _, number = published.removeprefix("event:").rpartition("_")
        if not number.isdecimal():
            name, number = published.removeprefix("event:"), ""
        if name == "button":
            assert presses.get(number) == (CODES[value] if value else None), published
            continue
        names = NAMES.get(name, (name.removeprefix("binary:").replace(" ", "_"),))
        item = next(item for item in packet.items if item.name in names and item not in taken)
        taken.append(item)
        assert same(item.value, value), f"{published}: {item.value!r} is not {value!r}"


@pytest.mark.parametrize("line", lines("bthome_v2.jsonl"), ids=lambda line: line["source"].rpartition("/")[2])
def test_a_published_advert_means_what_its_publisher_says(line: Line) -> None:
    expected: Line = line.get("expected") or {}
    if why_different(line):
        bthome.parse(advert(line), key(line))
        return
    if expected.get("encrypted") or expected.get("_decrypted") is False:
        with pytest.raises(Rejected) as caught:
            DRIVER.decode(advert(line), key(line))
        assert caught.value.reason is (Reason.BAD_KEY if "key" in line else Reason.NO_KEY)
        if "counter_le" in expected:
            assert caught.value.counter
            assert caught.value.counter.value == int.from_bytes(bytes.fromhex(expected["counter_le"]), "little")
        return
    if line.get("expected") is None:
        with pytest.raises(Rejected) as caught:
            DRIVER.decode(advert(line), key(line))
        assert caught.value.reason is Reason.UNSUPPORTED
        return
    packet = bthome.parse(advert(line), key(line))
    check_items(packet, expected)
    assert packet.authenticated is bool(expected.get("_decrypted"))
    if "counter" in line.get("meta", {}):
        assert packet.counter
        assert packet.counter.value == line["meta"]["counter"]
    found = DRIVER.decode(advert(line), key(line)).observations
    told = [(item.name, item.value) for item in packet.items]
    readings = [(one.quantity, one.value) for one in found if isinstance(one, Reading)]
    assert readings == [
        (READ[name], value / 1000 if name == "power" else value) for name, value in told if name in READ
    ]
    states = [(one.kind, one.level) for one in found if isinstance(one, Signal) and one.kind is not SignalKind.CALL]
    assert states == [(STATES[name], value) for name, value in told if name in STATES]
    calls = [item.code for item in found if isinstance(item, Signal) and item.kind is SignalKind.CALL]
    assert calls == [CODES[value] for name, value in expected.items() if "button" in name and value]


def test_every_difference_is_still_there() -> None:
    assert sum(why_different(line) is not None for line in lines("bthome_v2.jsonl")) == len(DIFFERENT) == 5
    assert len(lines("bthome_v2.jsonl")) == 113


@pytest.mark.parametrize("line", lines("bthome_v1.jsonl"), ids=lambda line: line["source"].rpartition("::")[2])
def test_version_one_is_refused_by_name(line: Line) -> None:
    with pytest.raises(Rejected) as caught:
        DRIVER.decode(advert(line), key(line))
    assert caught.value.reason is Reason.UNSUPPORTED
